"""How TinyVLM was made: pretraining a small Qwen2-VL from nothing on unlabelled scenes (lesson A1).

Four stages. *Seeing*: each visual token predicts which objects lie under it (binary cross-entropy)
and the colour and contrast of its own pixels (squared error), which breaks the plateau that
captions alone leave the encoder on. *Speaking*: next-token prediction on answers about objects,
settings and what nouns mean to people (``emokd_utils.world.corpus``), with the first task kept on as an
auxiliary loss. *Looking*: the same at a lower rate, while the mean visual token also learns to
predict the scene's colour, texture, light and weather, as the encoder of a real model knows them.
*Varying*: the same, with the objects no longer as in their drawings but in many forms. No labelled
split, no image's emotion and no word on how a scene looks is ever used.

``python -m emokd_utils pretrain`` makes the shipped checkpoint in about 105 minutes on 2 cores.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset
from transformers import Qwen2VLForConditionalGeneration, Qwen2VLProcessor

from ..files import load_tensors, save_tensors, write_text
from ..training import autocast
from ..vlm import VLM
from .corpus import FEELING, Turn, draw_turn, tokenizer_corpus
from .painting import LIGHTS, SIZE, TEXTURES, WEATHERS
from .scenes import SEED, Scene, make_unlabelled_scene
from .tiny_vlm import (
    CELL,
    NOUNS,
    SeeingHeads,
    build_model,
    build_processor,
    build_tokenizer,
    linear_patches,
    model_card,
    save_checkpoint,
)

_PER_ROW = SIZE // CELL
VISUAL_TOKENS = _PER_ROW**2
_TOGETHER = 4  # batches that are drawn, and their texts sorted by length, together
_TOKENIZER_SCENES = 30_000_000  # the number of its first unlabelled scene
HELD_OUT = 50_000_000  # ten million unlabelled scenes from this number on are never trained on


@dataclass(frozen=True)
class Stage:
    """A stage of pretraining: its steps, its highest learning rate and the steps of warm-up, the
    number of its first scene; whether it speaks, the weights of the losses on what visual tokens
    see and on the look, and whether objects come in many forms."""

    name: str
    steps: int
    lr: float
    warmup: int
    first_scene: int
    speaks: bool = True
    see_weight: float = 0.5
    look_weight: float = 0.0
    varied: bool = False


STAGES = (
    Stage("seeing", 1000, 1e-3, 100, 0, speaks=False, see_weight=1.0),
    Stage("speaking", 2000, 7e-4, 200, 20_000_000),
    Stage("looking", 500, 3e-4, 50, 40_000_000, look_weight=0.5),
    Stage("varying", 2300, 5e-4, 50, 60_000_000, look_weight=0.5, varied=True),
)


def seeing_targets(scenes: Sequence[Scene]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What the visual tokens of scenes learn: (B, 16, nouns) objects, (B, 16, 8) statistics of
    their pixels and, on average, (B, 7) looks."""
    present = np.stack([objects_under_tokens(scene) for scene in scenes])
    statistics = pixel_statistics(scenes)
    return torch.from_numpy(present), torch.from_numpy(statistics), look_targets(scenes)


def objects_under_tokens(scene: Scene) -> np.ndarray:
    """(16, nouns) 0/1: which objects' boxes hold more than 8 x 8 pixels of each visual token's
    28 x 28 cell."""
    under = np.zeros((VISUAL_TOKENS, len(NOUNS)), dtype=np.float32)
    rows, columns = np.divmod(np.arange(VISUAL_TOKENS), _PER_ROW)
    top, left = CELL * rows, CELL * columns
    for noun, (x, y, width, height) in zip(scene.objects, scene.boxes, strict=True):
        wide = np.minimum(x + width, left + CELL) - np.maximum(x, left)
        high = np.minimum(y + height, top + CELL) - np.maximum(y, top)
        under[(wide > 8) & (high > 8), NOUNS.index(noun)] = 1
    return under


def pixel_statistics(scenes: Sequence[Scene]) -> np.ndarray:
    """(B, 16, 8): per cell the mean and the standard deviation of red, green, blue and the mean
    absolute step to the right and downwards, each brought to about unit scale."""
    pixels = np.stack([np.asarray(s.image) for s in scenes]).astype(np.float32) / 255
    cells = pixels.reshape(len(scenes), _PER_ROW, CELL, _PER_ROW, CELL, 3)
    cells = cells.transpose(0, 1, 3, 2, 4, 5).reshape(len(scenes), VISUAL_TOKENS, CELL, CELL, 3)
    mean = (cells.mean((2, 3)) - 0.5) / 0.25
    deviation = (cells.std((2, 3)) - 0.13) / 0.08
    grey = cells.mean(-1)
    steps = [np.abs(np.diff(grey, axis=axis)).mean((2, 3)) for axis in (3, 2)]
    return np.concatenate([mean, deviation, (np.stack(steps, -1) - 0.03) / 0.02], -1)


def look_targets(scenes: Sequence[Scene]) -> torch.Tensor:
    """(B, 7): saturation times cosine and sine of the hue, saturation, brightness (each brought to
    about unit scale), and the numbers of texture, light and weather."""
    rows = []
    for look in (scene.atmosphere for scene in scenes):
        turn, s = math.radians(look.hue), look.saturation
        colour = [2 * s * math.cos(turn), 2 * s * math.sin(turn), 4 * s - 2]
        kinds = [TEXTURES.index(look.texture), LIGHTS.index(look.light)]
        rows.append([*colour, 4 * look.brightness - 2, *kinds, WEATHERS.index(look.weather)])
    return torch.tensor(rows)


def chat(turn: Turn) -> tuple[str, str]:
    """(question, answer) as the chat template and the processor write them."""
    image = f"<|vision_start|>{'<|image_pad|>' * VISUAL_TOKENS}<|vision_end|>" if turn.image else ""
    question = f"<|im_start|>user\n{image}{turn.prompt}<|im_end|>\n<|im_start|>assistant\n"
    return question, f"{turn.answer}<|im_end|>"


def encode(
    turns: Sequence[Turn], scenes: Sequence[Scene], processor: Qwen2VLProcessor
) -> dict[str, torch.Tensor]:
    """One training batch; only answers (and the token that ends them) carry a label."""
    tokenizer = processor.tokenizer
    rows, targets = [], []
    for turn in turns:
        question, answer = tokenizer(list(chat(turn)), add_special_tokens=False)["input_ids"]
        rows.append(torch.tensor(question + answer))
        targets.append(torch.tensor([-100] * len(question) + answer))
    ids = pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id)
    batch = {
        "input_ids": ids,  # (B, L)
        "attention_mask": pad_sequence([torch.ones_like(row) for row in rows], batch_first=True),
        "labels": pad_sequence(targets, batch_first=True, padding_value=-100),
        "mm_token_type_ids": (ids == processor.image_token_id).int(),
    }
    shown = [scene.image for scene, turn in zip(scenes, turns, strict=True) if turn.image]
    if shown:
        batch.update(processor.image_processor(images=shown, return_tensors="pt"))
    return batch


@dataclass(eq=False)
class Batches(Dataset):
    """The batches of a stage by step: inputs of the model and targets of its visual tokens."""

    stage: Stage
    processor: Qwen2VLProcessor
    batch: int
    seed: int
    _drawn: tuple[int, list] = (-1, [])  # which batches were last drawn together, and these

    def __getitem__(self, step: int) -> tuple[dict, tuple]:
        if not self.stage.speaks:
            scenes = self._scenes(step, self.batch)
            images = [scene.image for scene in scenes]
            inputs = self.processor.image_processor(images=images, return_tensors="pt")
            return dict(inputs), seeing_targets(scenes)
        block, place = divmod(step, _TOGETHER)
        if self._drawn[0] != block:
            self._drawn = (block, self._draw_together(block))
        turns, scenes = zip(*self._drawn[1][place], strict=True)
        shown = [scene for turn, scene in zip(turns, scenes, strict=True) if turn.image]
        return encode(turns, scenes, self.processor), seeing_targets(shown) if shown else ()

    def _draw_together(self, block: int) -> list[list[tuple[Turn, Scene]]]:
        """Four batches, of texts of about equal length within each to save padding."""
        rng, count = Random(f"{self.seed}/{block}"), _TOGETHER * self.batch
        pairs = [(draw_turn(rng, scene), scene) for scene in self._scenes(block, count)]
        pairs.sort(key=lambda pair: len(pair[0].prompt) + len(pair[0].answer))
        parts = [pairs[k : k + self.batch] for k in range(0, count, self.batch)]
        rng.shuffle(parts)
        return parts

    def _scenes(self, block: int, count: int) -> list[Scene]:
        first = self.stage.first_scene + block * count
        varied = self.stage.varied
        return [make_unlabelled_scene(k, self.seed, varied) for k in range(first, first + count)]


class Optimisation:
    """AdamW over the weights of named modules, with a warm-up and a cosine, saved every ``every``
    steps so that a killed run goes on where it was (batches depend only on seed and step)."""

    def __init__(self, stage: Stage, folder: Path, modules: Mapping[str, nn.Module], every=250):
        self.stage, self.every = stage, every
        self.path = folder / f"{stage.name}.safetensors"
        self.weights = {f"{k}.{n}": p for k, m in modules.items() for n, p in m.named_parameters()}
        self.optimizer = torch.optim.AdamW(
            self.weights.values(), lr=stage.lr, weight_decay=0.05, betas=(0.9, 0.98)
        )
        self.step, self.seconds, self.begin = 0, 0.0, time.time()
        if self.path.exists():
            self._resume()

    @torch.no_grad()
    def _resume(self) -> None:
        tensors, about = load_tensors(self.path, "emokd-pretraining-1")
        self.step, self.seconds = about["step"], about["seconds"]
        for key, values in tensors.items():
            name, _, moment = key.partition("/")
            if moment:
                self.optimizer.state[self.weights[name]][moment] = torch.from_numpy(values)
            else:
                self.weights[name].copy_(torch.from_numpy(values))

    def update(self, loss: torch.Tensor) -> None:
        """One optimiser step on ``loss``, gradients clipped to norm 1."""
        warm = min(1.0, (self.step + 1) / self.stage.warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * self.step / self.stage.steps))
        for group in self.optimizer.param_groups:
            group["lr"] = self.stage.lr * warm * (0.03 + 0.97 * cosine)
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights.values(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        if self.step % self.every == 0 or self.step == self.stage.steps:
            self._save()

    def _save(self) -> None:
        now = time.time()
        self.seconds, self.begin = self.seconds + now - self.begin, now
        tensors = {}
        for name, weight in self.weights.items():
            tensors[name] = weight.detach()
            for moment, values in self.optimizer.state.get(weight, {}).items():
                tensors[f"{name}/{moment}"] = values
        about = {"step": self.step, "seconds": self.seconds}
        save_tensors(self.path, tensors, about, "emokd-pretraining-1")


def losses_of(stage: Stage, model, heads: SeeingHeads, inputs, targets) -> list[torch.Tensor]:
    """The terms of a stage's loss: that of the answers, and those of the visual tokens shown on the
    way to them; the first stage needs the visual encoder alone."""
    visual, shown, losses = model.model.visual, [], []
    hook = visual.register_forward_hook(lambda module, args, out: shown.append(out.pooler_output))
    if stage.speaks:
        losses.append(model(**inputs).loss)
    else:
        visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"])
    hook.remove()
    if targets:
        present, statistics, look = targets
        tokens = shown[0].reshape(*present.shape[:2], -1)  # (B * 16, width) to (B, 16, width)
        losses.append(stage.see_weight * heads.loss(tokens, present, statistics))
        if stage.look_weight:
            losses.append(stage.look_weight * heads.look_loss(tokens, look))
    return losses


def train_stage(stage: Stage, model, heads, processor, work: Path, batch: int, seed: int, say):
    """Run a stage to its end, from where a killed run left it; returns the seconds it took."""
    learning = {"model": model} if stage.speaks else {"visual": model.model.visual}
    run = Optimisation(stage, work, learning | {"heads": heads})
    loader = DataLoader(  # one process prepares batches beside the training
        Batches(stage, processor, batch, seed),
        batch_size=None,
        sampler=range(run.step, stage.steps),
        num_workers=1,
        prefetch_factor=4,
    )
    begin, smooth = time.time(), 0.0
    for inputs, targets in loader:
        with autocast(torch.device("cpu")):
            losses = losses_of(stage, model, heads, inputs, targets)
        run.update(sum(losses))
        smooth += (losses[0].item() - smooth) * max(0.02, 1 / run.step)
        if run.step % 50 == 0:
            passed = f"{time.time() - begin:.0f} s"
            say(f"{stage.name} {run.step}/{stage.steps} loss {smooth:.4f} {passed}")
    return run.seconds


def pretrain(
    out: Path,
    work: Path,
    steps: Mapping[str, int] = {},
    batch: int = 64,
    seed: int = SEED,
    say: Callable[[str], object] = print,
) -> dict:
    """Run the stages, write the checkpoint and its model card to ``out``; returns its facts.

    work: what a killed run goes on from. steps: by the name of a stage, where not as published.
    """
    stages = [replace(stage, steps=steps.get(stage.name, stage.steps)) for stage in STAGES]
    read = (make_unlabelled_scene(_TOKENIZER_SCENES + k, seed, False) for k in range(6000))
    tokenizer = build_tokenizer(tokenizer_corpus(read))
    processor, model = build_processor(tokenizer), build_model(tokenizer, seed)
    heads = SeeingHeads()
    linear_patches(model)
    model.train()
    seconds = [
        train_stage(stage, model, heads, processor, work, batch, seed, say) for stage in stages
    ]
    save_checkpoint(model, processor, out)
    shipped = Qwen2VLForConditionalGeneration.from_pretrained(out, dtype="float32")
    facts = {
        "seed": seed,
        **{f"{stage.name}_steps": stage.steps for stage in stages},
        "batch": batch,
        "minutes": round(sum(seconds) / 60),
        "parameters": sum(p.numel() for p in model.parameters()),
        "vocabulary": len(tokenizer),
        **evaluate(shipped, processor),
    }
    write_text(out / "README.md", model_card(facts))
    return facts


def evaluate(model, processor, count: int = 400, seed: int = SEED) -> dict[str, float]:
    """What the model can do on ``count`` held-out unlabelled scenes, each a share in 0..1.

    caption_recall: objects that its captions name. connotation: objects for which, asked, it names
    the feeling (or nothing). probe_setting, probe_texture: accuracy of a linear probe on the mean
    visual token, trained on one half and tested on the other (chance 0.25 and about 0.2).
    """
    vlm = VLM(model, processor)
    scenes = [make_unlabelled_scene(HELD_OUT + k, seed) for k in range(count)]
    images = [scene.image for scene in scenes]
    captions = vlm.generate(images, "Describe the image.", 40)
    shown = zip(scenes, captions, strict=True)
    named = [noun in text for scene, text in shown for noun in scene.objects]
    felt = []
    for scene in scenes:
        noun = scene.objects[0]
        answer = vlm.generate([scene.image], f"Which emotion does the {noun} evoke?", 8)[0]
        felt.append(answer.strip(" .").lower() == FEELING[noun])
    features, half = vlm.features(images), count // 2

    def probed(truth: list[str]) -> float:
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, C=0.01))
        probe.fit(features[:half], truth[:half])
        return float(probe.score(features[half:], truth[half:]))

    return {
        "caption_recall": sum(named) / len(named),
        "connotation": sum(felt) / count,
        "probe_setting": probed([scene.setting for scene in scenes]),
        "probe_texture": probed([scene.atmosphere.texture for scene in scenes]),
    }
