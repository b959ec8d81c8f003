"""Checks of lesson 6: what an explorer gives, and right answers that are written otherwise."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.contingency_tables import mcnemar

from emokd_utils import checks
from emokd_utils.checks import looking as lesson
from emokd_utils.complementarity import mcnemar_exact
from emokd_utils.emotions import MIKELS
from emokd_utils.explorer import explore
from emokd_utils.predictions import Predictions

SIX = checks.exercises("6")
KEY = lesson._KEY
IDS = list(KEY.index)
HIDDEN = ["emotion", "label_noise", "objects"]


@pytest.fixture(scope="module")
def explorer():
    """The images of the small key in a real explorer, which holds back what the lesson does."""
    models = []
    for side in "ab":
        sure = KEY[f"confidence_{side}"].to_numpy()
        p = np.repeat((1 - sure[:, None]) / 7, 8, axis=1)
        p[np.arange(len(KEY)), [MIKELS.labels.index(x) for x in KEY[f"predicted_{side}"]]] = sure
        about = {"classes": MIKELS.labels, "provenance": {"model": side}}
        models.append(
            Predictions(IDS, ["test"] * len(KEY), list(KEY["label"]), probabilities=p, **about)
        )
    pictures = dict.fromkeys(IDS, Image.new("RGB", (8, 8)))
    reasons = KEY["reason"].dropna().to_dict()
    return explore(*models, pictures, metadata=KEY[["cue"]], reasons=reasons)


def chosen(explorer, query):
    explorer.show(explorer.table.query(query).index)
    return explorer.selection


def test_the_small_key_is_what_an_explorer_gives(explorer):
    for name in set(KEY) - {*HIDDEN, "confidence_a", "confidence_b"}:
        assert explorer.table[name].fillna("").tolist() == KEY[name].fillna("").tolist(), name
    assert explorer.table["confidence_a"].to_numpy() == pytest.approx(KEY["confidence_a"])


def test_what_was_found_in_an_explorer_passes(explorer):
    key = explorer.table.join(KEY[HIDDEN])
    suspects = chosen(explorer, "cell == 'neither'").index
    wrong = [image for image in suspects if key.loc[image, "label_noise"]]
    missed = chosen(explorer, "label == 'fear' and not correct_a and cue == 'content'")
    sure = chosen(explorer, "not correct_a and confidence_a >= 0.75")
    for number, answer in {
        "6.1": (np.array(wrong), key),
        "6.2": (missed, "a Spider", "Lamps", key),
        "6.3": (sure, IDS[:2], 0.75, key),
    }.items():
        assert SIX[number](answer).status == checks.PASSED


def test_a_wrong_label_counts_also_where_a_model_is_right():
    key = KEY.copy()
    key.loc[IDS[0], ["label", "correct_a", "cell"]] = ["sadness", True, "a"]
    key.loc[IDS[0], "label_noise"] = True
    assert SIX["6.1"](([IDS[0], IDS[7], IDS[8]], key)).status == checks.PASSED


def test_without_notes_two_models_against_a_label_are_enough():
    known = KEY.drop(columns=[*HIDDEN, "cue"])
    missed = known[(known["label"] == "fear") & ~known["correct_a"]].drop(columns="reason")
    assert SIX["6.1"]((IDS[7:10], known)).status == checks.PASSED
    assert SIX["6.2"]((missed, "anything", "else", known)).status == checks.PASSED
    assert "errors are left out" in SIX["6.2"]((missed[1:], "anything", "else", known)).mistake
    assert SIX["6.3"]((lesson._rows(*lesson._SURE_ROWS), IDS[7:9], 0.75, known)).status == "passed"


def test_objects_missed_equally_often_are_both_right_and_a_limit_may_be_a_little_off():
    key = KEY.copy()
    key.loc[IDS[1], "objects"] = "snake;lamp"
    for thing, taken_for in (("snake", "lamp"), ("snakes", "glow")):
        assert SIX["6.2"]((lesson._rows(0, 1, 2), thing, taken_for, key)).status == checks.PASSED
    key.loc[IDS[2], "confidence_a"] = 0.745
    for rows in (lesson._SURE_ROWS, (*lesson._SURE_ROWS, 2)):
        answer = (key.iloc[list(rows)], IDS[:2], 0.75, key)
        assert SIX["6.3"](answer).status == checks.PASSED


@pytest.mark.parametrize(
    ("number", "answer", "says"),
    [
        ("6.1", (["test/00099.png"] * 3, KEY), "'test/00099.png' is no id of a test image"),
        ("6.1", (IDS[:2], KEY, KEY), "leave the checking cell as it is"),
        ("6.2", (KEY[:0], "spider", "lamp", KEY), "the explorer shows no image"),
        ("6.1", [], "not attempted"),
        ("6.1", (None, KEY), "not attempted"),
        ("6.2", (KEY, "spider", None, KEY), "not attempted"),
        ("6.3", (KEY, ..., 0.75, KEY), "not attempted"),
    ],
)
def test_slips_are_told_in_words_and_a_gap_is_no_attempt(number, answer, says):
    assert says in str(SIX[number](answer))


def oracle_by_sets(predicted, labels):
    named = [set(column) for column in zip(*predicted.tolist(), strict=True)]
    return sum(y in there for y, there in zip(labels.tolist(), named, strict=True)) / len(labels)


@pytest.mark.parametrize(
    ("number", "answer"),
    [
        ("6.4", mcnemar_exact),
        ("6.4", lambda a, b: mcnemar(pd.crosstab(a, b).to_numpy(), exact=True).pvalue),
        ("6.5", oracle_by_sets),
        ("6.6", lambda a, b, labels: cohen_kappa_score(a, b)),
    ],
)
def test_right_answers_pass_however_they_are_written(number, answer):
    assert SIX[number](answer).status == checks.PASSED
