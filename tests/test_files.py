import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from emokd_utils.errors import InputError
from emokd_utils.files import (
    canonical_json,
    fingerprint,
    load_rows,
    load_tensors,
    save_rows,
    save_tensors,
    written_aside,
)


def test_a_key_does_not_depend_on_order_and_tells_values_apart():
    assert canonical_json({"b": (1, 2.5), "a": None}) == '{"a":null,"b":[1,2.5]}'
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": (2,), "a": 1})
    kinds = [1, 1.5, "1", True, None, [1], {"1": 1}]
    assert len({fingerprint(value) for value in kinds}) == len(kinds)


def test_arrays_and_tensors_come_back_as_they_were(tmp_path):
    path = tmp_path / "some.safetensors"
    view = np.arange(6, dtype=np.float32).reshape(2, 3).T
    kept = {"view": view, "scalar": torch.tensor(3), "flags": np.array([True, False])}
    save_tensors(path, kept, {"about": [1, "ä"]}, "some-1")
    arrays, about = load_tensors(path, "some-1")
    assert about == {"about": [1, "ä"]}
    assert np.array_equal(arrays["view"], view) and arrays["view"].dtype == np.float32
    assert arrays["scalar"].shape == () and arrays["scalar"] == 3
    assert arrays["flags"].tolist() == [True, False]


def test_what_is_no_such_file_is_refused(tmp_path):
    path = tmp_path / "some.safetensors"
    with pytest.raises(InputError, match="cannot be read"):
        load_tensors(path, "some-1")
    save_tensors(path, {"x": np.ones(100)}, {}, "some-1")
    with pytest.raises(InputError, match="format is 'some-1', not 'other-1'"):
        load_tensors(path, "other-1")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"some\.safetensors cannot be read"):
        load_tensors(path, "some-1")


def test_a_file_is_whole_or_as_before(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt), written_aside(path) as aside:
        aside.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


@given(st.permutations("abcdef"), st.lists(st.sampled_from("abcdef"), min_size=1, max_size=8))
def test_rows_come_back_in_any_order_asked(tmp_path_factory, kept, asked):
    path = tmp_path_factory.mktemp("rows") / "features.safetensors"
    rows = np.arange(12.0).reshape(6, 2)
    save_rows(path, kept, rows)
    assert np.array_equal(load_rows(path, asked), rows[[kept.index(name) for name in asked]])


@pytest.mark.parametrize(
    ("kept", "message"),
    [("abc", "no row for 2 of 3 images, 'x'"), ("aba", "2 different ids"), ("ab", "2 different")],
)
def test_rows_that_are_not_one_an_image_are_refused(tmp_path, kept, message):
    save_rows(tmp_path / "rows", kept, np.zeros((3, 2)))
    with pytest.raises(InputError, match=message):
        load_rows(tmp_path / "rows", ["a", "x", "y"])
