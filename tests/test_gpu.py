"""What needs CUDA: ``make gpu``. Skipped, with the reason, where there is none."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from emokd_utils.instructions import answer_for, categorical_prompt, write_instructions
from emokd_utils.profiles import MINI, get_profile, project_root, reduced
from emokd_utils.run import open_run
from emokd_utils.scale.shape import true_shape
from emokd_utils.tuning import instruction_tune
from emokd_utils.vlm import VLM
from emokd_utils.world.describe import describe_scene

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here"),
]
TINY = project_root() / MINI.vlm.name


def scores(vlm, data):
    """(n, C) log-likelihoods of the labels' answers."""
    images, labels = [data.open(image_id) for image_id in data.ids], data.label_set
    return vlm.score(images, categorical_prompt(labels), [answer_for(label) for label in labels])


def test_tuned_in_four_bits_it_is_found_again(scenes, tmp_path):
    vlm, train = VLM.load(TINY, quantize="nf4"), scenes.split("train")
    assert vlm.core.is_loaded_in_4bit
    before = scores(VLM.load(TINY, quantize="nf4"), train)
    texts, _ = write_instructions(train, MINI.tuning.kinds, 0, describe_scene)
    settings = replace(MINI.tuning, epochs=2, batch_size=12)
    instruction_tune(vlm, train, texts, settings, 0, tmp_path, progress=False)
    after = scores(vlm, train)
    assert np.abs(after - before).max() > 0.1
    again = scores(VLM.load(TINY, tmp_path, quantize="nf4"), train)
    np.testing.assert_allclose(again, after, atol=0.05 * np.abs(after).max())


def test_in_sixteen_bits_it_answers_nearly_as_in_thirty_two(scenes):
    whole, half = VLM.load(TINY), VLM.load(TINY)
    half.model.to(torch.bfloat16)
    a, b = scores(whole, scenes), scores(half, scenes)
    assert np.abs(a - b).max() < 0.05 * np.abs(a).max()
    assert (a.argmax(1) == b.argmax(1)).mean() >= 0.9


@pytest.mark.parametrize("name", ["laptop", "colab", "paper"])
def test_a_profile_at_its_true_shape_takes_what_is_planned(name):
    table = true_shape(get_profile(name), 2)
    vlm = table.iloc[:3]
    assert (vlm["peak GB"] <= 1.25 * vlm["planned GB"]).all(), table.to_string()
    assert vlm["peak GB"].max() >= 0.75 * vlm["planned GB"].max(), table.to_string()


def test_two_processes_share_a_card(tmp_path):
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command = ["-m", "emokd_utils", "run", "--reduced", "--runs", str(tmp_path)]
    subprocess.run([sys.executable, *launcher, *command], cwd=project_root(), check=True)
    assert open_run(reduced(MINI), runs=tmp_path, say=lambda line: None, shipped=False).is_kept()
