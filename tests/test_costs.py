import time

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from emokd_utils import costs
from emokd_utils.costs import (
    EMOVLM_KD,
    TOGETHER,
    VLM_ALONE,
    CostRow,
    Latency,
    Part,
    compare,
    cost_table,
    count_parameters,
    flops,
    latency,
    measure,
    peak_memory,
    weight_bytes,
)
from emokd_utils.distillation import DistillationHead
from emokd_utils.errors import InputError
from emokd_utils.gates import GATES


def on(module, *shape):
    x = torch.zeros(*shape)
    return lambda: module(x)


def test_parameters_by_hand():
    linear = nn.Linear(10, 7)
    assert count_parameters(linear) == costs.Parameters(77, 77)
    linear.bias.requires_grad_(False)
    assert count_parameters(linear) == costs.Parameters(77, 70)
    assert count_parameters(DistillationHead(3584, 8)).total == 3_679_240


def test_shared_parameters_count_once():
    embed, out = nn.Embedding(20, 4), nn.Linear(4, 20, bias=False)
    out.weight = embed.weight
    assert count_parameters(nn.Sequential(embed, out)).total == 80
    assert count_parameters(embed, out, embed).total == 80
    assert weight_bytes(embed, out) == 320


def test_trained_parameters_by_name():
    network = nn.ModuleDict({"base": nn.Linear(4, 4), "lora_a": nn.Linear(4, 2, bias=False)})
    network.requires_grad_(False)
    assert count_parameters(network).trained == 0
    assert count_parameters(network, trained="lora_") == costs.Parameters(28, 8)


def test_buffers_are_weights_in_memory():
    assert weight_bytes(nn.BatchNorm1d(5)) == 4 * 4 * 5 + 8  # weight, bias, mean, variance; a count


@given(n=st.integers(1, 4), inputs=st.integers(1, 9), outputs=st.integers(1, 9))
def test_flops_of_a_linear_layer(n, inputs, outputs):
    assert flops(on(nn.Linear(inputs, outputs), n, inputs)) == 2 * n * inputs * outputs


def test_flops_of_convolutions():
    # 3 x 3 over 3 channels to 4, at 8 x 8 places; with stride 2, at 4 x 4; a channel by itself.
    assert flops(on(nn.Conv2d(3, 4, 3, padding=1), 2, 3, 8, 8)) == 2 * 2 * 64 * 4 * 27
    assert flops(on(nn.Conv2d(3, 4, 3, 2, padding=1), 1, 3, 8, 8)) == 2 * 16 * 4 * 27
    assert flops(on(nn.Conv2d(4, 4, 3, padding=1, groups=4), 1, 4, 8, 8)) == 2 * 64 * 4 * 9


@pytest.mark.parametrize("masked", [False, True])
def test_flops_of_attention_on_a_cpu(masked):
    # 4 query heads share 2 key heads; 5 queries of width 8 see 6 keys: two products a head.
    q, kv = torch.zeros(2, 4, 5, 8), torch.zeros(2, 2, 6, 8)
    mask = torch.zeros(2, 1, 5, 6) if masked else None
    attend = lambda: F.scaled_dot_product_attention(q, kv, kv, mask, enable_gqa=True)  # noqa: E731
    assert flops(attend) == 2 * 2 * 4 * 5 * 6 * (8 + 8)


def test_flops_of_a_bilinear_layer():
    x, y = torch.zeros(2, 3), torch.zeros(2, 4)
    layer = nn.Bilinear(3, 4, 5)
    assert flops(lambda: layer(x, y)) == 2 * 2 * 5 * (3 * 4 + 4)


def test_flops_do_not_depend_on_inference_mode():
    layer = nn.Linear(6, 5)

    @torch.inference_mode()
    def inferred():
        return layer(torch.zeros(3, 6))

    assert flops(inferred) == 2 * 3 * 6 * 5


def test_every_gate_counts_something():
    s = torch.zeros(1, 8)
    for name, kind in GATES.items():
        gate = kind(8)
        assert flops(lambda gate=gate: gate(s, s)) > 0, name


def test_latency_orders_what_is_slow():
    fast = latency(lambda: time.sleep(0.001), repeats=5, warmup=1)
    slow = latency(lambda: time.sleep(0.02), repeats=5, warmup=1)
    assert 0.001 <= fast.q1 <= fast.median <= fast.q3 < slow.q1
    assert slow.median >= 0.02


def test_latency_is_per_image_and_warms_up():
    calls = []
    taken = latency(lambda: calls.append(time.sleep(0.01)), repeats=3, warmup=2, images=10)
    assert len(calls) == 5
    assert 0.001 <= taken.median < 0.01


def test_quartiles_by_hand():
    assert Latency.of(np.array([5.0, 1.0, 2.0, 4.0, 3.0])) == (3.0, 2.0, 4.0)


@pytest.mark.parametrize("changes", [{"repeats": 0}, {"images": 0}, {"warmup": -1}])
def test_impossible_repeats_are_refused(changes):
    with pytest.raises(InputError, match="must be at least"):
        latency(lambda: None, **changes)


@pytest.mark.skipif(costs.resource is None, reason="no record of the peak on Windows")
def test_peak_memory_sees_what_is_freed_again():
    megabytes = 96
    _ = torch.ones(megabytes, 2**18).sum()  # an earlier, equal peak must not hide this one
    peak = peak_memory(lambda: torch.ones(megabytes, 2**18).sum())
    assert peak == pytest.approx(megabytes, rel=0.15)
    assert peak_memory(lambda: None) < 8


def rows():
    return [
        CostRow("small", 1000, 10, 2e9, Latency(0.010, 0.009, 0.012), 5.0),
        CostRow("large", 3000, 20, 2.5e9, Latency(0.025, 0.020, 0.030), 9.0),
    ]


def test_cost_table_units_and_what_is_added():
    table = cost_table(rows())
    assert list(table.index) == ["small", "large"] and table.index.name == "set-up"
    large = table.loc["large"]
    assert large["parameters"] == 3000 and large["trained parameters"] == 20
    assert large["GFLOPs per image"] == 2.5 and large["memory (MB)"] == 9.0
    assert (large["ms per image"], large["q1 (ms)"], large["q3 (ms)"]) == (25.0, 20.0, 30.0)
    assert large["added parameters"] == 2000
    assert large["added GFLOPs"] == pytest.approx(0.5)
    assert large["added ms"] == pytest.approx(15.0)
    assert (table.loc["small", ["added parameters", "added GFLOPs", "added ms"]] == 0).all()
    assert pd.api.types.is_integer_dtype(table["parameters"])


def test_a_table_needs_rows():
    with pytest.raises(InputError, match="at least one row"):
        cost_table([])


def test_comparison_of_the_three_set_ups():
    images = 4
    vlm, vision = nn.Linear(64, 512), nn.Conv2d(3, 8, 3, padding=1)
    head, gate = nn.Linear(512, 8), nn.Linear(16, 8)
    features = torch.zeros(images, 512)
    table = compare(
        Part(on(vlm, images, 64), (vlm,), trained=100),
        Part(on(vision, images, 3, 32, 32), (vision,)),
        Part(lambda: gate(torch.cat([head(features), head(features)], 1)), (head, gate)),
        images=images,
        repeats=3,
    )
    assert list(table.index) == [VLM_ALONE, TOGETHER, EMOVLM_KD]
    assert list(table["parameters"]) == [33_280, 33_280 + 224, 33_280 + 4104 + 136]
    assert list(table["trained parameters"]) == [100, 100 + 224, 100 + 4104 + 136]
    added = table["added GFLOPs"].to_numpy() * 1e9
    assert added == pytest.approx([0, 2 * 1024 * 8 * 27, 2 * (2 * 512 * 8 + 16 * 8)])
    # The VLM's pass is measured once, so that what is added cannot come out negative.
    assert (table["added ms"].iloc[1:] > 0).all()
    assert (table["q1 (ms)"] <= table["ms per image"]).all()
    assert (table["ms per image"] <= table["q3 (ms)"]).all()
    weights = table["memory (MB)"] >= np.array([33_280, 33_504, 37_520]) * 4 / 2**20
    assert weights.all()


def test_the_set_up_that_does_more_takes_longer():
    quick = Part(lambda: time.sleep(0.001), (nn.Linear(2, 2),))
    slow = Part(lambda: time.sleep(0.01), (nn.Linear(3, 3),))
    one, both = measure({"one": [quick], "both": [quick, slow]}, repeats=3, warmup=0)
    assert both.seconds_per_image.median - one.seconds_per_image.median >= 0.009
    assert (one.parameters_total, both.parameters_total) == (6, 18)
