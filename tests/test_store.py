"""Kept results: made once, found again, whole or not there."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest

from emokd_utils.errors import InputError
from emokd_utils.run.store import MANIFEST, Artefact, Recipe, Stage, Store, remembered_checksum

FEATURES = Stage("features", 1, recipe=None)


class Work:
    """What an artefact is made by; counts how often."""

    def __init__(self, text="result"):
        self.text, self.made = text, 0

    def make(self, to):
        self.made += 1
        (to / "sub").mkdir()
        (to / "value.txt").write_text(self.text)
        (to / "sub" / "more.txt").write_text("more")

    def load(self, at):
        return (at / "value.txt").read_text()


@pytest.fixture
def lines():
    return []


@pytest.fixture
def store(tmp_path, lines):
    return Store(tmp_path / "runs", lines.append)


def artefact(store, work, stage=FEATURES, **inputs):
    return Artefact(store, stage, Recipe({"seed": 0} | inputs, work.make, work.load, "seed0"))


def test_key_and_folder_are_known_before_anything_is_made(store, lines):
    work = Work()
    lazy = artefact(store, work)
    assert lazy.folder == store.folder / f"features-seed0-{lazy.key}"
    assert not lazy.is_kept and work.made == 0 and not store.folder.exists()
    assert lazy.value == "result" and lazy.is_kept and work.made == 1
    again = artefact(store, work)
    assert again.value == again.value == "result" and work.made == 1
    assert [line.split()[0] for line in lines] == ["[made]"], "one line for each result"
    assert again.path("value.txt").read_text() == "result"
    manifest = json.loads((lazy.folder / MANIFEST).read_text())
    assert manifest["inputs"] == {"seed": 0} and manifest["version"] == 1
    assert manifest["files"]["sub/more.txt"]["size"] == 4


def test_stage_version_and_inputs_make_another_key(store):
    stages = FEATURES, replace(FEATURES, version=2), replace(FEATURES, name="head")
    kinds = [artefact(store, Work(), stage) for stage in stages]
    kinds += [artefact(store, Work(), seed=1), artefact(store, Work(), settings={"lr": 0.1})]
    assert len({kind.key for kind in kinds}) == 5


def damage_manifest(**changes):
    def damage(folder):
        manifest = json.loads((folder / MANIFEST).read_text())
        (folder / MANIFEST).write_text(json.dumps(manifest | changes))

    return damage


DAMAGES = {
    "truncated": lambda f: (f / "value.txt").write_text(""),
    "missing file": lambda f: (f / "sub" / "more.txt").unlink(),
    "no manifest": lambda f: (f / MANIFEST).unlink(),
    "not json": lambda f: (f / MANIFEST).write_text("{"),
    "not text": lambda f: (f / MANIFEST).write_bytes(b"\xff\xfe"),
    "bottomless": lambda f: (f / MANIFEST).write_text("[" * 100_000),
    "not a dict": lambda f: (f / MANIFEST).write_text("[]"),
    "file entry": damage_manifest(files={"value.txt": 3}),
    "other inputs": damage_manifest(inputs={"seed": 7}),
    "other format": damage_manifest(format="emokd-artefact-0"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_said_and_made_anew(store, lines, damage):
    work = Work()
    artefact(store, work).value  # noqa: B018
    damage(artefact(store, work).folder)
    assert not artefact(store, work).is_kept
    assert artefact(store, work).value == "result" and work.made == 2
    assert [line.split()[0] for line in lines] == ["[made]", "[anew]", "[made]"]
    assert artefact(store, work).value == "result" and work.made == 2


def test_what_cannot_be_read_is_made_anew_and_said_in_one_line(store, lines):
    artefact(store, Work("old")).value  # noqa: B018
    work = Work("new")
    recipe = Recipe({"seed": 0}, work.make, lambda at: refuse_old(work.load(at)), "seed0")
    assert Artefact(store, FEATURES, recipe).value == "new"
    assert any(line.startswith("[anew]") and "cannot read" in line for line in lines)
    assert all("\n" not in line and len(line) <= 240 for line in lines)


def refuse_old(text):
    if text == "old":
        raise ValueError("cannot\nread " + "x" * 1000)
    return text


def test_a_failing_stage_leaves_nothing(store):
    def fail(to):
        (to / "half.txt").write_text("half")
        raise RuntimeError("no")

    broken = Artefact(store, FEATURES, Recipe({}, fail, lambda at: None))
    with pytest.raises(RuntimeError, match="no"):
        broken.value  # noqa: B018
    assert [path.name for path in store.folder.iterdir()] == [".locks"]


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(InputError, match="is a file, and results are kept in a folder"):
        artefact(Store(tmp_path / "runs"), Work()).value  # noqa: B018


MAKER = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    from emokd_utils.run.store import Artefact, Recipe, Stage, Store

    def make(to):
        (to / "value.txt").write_text("from the other process")
        print("making", flush=True)
        time.sleep(float(sys.argv[2]))

    store = Store(Path(sys.argv[1]), say=lambda line: None)
    recipe = Recipe({"seed": 0}, make, lambda at: None, "seed0")
    Artefact(store, Stage("features", 1, None), recipe).value
""")


def other_process(folder, seconds):
    command = [sys.executable, "-c", MAKER, str(folder), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "making\n"
    return process


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is of POSIX")
def test_a_kill_costs_the_stage_under_way_alone(store):
    process = other_process(store.folder, 60)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    kept = artefact(store, Work(), seed=1)  # another one removes what was left
    assert kept.value == "result"
    assert sorted(path.name for path in store.folder.iterdir()) == [".locks", kept.folder.name]
    assert artefact(store, Work()).value == "result"


def test_what_another_process_is_making_is_waited_for_and_taken(store):
    process = other_process(store.folder, 1)
    work = Work()
    assert artefact(store, work).value == "from the other process" and work.made == 0
    process.wait()
    process.stdout.close()


def test_a_checksum_is_remembered_until_its_file_changes(tmp_path, monkeypatch):
    file, memory = tmp_path / "weights", tmp_path / "checksums.json"
    file.write_bytes(b"weights")
    known = remembered_checksum(file, memory)
    monkeypatch.setattr("emokd_utils.run.store.checksum", lambda path: "read again")
    assert remembered_checksum(file, memory) == known
    file.write_bytes(b"other weights")
    assert remembered_checksum(file, memory) == "read again"
