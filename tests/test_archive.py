"""A run that travels: what leaves, what arrives, and what is refused."""

import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
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
from emokd_utils.scale import archive as archive_module
from emokd_utils.scale.archive import LISTING, README, export, install


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
    for ask in (
        lambda run: {n: p.probabilities.tolist() for n, p in run.predictions(0).items()},
        lambda run: {n: p.probabilities.tolist() for n, p in run.predictions(1).items()},
        lambda run: run.features().tolist(),
        lambda run: run.teacher_logits().tolist(),
        lambda run: run.head_logits(alpha=0.0).tolist(),
        lambda run: run.gate_parts()[3].tolist(),
        lambda run: run.tuned(method="generate").answers,
        lambda run: run.vision_predictions().accuracy,
        lambda run: run.vision_history(),
        lambda run: run.tuning_log(),
        lambda run: run.costs().to_dict(),
        lambda run: run.rows("val").tolist(),
        lambda run: run.dataset.table["caption"].tolist(),
    ):
        assert ask(there) == ask(sender)
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


def test_the_explorer_opens_with_thumbnails_that_lost_what_was_written_inside(there):
    rows = there.predictions()
    view = explore(rows[TUNED], rows[VISION], there.dataset, GateView(*there.gate_parts()))
    assert len(view.table) == len(rows[TUNED]) and view._content.picture(0, 224, 80)
    picture = there.dataset.open(there.dataset.ids[0])
    assert picture.size == (8, 6) and not picture.info.get("exif")


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


def test_what_cannot_be_exported_is_told(sender, there, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="ends in .zip"):
        export(sender, tmp_path / "lab.tar")
    with pytest.raises(InputError, match="was imported"):
        export(there, tmp_path / "lab.zip")
    monkeypatch.setattr(archive_module, "MAX_MB", 0.01)
    with pytest.raises(InputError, match="leave the images out"):
        export(sender, tmp_path / "lab.zip", only_kept=True)
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
    with zipfile.ZipFile(archive) as file:
        members = {n: file.read(n) for n in file.namelist() if n != LISTING}
        about = json.loads(file.read(LISTING))
    members = {n: content for n, old in members.items() if (content := change(n, old)) is not None}
    about["members"] = {
        n: {"size": len(c), "sha256": hashlib.sha256(c).hexdigest()} for n, c in members.items()
    }
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in {**members, LISTING: json.dumps(about).encode()}.items():
            file.writestr(name, content)
    return to


def refused(path, tmp_path, words):
    with pytest.raises(InputError, match=words) as error:
        install(path, tmp_path / "runs")
    assert "\n" not in str(error.value) and "refused and nothing is installed" in str(error.value)
    assert not list((tmp_path / "runs").iterdir())


NOT_ITS_OWN = ["../x", "/etc/x", "C:/x", "a\\b", "head/x", "RUN.json", "pictures/x.webp", "x.py"]


@pytest.mark.parametrize("name", NOT_ITS_OWN)
def test_a_member_that_no_export_writes_is_refused(archive, tmp_path, name):
    path = Path(shutil.copy(archive, tmp_path / "bad.zip"))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(name, b"{}")
    refused(path, tmp_path, "is not one of the files of a run")


def test_what_a_file_manager_packed_again_installs_and_a_lost_file_is_told(archive, tmp_path):
    def packed(path, *left_out):
        with zipfile.ZipFile(archive) as old, zipfile.ZipFile(path, "w") as new:
            new.writestr("my run/", b"")
            for name in set(old.namelist()) - {*left_out}:
                new.writestr(f"my run/{name}", old.read(name))
            for name in ("my run/.DS_Store", "__MACOSX/my run/._run.json", "my run/Thumbs.db"):
                new.writestr(name, b"0")
        return path

    installed = install(packed(tmp_path / "again.zip"), tmp_path / "runs")
    assert (installed / CARD).is_file() and not list(installed.rglob("*DS_Store"))
    with pytest.raises(InputError, match=f"{README} is missing"):
        install(packed(tmp_path / "lost.zip", README), tmp_path / "other")


def test_what_is_too_large_is_refused_before_it_is_unpacked(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(archive_module, "MAX_MB", 5)
    bomb = rewritten(archive, tmp_path / "bomb.zip", replaced(README, b"0" * 10**7))
    assert bomb.stat().st_size < 5e6
    refused(bomb, tmp_path, "unpacks to 1[0-9] MB")


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
        assert open_run(data=target, say=lambda line: None).predictions(), "a date or a mode"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="refused"):
        install(path, tmp_path / "runs")


def edited(name, *path, to):
    """A change of one value in a JSON file of a run."""

    def change(member, content):
        if not member.endswith(name):
            return content
        inner = about = json.loads(content)
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = to
        return json.dumps(about).encode()

    return change


def replaced(name, content):
    return lambda member, old: content if member.endswith(name) else old


def without(name):
    return lambda member, old: None if member.startswith(name) else old


HOSTILE = {
    "another format": (edited(CARD, "format", to="emokd-run-0"), "export the run anew"),
    "a path": (edited(CARD, "profile", "vlm", "name", to="/etc"), "path in its profile"),
    "an id outside": (edited(CARD, "ids", 0, to="../x.png"), "unusable ids"),
    "bottomless": (replaced(CARD, b"[" * 100_000), "describes no run"),
    "another key": (edited(MANIFEST, "inputs", "seed", to=5), "its name is not what its key"),
    "another version": (edited(MANIFEST, "version", to=99), "another version of the stage"),
    "no tensors": (replaced("features.safetensors", b"\0" * 64), "features.*cannot be used"),
    "a missing result": (without("zero_shot"), "holds no zero_shot"),
    "a missing picture": (without("pictures/0"), "its pictures"),
    "no picture": (replaced(".webp", b"RIFF"), "is not what its name says"),
}


@pytest.mark.parametrize(("change", "words"), HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_sound_run_is_refused(archive, tmp_path, change, words):
    refused(rewritten(archive, tmp_path / "bad.zip", change), tmp_path, words)
