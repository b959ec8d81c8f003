import copy
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

from emokd_utils.cli.bench import TRL, WANTED, bench
from emokd_utils.profiles import MINI
from emokd_utils.settings import VisionSettings
from emokd_utils.vision import VisionModel, build_network


@pytest.mark.slow
def test_every_stage_is_timed_beside_the_published_loop(random_vlm, scenes):
    """With models that have learnt nothing."""
    settings, classes = VisionSettings("resnet10t", 64), tuple(scenes.label_set)
    network = build_network(settings, len(classes)).eval()
    vision = VisionModel(network, classes, settings, 0, 1, [], "")
    models = {"tuned_vlm": lambda seed: random_vlm, "vision": lambda seed: vision}
    models["load_vlm"] = lambda tuning: copy.deepcopy(random_vlm)
    table = bench(SimpleNamespace(dataset=scenes, profile=MINI, **models), count=2)
    assert (
        list(table.index) == [s for s in WANTED if s != TRL or find_spec("trl")]
        and (table["images"] == 2).all()
    )
    assert (table[["other loop, s", "ours, s", "ratio"]] >= 0).all(axis=None)
    assert list(table["epochs"]) == [5] * (len(table) - 1) + [1]
