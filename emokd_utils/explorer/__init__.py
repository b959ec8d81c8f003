"""The explorer: seeing, image by image, where two models disagree.

`content` says what is shown, `widget` carries it to the browser, `explorer.js` draws it."""

from .content import GateView
from .widget import Explorer, explore

__all__ = ["Explorer", "GateView", "explore"]
