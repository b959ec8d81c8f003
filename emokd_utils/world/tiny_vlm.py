"""TinyVLM before it is trained: a Qwen2-VL with small numbers, its tokenizer and its processor, and
the auxiliary outputs of its pretraining (lesson A1)."""

from collections.abc import Sequence

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
_LOOK = [4, len(TEXTURES), len(LIGHTS), len(WEATHERS)]  # outputs: colour, and logits of each kind
NOUNS = [item.noun for item in scene_objects()]
_ROTATION = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 12, 12]}
_LANGUAGE_MODEL = {
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "rope_parameters": _ROTATION,
    "tie_word_embeddings": True,
}
_VISUAL_ENCODER = {"depth": 4, "embed_dim": 192, "hidden_size": 256, "num_heads": 6}
_VISUAL_ENCODER |= {"patch_size": _PATCH, "spatial_merge_size": _MERGE}


def build_tokenizer(lines: Sequence[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE learnt on ``lines``, with Qwen's special tokens and pre-tokenisation by
    words."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
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
        weight = self.proj.weight.flatten(1)  # (width, 3, 2, 14, 14) to (width, 3 * 2 * 14 * 14)
        return F.linear(patches.to(weight.dtype), weight)


def linear_patches(model: Qwen2VLForConditionalGeneration) -> None:
    """Give the visual encoder of a model `LinearPatches`."""
    model.model.visual.patch_embed = LinearPatches(model.model.visual.patch_embed)


class SeeingHeads(nn.Module):
    """Auxiliary outputs: of a visual token, object logits and 8 statistics of the pixels it stands
    for; of the mean token, how the scene looks."""

    def __init__(self):
        super().__init__()
        self.objects = nn.Linear(256, len(NOUNS))
        self.pixels = nn.Linear(256, 8)
        self.look = nn.Linear(256, sum(_LOOK))

    def loss(self, tokens: torch.Tensor, present: torch.Tensor, statistics: torch.Tensor):
        """tokens (B, 16, 256), present (B, 16, nouns) in 0/1, statistics (B, 16, 8)."""
        seen = F.binary_cross_entropy_with_logits(self.objects(tokens).float(), present)
        return 4 * seen + 0.1 * F.mse_loss(self.pixels(tokens).float(), statistics)

    def look_loss(self, tokens: torch.Tensor, look: torch.Tensor) -> torch.Tensor:
        """tokens (B, 16, 256), look (B, 7) of `pretrain.look_targets`: squared error of the colour
        and cross-entropy of texture, light and weather."""
        out = self.look(tokens.mean(1)).float()  # (B, 16, 256) to (B, sum of _LOOK)
        colour, *kinds = out.split(_LOOK, dim=1)
        loss = F.mse_loss(colour, look[:, :4])
        for logits, place in zip(kinds, look[:, 4:].long().T, strict=True):
            loss = loss + F.cross_entropy(logits, place)
        return loss
