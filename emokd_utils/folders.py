"""What a folder of labelled images, laid out as `data` tells, holds by names alone; `scan` opens them."""

import io
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from .emotions import LABEL_SETS, LabelSet
from .errors import InputError
from .files import fingerprint
from .images import is_image

SPLITS = ("train", "val", "test")
_LITTER = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "#recycle"}
_LITTER |= {"$recycle.bin", "lost+found"}
_PLACES = ("", "train/", "val/", "test/")  # of metadata.csv
_ID_COLUMNS = ("file", "file_name", "filename")  # of metadata.csv: ours, the hub's, others'
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
        entries = _entries(root)
        folders = [e.name for e in entries if os.path.isdir(e) and not is_litter(e.name)]
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
    problems += [Problem("passed over", e.name, "") for e in entries if is_litter(e.name)]
    odd = [name for name in folders if name not in SPLITS and name.lower().startswith(SPLITS)]
    problems += [Problem("stray", name, f"a split? name it {' or '.join(SPLITS)}") for name in odd]
    if not files:
        first = "; found: {1} ({0}: {2})".format(*problems[0]) if problems else ""
        raise InputError(f"{root}: no image in a class folder; wanted: {_LAYOUT}{first}")
    metadata = [(p.stat().st_size, p.stat().st_mtime_ns) for p, _ in _metadata_files(root)]
    states = [(file.id, file.size, file.mtime_ns) for file in files]
    told = sorted(problem for problem in problems if problem.kind != "passed over")
    key = fingerprint(["emokd-scan-2", states, told, metadata])
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
        if is_litter(entry.name):
            yield Problem("passed over", path, "")
            continue
        try:
            status = entry.stat()
        except OSError as error:
            yield Problem("unreadable", path, error.strerror)
            continue
        if path != f"{folder}/{entry.name}":
            yield Problem("misnamed", path, "name is not UTF-8 text")
        elif stat.S_ISDIR(status.st_mode):
            if not in_class:
                inside = list(_below(root, path))
                yield from inside
                if all(item[0] == "passed over" for item in inside):
                    yield Problem("stray", path, "without images")
            elif entry.is_symlink():  # not followed, so that there is no loop
                yield Problem("stray", path, "a link to a folder")
            elif count := sum(is_image(file.name) for file in Path(entry).rglob("[!.]*")):
                yield Problem("nested", path, f"images: {count}")
        elif in_class and is_image(entry.name):
            yield ImageFile(path, *folder.split("/"), status.st_size, status.st_mtime_ns)
        elif in_class or is_image(entry.name):
            detail = "suffix is not one of an image" if in_class else "in no class folder"
            yield Problem("stray", path, detail)


def _entries(folder: Path) -> list[os.DirEntry]:
    return sorted(os.scandir(folder), key=lambda entry: entry.name)


def is_litter(name: str) -> bool:
    """Whether a system, an editor or an archiver put it there, and no one on purpose."""
    return (name.startswith(".") and name != "..") or name.lower() in _LITTER


def printable(text: str) -> str:
    """`text` in one line, with escapes for what could not be seen."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def known_label_set(root: Path) -> LabelSet | None:
    """The label set of the release that `convert` made a folder of, where it wrote that down."""
    try:
        about = json.loads((root / "source.json").read_text("utf-8"))["about"]
        return LABEL_SETS.get(about["label_set"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _metadata_files(root: Path) -> list[tuple[Path, str]]:
    """The files of metadata, and what comes before the names of images in each."""
    there = ((root / at / f"metadata.{s}", at) for at in _PLACES for s in ("csv", "jsonl"))
    return [(path, at) for path, at in there if path.is_file()]


def read_metadata(root: Path) -> pd.DataFrame:
    """metadata.csv or metadata.jsonl of `root` and of its splits, indexed by image id (NFC); without
    rows and columns where there is none. The column of ids is called `file`, or `file_name` as on the
    hub. InputError where a file is no such table, or names an image twice."""
    tables = []
    for path, folder in _metadata_files(root):
        try:
            tables.append(_read_table(path, folder))
        except (ValueError, AttributeError, OSError) as error:
            mend = "save it as CSV, in UTF-8, with the path of each image once in `file`"
            raise InputError(f"{path} cannot be read ({error}): {mend}") from error
    return pd.concat(tables) if tables else pd.DataFrame()


def _read_table(path: Path, folder: str) -> pd.DataFrame:
    data = path.read_bytes()
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252")  # what a spreadsheet writes in Western Europe
    if path.suffix == ".jsonl":
        table = pd.DataFrame([json.loads(line) for line in text.splitlines() if line.strip()])
    else:
        header = text.partition("\n")[0]
        how = {"sep": max(",;\t", key=header.count), "dtype": dict.fromkeys(_ID_COLUMNS, str)}
        table = pd.read_csv(io.StringIO(text), keep_default_na=False, na_values=[""], **how)
    column = next((name for name in _ID_COLUMNS if name in table), None)
    if column is None:
        raise ValueError(f"it has the columns {', '.join(map(str, table.columns))}")
    paths = folder + table[column].str.replace("\\", "/").str.removeprefix("./")
    table = table.assign(file=paths.str.normalize("NFC")).set_index("file")
    if (odd := table.index.isna() | table.index.duplicated()).any():
        raise ValueError(f"row {odd.argmax() + 1} has no `{column}`, or that of an earlier row")
    return table.drop(columns=column, errors="ignore")


def metadata_problems(root: Path, files: list[ImageFile], labels: LabelSet) -> Iterator[Problem]:
    """Each contradiction between metadata.csv and the folders, and each gap."""
    try:
        metadata = read_metadata(root)
    except InputError as error:
        yield Problem("metadata error", "metadata.csv", str(error))
        return
    there = pd.DataFrame(files)
    there = there.set_index(there["id"].str.normalize("NFC"))
    there["label"] = there["folder"].map(labels.canonical)
    for image_id in metadata.index.difference(there.index):
        yield Problem("metadata", image_id, "a row of metadata.csv, but no such image")
    without = there.index.difference(metadata.index)
    if len(without) and len(metadata):
        detail = f"no row for {len(without):,} images, the first {without[0]}"
        yield Problem("metadata", "metadata.csv", detail)
    known = metadata[metadata.index.isin(there.index)]
    reading = {"split": lambda text: text.strip().lower(), "label": labels.canonical}
    for column, read in reading.items():
        for image_id, text in known.get(column, pd.Series()).dropna().astype(str).items():
            if read(text) != there.at[image_id, column]:
                detail = f"metadata.csv has the {column} {text!r}"
                yield Problem("metadata error", there.at[image_id, "id"], detail)
