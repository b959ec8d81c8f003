"""TinyVLM before it is trained: a Qwen2-VL with small numbers, its tokenizer and its processor,
the auxiliary outputs of its pretraining, and its checkpoint with its card (lesson A1)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from .painting import LIGHTS, SIZE, TEXTURES, WEATHERS
from .scenes import scene_objects

_SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>"]
_SPECIAL_TOKENS += ["<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_PATCH, _MERGE = 14, 2  # pixels; patches along a side of a visual token
CELL = _PATCH * _MERGE  # pixels along a side of a visual token
NOUNS = [item.noun for item in scene_objects()]
_LANGUAGE_MODEL = {
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "mrope_section": [8, 12, 12],
    },
    "tie_word_embeddings": True,
}
_VISUAL_ENCODER = {
    "depth": 4,
    "embed_dim": 192,
    "hidden_size": 256,
    "num_heads": 6,
    "mlp_ratio": 4,
    "patch_size": _PATCH,
    "spatial_merge_size": _MERGE,
    "temporal_patch_size": 2,
    "in_channels": 3,
}


def build_tokenizer(lines: Sequence[str], vocab_size: int = 1500) -> PreTrainedTokenizerFast:
    """Byte-level BPE learnt on ``lines``, with Qwen's special tokens and pre-tokenisation by
    words."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=_SPECIAL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(lines, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )


def build_processor(tokenizer: PreTrainedTokenizerFast) -> Qwen2VLProcessor:
    """The stock processor; any image is resized to about 112 x 112 pixels, that is at most 16
    visual tokens."""
    area = {"shortest_edge": SIZE * SIZE, "longest_edge": SIZE * SIZE}
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=area, patch_size=_PATCH, merge_size=_MERGE),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=area, patch_size=_PATCH, merge_size=_MERGE),
        chat_template=_CHAT_TEMPLATE,
    )


def build_model(
    tokenizer: PreTrainedTokenizerFast, seed: int = 0
) -> Qwen2VLForConditionalGeneration:
    """A Qwen2-VL of about 6 million parameters with random weights."""
    token = tokenizer.convert_tokens_to_ids
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    ids = {"bos_token_id": token("<|im_start|>"), "eos_token_id": end, "pad_token_id": pad}
    config = Qwen2VLConfig(
        text_config=_LANGUAGE_MODEL | {"vocab_size": len(tokenizer)} | ids,
        vision_config=_VISUAL_ENCODER,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = Qwen2VLForConditionalGeneration(config)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = end, pad
    return model


class LinearPatches(nn.Module):
    """The patch embedding computed as the matrix product it is: the same numbers, and a faster
    backward pass than a 3-D convolution whose kernel equals its stride."""

    def __init__(self, embedding: nn.Module):
        super().__init__()
        self.proj = embedding.proj

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """patches (n, 3 * 2 * 14 * 14) to (n, width)."""
        weight = self.proj.weight.flatten(1)  # (width, 3 * 2 * 14 * 14)
        return F.linear(patches.to(weight.dtype), weight)


def linear_patches(model: Qwen2VLForConditionalGeneration) -> None:
    """Give the visual encoder of a model `LinearPatches`."""
    model.model.visual.patch_embed = LinearPatches(model.model.visual.patch_embed)


class SeeingHeads(nn.Module):
    """Auxiliary outputs: of a visual token, object logits and 8 statistics of the pixels it stands
    for; of the mean token, how the scene looks."""

    def __init__(self, width: int = 256):
        super().__init__()
        self.objects = nn.Linear(width, len(NOUNS))
        self.pixels = nn.Linear(width, 8)
        self.look = nn.Linear(width, 4 + len(TEXTURES) + len(LIGHTS) + len(WEATHERS))

    def loss(
        self, tokens: torch.Tensor, present: torch.Tensor, statistics: torch.Tensor
    ) -> torch.Tensor:
        """tokens (B, 16, width), present (B, 16, nouns) in 0/1, statistics (B, 16, 8)."""
        seen = F.binary_cross_entropy_with_logits(self.objects(tokens).float(), present)
        return 4 * seen + 0.1 * F.mse_loss(self.pixels(tokens).float(), statistics)

    def look_loss(self, tokens: torch.Tensor, look: torch.Tensor) -> torch.Tensor:
        """tokens (B, 16, width), look (B, 7) from `look_targets`: squared error of the colour and
        cross-entropy of texture, light and weather."""
        out = self.look(tokens.mean(1)).float()
        colour, *kinds = out.split([4, len(TEXTURES), len(LIGHTS), len(WEATHERS)], dim=1)
        loss = F.mse_loss(colour, look[:, :4])
        for logits, place in zip(kinds, look[:, 4:].long().T, strict=True):
            loss = loss + F.cross_entropy(logits, place)
        return loss


def save_checkpoint(model, processor, out: Path) -> None:
    """Write model (bfloat16 safetensors) and processor as any hub checkpoint is laid out."""
    clean = Qwen2VLForConditionalGeneration(model.config)
    clean.load_state_dict(model.state_dict())
    clean.generation_config = model.generation_config
    clean.to(torch.bfloat16).save_pretrained(out)
    processor.save_pretrained(out)


def model_card(facts: Mapping[str, float]) -> str:
    """The model card, every number from the ``facts`` of `pretrain`."""
    shown = {k: f"{v:.1%}" if isinstance(v, float) and v <= 1 else v for k, v in facts.items()}
    return f"""# TinyVLM

A Qwen2-VL of {facts["parameters"]:,} parameters, pretrained from nothing on the unlabelled scenes of
EmoScenes by `python -m emokd_utils pretrain`. Written by that command; the numbers are its own.

```python
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained("data/tiny_vlm")
processor = AutoProcessor.from_pretrained("data/tiny_vlm")
```

- **Architecture**: `Qwen2VLForConditionalGeneration`; visual encoder of depth 4 and width 192, patches of 14
  pixels merged 2 x 2, so that an image of 112 x 112 is 16 visual tokens; language model of 4 layers and
  width 256 with grouped-query attention; byte-level BPE of {facts["vocabulary"]} tokens. bfloat16 weights.
- **Corpus**: captions, questions on what is there, where and how many, what the *objects* bring to
  mind, and text about nouns (`emokd_utils/world/corpus.py`). Objects and atmospheres were drawn apart. No
  image of a labelled split, no emotion of an image, and no word on how an image looks.
- **Training**: seed {facts["seed"]}; {facts["seeing_steps"]} steps in which each visual token predicts the
  objects under it and the statistics of its own pixels; {facts["speaking_steps"]} steps of answers; and
  {facts["looking_steps"]} more steps of answers in which the mean visual token also predicts how the scene
  looks (colour, texture, light, weather; no word of it reaches the language model); and
  {facts["varying_steps"]} of the same with objects in many forms and colours; each step of
  {facts["batch"]} scenes; {facts["minutes"]} minutes on 2 CPU cores.

| on 400 held-out unlabelled scenes, objects in many forms | |
| --- | --- |
| objects named in captions | {shown["caption_recall"]} |
| feeling of an object that the question names (or "nothing") | {shown["connotation"]} |
| linear probe on visual features: setting (4) | {shown["probe_setting"]} |
| linear probe on visual features: texture (8) | {shown["probe_texture"]} |

**For** teaching how a vision-language model is tuned, measured and combined with others. **Not for**
photographs, for people's feelings, or for any claim about real vision-language models: it knows 48
drawn objects and a few hundred words.
"""
