import numpy as np
import pytest
from scipy.special import softmax

from emokd_utils.emotions import MIKELS
from emokd_utils.gates import gate_inputs
from emokd_utils.instructions import answer_for, categorical_prompt


def test_the_assembled_model_is_its_parts_in_turn(tiny_emovlm_kd, images):
    answers = tiny_emovlm_kd.answer(images)
    scores = tiny_emovlm_kd.vlm.score(
        images, categorical_prompt(MIKELS), [answer_for(label) for label in MIKELS]
    )
    vlm, logits = (
        softmax(scores, axis=1),
        tiny_emovlm_kd.head.logits(tiny_emovlm_kd.vlm.features(images)),
    )
    inputs = gate_inputs(logits, vlm, np.eye(8)[vlm.argmax(1)], "probabilities")
    final = softmax(tiny_emovlm_kd.gate.logits(*inputs), axis=1)
    for k, answer in enumerate(answers):
        assert answer.emotion == MIKELS.labels[final[k].argmax()]
        np.testing.assert_allclose(list(answer.probabilities.values()), final[k], atol=1e-5)
        np.testing.assert_allclose(list(answer.vlm.values()), vlm[k], atol=1e-5)
        np.testing.assert_allclose(
            list(answer.head.values()), softmax(logits, axis=1)[k], atol=1e-5
        )
        assert sum(answer.weights) == pytest.approx(1, abs=1e-5)
        assert list(answer.probabilities) == list(MIKELS.labels)


def test_an_answer_does_not_depend_on_the_other_images(tiny_emovlm_kd, images):
    alone = tiny_emovlm_kd.answer(images[2:3])[0]
    among = tiny_emovlm_kd.answer(images)[2]
    assert alone.emotion == among.emotion
    assert alone.probabilities == pytest.approx(among.probabilities, abs=1e-5)


def test_the_visual_encoder_runs_once_for_an_image(tiny_emovlm_kd, images):
    calls = []
    hook = tiny_emovlm_kd.vlm.core.model.visual.register_forward_hook(lambda *_: calls.append(1))
    tiny_emovlm_kd.answer(images[:1])
    hook.remove()
    assert len(calls) == 1
