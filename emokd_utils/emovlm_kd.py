"""EmoVLM-KD assembled: one pass of the VLM, a small head on what it saw, and a gate (lesson 9).

Lee, Lee & Park 2025, doi 10.1109/CVPRW67362.2025.00560."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.special import softmax

from .distillation import TrainedHead
from .emotions import LabelSet
from .gates import gate_inputs
from .gating import TrainedGate
from .instructions import answer_for, categorical_prompt
from .vlm import VLM


@dataclass(frozen=True)
class Answer:
    """What EmoVLM-KD says about one image, and what each part contributed.

    emotion: the final label. probabilities, vlm, head: label -> probability in 0..1 of the final
    answer, the VLM and the head. weights: shares of head and VLM in the decision, summing to 1."""

    emotion: str
    probabilities: dict[str, float]
    vlm: dict[str, float]
    head: dict[str, float]
    weights: tuple[float, float]


@dataclass(frozen=True, eq=False)
class EmoVLMKD:
    """A tuned VLM, the distilled head on its visual features, and the gate that combines both."""

    vlm: VLM
    head: TrainedHead
    gate: TrainedGate
    label_set: LabelSet

    def answer(self, images: Sequence[Image.Image]) -> list[Answer]:
        """One answer an image; each image passes the VLM's visual encoder once."""
        labels = self.label_set.labels
        scores, features = self.vlm.score_with_features(
            images, categorical_prompt(self.label_set), [answer_for(label) for label in labels]
        )  # (n, C), (n, d)
        vlm, logits = softmax(np.float64(scores), axis=1), self.head.logits(features)  # (n, C) each
        one_hot = np.eye(len(labels))[vlm.argmax(1)]
        inputs = gate_inputs(logits, vlm, one_hot, self.gate.settings.inputs)
        final = softmax(np.float64(self.gate.logits(*inputs)), axis=1)  # (n, C)
        shares = self.gate.weights(*inputs)  # (n, 2)
        head = softmax(np.float64(logits), axis=1)
        answers = []
        for *rows, weights in zip(final, vlm, head, shares, strict=True):
            by_label = [dict(zip(labels, row.tolist(), strict=True)) for row in rows]
            emotion = max(by_label[0], key=by_label[0].get)
            answers.append(Answer(emotion, *by_label, tuple(weights.tolist())))
        return answers
