"""Checks of lesson 6: what was found by looking, held against ``key``, a table with all notes (6.1 to
6.3); McNemar's test, the oracle, kappa."""

import re
from functools import partial

import numpy as np
import pandas as pd
from scipy.stats import binom, binomtest, chi2
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS as FILLERS
from sklearn.metrics import cohen_kappa_score

from ..checks import Exercise, NotAttempted, calls, variants
from ..world.scenes import scene_objects

_EDGE = 0.01  # how far what is typed in the explorer may be from the limit


def _parts(answer):
    """The parts of an answer; NotAttempted where one that the reader gives is missing."""
    if not answer or any(part is None or part is ... for part in answer):
        raise NotAttempted
    return answer


def _known_ids(ids, key):
    found = list(dict.fromkeys([ids] if isinstance(ids, str) else map(str, ids)))
    if unknown := [image for image in found if image not in key.index]:
        raise ValueError(f"{unknown[0]!r} is no id of a test image: copy it from the explorer")
    return found


def _shown(selection):
    if not len(selection):
        raise ValueError("the explorer shows no image: click, or give ids to explorer.show")
    return list(selection.index)


def _noise(key):
    """Which labels are wrong, bool by id; None where the data do not tell."""
    noise = key.get("label_noise")
    return None if noise is None else noise.astype(str).str.lower().isin(["true", "1", "1.0"])


def _wrong_labels(answer):
    """Ids that are said to have a wrong label, and the key: what is wrong in a word, or ''."""
    ids, key = _parts(answer)
    found, noise = key.loc[_known_ids(ids, key)], _noise(key)
    if len(found) < 3:
        return "few"
    doubtful = found if noise is None else found[~noise[found.index]]
    if (doubtful["correct_a"] | doubtful["correct_b"]).any():
        return "model right"
    if noise is not None:
        return "label right" if len(doubtful) else ""
    return "no witnesses" if (found["predicted_a"] != found["predicted_b"]).any() else ""


def _word(text, known=()):
    """A noun as the data set writes it: lower case, no article, the plural taken back."""
    word = re.sub(r"^(an?|the) ", "", " ".join(str(text).lower().strip(" .,!?").split()))
    return word if word in known else word.removesuffix("s")


def _stands_in(word, reason):
    """Whether a word stands in a reason, be it in the plural, and is no mere part of another."""
    forms = "|".join(re.escape(word.removesuffix(end)) for end in ("es", "s", " "))
    return re.search(rf"\b({forms})(e?s)?\b", reason) is not None


def _object_missed(answer):
    """The explorer's selection, an object, what A takes it for, and the key: as above."""
    selection, thing, taken_for, key = _parts(answer)
    shown = key.loc[_shown(selection)]
    label = shown["label"].iloc[0]
    if (shown["label"] != label).any():
        return "several labels"
    if shown["correct_a"].any():
        return "right shown"
    led = key["cue"] == "content" if "cue" in key else pd.Series(True, key.index)
    if not led[shown.index].all():
        return "other cue"
    if len(shown) < ((key["label"] == label) & ~key["correct_a"] & led).sum():
        return "errors left out"
    if "objects" in shown:
        inside = shown["objects"].str.lower().str.split(";").explode().str.strip()
        thing = _word(thing, set(inside))
        if slip := _not_the_object(thing, inside, label):
            return slip
        selection = selection.loc[inside.index[inside == thing].unique()]
    if _word(taken_for, {thing}) == _word(thing, {thing}):
        return "the same"
    reasons = selection["reason"].dropna().str.lower() if "reason" in selection else []
    named = [_stands_in(_word(taken_for), text) for text in reasons]
    if named and set(re.findall(r"\w+", str(taken_for).lower())) <= FILLERS:
        return "filler"
    return "not named" if named and not any(named) else ""


def _not_the_object(thing, inside, label):
    """Why a thing is not the one of this emotion that is most often inside the images, or ''."""
    emotion = {known.noun: known.emotion for known in scene_objects()}
    counts = inside[[emotion.get(noun, label) == label for noun in inside]].value_counts()
    if thing not in set(inside):
        return "not there"
    if thing not in counts:
        return "neutral"
    return "less often" if counts[thing] < counts.max() else ""


def _sure_and_wrong(answer):
    """The explorer's selection, two ids, the limit, and the key: as above."""
    selection, ids, sure, key = _parts(answer)
    shown, ids, noise = key.loc[_shown(selection)], _known_ids(ids, key), _noise(key)
    if sure > 1:
        raise ValueError("sure is a probability, from 0 to 1")
    if shown["correct_a"].any():
        return "right shown"
    if (shown["confidence_a"] < sure - _EDGE).any():
        return "B is sure" if (shown["confidence_b"] >= sure - _EDGE).all() else "not sure"
    wanted = key[~key["correct_a"] & (key["confidence_a"] >= sure + _EDGE)]
    if set(wanted["cell"]) - set(shown["cell"]):
        return "one cell"
    if not set(wanted.index) <= set(shown.index):
        return "some left out"
    if len(ids) < 2:
        return "few"
    if not set(ids) <= set(shown.index):
        return "not shown"
    return "label wrong" if noise is not None and noise[ids].any() else ""


_COLUMNS = "label emotion cue objects predicted_a confidence_a predicted_b confidence_b reason"
_IMAGES = (
    ("fear", "fear", "content", "spider", "sadness", 0.9, "awe", 0.4, "The key is small."),
    ("fear", "fear", "content", "spider;lamp", "sadness", 0.8, "fear", 0.5, "A lamp glows."),
    ("fear", "fear", "content", "lamp;snake", "anger", 0.6, "awe", 0.9, "The lamp glows."),
    ("fear", "fear", "content", "lamp;ghost", "fear", 0.9, "awe", 0.4, None),
    ("fear", "fear", "content", "skull", "fear", 0.7, "fear", 0.9, None),
    ("fear", "fear", "atmosphere", "lamp", "sadness", 0.5, "fear", 0.8, None),
    ("anger", "anger", "content", "bull", "awe", 0.4, "anger", 0.3, "The planet is far."),
    ("anger", "fear", "content", "ghost", "fear", 0.99, "fear", 0.95, "The ghost appears."),
    ("awe", "fear", "content", "skull;key", "fear", 0.95, "fear", 0.9, "The skull is a sign."),
    ("anger", "awe", "both", "planet", "awe", 0.9, "awe", 0.8, None),
    ("awe", "sadness", "content", "coffin", "sadness", 0.7, "awe", 0.3, None),
    ("sadness", "sadness", "both", "coffin", "fear", 0.9, "fear", 0.8, None),
    ("awe", "awe", "atmosphere", "chair", "anger", 0.3, "sadness", 0.9, None),
)

_KEY = pd.DataFrame(_IMAGES, columns=_COLUMNS.split())
_KEY.index = [f"test/{k:05d}.png" for k in _KEY.index]
_KEY["correct_a"], _KEY["correct_b"] = (_KEY[f"predicted_{s}"] == _KEY["label"] for s in "ab")
_CELLS = np.array(["both", "a", "b", "neither"], dtype=object)
_KEY["cell"] = _CELLS[3 - 2 * _KEY["correct_a"] - _KEY["correct_b"]]
_KEY["label_noise"] = _KEY["emotion"] != _KEY["label"]
_UNKNOWN = _KEY.drop(columns=["emotion", "label_noise"])


def _ids(*places):
    return list(_KEY.index[list(places)])


def _missed(*places, thing="spider", taken_for="lamp"):
    return _UNKNOWN.drop(columns="objects").loc[_ids(*places)], thing, taken_for, _KEY


def _sure(*places, pair=(0, 1)):
    return _UNKNOWN.loc[_ids(*places)], _ids(*pair), 0.75, _KEY


_SURE_ROWS = (0, 1, 7, 8, 9, 11)

_LABELS = {
    "fewer than three images. Are two of yours the same?": (_ids(7, 8, 7), _KEY),
    "a model is right about one of them. Where would both be against it?": (_ids(7, 8, 3), _KEY),
    "the label of one of them is right. Look in your images for what the label means: it may be "
    "small, dark, or one of three. Both models can fall for the same look.": (_ids(7, 8, 11), _KEY),
    "the two models do not say the same of one of them. Where do both?": (_ids(7, 8, 12), _UNKNOWN),
}

_OBJECTS = {
    "images of several labels are shown. Which column holds the label?": _missed(0, 1, 2, 6),
    "images that A gets right are shown. Which two areas hold its errors?": _missed(0, 1, 2, 3),
    "images of another cue are shown. Which column holds the cue?": _missed(0, 1, 2, 5),
    "some of A's errors are left out. Are both areas there? What else is chosen?": _missed(0, 2),
    "the object is on none of these images. Name it plainly.": _missed(0, 1, 2, thing="octopus"),
    "the object says nothing about the emotion. It is there by chance. "
    "What on these images makes the label true?": _missed(0, 1, 2, thing="lamp", taken_for="key"),
    "another object of this emotion is missed more often. Count.": _missed(0, 1, 2, thing="snake"),
    "it is the object itself. For what does A take it?": _missed(0, 1, 2, taken_for="spiders"),
    "such a word names no thing. For what does A take it?": _missed(0, 1, 2, taken_for="the"),
    "A's reasons do not say that. Use a word of a reason.": _missed(0, 1, 2, taken_for="planet"),
}

_SURE = {
    "images that A gets right are shown. Which areas hold A's errors?": _sure(*_SURE_ROWS, 3),
    "the probability is B's. Which one is A's?": _sure(2, 7, 8, 12, pair=(2, 12)),
    "images are shown of which A is not sure. Set the lower end.": _sure(*_SURE_ROWS, 2),
    "one of the two cells is left out. B may be right too.": _sure(0, 7, 8, 9, 11, pair=(0, 11)),
    "some images are left out. What is chosen beyond cell and probability?": _sure(0, 1, 7),
    "fewer than two images. What is common takes two.": _sure(*_SURE_ROWS, pair=(0,)),
    "one of the two is not among the images shown. Choose anew.": _sure(*_SURE_ROWS, pair=(0, 2)),
    "the label of one of the two is wrong. Look once more.": _sure(*_SURE_ROWS, pair=(0, 7)),
}


def _rights(*cells):
    """Two arrays of what is right, for the counts both, only A, only B, neither, in a mixed order."""
    pairs = np.array([[1, 1], [1, 0], [0, 1], [0, 0]], dtype=bool).repeat(cells, axis=0)
    return tuple(np.random.default_rng(cells[0]).permutation(pairs).T)


_TESTS = {
    "it is wrong already where on every image just one is right, A more often": _rights(0, 3, 1, 0),
    "it is wrong where B is the better one": _rights(0, 1, 4, 0),
    "it is wrong where both win as often": _rights(0, 2, 2, 0),
    "images on which both are right, or none, change it": _rights(3, 3, 0, 2),
    "it is wrong for many images": _rights(30, 14, 5, 11),
}
_TEST_PROBE = calls(*_TESTS.values(), about=_TESTS)


@variants
def _of_cells(measure, a, b):
    return measure(*(int(cell.sum()) for cell in (a & ~b, ~a & b, a & b, ~a & ~b)))


_tail = partial(binom.cdf, p=0.5)
_exact = _of_cells(lambda x, y, *rest: binomtest(x, x + y).pvalue)

_MCNEMAR = {
    "the test is one-sided. An outcome as uneven the other "
    "way would have surprised you as much.": _of_cells(lambda x, y, *rest: _tail(min(x, y), x + y)),
    "the probability goes above 1. With equal counts the two tails share the middle. "
    "What can it be at most?": _of_cells(lambda x, y, *rest: 2 * _tail(min(x, y), x + y)),
    "it is the chi-square approximation. That is for large counts. The exact test "
    "counts tosses of a coin.": _of_cells(lambda x, y, *rest: chi2.sf((x - y) ** 2 / (x + y), 1)),
    "every image is a toss of the coin. It is tossed where just one is right. How "
    "many tosses are that?": _of_cells(lambda x, y, *rest: 2 * _tail(min(x, y), x + y + sum(rest))),
    "the tail is always that of the first model. Exchange the two models: p should stay. "
    "Which count begins the tail?": _of_cells(lambda x, y, *rest: min(1.0, 2 * _tail(x, x + y))),
}


@variants
def _of_hits(measure, predicted, labels):
    return measure(predicted == labels)  # bool (models, images): who is right where


_oracle = _of_hits(lambda hits: hits.any(0).mean())
_ORACLE = {
    "accuracies are added. Can the sum pass 1?": _of_hits(lambda hits: hits.mean(1).sum()),
    "it is the best single model. Choose by image.": _of_hits(lambda hits: hits.mean(1).max()),
    "all models have to be right. One is enough.": _of_hits(lambda hits: hits.all(0).mean()),
    "it is the mean accuracy. A model drawn at random has that.": _of_hits(np.mean),
    "it is taken over the wrong axis. Rows are models.": _of_hits(lambda hits: hits.any(1).mean()),
}
_MODELS = {  # what each model says of each image, and the labels
    "it is wrong already for one model alone": ([[0, 1, 1]], [0, 0, 1]),
    "what one of two models gets right counts wrongly": ([[0, 1, 0], [2, 0, 2]], [0, 0, 1]),
    "what both models get right counts wrongly": ([[0, 1, 0, 1], [0, 1, 2, 2]], [0, 1, 1, 0]),
    "of several models not each counts": (
        *([[0, 1, 2, 2, 0], [0, 2, 0, 1, 1], [1, 2, 1, 1, 0], [1, 2, 1, 0, 0]], [0, 1, 0, 0, 2]),
    ),
}
_ORACLE_PROBE = calls(*[[*map(np.array, case)] for case in _MODELS.values()], about=_MODELS)


def _agreement(a, b, *labels):
    return np.mean(np.array(a) == np.array(b))


def _expected(a, b):
    return sum(a.count(name) * b.count(name) for name in {*a}) / len(a) ** 2


@variants
def _kappa(a, b, labels, *, chance=_expected):
    return 1 - (1 - _agreement(a, b)) / (1 - chance(a, b))


_KAPPA = {
    "chance is not taken off. Two constant answers agree too.": _agreement,
    "right and wrong are compared, not the classes. Two wrong ones may "
    "differ.": lambda a, b, labels: cohen_kappa_score(np.equal(a, labels), np.equal(b, labels)),
    "accuracy stands in place of agreement. You compare with the labels. "
    "Whom must the model's answer equal?": lambda a, b, labels: cohen_kappa_score(a, labels),
    "all classes are taken to be equally frequent. How often does each model give "
    "each class?": _kappa(chance=lambda a, b: 1 / len({*a, *b})),
}
_LISTS = {
    "two models that always agree do not come to 1": "awe fear awe/awe fear awe/fear fear awe",
    "two models that agree as often as chance do not come to 0": (
        "awe awe fear fear/awe fear awe fear/awe awe fear joy"
    ),
    "two models that agree less often than chance come out wrong": (
        "awe awe awe fear fear/fear fear awe awe awe/fear awe awe fear awe"
    ),
    "where one model gives a class more often, kappa is wrong": (
        "awe awe awe awe fear fear/awe fear awe fear fear fear/awe awe fear fear awe fear"
    ),
    "a class that no label has, or one model never gives, counts wrongly": (
        "awe awe fear joy awe/awe fear fear joy joy/awe fear awe awe fear"
    ),
    "three classes of different frequencies come out wrong": (
        "awe awe awe awe awe fear fear joy/awe awe awe joy fear fear joy joy/"
        "awe awe fear awe fear awe fear joy"
    ),
}
_LIST_CASES = [tuple(part.split() for part in text.split("/")) for text in _LISTS.values()]
_KAPPA_PROBE = calls(*_LIST_CASES, about=_LISTS)

EXERCISES = (
    Exercise("6.1", "Three wrong labels", _wrong_labels, (_ids(7, 8, 9), _KEY), _LABELS),
    Exercise("6.2", "What A takes for something else", _object_missed, _missed(0, 1, 2), _OBJECTS),
    Exercise("6.3", "Sure and wrong", _sure_and_wrong, _sure(*_SURE_ROWS), _SURE),
    Exercise("6.4", "McNemar's exact test", _TEST_PROBE, _exact, _MCNEMAR),
    Exercise("6.5", "The oracle of many models", _ORACLE_PROBE, _oracle, _ORACLE),
    Exercise("6.6", "Kappa from two lists of answers", _KAPPA_PROBE, _kappa(), _KAPPA),
)
