import copy
import socket
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import transformers
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from emokd_utils import instructions
from emokd_utils.costs import flops
from emokd_utils.errors import InputError
from emokd_utils.packing import PackingCollator, answer_loss, by_image
from emokd_utils.profiles import COLAB, LAPTOP, MINI, PAPER, project_root, with_settings
from emokd_utils.scale.devices import GPUS, Device, get_device
from emokd_utils.scale.plan import Images, plan
from emokd_utils.scale.shape import save_random_vlm, true_shape
from emokd_utils.scale.sizes import MODELS, SizedVLM, sized_network, sized_vlm
from emokd_utils.settings import TuningSettings
from emokd_utils.tuning import add_lora, recompute_layers
from emokd_utils.vlm import VLM

TINY = str(project_root() / MINI.vlm.name)
QWEN, SMOL = PAPER.vlm.name, LAPTOP.vlm.name
HYBRID, TILED = "Qwen/Qwen3.5-0.8B", "OpenGVLab/InternVL3_5-1B-HF"
CPU = Device("cpu", 8, 1e12, 1e11, bf16=False)


@pytest.fixture(scope="module")
def mini_plan(scenes):
    return plan(MINI, Images.of(scenes, MINI), CPU)


def test_operations_of_answering_and_seeing_are_those_counted(scenes, mini_plan):
    vlm, images = VLM.load(TINY), [scenes.open(image_id) for image_id in scenes.ids[:8]]
    question = instructions.categorical_prompt(scenes.label_set)
    answers = list(map(instructions.answer_for, scenes.label_set))
    table = mini_plan.table["TFLOP"] * 1e12
    scored = flops(lambda: vlm.score(images, question, answers)) / len(images)
    assert table["answers"] / (32 + 8 + 2 * 8) == pytest.approx(scored, rel=0.15)
    seen = flops(lambda: vlm.features(images)) / len(images)
    assert table["features"] / 32 == pytest.approx(seen, rel=0.15)


def bytes_for_backward(model, forward):
    """Of the tensors that autograd keeps, but for weights and buffers."""
    weights = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = forward()
    return loss, sum(size for at, size in kept.items() if at not in weights)


@pytest.mark.parametrize("recompute", [False, True])
def test_a_tuning_step_takes_what_is_counted(scenes, recompute):
    written, _ = instructions.write_instructions(scenes.split("train"))
    vlm, settings = VLM.load(TINY), replace(MINI.tuning, recompute=recompute)
    model, size = add_lora(vlm.core, settings).train(), sized_vlm(TINY, 0, settings)
    if recompute:
        recompute_layers(model)
    inputs = PackingCollator(vlm, scenes, 0, share=True)(by_image(written, 3)[:5])
    (rows, length), learnt = inputs["input_ids"].shape, inputs["next_ids"].shape[1]
    with FlopCounterMode(display=False) as counter:
        loss, memory = bytes_for_backward(model, lambda: answer_loss(model, inputs))
        loss.backward()
    operations = rows * size.tuning(length, learnt, recompute)
    assert operations == pytest.approx(counter.get_total_flops(), rel=0.15)
    if not recompute:  # else a layer's inside is there only while the backward pass is at it
        assert rows * size.tuning_bytes(length, learnt, 4, settings) == pytest.approx(
            memory, rel=0.3
        )


def test_what_linear_attention_keeps_is_counted(monkeypatch):
    few = copy.deepcopy(MODELS[HYBRID])
    few["text_config"] |= {"num_hidden_layers": 4, "vocab_size": 600}
    few["vision_config"]["depth"] = 1
    monkeypatch.setitem(MODELS, "few", few)
    size, ids = SizedVLM("few", 0, TuningSettings()), torch.arange(256)[None]
    model = transformers.AutoModelForImageTextToText.from_config(size.config, dtype=torch.float32)
    model = add_lora(model, TuningSettings()).train()
    _, memory = bytes_for_backward(model, lambda: model(input_ids=ids, labels=ids).loss)
    assert size.tuning_bytes(256, 256, 4, TuningSettings()) == pytest.approx(memory, rel=0.1)


def test_known_models_have_the_published_parameters():
    """Qwen3.5's without the head that predicts a second token, which transformers does not load."""
    counts = {
        QWEN: 8_291_375_616,
        "Qwen/Qwen2-VL-2B-Instruct": 2_208_985_600,
        "HuggingFaceTB/SmolVLM-256M-Instruct": 256_484_928,
        SMOL: 507_482_304,
        HYBRID: 873_438_784 - 20_452_864,
        TILED: 1_060_897_792,
        COLAB.vlm.name: 2_127_532_032,
        "Qwen/Qwen3.5-2B": 2_274_069_824 - 60_828_160,
        "Qwen/Qwen3-VL-4B-Instruct": 4_437_815_808,
        "Qwen/Qwen3.5-4B": 4_659_865_088 - 120_599_552,
    }
    assert {name: sized_vlm(name, 0, TuningSettings()).parameters for name in MODELS} == counts
    with pytest.raises(InputError, match="nobody/nothing"):
        sized_vlm("nobody/nothing", 0, TuningSettings())


def test_a_vision_model_by_hand():
    vgg = sized_network("vgg16", 32, 8)
    # 13 convolutions with what they read, and the pools between them, at 32, 16, 8, 4 and 2 pixels.
    maps = [(64, 32, 2), (128, 16, 2), (256, 8, 3), (512, 4, 3), (512, 2, 3)]
    values = sum(c * side**2 * n + c * side**2 // 4 for c, side, n in maps)
    assert vgg.values == pytest.approx(values + 2 * 4096 + 8, rel=0.05)


@pytest.mark.parametrize("pixels", [0, 512 * 512])
@pytest.mark.parametrize("size", [(112, 112), (1000, 1500)])
def test_tokens_of_an_image_are_those_of_the_processor(pixels, size):
    for name in (QWEN, SMOL, HYBRID, TILED):
        vlm = sized_vlm(name, pixels, TuningSettings())
        made = vlm.image_processor(images=[[Image.new("RGB", size)]], return_tensors="pt")
        seen, view = made["pixel_values"].shape, vlm.view(*size)
        if name in (QWEN, HYBRID):
            assert view.patches == seen[0] == 4 * view.tokens
        elif name == TILED:
            assert view.patches == seen[0] * 32**2 and 0 <= view.tokens / seen[0] - 256 <= 6
        else:
            assert view.patches == seen[1] * 32**2
            assert 64 * seen[1] < view.tokens < 68 * seen[1] + 5


@pytest.mark.parametrize("share", [0.75, 0.45])
def test_what_does_not_fit_is_made_to(mini_plan, share):
    scarce, images = replace(CPU, memory=share * mini_plan.peak), mini_plan.images
    changed = plan(MINI, images, scarce)
    assert f"DOES NOT FIT into 0 GB\n  --set {changed.changes[0][0]}" in str(changed)
    assert plan(with_settings(MINI, [text for text, _ in changed.changes]), images, scarce).fits
    assert "that is not enough" in str(plan(MINI, images, replace(CPU, memory=0.01)))


def test_the_table_has_a_row_a_stage_also_for_one_model_from_two_starts(mini_plan):
    twice = plan(MINI.changed(further_vision=("resnet10t@timm",)), mini_plan.images, CPU).table
    stages = ["features", "tuning, 4 epochs", "answers"]
    stages += ["vision, resnet10t", "vision, resnet10t@timm", "heads, gates"]
    assert list(twice.index) == stages and (twice["hours from"] < twice["to"]).all()


def test_devices_are_known_by_name_and_the_gpu_that_is_here_is_planned_for(monkeypatch):
    assert get_device("rtx 3090", MINI) is GPUS["RTX 3090"]
    with pytest.raises(InputError, match="abacus.*A100-40.*or cpu"):
        get_device("abacus", MINI)
    here = SimpleNamespace(total_memory=85e9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: here)
    for here.name, known in (("Tesla T4", "T4"), ("NVIDIA A100-SXM4-80GB", "A100-40")):
        assert get_device(None, MINI) == replace(GPUS[known], memory=85.0)
    here.name = "NVIDIA L40S"  # no L4
    with pytest.raises(InputError, match="L40S"):
        get_device(None, MINI)


@pytest.mark.parametrize(
    ("profile", "gpu", "gigabytes"),
    [(LAPTOP, "cpu", 4.5), (COLAB, "T4", 5.4), (PAPER, "L4", 11.8), (PAPER, "T4", 12.2)],
)
def test_named_profiles_are_planned_without_the_network(monkeypatch, profile, gpu, gigabytes):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection was tried"))
    images = Images.assumed(23_308, 8, profile.tuning.kinds)
    planned = plan(profile, images, get_device(gpu, profile))
    assert planned.peak == pytest.approx(gigabytes, rel=0.15)
    assert profile.vlm.name in str(planned) and planned.models["GB to fetch"].max() > 0.5


@pytest.mark.slow
def test_at_its_true_shape_every_stage_is_timed_beside_the_plan():
    table = true_shape(MINI, 2)
    assert (table[["seconds", "planned from", "to", "planned GB", "hours in all"]] > 0).all(
        axis=None
    )
    assert (table["planned from"] < table["to"]).all() and len(table) == 4


def test_a_known_model_is_made_of_its_published_configuration(monkeypatch, tmp_path):
    known = MODELS["HuggingFaceTB/SmolVLM-256M-Instruct"]
    small = known | {
        "text_config": known["text_config"]
        | {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "head_dim": 16}
        | {"num_attention_heads": 4, "num_key_value_heads": 2},
        "vision_config": known["vision_config"]
        | {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
        | {"num_attention_heads": 2},
    }
    monkeypatch.setitem(MODELS, "small", small)
    save_random_vlm("small", tmp_path)
    vlm = VLM.load(tmp_path, pixels=512 * 512)
    (tokens,) = vlm.visual_tokens([Image.new("RGB", (640, 480))])
    assert tokens.shape == (64, 64)  # a tile of 512 pixels, patches of 16, 4 x 4 of them a token
    assert SizedVLM(str(tmp_path), 512 * 512, MINI.tuning).view(640, 480).tokens == 64
