"""Image files opened as RGB, upright, and nothing that is no image taken for one (lesson 10)."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from .errors import InputError

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
"""Accepted suffix -> format."""

MAX_PIXELS = 80_000_000  # below the number at which Pillow warns of a decompression bomb
MAX_BYTES = 256 * 2**20
_STARTS = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"BM": "BMP",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}
_ENDS = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9", "GIF": b";"}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what turns the image upright."""


BAD_FILES = {
    "unreadable": "cannot be opened or decoded: replace or remove",
    "truncated": "breaks off before its end: copy it again or remove",
    "empty": "has no bytes: copy it again or remove",
    "oversized": "would take too much memory: shrink or remove",
    "misnamed": "is not what its name says: rename, convert or remove",
}
"""Kind of file that is no usable image -> what it means, with its mend."""


class BadFile(Exception):
    """A file is no usable image. Arguments: kind (as in BAD_FILES), detail."""


def open_image(path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """One image as RGB, 8 bits a channel, upright.

    EXIF rotation is applied; transparent pixels are laid on white; of an animation the first frame
    is taken; 16-bit greyscale is scaled from 0..65535; greyscale of 32-bit integers or floats,
    which has no fixed white, from its own minimum and maximum.

    Raises InputError, naming the file, where it is missing, not a PNG, JPEG, WebP, BMP, GIF or
    TIFF image, damaged, or of more than max_pixels pixels (which is known before decoding).
    """
    path = Path(path)
    try:
        return decode(read_file(path), max_pixels)[0]
    except BadFile as error:
        kind, detail = error.args
        raise InputError(f"{path} ({kind}: {detail}) {BAD_FILES[kind]}") from error


def read_file(path: Path) -> bytes:
    """The bytes of a file, at most MAX_BYTES. Raises BadFile."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadFile("unreadable", "not a regular file")
        if status.st_size == 0:
            raise BadFile("empty", "0 bytes")
        if status.st_size > MAX_BYTES:
            raise BadFile("oversized", f"{status.st_size:,} bytes, more than {MAX_BYTES:,}")
        return path.read_bytes()
    except OSError as error:
        raise BadFile("unreadable", error.strerror or str(error)) from error


def decode(data: bytes, max_pixels: int) -> tuple[Image.Image, str, str]:
    """The RGB image, its format and the mode that it was stored in. Raises BadFile."""
    try:
        with Image.open(io.BytesIO(data), formats=sorted(set(FORMATS.values()))) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise BadFile("oversized", f"{width} x {height} pixels, more than {max_pixels:,}")
            # MPO is JPEG with further pictures behind the first, as some cameras write it.
            found = "JPEG" if image.format == "MPO" else image.format
            return _as_rgb(image), found, image.mode
    except BadFile:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadFile("oversized", str(error)) from error
    except Exception as error:  # decoders raise many kinds of errors on damaged bytes
        found = _format_of(data)
        if found is None:
            raise BadFile("misnamed", f"not an image but {_describe(data)}") from error
        if "truncated" in str(error).lower() or _breaks_off(data, found):
            raise BadFile("truncated", f"{found} of {len(data):,} bytes breaks off") from error
        reason = "damaged header" if isinstance(error, UnidentifiedImageError) else str(error)
        raise BadFile("unreadable", f"{found}: {reason or type(error).__name__}") from error


def _as_rgb(image: Image.Image) -> Image.Image:
    image.load()
    try:
        turn = _TURNS.get(image.getexif().get(0x0112))
    except Exception:  # damaged EXIF data must not cost the picture
        turn = None
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint32)
        rgb = Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    elif image.mode in ("I", "F"):
        values = np.asarray(image, dtype=np.float64)
        values = np.where(np.isfinite(values), values, 0)
        span = np.ptp(values)
        values = (values - values.min()) / span * 255 if span else np.clip(values, 0, 255)
        rgb = Image.fromarray(np.rint(values).astype(np.uint8)).convert("RGB")
    elif image.has_transparency_data:
        front = image.convert("RGBA")
        rgb = Image.new("RGBA", image.size, "white")
        rgb.alpha_composite(front)
        rgb = rgb.convert("RGB")
    else:
        rgb = image.convert("RGB")
    return rgb.transpose(turn) if turn is not None else rgb


def _format_of(data: bytes) -> str | None:
    """The accepted format that `data` starts like."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return next((name for start, name in _STARTS.items() if data.startswith(start)), None)


def _breaks_off(data: bytes, found: str) -> bool:
    if found == "WEBP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    return found in _ENDS and _ENDS[found] not in data[-64:]


def _describe(data: bytes) -> str:
    head = data[:512].lstrip().lower()
    if data[4:8] == b"ftyp":
        return "a HEIC, AVIF or video file"
    if head.startswith(b"%pdf"):
        return "a PDF file"
    if head.startswith((b"<!doctype", b"<html", b"<?xml", b"<svg")):
        return "a web page, XML or SVG file"
    if b"\0" not in data[:512]:
        return "text"
    return "data of an unknown format"
