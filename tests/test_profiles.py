"""Profiles and settings: the paper's values, other values by text, and what cannot be set."""

from dataclasses import replace

import pytest

from emokd_utils.errors import InputError
from emokd_utils.profiles import MINI, PAPER, PROFILES, get_profile, with_settings
from emokd_utils.run import named_profile, open_run
from emokd_utils.settings import TuningSettings


def test_the_papers_values():
    assert list(PROFILES) == ["mini", "laptop", "colab", "paper"]
    assert PAPER.tuning == replace(TuningSettings(), batch_size=1, recompute=True)
    tuning = TuningSettings()
    assert (tuning.rank, tuning.alpha, tuning.dropout, tuning.epochs) == (8, 8, 0.05, 5)
    assert (PAPER.vlm.quantize, PAPER.vlm.max_new_tokens) == ("nf4", 256)
    head, gate = PAPER.head, PAPER.gate
    assert (head.alpha, head.temperature, head.depth, head.dropout) == (0.5, 2.0, 1, 0.1)
    assert (head.lr, gate.lr, tuning.lr, PAPER.vision.lr) == (1e-5, 1e-4, 1e-4, 3e-5)
    assert PAPER.gates[0] == gate.kind == "concat_linear" and gate.inputs == "softmax_onehot"


def test_fields_are_set_by_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_vlm").mkdir()
    (tmp_path / "start.safetensors").touch()
    own = with_settings(MINI, ["vlm=my_vlm", "vision=resnet18@start.safetensors"])
    assert own.path(own.vlm.name) == (tmp_path / "my_vlm").resolve()
    assert own.vision.name == "resnet18"
    assert own.path(own.vision.weights) == (tmp_path / "start.safetensors").resolve()
    own = with_settings(MINI, ["vlm=someone/model", "vision=resnet18@timm"])
    assert (own.vlm.name, own.vision.weights) == ("someone/model", "timm")
    texts = ["tuning.recompute=true", "tuning.lr=1e-3", "vlm.batch_size=2", "vlm.quantize=nf4"]
    own = with_settings(MINI, [*texts, "gates=bilinear,concat_linear", "further_vision="])
    assert own == MINI.changed(
        tuning={"recompute": True, "lr": 1e-3},
        vlm={"batch_size": 2, "quantize": "nf4"},
        gates=("bilinear", "concat_linear"),
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("vlm.batch=2", "no field 'vlm.batch'"),
        ("head_alpha=0.3", "fields are like head.alpha"),
        ("name=other", "no field"),
        ("head=1", "no field"),
        ("tuning.batch_size=two", "wants int"),
        ("tuning.batch_size", "wants int"),
        ("tuning.recompute=perhaps", "wants bool"),
        ("tuning.lr=fast", "wants float"),
        ("head.alpha=2", "alpha is 2.0: choose a value from 0 to 1"),
        ("gate_split=test", "choose one of 'train', 'val'"),
        ("gates=concat_linear,golden", "gates is 'golden': choose one of 'concat_linear'"),
        ("gates=", "gates is empty"),
        ("vlm.quantize=int3", "quantize"),
        ("vlm.batch_size=0", "batch_size"),
        ("vision.image_size=0", "image_size"),
        ("vision.crop=0", "crop"),
        ("vision.label_smoothing=1", "label_smoothing"),
        ("vision.monitor=test_accuracy", "monitor"),
        ("tuning.projections=q,x", "projections"),
        ("tuning.projections=", "projections"),
        ("tuning.kinds=poetry", "kinds"),
        ("tuning.lr=0", "lr"),
        ("head.alpha=nan", "alpha"),
        ("head.temperature=0", "temperature"),
        ("head.depth=6", "depth"),
        ("head.patience=0", "patience"),
        ("gate.inputs=logits", "inputs"),
        ("gate.folds=1", "folds"),
        ("gate.weight_decay=-1", "weight_decay"),
    ],
)
def test_what_cannot_be_set_is_told(text, words):
    with pytest.raises(InputError, match=words):
        with_settings(MINI, [text])


def test_the_environment_picks_profile_data_and_values(monkeypatch, tmp_path):
    assert named_profile() is MINI and get_profile("mini") is MINI
    monkeypatch.setenv("EMOKD_PROFILE", "maxi")
    with pytest.raises(InputError, match="no profile 'maxi'; choose one of mini, laptop"):
        named_profile()
    monkeypatch.setenv("EMOKD_PROFILE", "paper")
    monkeypatch.setenv("EMOKD_DATA", "/photos/FI")
    monkeypatch.setenv("EMOKD_RUNS", str(tmp_path))
    monkeypatch.setenv("EMOKD_SET", "'vlm=/my models/qwen' tuning.epochs=2")
    wanted = PAPER.changed(data="/photos/FI", vlm={"name": "/my models/qwen"}, tuning={"epochs": 2})
    assert named_profile() == wanted
    assert named_profile("mini") == MINI.changed(data="/photos/FI"), "values are of EMOKD_PROFILE"
    run = open_run()
    assert (run.profile, str(run.root)) == (wanted, "/photos/FI")
    assert run.folder == tmp_path / "paper-FI"
    for text, words in (("vlmm=x", "no field 'vlmm'"), ("'open", "No closing quotation")):
        monkeypatch.setenv("EMOKD_SET", text)
        with pytest.raises(InputError, match=words):
            named_profile()
