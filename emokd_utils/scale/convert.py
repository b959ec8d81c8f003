"""The paper's seven data sets, and OASIS: where to ask for them, and from their released forms to
one layout.

No image of them comes with this project. `convert` reads a copy in the form in which its authors
release it (lists of votes, lists of splits, class folders), or any class folders, or any image data
set of the `datasets` library, and writes what `datasets.load_dataset` reads::

    OUT/{train,val,test}/<emotion>/*    the images, untouched
    OUT/metadata.csv                    file, and what the release calls it
    OUT/source.json                     where it comes from, seed, counts, all that was left out

A release is not trusted: what its lists name is only compared with the names of the files that are
below its folder, so no name leads elsewhere; links out of the folder are not followed.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import posixpath
import re
import shutil
import tempfile
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pandas as pd
from PIL import Image

from ..data import stratified_split
from ..emotions import LABEL_SETS, LabelSet, infer_label_set, normalise
from ..errors import InputError
from ..folders import SPLITS
from ..images import FORMATS, open_image

SOURCE_FORMAT = "emokd-source-1"
TEST_VAL = (0.15, 0.05)
"""Test and val of each class, where a release has no split: 80/5/15, as is usual for FI."""
OASIS_NEGATIVE, OASIS_POSITIVE = 3.6, 5.2
"""Of OASIS's mean valences, 1 to 7: the highest of the negative, the lowest of the positive."""

KINDS = {
    "tie": "the votes are tied: in no class",
    "no class": "by most votes in none of the classes",
    "conflict": "the same image is there in another class: in neither",
    "no split": "in no split of the release: left out",
    "no file": "listed without a file: it was not fetched, or is no longer to be had",
    "bad file": "no usable image: left out",
    "outside": "leads out of the source folder, or nowhere: not followed",
    "odd row": "a line of a list that cannot be read: left out",
    "unlisted": "in no list, or in no class folder: left out",
    "duplicate across splits": "known from training when tested: `skip_bad` leaves the earlier out",
    "duplicate": "the same image twice in one split",
}
"""Kind of finding -> what it means. The images of the last two kinds are kept."""

_SUFFIX = {name: suffix for suffix, name in reversed(FORMATS.items())} | {"MPO": ".jpg"}
_SPLIT_OF = {"training": "train", "validation": "val", "valid": "val", "dev": "val"}
_SPLIT_OF |= {"testing": "test"} | {name: name for name in SPLITS}
_LISTS = (".csv", ".tsv", ".txt")
_LABELS = ("label", "labels", "emotion", "emotions", "category")
_FLICKR = re.compile(r"(?:^|(?<=/))(\d+)_[0-9a-f]{10}(?:_[a-z])?$")  # photo, secret, size


# What there is


@dataclass(frozen=True)
class Source:
    """One data set as published.

    terms, where: on which terms, and where to ask for it. label_set: a name of LABEL_SETS.
    form: what the folder holds that `convert` reads.
    listed: ids in the lists of the release. images: those with a class, in all, then by class and
        by split. None and empty: no such figure is known.
    test_val: shares of each class that are drawn for test and val where the release has no split.
    note: what to know about the figures, and what could not be checked.
    """

    name: str
    title: str
    citation: str
    doi: str
    terms: str
    where: str
    label_set: str
    form: str
    listed: int | None = None
    images: int | None = None
    per_class: Mapping[str, int] = field(default_factory=dict, hash=False)
    per_split: Mapping[str, int] = field(default_factory=dict, hash=False)
    test_val: tuple[float, float] = TEST_VAL
    note: str = ""

    def text(self) -> str:
        """The entry to read, a line for each field."""
        lines = []
        for key, value in asdict(self).items():
            if key == "test_val":
                value = "{:.0%} and {:.0%} where there is no split".format(*value)
            elif isinstance(value, dict):
                value = ", ".join(f"{name} {n:,}" for name, n in value.items())
            if value:
                text = f"{value:,}" if isinstance(value, int) else value
                lines.append(f"{key.replace('_', ' '):<10} {text}")
        return "\n".join(lines)


def _counts(names: str, *numbers: int) -> dict[str, int]:
    return dict(zip(names.split(), numbers, strict=True))


_MIKELS = "amusement anger awe contentment disgust excitement fear sadness"
_NO_TERMS = "No licence text was found: ask. The images remain their owners'."
_MACHAJDIK = (
    "Machajdik & Hanbury 2010, Affective Image Classification using Features Inspired by "
    "Psychology and Art Theory, ACM Multimedia"
)
_KATSURAI = (
    "Katsurai & Satoh 2016, Image Sentiment Analysis Using Latent Correlations Among Visual, "
    "Textual, and Sentiment Views, ICASSP"
)
_POLARITY = {
    "citation": _KATSURAI,
    "doi": "10.1109/ICASSP.2016.7472195",
    "terms": "The page asks for the citation and names no licence. The images remain their owners'.",
    "where": "https://mm.doshisha.ac.jp/en/research_projects/2016-imagesentiment",
    "label_set": "polarity",
    "form": "The lists of votes, with a first line that names the columns (id, positive, neutral, "
    "negative in any order and spelling); the images, which everyone fetches, in any folder below "
    "as <id>.jpg. Or one folder for each class.",
    "note": "Three workers judged each image; the release has their numbers by polarity. The names "
    "of its columns, the total and the counts by class could not be checked against the paper; the "
    "counts add up to the total, which is that of the images that most call positive or negative.",
}

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            name="fi",
            title="FI (Flickr and Instagram)",
            citation="You, Luo, Jin & Yang 2016, Building a Large Scale Dataset for Image Emotion "
            "Recognition: The Fine Print and The Benchmark, AAAI",
            doi="10.1609/aaai.v30i1.9987",
            terms=_NO_TERMS,
            where="https://qzyou.github.io/",
            label_set="mikels",
            form="The lists, lines of emotion, address, workers against, workers for; the images in "
            "any folder below, named as in the address. Or one folder for each class.",
            images=23_308,
            per_class=_counts(_MIKELS, 4942, 1266, 3151, 5374, 1658, 2963, 1032, 2922),
            note="Five workers judged most images; those for which more agree than disagree count. "
            "Others who read the lists found 23,166 such addresses, and many are dead. The counts "
            "by class add up to the total but were not checked against the paper. No split is "
            "released: 80/5/15 is the usual one, drawn anew here.",
        ),
        Source(
            name="emoset",
            title="EmoSet-118K",
            citation="Yang, Huang, Ding, Lischinski, Cohen-Or & Huang 2023, EmoSet: A Large-scale "
            "Visual Emotion Dataset with Rich Attributes, ICCV",
            doi="10.1109/ICCV51070.2023.01863",
            terms=_NO_TERMS,
            where="https://vcc.tech/EmoSet",
            label_set="mikels",
            form="train.json, val.json and test.json, lists of [emotion, (id,) image, annotation], "
            "beside image/<emotion>/*.jpg. Without the lists the folders alone.",
            listed=118_102,
            images=118_102,
            per_split=_counts("train val test", 94_481, 5_905, 17_716),
            note="The sizes of val and test are those of a public copy, that of train is the rest. "
            "Counts by class could not be found.",
        ),
        Source(
            name="emotion6",
            title="Emotion6",
            citation="Peng, Chen, Sadovnik & Gallagher 2015, A Mixed Bag of Emotions: Model, "
            "Predict, and Transfer Emotion Distributions, CVPR",
            doi="10.1109/CVPR.2015.7298687",
            terms="For academic research only; the images remain their owners'. Cite the paper.",
            where="http://chenlab.ece.cornell.edu/downloads.html",
            label_set="ekman",
            form="ground_truth.txt, with the shares of six emotions and neutral, beside "
            "images/<keyword>/<number>.jpg.",
            listed=1_980,
            note="The class is the emotion of the largest share; where that is neutral there is "
            "none. The 330 images of each folder were found by that keyword, which is not what "
            "people felt: for the keywords as classes, convert images/ as `imagefolder`.",
        ),
        Source(
            name="flickr",
            title="Flickr (polarity)",
            images=60_745,
            per_class=_counts("negative positive", 12_606, 48_139),
            **_POLARITY,
        ),
        Source(
            name="instagram",
            title="Instagram (polarity)",
            images=42_856,
            per_class=_counts("negative positive", 9_780, 33_076),
            **_POLARITY,
        ),
        Source(
            name="abstract",
            title="Abstract paintings",
            citation=_MACHAJDIK,
            doi="10.1145/1873951.1873965",
            terms=_NO_TERMS,
            where="https://www.imageemotion.org/",
            label_set="mikels",
            form="ABSTRACT_groundTruth.csv, votes for each emotion, beside abstract_*.jpg.",
            listed=280,
            images=228,
            per_class=_counts(_MIKELS, 25, 3, 15, 63, 18, 36, 36, 32),
            note="52 of the 280 paintings have tied votes and no class. The counts by class add up "
            "to 228 but were not checked against a paper. No split is released.",
        ),
        Source(
            name="artphoto",
            title="ArtPhoto",
            citation=_MACHAJDIK,
            doi="10.1145/1873951.1873965",
            terms=_NO_TERMS,
            where="https://www.imageemotion.org/",
            label_set="mikels",
            form="Images <emotion>_<number>.jpg. Or one folder for each class.",
            listed=806,
            images=806,
            per_class=_counts(_MIKELS, 101, 77, 102, 70, 70, 105, 115, 166),
            note="The class is what the artist meant the photograph to evoke. The counts by class "
            "add up to the total but were not checked against a paper. No split is released.",
        ),
        Source(
            name="oasis",
            title="OASIS",
            citation="Kurdi, Lozano & Banaji 2017, Introducing the Open Affective Standardized "
            "Image Set (OASIS), Behavior Research Methods 49",
            doi="10.3758/s13428-016-0715-3",
            terms="Open access, for studies online and offline; the column Source of its list says "
            "where an image is from.",
            where="https://osf.io/6pnd7/",
            label_set="polarity",
            form="OASIS.csv, with the columns Theme and Valence_mean, beside Images/<theme>.jpg.",
            listed=900,
            test_val=(0.25, 0.15),  # few images: an interval and a gate need more of them
            note="None of the paper's. About a hundred people rated the valence of each image from 1 "
            f"to 7. The classes are ours: negative up to a mean of {OASIS_NEGATIVE}, positive from "
            f"{OASIS_POSITIVE} on; what lies between has none.",
        ),
    )
}
"""The data sets by name."""


def overview() -> str:
    """SOURCES as a table: name, images, number of classes, where to ask."""
    rows = [("name", "images", "classes", "where to ask for it")]
    for source in SOURCES.values():
        size = f"{source.images or source.listed:,}"
        rows.append((source.name, size, str(len(LABEL_SETS[source.label_set])), source.where))
    return "\n".join(f"{name:<10} {size:>8} {classes:>8}  {w}" for name, size, classes, w in rows)


# Reading the released forms


class _Row(NamedTuple):
    """An image as its release has it. votes: class -> votes. file: below the source folder."""

    id: str
    votes: Mapping[str, float]
    file: str | None = None
    split: str | None = None
    data: bytes | None = None
    odd: str = ""


class _Folder:
    """The files below a source folder: relative paths, sorted; hidden ones and links to folders
    are passed over."""

    def __init__(self, root: Path):
        self.root, self.real = root, os.path.realpath(root)
        self.files = sorted(self._walk())
        self.images = [f for f in self.files if posixpath.splitext(f)[1].lower() in FORMATS]

    def _walk(self) -> Iterator[str]:
        def stop(error: OSError) -> None:
            raise error

        for folder, folders, names in os.walk(self.root, onerror=stop):
            folders[:] = [f for f in folders if f[0] != "." and f.lower() != "__macosx"]
            base = Path(folder).relative_to(self.root)
            yield from ((base / name).as_posix() for name in names if name[0] != ".")

    @cached_property
    def _index(self) -> dict[str, str]:
        """The last part, and the last two, of what lists may call an image -> the image."""
        index: dict[str, str] = {}
        for file in self.images:
            parts = _key(file).split("/")
            index.setdefault(parts[-1], file)
            index.setdefault("/".join(parts[-2:]), file)
        return index

    def inside(self, file: str) -> bool:
        """Whether it is a file that lies below the folder, all links followed."""
        real = os.path.realpath(self.root / file)
        return Path(real).is_relative_to(self.real) and os.path.isfile(real)

    def find(self, name: str) -> str | None:
        """The image that a list calls `name`; its suffix and its outer folders do not matter."""
        return self._index.get("/".join(_key(name.replace("\\", "/")).split("/")[-2:]))

    def lists(self) -> list[str]:
        """The text files that may hold a list."""
        found = (f for f in self.files if posixpath.splitext(f)[1].lower() in _LISTS)
        return [f for f in found if self.inside(f)]


def _key(name: str) -> str:
    """`name` without suffix, Flickr's secret and size, in lower case."""
    stem, suffix = posixpath.splitext(name)
    return _FLICKR.sub(r"\1", (stem if suffix.lower() in FORMATS else name).casefold())


def _cells(path: Path) -> Iterator[list[str]]:
    """The lines of a list, cut at tabs, commas, semicolons or white space, without quotes."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", "replace")
    first = text.lstrip().partition("\n")[0]
    separator = max("\t,;", key=first.count)
    if separator in first:
        lines: Iterable[list[str]] = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    else:
        lines = (line.split() for line in text.splitlines())
    try:
        yield from ([cell.strip(" \t'\"") for cell in cells] for cells in lines if any(cells))
    except csv.Error as error:
        raise InputError(f"{path} cannot be read as a list ({error}): save it anew") from error


def _number(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise ValueError(f"{text} votes")
    return value


def _read_votes(folder: _Folder, labels: LabelSet) -> Iterator[_Row]:
    """Lists whose first line names columns after classes; the first column is the image."""
    for file in folder.lists():
        lines = _cells(folder.root / file)
        columns = [
            (place, labels.canonical(word) or word)
            for place, cell in enumerate(next(lines, []))
            for word in re.findall("[a-z]+", cell.lower())
            if place and (word == "neutral" or labels.canonical(word))
        ]
        if len({label for _, label in columns} - {"neutral"}) < 2:
            continue
        for number, cells in enumerate(lines, 2):
            votes: Counter[str] = Counter()
            try:
                for place, label in columns:
                    votes[label] += _number(cells[place])
            except (ValueError, IndexError) as error:
                yield _Row(f"{file}, line {number}", {}, odd=str(error))
            else:
                yield _Row(cells[0], votes, folder.find(cells[0]))


def _read_fi(folder: _Folder, labels: LabelSet) -> Iterator[_Row]:
    """Lines of emotion, address, workers against, workers for; batches of one image add up."""
    votes: defaultdict[str, defaultdict[str, list[float]]]
    votes = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    for file in folder.lists():
        for number, cells in enumerate(_cells(folder.root / file), 1):
            try:
                emotion, address, against, agree = cells[:4]
                added = _number(agree), _number(against)
            except ValueError as error:
                if "://" in "".join(cells):  # neither a header nor a text about the lists
                    yield _Row(f"{file}, line {number}", {}, odd=str(error))
                continue
            for place, value in enumerate(added):
                votes[address][emotion.lower()][place] += value
    for address, judged in sorted(votes.items()):
        chosen = {emotion: agree for emotion, (agree, against) in judged.items() if agree > against}
        emotion = max(chosen or judged, key=lambda emotion: judged[emotion])
        if not chosen:
            chosen = dict(zip((emotion, f"not {emotion}"), judged[emotion], strict=True))
        name = posixpath.basename(urlsplit(address).path)
        yield _Row(address, chosen, folder.find(f"{emotion}/{name}") or folder.find(name))


def _read_emoset(folder: _Folder, labels: LabelSet) -> Iterator[_Row]:
    """train.json, val.json, test.json: lists of [emotion, (id,) image, annotation]."""
    for file in folder.files:
        split, suffix = posixpath.splitext(posixpath.basename(file))
        if split not in SPLITS or suffix != ".json" or not folder.inside(file):
            continue
        try:
            entries = json.loads((folder.root / file).read_bytes())
            if not isinstance(entries, list):
                raise ValueError("no list")
        except ValueError as error:
            raise InputError(
                f"{folder.root / file} is no list of images ({error}): copy it again"
            ) from error
        for number, entry in enumerate(entries, 1):
            cells = [str(cell) for cell in entry] if isinstance(entry, list) else []
            image = [c for c in cells[1:] if posixpath.splitext(c)[1].lower() in FORMATS]
            if image:
                yield _Row(image[0], {cells[0]: 1}, folder.find(image[0]), split)
            else:
                yield _Row(f"{file}, entry {number}", {}, odd="names no image")


def _read_artphoto(folder: _Folder, labels: LabelSet) -> Iterator[_Row]:
    """Files <emotion>_<number>."""
    named = {file: posixpath.basename(file).partition("_")[0] for file in folder.images}
    if any(labels.canonical(label) for label in named.values()):
        yield from (_Row(file, {label: 1}, file) for file, label in named.items())


def _read_oasis(folder: _Folder, labels: LabelSet) -> Iterator[_Row]:
    """Lists with the columns Theme, which names the image, and Valence_mean."""
    for file in folder.lists():
        lines = _cells(folder.root / file)
        names = next(lines, [])
        if not {"Theme", "Valence_mean"} <= set(names):
            continue
        for number, cells in enumerate(lines, 2):
            row = dict(zip(names, cells, strict=False))
            try:
                theme, valence = row["Theme"], float(row["Valence_mean"])
                if not 1 <= valence <= 7:
                    raise ValueError(f"a mean valence of {valence}")
            except (KeyError, ValueError) as error:
                yield _Row(f"{file}, line {number}", {}, odd=str(error))
                continue
            label = "negative" if valence <= OASIS_NEGATIVE else f"mean valence {valence:.3f}"
            label = "positive" if valence >= OASIS_POSITIVE else label
            yield _Row(theme, {label: 1}, folder.find(theme))


def _read_folders(folder: _Folder, labels: LabelSet | None) -> Iterator[_Row]:
    """<class>/<image> or <split>/<class>/<image>, or else the same one folder further down."""
    for outer in (0, 1):
        found = []
        for file in folder.images:
            parts = file.split("/")[outer:]
            split = _SPLIT_OF.get(parts[0].lower()) if len(parts) == 3 else None
            if len(parts) == 2 or split:
                found.append((file, parts[-2], split))
        if any(labels is None or labels.canonical(label) for _, label, _ in found):
            yield from (_Row(file, {label: 1}, file, split) for file, label, split in found)
            return


def _read_library(source: str | os.PathLike) -> Iterator[_Row]:
    """A data set of the `datasets` library, saved on disk or by its id, image by image."""
    try:
        import datasets as library
    except ModuleNotFoundError:
        raise InputError('`datasets` is not installed: `pip install -e ".[datasets]"`') from None
    here = Path(source)
    saved = any((here / name).is_file() for name in ("dataset_dict.json", "dataset_info.json"))
    try:
        loaded = (library.load_from_disk if saved else library.load_dataset)(str(source))
    except Exception as error:  # the library and its file formats raise many kinds
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{source} cannot be loaded by `datasets`: {reason}") from error
    homes = [os.path.realpath(home) for home in (here, library.config.HF_CACHE_HOME)]
    for key, part in loaded.items() if isinstance(loaded, dict) else [("", loaded)]:
        kinds = part.features
        image = next((k for k, v in kinds.items() if isinstance(v, library.Image)), None)
        label = next((k for k, v in kinds.items() if isinstance(v, library.ClassLabel)), None)
        label = label or next((k for k in _LABELS if k in kinds), None)
        if image is None or label is None:
            raise InputError(
                f"{source} has the columns {', '.join(kinds)}: it needs one of images, and one of "
                "classes called `label`"
            )
        names = getattr(kinds[label], "names", None)
        part = part.select_columns([image, label]).cast_column(image, library.Image(decode=False))
        for number, row in enumerate(part):
            value, held = row[label], row[image] or {}
            if names and isinstance(value, int):
                value = names[value] if 0 <= value < len(names) else None
            odd = "" if isinstance(value, str | int) else f"{label} is {row[label]!r}"
            data = held.get("bytes")
            if data is None and held.get("path"):
                path = Path(os.path.realpath(held["path"]))
                if path.is_file() and any(path.is_relative_to(home) for home in homes):
                    data = path.read_bytes()
            split = _SPLIT_OF.get(key.lower())
            yield _Row(f"{key}/{number:06d}", {str(value): 1}, split=split, data=data, odd=odd)


_Reader = Callable[[_Folder, LabelSet | None], Iterator[_Row]]
_READERS: dict[str, tuple[_Reader, ...]] = {
    "fi": (_read_fi, _read_folders),
    "emoset": (_read_emoset, _read_folders),
    "emotion6": (_read_votes,),
    "flickr": (_read_votes, _read_folders),
    "instagram": (_read_votes, _read_folders),
    "abstract": (_read_votes,),
    "artphoto": (_read_artphoto, _read_folders),
    "oasis": (_read_oasis,),
    "imagefolder": (_read_folders,),
}
"""Name -> readers; the next one reads where the one before found nothing."""


# Writing the layout


@dataclass(frozen=True, eq=False)
class ConversionReport:
    """What `convert` wrote and what it left out.

    source: its name. root: the folder written. seed: of the split. split: "released" or "drawn".
    listed: lines of the lists, or files where there is no list.
    counts: images written; splits (rows) by classes (columns).
    problems: columns kind (see KINDS), id (as in the release), detail.
    published: a sentence for each published figure: that it matches, or by how much it does not.
    """

    source: str
    root: Path
    seed: int
    split: str
    listed: int
    counts: pd.DataFrame
    problems: pd.DataFrame
    published: tuple[str, ...]

    def text(self, limit: int = 8) -> str:
        """The report to read: counts, published figures, each kind of problem with some ids."""
        counts = self.counts.assign(all=self.counts.sum(axis=1))
        how = "as released" if self.split == "released" else f"drawn with seed {self.seed}"
        lines = [
            f"{self.root}: {self.counts.to_numpy().sum():,} of {self.listed:,} listed images, "
            f"split {how}",
            counts.to_string(),
            *self.published,
        ]
        for kind, meaning in KINDS.items():
            found = self.problems[self.problems["kind"] == kind]
            if len(found):
                lines.append(f"{len(found):,} {kind}: {meaning}")
                rows = found[["id", "detail"]].head(limit).to_numpy()
                lines += [
                    f"  {name}  ({detail})" if detail else f"  {name}" for name, detail in rows
                ]
                if len(found) > limit:
                    lines.append(f"  ... and {len(found) - limit:,} more, all in source.json")
        return "\n".join(lines)

    def to_json(self) -> str:
        """The whole report, with the entry of SOURCES, as JSON."""
        entry = SOURCES.get(self.source)
        data = {"format": SOURCE_FORMAT, "source": asdict(entry) if entry else self.source}
        data |= {"seed": self.seed, "split": self.split, "listed": self.listed}
        data |= {"images": self.counts.T.to_dict(), "published": self.published}
        data["problems"] = {
            kind: found[["id", "detail"]].to_numpy().tolist()
            for kind, found in self.problems.groupby("kind", sort=False)
        }
        return json.dumps(data, indent=1)


def _plain(text: str) -> str:
    """`text` on one line, with what cannot be printed as escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


_Problem = tuple[str, str, str]  # kind, id, detail


class _Kept(NamedTuple):
    """An image with a class."""

    id: str
    label: str
    split: str | None
    sha256: str
    suffix: str
    number: int  # its name in the pool


def convert(
    name: str,
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    seed: int = 0,
    link: bool = False,
    say: Callable[[str], None] = print,
) -> ConversionReport:
    """Write the released data set below `source` in the common layout to the new folder `out`.

    name: one of SOURCES; "imagefolder" for class folders; "datasets" for a data set of the
        `datasets` library, saved on disk or by its id.
    seed: of the split of each class (`Source.test_val`), drawn where the release has no train and
        test.
    link: hard links instead of copies (both folders on one disk).
    say: is told of the progress.

    Votes are resolved to the class with most of them. Copies of one image stay in one split where
    the split is drawn. Images are read one by one; of each only its line of the table is held.
    `out` comes into being as a whole at the end, or not at all.

    Raises InputError for an unknown name, a source that is not in the known form or has no usable
    image, an `out` that is there and not empty or is inside `source`, and a disk that refuses.
    """
    if name not in _READERS and name != "datasets":
        known = ", ".join([*_READERS, "datasets"])
        raise InputError(f"there is no data set {name!r} to convert; choose one of {known}")
    out = Path(out)
    entry = SOURCES.get(name)
    labels = LABEL_SETS[entry.label_set] if entry else None
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(f"{out} is there and not empty: give a new folder, or remove it")
        if name == "datasets":
            folder, rows = None, _read_library(source)
        else:
            folder, rows = _open(name, Path(source), out, labels, entry)
        out.parent.mkdir(parents=True, exist_ok=True)
        for left in out.parent.iterdir():
            if left.name.startswith(f".{out.name}-") and left.suffix == ".part":
                say(f"{left} is left from a conversion that was ended: remove it if none runs")
        with tempfile.TemporaryDirectory(
            prefix=f".{out.name}-", suffix=".part", dir=out.parent, ignore_cleanup_errors=True
        ) as draft:
            work, pool = Path(draft, "data"), Path(draft, "pool")
            work.mkdir()
            pool.mkdir()
            kept, problems, listed = _collect(rows, folder, labels, pool, link, say)
            report = _lay_out(name, out, pool, work, kept, problems, listed, labels, seed)
            if out.exists():
                out.rmdir()
            os.rename(work, out)
    except OSError as error:
        where = error.filename or out
        raise InputError(
            f"{where}: {error.strerror or error}; mend it and convert again"
        ) from error
    return report


def _open(
    name: str, root: Path, out: Path, labels: LabelSet | None, entry: Source | None
) -> tuple[_Folder, Iterator[_Row]]:
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give the one that holds the unpacked release")
    if out.resolve().is_relative_to(root.resolve()):
        raise InputError(f"{out} is inside the source {root}: give a folder beside it")
    folder = _Folder(root)
    for reader in _READERS[name]:
        rows = reader(folder, labels)
        first = next(rows, None)
        if first is not None:
            return folder, (row for part in ([first], rows) for row in part)
    form = entry.form if entry else "One folder for each class, with its images."
    raise InputError(f"{root} does not hold {name} as it is released. Wanted: {form}")


def _collect(
    rows: Iterator[_Row],
    folder: _Folder | None,
    labels: LabelSet | None,
    pool: Path,
    link: bool,
    say: Callable[[str], None],
) -> tuple[list[_Kept], list[_Problem], int]:
    """The images with a class, copied to the pool, the problems, and the number of rows."""
    kept, problems, listed, named = [], [], 0, set()
    take = partial(_take, folder, labels, pool, link)
    with warnings.catch_warnings(), ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:
        warnings.simplefilter("ignore")  # Pillow's, on files that are a little odd
        while batch := list(islice(rows, 64)):
            for result in threads.map(take, batch, count(listed)):
                (kept if isinstance(result, _Kept) else problems).append(result)
            named.update(row.file for row in batch)
            listed += len(batch)
            if listed % 6400 == 0:
                say(f"{listed:,} read, {len(kept):,} with a class and a file")
    problems += [("unlisted", f, "") for f in (folder.images if folder else ()) if f not in named]
    return kept, problems, listed


def _take(
    folder: _Folder | None, labels: LabelSet | None, pool: Path, link: bool, row: _Row, number: int
) -> _Kept | _Problem:
    """The image of a row, copied to the pool, or what is wrong with it."""
    if row.odd:
        return "odd row", row.id, row.odd
    best = max(row.votes.values())
    winners = [label for label, votes in row.votes.items() if votes == best]
    if best <= 0 or len(winners) > 1:
        return "tie", row.id, f"{best:g} each for {', '.join(winners)}"
    label = labels.canonical(winners[0]) if labels else winners[0]
    if label is None:
        return "no class", row.id, f"{winners[0]}: {best:g} of {sum(row.votes.values()):g}"
    target = pool / str(number)
    if row.data is not None:
        target.write_bytes(row.data)
    elif folder is None or row.file is None:
        return "no file", row.id, label
    elif not folder.inside(row.file):
        return "outside", row.id, label
    else:
        path = os.path.realpath(folder.root / row.file)
        try:
            os.link(path, target) if link else shutil.copyfile(path, target)
        except OSError as error:
            if link:
                raise InputError(
                    f"{path} cannot be linked ({error.strerror}): convert without links"
                ) from error
            if isinstance(error, PermissionError):
                return "bad file", row.id, str(error.strerror)
            raise
    try:
        open_image(target).close()
    except InputError as error:
        target.unlink()
        return "bad file", row.id, str(error).removeprefix(f"{target} ")
    with Image.open(target) as image:
        suffix = _SUFFIX[image.format]
    with target.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return _Kept(row.id, label, row.split, digest, suffix, number)


def _lay_out(
    name: str,
    out: Path,
    pool: Path,
    work: Path,
    kept: list[_Kept],
    problems: list[_Problem],
    listed: int,
    labels: LabelSet | None,
    seed: int,
) -> ConversionReport:
    """Give each image its class and split, move it there, and write what is known of it."""
    if labels is None and kept:
        labels = _infer({image.label for image in kept})
        kept = [image._replace(label=labels.canonical(image.label)) for image in kept]
    groups: defaultdict[str, list[_Kept]] = defaultdict(list)
    for image in sorted(kept, key=lambda image: (image.id, image.split or "")):
        groups[image.sha256].append(image)
    released = {"train", "test"} <= {image.split for image in kept}
    for digest, images in list(groups.items()):
        if len({image.label for image in images}) > 1:
            problems += [("conflict", i.id, _others(i, images)) for i in images]
            del groups[digest]
        elif released and any(image.split is None for image in images):
            problems += [("no split", i.id, "") for i in images if i.split is None]
            groups[digest] = [image for image in images if image.split]
    if not released:
        labelled = {digest: images[0].label for digest, images in groups.items()}
        splits = _draw(labelled, seed, SOURCES[name].test_val if name in SOURCES else TEST_VAL)
        groups = {d: [i._replace(split=splits[d]) for i in group] for d, group in groups.items()}
    for images in groups.values():
        images.sort(key=lambda image: SPLITS.index(image.split))
        for image in images[:-1]:
            across = image.split != images[-1].split
            kind = "duplicate across splits" if across else "duplicate"
            problems.append((kind, image.id, _others(image, images[-1:])))
    images = sorted((image for group in groups.values() for image in group), key=lambda i: i.id)
    if labels is None or not images:
        found = "; ".join(f"{n:,} {kind}" for kind, n in Counter(p[0] for p in problems).items())
        form = f" {SOURCES[name].form}" if name in SOURCES else ""
        raise InputError(f"{name}: no image is left to write ({found or 'none is there'}).{form}")
    _place(pool, work, images, labels)
    cells = Counter((image.split, image.label) for image in images)
    counts = pd.DataFrame(
        {label: {split: cells[split, label] for split in SPLITS} for label in labels}
    )
    counts = counts[counts.any(axis=1)]
    order = {kind: place for place, kind in enumerate(KINDS)}
    problems.sort(key=lambda problem: (order[problem[0]], problem))
    table = [[_plain(text) for text in problem] for problem in problems]
    report = ConversionReport(
        source=name,
        root=out,
        seed=seed,
        split="released" if released else "drawn",
        listed=listed,
        counts=counts,
        problems=pd.DataFrame(table, columns=["kind", "id", "detail"], dtype=str),
        published=tuple(_compare(SOURCES.get(name), listed, counts, released)),
    )
    (work / "source.json").write_text(report.to_json() + "\n", encoding="utf-8")
    return report


def _infer(names: set[str]) -> LabelSet:
    """The known set that all names are of, also where two spell one label; else one of its own."""
    for known in LABEL_SETS.values():
        found = {known.canonical(name) for name in names}
        if None not in found:
            return infer_label_set(found)
    return infer_label_set({normalise(name): name for name in sorted(names)}.values())


def _others(image: _Kept, images: Sequence[_Kept]) -> str:
    others = (i for i in images if i is not image)
    return ", ".join(f"same as {i.id} of {i.label}, {i.split or 'no split'}" for i in others)


def _draw(labels: Mapping[str, str], seed: int, shares: tuple[float, float]) -> dict[str, str]:
    """Content -> split, of each class the shares for test and val; by content and seed alone."""
    test, val = shares
    splits = dict.fromkeys(labels, "train")
    for split, share in (("test", test), ("val", val / (1 - test))):
        rest = [digest for digest in labels if splits[digest] == "train"]
        drawn = stratified_split(rest, [labels[digest] for digest in rest], share, seed)
        splits |= dict.fromkeys(drawn, split)
    return splits


def _place(pool: Path, work: Path, images: Sequence[_Kept], labels: LabelSet) -> None:
    """Move the images to SPLIT/CLASS/, under names that every system takes, and list them."""
    used: Counter[str] = Counter()
    folders = {label: _free(_safe(label), used) for label in labels}
    options = {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
    with (work / "metadata.csv").open("w", **options) as file:
        table = csv.writer(file)
        table.writerow(["file", "source_id"])
        for image in images:
            folder = f"{image.split}/{folders[image.label]}"
            (work / folder).mkdir(parents=True, exist_ok=True)
            name = posixpath.basename(urlsplit(image.id).path if "://" in image.id else image.id)
            stem, suffix = posixpath.splitext(name)
            stem = _safe(stem if suffix.lower() in FORMATS else name)
            place = _free(f"{folder}/{stem}", used) + image.suffix
            os.rename(pool / str(image.number), work / place)
            table.writerow([place, image.id])


def _safe(text: str) -> str:
    """`text` as a file name: letters, digits, dots and hyphens, neither hidden nor long."""
    return re.sub(r"[^\w.-]+", "_", text)[:50].strip("._-") or "image"


def _free(name: str, used: Counter[str]) -> str:
    """`name`, with a number where it is taken, in any case."""
    free = name
    while free.casefold() in used:
        used[name.casefold()] += 1
        free = f"{name}-{used[name.casefold()]}"
    used[free.casefold()] = 1
    return free


def _compare(
    source: Source | None, listed: int, counts: pd.DataFrame, released: bool
) -> Iterator[str]:
    """A sentence for each published figure."""
    if source is None:
        return
    found = [("listed", listed, source.listed), ("images", counts.to_numpy().sum(), source.images)]
    found += [(label, counts[label].sum(), n) for label, n in source.per_class.items()]
    if released:
        splits = counts.sum(axis=1)
        found += [(split, splits.get(split, 0), n) for split, n in source.per_split.items()]
    for what, number, published in found:
        if published is None:
            continue
        off = int(number) - published
        if off == 0:
            yield f"{what}: {published:,}, as published"
        else:
            share = f"{100 * off / published:+.1f}" if abs(off) * 2000 > published else "under 0.1"
            more = "more" if off > 0 else "fewer"
            yield f"{what}: {abs(off):,} {more} than the {published:,} published ({share} %)"


def main(args) -> int:
    """The command ``convert``: a release to the common layout, or ``--list`` what there is."""
    if args.list:
        if args.name and args.name not in SOURCES:
            raise InputError(f"no data set {args.name!r}: choose one of {', '.join(SOURCES)}")
        print(SOURCES[args.name].text() if args.name else overview())
        return 0
    if args.out is None:
        raise InputError("convert needs NAME SOURCE OUT; `convert --list` names the data sets")
    print(convert(args.name, args.source, args.out, seed=args.seed, link=args.link).text())
    return 0
