import numpy as np
import torch

from emokd_utils import checks


def test_the_distillation_loss_by_loops_passes():
    def loss(student, teacher, labels, alpha, temperature):
        total = 0.0
        for z, v, y in zip(student, teacher, labels, strict=True):
            p, q = torch.softmax(z / temperature, 0), torch.softmax(v / temperature, 0)
            divergence = sum(b * (b.log() - a.log()) for a, b in zip(p, q, strict=True))
            ce = -torch.log_softmax(z, 0)[y]
            total = total + alpha * temperature**2 * divergence + (1 - alpha) * ce
        return total / len(student)

    assert checks.exercises("7")["7.1"](loss).status == checks.PASSED


def test_rows_by_sorting_pass():
    def rows(ids, cached_ids, cache):
        order = np.argsort(cached_ids)
        places = np.searchsorted(np.array(cached_ids)[order], ids)
        found = order[np.minimum(places, len(order) - 1)]
        if [cached_ids[k] for k in found] != list(ids):
            raise KeyError("not there")
        return cache[found]

    assert checks.exercises("7")["7.2"](rows).status == checks.PASSED
