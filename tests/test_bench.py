from types import SimpleNamespace

import numpy as np
import pytest

from emokd_utils.cli.bench import WANTED, Loops, bench
from emokd_utils.profiles import MINI
from emokd_utils.settings import VisionSettings
from emokd_utils.vision import VisionModel, build_network


@pytest.fixture(scope="module")
def run(random_vlm, scenes):
    """A run with models that have learnt nothing."""
    settings, classes = VisionSettings("resnet10t", 64), tuple(scenes.label_set)
    network = build_network(settings, len(classes)).eval()
    vision = VisionModel(network, classes, settings, 0, 1, [], "")
    return SimpleNamespace(
        dataset=scenes, profile=MINI, tuned_vlm=lambda seed: random_vlm, vision=lambda seed: vision
    )


def test_one_at_a_time_and_in_batches_give_the_same_numbers(run):
    data = run.dataset.split("test")
    loops = Loops(run, data)
    features = np.concatenate([run.tuned_vlm(0).features([image]) for image in loops.images])
    np.testing.assert_allclose(features, loops.our_answers()[1], rtol=1e-3, atol=1e-4)
    logits = np.concatenate([run.vision(0).image_logits([image]) for image in loops.images])
    np.testing.assert_allclose(logits, run.vision(0).logits(data), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_every_stage_is_timed_beside_the_published_loop(run):
    table = bench(run, count=2)
    assert list(table.index) == list(WANTED) and (table["images"] == 2).all()
    assert (table[["published loop, s", "ours, s", "ratio"]] >= 0).all(axis=None)
    assert list(table["epochs"]) == [5, 5, 1]
