"""Checks of lesson 5: the low-rank layer, its size, merging it, the learning rate's course."""

import math
from operator import floordiv, mul, truediv

import torch

from ..checks import Exercise, calls, variants


def _case(alpha: float, outputs: int, inputs: int, rank: int) -> tuple:
    """x (rank + 1, inputs), W (outputs, inputs), A (rank, inputs), B (outputs, rank), alpha."""
    draw = torch.Generator().manual_seed(rank)
    shapes = ((rank + 1, inputs), (outputs, inputs), (rank, inputs), (outputs, rank))
    return (*(torch.randint(-3, 4, shape, generator=draw).float() for shape in shapes), alpha)


_CASES = [_case(3.0, 1, 2, 2), _case(16.0, 6, 6, 2), _case(10.0, 6, 6, 3)]
_CASES += [_case(12.0, 4, 7, 3), _case(5.0, 2, 3, 2)]


@variants
def _merged(w, a, b, alpha, *, scale=truediv, rank=len, base=1, add=torch.matmul):
    factor = scale(alpha, rank(a))
    return (factor if base is None else base) * w + factor * add(b, a)


@variants
def _layer(x, *weights, **wrong):
    return x @ _merged(**wrong)(*weights).T


_SCALED = {
    "alpha without the rank. What does it stand over?": {"rank": lambda a: 1},
    "the division drops what is behind the point. 5 / 2 is 2.5.": {"scale": floordiv},
    "alpha times the rank. Which is below the line?": {"scale": mul},
    "the scaling is upside down. What is below?": {"scale": lambda alpha, rank: rank / alpha},
    "the scaling is squared. Is it on B and A?": {"scale": lambda alpha, rank: (alpha / rank) ** 2},
    "alpha is divided by the rank's root. Where is one?": {"rank": lambda a: len(a) ** 0.5},
    "the rank is read off the wrong side of A. Which is short?": {"rank": lambda a: a.shape[1]},
    "the rank is typed in. Which shape tells it?": {"rank": lambda a: 2},
    "W is counted twice. With B = 0 nothing should change.": {"base": 2},
    "W is scaled as well. With B = 0 nothing should change.": {"base": None},
    "the correction is taken away. It is to be added.": {"add": lambda b, a: -(b @ a)},
    "the correction is transposed. Note the shapes.": {"add": lambda b, a: (b @ a).T},
}
_LAYER = {text: _layer(**wrong) for text, wrong in _SCALED.items()}
_LAYER["W is used without its transpose. A layer keeps W as (outputs, inputs). What of rows x?"] = (
    lambda x, w, a, b, alpha: x @ w + alpha / len(a) * x @ (b @ a).T
)

_SIZES = ((256, 4, 2, 4, 8), (3584, 28, 4, 28, 8), (64, 8, 2, 3, 4))


def _grouped(width, heads, groups):
    return width // heads * groups


@variants
def _count(*sizes, keys=_grouped, square=2, narrow=2, wide=1, tall=1):
    width, heads, groups, layers, rank = sizes
    outputs = square * width + narrow * keys(width, heads, groups)
    return layers * rank * (wide * (square + narrow) * width + tall * outputs)


_SIZE = {
    "keys and values are taken for square. Are they?": _count(keys=lambda width, *heads: width),
    "the width is divided by key-value heads. By all?": _count(keys=lambda w, h, g: w // g),
    "heads are taken for widths. How wide is 1?": _count(keys=lambda width, heads, groups: groups),
    "two of the four matrices are missing. Which get an adapter?": _count(square=1, narrow=1),
    "the output projection is missing. What comes out of the attention?": _count(square=1),
    "A is counted without B. Each matrix gets two small ones.": _count(tall=0),
    "B is counted without A. Each matrix gets two small ones.": _count(wide=0),
    "the output projection is taken for narrow. What comes out of it?": _count(square=1, narrow=3),
    "keys or values are missing. Which four get an adapter?": _count(narrow=1),
}

_MERGE_PROBE = calls(*[case[1:] for case in _CASES], keep=0)
_MERGE = {text: _merged(**wrong) for text, wrong in _SCALED.items()}

_STEPS = [(step, 200, 20, 2.0) for step in (0, 5, 19, 20, 65, 110, 170, 200)]
_STEPS_PROBE = calls(
    *_STEPS,
    (30, 90, 30, 3.0),
    places="at step 0/in the warm-up/in the warm-up/at the peak/on the way down/half-way down/"
    "on the way down/at the end/at the peak",
)


def _wave(share, lift=1, turn=math.pi, height=1):
    return height * (lift + math.cos(turn * share)) / (lift + 1)


@variants
def _rate(step, steps, warmup, peak, *, course=_wave, rise=float, lead=1, **wave):
    if step < warmup:
        return peak * rise(step / warmup)
    return peak * course((step - lead * warmup) / (steps - lead * warmup), **wave)


_RATES = {
    "the cosine counts from step 0. When should the rate be at its peak?": _rate(lead=0),
    "the cosine is not lifted. How is one brought to 1 and 0?": _rate(lift=0),
    "a quarter of a wave. How flat should its end be?": _rate(lift=0, turn=math.pi / 2),
    "the cosine is lifted and not halved. How high is the peak?": _rate(height=2),
    "a whole wave. At the end the rate should be 0.": _rate(turn=2 * math.pi),
    "the angle is in degrees. In which unit does Python's cosine want it?": _rate(turn=180),
}

EXERCISES = (
    Exercise("5.1", "The low-rank layer", calls(*_CASES), _layer(), _LAYER),
    Exercise("5.2", "The size of an adapter", calls(*_SIZES), _count(), _SIZE),
    Exercise("5.3", "Merging the adapter", _MERGE_PROBE, _merged(), _MERGE),
    Exercise("5.4", "The course of the learning rate", _STEPS_PROBE, _rate(), _RATES),
)
