"""Labelled images in folders, opened one by one.

The layout is ImageFolder's, ``ROOT/{train,val,test}/<emotion>/*.png``, with an optional
``ROOT/metadata.csv`` whose column ``file`` holds the image id: the path relative to ROOT, with
forward slashes. Without ``val/``, a tenth of each class of ``train/`` is set apart for validation.
`scanning` finds what is wrong with such a folder, `images` opens a file.
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

from .emotions import LabelSet
from .errors import InputError
from .files import fingerprint
from .images import open_image
from .scan import (
    SPLITS,
    ScanReport,
    infer_labels,
    labels_of,
    list_files,
    metadata_problems,
    read_metadata,
    scan,
)


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
        unknown = [image for image in ids if image not in self.table.index]
        if unknown:
            raise InputError(f"no image {unknown[0]!r} in {self.root} ({len(unknown)} unknown ids)")
        twice = [image for image, count in Counter(ids).items() if count > 1]
        if twice:
            raise InputError(f"image {twice[0]!r} is asked for twice: give each id once")
        key = fingerprint({"of": self.fingerprint, "ids": ids})
        return ImageDataset(self.root, self.label_set, self.table.loc[list(ids)], key)

    def resplit(self, seed: int, test: float = 0.25, val: float = 0.15) -> ImageDataset:
        """The same images with their splits drawn anew, class by class, as shares of all images.

        The draw follows from the ids and the seed; copies of one file stay together. For data sets
        too small for one split to say much (`report.repeated`). Raises InputError for shares that
        leave nothing to train on.
        """
        if not (0 < test and 0 < val and test + val < 1):
            raise InputError(
                f"test {test} and val {val}: use shares above 0 that sum to less than 1"
            )
        contents = {}
        for image in self.ids:
            with (self.root / image).open("rb") as file:
                contents[image] = hashlib.file_digest(file, "sha256").hexdigest()
        content = pd.Series(contents)
        left = self.table.index[~content.duplicated()]
        table = self.table.assign(split="train")
        for name, part in (("test", test), ("val", val / (1 - test))):
            drawn = stratified_split(left, self.table.loc[left, "label"], part, seed)
            table.loc[content.isin(set(content[list(drawn)])), "split"] = name
            left = left.difference(drawn)
        key = fingerprint({"of": self.fingerprint, "resplit": [seed, test, val]})
        return ImageDataset(self.root, self.label_set, table, key)

    def open(self, image: str) -> Image.Image:
        """The image with this id, as `open_image` gives it; InputError for an unknown id."""
        if image not in self.table.index:
            raise InputError(f"no image {image!r} in {self.root}: ids are like {self.ids[:1]}")
        return open_image(self.root / image)


def load_dataset(
    root: str | os.PathLike,
    *,
    val_fraction: float = 0.1,
    seed: int = 0,
    label_set: LabelSet | None = None,
    skip_bad: bool = False,
    report: ScanReport | None = None,
) -> ImageDataset:
    """The images below `root`, sorted by id; none is decoded but by the scan.

    val_fraction, seed: where there is no val/, that part of each class of train/ is set apart by
        `stratified_split`; such images keep their id train/... and have the split val. Images of
        the same pixels go together.
    label_set: for the names of the class folders; by default inferred from them.
    skip_bad: go on without the files that the scan found bad, and without the copies, in an
        earlier split, of images of a later one.
    report: a scan of `root` made before; made here by default.

    Raises InputError as `scan` does; where the scan found an error and skip_bad is off; and in any
    case where there is no train or test image, metadata.csv contradicts the folders, or `report` is
    of another state of the folder.
    """
    root = Path(root)
    if not 0 < val_fraction < 1:
        raise InputError(f"val_fraction is {val_fraction}: use a number between 0 and 1, as 0.1")
    listing = list_files(root)
    if report is None:
        report = scan(root, label_set=label_set)
    if report.listing != listing.fingerprint:
        raise InputError(f"{root} has changed since it was scanned: scan it again")
    label_set = label_set or infer_labels(report.folders)
    label_of = labels_of(report.folders, label_set)

    found = report.problems
    kinds = set(found["kind"])
    if "missing split" in kinds:
        missing = found["path"][found["kind"] == "missing split"].iloc[0]
        raise InputError(
            f"{root} has no images in {missing}: put some there that appear nowhere else, for "
            f"instance a fifth of each class of the other split, as {missing}EMOTION/*.png"
        )
    if not report.ok and not skip_bad:
        raise InputError(
            f"{report.text(limit=5)}\nmend the errors, or go on without these files: skip_bad=True "
            "(--skip-bad)"
        )
    metadata = read_metadata(root)
    wrong = [
        f"{path}: {detail}"
        for kind, path, detail in metadata_problems(metadata, listing, label_of, label_set)
        if kind == "metadata error"
    ]
    if wrong:
        raise InputError(
            f"{root}: metadata.csv contradicts the folders in {len(wrong)} places: {wrong[0]}; "
            "correct it or remove the column"
        )

    images = report.images
    before = set(images["split"])
    if skip_bad:
        copies = found["path"][found["kind"] == "duplicate across splits"]
        images = images.drop(index=copies)
    table = images[["split"]].assign(label=images["folder"].map(label_of))
    if "val" not in before:
        table["split"] = _with_val(table, images["pixels"], val_fraction, seed)
    for split in SPLITS:
        if not (table["split"] == split).any():
            raise InputError(
                f"{root}: no usable image is left for {split}; "
                + ("add images to each class of train/" if split == "val" else report.text(limit=5))
            )
    content = [
        (image, label, split, digest)
        for image, label, split, digest in zip(
            table.index, table["label"], table["split"], images["sha256"], strict=True
        )
    ]
    if metadata is not None:
        table = table.join(metadata.drop(columns=["split", "label"], errors="ignore"))
    key = fingerprint({"labels": list(label_set), "images": content})
    return ImageDataset(root, label_set, table, key)


def _with_val(table: pd.DataFrame, pixels: pd.Series, val_fraction: float, seed: int) -> pd.Series:
    """The splits of `table` with part of train made val; images of the same pixels go together."""
    train = table[table["split"] == "train"]
    first = ~pixels[train.index].duplicated()
    drawn = stratified_split(first.index[first], train["label"][first], val_fraction, seed)
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
    for image, label in zip(ids, labels, strict=True):
        classes[label].append(image)
    drawn = []
    for members in classes.values():
        members.sort(key=lambda image: (hashlib.sha256(f"{seed}/{image}".encode()).digest(), image))
        count = math.floor(fraction * len(members) + 0.5)
        drawn += members[: min(max(count, 1), len(members) - 1)]
    return tuple(sorted(drawn))
