import numpy as np
import pytest
from scipy.special import softmax

from emokd_utils.emotions import MIKELS
from emokd_utils.gates import gate_inputs
from emokd_utils.instructions import answer_for, categorical_prompt


def test_the_assembled_model_is_its_parts_in_turn(tiny_emovlm_kd, images):
    model, asked = tiny_emovlm_kd, (categorical_prompt(MIKELS), [*map(answer_for, MIKELS)])
    vlm = softmax(model.vlm.score(images, *asked), axis=1)
    logits = model.head.logits(model.vlm.features(images))
    inputs = gate_inputs(logits, vlm, np.eye(8)[vlm.argmax(1)], "probabilities")
    parts = softmax(model.gate.logits(*inputs), axis=1), vlm, softmax(logits, axis=1)
    for k, answer in enumerate(model.answer(images)):
        assert answer.emotion == MIKELS.labels[parts[0][k].argmax()]
        for side, wanted in zip(
            (answer.probabilities, answer.vlm, answer.head), parts, strict=True
        ):
            assert side == pytest.approx(dict(zip(MIKELS, wanted[k], strict=True)), abs=1e-5)
        assert list(answer.probabilities) == list(MIKELS.labels)
        assert sum(answer.weights) == pytest.approx(1, abs=1e-5)


def test_the_visual_encoder_runs_once_for_an_image(tiny_emovlm_kd, images):
    calls = []
    hook = tiny_emovlm_kd.vlm.core.model.visual.register_forward_hook(lambda *_: calls.append(1))
    tiny_emovlm_kd.answer(images[:1])
    hook.remove()
    assert len(calls) == 1
