"""Every stage on a small random model of each family with its stock processor, and the real models'
shapes on the meta device."""

import copy
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    CLIPImageProcessor,
    Idefics3ImageProcessor,
    Idefics3Processor,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaImageProcessor,
    LlavaProcessor,
    PixtralImageProcessor,
    PixtralProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLProcessor,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

from emokd_utils.data import load_dataset
from emokd_utils.distillation import DistillationHead, train_head
from emokd_utils.emotions import MIKELS
from emokd_utils.errors import InputError
from emokd_utils.families import FAMILIES, family_of
from emokd_utils.instructions import (
    AnswerCollator,
    answer_for,
    categorical_prompt,
    chat_text,
    trained_text,
    write_instructions,
)
from emokd_utils.scale.sizes import sized_vlm
from emokd_utils.settings import HeadSettings, TuningSettings
from emokd_utils.tuning import add_lora, instruction_tune
from emokd_utils.vlm import VLM
from emokd_utils.world.pretrain import build_processor, build_tokenizer

PROMPT = categorical_prompt(MIKELS)
ANSWERS = [*(answer_for(label) for label in MIKELS), "{'emotion': 'nothing'}", "A coffin."]
WIDTH, LAYERS, HEADS = 32, 2, 4
SPREAD = 0.15  # of random weights: enough for an answer to depend on the image

# ------------------------------------------------------------------------------------ small models

TILE, PATCH, SHUFFLE, SIDE = 48, 8, 2, 3  # SIDE = TILE / PATCH / SHUFFLE tokens a side of a tile
TILED_TOKENS = ["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>"]
TILED_TOKENS += [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
TILED_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}:{% else %}: {% endif %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
LLAVA_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | upper }}: "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }} {% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
PIXTRAL_TEMPLATE = (
    "{% for message in messages %}[INST]{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}[IMG]{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}[/INST]{% endfor %}"
)


def learn_tokenizer(special, begin="", **named):
    """Byte-level BPE learnt on prompt and answers; ``begin`` is put before every text."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator([PROMPT, *ANSWERS], trainer)
    if begin:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", special_tokens=[(begin, backend.token_to_id(begin))]
        )
        named["bos_token"] = begin
    return PreTrainedTokenizerFast(tokenizer_object=backend, **named)


def text_config(tokenizer, **more):
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": 2,
        "initializer_range": SPREAD,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **more,
    }


def vision_config(**more):
    return {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "initializer_range": SPREAD,
        **more,
    }


def qwen(model_type):
    """Qwen2.5-VL: windows of 2 x 2 visual tokens in the first layer, all of them in the second."""
    tokenizer = build_tokenizer([PROMPT, *ANSWERS], vocab_size=600)
    processor = build_processor(tokenizer)
    vision = {"depth": 2, "num_heads": 2, "initializer_range": SPREAD, "hidden_size": 32}
    if model_type == "qwen2_vl":
        vision |= {"embed_dim": 32, "mlp_ratio": 2}
    else:
        vision |= {"intermediate_size": 64, "out_hidden_size": WIDTH}
        vision |= {"window_size": 56, "fullatt_block_indexes": [1]}
        processor = Qwen2_5_VLProcessor(
            processor.image_processor,
            tokenizer,
            processor.video_processor,
            chat_template=processor.chat_template,
        )
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
    token = tokenizer.convert_tokens_to_ids
    config = {
        "text_config": text_config(tokenizer, rope_parameters=rope),
        "vision_config": vision,
        "image_token_id": token("<|image_pad|>"),
        "video_token_id": token("<|video_pad|>"),
        "vision_start_token_id": token("<|vision_start|>"),
        "vision_end_token_id": token("<|vision_end|>"),
    }
    return config, processor


def tiled(model_type):
    """A square image is cut into 2 x 2 tiles, a long one into 2."""
    start = {"smolvlm": "<|im_start|>", "idefics3": "<|begin_of_text|>"}[model_type]
    tokenizer = learn_tokenizer(
        [start, "<|pad|>", *TILED_TOKENS],
        start if model_type == "idefics3" else "",
        eos_token="<end_of_utterance>",
        pad_token="<|pad|>",
    )
    sizes = {"size": {"longest_edge": 2 * TILE}, "max_image_size": {"longest_edge": TILE}}
    about = {"tokenizer": tokenizer, "image_seq_len": SIDE**2}
    if model_type == "idefics3":
        processor = Idefics3Processor(
            Idefics3ImageProcessor(**sizes), chat_template=TILED_TEMPLATE, **about
        )
    else:
        processor = SmolVLMProcessor(
            SmolVLMImageProcessor(**sizes),
            video_processor=SmolVLMVideoProcessor(**sizes),
            chat_template=start + TILED_TEMPLATE,
            **about,
        )
    config = {
        "text_config": text_config(tokenizer, model_type="llama"),
        "vision_config": vision_config(image_size=TILE, patch_size=PATCH),
        "scale_factor": SHUFFLE,
        "image_token_id": tokenizer.convert_tokens_to_ids("<image>"),
    }
    return config, processor


def llava(model_type, text="llama", strategy="default", **pad):
    """CLIP with 4 x 4 patches, on Llama or Qwen2; strategy "full" keeps CLIP's class token."""
    tokenizer = learn_tokenizer(
        ["<unk>", "<s>", "</s>", "<image>", "<pad>"], "<s>", eos_token="</s>", **pad
    )
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy=strategy,
        num_additional_image_tokens=1,
        chat_template=LLAVA_TEMPLATE,
    )
    config = {
        "text_config": text_config(tokenizer, model_type=text),
        "vision_config": vision_config(
            model_type="clip_vision_model", image_size=56, patch_size=14, projection_dim=32
        ),
        "vision_feature_select_strategy": strategy,
        "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
    }
    return config, processor


def pixtral(model_type):
    """LLaVA whose encoder takes each image in its own shape."""
    tokenizer = learn_tokenizer(
        ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]", "<pad>"],
        "<s>",
        eos_token="</s>",
        pad_token="<pad>",
    )
    processor = PixtralProcessor(
        PixtralImageProcessor(size={"longest_edge": 56}, patch_size={"height": 14, "width": 14}),
        tokenizer,
        patch_size=14,
        chat_template=PIXTRAL_TEMPLATE,
    )
    config = {
        "text_config": text_config(tokenizer, model_type="mistral", head_dim=8),
        "vision_config": vision_config(model_type="pixtral", image_size=56, patch_size=14),
        "vision_feature_select_strategy": "full",
        "vision_feature_layer": -1,
        "image_token_index": tokenizer.convert_tokens_to_ids("[IMG]"),
    }
    return config, processor


KINDS = {
    "Qwen2-VL": ("qwen2_vl", qwen, {}),
    "Qwen2.5-VL": ("qwen2_5_vl", qwen, {}),
    "SmolVLM": ("smolvlm", tiled, {}),
    "Idefics3": ("idefics3", tiled, {}),
    "LLaVA": ("llava", llava, {"pad_token": "<pad>"}),
    "LLaVA, Qwen2": ("llava", llava, {"text": "qwen2", "strategy": "full"}),
    "LLaVA, Pixtral": ("llava", pixtral, {}),
}
ONE_SIZE = ("LLaVA", "LLaVA, Qwen2")  # of visual tokens, whatever the image's


@pytest.fixture(scope="module", params=KINDS)
def vlm(request):
    """A random model. SmolVLM's processor asks for num2words, which it uses for videos alone."""
    model_type, build, more = KINDS[request.param]
    with patch("transformers.models.smolvlm.processing_smolvlm.num2words", str):
        config, processor = build(model_type, **more)
        torch.manual_seed(0)
        model = AutoModelForImageTextToText.from_config(
            AutoConfig.for_model(model_type, **config), dtype=torch.float32
        )
        yield VLM(model, processor, request.param)


@pytest.fixture(scope="module")
def mixed(images):
    """Square, wide, tall and square again."""
    return [images[0], images[1].resize((200, 90)), images[2].resize((60, 160)), images[3]]


@torch.inference_mode()
def by_hand(vlm, image, prompt, answer):
    """Log-likelihood of one answer and the token that ends it, by one plain pass."""
    tokenizer = vlm.processor.tokenizer
    asked = vlm.processor(
        text=[chat_text(vlm.processor, prompt)], images=[[image]], return_tensors="pt"
    )
    more = tokenizer(answer, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    more = torch.tensor([more])
    for name, value in (("input_ids", more), ("attention_mask", 1), ("mm_token_type_ids", 0)):
        if name in asked:
            asked[name] = torch.cat([asked[name], more * 0 + value], 1)
    log_p = vlm.model(**asked).logits[0, -more.shape[1] - 1 : -1].log_softmax(-1)
    return log_p.gather(1, more.T).sum().item()


# ---------------------------------------------------------------------------------------- the stages


def test_scores_equal_those_of_each_answer_by_itself(vlm, mixed):
    scores = vlm.score(mixed, PROMPT, ANSWERS)
    expected = [[by_hand(vlm, image, PROMPT, answer) for answer in ANSWERS] for image in mixed]
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert scores.std(0).min() > 0.1, "these weights do not tell one image from another"
    np.testing.assert_allclose(vlm.score(mixed, PROMPT, ANSWERS[:1]), scores[:, :1], atol=1e-4)


def test_scores_do_not_depend_on_the_batch(vlm, mixed):
    together = vlm.score(mixed, "Which emotion?", ANSWERS)
    alone = np.concatenate([vlm.score([image], "Which emotion?", ANSWERS) for image in mixed])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_features_are_the_mean_of_an_images_own_visual_tokens(vlm, mixed):
    """Of what stands in the places of an image when the language model begins."""
    inputs, entering = vlm.inputs(mixed, PROMPT), {}
    hook = vlm.model.model.get_submodule(vlm.family.text).register_forward_pre_hook(
        lambda module, args, named: entering.update(named), with_kwargs=True
    )
    with hook, torch.inference_mode():
        vlm.model(**inputs)
    visual = inputs["input_ids"] == vlm.model.config.image_token_id
    counts = visual.sum(1).tolist()
    assert (len(set(counts)) == 1) == (vlm.name in ONE_SIZE)
    assert [len(tokens) for tokens in vlm.visual_tokens(mixed)] == counts
    rows = zip(entering["inputs_embeds"], visual, strict=True)
    features = vlm.features(mixed)
    assert features.shape == (4, WIDTH) and features.dtype == np.float32
    np.testing.assert_allclose(features, [row[places].mean(0) for row, places in rows], atol=1e-5)
    alone = np.concatenate([vlm.features([image]) for image in mixed])
    np.testing.assert_allclose(features, alone, atol=1e-5)


def test_scores_and_features_of_one_pass_equal_those_of_two(vlm, mixed):
    scores, features = vlm.score_with_features(mixed, PROMPT, ANSWERS)
    np.testing.assert_allclose(scores, vlm.score(mixed, PROMPT, ANSWERS), atol=1e-5)
    np.testing.assert_allclose(features, vlm.features(mixed), atol=1e-5)


def test_generation_does_not_depend_on_the_batch(vlm, mixed):
    together = vlm.generate(mixed, PROMPT, max_new_tokens=6)
    assert together == [vlm.generate([image], PROMPT, 6)[0] for image in mixed]
    assert any(together)


def test_a_training_batch_holds_the_answers_and_all_of_the_images(vlm, mixed):
    prompts = ["Which emotion?", PROMPT, "Why?", PROMPT]
    examples = [
        {"image": image, "prompt": prompt, "answer": answer}
        for image, prompt, answer in zip(mixed, prompts, ANSWERS[-4:], strict=True)
    ]
    batch, tokenizer = AnswerCollator(vlm.processor)(examples), vlm.processor.tokenizer
    assert trained_text(batch, tokenizer) == [a + tokenizer.eos_token for a in ANSWERS[-4:]]
    assert batch.keys() == {"labels", *vlm.inputs(mixed, PROMPT)}
    learnt = batch["labels"] != -100
    assert not learnt[batch["attention_mask"] == 0].any()
    with torch.inference_mode():
        loss = vlm.model(**batch).loss.item()
    alone = sum(by_hand(vlm, *example.values()) for example in examples)
    assert loss == pytest.approx(-alone / learnt.sum().item(), abs=1e-4)


def test_what_a_processor_lacks_is_told(tmp_path):
    """SmolVLM's processor wants a library that is needed for videos alone."""
    wanted = "transformers.models.smolvlm.processing_smolvlm.num2words"
    with patch(wanted, str):
        config, processor = tiled("smolvlm")
        processor.save_pretrained(tmp_path)
    AutoConfig.for_model("smolvlm", **config).save_pretrained(tmp_path)
    for load in (
        VLM.load,
        lambda source: sized_vlm(str(source), 0, TuningSettings()),
    ):
        with patch(wanted, None), pytest.raises(InputError, match="pip install num2words"):
            load(tmp_path)


def test_lora_adapts_the_language_model_alone(vlm, mixed):
    model = add_lora(copy.deepcopy(vlm.model), TuningSettings())
    adapted = {name for name, module in model.named_modules() if hasattr(module, "lora_A")}
    layers = f"base_model.model.model.{vlm.family.text}.layers"
    assert adapted == {
        f"{layers}.{layer}.self_attn.{name}_proj" for layer in range(LAYERS) for name in "qkvo"
    }
    examples = [{"image": image, "prompt": PROMPT, "answer": ANSWERS[0]} for image in mixed]
    model(**AnswerCollator(vlm.processor)(examples)).loss.backward()
    moved = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert moved == {f"{name}.lora_{part}.default.weight" for name in adapted for part in "AB"}


@pytest.fixture(scope="module")
def dataset(mixed, tmp_path_factory):
    """The images as four emotions, each for training and for testing."""
    root = tmp_path_factory.mktemp("mixed")
    for split in ("train", "val", "test"):
        for image, label in zip(mixed, MIKELS, strict=False):
            (root / split / label).mkdir(parents=True)
            image.save(root / split / label / "one.png")
    return load_dataset(root)


def test_a_tuned_model_is_found_again(vlm, dataset, mixed, tmp_path):
    vlm.model.save_pretrained(tmp_path / "base")
    vlm.processor.save_pretrained(tmp_path / "base")
    tuned = VLM.load(tmp_path / "base", device="cpu")
    before = tuned.score(mixed, PROMPT, ANSWERS)
    np.testing.assert_allclose(before, vlm.score(mixed, PROMPT, ANSWERS), atol=1e-5)
    train = dataset.split("train")
    written, _ = write_instructions(train, ["categorical"])
    settings = TuningSettings(lr=1e-2, epochs=1, batch_size=2)
    instruction_tune(tuned, train, written, settings, 0, tmp_path / "adapter", progress=False)
    after = tuned.score(mixed, PROMPT, ANSWERS)
    assert abs(after - before).max() > 0.01
    again = VLM.load(tmp_path / "base", tmp_path / "adapter", device="cpu")
    np.testing.assert_allclose(again.score(mixed, PROMPT, ANSWERS), after, atol=1e-5)
    assert again.generate(mixed, PROMPT, 4) == tuned.generate(mixed, PROMPT, 4)
    again.batch_size = 3
    assert again.predict(train, progress=False).probabilities.shape == (4, 8)


def test_the_head_trains_on_the_features(vlm, mixed):
    features, labels = vlm.features(mixed), np.arange(4)
    trained = train_head(
        features,
        labels,
        None,
        val_features=features,
        val_labels=labels,
        num_classes=8,
        settings=HeadSettings(alpha=0, lr=1e-2, epochs=30, dropout=0),
        seed=0,
    )
    assert trained.logits(features).argmax(1).tolist() == [0, 1, 2, 3]


# ----------------------------------------------------------------------- where visual tokens lie


def grid_of(vlm, image):
    inputs = vlm.inputs([image], PROMPT)
    visual = inputs["input_ids"][0] == vlm.model.config.image_token_id
    return vlm.family.grid(vlm.model.config, inputs, int(visual.sum())), inputs


def test_attention_has_the_grids_shape(vlm, mixed):
    expected = {
        "Qwen2-VL": [(4, 4), (2, 5), (7, 3)],
        "Qwen2.5-VL": [(4, 4), (2, 5), (7, 3)],
        "LLaVA, Pixtral": [(4, 4), (2, 4), (4, 2)],
        "SmolVLM": [(SIDE, SIDE)] * 3,
        "Idefics3": [(SIDE, SIDE)] * 3,
    }.get(vlm.name, [(4, 4)] * 3)
    for image, grid in zip(mixed, expected, strict=False):
        weights = vlm.attention(image, PROMPT, ANSWERS)
        assert weights.shape == (LAYERS, HEADS, *grid)
        assert (weights > 0).all() and (weights.sum((2, 3)) < 1).all()


def most_changed(vlm, image):
    """For each cell of the grid, row by row: the visual token that changes most with its pixels."""
    (rows, columns, first), _ = grid_of(vlm, image)
    left, top, right, bottom = vlm.area(image)
    changed = []
    for cell in range(rows * columns):
        row, column = divmod(cell, columns)
        x = [left + (right - left) * place / columns for place in (column, column + 1)]
        y = [top + (bottom - top) * place / rows for place in (row, row + 1)]
        box = [x[0] * image.width, y[0] * image.height, x[1] * image.width, y[1] * image.height]
        changed.append(image.copy())
        changed[-1].paste((255, 0, 255), [round(edge) for edge in box])
    [before] = vlm.visual_tokens([image])
    assert len(before) == first + rows * columns
    moved = torch.stack(vlm.visual_tokens(changed)) - before
    return moved[:, first:].norm(dim=2).argmax(1).tolist(), list(range(rows * columns))


def test_each_visual_token_lies_where_the_grid_says(vlm, mixed):
    for image in mixed[:3]:
        found, expected = most_changed(vlm, image)
        assert found == expected
    if vlm.name in ("SmolVLM", "Idefics3"):
        with patch.object(vlm.processor.image_processor, "do_image_splitting", False):
            assert grid_of(vlm, mixed[0])[0] == (SIDE, SIDE, 0)
            found, expected = most_changed(vlm, mixed[0])
        assert found == expected


@pytest.mark.parametrize("vlm", ["SmolVLM", "Idefics3"], indirect=True)
def test_the_whole_image_comes_after_its_tiles(vlm, mixed):
    config, tokenizer = vlm.model.config, vlm.processor.tokenizer
    for image, tiles in zip(mixed, (4, 2, 2, 4), strict=True):
        (rows, columns, first), inputs = grid_of(vlm, image)
        assert first == tiles * SIDE**2
        ids = inputs["input_ids"][0]
        whole = (ids == tokenizer.convert_tokens_to_ids("<global-img>")).nonzero().item()
        assert (ids[:whole] == config.image_token_id).sum() == first
        assert (ids[whole:] == config.image_token_id).sum() == rows * columns


@pytest.mark.parametrize("vlm", ["LLaVA"], indirect=True)
def test_what_is_seen_of_a_wide_image(vlm):
    wide = Image.new("RGB", (200, 100))
    assert vlm.area(wide) == (0.25, 0, 0.75, 1)
    assert vlm.family.area(with_images(do_pad=True), wide.size) == (0, -0.5, 1, 1.5)
    assert vlm.family.area(with_images(do_center_crop=False), wide.size) == (0, 0, 1, 1)


def with_images(**settings):
    return type("Processor", (), {"image_processor": LlavaImageProcessor(**settings)})


# ---------------------------------------------------------------------------------------- unknown models


def test_a_model_of_no_family_is_told_what_is_missing():
    config = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_attention_heads=1)
    with pytest.raises(InputError, match="families.FAMILIES must say where its") as told:
        VLM(LlamaForCausalLM(config), None)
    known = [kind for family in FAMILIES.values() for kind in family.types]
    assert known == ["qwen2_vl", "qwen2_5_vl", "smolvlm", "idefics3", "llava"]
    assert all(kind in str(told.value) for kind in ["'llama'", *known])


# ------------------------------------------------------------------------------------- the real models

QWEN_7B = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
}
QWEN_2B = {
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
}
QWEN_VISION = {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "patch_size": 14}
REAL = {  # config, the published number of parameters
    "Qwen2-VL-7B-Instruct": (
        {
            "model_type": "qwen2_vl",
            "text_config": QWEN_7B,
            "vision_config": QWEN_VISION | {"hidden_size": 3584},
        },
        8_291_375_616,
    ),
    "Qwen2-VL-2B-Instruct": (
        {
            "model_type": "qwen2_vl",
            "text_config": QWEN_2B,
            "vision_config": QWEN_VISION | {"hidden_size": 1536},
            "tie_word_embeddings": True,
        },
        2_208_985_600,
    ),
    "Qwen2.5-VL-7B-Instruct": (
        {
            "model_type": "qwen2_5_vl",
            "text_config": QWEN_7B,
            "vision_config": {
                "depth": 32,
                "hidden_size": 1280,
                "intermediate_size": 3420,
                "num_heads": 16,
                "out_hidden_size": 3584,
                "patch_size": 14,
            },
        },
        8_292_166_656,
    ),
    "SmolVLM-256M-Instruct": (
        {
            "model_type": "idefics3",
            "text_config": {
                "model_type": "llama",
                "hidden_size": 576,
                "intermediate_size": 1536,
                "num_hidden_layers": 30,
                "num_attention_heads": 9,
                "num_key_value_heads": 3,
                "vocab_size": 49280,
            },
            "vision_config": {
                "hidden_size": 768,
                "intermediate_size": 3072,
                "num_hidden_layers": 12,
                "num_attention_heads": 12,
                "image_size": 512,
                "patch_size": 16,
            },
            "scale_factor": 4,
        },
        256_484_928,
    ),
    "llava-1.5-7b-hf": (
        {
            "model_type": "llava",
            "text_config": {
                "model_type": "llama",
                "hidden_size": 4096,
                "intermediate_size": 11008,
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "num_key_value_heads": 32,
                "vocab_size": 32064,
            },
            "vision_config": {
                "model_type": "clip_vision_model",
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "image_size": 336,
                "patch_size": 14,
                "projection_dim": 768,
            },
        },
        7_063_427_072,
    ),
}


def count(module, trained=False):
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained)


@pytest.mark.parametrize("name", REAL)
def test_the_real_models_numbers(name):
    config, published = REAL[name]
    text = config["text_config"]
    width, heads = text["hidden_size"], text["num_attention_heads"]
    narrow = width // heads * text["num_key_value_heads"]
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(**config))
        assert count(model) == published
        adapted = add_lora(model, TuningSettings(rank=8))
        head = DistillationHead(width, 8)
    assert {weight.device.type for weight in adapted.parameters()} == {"meta"}
    lora = count(adapted, trained=True)
    assert lora == text["num_hidden_layers"] * 8 * (2 * (width + width) + 2 * (width + narrow))
    assert count(head) == width * 1024 + 1024 + 1024 * 8 + 8
    if name == "Qwen2-VL-7B-Instruct":
        assert (lora, count(head)) == (5_046_272, 3_679_240)


def test_a_real_models_grid():
    """SmolVLM-256M: 64 tokens a tile; up to 4 x 4 tiles and the whole image."""
    config = AutoConfig.for_model(**REAL["SmolVLM-256M-Instruct"][0])
    assert family_of(config).grid(config, {}, 17 * 64) == (8, 8, 16 * 64)
    config = AutoConfig.for_model(**REAL["llava-1.5-7b-hf"][0])
    assert family_of(config).grid(config, {}, 576) == (24, 24, 0)
