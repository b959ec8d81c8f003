"""TinyVLM before it is trained, and the auxiliary outputs of its pretraining (lesson A1)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import PreTrainedTokenizerFast, Qwen2VLConfig, Qwen2VLProcessor
from transformers import Qwen2VLForConditionalGeneration as Qwen2VL

from ..profiles import project_root
from .painting import LIGHTS, TEXTURES, WEATHERS
from .scenes import scene_objects

HOME = project_root() / "data" / "tiny_vlm"
CELL = 28  # pixels along a side of a visual token
NOUNS = [item.noun for item in scene_objects()]
_LOOK = [4, len(TEXTURES), len(LIGHTS), len(WEATHERS)]  # outputs: colour, and logits of each kind
_SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>"]
_SPECIAL_TOKENS += ["<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]


def build_tokenizer(lines: Sequence[str], vocab_size: int = 1500) -> PreTrainedTokenizerFast:
    """Byte-level BPE learnt on ``lines``, with Qwen's special tokens."""
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
    """The stock processor; any image is resized to at most 16 visual tokens (112 x 112 pixels)."""
    stock = Qwen2VLProcessor.from_pretrained(HOME)
    parts = stock.image_processor, tokenizer, stock.video_processor
    return Qwen2VLProcessor(*parts, chat_template=stock.chat_template)


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> Qwen2VL:
    """A Qwen2-VL of about 6 million parameters with random weights."""
    config = Qwen2VLConfig.from_pretrained(HOME, dtype=None)
    config.text_config.vocab_size = len(tokenizer)
    torch.manual_seed(seed)
    return Qwen2VL(config)


class SeeingHeads(nn.Module):
    """Auxiliary outputs: a token's objects and 8 pixel statistics; the mean token's look."""

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
        """tokens (B, 16, 256), look (B, 7) of `pretrain.look_targets`."""
        colour, *kinds = self.look(tokens.mean(1)).float().split(_LOOK, dim=1)
        kinds = zip(kinds, look[:, 4:].long().T, strict=True)
        losses = (F.cross_entropy(logits, place) for logits, place in kinds)
        return sum(losses, F.mse_loss(colour, look[:, :4]))
