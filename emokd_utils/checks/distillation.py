"""Checks of lesson 7: the distillation loss, caches by id, the size of a head."""

import numpy as np
import torch
import torch.nn.functional as F

from ..checks import Exercise, calls
from ..distillation import distillation_loss


def _loss_cases() -> list[tuple]:
    draw = torch.Generator().manual_seed(7)
    student, teacher = torch.randn(5, 8, generator=draw), 3 * torch.randn(5, 8, generator=draw)
    labels = torch.tensor([0, 7, 3, 3, 5])
    return [(student, teacher, labels, a, t) for a, t in ((0.5, 2.0), (0.9, 4.0), (0.3, 1.0))]


def _kl(student, teacher, of_student=torch.log_softmax):
    return F.kl_div(of_student(student, 1), teacher.softmax(1), reduction="batchmean")


def _variant(kl=_kl, squared=True, share=1.0, swap=False, soft_label=False, cold_teacher=False):
    """A loss with one thing wrong."""

    def loss(student, teacher, labels, alpha, temperature):
        taught = teacher / (1 if cold_teacher else temperature)
        divergence = share * kl(student / temperature, taught)
        ce = F.cross_entropy(student / (temperature if soft_label else 1), labels)
        if swap:
            alpha = 1 - alpha
        return alpha * (temperature**2 if squared else 1) * divergence + (1 - alpha) * ce

    return loss


LOSS = Exercise(
    "7.1",
    "The loss, from its formula",
    calls(*_loss_cases()),
    distillation_loss,
    {
        "T squared is missing. Your loss is right at T = 1 and too small above. What in the "
        "formula depends on T besides the two softmaxes?": _variant(squared=False),
        "the KL divergence is the wrong way round. KL(q || p) weighs the logarithm of the ratio by "
        "its first argument. Whose distribution should "
        "weigh here?": _variant(lambda student, teacher: _kl(teacher, student)),
        "the mean is taken over classes as well. A divergence is a sum over classes. Look at what "
        "your reduction divides by.": _variant(share=1 / 8),
        "the divergence is summed over the images. Twice as many images should not make twice the "
        "loss.": _variant(share=5),
        "softmax is taken twice. Something that already is a distribution goes through a softmax "
        "once more. Print one row before "
        "each softmax.": _variant(lambda student, teacher: _kl(student.softmax(1), teacher)),
        "probabilities stand where logarithms are expected. Read which of its arguments the "
        "divergence wants as logarithms; a divergence below zero is "
        "the sign.": _variant(lambda student, teacher: _kl(student, teacher, torch.softmax)),
        "alpha and 1 - alpha are exchanged. "
        "With alpha = 1 nothing but the teacher should count.": _variant(swap=True),
        "the cross-entropy is softened too. "
        "The label's part of the loss is at temperature 1.": _variant(soft_label=True),
        "the teacher is not softened. Both sides of the divergence are at temperature T.": _variant(
            cold_teacher=True
        ),
    },
)

_CACHED, _CACHE = ["d", "a", "c", "b"], np.arange(8.0).reshape(4, 2)


def _by_dictionary(ids, cached_ids, cache):
    place = {name: row for row, name in enumerate(cached_ids)}
    return cache[[place[name] for name in ids]]


def _refusing(rows):
    """Wrong rows with the right refusal of an id that is missing."""

    def rows_for(ids, cached_ids, cache):
        _by_dictionary(ids, cached_ids, cache)
        return cache[rows(ids, cached_ids)]

    return rows_for


ROWS = Exercise(
    "7.2",
    "Rows and ids",
    calls(*[(list(ids), _CACHED, _CACHE) for ids in ("cabd", "db", "c", "ax")]),
    _by_dictionary,
    {
        "the cache is used as it lies. Its rows are in the order in which they were made, which is "
        "not that of ids.": _refusing(lambda ids, cached: range(len(ids))),
        "the index goes the wrong way. Each number of your index should be a row of the cache. Is "
        "it, or is it a place in "
        "ids?": _refusing(lambda ids, cached: [ids.index(name) for name in cached if name in ids]),
        "the right rows in the cache's order. All rows are there, but the first row must belong to "
        "the first of "
        "ids.": _refusing(lambda ids, cached: [k for k, name in enumerate(cached) if name in ids]),
        "a missing id is passed over. Then every row after it belongs to another image than you "
        "think. Say so with an error instead.": (
            lambda ids, cached, cache: _by_dictionary(
                [name for name in ids if name in cached], cached, cache
            )
        ),
    },
)

SIZE = Exercise(
    "7.3",
    "Parameters of a head",
    calls((3584, 1024, 8), (256, 1024, 8), (10, 3, 2)),
    lambda features, hidden, classes: (features + 1) * hidden + (hidden + 1) * classes,
    {
        "the biases are missing. A linear layer is a matrix product and one "
        "more thing.": lambda features, hidden, classes: features * hidden + hidden * classes,
        "the output layer's bias is missing. Both layers have "
        "one.": lambda features, hidden, classes: (features + 1) * hidden + hidden * classes,
        "the last layer is missing. From the hidden layer it still has to come to "
        "the classes.": lambda features, hidden, classes: (features + 1) * hidden,
        "features go straight to the classes as well. Nothing skips the hidden layer.": (
            lambda features, hidden, classes: (
                (features + 1) * hidden + (hidden + 1 + features) * classes
            )
        ),
    },
    rtol=0,
    atol=0.5,
)

EXERCISES = (LOSS, ROWS, SIZE)
