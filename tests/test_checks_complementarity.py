from collections import Counter

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.weightstats import DescrStatsW

from emokd_utils import checks
from emokd_utils.complementarity import mcnemar_exact

SIX = checks.exercises("6")


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

    assert SIX["6.1"](test).status == checks.PASSED


def test_mcnemar_of_the_libraries_passes():
    def by_table(a, b):
        return mcnemar(pd.crosstab(a, b).to_numpy(), exact=True).pvalue

    assert SIX["6.1"](mcnemar_exact).status == checks.PASSED
    assert SIX["6.1"](by_table).status == checks.PASSED


def test_the_oracle_by_sets_passes():
    def oracle(predicted, labels):
        named = [set(column) for column in zip(*predicted.tolist(), strict=True)]
        return sum(y in told for y, told in zip(labels.tolist(), named, strict=True)) / len(labels)

    assert SIX["6.2"](oracle).status == checks.PASSED


def test_the_oracle_by_torch_passes():
    def oracle(predicted, labels):
        wrong = torch.as_tensor(predicted) != torch.as_tensor(labels)
        return 1 - wrong.float().prod(0).mean()

    assert SIX["6.2"](oracle).status == checks.PASSED


def test_kappa_by_counters_and_of_sklearn_pass():
    def kappa(a, b, labels):
        n, of_a, of_b = len(a), Counter(a), Counter(b)
        agree = sum(x == y for x, y in zip(a, b, strict=True))
        chance = sum(of_a[name] * of_b[name] for name in of_a) / n
        return (agree - chance) / (n - chance)

    assert SIX["6.3"](kappa).status == checks.PASSED
    assert SIX["6.3"](lambda a, b, labels: cohen_kappa_score(a, b)).status == checks.PASSED


def test_kappa_from_a_joint_table_passes():
    def kappa(a, b, labels):
        names = sorted({*a, *b})
        joint = pd.crosstab(pd.Categorical(a, names), pd.Categorical(b, names), dropna=False)
        share = torch.tensor(joint.to_numpy() / len(a))
        chance = torch.einsum("ij,kl,jk->", share, share, torch.eye(len(names)).double())
        return (share.trace() - chance) / (1 - chance)

    assert SIX["6.3"](lambda a, b, labels: float(kappa(a, b, labels))).status == checks.PASSED


def test_a_paired_interval_from_the_four_cells_passes():
    def interval(a, b):
        n, x, y = len(a), int((a & ~b).sum()), int((~a & b).sum())
        error = 1.96 * np.sqrt(x + y - (x - y) ** 2 / n) / n
        return [(x - y) / n - error, (x - y) / n + error]

    assert SIX["6.4"](interval).status == checks.PASSED


def test_a_paired_interval_by_students_t_or_by_torch_passes():
    def by_t(a, b):
        return DescrStatsW(a.astype(int) - b).tconfint_mean()

    def by_torch(a, b):
        d = torch.as_tensor(a).double() - torch.as_tensor(b).double()
        return d.mean() + d.std() / len(d) ** 0.5 * torch.tensor([-1.96, 1.96])

    assert SIX["6.4"](by_t).status == checks.PASSED
    assert SIX["6.4"](lambda a, b: tuple(by_torch(a, b))).status == checks.PASSED
