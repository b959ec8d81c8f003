"""Checks of lesson 6: what was found by looking, McNemar's test, the oracle, kappa.

What a reader finds in the explorer is held against ``key``: a row for each image in the columns of
`Explorer.selection`, and those notes of the data set that the explorer held back. Nothing here is
a list of ids, so the checks do as well for other data and seeds.
"""

from math import comb, erfc, sqrt

import numpy as np
import pandas as pd

from ..checks import Exercise, Mistake, NotAttempted, calls
from ..world.scenes import scene_objects

# ------------------------------------------------------------------------- 6.1 to 6.3, by looking

_FEW_LABELS = "fewer than three images"
_MODEL_RIGHT = "a model is right about one of them"
_LABEL_RIGHT = "the label of one of them is right"
_NO_WITNESSES = "the two models do not say the same of one of them"

_SEVERAL_LABELS = "the view shows images of several labels"
_RIGHT_SHOWN = "the view shows images that A gets right"
_OTHER_CUE = "the view shows images of another cue"
_ERRORS_LEFT_OUT = "the view leaves out some of A's errors"
_NOT_THERE = "the object is on none of these images"
_NEUTRAL = "the object says nothing about the emotion"
_LESS_OFTEN = "another object of this emotion is missed more often"
_THE_SAME = "it is the object itself"
_NOT_NAMED = "A's reasons do not say that"

_ONE_CELL = "the view leaves out one of the two cells"
_B_IS_SURE = "the probability is B's"
_NOT_SURE = "the view shows images of which A is not sure"
_SOME_LEFT_OUT = "the view leaves out some images"
_FEW_SURE = "fewer than two images"
_NOT_SHOWN = "one of the two is not among the images shown"
_LABEL_WRONG = "the label of one of the two is wrong"
_EDGE = 0.01  # how far a slider may be from the limit


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
        raise ValueError("no image passes the filters: set explorer.view first")
    return list(selection.index)


def _noise(key):
    """Which labels are wrong, bool by id; None where the data do not tell."""
    if "label_noise" in key:
        return key["label_noise"].astype(str).str.lower().isin(["true", "1", "1.0"])
    return key["emotion"] != key["label"] if "emotion" in key else None


def _wrong_labels(answer):
    """Ids that are said to have a wrong label, and the key: the name of what is wrong, or ''."""
    ids, key = _parts(answer, 2)
    found = key.loc[_known_ids(ids, key)]
    if len(found) < 3:
        return _FEW_LABELS
    noise = _noise(key)
    doubtful = found if noise is None else found[~noise[found.index]]
    if (doubtful["correct_a"] | doubtful["correct_b"]).any():
        return _MODEL_RIGHT
    if noise is not None:
        return _LABEL_RIGHT if len(doubtful) else ""
    same = doubtful["predicted_a"] == doubtful["predicted_b"]
    return "" if same.all() else _NO_WITNESSES


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
        return _SEVERAL_LABELS
    if shown["correct_a"].any():
        return _RIGHT_SHOWN
    wanted = key[(key["label"] == labels[0]) & ~key["correct_a"]]
    if "cue" in key:
        if (shown["cue"] != "content").any():
            return _OTHER_CUE
        wanted = wanted[wanted["cue"] == "content"]
    if len(shown) < len(wanted):
        return _ERRORS_LEFT_OUT
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
            return _NOT_THERE
        emotion = {one.noun: one.emotion for one in scene_objects()}
        if emotion.get(thing, label) != label:
            return _NEUTRAL
        counts = inside[[emotion.get(noun, label) == label for noun in inside]].value_counts()
        if counts[thing] < counts.max():
            return _LESS_OFTEN
    if _word(taken_for, {thing}) == _word(thing, {thing}):
        return _THE_SAME
    if "reason" in selection:
        reasons = selection.loc[has_it.index[has_it], "reason"].dropna().str.lower()
        if len(reasons) and not any(_word(taken_for) in text for text in reasons):
            return _NOT_NAMED
    return ""


def _sure_and_wrong(answer):
    """The explorer's selection, two ids, the limit, and the key: as above."""
    selection, ids, sure, key = _parts(answer, 4)
    shown, ids = key.loc[_shown(selection)], _known_ids(ids, key)
    if shown["correct_a"].any():
        return _RIGHT_SHOWN
    if (shown["confidence_a"] < sure - _EDGE).any():
        return _B_IS_SURE if (shown["confidence_b"] >= sure - _EDGE).all() else _NOT_SURE
    wanted = key[~key["correct_a"] & (key["confidence_a"] >= sure + _EDGE)]
    if set(wanted["cell"]) - set(shown["cell"]):
        return _ONE_CELL
    if not set(wanted.index) <= set(shown.index):
        return _SOME_LEFT_OUT
    if len(ids) < 2:
        return _FEW_SURE
    if not set(ids) <= set(shown.index):
        return _NOT_SHOWN
    noise = _noise(key)
    return _LABEL_WRONG if noise is not None and noise[ids].any() else ""


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
    cells = {(1, 1): "both right", (1, 0): "only A", (0, 1): "only B", (0, 0): "neither"}
    key["cell"] = [cells[pair] for pair in zip(key["correct_a"], key["correct_b"], strict=True)]
    return key.assign(label_noise=key["emotion"] != key["label"])


_KEY = _small_key()
_UNKNOWN = _KEY.drop(columns=["emotion", "label_noise"])


def _rows(*places):
    """A selection of the small key, as the explorer gives it."""
    return _KEY.drop(columns=["emotion", "label_noise", "objects"]).iloc[list(places)]


def _ids(*places):
    return list(_KEY.index[list(places)])


_SURE_ROWS = (0, 1, 7, 8, 9, 11)


# ------------------------------------------------------------------------------ 6.4 McNemar's test


def _rights(both, only_a, only_b, neither, seed):
    """Two arrays of what is right with these counts, in a mixed order."""
    a = np.repeat([True, True, False, False], [both, only_a, only_b, neither])
    b = np.repeat([True, False, True, False], [both, only_a, only_b, neither])
    order = np.random.default_rng(seed).permutation(len(a))
    return a[order], b[order]


def _pairs():
    return [
        _rights(30, 14, 5, 11, 0),
        _rights(22, 3, 9, 6, 1),
        _rights(12, 4, 4, 7, 2),
    ]


def _cells(a, b):
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    return [int(x.sum()) for x in (a & b, a & ~b, ~a & b, ~a & ~b)]


def _tail(k, m):
    """P(X <= k) of a binomial count of m tosses of a fair coin."""
    return sum(comb(m, j) for j in range(k + 1)) / 2**m


def _two_sided(x, y):
    return min(1.0, 2 * _tail(min(x, y), x + y))


def _normal(z):
    """Two-sided p of a standard normal value."""
    return erfc(abs(z) / sqrt(2))


def _mcnemar(a, b):
    _, only_a, only_b, _ = _cells(a, b)
    return _two_sided(only_a, only_b)


def _wrong_cells(a, b):
    both, _, _, neither = _cells(a, b)
    return _two_sided(both, neither)


def _all_right(a, b):
    both, only_a, only_b, _ = _cells(a, b)
    return _two_sided(both + only_a, both + only_b)


def _one_sided(a, b):
    _, only_a, only_b, _ = _cells(a, b)
    return _tail(min(only_a, only_b), only_a + only_b)


def _not_capped(a, b):
    return 2 * _one_sided(a, b)


def _chi_square(correction):
    def test(a, b):
        _, only_a, only_b, _ = _cells(a, b)
        return _normal((abs(only_a - only_b) - correction) / sqrt(only_a + only_b))

    return test


def _every_image_a_toss(a, b):
    both, only_a, only_b, neither = _cells(a, b)
    return min(1.0, 2 * _tail(min(only_a, only_b), both + only_a + only_b + neither))


def _other_tail(a, b):
    _, only_a, only_b, _ = _cells(a, b)
    return min(1.0, 2 * (1 - _strictly_below(min(only_a, only_b), only_a + only_b)))


def _strictly_below(k, m):
    return _tail(k - 1, m)


def _tail_of_a(a, b):
    _, only_a, only_b, _ = _cells(a, b)
    return min(1.0, 2 * _tail(only_a, only_a + only_b))


def _observed_left_out(a, b):
    _, only_a, only_b, _ = _cells(a, b)
    return 2 * _strictly_below(min(only_a, only_b), only_a + only_b)


def _point(a, b):
    _, only_a, only_b, _ = _cells(a, b)
    return comb(only_a + only_b, only_a) / 2 ** (only_a + only_b)


def _two_samples(a, b):
    n, p, q = len(a), np.mean(a), np.mean(b)
    pooled = (p + q) / 2
    return _normal((p - q) / sqrt(2 * pooled * (1 - pooled) / n))


# ------------------------------------------------------------------------------------ 6.5 oracle


def _several():
    draw = np.random.default_rng(62)
    cases = []
    for images, shares in ((20, (0.6, 0.5, 0.4)), (12, (0.4, 0.3)), (15, (0.3,) * 4)):
        labels = draw.integers(0, 5, images)
        told = [
            np.where(draw.random(images) < share, labels, (labels + 1 + k) % 5)
            for k, share in enumerate(shares)
        ]
        cases.append((np.stack(told), labels))
    return cases


def _hits(predicted, labels):
    return np.asarray(predicted) == np.asarray(labels)


def _oracle(predicted, labels):
    return _hits(predicted, labels).any(0).mean()


def _sum_of_accuracies(predicted, labels):
    return _hits(predicted, labels).mean(1).sum()


def _vote(predicted, labels):
    told = [np.bincount(column).argmax() for column in np.asarray(predicted).T]
    return np.mean(np.array(told) == labels)


def _independent(predicted, labels):
    return 1 - np.prod(1 - _hits(predicted, labels).mean(1))


def _first_two(predicted, labels):
    return _hits(predicted, labels)[:2].any(0).mean()


# ------------------------------------------------------------------------------------- 6.6 kappa


def _answers():
    draw = np.random.default_rng(63)
    names = np.array(["awe", "fear", "anger", "sadness"])
    cases = []
    for n, weights in ((40, (0.5, 0.25, 0.15, 0.1)), (30, (0.1, 0.2, 0.3, 0.4))):
        labels = draw.choice(names, n, p=weights)
        told = [
            np.where(draw.random(n) < share, labels, draw.choice(names[:k], n))
            for share, k in ((0.6, 4), (0.5, 3))
        ]
        cases.append(tuple([str(x) for x in column] for column in (*told, labels)))
    return cases


def _observed(a, b):
    return float(np.mean(np.asarray(a) == np.asarray(b)))


def _frequencies(answers, names):
    return np.array([np.mean(np.asarray(answers) == name) for name in names])


def _corrected(observed, chance):
    return (observed - chance) / (1 - chance)


def _by_chance(a, b):
    names = sorted({*a, *b})
    return float(_frequencies(a, names) @ _frequencies(b, names))


def _kappa(a, b, labels=None):
    return _corrected(_observed(a, b), _by_chance(a, b))


def _kappa_of_correctness(a, b, labels):
    right = [np.asarray(side) == np.asarray(labels) for side in (a, b)]
    return _kappa(right[0].tolist(), right[1].tolist())


def _uniform_chance(a, b, labels):
    return _corrected(_observed(a, b), 1 / len({*a, *b, *labels}))


def _no_division(a, b, labels):
    return _observed(a, b) - _by_chance(a, b)


def _pooled_chance(a, b, labels):
    names = sorted({*a, *b})
    mean = (_frequencies(a, names) + _frequencies(b, names)) / 2
    return _corrected(_observed(a, b), float(mean @ mean))


def _both_right(a, b, labels):
    hits = [x == y == z for x, y, z in zip(a, b, labels, strict=True)]
    return _corrected(float(np.mean(hits)), _by_chance(a, b))


def _chance_of_being_right(a, b, labels):
    p, q = _observed(a, labels), _observed(b, labels)
    return _corrected(_observed(a, b), p * q + (1 - p) * (1 - q))


EXERCISES = (
    Exercise(
        "6.1",
        "Three wrong labels",
        _wrong_labels,
        (_ids(7, 8, 9), _KEY),
        (
            Mistake(
                _FEW_LABELS,
                "Three different ones are wanted. Are two of yours the same?",
                (_ids(7, 8, 7), _KEY),
            ),
            Mistake(
                _MODEL_RIGHT,
                "There a model says what the label says, and the label is right. Where would both "
                "models be against a label?",
                (_ids(7, 8, 3), _KEY),
            ),
            Mistake(
                _LABEL_RIGHT,
                "Open your images once more and look for what the label means: the thing may be "
                "small, dark, or one of three. Models can fall for the same look together.",
                (_ids(7, 8, 11), _KEY),
            ),
            Mistake(
                _NO_WITNESSES,
                "This data set does not tell which labels are wrong. The best hint is that both "
                "models name the same other class.",
                (_ids(7, 8, 12), _UNKNOWN),
            ),
        ),
    ),
    Exercise(
        "6.2",
        "What A takes for something else",
        _object_missed,
        (_rows(0, 1, 2), "spider", "lamp", _KEY),
        (
            Mistake(
                _SEVERAL_LABELS,
                "Choose one label. What does the view's key label stand for?",
                (_rows(0, 1, 2, 6), "spider", "lamp", _KEY),
            ),
            Mistake(
                _RIGHT_SHOWN,
                "Which two of the four areas hold what A gets wrong?",
                (_rows(0, 1, 2, 3), "spider", "lamp", _KEY),
            ),
            Mistake(
                _OTHER_CUE,
                "On those the thing is not what the emotion comes from, or not alone. Which filter "
                "chooses the cue?",
                (_rows(0, 1, 2, 5), "spider", "lamp", _KEY),
            ),
            Mistake(
                _ERRORS_LEFT_OUT,
                "A is wrong in two of the four areas; does the view have both? And is there no filter "
                "beyond cell, label and cue?",
                (_rows(0, 2), "spider", "lamp", _KEY),
            ),
            Mistake(
                _NOT_THERE,
                "Name it by one plain noun, in the singular. What would you call it if a child asked?",
                (_rows(0, 1, 2), "octopus", "lamp", _KEY),
            ),
            Mistake(
                _NEUTRAL,
                "It is there by chance, and would be as often on images of any label. What on these "
                "images makes the label true?",
                (_rows(0, 1, 2), "lamp", "key", _KEY),
            ),
            Mistake(
                _LESS_OFTEN,
                "Count the objects of this emotion over all the images shown.",
                (_rows(0, 1, 2), "snake", "lamp", _KEY),
            ),
            Mistake(
                _THE_SAME,
                "There A sees the thing and draws another conclusion. Look for a reason that names "
                "something else in its place.",
                (_rows(0, 1, 2), "spider", "spiders", _KEY),
            ),
            Mistake(
                _NOT_NAMED,
                "Open the images that show your object and read the VLM's reason. Use a word of it.",
                (_rows(0, 1, 2), "spider", "planet", _KEY),
            ),
        ),
    ),
    Exercise(
        "6.3",
        "Sure and wrong",
        _sure_and_wrong,
        (_rows(*_SURE_ROWS), _ids(0, 1), 0.75, _KEY),
        (
            Mistake(
                _RIGHT_SHOWN,
                "You want A's errors. Which two of the four areas hold them?",
                (_rows(*_SURE_ROWS, 3), _ids(0, 1), 0.75, _KEY),
            ),
            Mistake(
                _B_IS_SURE,
                "It is A that should be sure. Which of the two sliders is A's?",
                (_rows(2, 7, 8, 12), _ids(2, 12), 0.75, _KEY),
            ),
            Mistake(
                _NOT_SURE,
                "The lower end of A's probability is below the limit, or is not set.",
                (_rows(*_SURE_ROWS, 2), _ids(0, 1), 0.75, _KEY),
            ),
            Mistake(
                _ONE_CELL,
                "A may be wrong where B is right, and where B is wrong too.",
                (_rows(0, 7, 8, 9, 11), _ids(0, 11), 0.75, _KEY),
            ),
            Mistake(
                _SOME_LEFT_OUT,
                "Both areas are there, but a filter more than cell and probability is set.",
                (_rows(0, 1, 7), _ids(0, 1), 0.75, _KEY),
            ),
            Mistake(
                _FEW_SURE,
                "What is common takes two.",
                (_rows(*_SURE_ROWS), _ids(0), 0.75, _KEY),
            ),
            Mistake(
                _NOT_SHOWN,
                "Choose both among the images that pass the filters.",
                (_rows(*_SURE_ROWS), _ids(0, 2), 0.75, _KEY),
            ),
            Mistake(
                _LABEL_WRONG,
                "There the label is in error, and not A. Say aloud what is in the picture, then read "
                "the label.",
                (_rows(*_SURE_ROWS), _ids(0, 7), 0.75, _KEY),
            ),
        ),
    ),
    Exercise(
        "6.4",
        "McNemar's exact test",
        calls(*_pairs()),
        _mcnemar,
        (
            Mistake(
                "the test is on both right and neither right",
                "On those images the two models did equally well. Which images say that one of them "
                "is better?",
                _wrong_cells,
            ),
            Mistake(
                "the numbers of right answers are compared",
                "The images that both got right are in both numbers and only dilute them. Which are "
                "in one of them only?",
                _all_right,
            ),
            Mistake(
                "the test is one-sided",
                "You did not know beforehand which model would win. An outcome as uneven the other "
                "way would have surprised you as much.",
                _one_sided,
            ),
            Mistake(
                "the probability goes above 1",
                "When both counts are equal, the two tails share the middle. What can a probability "
                "be at most?",
                _not_capped,
            ),
            Mistake(
                "it is the chi-square approximation",
                "The exact test counts tosses of a coin. The approximation is for large counts.",
                _chi_square(0),
            ),
            Mistake(
                "it is the chi-square approximation with a correction",
                "The correction brings it nearer to the exact test, which needs none.",
                _chi_square(1),
            ),
            Mistake(
                "every image is a toss of the coin",
                "The coin is tossed where exactly one model is right, and nowhere else. How many "
                "tosses are that?",
                _every_image_a_toss,
            ),
            Mistake(
                "the tail is the wrong one",
                "Of the smaller count you want the outcomes at least as small. Yours are at least as "
                "large.",
                _other_tail,
            ),
            Mistake(
                "the tail is always that of the first model",
                "Exchange the two models: p should stay. Which of the counts should begin the tail?",
                _tail_of_a,
            ),
            Mistake(
                "the observed outcome is left out of the tail",
                "At least as extreme: what was observed is itself one of these.",
                _observed_left_out,
            ),
            Mistake(
                "it is the probability of this one outcome",
                "A p-value adds up all outcomes that are at least as extreme.",
                _point,
            ),
            Mistake(
                "the pairs are taken for two separate samples",
                "Both models saw the same images. Your test would be right if each had its own.",
                _two_samples,
            ),
        ),
        atol=1e-6,
    ),
    Exercise(
        "6.5",
        "The oracle of many models",
        calls(*_several()),
        _oracle,
        (
            Mistake(
                "accuracies are added",
                "An image that two models get right is counted twice. Could your number be above 1?",
                _sum_of_accuracies,
            ),
            Mistake(
                "accuracies are added and cut off at 1",
                "Cutting off hides that images are counted twice.",
                lambda predicted, labels: min(1.0, _sum_of_accuracies(predicted, labels)),
            ),
            Mistake(
                "it is the best single model",
                "The oracle may choose another model for each image, not one for all.",
                lambda predicted, labels: _hits(predicted, labels).mean(1).max(),
            ),
            Mistake(
                "all models have to be right",
                "One that is right is enough.",
                lambda predicted, labels: _hits(predicted, labels).all(0).mean(),
            ),
            Mistake(
                "it is the mean accuracy",
                "That is what a model drawn at random for each image would reach.",
                lambda predicted, labels: _hits(predicted, labels).mean(),
            ),
            Mistake(
                "it is the majority's accuracy",
                "A vote does not know the labels; the oracle does.",
                _vote,
            ),
            Mistake(
                "the models are taken to err independently",
                "A product of error rates holds if one model's error says nothing of the other's. "
                "Count on the images themselves.",
                _independent,
            ),
            Mistake(
                "it is taken over the wrong axis",
                "Rows are models and columns images. Over which of the two should one be enough?",
                lambda predicted, labels: _hits(predicted, labels).any(1).mean(),
            ),
            Mistake(
                "only the first two models are asked",
                "There may be more of them.",
                _first_two,
            ),
        ),
    ),
    Exercise(
        "6.6",
        "Kappa from two lists of answers",
        calls(*_answers()),
        _kappa,
        (
            Mistake(
                "chance is not taken off",
                "This is the agreement. Two models that answer the same class always agree wholly and "
                "share no knowledge.",
                lambda a, b, labels: _observed(a, b),
            ),
            Mistake(
                "right and wrong are compared, not the classes",
                "Two models that are both wrong agree only if they name the same class.",
                _kappa_of_correctness,
            ),
            Mistake(
                "accuracy stands in place of agreement",
                "You compare a model with the labels. Whom does the model's answer have to equal?",
                lambda a, b, labels: _kappa(a, labels),
            ),
            Mistake(
                "accuracy stands in place of agreement, for the second model",
                "You compare a model with the labels. Whom does the model's answer have to equal?",
                lambda a, b, labels: _kappa(b, labels),
            ),
            Mistake(
                "all classes are taken to be equally frequent",
                "A model that likes one class agrees with another that likes it more often than that. "
                "Count how often each model gives each class.",
                _uniform_chance,
            ),
            Mistake(
                "it is not divided by what chance leaves open",
                "Two models that always agree should come to 1.",
                _no_division,
            ),
            Mistake(
                "both models have the same frequencies",
                "You pooled the two. Each keeps its own; multiply one's by the other's.",
                _pooled_chance,
            ),
            Mistake(
                "only right answers count as agreement",
                "Two models that give the same wrong class agree as well.",
                _both_right,
            ),
            Mistake(
                "chance is that of both being right or both wrong",
                "Observed agreement is of classes. Then so is that by chance.",
                _chance_of_being_right,
            ),
        ),
    ),
)
