"""The explorer as a Jupyter widget."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import pandas as pd
import traitlets

from ..errors import InputError
from ..predictions import Predictions
from .content import Content, GateView, Images
from .page import STATIC, write_page


def explore(
    a: Predictions,
    b: Predictions,
    images: Images,
    gate: Predictions | GateView | None = None,
    *,
    more: Mapping[str, Predictions] | None = None,
    names: tuple[str, str] | None = None,
    metadata: pd.DataFrame | None = None,
    reasons: Mapping[str, str] | None = None,
) -> "Explorer":
    """A widget that shows where models A and B agree and where they do not.

    images: a data set, a mapping of id to PIL image or path, or the folder that ids are relative to.
    gate: what combines the two, its Predictions alone or with what went into them.
    more: name -> further predictions of the same images, which name A, B and the gate as well.
    names: of A and B; by default those in `more`, else their provenance's model.
    metadata: a row an image, indexed by id; by default the columns of the data set's table.
    reasons: image id -> why, in the VLM's words (`VLM.reasons`).
    """
    return Explorer(Content(a, b, images, gate, more or {}, names, metadata, reasons))


class Explorer(anywidget.AnyWidget):
    """What `explore` returns.

    table: a row for each image, indexed by id, in the order of the predictions. Columns: label;
    cell, which is both, a, b or neither; predicted, confidence (0..1) and correct of A and of B, as
    they were given; disagreement (bits, 0..1); answer and reason of the VLM; predicted, correct and
    student's share of the gate; split and metadata. What was not given has no column.
    """

    _esm = STATIC / "explorer.js"
    _css = STATIC / "explorer.css"
    _data = traitlets.Bytes().tag(sync=True)
    _view = traitlets.Unicode("").tag(sync=True)  # what is chosen, as explorer.js writes it
    _rows = traitlets.List(traitlets.Int()).tag(sync=True)  # the rows that are shown, in order

    def __init__(self, content: Content) -> None:
        self._content, self.table = content, content.table
        super().__init__(_data=content.to_json().encode("ascii"))
        self.show()
        self.on_msg(self._send_pictures)

    def __repr__(self) -> str:
        a, b = self.table.attrs.values()
        return f"Explorer({a} and {b}: {len(self._rows):,} of {len(self.table):,} images shown)"

    def show(self, ids: Iterable[str] | None = None) -> None:
        """Show these images in this order, or all, without filters; InputError for an unknown id."""
        if ids is None:
            order = np.argsort(-self.table["disagreement"].to_numpy(), kind="stable")
            self._rows, self._view = order.tolist(), ""
            return
        ids = list(dict.fromkeys(ids))
        rows = self.table.index.get_indexer(pd.Index(ids, dtype=object))
        if (rows < 0).any():
            raise InputError(f"{ids[rows.argmin()]!r} is no image here: take ids of explorer.table")
        self._rows = rows.tolist()
        self._view = "only=" + ",".join(map(str, self._rows))

    @property
    def selection(self) -> pd.DataFrame:
        """The rows of `table` that are shown now, by `show` or by clicks, in the gallery's order."""
        return self.table.iloc[self._rows]

    def to_html(
        self,
        path: str | os.PathLike,
        *,
        view: str | None = None,
        pictures: str = "inside",
        max_mb: float = 8.0,
    ) -> Path:
        """Write the explorer, with all its images, as a page that needs no server and no network.

        view: what is shown at first, as behind the # of the address; by default what is shown now.
        pictures: 'inside' the page, as large as fits, or in a 'folder' ``<stem>_pictures`` beside it.
        max_mb: size of the page at most, in 10^6 bytes; InputError where the images do not fit.
        """
        view = self._view if view is None else view
        return write_page(self._content, Path(path), view, pictures, max_mb)

    def _send_pictures(self, widget: Any, message: Any, buffers: Any) -> None:
        size = (1024, 85) if message["large"] else (224, 80)  # longest side, WebP quality
        pictures = [self._content.picture(row, *size) or b"" for row in message["rows"]]
        self.send(message, pictures)
