"""One contract for every model: a small random one of each type, with its stock processor, does all
that the lessons ask of a VLM."""

import copy
import re
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

from emokd_utils.costs import count_parameters
from emokd_utils.emotions import MIKELS
from emokd_utils.errors import InputError
from emokd_utils.families import area, check_model, language_model, lora_targets
from emokd_utils.instructions import (
    AnswerCollator,
    Instruction,
    answer_for,
    categorical_prompt,
    chat_text,
)
from emokd_utils.packing import PackingCollator, answer_loss, by_image
from emokd_utils.scale.shape import build_processor
from emokd_utils.scale.sizes import SizedVLM
from emokd_utils.settings import TuningSettings
from emokd_utils.tuning import add_lora
from emokd_utils.vlm import VLM

pytestmark = pytest.mark.slow
PROMPT = categorical_prompt(MIKELS)
ANSWERS = [*(answer_for(label) for label in MIKELS), "{'emotion': 'nothing'}", "A coffin."]
WIDTH, LAYERS, HEADS = 32, 2, 4
TOKENS = ("bos", "eos", "pad")
SPREAD = 0.15  # of random weights: enough for an answer to depend on the image
SIDE, PATCH = 56, 14  # pixels a side of an image, or of a tile of one, and of a patch
TEXT = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": LAYERS, "head_dim": 8}
TEXT |= {"num_attention_heads": HEADS, "num_key_value_heads": 2}
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
SLIDING = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 24}
LINEAR = {"layer_types": ["linear_attention", "full_attention"], "head_dim": 16}
LINEAR |= {"linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2}
LINEAR |= {"linear_num_value_heads": 4, "rope_parameters": MROPE | {"partial_rotary_factor": 0.5}}

EYE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "image_size": SIDE}
EYE |= {"num_attention_heads": 2, "patch_size": PATCH}
QWEN_EYE = {"depth": 2, "num_heads": 2, "out_hidden_size": WIDTH, "num_position_embeddings": 64}
CLIP = {"model_type": "clip_vision_model", "projection_dim": 32}
SIGLIP = {"model_type": "siglip_vision_model", "vision_use_head": False}

SQUARE = {"height": SIDE, "width": SIDE}
CROP = {"size": {"shortest_edge": SIDE}, "crop_size": SQUARE}
TILES = {"size": SQUARE, "crop_to_patches": True, "max_patches": 4}
PINS = {"image_grid_pinpoints": [[SIDE, 112], [112, SIDE], [112, 112]]}
DEFAULT, FULL = ({"vision_feature_select_strategy": how} for how in ("default", "full"))
PATCHES = {"patch_size": PATCH, "num_additional_image_tokens": 1}
PIXTRAL = {
    "vision": {"model_type": "pixtral", "head_dim": 16},
    "images": {"size": {"longest_edge": SIDE}, "patch_size": PATCH},
    "processor": {"image_break_token": "<begin>", "image_end_token": "<end>"}
    | {"image_token": "<image>", "patch_size": PATCH},
}


def qwen(text=None, **vision):
    images = {"patch_size": PATCH, "size": {"shortest_edge": 112**2, "longest_edge": 112**2}}
    text = text or {"rope_parameters": MROPE}
    return {"images": images, "text": text, "vision": QWEN_EYE | vision}


TILED = {  # a square image is cut into 2 x 2 tiles, a long one into 2
    "images": {"size": {"longest_edge": 112}, "max_image_size": {"longest_edge": SIDE}},
    "processor": {"image_seq_len": 4},
    "text": {"model_type": "llama"},
    "scale_factor": 2,
}
LLAVA = {"vision": CLIP, "images": CROP, "classes": {"image_processor": "CLIPImageProcessor"}}
KINDS = {  # of each type what differs: for text and vision config, image processor, processor
    "qwen2_vl": qwen(embed_dim=32, mlp_ratio=2),
    "qwen2_5_vl": qwen(window_size=56, fullatt_block_indexes=[1]),
    "qwen3_vl": qwen(deepstack_visual_indexes=[0, 1]),
    "qwen3_5": qwen(LINEAR),
    "glm4v": qwen(),
    "smolvlm": TILED,
    "idefics3": TILED,
    "llava": LLAVA | {"processor": PATCHES | DEFAULT},
    "llava, class token": LLAVA
    | {"text": {"model_type": "qwen2"}, "processor": PATCHES | FULL}
    | FULL,
    "llava, pixtral": PIXTRAL
    | {"text": {"model_type": "mistral"}, "vision_feature_layer": -1}
    | {"classes": {"processor": "PixtralProcessor", "image_processor": "PixtralImageProcessor"}}
    | FULL,
    "mistral3": PIXTRAL | {"processor": PIXTRAL["processor"] | {"spatial_merge_size": 2}},
    "llava_next": {"vision": CLIP, "images": CROP | PINS, "processor": PATCHES | DEFAULT} | PINS,
    "llava_onevision": {
        "vision": SIGLIP,
        "images": {"size": SQUARE} | PINS,
        "processor": {"num_image_tokens": 16} | FULL,
    }
    | PINS,
    "granite4_vision": {
        "vision": SIGLIP | {"hidden_size": 64},
        "images": CROP | PINS,
        "processor": {"patch_size": PATCH, "downsample_rate": "1/2"} | FULL,
        "downsample_rate": "1/2",
        "deepstack_layer_map": [[-1, 0], [0, 1]],
        "spatial_target_layers": [],
        "qformer_config": {"intermediate_size": 32},
    }
    | FULL
    | PINS,
    "gemma3": {
        "vision": SIGLIP,
        "images": {"size": SQUARE},
        "text": SLIDING | {"query_pre_attn_scalar": 8},
        "processor": {"image_seq_length": 4},
        "mark": "<begin>",
        "mm_tokens_per_image": 4,
    },
    "gemma4": {
        "vision": {"patch_size": 4, "head_dim": 16, "num_key_value_heads": 2}
        | {"pooling_kernel_size": 2, "position_embedding_size": 64},
        "images": {"patch_size": 4, "max_soft_tokens": 70, "pooling_kernel_size": 2},
        "text": SLIDING
        | {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 4000}
        | {"use_bidirectional_attention": "vision"},
    },
    "paligemma": {
        "vision": SIGLIP,
        "images": {"size": SQUARE, "image_seq_length": 16},
        "text": {"model_type": "gemma", "num_image_tokens": 16},
        "projection_dim": WIDTH,
        "tie_word_embeddings": False,
    },
    "internvl": {
        "vision": {"image_size": [SIDE, SIDE], "patch_size": [PATCH, PATCH]},
        "images": TILES,
        "text": {"model_type": "qwen2"},
        "processor": {"image_seq_length": 4},
    },
    "aya_vision": {
        "vision": SIGLIP,
        "images": TILES,
        "text": SLIDING,
        "processor": {"img_size": SIDE, "patch_size": 28, "img_patch_token": "<image>"},
    },
    "cohere2_vision": {
        "vision": SIGLIP,
        "images": TILES | {"patch_size": 2},
        "text": SLIDING,
        "alignment_intermediate_size": 64,
    },
    "lfm2_vl": {
        "vision": {
            "model_type": "siglip2_vision_model",
            "num_patches": 16,
            "vision_use_head": False,
        },
        "images": {"encoder_patch_size": PATCH, "tile_size": SIDE, "max_tiles": 4}
        | {"min_image_tokens": 4, "max_image_tokens": 16},
        "text": {"layer_types": ["conv", "full_attention"], "block_multiple_of": 8},
    },
    "minicpmv4_6": {
        "vision": {"patch_size": 4, "insert_layer_id": 0},
        "images": {"patch_size": 4, "scale_resolution": SIDE, "max_slice_nums": 4},
        "text": LINEAR,
        "insert_layer_id": 0,
    },
    "fast_vlm": {
        "vision": {"model_type": "timm_wrapper", "architecture": "test_resnet", "hidden_size": 96}
        | {"do_pooling": False, "global_pool": ""},
        "images": {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}},
        "processor": {"patch_size": 32} | FULL,
        "classes": {"processor": "LlavaProcessor", "image_processor": "CLIPImageProcessor"},
    },
}
HYBRID = "in_proj_qkv in_proj_z in_proj_a in_proj_b out_proj q_proj k_proj v_proj o_proj"
ALONE = {  # layers with a memory, or with a window; a question that sees what follows
    *("qwen3_5", "minicpmv4_6", "lfm2_vl", "gemma3", "gemma4", "aya_vision", "cohere2_vision"),
    *("llava, pixtral", "mistral3", "paligemma"),
}
GRIDS = {  # (rows, columns) over a square, a wide and a tall image
    **dict.fromkeys(["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5"], [(4, 4), (2, 5), (7, 3)]),
    **dict.fromkeys(["smolvlm", "idefics3"], [(2, 2)] * 3),
    **dict.fromkeys(["llava", "llava, class token", "paligemma"], [(4, 4)] * 3),
    "llava, pixtral": [(4, 4), (2, 4), (4, 2)],
    "glm4v": [(2, 2)],
}


def stock_processor(kind, images, mark="<image>", classes=(), **more):
    """The stock processor of a type, whose template has ``mark`` for an image."""
    names = {"image_processor": IMAGE_PROCESSOR_MAPPING_NAMES.get(kind, {}).get("torchvision")}
    names |= dict(classes)
    made = getattr(hf, names["image_processor"])(**images)
    return build_processor(kind, made, mark, names.get("processor"), **more)


@pytest.fixture(scope="module", params=KINDS)
def vlm(request):
    """A random model. SmolVLM's processor asks for num2words, which it uses for videos alone."""
    kind, more = request.param.partition(",")[0], dict(KINDS[request.param])
    text, eye, images, asked = (
        more.pop(name, {}) for name in ("text", "vision", "images", "processor")
    )
    asked = asked | {name: more.pop(name) for name in ("mark", "classes") if name in more}
    with patch("transformers.models.smolvlm.processing_smolvlm.num2words", str):
        processor = stock_processor(kind, images, **asked)
        tokenizer = processor.tokenizer
        ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in TOKENS}
        text = TEXT | ids | {"vocab_size": len(tokenizer)} | text
        ids = dict.fromkeys(("image_token_id", "image_token_index"), tokenizer.image_token_id)
        more |= {"video_token_id": tokenizer.video_token_id, "vision_config": EYE | eye} | ids
        config = hf.AutoConfig.for_model(kind, text_config=text, **more)
        model = hf.AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
        torch.manual_seed(0)
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=SPREAD / (1 + (".self_attn.out_proj" in name)))
        yield VLM(model, processor, request.param)


@pytest.fixture(scope="module")
def mixed(images):
    """Square, wide, tall and square again."""
    return [images[0], images[1].resize((200, 90)), images[2].resize((60, 160)), images[3]]


@torch.inference_mode()
def by_hand(vlm, image, prompt, answer):
    """Log-likelihood of one answer and the token that ends it, by one plain pass."""
    tokenizer, text = vlm.processor.tokenizer, [chat_text(vlm.processor, prompt)]
    asked = vlm.processor(text=text, images=[[image]], return_tensors="pt")
    more = tokenizer(answer, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    more = torch.tensor([more])
    kinds = {"mm_token_type_ids": 0, "token_type_ids": int(vlm.name == "paligemma"), "labels": 0}
    for name, value in (("input_ids", more), ("attention_mask", 1), *kinds.items()):
        if name in asked:
            asked[name] = torch.cat([asked[name], more * 0 + value], 1)
    log_p = vlm.model(**asked).logits[0, -more.shape[1] - 1 : -1].log_softmax(-1)
    return log_p.gather(1, more.T).sum().item()


def test_answers_scored_and_written_are_those_of_each_image_by_itself(vlm, mixed):
    scores, features = vlm.score_with_features(mixed, PROMPT, ANSWERS)
    expected = [[by_hand(vlm, image, PROMPT, answer) for answer in ANSWERS] for image in mixed]
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert scores.std(0).min() > 0.01, "these weights do not tell one image from another"
    np.testing.assert_allclose(vlm.score(mixed[:1], PROMPT, ANSWERS), scores[:1], atol=1e-4)
    np.testing.assert_allclose(vlm.score(mixed, PROMPT, ANSWERS[:1]), scores[:, :1], atol=1e-4)
    np.testing.assert_allclose(vlm.features(mixed), features, atol=1e-4)
    written = vlm.generate(mixed, PROMPT, max_new_tokens=6)
    assert written == [vlm.generate([image], PROMPT, 6)[0] for image in mixed] and any(written)


def test_features_are_the_mean_of_what_is_handed_on_of_an_image(vlm, mixed):
    """Of what stands in its places when the language model begins, and what its layers are given."""
    inputs, entering = vlm.inputs(mixed, PROMPT), {}
    hook = vlm.model.get_decoder().register_forward_pre_hook(
        lambda module, args, named: entering.update(named), with_kwargs=True
    )
    with hook, torch.inference_mode():
        vlm.model(**inputs)
    visual = inputs["input_ids"] == vlm.model.config.image_token_id
    maps = [
        entering["inputs_embeds"][visual],  # Granite's is empty: it hands all to the layers
        *(entering.get("deepstack_visual_embeds") or []),
        *(entering.get("deepstack_features") or {}).values(),
    ]
    tokens = torch.stack([one for one in maps if one.any()]).mean(0).split(visual.sum(1).tolist())
    features = vlm.features(mixed)
    assert features.shape == (4, WIDTH) and features.dtype == np.float32
    np.testing.assert_allclose(features, [own.mean(0) for own in tokens], atol=1e-4)
    for image, own in zip(mixed, features, strict=True):
        np.testing.assert_allclose(vlm.features([image]), own[None], atol=1e-4)
    assert abs(features[0] - features[3]).max() > 1e-3


def test_the_adapter_learns_answers_and_is_in_the_language_model_alone(vlm, mixed):
    """Packed or not, kept or made anew, the loss is that of each answer alone, and its gradient."""
    asked = [(0, PROMPT), (0, "Why?"), (1, PROMPT), (2, "What?"), (2, PROMPT)]
    items = [
        Instruction(str(k), "", prompt, answer)
        for (k, prompt), answer in zip(asked, ANSWERS, strict=False)
    ]
    data = SimpleNamespace(open=lambda name: mixed[int(name)])
    collators = [PackingCollator(vlm, data, *how) for how in ((9, True), (9, False), (0, False))]
    groups = by_image(items, 3)
    assert [len(group) for group in groups] == [2, 1, 2]
    shares = collators[0].is_exact(groups[0])
    assert shares == (vlm.name not in ALONE)
    examples = [
        {"image": mixed[int(i.image_id)], "prompt": i.prompt, "answer": i.answer} for i in items
    ]
    plain = AnswerCollator(vlm.processor)(examples)
    assert plain.keys() == {"labels", *vlm.inputs(mixed, PROMPT)}
    model = add_lora(copy.deepcopy(vlm.model), TuningSettings(dropout=0))
    start = f"base_model.model.{language_model(vlm.model)}.layers."
    learning = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    assert learning and all(name.startswith(start) and "lora_" in name for name in learning)
    named = {"qwen3_5": HYBRID, "minicpmv4_6": HYBRID, "lfm2_vl": "q_proj k_proj v_proj out_proj"}
    layers = {name.split(".lora_")[0].rpartition(".")[2] for name in learning}
    assert layers == {*named.get(vlm.name, "q_proj k_proj v_proj o_proj").split()}
    alone = sum(by_hand(vlm, *example.values()) for example in examples)
    alone /= (plain["labels"] != -100).sum().item()
    assert model.eval()(**plain).loss.item() == pytest.approx(-alone, abs=1e-4)
    optimizer = torch.optim.AdamW(learning.values(), lr=1e-2)
    for _ in range(3):
        gradients = []
        for collate in collators[not shares :]:
            optimizer.zero_grad()
            loss = answer_loss(model, collate(groups))
            loss.backward()
            gradients.append(torch.cat([weight.grad.flatten() for weight in learning.values()]))
            torch.testing.assert_close(gradients[-1], gradients[0], atol=1e-5, rtol=1e-5)
        optimizer.step()
    with torch.inference_mode():
        assert answer_loss(model, collators[1](groups)) < -alone - 0.01
    collators[1](by_image(items, 1))  # of an image whose instructions stand in several groups
    assert len(collators[1].kept) == 3 and not collators[2].kept
    before, after = dict(vlm.model.named_parameters()), model.get_base_model().named_parameters()
    same = [torch.equal(weight, before[name.replace(".base_layer", "")])
            for name, weight in after if "lora_" not in name]  # fmt: skip
    assert all(same) and len(same) == len(before)


def test_a_tuned_model_is_found_again(vlm, mixed, tmp_path):
    vlm.model.save_pretrained(tmp_path / "base")
    vlm.processor.save_pretrained(tmp_path / "base")
    model = add_lora(copy.deepcopy(vlm.model), TuningSettings())
    for name, weight in model.named_parameters():
        if "lora_B" in name:  # zeros before training
            torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(tmp_path / "adapter")
    tuned = VLM(model, vlm.processor).score(mixed, PROMPT, ANSWERS)
    assert abs(tuned - vlm.score(mixed, PROMPT, ANSWERS)).max() > 0.01
    again = VLM.load(tmp_path / "base", tmp_path / "adapter", device="cpu", batch_size=3)
    np.testing.assert_allclose(again.score(mixed, PROMPT, ANSWERS), tuned, atol=1e-5)


def test_a_plan_knows_how_many_tokens_an_image_gives(vlm, mixed, tmp_path):
    vlm.model.save_pretrained(tmp_path)
    vlm.processor.save_pretrained(tmp_path)
    sized = SizedVLM(str(tmp_path), 0, TuningSettings())
    tokens = [sized.view(*image.size).tokens for image in mixed]
    assert tokens == [len(own) for own in vlm.visual_tokens(mixed)]
    assert sized.parameters == count_parameters(vlm.model).total
    assert sized.tuning_bytes(64, 64, 4, TuningSettings()) > 0


def test_each_visual_token_lies_where_attention_shows_it(vlm, mixed):
    """In each cell of the grid, the token that changes most when the cell's pixels do is its own."""
    if vlm.name not in GRIDS:
        with pytest.raises(
            InputError, match="no map, for where its visual tokens lie is not known"
        ):
            vlm.attention(mixed[0], PROMPT, ANSWERS)
        return
    for image, (rows, columns) in zip(mixed, GRIDS[vlm.name], strict=False):
        weights = vlm.attention(image, PROMPT, ANSWERS)
        assert weights.shape[1:] == (HEADS, rows, columns) and 1 <= len(weights) <= LAYERS
        assert (weights > 0).all() and (weights.sum((2, 3)) < 1).all()
        left, top, right, bottom = area(vlm.processor, image.size)
        changed = []
        for row, column in np.ndindex(rows, columns):
            x = [image.width * (left + (right - left) * (column + k) / columns) for k in (0, 1)]
            y = [image.height * (top + (bottom - top) * (row + k) / rows) for k in (0, 1)]
            changed.append(image.copy())
            changed[-1].paste((255, 0, 255), [round(edge) for edge in (x[0], y[0], x[1], y[1])])
        [before] = vlm.visual_tokens([image])
        moved = torch.stack(vlm.visual_tokens(changed)) - before
        own = moved[:, len(before) - rows * columns :].norm(dim=2).argmax(1)
        assert own.tolist() == list(range(rows * columns))


def test_what_is_seen_of_a_wide_image():
    def seen(**settings):
        processor = SimpleNamespace(image_processor=hf.LlavaImageProcessor(**settings))
        return area(processor, Image.new("RGB", (200, 100)).size)

    assert seen(do_center_crop=True) == (0.25, 0, 0.75, 1)
    assert seen(do_center_crop=True, do_pad=True) == (0, -0.5, 1, 1.5)


def test_what_a_model_lacks_is_told():
    for config, processor, missing in (
        (hf.LlamaConfig(), None, "'llama' has no model that answers to an image"),
        (hf.FuyuConfig(), None, "'fuyu' has no get_image_features"),
        (hf.Florence2Config(), None, "'florence2' has no decoder that .* continues from a cache"),
        (hf.LlavaConfig(), SimpleNamespace(chat_template=None), "'llava' has no chat template"),
    ):
        with pytest.raises(InputError, match=missing):
            check_model(config, processor)
    message = "no attention projections x, but these linear layers: down_proj, gate_proj"
    with torch.device("meta"), pytest.raises(InputError, match=message):
        lora_targets(hf.LlavaForConditionalGeneration(hf.LlavaConfig()), "x")


SIZES = "hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads"
SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27}
SO400M |= {"num_attention_heads": 16, "patch_size": 14}
LARGE = {"model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096}
LARGE |= {"num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 336, "patch_size": 14}
QWEN_2_5 = {"hidden_size": 1280, "intermediate_size": 3420, "depth": 32, "out_hidden_size": 2048}
PUBLISHED = {  # parameters, as the cards of the models have them; type; SIZES, vocabulary; the rest
    "Qwen2.5-VL-3B": (3_754_622_976, "qwen2_5_vl", (2048, 11008, 36, 16, 2, 151936))
    + ({}, QWEN_2_5, {"tie_word_embeddings": True}),
    "gemma-3-4b": (4_300_079_472, "gemma3", (2560, 10240, 34, 8, 4, 262208))
    + ({"head_dim": 256}, SO400M | SIGLIP | {"image_size": 896}, {}),
    "paligemma-3b-pt-224": (2_923_466_480, "paligemma", (2048, 16384, 18, 8, 1, 257216))
    + ({"model_type": "gemma"}, SO400M | SIGLIP | {"image_size": 224}, {}),
    "llava-1.5-7b-hf": (7_063_427_072, "llava", (4096, 11008, 32, 32, 32, 32064))
    + ({"model_type": "llama"}, LARGE, {}),
    "llava-v1.6-mistral-7b-hf": (7_566_747_648, "llava_next", (4096, 14336, 32, 32, 8, 32064))
    + ({"model_type": "mistral"}, LARGE, {}),
    "Mistral-Small-3.1-24B": (24_011_361_280, "mistral3", (5120, 32768, 40, 32, 8, 131072))
    + (
        {"model_type": "mistral", "head_dim": 128},
        {"model_type": "pixtral", "patch_size": 14},
        {"tie_word_embeddings": False},
    ),
    "SmolVLM2-2.2B": (2_246_784_880, "smolvlm", (2048, 8192, 24, 32, 32, 49280))
    + ({"model_type": "llama"}, SO400M | {"image_size": 384})
    + ({"scale_factor": 3, "tie_word_embeddings": False},),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_real_configurations_have_the_published_parameters(name):
    count, kind, sizes, text, eye, more = PUBLISHED[name]
    text = text | dict(zip([*SIZES.split(), "vocab_size"], sizes, strict=True))
    config = hf.AutoConfig.for_model(kind, text_config=text, vision_config=eye, **more)
    with torch.device("meta"):
        model = hf.AutoModelForImageTextToText.from_config(config)
    assert count_parameters(model).total == count
    found = re.compile(lora_targets(model, "qkvo"))
    assert sum(bool(found.fullmatch(name)) for name, _ in model.named_modules()) == 4 * sizes[2]
