import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from emokd_utils.errors import InputError
from emokd_utils.files import (
    aligned_rows,
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


@pytest.mark.parametrize("value", [float("nan"), {"a": float("inf")}, np.ones(2)])
def test_a_key_is_made_of_nothing_inexact(value):
    with pytest.raises(InputError, match="a key is made of"):
        canonical_json(value)


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


@given(st.permutations(range(6)), st.lists(st.integers(0, 5), max_size=8))
def test_aligning_undoes_any_shuffle(order, asked):
    rows = np.arange(12.0).reshape(6, 2)
    aligned = aligned_rows([str(i) for i in asked], [str(i) for i in order], rows[list(order)])
    assert np.array_equal(aligned, rows[asked])


def test_rows_are_kept_with_their_ids(tmp_path):
    path = tmp_path / "features.safetensors"
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    save_rows(path, ["a", "b", "c"], rows)
    assert np.array_equal(load_rows(path, ["c", "a"]), rows[[2, 0]])
    refused = {"abc": "no row for 2 of 3 images, 'x'", "aba": "3 rows for 2", "ab": "3 rows for 2"}
    for cached, message in refused.items():
        with pytest.raises(InputError, match=message):
            aligned_rows(["a", "x", "y"], list(cached), rows)
