"""Label scoring: the prompt once, then all answers from there (lesson 3).

The prompt and the beginning that all answers share (the trunk) pass the model and leave their cache,
from which the K endings (the branches) go on, each as if scored by itself: beside one another, blind
to each other by a mask, or where a model takes no such mask, each with a copy of the cache."""

import os.path
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from .families import TEXT_INPUTS, answer_part, positions, sees_all


def common_prefix(rows: Sequence[Sequence[int]]) -> list[int]:
    """The longest beginning that all token rows share, leaving at least one token of each."""
    return os.path.commonprefix([row[:-1] for row in rows])  # of lists as of names


def append_tokens(inputs: dict[str, torch.Tensor], tokens: list[int]) -> dict[str, torch.Tensor]:
    """A model's inputs with the same tokens of an answer after every row."""
    ids = inputs["input_ids"]  # (n, L)
    added = torch.tensor(tokens, dtype=torch.long, device=ids.device).expand(len(ids), -1)
    ends = {name: answer_part(inputs, name, added) for name in TEXT_INPUTS if name in inputs}
    return inputs | {name: torch.cat([inputs[name], end], 1) for name, end in ends.items()}


@dataclass(frozen=True, eq=False)
class AnswerTree:
    """K answers, each with the token that ends it: the P tokens with which all begin, what follows in
    each, int64 (K, S), padded, and where that is real, bool (K, S)."""

    prefix: list[int]
    endings: torch.Tensor
    real: torch.Tensor

    @classmethod
    def of(cls, answers: Sequence[str], tokenizer, device: torch.device) -> "AnswerTree":
        """The tree of these answers as a tokenizer cuts them."""
        end = tokenizer.eos_token_id
        rows = [[*tokenizer(a, add_special_tokens=False)["input_ids"], end] for a in answers]
        prefix = common_prefix(rows)
        endings = [torch.tensor(row[len(prefix) :]) for row in rows]
        padded = pad_sequence(endings, batch_first=True, padding_value=-1)
        real = padded >= 0
        return cls(prefix, padded.where(real, end).to(device), real.to(device))

    def log_likelihood(self, model, inputs: dict[str, torch.Tensor], encoded) -> torch.Tensor:
        """(n, K) in nats: each answer's after each prompt of a processor's output, whose images are
        `families.encode`d."""
        trunk, kept = append_tokens(inputs, self.prefix), len(self.prefix) + 1
        places = positions(model, trunk)  # (r, n, T)
        cache = DynamicCache(config=model.config.get_text_config(decoder=True))

        def log_p(places: torch.Tensor, **more) -> torch.Tensor:
            places = places if len(places) > 1 else places[0]
            out = model(**more, position_ids=places, cache=cache, use_cache=True)
            return out.logits.float().log_softmax(-1)

        text = {name: trunk[name] for name in TEXT_INPUTS if name in trunk}
        text |= {"mm_encoder_outputs": {"image": encoded}, "logits_to_keep": kept}
        start = log_p(places, **text)[:, -kept:]  # (n, P + 1, vocabulary)
        prefix = torch.tensor(self.prefix, dtype=torch.long, device=start.device)
        shared = start[:, :-1].gather(2, prefix.expand(len(start), -1)[..., None])  # (n, P, 1)
        total = shared.sum((1, 2))[:, None] + start[:, -1, self.endings[:, 0]]  # (n, K)
        branches = self.endings[:, :-1]  # (K, S - 1): after the last nothing is asked
        if not branches.numel():
            return total
        (n, k), steps = total.shape, torch.arange(1, self.endings.shape[1], device=total.device)
        further = places.amax((0, 2))[:, None] + steps  # (n, S - 1)
        if sees_all(model):  # one row an image: a branch sees the trunk and its own beginning
            tokens, further = branches.flatten().expand(n, -1), further.repeat(1, k)
            own = torch.block_diag(*[steps.new_ones(len(steps), len(steps)).tril()] * k).bool()
            seen = trunk["attention_mask"].bool()[:, None].expand(-1, len(own), -1)
            mask = torch.cat([seen, own.expand(n, -1, -1)], 2)[:, None]  # (n, 1, K (S - 1), ...)
        else:  # one row an answer
            tokens, rows = branches.repeat(n, 1), torch.arange(n, device=total.device)
            rows, further = (part.repeat_interleave(k, 0) for part in (rows, further))
            cache.reorder_cache(rows)
            mask = torch.cat([trunk["attention_mask"][rows], torch.ones_like(further)], 1)
        rest = log_p(further.expand(len(places), -1, -1), input_ids=tokens, attention_mask=mask)
        after = self.endings[:, 1:].expand(n, -1, -1)[..., None]  # (n, K, S - 1, 1)
        rest = rest.reshape(n, k, len(steps), -1).gather(3, after)[..., 0]
        return total + (rest * self.real[:, 1:]).sum(2)
