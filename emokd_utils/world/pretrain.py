"""How TinyVLM was made: pretraining a small Qwen2-VL from nothing on unlabelled scenes (lesson A1).

Four stages. *Seeing*: each visual token predicts which objects lie under it (binary cross-entropy)
and the colour and contrast of its own pixels (squared error), which breaks the plateau that
captions alone leave the encoder on. *Speaking*: next-token prediction on answers about objects,
settings and what nouns mean to people (``emokd_utils.world.corpus``), with the first task kept on as an
auxiliary loss. *Looking*: the same at a lower rate, while the mean visual token also learns to
predict the scene's colour, texture, light and weather, as the encoder of a real model knows them.
*Varying*: the same, with the objects no longer as in their drawings but in many forms. No labelled
split, no image's emotion and no word on how a scene looks is ever used.

    python -m emokd_utils.world.pretrain        # the shipped checkpoint, about 105 minutes on 2 cores

A reduced run: ``--seeing 4 --speaking 4 --looking 4 --varying 4 --batch 8 --out DIR --work DIR``.
"""

import argparse
import json
import math
import time
import types
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from torch.utils.data import DataLoader, Dataset
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from .corpus import FEELING, Turn, draw_turn, tokenizer_corpus
from .scenes import (
    LIGHTS,
    SEED,
    SIZE,
    TEXTURES,
    WEATHERS,
    Scene,
    make_unlabelled_scene,
    scene_objects,
)

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HELD_OUT = 50_000_000  # ten million unlabelled scenes from this number on are never trained on
PATCH, MERGE, CELL = 14, 2, 28
VISUAL_TOKENS = (SIZE // CELL) ** 2
_NOUNS = [o.noun for o in scene_objects()]


# ------------------------------------------------------------------------------------------ the parts


def build_tokenizer(lines: list[str], vocab_size: int = 1500) -> PreTrainedTokenizerFast:
    """Byte-level BPE learnt on ``lines``, with Qwen's special tokens and pre-tokenisation by
    words."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
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
        image_processor=Qwen2VLImageProcessor(size=area, patch_size=PATCH, merge_size=MERGE),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=area, patch_size=PATCH, merge_size=MERGE),
        chat_template=CHAT_TEMPLATE,
    )


def build_model(
    tokenizer: PreTrainedTokenizerFast, seed: int = 0
) -> Qwen2VLForConditionalGeneration:
    """A Qwen2-VL of about 6 million parameters with random weights."""
    token = tokenizer.convert_tokens_to_ids
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
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
            "bos_token_id": token("<|im_start|>"),
            "eos_token_id": token("<|im_end|>"),
            "pad_token_id": token("<|endoftext|>"),
        },
        vision_config={
            "depth": 4,
            "embed_dim": 192,
            "hidden_size": 256,
            "num_heads": 6,
            "mlp_ratio": 4,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "in_channels": 3,
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = Qwen2VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = token("<|im_end|>")
    model.generation_config.pad_token_id = token("<|endoftext|>")
    return model


class SeeingHeads(nn.Module):
    """Auxiliary outputs: of a visual token, object logits and 8 statistics of the pixels it stands
    for; of the mean token, how the scene looks."""

    def __init__(self, width: int = 256):
        super().__init__()
        self.objects = nn.Linear(width, len(_NOUNS))
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


# ------------------------------------------------------------------------------------------ the batches


def look_targets(scenes: list[Scene]) -> torch.Tensor:
    """(B, 7): saturation times cosine and sine of the hue, saturation, brightness (each brought to
    about unit scale), and the numbers of texture, light and weather."""
    rows = []
    for look in (scene.atmosphere for scene in scenes):
        turn, s = math.radians(look.hue), look.saturation
        colour = [
            2 * s * math.cos(turn),
            2 * s * math.sin(turn),
            4 * s - 2,
            4 * look.brightness - 2,
        ]
        kinds = [TEXTURES.index(look.texture), LIGHTS.index(look.light)]
        rows.append([*colour, *kinds, WEATHERS.index(look.weather)])
    return torch.tensor(rows)


def objects_under_tokens(scene: Scene) -> np.ndarray:
    """(16, nouns) 0/1: which objects' boxes hold the centre part of each visual token's 28 x 28
    cell."""
    found = np.zeros((VISUAL_TOKENS, len(_NOUNS)), dtype=np.float32)
    per_row = SIZE // CELL
    for noun, (x, y, width, height) in zip(scene.objects, scene.boxes, strict=True):
        for token in range(VISUAL_TOKENS):
            left, top = CELL * (token % per_row), CELL * (token // per_row)
            wide = min(x + width, left + CELL) - max(x, left)
            high = min(y + height, top + CELL) - max(y, top)
            if wide > 8 and high > 8:
                found[token, _NOUNS.index(noun)] = 1
    return found


def pixel_statistics(scenes: list[Scene]) -> np.ndarray:
    """(B, 16, 8): per cell the mean and the standard deviation of red, green, blue and the mean
    absolute step to the right and downwards, each brought to about unit scale."""
    pixels = np.stack([np.asarray(s.image) for s in scenes]).astype(np.float32) / 255
    per_row = SIZE // CELL
    cells = pixels.reshape(len(scenes), per_row, CELL, per_row, CELL, 3).transpose(0, 1, 3, 2, 4, 5)
    cells = cells.reshape(len(scenes), VISUAL_TOKENS, CELL, CELL, 3)
    mean = (cells.mean((2, 3)) - 0.5) / 0.25
    deviation = (cells.std((2, 3)) - 0.13) / 0.08
    grey = cells.mean(-1)
    steps = np.stack(
        [np.abs(np.diff(grey, axis=3)).mean((2, 3)), np.abs(np.diff(grey, axis=2)).mean((2, 3))], -1
    )
    return np.concatenate([mean, deviation, (steps - 0.03) / 0.02], -1)


def chat(turn: Turn, visual_tokens: int = VISUAL_TOKENS) -> tuple[str, str]:
    """(question, answer) as the chat template and the processor write them."""
    image = f"<|vision_start|>{'<|image_pad|>' * visual_tokens}<|vision_end|>" if turn.image else ""
    question = f"<|im_start|>user\n{image}{turn.prompt}<|im_end|>\n<|im_start|>assistant\n"
    return question, f"{turn.answer}<|im_end|>"


def encode(
    turns: list[Turn], scenes: list[Scene], processor: Qwen2VLProcessor
) -> dict[str, torch.Tensor]:
    """One training batch; only answers (and the token that ends them) carry a label."""
    tokenizer = processor.tokenizer
    rows, targets = [], []
    for turn in turns:
        question, answer = (
            tokenizer(text, add_special_tokens=False)["input_ids"] for text in chat(turn)
        )
        rows.append(question + answer)
        targets.append([-100] * len(question) + answer)
    longest = max(map(len, rows))
    batch = {
        "input_ids": torch.tensor(
            [r + [tokenizer.pad_token_id] * (longest - len(r)) for r in rows]
        ),
        "attention_mask": torch.tensor([[1] * len(r) + [0] * (longest - len(r)) for r in rows]),
        "labels": torch.tensor([t + [-100] * (longest - len(t)) for t in targets]),
    }
    batch["mm_token_type_ids"] = (batch["input_ids"] == processor.image_token_id).int()
    shown = [scene.image for scene, turn in zip(scenes, turns, strict=True) if turn.image]
    if shown:
        batch.update(processor.image_processor(images=shown, return_tensors="pt"))
    return batch


def seeing_targets(scenes: list[Scene]) -> tuple[torch.Tensor, torch.Tensor]:
    """What a visual token learns in stage 1: (B, 16, nouns) objects and (B, 16, 8) pixel
    statistics."""
    if not scenes:
        return torch.zeros(0, VISUAL_TOKENS, len(_NOUNS)), torch.zeros(0, VISUAL_TOKENS, 8)
    present = np.stack([objects_under_tokens(scene) for scene in scenes])
    return torch.from_numpy(present), torch.from_numpy(pixel_statistics(scenes))


# ------------------------------------------------------------------------------------------ the training


def linear_patches(model: Qwen2VLForConditionalGeneration) -> None:
    """Compute the patch embedding as the matrix product it is: the same numbers, and a faster
    backward pass than a 3-D convolution whose kernel equals its stride."""

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        weight = self.proj.weight
        return F.linear(patches.view(-1, weight[0].numel()).to(weight.dtype), weight.flatten(1))

    embed = model.model.visual.patch_embed
    embed.forward = types.MethodType(forward, embed)


class Run:
    """One stage's state: parameters, AdamW with a warm-up and a cosine, saved every ``every`` steps
    so that a killed run goes on where it was (batches depend only on seed and step)."""

    def __init__(self, name, folder, modules, steps, rate, warmup=100, every=250):
        self.path, self.steps, self.rate, self.warmup, self.every = (
            folder / f"{name}.safetensors",
            steps,
            rate,
            warmup,
            every,
        )
        self.weights = {f"{k}.{n}": p for k, m in modules.items() for n, p in m.named_parameters()}
        self.optimizer = torch.optim.AdamW(
            self.weights.values(), lr=rate, weight_decay=0.05, betas=(0.9, 0.98)
        )
        self.step, self.seconds, self.begin = 0, 0.0, time.time()
        if self.path.exists():
            saved = load_file(self.path)
            self.step, self.seconds = int(saved["step"]), float(saved["seconds"])
            with torch.no_grad():
                for name, weight in self.weights.items():
                    weight.copy_(saved[name])
                    if self.step < steps:
                        self.optimizer.state[weight] = {
                            "step": torch.tensor(float(self.step)),
                            "exp_avg": saved[f"{name}/1"],
                            "exp_avg_sq": saved[f"{name}/2"],
                        }

    def update(self, loss: torch.Tensor) -> None:
        """One optimiser step on ``loss``, gradients clipped to norm 1."""
        warm = min(1.0, (self.step + 1) / self.warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * self.step / self.steps))
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * warm * (0.03 + 0.97 * cosine)
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights.values(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        if self.step % self.every == 0 or self.step == self.steps:
            self.save()

    def save(self) -> None:
        """Write weights, moments (while there are steps to come) and step; rename when whole."""
        tensors = {name: weight.detach() for name, weight in self.weights.items()}
        if self.step < self.steps:
            for name, weight in self.weights.items():
                if state := self.optimizer.state.get(weight):
                    tensors[f"{name}/1"], tensors[f"{name}/2"] = (
                        state["exp_avg"],
                        state["exp_avg_sq"],
                    )
        now = time.time()
        self.seconds, self.begin = self.seconds + now - self.begin, now
        tensors["step"], tensors["seconds"] = torch.tensor(self.step), torch.tensor(self.seconds)
        draft = self.path.with_suffix(".tmp")
        save_file(tensors, draft)
        draft.replace(self.path)


class SeeingBatches(Dataset):
    """Batch ``step`` of stage 1: pixels, objects under each visual token, pixel statistics."""

    def __init__(self, processor: Qwen2VLProcessor, batch: int, seed: int):
        self.processor, self.batch, self.seed = processor, batch, seed

    def __getitem__(self, step: int) -> tuple[dict, torch.Tensor, torch.Tensor]:
        start, count = step * self.batch, self.batch
        scenes = [make_unlabelled_scene(start + k, self.seed, False) for k in range(count)]
        inputs = self.processor.image_processor(
            images=[s.image for s in scenes], return_tensors="pt"
        )
        return dict(inputs), *seeing_targets(scenes)


class SpeakingBatches(Dataset):
    """Batch ``step`` of stage 2. Four batches are drawn together and sorted by length to save
    padding."""

    group = 4

    def __init__(
        self, processor: Qwen2VLProcessor, batch: int, seed: int, first: int, varied: bool
    ):
        self.processor, self.batch, self.seed = processor, batch, seed
        self.first, self.varied = first, varied
        self.block, self.parts = -1, []

    def draw(self, block: int) -> list[list[tuple[Turn, Scene]]]:
        """The four batches of a block, of about equal length within each."""
        rng, count = Random(f"{self.seed}/{block}"), self.batch * self.group
        start = self.first + block * count
        scenes = [make_unlabelled_scene(start + k, self.seed, self.varied) for k in range(count)]
        pairs = [(draw_turn(rng, scene), scene) for scene in scenes]
        pairs.sort(key=lambda pair: len(pair[0].prompt) + len(pair[0].answer))
        parts = [pairs[k : k + self.batch] for k in range(0, count, self.batch)]
        rng.shuffle(parts)
        return parts

    def __getitem__(self, step: int) -> tuple[dict, torch.Tensor, torch.Tensor]:
        if step // self.group != self.block:
            self.block = step // self.group
            self.parts = self.draw(self.block)
        part = self.parts[step % self.group]
        shown = [scene for turn, scene in part if turn.image]
        inputs = encode([turn for turn, _ in part], [scene for _, scene in part], self.processor)
        return dict(inputs), *seeing_targets(shown), look_targets(shown)


def batches(source: Dataset, run: Run) -> DataLoader:
    """The batches from the run's step on, in order, prepared by one process beside the training."""
    steps = range(run.step, run.steps)
    return DataLoader(source, batch_size=None, sampler=steps, num_workers=1, prefetch_factor=4)


def see(model, heads, processor, run: Run, batch: int, seed: int, say) -> None:
    """Stage 1: the visual encoder learns to see."""
    begin, smooth = time.time(), 0.0
    for inputs, present, statistics in batches(SeeingBatches(processor, batch, seed), run):
        with autocast():
            tokens = model.model.visual(
                inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]
            ).pooler_output
            tokens = tokens.reshape(batch, VISUAL_TOKENS, -1)
            loss = heads.loss(tokens, present, statistics)
        run.update(loss)
        with torch.no_grad():
            score, wanted = heads.objects(tokens.float()).amax(1), present.amax(1)
        best = [row.topk(int(want.sum())).indices for row, want in zip(score, wanted, strict=True)]
        recall = sum(want[top].sum() for want, top in zip(wanted, best, strict=True)) / wanted.sum()
        smooth += (recall.item() - smooth) * max(0.05, 1 / run.step)
        if run.step % 50 == 0:
            say(
                f"seeing {run.step}/{run.steps} loss {loss.item():.4f} "
                f"object recall {smooth:.3f} {time.time() - begin:.0f} s"
            )


def speak(
    model,
    heads,
    processor,
    run: Run,
    batch: int,
    seed: int,
    say,
    first: int,
    look_weight: float = 0,
    varied: bool = False,
) -> None:
    """Stages 2 to 4: the whole model learns to answer; seeing stays on as an auxiliary loss. With
    a ``look_weight`` the mean visual token also learns how the scene looks."""
    begin, smooth, seen = time.time(), 0.0, {}
    hook = model.model.visual.register_forward_hook(
        lambda module, args, out: seen.update(tokens=out.pooler_output)
    )
    source = SpeakingBatches(processor, batch, seed, first, varied)
    for inputs, present, statistics, look in batches(source, run):
        with autocast():
            answer = model(**inputs).loss
            loss = answer
            if len(present):
                tokens = seen["tokens"].reshape(*present.shape[:2], -1)
                loss = answer + 0.5 * heads.loss(tokens, present, statistics)
                if look_weight:
                    loss = loss + look_weight * heads.look_loss(tokens, look)
        run.update(loss)
        smooth += (answer.item() - smooth) * max(0.02, 1 / run.step)
        if run.step % 50 == 0:
            say(
                f"{run.path.stem} {run.step}/{run.steps} answer loss {smooth:.4f} {time.time() - begin:.0f} s"
            )
    hook.remove()


def autocast():
    """bfloat16 matrix products where the processor has instructions for them; plain float32
    elsewhere."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=torch.cpu._is_amx_tile_supported())


def evaluate(model, processor, count: int = 400, seed: int = SEED) -> dict[str, float]:
    """What the model can do on ``count`` held-out unlabelled scenes, each a share in 0..1.

    caption_recall: objects that its captions name. connotation: objects for which, asked, it names
    the feeling (or nothing). probe_setting, probe_texture: accuracy of a linear probe on the mean
    visual token, trained on one half and tested on the other (chance 0.25 and about 0.2).
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from ..vlm import VLM

    vlm = VLM(model, processor)
    scenes = [make_unlabelled_scene(HELD_OUT + k, seed) for k in range(count)]
    images = [s.image for s in scenes]
    captions, named, felt = [], 0, 0
    for start in range(0, count, 50):
        captions += vlm.generate(images[start : start + 50], "Describe the image.", 40)
    for scene, text in zip(scenes, captions, strict=True):
        named += sum(noun in text for noun in scene.objects)
        noun = scene.objects[0]
        answer = vlm.generate([scene.image], f"Which emotion does the {noun} evoke?", 8)[0]
        felt += answer.strip(" .").lower() == FEELING[noun]
    features, half = vlm.features(images), count // 2
    found = {
        "caption_recall": named / sum(len(s.objects) for s in scenes),
        "connotation": felt / count,
    }
    for name, truth in {
        "probe_setting": [s.setting for s in scenes],
        "probe_texture": [s.atmosphere.texture for s in scenes],
    }.items():
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, C=0.01))
        probe.fit(features[:half], truth[:half])
        found[name] = float(probe.score(features[half:], truth[half:]))
    return found


def pretrain(
    out: Path,
    seeing: int,
    speaking: int,
    looking: int,
    varying: int,
    batch: int,
    seed: int,
    work: Path,
    say=print,
) -> dict:
    """Run the stages, write the checkpoint and its model card to ``out``; returns its facts."""
    work.mkdir(parents=True, exist_ok=True)
    corpus = tokenizer_corpus(
        [make_unlabelled_scene(30_000_000 + k, seed, False) for k in range(6000)]
    )
    tokenizer = build_tokenizer(corpus)
    processor, model = build_processor(tokenizer), build_model(tokenizer, seed)
    heads = SeeingHeads()
    linear_patches(model)
    model.train()
    first = Run("seeing", work, {"visual": model.model.visual, "heads": heads}, seeing, rate=1e-3)
    see(model, heads, processor, first, batch, seed, say)
    second = Run(
        "speaking", work, {"model": model, "heads": heads}, speaking, rate=7e-4, warmup=200
    )
    speak(model, heads, processor, second, batch, seed, say, first=20_000_000)
    third = Run("looking", work, {"model": model, "heads": heads}, looking, rate=3e-4, warmup=50)
    speak(model, heads, processor, third, batch, seed, say, first=40_000_000, look_weight=0.5)
    fourth = Run("varying", work, {"model": model, "heads": heads}, varying, rate=5e-4, warmup=50)
    speak(
        model, heads, processor, fourth, batch, seed, say, 60_000_000, look_weight=0.5, varied=True
    )
    save(model, processor, out)
    facts = {
        "seed": seed,
        "seeing_steps": seeing,
        "speaking_steps": speaking,
        "looking_steps": looking,
        "varying_steps": varying,
        "batch": batch,
        "minutes": round(sum(run.seconds for run in (first, second, third, fourth)) / 60, 1),
        "parameters": sum(p.numel() for p in model.parameters()),
        "vocabulary": len(tokenizer),
        **evaluate(
            Qwen2VLForConditionalGeneration.from_pretrained(out, dtype="float32"), processor
        ),
    }
    (out / "README.md").write_text(model_card(facts), encoding="utf-8")
    return facts


def model_card(facts: dict) -> str:
    """The model card, every number from ``facts``."""
    shown = {k: f"{v:.1%}" if isinstance(v, float) and v <= 1 else v for k, v in facts.items()}
    return f"""# TinyVLM

A Qwen2-VL of {facts["parameters"]:,} parameters, pretrained from nothing on the unlabelled scenes of
EmoScenes by `python -m emokd_utils.world.pretrain`. Written by that command; the numbers are its own.

```python
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained("data/tiny_vlm")
processor = AutoProcessor.from_pretrained("data/tiny_vlm")
```

- **Architecture**: `Qwen2VLForConditionalGeneration`; visual encoder of depth 4 and width 192, patches of 14
  pixels merged 2 x 2, so that an image of 112 x 112 is 16 visual tokens; language model of 4 layers and
  width 256 with grouped-query attention; byte-level BPE of {facts["vocabulary"]} tokens. bfloat16 weights.
- **Corpus**: captions, questions on what is there, where and how many, what the *objects* bring to
  mind, and text about nouns (`emokd_utils/corpus.py`). Objects and atmospheres were drawn apart. No
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


def save(model, processor, out: Path) -> None:
    """Write model (bfloat16 safetensors) and processor as any hub checkpoint is laid out."""
    out.mkdir(parents=True, exist_ok=True)
    clean = Qwen2VLForConditionalGeneration(model.config)
    clean.load_state_dict(model.state_dict())
    clean.generation_config = model.generation_config
    clean.to(torch.bfloat16).save_pretrained(out)
    processor.save_pretrained(out)


def main(argv=None) -> None:
    """The command ``python -m emokd_utils.world.pretrain``."""
    parser = argparse.ArgumentParser(
        prog="python -m emokd_utils.world.pretrain", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--out", type=Path, default=Path("data/tiny_vlm"))
    parser.add_argument(
        "--work", type=Path, default=Path("runs/pretrain"), help="where a killed run goes on from"
    )
    parser.add_argument("--seeing", type=int, default=1000, metavar="STEPS")
    parser.add_argument("--speaking", type=int, default=2000, metavar="STEPS")
    parser.add_argument("--looking", type=int, default=500, metavar="STEPS")
    parser.add_argument("--varying", type=int, default=2300, metavar="STEPS")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=SEED)
    args = parser.parse_args(argv)
    facts = pretrain(
        args.out,
        args.seeing,
        args.speaking,
        args.looking,
        args.varying,
        args.batch,
        args.seed,
        args.work,
        lambda s: print(s, flush=True),
    )
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
