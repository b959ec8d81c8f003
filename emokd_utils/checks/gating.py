"""Checks of lesson 8: answers as one-hot rows, a gate of two experts, the images a gate may
learn from."""

import numpy as np
import torch

from ..checks import Exercise, calls

_CLASSES = ["amusement", "awe", "contentment", "anger", "fear"]


def _one_hot(outside):
    """One-hot rows in which an answer outside the set becomes what ``outside`` gives for C."""

    def rows(answers, classes):
        known = np.eye(len(classes))
        return [known[classes.index(a)] if a in classes else outside(len(classes)) for a in answers]

    return rows


_right_rows = _one_hot(np.zeros)

ONE_HOT = Exercise(
    "8.1",
    "An answer as numbers",
    calls(
        (["awe", None, "anger", "amusement", None], _CLASSES),
        (["fear", "joy", "awe"], _CLASSES),
        (["negative", "positive"], ["positive", "negative"]),
    ),
    _right_rows,
    {
        "an answer outside the set becomes the last class. Whatever cannot be found has place -1 "
        "in your code. What does place -1 pick out of a list or "
        "an array?": _one_hot(lambda n: np.eye(n)[-1]),
        "an answer outside the set becomes the first class. No answer is not the first answer. "
        "Look at what your search gives when it finds nothing.": _one_hot(lambda n: np.eye(n)[0]),
        "an answer outside the set is spread over all classes. That is a fair guess of "
        "probabilities. A one-hot row, though, says what the model named: how many classes did it "
        "name?": _one_hot(lambda n: np.full(n, 1 / n)),
        "rows without an answer are left out. Count your rows and the answers: every row after the "
        "first gap now stands beside another image.": (
            lambda answers, classes: _right_rows([a for a in answers if a in classes], classes)
        ),
        "the columns are in alphabetical order. Columns are in the order of classes, whatever that "
        "is. Look for what sorts in "
        "your code.": lambda answers, classes: _right_rows(answers, sorted(classes)),
        "the number of the class stands for its row. A gate would read class 4 as four times as "
        "much as class 1. One row for each answer, one column for each class.": (
            lambda answers, classes: [classes.index(a) if a in classes else -1 for a in answers]
        ),
    },
)


def _expert_cases() -> list[tuple]:
    """Student logits, VLM probabilities, two experts and a router."""
    draw = torch.Generator().manual_seed(8)
    cases = []
    for n, c in ((5, 4), (3, 8)):
        student, vlm = (torch.randn(n, c, generator=draw) for _ in range(2))
        layers = []
        for width_in, width_out in ((c, c), (c, c), (2 * c, 2)):
            layer = torch.nn.utils.skip_init(torch.nn.Linear, width_in, width_out)
            layers.append(layer.requires_grad_(False))
            layer.weight.normal_(generator=draw)
            layer.bias.normal_(generator=draw)
        cases.append((2 * student, vlm.softmax(1), *layers))
    return cases


def _mixture(
    shares=lambda scores: scores.softmax(1),
    routed=lambda student, vlm: (student, vlm),
    said=lambda student, vlm, expert, other: (expert(student), other(vlm)),
    finished=lambda logits: logits,
):
    """A gate of two experts with one thing wrong."""

    def gate(student, vlm, student_expert, vlm_expert, router):
        share = shares(router(torch.cat(routed(student, vlm), dim=1)))
        first, second = map(finished, said(student, vlm, student_expert, vlm_expert))
        return share[:, :1] * first + share[:, 1:] * second

    return gate


EXPERTS = Exercise(
    "8.2",
    "Two experts and a router",
    calls(*_expert_cases()),
    _mixture(),
    {
        "the softmax is taken over the images. The two shares of one image should sum to 1. Print "
        "the sums of your shares' rows and of "
        "their columns.": _mixture(lambda scores: scores.softmax(0)),
        "the softmax is missing. The router gives scores, which may be negative or large. What "
        "turns them into shares?": _mixture(lambda scores: scores),
        "the shares do not sum to one. Each share lies between 0 and 1, but look at their sum for "
        "one image.": _mixture(torch.sigmoid),
        "one pair of shares serves all images. The router should decide image by image. Over what "
        "did you average?": _mixture(lambda scores: scores.softmax(1).mean(0, keepdim=True)),
        "the two shares are exchanged. Which of the router's two outputs is "
        "the student's?": _mixture(lambda scores: scores.softmax(1).flip(1)),
        "the router is shown the sides in the wrong order. The router's weights expect the "
        "student's values first.": _mixture(routed=lambda student, vlm: (vlm, student)),
        "each expert is given the other side. An expert knows one side. Which?": _mixture(
            said=lambda student, vlm, expert, other: (expert(vlm), other(student))
        ),
        "the inputs are mixed, not what the experts say of them. Two layers that you were given "
        "are not used.": _mixture(said=lambda student, vlm, *experts: (student, vlm)),
        "probabilities are mixed in place of logits. A gate returns logits: the loss takes the "
        "softmax later. Is one taken before?": _mixture(finished=lambda logits: logits.softmax(1)),
    },
)

_IDS = ["val/b", "test/a", "train/c", "val/a", "train/a", "test/b", "train/b", "val/c"]
_TRAIN, _TEST = {"train/a", "train/b", "train/c"}, {"test/a", "test/b"}


def _ids_without(left_out):
    """The ids without what ``left_out`` gives for the VLM's, the head's and the reported images."""

    def ids_for(ids, learnt_from, reported):
        out = left_out(learnt_from["VLM"], learnt_from["head"], reported)
        return [name for name in ids if name not in out]

    return ids_for


_right_ids = _ids_without(lambda vlm, head, reported: vlm | head | reported)

IMAGES = Exercise(
    "8.3",
    "Which images may train the gate?",
    calls(
        (_IDS, {"VLM": _TRAIN, "head": _TRAIN}, _TEST),
        (_IDS, {"VLM": _TRAIN | {"val/b"}, "head": _TRAIN}, _TEST),
        (_IDS, {"VLM": _TRAIN, "head": _TRAIN | {"val/a"}}, _TEST),
        read=lambda ids: [str(name) for name in (sorted(ids) if isinstance(ids, set) else ids)],
    ),
    _right_ids,
    {
        "the gate is trained on the images of the final numbers. Then no image is left on which "
        "its accuracy means "
        "anything.": lambda ids, learnt_from, reported: [name for name in ids if name in reported],
        "images of the final numbers are among them. Those that no part has learnt from are of two "
        "kinds. One kind must stay untouched to "
        "the end.": _ids_without(lambda vlm, head, reported: vlm | head),
        "the gate is trained on the parts' own training images. There both sides are better than "
        "on any new image, and not equally so. This is the leak of this lesson.": (
            lambda ids, learnt_from, reported: [
                name for name in ids if any(name in names for names in learnt_from.values())
            ]
        ),
        "only the images that both sides have learnt from are left out. Take an image that one of "
        "the two has learnt from. Does that side show there how good it is on "
        "new images?": _ids_without(lambda vlm, head, reported: (vlm & head) | reported),
        "images that the head has learnt from are among them. The VLM is not the only side that is "
        "trained.": _ids_without(lambda vlm, head, reported: vlm | reported),
        "images that the VLM has learnt from are among them. The head is not the only side that is "
        "trained.": _ids_without(lambda vlm, head, reported: head | reported),
        "the order of the ids is lost. The right images, but the caches are addressed in the order "
        "of ids. A set has none.": lambda *given: sorted(_right_ids(*given)),
    },
)

EXERCISES = (ONE_HOT, EXPERTS, IMAGES)
