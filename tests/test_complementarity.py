"""Measures of two models by hand and against other packages, and intervals that cover."""

import numpy as np
import pandas as pd
import pytest
from kept_run import made

from emokd_utils.comparison import compare
from emokd_utils.complementarity import (
    FourWay,
    accuracy_difference,
    accuracy_interval,
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


def predictions(labels, predicted) -> Predictions:
    """Predictions by class number; -1 is an invalid answer."""
    names = (*CLASSES, "")
    return made([names[k] for k in predicted], [names[k] for k in labels], classes=CLASSES)


def random_pair(n=600) -> tuple[Predictions, Predictions]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, n)
    a = np.where(rng.random(n) < 0.6, labels, rng.integers(-1, 4, n))
    b = np.where(rng.random(n) < 0.4, labels, rng.integers(-1, 4, n))
    return predictions(labels, a), predictions(labels, b)


A, B = random_pair()


def test_measures_of_what_is_right_by_hand():
    a, b = right(4, 3, 2, 1)
    counted = four_way(a, b)
    assert counted == FourWay(both=4, only_a=3, only_b=2, neither=1) and counted.n == 10
    assert counted.shares == {"both": 0.4, "only_a": 0.3, "only_b": 0.2, "neither": 0.1}
    assert counted.table().to_numpy().tolist() == [[4, 3], [2, 1]]
    assert counted.table().loc["A right", "B wrong"] == 3
    assert oracle_accuracy(a, b) == 0.9 and double_fault(a, b) == 0.1
    assert yules_q(a, b) == pytest.approx((4 * 1 - 3 * 2) / (4 * 1 + 3 * 2)) == -0.2
    # 3 of 5: 2 x (C(5,0) + C(5,1) + C(5,2)) / 2^5 = 1; 1 of 9: 2 x (1 + 9) / 2^9
    assert mcnemar_exact(a, b) == 1.0
    assert mcnemar_exact(*right(7, 1, 8, 2)) == pytest.approx(20 / 512)


def test_measures_of_answers_by_hand():
    #                        label    a        b
    a = predictions([0, 0, 1, 1, 2], [0, 0, 1, 2, 2])
    b = predictions([0, 0, 1, 1, 2], [0, 1, 1, 2, 0])
    assert four_way(a, b) == FourWay(both=2, only_a=2, only_b=0, neither=1)
    # both wrong with the same class is agreement; by chance: (2 x 2 + 1 x 2 + 2 x 1) / 25
    assert cohen_kappa(a, b) == pytest.approx((0.6 - 0.32) / (1 - 0.32))


def test_an_invalid_answer_is_wrong_and_a_category_of_its_own():
    a = predictions([0, 1, 2, 3], [-1, -1, 2, 3])
    b = predictions([0, 1, 2, 3], [-1, 1, 2, -1])
    assert four_way(a, b) == FourWay(both=1, only_a=1, only_b=1, neither=1)
    assert cohen_kappa(a, b) == pytest.approx((0.5 - 5 / 16) / (1 - 5 / 16))
    # awe: 1 hit, 1 false alarm, 1 miss: 1/2; fear: 1 hit, 1 miss: 2/3; joy: no hit: 0
    p = predictions([0, 0, 1, 1, 2], [0, -1, 1, 0, -1])
    assert macro_f1(p) == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)
    assert macro_f1(predictions([0, 1], [-1, -1])) == 0.0


def test_intervals_cover_the_truth_in_about_95_of_100_data_sets():
    rng = np.random.default_rng(7)
    hits = np.zeros(2)
    for counts in rng.multinomial(200, [0.45, 0.25, 0.1, 0.2], 300):
        a, b = right(*counts)
        ends = accuracy_interval(a), accuracy_difference(a, b)[1:3]
        hits += [low <= truth <= high for truth, (low, high) in zip((0.7, 0.15), ends, strict=True)]
    assert (0.91 <= hits / 300).all() and (hits / 300 <= 0.985).all()


def test_compare_agrees_with_the_plain_functions_on_every_slice():
    cue = pd.Series(["content", "atmosphere", "both"] * 200, index=A.ids)
    compared = compare(A, B, by=cue)
    assert compared.slices == ("all", "atmosphere", "both", "content")
    for part in compared.slices:
        x, y = (p.select([i for i in A.ids if part in ("all", cue[i])]) for p in (A, B))
        plain = (oracle_accuracy, double_fault, cohen_kappa, yules_q)
        expected = four_way(x, y).shares | {f.__name__: f(x, y) for f in plain}
        expected |= {"accuracy_a": x.accuracy, "accuracy_b": y.accuracy}
        expected["agreement"] = np.mean(x.predicted_index == y.predicted_index)
        expected["accuracy_difference"] = x.accuracy - y.accuracy
        expected["oracle_gain"] = oracle_accuracy(x, y) - max(x.accuracy, y.accuracy)
        for measure, value in expected.items():
            estimate = compared.value(measure, part)
            assert estimate.n == len(x) and estimate.value == pytest.approx(value), measure
            assert estimate.low <= value <= estimate.high, measure
        p_value = compared.value("mcnemar_p", part)
        assert p_value.value == mcnemar_exact(x, y) and np.isnan(p_value.low)
        assert set(compared.table["measure"]) == {*expected, "mcnemar_p"}
        assert compared.value("yules_q", part) == compare(x, y).value("yules_q")


def test_slices_are_in_the_order_of_categories_or_names():
    a, b = predictions([3, 3, 0], [3, 0, 0]), predictions([3, 3, 0], [3, 3, -1])
    compared = compare(a, b, by=pd.Series(pd.Categorical(a.labels, CLASSES), a.ids))
    n = compared.table[compared.table["measure"] == "both"].set_index("slice")["n"]
    assert n.to_dict() == {"all": 3, "awe": 1, "fear": 0, "joy": 0, "rage": 2}
    assert compared.slices == ("all", *CLASSES)
    empty = compared.table[compared.table["slice"] == "fear"].set_index("measure")["value"]
    assert empty.pop("mcnemar_p") == 1.0 and empty.isna().all()
    noise = pd.Series([True, False, True, True], index=[*a.ids, "elsewhere.png"])
    assert compare(a, b, by=noise).slices == ("all", "False", "True")


def test_degenerate_tables():
    a, b = right(7, 0, 0, 3)
    assert mcnemar_exact(a, b) == 1.0 and yules_q(a, b) == 1.0
    assert accuracy_difference(a, b) == (0.0, 0.0, 0.0, 10)
    assert np.isnan(yules_q(*right(5, 2, 0, 0)))
    same = predictions([0, 1], [0, 0])
    assert np.isnan(cohen_kappa(same, same)) and compare(same, same).value("agreement").value == 1
    assert np.isnan(compare(same, same).value("cohen_kappa")[:3]).all()
    a, b = predictions([0, 0, 0], [0, 0, 1]), predictions([0, 0, 0], [0, 1, 1])
    q = compare(a, b).value("yules_q")
    assert q.value == 1.0 and np.isfinite([q.low, q.high]).all(), "undefined in some resamples only"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: four_way(A.correct, B.correct[:2]), "booleans for the same images"),
        (lambda: four_way(A, B.correct), "two Predictions, or two arrays"),
        (lambda: four_way(A, B.select(B.ids[:3])), "labels of 597 images differ"),
        (lambda: compare(A, B, pd.Series({"0.png": "x"})), "no value for 599 images: 1.png"),
        (lambda: compare(A, B).value("kappa"), "no measure 'kappa'.*cohen_kappa"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
