import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from emokd_utils import costs
from emokd_utils.cli import commands as cli
from emokd_utils.data import load_dataset
from emokd_utils.errors import InputError
from emokd_utils.instructions import answer_for, categorical_prompt, write_instructions
from emokd_utils.profiles import COLAB, LAPTOP, MINI, PAPER, PROFILES, changed, project_root
from emokd_utils.run.pipeline import Pipeline, Recompute
from emokd_utils.scale.sizes import sized_vlm
from emokd_utils.settings import (
    INPUT_MODES,
    GateSettings,
    HeadSettings,
    TuningSettings,
    VisionSettings,
)
from emokd_utils.tuning import instruction_tune
from emokd_utils.vision import build_network
from emokd_utils.vlm import VLM
from emokd_utils.world.scenes import ensure_scenes

TINY = project_root() / MINI.vlm.name


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    ensure_scenes(root, sizes={"train": 16, "val": 8, "test": 8}, say=lambda _: None)
    return load_dataset(root)


def test_every_profile_hands_each_stage_settings_that_it_takes():
    assert list(PROFILES) == ["mini", "laptop", "colab", "paper"]
    for name, profile in PROFILES.items():
        assert profile.name == name
        for stage, kind in (
            ("vision", VisionSettings),
            ("tuning", TuningSettings),
            ("head", HeadSettings),
            ("gate", GateSettings),
        ):
            profile.settings(stage, kind)


def test_the_paper_s_values():
    assert PAPER.tuning == TuningSettings(batch_size=1)
    assert (PAPER.vlm.quantize, PAPER.vlm.max_new_tokens) == ("nf4", 256)
    head, gate = PAPER.head, PAPER.gate
    assert (head.alpha, head.temperature, head.depth, head.dropout) == (0.5, 2.0, 1, 0.1)
    assert (head.lr, gate.lr, PAPER.vision.lr) == (1e-5, 1e-4, 3e-5)
    assert PAPER.gates[0] == "concat_linear" and PAPER.gate.inputs == "softmax_onehot"
    code = changed(PAPER, settings=["gate_inputs=logits_onehot", "gate_split=train"])
    assert code.gate_inputs in INPUT_MODES and code.gate_split == "train"


@pytest.mark.parametrize("profile", [LAPTOP, COLAB, PAPER], ids=lambda profile: profile.name)
def test_vision_models_of_the_profiles_take_their_images(profile):
    further = [text.partition("@")[0] for text in profile.further_vision]
    for name in (profile.vision.name, *further):
        settings = replace(profile.vision, name=name, weights="")
        with torch.device("meta"):
            assert build_network(settings, 8).num_classes == 8


def test_fields_are_set_by_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_vlm").mkdir()
    (tmp_path / "start.safetensors").touch()
    own = changed(MINI, "my_vlm", "resnet18@start.safetensors")
    assert own.path(own.vlm.name) == (tmp_path / "my_vlm").resolve()
    assert own.vision.name == "resnet18"
    assert own.path(own.vision.weights) == (tmp_path / "start.safetensors").resolve()
    own = changed(MINI, "someone/model", "resnet18@timm")
    assert (own.vlm.name, own.vision.weights) == ("someone/model", "timm")
    assert changed(MINI, vision="resnet18").vision_weights == ""
    texts = ["tuning_recompute=true", "tuning_lr=1e-3", "vlm_batch_size=2", "vlm_quantize=nf4"]
    own = changed(MINI, settings=[*texts, "gate_kinds=bilinear,concat_linear", "vision_further="])
    assert own == replace(
        MINI,
        tuning_recompute=True,
        tuning_lr=1e-3,
        vlm_batch_size=2,
        vlm_quantize="nf4",
        gate_kinds=("bilinear", "concat_linear"),
    )
    assert changed(MINI) == MINI


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("vlm_batch=2", "no field 'vlm_batch'"),
        ("name=other", "no field"),
        ("tuning_batch_size=two", "wants int"),
        ("tuning_batch_size", "wants int"),
        ("tuning_recompute=perhaps", "wants bool"),
        ("tuning_lr=fast", "wants float"),
    ],
)
def test_what_cannot_be_set_is_told(text, words, capsys):
    with pytest.raises(InputError, match=words):
        changed(MINI, settings=[text])
    assert cli.main(["plan", "--images", "9", "--set", text]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def keys(tmp_path, dataset, **fields):
    line = Pipeline(replace(MINI, **fields), dataset.root, tmp_path, say=lambda _: None)
    seen = {}
    line.store.step = lambda kind, inputs, *_, **__: seen.setdefault(kind, inputs)
    line._adapter.__wrapped__(line, 0)
    return seen["adapter-seed0"]["vlm"], line._vlm_key


def test_the_key_of_a_vlm_names_how_it_is_used_only_where_that_is_not_as_published(
    tmp_path, dataset, monkeypatch
):
    monkeypatch.setattr(Pipeline, "dataset", dataset)
    plain = keys(tmp_path, dataset)
    assert plain[0] == plain[1] and len(plain[0]) == 16
    assert keys(tmp_path, dataset, vlm_quantize="nf4") == (f"{plain[0]} nf4",) * 2
    assert keys(tmp_path, dataset, vlm_quantize="nf4-tuning") == (f"{plain[0]} nf4", plain[1])
    assert keys(tmp_path, dataset, vlm_pixels=7056) == (f"{plain[0]} 7056 pixels",) * 2
    assert keys(tmp_path, dataset, tuning_recompute=True) == plain


def test_what_only_says_how_to_compute_is_in_no_key():
    settings = set(asdict(MINI.tuning))
    assert not settings & {"recompute", "checkpoint_steps", "instructions"}
    assert settings == {
        *("rank", "alpha", "dropout", "projections", "lr", "epochs", "batch_size", "kinds")
    }


# -------------------------------------------------------------------------------------------- 4 bits


def test_what_four_bits_need_is_told(monkeypatch):
    with pytest.raises(InputError, match="choose 'nf4'"):
        VLM.load(TINY, quantize="int3")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(InputError, match=r"pip install -e \"\.\[gpu\]\""):
        VLM.load(TINY, quantize="nf4")


def test_a_device_without_four_bits_is_told():
    pytest.importorskip("bitsandbytes")
    with pytest.raises(InputError, match="'abacus'"):
        VLM.load(TINY, device="abacus", quantize="nf4")


def test_pixels_are_limited(images):
    few = VLM.load(TINY, pixels=84 * 84).inputs(images[:1], "What?")
    assert few["image_grid_thw"].tolist() == [[1, 6, 6]]


@pytest.mark.slow
def test_four_bits_on_a_cpu_answer_nearly_as_all_do_and_are_tuned(dataset, tmp_path):
    pytest.importorskip("bitsandbytes")
    whole, small = VLM.load(TINY), VLM.load(TINY, quantize="nf4")
    held = costs.weight_bytes(small.model)
    for parameter in small.model.parameters():
        if (state := getattr(parameter, "quant_state", None)) is not None:
            held += state.absmax.nbytes + state.state2.absmax.nbytes
    assert costs.count_parameters(small.model).total == costs.count_parameters(whole.model).total
    sized = sized_vlm(str(TINY), 0, TuningSettings())
    assert held == pytest.approx(sized.weights(True, 4) - 4 * sized.adapter, rel=0.02)
    shown = [dataset.open(name) for name in dataset.ids]
    prompt = categorical_prompt(dataset.label_set)
    answers = [answer_for(label) for label in dataset.label_set]
    one, other = (vlm.score(shown, prompt, answers) for vlm in (whole, small))
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.95
    assert np.mean(one.argmax(1) == other.argmax(1)) > 0.6
    assert "uint8" in str({parameter.dtype for parameter in small.model.parameters()})

    train = dataset.split("train")
    written, _ = write_instructions(train, ["categorical"])
    settings = TuningSettings(lr=1e-2, epochs=6, batch_size=8)
    small = VLM.load(TINY, quantize="nf4")  # on a CPU one that has answered cannot be trained
    log = instruction_tune(small, train, written, settings, 0, tmp_path, [Recompute()], False)
    assert log[-1]["train_loss"] < 3
    first = [train.open(train.ids[0])], written[0].prompt, [written[0].answer]
    again = VLM.load(TINY, tmp_path, quantize="nf4")
    np.testing.assert_allclose(again.score(*first), small.score(*first), rtol=0.02, atol=0.05)
