"""Figures of the lessons and the report, in one style, each with alt text.

Every function takes `Predictions` or a result table (shares in 0..1) and mostly an optional `ax`,
and returns the Matplotlib axes, for `show` or `save`. The line below the title states n and what
the interval is. Make axes of your own under ``with figures.style():``, so that they match."""

# ruff: noqa: F401 (what is imported here is what the package offers)

from .base import (
    GREY,
    INK,
    MODEL_COLOURS,
    PALE,
    alt_text,
    class_colours,
    model_colours,
    percent,
    save,
    show,
    style,
)
from .disagreement import confusion, confusion_pair, cue_bars, explanations, four_way_map, pictures
from .gains import (
    calibration,
    cost_accuracy,
    expected_calibration_error,
    gate_weights,
    oracle_gap,
    reliability,
    sweep,
)
