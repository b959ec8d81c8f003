"""Image files opened as RGB, upright, and nothing that is no image taken for one (lesson 10)."""

import contextlib
import io
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from .errors import InputError

FORMATS = {".jpg": "JPEG", ".tif": "TIFF"}  # accepted suffix -> format
FORMATS |= {f".{name.lower()}": name for name in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")}

MAX_PIXELS = 80_000_000  # below the number at which Pillow warns of a decompression bomb
MAX_BYTES = 256 * 2**20
# A generator's prompt or a colour profile may be as large as all of a file's texts together may be.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY

BAD_FILES = {  # kind of file that is no usable image -> what it means, with its mend
    "unreadable": "cannot be opened or decoded: replace or remove",
    "truncated": "breaks off before its end: copy it again or remove",
    "empty": "has no bytes: copy it again or remove",
    "oversized": "would take too much memory: shrink or remove",
    "misnamed": "is not what its name says: rename, convert or remove",
    "too narrow": "is narrower than a VLM can take: crop or remove",
}


def is_image(name: str) -> bool:
    """Whether a file's name ends as that of an image."""
    return os.path.splitext(name)[1].lower() in FORMATS


class BadFile(Exception):
    """A file is no usable image. Arguments: kind (as in BAD_FILES), detail."""


def open_image(path: str | os.PathLike) -> Image.Image:
    """One image as RGB, 8 bits a channel, upright by its EXIF data; transparent pixels are laid on
    white, of an animation the first frame is taken, 16-bit greyscale is scaled from 0..65535. Raises
    InputError, naming the file, where it is missing or one of BAD_FILES."""
    try:
        return decode(Path(path))[0]
    except BadFile as error:
        kind, detail = error.args
        raise InputError(f"{path} ({kind}: {detail}) {BAD_FILES[kind]}") from error


def shrunk(image: Image.Image, side: int, quality: int, form: str = "WEBP") -> bytes:
    """A copy, its longer side at most `side` pixels, without colour profile, EXIF or XMP."""
    small, buffer = image.convert("RGB"), io.BytesIO()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    small.info = {}
    small.save(buffer, form, quality=quality)
    return buffer.getvalue()


def decode(path: Path) -> tuple[Image.Image, bytes, str, str]:
    """The RGB image, the file's bytes, its format and the mode it is stored in. Raises BadFile."""
    try:
        size = path.stat().st_size
        if not 0 < size <= MAX_BYTES:
            raise BadFile("oversized" if size else "empty", f"{size:,} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise BadFile("unreadable", error.strerror or str(error)) from error
    image, stored_as, mode = decode_bytes(data)
    return image, data, stored_as, mode


def decode_bytes(data: bytes) -> tuple[Image.Image, str, str]:
    """The RGB image, its format and the mode that it was stored in. Raises BadFile."""
    try:
        with Image.open(io.BytesIO(data), formats=list(FORMATS.values())) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise BadFile("oversized", f"{width} x {height} pixels, more than {MAX_PIXELS:,}")
            # MPO is JPEG with further pictures behind the first, as some cameras write it.
            stored_as = "JPEG" if image.format == "MPO" else image.format
            mode = image.mode
            image.load()
            with contextlib.suppress(Exception):  # damaged EXIF data must not cost the picture
                ImageOps.exif_transpose(image, in_place=True)
            return _as_rgb(image), stored_as, mode
    except BadFile:
        raise
    except UnidentifiedImageError as error:
        detail = "no image that can be read; a web page or a phone's HEIC?"
        raise BadFile("misnamed", detail) from error
    except Exception as error:  # decoders raise many kinds of errors on damaged bytes
        detail = str(error) or type(error).__name__
        kind = "truncated" if "truncated" in detail.lower() else "unreadable"
        large = isinstance(error, Image.DecompressionBombError)
        raise BadFile("oversized" if large else kind, detail) from error


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise BadFile("unreadable", "greyscale of 32 bits, which has no fixed white")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        return white.convert("RGB")
    return image.convert("RGB")
