import copy
import json

import numpy as np
import pytest
import torch

from emokd_utils.data import load_dataset
from emokd_utils.errors import InputError
from emokd_utils.instructions import write_instructions
from emokd_utils.settings import TuningSettings
from emokd_utils.tuning import InstructionDataset, add_lora, instruction_tune
from emokd_utils.vlm import VLM
from emokd_utils.world.scenes import ensure_scenes


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    ensure_scenes(root, sizes={"train": 16, "val": 8, "test": 8}, say=lambda _: None)
    return load_dataset(root)


def test_lora_parameters_by_hand(random_vlm):
    """Per layer rank x (in + out): q and o 8 x (256 + 256), k and v 8 x (256 + 128); four layers."""
    model = add_lora(copy.deepcopy(random_vlm.model), TuningSettings())
    trained = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    assert sum(trained.values()) == 4 * (2 * 8 * 512 + 2 * 8 * 384) == 57_344
    assert all("language_model" in name and "lora_" in name for name in trained)
    assert {name.split(".")[-4] for name in trained} == {"q_proj", "k_proj", "v_proj", "o_proj"}


def test_lora_on_some_of_the_projections(random_vlm):
    settings = TuningSettings(projections=("q", "v"))
    model = add_lora(copy.deepcopy(random_vlm.model), settings)
    trained = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    assert sum(trained.values()) == 4 * 8 * (512 + 384)
    assert {name.split(".")[-4] for name in trained} == {"q_proj", "v_proj"}


@pytest.mark.parametrize("projections", [(), ("q", "gate"), ("q_proj",)])
def test_projections_that_there_are_not_are_told(random_vlm, projections):
    with pytest.raises(InputError, match="choose some of q, k, v, o"):
        add_lora(random_vlm.model, TuningSettings(projections=projections))


def test_an_untrained_adapter_changes_nothing(random_vlm, images):
    before = random_vlm.score(images, "Which emotion?", ["fear", "awe"])
    wrapped = VLM(add_lora(copy.deepcopy(random_vlm.model), TuningSettings()), random_vlm.processor)
    np.testing.assert_allclose(
        wrapped.score(images, "Which emotion?", ["fear", "awe"]), before, atol=1e-5
    )


def test_opened_images_stay_within_their_room(dataset, monkeypatch):
    train, opened = dataset.split("train"), []
    written, _ = write_instructions(train, ["categorical"])
    whole = type(train).open
    monkeypatch.setattr(type(train), "open", lambda self, n: opened.append(n) or whole(self, n))
    some = InstructionDataset(train, written, megabytes=2.5 * 3 * 112 * 112 / 1e6)
    first = [example["image"] for example in some]
    again = [example["image"] for example in some]
    names = [item.image_id for item in written]
    assert opened == [*names, *names[2:]], "two of them were kept"
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, again, strict=True))


def test_nothing_to_learn_from_is_told(random_vlm, dataset, tmp_path):
    with pytest.raises(InputError, match="no instructions"):
        instruction_tune(random_vlm, dataset, [], TuningSettings(), 0, tmp_path)


@pytest.mark.slow
def test_tuning_learns_repeats_itself_and_keeps_the_base(random_vlm, dataset, tmp_path):
    train = dataset.split("train")
    written, _ = write_instructions(train, ["categorical"])
    settings = TuningSettings(lr=1e-2, epochs=6, batch_size=8)
    frozen = {name: p.clone() for name, p in random_vlm.model.named_parameters()}
    logs = []
    for name in ("one", "two"):
        vlm = VLM(copy.deepcopy(random_vlm.model), random_vlm.processor, "random")
        before = vlm.score([train.open(train.ids[0])], written[0].prompt, [written[0].answer])
        log = instruction_tune(vlm, train, written, settings, 0, tmp_path / name, progress=False)
        after = vlm.score([train.open(train.ids[0])], written[0].prompt, [written[0].answer])
        assert after > before
        logs.append([entry["loss"] for entry in log if "loss" in entry])
        for key, p in vlm.core.named_parameters():
            if "lora_" not in key:
                assert torch.equal(p, frozen[key.replace(".base_layer", "")]), key
    assert logs[0] == logs[1]
    saved = json.loads((tmp_path / "one" / "adapter_config.json").read_text())
    assert saved["r"] == 8
    assert {p.name for p in (tmp_path / "one").iterdir()} >= {"adapter_model.safetensors"}
    assert (tmp_path / "one" / "adapter_model.safetensors").stat().st_size < 1e6
