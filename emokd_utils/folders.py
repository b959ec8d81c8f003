"""What a folder of labelled images, laid out as `data` tells, holds by names alone; `scan` opens them."""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from .emotions import LabelSet
from .errors import InputError
from .files import fingerprint
from .images import FORMATS

SPLITS = ("train", "val", "test")
_LITTER = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx"}
_LAYOUT = "ROOT/train/EMOTION/*.png and ROOT/test/EMOTION/*.png"


class Problem(NamedTuple):
    """What is wrong, of a kind of `scan.KINDS`; path is relative to the root."""

    kind: str
    path: str
    detail: str


class ImageFile(NamedTuple):
    """A file whose name is that of an image. size: bytes."""

    id: str
    split: str
    folder: str
    size: int
    mtime_ns: int


class Listing(NamedTuple):
    """fingerprint: of the paths, sizes and times of change; while it stays, a scan holds."""

    files: list[ImageFile]
    problems: list[Problem]
    fingerprint: str


def list_files(root: str | os.PathLike) -> Listing:
    """What is below `root`; InputError where it is missing, a file, without train/ or images."""
    root = Path(root)
    try:
        folders = [entry.name for entry in _entries(root) if os.path.isdir(entry)]
    except OSError as error:
        mend = f"give the folder that holds {_LAYOUT}"
        raise InputError(f"{root} cannot be read ({error.strerror}): {mend}") from None
    if "train" not in folders:
        mend = f"put the images into {_LAYOUT}"
        if root.absolute().name in SPLITS:
            mend = f"is it itself a split? Then give the folder above, {root.absolute().parent}"
        raise InputError(f"{root} has no train/: {mend}")
    there = [item for name in folders if name in SPLITS for item in _below(root, name)]
    files = sorted(item for item in there if isinstance(item, ImageFile))
    problems = [item for item in there if isinstance(item, Problem)]
    for name in folders:
        if name not in SPLITS and name.lower().startswith(SPLITS):
            problems.append(Problem("stray", name, f"a split? name it {' or '.join(SPLITS)}"))
    if not files:
        first = "; found: {1} ({0}: {2})".format(*problems[0]) if problems else ""
        raise InputError(f"{root}: no image in a class folder; wanted: {_LAYOUT}{first}")
    csv = root / "metadata.csv"
    metadata = (csv.stat().st_size, csv.stat().st_mtime_ns) if csv.is_file() else None
    states = [(file.id, file.size, file.mtime_ns) for file in files]
    key = fingerprint(["emokd-scan-1", states, sorted(problems), metadata])
    return Listing(files, problems, key)


def _below(root: Path, folder: str) -> Iterator[ImageFile | Problem]:
    """What is in a split ("train") or in a class folder ("train/anger")."""
    try:
        entries = _entries(root / folder)
    except OSError as error:
        yield Problem("unreadable", folder, f"folder: {error.strerror}")
        return
    in_class = "/" in folder
    for entry in entries:
        # Python names a byte that is no UTF-8 by a lone surrogate, which no report could print.
        path = f"{folder}/{entry.name}".encode("utf-8", "backslashreplace").decode()
        try:
            status = entry.stat()
        except OSError as error:
            yield Problem("unreadable", path, error.strerror)
            continue
        if path != f"{folder}/{entry.name}":
            yield Problem("misnamed", path, "name is not UTF-8 text")
        elif stat.S_ISDIR(status.st_mode):
            if not in_class:
                yield from list(_below(root, path)) or [Problem("stray", path, "without images")]
            elif entry.is_symlink():  # not followed, so that there is no loop
                yield Problem("stray", path, "a link to a folder")
            elif count := sum(_is_image(n) for *_, names in os.walk(entry) for n in names):
                yield Problem("nested", path, f"images: {count}")
        elif in_class and _is_image(entry.name):
            yield ImageFile(path, *folder.split("/"), status.st_size, status.st_mtime_ns)
        elif in_class or _is_image(entry.name):
            detail = "suffix is not one of an image" if in_class else "in no class folder"
            yield Problem("stray", path, detail)


def _entries(folder: Path) -> list[os.DirEntry]:
    with os.scandir(folder) as entries:
        kept = [e for e in entries if e.name[0] != "." and e.name.lower() not in _LITTER]
    return sorted(kept, key=lambda entry: entry.name)


def _is_image(name: str) -> bool:
    return name[0] != "." and os.path.splitext(name)[1].lower() in FORMATS


def read_metadata(root: Path) -> pd.DataFrame:
    """metadata.csv indexed by its column `file`; without rows and columns where there is none.
    InputError where it is no CSV file with a column `file` that names each image once."""
    path = root / "metadata.csv"
    if not path.exists():
        return pd.DataFrame()
    try:
        table = pd.read_csv(
            path, dtype={"file": str}, keep_default_na=False, na_values=[""], encoding="utf-8-sig"
        )
        if "file" not in table:
            raise ValueError(f"it has the columns {', '.join(map(str, table.columns))}")
        table = table.assign(file=table["file"].str.removeprefix("./")).set_index("file")
        if (odd := table.index.isna() | table.index.duplicated()).any():
            raise ValueError(f"row {odd.argmax() + 1} has no `file`, or that of an earlier row")
    except (ValueError, OSError) as error:
        mend = "save it as CSV, with commas, in UTF-8, with the path of each image once in `file`"
        raise InputError(f"{path} cannot be read ({error}): {mend}") from error
    return table


def metadata_problems(
    root: Path, files: Sequence[ImageFile], label_set: LabelSet
) -> Iterator[Problem]:
    """Each contradiction between metadata.csv and the folders, and each gap."""
    try:
        metadata = read_metadata(root)
    except InputError as error:
        yield Problem("metadata error", "metadata.csv", str(error))
        return
    there = pd.DataFrame(files).set_index("id")
    there["label"] = there["folder"].map(label_set.canonical)
    for image_id in metadata.index.difference(there.index):
        yield Problem("metadata", image_id, "a row of metadata.csv, but no such image")
    without = there.index.difference(metadata.index)
    if len(without) and len(metadata):
        detail = f"no row for {len(without):,} images, the first {without[0]}"
        yield Problem("metadata", "metadata.csv", detail)
    known = metadata[metadata.index.isin(there.index)]
    reading = {"split": lambda text: text.strip().lower(), "label": label_set.canonical}
    for column, read in reading.items():
        for image_id, text in known.get(column, pd.Series()).dropna().astype(str).items():
            if read(text) != there.at[image_id, column]:
                yield Problem("metadata error", image_id, f"metadata.csv has the {column} {text!r}")
