"""Checks of lesson 10: copies across splits, a stratified split, the memory of weights."""

from pathlib import Path

import numpy as np

from ..checks import Exercise, calls, returned, variants

_SPLITS = {  # images (id=pixels) of a data set; an id begins with the split
    "of a train image and its copy in test not the first alone is dropped": "train/1=x test/2=x train/3=y",
    "of a val image and its copy in test not the first alone is dropped": "val/1=x test/2=x train/3=y",
    "images that test does not have are dropped": "train/1=x val/2=x train/3=x test/4=y",
    "a copy within the test split is dropped": "test/1=x test/2=x val/3=y",
    "the same file name counts as the same image": "train/a/1.jpg=x test/a/1.jpg=y",
    "not all copies are dropped, or one twice": "val/1=x test/2=y test/3=x test/4=x train/5=x",
}
_ROWS = [[part.split("=") for part in text.split()] for text in _SPLITS.values()]
_LEAK_CASES = [([(i, i.split("/")[0], pixels) for i, pixels in rows],) for rows in _ROWS]
_LEAK_PROBE = calls(*_LEAK_CASES, read=lambda ids: sorted(map(str, ids)), about=_SPLITS)


@variants
def _leaked(rows, *, dropped="train val", into="test", key=lambda image, pixels: pixels):
    known = {key(image, pixels) for image, split, pixels in rows if split in into}
    return [i for i, split, pixels in rows if split in dropped and key(i, pixels) in known]


_LEAKS = {
    "images are compared by their file names. Every camera counts from 0001. "
    "What says what the picture shows?": _leaked(key=lambda image, pixels: Path(image).name),
    "the copies in the test split are dropped. Then the accuracy is of other images "
    "than everybody else's. Which copy can be spared?": _leaked(dropped="test", into="train val"),
    "only train is looked at. May val know a test image?": _leaked(dropped="train"),
}

_DRAWS_FROM = {  # how many images of each class, the fraction
    "of a single class the fraction, rounded, is not drawn": ("joy " * 5, 0.4),
    "not every class gives its fraction, rounded to the nearest number": (
        "joy " * 10 + "awe " * 9,
        0.36,
    ),
    "a class whose fraction is less than half an image does not give one": (
        "joy " * 10 + "awe " * 4,
        0.1,
    ),
    "where the fraction is 0.9 the wrong number stays": ("joy " * 10 + "awe " * 2, 0.9),
    "a class of a single image does not give none": ("joy " * 10 + "awe", 0.5),
}


def _draw_case(labels, fraction):
    labels = labels.split()
    return [f"train/{name}/{k}" for k, name in enumerate(labels)], labels, fraction, 1


_DRAW_CASES = [_draw_case(*case) for case in _DRAWS_FROM.values()]
_counted = calls(*_DRAW_CASES, read=lambda ids: sorted(str(i).rstrip("0123456789") for i in ids))


def _split_probe(function):
    """How many are drawn of each class, then whether the seed decides which, and each only once."""
    counts = _counted(function)
    ids, labels, *_ = _draw_case("joy " * 30 + "awe " * 20, 0.5)
    drawn = [list(map(str, returned(function([*ids], [*labels], 0.5, k)))) for k in (1, 1, 2)]
    first, again, other = map(set, drawn)
    return [*counts, first == again, first != other, len(first) == len(drawn[0])]


_split_probe.cases, _split_probe.about = _DRAW_CASES + 3 * [()], [*_DRAWS_FROM]


@variants
def _drawn(ids, labels, fraction, seed, *, again=False, start=int):
    """Of each class a fraction, rounded, at least one, while one is left."""
    rng, drawn = np.random.default_rng(start(seed)), []
    for name in sorted(set(labels)):
        own = [image for image, label in zip(ids, labels, strict=True) if label == name]
        count = min(max(round(fraction * len(own)), 1), len(own) - 1)
        drawn += rng.choice(own, count, replace=again).tolist()
    return drawn


_DRAWS = {
    "two calls with the same seed differ. What starts your draws?": _drawn(start=lambda seed: None),
    "the seed changes nothing. Is it used anywhere in yours?": _drawn(start=lambda seed: 0),
    "an image may be drawn twice. Does your draw put it back?": _drawn(again=True),
    "the images that stay are returned. There are far more of your "
    "ids than the fraction asks for.": lambda ids, *given: set(ids) - set(_drawn()(ids, *given)),
}

_BILLIONS = {
    "what the weights in 16 bits take is wrong, here the only ones": (0, 10**9),
    "what the weights in 4 bits and their scales take is wrong, here alone": (64 * 10**9, 0),
    "the sum of both is wrong": (7 * 10**9, 10**9),
}
_MEMORY_PROBE = calls(*_BILLIONS.values(), about=_BILLIONS)


@variants
def _gigabytes(quantised, kept, *, bits=4.0, scale=32.0, block=64, kept_bits=16.0, per=8e9):
    return (quantised * (bits + scale / block) + kept * kept_bits) / per


_MEMORY = {
    "bits are taken for bytes. A weight of 4 bits is half a byte.": _gigabytes(per=1e9),
    "the scales are missing. What is stored beside every block of weights?": _gigabytes(scale=0),
    "every weight has a scale of its own. How many weights share one?": _gigabytes(block=1),
    "it is in gibibytes. A gigabyte is a thousand million bytes.": _gigabytes(per=8 * 2**30),
}

EXERCISES = (
    Exercise("10.1", "Known from training", _LEAK_PROBE, _leaked(), _LEAKS),
    Exercise("10.2", "Set apart, class by class", _split_probe, _drawn(), _DRAWS),
    Exercise("10.3", "Gigabytes of weights", _MEMORY_PROBE, _gigabytes(), _MEMORY),
)
