import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from emokd_utils.profiles import project_root
from emokd_utils.world import pretrain, tiny_vlm
from emokd_utils.world.corpus import Turn
from emokd_utils.world.painting import Atmosphere
from emokd_utils.world.scenes import make_unlabelled_scene


def test_training_text_is_what_the_chat_template_writes(random_vlm):
    processor = random_vlm.processor
    turn = Turn("What is in the image?", "A coffin.")
    content = [{"type": "image"}, {"type": "text", "text": turn.prompt}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    ids = processor(text=[text], images=[Image.new("RGB", (112, 112))])["input_ids"][0]
    question, _ = pretrain.chat(turn)
    assert processor.tokenizer(question)["input_ids"] == list(ids)


def test_only_answers_are_labelled(random_vlm):
    scenes = [make_unlabelled_scene(0), make_unlabelled_scene(1)]
    turns = [Turn("Where?", "In a room."), Turn("Name a colour.", "Red.", image=False)]
    batch = pretrain.encode(turns, scenes, random_vlm.processor)
    decoded = [random_vlm.processor.tokenizer.decode(row[row != -100]) for row in batch["labels"]]
    assert decoded == ["In a room.<|im_end|>", "Red.<|im_end|>"]
    assert batch["image_grid_thw"].tolist() == [[1, 8, 8]]
    assert batch["mm_token_type_ids"].sum(1).tolist() == [16, 0]


def test_the_matrix_product_is_the_convolution(random_vlm):
    convolution = random_vlm.model.model.visual.patch_embed
    patches = torch.randn(64, 1176)
    faster = tiny_vlm.LinearPatches(convolution)(patches)
    torch.testing.assert_close(faster, convolution(patches), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("token", [0, 3, 6, 15])
def test_visual_tokens_go_row_by_row(random_vlm, token):
    """A change in one 28 x 28 cell changes exactly the four patches of that visual token."""
    plain = np.full((112, 112, 3), 90, dtype=np.uint8)
    changed = plain.copy()
    top, left = 28 * (token // 4), 28 * (token % 4)
    changed[top : top + 28, left : left + 28] = 200
    images = [Image.fromarray(pixels) for pixels in (plain, changed)]
    encoded = random_vlm.processor.image_processor(images=images, return_tensors="pt")
    patches = encoded["pixel_values"]
    differs = (patches[:64] != patches[64:]).any(1).reshape(16, 4).all(1)
    assert differs.nonzero().flatten().tolist() == [token]


def test_targets_of_a_red_scene_by_hand():
    """Boxes over the first cell (and 2 columns of the next), and over the last four cells."""
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
def test_a_killed_run_keeps_its_finished_stages(tmp_path):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    class Killed(Exception):
        pass

    def kill(line):
        raise Killed

    out, work = tmp_path / "tiny", tmp_path / "work"
    steps = {"seeing": 3, "speaking": 6, "looking": 50, "varying": 2}
    with pytest.raises(Killed):  # a stage says something every 50 steps
        pretrain.pretrain(out, work, steps, batch=2, say=kill)
    assert {path.stem for path in work.iterdir()} == {"seeing", "speaking"}
    said = []
    pretrain.pretrain(out, work, steps | {"seeing": 999}, batch=2, say=said.append)
    assert [line.split(" loss")[0] for line in said] == ["looking 50/50"]
    model = AutoModelForImageTextToText.from_pretrained(out)
    assert type(AutoProcessor.from_pretrained(out)).__name__ == "Qwen2VLProcessor"
    assert next(model.parameters()).dtype == torch.bfloat16
    assert 5e6 < sum(p.numel() for p in model.parameters()) < 7e6
    assert "6 steps of answers" in (out / "README.md").read_text()


def test_the_shipped_checkpoint_is_what_its_card_says():
    home = project_root() / "data" / "tiny_vlm"
    config = json.loads((home / "config.json").read_text())
    assert config["architectures"] == ["Qwen2VLForConditionalGeneration"]
    assert (home / "model.safetensors").stat().st_size <= 14e6
    card = (home / "README.md").read_text()
    assert f"BPE of {config['text_config']['vocab_size']} tokens" in card
