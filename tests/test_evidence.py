"""Intervals: by hand, and as wide as they should be."""

import numpy as np
import pytest

from emokd_utils.evidence import (
    Claim,
    Estimate,
    bootstrap,
    percentile_interval,
    resampled_counts,
    share,
    wilson,
)


def test_wilson_by_hand():
    # 8 of 10, z = 1.96: centre (0.8 + z^2 / 20) / (1 + z^2 / 10), a textbook's example
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(10, 10).high == 1.0 and np.isnan(wilson(0, 0)).all()


def test_share_of_counts_and_of_booleans():
    assert share(8, 10) == (0.8, *wilson(8, 10), 10)
    assert share(np.arange(10) < 8) == share(8, 10)
    assert np.isnan(share(0, 0)[:3]).all() and share(np.array([], bool)).n == 0


def test_bootstrap_brackets_the_mean_and_narrows_with_n():
    values = np.r_[np.ones(60), np.zeros(40)]
    mean, low, high, n = bootstrap(values)
    assert (mean, n) == (0.6, 100)
    assert low == pytest.approx(0.6 - 1.96 * 0.049, abs=0.02)
    assert high == pytest.approx(0.6 + 1.96 * 0.049, abs=0.02)
    more = bootstrap(np.tile(values, 16))
    assert more.high - more.low < 0.5 * (high - low)
    assert bootstrap(np.ones(9)) == (1, 1, 1, 9)
    assert np.isnan(bootstrap(np.array([]))[:3]).all()


def test_resampled_counts_keep_n_and_its_shares():
    drawn = resampled_counts(np.array([60, 0, 40]))
    assert (drawn.sum(axis=1) == 100).all() and not drawn[:, 1].any()
    assert drawn[:, 0].mean() == pytest.approx(60, abs=0.5)
    assert drawn[:, 0].std() == pytest.approx(np.sqrt(100 * 0.6 * 0.4), rel=0.05)
    assert not resampled_counts(np.zeros(3, int)).any()


def test_percentile_interval_leaves_undefined_values_out():
    values = np.r_[np.arange(101.0), np.nan]
    assert percentile_interval(values, 0.9) == pytest.approx((5, 95))
    assert np.isnan(percentile_interval(np.array([np.nan]))).all()


def test_how_evidence_reads():
    assert Estimate(0.0312, 0.007, 0.054, 1200).points == "+3.1 points [+0.7, +5.4], n = 1,200"
    assert Estimate(0.646, 0.619, 0.672, 1200).percent == "64.6 % [61.9, 67.2], n = 1,200"
    assert str(Claim("a is b", False, "1 of 2")) == "[DOES NOT HOLD] a is b: 1 of 2"
