import cmath
import math

import numpy as np
import torch

from emokd_utils import checks


def test_polarity_by_loops_passes():
    def polarity(probabilities, label_set):
        rows = []
        for row in probabilities:
            sums = {"negative": 0.0, "positive": 0.0}
            for label, p in zip(label_set, row, strict=True):
                sums[label_set.polarity[label]] += p
            rows.append([sums["negative"], sums["positive"]])
        return rows

    assert checks.exercises("1")["1.1"](polarity).status == checks.PASSED


def test_polarity_as_a_tensor_product_passes():
    def polarity(probabilities, label_set):
        positive = torch.tensor([float(label_set.polarity[c] == "positive") for c in label_set])
        share = torch.einsum("nc,c->n", torch.from_numpy(probabilities).float(), positive)
        return torch.stack([1 - share, share], dim=1)

    assert checks.exercises("1")["1.1"](polarity).status == checks.PASSED


def test_the_mean_hue_by_complex_numbers_passes():
    def hue(degrees):
        total = sum(cmath.rect(1.0, math.radians(d)) for d in degrees)
        return (math.degrees(cmath.phase(total)) + 360) % 360

    assert checks.exercises("1")["1.2"](hue).status == checks.PASSED


def test_votes_by_sorting_pass():
    def label(votes, needed):
        names, counts = np.unique(votes, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        alone = len(counts) == 1 or counts[order[0]] > counts[order[1]]
        return names[order[0]] if alone and counts[order[0]] >= needed else "undecided"

    assert checks.exercises("1")["1.3"](label).status == checks.PASSED
