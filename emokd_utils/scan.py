"""A folder of labelled images, scanned for everything that may be wrong with it (lesson 10). Copies
are found by their pixels, so that a leak from test into training is seen under any name."""

import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from PIL import Image

from .emotions import LABEL_SETS, LabelSet, infer_label_set
from .folders import SPLITS, Problem, known_label_set, list_files, metadata_problems, printable
from .images import BAD_FILES, FORMATS, BadFile, decode

# Kind of problem -> severity, and what it means with its mend.
KINDS = {kind: ("error", meaning) for kind, meaning in BAD_FILES.items()} | {
    "nested": ("error", "lies deeper than SPLIT/EMOTION/: move the images up"),
    "missing split": ("error", "is needed: put images there that are nowhere else"),
    "metadata error": ("error", "contradicts the folders: correct metadata.csv"),
    "duplicate across splits": ("warning", "is known from an earlier split: left out"),
    "duplicate": ("warning", "is there twice in one split: remove one"),
    "repeated": ("warning", "is there ten times or more: a site's 'not available'? remove all"),
    "missing class": ("warning", "has no image, so it is not learnt or not measured"),
    "stray": ("warning", "is not read"),
    "metadata": ("warning", "has no counterpart: check metadata.csv"),
    "merged": ("note", "is one class of several folders"),
    "passed over": ("note", "was put there by a system or program, not on purpose"),
}
_COLUMNS = "id split folder label width height mode sha256 pixels".split()


@dataclass(frozen=True, eq=False)
class ScanReport:
    """What is in a data set and what is wrong with it.
    listing: the fingerprint of the Listing that the report is of. folders: of the classes. release:
        the label set that the data set is known to have, by name, or "".
    images: the sound ones, indexed by image id; columns split, folder, label, width, height, mode
        (as stored), sha256 (of the file's bytes), pixels (SHA-256 of the upright RGB pixels).
    problems: columns kind (see KINDS), path (relative to root), detail, severity."""

    root: str
    listing: str
    folders: tuple[str, ...]
    release: str
    images: pd.DataFrame
    problems: pd.DataFrame

    @property
    def label_set(self) -> LabelSet:
        """The set that the class folders are named after."""
        return infer_label_set(self.folders, LABEL_SETS.get(self.release))

    @property
    def counts(self) -> pd.DataFrame:
        """Sound images by split (rows, those that have any) and label (columns)."""
        table = pd.crosstab(self.images["split"], self.images["label"])
        splits = [split for split in SPLITS if split in table.index]
        return table.reindex(index=splits, columns=list(self.label_set), fill_value=0)

    @property
    def found(self) -> str:
        """What whoever reads the results should know, in one line; "" where nothing was found."""
        left_out = ("duplicate across splits", *BAD_FILES)
        labels, parts = self.label_set, []
        if labels.name.startswith("part of"):
            parts.append(f"{len(labels)} classes, {labels.name}: {', '.join(labels)}")
        for kind, rows in self.problems.groupby("kind", sort=False):
            told = f"merged {', '.join(rows['detail'])}" if kind == "merged" else kind
            parts.append(f"{len(rows):,} {told}" + " (left out)" * (kind in left_out))
        return "; ".join(parts)

    def text(self, limit: int = 8) -> str:
        """The report to read: counts, then each kind of problem with at most `limit` paths."""
        counts = self.counts.rename_axis(index=None, columns=None)
        lines = [f"{self.root}: {len(self.images):,} sound images, {len(self.label_set)} classes"]
        lines.append(counts.assign(all=counts.sum(axis=1)).to_string())
        if "val" not in counts.index:
            lines.append("no val/: part of train is set apart for validation")
        if self.problems.empty:
            lines.append("no problem found")
        for kind, rows in self.problems.groupby("kind", sort=False):
            severity, meaning = KINDS[kind]
            lines.append(f"{severity}: {len(rows):,} {kind}: {meaning}")
            if kind == "passed over":  # counted, not listed
                continue
            for row in rows.head(limit).itertuples():
                lines.append(printable(f"  {row.path}  ({row.detail})"))
            if len(rows) > limit:
                lines.append(f"  ... and {len(rows) - limit:,} more")
        return "\n".join(lines)

    def to_json(self) -> str:
        """The whole report as JSON, for `from_json`."""
        images = self.images.reset_index().to_numpy().tolist()
        problems = self.problems[["kind", "path", "detail"]].to_numpy().tolist()
        return json.dumps(vars(self) | {"images": images, "problems": problems})

    @classmethod
    def from_json(cls, text: str) -> "ScanReport":
        """The report that `to_json` wrote."""
        data = json.loads(text)
        images = pd.DataFrame(data["images"], columns=_COLUMNS).set_index("id")
        problems = _problem_table(data["problems"])
        about = data["root"], data["listing"], tuple(data["folders"]), data["release"]
        return cls(*about, images, problems)


def _problem_table(problems: Iterable[Sequence[str]]) -> pd.DataFrame:
    order = list(KINDS)
    problems = sorted(problems, key=lambda row: (order.index(row[0]), row))
    rows = [(*row, KINDS[row[0]][0]) for row in problems]
    return pd.DataFrame(rows, columns=["kind", "path", "detail", "severity"], dtype=str)


def scan(root: str | os.PathLike) -> ScanReport:
    """Read every image below `root` once. InputError as of `list_files`, or below two classes."""
    root = Path(root)
    files, problems, key = list_files(root)
    folders = tuple(sorted({file.folder for file in files}))
    known = known_label_set(root)
    label_set = infer_label_set(folders, known)
    rows = []
    # each thread holds one image at a time
    with warnings.catch_warnings(), ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore")  # what is wrong with a file is told by the report
        results = pool.map(_examine, [root / file.id for file in files])
        for file, result in zip(files, results, strict=True):
            if isinstance(result, BadFile):
                problems.append(Problem(result.args[0], file.id, result.args[1]))
            else:
                rows.append((*file[:3], label_set.canonical(file.folder), *result))
    images = pd.DataFrame(rows, columns=_COLUMNS).set_index("id")
    problems += [*_missing(images, label_set), *_duplicates(images)]
    problems += [*metadata_problems(root, files, label_set), *_merged(folders, label_set)]
    release = known.name if known else ""
    return ScanReport(str(root), key, folders, release, images, _problem_table(problems))


def _merged(folders: Sequence[str], label_set: LabelSet) -> Iterator[Problem]:
    for label, names in pd.Series(folders).groupby([label_set.canonical(f) for f in folders]):
        if names.str.normalize("NFC").nunique() > 1:
            yield Problem("merged", label, f"{' and '.join(names)} into {label}")


def _examine(path: Path) -> tuple[int, int, str, str, str] | BadFile:
    """Width, height, stored mode, hash of the bytes, hash of the pixels; or what is wrong."""
    try:
        rgb, data, stored_as, mode = decode(path)
        if stored_as != FORMATS[path.suffix.lower()]:
            raise BadFile("misnamed", f"its content is {stored_as}")
        if max(rgb.size) > 200 * min(rgb.size) or min(rgb.size) < 2:  # more than Qwen's VLMs take
            raise BadFile("too narrow", f"{rgb.width} x {rgb.height} pixels")
    except BadFile as error:
        return error
    sha256 = hashlib.sha256(data).hexdigest()
    return rgb.width, rgb.height, mode, sha256, pixels_hash(rgb)


def pixels_hash(image: Image.Image) -> str:
    """SHA-256 of an upright RGB image's size and pixels, 64 hexadecimal digits."""
    size = f"{image.width} {image.height} ".encode()
    return hashlib.sha256(size + image.tobytes()).hexdigest()


def _missing(images: pd.DataFrame, labels: Iterable[str]) -> Iterator[Problem]:
    for split in SPLITS:
        present = set(images["label"][images["split"] == split])
        if not present and split != "val":
            yield Problem("missing split", f"{split}/", "no sound image")
        for label in labels if present else ():
            if label not in present:
                yield Problem("missing class", f"{split}/", label)


def _duplicates(images: pd.DataFrame) -> Iterator[Problem]:
    """Copies of the same pixels. The one to keep is the first in the first split."""
    ordered = images.sort_values("split", key=lambda s: s.map(SPLITS.index), kind="stable")
    for _, copies in ordered[ordered["pixels"].duplicated(keep=False)].groupby("pixels"):
        first = copies.index[0]
        if len(copies) >= 10:
            yield Problem("repeated", first, f"{len(copies)} times")
        for image_id, row in copies.iloc[1:].iterrows():
            across = " across splits" * (row["split"] != copies.at[first, "split"])
            other = "" if row["label"] == copies.at[first, "label"] else ", under another label"
            yield Problem(f"duplicate{across}", image_id, f"same as {first}{other}")
