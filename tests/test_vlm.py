"""The VLM as a classifier: how it is loaded, what it scores, sees and answers, one image or many.

Scoring against one plain pass for each answer, and the same over all families: `test_families`.
"""

import shutil
import sys
from functools import wraps

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from scipy.special import softmax

from emokd_utils.answers import parse_answer
from emokd_utils.emotions import MIKELS
from emokd_utils.errors import InputError
from emokd_utils.instructions import answer_for, categorical_prompt, write_instructions
from emokd_utils.profiles import MINI
from emokd_utils.settings import TuningSettings
from emokd_utils.tuning import instruction_tune
from emokd_utils.vlm import VLM

TINY = MINI.path(MINI.vlm.name)
ANSWERS = [answer_for(label) for label in MIKELS]


def test_no_more_images_than_a_batch_pass_at_once(random_vlm, images, monkeypatch):
    asked = images, "Which?", ANSWERS[:2]
    whole = random_vlm.score_with_features(*asked)
    written = random_vlm.generate(images, "Which?", 3)
    seen, encode = [], type(random_vlm.core.model).get_image_features

    @wraps(encode)
    def watched(model, **inputs):
        seen.append(len(inputs["image_grid_thw"]))
        return encode(model, **inputs)

    monkeypatch.setattr(type(random_vlm.core.model), "get_image_features", watched)
    small = VLM(random_vlm.model, random_vlm.processor, batch_size=2)
    for mine, all_at_once in zip(small.score_with_features(*asked), whole, strict=True):
        np.testing.assert_allclose(mine, all_at_once, atol=1e-4)
    np.testing.assert_allclose(small.features(images), whole[1], atol=1e-4)
    assert seen == [2, 2, 1] * 2
    assert small.generate(images, "Which?", 3) == written and len(written) == 5


@pytest.fixture(scope="module")
def dataset(scenes):
    return scenes.select(scenes.split("test").ids[:5])


def test_predictions_by_scoring_are_the_softmax_of_the_scores(random_vlm, dataset):
    predictions = random_vlm.predict(dataset, progress=False)
    opened = [dataset.open(name) for name in dataset.ids]
    scores = random_vlm.score(opened, categorical_prompt(MIKELS), ANSWERS)
    np.testing.assert_allclose(predictions.probabilities, softmax(scores, axis=1), rtol=1e-5)
    assert predictions.answers == tuple(ANSWERS[k] for k in scores.argmax(1))
    assert not predictions.invalid.any() and predictions.ids == tuple(dataset.ids)
    assert predictions.provenance["prompt"] == categorical_prompt(MIKELS)
    features = random_vlm.dataset_features(dataset, progress=False)
    np.testing.assert_allclose(features, random_vlm.features(opened), atol=1e-5)


def test_what_is_written_counts_as_it_is_parsed(random_vlm, dataset, monkeypatch):
    texts = ["{'emotion': 'awe'}", "a chair", "sad", "anger or fear", "Fear."]
    monkeypatch.setattr(VLM, "generate", lambda *_: texts)
    predictions = random_vlm.predict(dataset, "generate", progress=False)
    assert list(predictions.answers) == texts
    assert list(predictions.predicted) == [parse_answer(text, MIKELS) for text in texts]
    assert predictions.invalid.tolist() == [False, True, False, True, False]
    np.testing.assert_array_equal(predictions.probabilities[1], [1 / 8] * 8)


def test_what_cannot_be_loaded_or_asked_is_named(random_vlm, dataset, tmp_path):
    for path in TINY.iterdir():
        shutil.copy(path, tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    (tmp_path / "empty").mkdir()
    for source, adapter, message in (
        (tmp_path / "empty", None, "config.json"),
        ("no such name!", None, "no such name! cannot be loaded: .* in reach"),
        ("nobody/nothing", None, "nobody/nothing cannot be loaded"),
        (tmp_path, None, f"{tmp_path.name} cannot be loaded"),
        (TINY, tmp_path / "empty", "adapter_config.json"),
    ):
        with pytest.raises(InputError, match=message):
            VLM.load(source, adapter)
    with pytest.raises(InputError, match="choose 'score' or 'generate'"):
        random_vlm.predict(dataset, "guess")


def test_what_four_bits_need_is_told(monkeypatch):
    with pytest.raises(InputError, match="choose 'nf4'"):
        VLM.load(TINY, quantize="int3")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(InputError, match=r"pip install -e \"\.\[gpu\]\""):
        VLM.load(TINY, quantize="nf4")


def test_pixels_are_limited(images):
    few = VLM.load(TINY, pixels=84 * 84).inputs(images[:1], "What?")
    assert few["image_grid_thw"].tolist() == [[1, 6, 6]]


@pytest.mark.slow
def test_four_bits_on_a_cpu_answer_nearly_as_all_do_and_are_tuned(scenes, tmp_path):
    whole, small = VLM.load(TINY), VLM.load(TINY, quantize="nf4")
    shown = [scenes.open(name) for name in scenes.ids]
    asked = categorical_prompt(scenes.label_set), [*map(answer_for, scenes.label_set)]
    full, packed = (vlm.score(shown, *asked) for vlm in (whole, small))
    assert np.corrcoef(full.ravel(), packed.ravel())[0, 1] > 0.95
    assert np.mean(full.argmax(1) == packed.argmax(1)) > 0.6

    train = scenes.split("train")
    written, _ = write_instructions(train, ["categorical"])
    settings = TuningSettings(lr=1e-2, epochs=6, batch_size=8)
    small = VLM.load(TINY, quantize="nf4")  # on a CPU one that has answered cannot be trained
    log = instruction_tune(small, train, written, settings, 0, tmp_path / "adapter", progress=False)
    assert log[-1]["train_loss"] < 3
    first = [train.open(train.ids[0])], written[0].prompt, [written[0].answer]
    again = VLM.load(TINY, tmp_path / "adapter", quantize="nf4")
    np.testing.assert_allclose(again.score(*first), small.score(*first), rtol=0.02, atol=0.05)
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({k.replace("q_proj", "query"): v for k, v in load_file(path).items()}, path)
    with pytest.raises(InputError, match="adapter cannot be loaded: it does not fit .*q_proj"):
        VLM.load(TINY, tmp_path / "adapter")
