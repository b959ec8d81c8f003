"""Label sets: order, polarity, spellings, colours, and the set behind folder names."""

from itertools import combinations

import numpy as np
import pytest

from emokd_utils.emotions import EKMAN, LABEL_SETS, MIKELS, POLARITY, infer_label_set
from emokd_utils.errors import InputError

# Machado, Oliveira & Fernandes 2009 (doi 10.1109/TVCG.2009.113), severity 1, linear RGB.
VISION = {
    "normal": "1 0 0  0 1 0  0 0 1",
    "protanopia": """0.152286 1.052583 -0.204868
    0.114503 0.786281 0.099216
    -0.003882 -0.048116 1.051998""",
    "deuteranopia": """0.367322 0.860646 -0.227968
    0.280085 0.672501 0.047413
    -0.011820 0.042940 0.968881""",
}
TO_LMS = """0.4122214708 0.5363325363 0.0514459929
    0.2119034982 0.6806995451 0.1073969566
    0.0883024619 0.2817188376 0.6299787005"""
TO_LAB = """0.2104542553 0.7936177850 -0.0040720468
    1.9779984951 -2.4285922050 0.4505937099
    0.0259040371 0.7827717662 -0.8086757660"""


def matrix(text: str) -> np.ndarray:
    return np.array(text.split(), float).reshape(3, 3)


def linear_rgb(colour: str) -> np.ndarray:
    value = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def oklab(rgb: np.ndarray) -> np.ndarray:
    """Ottosson's perceptual space, in which black and white are 1 apart."""
    return matrix(TO_LAB) @ np.cbrt(matrix(TO_LMS) @ np.clip(rgb, 0, 1))


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("known", LABEL_SETS.values(), ids=LABEL_SETS)
def test_colours_stay_apart_for_colour_blind_readers_and_on_white(known, vision):
    seen = [oklab(matrix(VISION[vision]) @ linear_rgb(known.colours[label])) for label in known]
    white = oklab(np.ones(3))
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 0.13
    assert min(np.linalg.norm(a - white) for a in seen) > 0.1


@pytest.mark.parametrize(
    ("known", "text", "label"),
    [
        *((MIKELS, "sad", "sadness"), (MIKELS, "  CONTENT\n", "contentment")),
        *((MIKELS, "in_awe", "awe"), (MIKELS, "Scared", "fear"), (MIKELS, "happy", None)),
        *((MIKELS, "sadness and fear", None), (MIKELS, "", None), (EKMAN, "Happiness", "joy")),
        *((EKMAN, "awe", None), (POLARITY, "Positive", "positive"), (POLARITY, "sad", None)),
    ],
)
def test_canonical(known, text, label):
    assert known.canonical(text) == label


def test_the_set_that_names_are_of():
    assert infer_label_set(reversed(MIKELS.labels)) is infer_label_set(["anger", "awe"]) is MIKELS
    for names in (["Sadness", "ANGER", "joy"], ["anger", "fear"], ["sad", "sadness", "happy"]):
        assert infer_label_set(names) is EKMAN, "the smallest that has them"
    assert infer_label_set(["negative"]) is POLARITY
    custom = infer_label_set(["zeal", "Calm", "joy", "calm"])
    assert (custom.name, custom.labels, custom.polarity) == ("custom", ("Calm", "joy", "zeal"), {})
    assert len(set(custom.colours.values())) == 3 and custom.canonical("Happy") == "joy"
    both = infer_label_set(["sad", "sadness", "weird"])
    assert both.canonical("sad") == "sad" and both.canonical("saddened") is None, "could be either"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: infer_label_set([]), "two classes or more"),
        (lambda: infer_label_set(["photos", "Photos"]), "'Photos', 'photos'.*two classes or more"),
        (lambda: infer_label_set(["calm", ""]), "each with a name"),
        (lambda: MIKELS.index("joy"), "'joy' is not in mikels.*amusement, awe"),
    ],
)
def test_refusals(call, words):
    with pytest.raises(InputError, match=words):
        call()
