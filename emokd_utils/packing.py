"""Training rows: the instructions of one image behind one pass of it (lesson 5).

Instructions of one image begin alike (the trunk: the chat up to the image's last token) and then
part (the branches). In one row each branch is blind to the others and stands where it would stand
alone, so that the gradient is that of separate rows, while the trunk passes the model once. Tokens
that are learnt from stand last, so that the model's output is computed for them alone. The
visual encoder is frozen: what it makes of an image is kept."""

from collections import defaultdict
from collections.abc import Sequence
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
    tokens_of,
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
        self.kept = {}  # group -> its rows and its encoded image

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
        made = self._make([group for group in groups if group not in self.kept])
        known = [self.kept.get(group) or made[group] for group in groups]
        images = [encoded for rows, encoded in known for _ in rows]
        batch = pad([row for rows, _ in known for row in rows], self.vlm.processor.tokenizer)
        return batch | {"mm_encoder_outputs": {"image": join(images)}}

    def _make(self, groups: Sequence[tuple[Instruction, ...]]) -> dict:
        opened = {group: self.dataset.open(group[0].image_id) for group in groups}
        sizes = defaultdict(list)  # images of one size have as many visual tokens each
        for group, image in opened.items():
            sizes[image.size].append(group)
        made = {}
        for alike in sizes.values():
            encoded = self._encoded([group[0] for group in alike], [opened[g] for g in alike])
            for group, own in zip(alike, encoded, strict=True):
                rows = [single_row(self.vlm, opened[group], item) for item in group]
                made[group] = [pack(rows)] if self.share else rows, own
                self._keep(group, made[group])
        return made

    @torch.no_grad()
    def _encoded(self, items: Sequence[Instruction], images: Sequence[Image.Image]) -> list:
        core, inputs = self.vlm.core, self.vlm.inputs(images, items[0].prompt)
        training = core.training
        core.eval()
        with autocast(self.vlm.device):
            encoded = encode(core, inputs)
        core.train(training)
        each = separate(send_to_device(encoded, "cpu"), len(images))
        try:
            tokens_of(each[0], [int((inputs["input_ids"][0] == core.config.image_token_id).sum())])
        except InputError as error:
            raise InputError(f"{items[0].image_id}: {error}") from error
        return each

    def _keep(self, group: tuple[Instruction, ...], made: tuple[list[Row], object]) -> None:
        rows, encoded = made
        tensors = [*tensors_in(encoded.to_tuple())]
        tensors += [t for row in rows for t in (*row.text.values(), row.places, row.next_ids)]
        size = sum(tensor.nbytes for tensor in tensors)
        if size <= self.room:
            self.kept[group], self.room = made, self.room - size
