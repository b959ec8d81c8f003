"""A folder of labelled images, scanned for everything that may be wrong with it (lesson 10).

The layout is told in `datasets`. The scan opens every image once and lists what is unreadable,
misnamed, missing, nested too deep, there twice or in contradiction to metadata.csv.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from .emotions import LABEL_SETS, LabelSet, infer_label_set, normalise
from .errors import InputError
from .files import fingerprint
from .images import BAD_FILES, FORMATS, MAX_PIXELS, BadFile, decode, read_file

SPLITS = ("train", "val", "test")
SCAN_FORMAT = "emokd-scan-1"

KINDS = {kind: ("error", meaning) for kind, meaning in BAD_FILES.items()} | {
    "nested": ("error", "lies deeper than SPLIT/EMOTION/: move the images up"),
    "missing split": ("error", "is needed: put images there"),
    "metadata error": ("error", "contradicts the folders: correct metadata.csv"),
    "duplicate across splits": ("warning", "is known from training when tested: remove one"),
    "duplicate": ("warning", "is there twice in one split: remove one"),
    "missing class": ("warning", "has no image, so it is not learnt or not measured"),
    "stray": ("warning", "is not read"),
    "metadata": ("warning", "has no counterpart: check metadata.csv"),
}
"""Kind of problem -> severity, and what it means with its mend."""

_SPLIT_NAMES = {"training": "train", "validation": "val", "valid": "val", "dev": "val"}
_SPLIT_NAMES |= {"testing": "test"} | {name: name for name in SPLITS}
_LITTER = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx"}
_LAYOUT = "ROOT/train/EMOTION/*.png and ROOT/test/EMOTION/*.png"


@dataclass(frozen=True)
class _File:
    id: str
    split: str
    folder: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Listing:
    """What is there by name alone. problems: (kind, path, detail). metadata: size, mtime_ns."""

    files: list[_File]
    problems: list[tuple[str, str, str]]
    metadata: tuple[int, int] | None

    @property
    def folders(self) -> tuple[str, ...]:
        """Names of the class folders that hold a file, sorted."""
        return tuple(sorted({file.folder for file in self.files}))

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of all of it."""
        files = [(file.id, file.size, file.mtime_ns) for file in self.files]
        return fingerprint([SCAN_FORMAT, files, sorted(self.problems), self.metadata])


def listing_fingerprint(root: str | os.PathLike) -> str:
    """16 hexadecimal digits of the paths, sizes and times of change below `root`; opens no image.

    The key for keeping a scan: while it stays the same, the ScanReport holds.
    Raises InputError as `scan` does.
    """
    return list_files(Path(root)).fingerprint


def list_files(root: Path) -> Listing:
    """What is below `root`. Raises InputError as `scan` does."""
    try:
        entries = {entry.name: entry for entry in _entries(root)}
    except FileNotFoundError:
        raise InputError(f"{root}: no such folder; give the one that holds {_LAYOUT}") from None
    except NotADirectoryError:
        raise InputError(
            f"{root} is a file; give the folder that holds {_LAYOUT} (unpack an archive first)"
        ) from None
    except OSError as error:
        raise InputError(f"{root} cannot be read ({error.strerror}): check its rights") from None
    folders = [name for name, entry in entries.items() if _is_dir(entry)]
    if "train" not in folders:
        raise InputError(_no_train(root, folders, bool(entries)))

    files: list[_File] = []
    problems: list[tuple[str, str, str]] = []
    bare: list[tuple[str, str]] = []
    for name in folders:
        meant = _SPLIT_NAMES.get(name.lower())
        if name in SPLITS:
            _list_split(root, name, files, problems, bare)
        elif meant is not None:
            problems.append(("stray", name, f"a split? then name it {meant}"))
    if not files:
        found = "; found: {1} ({0}: {2})".format(*problems[0]) if problems else ""
        raise InputError(
            f"{root}: no image in a class folder of train/, val/ or test/ "
            f"(wanted: {_LAYOUT}; suffixes {' '.join(FORMATS)}){found}"
        )
    used = {file.folder for file in files}
    for split, folder in bare:
        if folder not in used:
            problems.append(("stray", f"{split}/{folder}", "a folder without images"))
    metadata = root / "metadata.csv"
    status = metadata.stat() if metadata.is_file() else None
    return Listing(
        sorted(files, key=lambda file: file.id),
        problems,
        (status.st_size, status.st_mtime_ns) if status else None,
    )


def _no_train(root: Path, folders: Sequence[str], anything: bool) -> str:
    if not anything:
        return f"{root} is empty; wanted: {_LAYOUT}"
    for name in folders:
        if _SPLIT_NAMES.get(name.lower()) == "train":
            return f"{root} has no train/ but {name}/: rename it to train"
    if any(_has_image(root / name) for name in folders if name not in SPLITS):
        if root.name in SPLITS:
            return (
                f"{root} is itself the {root.name} split of a data set; give the folder above it, "
                f"{root.absolute().parent}"
            )
        return (
            f"{root} has class folders but no train/: move some of each class to train/CLASS/ and "
            "some to test/CLASS/"
        )
    return f"{root} has no train/; wanted: {_LAYOUT}"


def _has_image(folder: Path) -> bool:
    try:
        return any(_is_image_name(entry.name) for entry in _entries(folder))
    except OSError:
        return False


def _list_split(
    root: Path,
    split: str,
    files: list[_File],
    problems: list[tuple[str, str, str]],
    bare: list[tuple[str, str]],
) -> None:
    """Add what the split holds. bare: class folders without an image."""
    for entry in _try_entries(root, split, problems):
        path = f"{split}/{entry.name}"
        if _is_dir(entry):
            count = len(files)
            _list_class(root, split, entry.name, files, problems)
            if len(files) == count:
                bare.append((split, entry.name))
        elif _is_image_name(entry.name):
            problems.append(("stray", path, "in no class folder"))
        elif _is_broken_link(entry):
            problems.append(("unreadable", path, "a link that leads nowhere"))


def _list_class(
    root: Path,
    split: str,
    folder: str,
    files: list[_File],
    problems: list[tuple[str, str, str]],
) -> None:
    for entry in _try_entries(root, f"{split}/{folder}", problems):
        path = f"{split}/{folder}/{entry.name}"
        if _is_dir(entry):
            if entry.is_symlink():
                problems.append(("stray", path, "a link to a folder"))
            elif count := _count_images(root / path):
                problems.append(("nested", path, f"images: {count}"))
        elif not _is_image_name(entry.name):
            problems.append(("stray", path, "suffix is not one of an image"))
        elif _utf8(path) != path:
            problems.append(("misnamed", path, "name is not UTF-8 text"))
        else:
            try:
                status = entry.stat()
                size, mtime_ns = status.st_size, status.st_mtime_ns
            except OSError:
                size, mtime_ns = -1, 0
            files.append(_File(path, split, folder, size, mtime_ns))


def _entries(folder: Path) -> list[os.DirEntry]:
    """What is in `folder`, by name, without hidden files and the litter of file browsers."""
    with os.scandir(folder) as entries:
        found = [e for e in entries if e.name[0] != "." and e.name.lower() not in _LITTER]
    return sorted(found, key=lambda entry: entry.name)


def _try_entries(root: Path, path: str, problems: list[tuple[str, str, str]]) -> list[os.DirEntry]:
    try:
        return _entries(root / path)
    except OSError as error:
        problems.append(("unreadable", path, f"folder: {error.strerror}"))
        return []


def _count_images(folder: Path) -> int:
    """Images anywhere below `folder`; links are not followed, so there is no loop."""
    return sum(_is_image_name(name) for _, _, names in os.walk(folder) for name in names)


def _is_dir(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_broken_link(entry: os.DirEntry) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)


def _is_image_name(name: str) -> bool:
    return name[0] != "." and os.path.splitext(name)[1].lower() in FORMATS


def _utf8(text: str) -> str:
    """`text` with what UTF-8 cannot hold, as in a name of other bytes, written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _on_one_line(text: str) -> str:
    """`text` with its control characters written as escapes."""
    return "".join(
        c.encode("unicode_escape").decode() if c < " " or "\x7f" <= c <= "\x9f" else c for c in text
    )


# Scanning


@dataclass(frozen=True, eq=False)
class ScanReport:
    """What is in a data set and what is wrong with it.

    root: as given. listing: the listing_fingerprint that the report is of.
    labels: in the order of the label set. folders: the names of the class folders.
    images: the sound ones, indexed by image id; columns split, folder, label, width, height, mode
        (as stored), sha256 (of the file's bytes), pixels (SHA-256 of the upright RGB pixels).
    problems: columns kind (see KINDS), path (relative to root), detail, severity.
    """

    root: str
    listing: str
    labels: tuple[str, ...]
    folders: tuple[str, ...]
    images: pd.DataFrame
    problems: pd.DataFrame

    @property
    def ok(self) -> bool:
        """No problem of severity error."""
        return not (self.problems["severity"] == "error").any()

    @property
    def counts(self) -> pd.DataFrame:
        """Sound images by split (rows, those that have any) and label (columns)."""
        table = pd.crosstab(self.images["split"], self.images["label"])
        splits = [split for split in SPLITS if split in table.index]
        return table.reindex(index=splits, columns=list(self.labels), fill_value=0)

    def text(self, limit: int = 8) -> str:
        """The report to read: counts, then each kind of problem with at most `limit` paths."""
        counts = self.counts
        counts["all"] = counts.sum(axis=1)
        lines = [
            f"{self.root}: {len(self.images):,} sound images, {len(self.labels)} classes",
            counts.rename_axis(index=None, columns=None).to_string(),
        ]
        if "val" not in counts.index:
            lines.append("no val/: part of train is set apart for validation")
        if self.problems.empty:
            return "\n".join([*lines, "no problem found"])
        for kind, (severity, meaning) in KINDS.items():
            found = self.problems[self.problems["kind"] == kind]
            if len(found):
                lines.append(f"{severity}: {len(found):,} {kind}: {meaning}")
                for path, detail in found[["path", "detail"]].head(limit).to_numpy():
                    lines.append(_on_one_line(f"  {path}  ({detail})"))
                if len(found) > limit:
                    lines.append(f"  ... and {len(found) - limit:,} more")
        return "\n".join(lines)

    def to_json(self) -> str:
        """The whole report as JSON, for `from_json`."""
        return json.dumps(
            {
                "format": SCAN_FORMAT,
                "root": self.root,
                "listing": self.listing,
                "labels": self.labels,
                "folders": self.folders,
                "images": self.images.reset_index().to_numpy().tolist(),
                "problems": self.problems[["kind", "path", "detail"]].to_numpy().tolist(),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> ScanReport:
        """The report that `to_json` wrote; InputError where `text` is none."""
        try:
            data = json.loads(text)
            if data["format"] != SCAN_FORMAT:
                raise ValueError(f"format {data['format']!r}, wanted {SCAN_FORMAT!r}")
            return cls(
                root=str(data["root"]),
                listing=str(data["listing"]),
                labels=tuple(data["labels"]),
                folders=tuple(data["folders"]),
                images=_image_table(data["images"]),
                problems=_problem_table(data["problems"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"not a saved scan ({error!r}): scan the data set again") from error


_IMAGE_COLUMNS = {
    "id": str,
    "split": str,
    "folder": str,
    "label": str,
    "width": int,
    "height": int,
    "mode": str,
    "sha256": str,
    "pixels": str,
}


def _image_table(rows: Sequence[Sequence]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=list(_IMAGE_COLUMNS)).astype(_IMAGE_COLUMNS)
    return table.sort_values("id").set_index("id")


def _problem_table(problems: Iterable[Sequence[str]]) -> pd.DataFrame:
    """Sorted by kind, in the order of KINDS, then by path."""
    order = {kind: place for place, kind in enumerate(KINDS)}
    rows = sorted(
        ((kind, _utf8(path), detail, KINDS[kind][0]) for kind, path, detail in problems),
        key=lambda row: (order[row[0]], *row),
    )
    return pd.DataFrame(rows, columns=["kind", "path", "detail", "severity"], dtype=str)


def scan(
    root: str | os.PathLike,
    *,
    label_set: LabelSet | None = None,
    workers: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> ScanReport:
    """Read every image below `root` once and report what is there and what is wrong.

    label_set: for the names of the class folders; by default inferred from them.
    workers: threads, each of which holds one image at a time; by default up to 4.
    max_pixels: an image of more is reported, and not decoded.

    Raises InputError where `root` is no data set (missing, empty, a file, without train/, itself a
    split, without images) or a class folder is not of the label set.
    """
    root = Path(root)
    workers = min(4, os.cpu_count() or 1) if workers is None else workers
    if workers < 1:
        raise InputError(f"workers is {workers}: use at least 1")
    listing = list_files(root)
    label_set = label_set or infer_labels(listing.folders)
    label_of = labels_of(listing.folders, label_set)

    images, problems = [], list(listing.problems)
    for file, result in _examine_all(root, listing.files, workers, max_pixels):
        if isinstance(result, BadFile):
            kind, detail = result.args
            problems.append((kind, file.id, detail))
        else:
            images.append((file.id, file.split, file.folder, label_of[file.folder], *result))
    table = _image_table(images)
    problems += _missing(listing, table, label_set)
    problems += _duplicates(table)
    try:
        metadata = read_metadata(root)
        problems += metadata_problems(metadata, listing, label_of, label_set)
    except InputError as error:
        problems.append(("metadata error", "metadata.csv", str(error)))
    return ScanReport(
        root=str(root),
        listing=listing.fingerprint,
        labels=tuple(label_set),
        folders=listing.folders,
        images=table,
        problems=_problem_table(problems),
    )


def infer_labels(folders: Sequence[str]) -> LabelSet:
    """The label set of the folders; those that spell one label count as one."""
    for known in LABEL_SETS.values():
        labels = {known.canonical(folder) for folder in folders}
        if None not in labels:
            return infer_label_set(labels)
    return infer_label_set({normalise(folder): folder for folder in reversed(folders)}.values())


def labels_of(folders: Iterable[str], label_set: LabelSet) -> dict[str, str]:
    """Folder name -> label; two folders may have one label."""
    labels = {folder: label_set.canonical(folder) for folder in folders}
    unknown = [folder for folder, label in labels.items() if label is None]
    if unknown:
        raise InputError(
            f"class folder {', '.join(map(repr, unknown))} names no label of {label_set.name!r} "
            f"({', '.join(label_set)}): rename it or choose another label set"
        )
    return labels


def _examine_all(
    root: Path, files: Sequence[_File], workers: int, max_pixels: int
) -> Iterator[tuple[_File, tuple | BadFile]]:
    """Each file with its result, in order; a thousand at a time are queued."""

    def examine(file: _File) -> tuple | BadFile:
        try:
            return _examine(root / file.id, max_pixels)
        except BadFile as error:
            return error

    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        warnings.filterwarnings("ignore", module="PIL")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for start in range(0, len(files), 1000):
            batch = files[start : start + 1000]
            yield from zip(batch, pool.map(examine, batch), strict=True)


def _examine(path: Path, max_pixels: int) -> tuple[int, int, str, str, str]:
    """Width, height, stored mode, hash of the bytes, hash of the pixels."""
    data = read_file(path)
    rgb, found, mode = decode(data, max_pixels)
    if found != FORMATS[path.suffix.lower()]:
        raise BadFile("misnamed", f"its content is {found}")
    pixels = hashlib.sha256(f"{rgb.width} {rgb.height} ".encode() + rgb.tobytes())
    digest = hashlib.sha256(data).hexdigest()
    return rgb.width, rgb.height, mode, digest, pixels.hexdigest()


def _missing(
    listing: Listing, images: pd.DataFrame, label_set: LabelSet
) -> Iterator[tuple[str, str, str]]:
    """Splits that are needed, and classes of the splits that there are."""
    for split in SPLITS:
        if not any(file.split == split for file in listing.files):
            if split != "val":
                yield "missing split", f"{split}/", "no image"
            continue
        present = set(images["label"][images["split"] == split])
        for label in label_set:
            if label not in present:
                yield "missing class", f"{split}/", label


def _duplicates(images: pd.DataFrame) -> Iterator[tuple[str, str, str]]:
    """Copies of the same pixels. The copy in the last split is the one to keep."""
    groups = defaultdict(list)
    for image, split, label, pixels in images[["split", "label", "pixels"]].itertuples():
        groups[pixels].append((SPLITS.index(split), image, label))
    for copies in groups.values():
        copies.sort()
        kept: dict[int, tuple[str, str]] = {}
        for place, image, label in copies:
            kept.setdefault(place, (image, label))
        last_image, last_label = kept[copies[-1][0]]
        for place, image, label in copies:
            if place != copies[-1][0]:
                other = "" if label == last_label else ", under another label"
                yield "duplicate across splits", image, f"same as {last_image}{other}"
            if image != kept[place][0]:
                other = "" if label == kept[place][1] else ", under another label"
                yield "duplicate", image, f"same as {kept[place][0]}{other}"


def read_metadata(root: Path) -> pd.DataFrame | None:
    """metadata.csv indexed by its column `file`; None where there is none."""
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
        line = int(np.flatnonzero(table["file"].isna())[0]) + 1
        raise InputError(f"{path}: row {line} has no `file`: give the image's path or remove it")
    table["file"] = table["file"].str.removeprefix("./")
    twice = table["file"][table["file"].duplicated()]
    if len(twice):
        raise InputError(f"{path} has more than one row for {twice.iloc[0]}: keep one")
    return table.set_index("file")


def metadata_problems(
    metadata: pd.DataFrame | None,
    listing: Listing,
    label_of: Mapping[str, str],
    label_set: LabelSet,
) -> Iterator[tuple[str, str, str]]:
    """(kind, image or metadata.csv, detail) of each contradiction, and of each gap."""
    if metadata is None:
        return
    files = {file.id: file for file in listing.files}
    for image in metadata.index:
        if image not in files:
            yield "metadata", image, "a row of metadata.csv, but no such image"
    without = files.keys() - set(metadata.index)
    if without:
        detail = f"no row for {len(without):,} images, the first {min(without)}"
        yield "metadata", "metadata.csv", detail
    for column in ("split", "label"):
        if column not in metadata:
            continue
        for image, text in metadata[column].dropna().astype(str).items():
            file = files.get(image)
            if file is None:
                continue
            if column == "split":
                same = text.strip().lower() == file.split
            else:
                same = label_set.canonical(text) == label_of[file.folder]
            if not same:
                yield "metadata error", image, f"metadata.csv has the {column} {text!r}"
