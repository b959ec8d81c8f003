import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from emokd_utils.errors import InputError
from emokd_utils.gates import GATES, build_gate, gate_inputs
from emokd_utils.gating import TrainedGate, optimism, stratified_folds, train_gate
from emokd_utils.settings import INPUT_MODES, GateSettings

KINDS = tuple(GATES)
STUDENT, VLM = torch.tensor([[2.0, -1.0]]), torch.tensor([[0.5, 3.0]])


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def fill(layer, weight, bias):
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))


def two_kinds(rows, seed, classes=4):
    """Rows on which the student is right and sure, and rows on which the VLM is."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    knows = rng.random(rows) < 0.5
    student = rng.normal(scale=0.7, size=(rows, classes))
    vlm = rng.normal(scale=0.7, size=(rows, classes))
    student[knows, labels[knows]] += 5
    vlm[~knows, labels[~knows]] += 5
    return student, softmax(vlm), np.eye(classes)[vlm.argmax(1)], labels


def softmax(logits):
    exponential = np.exp(logits - logits.max(1, keepdims=True))
    return exponential / exponential.sum(1, keepdims=True)


def rows_of(seed, rows=300, mode="log_probabilities"):
    student, probabilities, one_hot, labels = two_kinds(rows, seed)
    return (*gate_inputs(student, probabilities, one_hot, mode), labels)


def train(rows, seed=0, settings=None, **others):
    settings = settings or GateSettings(inputs="log_probabilities", lr=1e-2, epochs=30)
    others = {"trained_on": "val"} | others
    return train_gate(*rows, num_classes=rows[0].shape[1], settings=settings, seed=seed, **others)


def alone(values, labels):
    return (values.argmax(1) == labels).mean()


def test_concat_linear_by_hand():
    gate = build_gate("concat_linear", 2)
    fill(gate.linear, [[1.0, 2.0, 3.0, 4.0], [-1.0, 0.5, 0.0, 2.0]], [0.1, -0.2])
    # 2 - 2 + 1.5 + 12 + 0.1 and -2 - 0.5 + 0 + 6 - 0.2
    assert gate(STUDENT, VLM)[0].tolist() == pytest.approx([13.6, 3.3])
    # Flattened sides are (0.5, 0.5) and (1.75, 1.75). Logit 0 minus the mean logit is 5.15; it
    # is 13.6 -> 15.1 and 3.3 -> 5.55 without the student (4.775), 13.6 -> 12.35 and 3.3 -> 0.8
    # without the VLM (5.775): moved by 0.375 and 0.625.
    assert gate.weights(STUDENT, VLM)[0].tolist() == pytest.approx([0.375, 0.625], rel=1e-5)


def test_bilinear_by_hand():
    gate = build_gate("bilinear", 2)
    fill(gate.bilinear, [[[1.0, 0.0], [0.0, 1.0]], [[0.0, 2.0], [-1.0, 0.0]]], [0.5, 1.0])
    # s0 v0 + s1 v1 + 0.5 = 1 - 3 + 0.5 and 2 s0 v1 - s1 v0 + 1 = 12 + 0.5 + 1
    assert gate(STUDENT, VLM)[0].tolist() == pytest.approx([-1.5, 13.5])


def test_mixture_of_experts_by_hand():
    gate = build_gate("mixture_of_experts", 2)
    fill(gate.student_expert, [[1.0, 1.0], [0.0, 2.0]], [0.0, 1.0])
    fill(gate.vlm_expert, [[2.0, 0.0], [0.0, 1.0]], [0.5, 0.0])
    fill(gate.router, [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.5]], [0.0, 0.0])
    # Experts (1, -1) and (1.5, 3); router logits 2 and 1.5.
    share = sigmoid(0.5)
    expected = [share * 1 + (1 - share) * 1.5, share * -1 + (1 - share) * 3]
    assert gate(STUDENT, VLM)[0].tolist() == pytest.approx(expected)
    assert gate.weights(STUDENT, VLM)[0].tolist() == pytest.approx([share, 1 - share])


def test_dynamic_weighting_by_hand():
    gate = build_gate("dynamic_weighting", 2)
    first, last = gate.weigh[0], gate.weigh[2]
    fill(first, torch.zeros(16, 4).tolist(), [1.0] + [0.0] * 15)
    fill(last, [[2.0] + [5.0] * 15], [-1.0])
    with torch.no_grad():
        gate.log_scale.copy_(torch.tensor([math.log(3), math.log(0.5)]))
    gelu_of_one = 0.5 * (1 + math.erf(1 / math.sqrt(2)))
    w = sigmoid(2 * gelu_of_one - 1)
    expected = [w * 6 + (1 - w) * 0.25, w * -3 + (1 - w) * 1.5]
    assert gate(STUDENT, VLM)[0].tolist() == pytest.approx(expected, rel=1e-5)
    assert gate.weights(STUDENT, VLM)[0].tolist() == pytest.approx([w, 1 - w], rel=1e-5)


def test_cross_gating_by_hand():
    gate = build_gate("cross_gating", 2)
    fill(gate.open_student, [[2.0, 0.0], [0.0, 1.0]], [0.0, -1.0])
    fill(gate.open_vlm, [[0.5, 0.0], [0.0, 1.0]], [0.0, 1.0])
    fill(gate.project, [[1.0, 0.0, 2.0, 0.0], [0.0, 1.0, 0.0, -1.0]], [0.0, 0.5])
    student = [sigmoid(1) * 2, sigmoid(2) * -1]
    vlm = [sigmoid(1) * 0.5, sigmoid(0) * 3]
    expected = [student[0] + 2 * vlm[0], student[1] - vlm[1] + 0.5]
    assert gate(STUDENT, VLM)[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_shares(kind):
    torch.manual_seed(1)
    gate = build_gate(kind, 5)
    for parameter in gate.parameters():
        torch.nn.init.normal_(parameter)
    student, vlm = torch.randn(50, 5), torch.eye(5)[torch.arange(50) % 5]
    shares = gate.weights(student, vlm)
    assert shares.shape == (50, 2) and (shares >= 0).all()
    assert torch.allclose(shares.sum(1), torch.ones(50))


@pytest.mark.parametrize("kind", ["concat_linear", "cross_gating"])
def test_an_answer_outside_the_label_set_leaves_the_decision_to_the_student(kind):
    gate = build_gate(kind, 3)
    student, nothing = torch.tensor([[0.0, 2.0, 1.0]]), torch.zeros(1, 3)
    assert gate(student, nothing).argmax().item() == 1
    assert gate.weights(student, nothing)[0].tolist() == [1, 0]
    assert gate.weights(nothing, nothing)[0].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", INPUT_MODES)
def test_every_gate_takes_every_kind_of_input(kind, mode):
    student, probabilities, one_hot, labels = two_kinds(40, 0)
    one_hot[:5], probabilities[:5] = 0, 0.25
    rows = (*gate_inputs(student, probabilities, one_hot, mode), labels)
    settings = GateSettings(kind=kind, inputs=mode, lr=1e-2, epochs=2, folds=2)
    gate = train(rows, settings=settings)
    assert np.isfinite(gate.logits(*rows[:2])).all()
    assert gate.weights(*rows[:2]).sum(1) == pytest.approx(1)


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(InputError, match="concat_linear, bilinear, mixture_of_experts"):
        build_gate("concat", 8)
    with pytest.raises(InputError, match="logits_onehot, softmax_onehot"):
        gate_inputs(np.zeros((1, 2)), None, np.zeros((1, 2)), "onehot")


def test_gate_inputs_by_hand():
    logits = np.array([[math.log(3), 0.0], [0.0, 20.0]])
    probabilities = np.array([[0.2, 0.8], [1.0, 0.0]])
    one_hot = np.array([[0, 1], [0, 0]])
    results = {m: gate_inputs(logits, probabilities, one_hot, m) for m in INPUT_MODES}
    for student, vlm in results.values():
        assert student.dtype == vlm.dtype == np.float32 and student.shape == vlm.shape == (2, 2)
    assert results["logits_onehot"][0] == pytest.approx(logits)
    assert results["softmax_onehot"][0][0] == pytest.approx([0.75, 0.25])
    for mode in ("logits_onehot", "softmax_onehot"):
        assert np.array_equal(results[mode][1], one_hot)
    assert results["probabilities"][0][0] == pytest.approx([0.75, 0.25])
    assert results["probabilities"][1] == pytest.approx(probabilities)
    student, vlm = results["log_probabilities"]
    assert student[0] == pytest.approx(np.log([0.75, 0.25]))
    assert student[1] == pytest.approx([math.log(1e-4), 0], abs=1e-6)
    assert vlm[1] == pytest.approx([0, math.log(1e-4)])


@pytest.mark.parametrize(
    ("probabilities", "one_hot", "mode", "message"),
    [
        ([[0.5, np.nan]], None, "probabilities", "not finite"),
        ([[1.0, 0.0]] * 2, None, "probabilities", "2 rows"),
        ([[0.2, 0.3, 0.5]], None, "probabilities", "shape"),
        (None, [[1, 0]], "probabilities", "vlm_probabilities is None"),
        ([[1.0, 0.0]], None, "logits_onehot", "vlm_one_hot is None"),
    ],
)
def test_gate_inputs_refuse_what_does_not_fit(probabilities, one_hot, mode, message):
    with pytest.raises(InputError, match=message):
        gate_inputs(np.zeros((1, 2)), probabilities, one_hot, mode)


@pytest.mark.parametrize("mode", INPUT_MODES)
def test_the_papers_gate_beats_both_of_its_inputs(mode):
    rows, test = rows_of(1, mode=mode), rows_of(2, rows=1000, mode=mode)
    gate = train(rows, settings=GateSettings(inputs=mode, lr=3e-2))
    assert gate.passed_through is None
    best = max(alone(test[0], test[2]), alone(test[1], test[2]))
    assert gate.accuracy(test) > best + 0.05
    assert gate.report["gate_cv"] == pytest.approx(gate.accuracy(test), abs=0.08)


@pytest.mark.parametrize("kind", KINDS)
def test_every_gate_beats_both_of_its_inputs(kind):
    rows, test = rows_of(1, mode="probabilities"), rows_of(2, rows=1000, mode="probabilities")
    settings = GateSettings(kind=kind, inputs="probabilities", lr=3e-2)
    gate = train(rows, settings=settings)
    best = max(alone(test[0], test[2]), alone(test[1], test[2]))
    assert gate.accuracy(test) > best + 0.05


def test_same_seed_same_numbers_and_global_state_untouched():
    rows = rows_of(3, rows=80)
    settings = GateSettings("dynamic_weighting", "log_probabilities", lr=1e-2, epochs=5, folds=3)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = train(rows, 3, settings)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(8)
    second, other = train(rows, 3, settings), train(rows, 4, settings)
    assert (first.history, first.report) == (second.history, second.report)
    assert np.array_equal(first.logits(*rows[:2]), second.logits(*rows[:2]))
    assert not np.array_equal(first.logits(*rows[:2]), other.logits(*rows[:2]))


def test_without_folds_the_gate_trains_for_exactly_its_epochs():
    settings = GateSettings(inputs="log_probabilities", lr=1e-2, epochs=4, folds=0)
    gate = train(rows_of(3, rows=80), settings=settings)
    assert gate.epochs == 4 and gate.history == []
    assert gate.report["gate_cv"] is None and gate.passed_through is None


def test_cross_validation_never_judges_a_row_by_a_gate_that_saw_it():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    rows = (rng.normal(size=(60, 2)), rng.normal(size=(60, 2)), labels)
    settings = GateSettings("bilinear", "log_probabilities", lr=1e-1, epochs=100, patience=100)
    gate = train(rows, settings=settings, fallback=False)
    assert 0.2 < gate.report["gate_cv"] < 0.8


def test_folds_are_stratified():
    labels = np.array([0] * 50 + [1] * 13 + [2] * 7)
    fold = stratified_folds(labels, 5, seed=0)
    for label in range(3):
        counts = np.bincount(fold[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    assert np.bincount(fold).tolist() == [14] * 5


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
    rows = (*gate_inputs(student, softmax(vlm), one_hot, mode), labels)
    settings = GateSettings("bilinear", mode, lr=1e-3, epochs=3)
    gate = train(rows, settings=settings)
    assert gate.passed_through == better
    assert gate.report["gate_cv"] < gate.report[better] == 24 / 25
    assert gate.accuracy(rows) == 24 / 25
    column = 0 if better == "student" else 1
    assert (gate.weights(*rows[:2])[:, column] == 1).all()
    assert f"passes the {better} through" in repr(gate)
    if mode == "probabilities":
        source = rows[column]
        assert softmax(gate.logits(*rows[:2])) == pytest.approx(source, abs=1e-3)
    kept = train(rows, settings=settings, fallback=False)
    assert kept.passed_through is None


def test_an_answer_outside_the_label_set_is_wrong_and_falls_to_the_student():
    labels = np.zeros(20, int)
    student, vlm = np.tile([-1.0, 1.0], (20, 1)), np.tile([1.0, 0.0], (20, 1))
    student[0], vlm[0] = [2.0, 0.0], 0
    rows = (*gate_inputs(student, None, vlm, "logits_onehot"), labels)
    settings = GateSettings("bilinear", "logits_onehot", lr=1e-6, epochs=1, folds=2)
    gate = replace(train(rows, settings=settings), passed_through="vlm")
    assert gate.report["vlm"] == 19 / 20
    assert gate.accuracy(rows) == 1
    assert gate.weights(*rows[:2])[:2].tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("kind", KINDS)
def test_save_and_load_give_the_same_gate(kind, tmp_path):
    rows = rows_of(5, rows=60)
    settings = GateSettings(kind, "log_probabilities", lr=1e-2, epochs=3, folds=2)
    gate = train(rows, settings=settings)
    gate.save(tmp_path / "gate.safetensors")
    before = torch.get_rng_state()
    loaded = TrainedGate.load(tmp_path / "gate.safetensors")
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(loaded.logits(*rows[:2]), gate.logits(*rows[:2]))
    assert loaded.logits(*rows[:2]).dtype == np.float32
    for name in ("settings", "trained_on", "rows", "report", "passed_through", "epochs", "history"):
        assert getattr(loaded, name) == getattr(gate, name), name
    assert repr(loaded) == repr(gate) and "60 rows of val" in repr(loaded)


def test_load_refuses_what_is_no_gate(tmp_path):
    path = tmp_path / "gate.safetensors"
    with pytest.raises(InputError, match="cannot be read"):
        TrainedGate.load(path)
    path.write_bytes(b"not weights")
    with pytest.raises(InputError, match=r"gate\.safetensors"):
        TrainedGate.load(path)


def test_optimism_of_a_gate_that_memorised():
    # The VLM knows its training images' labels by heart and nothing else; the student is fair.
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 600)
    student = rng.normal(size=(600, 4)) + 1.5 * np.eye(4)[labels]
    answers = np.where(np.arange(600) < 300, labels, rng.integers(0, 4, 600))
    inputs = gate_inputs(student, None, np.eye(4)[answers], "logits_onehot")
    seen, unseen = (
        (*(part[half] for part in inputs), labels[half])
        for half in (slice(0, 300), slice(300, 600))
    )
    leaky = train(seen, settings=GateSettings(lr=1e-2), trained_on="train")
    measured = optimism(leaky, seen, unseen)
    assert "of train" in repr(leaky)
    assert measured.seen == leaky.accuracy(seen) and measured.unseen == leaky.accuracy(unseen)
    assert measured.difference == pytest.approx(measured.seen - measured.unseen)
    assert 0.2 < measured.low < measured.difference < measured.high
    assert measured == optimism(leaky, seen, unseen)
    halves = (slice(300, 450), slice(450, 600))
    fair, other = ((*(part[half] for part in inputs), labels[half]) for half in halves)
    honest = optimism(train(fair, settings=GateSettings(lr=1e-2)), fair, other)
    assert honest.low < 0.1 and honest.difference < measured.low


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vlm": np.zeros((9, 4))}, "align both by id"),
        ({"vlm": np.zeros((10, 3))}, "vlm must be of shape"),
        ({"labels": np.full(10, 4)}, "labels must lie in 0..3"),
        ({"settings": GateSettings(folds=11)}, "10 rows cannot make 11 folds"),
        ({"settings": GateSettings(kind="bilinear", lr=1e38)}, "diverged"),
    ],
)
def test_training_refuses_what_does_not_fit(change, message):
    student, vlm, labels = rows_of(0, rows=10)
    fitting = {"student": student, "vlm": vlm, "labels": labels, "num_classes": 4}
    fitting |= {"settings": GateSettings(), "seed": 0, "trained_on": "val"}
    with pytest.raises(InputError, match=message):
        train_gate(**(fitting | change))
