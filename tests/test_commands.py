"""The command line: what it takes, what it does with it, and errors in one sentence."""

import errno
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from kept_run import folder_run
from PIL import Image

import emokd_utils
from emokd_utils.cli import commands
from emokd_utils.cli.parser import build_parser
from emokd_utils.errors import InputError

ROOT = Path(__file__).resolve().parent.parent


def test_importing_the_package_loads_nothing():
    code = "import sys, emokd_utils; print(*{'torch', 'pandas', 'numpy', 'PIL'} & set(sys.modules))"
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert found.stdout.split() == []


def test_modules_load_on_first_use():
    assert "distillation" in dir(emokd_utils) and "__main__" not in emokd_utils.__all__
    assert emokd_utils.cli.commands is commands
    with pytest.raises(AttributeError, match="no attribute 'telepathy'"):
        _ = emokd_utils.telepathy


def test_every_command_that_is_offered_is_carried_out():
    names = build_parser()._subparsers._group_actions[0].choices
    assert set(names) == set(commands.COMMANDS)


def test_run_takes_one_seed_or_several(capsys):
    parse = build_parser().parse_args
    assert (parse(["run"]).seed, parse(["run"]).seeds) == (0, 1)
    assert parse(["run", "--seeds", "3"]).seeds == 3
    assert parse(["run", "--data", "photos", "--skip-bad"]).data == Path("photos")
    for wrong in (["--seeds", "0"], ["--seed", "-1"], ["--seed", "1", "--seeds", "3"]):
        with pytest.raises(SystemExit) as stop:
            parse(["run", *wrong])
        assert stop.value.code == 2
    assert "not a whole number" in capsys.readouterr().err


def test_profile_and_runs_come_from_the_environment(monkeypatch):
    parse = build_parser
    assert parse().parse_args(["run"]).profile == "mini"
    monkeypatch.setenv("EMOKD_PROFILE", "paper")
    monkeypatch.setenv("EMOKD_RUNS", "/results")
    assert parse().parse_args(["bench"]).profile == "paper"
    assert parse().parse_args(["run"]).runs == Path("/results")
    assert parse().parse_args(["run", "--profile", "mini"]).profile == "mini"


NO_MEMORY = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 2 GiB.\nGPU 0 has 15 GiB."
)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (InputError("photo.png is truncated: replace it"), 2, "photo.png is truncated"),
        (FileNotFoundError(2, "No such file", "photos"), 2, "photos: no such file or folder"),
        (FileNotFoundError("no images below photos"), 2, "no images below photos"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ModuleNotFoundError("No module named 'peft'", name="peft"), 2, "peft is not installed"),
        (NO_MEMORY, 2, "CUDA out of memory: `python -m emokd_utils plan`"),
        (
            OSError(errno.ENOSPC, "No space left", "runs/a"),
            2,
            "runs/a: No space left on device; make",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "runs"),
            2,
            "choose another folder (--runs",
        ),
        (ValueError("Error while serializing: I/O error (os error 27)"), 2, "File too large; make"),
    ],
)
def test_expected_errors_give_one_sentence_and_no_trace(monkeypatch, capsys, error, code, words):
    def fail(args):
        raise error

    monkeypatch.setitem(commands.COMMANDS, "doctor", fail)
    assert commands.main(["doctor"]) == code
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1 and words in output.err


@pytest.mark.parametrize("kind", [ZeroDivisionError, RuntimeError, ConnectionResetError])
def test_unexpected_errors_keep_their_trace(monkeypatch, kind):
    def fail(args):
        raise kind

    monkeypatch.setitem(commands.COMMANDS, "doctor", fail)
    with pytest.raises(kind):
        commands.main(["doctor"])


def test_check_names_what_was_changed(tmp_path, capsys):
    run = folder_run(tmp_path)
    asked = ["check", "--data", str(run.root), "--runs", str(tmp_path / "runs")]
    assert commands.main(asked) == 0
    assert " 0 damaged files" in capsys.readouterr().out
    kept = next(run.folder.glob("features-*/features.safetensors"))
    content = bytearray(kept.read_bytes())
    content[-1] ^= 1
    kept.write_bytes(bytes(content))
    assert commands.main(asked) == 1
    assert f"[damaged] {kept.parent.name}: features.safetensors" in capsys.readouterr().out


def test_plan_says_what_it_would_take_and_fetches_nothing(capsys, tmp_path):
    asked = ["plan", "--profile", "paper", "--gpu", "L4", "--images", "23308"]
    assert commands.main(asked) == 0
    assert "GB" in capsys.readouterr().out
    assert commands.main(["plan", "--data", str(tmp_path / "nowhere")]) == 2
    assert "without images say how many" in capsys.readouterr().err


def test_what_was_found_is_told_and_too_few_images_end_it_at_the_start(tmp_path, capsys):
    for k, place in enumerate(product(("train", "val", "test"), ("calm", "tense"), "ab")):
        folder = tmp_path / "/".join(place[:2])
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 30), (k, 9, 9)).save(folder / f"{place[2]}.png")
    shutil.copy(tmp_path / "train/calm/a.png", tmp_path / "test/calm/leak.png")
    asked = ["--data", str(tmp_path), "--runs", str(tmp_path / "runs")]
    for command in ("run", "plan"):
        assert commands.main([command, *asked]) == 2
        out, err = capsys.readouterr()
        assert "[found] 1 duplicate across splits (left out)" in out
        assert "4 images of val cannot make the gate's 5 folds" in err and "gate.folds=4" in err
    assert not list((tmp_path / "runs").glob("*/*zero*"))


def test_convert_and_the_writer_by_command(tmp_path, capsys, monkeypatch):
    assert commands.main(["convert", "--list"]) == 0
    assert "EmoSet" in capsys.readouterr().out
    assert commands.main(["convert", "emotion6"]) == 2
    assert "convert needs NAME SOURCE OUT" in capsys.readouterr().err
    rng, source = np.random.default_rng(0), tmp_path / "release"
    for label in ("calm", "tense"):
        (source / label).mkdir(parents=True)
        for k in range(8):
            pixels = rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(source / label / f"{k}.png")
    assert commands.main(["convert", "imagefolder", str(source), str(tmp_path / "out")]) == 0
    assert "16" in capsys.readouterr().out
    asked = [
        "write-instructions",
        "--data",
        str(tmp_path / "out"),
        "--runs",
        str(tmp_path / "runs"),
    ]
    assert commands.main([*asked, "--model", "some-model", "--dry-run"]) == 0
    assert "tokens" in capsys.readouterr().out
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert commands.main([*asked, "--model", "some-model"]) == 2
    assert "OPENAI_API_KEY" in capsys.readouterr().err
