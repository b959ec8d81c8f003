"""Checks of lesson 5: the low-rank layer, its size, merging it, the learning rate's course."""

import math

import torch

from ..checks import Exercise, calls


def _weights(outputs: int, inputs: int, rank: int, seed: int) -> tuple[torch.Tensor, ...]:
    """x (4, inputs), W (outputs, inputs), A (rank, inputs), B (outputs, rank)."""
    draw = torch.Generator().manual_seed(seed)
    shapes = ((4, inputs), (outputs, inputs), (rank, inputs), (outputs, rank))
    return tuple(torch.randn(shape, generator=draw) for shape in shapes)


_CASES = (((6, 6, 2, 1), 16.0), ((6, 6, 3, 2), 6.0), ((4, 7, 3, 3), 12.0))


def _merged(scale=lambda alpha, a: alpha / len(a), base=1, add=lambda b, a: b @ a):
    """W and its correction as one matrix, with one thing wrong."""
    return lambda w, a, b, alpha: base * w + scale(alpha, a) * add(b, a)


def _layer(**wrong):
    return lambda x, *weights: x @ _merged(**wrong)(*weights).T


LAYER = Exercise(
    "5.1",
    "The low-rank layer",
    calls(*[(*_weights(*sizes), alpha) for sizes, alpha in _CASES]),
    _layer(),
    {
        "the scaling is missing. Your layer is right when alpha equals the rank. What else stands "
        "before B A in the formula?": _layer(scale=lambda alpha, a: 1),
        "alpha times the rank. Doubling the rank should not make the correction larger. Which of "
        "the two numbers stands below the line?": _layer(scale=lambda alpha, a: alpha * len(a)),
        "the scaling is upside down. A larger alpha should make a larger correction.": _layer(
            scale=lambda alpha, a: len(a) / alpha
        ),
        "the rank is read off the wrong side of A. A has two sides: one is as long as x is wide, "
        "the other is the rank. Print A.shape.": _layer(scale=lambda alpha, a: alpha / a.shape[1]),
        "the frozen matrix is missing. With B = 0 the layer should answer as it did before tuning. "
        "What does yours answer?": _layer(base=0),
        "W is scaled as well. With B = 0 nothing should change, "
        "whatever alpha is.": lambda x, w, a, b, alpha: alpha / len(a) * (x @ (w + b @ a).T),
        "A and B are exchanged. Follow one row of x through its shapes: which matrix takes it from "
        "the input's width down to the rank?": _layer(add=lambda b, a: (b @ a).T),
        "W is used without its transpose. A linear layer keeps W as (outputs, inputs). What does "
        "that mean for rows x?": lambda x, w, a, b, alpha: x @ w + alpha / len(a) * (x @ (b @ a).T),
    },
)


def _count(kv_of=lambda width, heads, kv: width // heads * kv, square=2, narrow=2, only=None):
    """A count with one thing wrong: the width of keys and values, or how many matrices of each
    kind."""

    def count(width, heads, key_value_heads, layers, rank):
        kv = kv_of(width, heads, key_value_heads)
        return (only or layers) * rank * (square * (width + width) + narrow * (width + kv))

    return count


def _frozen(width, heads, key_value_heads, layers, rank):
    return layers * 2 * (width * width + width * (width // heads * key_value_heads))


SIZE = Exercise(
    "5.2",
    "The size of an adapter",
    calls((256, 4, 2, 4, 8), (3584, 28, 4, 28, 8), (64, 8, 2, 3, 4)),
    _count(),
    {
        "keys and values are taken for square. Grouped-query attention has fewer heads for keys "
        "and values than for queries. "
        "How many rows have their two matrices?": _count(lambda width, heads, kv: width),
        "the width is divided by the number of key-value heads. How wide is one head? And how many "
        "heads do keys and values have?": _count(lambda width, heads, kv: width // kv),
        "heads are taken for widths. A head is several numbers wide. How many?": _count(
            lambda width, heads, kv: kv
        ),
        "two of the four matrices are missing. It is half of what it should be. Which four "
        "matrices of a layer get an adapter?": _count(square=1, narrow=1),
        "the output projection is missing. Three matrices go into the attention. Which one comes "
        "out of it?": _count(square=1),
        "A is counted without B. Each adapted matrix gets two "
        "small ones.": lambda width, heads, kv, layers, rank: layers * rank * 4 * width,
        "one layer only. That is the adapter of one layer.": _count(only=1),
        "the whole matrices are counted. Your count does not depend on the rank: these are the "
        "numbers that stay frozen.": _frozen,
        "the frozen matrices are counted as well. Only what is trained "
        "counts here.": lambda *numbers: _frozen(*numbers) + _count()(*numbers),
    },
    rtol=0,
    atol=0.5,
)

MERGE = Exercise(
    "5.3",
    "Merging the adapter",
    calls(*[(*_weights(*sizes)[1:], alpha) for sizes, alpha in _CASES], keep=0),
    _merged(),
    {
        "W is changed in place. The matrix is right, but look at what you were given after the "
        "call. Who else may still need the "
        "base model?": lambda w, a, b, alpha: w.add_(alpha / len(a) * (b @ a)),
        "the scaling is missing. Compare with the layer: what stands before B A?": _merged(
            lambda alpha, a: 1
        ),
        "alpha times the rank. Which of the two numbers stands below the line?": _merged(
            lambda alpha, a: alpha * len(a)
        ),
        "the scaling is applied twice. B and A are multiplied with each other. How often does a "
        "factor count that stands on both?": _merged(lambda alpha, a: (alpha / len(a)) ** 2),
        "only the correction is returned. With B = 0 the merged matrix should be W.": _merged(
            base=0
        ),
        "the correction is transposed. Try a W that is not square.": _merged(
            add=lambda b, a: (b @ a).T
        ),
        "the correction is taken away. That is how an adapter is taken out again.": _merged(
            lambda alpha, a: -alpha / len(a)
        ),
    },
)


def _after_warmup(course, rise=lambda share: share):
    """The rate in shares of the peak: `rise` over the warm-up, then `course` over the rest."""

    def rate(step, steps, warmup, peak):
        if step < warmup:
            return peak * rise(step / warmup)
        return peak * course((step - warmup) / (steps - warmup))

    return rate


def _half_wave(share):
    return 0.5 * (1 + math.cos(math.pi * share))


def _from_step_0(step, steps, warmup, peak):
    return peak * (step / warmup if step < warmup else _half_wave(step / steps))


SCHEDULE = Exercise(
    "5.4",
    "The course of the learning rate",
    calls(*[(step, 200, 20, 2.0) for step in (0, 5, 19, 20, 65, 110, 170, 200)], (30, 90, 30, 3)),
    _after_warmup(_half_wave),
    {
        "the warm-up is missing. Look at step 0: there the rate should "
        "be 0.": lambda step, steps, warmup, peak: peak * _half_wave(step / steps),
        "the cosine counts from step 0. Just after the warm-up the rate should be at its peak. At "
        "which value of the cosine does your curve begin?": _from_step_0,
        "the cosine is not lifted. Your rate becomes negative. A cosine goes from 1 to -1: how is "
        "it brought to 1 and 0?": _after_warmup(lambda share: math.cos(math.pi * share)),
        "a quarter of a wave. Peak and end are right, half-way is too high. How flat should the "
        "curve be at its end?": _after_warmup(lambda share: math.cos(math.pi / 2 * share)),
        "a straight line. Peak, half-way and end are right. "
        "What lies between them is no cosine.": _after_warmup(lambda share: 1 - share),
        "the warm-up goes downwards. It should begin gently.": _after_warmup(
            _half_wave, rise=lambda share: 1 - share
        ),
        "the angle is in degrees. Python's cosine wants radians.": _after_warmup(
            lambda share: 0.5 * (1 + math.cos(180 * share))
        ),
    },
)

EXERCISES = (LAYER, SIZE, MERGE, SCHEDULE)
