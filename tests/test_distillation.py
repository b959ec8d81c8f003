import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from emokd_utils.distillation import (
    DistillationHead,
    TrainedHead,
    distillation_loss,
    train_head,
)
from emokd_utils.errors import InputError
from emokd_utils.settings import HeadSettings

FAST = HeadSettings(lr=3e-3, epochs=12, batch_size=32, patience=12)


def tensor(rows):
    return torch.tensor(rows, dtype=torch.float64)


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
    given_ = {"features": x, "labels": y, "teacher_logits": teacher, "val_features": val_x}
    given_ |= {"val_labels": val_y, "num_classes": 3, "settings": settings, "seed": seed}
    return train_head(**(given_ | changes))


def test_loss_of_two_classes_by_hand():
    # Logits (2 ln 3, 0) at T = 2 give odds 3 : 1 and logits (0, 0) give 1 : 1.
    student, teacher = tensor([[2 * math.log(3), 0.0]]), tensor([[0.0, 0.0]])
    kl = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    ce = -math.log(9 / 10)
    loss = distillation_loss(student, teacher, torch.tensor([0]), alpha=0.5, temperature=2.0)
    assert loss.item() == pytest.approx(0.5 * 4 * kl + 0.5 * ce, rel=1e-12)


def test_loss_of_three_classes_by_hand():
    # At T = 1, logits ln(1, 2, 5) are probabilities (1, 2, 5) / 8.
    student = tensor([[math.log(1), math.log(2), math.log(5)], [0.0, 0.0, 0.0]])
    teacher = tensor([[math.log(2), math.log(2), math.log(4)], [math.log(6), math.log(3), 0.0]])
    first = 2 / 8 * math.log(2 / 1) + 2 / 8 * math.log(2 / 2) + 4 / 8 * math.log(4 / 5)
    second = 0.6 * math.log(1.8) + 0.3 * math.log(0.9) + 0.1 * math.log(0.3)
    ce = (-math.log(5 / 8) - math.log(1 / 3)) / 2
    loss = distillation_loss(student, teacher, torch.tensor([2, 0]), alpha=0.25, temperature=1.0)
    assert loss.item() == pytest.approx(0.25 * (first + second) / 2 + 0.75 * ce, rel=1e-12)


def test_kl_is_from_teacher_to_student_not_the_reverse():
    student, teacher = tensor([[0.0, 0.0]]), tensor([[math.log(9), 0.0]])
    loss = distillation_loss(student, teacher, torch.tensor([0]), alpha=1.0, temperature=1.0)
    assert loss.item() == pytest.approx(0.9 * math.log(1.8) + 0.1 * math.log(0.2), rel=1e-12)
    reverse = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert loss.item() != pytest.approx(reverse, rel=0.1)


def test_kl_is_averaged_over_rows_not_over_rows_and_classes():
    student, teacher = tensor([[0.0, 0.0, 0.0, 0.0]]), tensor([[3.0, 1.0, 0.0, -1.0]])
    label = torch.tensor([0])
    once = distillation_loss(student, teacher, label, alpha=1.0)
    thrice = distillation_loss(
        student.repeat(3, 1), teacher.repeat(3, 1), label.repeat(3), alpha=1.0
    )
    p = torch.softmax(teacher[0] / 2, dim=0)
    by_row = 4 * (p * (p * 4).log()).sum().item()
    assert once.item() == pytest.approx(by_row, rel=1e-12)
    assert thrice.item() == pytest.approx(by_row, rel=1e-12)


def test_gradient_keeps_its_size_as_the_temperature_grows():
    torch.manual_seed(0)
    teacher, start = torch.randn(16, 8, dtype=torch.float64), torch.randn(16, 8).double()
    gradients = []
    for temperature in (50.0, 500.0):
        student = start.clone().requires_grad_()
        labels = torch.zeros(16, dtype=torch.int64)
        distillation_loss(student, teacher, labels, 1.0, temperature).backward()
        gradients.append(student.grad)
    assert gradients[0].norm().item() == pytest.approx(gradients[1].norm().item(), rel=0.02)
    centred = (start - start.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    assert torch.allclose(gradients[1], centred / 8 / 16, atol=1e-3 * centred.abs().max().item())


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.floats(-20, 20), min_size=3, max_size=3), min_size=1, max_size=5),
    st.floats(0.1, 20),
    st.floats(-5, 5),
)
def test_a_student_equal_to_its_teacher_has_no_divergence(rows, temperature, shift):
    logits = tensor(rows)
    labels = torch.zeros(len(rows), dtype=torch.int64)
    assert distillation_loss(logits, logits + shift, labels, 1.0, temperature).item() < 1e-6
    other = logits + tensor([[1.0, 0.0, -1.0]])
    assert distillation_loss(other, logits, labels, 1.0, temperature).item() > -1e-9


def test_alpha_zero_is_cross_entropy_and_needs_no_teacher():
    student = tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]])
    labels = torch.tensor([1, 2])
    expected = torch.nn.functional.cross_entropy(student, labels)
    assert distillation_loss(student, None, labels, alpha=0.0) == expected
    assert distillation_loss(student, student.flip(0), labels, alpha=0.0) == expected


def test_no_gradient_reaches_the_teacher():
    student = torch.zeros(1, 2, requires_grad=True)
    teacher = torch.ones(1, 2, requires_grad=True)
    distillation_loss(student, teacher, torch.tensor([0])).backward()
    assert student.grad is not None and teacher.grad is None


@pytest.mark.parametrize(
    ("depth", "parameters"),
    [
        (1, 3_679_240),
        (5, 3584 * 1024 + 1024 * 512 + 512 * 256 + 256 * 128 + 128 * 64 + 64 * 8 + 1992),
    ],
)
def test_the_papers_head_has_its_number_of_parameters(depth, parameters):
    head = DistillationHead(3584, 8, depth)
    assert sum(p.numel() for p in head.parameters()) == parameters
    kinds = [type(layer).__name__ for layer in head.layers]
    assert kinds == ["Linear", "GELU", "Dropout"] * depth + ["Linear"]


def test_head_learns_and_keeps_its_best_epoch():
    trained = train()
    x, y, _, _ = toy(300, 3)
    assert (trained.logits(x).argmax(1) == y).mean() > 0.9
    val_x, val_y, _, _ = toy(90, 2)
    losses = [record["val_loss"] for record in trained.history]
    assert trained.best_epoch == 1 + int(np.argmin(losses))
    kept = torch.nn.functional.cross_entropy(
        torch.from_numpy(trained.logits(val_x)), torch.from_numpy(val_y)
    )
    assert kept.item() == pytest.approx(min(losses), rel=1e-5)


def test_a_right_teacher_mends_wrong_labels():
    x, y, teacher, _ = toy(200, 5, noise=0.6)
    test_x, _, _, truth = toy(600, 6)
    accuracy = {}
    for alpha in (0.0, 1.0):
        settings_ = HeadSettings(alpha=alpha, lr=3e-3, epochs=15, patience=15)
        trained = train(settings_, features=x, labels=y, teacher_logits=teacher)
        accuracy[alpha] = (trained.logits(test_x).argmax(1) == truth).mean()
    assert accuracy[1.0] > accuracy[0.0] + 0.02


def test_training_stops_when_validation_no_longer_improves():
    settings_ = HeadSettings(lr=3e-2, epochs=60, patience=2, monitor="val_accuracy")
    trained = train(settings_)
    assert len(trained.history) == trained.best_epoch + 2 < 60
    accuracies = [record["val_accuracy"] for record in trained.history]
    assert accuracies[trained.best_epoch - 1] == max(accuracies)


def test_same_seed_same_numbers_and_global_state_untouched():
    torch.manual_seed(7)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    first = train(seed=3)
    assert torch.equal(torch.get_rng_state(), before) and torch.get_num_threads() == threads
    torch.manual_seed(8)
    second, other = train(seed=3), train(seed=4)
    x = toy(20, 9)[0]
    assert first.history == second.history
    assert np.array_equal(first.logits(x), second.logits(x))
    assert not np.array_equal(first.logits(x), other.logits(x))


def test_alpha_zero_training_ignores_the_teacher():
    settings_ = HeadSettings(alpha=0.0, lr=3e-3, epochs=3)
    assert train(settings_).history == train(settings_, teacher_logits=None).history


def test_standardising_makes_units_and_constant_columns_harmless():
    x, val_x = toy(240, 1)[0], toy(90, 2)[0]
    scale = np.array([1e4, 1, 1e-3, 1, 1, 0], dtype=np.float32)
    plain = train()
    scaled = train(features=x * scale, val_features=val_x * scale)
    assert abs(scaled.history[-1]["val_accuracy"] - plain.history[-1]["val_accuracy"]) < 0.05
    assert torch.allclose(plain.head.mean, torch.from_numpy(x).mean(0), atol=1e-6)
    assert torch.allclose(plain.head.std, torch.from_numpy(x).std(0, unbiased=False), atol=1e-5)
    assert scaled.head.std[5] == 1
    raw = train(HeadSettings(lr=3e-3, epochs=1, standardize=False))
    assert torch.equal(raw.head.std, torch.ones(6)) and not raw.head.mean.any()


def test_save_and_load_give_the_same_head(tmp_path):
    trained, x = train(), toy(20, 9)[0]
    trained.save(tmp_path / "head.safetensors")
    loaded = TrainedHead.load(tmp_path / "head.safetensors")
    logits = loaded.logits(x)
    assert logits.dtype == np.float32 and logits.shape == (20, 3)
    assert np.array_equal(logits, trained.logits(x))
    assert (loaded.settings, loaded.history) == (trained.settings, trained.history)
    assert (loaded.seed, loaded.best_epoch) == (trained.seed, trained.best_epoch)


def test_load_refuses_what_is_no_head(tmp_path):
    path = tmp_path / "head.safetensors"
    with pytest.raises(InputError, match="cannot be read"):
        TrainedHead.load(path)
    train().save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"head\.safetensors"):
        TrainedHead.load(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="format"):
        TrainedHead.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": np.zeros((0, 6))}, "features"),
        ({"features": np.full((240, 6), np.nan)}, "features is not finite in row 0"),
        ({"labels": np.full(240, 3)}, "labels must lie in 0..2"),
        ({"labels": np.zeros(240)}, "whole numbers"),
        ({"labels": np.zeros(239, int)}, "labels must be 240"),
        ({"teacher_logits": None}, "teacher_logits is None"),
        ({"teacher_logits": np.zeros((239, 3))}, "align by id"),
        ({"teacher_logits": np.zeros((240, 4))}, "teacher_logits"),
        ({"val_features": np.zeros((90, 5))}, "val_features"),
        ({"val_labels": np.full(90, -1)}, "val_labels"),
    ],
)
def test_training_refuses_what_does_not_fit(change, message):
    with pytest.raises(InputError, match=message):
        train(**change)
