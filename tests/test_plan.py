import socket
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPImageProcessor

from emokd_utils.costs import flops
from emokd_utils.data import load_dataset
from emokd_utils.errors import InputError
from emokd_utils.explanations import answers_of, occlusion
from emokd_utils.instructions import (
    AnswerCollator,
    answer_for,
    categorical_prompt,
    write_instructions,
)
from emokd_utils.loading import limit_pixels
from emokd_utils.profiles import COLAB, LAPTOP, MINI, PAPER, project_root, with_settings
from emokd_utils.scale.devices import GPUS, Device, get_device
from emokd_utils.scale.plan import COLUMNS, Images, plan
from emokd_utils.scale.sizes import MODELS, NF4_BITS, sized_network, sized_vlm
from emokd_utils.settings import TuningSettings
from emokd_utils.tuning import add_lora, recompute_layers
from emokd_utils.vlm import VLM
from emokd_utils.world.scenes import ensure_scenes

TINY = str(project_root() / MINI.vlm.name)
QWEN, SMOL = PAPER.vlm.name, LAPTOP.vlm.name
CPU = Device("cpu", 8, 1e12, 1e11, 1e10, bf16=False)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    ensure_scenes(root, sizes={"train": 64, "val": 16, "test": 16}, say=lambda _: None)
    return load_dataset(root)


@pytest.fixture(scope="module")
def mini_plan(dataset):
    return plan(MINI, Images.of(dataset, MINI), CPU)


# ------------------------------------------------------------------------- against what torch counts


def test_operations_of_answering_seeing_and_a_map_are_those_counted(dataset, mini_plan):
    vlm, images = VLM.load(TINY), [dataset.open(image_id) for image_id in dataset.ids[:8]]
    asked = categorical_prompt(dataset.label_set), [answer_for(x) for x in dataset.label_set]
    answers, table = answers_of(vlm, dataset.label_set), mini_plan.table["TFLOP"] * 1e12
    scored = flops(lambda: vlm.score(images, *asked)) / len(images)
    assert table["answers scored"] / (96 + 16 + 16) == pytest.approx(scored, rel=0.15)
    seen = flops(lambda: vlm.features(images)) / len(images)
    assert table["features"] / 96 == pytest.approx(seen, rel=0.15)
    one_map = flops(lambda: occlusion(answers, images[0], 0))
    assert mini_plan.export["TFLOP"] * 1e12 / 16 == pytest.approx(one_map, rel=0.15)


@pytest.mark.parametrize("recompute", [False, True])
def test_a_tuning_step_takes_what_is_counted(dataset, recompute):
    """Operations, and bytes of the tensors that autograd keeps for the backward pass."""
    written, _ = write_instructions(dataset.split("train"))
    examples = [
        {"image": dataset.open(item.image_id), "prompt": item.prompt, "answer": item.answer}
        for item in written[:16]
    ]
    vlm, settings = VLM.load(TINY), replace(MINI.tuning, recompute=recompute)
    model, size = add_lora(vlm.core, settings).train(), sized_vlm(TINY, 0, settings)
    if recompute:
        recompute_layers(model)
    inputs = AnswerCollator(vlm.processor)(examples)
    rows, length = inputs["input_ids"].shape
    weights = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = model(**inputs).loss
        memory = sum(kept.values())
        loss.backward()
    operations = rows * size.tuning(size.view(112, 112), length, recompute)
    assert operations == pytest.approx(counter.get_total_flops(), rel=0.15)
    if not recompute:  # else a layer's inside is there only while the backward pass is at it
        assert rows * size.tuning_bytes(length, 4, 4, settings) == pytest.approx(memory, rel=0.3)


# ------------------------------------------------------------------------------------------- by hand


@pytest.mark.parametrize(
    ("name", "count"),
    [(QWEN, 8_291_375_616), (COLAB.vlm.name, 2_208_985_600), (SMOL, 256_484_928)],
)
def test_published_configurations_give_the_published_parameters(name, count):
    assert sized_vlm(name, 0, TuningSettings()).parameters == count


def test_formulas_by_hand():
    """Qwen2-VL-7B as lesson 10 computes it."""
    vlm = sized_vlm(QWEN, 0, TuningSettings())
    h, kv, inner, d, vocabulary = 3584, 512, 18944, 1280, 152064
    token = 28 * (2 * h * h + 2 * h * kv + 3 * h * inner)
    patch, visual = 32 * 12 * d * d, (4 * d) ** 2 + 4 * d * h
    assert vlm.adapter == 28 * 8 * (4 * h + 2 * (h + kv))
    rest = 2 * (8_291_375_616 - token - patch - visual) + 4 * vlm.adapter
    assert vlm.weights(True, 2) == pytest.approx((token + patch + visual) * NF4_BITS / 8 + rest)
    assert vlm.weights(False, 2) == 2 * 8_291_375_616 + 4 * vlm.adapter
    assert vlm.cache_bytes(10, 2) == 10 * 28 * 2 * kv * 2
    view = vlm.view(640, 480)
    assert view == (4 * 23 * 17, 4 * 23 * 17, 23 * 17)
    eye = 2 * (1564 * (patch + 3 * 2 * 14 * 14 * d) + 391 * visual) + 4 * 32 * d * 1564**2
    assert vlm.seeing(view) == eye
    words, output = 2 * 500 * token + 4 * 28 * h * 500**2, 2 * 500 * h * vocabulary
    assert vlm.reading(500, 1) == words + output / 500
    assert vlm.tuning(view, 500, False) == eye + 2 * words + 2 * output
    assert vlm.tuning(view, 500, True) == eye + 3 * words + 2 * output
    inside = 2 * (5 * h + 2 * kv + 4 * inner) + 20 * h
    kept = 500 * (2 * h * 28 + inside + 10 * vocabulary)
    assert vlm.tuning_bytes(500, 2, 2, TuningSettings(recompute=True)) == kept
    assert vlm.tuning_bytes(500, 2, 2, TuningSettings()) == 500 * (28 * inside + 10 * vocabulary)


def test_a_vision_model_by_hand():
    vgg = sized_network("vgg16", 32, 8)
    # 13 convolutions with what they read, and the pools between them, at 32, 16, 8, 4 and 2 pixels.
    maps = [(64, 32, 2), (128, 16, 2), (256, 8, 3), (512, 4, 3), (512, 2, 3)]
    values = sum(c * side**2 * n + c * side**2 // 4 for c, side, n in maps)
    assert vgg.values == pytest.approx(values + 2 * 4096 + 8, rel=0.05)
    assert vgg.widest == 2 * 64 * 32**2
    assert vgg.training_bytes(10, True) == 20 * vgg.values + 6 * vgg.total
    assert vgg.training_bytes(10, False) == 40 * vgg.values + 4 * vgg.total
    with pytest.raises(InputError, match="vgg16"):
        sized_network("vgg61", 32, 8)


@pytest.mark.parametrize("pixels", [0, 1024 * 1024, 512 * 512, 100])
@pytest.mark.parametrize("size", [(112, 112), (640, 480), (1000, 1500)])
def test_tokens_of_an_image_are_those_of_the_processor(pixels, size):
    for name in (QWEN, SMOL):
        vlm = sized_vlm(name, pixels, TuningSettings())
        view = vlm.view(*size)
        made = vlm.image_processor(images=[[Image.new("RGB", size)]], return_tensors="pt")
        if name == QWEN:
            assert view.patches == len(made["pixel_values"]) == 4 * view.tokens
            assert not pixels or view.patches * 14 * 14 <= max(pixels, 28 * 28)
        else:
            tiles = made["pixel_values"].shape[1]
            assert view.patches == tiles * 32**2 and 64 * tiles < view.tokens < 68 * tiles + 5
            assert tiles == 1 or not 0 < pixels < 1024**2


def test_a_processor_of_one_size_is_left_alone():
    processor = CLIPImageProcessor()
    before = dict(processor.size)
    limit_pixels(processor, 100)
    assert dict(processor.size) == before


def test_images(dataset):
    assumed = Images.assumed(23_308, 12, ("categorical", "reasoning"))
    assert assumed.total == 23_308 and len(assumed.labels) == 12
    assert assumed.instructions == 2 * assumed.train
    assert (assumed.test, assumed.val) == (4662, 1865)
    images = Images.of(dataset, MINI.changed(tuning={"kinds": ("categorical",)}))
    assert (images.train, images.val, images.test, images.total) == (64, 16, 16, 96)
    assert set(images.sizes) == {(112, 112)} and images.instructions == 64


# ------------------------------------------------------------------------------------------- the plan


def test_what_does_not_fit_is_made_to(mini_plan, dataset):
    images = Images.of(dataset, MINI)
    assert mini_plan.fits and not mini_plan.changes
    scarce = replace(CPU, memory=0.75 * mini_plan.peak)
    found = plan(MINI, images, scarce)
    text = str(found)
    assert "DOES NOT FIT" in text and f"--set {found.changes[0][0]}" in text
    mended = with_settings(MINI, [change for change, _ in found.changes])
    assert plan(mended, images, scarce).fits
    assert "that is not enough" in str(plan(MINI, images, replace(CPU, memory=0.01)))


def test_the_table_has_a_row_a_stage_and_is_printed(mini_plan):
    table = mini_plan.table
    answers = ["answers scored", "answers written"]
    stages = ["features", "tuning, 4 epochs", *answers, "vision, resnet10t", "heads, gates"]
    assert list(table.index) == stages and list(table) == COLUMNS
    assert (table["hours from"] < table["to"]).all()
    assert table["peak GB"].max() == mini_plan.peak
    assert mini_plan.models["GB to fetch"].sum() == 0
    assert "for an export (unless --only-kept)" in str(mini_plan)
    assert max(map(len, str(mini_plan).splitlines())) <= 100


def test_one_model_from_two_starts_are_two_stages(dataset):
    found = plan(MINI.changed(further_vision=("resnet10t@timm",)), Images.of(dataset, MINI), CPU)
    assert "vision, resnet10t@timm" in found.table.index and len(found.table) == 7


def test_devices_are_known_by_name():
    assert get_device("rtx 3090", MINI) is GPUS["RTX 3090"]
    here = get_device("cpu", MINI)
    assert here.single > 1e8 and here.memory > 0
    with pytest.raises(InputError, match="A100-40.*or cpu"):
        get_device("abacus", MINI)
    if not torch.cuda.is_available():
        assert get_device(None, PAPER).name == "L4" and get_device(None, MINI).name == "cpu"


@pytest.mark.parametrize(
    ("name", "known"),
    [("Tesla T4", "T4"), ("NVIDIA A100-SXM4-80GB", "A100-40"), ("NVIDIA L40S", None)],
)
def test_the_gpu_that_is_here_is_planned_for(monkeypatch, name, known):
    here = SimpleNamespace(name=name, total_memory=85e9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: here)
    if known:
        assert get_device(None, MINI) == replace(GPUS[known], memory=85.0)
    else:
        with pytest.raises(InputError, match="L40S"):
            get_device(None, MINI)


@pytest.mark.parametrize(
    ("profile", "gpu", "gigabytes"),
    [(LAPTOP, "cpu", 2.7), (COLAB, "T4", 5.3), (PAPER, "L4", 11.8), (PAPER, "T4", 12.2)],
)
def test_named_profiles_are_planned_without_the_network(monkeypatch, profile, gpu, gigabytes):
    def refuse(*_):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    images = Images.assumed(23_308, 8, profile.tuning.kinds)
    found = plan(profile, images, get_device(gpu, profile))
    assert found.peak == pytest.approx(gigabytes, rel=0.15)
    assert max(map(len, str(found).splitlines())) <= 100
    assert profile.vlm.name in str(found) and found.models["GB to fetch"].max() > 0.5


def test_models_that_are_known_are_those_of_the_profiles():
    assert {LAPTOP.vlm.name, COLAB.vlm.name, PAPER.vlm.name} == set(MODELS)
    with pytest.raises(InputError, match="nobody/nothing"):
        sized_vlm("nobody/nothing", 0, TuningSettings())
