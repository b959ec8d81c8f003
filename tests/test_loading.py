"""Models loaded in 4 bits and with fewer pixels, and what is told where they cannot be."""

import sys

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from emokd_utils.data import load_dataset
from emokd_utils.errors import InputError
from emokd_utils.instructions import answer_for, categorical_prompt, write_instructions
from emokd_utils.loading import read_config
from emokd_utils.profiles import MINI, project_root
from emokd_utils.settings import TuningSettings
from emokd_utils.tuning import instruction_tune
from emokd_utils.vlm import VLM
from emokd_utils.world.files import ensure_scenes

TINY = project_root() / MINI.vlm.name


def test_what_four_bits_need_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(InputError, match=r"pip install -e \"\.\[gpu\]\""):
        VLM.load(TINY, quantize="nf4")


def test_a_model_that_cannot_be_had_is_told(tmp_path):
    with pytest.raises(InputError, match="cannot be loaded: .*config.json"):
        read_config(str(tmp_path))
    with pytest.raises(InputError, match="nobody/nothing cannot be loaded"):
        VLM.load("nobody/nothing")
    with pytest.raises(InputError, match="adapter_config.json"):
        VLM.load(TINY, adapter=tmp_path)


def test_pixels_are_limited(images):
    few = VLM.load(TINY, pixels=84 * 84).inputs(images[:1], "What?")
    assert few["image_grid_thw"].tolist() == [[1, 6, 6]]


@pytest.mark.slow
def test_four_bits_on_a_cpu_answer_nearly_as_all_do_and_are_tuned(tmp_path):
    root = tmp_path / "scenes"
    ensure_scenes(root, sizes={"train": 16, "val": 8, "test": 8}, say=lambda _: None)
    dataset = load_dataset(root)
    whole, small = VLM.load(TINY), VLM.load(TINY, quantize="nf4")
    shown = [dataset.open(name) for name in dataset.ids]
    asked = categorical_prompt(dataset.label_set), [*map(answer_for, dataset.label_set)]
    full, packed = (vlm.score(shown, *asked) for vlm in (whole, small))
    assert np.corrcoef(full.ravel(), packed.ravel())[0, 1] > 0.95
    assert np.mean(full.argmax(1) == packed.argmax(1)) > 0.6

    train = dataset.split("train")
    written, _ = write_instructions(train, ["categorical"])
    settings = TuningSettings(lr=1e-2, epochs=6, batch_size=8)
    small = VLM.load(TINY, quantize="nf4")  # on a CPU one that has answered cannot be trained
    log = instruction_tune(small, train, written, settings, 0, tmp_path / "adapter", progress=False)
    assert log[-1]["train_loss"] < 3
    first = [train.open(train.ids[0])], written[0].prompt, [written[0].answer]
    again = VLM.load(TINY, tmp_path / "adapter", quantize="nf4")
    np.testing.assert_allclose(again.score(*first), small.score(*first), rtol=0.02, atol=0.05)
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({k.replace("q_proj", "query"): v for k, v in load_file(path).items()}, path)
    with pytest.raises(InputError, match="adapter cannot be loaded: it does not fit .*q_proj"):
        VLM.load(TINY, tmp_path / "adapter")
