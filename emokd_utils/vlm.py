"""A vision-language model as a classifier of emotions (lesson 3).

It answers in two ways. *Generate and parse*, as the paper does: let it write, then read the label
out of what it wrote; an answer outside the label set is counted as such. *Label scoring*: how
likely is each label's answer given the image and the prompt; this yields probabilities, and never
an answer outside the set.
"""

from __future__ import annotations

import ctypes
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from tqdm.auto import tqdm

from .data import ImageDataset
from .emotions import LabelSet
from .errors import InputError
from .families import family_of, image_inputs, positions
from .instructions import REASONING_PROMPT, answer_for, categorical_prompt, chat_text
from .predictions import Predictions, versions
from .processes import first, gather, part

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

T = TypeVar("T")

BATCH_SIZE = 32
REASON_TOKENS = 64
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


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Without the warning that peft causes by asking transformers for a name it is about to drop."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        yield


def common_prefix(rows: Sequence[Sequence[int]]) -> list[int]:
    """The longest beginning that all token rows share, leaving at least one token of each."""
    shared = []
    for column in zip(*(row[:-1] for row in rows), strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return shared


def tree_mask(trunk: torch.Tensor, branches: int, length: int) -> torch.Tensor:
    """(n, 1, L, L) additive attention mask, 0 where a token sees another and a very low number where
    not, for rows of a trunk and ``branches`` continuations of ``length`` tokens each.

    ``trunk``: (n, T) of 0 (padding) and 1; L = T + branches * length. Tokens see what is before them
    in the trunk and in their own branch; a padding token sees itself.
    """
    width = trunk.shape[1]
    total = width + branches * length
    place = torch.arange(total, device=trunk.device)
    branch = torch.where(place < width, -1, (place - width) // max(length, 1))
    related = (branch[None, :] == -1) | (branch[None, :] == branch[:, None])
    related &= place[None, :] <= place[:, None]
    real = torch.cat([trunk.bool(), trunk.new_ones(len(trunk), total - width).bool()], 1)
    sees = (related & real[:, None, :]) | torch.eye(total, dtype=torch.bool, device=trunk.device)
    return torch.where(sees, 0.0, torch.finfo(torch.float16).min)[:, None]


def limit_pixels(image_processor, pixels: int) -> None:
    """Have an image processor make images smaller that have more than ``pixels`` pixels.

    SmolVLM's makes every image as large as its number of tiles allows: here as many tiles a side as
    fit a square of ``pixels``, at least one. One that makes all images of one size stays as it is.
    """
    size = image_processor.size
    if hasattr(image_processor, "max_image_size"):
        tile = image_processor.max_image_size["longest_edge"]
        size["longest_edge"] = min(size["longest_edge"], tile * max(1, isqrt(pixels) // tile))
    elif hasattr(image_processor, "merge_size"):
        size["longest_edge"] = min(size["longest_edge"], pixels)
        size["shortest_edge"] = min(size["shortest_edge"], pixels)


def recompute_layers(model) -> None:
    """In the backward pass each layer computes its inside anew (gradient checkpointing).

    transformers has gradients flow from the embeddings on, of text and image, which this kind does
    not need: with them the frozen visual encoder would be gone through backwards as well.
    """
    model.activation_checkpointing_enable()
    model.disable_input_require_grads()


def _four_bits(kind: str, device: str) -> dict:
    """What `from_pretrained` is to be told so that it quantises on this device."""
    if kind != "nf4":
        raise InputError(f"there is no quantisation {kind!r}; choose 'nf4', or '' for none")
    try:
        from bitsandbytes import supported_torch_devices
    except ImportError as error:
        raise InputError(
            f'weights in 4 bits need bitsandbytes: `pip install -e ".[gpu]"` ({error})'
        ) from error
    if (name := device.split(":")[0]) not in supported_torch_devices:
        raise InputError(
            f"bitsandbytes keeps no weights in 4 bits on {name!r}: use a GPU by CUDA, or vlm_quantize=''"
        )
    from transformers import BitsAndBytesConfig

    fast = name != "cpu" and torch.cuda.is_bf16_supported(including_emulation=False)
    half = torch.bfloat16 if fast else torch.float16
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32 if name == "cpu" else half,
    )
    where = torch.cuda.current_device() if device == "cuda" else device
    return {"quantization_config": config, "device_map": {"": where}}


def keep_freed_memory(megabytes: int = 256) -> None:
    """Have glibc keep so much freed memory for the next layer, in place of a return to the system.

    Without it each layer's outputs are fresh pages, and a CPU spends a tenth of a pass on them. The
    numbers stay the same. Other C libraries are left as they are.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(-1, megabytes * 2**20)  # M_TRIM_THRESHOLD
    mallopt(-3, 32 * 2**20)  # M_MMAP_THRESHOLD, the largest that is taken


@contextmanager
def loading(source: str) -> Iterator[None]:
    """What transformers says of a model that it cannot load, as one InputError that names it."""
    try:
        yield
    except (ImportError, OSError, ValueError, SafetensorError) as error:
        raise InputError(
            f"{source} cannot be loaded: {' '.join(str(error).split())} (A model is given as the "
            "folder of a saved one, or by its id on the Hugging Face hub, which must be in reach.)"
        ) from error


def read_config(source: str) -> PreTrainedConfig:
    """The configuration of a model: of the folder of a saved one, or by its id on the hub.

    Raises InputError where there is none, and for a family that `families` does not know.
    """
    from transformers import AutoConfig

    if Path(source).is_dir() and not (Path(source) / "config.json").is_file():
        raise InputError(
            f"{source} holds no config.json; name the folder of a saved model or a hub id"
        )
    with loading(source):
        config = AutoConfig.from_pretrained(source)
    family_of(config)
    return config


class VLM:
    """A vision-language model with its processor. ``VLM.load`` takes a folder or a hub id.

    ``batch_size``: so many images pass the model at once, however many are given. Raises InputError
    for a model of a family that `families` does not know.
    """

    def __init__(
        self, model, processor, name: str = "", adapter: str = "", batch_size: int = BATCH_SIZE
    ):
        self.model, self.processor, self.name, self.adapter = model.eval(), processor, name, adapter
        self.batch_size = batch_size
        self.family = family_of(self.core.config)
        if processor.tokenizer.pad_token is None:
            processor.tokenizer.pad_token = processor.tokenizer.eos_token

    @classmethod
    def load(
        cls,
        source: str | Path,
        adapter: str | Path | None = None,
        device: str | None = None,
        quantize: str = "",
        pixels: int = 0,
        batch_size: int = BATCH_SIZE,
    ) -> VLM:
        """Load a model and, where given, its LoRA adapter. float32 on a CPU, else the checkpoint's
        own type.

        ``quantize`` "nf4": the linear layers but the last in 4-bit NF4 with double quantisation
        (Dettmers et al. 2023, arXiv:2305.14314), as in the paper's published code. ``pixels``: see
        `limit_pixels`. Raises InputError when a local folder holds no model or no adapter, for a hub
        id that cannot be had, and where 4 bits cannot be had here.
        """
        from transformers import AutoModelForImageTextToText, AutoProcessor
        from transformers.utils import logging

        logging.disable_progress_bar()

        source = str(source)
        read_config(source)
        with loading(source):  # what is small, before gigabytes are fetched
            processor = AutoProcessor.from_pretrained(source)
        if pixels:
            limit_pixels(processor.image_processor, pixels)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if device == "cpu":
            keep_freed_memory()
        dtype = torch.float32 if device == "cpu" else "auto"
        options = _four_bits(quantize, device) if quantize else {}
        with loading(source):
            model = AutoModelForImageTextToText.from_pretrained(source, dtype=dtype, **options)
        if adapter is not None:
            from peft import PeftModel

            if not (Path(adapter) / "adapter_config.json").is_file():
                raise InputError(
                    f"{adapter} holds no adapter_config.json; name the folder that tuning wrote"
                )
            with quiet_peft():
                model = PeftModel.from_pretrained(model, str(adapter))
        tuned = Path(adapter).name if adapter else ""
        return cls(model.to(device), processor, Path(source).name, tuned, batch_size)

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
            images=[[image] for image in images],
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )
        return {name: value.to(self.device) for name, value in batch.items()}

    @torch.inference_mode()
    def visual_tokens(self, images: Sequence[Image.Image]) -> list[torch.Tensor]:
        """Per image what the visual encoder hands to the language model: (tokens, width)."""
        batch = self.processor.image_processor(
            images=[[image] for image in images], return_tensors="pt"
        )
        return list(self._see(batch.to(self.device)).pooler_output)

    def _see(self, inputs):
        """The visual encoder's output; its ``pooler_output`` has (tokens, width) for each image."""
        return self.core.get_image_features(**image_inputs(inputs), return_dict=True)

    def features(self, images: Sequence[Image.Image]) -> np.ndarray:
        """(n, width) float32: the mean over an image's visual tokens, the input of the distilled
        head."""
        return np.concatenate([_pool(self.visual_tokens(some)) for some in self._batches(images)])

    # ---------------------------------------------------------------------------------------- answering

    def generate(
        self, images: Sequence[Image.Image], prompt: str, max_new_tokens: int = 48
    ) -> list[str]:
        """The answer to one question about each image, by greedy decoding."""
        parts = (self._generate(some, prompt, max_new_tokens) for some in self._batches(images))
        return [text for texts in parts for text in texts]

    @torch.inference_mode()
    def _generate(self, images: Sequence[Image.Image], prompt: str, max_new_tokens: int):
        inputs = self.inputs(images, prompt)
        written = self.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        fresh = written[:, inputs["input_ids"].shape[1] :]
        return [
            text.strip() for text in self.processor.batch_decode(fresh, skip_special_tokens=True)
        ]

    def score(
        self, images: Sequence[Image.Image], prompt: str, answers: Sequence[str]
    ) -> np.ndarray:
        """(n, K) log-likelihood (nats) of each answer, with the token that ends it, given image and
        prompt.

        One pass: after the prompt and the beginning that all answers share come the K endings side
        by side, each at the position where it would stand alone and blind to the others (a tree in
        the attention mask). The result is that of scoring each answer by itself.
        """
        return np.concatenate(
            [self._score(some, prompt, answers)[0] for some in self._batches(images)]
        )

    def score_with_features(
        self, images: Sequence[Image.Image], prompt: str, answers: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """`score` and `features` from one and the same pass of the visual encoder."""
        found = []
        for some in self._batches(images):
            scores, visual_tokens = self._score(some, prompt, answers)
            found.append((scores, _pool(visual_tokens)))
        scores, features = zip(*found, strict=True)
        return np.concatenate(scores), np.concatenate(features)

    @torch.inference_mode()
    def _score(
        self, images: Sequence[Image.Image], prompt: str, answers: Sequence[str]
    ) -> tuple[np.ndarray, Sequence[torch.Tensor]]:
        """What `score` gives, and each image's visual tokens."""
        end = self.processor.tokenizer.eos_token_id
        prefix, rows = self._shared(answers)
        endings = [row[len(prefix) :] for row in rows]
        count, longest = len(rows), max(map(len, endings))
        tokens = torch.tensor([e + [end] * (longest - len(e)) for e in endings], device=self.device)
        real = torch.tensor([[k < len(e) for k in range(longest)] for e in endings])
        trunk = _append(self.inputs(images, prompt), prefix)
        seen = self._see(trunk)
        rotary = positions(self.core, trunk)
        steps = torch.arange(1, longest, device=self.device).repeat(count)
        further = (rotary.amax((0, 2))[:, None] + steps).expand(len(rotary), -1, -1)
        places = torch.cat([rotary, further], 2)
        whole = _append(trunk, tokens[:, :-1].flatten().tolist())
        for name in image_inputs(trunk):
            del whole[name]
        kept = len(prefix) + 1 + count * (longest - 1)
        whole["attention_mask"] = tree_mask(trunk["attention_mask"], count, longest - 1).to(
            self.model.dtype
        )
        out = self.model(
            **whole,
            mm_encoder_outputs={"image": seen},
            position_ids=places if len(places) > 1 else places[0],
            use_cache=False,
            logits_to_keep=kept,
        )
        log_p = out.logits[:, -kept:].float().log_softmax(-1)
        shared, fork, rest = log_p.split([len(prefix), 1, count * (longest - 1)], dim=1)
        total = shared.gather(2, _row(prefix, len(images), self.device)[..., None]).sum((1, 2))
        total = total[:, None] + fork[:, 0, tokens[:, 0]]
        rest = rest.unflatten(1, (count, longest - 1))
        after = rest.gather(3, tokens[:, 1:, None].expand(len(images), -1, -1, -1))[..., 0]
        total = total + (after * real[:, 1:].to(self.device)).sum(2)
        return total.double().cpu().numpy(), seen.pooler_output

    @torch.inference_mode()
    def attention(self, image: Image.Image, prompt: str, answers: Sequence[str]) -> np.ndarray:
        """(layers, heads, rows, columns): attention to each visual token of the token after which
        the ``answers`` part, the one that decides between them. What is missing to 1 goes to the
        text."""
        inputs = _append(self.inputs([image], prompt), self._shared(answers)[0])
        before = self.core.config._attn_implementation
        self.core.set_attn_implementation("eager")  # the others do not give their weights
        try:
            layers = self.model(**inputs, output_attentions=True, use_cache=False).attentions
        finally:
            self.core.set_attn_implementation(before)
        visual = inputs["input_ids"][0] == self.core.config.image_token_id
        rows, columns, first = self.family.grid(self.core.config, inputs, int(visual.sum()))
        weights = torch.stack([layer[0, :, -1, visual] for layer in layers])[..., first:]
        return weights.unflatten(2, (rows, columns)).float().cpu().numpy()

    def area(self, image: Image.Image) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of what the model sees of an image, in shares of its width and
        height; what `attention` lies over."""
        return self.family.area(self.processor, image.size)

    def _shared(self, answers: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """The tokens with which all answers begin, and those of each, with the one that ends it."""
        tokenizer = self.processor.tokenizer
        rows = [
            [*tokenizer(answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
            for answer in answers
        ]
        return common_prefix(rows), rows

    # ---------------------------------------------------------------------------------------- predicting

    def predict(
        self,
        dataset: ImageDataset,
        method: str = "score",
        prompt: str | None = None,
        max_new_tokens: int = 48,
        progress: bool = True,
    ) -> Predictions:
        """The VLM's predictions for a data set; ``prompt`` defaults to the categorical one.
        Several processes share the images.

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
        for images in self._opened(dataset, f"{self.name} {method}", progress):
            if method == "score":
                scores = self.score(images, prompt, expected)
                rows.append(np.exp(scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)))
                answers += [expected[k] for k in scores.argmax(1)]
            else:
                written = self.generate(images, prompt, max_new_tokens)
                parsed = [parse_answer(text, label_set) for text in written]
                rows.append(np.stack([_one_hot(label, label_set) for label in parsed]))
                answers += written
        probabilities, answers = np.stack(gather([p for row in rows for p in row])), gather(answers)
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

    def dataset_features(self, dataset: ImageDataset, progress: bool = True) -> np.ndarray:
        """(n, width) float32 features of every image, in the data set's order."""
        parts = self._opened(dataset, f"{self.name} features", progress)
        return np.stack(gather([row for images in parts for row in self.features(images)]))

    def reasons(
        self, images: Sequence[Image.Image], max_new_tokens: int = REASON_TOKENS
    ) -> list[str]:
        """Why, in the model's words: its answers to the reasoning prompt."""
        return self.generate(images, REASONING_PROMPT, max_new_tokens)

    def _batches(self, items: Sequence[T]) -> list[Sequence[T]]:
        size = self.batch_size
        return [items[start : start + size] for start in range(0, len(items), size)]

    def _opened(
        self, dataset: ImageDataset, title: str, progress: bool
    ) -> Iterator[list[Image.Image]]:
        batches = self._batches(part(list(dataset.ids)))
        quiet = not (progress and first())
        for ids in tqdm(batches, desc=title, unit="batch", disable=quiet, leave=False):
            yield [dataset.open(image_id) for image_id in ids]


def _pool(visual_tokens: Sequence[torch.Tensor]) -> np.ndarray:
    """(n, width) float32: the mean of each image's visual tokens (tokens, width)."""
    return np.stack([tokens.float().mean(0).cpu().numpy() for tokens in visual_tokens])


def _row(tokens: list[int], count: int, device) -> torch.Tensor:
    return torch.tensor(tokens, dtype=torch.long, device=device).expand(count, -1)


def _append(inputs: dict[str, torch.Tensor], tokens: list[int]) -> dict[str, torch.Tensor]:
    """The inputs with the same text tokens after every row."""
    ids = inputs["input_ids"]
    more = _row(tokens, len(ids), ids.device)
    longer = inputs | {
        "input_ids": torch.cat([ids, more], 1),
        "attention_mask": torch.cat([inputs["attention_mask"], torch.ones_like(more)], 1),
    }
    if (types := inputs.get("mm_token_type_ids")) is not None:
        longer["mm_token_type_ids"] = torch.cat(
            [types, torch.zeros_like(more, dtype=types.dtype)], 1
        )
    return longer


def _one_hot(label: str | None, label_set: LabelSet) -> np.ndarray:
    if label is None:
        return np.full(len(label_set), 1 / len(label_set))
    return np.eye(len(label_set))[label_set.index(label)]
