"""Checks of lesson 6 (6.1 to 6.3): what was found by looking.

What a reader finds in the explorer is held against ``key``: its table, with those notes of the data
set that it held back. Nothing here is a list of ids, so the checks do as well for other data and
seeds.
"""

import numpy as np
import pandas as pd

from ..checks import Exercise, Mistake, NotAttempted
from ..world.scenes import scene_objects


def mistakes(table):
    """Mistakes from ``"name. Where to look"`` -> an example."""
    return tuple(Mistake(*text.split(". ", 1), example) for text, example in table.items())


_EDGE = 0.01  # how far what is typed in the explorer may be from the limit


def _parts(answer, count):
    """The parts of an answer; NotAttempted where one that the reader gives is missing."""
    if isinstance(answer, tuple) and len(answer) == count:
        if any(part is None or part is ... for part in answer):
            raise NotAttempted
        return answer
    if answer is None or not len(answer):
        raise NotAttempted
    raise ValueError("leave the checking cell as it is, and answer in the cell above it")


def _known_ids(ids, key):
    """Different ids in a list, all of which the key has."""
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
    if "label_noise" in key:
        return key["label_noise"].astype(str).str.lower().isin(["true", "1", "1.0"])
    return key["emotion"] != key["label"] if "emotion" in key else None


def _wrong_labels(answer):
    """Ids that are said to have a wrong label, and the key: what is wrong in a word, or ''."""
    ids, key = _parts(answer, 2)
    found = key.loc[_known_ids(ids, key)]
    if len(found) < 3:
        return "few"
    noise = _noise(key)
    doubtful = found if noise is None else found[~noise[found.index]]
    if (doubtful["correct_a"] | doubtful["correct_b"]).any():
        return "model right"
    if noise is not None:
        return "label right" if len(doubtful) else ""
    same = doubtful["predicted_a"] == doubtful["predicted_b"]
    return "" if same.all() else "no witnesses"


def _word(text, known=()):
    """A noun as the data set writes it: lower case, no article, the plural taken back."""
    word = " ".join(str(text).lower().split())
    for article in ("a ", "an ", "the "):
        word = word.removeprefix(article)
    return word.removesuffix("s") if word not in known else word


def _object_missed(answer):
    """The explorer's selection, an object, what A takes it for, and the key: as above."""
    selection, thing, taken_for, key = _parts(answer, 4)
    shown = key.loc[_shown(selection)]
    labels = shown["label"].unique()
    if len(labels) > 1:
        return "several labels"
    if shown["correct_a"].any():
        return "right shown"
    wanted = key[(key["label"] == labels[0]) & ~key["correct_a"]]
    if "cue" in key:
        if (shown["cue"] != "content").any():
            return "other cue"
        wanted = wanted[wanted["cue"] == "content"]
    if len(shown) < len(wanted):
        return "errors left out"
    return _named(selection, thing, taken_for, shown, labels[0])


def _named(selection, thing, taken_for, shown, label):
    """Of images of one label: whether the object is the one that is missed most often."""
    thing, taken_for = str(thing), str(taken_for).lower().strip()
    has_it = pd.Series(True, shown.index)
    if "objects" in shown:
        inside = shown["objects"].str.lower().str.split(";").explode().str.strip()
        thing = _word(thing, set(inside))
        has_it = (inside == thing).groupby(level=0).any().reindex(shown.index)
        if not has_it.any():
            return "not there"
        emotion = {known.noun: known.emotion for known in scene_objects()}
        if emotion.get(thing, label) != label:
            return "neutral"
        counts = inside[[emotion.get(noun, label) == label for noun in inside]].value_counts()
        if counts[thing] < counts.max():
            return "less often"
    if _word(taken_for, {thing}) == _word(thing, {thing}):
        return "the same"
    if "reason" in selection:
        reasons = selection.loc[has_it.index[has_it], "reason"].dropna().str.lower()
        if len(reasons) and not any(_word(taken_for) in text for text in reasons):
            return "not named"
    return ""


def _sure_and_wrong(answer):
    """The explorer's selection, two ids, the limit, and the key: as above."""
    selection, ids, sure, key = _parts(answer, 4)
    shown, ids = key.loc[_shown(selection)], _known_ids(ids, key)
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
    noise = _noise(key)
    return "label wrong" if noise is not None and noise[ids].any() else ""


def _small_key():
    """A key of made-up images: label, emotion, cue, objects, A's and B's answer with probability,
    and A's reason."""
    rows = [
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
    ]
    names = ["label", "emotion", "cue", "objects", "predicted_a", "confidence_a"]
    names += ["predicted_b", "confidence_b", "reason"]
    key = pd.DataFrame(rows, columns=names, index=[f"test/{k:05d}.png" for k in range(len(rows))])
    key["correct_a"], key["correct_b"] = (key[f"predicted_{s}"] == key["label"] for s in "ab")
    cells = np.array(["both", "a", "b", "neither"], dtype=object)
    key["cell"] = cells[3 - 2 * key["correct_a"] - key["correct_b"]]
    return key.assign(label_noise=key["emotion"] != key["label"])


_KEY = _small_key()
_UNKNOWN = _KEY.drop(columns=["emotion", "label_noise"])


def _ids(*places):
    return list(_KEY.index[list(places)])


def _rows(*places):
    """A selection of the small key, as the explorer gives it."""
    return _UNKNOWN.drop(columns="objects").loc[_ids(*places)]


def _missed(*places, thing="spider", taken_for="lamp"):
    """An answer to 6.2 on the small key."""
    return _rows(*places), thing, taken_for, _KEY


def _sure(*places, pair=(0, 1)):
    """An answer to 6.3 on the small key."""
    return _rows(*places), _ids(*pair), 0.75, _KEY


_SURE_ROWS = (0, 1, 7, 8, 9, 11)

LABELS = Exercise(
    "6.1",
    "Three wrong labels",
    _wrong_labels,
    (_ids(7, 8, 9), _KEY),
    mistakes(
        {
            "fewer than three images. Three different ones are wanted. Are two of yours the "
            "same?": (_ids(7, 8, 7), _KEY),
            "a model is right about one of them. There a model says what the label says, and the "
            "label is right. Where would both models be against a label?": (_ids(7, 8, 3), _KEY),
            "the label of one of them is right. Open your images once more and look for what the "
            "label means: the thing may be small, dark, or one of three. Models can fall for the "
            "same look together.": (_ids(7, 8, 11), _KEY),
            "the two models do not say the same of one of them. This data set does not tell which "
            "labels are wrong. The best hint is that both models name the same other "
            "class.": (_ids(7, 8, 12), _UNKNOWN),
        }
    ),
)

OBJECT = Exercise(
    "6.2",
    "What A takes for something else",
    _object_missed,
    _missed(0, 1, 2),
    mistakes(
        {
            "images of several labels are shown. Choose one label. Which column holds it?": _missed(
                0, 1, 2, 6
            ),
            "images that A gets right are shown. Which two of the four areas hold what A gets "
            "wrong?": _missed(0, 1, 2, 3),
            "images of another cue are shown. On those the thing is not what the emotion comes "
            "from, or not alone. Which column holds the cue?": _missed(0, 1, 2, 5),
            "some of A's errors are left out. A is wrong in two of the four areas; are both there? "
            "And is nothing chosen beyond cell, label and cue?": _missed(0, 2),
            "the object is on none of these images. Name it by one plain noun, in the singular. "
            "What would you call it if a child asked?": _missed(0, 1, 2, thing="octopus"),
            "the object says nothing about the emotion. It is there by chance, and would be as "
            "often on images of any label. What on these images makes the label "
            "true?": _missed(0, 1, 2, thing="lamp", taken_for="key"),
            "another object of this emotion is missed more often. Count the objects of this "
            "emotion over all the images shown.": _missed(0, 1, 2, thing="snake"),
            "it is the object itself. There A sees the thing and draws another conclusion. Look "
            "for a reason that names something else in its "
            "place.": _missed(0, 1, 2, taken_for="spiders"),
            "A's reasons do not say that. Open the images that show your object and read the VLM's "
            "reason. Use a word of it.": _missed(0, 1, 2, taken_for="planet"),
        }
    ),
)

SURE = Exercise(
    "6.3",
    "Sure and wrong",
    _sure_and_wrong,
    _sure(*_SURE_ROWS),
    mistakes(
        {
            "images that A gets right are shown. You want A's errors. Which two of the four areas "
            "hold them?": _sure(*_SURE_ROWS, 3),
            "the probability is B's. It is A that should be sure. Which of the two confidences is "
            "A's?": _sure(2, 7, 8, 12, pair=(2, 12)),
            "images are shown of which A is not sure. The lower end of A's probability is below "
            "the limit, or is not set.": _sure(*_SURE_ROWS, 2),
            "one of the two cells is left out. A may be wrong where B is right, and where B is "
            "wrong too.": _sure(0, 7, 8, 9, 11, pair=(0, 11)),
            "some images are left out. Both areas are there, but something more than cell and "
            "probability is chosen.": _sure(0, 1, 7),
            "fewer than two images. What is common takes two.": _sure(*_SURE_ROWS, pair=(0,)),
            "one of the two is not among the images shown. Choose both among those that the "
            "explorer shows.": _sure(*_SURE_ROWS, pair=(0, 2)),
            "the label of one of the two is wrong. There the label is in error, and not A. Say "
            "aloud what is in the picture, then read the label.": _sure(*_SURE_ROWS, pair=(0, 7)),
        }
    ),
)

EXERCISES = (LABELS, OBJECT, SURE)
