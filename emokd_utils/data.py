"""Labelled images in folders, opened one by one.

The layout is ImageFolder's, ``ROOT/{train,val,test}/<emotion>/*.png``, with an optional
``ROOT/metadata.csv`` whose column ``file`` holds the image id: the path relative to ROOT, with
forward slashes. Without ``val/``, a tenth of each class of ``train/`` is set apart for validation.
`scan` finds what is wrong with such a folder, `images` opens a file.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from .emotions import LabelSet, infer_label_set, labels_of
from .errors import InputError
from .files import checksum, fingerprint
from .folders import SPLITS, read_metadata
from .images import open_image
from .scan import ScanReport, listing_fingerprint, scan

TEST_SHARE, VAL_SHARE = 0.25, 0.15  # of all images, where splits are drawn anew
VAL_FRACTION = 0.1  # of each class of train, set apart where there is no val/


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Labelled images, decoded when opened.

    table: indexed by image id (path relative to root, "test/anger/00012.png"); columns split and
        label, then those of metadata.csv.
    fingerprint: 16 hexadecimal digits of the label set, the ids, labels, splits and contents of the
        files; the same wherever the data set lies.
    """

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
        places = {label: place for place, label in enumerate(self.label_set)}
        return np.array([places[label] for label in self.table["label"]], dtype=np.int64)

    def split(self, name: str) -> ImageDataset:
        """The images of train, val or test; InputError for another name."""
        if name not in SPLITS:
            raise InputError(f"split {name!r}: choose one of {', '.join(SPLITS)}")
        return self.select(self.table.index[self.table["split"] == name])

    def select(self, ids: Iterable[str]) -> ImageDataset:
        """The images with these ids, in this order; its fingerprint follows from it and the ids.

        Raises InputError for ids that are not here or are given twice.
        """
        ids = tuple(ids)
        if ids == self.ids:
            return self
        unknown = [image_id for image_id in ids if image_id not in self.table.index]
        if unknown:
            raise InputError(f"no image {unknown[0]!r} in {self.root} ({len(unknown)} unknown ids)")
        twice = [image_id for image_id, count in Counter(ids).items() if count > 1]
        if twice:
            raise InputError(f"image {twice[0]!r} is asked for twice: give each id once")
        key = fingerprint({"of": self.fingerprint, "ids": ids})
        return ImageDataset(self.root, self.label_set, self.table.loc[list(ids)], key)

    def resplit(self, seed: int) -> ImageDataset:
        """The same images with their splits drawn anew, class by class: a quarter of all for test,
        15 % for val.

        The draw follows from the ids and the seed; copies of one file stay together. For data sets
        too small for one split to say much.
        """
        content = pd.Series({image_id: checksum(self.root / image_id) for image_id in self.ids})
        left = self.table.index[~content.duplicated()]
        table = self.table.assign(split="train")
        for name, share in (("test", TEST_SHARE), ("val", VAL_SHARE / (1 - TEST_SHARE))):
            drawn = stratified_split(left, self.table.loc[left, "label"], share, seed)
            table.loc[content.isin(set(content[list(drawn)])), "split"] = name
            left = left.difference(drawn)
        key = fingerprint({"of": self.fingerprint, "resplit": [seed, TEST_SHARE, VAL_SHARE]})
        return ImageDataset(self.root, self.label_set, table, key)

    def open(self, image_id: str) -> Image.Image:
        """The image with this id, as `open_image` gives it; InputError for an unknown id."""
        if image_id not in self.table.index:
            raise InputError(f"no image {image_id!r} in {self.root}: ids are like {self.ids[:1]}")
        return open_image(self.root / image_id)


def load_dataset(
    root: str | os.PathLike,
    *,
    label_set: LabelSet | None = None,
    skip_bad: bool = False,
    report: ScanReport | None = None,
) -> ImageDataset:
    """The images below `root`, sorted by id; none is decoded but by the scan.

    Without val/, a tenth of each class of train/ is set apart by `stratified_split`; these images
    keep their id train/... and have the split val. Images of the same pixels go together.

    label_set: for the names of the class folders; by default inferred from them.
    skip_bad: go on without the files that the scan found bad, and without the copies, in an
        earlier split, of images of a later one.
    report: a scan of `root` made before; made here by default.

    Raises InputError as `scan` does; where the scan found an error and skip_bad is off; and in any
    case where there is no train or test image, metadata.csv contradicts the folders, or `report` is
    of another state of the folder.
    """
    root = Path(root)
    if report is None:
        report = scan(root, label_set=label_set)
    elif report.listing != listing_fingerprint(root):
        raise InputError(f"{root} has changed since it was scanned: scan it again")
    label_set = label_set or infer_label_set(report.folders)
    _refuse(root, report, skip_bad)
    images = report.images
    with_val = (images["split"] == "val").any()
    if skip_bad:
        images = images.drop(index=report.of_kind("duplicate across splits")["path"])
    label_of = labels_of(report.folders, label_set)
    table = images[["split"]].assign(label=images["folder"].map(label_of))
    if not with_val:
        table["split"] = _with_val(table, images["pixels"])
    for split in SPLITS:
        if not (table["split"] == split).any():
            mend = "add images to each class of train/" if split == "val" else report.text(limit=5)
            raise InputError(f"{root}: no usable image is left for {split}; {mend}")
    content = zip(table.index, table["label"], table["split"], images["sha256"], strict=True)
    key = fingerprint({"labels": list(label_set), "images": list(content)})
    if (metadata := read_metadata(root)) is not None:
        table = table.join(metadata.drop(columns=["split", "label"], errors="ignore"))
    return ImageDataset(root, label_set, table, key)


def _refuse(root: Path, report: ScanReport, skip_bad: bool) -> None:
    for split in report.of_kind("missing split")["path"]:
        raise InputError(
            f"{root} has no images in {split}: put some there that appear nowhere else, for "
            f"instance a fifth of each class of the other split, as {split}EMOTION/*.png"
        )
    if not report.ok and not skip_bad:
        raise InputError(
            f"{report.text(limit=5)}\nmend the errors, or go on without these files: skip_bad=True "
            "(--skip-bad)"
        )
    contradictions = report.of_kind("metadata error")
    for path, detail in contradictions[["path", "detail"]].to_numpy():
        raise InputError(
            f"{root}: metadata.csv contradicts the folders in {len(contradictions)} places: "
            f"{path}: {detail}; correct it or remove the column"
        )


def _with_val(table: pd.DataFrame, pixels: pd.Series) -> pd.Series:
    """The splits of `table` with part of train made val; images of the same pixels go together."""
    train = table[table["split"] == "train"]
    first = ~pixels[train.index].duplicated()
    drawn = stratified_split(first.index[first], train["label"][first], VAL_FRACTION)
    chosen = pixels[train.index].isin(set(pixels[list(drawn)]))
    return table["split"].mask(chosen.reindex(table.index, fill_value=False), "val")


def stratified_split(
    ids: Iterable[str], labels: Iterable[str], fraction: float, seed: int = 0
) -> tuple[str, ...]:
    """The ids to set apart, sorted: `fraction` of each class, rounded, at least one and never all.

    A class of one image gives none. Which ids are drawn depends on the ids and the seed alone, not
    on their order or the machine: those with the smallest SHA-256 of seed and id.
    """
    classes = defaultdict(list)
    for image_id, label in zip(ids, labels, strict=True):
        classes[label].append(image_id)
    drawn = []
    for members in classes.values():
        members.sort(key=lambda name: (hashlib.sha256(f"{seed}/{name}".encode()).digest(), name))
        count = math.floor(fraction * len(members) + 0.5)
        drawn += members[: min(max(count, 1), len(members) - 1)]
    return tuple(sorted(drawn))
