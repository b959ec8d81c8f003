"""How TinyVLM was made: pretraining a small Qwen2-VL from nothing on unlabelled scenes (lesson A1).

Four stages. *Seeing*: each visual token predicts which objects lie under it (binary cross-entropy)
and the colour and contrast of its own pixels (squared error), which breaks the plateau that
captions alone leave the encoder on. *Speaking*: next-token prediction on answers about objects,
settings and what nouns mean to people (``emokd_utils.world.corpus``), with the first task kept on as an
auxiliary loss. *Looking*: the same at a lower rate, while the mean visual token also learns to
predict the scene's colour, texture, light and weather, as the encoder of a real model knows them.
*Varying*: the same, with the objects no longer as in their drawings but in many forms. No labelled
split, no image's emotion and no word on how a scene looks is ever used."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, IterableDataset
from transformers import Qwen2VLProcessor

from ..files import load_tensors, save_tensors, write_text
from ..training import autocast
from ..vlm import VLM
from .corpus import FEELING, Turn, draw_turn, tokenizer_corpus
from .painting import LIGHTS, SIZE, TEXTURES, WEATHERS
from .scenes import SEED, Scene, make_unlabelled_scene
from .tiny_vlm import (
    CELL,
    NOUNS,
    Qwen2VL,
    SeeingHeads,
    build_model,
    build_processor,
    build_tokenizer,
)

_PER_ROW = SIZE // CELL
VISUAL_TOKENS = _PER_ROW**2
HELD_OUT = 50_000_000  # ten million unlabelled scenes from this number on are never trained on
JUDGED = 400  # of these, scenes by which the checkpoint is judged
FORMAT = "emokd-pretraining-2"


@dataclass(frozen=True)
class Stage:
    """A stage of pretraining; ``varied``: whether objects come in many forms."""

    name: str
    steps: int
    lr: float  # the highest
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
    """What visual tokens learn: (B, 16, nouns) objects, (B, 16, 8) statistics, (B, 7) looks."""
    present = torch.from_numpy(np.stack([objects_under_tokens(scene) for scene in scenes]))
    return present, torch.from_numpy(pixel_statistics(scenes)), look_targets(scenes)


def objects_under_tokens(scene: Scene) -> np.ndarray:
    """(16, nouns) 0/1: whose boxes hold more than 8 x 8 pixels of each token's 28 x 28 cell."""
    under = np.zeros((VISUAL_TOKENS, len(NOUNS)), dtype=np.float32)
    top, left = CELL * np.stack(np.divmod(np.arange(VISUAL_TOKENS), _PER_ROW))  # (16,) each
    for noun, (x, y, width, height) in zip(scene.objects, scene.boxes, strict=True):
        wide = np.minimum(x + width, left + CELL) - np.maximum(x, left)
        high = np.minimum(y + height, top + CELL) - np.maximum(y, top)
        under[(wide > 8) & (high > 8), NOUNS.index(noun)] = 1
    return under


def pixel_statistics(scenes: Sequence[Scene]) -> np.ndarray:
    """(B, 16, 8): mean and deviation of red, green, blue; mean steps to the right and downwards."""
    pixels = np.stack([np.asarray(s.image) for s in scenes]).astype(np.float32) / 255
    cells = pixels.reshape(len(scenes), _PER_ROW, CELL, _PER_ROW, CELL, 3)
    cells = cells.transpose(0, 1, 3, 2, 4, 5).reshape(len(scenes), VISUAL_TOKENS, CELL, CELL, 3)
    mean = (cells.mean((2, 3)) - 0.5) / 0.25
    deviation = (cells.std((2, 3)) - 0.13) / 0.08
    steps = [np.abs(np.diff(cells.mean(-1), axis=axis)).mean((2, 3)) for axis in (3, 2)]
    return np.concatenate([mean, deviation, (np.stack(steps, -1) - 0.03) / 0.02], -1)


def look_targets(scenes: Sequence[Scene]) -> torch.Tensor:
    """(B, 7): hue as a vector (2), saturation, brightness; the numbers of the three kinds."""
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


def encode(turns: Sequence[Turn], scenes: Sequence[Scene], processor) -> dict[str, torch.Tensor]:
    """One training batch; only answers (and the token that ends them) carry a label."""
    tokenizer = processor.tokenizer
    texts = [tokenizer(list(chat(turn)), add_special_tokens=False)["input_ids"] for turn in turns]
    rows = {"input_ids": [question + answer for question, answer in texts]}
    batch = dict(tokenizer.pad(rows, padding_side="right", return_tensors="pt"))  # (B, L)
    batch["mm_token_type_ids"] = (batch["input_ids"] == processor.image_token_id).int()
    labels = [torch.tensor([-100] * len(question) + answer) for question, answer in texts]
    batch["labels"] = pad_sequence(labels, batch_first=True, padding_value=-100)
    if shown := [scene.image for scene, turn in zip(scenes, turns, strict=True) if turn.image]:
        batch.update(processor.image_processor(images=shown, return_tensors="pt"))
    return batch


@dataclass(eq=False)
class Batches(IterableDataset):
    """A stage's inputs and targets without end; four are drawn together, sorted by length."""

    stage: Stage
    processor: Qwen2VLProcessor
    batch: int
    seed: int

    def __iter__(self) -> Iterator[tuple[dict, tuple]]:
        stage, together = self.stage, (4 if self.stage.speaks else 1) * self.batch
        for block, first in enumerate(count(stage.first_scene, together)):
            rng, pairs = Random(f"{self.seed}/{block}"), []
            for number in range(first, first + together):
                scene = make_unlabelled_scene(number, self.seed, stage.varied)
                pairs.append((draw_turn(rng, scene) if stage.speaks else Turn("", ""), scene))
            pairs.sort(key=lambda pair: len(pair[0].prompt) + len(pair[0].answer))
            parts = [pairs[k : k + self.batch] for k in range(0, together, self.batch)]
            rng.shuffle(parts)
            for part in parts:
                turns, scenes = zip(*part, strict=True)
                shown = [scene for turn, scene in part if turn.image]
                yield encode(turns, scenes, self.processor), shown and seeing_targets(shown)


def losses_of(stage: Stage, model, heads: SeeingHeads, inputs, targets) -> list[torch.Tensor]:
    """The loss of the answers, and those of the visual tokens shown on the way to them."""
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


def train_stage(stage: Stage, model, heads: SeeingHeads, batches: Batches, say) -> None:
    """Run a stage: AdamW with a warm-up and a cosine, gradients clipped to norm 1."""
    learning = [model if stage.speaks else model.model.visual, heads]
    weights = [weight for module in learning for weight in module.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=stage.lr, weight_decay=0.05, betas=(0.9, 0.98))
    loader = DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=4)
    for step, (inputs, targets) in enumerate(islice(loader, stage.steps)):
        with autocast(torch.device("cpu")):
            losses = losses_of(stage, model, heads, inputs, targets)
        cosine = 0.5 * (1 + math.cos(math.pi * step / stage.steps))
        for group in optimizer.param_groups:
            group["lr"] = stage.lr * min(1, (step + 1) / stage.warmup) * (0.03 + 0.97 * cosine)
        sum(losses).backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 50 == 0:
            say(f"{stage.name} {step + 1}/{stage.steps} loss {losses[0].item():.4f}")


def pretrain(out: Path, work: Path, steps: Mapping[str, int] = {}, batch=64, seed=SEED, say=print):
    """Run the stages, write the checkpoint and its card to ``out``; returns its facts. ``work`` keeps
    finished stages, from which a killed run goes on; ``steps``: where not as published."""
    stages = [replace(stage, steps=steps.get(stage.name, stage.steps)) for stage in STAGES]
    read = (make_unlabelled_scene(30_000_000 + k, seed, varied=False) for k in range(6000))
    tokenizer = build_tokenizer(tokenizer_corpus(read))
    processor, model = build_processor(tokenizer), build_model(tokenizer, seed)
    heads = SeeingHeads()
    model.train()
    modules, seconds = nn.ModuleDict({"model": model, "heads": heads}), 0.0
    for stage in stages:
        path = work / f"{stage.name}.safetensors"
        if not path.exists():
            begin = time.time()
            train_stage(stage, model, heads, Batches(stage, processor, batch, seed), say)
            save_tensors(path, modules.state_dict(), time.time() - begin, FORMAT)
        weights, took = load_tensors(path, FORMAT)
        modules.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
        seconds += took
    model.to(torch.bfloat16).save_pretrained(out)
    processor.save_pretrained(out)
    shipped = Qwen2VL.from_pretrained(out, dtype="float32")
    facts = {"seed": seed, "batch": batch, "minutes": round(seconds / 60)}
    facts |= {f"{stage.name}_steps": stage.steps for stage in stages}
    facts |= {"parameters": model.num_parameters(), "vocabulary": len(tokenizer)}
    facts |= evaluate(shipped, processor)
    card = Path(__file__).with_name("card.md").read_text("utf-8")
    write_text(out / "README.md", card.format(**facts))
    return facts


def evaluate(model, processor) -> dict[str, float]:
    """Shares of JUDGED held-out scenes' objects named in captions, and by their feeling if asked."""
    vlm = VLM(model, processor)
    scenes = [make_unlabelled_scene(HELD_OUT + k) for k in range(JUDGED)]
    captions = vlm.generate([scene.image for scene in scenes], "Describe the image.", 40)
    shown = zip(scenes, captions, strict=True)
    named = [noun in text for scene, text in shown for noun in scene.objects]
    felt = 0
    for scene in scenes:
        noun = scene.objects[0]
        answer = vlm.generate([scene.image], f"Which emotion does the {noun} evoke?", 8)[0]
        felt += answer.strip(" .").lower() == FEELING[noun]
    return {"caption_recall": sum(named) / len(named), "connotation": felt / len(scenes)}
