"""Checks of lesson 7: the distillation loss, caches by id, the size of a head."""

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from ..checks import Exercise, calls, variants
from ..distillation import distillation_loss

_STUDENT = torch.tensor([[2.0, 0, 0, 1], [0, 1, 0, 0], [1, 0, 2, 0]])
_TEACHER = torch.tensor([[4.0, 0, 2, 0], [0, 3, 1, 0], [0, 1, 5, 0]])
_LABELS = torch.tensor([0, 2, 1])
_SIZES = {  # images, classes, alpha, T
    "where alpha is 0 it is not the label's cross-entropy alone": (2, 3, 0.0, 2.0),
    "where alpha and T are 1 it is not the divergence alone": (2, 3, 1.0, 1.0),
    "where alpha is 1, T changes it wrongly": (2, 3, 1.0, 2.0),
    "alpha weighs the two parts wrongly": (2, 3, 0.25, 2.0),
    "three images and four classes come out wrong": (3, 4, 0.9, 4.0),
}
_LOSS_CASES = [
    (_STUDENT[:n, :c], _TEACHER[:n, :c], _LABELS[:n], a, t) for n, c, a, t in _SIZES.values()
]


def _loss_probe(function):
    """The loss of each case, then its gradients at the student's logits (None: there is none)."""
    gradients = []

    def loss_of(logits, *others):
        logits = logits.requires_grad_()
        loss = function(1 * logits, *others)  # not a leaf: the answer may overwrite it
        learns = getattr(loss, "requires_grad", False)
        ways = torch.autograd.grad(loss.sum(), logits, allow_unused=True) if learns else [None]
        gradients.append(ways[0])
        return loss

    return calls(*_LOSS_CASES)(loss_of) + gradients


_loss_probe.cases, _loss_probe.about = 2 * _LOSS_CASES, [*_SIZES]


def _kl(student, teacher, axis=1, of_student=torch.log_softmax, per=len):
    divergence = F.kl_div(of_student(student, axis), teacher.softmax(axis), reduction="sum")
    return divergence / per(student)


@variants
def _loss(
    *given,
    kl=_kl,
    squared=(2, 0),
    weights=lambda alpha: (alpha, 1 - alpha),
    soft=(1, 1, 0),
    kept=(1, 1),
):
    """The loss. squared: the power of T by which each part is multiplied. soft: by which student,
    teacher and the label's part are divided. kept: which parts have a gradient."""
    student, teacher, labels, alpha, t = given
    of_student, of_teacher, of_label = (
        side / t**power for side, power in zip((student, teacher, student), soft, strict=True)
    )
    parts = (kl(of_student, of_teacher), F.cross_entropy(of_label, labels))
    terms = [
        weight * t**power * (part if keep else part.detach())
        for part, weight, power, keep in zip(parts, weights(alpha), squared, kept, strict=True)
    ]
    return sum(terms)


_LOSS = {
    "it has no gradient. Do item(), detach() or no_grad() stand in it?": _loss(kept=(0, 0)),
    "the teacher's part has no gradient. Is it still a tensor?": _loss(kept=(0, 1)),
    "the label's part has no gradient. Is it still a tensor?": _loss(kept=(1, 0)),
    "T squared is missing. What depends on T besides the two softmaxes?": _loss(squared=(0, 0)),
    "T stands in place of its square. Compare with the formula.": _loss(squared=(1, 0)),
    "T squared is on both parts. Which part gets small with T?": _loss(squared=(2, 2)),
    "the KL divergence is the wrong way round. Whose distribution should "
    "weigh the logarithm of the ratio?": _loss(kl=lambda student, teacher: _kl(teacher, student)),
    "the mean is over classes as well. Divide by what?": _loss(kl=partial(_kl, per=torch.numel)),
    "it is summed over images. Must it grow with them?": _loss(kl=partial(_kl, per=lambda x: 1)),
    "the softmax is over the images. Which axis holds the classes?": _loss(kl=partial(_kl, axis=0)),
    "softmax is taken twice. A distribution goes through a softmax once more. "
    "Print a row before each.": _loss(kl=lambda student, teacher: _kl(student.softmax(1), teacher)),
    "probabilities stand where logarithms are expected. Read which argument is wanted "
    "in logarithms.": _loss(kl=partial(_kl, of_student=torch.softmax)),
    "it is a cross-entropy with the teacher, not a divergence. Which should be 0 for "
    "equals?": _loss(kl=lambda student, teacher: F.cross_entropy(student, teacher.softmax(1))),
    "alpha and 1 - alpha are exchanged. Try alpha = 1.": _loss(weights=lambda a: (1 - a, a)),
    "the cross-entropy is softened too. The label's part stays at T = 1.": _loss(soft=(1, 1, 1)),
    "neither side is softened. Both are at temperature T.": _loss(soft=(0, 0, 0)),
}

_CACHED, _CACHE = ["d", "a", "c", "b"], np.arange(8.0).reshape(4, 2)
_ASKED = {
    "c": "even a single id gets another row",
    "db": "the rows of two of the ids are wrong",
    "cabd": "the rows are wrong where all cached ids are asked for, in another order",
    "ax": "an id that is not in the cache does not end in a KeyError",
}
_ID_PROBE = calls(*[(list(ids), _CACHED, _CACHE) for ids in _ASKED], about=_ASKED.values())


def _by_dictionary(ids, cached, cache):
    place = dict(zip(cached, cache, strict=True))
    return [place[name] for name in ids]


@variants
def _taken(ids, cached, cache, *, rows, refusing=False):
    if refusing:
        _by_dictionary(ids, cached, cache)
    return cache[rows(ids, cached)]


_ORDERS = {
    "the cache is used as it lies. In which order?": lambda ids, cached: range(len(ids)),
    "the index goes the wrong way. Is each number of it a row of the cache, "
    "or a place in ids?": lambda ids, cached: [ids.index(i) for i in cached if i in ids],
    "the right rows in the cache's order. All are there, but the first must belong to the "
    "first of ids.": lambda ids, cached: [cached.index(i) for i in cached if i in ids],
    "the rows are in alphabetical order of their ids. What sorts in your "
    "code?": lambda ids, cached: [cached.index(i) for i in sorted(ids) if i in cached],
}
_ROWS = {
    text + also: _taken(rows=rows, refusing=not also)
    for text, rows in _ORDERS.items()
    for also in ("", " And what comes of an id that is not there?")
}
_ROWS["a missing id ends in an error of another kind. Which one is asked for?"] = _taken(
    rows=lambda ids, cached: [cached.index(i) for i in ids]
)


@variants
def _size(features, hidden, classes, *, hidden_bias=1, bias=1, last=1):
    return (features + hidden_bias) * hidden + last * (hidden + bias) * classes


_SIZE = {
    "the biases are missing. What else has a linear layer?": _size(hidden_bias=0, bias=0),
    "the hidden layer's bias is missing. Both layers have one.": _size(hidden_bias=0),
    "the output layer's bias is missing. Both layers have one.": _size(bias=0),
    "the last layer is missing. From the hidden one it must come to the classes.": _size(last=0),
}
_HEADS = {
    "a matrix or a bias is missing, or one is too many, or a width is not your argument": (1, 1, 1),
    "it grows wrongly with the features": (4, 1, 1),
    "it grows wrongly with the hidden layer": (1, 4, 1),
    "it grows wrongly with the classes": (1, 1, 4),
    "what a matrix of several rows and columns holds is wrong": (10, 3, 2),
}
_SIZE_PROBE = calls(*_HEADS.values(), (3584, 1024, 8), about=_HEADS)

EXERCISES = (
    Exercise("7.1", "The loss, from its formula", _loss_probe, distillation_loss, _LOSS),
    Exercise("7.2", "Rows and ids", _ID_PROBE, _by_dictionary, _ROWS),
    Exercise("7.3", "Parameters of a head", _SIZE_PROBE, _size(), _SIZE),
)
