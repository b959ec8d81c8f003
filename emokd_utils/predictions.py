"""Predictions: the one type that every model yields, and the file that holds it. A row is an image:
its id, split and label, a probability for each class and, for a VLM, the text it wrote."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import __version__
from .errors import InputError
from .files import canonical_json
from .tables import load_table, save_table

FORMAT = "emokd-predictions-1"
SUM_TOLERANCE = 1e-6

# Names of the rows of the final table.
ZERO_SHOT, TUNED, VISION = "VLM, zero-shot", "VLM, tuned", "vision model"
PROBE = "linear probe of the vision model"  # pretrained, before it is fine-tuned
HEAD_PLAIN, HEAD = "head, no teacher", "head, distilled"
PUBLISHED = "EmoVLM-KD, gate as published"
AVERAGE, REGRESSION = "average of head and VLM", "logistic regression on both"  # no gate
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
    Raises InputError, naming the first row at fault, for anything else."""

    ids: tuple[str, ...]
    splits: tuple[str, ...]
    labels: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: np.ndarray
    answers: tuple[str, ...] | None = None
    invalid: np.ndarray | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("ids", "splits", "labels", "classes", "answers"):
            if (texts := getattr(self, name)) is not None:
                object.__setattr__(self, name, tuple(map(str, texts)))
        invalid = [False] * len(self.ids) if self.invalid is None else self.invalid
        object.__setattr__(self, "invalid", np.array(invalid, dtype=bool))
        object.__setattr__(self, "probabilities", np.array(self.probabilities, dtype=np.float64))
        object.__setattr__(self, "provenance", json.loads(canonical_json(self.provenance)))
        self._check()
        self.probabilities.flags.writeable = self.invalid.flags.writeable = False

    def _check(self) -> None:
        n, classes, values = len(self.ids), self.classes, self.probabilities
        if len(classes) < 2 or len(set(classes)) < len(classes) or "" in classes:
            raise InputError(f"classes must be two or more different names: {classes}")
        columns, shape = (self.splits, self.labels, self.invalid, self.answers), (n, len(classes))
        if {len(x) for x in columns if x is not None} != {n} or values.shape != shape:
            raise InputError(f"{n} ids need {n} splits, labels, ... and probabilities of {shape}")
        foreign = np.array([label not in classes for label in self.labels], dtype=bool)
        shares = (values >= 0).all(axis=1) & (np.abs(values.sum(axis=1) - 1) <= SUM_TOLERANCE)
        uniform = (np.abs(values - 1 / len(classes)) <= SUM_TOLERANCE).all(axis=1)
        for wrong, what in (
            (pd.Index(self.ids, dtype=object).duplicated(), "comes twice:"),
            (foreign, f"has a label that is none of {', '.join(classes)}:"),
            (~shares, "has probabilities that are not 0 or more with the sum 1:"),
            (self.invalid & ~uniform, "is invalid, but its probabilities are not uniform:"),
        ):
            if wrong.any():
                row = int(wrong.argmax())
                raise InputError(f"{self.ids[row]!r} {what} {self.labels[row]!r}, {values[row]}")

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        none = f", no label {self.invalid.mean():.3f}" if self.invalid.any() else ""
        about = f"accuracy {self.accuracy:.3f}{none}, model {self.provenance.get('model')}"
        return f"Predictions(n={len(self)}, {len(self.classes)} classes, {about})"

    @property
    def predicted_index(self) -> np.ndarray:
        """int64 (n,): the likeliest class (the first of equals), -1 where the answer is invalid."""
        return np.where(self.invalid, -1, self.probabilities.argmax(axis=1))

    @property
    def predicted(self) -> tuple[str | None, ...]:
        """The likeliest class of each image, None where the answer is invalid."""
        return tuple((*self.classes, None)[k] for k in self.predicted_index)

    @property
    def label_index(self) -> np.ndarray:
        """int64 (n,): the label's place among the classes."""
        return np.array([self.classes.index(label) for label in self.labels], dtype=np.int64)

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

    def split(self, name: str) -> "Predictions":
        """The images of one split, in their order; InputError names the splits there are."""
        if name not in self.splits:
            there = ", ".join(sorted(set(self.splits))) or "none"
            raise InputError(f"no predictions for split {name!r}; there are: {there}")
        return self.select(np.array(self.ids, dtype=object)[np.array(self.splits) == name])

    def select(self, ids: Iterable[str]) -> "Predictions":
        """The images with these ids, in the order asked; InputError names the first unknown."""
        ids, row_of = tuple(ids), {image_id: row for row, image_id in enumerate(self.ids)}
        if unknown := [image_id for image_id in ids if image_id not in row_of]:
            raise InputError(f"no prediction for {len(unknown)} images: {', '.join(unknown[:3])}")
        rows = [row_of[image_id] for image_id in ids]
        taken = {name: [getattr(self, name)[row] for row in rows] for name in ("splits", "labels")}
        taken["answers"] = self.answers and [self.answers[row] for row in rows]
        taken |= {"probabilities": self.probabilities[rows], "invalid": self.invalid[rows]}
        return replace(self, ids=ids, **taken)

    def aligned(self, other: "Predictions") -> tuple["Predictions", "Predictions"]:
        """This and the other in this one's order; InputError for other classes, ids, labels."""
        if self.classes != other.classes:
            raise InputError(f"the classes differ: {self.classes} and {other.classes}")
        mine, theirs = (dict(zip(x.ids, x.labels, strict=True)).items() for x in (self, other))
        if differ := sorted({image_id for image_id, _ in mine ^ theirs}):
            what = f"images or labels of {len(differ)} images differ: {', '.join(differ[:3])}"
            raise InputError(f"{what}; compare the same split of the same data")
        return self, other.select(self.ids)

    def to_frame(self) -> pd.DataFrame:
        """A row an image, indexed by id: split, label, predicted (None where invalid), correct,
        p_<class> of each class, answer (None where the model writes none), invalid."""
        texts = partial(pd.Series, dtype=object)  # pandas' own type refuses lone surrogates
        columns = {"id": texts(self.ids), "split": texts(self.splits), "label": texts(self.labels)}
        columns |= {"predicted": texts(self.predicted), "correct": self.correct}
        columns |= zip((f"p_{name}" for name in self.classes), self.probabilities.T, strict=True)
        columns["answer"] = texts(self.answers or [None] * len(self))
        return pd.DataFrame(columns | {"invalid": self.invalid}).set_index("id")

    def save(self, path: str | os.PathLike) -> Path:
        """Write `to_frame` to `path`, a .csv, and classes and provenance to a .json beside."""
        about = {"format": FORMAT, "rows": len(self), "classes": self.classes}
        about |= {"has_answers": self.answers is not None, "provenance": self.provenance}
        return save_table(path, self.to_frame(), about)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Predictions":
        """What `save` wrote; InputError for a file that is missing, changed or not sound."""
        try:
            table, about = load_table(path, FORMAT)
            values = table[[f"p_{name}" for name in about["classes"]]].to_numpy(dtype=object)
            answers = table["answer"] if about["has_answers"] else None
            images = (table["id"], table["split"], table["label"], about["classes"])
            return cls(*images, values, answers, table["invalid"] == "True", about["provenance"])
        except (OSError, LookupError, TypeError, ValueError) as error:
            raise InputError(f"{path}: {error}; make it and its .json anew") from error

    @classmethod
    def read(cls, path: str | os.PathLike) -> "Predictions":
        """A table of any model's: what `save` wrote, or a CSV with the columns id and label, perhaps
        split, and one for each class with its probability, called as the class or p_<class>. Rows
        that sum to 1 within a hundredth are rescaled. Raises InputError for anything else."""
        if Path(path).with_suffix(".json").is_file():
            return cls.load(path)
        try:
            table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
            table = table.rename(columns=lambda name: name.strip())
            known = ("id", "label", "split", "predicted", "correct", "answer", "invalid")
            named = [name for name in table.columns if name not in known]
            values = table[named].to_numpy(np.float64)
            sums = values.sum(axis=1, keepdims=True)
            if values.size and np.abs(sums - 1).max() > 0.01:
                at = int(np.abs(sums - 1).argmax())
                raise ValueError(
                    f"the probabilities of {table['id'][at]!r} sum to {sums[at, 0]:.3g}"
                )
            splits = table.get("split", pd.Series(["val"] * len(table)))
            classes = [name.removeprefix("p_") for name in named]
            about = {"model": Path(path).stem}
            return cls(
                table["id"], splits, table["label"], classes, values / sums, provenance=about
            )
        except (OSError, LookupError, TypeError, ValueError) as error:
            what = f"no column {error}" if isinstance(error, KeyError) else error
            wanted = "a CSV has the columns id, label and one of probabilities for each class"
            raise InputError(f"{path}: {what}; {wanted}") from error
