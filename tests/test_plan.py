import socket
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from emokd_utils import costs, tuning
from emokd_utils.cli import commands as cli
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
from emokd_utils.profiles import COLAB, LAPTOP, MINI, PAPER, changed, project_root
from emokd_utils.scale.plan import GPUS, Device, Images, get_device, plan
from emokd_utils.scale.shapes import (
    MODELS,
    NF4_BITS,
    answer_step,
    features_step,
    shaped_vlm,
    tuning_step,
)
from emokd_utils.settings import TuningSettings
from emokd_utils.tuning import add_lora, instruction_tune, recompute_layers
from emokd_utils.vision import fine_tune
from emokd_utils.vlm import VLM
from emokd_utils.world.scenes import ensure_scenes

TINY = str(project_root() / MINI.vlm.name)
CPU = Device("cpu", 8, 1e12, 1e11, 1e10, bf16=False)
PHOTOS = Images.assumed(1000, 8, MINI.tuning.kinds)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    ensure_scenes(root, sizes={"train": 64, "val": 16, "test": 16}, say=lambda _: None)
    return load_dataset(root)


@pytest.fixture(scope="module")
def batch(dataset):
    """Images and examples of the first 32 instructions, and all instructions."""
    train = dataset.split("train")
    written, _ = write_instructions(train)
    examples = [
        {"image": train.open(one.image_id), "prompt": one.prompt, "answer": one.answer}
        for one in written[:32]
    ]
    return [example["image"] for example in examples], examples, written


@pytest.fixture(scope="module")
def mini_plan(dataset):
    return plan(MINI, Images.of(dataset, MINI), CPU)


def stage(found, name):
    return next(one for one in found.stages if one.name.startswith(name))


def tiny(settings=None):
    return shaped_vlm(TINY, 0, torch.float32, settings or MINI.tuning)


# ------------------------------------------------------------------------------------- against measurement


def backward_flops(gradient, query, key, value, *_, **__):
    return 2.5 * costs._attention_flops(query, key, value)


BACKWARD = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: backward_flops}


@pytest.mark.slow
def test_operations_of_answering_and_seeing_are_those_counted(dataset, batch, mini_plan):
    vlm, (images, _, _) = VLM.load(TINY), batch
    prompt, answers = (
        categorical_prompt(dataset.label_set),
        [answer_for(label) for label in dataset.label_set],
    )
    scored = costs.flops(lambda: vlm.score(images, prompt, answers)) / len(images)
    seen = costs.flops(lambda: vlm.features(images)) / len(images)
    images_scored = len(dataset) + 16 + 16
    assert stage(mini_plan, "answers scored").single / images_scored == pytest.approx(
        scored, rel=0.15
    )
    assert stage(mini_plan, "features").single / len(dataset) == pytest.approx(seen, rel=0.15)


@pytest.mark.slow
def test_operations_of_an_export_s_maps_are_those_counted(dataset, batch, mini_plan):
    vlm, (images, _, _) = VLM.load(TINY), batch
    answers = answers_of(vlm, dataset.label_set)
    one = costs.flops(lambda: occlusion(answers, images[0], 0))
    mapped = min(16, 40 * dataset.table["cue"].nunique())
    assert mini_plan.export.single / mapped == pytest.approx(one, rel=0.15)
    assert "for an export (unless --only-kept)" in str(mini_plan)
    assert mini_plan.export not in mini_plan.stages


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [False, True])
def test_operations_of_a_tuning_step_are_those_counted(batch, recompute):
    vlm = VLM.load(TINY)
    model = add_lora(vlm.core, MINI.tuning).train()
    if recompute:
        recompute_layers(model.get_base_model())
    inputs = AnswerCollator(vlm.processor)(batch[1])
    formulas = costs._CPU_OPERATIONS | BACKWARD
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        model(**inputs).loss.backward()
    rows, length = inputs["input_ids"].shape
    step = tuning_step(tiny(), 64, rows, length, recompute, None)
    assert step.flops == pytest.approx(counter.get_total_flops(), rel=0.15)


def measured_peak(call):
    """Bytes at the peak that torch's allocator has given out during a call."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        call()
    events, totals = list(record.profiler.kineto_results.experimental_event_tree()), []
    while events:
        event = events.pop()
        events += event.children
        if event.tag == torch._C._profiler._EventType.Allocation:
            totals.append((event.start_time_ns, event.extra_fields.total_allocated))
    totals.sort()
    return max(total for _, total in totals) - totals[0][1]


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("low", [False, True])
def test_memory_of_tuning_is_that_measured(dataset, batch, tmp_path, monkeypatch, low, recompute):
    monkeypatch.setattr(tuning, "bf16_is_fast", lambda *_: low)
    vlm, train = VLM.load(TINY), dataset.split("train")
    settings = replace(MINI.tuning, epochs=1, recompute=recompute)
    peak = costs.weight_bytes(vlm.model) + measured_peak(
        lambda: instruction_tune(vlm, train, batch[2][:64], settings, 0, tmp_path, progress=False)
    )
    device, own = replace(CPU, bf16=low), replace(MINI, tuning_recompute=recompute)
    found = stage(plan(own, Images.of(dataset, MINI), device), "tuning")
    resident = 4 * 4_926_592  # the vision model, which waits
    assert found.weights + found.step - resident == pytest.approx(peak, rel=0.15)


@pytest.mark.slow
def test_memory_of_the_vision_model_is_that_measured(dataset, monkeypatch):
    from emokd_utils import vision

    monkeypatch.setattr(vision, "_autocast", lambda device: torch.autocast("cpu", enabled=False))
    settings = replace(MINI.vision, epochs=2)
    peak = measured_peak(lambda: fine_tune(dataset, settings, 0, progress=False))
    found = stage(plan(MINI, PHOTOS, CPU), "vision")
    waiting, _ = tiny().weights(False)
    assert found.weights + found.step - waiting == pytest.approx(peak, rel=0.15)


# ------------------------------------------------------------------------------------------- by hand


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("Qwen/Qwen2-VL-7B-Instruct", 8_291_375_616),
        ("Qwen/Qwen2-VL-2B-Instruct", 2_208_985_600),
        ("HuggingFaceTB/SmolVLM-256M-Instruct", 256_484_928),
    ],
)
def test_published_configurations_give_the_published_parameters(name, count):
    counts = costs.count_parameters(
        shaped_vlm(name, 0, torch.bfloat16, TuningSettings()).model, trained="lora_"
    )
    assert counts.total - counts.trained == count


def test_bytes_of_four_bit_weights_by_hand():
    """Qwen2-VL-7B as lesson 10 computes it, and its adapter in 32 bits."""
    vlm = shaped_vlm("Qwen/Qwen2-VL-7B-Instruct", 0, torch.bfloat16, TuningSettings())
    h, kv, inner, d = 3584, 512, 18944, 1280
    quantised = 28 * (2 * h * h + 2 * h * kv + 3 * h * inner)
    quantised += 32 * 12 * d * d + (4 * d) ** 2 + 4 * d * h
    lora = 28 * 8 * (4 * h + 2 * (h + kv))
    rest = 2 * (8_291_375_616 - quantised) + 4 * lora
    held, largest = vlm.weights(True)
    assert held == pytest.approx(quantised * NF4_BITS / 8 + rest, rel=1e-4)
    assert largest == 2 * h * inner
    assert vlm.weights(False)[0] == pytest.approx(2 * 8_291_375_616 + 4 * lora, rel=1e-4)
    assert vlm.cache(10) == 10 * 28 * 2 * kv * 2


@pytest.mark.parametrize("pixels", [0, 1024 * 1024, 512 * 512, 100])
@pytest.mark.parametrize("size", [(112, 112), (640, 480), (1000, 1500)])
def test_tokens_of_an_image_are_those_of_the_processor(pixels, size):
    from transformers import Idefics3ImageProcessor, Qwen2VLImageProcessor

    image = Image.new("RGB", size)
    for name in ("Qwen/Qwen2-VL-2B-Instruct", "HuggingFaceTB/SmolVLM-256M-Instruct"):
        vlm = shaped_vlm(name, pixels, torch.bfloat16, TuningSettings())
        units, tokens = vlm.image(*size)
        made = vlm.image_processor(images=[[image]], return_tensors="pt")
        if isinstance(vlm.image_processor, Qwen2VLImageProcessor):
            assert units == len(made["pixel_values"]) == 4 * tokens
            assert not pixels or units * 14 * 14 <= max(pixels, 28 * 28)
        else:
            assert isinstance(vlm.image_processor, Idefics3ImageProcessor)
            assert units == made["pixel_values"].shape[1]
            assert units == 1 or not 0 < pixels < 1024**2
            assert 64 * units < tokens < 68 * units + 5


def test_a_processor_of_one_size_is_left_alone():
    from transformers import CLIPImageProcessor

    processor = CLIPImageProcessor()
    before = dict(processor.size)
    limit_pixels(processor, 100)
    assert dict(processor.size) == before


def test_steps_of_more_take_more():
    vlm = tiny()
    kept = tuning_step(vlm, 64, 8, 80, False, None)
    anew = tuning_step(vlm, 64, 8, 80, True, None)
    assert anew.bytes < kept.bytes and anew.flops > kept.flops
    tuning_step.cache_clear()
    assert tuning_step(vlm, 64, 8, 80, False, None) == kept
    assert tuning_step(vlm, 64, 16, 80, False, None).bytes > 1.8 * kept.bytes
    half = tuning_step(vlm, 64, 8, 80, False, torch.bfloat16)
    assert half.bytes < kept.bytes and half.flops == kept.flops
    one, two = (features_step(vlm, 64, n) for n in (8, 16))
    assert two.flops == 2 * one.flops
    assert answer_step(vlm, 64, 8, 80, 10).flops < answer_step(vlm, 64, 8, 80, 80).flops


def test_images_that_are_assumed_add_up():
    images = Images.assumed(23_308, 12, ("categorical", "reasoning"))
    assert images.total == 23_308 and len(images.labels) == 12
    assert images.instructions == 2 * images.train
    assert (images.test, images.val) == (4662, 1865)


def test_images_of_a_data_set(dataset):
    images = Images.of(dataset, replace(MINI, tuning_kinds=("categorical",)))
    assert (images.train, images.val, images.test, images.total) == (64, 16, 16, 96)
    assert set(images.sizes) == {(112, 112)} and images.instructions == 64


# ------------------------------------------------------------------------------------------- the plan


@pytest.mark.slow
def test_what_does_not_fit_is_made_to(mini_plan, dataset):
    images = Images.of(dataset, MINI)
    assert mini_plan.fits and not mini_plan.changes
    scarce = replace(CPU, memory=0.75 * mini_plan.peak)
    found = plan(MINI, images, scarce)
    assert not found.fits and found.changes
    text = str(found)
    assert "DOES NOT FIT" in text and f"--set {found.changes[0][0]}" in text
    mended = changed(MINI, settings=[change for change, _ in found.changes])
    assert plan(mended, images, scarce).fits
    assert "that is not enough" in str(plan(MINI, images, replace(CPU, memory=0.01)))


def test_the_table_has_a_row_a_stage_and_adds_up(mini_plan):
    table = mini_plan.table()
    assert list(table.index) == [
        "features",
        "tuning, 4 epochs",
        "answers scored",
        "answers written",
        "vision, resnet10t",
        "heads, gates",
    ]
    assert (table["hours from"] < table["to"]).all()
    assert table["peak GB"].max() == mini_plan.peak
    assert mini_plan.models["GB to fetch"].sum() == 0
    assert max(map(len, str(mini_plan).splitlines())) <= 100


def test_devices_are_known_by_name():
    assert get_device("rtx 3090", MINI) is GPUS["RTX 3090"]
    here = get_device("cpu", MINI)
    assert here.single > 1e8 and here.memory > 0
    with pytest.raises(InputError, match="A100-40.*or cpu"):
        get_device("abacus", MINI)
    if not torch.cuda.is_available():
        assert get_device(None, PAPER).name == "L4" and get_device(None, MINI).name == "cpu"


@pytest.mark.parametrize(
    ("name", "found"),
    [("Tesla T4", "T4"), ("NVIDIA A100-SXM4-80GB", "A100-40"), ("NVIDIA L40S", None)],
)
def test_the_gpu_that_is_here_is_planned_for(monkeypatch, name, found):
    here = SimpleNamespace(name=name, total_memory=85e9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: here)
    if found:
        assert get_device(None, MINI) == replace(GPUS[found], memory=85.0)
    else:
        with pytest.raises(InputError, match="L40S"):
            get_device(None, MINI)


def run(capsys, *arguments):
    code = cli.main(["plan", *arguments])
    return code, *capsys.readouterr()


def test_the_command_says_what_fits(capsys):
    code, printed, _ = run(capsys, "--images", "500", "--gpu", "T4")
    assert code == 0 and "one T4 with 16 GB" in printed and "it fits" in printed
    code, _, complaint = run(capsys, "--images", "500", "--vlm", "nobody/nothing")
    assert code == 2 and complaint.count("\n") == 1 and "nobody/nothing" in complaint
    assert not any(name in complaint for name in ("Traceback", "http"))
    code, _, complaint = run(capsys, "--data", "no/such/folder")
    assert code == 2 and "--images" in complaint


@pytest.mark.slow
@pytest.mark.parametrize(
    ("profile", "gpu", "fits"),
    [(LAPTOP, "cpu", True), (COLAB, "T4", True), (PAPER, "T4", False), (PAPER, "L4", True)],
)
def test_named_profiles_are_planned_without_the_network(monkeypatch, capsys, profile, gpu, fits):
    def refuse(*_):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    code, printed, _ = run(capsys, "--profile", profile.name, "--images", "23308", "--gpu", gpu)
    assert code == (not fits)
    assert max(map(len, printed.splitlines())) <= 100
    assert "GB to fetch" in printed and profile.vlm.name in printed
    if not fits:
        assert "--set vision_further=" in printed


def test_models_in_the_table_are_those_of_the_profiles():
    assert {LAPTOP.vlm.name, COLAB.vlm.name, PAPER.vlm.name} == set(MODELS)
