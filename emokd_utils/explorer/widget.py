"""The explorer as a Jupyter widget, and as one page that opens from disk, without a server."""

import base64
import hashlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anywidget
import numpy as np
import pandas as pd
import traitlets

from ..errors import InputError
from ..files import write_text
from ..predictions import Predictions
from .content import Content, GateView, Images, safe_json

STATIC = Path(__file__).parent

# Longest side in pixels and WebP quality, from the best to the smallest.
_SIZES = ((256, 82), (192, 80), (160, 78), (128, 75), (112, 70), (96, 60), (80, 50))


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
    reasons: image id -> why, in the VLM's words (`VLM.reasons`)."""
    return Explorer(Content(a, b, images, gate, more or {}, names, metadata, reasons))


class Explorer(anywidget.AnyWidget):
    """What `explore` returns.

    table: a row for each image, indexed by id, in the order of the predictions. Columns: label;
    cell, which is both, a, b or neither; predicted, confidence (0..1) and correct of A and of B, as
    they were given; disagreement (bits, 0..1); answer and reason of the VLM; predicted, correct and
    student's share of the gate; split and metadata. What was not given has no column."""

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
        max_mb: size of the page at most, in 10^6 bytes; InputError where the images do not fit."""
        path, content = Path(path), self._content
        if path.suffix.lower() not in (".html", ".htm"):
            raise InputError(f"{path} is no page: give a name that ends in .html")
        if pictures not in ("inside", "folder"):
            raise InputError(f"pictures is {pictures!r}: choose 'inside' or 'folder'")
        view = self._view if view is None else view.removeprefix("#")
        if pictures == "folder":
            folder = path.with_name(f"{path.stem}_pictures")
            folder.mkdir(parents=True, exist_ok=True)
            for row, data in enumerate(_all(content, (256, 80))):
                if data is not None:
                    (folder / f"{row:06d}.webp").write_bytes(data)
            page = _page(content, view, {"folder": quote(folder.name)})
        else:
            left = int(max_mb * 1e6) - len(_page(content, view, {"inside": []}))
            page = _page(content, view, {"inside": _fitting(content, left, max_mb)})
        write_text(path, page)
        return path

    def _send_pictures(self, widget: Any, message: Any, buffers: Any) -> None:
        size = (1024, 85) if message["large"] else (224, 80)  # longest side, WebP quality
        pictures = [self._content.picture(row, *size) or b"" for row in message["rows"]]
        self.send(message, pictures)


def _page(content: Content, view: str, where: dict[str, Any]) -> str:
    css, script = ((STATIC / f"explorer.{kind}").read_text("utf-8") for kind in ("css", "js"))
    css += ":root { color-scheme: light dark }\nbody { margin: 0; background: light-dark(#fff, #15191e) }\n"
    script = f"\n{script}\nopenPage();\n"
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"script-src '{_digest(script)}'; style-src '{_digest(css)}'; "
        + ("img-src data:" if "inside" in where else "img-src 'self' file: data:")
    )
    title = " and ".join(content.table.attrs.values()) + ": where they disagree"
    return (
        "<!doctype html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n"
        f"<style>{css}</style>\n</head>\n<body>\n"
        '<main id="emx"></main>\n'
        f'<script type="application/json" id="emx-data">{content.to_json()}</script>\n'
        f'<script type="application/json" id="emx-view">{safe_json(view)}</script>\n'
        f'<script type="application/json" id="emx-pictures">{safe_json(where)}</script>\n'
        f'<script type="module">{script}</script>\n'
        "</body>\n</html>\n"
    )


def _fitting(content: Content, budget: int, max_mb: float) -> list[str | None]:
    """Every image in base64, as large as all of them fit into `budget` bytes."""
    n = len(content.table)
    for size in _SIZES:
        sample = [content.picture(row, *size) or b"" for row in range(0, n, n // 48 + 1)]
        if sum(map(len, sample)) * 4 / 3 * n > budget * len(sample):
            continue
        texts = [data and base64.b64encode(data).decode() for data in _all(content, size)]
        if sum(len(text or "null") + 3 for text in texts) <= budget:
            return texts
    way = "write them beside the page with pictures='folder', explore fewer, or raise max_mb"
    raise InputError(f"the data and {n:,} pictures do not fit into {max_mb:g} MB: {way}")


def _all(content: Content, size: tuple[int, int]) -> Iterable[bytes | None]:
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        yield from pool.map(lambda row: content.picture(row, *size), range(len(content.table)))


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
