"""The distillation loss by hand, the head, and its training."""

import math

import numpy as np
import pytest
import torch

from emokd_utils.distillation import DistillationHead, TrainedHead, distillation_loss, train_head
from emokd_utils.errors import InputError
from emokd_utils.settings import HeadSettings

FAST = HeadSettings(lr=3e-3, epochs=12, batch_size=32, patience=12)
LN3 = math.log(3)


def loss(student, teacher, labels, alpha, temperature):
    student, teacher = (torch.tensor(rows, dtype=torch.float64) for rows in (student, teacher))
    return distillation_loss(student, teacher, torch.tensor(labels), alpha, temperature).item()


def toy(rows, seed, noise=0.0):
    """Features of three classes around three corners, a sharp teacher, partly wrong labels."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, rows)
    features = rng.normal(size=(rows, 6)).astype(np.float32)
    features[np.arange(rows), truth] += 2.5
    labels = np.where(rng.random(rows) < noise, rng.integers(0, 3, rows), truth)
    return features, labels, 4 * np.eye(3)[truth], truth


def train(settings=FAST, seed=0, **changes):
    x, y, teacher, _ = toy(240, 1)
    val_x, val_y, _, _ = toy(90, 2)
    usual = {"features": x, "labels": y, "teacher_logits": teacher, "val_features": val_x}
    usual |= {"val_labels": val_y, "num_classes": 3, "settings": settings, "seed": seed}
    return train_head(**(usual | changes))


# Logits (2 ln 3, 0) are odds of 9 : 1 at T = 1 and 3 : 1 at T = 2; ln(1, 2, 5) are (1, 2, 5) / 8.
KL_2 = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
KL_3 = 2 / 8 * math.log(2) + 4 / 8 * math.log(4 / 5)
KL_3 += 0.6 * math.log(1.8) + 0.3 * math.log(0.9) + 0.1 * math.log(0.3)
CE_3 = -math.log(5 / 8) - math.log(1 / 3)
STUDENT_3 = [[0.0, math.log(2), math.log(5)], [0.0, 0.0, 0.0]]
TEACHER_3 = [[math.log(2), math.log(2), math.log(4)], [math.log(6), LN3, 0.0]]
REVERSED = 0.9 * math.log(1.8) + 0.1 * math.log(0.2)


@pytest.mark.parametrize(
    ("case", "by_hand"),
    [
        (([[2 * LN3, 0.0]], [[0.0, 0.0]], [0], 0.5, 2.0), 0.5 * 4 * KL_2 - 0.5 * math.log(0.9)),
        ((STUDENT_3, TEACHER_3, [2, 0], 0.25, 1.0), (0.25 * KL_3 + 0.75 * CE_3) / 2),
        (([[0.0, 0.0]], [[2 * LN3, 0.0]], [0], 1.0, 1.0), REVERSED),  # from the teacher
        ((STUDENT_3 * 3, TEACHER_3 * 3, [2, 0] * 3, 1.0, 1.0), KL_3 / 2),  # a mean over rows alone
    ],
)
def test_loss_by_hand(case, by_hand):
    assert loss(*case) == pytest.approx(by_hand, rel=1e-12)


def test_without_alpha_it_is_cross_entropy_and_no_gradient_reaches_the_teacher():
    student, labels = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]]), torch.tensor([1, 2])
    expected = torch.nn.functional.cross_entropy(student, labels)
    assert distillation_loss(student, None, labels, alpha=0.0) == expected
    learning, teacher = student.clone().requires_grad_(), student.flip(0).requires_grad_()
    distillation_loss(learning, teacher, labels).backward()
    assert learning.grad is not None and teacher.grad is None


@pytest.mark.parametrize(("depth", "parameters"), [(1, 3_679_240), (5, 4_368_840)])
def test_the_papers_head_has_its_number_of_parameters(depth, parameters):
    head = DistillationHead(3584, 8, depth)
    assert sum(p.numel() for p in head.parameters()) == parameters
    kinds = [type(layer).__name__ for layer in head.layers]
    assert kinds == ["Linear", "GELU", "Dropout"] * depth + ["Linear"]


def test_head_learns_keeps_its_best_epoch_and_stops():
    trained = train()
    x, y, _, _ = toy(300, 3)
    assert (trained.logits(x).argmax(1) == y).mean() > 0.9
    val_x, val_y, _, _ = toy(90, 2)
    losses = [record["val_loss"] for record in trained.history]
    assert trained.best_epoch == 1 + int(np.argmin(losses))
    logits = torch.from_numpy(trained.logits(val_x))
    kept = torch.nn.functional.cross_entropy(logits, torch.from_numpy(val_y))
    assert kept.item() == pytest.approx(min(losses), rel=1e-5)
    stopped = train(HeadSettings(lr=3e-2, epochs=60, patience=2, monitor="val_accuracy"))
    assert len(stopped.history) == stopped.best_epoch + 2 < 60
    accuracies = [record["val_accuracy"] for record in stopped.history]
    assert accuracies[stopped.best_epoch - 1] == max(accuracies)


def test_a_right_teacher_mends_wrong_labels_and_alpha_zero_ignores_it():
    x, y, teacher, _ = toy(200, 5, noise=0.6)
    test_x, _, _, truth = toy(600, 6)
    settings = [HeadSettings(alpha=alpha, lr=3e-3, epochs=15, patience=15) for alpha in (0.0, 1.0)]
    heads = [train(s, features=x, labels=y, teacher_logits=teacher) for s in settings]
    alone, taught = ((head.logits(test_x).argmax(1) == truth).mean() for head in heads)
    assert taught > alone + 0.02
    assert train(settings[0], teacher_logits=None).history == train(settings[0]).history


def test_same_seed_same_numbers_and_global_state_untouched():
    torch.manual_seed(7)
    before, threads, x = torch.get_rng_state(), torch.get_num_threads(), toy(20, 9)[0]
    first = train(seed=3)
    assert torch.equal(torch.get_rng_state(), before) and torch.get_num_threads() == threads
    torch.manual_seed(8)
    second, other = train(seed=3), train(seed=4)
    assert first.history == second.history
    assert np.array_equal(first.logits(x), second.logits(x))
    assert not np.array_equal(first.logits(x), other.logits(x))


def test_standardising_makes_units_and_constant_columns_harmless():
    x, val_x = toy(240, 1)[0], toy(90, 2)[0]
    scale = np.array([1e4, 1, 1e-3, 1, 1, 0], dtype=np.float32)
    plain, scaled = train(), train(features=x * scale, val_features=val_x * scale)
    assert abs(scaled.history[-1]["val_accuracy"] - plain.history[-1]["val_accuracy"]) < 0.05
    np.testing.assert_allclose(plain.head.mean, x.mean(0), atol=1e-5)
    np.testing.assert_allclose(plain.head.std, x.std(0), atol=1e-5)
    assert scaled.head.std[5] == 1
    assert not train(HeadSettings(epochs=1, standardize=False)).head.mean.any()


def test_a_saved_head_is_the_same_head_and_another_file_is_refused(tmp_path):
    trained, x, path = train(), toy(20, 9)[0], tmp_path / "head.safetensors"
    trained.save(path)
    loaded = TrainedHead.load(path)
    assert np.array_equal(loaded.logits(x), trained.logits(x)) and not loaded.head.training
    assert vars(loaded) | {"head": 0} == vars(trained) | {"head": 0}
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"head\.safetensors"):
        TrainedHead.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": np.zeros((0, 6))}, "features must be of shape"),
        ({"features": np.full((240, 6), np.nan)}, "features has values that are not finite"),
        ({"labels": np.full(240, 3)}, r"labels must be 240 whole numbers in 0\.\.2"),
        ({"labels": np.zeros(240)}, "labels must be 240 whole numbers"),
        ({"teacher_logits": None}, r"teacher_logits must be of shape \(240, 3\)"),
        ({"val_features": np.zeros((90, 5))}, r"val_features must be of shape \(n, 6\)"),
        ({"settings": HeadSettings(lr=1e37)}, "diverged"),
    ],
)
def test_training_refuses_what_does_not_fit(change, message):
    with pytest.raises(InputError, match=message):
        train(**change)
