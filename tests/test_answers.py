import numpy as np
import pytest

from emokd_utils.answers import one_hot, parse_answer
from emokd_utils.emotions import MIKELS


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("{'emotion': 'anger'}", "anger"),
        ('{"emotion": "Anger"}', "anger"),
        ("{'emotion': 'sad", "sadness"),
        ("The answer is {'emotion': 'awe'}.", "awe"),
        ("emotion: content", "contentment"),
        ("Fear.", "fear"),
        ("I feel sad looking at it.", "sadness"),
        ("{'emotion': 'joy'}", None),
        ("{'emotion': 'nothing'}", None),
        ("either anger or fear", None),
        ("a chair in a room", None),
        ("", None),
        ("'" * 500, None),
    ],
)
def test_what_an_answer_names(text, label):
    assert parse_answer(text, MIKELS) == label


def test_an_answer_without_a_label_says_nothing_about_the_classes():
    np.testing.assert_array_equal(one_hot("awe", MIKELS), [0, 1, 0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(one_hot(None, MIKELS), [1 / 8] * 8)
