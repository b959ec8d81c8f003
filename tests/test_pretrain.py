import copy
import json

import numpy as np
import pytest
import torch
from PIL import Image

from emokd_utils.profiles import project_root
from emokd_utils.world import pretrain
from emokd_utils.world.corpus import Turn
from emokd_utils.world.scenes import make_scene, make_unlabelled_scene


@pytest.fixture(scope="module")
def parts():
    scenes = [make_unlabelled_scene(k) for k in range(60)]
    tokenizer = pretrain.build_tokenizer(pretrain.tokenizer_corpus(scenes))
    return pretrain.build_processor(tokenizer), pretrain.build_model(tokenizer)


def test_the_architecture_is_the_promised_one(parts):
    _, model = parts
    config = model.config
    assert type(model).__name__ == "Qwen2VLForConditionalGeneration"
    assert (config.vision_config.depth, config.vision_config.embed_dim) == (4, 192)
    text = config.text_config
    assert (text.num_hidden_layers, text.hidden_size) == (4, 256)
    assert text.num_key_value_heads < text.num_attention_heads
    assert 5e6 < sum(p.numel() for p in model.parameters()) < 7e6


def test_training_text_is_what_the_chat_template_writes(parts):
    processor, _ = parts
    turn = Turn("What is in the image?", "A coffin.")
    message = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": turn.prompt}]}
    ]
    text = processor.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
    ids = processor(text=[text], images=[Image.new("RGB", (112, 112))])["input_ids"][0]
    question, _ = pretrain.chat(turn)
    assert processor.tokenizer(question)["input_ids"] == list(ids)


def test_only_answers_are_labelled(parts):
    processor, _ = parts
    scenes = [make_unlabelled_scene(0), make_unlabelled_scene(1)]
    turns = [Turn("Where?", "In a room."), Turn("Name a colour.", "Red.", image=False)]
    batch = pretrain.encode(turns, scenes, processor)
    decoded = [processor.tokenizer.decode(row[row != -100]) for row in batch["labels"]]
    assert decoded == ["In a room.<|im_end|>", "Red.<|im_end|>"]
    assert batch["image_grid_thw"].tolist() == [[1, 8, 8]]
    assert batch["mm_token_type_ids"].sum(1).tolist() == [16, 0]


def test_the_matrix_product_is_the_convolution(parts):
    _, model = parts
    faster = copy.deepcopy(model)
    pretrain.linear_patches(faster)
    patches, grid = torch.randn(64, 1176), torch.tensor([[1, 8, 8]])
    with torch.no_grad():
        one = model.model.visual(patches, grid_thw=grid).pooler_output
        two = faster.model.visual(patches, grid_thw=grid).pooler_output
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("token", [0, 3, 6, 15])
def test_visual_tokens_go_row_by_row(parts, token):
    """A change in one 28 x 28 cell changes exactly the four patches of that visual token."""
    processor, _ = parts
    plain = np.full((112, 112, 3), 90, dtype=np.uint8)
    changed = plain.copy()
    top, left = 28 * (token // 4), 28 * (token % 4)
    changed[top : top + 28, left : left + 28] = 200
    one, two = (
        processor.image_processor(images=[Image.fromarray(a)], return_tensors="pt")["pixel_values"]
        for a in (plain, changed)
    )
    differs = (one != two).any(1).reshape(16, 4).all(1)
    assert differs.nonzero().flatten().tolist() == [token]


def test_objects_under_tokens_by_hand():
    scene = make_scene("train", 0)
    boxed = type(scene)(
        scene.image,
        "",
        "",
        "",
        ("coffin", "chair"),
        ((0, 0, 30, 28), (56, 56, 56, 56)),
        "room",
        None,
    )
    found = pretrain.objects_under_tokens(boxed)
    assert found[:, pretrain._NOUNS.index("coffin")].nonzero()[0].tolist() == [0]
    assert found[:, pretrain._NOUNS.index("chair")].nonzero()[0].tolist() == [10, 11, 14, 15]
    assert found.sum() == 5


def test_pixel_statistics_of_a_flat_image():
    scene = make_scene("train", 0)
    flat = type(scene)(Image.new("RGB", (112, 112), (255, 0, 0)), "", "", "", (), (), "room", None)
    expected = [2, -2, -2, *[-0.13 / 0.08] * 3, -1.5, -1.5]
    np.testing.assert_allclose(pretrain.pixel_statistics([flat])[0, 5], expected, atol=1e-5)


@pytest.mark.slow
def test_a_reduced_run_makes_a_checkpoint_that_auto_classes_load(tmp_path):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    out = tmp_path / "tiny"
    arguments = ["--out", str(out), "--work", str(tmp_path / "work"), "--batch", "4"]
    pretrain.main([*arguments, *"--seeing 3 --speaking 6 --looking 2 --varying 2".split()])
    model = AutoModelForImageTextToText.from_pretrained(out)
    processor = AutoProcessor.from_pretrained(out)
    assert type(processor).__name__ == "Qwen2VLProcessor"
    assert next(model.parameters()).dtype == torch.bfloat16
    assert (out / "model.safetensors").stat().st_size < 14e6
    assert "3 steps" in (out / "README.md").read_text()


def test_a_stage_goes_on_from_where_it_was_killed(tmp_path):
    def stage(steps, until, folder):
        torch.manual_seed(0)
        layer = torch.nn.Linear(4, 1)
        run = pretrain.Run("stage", folder, {"layer": layer}, steps, rate=0.1, every=3)
        while run.step < until:
            torch.manual_seed(run.step)
            run.update(layer(torch.randn(8, 4)).pow(2).mean())
        return layer.weight.detach().clone()

    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole = stage(9, 9, tmp_path / "whole")
    stage(9, 5, tmp_path / "killed")
    resumed = stage(9, 9, tmp_path / "killed")
    torch.testing.assert_close(resumed, whole)


def test_the_shipped_checkpoint_is_what_its_card_says():
    project = project_root() / "data" / "tiny_vlm"
    config = json.loads((project / "config.json").read_text())
    assert config["architectures"] == ["Qwen2VLForConditionalGeneration"]
    assert (project / "model.safetensors").stat().st_size <= 14e6
    card = (project / "README.md").read_text()
    assert f"BPE of {config['text_config']['vocab_size']} tokens" in card
