"""What a folder of labelled images holds, by names alone: files, class folders, metadata.csv.

The layout is told in `data`. Nothing is decoded here; `scan` opens the images.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from .emotions import LabelSet
from .errors import InputError
from .files import fingerprint
from .images import FORMATS

SPLITS = ("train", "val", "test")
LISTING_FORMAT = "emokd-scan-1"

_SPLIT_NAMES = {"training": "train", "validation": "val", "valid": "val", "dev": "val"}
_SPLIT_NAMES |= {"testing": "test"} | {name: name for name in SPLITS}
_LITTER = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx"}
_LAYOUT = "ROOT/train/EMOTION/*.png and ROOT/test/EMOTION/*.png"


class Problem(NamedTuple):
    """kind: of `scan.KINDS`. path: relative to the root. detail: what is wrong, in words."""

    kind: str
    path: str
    detail: str


class ImageFile(NamedTuple):
    """A file whose name is that of an image. size: bytes, -1 where it cannot be looked at."""

    id: str
    split: str
    folder: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Listing:
    """What is there by name alone. metadata: size and mtime_ns of metadata.csv."""

    files: list[ImageFile]
    problems: list[Problem]
    metadata: tuple[int, int] | None

    @property
    def folders(self) -> tuple[str, ...]:
        """Names of the class folders that hold a file, sorted."""
        return tuple(sorted({file.folder for file in self.files}))

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of all of it."""
        files = [(file.id, file.size, file.mtime_ns) for file in self.files]
        return fingerprint([LISTING_FORMAT, files, sorted(self.problems), self.metadata])


def list_files(root: Path) -> Listing:
    """What is below `root`.

    Raises InputError where it is missing, empty, a file, without train/, itself a split or without
    images.
    """
    try:
        entries = _entries(root)
    except OSError as error:
        raise InputError(
            f"{root} cannot be read ({error.strerror}): give the folder that holds {_LAYOUT}"
        ) from None
    folders = [entry.name for entry in entries if os.path.isdir(entry.path)]
    if "train" not in folders:
        raise InputError(_no_train(root, folders, bool(entries)))

    there: list[ImageFile | Problem] = []
    for name in folders:
        if name in SPLITS:
            there += _in_split(root, name)
        elif meant := _SPLIT_NAMES.get(name.lower()):
            there.append(Problem("stray", name, f"a split? then name it {meant}"))
    files = sorted(item for item in there if isinstance(item, ImageFile))
    problems = [item for item in there if isinstance(item, Problem)]
    if not files:
        first = "; found: {1} ({0}: {2})".format(*problems[0]) if problems else ""
        raise InputError(
            f"{root}: no image in a class folder of train/, val/ or test/ "
            f"(wanted: {_LAYOUT}; suffixes {' '.join(FORMATS)}){first}"
        )
    metadata = root / "metadata.csv"
    status = metadata.stat() if metadata.is_file() else None
    return Listing(files, problems, (status.st_size, status.st_mtime_ns) if status else None)


def _no_train(root: Path, folders: Sequence[str], anything: bool) -> str:
    if not anything:
        return f"{root} is empty; wanted: {_LAYOUT}"
    for name in folders:
        if _SPLIT_NAMES.get(name.lower()) == "train":
            return f"{root} has no train/ but {name}/: rename it to train"
    classes = [name for name in folders if name not in SPLITS and _holds_image(root / name)]
    if classes and root.name in SPLITS:
        return (
            f"{root} is itself the {root.name} split of a data set; give the folder above it, "
            f"{root.absolute().parent}"
        )
    if classes:
        return (
            f"{root} has class folders but no train/: move some of each class to train/CLASS/ and "
            "some to test/CLASS/"
        )
    return f"{root} has no train/; wanted: {_LAYOUT}"


def _holds_image(folder: Path) -> bool:
    return any(not isinstance(e, Problem) and _is_image(e.name) for e in _try_entries(folder, ""))


def _in_split(root: Path, split: str) -> Iterator[ImageFile | Problem]:
    for entry in _try_entries(root, split):
        if isinstance(entry, Problem):
            yield entry
        elif os.path.isdir(entry.path):
            bare = Problem("stray", f"{split}/{entry.name}", "a folder without images")
            yield from list(_in_class(root, split, entry.name)) or [bare]
        elif _is_image(entry.name):
            yield Problem("stray", f"{split}/{entry.name}", "in no class folder")
        elif entry.is_symlink() and not os.path.exists(entry.path):
            yield Problem("unreadable", f"{split}/{entry.name}", "a link that leads nowhere")


def _in_class(root: Path, split: str, folder: str) -> Iterator[ImageFile | Problem]:
    for entry in _try_entries(root, f"{split}/{folder}"):
        if isinstance(entry, Problem):
            yield entry
            continue
        path = f"{split}/{folder}/{entry.name}"
        if os.path.isdir(entry.path):
            # Links to folders are not followed, so that there is no loop.
            if entry.is_symlink():
                yield Problem("stray", path, "a link to a folder")
            elif count := _count_images(entry.path):
                yield Problem("nested", path, f"images: {count}")
        elif not _is_image(entry.name):
            yield Problem("stray", path, "suffix is not one of an image")
        elif escaped(path) != path:
            yield Problem("misnamed", path, "name is not UTF-8 text")
        else:
            try:
                status = entry.stat()
                yield ImageFile(path, split, folder, status.st_size, status.st_mtime_ns)
            except OSError:
                yield ImageFile(path, split, folder, -1, 0)


def _entries(folder: Path) -> list[os.DirEntry]:
    """What is in `folder`, by name, without hidden files and the litter of file browsers."""
    with os.scandir(folder) as entries:
        kept = [e for e in entries if e.name[0] != "." and e.name.lower() not in _LITTER]
    return sorted(kept, key=lambda entry: entry.name)


def _try_entries(root: Path, path: str) -> list[os.DirEntry] | list[Problem]:
    try:
        return _entries(root / path)
    except OSError as error:
        return [Problem("unreadable", path, f"folder: {error.strerror}")]


def _count_images(folder: str) -> int:
    return sum(_is_image(name) for _, _, names in os.walk(folder) for name in names)


def _is_image(name: str) -> bool:
    return name[0] != "." and os.path.splitext(name)[1].lower() in FORMATS


def escaped(text: str) -> str:
    """`text` with what UTF-8 cannot hold, as in a name of other bytes, written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def read_metadata(root: Path) -> pd.DataFrame | None:
    """metadata.csv indexed by its column `file`; None where there is none.

    Raises InputError where it is no CSV file with a column `file` that names each image once.
    """
    path = root / "metadata.csv"
    if not path.exists():
        return None
    mend = "save it as CSV with commas, in UTF-8, with a column `file`"
    try:
        table = pd.read_csv(
            path, dtype={"file": str}, keep_default_na=False, na_values=[""], encoding="utf-8-sig"
        )
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read ({error}): {mend}") from error
    if "file" not in table:
        raise InputError(f"{path} has the columns {', '.join(map(str, table.columns))}: {mend}")
    if table["file"].isna().any():
        row = int(np.flatnonzero(table["file"].isna())[0]) + 1
        raise InputError(f"{path}: row {row} has no `file`: give the image's path or remove it")
    table["file"] = table["file"].str.removeprefix("./")
    twice = table["file"][table["file"].duplicated()]
    if len(twice):
        raise InputError(f"{path} has more than one row for {twice.iloc[0]}: keep one")
    return table.set_index("file")


def metadata_problems(
    root: Path, listing: Listing, label_of: Mapping[str, str], label_set: LabelSet
) -> Iterator[Problem]:
    """Each contradiction between metadata.csv and the folders, and each gap.

    label_of: folder name -> label.
    """
    try:
        metadata = read_metadata(root)
    except InputError as error:
        yield Problem("metadata error", "metadata.csv", str(error))
        return
    if metadata is None:
        return
    files = {file.id: file for file in listing.files}
    for image_id in metadata.index:
        if image_id not in files:
            yield Problem("metadata", image_id, "a row of metadata.csv, but no such image")
    if without := files.keys() - set(metadata.index):
        detail = f"no row for {len(without):,} images, the first {min(without)}"
        yield Problem("metadata", "metadata.csv", detail)
    for column in metadata.columns.intersection(["split", "label"]):
        for image_id, text in metadata[column].dropna().astype(str).items():
            if image_id not in files:
                continue
            file = files[image_id]
            if column == "split":
                agrees = text.strip().lower() == file.split
            else:
                agrees = label_set.canonical(text) == label_of[file.folder]
            if not agrees:
                yield Problem("metadata error", image_id, f"metadata.csv has the {column} {text!r}")
