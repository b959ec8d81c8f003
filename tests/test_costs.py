import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from emokd_utils.costs import Part, compare, count_parameters, flops, latency, weight_bytes
from emokd_utils.gates import GATES
from emokd_utils.predictions import EMOVLM_KD, TOGETHER, VLM_ALONE


def on(module, *shape):
    x = torch.zeros(*shape)
    return lambda: module(x)


def test_parameters_by_hand_shared_ones_once():
    linear = nn.Linear(10, 7)
    assert count_parameters(linear) == (77, 77)
    linear.bias.requires_grad_(False)
    assert count_parameters(linear) == (77, 70)
    embed, out = nn.Embedding(20, 4), nn.Linear(4, 20, bias=False)
    out.weight = embed.weight
    assert count_parameters(embed, out, embed).total == 80
    assert weight_bytes(embed, out) == 320
    assert weight_bytes(nn.BatchNorm1d(5)) == 4 * 4 * 5 + 8  # weight, bias, mean, variance; a count
    network = nn.ModuleDict({"base": nn.Linear(4, 4), "lora_a": nn.Linear(4, 2, bias=False)})
    network.requires_grad_(False)
    assert count_parameters(network).trained == 0
    assert count_parameters(network, trained="lora_") == (28, 8)


@pytest.mark.parametrize("masked", [False, True])
def test_flops_of_attention_on_a_cpu(masked):
    # 4 query heads share 2 key heads; 5 queries of width 8 see 6 keys: two products a head.
    q, kv = torch.zeros(2, 4, 5, 8), torch.zeros(2, 2, 6, 8)
    mask = torch.zeros(2, 1, 5, 6) if masked else None
    attend = lambda: F.scaled_dot_product_attention(q, kv, kv, mask, enable_gqa=True)  # noqa: E731
    assert flops(attend) == 2 * 2 * 4 * 5 * 6 * (8 + 8)


def test_flops_of_a_bilinear_layer_and_of_every_gate():
    x, y, layer = torch.zeros(2, 3), torch.zeros(2, 4), nn.Bilinear(3, 4, 5)
    assert flops(lambda: layer(x, y)) == 2 * 2 * 5 * (3 * 4 + 4)
    for name, kind in GATES.items():
        gate, s = kind(8), torch.zeros(1, 8)
        assert flops(lambda gate=gate, s=s: gate(s, s)) > 0, name


def test_calls_take_turns_and_the_first_rounds_are_not_timed():
    calls = []
    first, second = lambda: calls.append(1), lambda: calls.append(time.sleep(0.02))
    seconds = latency([first, second], repeats=3, warmup=2)
    assert calls == 5 * [1, None]
    assert seconds.shape == (2, 3) and (seconds > 0).all() and (seconds[1] >= 0.02).all()


def test_comparison_of_the_three_set_ups():
    vlm, vision = nn.Linear(64, 512), nn.Conv2d(3, 8, 3, padding=1)
    head, gate = nn.Linear(512, 8), nn.Linear(16, 8)
    features = torch.zeros(1, 512)
    table = compare(
        Part(on(vlm, 1, 64), (vlm,), trained=100),
        Part(on(vision, 1, 3, 32, 32), (vision,)),
        Part(lambda: gate(torch.cat([head(features), head(features)], 1)), (head, gate)),
        repeats=3,
    )
    assert list(table.index) == [VLM_ALONE, TOGETHER, EMOVLM_KD] and table.index.name == "set-up"
    assert list(table["parameters"]) == [33_280, 33_280 + 224, 33_280 + 4104 + 136]
    assert list(table["trained parameters"]) == [100, 100 + 224, 100 + 4104 + 136]
    assert (table["q1 (ms)"] <= table["ms per image"]).all()
    added = table["added GFLOPs"].to_numpy() * 1e9
    assert added == pytest.approx([0, 2 * 1024 * 8 * 27, 2 * (2 * 512 * 8 + 16 * 8)])
    # The VLM's pass is measured once, so that what is added cannot come out negative.
    assert (table["added ms"].iloc[1:] > 0).all()
    assert (table["memory (MB)"] >= np.array([33_280, 33_504, 37_520]) * 4 / 2**20).all()
