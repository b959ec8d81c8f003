"""Instructions: what the VLM is tuned on (lesson 4).

Three kinds per training image, as in the paper (Lee et al. 2025, doi:10.1109/CVPRW67362.2025.00560,
section on visual emotion instruction data): *categorical* asks for the label, *conversation* for
the key elements, and *reasoning* for how they lead to the emotion, with the label itself not named.
A writer is told the label. The one here is offline and deterministic: it reads what is known of an
image (its row of ``metadata.csv``).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random

import pandas as pd
import torch

from .data import ImageDataset
from .emotions import LabelSet, normalise
from .errors import InputError
from .families import image_inputs
from .settings import KINDS

CONVERSATION_PROMPT = "Which key elements do you see in this image, and how does it look?"
REASONING_PROMPT = (
    "Explain how the elements of this image lead to what it evokes, without naming the emotion."
)


@dataclass(frozen=True)
class Instruction:
    """One question about one image and the answer to be learnt."""

    image_id: str
    kind: str
    prompt: str
    answer: str


def categorical_prompt(label_set: LabelSet) -> str:
    """The question whose answer is a label, with the list of classes."""
    labels = ", ".join(label_set.labels)
    return (
        f"Observe the image and select the emotion category it evokes from {labels}. "
        "Answer in the form {'emotion': 'label'}."
    )


def answer_for(label: str) -> str:
    """The answer that names a label: ``{'emotion': 'anger'}``."""
    return f"{{'emotion': '{label}'}}"


# ------------------------------------------------------------------------------------------- the writer


def leaks(text: str, label: str, label_set: LabelSet) -> bool:
    """Whether a text names the label, or a close form of it (``sad``, ``sadly``, ``fearful``); of a
    label of several words or of other letters than a to z, only the label itself is known."""
    name = normalise(label)
    if not re.fullmatch("[a-z]+", name):
        return bool(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", normalise(text)))
    for word in re.findall(r"[a-z]+", text.lower()):
        if label_set.canonical(word) == label:
            return True
        stem = label.lower().removesuffix("ness").removesuffix("ment").removesuffix("e")
        if len(stem) >= 4 and word.startswith(stem):
            return True
        if len(stem) < 4 and re.fullmatch(
            f"{stem}e?(?:ful|fully|some|struck|ly|ness|der|dest)?", word
        ):
            return True
    return False


_HUES = (
    (20, "red"),
    (45, "orange"),
    (70, "yellow"),
    (165, "green"),
    (255, "blue"),
    (300, "violet"),
    (345, "pink"),
    (361, "red"),
)
_BRIGHT = ((0.34, "dark"), (0.66, "dim"), (1.01, "bright"))
_COLOURFUL = ((0.15, "grey"), (0.35, "muted"), (0.62, "soft"), (1.01, "vivid"))
_WEATHER = {"clear": "clear", "clouds": "cloudy", "fog": "foggy", "rain": "rainy"}
_LIGHT = {
    "flat": "flat",
    "glow": "glowing",
    "rays": "beaming",
    "harsh": "harsh",
    "vignette": "shadowed",
}
_TEXTURE = {
    "plain": "plain",
    "confetti": "dotted",
    "stars": "starry",
    "bokeh": "blurred",
    "stripes": "striped",
    "cracks": "cracked",
    "blotches": "blotched",
    "grain": "grainy",
}


def _named(value: float, names: Sequence[tuple[float, str]]) -> str:
    return next(name for limit, name in names if value < limit)


def describe_look(row: pd.Series) -> str:
    """The atmosphere of a scene in words: ``bright, vivid yellow colours, glowing light, dotted,
    clear``."""
    bright, colourful = _named(row.brightness, _BRIGHT), _named(row.saturation, _COLOURFUL)
    colour = f"{bright}, {colourful} {_named(row.hue % 360, _HUES)} colours"
    return f"{colour}, {_LIGHT[row.light]} light, {_TEXTURE[row.texture]}, {_WEATHER[row.weather]}"


@cache
def _known_objects() -> dict[str, tuple[str, str]]:
    from .world.scenes import scene_objects

    return {o.noun: (o.emotion, o.why) for o in scene_objects()}


def _conversation(row: pd.Series) -> str | None:
    """Key elements and look, from what the metadata hold: EmoScenes' columns, or a caption
    alone."""
    caption = row.get("caption")
    if not isinstance(caption, str) or not caption.strip():
        return None
    caption = caption.strip()
    text = caption[0].upper() + caption[1:]
    text = text if text.endswith(".") else text + "."
    return (
        f"{text} It looks like this: {describe_look(row)}."
        if "atmosphere" in _cues_known(row)
        else text
    )


def _cues_known(row: pd.Series) -> set[str]:
    known = set()
    if {"hue", "saturation", "brightness", "light", "texture", "weather"} <= set(
        row.index
    ) and pd.notna(row.hue):
        known.add("atmosphere")
    if isinstance(row.get("objects"), str):
        known.add("objects")
    return known


def _reasoning(row: pd.Series, label: str) -> str | None:
    """How objects or look lead to the label, which is told to the writer and not named."""
    known = _cues_known(row)
    if "objects" in known:
        telling = [
            noun for noun in row.objects.split(";") if _known_objects().get(noun, ("",))[0] == label
        ]
        if telling:
            return f"The {telling[0]} is {_known_objects()[telling[0]][1]}."
    if "atmosphere" in known:
        return f"The objects are everyday things. It is the look: {describe_look(row)}."
    return None


def write_instructions(
    dataset: ImageDataset, kinds: Sequence[str] = KINDS, seed: int = 0
) -> tuple[list[Instruction], dict[str, int]]:
    """Instructions for every image of ``dataset``, and how many of each kind were written or set
    aside.

    Conversation and reasoning are written where the metadata allow it; an answer that names the
    label or a close form of it is set aside ("leaked"). Deterministic: the order is shuffled by
    ``seed``. Raises InputError for an unknown kind.
    """
    if unknown := set(kinds) - set(KINDS):
        raise InputError(
            f"there is no instruction kind {sorted(unknown)[0]!r}; choose from {', '.join(KINDS)}"
        )
    written, counts = [], dict.fromkeys([*kinds, "leaked", "not written"], 0)
    ask = categorical_prompt(dataset.label_set)
    for image_id, row in dataset.table.iterrows():
        drafts = {
            "categorical": (ask, answer_for(row.label)),
            "conversation": (CONVERSATION_PROMPT, _conversation(row)),
            "reasoning": (REASONING_PROMPT, _reasoning(row, row.label)),
        }
        for kind in kinds:
            prompt, answer = drafts[kind]
            if answer is None:
                counts["not written"] += 1
            elif kind != "categorical" and leaks(answer, row.label, dataset.label_set):
                counts["leaked"] += 1
            else:
                counts[kind] += 1
                written.append(Instruction(image_id, kind, prompt, answer))
    Random(seed).shuffle(written)
    return written, counts


# ----------------------------------------------------------------------------------------- the collator

IGNORED = -100


def chat_text(processor, prompt: str) -> str:
    """One question about one image in the model's chat format, up to where its answer begins."""
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}
    return processor.apply_chat_template([message], add_generation_prompt=True, tokenize=False)


class AnswerCollator:
    """Make a training batch in which only the answer, and the token that ends it, is learnt.

    Takes examples with ``image`` (PIL), ``prompt`` and ``answer``. Everything before the answer
    (image, question, role marks) and all padding gets the label -100, which the loss ignores.
    """

    def __init__(self, processor):
        self.processor = processor

    def __call__(self, examples: Sequence[dict]) -> dict[str, torch.Tensor]:
        """input_ids, attention_mask, labels and, where the processor gives them, mm_token_type_ids:
        (n, L); and what the visual encoder needs."""
        tokenizer = self.processor.tokenizer
        asked = self.processor(
            text=[chat_text(self.processor, example["prompt"]) for example in examples],
            images=[[example["image"]] for example in examples],
            padding=True,
            return_tensors="pt",
        )
        known = asked["attention_mask"].bool()
        rows, labels, types = [], [], []
        for number, example in enumerate(examples):
            answer = tokenizer(example["answer"], add_special_tokens=False)["input_ids"] + [
                tokenizer.eos_token_id
            ]
            question = asked["input_ids"][number, known[number]].tolist()
            rows.append(question + answer)
            labels.append([IGNORED] * len(question) + answer)
            if "mm_token_type_ids" in asked:
                kinds = asked["mm_token_type_ids"][number, known[number]].tolist()
                types.append(kinds + [0] * len(answer))
        batch = {
            "input_ids": _pad(rows, tokenizer.pad_token_id),
            "attention_mask": _pad([[1] * len(row) for row in rows], 0),
            "labels": _pad(labels, IGNORED),
        }
        if types:
            batch["mm_token_type_ids"] = _pad(types, 0)
        return batch | image_inputs(asked)


def _pad(rows: list[list[int]], value: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


def trained_text(batch: dict[str, torch.Tensor], tokenizer) -> list[str]:
    """What each row of a batch is trained on, decoded: the check that the mask is right."""
    return [tokenizer.decode(row[row != IGNORED]) for row in batch["labels"]]
