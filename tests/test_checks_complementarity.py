from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.contingency_tables import mcnemar

from emokd_utils import checks
from emokd_utils.checks import complementarity as lesson
from emokd_utils.complementarity import mcnemar_exact
from emokd_utils.explorer import explore
from emokd_utils.predictions import Predictions

SIX = checks.exercises("6")
KEY = lesson._KEY
IDS = list(KEY.index)


@pytest.fixture(scope="module")
def explorer():
    """The images of the small key in a real explorer, which holds back what the lesson does."""
    classes = ("amusement", "awe", "contentment", "excitement")
    classes += ("anger", "disgust", "fear", "sadness")

    def model(side):
        rest = (1 - KEY[f"confidence_{side}"].to_numpy()) / 7
        probabilities = np.repeat(rest[:, None], 8, axis=1)
        places = [classes.index(name) for name in KEY[f"predicted_{side}"]]
        probabilities[np.arange(len(KEY)), places] = KEY[f"confidence_{side}"]
        return Predictions(
            ids=tuple(IDS),
            splits=("test",) * len(KEY),
            labels=tuple(KEY["label"]),
            classes=classes,
            probabilities=probabilities.astype(np.float32),
            provenance={"model": side},
        )

    pictures = dict.fromkeys(IDS, Image.new("RGB", (8, 8)))
    notes, reasons = KEY[["cue"]], KEY["reason"].dropna().to_dict()
    return explore(model("a"), model("b"), pictures, metadata=notes, reasons=reasons)


def selected(explorer, view):
    explorer.view = view
    return explorer.selection


def key_of(explorer):
    everything = selected(explorer, "").loc[IDS]
    return everything.join(KEY[["emotion", "label_noise", "objects"]])


# ---------------------------------------------------------------------------------- by looking


def test_the_small_key_is_what_an_explorer_gives(explorer):
    made = key_of(explorer)
    for name in set(KEY) - {"confidence_a", "confidence_b"}:
        assert made[name].fillna("").tolist() == KEY[name].fillna("").tolist(), name
    np.testing.assert_allclose(made["confidence_a"], KEY["confidence_a"], atol=1e-6)


def test_what_was_found_in_an_explorer_passes(explorer):
    key = key_of(explorer)
    suspects = selected(explorer, "cell=neither&sort=conf_b")
    wrong = [image for image in suspects.index if key.loc[image, "label_noise"]]
    assert SIX["6.1"]((np.array(wrong), key)).status == checks.PASSED
    view = "cell=b&cell=neither&label=fear&col.cue=content"
    answer = (selected(explorer, view), "a Spider", "Lamps", key)
    assert SIX["6.2"](answer).status == checks.PASSED
    view = "cell=b&cell=neither&conf_a=0.75..1"
    assert SIX["6.3"]((selected(explorer, view), IDS[:2], 0.75, key)).status == checks.PASSED


def test_a_wrong_label_counts_also_where_a_model_is_right():
    key = KEY.copy()
    key.loc[IDS[0], ["label", "correct_a", "cell"]] = ["sadness", True, "only A"]
    key.loc[IDS[0], "label_noise"] = True
    assert SIX["6.1"](([IDS[0], IDS[7], IDS[8]], key)).status == checks.PASSED


def test_without_notes_two_models_against_a_label_are_enough():
    known = KEY.drop(columns=["emotion", "label_noise", "objects", "cue"])
    assert SIX["6.1"]((IDS[7:10], known)).status == checks.PASSED
    missed = known[(known["label"] == "fear") & ~known["correct_a"]]
    shown = missed.drop(columns="reason")
    assert SIX["6.2"]((shown, "anything", "something else", known)).status == checks.PASSED
    assert SIX["6.2"]((shown[1:], "anything", "else", known)).mistake == lesson._ERRORS_LEFT_OUT
    assert SIX["6.3"]((lesson._rows(*lesson._SURE_ROWS), IDS[7:9], 0.75, known)).status == "passed"


def test_objects_missed_equally_often_are_both_right():
    key = KEY.copy()
    key.loc[IDS[1], "objects"] = "snake;lamp"
    for thing, taken_for in (("snake", "lamp"), ("snakes", "glow")):
        assert SIX["6.2"]((lesson._rows(0, 1, 2), thing, taken_for, key)).status == checks.PASSED


def test_a_slider_may_be_a_little_off():
    key = KEY.copy()
    key.loc[IDS[2], "confidence_a"] = 0.745
    for rows in (lesson._SURE_ROWS, (*lesson._SURE_ROWS, 2)):
        answer = (key.iloc[list(rows)], IDS[:2], 0.75, key)
        assert SIX["6.3"](answer).status == checks.PASSED


@pytest.mark.parametrize(
    ("number", "answer", "says"),
    [
        ("6.1", (["test/00099.png"] * 3, KEY), "'test/00099.png' is no id of a test image"),
        ("6.1", ([IDS[0], IDS[1]], KEY, KEY), "leave the checking cell as it is"),
        ("6.2", (KEY[:0], "spider", "lamp", KEY), "set explorer.view first"),
        ("6.3", (KEY[:0], IDS[:2], 0.75, KEY), "set explorer.view first"),
    ],
)
def test_slips_are_told_in_words(number, answer, says):
    result = SIX[number](answer)
    assert result.status == checks.NOT_YET
    assert says in str(result)


@pytest.mark.parametrize(
    ("number", "answer"),
    [
        ("6.1", []),
        ("6.1", (None, KEY)),
        ("6.2", (KEY, "spider", None, KEY)),
        ("6.3", (KEY, ..., 0.75, KEY)),
    ],
)
def test_what_is_only_half_filled_in_is_not_attempted(number, answer):
    assert SIX[number](answer).status == checks.NOT_ATTEMPTED


# -------------------------------------------------------------------------------- by counting


def test_mcnemar_by_loops_passes():
    def test(a, b):
        wins = losses = 0
        for one, two in zip(a.tolist(), b.tolist(), strict=True):
            wins += one and not two
            losses += two and not one
        term, terms = 0.5 ** (wins + losses), []
        for k in range(wins + losses + 1):
            terms.append(term)
            term *= (wins + losses - k) / (k + 1)
        observed = terms[wins] * (1 + 1e-9)
        return sum(x for x in terms if x <= observed)

    assert SIX["6.4"](test).status == checks.PASSED


def test_mcnemar_of_the_libraries_passes():
    def by_table(a, b):
        return mcnemar(pd.crosstab(a, b).to_numpy(), exact=True).pvalue

    assert SIX["6.4"](mcnemar_exact).status == checks.PASSED
    assert SIX["6.4"](by_table).status == checks.PASSED


def test_the_oracle_by_sets_passes():
    def oracle(predicted, labels):
        named = [set(column) for column in zip(*predicted.tolist(), strict=True)]
        return sum(y in told for y, told in zip(labels.tolist(), named, strict=True)) / len(labels)

    assert SIX["6.5"](oracle).status == checks.PASSED


def test_the_oracle_by_torch_passes():
    def oracle(predicted, labels):
        wrong = torch.as_tensor(predicted) != torch.as_tensor(labels)
        return 1 - wrong.float().prod(0).mean()

    assert SIX["6.5"](oracle).status == checks.PASSED


def test_kappa_by_counters_and_of_sklearn_pass():
    def kappa(a, b, labels):
        n, of_a, of_b = len(a), Counter(a), Counter(b)
        agree = sum(x == y for x, y in zip(a, b, strict=True))
        chance = sum(of_a[name] * of_b[name] for name in of_a) / n
        return (agree - chance) / (n - chance)

    assert SIX["6.6"](kappa).status == checks.PASSED
    assert SIX["6.6"](lambda a, b, labels: cohen_kappa_score(a, b)).status == checks.PASSED


def test_kappa_from_a_joint_table_passes():
    def kappa(a, b, labels):
        names = sorted({*a, *b})
        joint = pd.crosstab(pd.Categorical(a, names), pd.Categorical(b, names), dropna=False)
        share = torch.tensor(joint.to_numpy() / len(a))
        chance = torch.einsum("ij,kl,jk->", share, share, torch.eye(len(names)).double())
        return (share.trace() - chance) / (1 - chance)

    assert SIX["6.6"](lambda a, b, labels: float(kappa(a, b, labels))).status == checks.PASSED
