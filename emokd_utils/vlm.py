"""A vision-language model as a classifier of emotions (lesson 3).

It answers in two ways. *Generate and parse*, as the paper does: let it write, then read the label
out of what it wrote; an answer outside the label set is counted as such. *Label scoring*: how
likely is each label's answer given the image and the prompt; this yields probabilities, and never
an answer outside the set.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from .datasets import ImageDataset
from .emotions import LabelSet
from .errors import InputError
from .instructions import REASONING_PROMPT, answer_for, categorical_prompt, chat_text
from .predictions import Predictions, versions

_ANSWER = re.compile(
    r"""['"]?\s*(?:emotion|label)\s*['"]?\s*[:=]\s*['"]?\s*([A-Za-z][A-Za-z \-]*)""", re.IGNORECASE
)


def parse_answer(text: str, label_set: LabelSet) -> str | None:
    """The label that an answer names, or None.

    Accepts ``{'emotion': 'anger'}`` with any quotes or none, cut short or amid other words, a bare
    label, known other spellings (``sad``), and a sentence that names exactly one label. Anything
    else names no label: an answer outside the label set, or one that names several, is never turned
    into a class.
    """
    found = _ANSWER.search(text)
    if found:
        return label_set.canonical(found.group(1).strip())
    bare = label_set.canonical(text.strip(" \t\n.!'\"{}"))
    if bare:
        return bare
    named = {label_set.canonical(word) for word in re.findall(r"[A-Za-z]+", text)} - {None}
    return named.pop() if len(named) == 1 else None


def common_prefix(rows: Sequence[Sequence[int]]) -> list[int]:
    """The longest beginning that all token rows share, leaving at least one token of each."""
    shared = []
    for column in zip(*(row[:-1] for row in rows), strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return shared


class VLM:
    """A Qwen2-VL model with its processor. ``VLM.load`` takes a folder or a hub id."""

    def __init__(self, model, processor, name: str = "", adapter: str = ""):
        self.model, self.processor, self.name, self.adapter = model.eval(), processor, name, adapter

    @classmethod
    def load(
        cls, source: str | Path, adapter: str | Path | None = None, device: str | None = None
    ) -> "VLM":
        """Load a model and, where given, its LoRA adapter. float32 on a CPU, else the checkpoint's
        own type.

        Raises InputError when a local folder holds no model or no adapter.
        """
        from transformers import AutoModelForImageTextToText, AutoProcessor
        from transformers.utils import logging

        logging.disable_progress_bar()

        source = str(source)
        if Path(source).is_dir() and not (Path(source) / "config.json").is_file():
            raise InputError(
                f"{source} holds no config.json; name the folder of a saved model or a hub id"
            )
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.float32 if device == "cpu" else "auto"
        model = AutoModelForImageTextToText.from_pretrained(source, dtype=dtype)
        if adapter is not None:
            from peft import PeftModel

            if not (Path(adapter) / "adapter_config.json").is_file():
                raise InputError(
                    f"{adapter} holds no adapter_config.json; name the folder that tuning wrote"
                )
            model = PeftModel.from_pretrained(model, str(adapter))
        processor = AutoProcessor.from_pretrained(source)
        return cls(
            model.to(device), processor, Path(source).name, Path(adapter).name if adapter else ""
        )

    @property
    def core(self):
        """The model without the adapter's wrapper; adapted layers stay in it."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return next(self.model.parameters()).device

    # ----------------------------------------------------------------------------------- images and text

    def inputs(self, images: Sequence[Image.Image], prompt: str) -> dict[str, torch.Tensor]:
        """The model's inputs for one question about each image, padded on the left."""
        text = chat_text(self.processor, prompt)
        batch = self.processor(
            text=[text] * len(images),
            images=list(images),
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )
        return {name: value.to(self.device) for name, value in batch.items()}

    @torch.inference_mode()
    def visual_tokens(self, images: Sequence[Image.Image]) -> list[torch.Tensor]:
        """Per image what the visual encoder hands to the language model: (tokens, width)."""
        batch = self.processor.image_processor(images=list(images), return_tensors="pt").to(
            self.device
        )
        return list(
            self.core.get_image_features(
                batch["pixel_values"], batch["image_grid_thw"]
            ).pooler_output
        )

    def features(self, images: Sequence[Image.Image]) -> np.ndarray:
        """(n, width) float32: the mean over an image's visual tokens, the input of the distilled
        head."""
        return np.stack(
            [tokens.float().mean(0).cpu().numpy() for tokens in self.visual_tokens(images)]
        )

    # ---------------------------------------------------------------------------------------- answering

    @torch.inference_mode()
    def generate(
        self, images: Sequence[Image.Image], prompt: str, max_new_tokens: int = 48
    ) -> list[str]:
        """The answer to one question about each image, by greedy decoding."""
        inputs = self.inputs(images, prompt)
        written = self.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        fresh = written[:, inputs["input_ids"].shape[1] :]
        return [
            text.strip() for text in self.processor.batch_decode(fresh, skip_special_tokens=True)
        ]

    @torch.inference_mode()
    def score(
        self, images: Sequence[Image.Image], prompt: str, answers: Sequence[str]
    ) -> np.ndarray:
        """(n, K) log-likelihood (nats) of each answer, with the token that ends it, given image and
        prompt.

        The prompt and the beginning that all answers share pass the model once; the K endings go on
        from a copy of its key-value cache. The result is that of scoring each answer by itself.
        """
        end = self.processor.tokenizer.eos_token_id
        rows = [
            self.processor.tokenizer(a, add_special_tokens=False)["input_ids"] + [end]
            for a in answers
        ]
        prefix = common_prefix(rows)
        inputs = _append(self.inputs(images, prompt), prefix)
        positions = self._positions(inputs)
        out = self.model(
            **inputs, position_ids=positions, use_cache=True, logits_to_keep=len(prefix) + 1
        )
        log_p = out.logits.float().log_softmax(-1)
        shared = (
            log_p[:, :-1].gather(2, _row(prefix, len(images), self.device)[..., None]).sum((1, 2))
        )

        count, endings = len(answers), [row[len(prefix) :] for row in rows]
        longest = max(map(len, endings))
        tokens = torch.tensor([e + [end] * (longest - len(e)) for e in endings], device=self.device)
        real = torch.tensor(
            [[1.0] * len(e) + [0.0] * (longest - len(e)) for e in endings], device=self.device
        )
        tokens, real = tokens.repeat(len(images), 1), real.repeat(len(images), 1)
        first = log_p[:, -1].repeat_interleave(count, 0).gather(1, tokens[:, :1])
        total = first[:, 0]
        if longest > 1:
            cache = out.past_key_values
            cache.batch_repeat_interleave(count)
            mask = inputs["attention_mask"].repeat_interleave(count, 0)
            mask = torch.cat([mask, mask.new_ones(len(tokens), longest - 1)], 1)
            begin = positions.amax((0, 2)).repeat_interleave(count)[:, None] + 1
            place = begin + torch.arange(longest - 1, device=self.device)
            follow = self.model(
                input_ids=tokens[:, :-1],
                attention_mask=mask,
                position_ids=place.expand(3, -1, -1),
                past_key_values=cache,
                use_cache=True,
            )
            rest = follow.logits.float().log_softmax(-1).gather(2, tokens[:, 1:, None])[..., 0]
            total = total + (rest * real[:, 1:]).sum(1)
        return (total.view(len(images), count) + shared[:, None]).double().cpu().numpy()

    def score_with_features(
        self, images: Sequence[Image.Image], prompt: str, answers: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """`score` and `features` from one and the same pass of the visual encoder."""
        seen = []
        visual = self.core.model.visual
        hook = visual.register_forward_hook(
            lambda module, args, out: seen.append(out.pooler_output)
        )
        try:
            scores = self.score(images, prompt, answers)
        finally:
            hook.remove()
        grids = self.processor.image_processor(images=list(images), return_tensors="pt")[
            "image_grid_thw"
        ]
        counts = (grids.prod(-1) // visual.spatial_merge_size**2).tolist()
        return scores, _pool(torch.cat(seen).split(counts))

    def _positions(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """(3, n, L) multimodal rotary positions."""
        return self.core.model.get_rope_index(
            inputs["input_ids"],
            image_grid_thw=inputs["image_grid_thw"],
            attention_mask=inputs["attention_mask"],
            mm_token_type_ids=inputs["mm_token_type_ids"],
        )[0]

    # ---------------------------------------------------------------------------------------- predicting

    def predict(
        self,
        dataset: ImageDataset,
        method: str = "score",
        prompt: str | None = None,
        batch_size: int = 64,
        max_new_tokens: int = 48,
        progress: bool = True,
    ) -> Predictions:
        """The VLM's predictions for a data set; ``prompt`` defaults to the categorical one.

        ``method`` "score": probabilities from label scoring, the answer is the likeliest one.
        "generate": what the model wrote, parsed; the probabilities are one-hot, and an answer
        without a label is invalid. Raises InputError for another method.
        """
        if method not in ("score", "generate"):
            raise InputError(f"there is no method {method!r}; choose 'score' or 'generate'")
        label_set = dataset.label_set
        prompt = prompt or categorical_prompt(label_set)
        expected = [answer_for(label) for label in label_set.labels]
        rows, answers = [], []
        for images in self._batches(dataset, batch_size, f"{self.name} {method}", progress):
            if method == "score":
                scores = self.score(images, prompt, expected)
                rows.append(np.exp(scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)))
                answers += [expected[k] for k in scores.argmax(1)]
            else:
                written = self.generate(images, prompt, max_new_tokens)
                parsed = [parse_answer(text, label_set) for text in written]
                rows.append(np.stack([_one_hot(label, label_set) for label in parsed]))
                answers += written
        probabilities = np.concatenate(rows)
        return Predictions(
            ids=tuple(dataset.ids),
            splits=tuple(dataset.table["split"]),
            labels=tuple(dataset.labels),
            classes=tuple(label_set.labels),
            probabilities=probabilities / probabilities.sum(1, keepdims=True),
            answers=tuple(answers),
            invalid=np.array([parse_answer(a, label_set) is None for a in answers]),
            provenance={
                "model": self.name,
                "adapter": self.adapter,
                "method": method,
                "prompt": prompt,
                "data": dataset.fingerprint,
                "versions": versions(),
            },
        )

    def dataset_features(
        self, dataset: ImageDataset, batch_size: int = 64, progress: bool = True
    ) -> np.ndarray:
        """(n, width) float32 features of every image, in the data set's order."""
        parts = self._batches(dataset, batch_size, f"{self.name} features", progress)
        return np.concatenate([self.features(images) for images in parts])

    def reasons(self, images: Sequence[Image.Image], max_new_tokens: int = 64) -> list[str]:
        """Why, in the model's words: its answers to the reasoning prompt."""
        return self.generate(images, REASONING_PROMPT, max_new_tokens)

    def _batches(
        self, dataset: ImageDataset, size: int, title: str, progress: bool
    ) -> Iterator[list[Image.Image]]:
        ids = list(dataset.ids)
        starts = range(0, len(ids), size)
        for start in tqdm(starts, desc=title, unit="batch", disable=not progress, leave=False):
            yield [dataset.open(image_id) for image_id in ids[start : start + size]]


def _pool(visual_tokens: Sequence[torch.Tensor]) -> np.ndarray:
    """(n, width) float32: the mean of each image's visual tokens (tokens, width)."""
    return np.stack([tokens.float().mean(0).cpu().numpy() for tokens in visual_tokens])


def _row(tokens: list[int], count: int, device) -> torch.Tensor:
    return torch.tensor(tokens, dtype=torch.long, device=device).expand(count, -1)


def _append(inputs: dict[str, torch.Tensor], tokens: list[int]) -> dict[str, torch.Tensor]:
    """The inputs with the same text tokens after every row."""
    ids = inputs["input_ids"]
    more = _row(tokens, len(ids), ids.device)
    types = inputs["mm_token_type_ids"]
    return inputs | {
        "input_ids": torch.cat([ids, more], 1),
        "attention_mask": torch.cat([inputs["attention_mask"], torch.ones_like(more)], 1),
        "mm_token_type_ids": torch.cat([types, torch.zeros_like(more, dtype=types.dtype)], 1),
    }


def _one_hot(label: str | None, label_set: LabelSet) -> np.ndarray:
    if label is None:
        return np.full(len(label_set), 1 / len(label_set))
    return np.eye(len(label_set))[label_set.index(label)]
