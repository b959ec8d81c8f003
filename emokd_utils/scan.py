"""A folder of labelled images, scanned for everything that may be wrong with it (lesson 10).

The scan opens every image once and lists what is unreadable, misnamed, missing, nested too deep,
there twice or in contradiction to metadata.csv. Copies are found by their pixels, so
that a leak from the test split into training is seen whatever the files are called.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from .emotions import LabelSet, infer_label_set, labels_of
from .errors import InputError
from .folders import (
    SPLITS,
    Listing,
    Problem,
    escaped,
    list_files,
    metadata_problems,
)
from .images import BAD_FILES, FORMATS, BadFile, decode, read_file

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

_IMAGE_COLUMNS = dict.fromkeys(("id", "split", "folder", "label"), str)
_IMAGE_COLUMNS |= {"width": int, "height": int} | dict.fromkeys(("mode", "sha256", "pixels"), str)


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

    def of_kind(self, *kinds: str) -> pd.DataFrame:
        """The problems of some kinds."""
        return self.problems[self.problems["kind"].isin(kinds)]

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
            lines.append("no problem found")
        for kind, (severity, meaning) in KINDS.items():
            if count := len(rows := self.of_kind(kind)):
                lines.append(f"{severity}: {count:,} {kind}: {meaning}")
                for path, detail in rows[["path", "detail"]].head(limit).to_numpy():
                    lines.append(_on_one_line(f"  {path}  ({detail})"))
                if count > limit:
                    lines.append(f"  ... and {count - limit:,} more")
        return "\n".join(lines)

    def to_json(self) -> str:
        """The whole report as JSON, for `from_json`."""
        images = self.images.reset_index().to_numpy().tolist()
        problems = self.problems[["kind", "path", "detail"]].to_numpy().tolist()
        return json.dumps(
            {"format": SCAN_FORMAT} | vars(self) | {"images": images, "problems": problems}
        )

    @classmethod
    def from_json(cls, text: str) -> ScanReport:
        """The report that `to_json` wrote; InputError where `text` is none."""
        try:
            data = json.loads(text)
            if data["format"] != SCAN_FORMAT:
                raise ValueError(f"format {data['format']!r}, wanted {SCAN_FORMAT!r}")
            return cls(
                str(data["root"]),
                str(data["listing"]),
                tuple(data["labels"]),
                tuple(data["folders"]),
                _image_table(data["images"]),
                _problem_table(data["problems"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"not a saved scan ({error!r}): scan the data set again") from error


def _image_table(rows: Sequence[Sequence]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=list(_IMAGE_COLUMNS)).astype(_IMAGE_COLUMNS)
    return table.sort_values("id").set_index("id")


def _problem_table(problems: Iterable[Sequence[str]]) -> pd.DataFrame:
    """Sorted by kind, in the order of KINDS, then by path."""
    order = {kind: place for place, kind in enumerate(KINDS)}
    rows = sorted(
        ((kind, escaped(path), detail, KINDS[kind][0]) for kind, path, detail in problems),
        key=lambda row: (order[row[0]], *row),
    )
    return pd.DataFrame(rows, columns=["kind", "path", "detail", "severity"], dtype=str)


def _on_one_line(text: str) -> str:
    """`text` with its control characters written as escapes."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda m: m[0].encode("unicode_escape").decode(), text)


def listing_fingerprint(root: str | os.PathLike) -> str:
    """16 hexadecimal digits of the paths, sizes and times of change below `root`; opens no image.

    The key for keeping a scan: while it stays the same, the ScanReport holds.
    Raises InputError as `scan` does.
    """
    return list_files(Path(root)).fingerprint


def scan(root: str | os.PathLike, *, label_set: LabelSet | None = None) -> ScanReport:
    """Read every image below `root` once and report what is there and what is wrong.

    label_set: for the names of the class folders; by default inferred from them.

    Raises InputError where `root` is no data set (missing, empty, a file, without train/, itself a
    split, without images) or a class folder is not of the label set.
    """
    root = Path(root)
    listing = list_files(root)
    label_set = label_set or infer_label_set(listing.folders)
    label_of = labels_of(listing.folders, label_set)

    images, problems = [], list(listing.problems)
    for file, result in zip(listing.files, _examined(root, listing), strict=True):
        if isinstance(result, BadFile):
            kind, detail = result.args
            problems.append(Problem(kind, file.id, detail))
        else:
            images.append((file.id, file.split, file.folder, label_of[file.folder], *result))
    table = _image_table(images)
    problems += _missing(listing, table, label_set)
    problems += _duplicates(table)
    problems += metadata_problems(root, listing, label_of, label_set)
    return ScanReport(
        str(root),
        listing.fingerprint,
        tuple(label_set),
        listing.folders,
        table,
        _problem_table(problems),
    )


def _examined(root: Path, listing: Listing) -> Iterator[tuple | BadFile]:
    """Of each file, in order, what `_examine` says; each thread holds one image at a time."""
    with warnings.catch_warnings(), ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore")  # what is wrong with a file is told by the report
        yield from pool.map(_examine, [root / file.id for file in listing.files])


def _examine(path: Path) -> tuple[int, int, str, str, str] | BadFile:
    """Width, height, stored mode, hash of the bytes, hash of the pixels; or what is wrong."""
    try:
        data = read_file(path)
        rgb, stored_as, mode = decode(data)
        if stored_as != FORMATS[path.suffix.lower()]:
            raise BadFile("misnamed", f"its content is {stored_as}")
    except BadFile as error:
        return error
    pixels = hashlib.sha256(f"{rgb.width} {rgb.height} ".encode() + rgb.tobytes())
    return rgb.width, rgb.height, mode, hashlib.sha256(data).hexdigest(), pixels.hexdigest()


def _missing(listing: Listing, images: pd.DataFrame, label_set: LabelSet) -> Iterator[Problem]:
    """Splits that are needed, and classes of the splits that there are."""
    for split in SPLITS:
        if any(file.split == split for file in listing.files):
            present = set(images["label"][images["split"] == split])
            for label in label_set:
                if label not in present:
                    yield Problem("missing class", f"{split}/", label)
        elif split != "val":
            yield Problem("missing split", f"{split}/", "no image")


def _duplicates(images: pd.DataFrame) -> Iterator[Problem]:
    """Copies of the same pixels. The copy in the last split is the one to keep."""
    groups = defaultdict(list)
    for image_id, split, label, pixels in images[["split", "label", "pixels"]].itertuples():
        groups[pixels].append((SPLITS.index(split), image_id, label))
    for copies in groups.values():
        first_of_split = {}
        for copy in sorted(copies):
            first_of_split.setdefault(copy[0], copy)
        last = max(first_of_split.values())
        for place, image_id, label in copies:
            for kind, original in (
                ("duplicate across splits", last if place != last[0] else None),
                ("duplicate", first_of_split[place]),
            ):
                if original and image_id != original[1]:
                    other = "" if label == original[2] else ", under another label"
                    yield Problem(kind, image_id, f"same as {original[1]}{other}")
