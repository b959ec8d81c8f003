"""Several processes: each image once, in order, and the same results as one process gives."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from emokd_utils import processes
from emokd_utils.predictions import Predictions
from emokd_utils.profiles import project_root

WORK = """
import sys

import torch

from emokd_utils import tuning
from emokd_utils.processes import finish
from emokd_utils.profiles import MINI, reduced
from emokd_utils.run import open_run

torch.set_num_threads(1)
tuning.bf16_is_fast = lambda device: False  # rounding to 8 bits would hide what is compared
profile = reduced(MINI).changed(images_per_split=64, vision={"epochs": 1}, gates=("bilinear",))
profile = profile.changed(tuning={"dropout": 0.0, "checkpoint_steps": 3, "batch_size": 24})
open_run(profile, runs=sys.argv[1], progress=False).predictions(0)
finish()
"""


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("items", [0, 1, 6, 10])
def test_parts_are_runs_that_together_are_everything(monkeypatch, count, items):
    parts = []
    for rank in range(count):
        monkeypatch.setattr(processes, "world", lambda rank=rank: (rank, count))
        parts.append(list(processes.part(range(items))))
        assert processes.first() == (rank == 0)
    assert sum(parts, []) == list(range(items))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_one_process_needs_no_other_and_no_torch():
    script = "from emokd_utils import processes as p; import sys; p.join(1); p.finish(); "
    script += "assert p.world() == (0, 1) and p.gather([1, 2]) == [1, 2] and p.agree('a') == 'a'; "
    script += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


def started(folder, count):
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(count)] if count > 1 else []
    (folder.parent / "work.py").write_text(WORK)
    command = [sys.executable, *launcher, str(folder.parent / "work.py"), str(folder)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(project_root())}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=env, start_new_session=True, **pipes)


def finished(folder, count):
    printed, _ = (process := started(folder, count)).communicate()
    assert process.returncode == 0, printed[-3000:]
    return printed


@pytest.mark.slow
def test_two_processes_end_with_what_one_ends_with_also_when_one_is_killed(tmp_path):
    one, two, killed = (tmp_path / name for name in ("one", "two", "killed"))
    finished(one, 1)
    assert finished(two, 2).count("[made] adapter") == 1, "one process speaks"

    process, deadline = started(killed, 2), time.time() + 300
    while not list(killed.glob("mini/.tuning-*/checkpoint-*/trainer_state.json")):
        assert time.time() < deadline and process.poll() is None
        time.sleep(0.05)
    children = ["pgrep", "-P", str(process.pid)]
    workers = subprocess.run(children, capture_output=True, text=True, check=True).stdout.split()
    os.kill(int(workers[-1]), signal.SIGKILL)
    process.communicate()
    assert process.returncode != 0
    assert "[kept] zero_shot" in finished(killed, 2)

    kept = [*one.glob("mini/*/predictions.csv"), *one.glob("mini/*/features.safetensors")]
    for path in kept:
        for other in (at / path.relative_to(one) for at in (two, killed)):
            if path.suffix == ".csv":
                mine, theirs = (Predictions.load(at).probabilities for at in (path, other))
            else:
                mine, theirs = (load_file(at)["rows"] for at in (path, other))
            np.testing.assert_allclose(mine, theirs, atol=1e-5)
    assert len(kept) >= 3
    names = [sorted(path.name for path in at.glob("mini/[!.]*")) for at in (one, two, killed)]
    assert names[0] == names[1] == names[2]
    assert not [path for at in (two, killed) for path in at.glob("mini/.[!l]*")]
