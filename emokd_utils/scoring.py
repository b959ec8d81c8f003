"""Label scoring: the prompt once, then all answers from there (lesson 3).

The prompt and the beginning that all answers share (the trunk) pass the model and leave their cache;
repeated, it is where the K endings (the branches) go on, each as if scored by itself.
"""

import os.path
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from .families import TEXT_INPUTS, answer_value, positions


def common_prefix(rows: Sequence[Sequence[int]]) -> list[int]:
    """The longest beginning that all token rows share, leaving at least one token of each."""
    return os.path.commonprefix([row[:-1] for row in rows])  # of lists as of names


def append_tokens(inputs: dict[str, torch.Tensor], tokens: list[int]) -> dict[str, torch.Tensor]:
    """A model's inputs with the same tokens of an answer after every row."""
    ids = inputs["input_ids"]  # (n, L)
    added = torch.tensor(tokens, dtype=torch.long, device=ids.device).expand(len(ids), -1)
    longer = [
        (
            name,
            inputs[name],
            added if name == "input_ids" else added * 0 + answer_value(inputs, name),
        )
        for name in TEXT_INPUTS
        if name in inputs
    ]
    return inputs | {name: torch.cat([start, end.to(start)], 1) for name, start, end in longer}


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
        trunk = append_tokens(inputs, self.prefix)  # input_ids (n, T)
        places, kept = positions(model, trunk), len(self.prefix) + 1
        cache = DynamicCache(config=model.config.get_text_config(decoder=True))
        logits = model(
            **{name: trunk[name] for name in TEXT_INPUTS if name in trunk},
            position_ids=places if len(places) > 1 else places[0],
            mm_encoder_outputs={"image": encoded},
            cache=cache,
            use_cache=True,
            logits_to_keep=kept,
        ).logits
        log_p = logits[:, -kept:].float().log_softmax(-1)  # (n, P + 1, vocabulary)
        prefix = torch.tensor(self.prefix, dtype=torch.long, device=log_p.device)
        shared = log_p[:, :-1].gather(2, prefix.expand(len(log_p), -1)[..., None])  # (n, P, 1)
        total = shared.sum((1, 2))[:, None] + log_p[:, -1, self.endings[:, 0]]  # (n, K)
        if self.endings.shape[1] == 1:
            return total
        rest = self._endings(model, cache, trunk["attention_mask"], places)
        rest = rest.unflatten(0, total.shape)  # (n, K, S - 1, vocabulary)
        after = self.endings[:, 1:, None].expand(len(rest), -1, -1, -1)  # (n, K, S - 1, 1)
        return total + (rest.gather(3, after)[..., 0] * self.real[:, 1:]).sum(2)

    def _endings(self, model, cache, trunk: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """(n * K, S - 1, vocabulary): what follows each token of each ending but its last, after which
        nothing is asked. The cache of the trunk, whose mask is (n, T), becomes one for each answer."""
        n, branches = len(trunk), self.endings[:, :-1]  # (K, S - 1)
        rows = torch.arange(n, device=trunk.device).repeat_interleave(len(branches))
        cache.reorder_cache(rows)
        steps = torch.arange(1, branches.shape[1] + 1, device=trunk.device)
        further = (places.amax((0, 2))[:, None] + steps)[rows]  # (n * K, S - 1)
        logits = model(
            input_ids=branches.repeat(n, 1),
            attention_mask=torch.cat([trunk[rows], torch.ones_like(further)], 1),
            position_ids=further.expand(len(places), -1, -1) if len(places) > 1 else further,
            cache=cache,
            use_cache=True,
        ).logits
        return logits.float().log_softmax(-1)
