"""A gate's answers with what went into them, as plain arrays: what a run hands to the explorer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..predictions import Predictions


@dataclass(frozen=True, eq=False)
class GateView:
    """A gate's answers with what went into them, over n images.

    predictions: the gate's. student, vlm: those of its two sides, for the same images. weights:
    (n, 2) shares of student and VLM in each decision, 0 to 1, rows summing to 1, in the order of
    `predictions`, as `TrainedGate.weights` gives them. What is None is not shown.
    """

    predictions: Predictions
    student: Predictions | None = None
    vlm: Predictions | None = None
    weights: np.ndarray | None = None
