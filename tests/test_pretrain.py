from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from emokd_utils.files import save_tensors
from emokd_utils.instructions import chat_text
from emokd_utils.world import pretrain, tiny_vlm
from emokd_utils.world.corpus import Turn
from emokd_utils.world.painting import Atmosphere
from emokd_utils.world.scenes import make_unlabelled_scene


def test_training_text_is_what_the_chat_template_writes(random_vlm):
    processor, prompt = random_vlm.processor, "What is in the image?"
    text, image = chat_text(processor, prompt), Image.new("RGB", (112, 112))
    ids = processor(text=[text], images=[image])["input_ids"][0]
    question = pretrain.chat(Turn(prompt, "A coffin."))[0]
    assert processor.tokenizer(question)["input_ids"] == list(ids)


def test_only_answers_are_labelled(random_vlm):
    scenes = [make_unlabelled_scene(0), make_unlabelled_scene(1)]
    turns = [Turn("Where?", "In a room."), Turn("Name a colour.", "Red.", image=False)]
    batch = pretrain.encode(turns, scenes, random_vlm.processor)
    decoded = [random_vlm.processor.tokenizer.decode(row[row != -100]) for row in batch["labels"]]
    assert decoded == ["In a room.<|im_end|>", "Red.<|im_end|>"]
    assert batch["mm_token_type_ids"].sum(1).tolist() == [16, 0]


def test_targets_of_a_red_scene_by_hand():
    red, boxes = Image.new("RGB", (112, 112), (255, 0, 0)), ((0, 0, 30, 28), (56, 56, 56, 56))
    scene = replace(make_unlabelled_scene(0), image=red, objects=("coffin", "chair"), boxes=boxes)
    look = Atmosphere(90, 0.5, 1, "stars", "flat", "rain")
    present, statistics, looks = pretrain.seeing_targets([replace(scene, atmosphere=look)])
    for noun, tokens in (("coffin", [0]), ("chair", [10, 11, 14, 15])):
        under = present[0, :, tiny_vlm.NOUNS.index(noun)]
        assert under.nonzero().flatten().tolist() == tokens
    assert present.sum() == 5
    expected = [2, -2, -2, *[-0.13 / 0.08] * 3, -1.5, -1.5]
    np.testing.assert_allclose(statistics[0, 5], expected, atol=1e-5)
    np.testing.assert_allclose(looks[0], [0, 1, 0, 2, 2, 0, 3], atol=1e-6)


@pytest.mark.slow
def test_a_reduced_run_keeps_what_is_finished_and_auto_classes_load_it(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain, "JUDGED", 8)
    tokenizer = AutoProcessor.from_pretrained(tiny_vlm.HOME).tokenizer
    finished = torch.nn.ModuleDict({"model": tiny_vlm.build_model(tokenizer, seed=1)})
    finished["heads"] = tiny_vlm.SeeingHeads()
    out, work = tmp_path / "tiny", tmp_path / "work"
    save_tensors(work / "varying.safetensors", finished.state_dict(), 60.0, pretrain.FORMAT)
    pretrain.pretrain(out, work, {"seeing": 3, "speaking": 6, "looking": 2}, batch=4)
    assert {path.stem for path in work.iterdir()} == {s.name for s in pretrain.STAGES}
    model = AutoModelForImageTextToText.from_pretrained(out)
    assert torch.equal(model.lm_head.weight, finished["model"].lm_head.weight.bfloat16())
    assert "6 steps of answers" in (out / "README.md").read_text()
