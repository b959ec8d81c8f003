"""Checks of lesson 5: the low-rank layer, its size, merging it, the learning rate's course."""

import math

import torch

from ..checks import Exercise, Mistake, attempted, calls

_NO_FIT = "the shapes do not fit"


def _weights(outputs: int, inputs: int, rank: int, seed: int) -> tuple[torch.Tensor, ...]:
    """x (4, inputs), W (outputs, inputs), A (rank, inputs), B (outputs, rank)."""
    draw = torch.Generator().manual_seed(seed)
    shapes = ((4, inputs), (outputs, inputs), (rank, inputs), (outputs, rank))
    return tuple(torch.randn(shape, generator=draw) for shape in shapes)


def _forward_probe(function) -> list:
    """Two square matrices, whose errors are told as they are, and one that is not square."""
    found = calls(
        (*_weights(6, 6, 2, 1), 16.0),
        (*_weights(6, 6, 3, 2), 6.0),
    )(function)
    try:
        return [*found, attempted(function(*_weights(4, 7, 3, 3), 12.0))]
    except (RuntimeError, ValueError, IndexError):
        return [*found, _NO_FIT]


def _merge_probe(function) -> list:
    """The merged matrix for square and other weights, and whether W was left as it was."""
    found = []
    for outputs, inputs, rank, alpha in ((6, 6, 2, 8.0), (6, 6, 3, 3.6), (4, 7, 3, 12.0)):
        _, weight, a, b = _weights(outputs, inputs, rank, outputs + rank)
        mine = weight.clone()
        try:
            found.append(attempted(function(mine, a, b, alpha)))
        except (RuntimeError, ValueError, IndexError):
            if outputs == inputs:
                raise
            found.append(_NO_FIT)
        found.append("W unchanged" if torch.equal(mine, weight) else "W changed")
    return found


def _forward(x, weight, a, b, alpha):
    return x @ weight.T + alpha / len(a) * (x @ a.T @ b.T)


def _merge(weight, a, b, alpha):
    return weight + alpha / len(a) * (b @ a)


def _merge_in_place(weight, a, b, alpha):
    weight += alpha / len(a) * (b @ a)
    return weight


def _count(kv_of=lambda width, heads, kv: width // heads * kv, square=2, narrow=2, one=None):
    """A count with one thing wrong: the width of keys and values, or how many matrices of each
    kind."""

    def count(width, heads, key_value_heads, layers, rank):
        kv = kv_of(width, heads, key_value_heads)
        matrices = square * (width + width) + narrow * (width + kv)
        return (one or layers) * rank * matrices

    return count


def _frozen(width, heads, key_value_heads, layers, rank):
    return layers * 2 * (width * width + width * (width // heads * key_value_heads))


def _rate(step, steps, warmup, peak):
    if step < warmup:
        return peak * step / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def _after_warmup(course):
    """A schedule with the right warm-up and another course after it."""

    def rate(step, steps, warmup, peak):
        if step < warmup:
            return peak * step / warmup
        return peak * course(step, steps, warmup)

    return rate


def _rate_upside_down(step, steps, warmup, peak):
    return peak * (1 - step / warmup) if step < warmup else _rate(step, steps, warmup, peak)


def _share(step, steps, warmup):
    return (step - warmup) / (steps - warmup)


EXERCISES = (
    Exercise(
        "5.1",
        "The low-rank layer",
        _forward_probe,
        _forward,
        (
            Mistake(
                "the scaling is missing",
                "Your layer is right when alpha equals the rank. What else stands before B A in the "
                "formula?",
                lambda x, w, a, b, alpha: x @ w.T + x @ a.T @ b.T,
            ),
            Mistake(
                "alpha times the rank",
                "Doubling the rank should not make the correction larger. Which of the two numbers "
                "stands below the line?",
                lambda x, w, a, b, alpha: x @ w.T + alpha * len(a) * (x @ a.T @ b.T),
            ),
            Mistake(
                "the scaling is upside down",
                "A larger alpha should make a larger correction.",
                lambda x, w, a, b, alpha: x @ w.T + len(a) / alpha * (x @ a.T @ b.T),
            ),
            Mistake(
                "the rank is read off the wrong side of A",
                "A has two sides: one is as long as x is wide, the other is the rank. Print A.shape.",
                lambda x, w, a, b, alpha: x @ w.T + alpha / a.shape[1] * (x @ a.T @ b.T),
            ),
            Mistake(
                "the frozen matrix is missing",
                "With B = 0 the layer should answer as it did before tuning. What does yours answer?",
                lambda x, w, a, b, alpha: alpha / len(a) * (x @ a.T @ b.T),
            ),
            Mistake(
                "W is scaled as well",
                "With B = 0 nothing should change, whatever alpha is.",
                lambda x, w, a, b, alpha: alpha / len(a) * (x @ w.T + x @ a.T @ b.T),
            ),
            Mistake(
                "A and B are exchanged",
                "Follow one row of x through its shapes: which matrix takes it from the input's width "
                "down to the rank?",
                lambda x, w, a, b, alpha: x @ w.T + alpha / len(a) * (x @ b @ a),
            ),
            Mistake(
                "W is used without its transpose",
                "A linear layer keeps W as (outputs, inputs). What does that mean for rows x?",
                lambda x, w, a, b, alpha: x @ w + alpha / len(a) * (x @ a.T @ b.T),
            ),
        ),
    ),
    Exercise(
        "5.2",
        "The size of an adapter",
        calls((256, 4, 2, 4, 8), (3584, 28, 4, 28, 8), (64, 8, 2, 3, 4)),
        _count(),
        (
            Mistake(
                "keys and values are taken for square",
                "Grouped-query attention has fewer heads for keys and values than for queries. How "
                "many rows have their two matrices?",
                _count(lambda width, heads, kv: width),
            ),
            Mistake(
                "the width is divided by the number of key-value heads",
                "How wide is one head? And how many heads do keys and values have?",
                _count(lambda width, heads, kv: width // kv),
            ),
            Mistake(
                "heads are taken for widths",
                "A head is several numbers wide. How many?",
                _count(lambda width, heads, kv: kv),
            ),
            Mistake(
                "two of the four matrices are missing",
                "It is half of what it should be. Which four matrices of a layer get an adapter?",
                _count(square=1, narrow=1),
            ),
            Mistake(
                "the output projection is missing",
                "Three matrices go into the attention. Which one comes out of it?",
                _count(square=1),
            ),
            Mistake(
                "A is counted without B",
                "Each adapted matrix gets two small ones.",
                lambda width, heads, kv, layers, rank: layers * rank * 4 * width,
            ),
            Mistake(
                "one layer only",
                "That is the adapter of one layer.",
                _count(one=1),
            ),
            Mistake(
                "the whole matrices are counted",
                "Your count does not depend on the rank: these are the numbers that stay frozen.",
                _frozen,
            ),
            Mistake(
                "the frozen matrices are counted as well",
                "Only what is trained counts here.",
                lambda *numbers: _frozen(*numbers) + _count()(*numbers),
            ),
        ),
        rtol=0,
        atol=0.5,
    ),
    Exercise(
        "5.3",
        "Merging the adapter",
        _merge_probe,
        _merge,
        (
            Mistake(
                "W is changed in place",
                "The matrix is right, but look at what you were given after the call. Who else may "
                "still need the base model?",
                _merge_in_place,
            ),
            Mistake(
                "the scaling is missing",
                "Compare with the layer: what stands before B A?",
                lambda w, a, b, alpha: w + b @ a,
            ),
            Mistake(
                "alpha times the rank",
                "Which of the two numbers stands below the line?",
                lambda w, a, b, alpha: w + alpha * len(a) * (b @ a),
            ),
            Mistake(
                "the scaling is applied twice",
                "B and A are multiplied with each other. How often does a factor count that stands on "
                "both?",
                lambda w, a, b, alpha: w + (alpha / len(a) * b) @ (alpha / len(a) * a),
            ),
            Mistake(
                "only the correction is returned",
                "With B = 0 the merged matrix should be W.",
                lambda w, a, b, alpha: alpha / len(a) * (b @ a),
            ),
            Mistake(
                "the correction is transposed",
                "Try a W that is not square.",
                lambda w, a, b, alpha: w + alpha / len(a) * (b @ a).T,
            ),
            Mistake(
                "the correction is taken away",
                "That is how an adapter is taken out again.",
                lambda w, a, b, alpha: w - alpha / len(a) * (b @ a),
            ),
        ),
    ),
    Exercise(
        "5.4",
        "The course of the learning rate",
        calls(
            *((step, 200, 20, 2.0) for step in (0, 5, 19, 20, 65, 110, 170, 200)), (30, 90, 30, 3)
        ),
        _rate,
        (
            Mistake(
                "the warm-up is missing",
                "Look at step 0: there the rate should be 0.",
                lambda step, steps, warmup, peak: (
                    peak * 0.5 * (1 + math.cos(math.pi * step / steps))
                ),
            ),
            Mistake(
                "the cosine counts from step 0",
                "Just after the warm-up the rate should be at its peak. At which value of the cosine "
                "does your curve begin?",
                _after_warmup(
                    lambda step, steps, warmup: 0.5 * (1 + math.cos(math.pi * step / steps))
                ),
            ),
            Mistake(
                "the cosine is not lifted",
                "Your rate becomes negative. A cosine goes from 1 to -1: how is it brought to 1 and 0?",
                _after_warmup(lambda *place: math.cos(math.pi * _share(*place))),
            ),
            Mistake(
                "a quarter of a wave",
                "Peak and end are right, half-way is too high. How flat should the curve be at its "
                "end?",
                _after_warmup(lambda *place: math.cos(math.pi / 2 * _share(*place))),
            ),
            Mistake(
                "a straight line",
                "Peak, half-way and end are right. What lies between them is no cosine.",
                _after_warmup(lambda *place: 1 - _share(*place)),
            ),
            Mistake(
                "the warm-up goes downwards",
                "It should begin gently.",
                _rate_upside_down,
            ),
            Mistake(
                "the angle is in degrees",
                "Python's cosine wants radians.",
                _after_warmup(lambda *place: 0.5 * (1 + math.cos(180 * _share(*place)))),
            ),
        ),
    ),
)
