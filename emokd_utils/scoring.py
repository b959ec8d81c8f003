"""Label scoring in one pass: all answers side by side, as a tree in the attention mask (lesson 3). After
the prompt and the beginning that all answers share (the trunk) come the K endings (the branches), each
where it would stand alone and blind to the others, as if scored by itself."""

import os.path
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence

from .families import image_inputs


def common_prefix(rows: Sequence[Sequence[int]]) -> list[int]:
    """The longest beginning that all token rows share, leaving at least one token of each."""
    return os.path.commonprefix([row[:-1] for row in rows])  # of lists as of names


def tree_mask(trunk: torch.Tensor, branches: int, length: int) -> torch.Tensor:
    """(n, 1, L, L) additive attention mask, 0 where a token sees another, else very low, for a trunk
    (n, T) of 0 (padding) and 1 and ``branches`` of ``length`` tokens each; L = T + branches * length.
    Tokens see what is before them in the trunk and in their own branch; padding sees itself."""
    width, device = trunk.shape[1], trunk.device
    total = width + branches * length
    place = torch.arange(total, device=device)
    branch = torch.where(place < width, -1, (place - width) // max(length, 1))
    related = (branch[None, :] == -1) | (branch[None, :] == branch[:, None])
    related &= place[None, :] <= place[:, None]  # (L, L)
    real = torch.cat([trunk.bool(), trunk.new_ones(len(trunk), total - width).bool()], 1)  # (n, L)
    sees = (related & real[:, None, :]) | torch.eye(total, dtype=torch.bool, device=device)
    return torch.where(sees, 0.0, torch.finfo(torch.float16).min)[:, None]  # (n, 1, L, L)


def append_tokens(inputs: dict[str, torch.Tensor], tokens: list[int]) -> dict[str, torch.Tensor]:
    """A model's inputs with the same text tokens after every row."""
    ids = inputs["input_ids"]  # (n, L)
    added = torch.tensor(tokens, dtype=torch.long, device=ids.device).expand(len(ids), -1)
    ends = {"input_ids": added, "attention_mask": added * 0 + 1, "mm_token_type_ids": added * 0}
    longer = [(name, inputs[name], end) for name, end in ends.items() if name in inputs]
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

    @property
    def branches(self) -> torch.Tensor:
        """int64 (K, S - 1): the endings but for their last token, after which nothing is asked."""
        return self.endings[:, :-1]

    @property
    def kept(self) -> int:
        """Of how many tokens, counted from the last, the logits are needed: P + 1 + K (S - 1)."""
        return len(self.prefix) + 1 + self.branches.numel()

    def inputs(
        self, trunk: dict[str, torch.Tensor], rotary: torch.Tensor, dtype: torch.dtype
    ) -> dict[str, torch.Tensor]:
        """The model's inputs but for the images': the branches after every row of a trunk (n, T) that
        ends with `prefix`. rotary: its positions (r, n, T). dtype: the model's."""
        count, length = self.branches.shape
        steps = torch.arange(1, length + 1, device=rotary.device).repeat(count)  # (K (S - 1),)
        further = rotary.amax((0, 2))[:, None] + steps  # (n, K (S - 1))
        places = torch.cat([rotary, further.expand(len(rotary), -1, -1)], 2)  # (r, n, L)
        tree = append_tokens(trunk, self.branches.flatten().tolist())
        text = {name: value for name, value in tree.items() if name not in image_inputs(trunk)}
        return text | {
            "attention_mask": tree_mask(trunk["attention_mask"], count, length).to(dtype),
            "position_ids": places if len(places) > 1 else places[0],
        }

    def log_likelihood(self, logits: torch.Tensor) -> torch.Tensor:
        """(n, K) in nats, from the logits (n, kept, vocabulary) of the last `kept` tokens."""
        log_p = logits.float().log_softmax(-1)
        shared, fork, rest = log_p.split([len(self.prefix), 1, self.branches.numel()], dim=1)
        prefix = torch.tensor(self.prefix, dtype=torch.long, device=logits.device)
        total = shared.gather(2, prefix.expand(len(logits), -1)[..., None]).sum((1, 2))  # (n,)
        total = total[:, None] + fork[:, 0, self.endings[:, 0]]  # (n, K)
        rest = rest.unflatten(1, self.branches.shape)  # (n, K, S - 1, vocabulary)
        after = self.endings[:, 1:, None].expand(len(logits), -1, -1, -1)
        return total + (rest.gather(3, after)[..., 0] * self.real[:, 1:]).sum(2)
