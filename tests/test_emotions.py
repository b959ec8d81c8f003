"""Label sets: order, polarity, spellings, colours, and the set behind folder names."""

import pickle
import re
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emokd_utils.emotions import (
    EKMAN,
    LABEL_SETS,
    MIKELS,
    POLARITY,
    LabelSet,
    get_label_set,
    infer_label_set,
)
from emokd_utils.errors import InputError

KNOWN = list(LABEL_SETS.values())

# Machado, Oliveira & Fernandes 2009 (doi 10.1109/TVCG.2009.113), severity 1, linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def linear_rgb(colour: str) -> np.ndarray:
    value = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def oklab(rgb: np.ndarray) -> np.ndarray:
    """Ottosson's perceptual space, in which black and white are 1 apart."""
    to_lms = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    to_lab = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.array(to_lab) @ np.cbrt(np.array(to_lms) @ np.clip(rgb, 0, 1))


def test_orders():
    assert MIKELS.labels == (
        *("amusement", "awe", "contentment", "excitement"),
        *("anger", "disgust", "fear", "sadness"),
    )
    assert EKMAN.labels == ("anger", "disgust", "fear", "joy", "sadness", "surprise")
    assert POLARITY.labels == ("negative", "positive")


def test_polarity_of_mikels_is_four_and_four():
    assert [label for label in MIKELS if MIKELS.polarity[label] == "positive"] == [
        *MIKELS.labels[:4]
    ]
    assert {MIKELS.polarity[label] for label in MIKELS.labels[4:]} == {"negative"}
    assert POLARITY.polarity == {"negative": "negative", "positive": "positive"}


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.name)
def test_every_label_has_a_place_a_polarity_and_a_colour(known):
    assert [known.index(label) for label in known] == list(range(len(known)))
    assert list(known.polarity) == list(known.labels)
    assert all(re.fullmatch("#[0-9a-f]{6}", known.colours[label]) for label in known)


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.name)
def test_colours_stay_apart_for_colour_blind_readers_and_on_white(known, vision):
    seen = [oklab(VISION[vision] @ linear_rgb(known.colours[label])) for label in known]
    white = oklab(np.ones(3))
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 0.13
    assert min(np.linalg.norm(a - white) for a in seen) > 0.1


@pytest.mark.parametrize(
    ("known", "text", "label"),
    [
        (MIKELS, "sad", "sadness"),
        (MIKELS, "  CONTENT\n", "contentment"),
        (MIKELS, "Content", "contentment"),
        (MIKELS, "in_awe", "awe"),
        (MIKELS, "Scared", "fear"),
        (MIKELS, "happy", None),
        (MIKELS, "surprise", None),
        (MIKELS, "neutral", None),
        (MIKELS, "sadness and fear", None),
        (MIKELS, "", None),
        (EKMAN, "happy", "joy"),
        (EKMAN, "Happiness", "joy"),
        (EKMAN, "awe", None),
        (POLARITY, "Positive", "positive"),
        (POLARITY, "sad", None),
    ],
)
def test_canonical(known, text, label):
    assert known.canonical(text) == label


@given(st.sampled_from(KNOWN), st.text())
def test_canonical_yields_labels_of_the_set_only(known, text):
    assert known.canonical(text) in {None, *known.labels}


@given(st.sampled_from(KNOWN), st.data())
def test_canonical_ignores_case_and_surrounding_space(known, data):
    label = data.draw(st.sampled_from(known.labels))
    assert known.canonical(f" {label.upper()}\t") == label


def test_index_of_a_foreign_label_names_the_labels_there_are():
    with pytest.raises(InputError, match="'joy' is not in mikels.*amusement, awe"):
        MIKELS.index("joy")


def test_get_label_set():
    assert get_label_set("Mikels") is MIKELS
    with pytest.raises(InputError, match="mikels, ekman, polarity"):
        get_label_set("plutchik")


@pytest.mark.parametrize(
    ("names", "known"),
    [
        (reversed(MIKELS.labels), MIKELS),
        (EKMAN.labels, EKMAN),
        (["positive", "negative"], POLARITY),
        (["Sadness", "ANGER", "joy"], EKMAN),
        (["anger", "fear"], EKMAN),
        (["anger", "awe"], MIKELS),
        (["sad", "happy"], EKMAN),
        (["negative"], POLARITY),
    ],
)
def test_infer_known(names, known):
    assert infer_label_set(names) is known


def test_infer_custom():
    custom = infer_label_set(["zeal", "calm", "joy"])
    assert (custom.name, custom.labels, custom.polarity) == ("custom", ("calm", "joy", "zeal"), {})
    assert len(set(custom.colours.values())) == 3
    assert custom.canonical("Happy") == "joy"


def test_two_spellings_of_one_label_are_not_merged_into_a_known_set():
    custom = infer_label_set(["sad", "sadness", "fear"])
    assert custom.labels == ("fear", "sad", "sadness")
    assert custom.canonical("sad") == "sad"
    assert custom.canonical("saddened") is None, "could be either"


def test_many_custom_labels_have_colours():
    assert len(infer_label_set([f"class {i}" for i in range(20)]).colours) == 20


@pytest.mark.parametrize("names", [[], ["photos"], ["Calm", "calm"], ["calm", ""]])
def test_infer_from_unusable_names(names):
    with pytest.raises(InputError):
        infer_label_set(names)


@pytest.mark.parametrize(
    "change",
    [
        {"labels": ("awe",)},
        {"labels": ("awe", "fear", "fear")},
        {"labels": ("awe", "fear", "Fear "), "colours": dict.fromkeys(("awe", "fear", "Fear "))},
        {"colours": {"awe": "#000000"}},
        {"polarity": {"awe": "good"}},
        {"polarity": {"joy": "positive"}},
    ],
)
def test_a_set_that_does_not_hold_together_is_refused(change):
    sound = {
        "name": "mine",
        "labels": ("awe", "fear"),
        "polarity": {"awe": "positive"},
        "colours": {"awe": "#000000", "fear": "#ffffff"},
        "reference": "",
    }
    LabelSet(**sound)
    with pytest.raises(InputError, match="mine"):
        LabelSet(**sound | change)


def test_label_sets_travel_to_worker_processes_and_serve_as_keys():
    copy = pickle.loads(pickle.dumps(MIKELS))
    assert copy == MIKELS and {MIKELS: 1}[copy] == 1
