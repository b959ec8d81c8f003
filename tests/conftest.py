"""Set-up of every test: no hub, no screen, and slow tests only with --slow."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"
if "PYTEST_XDIST_WORKER" in os.environ:  # as many threads as cores, not cores times workers
    os.environ["OMP_NUM_THREADS"] = "1"

ROOT = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

# Few examples, and no deadline: the first call of a test may import torch.
settings.register_profile("emokd", max_examples=25, deadline=None)
settings.load_profile("emokd")


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the slow tests too")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow"):  # first, so that no worker is left with a long one at the end
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    items[:] = [item for item in items if not item.get_closest_marker("slow")]
    config.hook.pytest_deselected(items=slow)


@pytest.fixture(scope="session")
def random_vlm():
    """TinyVLM's architecture with random weights and a tokenizer learnt on a few texts."""
    from emokd_utils.vlm import VLM
    from emokd_utils.world.corpus import tokenizer_corpus
    from emokd_utils.world.pretrain import build_model, build_processor, build_tokenizer
    from emokd_utils.world.scenes import make_unlabelled_scene

    tokenizer = build_tokenizer(tokenizer_corpus([make_unlabelled_scene(k) for k in range(50)]))
    return VLM(build_model(tokenizer), build_processor(tokenizer), "random")


@pytest.fixture(scope="session")
def images():
    """Five scenes."""
    from emokd_utils.world.scenes import make_scene

    return [make_scene("train", k).image for k in range(5)]


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """EmoScenes, but for its size: 16 images to train on, 8 of val and 8 of test."""
    from emokd_utils.data import load_dataset
    from emokd_utils.world.files import ensure_scenes

    root, sizes = tmp_path_factory.mktemp("scenes"), {"train": 16, "val": 8, "test": 8}
    return load_dataset(ensure_scenes(root, sizes=sizes, say=lambda line: None))


@pytest.fixture(scope="session")
def tiny_emovlm_kd(random_vlm):
    """EmoVLM-KD with random weights, and a gate that adds what head and VLM say."""
    import torch

    from emokd_utils.distillation import TrainedHead
    from emokd_utils.emotions import MIKELS
    from emokd_utils.emovlm_kd import EmoVLMKD
    from emokd_utils.gating import TrainedGate
    from emokd_utils.settings import GateSettings, HeadSettings

    torch.manual_seed(0)
    head, gate = HeadSettings(), GateSettings(inputs="probabilities")
    width = random_vlm.core.config.text_config.hidden_size
    trained = TrainedHead(TrainedHead.build(head, width, 8).eval(), head, 0, 1, [])
    adds = TrainedGate(TrainedGate.build(gate, 8).eval(), gate, 0, "val", 40, 1, {}, None, [])
    return EmoVLMKD(random_vlm, trained, adds, MIKELS)


@pytest.fixture(scope="session")
def reduced_runs(tmp_path_factory):
    """A folder with a small run of every stage: the store's lock lets one process make it."""
    shared = tmp_path_factory.getbasetemp()
    runs = (shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared) / "course" / "runs"
    command = [sys.executable, "-m", "emokd_utils", "run", "--reduced", "--runs", str(runs)]
    subprocess.run(command, cwd=ROOT, check=True)
    return runs


@pytest.fixture(scope="session")
def browser():
    """The system's Chromium; where EMOKD_NEEDS_BROWSER is set, its absence is a failure."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        reason = f"no Chromium on PATH ({', '.join(BROWSERS)}); Debian: apt install chromium"
        if os.environ.get("EMOKD_NEEDS_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found)
        yield browser
        browser.close()
