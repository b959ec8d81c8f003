"""Checks of lesson 8: answers as one-hot rows, two experts, the images a gate may learn from."""

import numpy as np
import torch

from ..checks import Exercise, calls, variants

_ANSWERS = {
    "an answer that is a class comes out wrong": (["awe"], ["fear", "awe", "anger"]),
    "an answer of None does not give a row of zeros": ([None], ["fear", "awe"]),
    "an answer outside the classes does not give a row of zeros": (["joy"], ["fear", "awe"]),
    "of several answers the rows or columns are mixed up": (
        ["awe", None, "fear", "awe"],
        ["fear", "awe"],
    ),
    "an answer that is nearly a class counts": (["Awe", "awesome", "aw"], ["awe", "Awe", "fear"]),
}
_MORE = (["awe", None, "anger", "joy", "amusement"], ["amusement", "awe", "contentment", "anger"])
_ANSWERS_PROBE = calls(*_ANSWERS.values(), _MORE, about=_ANSWERS)


@variants
def _one_hot(outside, answers, classes):
    rows = np.eye(len(classes))
    other, known = rows[outside].sum(0), dict(zip(classes, rows, strict=True))
    return [known.get(answer, other / max(1, other.sum())) for answer in answers]


_right_rows = _one_hot([])
_ONE_HOT = {
    "an answer outside the set becomes the last class. What does -1 pick out?": _one_hot([-1]),
    "an answer outside the set becomes the first class. Did it name that one?": _one_hot([0]),
    "an answer outside the set is spread over all classes. Are all named?": _one_hot(slice(None)),
}


def _layer(*rows):
    """A layer whose weights and, at the end of each row, biases are given."""
    table = torch.tensor(rows)
    layer = torch.nn.utils.skip_init(torch.nn.Linear, table.shape[1] - 1, len(rows))
    layer.weight.data, layer.bias.data = table[:, :-1], table[:, -1]
    return layer.requires_grad_(False)


_SIDES = torch.tensor([[[4.0, -1], [1, 2], [0, 3]], [[1, 0], [0, 1], [0, 1]]])  # student, VLM
_LAYERS = (_layer([1.0, 0, 1], [0, 2, 0]), _layer([3.0, 0, 0], [0, 1, 1]))
_IDLE, _ROUTER = _layer([0.0] * 5, [0.0] * 5), _layer([0.5, 0, 0, 1, 0], [0.0, 1, 0, 0, 1])
_GATED = {
    "the experts are used wrongly, where the router prefers none": (1, _IDLE),
    "the router's shares are used wrongly": (1, _ROUTER),
    "an image does not come out as it would alone": (3, _ROUTER),
}
_GATED_CASES = [(*_SIDES[:, :n], *_LAYERS, router) for n, router in _GATED.values()]
_GATED_PROBE = calls(*_GATED_CASES, about=_GATED)

_unchanged, _softmax = torch.nn.Identity(), torch.nn.Softmax(1)


@variants
def _mixture(*given, shares=_softmax, order=(0, 1), routed=1, shown=1, finished=_unchanged):
    sides, experts, router = given[:2], given[2:4], given[4]
    share = shares(router(torch.cat(sides[::routed], dim=1)))[:, order]  # (N, 2)
    judged = zip(experts, sides[::shown], strict=True)
    first, second = (finished(expert(side)) for expert, side in judged)  # (N, C) each
    return share[:, :1] * first + share[:, 1:] * second


_EXPERTS = {
    "the softmax is taken over the images. Do rows sum to 1?": _mixture(shares=torch.nn.Softmax(0)),
    "the softmax is missing. What turns scores into shares?": _mixture(shares=_unchanged),
    "the shares do not sum to one. Look at those of one image.": _mixture(shares=torch.sigmoid),
    "the two shares are exchanged. Which one is the student's?": _mixture(order=(1, 0)),
    "the router is shown the sides in the wrong order. Which comes first?": _mixture(routed=-1),
    "each expert is given the other side. An expert knows one of the two.": _mixture(shown=-1),
    "probabilities are mixed in place of logits. Take no softmax.": _mixture(finished=_softmax),
}

_MIXED = ["val/b", "test/a", "train/c", "val/a", "train/a", "test/b", "train/b", "val/c"]
_TRAIN, _TEST = {"train/a", "train/b", "train/c"}, {"test/a", "test/b"}
_SOURCES = {
    "an image that nobody has learnt from is left out": (["a"], set(), set(), {"b"}),
    "an image that the VLM has learnt from is among them": (["b", "a"], {"a"}, set(), set()),
    "an image that the head has learnt from is among them": (["b", "a"], set(), {"a"}, set()),
    "an image of the final numbers is among them": (["b", "a"], set(), set(), {"a"}),
    "an image is left out, or there twice, or in another place": (
        list("cadbe"),
        {"d"},
        {"x"},
        {"b"},
    ),
    "the split's name decides, which promises nothing": (_MIXED, {"val/a"}, {"test/a"}, {"val/b"}),
    "some image of many is wrong": (_MIXED, _TRAIN, _TRAIN | {"val/a"}, _TEST),
}
_IMAGES_PROBE = calls(
    *[(ids, {"VLM": vlm, "head": head}, rest) for ids, vlm, head, rest in _SOURCES.values()],
    read=lambda ids: [str(name) for name in (sorted(ids) if isinstance(ids, set) else ids)],
    about=_SOURCES,
)


@variants
def _chosen(rule, ids, learnt_from, reported):
    wanted = rule(set(ids), learnt_from["VLM"], learnt_from["head"], reported)
    return [name for name in ids if name in wanted]


_IMAGES = {
    "the gate is trained on the images of the final numbers. Then no image is left "
    "on which its accuracy means anything.": _chosen(lambda ids, vlm, head, reported: reported),
    "the gate is trained on the parts' own training images. There both are better "
    "than on new ones, and not equally so.": _chosen(lambda ids, vlm, head, reported: vlm | head),
    "only the images that both sides have learnt from are left out. How good "
    "is the other there?": _chosen(lambda ids, vlm, head, reported: ids - (vlm & head) - reported),
}
_right_ids = _chosen(lambda ids, vlm, head, reported: ids - vlm - head - reported)

EXERCISES = (
    Exercise("8.1", "An answer as numbers", _ANSWERS_PROBE, _right_rows, _ONE_HOT),
    Exercise("8.2", "Two experts and a router", _GATED_PROBE, _mixture(), _EXPERTS),
    Exercise("8.3", "Which images may train the gate?", _IMAGES_PROBE, _right_ids, _IMAGES),
)
