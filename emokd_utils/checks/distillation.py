"""Checks of lesson 7: the distillation loss, caches by id, the size of a head."""

import numpy as np
import torch
import torch.nn.functional as F

from ..checks import Exercise, calls, variants
from ..distillation import distillation_loss

_SCALES = torch.tensor([[[1.0]], [[3.0]]])  # a teacher is surer than its student
_LOGITS = _SCALES * torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(7))
_LABELS = torch.tensor([0, 7, 3, 3, 5])
_LOSS_CASES = [(*_LOGITS, _LABELS, *pair) for pair in ((0.5, 2.0), (0.9, 4.0), (0.3, 1.0))]


def _kl(student, teacher, of_student=torch.log_softmax):
    return F.kl_div(of_student(student, 1), teacher.softmax(1), reduction="batchmean")


@variants
def _loss(*given, kl=_kl, squared=2, share=1, alpha_of=float, soft_label=0, soft_teacher=1):
    student, teacher, labels, alpha, temperature = given
    divergence = kl(student / temperature, teacher / temperature**soft_teacher)
    ce = F.cross_entropy(student / temperature**soft_label, labels)
    alpha = alpha_of(alpha)
    return alpha * temperature**squared * share * divergence + (1 - alpha) * ce


_LOSS = {
    "T squared is missing. What depends on T besides the two softmaxes?": _loss(squared=0),
    "the KL divergence is the wrong way round. Whose distribution should "
    "weigh the logarithm of the ratio?": _loss(kl=lambda student, teacher: _kl(teacher, student)),
    "the mean is taken over classes as well. By what do you divide?": _loss(share=1 / 8),
    "the divergence is summed over the images. Must it grow with their number?": _loss(share=5),
    "softmax is taken twice. A distribution goes through a softmax once more. "
    "Print a row before each.": _loss(kl=lambda student, teacher: _kl(student.softmax(1), teacher)),
    "probabilities stand where logarithms are expected. Read which argument is wanted "
    "in logarithms.": _loss(kl=lambda student, teacher: _kl(student, teacher, torch.softmax)),
    "alpha and 1 - alpha are exchanged. Try alpha = 1.": _loss(alpha_of=lambda alpha: 1 - alpha),
    "the cross-entropy is softened too. The label's part stays at T = 1.": _loss(soft_label=1),
    "the teacher is not softened. Both sides are at temperature T.": _loss(soft_teacher=0),
}

_CACHED, _CACHE = ["d", "a", "c", "b"], np.arange(8.0).reshape(4, 2)
_ID_CASES = [(list(ids), _CACHED, _CACHE) for ids in ("cabd", "db", "c", "ax")]


def _by_dictionary(ids, cached, cache):
    place = dict(zip(cached, cache, strict=True))
    return [place[name] for name in ids]


@variants
def _refusing(rows, ids, cached, cache):
    _by_dictionary(ids, cached, cache)
    return cache[rows(ids, cached)]


_ROWS = {
    "the cache is used as it lies. In which order?": _refusing(lambda ids, cached: range(len(ids))),
    "the index goes the wrong way. Is each number of it a row of the cache, "
    "or a place in ids?": _refusing(lambda ids, cached: [ids.index(i) for i in cached if i in ids]),
    "the right rows in the cache's order. All are there, but the first must belong to the "
    "first of ids.": _refusing(lambda ids, cached: [cached.index(i) for i in cached if i in ids]),
    "a missing id is passed over. Then every later row is another image's. Say so with "
    "an error.": lambda ids, *cached: _by_dictionary([i for i in ids if i in cached[0]], *cached),
}


@variants
def _size(features, hidden, classes, *, hidden_bias=1, bias=1, last=1, skipping=0):
    into_classes = hidden + bias + skipping * features
    return (features + hidden_bias) * hidden + last * into_classes * classes


_SIZE = {
    "the biases are missing. What else has a linear layer?": _size(hidden_bias=0, bias=0),
    "the output layer's bias is missing. Both layers have one.": _size(bias=0),
    "the last layer is missing. From the hidden one it must come to the classes.": _size(last=0),
    "features go straight to the classes as well. Nothing skips a layer.": _size(skipping=1),
}
_SIZE_PROBE = calls((3584, 1024, 8), (256, 1024, 8), (10, 3, 2))

EXERCISES = (
    Exercise("7.1", "The loss, from its formula", calls(*_LOSS_CASES), distillation_loss, _LOSS),
    Exercise("7.2", "Rows and ids", calls(*_ID_CASES), _by_dictionary, _ROWS),
    Exercise("7.3", "Parameters of a head", _SIZE_PROBE, _size(), _SIZE),
)
