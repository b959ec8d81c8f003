"""Checks of lesson 8: answers as one-hot rows, two experts, the images a gate may learn from."""

import numpy as np
import torch

from ..checks import Exercise, calls, variants

_CLASSES = ["amusement", "awe", "contentment", "anger", "fear"]
_ANSWERS_PROBE = calls(
    (["awe", None, "anger", "amusement", None], _CLASSES),
    (["fear", "joy", "awe"], _CLASSES),
    (["negative", "positive"], ["positive", "negative"]),
    (["Awe", "awesome", "fear"], ["awe", "Awe", "fear"]),
)


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
    "rows without an answer are left out. Every row after the first gap stands beside another "
    "image.": lambda answers, classes: _right_rows([a for a in answers if a in classes], classes),
    "letters are made small. Two classes may differ by a capital.": (
        lambda answers, classes: _right_rows([a and a.lower() for a in answers], classes)
    ),
    "a class inside a longer word counts. Is awesome a class?": lambda answers, classes: [
        [bool(a) and name in a for name in classes] for a in answers
    ],
    "the columns are in alphabetical order. They are in the order of classes, whatever that is. "
    "What sorts in your code?": lambda answers, classes: _right_rows(answers, sorted(classes)),
    "the number of the class stands for its row. A gate would read class 4 as four times class "
    "1.": lambda answers, classes: [classes.index(a) if a in classes else -1 for a in answers],
}


def _expert_case(n, c):
    student, vlm = 3 * torch.randn(2, n, c)
    widths = ((c, c), (c, c), (2 * c, 2))
    layers = [torch.nn.Linear(*width).requires_grad_(False) for width in widths]
    return (student, vlm.softmax(1), *layers)


with torch.random.fork_rng(devices=[]):
    torch.manual_seed(8)
    _EXPERT_CASES = [_expert_case(5, 4), _expert_case(3, 8)]

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
    "one pair of shares serves all images. The router should decide image by image. Over "
    "what is your mean?": _mixture(shares=lambda scores: scores.softmax(1).mean(0, keepdim=True)),
    "the two shares are exchanged. Which one is the student's?": _mixture(order=(1, 0)),
    "the router is shown the sides in the wrong order. Which comes first?": _mixture(routed=-1),
    "each expert is given the other side. An expert knows one of the two.": _mixture(shown=-1),
    "the inputs are mixed, not what the experts say of them. Two layers that you were "
    "given are not used.": lambda *given: _mixture()(*given[:2], _unchanged, _unchanged, given[4]),
    "probabilities are mixed in place of logits. Take no softmax.": _mixture(finished=_softmax),
}

_IDS = ["val/b", "test/a", "train/c", "val/a", "train/a", "test/b", "train/b", "val/c"]
_TRAIN, _TEST = {"train/a", "train/b", "train/c"}, {"test/a", "test/b"}
_IMAGES_PROBE = calls(
    (_IDS, {"VLM": _TRAIN, "head": _TRAIN}, _TEST),
    (_IDS, {"VLM": _TRAIN | {"val/b"}, "head": _TRAIN}, _TEST),
    (_IDS, {"VLM": _TRAIN, "head": _TRAIN | {"val/a"}}, _TEST),
    (_IDS, {"VLM": {"train/a"}, "head": {"val/a"}}, {"test/a", "val/b"}),
    read=lambda ids: [str(name) for name in (sorted(ids) if isinstance(ids, set) else ids)],
)


@variants
def _chosen(rule, ids, learnt_from, reported):
    wanted = rule(set(ids), learnt_from["VLM"], learnt_from["head"], reported)
    return [name for name in ids if name in wanted]


_right_ids = _chosen(lambda ids, vlm, head, reported: ids - vlm - head - reported)
_IMAGES = {
    "the gate is trained on the images of the final numbers. Then no image is left "
    "on which its accuracy means anything.": _chosen(lambda ids, vlm, head, reported: reported),
    "images of the final numbers are among them. Of what no part has learnt from, "
    "one kind must stay untouched.": _chosen(lambda ids, vlm, head, reported: ids - vlm - head),
    "the gate is trained on the parts' own training images. There both are better "
    "than on new ones, and not equally so.": _chosen(lambda ids, vlm, head, reported: vlm | head),
    "only the images that both sides have learnt from are left out. How good "
    "is the other there?": _chosen(lambda ids, vlm, head, reported: ids - (vlm & head) - reported),
    "images that the head has learnt from are among them. The VLM is not the "
    "only side that is trained.": _chosen(lambda ids, vlm, head, reported: ids - vlm - reported),
    "images that the VLM has learnt from are among them. The head is not the "
    "only side that is trained.": _chosen(lambda ids, vlm, head, reported: ids - head - reported),
    "the split's name decides. A name promises nothing.": _chosen(
        lambda ids, vlm, head, reported: {name for name in ids if name.startswith("val")}
    ),
    "the order of the ids is lost. A set has none.": lambda *given: sorted(_right_ids(*given)),
}

EXERCISES = (
    Exercise("8.1", "An answer as numbers", _ANSWERS_PROBE, _right_rows, _ONE_HOT),
    Exercise("8.2", "Two experts and a router", calls(*_EXPERT_CASES), _mixture(), _EXPERTS),
    Exercise("8.3", "Which images may train the gate?", _IMAGES_PROBE, _right_ids, _IMAGES),
)
