"""Gates by hand, their inputs, their training, and what is passed through in their place."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import softmax

from emokd_utils.errors import InputError
from emokd_utils.gates import GATES, build_gate, gate_inputs
from emokd_utils.gating import TrainedGate, optimism, regression, stratified_folds, train_gate
from emokd_utils.probe import NEVER
from emokd_utils.settings import GATE_KINDS, INPUT_MODES, GateSettings

KINDS = tuple(GATES)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def check(kind, logits, shares=None, scales=None, **layers):
    """layers: the weight and the bias of each; the student says (2, -1), the VLM (0.5, 3)."""
    gate, student, vlm = build_gate(kind, 2), torch.tensor([[2, -1.0]]), torch.tensor([[0.5, 3]])
    for name, values in layers.items():
        state = zip(("weight", "bias"), map(torch.tensor, values), strict=True)
        gate.get_submodule(name.replace("_at_", ".")).load_state_dict(dict(state))
    if scales:
        gate.log_scale.data = torch.tensor(scales).log()
    assert gate(student, vlm)[0].tolist() == pytest.approx(logits, rel=1e-5)
    if shares:
        assert gate.weights(student, vlm)[0].tolist() == pytest.approx(shares, rel=1e-5)


def test_the_regression_beside_the_gates_learns_from_its_rows_alone():
    sides, labels = np.eye(3, dtype=np.float32)[[0, 1] * 6 + [2]], np.array([0, 1] * 6 + [2])
    logits = regression(sides, np.zeros_like(sides), labels, np.arange(12), 3)
    assert logits[:12].argmax(1).tolist() == [0, 1] * 6 and logits.dtype == np.float32
    np.testing.assert_allclose(np.exp(logits[:12]).sum(1), 1, rtol=1e-5)
    assert (logits[:, 2] == NEVER).all(), "a class that these rows do not have"


def test_concat_linear_by_hand():
    assert KINDS == GATE_KINDS and KINDS[0] == "concat_linear", "what a profile may name"
    # Flattened sides are (0.5, 0.5) and (1.75, 1.75). Logit 0 leads the mean by 5.15; by 4.775
    # without the student (15.1 and 5.55), by 5.775 without the VLM (12.35 and 0.8).
    weight, logits = [[1, 2, 3, 4], [-1, 0.5, 0, 2]], [2 - 2 + 1.5 + 12 + 0.1, -2 - 0.5 + 6 - 0.2]
    check("concat_linear", logits, [0.375, 0.625], linear=(weight, [0.1, -0.2]))


def test_bilinear_by_hand():
    weight = [[[1, 0], [0, 1]], [[0, 2], [-1, 0]]]
    check("bilinear", [1 - 3 + 0.5, 12 + 0.5 + 1], bilinear=(weight, [0.5, 1]))


def test_mixture_of_experts_by_hand():
    r = sigmoid(2 - 1.5)  # of router logits 2 and 1.5; the experts say (1, -1) and (1.5, 3)
    experts = {
        "student_expert": ([[1, 1], [0, 2]], [0, 1]),
        "vlm_expert": ([[2, 0], [0, 1]], [0.5, 0]),
    }
    router, logits = ([[1, 0, 0, 0], [0, 0, 0, 0.5]], [0, 0]), [r + (1 - r) * 1.5, -r + (1 - r) * 3]
    check("mixture_of_experts", logits, [r, 1 - r], router=router, **experts)


def test_dynamic_weighting_by_hand():
    w = sigmoid(2 * 0.5 * (1 + math.erf(1 / math.sqrt(2))) - 1)  # of 2 GELU(1) - 1
    mlp = {
        "weigh_at_0": (np.zeros((16, 4)), [1] + [0] * 15),
        "weigh_at_2": ([[2] + [5] * 15], [-1]),
    }
    logits = [w * 3 * 2 + (1 - w) * 0.5 * 0.5, w * 3 * -1 + (1 - w) * 0.5 * 3]
    check("dynamic_weighting", logits, [w, 1 - w], scales=[3, 0.5], **mlp)


def test_cross_gating_by_hand():
    gates = {"open_student": ([[2, 0], [0, 1]], [0, -1]), "open_vlm": ([[0.5, 0], [0, 1]], [0, 1])}
    project = ([[1, 0, 2, 0], [0, 1, 0, -1]], [0, 0.5])
    logits = [2 * sigmoid(1) + 2 * 0.5 * sigmoid(1), -sigmoid(2) - 3 * sigmoid(0) + 0.5]
    check("cross_gating", logits, project=project, **gates)
    mixed = [2.5 * sigmoid(1), 3 * sigmoid(0) - sigmoid(2)]
    check("published_cross", last(*mixed), linear=LAST, **gates)


LAST = ([[1, 1], [0, 2]], [0, 1])  # a layer behind others


def last(first, second):
    return [first + second, 2 * second + 1]


def test_the_published_codes_forms_by_hand():
    weight = [[[1, 0], [0, 1]], [[0, 2], [-1, 0]]]
    bilinear = (weight, [0.5, 1])
    check("published_bilinear", last(-1.5, 13.5), bilinear=bilinear, linear=LAST)
    e = math.exp(2)  # the router's logits are 2, 0, 2; the experts say s, v and (1, 1)
    router = ([[1, 0, 0, 0], [0] * 4, [0, 0, 0, 1]], [0, 0, -1])
    experts = ([*np.eye(4).tolist(), [0] * 4, [0] * 4], [0, 0, 0, 0, 1, 1])
    logits = [(2 * e + 0.5 + e) / (2 * e + 1), (-e + 3 + e) / (2 * e + 1)]
    check("published_mixture", logits, router=router, experts=experts)
    r, router = sigmoid(2 - 1.5), ([[1, 0, 0, 0], [0, 0, 0, 0.5]], [0, 0])
    mixed = [2 * r + 0.5 * (1 - r), -r + 3 * (1 - r)]
    check("published_weighting", last(*mixed), [r, 1 - r], router=router, linear=LAST)


def rows_of(seed, rows=300, mode="log_probabilities"):
    """Rows on which the student is right and sure, and rows on which the VLM is."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, rows)
    knows = rng.random(rows) < 0.5
    student, vlm = rng.normal(scale=0.7, size=(2, rows, 4))
    student[knows, labels[knows]] += 5
    vlm[~knows, labels[~knows]] += 5
    one_hot = np.eye(4)[vlm.argmax(1)]
    return (*gate_inputs(student, softmax(vlm, axis=1), one_hot, mode), labels)


def train(rows, seed=0, trained_on="val", **settings):
    settings = GateSettings(**{"inputs": "log_probabilities", "lr": 1e-2, "epochs": 30} | settings)
    about = {"num_classes": rows[0].shape[1], "trained_on": trained_on}
    return train_gate(*rows, settings=settings, seed=seed, **about)


def alone(values, labels):
    return (values.argmax(1) == labels).mean()


def accuracy(gate, rows):
    return alone(gate.logits(*rows[:2]), rows[2])


@pytest.mark.parametrize("kind", ["concat_linear", "cross_gating"])
def test_an_answer_outside_the_label_set_leaves_the_decision_to_the_student(kind):
    gate = build_gate(kind, 3)
    student, nothing = torch.tensor([[0.0, 2.0, 1.0]]), torch.zeros(1, 3)
    assert gate(student, nothing).argmax().item() == 1
    assert gate.weights(student, nothing)[0].tolist() == [1, 0]
    assert gate.weights(nothing, nothing)[0].tolist() == [0.5, 0.5]


def test_gate_inputs_by_hand():
    logits = np.array([[math.log(3), 0.0], [0.0, 20.0]])
    probabilities, one_hot = np.array([[0.2, 0.8], [1.0, 0.0]]), np.array([[0, 1], [0, 0]])
    odds, floor = np.array([[0.75, 0.25], [2e-9, 1]]), math.log(1e-4)
    logs = ([[*np.log([0.75, 0.25])], [floor, 0]], [[*np.log([0.2, 0.8])], [0, floor]])
    by_hand = {"logits_onehot": (logits, one_hot), "softmax_onehot": (odds, one_hot)}
    by_hand |= {"probabilities": (odds, probabilities), "log_probabilities": logs}
    for mode in INPUT_MODES:
        sides = gate_inputs(logits, probabilities, one_hot, mode)
        np.testing.assert_allclose(sides, by_hand[mode], atol=1e-6)
        assert all(side.dtype == np.float32 for side in sides)


PAIRS = [("concat_linear", mode) for mode in INPUT_MODES]
PAIRS += [(kind, "probabilities") for kind in KINDS[1:]]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "mode"), PAIRS)
def test_every_gate_beats_both_of_its_inputs_and_knows_how_good_it_is(kind, mode):
    rows, test = rows_of(1, mode=mode), rows_of(2, rows=1000, mode=mode)
    gate = train(rows, kind=kind, inputs=mode, lr=3e-2, epochs=100)
    assert gate.passed_through is None
    best = max(alone(test[0], test[2]), alone(test[1], test[2]))
    assert accuracy(gate, test) > best + 0.05
    assert gate.report["gate_cv"] == pytest.approx(accuracy(gate, test), abs=0.08)
    shares = gate.weights(*test[:2])
    assert shares.sum(1) == pytest.approx(1) and (shares >= 0).all()


def test_the_same_seed_and_a_saved_gate_give_the_same_numbers(tmp_path):
    rows, settings = rows_of(3, rows=80), {"kind": "dynamic_weighting", "epochs": 5, "folds": 3}
    first, second, other = (train(rows, seed, **settings) for seed in (3, 3, 4))
    first.save(tmp_path / "gate.safetensors")
    loaded = TrainedGate.load(tmp_path / "gate.safetensors")
    assert vars(loaded) | {"gate": 0} == vars(first) | {"gate": 0}
    assert repr(loaded) == repr(first) and "80 rows of val" in repr(loaded)
    assert np.array_equal(loaded.logits(*rows[:2]), first.logits(*rows[:2]))
    assert (first.history, first.report) == (second.history, second.report)
    assert np.array_equal(first.logits(*rows[:2]), second.logits(*rows[:2]))
    assert not np.array_equal(first.logits(*rows[:2]), other.logits(*rows[:2]))


def test_folds():
    gate = train(rows_of(3, rows=80), epochs=4, folds=0)
    assert gate.epochs == 4 and gate.history == [] and gate.passed_through is None
    assert gate.report["gate_cv"] is None
    labels = np.array([0] * 50 + [1] * 13 + [2] * 7)
    counts = np.array([np.bincount(stratified_folds(labels, 5, 0)[labels == k]) for k in range(3)])
    assert (np.ptp(counts, axis=1) <= 1).all() and counts.sum(0).tolist() == [14] * 5


def test_cross_validation_never_judges_a_row_by_a_gate_that_saw_it():
    rng, labels = np.random.default_rng(0), np.arange(60) % 2
    rows = (rng.normal(size=(60, 2)), rng.normal(size=(60, 2)), labels)
    gate = train(rows, kind="bilinear", lr=1e-1, epochs=100, patience=100)
    assert 0.2 < gate.report["gate_cv"] < 0.8


@pytest.mark.parametrize("better", ["student", "vlm"])
@pytest.mark.parametrize("mode", INPUT_MODES)
def test_a_gate_behind_its_better_input_passes_that_through(better, mode):
    # Twenty-five rows, the good side nearly always right, the other noise, a gate that overfits.
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 25)
    good, noise = 3 * np.eye(2)[labels], 30 * rng.normal(size=(25, 2))
    good[0] = good[0][::-1]
    student, vlm = (good, noise) if better == "student" else (noise, good)
    one_hot = np.eye(2)[vlm.argmax(1)]
    rows = (*gate_inputs(student, softmax(vlm, axis=1), one_hot, mode), labels)
    gate = train(rows, kind="bilinear", inputs=mode, lr=1e-3, epochs=3)
    assert gate.passed_through == better
    assert gate.report["gate_cv"] < gate.report[better] == accuracy(gate, rows) == 24 / 25
    column = 0 if better == "student" else 1
    assert (gate.weights(*rows[:2])[:, column] == 1).all()
    if mode == "probabilities":
        np.testing.assert_allclose(softmax(gate.logits(*rows[:2]), axis=1), rows[column], atol=1e-3)


def test_an_answer_outside_the_label_set_is_wrong_and_falls_to_the_student():
    labels = np.zeros(20, int)
    student, vlm = np.tile([-1.0, 1.0], (20, 1)), np.tile([1.0, 0.0], (20, 1))
    student[0], vlm[0] = [2.0, 0.0], 0
    rows = (*gate_inputs(student, None, vlm, "logits_onehot"), labels)
    gate = train(rows, kind="bilinear", inputs="logits_onehot", lr=1e-6, epochs=1, folds=2)
    gate = replace(gate, passed_through="vlm")
    assert gate.report["vlm"] == 19 / 20 and accuracy(gate, rows) == 1
    assert gate.weights(*rows[:2])[:2].tolist() == [[1, 0], [0, 1]]


def test_optimism_of_a_gate_that_memorised():
    # The VLM knows its training images' labels by heart and nothing else; the student is fair.
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 600)
    student = rng.normal(size=(600, 4)) + 1.5 * np.eye(4)[labels]
    answers = np.where(np.arange(600) < 300, labels, rng.integers(0, 4, 600))
    inputs = (*gate_inputs(student, None, np.eye(4)[answers], "logits_onehot"), labels)
    seen, unseen = [values[:300] for values in inputs], [values[300:] for values in inputs]
    leaky = train(seen, inputs="logits_onehot", epochs=100, trained_on="train")
    here, there, gain = measured = optimism(leaky, seen, unseen)
    assert (here, there) == (accuracy(leaky, seen), accuracy(leaky, unseen))
    assert 0.2 < gain.low < gain.value == here - there < gain.high and gain.n == 600
    assert measured == optimism(leaky, seen, unseen)


ROW, TEN = np.zeros((1, 2)), rows_of(0, rows=10)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gate_inputs(ROW, [[1, 0]] * 2, None, "probabilities"), r"\(1, 2\).* not \(2, 2\)"),
        (
            lambda: gate_inputs(ROW, None, [[1, 0]], "probabilities"),
            "input in mode 'probabilities'",
        ),
        (lambda: gate_inputs(ROW, None, [[1, 0]], "onehot"), "logits_onehot, softmax_onehot"),
        (lambda: train((TEN[0], TEN[1][:9], TEN[2])), r"vlm must be of shape \(10, 4\)"),
        (lambda: train((*TEN[:2], np.full(10, 4))), r"labels must be 10 whole numbers in 0\.\.3"),
        (lambda: train(TEN, folds=11), "10 rows cannot make 11 folds"),
        (lambda: train(TEN, kind="bilinear", lr=1e38), "diverged"),
        (lambda: train(TEN, kind="concat"), "concat_linear, bilinear, mixture_of_experts"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
