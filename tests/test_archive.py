"""A run that travels: what leaves, what arrives, and what is refused."""

import json
import zipfile

import numpy as np
import pandas as pd
import pytest
from kept_run import folder_run

from emokd_utils.cli.commands import main
from emokd_utils.errors import InputError
from emokd_utils.explorer import GateView, explore
from emokd_utils.predictions import TUNED, VISION
from emokd_utils.profiles import MINI
from emokd_utils.run import NotMadeError, open_run
from emokd_utils.run.card import CARD
from emokd_utils.run.store import MANIFEST
from emokd_utils.scale.archive import LISTING, export, install


@pytest.fixture(scope="module")
def sender(tmp_path_factory):
    return folder_run(tmp_path_factory.mktemp("lab"), seeds=(0, 1))


@pytest.fixture(scope="module")
def archive(sender, tmp_path_factory):
    to = tmp_path_factory.mktemp("mail") / "lab.zip"
    return export(sender, to, seeds=(0, 1), only_kept=True)


@pytest.fixture(scope="module")
def imported(archive, tmp_path_factory):
    return install(archive, tmp_path_factory.mktemp("laptop"))


@pytest.fixture
def there(imported):
    return open_run(data=imported, say=lambda line: None)


def test_an_imported_run_says_what_the_run_said(sender, there):
    for seed in (0, 1):
        sent, found = sender.predictions(seed), there.predictions(seed)
        assert list(sent) == list(found)
        for name in sent:
            assert np.array_equal(sent[name].probabilities, found[name].probabilities), name
    assert np.array_equal(there.features(), sender.features())
    assert there.tuned(method="generate").answers == sender.tuned(method="generate").answers
    pd.testing.assert_frame_equal(there.costs(), sender.costs())
    assert there.tuning_log() == sender.tuning_log()
    assert there.vision_history() == sender.vision_history()
    assert there.dataset.table["caption"].tolist() == sender.dataset.table["caption"].tolist()
    assert there.root != sender.root and there.profile.data == MINI.data


def test_heads_and_gates_are_found_under_the_same_keys_and_made_where_they_are_not(sender, there):
    assert np.array_equal(there.head().logits(there.features()), sender.head_logits())
    assert there.gate(kind="bilinear").report == sender.gate(kind="bilinear").report
    assert there.head(alpha=0.3).settings.alpha == 0.3  # no other head came along


@pytest.mark.parametrize("ask", ["base", "tuned_vlm", "vision", "assembled"])
def test_what_needs_weights_says_so(there, ask):
    with pytest.raises(NotMadeError, match="imported without weights: work from its predictions"):
        found = getattr(there, ask)
        found()


def test_built_in_models_lie_on_the_workbench(there, tmp_path):
    bench = there.workbench
    assert bench.source.built_in and bench.profile == MINI
    assert bench.folder == there.folder.parent / "mini"


def test_the_explorer_opens_with_thumbnails_that_lost_what_was_written_inside(there):
    rows = there.predictions()
    view = explore(rows[TUNED], rows[VISION], there.dataset, GateView(*there.gate_parts()))
    assert len(view.table) == len(rows[TUNED]) and view._content.picture(0, 224, 80)
    picture = there.dataset.open(there.dataset.ids[0])
    assert picture.size == (40, 30) and not picture.info.get("exif")


def test_without_images_a_tile_says_so(sender, tmp_path):
    bare = export(sender, tmp_path / "bare.zip", pictures="none", only_kept=True)
    found = open_run(data=install(bare, tmp_path / "runs"), say=lambda line: None)
    assert found.dataset.open(found.dataset.ids[0]).size == (224, 224)
    with pytest.raises(InputError, match="no image"):
        found.dataset.open("../outside.png")


def test_the_archive_holds_results_and_no_weights_or_places(archive, sender):
    with zipfile.ZipFile(archive) as file:
        names = file.namelist()
        text = b"".join(file.read(name) for name in names if not name.startswith("pictures/"))
    assert not [n for n in names if "model.safetensors" in n or n.endswith(("adapter.bin", ".pkl"))]
    assert str(sender.root).encode() not in text and b"photos" in text
    assert sum(name.startswith("pictures/") for name in names) == len(sender.dataset)


def test_the_same_run_gives_the_same_bytes(archive, sender, tmp_path):
    again = export(sender, tmp_path / "lab.zip", seeds=(0, 1), only_kept=True)
    assert again.read_bytes() == archive.read_bytes()


def test_what_cannot_be_exported_is_told(sender, there, tmp_path):
    with pytest.raises(InputError, match="ends in .zip"):
        export(sender, tmp_path / "lab.tar")
    with pytest.raises(InputError, match="was imported"):
        export(there, tmp_path / "lab.zip")
    with pytest.raises(InputError, match="leave the images out"):
        export(sender, tmp_path / "lab.zip", max_mb=0.01, only_kept=True)
    with pytest.raises(NotMadeError, match="holds no"):
        export(sender, tmp_path / "lab.zip", seeds=[7], only_kept=True)
    assert not list(tmp_path.iterdir())


def test_the_environment_names_the_run_that_lessons_open(imported, monkeypatch):
    runs = imported.parent
    monkeypatch.setenv("EMOKD_RUN", imported.name)
    assert open_run(runs=runs).folder == open_run("mini", runs=runs).folder == imported
    monkeypatch.setenv("EMOKD_DATA", "/photos")
    with pytest.raises(InputError, match="unset one of them"):
        open_run(runs=runs)
    monkeypatch.delenv("EMOKD_DATA")
    monkeypatch.setenv("EMOKD_RUN", "nothing")
    with pytest.raises(InputError, match="is no imported run"):
        open_run(runs=runs)
    with pytest.raises(InputError, match="one division into splits"):
        open_run(data=imported, resplit=1)


def test_the_commands(archive, tmp_path, capsys):
    runs = str(tmp_path / "runs")
    assert main(["import", str(archive), "--runs", runs, "--name", "lab2"]) == 0
    assert "EMOKD_RUN=" in capsys.readouterr().out
    assert main(["import", str(archive), "--runs", runs, "--name", "lab2"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "x.zip"), "--data", f"{runs}/lab2", "--runs", runs]) == 2
    assert "was imported" in capsys.readouterr().err


def rewritten(archive, to, change):
    """The archive with its members as ``change(name, content)`` gives them (None: left out), and a
    listing that says so."""
    import hashlib

    with zipfile.ZipFile(archive) as file:
        members = {n: file.read(n) for n in file.namelist() if n != LISTING}
        about = json.loads(file.read(LISTING))
    members = {n: content for n, old in members.items() if (content := change(n, old)) is not None}
    about["members"] = {
        n: {"size": len(c), "sha256": hashlib.sha256(c).hexdigest()} for n, c in members.items()
    }
    with zipfile.ZipFile(to, "w") as file:
        for name, content in {**members, LISTING: json.dumps(about).encode()}.items():
            file.writestr(name, content)
    return to


def refused(path, tmp_path, words):
    with pytest.raises(InputError, match=words) as error:
        install(path, tmp_path / "runs")
    assert "\n" not in str(error.value) and "refused and nothing is installed" in str(error.value)
    assert not list((tmp_path / "runs").iterdir())


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "C:/x", "a\\b", "head/x", "RUN.json", "pictures/x.webp", "x.py"]
)
def test_names_that_are_not_a_runs_own_are_refused(archive, tmp_path, name):
    path = tmp_path / "bad.zip"
    path.write_bytes(archive.read_bytes())
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(name, b"")
    refused(path, tmp_path, "is not one of the files of a run")


def test_what_is_too_large_is_refused_before_it_is_unpacked(archive, tmp_path):
    with pytest.raises(InputError, match="more than the 0.01 that --max-mb allows"):
        install(archive, tmp_path / "runs", max_mb=0.01)
    bomb = rewritten(archive, tmp_path / "bomb.zip", lambda n, c: c)
    with zipfile.ZipFile(bomb, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("pictures/" + "0" * 32 + ".webp", b"0" * 10**7)
    with pytest.raises(InputError, match="unpacks to"):
        install(bomb, tmp_path / "runs", max_mb=5)


def test_any_cut_or_flipped_byte_is_noticed(archive, tmp_path):
    whole = archive.read_bytes()
    path = tmp_path / "bad.zip"
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(whole), 12):
        broken = bytearray(whole)
        broken[place] ^= 0x55
        path.write_bytes(bytes(broken))
        try:
            target = install(path, tmp_path / "runs", name=f"n{place}")
        except InputError:
            continue
        assert open_run(data=target, say=lambda line: None).predictions(), (
            "a date or a mode, no more"
        )
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="refused"):
        install(path, tmp_path / "runs")


def edited(name, edit):
    """A change of one JSON file of a run."""

    def change(member, content):
        if not member.endswith(name):
            return content
        about = json.loads(content)
        edit(about)
        return json.dumps(about).encode()

    return change


def replaced(name, content):
    return lambda member, old: content if member.endswith(name) else old


def set_in(path, value):
    def edit(about):
        for key in path[:-1]:
            about = about[key]
        about[path[-1]] = value

    return edit


HOSTILE = {
    "another format": (edited(CARD, set_in(["format"], "emokd-run-0")), "export the run anew"),
    "a path": (edited(CARD, set_in(["profile", "vlm", "name"], "/etc")), "path in its profile"),
    "an id outside": (edited(CARD, set_in(["ids", 0], "../x.png")), "unusable ids"),
    "bottomless": (replaced(CARD, b"[" * 100_000), "describes no run"),
    "another key": (
        edited(MANIFEST, set_in(["inputs", "seed"], 5)),
        "its name is not what its key",
    ),
    "another version": (edited(MANIFEST, set_in(["version"], 99)), "another version of the stage"),
    "no tensors": (replaced("features.safetensors", b"\0" * 64), "features.*cannot be used"),
    "a missing result": (
        lambda n, c: None if n.startswith("zero_shot") else c,
        "holds no zero_shot",
    ),
    "a missing picture": (lambda n, c: None if n.startswith("pictures/0") else c, "its pictures"),
    "no picture": (lambda n, c: b"RIFF" if n.startswith("pictures/") else c, "refused"),
}


@pytest.mark.parametrize(("change", "words"), HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_sound_run_is_refused(archive, tmp_path, change, words):
    refused(rewritten(archive, tmp_path / "bad.zip", change), tmp_path, words)


def test_what_is_left_as_it_is_installs(archive, tmp_path):
    same = rewritten(archive, tmp_path / "same.zip", lambda name, content: content)
    assert open_run(data=install(same, tmp_path / "runs"), say=lambda line: None).predictions()
