"""Artefacts: made once, found again, never half there, never believed when damaged."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emokd_utils.errors import InputError
from emokd_utils.files import fingerprint
from emokd_utils.run import store as store_module
from emokd_utils.run.store import MANIFEST, NotMadeError, Store, load_arrays, save_arrays

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # any text, lone surrogates too: file names can hold them
    | st.text(st.characters(), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


class Counter:
    """A step that writes one file (and one in a subfolder) and counts its calls."""

    def __init__(self, text: str = "result"):
        self.text, self.made, self.loaded = text, 0, 0

    def make(self, folder: Path) -> None:
        self.made += 1
        (folder / "value.txt").write_text(self.text)
        (folder / "sub").mkdir()
        (folder / "sub" / "more.txt").write_text("more")

    def load(self, folder: Path) -> str:
        self.loaded += 1
        return (folder / "value.txt").read_text()


@pytest.fixture
def lines():
    return []


@pytest.fixture
def store(tmp_path, lines):
    return Store(tmp_path / "runs" / "mini", say=lines.append)


def make_once(store, step=None, inputs=None):
    step = step or Counter()
    return store.step("features", inputs or {"seed": 0}, step.make, step.load)


def leftovers(store):
    return [path.name for path in store.folder.iterdir() if path.name.startswith(".")]


# the key


@given(JSON_VALUES)
def test_fingerprint_survives_a_trip_through_json(value):
    assert fingerprint(json.loads(json.dumps(value))) == fingerprint(value)
    assert len(fingerprint(value)) == 16


def test_fingerprint_is_of_the_content():
    assert fingerprint({}) == "44136fa355b3678a"  # SHA-256 of the two bytes {}
    assert fingerprint({"a": 1, "b": (2, 3)}) == fingerprint({"b": [2, 3], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": "1"})
    assert fingerprint(["ab"]) != fingerprint(["a", "b"])


@pytest.mark.parametrize(
    "value", [float("nan"), {"a": float("inf")}, {1: "a"}, [{None: 1}], {"a": Path("x")}, {1, 2}]
)
def test_what_json_cannot_hold_makes_no_key(value):
    with pytest.raises(InputError, match="key"):
        fingerprint(value)


# made, kept


def test_made_once_then_kept(store, lines):
    step = Counter()
    first, second = make_once(store, step), make_once(store, step)
    assert (first.value, second.value) == ("result", "result")
    assert (first.made, second.made) == (True, False)
    assert (step.made, step.loaded) == (1, 2)
    assert first.key == second.key and first.folder == second.folder
    assert second.seconds == first.seconds
    assert first.folder.name == f"features-{first.key}"
    assert lines[0].startswith(f"[made] features {first.key} in 0.")
    assert lines[1].startswith(f"[kept] features {first.key} ")
    assert len(lines) == 2 and leftovers(store) == []


def test_told_to_make_nothing_it_loads_what_is_there_and_names_what_is_not(store):
    step = Counter()
    made = make_once(store, step)
    store.make = False
    assert make_once(store, step).value == made.value
    (made.folder / MANIFEST).unlink()
    with pytest.raises(NotMadeError, match="holds no features .* `python -m emokd_utils run`"):
        make_once(store, step)
    assert step.made == 1


def test_manifest_tells_what_was_made_from_what(store):
    artefact = make_once(store, inputs={"rates": (0.1, 1), "data": "abc"})
    manifest = json.loads((artefact.folder / MANIFEST).read_text())
    assert manifest["kind"] == "features" and manifest["key"] == artefact.key
    assert manifest["inputs"] == {"rates": [0.1, 1], "data": "abc"}
    assert manifest["version"] == store_module.__version__
    assert set(manifest["files"]) == {"value.txt", "sub/more.txt"}
    assert manifest["files"]["sub/more.txt"]["size"] == 4
    assert abs(manifest["made_at"] - time.time()) < 60


def test_any_change_upstream_makes_anew(store, monkeypatch):
    keys = {make_once(store).key, make_once(store, inputs={"seed": 1}).key}
    step = Counter()
    keys.add(store.step("logits", {"seed": 0}, step.make, step.load).key)
    monkeypatch.setattr(store_module, "__version__", "99")
    changed = make_once(store)
    assert changed.made and len(keys | {changed.key}) == 4


def test_a_failing_step_leaves_nothing_and_says_nothing(store, lines):
    def fail(folder):
        (folder / "half.txt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.step("features", {}, fail, lambda folder: None)
    assert list(store.folder.iterdir()) == [] and lines == []


def test_unusable_kinds_folders_and_files(store, tmp_path):
    step = Counter()
    for kind in ["", "../up", "a/b", ".hidden", "Upper"]:
        with pytest.raises(InputError, match="kind"):
            store.step(kind, {}, step.make, step.load)
    with pytest.raises(InputError, match="key"):
        store.step("features", {"path": tmp_path}, step.make, step.load)
    (tmp_path / "file").write_text("")
    for folder in [tmp_path / "file", tmp_path / "file" / "deeper"]:
        with pytest.raises(InputError, match="is a file"):
            make_once(Store(folder, say=lambda line: None))
    with pytest.raises(InputError, match=MANIFEST):
        store.step("features", {}, lambda folder: (folder / MANIFEST).write_text(""), step.load)
    assert step.made == 0


# damaged, foreign


def rewrite_manifest(**changes):
    def damage(folder):
        path = folder / MANIFEST
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


def replace_by_file(folder):
    empty(folder)
    folder.rmdir()
    folder.write_text("a file")


def replace_by_link(folder):
    moved = folder.with_name("moved")
    folder.rename(moved)
    folder.symlink_to(moved)


def empty(folder):
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def foreign(folder):
    empty(folder)
    (folder / "thesis.txt").write_text("not ours")


DAMAGES = {
    "one byte": (lambda f: (f / "value.txt").write_text("resulT"), "value.txt is damaged"),
    "truncated": (lambda f: (f / "value.txt").write_text(""), "value.txt is damaged"),
    "missing file": (lambda f: (f / "sub" / "more.txt").unlink(), "sub/more.txt is missing"),
    "added file": (lambda f: (f / "new.txt").write_text(""), "new.txt is not one of its files"),
    "no manifest": (lambda f: (f / MANIFEST).unlink(), f"it has no {MANIFEST}"),
    "foreign": (foreign, f"it has no {MANIFEST}"),
    "empty": (empty, f"it has no {MANIFEST}"),
    "not json": (lambda f: (f / MANIFEST).write_text("{"), "is damaged"),
    "not text": (lambda f: (f / MANIFEST).write_bytes(b"\xff\xfe"), "is damaged"),
    "bottomless": (lambda f: (f / MANIFEST).write_text("[" * 100_000), "is damaged"),
    "not a dict": (lambda f: (f / MANIFEST).write_text("[]"), "is damaged"),
    "file list": (rewrite_manifest(files=[]), "is damaged"),
    "file entry": (rewrite_manifest(files={"value.txt": 3}), "value.txt is damaged"),
    "outside": (rewrite_manifest(files={"../../../x": {}}), "../../../x is missing"),
    "seconds": (rewrite_manifest(seconds="long"), "is damaged"),
    "other inputs": (rewrite_manifest(inputs={"seed": 7}), "another inputs"),
    "other kind": (rewrite_manifest(kind="head"), "another kind"),
    "other format": (rewrite_manifest(format="emokd-artefact-0"), "another format"),
    "a file": (replace_by_file, "not a directory"),
    "a link": (replace_by_link, "not a directory"),
}


@pytest.mark.parametrize("damage, reason", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_said_and_made_anew(store, lines, damage, reason):
    first = make_once(store)
    damage(first.folder)
    step = Counter()
    second, third = make_once(store, step), make_once(store, step)
    assert second.made and not third.made and step.made == 1
    assert second.value == third.value == "result"
    assert [line.split()[0] for line in lines] == ["[made]", "[anew]", "[made]", "[kept]"]
    assert reason in lines[1] and first.key in lines[1]
    assert leftovers(store) == []


def test_what_load_refuses_is_made_anew_and_said_in_one_line(store, lines):
    make_once(store, Counter("old"))
    step = Counter("new")

    def load(folder):
        text = step.load(folder)
        if text == "old":
            raise ValueError("cannot\nread " + "x" * 1000)
        return text

    artefact = store.step("features", {"seed": 0}, step.make, load)
    assert artefact.value == "new" and artefact.made
    assert lines[1].startswith("[anew]") and "ValueError: cannot read" in lines[1]
    assert "\n" not in lines[1] and len(lines[1]) <= 240


def test_what_a_file_browser_leaves_is_no_damage(store):
    folder = make_once(store).folder
    for name in [".DS_Store", "sub/.DS_Store", "Thumbs.db", "desktop.ini"]:
        (folder / name).write_text("")
    assert not make_once(store).made


# killed, at once

KILLED = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    from emokd_utils.run.store import Store

    def make(folder):
        (folder / "half.txt").write_text("half")
        print("half", flush=True)
        time.sleep(60)

    store = Store(sys.argv[1], say=lambda line: None)
    store.step("first", {}, lambda f: (f / "a.txt").write_text("a"), lambda f: None)
    store.step("features", {"seed": 0}, make, lambda folder: None)
""")


@pytest.fixture
def halfway(store):
    """A process in the middle of the step that make_once makes."""
    command = [sys.executable, "-c", KILLED, str(store.folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "half\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_kill_costs_the_step_under_way_alone(store, lines, halfway):
    os.kill(halfway.pid, signal.SIGKILL)
    halfway.wait()
    assert len(leftovers(store)) == 1
    first = store.step("first", {}, lambda f: None, lambda f: (f / "a.txt").read_text())
    assert first.value == "a" and not first.made
    assert leftovers(store) == []
    artefact = make_once(store)
    assert artefact.made and artefact.value == "result"
    assert sorted(path.name for path in artefact.folder.iterdir()) == [MANIFEST, "sub", "value.txt"]
    assert [line.split()[0] for line in lines] == ["[kept]", "[made]"]


def test_a_living_process_is_left_alone(store, halfway):
    (half,) = leftovers(store)
    assert make_once(store).made
    assert leftovers(store) == [half]
    assert (store.folder / half / "half.txt").exists()


def test_stale_directories_of_other_machines_go_after_a_week(store):
    store.folder.mkdir(parents=True)
    old, new = (store.folder / f".making-{'0' * 8}-1-{digit * 8}" for digit in "ab")
    other = store.folder / ".making-notes"
    for path in (old, new, other):
        path.mkdir()
    os.utime(old, (0, 0))
    make_once(store)
    assert sorted(leftovers(store)) == sorted([new.name, other.name])


def test_the_same_number_of_an_earlier_process_is_stale(store):
    """As in containers, where every run may have the process number 1."""
    store.folder.mkdir(parents=True)
    stale = store.folder / f".making-{store_module._HOST}-{os.getpid()}-00000000"
    stale.mkdir()
    make_once(store)
    assert not stale.exists()


@pytest.mark.parametrize("damaged_before", [False, True])
def test_two_at_once_both_end_well(store, lines, damaged_before):
    if damaged_before:
        folder = make_once(store).folder
        (folder / "value.txt").write_text("damaged")
        lines.clear()
    barrier = threading.Barrier(2, timeout=10)
    results = []

    def run(text):
        step = Counter(text)

        def make(folder):
            barrier.wait()
            step.make(folder)
            barrier.wait()

        results.append(store.step("features", {"seed": 0}, make, step.load))

    threads = [threading.Thread(target=run, args=(text,)) for text in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
    assert sorted(result.made for result in results) == [False, True]
    assert len({result.value for result in results}) == 1
    assert leftovers(store) == []
    assert sum("another process made it" in line for line in lines) == 1


def test_processes_at_once_both_end_well(tmp_path):
    code = textwrap.dedent("""
        import sys
        from emokd_utils.run.store import Store
        store = Store(sys.argv[1])
        for number in range(20):
            store.step("features", {"number": number},
                       lambda f: (f / "a.txt").write_text("a" * 1000),
                       lambda f: (f / "a.txt").read_text())
    """)
    command = [sys.executable, "-c", code, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    text = "".join(outputs)
    assert text.count("[made]") == 20 and text.count("[kept]") == 20 and "[anew]" not in text
    assert len(list(tmp_path.iterdir())) == 20


# arrays


@given(
    st.sampled_from(["?", "i1", "u2", "<i8", ">i4", "f2", "f4", ">f8"]),
    st.sampled_from([(), (0,), (3,), (2, 3), (0, 4), (2, 1, 3)]),
    st.booleans(),
)
def test_arrays_round_trip_whatever_their_layout(tmp_path_factory, dtype, shape, transposed):
    path = tmp_path_factory.mktemp("arrays") / "a.safetensors"
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    array = array.T if transposed else array
    save_arrays(path, {"x": array}, {"ids": "ä\n"})
    arrays, metadata = load_arrays(path)
    np.testing.assert_array_equal(arrays["x"], array)
    assert arrays["x"].dtype == array.dtype.newbyteorder("=") and arrays["x"].shape == array.shape
    assert metadata == {"ids": "ä\n"}


def test_every_float_survives(tmp_path):
    values = np.array([np.nan, -np.inf, -0.0, 5e-324, 1.7976931348623157e308])
    save_arrays(tmp_path / "a", {"b": values, "a": values[::2]})
    arrays, metadata = load_arrays(tmp_path / "a")
    assert arrays["b"].tobytes() == values.tobytes()
    assert arrays["a"].tobytes() == values[::2].tobytes()
    assert list(arrays) == ["a", "b"] and metadata == {}


@pytest.mark.parametrize(
    "array", [np.array(["a"]), np.array([{}]), np.zeros(1, complex), np.zeros(1, "M8[s]")]
)
def test_arrays_of_other_types_are_refused(tmp_path, array):
    with pytest.raises(InputError, match="'x'"):
        save_arrays(tmp_path / "a", {"x": array})
    assert not (tmp_path / "a").exists()


def test_metadata_is_text(tmp_path):
    with pytest.raises(InputError, match="'n'"):
        save_arrays(tmp_path / "a", {}, {"n": 1})


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 100, b"PK\x03\x04" + b"\0" * 50])
def test_files_that_are_not_safetensors(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(InputError, match="not a sound safetensors file"):
        load_arrays(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        load_arrays(tmp_path / "none")


def test_a_truncated_array_file_is_refused(tmp_path):
    save_arrays(tmp_path / "a", {"x": np.zeros(100)})
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[:-1])
    with pytest.raises(InputError):
        load_arrays(tmp_path / "a")


def test_store_needs_the_standard_library_only():
    code = (
        "import sys, emokd_utils.run.store; "
        "print([m for m in ('numpy', 'safetensors', 'torch', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
