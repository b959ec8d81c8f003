"""Files that hold results: arrays with what they are about, written whole or not at all."""

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from .errors import InputError

ROWS_FORMAT = "emokd-rows-1"


def canonical_json(obj: Any) -> str:
    """`obj` as JSON with sorted keys and no spaces; TypeError or ValueError for what is no JSON."""
    return json.dumps(obj, sort_keys=True, separators=(",", ":"), allow_nan=False)


def fingerprint(obj: Any) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of `obj` as canonical JSON."""
    return hashlib.sha256(canonical_json(obj).encode()).hexdigest()[:16]


def checksum(path: Path) -> str:
    """The SHA-256 of a file's content, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; renamed to `path` at the end of the block, or removed where
    the block fails, so that `path` is always whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        yield aside
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def load_lines(path: str | Path, file_format: str) -> list[dict]:
    """The objects of a file of JSON lines, the first {"format": ...}; a last line without its end,
    as a kill leaves it, is dropped. InputError for a file that is missing, damaged or another."""
    objects: list[dict] = []
    try:
        data = Path(path).read_bytes()
        for line in data[: data.rfind(b"\n") + 1].splitlines():
            item = json.loads(line)
            if not isinstance(item, dict) or (objects or [item])[0].get("format") != file_format:
                raise ValueError(f"it does not begin with the format {file_format}")
            objects.append(item)
    except (OSError, ValueError) as error:
        where = f"{path}, line {len(objects) + 1}"
        raise InputError(f"{where}: {error}; remove the line, or give another file") from error
    return objects


def save_tensors(path: str | Path, tensors: dict[str, Any], about: Any, file_format: str) -> None:
    """Write named arrays, or torch tensors on the CPU, as safetensors with `about` as JSON."""
    # safetensors writes an array's memory as it lies, which for a view is not its content.
    dense = {name: np.asarray(values, order="C") for name, values in tensors.items()}
    metadata = {"format": file_format, "about": json.dumps(about)}
    with written_aside(Path(path)) as aside:
        save_file(dense, aside, metadata)


def load_tensors(path: str | Path, file_format: str) -> tuple[dict[str, np.ndarray], Any]:
    """What `save_tensors` wrote; InputError for a file missing, damaged or of another format."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != file_format:
                raise TypeError(f"its format is {metadata.get('format')!r}, not {file_format!r}")
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
            return tensors, json.loads(metadata["about"])
    except (OSError, SafetensorError, TypeError, KeyError, json.JSONDecodeError) as error:
        raise InputError(f"{path} cannot be read, make it anew: {error}") from error


def save_rows(path: str | Path, image_ids: Sequence[str], rows: np.ndarray) -> None:
    """Write an array (n, ...) with one row an image together with the n ids."""
    save_tensors(path, {"rows": rows}, {"ids": list(image_ids)}, ROWS_FORMAT)


def load_rows(path: str | Path, image_ids: Sequence[str]) -> np.ndarray:
    """The rows that `save_rows` wrote, in the order of `image_ids`; InputError where the file is
    damaged or has not one row an id of its own, each once, or an id is missing."""
    tensors, about = load_tensors(path, ROWS_FORMAT)
    place = {image_id: row for row, image_id in enumerate(about["ids"])}
    if not len(place) == len(about["ids"]) == len(tensors["rows"]):
        raise InputError(f"{path}: {len(place)} different ids are not one a row: make it anew")
    if missing := [image_id for image_id in image_ids if image_id not in place]:
        what = f"no row for {len(missing)} of {len(image_ids)} images, {missing[0]!r} the first"
        raise InputError(f"{path}: {what}: make it anew for these images")
    return tensors["rows"][[place[image_id] for image_id in image_ids]]
