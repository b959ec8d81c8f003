"""The explorer: seeing, image by image, where two models disagree.

`explore` makes a Jupyter widget, and its `to_html` writes the same thing as one page that opens
from disk. `content` says what is shown, `widget` and `page` carry it to the browser, and
`explorer.js` draws it and holds the filters.
"""

from .content import CELLS, GateView, jensen_shannon
from .page import MAX_MB
from .widget import Explorer, explore

__all__ = ["CELLS", "Explorer", "GateView", "MAX_MB", "explore", "jensen_shannon"]
