"""Checks of lesson 7: the distillation loss, caches by id, the size of a head."""

import numpy as np
import torch
import torch.nn.functional as F

from ..checks import Exercise, Mistake, attempted, calls
from ..distillation import distillation_loss


def _loss_cases() -> list[tuple]:
    draw = torch.Generator().manual_seed(7)
    student, teacher = torch.randn(5, 8, generator=draw), 3 * torch.randn(5, 8, generator=draw)
    labels = torch.tensor([0, 7, 3, 3, 5])
    return [(student, teacher, labels, a, t) for a, t in ((0.5, 2.0), (0.9, 4.0), (0.3, 1.0))]


def _variant(squared=True, reverse=False, share=1.0, swap=False, hard=True, **wrong):
    """A loss with one thing wrong."""

    def loss(student, teacher, labels, alpha, temperature):
        p, q = student / temperature, teacher / temperature
        if wrong.get("twice"):
            p = p.softmax(1)
        if wrong.get("cold_teacher"):
            q = teacher
        if reverse:
            p, q = q, p
        log_p, log_q = p.log_softmax(1), q.log_softmax(1)
        first = p.softmax(1) if wrong.get("not_log") else log_p
        divergence = share * F.kl_div(first, log_q, reduction="batchmean", log_target=True)
        if swap:
            alpha = 1 - alpha
        ce = F.cross_entropy(student / (1 if hard else temperature), labels)
        return alpha * (temperature**2 if squared else 1) * divergence + (1 - alpha) * ce

    return loss


def _order_probe(function):
    """Rows for ids in another order, a subset, and an id that is missing."""
    cached = ["d", "a", "c", "b"]
    cache = np.arange(8.0).reshape(4, 2)
    found = [
        np.asarray(attempted(function(ids, cached, cache)), dtype=float)
        for ids in (["a", "b", "c", "d"], ["b", "d"], ["c"])
    ]
    try:
        function(["a", "x"], cached, cache)
    except (KeyError, ValueError):
        return [*found, "missing id refused"]
    except Exception as error:
        return [*found, f"missing id: {type(error).__name__}"]
    return [*found, "missing id accepted"]


def _by_dictionary(ids, cached_ids, cache):
    place = {name: row for row, name in enumerate(cached_ids)}
    return cache[[place[name] for name in ids]]


def _unchanged(ids, cached_ids, cache):
    _by_dictionary(ids, cached_ids, cache)
    return cache[: len(ids)]


def _inverse(ids, cached_ids, cache):
    _by_dictionary(ids, cached_ids, cache)
    places = [list(ids).index(name) for name in cached_ids if name in ids]
    return cache[places]


def _cache_order(ids, cached_ids, cache):
    _by_dictionary(ids, cached_ids, cache)
    return cache[[row for row, name in enumerate(cached_ids) if name in ids]]


def _skips_missing(ids, cached_ids, cache):
    place = {name: row for row, name in enumerate(cached_ids)}
    return cache[[place[name] for name in ids if name in place]]


EXERCISES = (
    Exercise(
        "7.1",
        "The loss, from its formula",
        calls(*_loss_cases()),
        distillation_loss,
        (
            Mistake(
                "T squared is missing",
                "Your loss is right at T = 1 and too small above. What in the formula depends on T "
                "besides the two softmaxes?",
                _variant(squared=False),
            ),
            Mistake(
                "the KL divergence is the wrong way round",
                "KL(q || p) weighs the logarithm of the ratio by its first argument. Whose "
                "distribution should weigh here?",
                _variant(reverse=True),
            ),
            Mistake(
                "the mean is taken over classes as well",
                "A divergence is a sum over classes. Look at what your reduction divides by.",
                _variant(share=1 / 8),
            ),
            Mistake(
                "the divergence is summed over the images",
                "Twice as many images should not make twice the loss.",
                _variant(share=5),
            ),
            Mistake(
                "softmax is taken twice",
                "Something that already is a distribution goes through a softmax once more. Print "
                "one row before each softmax.",
                _variant(twice=True),
            ),
            Mistake(
                "probabilities stand where logarithms are expected",
                "Read which of its arguments the divergence wants as logarithms; a divergence below "
                "zero is the sign.",
                _variant(not_log=True),
            ),
            Mistake(
                "alpha and 1 - alpha are exchanged",
                "With alpha = 1 nothing but the teacher should count.",
                _variant(swap=True),
            ),
            Mistake(
                "the cross-entropy is softened too",
                "The label's part of the loss is at temperature 1.",
                _variant(hard=False),
            ),
            Mistake(
                "the teacher is not softened",
                "Both sides of the divergence are at temperature T.",
                _variant(cold_teacher=True),
            ),
        ),
    ),
    Exercise(
        "7.2",
        "Rows and ids",
        _order_probe,
        _by_dictionary,
        (
            Mistake(
                "the cache is used as it lies",
                "Its rows are in the order in which they were made, which is not that of ids.",
                _unchanged,
            ),
            Mistake(
                "the index goes the wrong way",
                "Each number of your index should be a row of the cache. Is it, or is it a place in "
                "ids?",
                _inverse,
            ),
            Mistake(
                "the right rows in the cache's order",
                "All rows are there, but the first row must belong to the first of ids.",
                _cache_order,
            ),
            Mistake(
                "a missing id is passed over",
                "Then every row after it belongs to another image than you think. Say so with an "
                "error instead.",
                _skips_missing,
            ),
        ),
    ),
    Exercise(
        "7.3",
        "Parameters of a head",
        calls((3584, 1024, 8), (256, 1024, 8), (10, 3, 2)),
        lambda features, hidden, classes: (features + 1) * hidden + (hidden + 1) * classes,
        (
            Mistake(
                "the biases are missing",
                "A linear layer is a matrix product and one more thing.",
                lambda features, hidden, classes: features * hidden + hidden * classes,
            ),
            Mistake(
                "the output layer's bias is missing",
                "Both layers have one.",
                lambda features, hidden, classes: (features + 1) * hidden + hidden * classes,
            ),
            Mistake(
                "the last layer is missing",
                "From the hidden layer it still has to come to the classes.",
                lambda features, hidden, classes: (features + 1) * hidden,
            ),
            Mistake(
                "features go straight to the classes as well",
                "Nothing skips the hidden layer.",
                lambda features, hidden, classes: (
                    (features + 1) * hidden + (hidden + 1) * classes + features * classes
                ),
            ),
        ),
        rtol=0,
        atol=0.5,
    ),
)
