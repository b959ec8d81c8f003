"""One contract for all families: a small random model of each, with its stock processor, does all
that the lessons ask of a VLM."""

import copy
from itertools import product
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from emokd_utils.emotions import MIKELS
from emokd_utils.errors import InputError
from emokd_utils.families import FAMILIES
from emokd_utils.instructions import AnswerCollator, answer_for, categorical_prompt, chat_text
from emokd_utils.settings import TuningSettings
from emokd_utils.tuning import add_lora
from emokd_utils.vlm import VLM
from emokd_utils.world.pretrain import build_processor, build_tokenizer

PROMPT = categorical_prompt(MIKELS)
ANSWERS = [*(answer_for(label) for label in MIKELS), "{'emotion': 'nothing'}", "A coffin."]
WIDTH, LAYERS, HEADS = 32, 2, 4
SPREAD = 0.15  # of random weights: enough for an answer to depend on the image
TILE, PATCH, SHUFFLE, SIDE = 48, 8, 2, 3  # SIDE = TILE / PATCH / SHUFFLE tokens a side of a tile
TILED_TOKENS = ["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>"]
TILED_TOKENS += [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]


def template(turn, image, end="", answer=""):
    """A chat template: what begins a turn, stands for an image, ends a turn, begins an answer."""
    return (
        "{% for message in messages %}" + turn + "{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}" + image + "{% else %}{{ part['text'] }}{% endif %}"
        "{% endfor %}" + end + "{% endfor %}{% if add_generation_prompt %}" + answer + "{% endif %}"
    )


def learn_tokenizer(special, begin="", **named):
    """Byte-level BPE learnt on prompt and answers; ``begin`` is put before every text."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    about = {"special_tokens": special, "initial_alphabet": alphabet, "show_progress": False}
    backend.train_from_iterator([PROMPT, *ANSWERS], trainers.BpeTrainer(vocab_size=600, **about))
    if begin:
        pairs = [(begin, backend.token_to_id(begin))]
        put = processors.TemplateProcessing(single=f"{begin} $A", special_tokens=pairs)
        backend.post_processor = put
        named["bos_token"] = begin
    return hf.PreTrainedTokenizerFast(tokenizer_object=backend, **named)


def text_config(tokenizer, **more):
    sizes = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": LAYERS}
    heads = {"num_attention_heads": HEADS, "num_key_value_heads": 2, "initializer_range": SPREAD}
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    tokens = {name: getattr(tokenizer, name) for name in names}
    return sizes | heads | tokens | {"vocab_size": len(tokenizer)} | more


def vision_config(**more):
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3}
    return sizes | {"num_attention_heads": 2, "initializer_range": SPREAD} | more


def ids(tokenizer, **tokens):
    return {name: tokenizer.convert_tokens_to_ids(token) for name, token in tokens.items()}


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
        parts = (processor.image_processor, tokenizer, processor.video_processor)
        processor = hf.Qwen2_5_VLProcessor(*parts, chat_template=processor.chat_template)
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
    config = {"text_config": text_config(tokenizer, rope_parameters=rope), "vision_config": vision}
    pads = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}
    return config | ids(tokenizer, vision_start_token_id="<|vision_start|>", **pads), processor


def tiled(model_type):
    """A square image is cut into 2 x 2 tiles, a long one into 2."""
    start = {"smolvlm": "<|im_start|>", "idefics3": "<|begin_of_text|>"}[model_type]
    begin = start if model_type == "idefics3" else ""
    ends = {"eos_token": "<end_of_utterance>", "pad_token": "<|pad|>"}
    tokenizer = learn_tokenizer([start, "<|pad|>", *TILED_TOKENS], begin, **ends)
    turn = "{{ message['role'] | capitalize }}"
    turn += "{% if message['content'][0]['type'] == 'image' %}:{% else %}: {% endif %}"
    chat = template(turn, "<image>", "<end_of_utterance>\n", "Assistant:")
    sizes = {"size": {"longest_edge": 2 * TILE}, "max_image_size": {"longest_edge": TILE}}
    about = {"tokenizer": tokenizer, "image_seq_len": SIDE**2}
    if model_type == "idefics3":
        images = hf.Idefics3ImageProcessor(**sizes)
        processor = hf.Idefics3Processor(images, chat_template=chat, **about)
    else:
        about |= {"video_processor": hf.SmolVLMVideoProcessor(**sizes)}
        images = hf.SmolVLMImageProcessor(**sizes)
        processor = hf.SmolVLMProcessor(images, chat_template=start + chat, **about)
    config = {
        "text_config": text_config(tokenizer, model_type="llama"),
        "vision_config": vision_config(image_size=TILE, patch_size=PATCH),
        "scale_factor": SHUFFLE,
    }
    return config | ids(tokenizer, image_token_id="<image>"), processor


def llava(model_type, text="llama", strategy="default", **pad):
    """CLIP with 4 x 4 patches, on Llama or Qwen2; strategy "full" keeps CLIP's class token."""
    special = ["<unk>", "<s>", "</s>", "<image>", "<pad>"]
    tokenizer = learn_tokenizer(special, "<s>", eos_token="</s>", **pad)
    images = hf.CLIPImageProcessor(
        size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}
    )
    chat = template("{{ message['role'] | upper }}: ", "<image>\n", " ", "ASSISTANT:")
    about = {"vision_feature_select_strategy": strategy}
    tokens = about | {"patch_size": 14, "num_additional_image_tokens": 1}
    processor = hf.LlavaProcessor(images, tokenizer, chat_template=chat, **tokens)
    clip = {"model_type": "clip_vision_model", "image_size": 56, "patch_size": 14}
    about["text_config"] = text_config(tokenizer, model_type=text)
    about["vision_config"] = vision_config(projection_dim=32, **clip)
    return about | ids(tokenizer, image_token_index="<image>"), processor


def pixtral(model_type):
    """LLaVA whose encoder takes each image in its own shape."""
    special = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]"]
    ends = {"eos_token": "</s>", "pad_token": "<pad>"}
    tokenizer = learn_tokenizer([*special, "<pad>"], "<s>", **ends)
    patch = {"height": 14, "width": 14}
    images = hf.PixtralImageProcessor(size={"longest_edge": 56}, patch_size=patch)
    chat = template("[INST]", "[IMG]", "[/INST]")
    processor = hf.PixtralProcessor(images, tokenizer, patch_size=14, chat_template=chat)
    about = {"vision_feature_select_strategy": "full", "vision_feature_layer": -1}
    about["text_config"] = text_config(tokenizer, model_type="mistral", head_dim=8)
    about["vision_config"] = vision_config(model_type="pixtral", image_size=56, patch_size=14)
    return about | ids(tokenizer, image_token_index="[IMG]"), processor


QWEN, LLAVA, TILED = [(4, 4), (2, 5), (7, 3)], [(4, 4)] * 3, [(SIDE, SIDE)] * 3
KINDS = {  # type, builder and its options; (rows, columns) over a square, a wide and a tall image
    "Qwen2-VL": ("qwen2_vl", qwen, {}, QWEN),
    "Qwen2.5-VL": ("qwen2_5_vl", qwen, {}, QWEN),
    "SmolVLM": ("smolvlm", tiled, {}, TILED),
    "Idefics3": ("idefics3", tiled, {}, TILED),
    "LLaVA": ("llava", llava, {"pad_token": "<pad>"}, LLAVA),
    "LLaVA, Qwen2": ("llava", llava, {"text": "qwen2", "strategy": "full"}, LLAVA),
    "LLaVA, Pixtral": ("llava", pixtral, {}, [(4, 4), (2, 4), (4, 2)]),
}
NUM2WORDS = "transformers.models.smolvlm.processing_smolvlm.num2words"


@pytest.fixture(scope="module", params=KINDS)
def vlm(request):
    """A random model. SmolVLM's processor asks for num2words, which it uses for videos alone."""
    model_type, build, more, _ = KINDS[request.param]
    with patch(NUM2WORDS, str):
        config, processor = build(model_type, **more)
        torch.manual_seed(0)
        config = hf.AutoConfig.for_model(model_type, **config)
        model = hf.AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
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
    for name, value in (("input_ids", more), ("attention_mask", 1), ("mm_token_type_ids", 0)):
        if name in asked:
            asked[name] = torch.cat([asked[name], more * 0 + value], 1)
    log_p = vlm.model(**asked).logits[0, -more.shape[1] - 1 : -1].log_softmax(-1)
    return log_p.gather(1, more.T).sum().item()


def test_answers_scored_and_written_are_those_of_each_image_by_itself(vlm, mixed):
    scores, features = vlm.score_with_features(mixed, PROMPT, ANSWERS)
    expected = [[by_hand(vlm, image, PROMPT, answer) for answer in ANSWERS] for image in mixed]
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert scores.std(0).min() > 0.1, "these weights do not tell one image from another"
    np.testing.assert_allclose(vlm.score(mixed, PROMPT, ANSWERS[:1]), scores[:, :1], atol=1e-4)
    np.testing.assert_allclose(vlm.features(mixed), features, atol=1e-5)
    written = vlm.generate(mixed, PROMPT, max_new_tokens=6)
    assert written == [vlm.generate([image], PROMPT, 6)[0] for image in mixed] and any(written)


def test_features_are_the_mean_of_an_images_own_visual_tokens(vlm, mixed):
    """Of what stands in the places of an image when the language model begins."""
    inputs, entering = vlm.inputs(mixed, PROMPT), {}
    hook = vlm.model.model.get_submodule(vlm.family.text).register_forward_pre_hook(
        lambda module, args, named: entering.update(named), with_kwargs=True
    )
    with hook, torch.inference_mode():
        vlm.model(**inputs)
    visual = inputs["input_ids"] == vlm.model.config.image_token_id
    assert [len(tokens) for tokens in vlm.visual_tokens(mixed)] == visual.sum(1).tolist()
    rows = zip(entering["inputs_embeds"], visual, strict=True)
    features = vlm.features(mixed)
    assert features.shape == (4, WIDTH) and features.dtype == np.float32
    np.testing.assert_allclose(features, [row[places].mean(0) for row, places in rows], atol=1e-5)


def test_the_adapter_learns_answers_and_is_in_the_language_model_alone(vlm, mixed):
    examples = [
        {"image": image, "prompt": prompt, "answer": answer}
        for image, prompt, answer in zip(mixed, (PROMPT, "Why?") * 2, ANSWERS[-4:], strict=True)
    ]
    batch = AnswerCollator(vlm.processor)(examples)
    assert batch.keys() == {"labels", *vlm.inputs(mixed, PROMPT)}
    model = add_lora(copy.deepcopy(vlm.model), TuningSettings()).eval()
    loss = model(**batch).loss
    alone = sum(by_hand(vlm, *example.values()) for example in examples)
    assert loss.item() == pytest.approx(-alone / (batch["labels"] != -100).sum().item(), abs=1e-4)
    loss.backward()
    layers = f"base_model.model.model.{vlm.family.text}.layers"
    learning = {name for name, weight in model.named_parameters() if weight.grad is not None}
    name = f"{layers}.{{}}.self_attn.{{}}_proj.lora_{{}}.default.weight"
    assert learning == {name.format(*place) for place in product(range(LAYERS), "qkvo", "AB")}


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


def test_each_visual_token_lies_where_attention_shows_it(vlm, mixed):
    """In each cell of the grid, the token that changes most when the cell's pixels do is its own."""
    for image, (rows, columns) in zip(mixed, KINDS[vlm.name][3], strict=False):
        weights = vlm.attention(image, PROMPT, ANSWERS)
        assert weights.shape == (LAYERS, HEADS, rows, columns)
        assert (weights > 0).all() and (weights.sum((2, 3)) < 1).all()
        left, top, right, bottom = vlm.area(image)
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
    def area(**settings):
        processor = SimpleNamespace(image_processor=hf.LlavaImageProcessor(**settings))
        return FAMILIES["LLaVA"].area(processor, Image.new("RGB", (200, 100)).size)

    assert area(do_center_crop=True) == (0.25, 0, 0.75, 1)
    assert area(do_center_crop=True, do_pad=True) == (0, -0.5, 1, 1.5)


def test_a_model_of_no_family_is_told_what_is_missing():
    config = hf.LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_attention_heads=1)
    with pytest.raises(InputError, match=r"'llama'.*qwen2_vl, .*idefics3, llava"):
        VLM(hf.LlamaForCausalLM(config), None)
