"""Labelled images in folders, opened one by one. The layout is ImageFolder's,
``ROOT/{train,val,test}/<emotion>/*.png``, with an optional ``ROOT/metadata.csv`` whose column ``file``
holds the image id: the path relative to ROOT, with forward slashes (`folders.read_metadata` tells what
else is taken). `scan` finds what is wrong with such a folder."""

import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from .emotions import LabelSet
from .errors import InputError
from .files import checksum, fingerprint
from .folders import SPLITS, list_files, read_metadata
from .images import open_image
from .scan import ScanReport, scan

TEST_SHARE, VAL_SHARE = 0.25, 0.15  # of all images, where splits are drawn anew
VAL_FRACTION = 0.1  # of each class of train, set apart where there is no val/


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Labelled images, decoded when opened. table: indexed by image id (path relative to root,
    "test/anger/00012.png"); columns split and label, then those of metadata.csv. fingerprint: 16
    hexadecimal digits of labels, ids, splits and contents, the same wherever the data set lies."""

    root: Path
    label_set: LabelSet
    table: pd.DataFrame
    fingerprint: str

    def __len__(self) -> int:
        return len(self.table)

    @property
    def ids(self) -> tuple[str, ...]:
        """Image ids, in the order of the table."""
        return tuple(self.table.index)

    @property
    def labels(self) -> tuple[str, ...]:
        """The label of each image."""
        return tuple(self.table["label"])

    @property
    def label_index(self) -> np.ndarray:
        """(n,) int64, the place of each label in the label set."""
        return np.array([self.label_set.index(label) for label in self.labels], dtype=np.int64)

    def split(self, name: str) -> "ImageDataset":
        """The images of train, val or test; InputError for another name."""
        if name not in SPLITS:
            raise InputError(f"split {name!r}: choose one of {', '.join(SPLITS)}")
        return self.select(self.table.index[self.table["split"] == name])

    def select(self, ids: Iterable[str]) -> "ImageDataset":
        """The images with these ids, in this order; InputError for unknown or repeated ones."""
        ids = tuple(ids)
        if ids == self.ids:
            return self
        for image_id, count in Counter(ids).items():
            if image_id not in self.table.index or count > 1:
                raise InputError(f"{image_id!r} x {count}: give ids of {self.root}, each once")
        key = fingerprint({"of": self.fingerprint, "ids": ids})
        return ImageDataset(self.root, self.label_set, self.table.loc[list(ids)], key)

    def resplit(self, seed: int) -> "ImageDataset":
        """The same images with their splits drawn anew, class by class: a quarter of all for test,
        15 % for val. The draw follows from the ids and the seed; copies of a file stay together."""
        content = pd.Series({image_id: checksum(self.root / image_id) for image_id in self.ids})
        table = drawn(self.table.assign(split="train"), "test", TEST_SHARE, content, seed)
        table = drawn(table, "val", VAL_SHARE / (1 - TEST_SHARE), content, seed)
        key = fingerprint({"of": self.fingerprint, "resplit": [seed, TEST_SHARE, VAL_SHARE]})
        return ImageDataset(self.root, self.label_set, table, key)

    def open(self, image_id: str) -> Image.Image:
        """The image with this id, as `open_image` gives it; InputError for an unknown id."""
        if image_id not in self.table.index:
            raise InputError(f"no image {image_id!r} in {self.root}: ids are like {self.ids[:1]}")
        return open_image(self.root / image_id)


def load_dataset(
    root: str | os.PathLike, *, skip_bad: bool = False, report: ScanReport | None = None
) -> ImageDataset:
    """The images below `root`, sorted by id; none is decoded but by the scan. Without val/, a
    tenth of each class of train/ is set apart by `stratified_split`, images of the same pixels
    together; they keep their id train/... and have the split val. Images of val or test that are
    in an earlier split too are left out. skip_bad: go on without bad files, and without images or
    a file of metadata that contradict the folders. report: a scan of `root` made before. Raises
    InputError as `scan` does, for errors that are left, and for an old report."""
    root = Path(root)
    report = report or scan(root)
    if report.listing != list_files(root).fingerprint:
        raise InputError(f"{root} has changed since it was scanned: scan it again")
    fatal = "missing split" in set(report.problems["kind"])
    if fatal or ("error" in set(report.problems["severity"]) and not skip_bad):
        skip = "" if fatal else ", or go on without these files: skip_bad=True (--skip-bad)"
        raise InputError(f"{report.text(limit=5)}\nmend the errors{skip}")
    left_out = report.problems["kind"].isin(["duplicate across splits", "metadata error"])
    images = report.images.drop(index=report.problems["path"][left_out], errors="ignore")
    table = images[["split", "label"]]
    if "val" not in set(table["split"]):
        table = drawn(table, "val", VAL_FRACTION, images["pixels"])
    if without := sorted(set(SPLITS) - set(table["split"])):
        raise InputError(f"{root}: no image is left for {without[0]}: add some to each class")
    content = zip(table.index, table["label"], table["split"], images["pixels"], strict=True)
    key = fingerprint({"labels": list(report.label_set), "images": list(content)})
    unreadable = "metadata.csv" in set(report.problems["path"][left_out])
    metadata = pd.DataFrame() if unreadable else read_metadata(root)
    rows = metadata.drop(columns=["split", "label"], errors="ignore")
    rows = rows.reindex(table.index.str.normalize("NFC")).set_axis(table.index)
    return ImageDataset(root, report.label_set, table.join(rows), key)


def drawn(
    table: pd.DataFrame, split: str, share: float, content: pd.Series, seed: int = 0
) -> pd.DataFrame:
    """`table` with a share of each class of train in `split`; images of one content go together."""
    in_train = table["split"] == "train"
    first = table[in_train & ~content.where(in_train).duplicated()]
    drawn = stratified_split(first.index, first["label"], share, seed)
    chosen = in_train & content.isin(set(content[list(drawn)]))
    return table.assign(split=table["split"].mask(chosen, split))


def stratified_split(
    ids: Iterable[str], labels: Iterable[str], fraction: float, seed: int = 0
) -> tuple[str, ...]:
    """The ids to set apart, sorted: `fraction` of each class, rounded, at least one and never all.
    Those with the smallest SHA-256 of seed and id are drawn, whatever the order or machine."""
    drawn = []
    for _, members in pd.Series(list(ids)).groupby(list(labels)):
        number = {name: hashlib.sha256(f"{seed}/{name}".encode()).digest() for name in members}
        ordered = sorted(number, key=number.get)
        count = math.floor(fraction * len(ordered) + 0.5)
        drawn += ordered[: min(max(count, 1), len(ordered) - 1)]
    return tuple(sorted(drawn))
