"""Tables that open in a spreadsheet and come back exactly: CSV, with JSON about it beside.

The CSV is UTF-8 with a byte-order mark, by which Excel knows it, one line a row. In text, unseen
characters (newlines, control, direction) and backslashes are escaped as in JSON, and an apostrophe
goes before what a spreadsheet could take for a formula."""

import hashlib
import io
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_object_dtype

from .errors import InputError
from .files import write_text

_UNSEEN = re.compile(
    r"[\\\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]"
)
_ESCAPE = re.compile(r"\\(?:[\\nrt]|u[0-9a-f]{4})")
_SHORT = {"\\": "\\", "\n": "n", "\r": "r", "\t": "t"}
_NEEDS_APOSTROPHE = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|'")


def save_table(path: str | os.PathLike, table: pd.DataFrame, about: Mapping[str, Any]) -> Path:
    """Write a table to `path`, a .csv, and what it is about, its `format` and more, to a .json beside.
    The index and columns of the type object are texts. Raises InputError for another suffix."""
    path = Path(path)
    if path.suffix != ".csv":
        raise InputError(f"{path}: a table is kept in a file whose name ends in .csv")
    escaped = table.rename(index=_to_cell, columns=_to_cell)
    for name in table:
        if is_object_dtype(table[name]):
            escaped[_to_cell(name)] = [_to_cell(text or "") for text in table[name]]
    content = "\ufeff" + escaped.to_csv(lineterminator="\n")
    about = dict(about) | {"sha256": hashlib.sha256(content.encode()).hexdigest()}
    write_text(path, content)
    write_text(path.with_suffix(".json"), json.dumps(about, indent=1) + "\n")
    return path


def load_table(path: str | os.PathLike, file_format: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """What `save_table` wrote, all as text: a number as its digits, no text as "". Raises OSError,
    LookupError, TypeError or ValueError where a file is missing, changed or of another format."""
    content = Path(path).read_bytes()
    about = json.loads(Path(path).with_suffix(".json").read_bytes())
    if about["format"] != file_format:
        raise ValueError(f"it is not of the format {file_format}")
    if about["sha256"] != hashlib.sha256(content).hexdigest():
        raise ValueError("it is not the file that was saved")
    table = pd.read_csv(io.BytesIO(content), dtype=str, na_filter=False, encoding="utf-8-sig")
    # pandas' own type of text refuses lone surrogates, which a model may write
    texts = {_from_cell(name): list(map(_from_cell, table[name])) for name in table}
    return pd.DataFrame(texts, dtype=object), about


def _to_cell(text: str) -> str:
    line = _UNSEEN.sub(lambda m: "\\" + (_SHORT.get(m[0]) or f"u{ord(m[0]):04x}"), text)
    return "'" + line if _NEEDS_APOSTROPHE.match(line) else line


def _from_cell(cell: str) -> str:
    return _ESCAPE.sub(lambda m: json.loads(f'"{m[0]}"'), cell.removeprefix("'"))
