"""A run: kept at any moment, the same by its folder and by its archive, on any folder of images."""

import json
import os
import re
import signal
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import timm
from kept_run import folder_run, noise
from safetensors.torch import save_file

from emokd_utils.profiles import MINI, reduced
from emokd_utils.run import open_run
from emokd_utils.run.stages import adapter, features, vision_model
from emokd_utils.run.store import STAGES

ROOT = Path(__file__).resolve().parent.parent


quiet = str  # says nothing


@pytest.fixture
def key_of(tmp_path):
    """The key of a stage's result under a changed profile."""
    home = folder_run(tmp_path)

    def key(stage, *arguments, **changes):
        profile = home.profile.changed(**changes)
        run = open_run(profile, home.root, tmp_path / "runs", say=quiet, make=False)
        return run.artefact(stage, *arguments).key

    return key


def test_what_changes_a_result_changes_its_key_and_what_does_not_does_not(key_of, tmp_path):
    plain = key_of(adapter, 0)
    how = {"recompute": True, "checkpoint_steps": 7}
    assert key_of(adapter, 0, tuning=how) == plain
    assert key_of(adapter, 0, vlm={"batch_size": 1}) == plain
    changed = [
        key_of(adapter, 1),
        key_of(adapter, 0, tuning={"rank": 4}),
        key_of(adapter, 0, vlm={"pixels": 7056}),
        key_of(adapter, 0, vlm={"quantize": "nf4"}),
        key_of(adapter, 0, vlm={"quantize": "nf4-tuning"}),
    ]
    assert len({plain, *changed}) == 5 and changed[-1] == changed[-2], "tuned in 4 bits, both"
    assert key_of(features, vlm={"quantize": "nf4-tuning"}) == key_of(features)
    assert key_of(features, vlm={"quantize": "nf4"}) != key_of(features)


def test_weights_are_known_by_what_their_file_holds(key_of, tmp_path):
    keys = {}
    for content in ("one", "two", "one"):
        file = tmp_path / f"{len(keys)}-{content}.safetensors"
        file.write_text(content)
        keys.setdefault(content, set()).add(key_of(vision_model, 0, f"resnet18@{file}"))
    assert len(keys["one"]) == len(keys["two"]) == 1 and keys["one"] != keys["two"]
    assert key_of(vision_model, 0, "") not in keys["one"] | keys["two"]


def test_a_hub_models_key_holds_the_revision_that_was_fetched(tmp_path, monkeypatch):
    cache = tmp_path / "hub" / "models--someone--vlm"
    (cache / "snapshots" / "abc123").mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("abc123")
    (cache / "snapshots" / "abc123" / "config.json").write_text("{}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    run = open_run(MINI.changed(vlm={"name": "someone/vlm"}), runs=tmp_path / "runs", say=quiet)
    assert run.source.vlm_key == "someone/vlm@abc123"


def test_what_is_taken_apart_is_of_the_family_that_the_lessons_speak_of(tmp_path):
    said = []
    own = open_run(MINI, "/photos", tmp_path, say=said.append)
    assert own.workbench is own and said == []
    (tmp_path / "vlm").mkdir()
    (tmp_path / "vlm" / "config.json").write_text('{"model_type": "smolvlm"}', encoding="utf-8")
    profile = MINI.changed(vlm={"name": str(tmp_path / "vlm")})
    other = open_run(profile, "/photos", tmp_path, say=said.append).workbench
    assert other.profile == MINI and other.source.built_in and other.folder == tmp_path / "mini"
    assert len(said) == 1 and "built otherwise than Qwen2-VL" in said[0]


def command(runs, *more):
    return [sys.executable, "-m", "emokd_utils", "run", "--reduced", "--runs", str(runs), *more]


def run_whole(runs, *more):
    done = subprocess.run(
        command(runs, *more), capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def answers(folder):
    """What the models said, by the name of the folder without its key."""
    return {
        path.parent.name.rpartition("-")[0]: path.read_bytes()
        for path in sorted(folder.glob("*/predictions.csv"))
    }


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is of POSIX")
def test_killed_in_the_middle_it_ends_with_the_numbers_of_a_run_left_alone(reduced_runs, tmp_path):
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True, "cwd": ROOT}
    with subprocess.Popen(
        command(tmp_path), env=os.environ | {"PYTHONUNBUFFERED": "1"}, **pipe
    ) as process:
        for line in process.stdout:
            if line.startswith("[made] adapter"):  # the tuned VLM is about to answer
                process.send_signal(signal.SIGKILL)
                break
    resumed = run_whole(tmp_path)
    for stage in ("scanned", "zero_shot"):
        assert re.search(rf"^\[kept\] {stage}", resumed, re.MULTILINE), stage
    assert not re.search(r"^\[made\] (zero_shot|adapter)", resumed, re.MULTILINE)
    assert answers(tmp_path / "mini") == answers(reduced_runs / "mini")
    assert "[made]" not in run_whole(tmp_path)
    assert "built-in" in (tmp_path / "mini" / "report.md").read_text("utf-8")


@pytest.mark.slow
def test_any_folder_of_images_goes_through_the_same_code(tmp_path):
    """Noise of two classes in many sizes: no cue, no caption, no val split."""
    for place, (split, label) in enumerate(product(("train", "test"), ("negative", "positive"))):
        folder = tmp_path / "data" / split / label
        folder.mkdir(parents=True)
        for k in range(40 if split == "train" else 12):
            noise([place, k], (90 + 2 * k, 180 - 2 * k)).save(folder / f"{k}.jpg")
    save_file(timm.create_model("test_efficientnet").state_dict(), tmp_path / "start.safetensors")
    further = f"test_efficientnet@{tmp_path / 'start.safetensors'}"
    data = ("--data", str(tmp_path / "data"))
    printed = run_whole(tmp_path / "runs", *data, "--further-vision", further)
    assert re.search(r"^vision model, test_efficientnet, pretrained +\d", printed, re.MULTILINE)
    report = next((tmp_path / "runs").glob("*/report.md")).read_text("utf-8")
    assert "content" not in printed[printed.index("accuracy %") :].splitlines()[0]
    assert "no photographs" in report


NUMBERS = Path(__file__).with_name("stage_numbers.json")
NOISY = {"vision_model", "teacher_logits", "head_logits", "gate_logits", "regression"}
NOISY |= {"adapter", "tuned"}
"""Training differs between CPUs, with and without fast bfloat16; the others do not."""


def numbers_of(run) -> dict[str, dict]:
    """A version and a few numbers of each stage of a reduced run."""
    history, best = run.vision_history()
    kinds = [(*run.gate_settings(kind), "head") for kind in run.profile.gates]
    gates = [run.artefact(STAGES["gate_logits"], 0, *kind) for kind in kinds]
    numbers = {
        "features": [float(run.features().mean()), float(run.features().std())],
        "vision_model": [history[best - 1]["train_loss"]],
        "teacher_logits": [float(run.teacher_logits().std())],
        "zero_shot": [float(run.zero_shot().probabilities.max(1).mean())],
        "adapter": [run.tuning_log()[-1]["train_loss"]],
        "tuned": [float(run.tuned().probabilities.max(1).mean())],
        "head_logits": [float(run.head_logits().std()), float(run.head_logits(alpha=0.0).std())],
        "gate_logits": [float(kept.value[0].std()) for kept in gates],
        "regression": [float(run.artefact(STAGES["regression"], 0).value.std())],
        "cost_table": run.costs()["parameters"].tolist(),
    }
    return {name: {"version": STAGES[name].version, "numbers": numbers[name]} for name in numbers}


@pytest.mark.slow
def test_a_stage_whose_numbers_change_gets_another_version(reduced_runs):
    """Kept results are found by their stage's version: without a new one they would outlive the code
    that made them. After raising it: ``python tests/test_run.py RUNS`` writes the numbers anew."""
    run = open_run(reduced(MINI), runs=reduced_runs, say=quiet, make=False)
    known = json.loads(NUMBERS.read_text("utf-8"))
    for name, now in numbers_of(run).items():
        assert now["version"] == known[name]["version"], f"write the numbers of {name} anew"
        rel = 0.15 if name in NOISY else 0.01
        assert now["numbers"] == pytest.approx(known[name]["numbers"], rel=rel), (
            f"{name} computes something else: raise its version in run/stages.py"
        )


if __name__ == "__main__":
    kept = open_run(reduced(MINI), runs=sys.argv[1], say=quiet)
    NUMBERS.write_text(json.dumps(numbers_of(kept), indent=1) + "\n", encoding="utf-8")
