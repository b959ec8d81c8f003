"""Released data sets, read row by row. What a list names is only compared with the files below the
folder, so no name leads elsewhere."""

import csv
import json
import math
import os
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from ..emotions import LabelSet
from ..errors import InputError
from ..folders import SPLITS, is_litter
from ..images import is_image

_SPLIT_OF = {name: name for name in SPLITS} | {"training": "train", "testing": "test"}
_SPLIT_OF |= dict.fromkeys(("validation", "valid", "dev"), "val")
_FOLDER = rf"(?:(?P<split>{'|'.join(_SPLIT_OF)})/)?(?P<label>[^/]+)/[^/]+"
_LABELS = ("label", "labels", "emotion", "class", "category")  # columns of data sets on the hub
_FOLDERS = (_FOLDER, "[^/]+/" + _FOLDER)


class Row(NamedTuple):
    """An image: votes of each class, file below the source or its bytes, why it cannot be read."""

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
        if not tie and (label := labels.canonical(winners[0]) if labels else winners[0]):
            return label, "", ""
        votes = ", ".join(f"{label} {n:g}" for label, n in self.votes.items() if n)
        return "", "tie" if tie else "no class", votes


class Folder:
    """The files below `root`, sorted, and the litter, with all in it passed over: relative paths."""

    def __init__(self, root: Path):
        self.root, self.files, self.litter = root, [], []
        for path in sorted(root.rglob("*"), key=Path.as_posix):
            name = path.relative_to(root).as_posix()
            *above, own = map(is_litter, name.split("/"))
            if not any(above) and (own or path.is_file()):
                (self.litter if own else self.files).append(name)
        self.images = [file for file in self.files if is_image(file)]
        self._named = {end: file for file in reversed(self.images) for end in _ends(file)}

    def find(self, name: str) -> str | None:
        """The image that a list calls `name`; its suffix and its outer folders do not matter."""
        return self._named.get(_ends(name)[-1])

    def rows(self, columns: Sequence[str] = ()) -> Iterator[tuple[str, dict[str, str | None]]]:
        """Where each line of a text file is, and its cells by `columns` or the first line."""
        for file in self.files:
            if file.lower().endswith((".csv", ".tsv", ".txt")):
                text = (self.root / file).read_bytes().decode("utf-8-sig", "replace")
                lines = text.lstrip().splitlines() or [""]
                mark = max("\t,;", key=lines[0].count)
                cells = csv.reader(lines, delimiter=mark if mark in lines[0] else " ")
                table = [[c.strip(" \t'\"") for c in line] for line in cells if any(line)]
                names = columns or next(iter(table), ())
                for number, line in list(enumerate(table, 1))[not columns :]:
                    yield f"{file}, line {number}", dict(zip_longest(names, line[: len(names)]))


def _ends(name: str) -> tuple[str, str]:
    stem = posixpath.splitext(name)[0] if is_image(name) else name
    parts = stem.casefold().replace("\\", "/").split("/")
    return parts[-1], "/".join(parts[-2:])


def _number(text: str | None) -> float:
    if not 0 <= float(text) < math.inf:
        raise ValueError(f"{text} is not in its range")
    return float(text)


def _votes(row: Mapping, labels: LabelSet) -> tuple[str, dict] | None:
    """Columns named after classes hold their votes, the first one the image."""
    votes: dict[str, list] = defaultdict(list)
    for column, cell in [*row.items()][1:]:
        for word in re.findall("[a-z]+", column.lower()):
            if word == "neutral" or labels.canonical(word):
                votes[labels.canonical(word) or word].append(cell)
    if len(votes.keys() - {"neutral"}) < 2:
        return None
    sums = {label: sum(map(_number, cells)) for label, cells in votes.items()}
    return next(iter(row.values())), sums


def _ratings(row: Mapping, image: str, mean: str, classes: Mapping) -> tuple[str, dict] | None:
    if not {image, mean} <= row.keys():
        return None
    value = _number(row[mean])
    within = [label for label, (low, high) in classes.items() if low <= value <= high]
    return row[image], dict.fromkeys(within or [f"mean {value:.3f}"], 1)


def _read_lists(folder: Folder, labels: LabelSet, **form) -> Iterator[Row]:
    for place, row in folder.rows():
        try:
            if parsed := _ratings(row, **form) if form else _votes(row, labels):
                yield Row(*parsed, folder.find(parsed[0]))
        except (ValueError, TypeError) as error:
            yield Row(place, odd=str(error))


def _read_judgements(folder: Folder, labels: LabelSet, columns: Sequence[str]) -> Iterator[Row]:
    """Lines of an image's address, a class, how many said yes and no, added up for each image."""
    added: dict[str, Counter] = defaultdict(Counter)
    for place, row in folder.rows(columns):
        try:
            yes, no, label = _number(row["yes"]), _number(row["no"]), row["class"].lower()
            added[row["image"]].update({label: yes, f"not {label}": no})
        except (ValueError, TypeError) as error:
            if "://" in str(row.values()):  # neither a header nor a text about the lists
                yield Row(place, odd=str(error))
    for address, votes in added.items():
        name = posixpath.basename(urlsplit(address).path)
        agreed = {label: n for label, n in votes.items() if n > votes.get(f"not {label}", n)}
        best = max(agreed or votes, key=votes.get)
        yield Row(address, agreed or votes, folder.find(f"{best}/{name}") or folder.find(name))


def _read_entries(folder: Folder, labels: LabelSet) -> Iterator[Row]:
    """train.json, val.json, test.json: lists of [class, (id,) image, annotation]."""
    lists = (folder.root / file for file in folder.files if file.endswith(".json"))
    for path in (path for path in lists if path.stem in SPLITS):
        try:
            entries = list(json.loads(path.read_bytes()))
        except (ValueError, TypeError) as error:
            raise InputError(f"{path} is no list of images ({error}): copy it again") from error
        for number, entry in enumerate(entries, 1):
            cells = [*map(str, entry)] if isinstance(entry, list) else []
            if image := next(filter(is_image, cells[1:]), None):
                yield Row(image, {cells[0]: 1}, folder.find(image), path.stem)
            else:
                yield Row(f"{path.name}, entry {number}", odd="names no image")


def _read_paths(folder: Folder, labels: LabelSet | None, patterns=_FOLDERS) -> Iterator[Row]:
    for pattern in patterns:
        found = [m for f in folder.images if (m := re.fullmatch(pattern, f, re.IGNORECASE))]
        found = [m for m in found if m["label"].lower() not in _SPLIT_OF]  # no class is called so
        if any(labels is None or labels.canonical(match["label"]) for match in found):
            for match in found:
                split = _SPLIT_OF.get((match.groupdict().get("split") or "").lower(), "")
                yield Row(match[0], {match["label"]: 1}, match[0], split)
            return


READERS = {
    "votes": _read_lists,
    "ratings": _read_lists,
    "judgements": _read_judgements,
    "entries": _read_entries,
    "paths": _read_paths,
}
"""Form -> reader of a Folder with a LabelSet; what else it takes is told in `sources.toml`."""


def read_library(source: str | os.PathLike) -> Iterator[Row]:
    """A data set of the `datasets` library, saved on disk or by its id."""
    try:
        import datasets as library
    except ModuleNotFoundError:
        raise InputError('`datasets` is not installed: `pip install -e ".[datasets]"`') from None
    saved = any(Path(source).glob("dataset_*.json"))  # _dict or _info
    try:
        loaded = (library.load_from_disk if saved else library.load_dataset)(str(source))
        parts = loaded if isinstance(loaded, dict) else {"": loaded}
        columns = next(iter(parts.values())).features
        named = [name for name, kind in columns.items() if isinstance(kind, library.ClassLabel)]
        label = next((name for name in (*_LABELS, *named) if name in columns), "label")
        parts = {key: part.select_columns(["image", label]) for key, part in parts.items()}
    except Exception as error:  # the library and its file formats raise many kinds
        why = " ".join(str(error).split())[:200]
        raise InputError(f"{source} is no data set with `image` and `label`: {why}") from error
    for key, part in parts.items():
        names = dict(enumerate(getattr(part.features[label], "names", ())))
        split = _SPLIT_OF.get(key.lower(), "")
        for number, row in enumerate(part.cast_column("image", library.Image(decode=False))):
            image = {"bytes": None, "path": None} | (row["image"] or {})
            text = names.get(row[label]) if names else row[label]
            odd = f"{label} is {text!r}" * (text is None or str(text).lower() in _SPLIT_OF)
            file = image["path"] if image["bytes"] is None else None
            yield Row(f"{key}/{number:06d}", {str(text): 1}, file, split, image["bytes"], odd)
