"""Checks of lesson 8: answers as one-hot rows, a gate of two experts, the images a gate may
learn from."""

import numpy as np
import torch

from ..checks import Exercise, Mistake, attempted, calls

# ------------------------------------------------------------------------------------- one-hot rows

_CLASSES = ("amusement", "awe", "contentment", "anger", "fear")
_ANSWERS = (
    (["awe", None, "anger", "amusement", None], _CLASSES),
    (["fear", "joy", "awe"], _CLASSES),
    (["negative", "positive"], ("positive", "negative")),
)


def _one_hot_probe(function):
    measure = calls(*_ANSWERS)
    return [np.asarray(rows, dtype=float) for rows in measure(function)]


def _one_hot(outside):
    """One-hot rows in which an answer outside the set becomes what ``outside`` gives for C."""

    def rows(answers, classes):
        known = np.eye(len(classes))
        return np.array(
            [known[list(classes).index(a)] if a in classes else outside(classes) for a in answers]
        )

    return rows


def _without_invalid(answers, classes):
    return _one_hot(np.zeros_like)([a for a in answers if a in classes], classes)


def _alphabetical(answers, classes):
    return _right_one_hot(answers, sorted(classes))


def _indexes(answers, classes):
    return np.array([list(classes).index(a) if a in classes else -1 for a in answers])


_right_one_hot = _one_hot(lambda classes: np.zeros(len(classes)))

# -------------------------------------------------------------------------------------- two experts


def _expert_cases() -> list[tuple]:
    cases = []
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(8)
        for n, c in ((5, 4), (3, 8)):
            student, vlm = 2 * torch.randn(n, c), torch.randn(n, c).softmax(1)
            layers = [torch.nn.Linear(a, b) for a, b in ((c, c), (c, c), (2 * c, 2))]
            for layer in layers:
                torch.nn.init.normal_(layer.weight)
                torch.nn.init.normal_(layer.bias)
            cases.append((student, vlm, *(layer.requires_grad_(False) for layer in layers)))
    return cases


def _mixture(shares=lambda scores: scores.softmax(1), swap=False, **wrong):
    """A gate of two experts with one thing wrong."""

    def gate(student, vlm, student_expert, vlm_expert, router):
        both = [vlm, student] if wrong.get("router") else [student, vlm]
        share = shares(router(torch.cat(both, dim=1)))
        first, second = student_expert(student), vlm_expert(vlm)
        if wrong.get("experts"):
            first, second = student_expert(vlm), vlm_expert(student)
        if wrong.get("none"):
            first, second = student, vlm
        if wrong.get("distributions"):
            first, second = first.softmax(1), second.softmax(1)
        if swap:
            share = share.flip(1)
        return share[:, :1] * first + share[:, 1:] * second

    return gate


# ------------------------------------------------------------------------------- which images it may see

_IDS = ["val/b", "test/a", "train/c", "val/a", "train/a", "test/b", "train/b", "val/c"]
_TRAIN, _TEST = {"train/a", "train/b", "train/c"}, {"test/a", "test/b"}
_SEEN = (
    (_IDS, {"VLM": _TRAIN, "head": _TRAIN}, _TEST),
    (_IDS, {"VLM": _TRAIN | {"val/b"}, "head": _TRAIN}, _TEST),
    (_IDS, {"VLM": _TRAIN, "head": _TRAIN | {"val/a"}}, _TEST),
)


def _seen_probe(function):
    found = []
    for ids, learnt_from, reported in _SEEN:
        learnt = {part: set(names) for part, names in learnt_from.items()}
        answer = attempted(function(list(ids), learnt, set(reported)))
        found.append([str(x) for x in (sorted(answer) if isinstance(answer, set) else answer)])
    return found


def _gate_ids(leave_out):
    def ids_for(ids, learnt_from, reported):
        out = leave_out(learnt_from, reported)
        return [name for name in ids if name not in out]

    return ids_for


_right_ids = _gate_ids(lambda learnt, reported: learnt["VLM"] | learnt["head"] | reported)


def _learnt(ids, learnt_from, reported):
    return [name for name in ids if any(name in names for names in learnt_from.values())]


EXERCISES = (
    Exercise(
        "8.1",
        "An answer as numbers",
        _one_hot_probe,
        _right_one_hot,
        (
            Mistake(
                "an answer outside the set becomes the last class",
                "Whatever cannot be found has place -1 in your code. What does place -1 pick out of "
                "a list or an array?",
                _one_hot(lambda classes: np.eye(len(classes))[-1]),
            ),
            Mistake(
                "an answer outside the set becomes the first class",
                "No answer is not the first answer. Look at what your search gives when it finds "
                "nothing.",
                _one_hot(lambda classes: np.eye(len(classes))[0]),
            ),
            Mistake(
                "an answer outside the set is spread over all classes",
                "That is a fair guess of probabilities. A one-hot row, though, says what the model "
                "named: how many classes did it name?",
                _one_hot(lambda classes: np.full(len(classes), 1 / len(classes))),
            ),
            Mistake(
                "rows without an answer are left out",
                "Count your rows and the answers: every row after the first gap now stands beside "
                "another image.",
                _without_invalid,
            ),
            Mistake(
                "the columns are in alphabetical order",
                "Columns are in the order of classes, whatever that is. Look for what sorts in your "
                "code.",
                _alphabetical,
            ),
            Mistake(
                "the number of the class stands for its row",
                "A gate would read class 4 as four times as much as class 1. One row for each answer, "
                "one column for each class.",
                _indexes,
            ),
        ),
    ),
    Exercise(
        "8.2",
        "Two experts and a router",
        calls(*_expert_cases()),
        _mixture(),
        (
            Mistake(
                "the softmax is taken over the images",
                "The two shares of one image should sum to 1. Print the sums of your shares' rows and "
                "of their columns.",
                _mixture(lambda scores: scores.softmax(0)),
            ),
            Mistake(
                "the softmax is missing",
                "The router gives scores, which may be negative or large. What turns them into "
                "shares?",
                _mixture(lambda scores: scores),
            ),
            Mistake(
                "the shares do not sum to one",
                "Each share lies between 0 and 1, but look at their sum for one image.",
                _mixture(torch.sigmoid),
            ),
            Mistake(
                "one pair of shares serves all images",
                "The router should decide image by image. Over what did you average?",
                _mixture(lambda scores: scores.softmax(1).mean(0, keepdim=True).expand_as(scores)),
            ),
            Mistake(
                "the two shares are exchanged",
                "Which of the router's two outputs is the student's?",
                _mixture(swap=True),
            ),
            Mistake(
                "the router is shown the sides in the wrong order",
                "The router's weights expect the student's values first.",
                _mixture(router=True),
            ),
            Mistake(
                "each expert is given the other side",
                "An expert knows one side. Which?",
                _mixture(experts=True),
            ),
            Mistake(
                "the inputs are mixed, not what the experts say of them",
                "Two layers that you were given are not used.",
                _mixture(none=True),
            ),
            Mistake(
                "probabilities are mixed in place of logits",
                "A gate returns logits: the loss takes the softmax later. Is one taken before?",
                _mixture(distributions=True),
            ),
        ),
    ),
    Exercise(
        "8.3",
        "Which images may train the gate?",
        _seen_probe,
        _right_ids,
        (
            Mistake(
                "the gate is trained on the images of the final numbers",
                "Then no image is left on which its accuracy means anything.",
                lambda ids, learnt_from, reported: [name for name in ids if name in reported],
            ),
            Mistake(
                "images of the final numbers are among them",
                "Those that no part has learnt from are of two kinds. One kind must stay untouched "
                "to the end.",
                _gate_ids(lambda learnt, reported: learnt["VLM"] | learnt["head"]),
            ),
            Mistake(
                "the gate is trained on the parts' own training images",
                "There both sides are better than on any new image, and not equally so. This is the "
                "leak of this lesson.",
                _learnt,
            ),
            Mistake(
                "only the images that both sides have learnt from are left out",
                "Take an image that one of the two has learnt from. Does that side show there how good "
                "it is on new images?",
                _gate_ids(lambda learnt, reported: (learnt["VLM"] & learnt["head"]) | reported),
            ),
            Mistake(
                "images that the head has learnt from are among them",
                "The VLM is not the only side that is trained.",
                _gate_ids(lambda learnt, reported: learnt["VLM"] | reported),
            ),
            Mistake(
                "images that the VLM has learnt from are among them",
                "The head is not the only side that is trained.",
                _gate_ids(lambda learnt, reported: learnt["head"] | reported),
            ),
            Mistake(
                "the order of the ids is lost",
                "The right images, but the caches are addressed in the order of ids. A set has none.",
                lambda ids, learnt_from, reported: sorted(_right_ids(ids, learnt_from, reported)),
            ),
        ),
    ),
)
