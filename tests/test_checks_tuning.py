import math

import numpy as np
import torch

from emokd_utils import checks


def test_the_layer_by_einsum_and_by_merged_weights_passes():
    def by_einsum(x, weight, a, b, alpha):
        low = torch.einsum("ni,ri->nr", x, a)
        return torch.einsum("ni,oi->no", x, weight) + torch.einsum("nr,or->no", low, b) * (
            alpha / b.shape[1]
        )

    def by_merging(x, weight, a, b, alpha):
        return torch.nn.functional.linear(x, weight + alpha * (b @ a) / a.shape[0])

    def by_rows(x, weight, a, b, alpha):
        rows = []
        for row in x:
            low = torch.stack([row.dot(line) for line in a])
            rows.append(weight @ row + b @ low * alpha / len(low))
        return torch.stack(rows)

    for layer in (by_einsum, by_merging, by_rows):
        assert checks.exercises("5")["5.1"](layer).status == checks.PASSED


def test_the_count_matrix_by_matrix_passes():
    def count(width, heads, key_value_heads, layers, rank):
        head = width / heads
        shapes = [(width, width), (head * key_value_heads, width)] * 2
        total = 0
        for _ in range(layers):
            for outputs, inputs in shapes:
                total += rank * inputs + outputs * rank
        return total

    assert checks.exercises("5")["5.2"](count).status == checks.PASSED


def test_merging_by_outer_products_in_numpy_passes():
    def merge(weight, a, b, alpha):
        merged = weight.numpy()
        for row, column in zip(a.numpy(), b.T.numpy(), strict=True):
            merged = merged + alpha / len(a) * np.outer(column, row)
        return merged

    assert checks.exercises("5")["5.3"](merge).status == checks.PASSED


def test_the_learning_rate_by_sines_passes():
    def rate(step, steps, warmup, peak):
        rising = min(1.0, step / warmup)
        angle = math.pi * max(0, step - warmup) / (steps - warmup)
        return peak * rising * math.cos(angle / 2) ** 2

    assert checks.exercises("5")["5.4"](rate).status == checks.PASSED


def test_other_errors_of_a_layer_are_told_as_they_are():
    def layer(x, weight, a, b, alpha):
        return x @ undefined_name  # noqa: F821

    result = checks.exercises("5")["5.1"](layer)
    assert result.status == checks.NOT_YET
    assert "NameError" in result.look
