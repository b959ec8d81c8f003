"""The forms in which data sets are released, read row by row: lists of votes, lists of splits,
class folders, data sets of the `datasets` library.

A release is not trusted: what its lists name is only compared with the names of the files that are
below its folder, so no name leads elsewhere; links out of the folder are not followed.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from ..emotions import LabelSet
from ..errors import InputError
from ..images import FORMATS
from ..scan import SPLITS

OASIS_NEGATIVE, OASIS_POSITIVE = 3.6, 5.2
"""Of OASIS's mean valences, 1 to 7: the highest of the negative, the lowest of the positive."""

_SPLIT_OF = {"training": "train", "validation": "val", "valid": "val", "dev": "val"}
_SPLIT_OF |= {"testing": "test"} | {name: name for name in SPLITS}
_LISTS = (".csv", ".tsv", ".txt")
_LABELS = ("label", "labels", "emotion", "emotions", "category")
_FLICKR = re.compile(r"(?:^|(?<=/))(\d+)_[0-9a-f]{10}(?:_[a-z])?$")  # photo, secret, size


class Row(NamedTuple):
    """An image as its release has it.

    votes: class -> votes. file: below the folder; or data: its bytes. odd: why it cannot be read.
    """

    id: str
    votes: Mapping[str, float] = {}
    file: str | None = None
    split: str = ""
    data: bytes | None = None
    odd: str = ""

    def decided(self, labels: LabelSet | None) -> tuple[str | None, str, str]:
        """The class with most votes, or None and what is wrong with the row: kind and detail."""
        if self.odd:
            return None, "odd row", self.odd
        best = max(self.votes.values())
        winners = [label for label, votes in self.votes.items() if votes == best]
        if best <= 0 or len(winners) > 1:
            return None, "tie", f"{best:g} each for {', '.join(winners)}"
        label = labels.canonical(winners[0]) if labels else winners[0]
        of_all = f"{winners[0]}: {best:g} of {sum(self.votes.values()):g}"
        return label, "no class", of_all


class Folder:
    """The files below a folder: relative paths, sorted; hidden ones and links to folders are passed
    over."""

    def __init__(self, root: Path):
        self.root, self.real, self.files = root, os.path.realpath(root), []
        for folder, folders, names in os.walk(root, onerror=_stop):
            folders[:] = [f for f in folders if f[0] != "." and f.lower() != "__macosx"]
            base = Path(folder).relative_to(root)
            self.files += [(base / name).as_posix() for name in names if name[0] != "."]
        self.files.sort()
        self.images = [f for f in self.files if posixpath.splitext(f)[1].lower() in FORMATS]
        self._named: dict[str, str] = {}  # the last part, and the last two, of a name -> the image
        for file in self.images:
            parts = _key(file).split("/")
            self._named.setdefault(parts[-1], file)
            self._named.setdefault("/".join(parts[-2:]), file)

    def find(self, name: str) -> str | None:
        """The image that a list calls `name`; its suffix and its outer folders do not matter."""
        return self._named.get("/".join(_key(name.replace("\\", "/")).split("/")[-2:]))

    def inside(self, file: str) -> bool:
        """Whether it is a file that lies below the folder, all links followed."""
        real = os.path.realpath(self.root / file)
        return Path(real).is_relative_to(self.real) and os.path.isfile(real)

    def lists(self) -> Iterator[tuple[str, list[list[str]]]]:
        """The text files that may hold a list, and their lines as cells."""
        for file in self.files:
            if posixpath.splitext(file)[1].lower() in _LISTS and self.inside(file):
                yield file, _cells(self.root / file)


def _stop(error: OSError) -> None:
    raise error


def _key(name: str) -> str:
    """`name` without suffix, Flickr's secret and size, in lower case."""
    stem, suffix = posixpath.splitext(name)
    return _FLICKR.sub(r"\1", (stem if suffix.lower() in FORMATS else name).casefold())


def _cells(path: Path) -> list[list[str]]:
    """The lines of a list, cut at tabs, commas, semicolons or white space, without quotes."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", "replace")
    first = text.lstrip().partition("\n")[0]
    separator = max("\t,;", key=first.count)
    try:
        lines: Iterable[list[str]] = (line.split() for line in text.splitlines())
        if separator in first:
            lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        return [[cell.strip(" \t'\"") for cell in cells] for cells in lines if any(cells)]
    except csv.Error as error:
        raise InputError(f"{path} cannot be read as a list ({error}): save it anew") from error


def _number(text: str, low: float = 0, high: float = math.inf) -> float:
    value = float(text)
    if not low <= value <= high or math.isinf(value):
        raise ValueError(f"{text} is not in its range")
    return value


def _parsed(file: str, lines: list[list[str]], parse: Callable[[list[str]], Row]) -> Iterator[Row]:
    """What `parse` makes of the lines after the first, which names the columns."""
    for number, cells in enumerate(lines[1:], 2):
        try:
            yield parse(cells)
        except (ValueError, LookupError) as error:
            yield Row(f"{file}, line {number}", odd=str(error))


def _read_votes(folder: Folder, labels: LabelSet) -> Iterator[Row]:
    """Lists whose first line names columns after classes; the first column is the image."""
    for file, lines in folder.lists():
        columns = [
            (place, labels.canonical(word) or word)
            for place, cell in enumerate(lines[0] if lines else [])
            for word in re.findall("[a-z]+", cell.lower())
            if place and (word == "neutral" or labels.canonical(word))
        ]

        def parse(cells: list[str], columns: list[tuple[int, str]] = columns) -> Row:
            votes: Counter[str] = Counter()
            for place, label in columns:
                votes[label] += _number(cells[place])
            return Row(cells[0], votes, folder.find(cells[0]))

        if len({label for _, label in columns} - {"neutral"}) > 1:
            yield from _parsed(file, lines, parse)


def _read_fi(folder: Folder, labels: LabelSet) -> Iterator[Row]:
    """Lines of emotion, address, workers against, workers for; batches of one image add up."""
    votes: dict[str, dict[str, Counter]] = defaultdict(lambda: defaultdict(Counter))
    for file, lines in folder.lists():
        for number, cells in enumerate(lines, 1):
            try:
                emotion, address, against, agree = cells[:4]
                added = {"for": _number(agree), "against": _number(against)}
                votes[address][emotion.lower()].update(added)
            except ValueError as error:
                if "://" in "".join(cells):  # neither a header nor a text about the lists
                    yield Row(f"{file}, line {number}", odd=str(error))
    for address, judged in sorted(votes.items()):
        chosen = {e: says["for"] for e, says in judged.items() if says["for"] > says["against"]}
        emotion = max(chosen or judged, key=lambda emotion: judged[emotion]["for"])
        if not chosen:
            says = judged[emotion]
            chosen = {emotion: says["for"], f"not {emotion}": says["against"]}
        name = posixpath.basename(urlsplit(address).path)
        yield Row(address, chosen, folder.find(f"{emotion}/{name}") or folder.find(name))


def _read_emoset(folder: Folder, labels: LabelSet) -> Iterator[Row]:
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
            path = folder.root / file
            raise InputError(f"{path} is no list of images ({error}): copy it again") from error
        for number, entry in enumerate(entries, 1):
            cells = [str(cell) for cell in entry] if isinstance(entry, list) else []
            image = [c for c in cells[1:] if posixpath.splitext(c)[1].lower() in FORMATS]
            if image:
                yield Row(image[0], {cells[0]: 1}, folder.find(image[0]), split)
            else:
                yield Row(f"{file}, entry {number}", odd="names no image")


def _read_artphoto(folder: Folder, labels: LabelSet) -> Iterator[Row]:
    """Files <emotion>_<number>."""
    named = {file: posixpath.basename(file).partition("_")[0] for file in folder.images}
    if any(labels.canonical(label) for label in named.values()):
        yield from (Row(file, {label: 1}, file) for file, label in named.items())


def _read_oasis(folder: Folder, labels: LabelSet) -> Iterator[Row]:
    """Lists with the columns Theme, which names the image, and Valence_mean."""
    for file, lines in folder.lists():
        names = lines[0] if lines else []

        def parse(cells: list[str], names: list[str] = names) -> Row:
            row = dict(zip(names, cells, strict=False))
            valence = _number(row["Valence_mean"], 1, 7)
            label = "negative" if valence <= OASIS_NEGATIVE else f"mean valence {valence:.3f}"
            label = "positive" if valence >= OASIS_POSITIVE else label
            return Row(row["Theme"], {label: 1}, folder.find(row["Theme"]))

        if {"Theme", "Valence_mean"} <= set(names):
            yield from _parsed(file, lines, parse)


def _read_folders(folder: Folder, labels: LabelSet | None) -> Iterator[Row]:
    """<class>/<image> or <split>/<class>/<image>, or else the same one folder further down."""
    for outer in (0, 1):
        rows = []
        for file in folder.images:
            parts = file.split("/")[outer:]
            split = _SPLIT_OF.get(parts[0].lower(), "") if len(parts) == 3 else ""
            if len(parts) == 2 or split:
                rows.append(Row(file, {parts[-2]: 1}, file, split))
        if any(labels is None or labels.canonical(next(iter(row.votes))) for row in rows):
            yield from rows
            return


READERS: dict[str, tuple[Callable[[Folder, LabelSet | None], Iterator[Row]], ...]] = {
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


def read_library(source: str | os.PathLike) -> Iterator[Row]:
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
        classes = [k for k, v in kinds.items() if isinstance(v, library.ClassLabel)]
        label = next((k for k in (*classes, *_LABELS) if k in kinds), None)
        if image is None or label is None:
            raise InputError(
                f"{source} has the columns {', '.join(kinds)}: it needs one of images, and one of "
                "classes called `label`"
            )
        names = getattr(kinds[label], "names", None)
        part = part.select_columns([image, label]).cast_column(image, library.Image(decode=False))
        for number, row in enumerate(part):
            value = row[label]
            if names and isinstance(value, int):
                value = names[value] if 0 <= value < len(names) else None
            odd = "" if isinstance(value, str | int) else f"{label} is {row[label]!r}"
            data, split = _bytes(row[image] or {}, homes), _SPLIT_OF.get(key.lower(), "")
            yield Row(f"{key}/{number:06d}", {str(value): 1}, None, split, data, odd)


def _bytes(image: Mapping, homes: list[str]) -> bytes | None:
    """Those of an image, held or in a file below one of `homes`."""
    if image.get("bytes") is not None or not image.get("path"):
        return image.get("bytes")
    path = Path(os.path.realpath(image["path"]))
    inside = path.is_file() and any(path.is_relative_to(home) for home in homes)
    return path.read_bytes() if inside else None
