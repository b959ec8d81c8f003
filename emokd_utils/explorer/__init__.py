"""Any two models side by side, image by image: a widget, and a page that can be mailed."""

from .content import (
    CELL_NAMES,
    CELLS,
    MAX_MB,
    NONE,
    SORTS,
    STATIC,
    Explorer,
    GateView,
    Images,
    explore,
    jensen_shannon,
)

__all__ = [
    "CELLS",
    "CELL_NAMES",
    "Explorer",
    "GateView",
    "Images",
    "MAX_MB",
    "NONE",
    "SORTS",
    "STATIC",
    "explore",
    "jensen_shannon",
]
