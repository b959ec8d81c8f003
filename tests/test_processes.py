"""Several processes: each image once, in order, and the same results as one process gives."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from emokd_utils import processes
from emokd_utils.predictions import Predictions
from emokd_utils.profiles import project_root

WORK = textwrap.dedent(
    """
    import sys
    from dataclasses import replace

    import torch

    from emokd_utils import tuning
    from emokd_utils.run.pipeline import Pipeline
    from emokd_utils.processes import finish
    from emokd_utils.profiles import MINI, reduced

    torch.set_num_threads(1)
    tuning.bf16_is_fast = lambda: False  # rounding to 8 bits would hide what is compared
    profile = replace(reduced(MINI), tuning_dropout=0.0, tuning_checkpoint_steps=3)
    Pipeline(profile, runs=sys.argv[1], progress=False).predictions(0)
    finish()
    """
)


def test_one_process_is_the_first_and_has_every_item(monkeypatch):
    assert processes.world() == (0, 1)
    assert processes.first()
    assert processes.part([1, 2, 3]) == [1, 2, 3]
    assert processes.gather([1, 2]) == [1, 2]
    assert processes.agree("a") == "a"


@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("items", [0, 1, 6, 10])
def test_parts_are_runs_that_together_are_everything(monkeypatch, count, items):
    parts = []
    for rank in range(count):
        monkeypatch.setattr(processes, "world", lambda rank=rank: (rank, count))
        parts.append(list(processes.part(range(items))))
    assert sum(parts, []) == list(range(items))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def command(folder, script, count):
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(count)] if count > 1 else []
    return [sys.executable, *launcher, str(script), str(folder)]


def environment():
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(project_root())}


def run(folder, script, count):
    done = subprocess.run(
        command(folder, script, count), capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def artefacts(folder):
    return sorted(path.name for path in folder.glob("mini/*"))


@pytest.mark.slow
def test_two_processes_end_with_what_one_ends_with_also_when_one_is_killed(tmp_path):
    script = tmp_path / "work.py"
    script.write_text(WORK)
    run(tmp_path / "one", script, 1)
    told = run(tmp_path / "two", script, 2)
    assert told.count("[made] adapter") == 1, "one process speaks"

    killed = subprocess.Popen(
        command(tmp_path / "killed", script, 2),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    deadline = time.time() + 120
    while not list((tmp_path / "killed").glob("mini/.tuning-*/checkpoint-*/trainer_state.json")):
        assert time.time() < deadline and killed.poll() is None
        time.sleep(0.05)
    workers = subprocess.run(
        ["pgrep", "-P", str(killed.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    os.kill(int(workers[-1]), signal.SIGKILL)
    assert killed.wait(timeout=120) != 0
    again = run(tmp_path / "killed", script, 2)
    assert "[kept] features" in again

    one = tmp_path / "one"
    for other in (tmp_path / "two", tmp_path / "killed"):
        assert artefacts(other) == artefacts(one)
        assert not any(name.startswith(".") for name in artefacts(other))
        for name in artefacts(one):
            if name.startswith("predictions"):
                a, b = (
                    Predictions.load(root / "mini" / name / "predictions.csv")
                    for root in (one, other)
                )
                assert a.ids == b.ids
                np.testing.assert_allclose(a.probabilities, b.probabilities, atol=1e-5)
            if name.startswith("features"):
                a, b = (
                    load_file(root / "mini" / name / "features.safetensors")
                    for root in (one, other)
                )
                assert all(np.allclose(a[key], b[key], atol=1e-5) for key in a)
