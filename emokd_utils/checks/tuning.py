"""Checks of lesson 5: the low-rank layer, its size, merging it, the learning rate's course."""

import math
from operator import floordiv, mul, truediv

import torch

from ..checks import Exercise, calls, variants


def _case(alpha: float, outputs: int, inputs: int, rank: int) -> tuple:
    """x (4, inputs), W (outputs, inputs), A (rank, inputs), B (outputs, rank), alpha."""
    draw = torch.Generator().manual_seed(rank)
    shapes = ((4, inputs), (outputs, inputs), (rank, inputs), (outputs, rank))
    return (*(torch.randn(shape, generator=draw) for shape in shapes), alpha)


_CASES = [_case(16.0, 6, 6, 2), _case(6.0, 6, 6, 3), _case(12.0, 4, 7, 3), _case(5.0, 2, 3, 2)]


@variants
def _merged(w, a, b, alpha, *, scale=truediv, rank=len, power=1, base=1, add=torch.matmul):
    return base * w + scale(alpha, rank(a)) ** power * add(b, a)


@variants
def _layer(x, *weights, **wrong):
    return x @ _merged(**wrong)(*weights).T


_LAYER = {
    "the scaling is missing. What else stands before B A?": _layer(power=0),
    "alpha without the rank. What does it stand over?": _layer(rank=lambda a: 1),
    "the division drops what is behind the point. 5 / 2 is 2.5.": _layer(scale=floordiv),
    "alpha times the rank. Which is below the line?": _layer(scale=mul),
    "the scaling is upside down. A larger alpha should make a larger correction.": _layer(power=-1),
    "the rank is read off the wrong side of A. Which is short?": _layer(rank=lambda a: a.shape[1]),
    "the frozen matrix is missing. With B = 0 the layer should answer as before.": _layer(base=0),
    "W is scaled as well. With B = 0 nothing should change, whatever "
    "the value of alpha may be.": lambda x, w, a, b, alpha: alpha / len(a) * (x @ (w + b @ a).T),
    "A and B are exchanged. Which makes a row of x narrow?": _layer(add=lambda b, a: (b @ a).T),
    "W is used without its transpose. A layer keeps W as (outputs, inputs). "
    "What of rows x?": lambda x, w, a, b, alpha: x @ (w + alpha / len(a) * (b @ a).T),
}

_SIZES = ((256, 4, 2, 4, 8), (3584, 28, 4, 28, 8), (64, 8, 2, 3, 4))


def _grouped(width, heads, groups):
    return width // heads * groups


@variants
def _count(*sizes, keys=_grouped, square=2, narrow=2):
    width, heads, groups, layers, rank = sizes
    sides = square * 2 * width + narrow * (width + keys(width, heads, groups))
    return layers * rank * sides


def _frozen(width, heads, groups, layers, rank):
    return layers * 2 * width * (width + _grouped(width, heads, groups))


_SIZE = {
    "keys and values are taken for square. Are they?": _count(keys=lambda width, *heads: width),
    "the width is divided by the number of key-value heads. How wide is one head? "
    "And how many are there?": _count(keys=lambda width, heads, groups: width // groups),
    "heads are taken for widths. How wide is 1?": _count(keys=lambda width, heads, groups: groups),
    "two of the four matrices are missing. Which get an adapter?": _count(square=1, narrow=1),
    "the output projection is missing. What comes out of the attention?": _count(square=1),
    "A is counted without B. Each adapted matrix gets two small ones, "
    "one wide and one tall.": lambda width, heads, groups, layers, rank: layers * rank * 4 * width,
    "one layer only. How many layers are there?": lambda *sizes: _count()(*sizes) // sizes[3],
    "the whole matrices are counted. What does yours have to do with the rank?": _frozen,
    "the frozen matrices are counted as well. Only what is "
    "trained counts here, and that is little.": lambda *sizes: _frozen(*sizes) + _count()(*sizes),
}

_MERGE_PROBE = calls(*[case[1:] for case in _CASES], keep=0)
_MERGE = {
    "the scaling is missing. What stands before B A?": _merged(power=0),
    "alpha without the rank. What does it stand over?": _merged(rank=lambda a: 1),
    "the division drops what is behind the point. 5 / 2 is 2.5.": _merged(scale=floordiv),
    "alpha times the rank. Which stands below?": _merged(scale=mul),
    "the scaling is applied twice. Does it stand on both B and A?": _merged(power=2),
    "only the correction is returned. With B = 0 you should return W.": _merged(base=0),
    "the correction is transposed. Try a W not square.": _merged(add=lambda b, a: (b @ a).T),
    "the correction is taken away. So it is taken out again.": _merged(add=lambda b, a: -(b @ a)),
}

_STEPS = [(step, 200, 20, 2.0) for step in (0, 5, 19, 20, 65, 110, 170, 200)]
_STEPS.append((30, 90, 30, 3.0))


def _wave(share, lift=1, turn=math.pi):
    return (lift + math.cos(turn * share)) / (lift + 1)


@variants
def _rate(step, steps, warmup, peak, *, course=_wave, rise=float, lead=1, **wave):
    if step < warmup:
        return peak * rise(step / warmup)
    return peak * course((step - lead * warmup) / (steps - lead * warmup), **wave)


_RATES = {
    "the warm-up is missing. Look at step 0: there the rate should be 0. "
    "What is it in yours?": lambda step, steps, warmup, peak: peak * _wave(step / steps),
    "the cosine counts from step 0. When should the rate be at its peak?": _rate(lead=0),
    "the cosine is not lifted. How is one brought to 1 and 0?": _rate(lift=0),
    "a quarter of a wave. How flat should its end be?": _rate(lift=0, turn=math.pi / 2),
    "a straight line. What is between is no cosine.": _rate(course=lambda share: 1 - share),
    "the warm-up goes downwards. It should begin gently.": _rate(rise=lambda share: 1 - share),
    "the angle is in degrees. In which unit does Python's cosine want it?": _rate(turn=180),
}

EXERCISES = (
    Exercise("5.1", "The low-rank layer", calls(*_CASES), _layer(), _LAYER),
    Exercise("5.2", "The size of an adapter", calls(*_SIZES), _count(), _SIZE),
    Exercise("5.3", "Merging the adapter", _MERGE_PROBE, _merged(), _MERGE),
    Exercise("5.4", "The course of the learning rate", calls(*_STEPS), _rate(), _RATES),
)
