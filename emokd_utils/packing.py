"""Training rows: the instructions of one image behind one pass of it (lesson 5).

Instructions of one image begin alike (the trunk: the chat up to the image's last token) and then
part (the branches). In one row each branch is blind to the others and stands where it would stand
alone, so that the gradient is that of separate rows, while the trunk passes the model once. Tokens
that are learnt from stand last, so that the model's output is computed for them alone. The
visual encoder is frozen: what it makes of an image is kept."""

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from os.path import commonprefix  # of lists as of names

import torch
import torch.nn.functional as F
from accelerate.utils import send_to_device
from PIL import Image

from .data import ImageDataset
from .errors import InputError
from .families import (
    TEXT_INPUTS,
    encode,
    join,
    positions,
    sees_all,
    separate,
    tensors_in,
)
from .instructions import IGNORED, Instruction, questions
from .scoring import append_tokens
from .training import autocast
from .vlm import VLM

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Row:
    """Tokens of one row. text: (L,) for each of TEXT_INPUTS but the mask. places: rotary positions
    (r, L). next_ids: what each token is to foretell, (L,), or IGNORED. branch: 0 in the trunk, else
    1, 2, ... (L,). order: the token's number, counted along its own branch (L,)."""

    text: Tensors
    places: torch.Tensor
    next_ids: torch.Tensor
    branch: torch.Tensor
    order: torch.Tensor

    def take(self, keep: torch.Tensor) -> "Row":
        """The tokens at these indices."""
        text = {name: value[keep] for name, value in self.text.items()}
        rest = self.next_ids[keep], self.branch[keep], self.order[keep]
        return Row(text, self.places[:, keep], *rest)

    def sees(self) -> torch.Tensor:
        """bool (L, L): which tokens each one sees."""
        own = (self.branch == 0) | (self.branch == self.branch[:, None])
        return own & (self.order <= self.order[:, None])


def single_row(vlm: VLM, image: Image.Image, item: Instruction) -> Row:
    """One instruction: the question, and the answer, which is learnt with the token that ends it."""
    tokenizer = vlm.processor.tokenizer
    asked = dict(questions(vlm.processor, [item.prompt], [image]))
    ids = tokenizer(item.answer, add_special_tokens=False)["input_ids"]
    learnt = torch.tensor([[*ids, tokenizer.eos_token_id]])  # (1, a)
    whole = append_tokens(asked, learnt[0, :-1].tolist())  # after the last nothing is asked
    places = positions(vlm.core, whole)[:, 0]  # (r, L)
    length = places.shape[1]
    next_ids = torch.full((length,), IGNORED)
    next_ids[-learnt.shape[1] :] = learnt[0]
    text = {name: whole[name][0] for name in TEXT_INPUTS if name in whole}
    del text["attention_mask"]
    return Row(text, places, next_ids, torch.zeros_like(next_ids), torch.arange(length))


def pack(rows: Sequence[Row]) -> Row:
    """Rows of one image as one: their common beginning once, then what follows in each."""
    ids = [row.text["input_ids"].tolist() for row in rows]
    shared = len(commonprefix(ids))
    parts = [rows[0].take(torch.arange(shared))]
    for number, row in enumerate(rows, start=1):
        part = row.take(torch.arange(shared, len(row.order)))
        part.branch.fill_(number)
        parts.append(part)
    text = {name: torch.cat([part.text[name] for part in parts]) for name in rows[0].text}
    places = torch.cat([part.places for part in parts], 1)
    rest = ("next_ids", "branch", "order")
    whole = Row(text, places, *(torch.cat([getattr(p, name) for p in parts]) for name in rest))
    return whole.take((whole.next_ids != IGNORED).int().argsort(stable=True))


def pad(rows: Sequence[Row], tokenizer) -> Tensors:
    """A model's inputs for rows, padded on the left, with ``next_ids`` (n, A) of the last A tokens,
    all that are learnt from. attention_mask: (n, L); bool (n, 1, L, L) where rows have branches."""
    longest = max(len(row.order) for row in rows)

    def fill(value: torch.Tensor, filler: int) -> torch.Tensor:
        return F.pad(value, (longest - value.shape[-1], 0), value=filler)

    fillers = {"input_ids": tokenizer.pad_token_id}
    batch = {
        name: torch.stack([fill(row.text[name], fillers.get(name, 0)) for row in rows])
        for name in rows[0].text
    }
    places = torch.stack([fill(row.places, 0) for row in rows], 1)  # (r, n, L)
    batch["position_ids"] = places if len(places) > 1 else places[0]
    if any(row.branch.any() for row in rows):
        mask = torch.eye(longest, dtype=torch.bool).repeat(len(rows), 1, 1)  # padding sees itself
        for own, row in zip(mask, rows, strict=True):
            own[-len(row.order) :, -len(row.order) :] |= row.sees()
        batch["attention_mask"] = mask[:, None]
    else:
        batch["attention_mask"] = torch.stack([fill(torch.ones_like(row.order), 0) for row in rows])
    next_ids = torch.stack([fill(row.next_ids, IGNORED) for row in rows])
    most = max(int((row.next_ids != IGNORED).sum()) for row in rows)
    return batch | {"next_ids": next_ids[:, -most:]}


def answer_loss(model, batch: Tensors) -> torch.Tensor:
    """The mean over a batch's tokens that are learnt, in nats."""
    next_ids = batch["next_ids"]  # (n, A)
    inputs = {name: value for name, value in batch.items() if name != "next_ids"}
    logits = model(**inputs, logits_to_keep=next_ids.shape[1], use_cache=False).logits
    learnt = next_ids != IGNORED
    logits = logits[:, -next_ids.shape[1] :][learnt]  # (tokens, vocabulary)
    return F.cross_entropy(logits.float(), next_ids[learnt])


def by_image(instructions: Sequence[Instruction], most: int) -> list[tuple[Instruction, ...]]:
    """Groups of at most ``most`` instructions about one image each."""
    images = defaultdict(list)
    for item in instructions:
        images[item.image_id].append(item)
    size = min(most, max(map(len, images.values())))
    return [
        tuple(items[start : start + size])
        for items in images.values()
        for start in range(0, len(items), size)
    ]


class PackingCollator:
    """A training batch of groups of instructions, those of a group about one image, and in one row if
    `share`. Rows and encoded images are kept up to ``megabytes`` in all, and made again beyond.
    InputError for an image that the model and its processor count otherwise."""

    def __init__(self, vlm: VLM, dataset: ImageDataset, megabytes: float, share: bool = False):
        self.vlm, self.dataset, self.share, self.room = vlm, dataset, share, 1e6 * megabytes
        self.kept, self.rows = {}, {}  # image id -> the encoded image, group -> its rows

    @torch.no_grad()
    def is_exact(self, group: tuple[Instruction, ...]) -> bool:
        """Whether the instructions of a group have the same loss in one row as in rows of their own:
        not where layers have a window or a memory, or a prompt's tokens see later ones."""
        if len(group) == 1 or not sees_all(self.vlm.core):
            return False
        core, ways = self.vlm.core, (False, True)
        batches = [PackingCollator(self.vlm, self.dataset, 0, way)([group]) for way in ways]
        visual = [(batch["input_ids"] == core.config.image_token_id).sum() for batch in batches]
        if visual[0] != len(group) * visual[1]:  # a chat in which the question comes first
            return False
        losses = [answer_loss(core, send_to_device(batch, self.vlm.device)) for batch in batches]
        tolerance = torch.finfo(core.dtype).eps ** 0.5
        return bool((losses[0] - losses[1]).abs() <= tolerance)

    def __call__(self, groups: Sequence[tuple[Instruction, ...]]) -> dict:
        """The inputs of `answer_loss`."""
        opened = functools.cache(self.dataset.open)  # each image of the batch once
        encoded = self._encoded(dict.fromkeys(group[0].image_id for group in groups), opened)
        rows = [(group[0].image_id, row) for group in groups for row in self._rows(group, opened)]
        batch = pad([row for _, row in rows], self.vlm.processor.tokenizer)
        images = join([encoded[image_id] for image_id, _ in rows])
        return batch | {"mm_encoder_outputs": {"image": images}}

    def _rows(self, group: tuple[Instruction, ...], opened: Callable) -> list[Row]:
        if group in self.rows:
            return self.rows[group]
        rows = [single_row(self.vlm, opened(item.image_id), item) for item in group]
        rows = [pack(rows)] if self.share else rows
        tensors = [[*row.text.values(), row.places, row.next_ids] for row in rows]
        self.rows |= self._fitting(group, rows, tensors)
        return rows

    def _encoded(self, image_ids: Iterable[str], opened: Callable) -> dict:
        sizes = defaultdict(list)  # images of one size have as many visual tokens each
        encoded = {}
        for image_id in image_ids:
            if image_id in self.kept:
                encoded[image_id] = self.kept[image_id]
            else:
                sizes[opened(image_id).size].append(image_id)
        for alike in sizes.values():
            for image_id, own in zip(alike, self._encode(alike, opened), strict=True):
                encoded[image_id] = own
                self.kept |= self._fitting(image_id, own, own.to_tuple())
        return encoded

    @torch.no_grad()
    def _encode(self, image_ids: Sequence[str], opened: Callable) -> list:
        core, inputs = self.vlm.core, self.vlm.inputs([*map(opened, image_ids)], "")
        training = core.training
        core.eval()
        with autocast(self.vlm.device):
            encoded = encode(core, inputs)
        core.train(training)
        each = send_to_device(separate(encoded, len(image_ids)), "cpu")
        try:
            self.vlm.tokens({"input_ids": inputs["input_ids"][:1]}, each[0])
        except InputError as error:
            raise InputError(f"{image_ids[0]}: {error}") from error
        return each

    def _fitting(self, key: object, value: object, tensors: Sequence) -> dict:
        size = sum(tensor.nbytes for tensor in tensors_in(tensors))
        if size > self.room:
            return {}
        self.room -= size
        return {key: value}
