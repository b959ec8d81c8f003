"""Checks of lesson 10: copies across splits, a stratified split, the memory of weights."""

import math
from collections import Counter
from pathlib import Path

import numpy as np

from ..checks import Exercise, calls, returned, variants

# Images (id=pixels) of a data set; an id begins with the split.
_SPLITS = (
    "train/awe/1.jpg=p1 train/awe/2.jpg=p2 train/awe/3.jpg=p2 train/fear/4.jpg=p4 val/awe/5.jpg=p5 "
    "val/fear/6.jpg=p4 test/awe/7.jpg=p4 test/awe/1.jpg=p8 test/fear/9.jpg=p5 test/fear/10.jpg=p5",
    "train/a/1.png=x val/a/2.png=x test/a/1.png=y",
    "test/a/1.png=x train/b/2.png=x",
)
_ROWS = [[part.split("=") for part in text.split()] for text in _SPLITS]
_LEAK_CASES = [([(i, i.split("/")[0], pixels) for i, pixels in rows],) for rows in _ROWS]
_LEAK_PROBE = calls(*_LEAK_CASES, read=lambda ids: sorted(map(str, ids)))


@variants
def _leaked(rows, *, dropped="train val", into="test", key=lambda image, pixels: pixels):
    known = {key(image, pixels) for image, split, pixels in rows if split in into}
    return [i for i, split, pixels in rows if split in dropped and key(i, pixels) in known]


@variants
def _copied(counted, rows):
    count = Counter(pixels for *_, pixels in counted(rows))
    return [image for image, _, pixels in rows if count[pixels] > 1]


_LEAKS = {
    "images are compared by their file names. Every camera counts from 0001. "
    "What says what the picture shows?": _leaked(key=lambda image, pixels: Path(image).name),
    "the copies in the test split are dropped. Then the accuracy is of other images "
    "than everybody else's. Which copy can be spared?": _leaked(dropped="test", into="train val"),
    "copies within a split are dropped too. Between which two is a leak?": _copied(list),
    "both sides of every pair of splits are dropped. One copy may stay, and train and "
    "val may share an image that test has not.": _copied(lambda rows: {row[1:] for row in rows}),
    "only train is looked at. May val know a test image?": _leaked(dropped="train"),
}

_COUNTS = {"joy": 60, "awe": 23, "fear": 4, "anger": 2, "disgust": 1}
_DRAWN_FROM = [f"train/{name}/{k}.png" for name, n in _COUNTS.items() for k in range(n)]


def _split_probe(function):
    """What must be true of a split however it is drawn: how many of each class, and stability."""
    ids = np.random.default_rng(0).permutation(_DRAWN_FROM).tolist()
    labels = [image.split("/")[1] for image in ids]

    def draw(fraction, seed):
        return list(map(str, returned(function(list(ids), list(labels), fraction, seed))))

    found = []
    for fraction in (0.1, 0.3, 0.9):
        drawn = draw(fraction, 1)
        found.append(Counter(i.split("/")[1] if i in ids else "unknown" for i in drawn))
        found.append(len(set(drawn)) == len(drawn))
        found += [set(drawn) == set(draw(fraction, seed)) for seed in (1, 2)]
    return found


@variants
def _drawn(ids, labels, fraction, seed, *, whole=round, least=1, stay=1, of=None, start=int):
    """Of each class a fraction made whole, at least ``least``, while ``stay`` are left."""
    rng, drawn = np.random.default_rng(start(seed)), []
    for name in sorted(set(labels)):
        own = [image for image, label in zip(ids, labels, strict=True) if label == name]
        count = max(whole(fraction * (of or len(own))), least)
        drawn += list(rng.permutation(own)[: min(count, len(own) - stay)])
    return drawn


_DRAWS = {
    "the draw takes no notice of the classes. Count your images of each class. Is "
    "a rare class always there?": lambda ids, labels, *how: _drawn()(ids, ["all"] * len(ids), *how),
    "a rare class gives nothing. Read again what each class must give.": _drawn(least=0),
    "a class may be given away whole. What is left to learn from?": _drawn(stay=0),
    "the fraction is rounded down. Which whole number is nearest?": _drawn(whole=int),
    "the fraction is rounded up. Which whole number is nearest?": _drawn(whole=math.ceil),
    "every class gives the same number. Asked for is a fraction.": _drawn(of=18),
    "two calls with the same seed differ. What starts your draws?": _drawn(start=lambda seed: None),
    "the seed changes nothing. Is it used anywhere in yours?": _drawn(start=lambda seed: 0),
    "the images that stay are returned. There are far more of your "
    "ids than the fraction asks for.": lambda ids, *given: set(ids) - set(_drawn()(ids, *given)),
}

_BILLIONS = ((7_000_000_000, 1_000_000_000), (640_000_000, 0), (1_500_000_000, 230_000_000))


@variants
def _gigabytes(quantised, kept, *, bits=4.0, scale=32.0, block=64, kept_bits=16.0, per=8e9):
    return (quantised * (bits + scale / block) + kept * kept_bits) / per


_MEMORY = {
    "bits are taken for bytes. A weight of 4 bits is half a byte.": _gigabytes(per=1e9),
    "the scales are missing. What is stored beside every block of weights?": _gigabytes(scale=0),
    "every weight has a scale of its own. How many weights share one?": _gigabytes(block=1),
    "the scales are counted in bytes. How many bits has a scale?": _gigabytes(scale=4),
    "the weights that are not quantised are missing. Where are they?": _gigabytes(kept_bits=0),
    "all weights are taken for quantised. How wide are the kept?": _gigabytes(kept_bits=4.5),
    "it is in gibibytes. A gigabyte is a thousand million bytes.": _gigabytes(per=8 * 2**30),
}

EXERCISES = (
    Exercise("10.1", "Known from training", _LEAK_PROBE, _leaked(), _LEAKS),
    Exercise("10.2", "Set apart, class by class", _split_probe, _drawn(), _DRAWS),
    Exercise("10.3", "Gigabytes of weights", calls(*_BILLIONS), _gigabytes(), _MEMORY),
)
