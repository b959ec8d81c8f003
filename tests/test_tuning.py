import copy
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from emokd_utils.errors import InputError
from emokd_utils.instructions import write_instructions
from emokd_utils.settings import TuningSettings
from emokd_utils.tuning import adapted, add_lora, instruction_tune
from emokd_utils.vlm import VLM


@pytest.mark.parametrize("projections", ["qkvo", "qv"])
def test_lora_parameters_by_hand_change_nothing_before_training(random_vlm, images, projections):
    """Per layer rank x (in + out): q and o 8 x (256 + 256), k and v 8 x (256 + 128); four layers."""
    settings = TuningSettings(projections=tuple(projections))
    model = add_lora(copy.deepcopy(random_vlm.model), settings)
    trained = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    by_hand = {"q": 8 * 512, "o": 8 * 512, "k": 8 * 384, "v": 8 * 384}
    assert adapted(model).endswith(
        " layers named " + ", ".join(sorted(f"{p}_proj" for p in projections))
    )
    assert f"{sum(trained.values()):,} weights on {4 * len(projections)} layers" in adapted(model)
    assert sum(trained.values()) == 4 * sum(by_hand[name] for name in projections)
    assert all("language_model" in name and "lora_" in name for name in trained)
    assert {name.split(".")[-4] for name in trained} == {f"{name}_proj" for name in projections}
    asked = images, "Which emotion?", ["fear", "awe"]
    after = VLM(model, random_vlm.processor).score(*asked)
    np.testing.assert_allclose(after, random_vlm.score(*asked), atol=1e-5)


def test_what_cannot_be_tuned_is_told(random_vlm, scenes, tmp_path, monkeypatch):
    train = scenes.split("train")
    with pytest.raises(InputError, match="no instructions"):
        instruction_tune(random_vlm, train, [], TuningSettings(), 0, tmp_path)
    written, _ = write_instructions(train, ["categorical"])
    end = random_vlm.processor.tokenizer.eos_token
    for mark in (end, "</think>"):
        marked = [*written, replace(written[3], answer=f"A quiet lake.{mark}")]
        with pytest.raises(InputError, match=f"{written[3].image_id} holds '{re.escape(mark)}'"):
            instruction_tune(random_vlm, train, marked, TuningSettings(), 0, tmp_path)
    with monkeypatch.context() as wrong:
        wrong.setattr(random_vlm.processor.image_processor, "merge_size", 1)
        with pytest.raises(InputError, match=r"png: .* 16 visual tokens, its processor .* for 64"):
            instruction_tune(random_vlm, train, written, TuningSettings(), 0, tmp_path)
    monkeypatch.setattr("emokd_utils.tuning.world", lambda: (0, 3))
    with pytest.raises(InputError, match=r"16 images cannot be shared by 3 .* tuning.batch_size"):
        instruction_tune(random_vlm, train, written, TuningSettings(), 0, tmp_path)


@pytest.mark.slow
def test_tuning_learns_repeats_itself_and_keeps_the_base(random_vlm, scenes, tmp_path):
    train = scenes.split("train")
    written, _ = write_instructions(train, ["categorical"])
    settings = TuningSettings(lr=1e-2, epochs=6, batch_size=8, checkpoint_steps=3)
    asked = [train.open(train.ids[0])], written[0].prompt, [written[0].answer]
    before = random_vlm.score(*asked)
    frozen = {name: p.clone() for name, p in random_vlm.model.named_parameters()}
    losses, adapters = [], []
    for name in ("once", "again", "recomputed", "gone on"):
        vlm = VLM(copy.deepcopy(random_vlm.model), random_vlm.processor, "random")
        own = replace(settings, recompute=name == "recomputed")
        if name == "gone on":  # from the 9th step, for the checkpoint of the 12th was cut off
            (tmp_path / "state" / "checkpoint-12" / "trainer_state.json").unlink()
        state = tmp_path / "state" if name in ("once", "gone on") else None
        log = instruction_tune(vlm, train, written, own, 0, tmp_path / name, False, state)
        assert vlm.score(*asked) > before
        losses.append([entry["train_loss"] for entry in log if "train_loss" in entry])
        adapters.append(load_file(tmp_path / name / "adapter_model.safetensors"))
        for key, p in vlm.core.named_parameters():
            if "lora_" not in key:
                assert torch.equal(p, frozen[key.replace(".base_layer", "")]), key
    assert losses[0] == losses[1] == pytest.approx(losses[2], rel=1e-5)
    for key, weights in adapters[0].items():
        for other in adapters[1:]:
            np.testing.assert_allclose(other[key], weights, atol=1e-4)
    assert not (tmp_path / "once" / "trainer").exists()
