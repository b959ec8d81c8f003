"""Measures of two models by hand and against other packages, and intervals that cover."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score, f1_score

from emokd_utils.comparison import compare
from emokd_utils.complementarity import (
    FourWay,
    accuracy_difference,
    accuracy_interval,
    agreement,
    cohen_kappa,
    double_fault,
    four_way,
    macro_f1,
    mcnemar_exact,
    oracle_accuracy,
    yules_q,
)
from emokd_utils.errors import InputError
from emokd_utils.predictions import Predictions

CLASSES = ("awe", "fear", "joy", "rage")

pytestmark = pytest.mark.filterwarnings("error")


def right(both: int, only_a: int, only_b: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    sizes = (both, only_a, only_b, neither)
    return np.repeat([1, 1, 0, 0], sizes).astype(bool), np.repeat([1, 0, 1, 0], sizes).astype(bool)


def predictions(labels, predicted, model="toy", classes=CLASSES) -> Predictions:
    """Predictions by class number; -1 is an invalid answer."""
    predicted = np.array(predicted, dtype=int)
    c = len(classes)
    return Predictions(
        ids=[f"{i}.png" for i in range(len(labels))],
        splits=["test"] * len(labels),
        labels=[classes[k] for k in labels],
        classes=classes,
        probabilities=np.vstack([np.eye(c), np.full(c, 1 / c)])[predicted],
        invalid=predicted == -1,
        provenance={"model": model},
    )


def random_pair(n=600, seed=0) -> tuple[Predictions, Predictions]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    a = np.where(rng.random(n) < 0.6, labels, rng.integers(-1, 4, n))
    b = np.where(rng.random(n) < 0.4, labels, rng.integers(-1, 4, n))
    return predictions(labels, a, "A"), predictions(labels, b, "B")


# --------------------------------------------------------------------------------------- by hand


def test_four_way():
    counted = four_way(*right(4, 3, 2, 1))
    assert counted == FourWay(both=4, only_a=3, only_b=2, neither=1) and counted.n == 10
    assert counted.shares == {"both": 0.4, "only_a": 0.3, "only_b": 0.2, "neither": 0.1}
    assert counted.table().to_numpy().tolist() == [[4, 3], [2, 1]]
    assert counted.table().loc["A right", "B wrong"] == 3
    assert "n = 10" in str(counted)


def test_plain_measures():
    a, b = right(4, 3, 2, 1)
    assert oracle_accuracy(a, b) == 0.9
    assert double_fault(a, b) == 0.1
    assert yules_q(a, b) == pytest.approx((4 * 1 - 3 * 2) / (4 * 1 + 3 * 2)) == -0.2
    # 3 of 5: 2 x (C(5,0) + C(5,1) + C(5,2)) / 2^5 = 1
    assert mcnemar_exact(a, b) == 1.0
    # 1 of 9: 2 x (1 + 9) / 2^9
    assert mcnemar_exact(*right(7, 1, 8, 2)) == pytest.approx(20 / 512)


def test_measures_of_answers():
    #                        label    a        b
    a = predictions([0, 0, 1, 1, 2], [0, 0, 1, 2, 2])
    b = predictions([0, 0, 1, 1, 2], [0, 1, 1, 2, 0])
    assert four_way(a, b) == FourWay(both=2, only_a=2, only_b=0, neither=1)
    assert agreement(a, b) == 0.6, "both wrong with the same class is agreement"
    # by chance: (2 x 2 + 1 x 2 + 2 x 1) / 25
    assert cohen_kappa(a, b) == pytest.approx((0.6 - 0.32) / (1 - 0.32))


def test_an_invalid_answer_is_wrong_and_a_category_of_its_own():
    a = predictions([0, 1, 2, 3], [-1, -1, 2, 3])
    b = predictions([0, 1, 2, 3], [-1, 1, 2, -1])
    assert four_way(a, b) == FourWay(both=1, only_a=1, only_b=1, neither=1)
    assert agreement(a, b) == 0.5
    assert cohen_kappa(a, b) == pytest.approx((0.5 - 5 / 16) / (1 - 5 / 16))


def test_macro_f1_by_hand():
    # awe: 1 hit, 1 false alarm, 1 miss: 1/2; fear: 1 hit, 1 miss: 2/3; joy: no hit: 0
    p = predictions([0, 0, 1, 1, 2], [0, -1, 1, 0, -1])
    assert macro_f1(p) == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)
    assert macro_f1(predictions([0, 1], [0, 1])) == 1.0
    assert macro_f1(predictions([0, 1], [-1, -1])) == 0.0


def test_predictions_are_matched_by_id():
    a, b = random_pair()
    shuffled = b.select(np.random.default_rng(1).permutation(b.ids))
    assert four_way(a, shuffled) == four_way(a, b) == four_way(a.correct, b.correct)
    assert cohen_kappa(a, shuffled) == cohen_kappa(a, b)


# -------------------------------------------------------------------------- against other packages


@given(st.integers(0, 300), st.integers(1, 300))
def test_mcnemar_is_the_exact_binomial_test(only_a, only_b):
    expected = binomtest(only_a, only_a + only_b, 0.5).pvalue
    assert mcnemar_exact(*right(3, only_a, only_b, 2)) == pytest.approx(expected, rel=1e-9)


def test_answers_against_scikit_learn():
    for a, b in map(random_pair, (600, 50)):
        theirs = cohen_kappa_score(a.predicted_index, b.predicted_index)
        assert cohen_kappa(a, b) == pytest.approx(theirs)
        theirs = f1_score(a.label_index, a.predicted_index, labels=range(4), average="macro")
        assert macro_f1(a) == pytest.approx(theirs)


@given(*[st.integers(0, 50)] * 4)
def test_relations_between_measures(both, only_a, only_b, neither):
    a, b = right(both, only_a, only_b, neither)
    if not len(a):
        return
    assert oracle_accuracy(a, b) == pytest.approx(1 - double_fault(a, b))
    assert oracle_accuracy(a, b) >= max(a.mean(), b.mean())
    assert mcnemar_exact(a, b) == mcnemar_exact(b, a) and 0 < mcnemar_exact(a, b) <= 1
    q = yules_q(a, b)
    assert np.isnan(q) or (-1 <= q <= 1 and q == yules_q(b, a))


# -------------------------------------------------------------------------------------- intervals


def test_difference_by_the_normal_approximation():
    a, b = right(400, 200, 120, 480)
    value, low, high, n = accuracy_difference(a, b)
    assert (value, n) == (pytest.approx(80 / 1200), 1200)
    spread = np.sqrt(320 / 1200 - (80 / 1200) ** 2) / np.sqrt(1200)
    assert low == pytest.approx(value - 1.96 * spread, abs=0.004)
    assert high == pytest.approx(value + 1.96 * spread, abs=0.004)


def test_multinomial_counts_are_a_bootstrap_over_images():
    """The same percentiles as drawing the images themselves."""
    a, b = random_pair(n=200)
    rng = np.random.default_rng(5)
    kappas, qs = [], []
    for rows in rng.integers(0, 200, (1500, 200)):
        table = np.zeros((5, 5))
        np.add.at(table, (a.predicted_index[rows], b.predicted_index[rows]), 1)
        chance = (table.sum(0) * table.sum(1)).sum() / 200**2
        kappas.append((np.trace(table) / 200 - chance) / (1 - chance))
        qs.append(yules_q(a.correct[rows], b.correct[rows]))
    compared = compare(a, b)
    for measure, drawn in (("cohen_kappa", kappas), ("yules_q", qs)):
        low, high = np.quantile(drawn, [0.025, 0.975])
        estimate, width = compared.value(measure), high - low
        assert estimate.low == pytest.approx(low, abs=0.15 * width)
        assert estimate.high == pytest.approx(high, abs=0.15 * width)


def test_intervals_cover_the_truth_in_about_95_of_100_data_sets():
    rng = np.random.default_rng(7)
    hits = np.zeros(2)
    for counts in rng.multinomial(200, [0.45, 0.25, 0.1, 0.2], 300):
        a, b = right(*counts)
        ends = accuracy_interval(a), accuracy_difference(a, b)[1:3]
        hits += [low <= truth <= high for truth, (low, high) in zip((0.7, 0.15), ends, strict=True)]
    assert (0.91 <= hits / 300).all() and (hits / 300 <= 0.985).all()


# ------------------------------------------------------------------------------------- comparison


def test_compare_agrees_with_the_plain_functions_on_every_slice():
    a, b = random_pair()
    cue = pd.Series(["content", "atmosphere", "both"] * 200, index=a.ids)
    compared = compare(a, b, by=cue)
    assert compared.slices == ("all", "atmosphere", "both", "content")
    for part in compared.slices:
        x, y = (p.select([i for i in a.ids if part in ("all", cue[i])]) for p in (a, b))
        plain = (oracle_accuracy, double_fault, agreement, cohen_kappa, yules_q)
        expected = four_way(x, y).shares | {f.__name__: f(x, y) for f in plain}
        expected |= {"accuracy_a": x.accuracy, "accuracy_b": y.accuracy}
        expected["accuracy_difference"] = x.accuracy - y.accuracy
        expected["oracle_gain"] = oracle_accuracy(x, y) - max(x.accuracy, y.accuracy)
        for measure, value in expected.items():
            estimate = compared.value(measure, part)
            assert estimate.n == len(x) and estimate.value == pytest.approx(value), measure
            assert estimate.low <= value <= estimate.high, measure
        p_value = compared.value("mcnemar_p", part)
        assert p_value.value == mcnemar_exact(x, y) and np.isnan(p_value.low)
        assert set(compared.table["measure"]) == {*expected, "mcnemar_p"}


def test_slices_do_not_depend_on_one_another():
    a, b = random_pair()
    cue = dict(zip(a.ids, ["x", "y", "z"] * 200, strict=True))
    inside = [i for i in a.ids if cue[i] == "y"]
    alone = compare(a.select(inside), b.select(inside)).value("cohen_kappa")
    assert compare(a, b, by=cue).value("cohen_kappa", "y") == alone


def test_slices_are_in_the_order_of_classes_categories_or_names():
    a, b = predictions([3, 3, 0], [3, 0, 0]), predictions([3, 3, 0], [3, 3, -1])
    compared = compare(a, b, by="label")
    assert compared.slices == ("all", *CLASSES)
    n = compared.table[compared.table["measure"] == "both"].set_index("slice")["n"]
    assert n.to_dict() == {"all": 3, "awe": 1, "fear": 0, "joy": 0, "rage": 2}
    empty = compared.table[compared.table["slice"] == "fear"].set_index("measure")["value"]
    assert empty.pop("mcnemar_p") == 1.0 and empty.isna().all()
    assert "fear (n = 0)" in str(compared) and "undefined" in str(compared)
    cue = pd.Series(["z", "a", "z"], index=a.ids)
    ordered = cue.astype(pd.CategoricalDtype(["z", "none", "a"]))
    assert compare(a, b, by=ordered).slices == ("all", "z", "none", "a")
    noise = pd.Series([True, False, True, True], index=[*a.ids, "elsewhere.png"])
    assert compare(a, b, by=noise).slices == ("all", "False", "True")


def test_text_names_the_models_and_n():
    a, b = random_pair()
    text = str(compare(a, b, by="label"))
    assert text.startswith("A: A\nB: B\n") and "95%" in text and "all (n = 600)" in text
    shown = f"{100 * a.accuracy:.1f} ["
    assert shown in next(line for line in text.splitlines() if line.startswith("accuracy of A"))


# -------------------------------------------------------------------------------- degenerate cases


def test_degenerate_tables():
    a, b = right(7, 0, 0, 3)
    assert mcnemar_exact(a, b) == 1.0 and yules_q(a, b) == 1.0
    assert accuracy_difference(a, b) == (0.0, 0.0, 0.0, 10)
    assert np.isnan(yules_q(*right(5, 2, 0, 0)))
    same = predictions([0, 1], [0, 0])
    assert np.isnan(cohen_kappa(same, same)) and agreement(same, same) == 1.0
    assert np.isnan(compare(same, same).value("cohen_kappa")[:3]).all()
    a, b = predictions([0, 0, 0], [0, 0, 1]), predictions([0, 0, 0], [0, 1, 1])
    q = compare(a, b).value("yules_q")
    assert q.value == 1.0 and np.isfinite([q.low, q.high]).all(), "undefined in some resamples only"


def test_no_images():
    none = predictions([], [])
    assert four_way(none, none).n == 0
    assert np.isnan(list(four_way(none, none).shares.values())).all()
    for measure in (oracle_accuracy, double_fault, yules_q, agreement, cohen_kappa):
        assert np.isnan(measure(none, none))
    assert mcnemar_exact([], []) == 1.0 and np.isnan(macro_f1(none))
    assert np.isnan(accuracy_interval([])).all()
    assert np.isnan(accuracy_difference([], [])[:3]).all() and accuracy_difference([], []).n == 0
    assert compare(none, none, by="label").table["n"].eq(0).all()


# --------------------------------------------------------------------------------------- bad input


A, B = random_pair(n=8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: four_way([True], [True, False]), "same images in one order"),
        (lambda: four_way(np.array([0, 3]), np.array([1, 1])), "booleans"),
        (lambda: four_way(A, B.correct), "two Predictions, or two arrays"),
        (lambda: four_way(A, B.select(B.ids[:3])), "in one of two predictions only"),
        (lambda: agreement(A.correct, B.correct), "give two Predictions"),
        (lambda: compare(A, B, by={"0.png": "x"}), "no value for 7 images, 1.png"),
        (lambda: compare(A, B, by=dict.fromkeys(A.ids)), "no value for 8 images"),
        (lambda: compare(A, B, by=dict.fromkeys(A.ids, "all")), "stands for the whole"),
        (lambda: compare(A, B).value("kappa"), "no measure 'kappa'.*cohen_kappa"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
