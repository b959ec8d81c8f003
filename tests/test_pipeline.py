import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import timm
from PIL import Image
from safetensors.torch import save_file

from emokd_utils.errors import InputError
from emokd_utils.files import fingerprint
from emokd_utils.profiles import MINI, PROFILES, project_root, reduced
from emokd_utils.run.environment import named_profile
from emokd_utils.run.pipeline import Pipeline

STAGES = (
    "scan",
    "features",
    "vision",
    "teacher",
    "head",
    "adapter",
    "predictions",
    "gate",
    "costs",
)


def test_settings_of_a_stage_come_from_its_fields():

    assert MINI.head.alpha == 0.5
    assert replace(MINI.head, alpha=0.0).alpha == 0.0
    assert replace(MINI.gate, kind="bilinear").kind == "bilinear"
    assert MINI.tuning.rank == 8
    assert MINI.vision.name == MINI.vision.name


def test_the_environment_picks_the_profile(monkeypatch):
    monkeypatch.setenv("EMOKD_PROFILE", "mini")
    assert named_profile() is PROFILES["mini"]
    monkeypatch.setenv("EMOKD_PROFILE", "maxi")
    with pytest.raises(InputError, match="maxi"):
        named_profile()
    assert named_profile("mini") is MINI
    monkeypatch.setenv("EMOKD_PROFILE", "paper")
    monkeypatch.setenv("EMOKD_DATA", "/photos/FI")
    assert named_profile() == replace(PROFILES["paper"], data="/photos/FI")
    assert str(Pipeline().root) == "/photos/FI" and not Pipeline().built_in
    assert Pipeline(data="/elsewhere").root.name == "elsewhere"


def test_the_environment_changes_fields_of_its_profile(monkeypatch):
    monkeypatch.setenv("EMOKD_PROFILE", "paper")
    monkeypatch.setenv("EMOKD_SET", "'vlm=/my models/qwen' tuning_epochs=2")
    assert named_profile() == replace(PROFILES["paper"], vlm="/my models/qwen", tuning_epochs=2)
    assert named_profile("paper") == named_profile() == Pipeline().profile
    assert named_profile("mini") is MINI
    for text, words in (("vlmm=x", "no field 'vlmm'"), ("tuning_epochs=few", "wants int")):
        monkeypatch.setenv("EMOKD_SET", text)
        with pytest.raises(InputError, match=words):
            named_profile()
    monkeypatch.setenv("EMOKD_SET", "'vlm=x")
    with pytest.raises(InputError, match="EMOKD_SET='vlm=x: No closing quotation"):
        named_profile()


def test_reduced_changes_only_amounts():
    small = reduced(MINI)
    assert small.name == MINI.name
    assert small.head_alpha == MINI.head.alpha
    assert small.vision_epochs < MINI.vision.epochs


def test_what_is_taken_apart_is_of_the_family_that_the_lessons_speak_of(tmp_path):
    said = []
    own = Pipeline(MINI, "/photos", tmp_path, say=said.append)
    assert own.workbench is own and said == []
    (tmp_path / "vlm").mkdir()
    (tmp_path / "vlm" / "config.json").write_text('{"model_type": "smolvlm"}', encoding="utf-8")
    other = Pipeline(replace(MINI, vlm=str(tmp_path / "vlm")), "/photos", tmp_path, say=said.append)
    assert other.workbench.profile == MINI and other.workbench.built_in
    assert other.workbench.folder == tmp_path / "mini"
    assert len(said) == 1 and "built otherwise than Qwen2-VL" in said[0]


def test_a_further_vision_model_is_known_by_what_its_weights_hold(tmp_path, monkeypatch):
    from emokd_utils.run import pipeline as module

    kept = []
    monkeypatch.setattr(module, "fine_tune", lambda *args: kept.append(args[1]))
    line = Pipeline(MINI, runs=tmp_path, say=lambda text: None)
    monkeypatch.setattr(
        line.store, "step", lambda kind, inputs, make, load: (kind, fingerprint(inputs), make)
    )
    monkeypatch.setattr(Pipeline, "dataset", SimpleNamespace(fingerprint="0"))
    keys = {}
    for content in ("one", "two", "one"):
        file = tmp_path / f"{len(keys)}-{content}.safetensors"
        file.write_text(content)
        _, key, make = line._vision(0, f"resnet18@{file}")
        keys.setdefault(content, set()).add(key)
        with contextlib.suppress(AttributeError):
            make(tmp_path)
        assert (kept[-1].name, kept[-1].weights) == ("resnet18", str(file))
        assert kept[-1].lr == MINI.vision.lr
    assert len(keys["one"]) == len(keys["two"]) == 1
    assert keys["one"] != keys["two"]
    assert line._vision(0)[1] not in keys["one"] | keys["two"]


def command(runs, *more):
    return [sys.executable, "-m", "emokd_utils", "run", "--reduced", "--runs", str(runs), *more]


def environment():
    return os.environ | {"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}


def run_whole(runs, *more):
    done = subprocess.run(
        command(runs, *more),
        capture_output=True,
        text=True,
        cwd=project_root(),
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_until_made(runs, kind):
    """Start the command and kill it, as kill -9 does, when it says that it made ``kind``."""
    process = subprocess.Popen(
        command(runs),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=project_root(),
        env=environment(),
    )
    for line in process.stdout:
        if line.startswith(f"[made] {kind}"):
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    process.stdout.close()


def numbers(folder):
    return {
        re.sub("-[0-9a-f]{16}$", "", path.parent.name): path.read_bytes()
        for path in sorted(folder.glob("*/predictions-*/predictions.csv"))
    }


def told(output):
    """Table and claims without the times, which are measured and not computed."""
    text = output[output.index("accuracy %") : output.index("The report")]
    return re.sub(r"(\d,\d{3}) +[\d.]+$", r"\1", text, flags=re.MULTILINE)


@pytest.mark.slow
def test_killed_after_every_stage_it_ends_with_the_numbers_of_a_run_left_alone(tmp_path):
    for kind in STAGES:
        run_until_made(tmp_path / "killed", kind)
    resumed = run_whole(tmp_path / "killed")
    for kind in STAGES:
        assert re.search(rf"^\[kept\] {kind}", resumed, re.MULTILINE), kind
    alone = run_whole(tmp_path / "alone")
    assert told(alone) == told(resumed)
    assert numbers(tmp_path / "killed") == numbers(tmp_path / "alone")

    folder = tmp_path / "alone" / "mini"
    report = (folder / "report.md").read_text()
    for figure in re.findall(r"\]\((.+?\.png)\)", report):
        assert Image.open(folder / figure).width > 300
    assert "built-in" in report

    begin = time.perf_counter()
    again = run_whole(tmp_path / "alone")
    assert "[made]" not in again
    assert time.perf_counter() - begin < 60


@pytest.mark.slow
def test_any_folder_of_images_goes_through_the_same_code(tmp_path):
    """Noise with two classes of one brightness each: no cue, no caption, no val split."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 12)):
        for label, level in (("negative", 60), ("positive", 190)):
            folder = tmp_path / "data" / split / label
            folder.mkdir(parents=True)
            for k in range(count):
                size = (int(rng.integers(90, 200)), int(rng.integers(90, 200)))
                pixels = np.clip(rng.normal(level, 30, (*size[::-1], 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{k}.jpg")
    start = timm.create_model("test_efficientnet")
    save_file(start.state_dict(), tmp_path / "start.safetensors")
    further = f"test_efficientnet@{tmp_path / 'start.safetensors'}"
    data = ("--data", str(tmp_path / "data"))
    printed = run_whole(tmp_path / "runs", *data, "--further-vision", further)
    assert re.search(r"^vision model, test_efficientnet, pretrained +\d", printed, re.MULTILINE)
    report = next((tmp_path / "runs").glob("*/report.md")).read_text()
    assert "content" not in printed[printed.index("accuracy %") :].splitlines()[0]
    assert "no photographs" in report
