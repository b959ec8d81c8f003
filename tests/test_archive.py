"""A run that travels: what arrives equals what was sent, and nothing hostile arrives at all."""

import hashlib
import io
import json
import os
import pickle
import shutil
import stat
import struct
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.numpy import save
from torch import nn

from emokd_utils import explanations
from emokd_utils.cli import commands as cli
from emokd_utils.costs import EMOVLM_KD, TOGETHER, VLM_ALONE, CostRow, Latency, cost_table
from emokd_utils.data import ImageDataset
from emokd_utils.distillation import read_weights, write_weights
from emokd_utils.errors import InputError
from emokd_utils.explorer import GateView, explore
from emokd_utils.files import fingerprint, save_rows
from emokd_utils.maps import OCCLUSION, Explanation, save_explanations
from emokd_utils.predictions import TUNED, VISION, Predictions
from emokd_utils.profiles import MINI
from emokd_utils.run import pipeline as pipeline_module
from emokd_utils.run.imported import ImportedRun, picture_name, read_run
from emokd_utils.run.pipeline import Pipeline
from emokd_utils.run.results import Results
from emokd_utils.run.store import MANIFEST, NotMadeError
from emokd_utils.scale import archive
from emokd_utils.scale.archive import export, install

CLASSES = ("anger", "disgust", "fear", "joy", "sadness", "surprise")
SETTINGS = {"head_epochs": 3, "gate_epochs": 3, "gate_folds": 2, "vlm": "vlm"}


class FakeVLM:
    """Answers drawn at random, the same for the same images."""

    model = nn.Linear(1, 1)

    @classmethod
    def load(cls, source, adapter=None, **more):
        return cls()

    def dataset_features(self, dataset, *more):
        return np.random.default_rng(0).normal(size=(len(dataset), 8)).astype(np.float32)

    def features(self, images):
        return np.zeros((len(images), 8), np.float32)

    def reasons(self, images):
        return [f"=1+1,\n an image  of {image.width} pixels" for image in images]

    def predict(self, part, method, **more):
        drawn = np.random.default_rng(1).dirichlet(np.ones(len(CLASSES)), len(part))
        return Predictions(
            part.ids,
            tuple(part.table["split"]),
            part.labels,
            CLASSES,
            drawn,
            answers=("=1+1", *["joy"] * (len(part) - 1)),
            provenance={"model": "fake", "method": method, "prompt": "?"},
        )


EPOCHS = [
    {"epoch": k, "train_loss": 2.0 / k, "val_loss": 2.0, "val_accuracy": 0.25 * k} for k in (1, 2)
]


class FakeVision:
    """A vision model that can be saved and loaded and that draws its logits."""

    network = nn.Linear(1, 1)

    def save(self, to):
        (to / "model.safetensors").write_bytes(b"weights")
        about = {"format": "emokd-vision-1", "history": EPOCHS, "best_epoch": 2}
        (to / "model.json").write_text(json.dumps(about))

    def logits(self, dataset):
        return np.random.default_rng(2).normal(size=(len(dataset), 6)).astype(np.float32)


def fake_tuning(vlm, train, instructions, settings, seed, to, **more):
    (to / "adapter_model.safetensors").write_bytes(b"weights")
    (to / "adapter_config.json").write_text(json.dumps({"base": str(to)}))
    return [{"loss": 1.5, "step": 1}]


def fake_explanation(image, label, *models):
    values = np.array([[0.25, 0.5]], np.float32)
    return {"VLM": Explanation(values, OCCLUSION, "fake", label)}


def fake_costs(*parts):
    rows = [
        CostRow(name, 10 + k, 5, 1e6, Latency(0.01, 0.009, 0.02), 3.0)
        for k, name in enumerate((VLM_ALONE, TOGETHER, EMOVLM_KD))
    ]
    return cost_table(rows)


def write_images(root):
    """Small pictures of six emotions, two of them with metadata inside, and a table about them."""
    rng, rows = np.random.default_rng(0), []
    secret = Image.Exif()
    secret[0x010E] = "SECRET PLACE"
    for split, count in (("train", 6), ("val", 3), ("test", 3)):
        for label in CLASSES:
            (root / split / label).mkdir(parents=True)
            for k in range(count):
                name = f"{split}/{label}/{k}.jpg"
                pixels = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / name, exif=secret, xmp=b"<x>SECRET PLACE</x>")
                cue = "content" if k % 2 else "atmosphere"
                rows.append([name, cue, rng.random(), k, k > 1, "=HYPERLINK(1)" if k else "a"])
    columns = ["file", "cue", "hue", "count", "odd", "caption"]
    pd.DataFrame(rows, columns=columns).to_csv(root / "metadata.csv", index=False)


@pytest.fixture(scope="module")
def sent(tmp_path_factory):
    """A run made by hand: its pipeline, what it says, and its archive. Then data and VLM go away."""
    home = tmp_path_factory.mktemp("department")
    write_images(home / "pictures")
    (home / "vlm").mkdir()
    (home / "vlm" / "config.json").write_text("{}")
    weights = home / "start.safetensors"
    weights.write_bytes(b"start")
    profile = replace(MINI, **SETTINGS | {"vlm": str(home / "vlm"), "vision_weights": str(weights)})
    quiet = {"say": lambda line: None, "progress": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline_module, "VLM", FakeVLM)
        patch.setattr(pipeline_module, "fine_tune", lambda *more: FakeVision())
        patch.setattr(
            pipeline_module.VisionModel, "load", classmethod(lambda cls, at: FakeVision())
        )
        patch.setattr(pipeline_module, "instruction_tune", fake_tuning)
        patch.setattr(pipeline_module, "write_instructions", lambda *more: ([], {}))
        patch.setattr(pipeline_module, "compare", fake_costs)
        patch.setattr(explanations, "explain", fake_explanation)
        line = Pipeline(profile, home / "pictures", home / "runs", **quiet)
        with pytest.raises(NotMadeError, match="holds no"):
            export(line, home / "early.zip")
        assert not list(line.folder.glob("[a-z]*"))
        results = Results(line)
        known = SimpleNamespace(
            home=home,
            folder=line.folder,
            predictions=results.predictions[0],
            table=results.table(),
            generated=line.tuned(0, "generate"),
            costs=line.costs(),
            few=export(line, home / "few.zip", only_kept=True),
            further=repr(line.gate(0, inputs="logits_onehot", split="train")),
            data=line.dataset,
            pixels={image: line.dataset.open(image).size for image in line.dataset.ids},
            archive=export(line, home / "qwen.zip"),
        )
        again = export(line, home / "again.zip")
        assert again.read_bytes() == known.archive.read_bytes()
        with pytest.raises(InputError, match="ends in .zip"):
            export(line, home / "run.tar")
        with pytest.raises(InputError, match="larger than 0.01 MB"):
            export(line, home / "small.zip", max_mb=0.01)
        with pytest.raises(InputError, match="1 to 1024 pixels"):
            export(line, home / "large.zip", side=4000)
        known.maps, known.reasons = line.explanations(), line.reasons()
        known.bare = export(line, home / "bare.zip", pictures="none")
        known.whole = export(line, home / "whole.zip", pictures="originals")
        known.tiny = export(line, home / "tiny.zip", side=16)
        known.original = (home / "pictures" / line.dataset.ids[0]).read_bytes()
    assert sorted(path.name for path in home.glob("*.zip*")) == [
        f"{name}.zip" for name in ("again", "bare", "few", "qwen", "tiny", "whole")
    ]
    shutil.rmtree(home / "pictures")
    shutil.rmtree(home / "vlm")
    weights.unlink()
    return known


@pytest.fixture
def laptop(sent, tmp_path, monkeypatch):
    """An imported run on a machine without its data, its VLM or a home."""
    for name in ("HOME", "HF_HOME", "EMOKD_RUN", "EMOKD_DATA", "EMOKD_PROFILE", "EMOKD_SET"):
        monkeypatch.delenv(name, raising=False)
    return Pipeline(
        data=install(sent.archive, tmp_path / "runs"), say=lambda line: None, progress=False
    )


def members_of(path):
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


# ------------------------------------------------------------------------------- what arrives


def test_an_imported_run_says_what_the_run_said(sent, laptop):
    assert isinstance(laptop, ImportedRun)
    assert laptop.folder.name == "qwen"
    results = Results(laptop)
    pd.testing.assert_frame_equal(results.table(), sent.table, check_exact=True)
    for name, model in sent.predictions.items():
        found = results.predictions[0][name]
        assert found.to_frame().equals(model.to_frame()), name
        assert found.provenance == model.provenance
    assert laptop.tuned(0, "generate").to_frame().equals(sent.generated.to_frame())
    assert laptop.tuned().answers[0] == "=1+1"
    pd.testing.assert_frame_equal(laptop.dataset.table, sent.data.table)
    assert laptop.dataset.fingerprint == sent.data.fingerprint
    assert laptop.dataset.label_set == sent.data.label_set
    pd.testing.assert_frame_equal(laptop.costs(), sent.costs)
    assert laptop.explanations().keys() == sent.maps.keys()
    assert laptop.reasons() == sent.reasons
    assert set(sent.maps) <= set(sent.reasons) <= set(sent.data.split("test").ids)
    assert set(laptop.reasons().values()) == {"=1+1, an image of 60 pixels"}
    assert laptop.tuning_log() == [{"loss": 1.5, "step": 1}]
    assert laptop.vision_history() == (EPOCHS, 2)
    of_vision = laptop.vision_predictions().split("test")
    assert of_vision.to_frame().equals(sent.predictions[VISION].to_frame())
    assert repr(laptop.gate(0, inputs="logits_onehot", split="train")) == sent.further
    assert laptop.is_kept() and not laptop.is_kept(1)
    assert not laptop.built_in


def test_maps_and_reasons_are_made_for_the_archive_unless_told_otherwise(sent, tmp_path):
    few = Pipeline(data=install(sent.few, tmp_path / "runs"), say=lambda line: None)
    assert few.is_kept()
    for ask in (few.explanations, few.reasons):
        with pytest.raises(NotMadeError, match="imported without weights"):
            ask()


def test_built_in_models_lie_on_the_workbench(laptop):
    said = []
    laptop.say = said.append
    workbench = laptop.workbench
    assert type(workbench) is Pipeline and workbench.built_in and workbench.profile == MINI
    assert workbench.folder == laptop.folder.parent / "mini"
    assert workbench.workbench is workbench
    assert len(said) == 1 and said[0].startswith("[workbench] qwen was imported without weights")


def test_the_explorer_opens_with_thumbnails(laptop, tmp_path):
    predictions = laptop.predictions()
    widget = explore(
        predictions[TUNED],
        predictions[VISION],
        laptop.dataset,
        GateView(*laptop.gate_parts()),
        more=predictions,
    )
    rows = range(len(widget.table))
    assert all(widget._content.picture(row, 64, 80) for row in rows)
    assert len(widget.selection) == 18
    assert widget.to_html(tmp_path / "page.html").stat().st_size > 10_000


def test_images_are_reduced_and_lose_what_is_written_inside_them(sent, laptop, tmp_path):
    image = laptop.dataset.ids[0]
    assert laptop.dataset.open(image).size == sent.pixels[image]
    with pytest.raises(InputError, match="no image 'nowhere'"):
        laptop.dataset.open("nowhere")
    packed = sent.archive.read_bytes()
    assert b"SECRET" not in packed
    assert b"SECRET" in sent.original
    small = Pipeline(data=install(sent.tiny, tmp_path / "runs"), say=lambda line: None)
    assert max(small.dataset.open(image).size) == 16
    bare = Pipeline(data=install(sent.bare, tmp_path / "runs"), say=lambda line: None)
    tile = bare.dataset.open(image)
    assert tile.size == (224, 224) and len(tile.getcolors()) > 1  # it says so in words
    with pytest.raises(InputError, match="no image 'nowhere'"):
        bare.dataset.open("nowhere")
    assert members_of(sent.whole)[picture_name(image, "originals")] == sent.original
    whole = Pipeline(data=install(sent.whole, tmp_path / "runs"), say=lambda line: None)
    assert whole.dataset.split("test").open(whole.dataset.split("test").ids[0]).size == (60, 40)


def test_what_needs_weights_says_so_and_what_needs_none_is_made(laptop):
    asked = [
        lambda: laptop.base,
        laptop.tuned_vlm,
        laptop.vision,
        lambda: laptop.tuned(1),
        lambda: laptop.zero_shot("generate"),
        lambda: laptop.teacher_logits(1),
    ]
    for ask in asked:
        with pytest.raises(NotMadeError, match="imported without weights, so .* is not here"):
            ask()
    assert laptop.head(temperature=4.0).settings.temperature == 4.0
    changed = replace(laptop.profile, head_depth=2)
    assert Pipeline(changed, laptop.folder, say=laptop.say).head().settings.depth == 2
    with pytest.raises(InputError, match="one division"):
        Pipeline(data=laptop.folder, resplit=1)
    with pytest.raises(InputError, match="pass on the archive"):
        export(laptop, laptop.folder / "again.zip")


def test_the_environment_names_the_run_that_lessons_open(laptop, monkeypatch):
    runs = laptop.folder.parent
    monkeypatch.setenv("EMOKD_RUN", "qwen")
    for opened in (Pipeline(runs=runs), Pipeline("mini", runs=runs), Pipeline(MINI, runs=runs)):
        assert opened.folder == laptop.folder
        assert opened.profile == laptop.profile != MINI
    assert type(Pipeline(data=runs / "elsewhere", runs=runs)) is Pipeline
    monkeypatch.setenv("EMOKD_RUN", str(laptop.folder))
    assert Pipeline(runs=runs / "other").folder == laptop.folder
    monkeypatch.setenv("EMOKD_DATA", "photos")
    with pytest.raises(InputError, match="EMOKD_RUN and EMOKD_DATA both"):
        Pipeline(runs=runs)
    monkeypatch.delenv("EMOKD_DATA")
    monkeypatch.setenv("EMOKD_RUN", "vanished")
    with pytest.raises(InputError, match="EMOKD_RUN is 'vanished'"):
        Pipeline(runs=runs)


def test_the_archive_holds_results_and_no_weights_or_places(sent):
    members = members_of(sent.archive)
    assert not any("model.safetensors" in name or name.startswith("scan") for name in members)
    assert str(sent.home).encode() not in b"".join(members.values())
    listed = json.loads(members["manifest.json"])["members"]
    assert listed.keys() == members.keys() - {"manifest.json"}
    for name, entry in listed.items():
        assert entry["sha256"] == hashlib.sha256(members[name]).hexdigest()
    assert b"terms" in members["README.txt"]
    run = read_run(members["run.json"])
    assert (run.profile.vlm.name, run.profile.vision.weights) == ("vlm", "start.safetensors")


def test_gaps_in_the_table_stay_gaps(sent):
    members = members_of(sent.archive)
    edit_run(
        members,
        columns__hue=lambda values: [None, *values[1:]],
        columns__caption=lambda values: [None, *values[1:]],
    )
    table = read_run(members["run.json"]).table
    assert table["hue"].dtype == np.float64
    assert table[["hue", "caption"]].isna().sum().tolist() == [1, 1]
    assert table["hue"][1:].equals(sent.data.table["hue"][1:])


def test_the_commands(sent, tmp_path, capsys):
    run = ["import", str(sent.archive), "--runs", str(tmp_path), "--name", "seven"]
    assert cli.main(run) == 0
    assert f"EMOKD_RUN={tmp_path / 'seven'}\n" in capsys.readouterr().out
    assert cli.main(run) == 2
    assert "is there already" in capsys.readouterr().err
    assert cli.main(["import", str(tmp_path / "none.zip"), "--runs", str(tmp_path)]) == 2
    assert cli.main(["import", str(sent.archive), "--runs", str(sent.archive)]) == 2
    assert capsys.readouterr().err.count("must be a file") == 2
    assert cli.main([*run[:-1], "../up"]) == 2
    assert "no name for a run" in capsys.readouterr().err
    out = ["export", str(tmp_path / "out.zip"), "--runs", str(tmp_path / "nothing")]
    assert cli.main([*out, "--data", str(tmp_path / "seven")]) == 2
    assert "pass on the archive" in capsys.readouterr().err


# ------------------------------------------------------------------------------- what is refused


def pack(path, members, listing=True, **changes):
    """Write an archive; `changes`: name -> what its ZipInfo is to be changed by."""
    if listing:
        about = json.loads(members["manifest.json"])
        about["members"] = {
            name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in members.items()
            if name != "manifest.json"
        }
        members["manifest.json"] = json.dumps(about).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.filename = name  # as it is, where ZipInfo would mend it
            info.compress_type = zipfile.ZIP_DEFLATED
            for key, value in changes.get(name, {}).items():
                setattr(info, key, value)
            file.writestr(info, content)
    return path


def refuse(path, runs, words, **settings):
    """The archive is refused in one sentence, with nothing left behind or beside."""
    before = sorted(runs.parent.rglob("*")) if runs.exists() else None
    runs.mkdir(exist_ok=True)
    with pytest.raises(InputError, match=words) as caught:
        install(path, runs, "evil", **settings)
    assert "refused and nothing is installed" in str(caught.value)
    assert len(str(caught.value)) < 600 and "\n" not in str(caught.value)
    assert list(runs.iterdir()) == []
    assert before is None or sorted(runs.parent.rglob("*")) == before


def place(members, kind, file):
    return next(name for name in members if name.startswith(kind) and name.endswith(f"/{file}"))


def alter(members, kind, file, content):
    """Put other content into an artefact, whose manifest agrees."""
    name = place(members, kind, file)
    beside = f"{name.rpartition('/')[0]}/{MANIFEST}"
    about = json.loads(members[beside])
    sha256 = hashlib.sha256(content).hexdigest()
    about["files"][file] = {"size": len(content), "sha256": sha256}
    members[name], members[beside] = content, json.dumps(about).encode()


def edit_run(members, **changes):
    said = json.loads(members["run.json"])
    for path, value in changes.items():
        inside, *names = said, *path.split("__")
        for name in names[:-1]:
            inside = inside[name]
        inside[names[-1]] = value(inside[names[-1]]) if callable(value) else value
    members["run.json"] = json.dumps(said).encode()


@pytest.mark.parametrize(
    "name",
    [
        "../evil.txt",
        "/tmp/evil.txt",
        "C:/evil.txt",
        "..\\evil.txt",
        "pictures/../../evil.webp",
        "pictures/..",
        "pictures/" + "0" * 32 + ".exe",
        "RUN.JSON",
        "ｒun.json",
        "run.json\0.txt",
        "run.json/",
        "inner.zip",
        "__main__.py",
        "features-0123456789abcdef/features.pkl",
        "vision-seed0-0123456789abcdef/model.safetensors",
        "adapter-seed0-0123456789abcdef/adapter_config.json",
        "Features-0123456789abcdef/features.safetensors",
        "features-../features.safetensors",
    ],
)
def test_names_that_are_not_a_runs_own_are_refused(sent, tmp_path, name):
    members = members_of(sent.archive) | {name: b"evil"}
    refuse(pack(tmp_path / "a.zip", members), tmp_path / "runs", "not one of the files of a run")


def test_a_name_given_twice_is_refused(sent, tmp_path):
    path = pack(tmp_path / "a.zip", members_of(sent.archive))
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("run.json", b"{}")
    refuse(path, tmp_path / "runs", "comes twice")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"external_attr": (stat.S_IFLNK | 0o777) << 16}, "not a plain file"),
        ({"external_attr": (stat.S_IFIFO | 0o777) << 16}, "not a plain file"),
        ({"compress_type": zipfile.ZIP_LZMA}, "packed in an unknown way"),
    ],
)
def test_members_that_are_no_plain_files_are_refused(sent, tmp_path, change, words):
    path = pack(tmp_path / "a.zip", members_of(sent.archive), **{"run.json": change})
    refuse(path, tmp_path / "runs", words)


def central(data, name):
    """Place of a member's entry in the list at the end."""
    at = data.rindex(name.encode())
    return data.rindex(b"PK\1\2", 0, at)


def test_encrypted_members_are_refused(sent, tmp_path):
    data = bytearray(pack(tmp_path / "a.zip", members_of(sent.archive)).read_bytes())
    data[central(data, "run.json") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    refuse(tmp_path / "a.zip", tmp_path / "runs", "encrypted")


def test_a_bomb_is_refused_by_what_it_says_and_by_what_it_is(sent, tmp_path, monkeypatch):
    bomb = members_of(sent.archive) | {"README.txt": bytes(30_000_000)}
    path = pack(tmp_path / "a.zip", bomb)
    assert path.stat().st_size < 10**6
    refuse(path, tmp_path / "runs", "more than 20 MB", max_mb=20)
    refuse(path, tmp_path / "runs", "larger than 0.02 MB", max_mb=0.02)
    # A member that says it is small.
    data = bytearray(path.read_bytes())
    at = central(data, "README.txt")
    data[at + 24 : at + 28] = struct.pack("<I", 10)
    path.write_bytes(data)
    refuse(path, tmp_path / "runs", "Bad CRC-32", max_mb=20)
    monkeypatch.setattr(archive, "_MAX_BYTES", {".json": 1000})
    refuse(pack(path, members_of(sent.archive)), tmp_path / "runs", "is too large")


def test_a_list_of_too_many_members_is_refused_before_it_is_read(sent, tmp_path, monkeypatch):
    data = sent.archive.read_bytes()
    path = tmp_path / "a.zip"
    long = bytearray(data)
    long[-10:-6] = struct.pack("<I", 2**31)
    path.write_bytes(long)
    refuse(path, tmp_path / "runs", "too many members")
    # The same in the longer form, which zipfile prefers wherever it finds it.
    size = len(data) - 22
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 9, 9, 2**40, 0)
    where = struct.pack("<4sIQI", b"PK\6\7", 0, size, 1)
    path.write_bytes(data[:-22] + record + where + data[-22:])
    refuse(path, tmp_path / "runs", "too many members")
    where = struct.pack("<4sIQI", b"PK\6\7", 0, size - 1, 1)
    path.write_bytes(data[:-22] + record + where + data[-22:])
    refuse(path, tmp_path / "runs", "not where it should be")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"no archive at all" * 20,
        lambda data: data[: len(data) // 2],
        lambda data: data + b"more",
        lambda data: b"\x80\x04\x95" + bytes(100),
    ],
)
def test_what_is_no_whole_archive_is_refused(sent, tmp_path, damage):
    (tmp_path / "a.zip").write_bytes(damage(sent.archive.read_bytes()))
    refuse(tmp_path / "a.zip", tmp_path / "runs", "no zip archive")


def test_any_flipped_byte_is_noticed(sent, tmp_path):
    data = sent.archive.read_bytes()
    kept = members_of(sent.archive)
    for at in np.random.default_rng(0).integers(0, len(data), 40):
        flipped = bytearray(data)
        flipped[at] ^= 0x55
        (tmp_path / "a.zip").write_bytes(flipped)
        try:
            folder = install(tmp_path / "a.zip", tmp_path / "runs")
        except InputError:
            assert not list((tmp_path / "runs").iterdir())
            continue
        # Times and the like: what was installed is what was sent.
        for name in kept.keys() - {"manifest.json"}:
            assert (folder / name).read_bytes() == kept[name]
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update({"README.txt": b"another"}), "damaged"),
        (lambda m: m.pop("README.txt"), "not those of its manifest"),
        (lambda m: m.pop("run.json"), "no run.json"),
        (lambda m: m.pop("manifest.json"), "no manifest.json"),
        (lambda m: m.update({"manifest.json": b"[]"}), "refused"),
        (lambda m: m.update({"manifest.json": b"[" * 10**6}), "not JSON"),
        (lambda m: m.update({"manifest.json": b'{"a":' * 50 + b"1" + b"}" * 50}), "deeper than"),
    ],
)
def test_members_that_the_manifest_does_not_list_so_are_refused(sent, tmp_path, change, words):
    members = members_of(sent.archive)
    change(members)
    refuse(pack(tmp_path / "a.zip", members, listing=False), tmp_path / "runs", words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": "99.0"}, "made by emokd_utils '99.0'"),
        ({"format": "other"}, "not of the format"),
        ({"ids": lambda ids: ["../../up.png", *ids[1:]]}, "unusable ids"),
        ({"ids": lambda ids: ["/etc/passwd", *ids[1:]]}, "unusable ids"),
        ({"ids": lambda ids: ["C:\\up.png", *ids[1:]]}, "unusable ids"),
        ({"ids": lambda ids: [ids[1], *ids[1:]]}, "unusable ids"),
        ({"ids": lambda ids: [ids[0] + "\n", *ids[1:]]}, "unusable text"),
        ({"ids": lambda ids: [7, *ids[1:]]}, "unusable text"),
        ({"ids": lambda ids: ids[1:]}, "unusable column"),
        ({"columns__label": lambda labels: ["envy", *labels[1:]]}, "unusable labels"),
        ({"columns__split": lambda splits: ["all", *splits[1:]]}, "unusable splits"),
        ({"columns__caption": lambda texts: [[1], *texts[1:]]}, "unusable column"),
        ({"labels": ["joy"]}, "refused"),
        ({"labels": [*CLASSES[1:], CLASSES[0]]}, "unusable labels"),
        ({"labels": [f"label {k}" for k in range(101)]}, "unusable list"),
        ({"seeds": []}, "unusable seeds"),
        ({"seeds": [1]}, "holds no"),
        ({"seeds": 7}, "describes no run"),
        ({"pictures": "others"}, "unusable pictures"),
        ({"pictures": "none"}, "pictures are not those"),
        ({"profile__vlm": "/opt/vlm"}, "unusable path"),
        ({"profile__data": "../up"}, "unusable path"),
        ({"profile__head_depth": "1"}, "unusable head_depth"),
        ({"profile__head_depth": 10**9}, "refused"),
        ({"profile__gate_kinds": ["pickle"]}, "no gate is called"),
        ({"profile": {}}, "holds no"),
        ({"profile": {"run": "rm"}}, "unusable profile"),
        ({"keys": []}, "describes no run"),
        ({"keys__vlm": "another"}, "holds no"),
    ],
)
def test_a_run_that_is_not_described_soundly_is_refused(sent, tmp_path, changes, words):
    members = members_of(sent.archive)
    edit_run(members, **changes)
    refuse(pack(tmp_path / "a.zip", members), tmp_path / "runs", words)


class Payload:
    """What unpickling would run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def header(**tensors):
    """safetensors with a made-up header, and eight bytes of data."""
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text + bytes(8)


@pytest.mark.parametrize("kind", ["features", "teacher", "head", "gate", "explanations"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        struct.pack("<Q", 2**63) + b"{}",
        header(rows={"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]}),
        header(rows={"dtype": "F32", "shape": [2], "data_offsets": [0, 2**50]}),
        header(rows={"dtype": "F32", "shape": [-1, 2], "data_offsets": [0, 8]}),
        header(rows={"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}),
        save({"rows": np.zeros(2)}, {"format": "emokd-cache-1", "about": "[" * 10**6}),
    ],
    ids=["empty", "header", "shape", "offsets", "negative", "bare", "deep"],
)
def test_unsound_safetensors_are_refused(sent, tmp_path, kind, content):
    members = members_of(sent.archive)
    alter(members, kind, archive.FILES[kind][0], content)
    refuse(pack(tmp_path / "a.zip", members), tmp_path / "runs", f"{kind}.*loading fails")


def test_nothing_is_unpickled(sent, tmp_path):
    for kind, files in archive.FILES.items():
        members = members_of(sent.archive)
        alter(members, kind, files[0], pickle.dumps(Payload(tmp_path / "executed")))
        refuse(pack(tmp_path / "a.zip", members), tmp_path / "runs", "loading fails|not JSON")
    assert not (tmp_path / "executed").exists()


def rewritten(members, kind, tmp_path, change, form):
    """A head or gate whose metadata was changed."""
    path = tmp_path / "rewritten.safetensors"
    file = archive.FILES[kind][0]
    path.write_bytes(members[place(members, kind, file)])
    state, about = read_weights(path, form)
    write_weights(path, form, state, about | change)
    alter(members, kind, file, path.read_bytes())


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("head", {"in_features": 10**12}),
        ("head", {"num_classes": 10**12}),
        ("gate", {"num_classes": 10**6}),
        ("gate", {"settings": {"kind": "none"}}),
    ],
)
def test_a_head_or_gate_of_another_size_is_refused_before_it_is_built(sent, tmp_path, kind, change):
    members = members_of(sent.archive)
    rewritten(members, kind, tmp_path, change, f"emokd-{kind}-1")
    refuse(pack(tmp_path / "a.zip", members), tmp_path / "runs", f"{kind}.*loading fails")


def test_features_of_other_images_are_refused(sent, tmp_path):
    members = members_of(sent.archive)
    save_rows(tmp_path / "c.safetensors", ["a", "b"], np.zeros((2, 8), np.float32))
    alter(members, "features", "features.safetensors", (tmp_path / "c.safetensors").read_bytes())
    refuse(pack(tmp_path / "a.zip", members), tmp_path / "runs", "ids are not in the cache")
    ids = list(sent.data.ids)
    save_rows(tmp_path / "c.safetensors", ids, np.full((len(ids), 8), np.nan, np.float32))
    alter(members, "features", "features.safetensors", (tmp_path / "c.safetensors").read_bytes())
    refuse(pack(tmp_path / "a.zip", members), tmp_path / "runs", "not finite")


def test_predictions_of_other_data_or_with_a_formula_are_refused(sent, tmp_path):
    members = members_of(sent.archive)
    found = sent.generated
    others = replace(found, labels=tuple(reversed(found.labels)))
    others.save(tmp_path / "p.csv")
    kind = "predictions-tuned-seed0-generate"
    for name in ("predictions.csv", "predictions.json"):
        alter(members, kind, name, (tmp_path / name.replace("redictions", "")).read_bytes())
    refuse(pack(tmp_path / "a.zip", members), tmp_path / "runs", "of other data")

    members = members_of(sent.archive)
    table = members[place(members, kind, "predictions.csv")]
    assert b",'=1+1," in table
    for changed, words in (
        (table.replace(b",'=1+1,", b",=1+1,"), "not as `Predictions.save` writes"),
        (table.replace(b"p_joy", b"p_envy"), "the columns are"),
        (table[: table.rindex(b"\n", 0, -1) + 1], "rows, not 18"),
    ):
        about = json.loads(members[place(members, kind, "predictions.json")])
        about["sha256"] = hashlib.sha256(changed).hexdigest()
        alter(members, kind, "predictions.csv", changed)
        alter(members, kind, "predictions.json", json.dumps(about).encode())
        refuse(pack(tmp_path / "a.zip", members), tmp_path / "runs", words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table.drop(columns="memory (MB)"), "other columns"),
        (lambda table: table.iloc[:2], "other rows"),
        (lambda table: table.rename(index={VLM_ALONE: "=1+1"}), "other rows"),
        (lambda table: table.assign(**{"memory (MB)": "=1+1"}), "no numbers"),
    ],
)
def test_costs_of_another_shape_are_refused(sent, tmp_path, change, words):
    members = members_of(sent.archive)
    alter(members, "costs", "costs.csv", change(sent.costs).to_csv().encode())
    refuse(pack(tmp_path / "a.zip", members), tmp_path / "runs", words)


@pytest.mark.parametrize(
    ("kind", "content", "words"),
    [
        ("vision", {"history": EPOCHS, "best_epoch": 3}, "best epoch"),
        ("vision", {"history": [], "best_epoch": 1}, "epochs"),
        ("vision", {"history": [EPOCHS[0], {"epoch": 2}], "best_epoch": 1}, "epochs"),
        ("vision", {"history": [EPOCHS[0] | {"epoch": "=1+1"}], "best_epoch": 1}, "no numbers"),
        ("vision", {"best_epoch": 1}, "loading fails"),
        ("adapter", {"log": [{"loss": "<b>"}]}, "no numbers"),
        ("adapter", {"log": 5}, "loading fails"),
        ("reasons", {"nowhere.jpg": "a text"}, "loading fails"),
        ("reasons", {"train/joy/0.jpg": "a text"}, "of other images"),
        ("reasons", {"test/joy/0.jpg": "two\nlines"}, "unusable text"),
        ("reasons", {"test/joy/0.jpg": ["a list"]}, "unusable text"),
        ("reasons", ["a list"], "loading fails"),
    ],
)
def test_notes_that_a_lesson_could_not_show_are_refused(sent, tmp_path, kind, content, words):
    members = members_of(sent.archive)
    alter(members, kind, archive.FILES[kind][0], json.dumps(content).encode())
    refuse(pack(tmp_path / "a.zip", members), tmp_path / "runs", words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"values": np.zeros((300, 2), np.float32)}, "too large"),
        ({"values": np.array([[np.inf]], np.float32)}, "not finite"),
        ({"area": (0.0, 0.0, 9.0, 1.0)}, "beside the image"),
        ({"method": "magic"}, "unknown kind"),
    ],
)
def test_maps_that_could_not_be_drawn_are_refused(sent, tmp_path, change, words):
    members = members_of(sent.archive)
    image, maps = next(iter(sent.maps.items()))
    maps = {image: {name: replace(one, **change) for name, one in maps.items()}}
    save_explanations(tmp_path / "maps.safetensors", maps)
    content = (tmp_path / "maps.safetensors").read_bytes()
    alter(members, "explanations", "maps.safetensors", content)
    refuse(pack(tmp_path / "a.zip", members), tmp_path / "runs", words)


def webp(side, **settings):
    buffer = io.BytesIO()
    Image.new("RGB", (side, 8)).save(buffer, "WEBP", **settings)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"GIF89a", "cannot identify"),
        (webp(2000), "larger than 1024"),
        (webp(8, save_all=True, append_images=[Image.new("RGB", (8, 8), "red")]), "or moves"),
        (webp(64)[:40], "refused"),
        (None, "pictures are not those"),
    ],
)
def test_pictures_that_are_no_thumbnails_are_refused(sent, tmp_path, content, words):
    members = members_of(sent.archive)
    name = next(name for name in members if name.startswith("pictures/"))
    if content is None:
        members[f"pictures/{'0' * 32}.webp"] = members.pop(name)
    else:
        members[name] = content
    refuse(pack(tmp_path / "a.zip", members), tmp_path / "runs", words)


def test_an_artefact_under_anothers_key_or_a_missing_one_is_refused(sent, tmp_path):
    members = members_of(sent.archive)
    folder = place(members, "teacher", MANIFEST).rpartition("/")[0]
    moved = {name.replace(folder, folder[:-16] + "0" * 16): c for name, c in members.items()}
    refuse(pack(tmp_path / "a.zip", moved), tmp_path / "runs", "not what its key says")
    about = json.loads(members[f"{folder}/{MANIFEST}"])
    about["kind"] = "head"
    members[f"{folder}/{MANIFEST}"] = json.dumps(about).encode()
    refuse(pack(tmp_path / "a.zip", members), tmp_path / "runs", "not what its key says")
    members = members_of(sent.archive)
    fewer = {name: c for name, c in members.items() if not name.startswith("head-alpha0-")}
    refuse(pack(tmp_path / "a.zip", fewer), tmp_path / "runs", "holds no head-alpha0-seed0")


def test_an_interrupted_import_leaves_nothing(sent, tmp_path, monkeypatch):
    def stop(*more):
        raise KeyboardInterrupt

    monkeypatch.setattr(archive, "_check", stop)
    with pytest.raises(KeyboardInterrupt):
        install(sent.archive, tmp_path / "runs")
    assert list((tmp_path / "runs").iterdir()) == []


def test_ids_never_lead_out_of_the_run(sent, tmp_path):
    """Even in a run whose table was changed after it was installed."""
    folder = install(sent.archive, tmp_path / "runs")
    members = {"run.json": (folder / "run.json").read_bytes()}
    edit_run(members, ids=lambda ids: ["../../secret.png", *ids[1:]])
    (folder / "run.json").write_bytes(members["run.json"])
    with pytest.raises(InputError, match="unusable ids"):
        Pipeline(data=folder)
    for image in ("../../secret.png", "/secret.png"):
        assert picture_name(image, "thumbnails").startswith("pictures/")
        assert fingerprint(image) not in picture_name(image, "thumbnails")


@pytest.mark.slow
def test_the_run_of_the_course_travels(tmp_path):
    here = Pipeline(say=lambda line: None, progress=False, make=False)
    if not here.is_kept():
        pytest.skip("needs runs/mini: `python -m emokd_utils run`")
    folder = install(export(here, tmp_path / "mini.zip"), tmp_path / "runs")
    there = Pipeline(data=folder, say=lambda line: None, make=False)
    assert isinstance(there.dataset, ImageDataset) and there.built_in
    one, two = Results(here), Results(there)
    pd.testing.assert_frame_equal(one.table(), two.table(), check_exact=True)
    assert list(map(str, one.claims())) == list(map(str, two.claims()))
    pd.testing.assert_frame_equal(here.dataset.table, there.dataset.table)
