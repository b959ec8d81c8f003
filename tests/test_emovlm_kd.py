import numpy as np
import pytest

from emokd_utils.distillation import HeadSettings, train_head
from emokd_utils.emotions import MIKELS
from emokd_utils.emovlm_kd import EmoVLMKD, softmax
from emokd_utils.gating import GateSettings, gate_inputs, train_gate
from emokd_utils.instructions import answer_for, categorical_prompt


@pytest.fixture(scope="module")
def model(random_vlm, images):
    features, labels = random_vlm.features(images), np.arange(5)
    head = train_head(
        features,
        labels,
        None,
        val_features=features,
        val_labels=labels,
        num_classes=8,
        settings=HeadSettings(alpha=0.0, epochs=3, lr=1e-3),
        seed=0,
    )
    rng = np.random.default_rng(0)
    probabilities = softmax(rng.normal(size=(40, 8)))
    gate = train_gate(
        probabilities,
        softmax(rng.normal(size=(40, 8))),
        probabilities.argmax(1),
        num_classes=8,
        settings=GateSettings(inputs="probabilities", epochs=3, folds=0),
        seed=0,
        trained_on="val",
    )
    return EmoVLMKD(random_vlm, head, gate, MIKELS)


def test_the_assembled_model_is_its_parts_in_turn(model, images):
    answers = model.answer(images)
    scores = model.vlm.score(
        images, categorical_prompt(MIKELS), [answer_for(label) for label in MIKELS]
    )
    vlm, logits = softmax(scores), model.head.logits(model.vlm.features(images))
    inputs = gate_inputs(logits, vlm, np.eye(8)[vlm.argmax(1)], "probabilities")
    final = softmax(model.gate.logits(*inputs))
    for k, answer in enumerate(answers):
        assert answer.emotion == MIKELS.labels[final[k].argmax()]
        np.testing.assert_allclose(list(answer.probabilities.values()), final[k], atol=1e-5)
        np.testing.assert_allclose(list(answer.vlm.values()), vlm[k], atol=1e-5)
        np.testing.assert_allclose(list(answer.head.values()), softmax(logits)[k], atol=1e-5)
        assert sum(answer.weights) == pytest.approx(1, abs=1e-5)
        assert list(answer.probabilities) == list(MIKELS.labels)


def test_an_answer_does_not_depend_on_the_other_images(model, images):
    alone = model.answer(images[2:3])[0]
    among = model.answer(images)[2]
    assert alone.emotion == among.emotion
    assert alone.probabilities == pytest.approx(among.probabilities, abs=1e-5)


def test_the_visual_encoder_runs_once_for_an_image(model, images):
    calls = []
    hook = model.vlm.core.model.visual.register_forward_hook(lambda *_: calls.append(1))
    model.answer(images[:1])
    hook.remove()
    assert len(calls) == 1
