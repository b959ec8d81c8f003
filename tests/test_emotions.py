"""Label sets: order, polarity, spellings, colours, and the set behind folder names."""

import pytest

from emokd_utils.emotions import EKMAN, MIKELS, POLARITY, infer_label_set
from emokd_utils.errors import InputError


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
    assert infer_label_set(reversed(MIKELS.labels)) is infer_label_set(["awe"], MIKELS) is MIKELS
    assert infer_label_set(["neg", "Positive"]) is POLARITY
    part = infer_label_set(["Sad", "sadness", "ANGER", "happy"])
    assert (part.name, part.labels) == ("part of ekman", ("anger", "joy", "sadness"))
    assert part.polarity["joy"] == "positive" and part.colours["anger"] == EKMAN.colours["anger"]
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
