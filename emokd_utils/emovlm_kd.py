"""EmoVLM-KD assembled: one pass of the VLM, a small head on what it saw, and a gate (lesson 9).

Lee, Lee & Park 2025, doi 10.1109/CVPRW67362.2025.00560.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .distillation import TrainedHead
from .emotions import LabelSet
from .gates import gate_inputs
from .gating import TrainedGate
from .instructions import answer_for, categorical_prompt
from .vlm import VLM

if TYPE_CHECKING:
    from .run.pipeline import Pipeline


@dataclass(frozen=True)
class Answer:
    """What EmoVLM-KD says about one image, and what each part contributed.

    emotion: the final label. probabilities, vlm, head: label -> probability in 0..1 of the final
    answer, the VLM and the head. weights: shares of head and VLM in the decision, summing to 1.
    """

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

    @classmethod
    def from_pipeline(cls, pipeline: Pipeline, seed: int = 0, kind: str | None = None) -> EmoVLMKD:
        """Assemble what a pipeline has trained; what is missing is made."""
        return cls(
            pipeline.tuned_vlm(seed),
            pipeline.head(seed),
            pipeline.gate(seed, kind),
            pipeline.dataset.label_set,
        )

    def answer(self, images: Sequence[Image.Image]) -> list[Answer]:
        """One answer an image; each image passes the VLM's visual encoder once."""
        labels = self.label_set.labels
        scores, features = self.vlm.score_with_features(
            images, categorical_prompt(self.label_set), [answer_for(label) for label in labels]
        )
        vlm, logits = softmax(scores), self.head.logits(features)
        one_hot = np.eye(len(labels))[vlm.argmax(1)]
        inputs = gate_inputs(logits, vlm, one_hot, self.gate.settings.inputs)
        final, weights = softmax(self.gate.logits(*inputs)), self.gate.weights(*inputs)
        rows = zip(final, vlm, softmax(logits), weights, strict=True)
        return [
            Answer(
                labels[int(p.argmax())],
                *(dict(zip(labels, map(float, row), strict=True)) for row in (p, v, s)),
                (float(w[0]), float(w[1])),
            )
            for p, v, s, w in rows
        ]


def softmax(values: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, in float64."""
    values = np.asarray(values, dtype=np.float64)
    values = np.exp(values - values.max(axis=-1, keepdims=True))
    return values / values.sum(axis=-1, keepdims=True)
