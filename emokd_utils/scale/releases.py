"""Released data sets, read row by row in the forms that `sources.toml` names.

A release is not trusted: what its lists name is only compared with the names of the files that are
below its folder, so no name leads elsewhere; `convert` follows no link out of it.
"""

import csv
import json
import os
import posixpath
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from ..emotions import LabelSet
from ..errors import InputError
from ..folders import SPLITS
from ..images import FORMATS

_SPLIT_OF = {name: name for name in SPLITS} | {"training": "train", "testing": "test"}
_SPLIT_OF |= dict.fromkeys(("validation", "valid", "dev"), "val")
_FOLDERS = rf"(?:(?P<split>{'|'.join(_SPLIT_OF)})/)?(?P<label>[^/]+)/[^/]+"
_HIDDEN = re.compile(r"(?i)(?:^|/)(?:\.|__macosx/)")
_FLICKR = re.compile(r"(?:^|(?<=/))(\d+)_[0-9a-f]{10}(?:_[a-z])?$")  # photo, secret, size


class Row(NamedTuple):
    """An image as its release has it.

    votes: class -> votes. file: below the source; or data: its bytes. odd: why it cannot be read.
    """

    id: str
    votes: Mapping[str, float] = {}
    file: str | None = None
    split: str = ""
    data: bytes | None = None
    odd: str = ""

    def decided(self, labels: LabelSet | None) -> tuple[str, str, str]:
        """The class with most votes, and what is wrong with the row: kind and detail."""
        if self.odd:
            return "", "odd row", self.odd
        best = max(self.votes.values())
        winners = [label for label, votes in self.votes.items() if votes == best]
        tie = best <= 0 or len(winners) > 1
        label = labels.canonical(winners[0]) if labels else winners[0]
        if label and not tie:
            return label, "", ""
        votes = ", ".join(f"{label} {n:g}" for label, n in self.votes.items() if n)
        return "", "tie" if tie else "no class", votes


class Folder:
    """The files below `root`: relative paths, sorted; hidden ones and links to folders are passed
    over."""

    def __init__(self, root: Path):
        paths = (path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir())
        self.root, self.files = root, sorted(path for path in paths if not _HIDDEN.search(path))
        self.images = [file for file in self.files if _is_image(file)]
        self._named: dict[str, str] = {}  # the last part, and the last two, of a name -> the image
        for file in reversed(self.images):
            parts = _key(file).split("/")
            self._named |= dict.fromkeys((parts[-1], "/".join(parts[-2:])), file)

    def find(self, name: str) -> str | None:
        """The image that a list calls `name`; its suffix and its outer folders do not matter."""
        return self._named.get("/".join(_key(name.replace("\\", "/")).split("/")[-2:]))

    def lists(self) -> Iterator[tuple[str, list[list[str]]]]:
        """The text files that may hold a list, and their lines as cells without quotes."""
        for file in self.files:
            if file.lower().endswith((".csv", ".tsv", ".txt")):
                text = (self.root / file).read_bytes().decode("utf-8-sig", "replace")
                lines = text.lstrip().splitlines() or [""]
                mark = max("\t,;", key=lines[0].count)
                cells = csv.reader(lines, delimiter=mark if mark in lines[0] else " ")
                yield file, [[c.strip(" \t'\"") for c in line] for line in cells if any(line)]


def _is_image(name: str) -> bool:
    return posixpath.splitext(name)[1].lower() in FORMATS


def _key(name: str) -> str:
    """`name` without suffix, Flickr's secret and size, in lower case."""
    return _FLICKR.sub(r"\1", (posixpath.splitext(name)[0] if _is_image(name) else name).casefold())


def _number(text: str, low: float = 0, high: float = sys.float_info.max) -> float:
    if not low <= float(text) <= high:
        raise ValueError(f"{text} is not in its range")
    return float(text)


def _votes(header: list[str], labels: LabelSet) -> Callable | None:
    """Columns named after classes hold their votes; the first column is the image."""
    columns = [
        (place, labels.canonical(word) or word)
        for place, cell in enumerate(header)
        for word in re.findall("[a-z]+", cell.lower())
        if place and (word == "neutral" or labels.canonical(word))
    ]

    def parse(cells: list[str]) -> tuple[str, Counter]:
        votes: Counter[str] = Counter()
        for place, label in columns:
            votes[label] += _number(cells[place])
        return cells[0], votes

    return parse if len({label for _, label in columns} - {"neutral"}) > 1 else None


def _ratings(
    header: list[str], labels: LabelSet, image: str, mean: str, classes: Mapping[str, Sequence]
) -> Callable | None:
    """The columns `image` and `mean`; classes: the lowest and the highest mean of each."""

    def parse(cells: list[str]) -> tuple[str, dict]:
        row = dict(zip(header, cells, strict=False))
        value = _number(row[mean], *(end(map(end, classes.values())) for end in (min, max)))
        within = [label for label, (low, high) in classes.items() if low <= value <= high]
        return row[image], dict.fromkeys(within or [f"mean {value:.3f}"], 1)

    return parse if {image, mean} <= set(header) else None


def _read_lists(parser: Callable, folder: Folder, labels: LabelSet, **form) -> Iterator[Row]:
    """Lists whose first line names the columns: `parser` makes of it what reads the other lines, or
    None where this is another list."""
    for file, lines in folder.lists():
        parse = parser(lines[0], labels, **form) if lines else None
        for number, cells in enumerate(lines[1:] if parse else [], 2):
            try:
                image, votes = parse(cells)
                yield Row(image, votes, folder.find(image))
            except (ValueError, LookupError) as error:
                yield Row(f"{file}, line {number}", odd=str(error))


def _read_judgements(folder: Folder, labels: LabelSet, columns: Sequence[str]) -> Iterator[Row]:
    """Lists without a first line of names: an image's address, a class, how many said yes and no.
    The lines of an image add up."""
    added: dict[str, Counter] = defaultdict(Counter)
    for file, lines in folder.lists():
        for number, cells in enumerate(lines, 1):
            try:
                row = dict(zip(columns, cells, strict=False))
                label, yes, no = row["class"].lower(), _number(row["yes"]), _number(row["no"])
                added[row["image"]].update({label: yes, f"not {label}": no})
            except (ValueError, LookupError) as error:
                if "://" in "".join(cells):  # neither a header nor a text about the lists
                    yield Row(f"{file}, line {number}", odd=str(error))
    for address, votes in added.items():
        name = posixpath.basename(urlsplit(address).path)
        agreed = {label: n for label, n in votes.items() if n > votes.get(f"not {label}", n)}
        best = max(agreed or votes, key=votes.get)
        file = folder.find(f"{best}/{name}") or folder.find(name)
        yield Row(address, agreed or votes, file)


def _read_entries(folder: Folder, labels: LabelSet) -> Iterator[Row]:
    """train.json, val.json, test.json: lists of [class, (id,) image, annotation]."""
    for path in (folder.root / file for file in folder.files if file.endswith(".json")):
        if path.stem not in SPLITS:
            continue
        try:
            entries = list(json.loads(path.read_bytes()))
        except (ValueError, TypeError) as error:
            raise InputError(f"{path} is no list of images ({error}): copy it again") from error
        for number, entry in enumerate(entries, 1):
            cells = [str(cell) for cell in entry] if isinstance(entry, list) else []
            if images := [cell for cell in cells[1:] if _is_image(cell)]:
                yield Row(images[0], {cells[0]: 1}, folder.find(images[0]), path.stem)
            else:
                yield Row(f"{path.name}, entry {number}", odd="names no image")


def _read_paths(
    folder: Folder,
    labels: LabelSet | None,
    patterns: Sequence[str] = (_FOLDERS, "[^/]+/" + _FOLDERS),
) -> Iterator[Row]:
    """Images whose paths tell class and split, by the first of `patterns` that finds a class."""
    for pattern in patterns:
        found = [m for f in folder.images if (m := re.fullmatch(pattern, f, re.IGNORECASE))]
        if any(labels is None or labels.canonical(match["label"]) for match in found):
            for match in found:
                split = match.groupdict().get("split") or ""
                yield Row(match[0], {match["label"]: 1}, match[0], _SPLIT_OF.get(split.lower(), ""))
            return


READERS = {
    "votes": partial(_read_lists, _votes),
    "ratings": partial(_read_lists, _ratings),
    "judgements": _read_judgements,
    "entries": _read_entries,
    "paths": _read_paths,
}
"""Form -> reader of a Folder with a LabelSet; what else it takes is told in `sources.toml`."""


def read_library(source: str | os.PathLike) -> Iterator[Row]:
    """A data set of the `datasets` library, saved on disk or by its id, image by image."""
    try:
        import datasets as library
    except ModuleNotFoundError:
        raise InputError('`datasets` is not installed: `pip install -e ".[datasets]"`') from None
    saved = any(Path(source).glob("dataset_*.json"))  # _dict or _info
    try:
        loaded = (library.load_from_disk if saved else library.load_dataset)(str(source))
    except Exception as error:  # the library and its file formats raise many kinds
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{source} cannot be loaded by `datasets`: {reason}") from error
    for key, part in loaded.items() if isinstance(loaded, dict) else [("", loaded)]:
        if not {"image", "label"} <= {*part.features}:
            columns = ", ".join(part.features)
            raise InputError(f"{source} has the columns {columns}: it needs `image` and `label`")
        names = dict(enumerate(getattr(part.features["label"], "names", ())))
        part = part.cast_column("image", library.Image(decode=False))
        for number, row in enumerate(part.select_columns(["image", "label"])):
            image, label = row["image"] or {}, row["label"]
            label = names.get(label) if names else label
            odd = "" if isinstance(label, str | int) else f"label is {row['label']!r}"
            data, split = image.get("bytes"), _SPLIT_OF.get(key.lower(), "")
            file = image.get("path") if data is None else None
            yield Row(f"{key}/{number:06d}", {str(label): 1}, file, split, data, odd)
