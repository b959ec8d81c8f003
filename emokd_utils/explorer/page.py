"""The explorer as one page that opens from disk, without a server or a network."""

import base64
import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..errors import InputError
from ..files import write_text
from .content import Content, safe_json

STATIC = Path(__file__).parent

# Longest side in pixels and WebP quality, from the best to the smallest.
_SIZES = ((256, 82), (192, 80), (160, 78), (128, 75), (112, 70), (96, 60), (80, 50))


def write_page(content: Content, path: Path, view: str, pictures: str, max_mb: float) -> Path:
    """Write the page, see `Explorer.to_html`; view is what it shows at first."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{path} is no page: give a name that ends in .html")
    if pictures not in ("inside", "folder"):
        raise InputError(f"pictures is {pictures!r}: choose 'inside' or 'folder'")
    view = view.removeprefix("#")
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
