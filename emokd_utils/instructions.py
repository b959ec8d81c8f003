"""Instructions: what the VLM is tuned on (lesson 4). Three kinds per training image (Lee et
al. 2025, doi:10.1109/CVPRW67362.2025.00560, section on visual emotion instruction data): *categorical*
asks for the label, *conversation* for the key elements, and *reasoning* for how they lead to the
emotion, which it does not name."""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

import pandas as pd
import torch
from PIL import Image
from torch.nn.utils.rnn import pad_sequence

from .answers import mentions, words_as_labels
from .data import ImageDataset
from .emotions import LabelSet, normalise
from .errors import InputError
from .families import TEXT_INPUTS, answer_part
from .files import checksum, load_lines
from .settings import KINDS

CONVERSATION_PROMPT = "Which key elements do you see in this image, and how does it look?"
REASONING_PROMPT = (
    "Explain how the elements of this image lead to what it evokes, without naming the emotion."
)
JOURNAL_FORMAT = "emokd-written-2"
IGNORED = -100  # the label of a token that the loss passes over
LEAKED = "names the emotion"  # what is wrong with an answer that gives the label away


@dataclass(frozen=True)
class Instruction:
    """One question about one image and the answer to be learnt."""

    image_id: str
    kind: str
    prompt: str
    answer: str


def categorical_prompt(label_set: LabelSet) -> str:
    """The question whose answer is a label, with the list of classes."""
    labels = ", ".join(label_set)
    question = f"Observe the image and select the emotion category it evokes from {labels}."
    return question + " Answer in the form {'emotion': 'label'}."


def answer_for(label: str) -> str:
    """The answer that names a label: ``{'emotion': 'anger'}``."""
    return f"{{'emotion': '{label}'}}"


def leaks(text: str, label: str, label_set: LabelSet) -> bool:
    """Whether a text names the label, as an answer would (`answers.mentions`), or of a label that is
    one word in a to z a close form (``sadly``)."""
    plain = words_as_labels(text)
    if label in [named for _, named in mentions(plain, label_set)]:
        return True
    stem = normalise(label).removesuffix("ness").removesuffix("ment").removesuffix("e")
    endings = r"\w*" if len(stem) >= 4 else "e?(?:ful|fully|some|struck|ly|ness|der|dest)?"
    words = re.findall(r"[a-z]+", plain) if re.fullmatch("[a-z]+", stem) else []
    return any(re.fullmatch(stem + endings, word) for word in words)


def write_instructions(
    dataset: ImageDataset,
    kinds: Sequence[str] = KINDS,
    seed: int = 0,
    describe: Callable[[pd.Series, str], Sequence[str | None]] = lambda row, label: (None, None),
) -> tuple[list[Instruction], dict[str, int]]:
    """Instructions for every image of ``dataset``, in an order shuffled by ``seed``, and how many
    of each kind were written or set aside, as "leaked" where a text names the label. describe: from
    an image's row and label to conversation and reasoning, None where that tells too little."""
    texts = {}
    for image_id, row in dataset.table.iterrows():
        for kind, text in zip(KINDS[1:], describe(row, row.label), strict=True):
            if text is not None:
                texts[image_id, kind] = "" if leaks(text, row.label, dataset.label_set) else text
    return _instructions(dataset, kinds, seed, texts)


def _instructions(
    dataset: ImageDataset, kinds: Sequence[str], seed: int, texts: dict[tuple[str, str], str]
) -> tuple[list[Instruction], dict[str, int]]:
    """As `write_instructions`; texts: by image and kind, "" where one leaked."""
    prompts = (categorical_prompt(dataset.label_set), CONVERSATION_PROMPT, REASONING_PROMPT)
    prompt_of = dict(zip(KINDS, prompts, strict=True))
    written, counts = [], dict.fromkeys([*kinds, "leaked", "not written"], 0)
    for image_id, label in zip(dataset.ids, dataset.labels, strict=True):
        texts[image_id, "categorical"] = answer_for(label)
        for kind in kinds:
            text = texts.get((image_id, kind))
            if text:
                written.append(Instruction(image_id, kind, prompt_of[kind], text))
            counts[kind if text else "not written" if text is None else "leaked"] += 1
    Random(seed).shuffle(written)
    return written, counts


def journal_answers(requests: Sequence[dict], dataset: ImageDataset) -> dict[str, list[dict]]:
    """The answers to each image of ``dataset``, in order; those to an image that has since got
    another label or other bytes do not count. Each request has image, label, sha256 (16 digits), in
    and out (tokens), measured (whether the server told these); an answer has text, finish (why it
    ended), wrong ("" or what is), else conversation and reasoning. lost: 1 where none arrived."""
    digest = cache(lambda image: checksum(dataset.root / image)[:16])
    answers = defaultdict(list)
    for request in requests:
        image, label = request["image"], request["label"]
        current = dataset.table["label"].get(image) == label and digest(image) == request["sha256"]
        if current and "text" in request:
            answers[image].append(request)
    return answers


def read_instructions(
    journal: Path | str, dataset: ImageDataset, kinds: Sequence[str] = KINDS, seed: int = 0
) -> tuple[list[Instruction], dict[str, int]]:
    """As `write_instructions`, from the answers in a journal that pass the checks. InputError for a
    file that is missing, damaged or of another format than JOURNAL_FORMAT."""
    texts = {}
    requests = load_lines(journal, JOURNAL_FORMAT)[1:]
    for image_id, answers in journal_answers(requests, dataset).items():
        best = next((answer for answer in answers if not answer["wrong"]), answers[-1])
        if best["wrong"] in ("", LEAKED):
            texts |= {(image_id, kind): best.get(kind, "") for kind in KINDS[1:]}
    return _instructions(dataset, kinds, seed, texts)


def check_texts(instructions: Sequence[Instruction], tokenizer) -> None:
    """InputError for a text that holds a token with a meaning of its own, such as the one that ends an
    answer: the model would take it for that."""
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab(), "<think>", "</think>"}
    longest_first = sorted(filter(str.strip, special), key=len)[::-1]
    pattern = re.compile("|".join(map(re.escape, longest_first)))
    for item in instructions:
        if match := pattern.search(item.answer) or pattern.search(item.prompt):
            where = f"the {item.kind} of {item.image_id}"
            mend = "take it out of the text, or have the text written anew"
            raise InputError(f"{where} holds {match[0]!r}, a special token of this model: {mend}")


def chat_text(processor, prompt: str) -> str:
    """One question about one image in the model's chat format, up to where its answer begins."""
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}
    return processor.apply_chat_template([message], add_generation_prompt=True, tokenize=False)


def questions(processor, prompts: Sequence[str], images: Sequence[Image.Image], **options):
    """A processor's output for one question about each image, with padding."""
    texts = [chat_text(processor, prompt) for prompt in prompts]
    options |= {"padding": True, "return_tensors": "pt"}
    return processor(text=texts, images=[[image] for image in images], **options)


class AnswerCollator:
    """A training batch of examples with ``image`` (PIL), ``prompt`` and ``answer``, in which only the
    answer and the token that ends it are learnt: all else has the label IGNORED."""

    def __init__(self, processor):
        self.processor = processor

    def __call__(self, examples: Sequence[dict]) -> dict[str, torch.Tensor]:
        """(n, L) each: input_ids, labels, ...; and what the visual encoder needs."""
        tokenizer = self.processor.tokenizer
        prompts, images = ([each[name] for each in examples] for name in ("prompt", "image"))
        asked = questions(self.processor, prompts, images)
        asked["labels"] = torch.full_like(asked["input_ids"], IGNORED)
        rows = defaultdict(list)
        for number, example in enumerate(examples):
            answer = tokenizer(example["answer"], add_special_tokens=False)["input_ids"]
            answer = torch.tensor([*answer, tokenizer.eos_token_id])  # (a,)
            known = asked["attention_mask"][number].bool()
            for name in [name for name in (*TEXT_INPUTS, "labels") if name in asked]:
                end = answer if name == "labels" else answer_part(asked, name, answer)
                rows[name].append(torch.cat([asked[name][number, known], end]))  # (q + a,)
        padding = {"input_ids": tokenizer.pad_token_id, "labels": IGNORED}
        batch = {
            name: pad_sequence(values, batch_first=True, padding_value=padding.get(name, 0))
            for name, values in rows.items()
        }
        return {name: value for name, value in asked.items() if name not in batch} | batch


def trained_text(batch: dict[str, torch.Tensor], tokenizer) -> list[str]:
    """What each row of a batch is trained on, decoded: the check that the mask is right."""
    return [tokenizer.decode(row[row != IGNORED]) for row in batch["labels"]]
