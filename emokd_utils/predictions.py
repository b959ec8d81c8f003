"""Predictions: the one type that every model yields, and the file that holds it.

A row is an image: its id, split and label, a probability for each class and, for a VLM, the text
it wrote. Whatever takes or compares predictions needs nothing else of a model.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import __version__
from .errors import InputError
from .files import canonical_json

FORMAT = "emokd-predictions-1"
SUM_TOLERANCE = 1e-6


# Names of the rows of the final table.
ZERO_SHOT, TUNED, VISION = "VLM, zero-shot", "VLM, tuned", "vision model"
HEAD_PLAIN, HEAD = "head, no teacher", "head, distilled"
PUBLISHED = "EmoVLM-KD, gate as published"
BOTH_RUN, ORACLE = "both models run together", "oracle of VLM and vision model"
VLM_ALONE, TOGETHER, EMOVLM_KD = "VLM alone", "VLM and vision model together", "EmoVLM-KD"  # costs


def further_name(vision: str) -> str:
    """The name in tables of a further vision model, ``name`` or ``name@weights``."""
    name, _, weights = vision.partition("@")
    return f"vision model, {name}{', pretrained' if weights else ''}"


def gate_name(kind: str) -> str:
    """The name of EmoVLM-KD with a gate in tables: ``EmoVLM-KD, concat linear``."""
    return f"EmoVLM-KD, {kind.replace('_', ' ')}"


def versions() -> dict[str, str]:
    """Versions of this library and of those that numbers depend on, for a provenance."""
    names = ("torch", "transformers", "peft", "timm", "numpy", "pillow")
    return {"emokd_utils": __version__} | {name: metadata.version(name) for name in names}


@dataclass(frozen=True, eq=False)
class Predictions:
    """What one model says about n images, C classes.

    ids: n image ids, each once. splits, labels: n each; every label is one of the classes.
    classes: C names, the order of the probability columns.
    probabilities: float64 (n, C), at least 0, rows sum to 1 within 1e-6; read-only.
    answers: the n texts that the model wrote, or None for a model that writes none.
    invalid: bool (n,), True where the answer named no class; that row of probabilities is uniform
        and counts as wrong, never as a class. None stands for all False.
    provenance: what made it, as JSON: model, adapter, prompt, seed, data fingerprint, versions ...

    Raises InputError, naming the first row at fault, for anything else.
    """

    ids: tuple[str, ...]
    splits: tuple[str, ...]
    labels: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: np.ndarray
    answers: tuple[str, ...] | None = None
    invalid: np.ndarray | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("ids", "splits", "labels", "classes"):
            _set(self, name, _texts(getattr(self, name), name))
        if self.answers is not None:
            _set(self, "answers", _texts(self.answers, "answers"))
        _set(self, "probabilities", np.array(self.probabilities, dtype=np.float64))
        flags = np.zeros(len(self), bool) if self.invalid is None else np.array(self.invalid)
        _set(self, "invalid", flags.astype(bool))
        _set(self, "provenance", json.loads(canonical_json(self.provenance)))
        self._check()
        self.probabilities.flags.writeable = False
        self.invalid.flags.writeable = False

    def _check(self) -> None:
        n, classes = len(self.ids), self.classes
        if len(classes) < 2 or len(set(classes)) < len(classes) or "" in classes:
            raise InputError(f"classes must be two or more different names: {classes}")
        shapes = {
            "splits": (len(self.splits), n),
            "labels": (len(self.labels), n),
            "answers": (n if self.answers is None else len(self.answers), n),
            "invalid": (self.invalid.shape, (n,)),
            "probabilities": (self.probabilities.shape, (n, len(classes))),
        }
        for name, (found, wanted) in shapes.items():
            if found != wanted:
                raise InputError(f"{name} is of size {found}, but {n} ids need {wanted}")
        if len(set(self.ids)) < n:
            raise InputError(f"the id {_first_repeated(self.ids)!r} comes twice; give each once")
        foreign = [row for row, label in enumerate(self.labels) if label not in classes]
        if foreign:
            row = foreign[0]
            raise InputError(
                f"{self.ids[row]!r} has the label {self.labels[row]!r}, which is not a class: "
                f"use one of {', '.join(classes)}"
            )
        values = self.probabilities
        sums = values.sum(axis=1)
        uniform = (np.abs(values - 1 / len(classes)) <= SUM_TOLERANCE).all(axis=1)
        for bad, mend in (
            (~np.isfinite(values).all(axis=1), "are not finite"),
            ((values < 0).any(axis=1), "are below 0"),
            (~(np.abs(sums - 1) <= SUM_TOLERANCE), "do not sum to 1; normalise them"),
            (self.invalid & ~uniform, "are not uniform though its answer is invalid"),
        ):
            if bad.any():
                row = int(np.flatnonzero(bad)[0])
                raise InputError(f"the probabilities of {self.ids[row]!r} {mend}: {values[row]}")

    @classmethod
    def from_logits(
        cls,
        logits: Any,
        *,
        ids: Sequence[str],
        splits: Sequence[str],
        labels: Sequence[str],
        classes: Sequence[str],
        provenance: dict[str, Any] | None = None,
    ) -> Predictions:
        """Predictions whose probabilities are the softmax of logits (n, C), taken in float64.

        Raises InputError for logits that are not of two dimensions or not finite.
        """
        values = np.asarray(logits, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] == 0 or not np.isfinite(values).all():
            raise InputError(f"logits of shape {values.shape}: give finite values (n, C)")
        values = np.exp(values - values.max(axis=1, keepdims=True))
        values /= values.sum(axis=1, keepdims=True)
        return cls(ids, splits, labels, classes, values, provenance=provenance or {})

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        splits = ", ".join(sorted(set(self.splits)))
        return (
            f"Predictions(n={len(self)}, splits: {splits}, {len(self.classes)} classes, "
            f"accuracy {self.accuracy:.3f}, invalid {int(self.invalid.sum())}, "
            f"model {self.provenance.get('model')})"
        )

    @property
    def predicted_index(self) -> np.ndarray:
        """int64 (n,): the likeliest class (the first of equals), -1 where the answer is invalid."""
        return np.where(self.invalid, -1, self.probabilities.argmax(axis=1))

    @property
    def predicted(self) -> tuple[str | None, ...]:
        """The likeliest class of each image, None where the answer is invalid."""
        names = (*self.classes, None)
        return tuple(names[k] for k in self.predicted_index)

    @property
    def label_index(self) -> np.ndarray:
        """int64 (n,): the label's place among the classes."""
        place = {name: k for k, name in enumerate(self.classes)}
        return np.array([place[label] for label in self.labels], dtype=np.int64)

    @property
    def correct(self) -> np.ndarray:
        """bool (n,): the predicted class is the label."""
        return self.predicted_index == self.label_index

    @property
    def accuracy(self) -> float:
        """Share of images in [0, 1] that are right; nan for no images."""
        return float(self.correct.mean()) if len(self) else float("nan")

    def one_hot(self) -> np.ndarray:
        """float64 (n, C): 1 at the predicted class; all 0 where the answer is invalid."""
        return np.eye(len(self.classes) + 1)[self.predicted_index, :-1]

    def split(self, name: str) -> Predictions:
        """The images of one split, in their order; InputError names the splits there are."""
        if name not in self.splits:
            there = ", ".join(sorted(set(self.splits))) or "none"
            raise InputError(f"no predictions for split {name!r}; there are: {there}")
        return self._take([row for row, split in enumerate(self.splits) if split == name])

    def select(self, ids: Iterable[str]) -> Predictions:
        """The images with these ids, in the order asked; InputError names the first unknown."""
        row_of = {image: row for row, image in enumerate(self.ids)}
        wanted = tuple(ids)
        unknown = [image for image in wanted if image not in row_of]
        if unknown:
            raise InputError(f"no prediction for {len(unknown)} images: {_some(unknown)}")
        return self._take([row_of[image] for image in wanted])

    def aligned(self, other: Predictions) -> tuple[Predictions, Predictions]:
        """This and the other one in this one's order of images.

        Raises InputError where the classes differ, an image is in one of them only, or an image's
        labels differ; it names the first three.
        """
        if self.classes != other.classes:
            raise InputError(f"the classes differ: {self.classes} and {other.classes}")
        for one, two, which in ((self, other, "second"), (other, self, "first")):
            there = set(two.ids)
            missing = [image for image in one.ids if image not in there]
            if missing:
                raise InputError(
                    f"{len(missing)} images are missing from the {which} predictions: "
                    f"{_some(missing)}; compare the same split of the same data"
                )
        matched = other.select(self.ids)
        rows = zip(self.ids, self.labels, matched.labels, strict=True)
        differ = [f"{image} ({mine}, {its})" for image, mine, its in rows if mine != its]
        if differ:
            raise InputError(
                f"the labels of {len(differ)} images differ: {_some(differ)}; "
                "predict both from the same data"
            )
        return self, matched

    def _take(self, rows: list[int]) -> Predictions:
        index = np.array(rows, dtype=np.int64)
        return replace(
            self,
            ids=tuple(self.ids[row] for row in rows),
            splits=tuple(self.splits[row] for row in rows),
            labels=tuple(self.labels[row] for row in rows),
            probabilities=self.probabilities[index],
            answers=None if self.answers is None else tuple(self.answers[row] for row in rows),
            invalid=self.invalid[index],
        )

    def to_frame(self) -> pd.DataFrame:
        """A row for each image, indexed by id.

        Columns: split, label, predicted (None where invalid), correct, p_<class> for each class,
        answer (None where the model writes none), invalid.
        """
        return pd.DataFrame(
            {
                "split": self.splits,
                "label": self.labels,
                "predicted": self.predicted,
                "correct": self.correct,
                **dict(zip(_probability_columns(self.classes), self.probabilities.T, strict=True)),
                "answer": self.answers or [None] * len(self),
                "invalid": self.invalid,
            },
            index=pd.Index(self.ids, name="id", dtype=object),
        )

    def save(self, path: str | os.PathLike) -> Path:
        """Write the table to `path`, a .csv, and format, classes and provenance to a .json beside.

        The CSV opens in a spreadsheet (UTF-8 with a byte-order mark, one line an image, exact
        decimals) and comes back exactly through `load`. Text in it is escaped: backslashes and
        characters that are not seen (newlines, control, direction) as in JSON, and an apostrophe
        goes before a text that begins with one or that a spreadsheet could take for a formula.
        Raises InputError for another suffix.
        """
        path = _csv_path(path)
        table = _to_csv(self)
        about = {
            "format": FORMAT,
            "rows": len(self),
            "classes": self.classes,
            "has_answers": self.answers is not None,
            "provenance": self.provenance,
            "sha256": hashlib.sha256(table).hexdigest(),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, table)
        _write(path.with_suffix(".json"), (json.dumps(about, indent=1) + "\n").encode())
        return path

    @classmethod
    def load(cls, path: str | os.PathLike) -> Predictions:
        """Read what `save` wrote.

        Raises InputError, naming the file, where one is missing or not of this format, the CSV is
        not the one that was saved, or its values do not make sound predictions.
        """
        path = _csv_path(path)
        beside = path.with_suffix(".json")
        try:
            table, about = path.read_bytes(), json.loads(beside.read_bytes())
        except OSError as error:
            raise InputError(f"{error.filename}: {error.strerror}; predict anew") from error
        except ValueError as error:
            raise InputError(f"{beside} is not JSON ({error}); predict anew") from error
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise InputError(f"{beside} is not of the format {FORMAT}; predict anew")
        if about.get("sha256") != hashlib.sha256(table).hexdigest():
            raise InputError(f"{path} is not the file that was saved; restore it or predict anew")
        try:
            return _from_csv(table, about)
        except (InputError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: {error}; predict anew") from error


def concat(parts: Iterable[Predictions]) -> Predictions:
    """Predictions of one model on several splits, one after the other.

    Provenance is that of the parts where it is the same, else {'parts': [that of each]}. Raises
    InputError for no parts, for classes that differ, answers in some parts only, or an id twice.
    """
    parts = list(parts)
    if not parts:
        raise InputError("nothing to put together: give one Predictions or more")
    first = parts[0]
    for part in parts[1:]:
        if part.classes != first.classes:
            raise InputError(f"the classes differ: {first.classes} and {part.classes}")
        if (part.answers is None) != (first.answers is None):
            raise InputError("some parts have answers and some have none: put like with like")
    same = all(part.provenance == first.provenance for part in parts)
    return Predictions(
        ids=tuple(image for part in parts for image in part.ids),
        splits=tuple(split for part in parts for split in part.splits),
        labels=tuple(label for part in parts for label in part.labels),
        classes=first.classes,
        probabilities=np.concatenate([part.probabilities for part in parts]),
        answers=None
        if first.answers is None
        else tuple(answer for part in parts for answer in part.answers),
        invalid=np.concatenate([part.invalid for part in parts]),
        provenance=first.provenance if same else {"parts": [part.provenance for part in parts]},
    )


def _set(predictions: Predictions, name: str, value: Any) -> None:
    object.__setattr__(predictions, name, value)


def _texts(values: Sequence[str], name: str) -> tuple[str, ...]:
    texts = tuple(values)
    if isinstance(values, str) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{name} must be a sequence of texts")
    return tuple(map(str, texts))


def _first_repeated(values: Sequence[str]) -> str:
    seen: set[str] = set()
    return next(value for value in values if value in seen or seen.add(value))


def _some(items: Sequence[str]) -> str:
    return ", ".join(items[:3]) + (", ..." if len(items) > 3 else "")


# ------------------------------------------------------------------------------------ the file

_UNSEEN = re.compile(
    r"[\\\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]"
)
_ESCAPE = re.compile(r"\\(?:([\\nrt])|u([0-9a-f]{4}))")
_SHORT = {"\\": "\\", "\n": "n", "\r": "r", "\t": "t"}
_LONG = {letter: character for character, letter in _SHORT.items()}
_NEEDS_APOSTROPHE = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|'")


def _to_cell(text: str) -> str:
    """Text on one line that no spreadsheet takes for a formula."""
    line = _UNSEEN.sub(lambda m: "\\" + (_SHORT.get(m[0]) or f"u{ord(m[0]):04x}"), text)
    return "'" + line if _NEEDS_APOSTROPHE.match(line) else line


def _from_cell(cell: str) -> str:
    return _ESCAPE.sub(
        lambda m: _LONG[m[1]] if m[1] else chr(int(m[2], 16)), cell.removeprefix("'")
    )


def _probability_columns(classes: Sequence[str]) -> list[str]:
    return [f"p_{name}" for name in classes]


def _header(classes: Sequence[str]) -> list[str]:
    start, end = ["id", "split", "label", "predicted", "correct"], ["answer", "invalid"]
    return [*start, *map(_to_cell, _probability_columns(classes)), *end]


def _to_csv(predictions: Predictions) -> bytes:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_header(predictions.classes))
    rows = zip(
        predictions.ids,
        predictions.splits,
        predictions.labels,
        predictions.predicted,
        predictions.correct,
        predictions.probabilities.tolist(),
        predictions.answers or [""] * len(predictions),
        predictions.invalid,
        strict=True,
    )
    for image, split, label, predicted, correct, values, answer, invalid in rows:
        texts = [_to_cell(text) for text in (image, split, label, predicted or "")]
        writer.writerow([*texts, correct, *map(repr, values), _to_cell(answer), invalid])
    return buffer.getvalue().encode("utf-8-sig")


def _from_csv(table: bytes, about: dict[str, Any]) -> Predictions:
    classes = about["classes"]
    frame = pd.read_csv(
        io.BytesIO(table), dtype=str, keep_default_na=False, na_filter=False, encoding="utf-8-sig"
    )
    if list(frame.columns) != _header(classes):
        raise InputError(f"the columns are {list(frame.columns)}, not {_header(classes)}")
    if len(frame) != about["rows"]:
        raise InputError(f"there are {len(frame)} rows, not {about['rows']}")
    texts = {
        name: tuple(map(_from_cell, frame[name]))
        for name in ("id", "split", "label", "predicted", "answer")
    }
    columns = [frame[_to_cell(name)] for name in _probability_columns(classes)]
    loaded = Predictions(
        ids=texts["id"],
        splits=texts["split"],
        labels=texts["label"],
        classes=classes,
        probabilities=np.array([[float(cell) for cell in column] for column in columns]).T,
        answers=texts["answer"] if about["has_answers"] else None,
        invalid=_flags(frame["invalid"]),
        provenance=about["provenance"],
    )
    predicted = tuple(name or "" for name in loaded.predicted)
    if predicted != texts["predicted"] or (loaded.correct != _flags(frame["correct"])).any():
        raise InputError("predicted or correct does not follow from the probabilities")
    return loaded


def _flags(column: pd.Series) -> np.ndarray:
    words = {"True": True, "False": False}
    if not set(column) <= set(words):
        raise InputError(f"{column.name} must hold True and False only")
    return np.array([words[word] for word in column], dtype=bool)


def _csv_path(path: str | os.PathLike) -> Path:
    if Path(path).suffix != ".csv":
        raise InputError(f"{path}: predictions are kept in a file whose name ends in .csv")
    return Path(path)


def _write(path: Path, content: bytes) -> None:
    """Write under a temporary name, then rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)
