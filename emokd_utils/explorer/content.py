"""What the explorer shows: table, pictures, data; `explorer.js` filters and sorts them."""

import base64
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from scipy.special import rel_entr

from ..data import ImageDataset
from ..errors import InputError
from ..figures.base import CUES, class_colours, model_colours
from ..images import open_image, shrunk
from ..predictions import Predictions

Images = ImageDataset | Mapping[str, Any] | str | os.PathLike

_NONE = "(none)"


@dataclass(frozen=True, eq=False)
class GateView:
    """A gate's answers with what went into them, over n images, as `Run.gate_parts` gives them.

    weights: (n, 2) shares of student and VLM in each decision, 0 to 1, rows summing to 1, in the
    order of the gate's ``predictions``. What is None is not shown."""

    predictions: Predictions | None
    student: Predictions | None = None
    vlm: Predictions | None = None
    weights: np.ndarray | None = None


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """(n,) bits, 0 to 1, between rows of probabilities (n, C); Lin (1991), 10.1109/18.61115."""
    middle = (p + q) / 2
    both = rel_entr(p, middle) + rel_entr(q, middle)
    return np.clip(both.sum(axis=1) / (2 * np.log(2)), 0, 1)


class Content:
    """Everything that the explorer shows, for the arguments of `explore`, in one order of n images.

    models: name -> predictions, A and B first. parts: "vlm", "student", "gate" -> their names.
    share: (n,) the student's share in each decision. table: see `Explorer`. images: id -> picture.
    """

    def __init__(self, a, b, images, gate, more, names, metadata, reasons) -> None:
        view = gate if isinstance(gate, GateView) else GateView(gate)
        self.models: dict[str, Predictions] = {}
        self._more = more
        added = [self._add(a, names and names[0]), self._add(b, names and names[1])]
        if added[0] == added[1]:
            self.models[f"{added[0]} (again)"] = a
        parts = {"vlm": view.vlm, "student": view.student, "gate": view.predictions}
        self.parts = {part: self._add(model) for part, model in parts.items() if model is not None}
        for name, model in more.items():
            self._add(model, name)
        self.first = self.models[added[0]]
        ids, self.share = self.first.ids, None
        if view.weights is not None:
            shares = pd.Series(view.weights[:, 0], pd.Index(view.predictions.ids, dtype=object))
            self.share = shares[list(ids)].to_numpy()
        self.reasons = None if reasons is None else [reasons.get(image) for image in ids]
        if metadata is None:
            metadata = images.table if isinstance(images, ImageDataset) else pd.DataFrame()
        facts = self._facts()
        self.columns = _columns(self.first.splits, metadata, facts)
        self.table = facts.join(self.columns)
        self.table.attrs = {"a": added[0], "b": list(self.models)[1]}
        self.images = _pictures(ids, images)

    def _add(self, model: Predictions, name: str | None = None) -> str:
        """Take in a model; its name, which is that of the same one where it is here already."""
        if not isinstance(model, Predictions):
            raise InputError(f"{name or 'a model'} is {type(model).__name__}: give Predictions")
        name = name or next((key for key, known in self._more.items() if _same(known, model)), None)
        name = name or str(model.provenance.get("model", "model"))
        first = next(iter(self.models), None)
        try:
            model = self.models[first].aligned(model)[1] if self.models else model
        except InputError as error:
            raise InputError(f"{first!r} and {name!r} cannot be compared: {error}") from error
        for key, known in self.models.items():
            if _same(known, model):
                return key
        if name in self.models:
            name = f"{name} ({len(self.models)})"
        self.models[name] = model
        return name

    def _facts(self) -> pd.DataFrame:
        a, b = list(self.models.values())[:2]
        # As objects: None stays None, and pandas' own text may refuse what an id or answer holds.
        texts = partial(pd.Series, index=pd.Index(a.ids, name="id", dtype=object), dtype=object)
        table = pd.DataFrame({"label": texts(a.labels)})
        right = np.array(["both", "a", "b", "neither"])[3 - 2 * a.correct - b.correct]
        table["cell"] = texts(right)
        for side, model in (("a", a), ("b", b)):
            table[f"predicted_{side}"] = texts(model.predicted)
            table[f"confidence_{side}"] = model.probabilities.max(axis=1)
            table[f"correct_{side}"] = model.correct
        table["disagreement"] = jensen_shannon(a.probabilities, b.probabilities)
        if answers := [model.answers for model in self.models.values() if model.answers]:
            table["answer"] = texts(answers[0])
        if self.reasons is not None:
            table["reason"] = texts(self.reasons)
        if "gate" in self.parts:
            gate = self.models[self.parts["gate"]]
            table["gate_predicted"] = texts(gate.predicted)
            table["gate_correct"] = gate.correct
        if self.share is not None:
            table["gate_student_share"] = self.share
        return table

    def to_json(self) -> str:
        """The data of widget and page: ASCII, and no '<', '>' or '&' in it."""
        names = list(self.models)
        shades, classes = model_colours(names), class_colours(self.first.classes)
        models = [
            {
                "name": name,
                "colour": shades[name],
                "probabilities": _packed(model.probabilities),
                "predicted": model.predicted_index.tolist(),
                "answers": model.answers,
                "provenance": _lines(model.provenance),
            }
            for name, model in self.models.items()
        ]
        data = {
            "ids": self.first.ids,
            "labels": self.first.label_index.tolist(),
            "classes": [{"name": name, "colour": colour} for name, colour in classes.items()],
            "models": models,
            **{part: names.index(name) for part, name in self.parts.items()},
            "share": None if self.share is None else _packed(self.share),
            "columns": [facet(name, values) for name, values in self.columns.items()],
            "reasons": self.reasons,
            "missing": [k for k, image in enumerate(self.first.ids) if image not in self.images],
        }
        return safe_json(data)

    def picture(self, row: int, size: int, quality: int) -> bytes | None:
        """One image as WebP, its longer side at most `size` pixels; None where it is missing."""
        image = self.images.get(self.first.ids[row])
        if image is None:
            return None
        try:
            image = image() if callable(image) else image
            image = image if isinstance(image, Image.Image) else open_image(image)
            return shrunk(image, size, quality)
        except (InputError, OSError):
            return None


def _same(a: Predictions, b: Predictions) -> bool:
    same = np.array_equal(a.probabilities, b.probabilities)
    return same and a.ids == b.ids and a.answers == b.answers


def _columns(splits: Sequence[str], metadata: pd.DataFrame, taken: pd.DataFrame):
    split = pd.DataFrame({"split": splits}, index=taken.index)
    if not metadata.index.is_unique:
        twice = metadata.index[metadata.index.duplicated()][0]
        raise InputError(f"metadata has {twice!r} twice: give each image one row")
    metadata = metadata.set_axis(metadata.index.astype(object))
    metadata = metadata.drop(columns=["split", "label"], errors="ignore")
    names = [f"{name} (metadata)" if name in taken else str(name) for name in metadata.columns]
    return split.join(metadata.set_axis(names, axis=1))


def facet(name: str, values: pd.Series) -> dict[str, Any]:
    """A metadata column as the page has it: a 'set' of options with codes, a 'range', or 'text'."""
    known = values.dropna()
    numeric = pd.api.types.is_numeric_dtype(known) and not pd.api.types.is_bool_dtype(known)
    if numeric and known.nunique() > 12:  # fewer are listed
        numbers = values.astype(float).tolist()
        listed = [x if math.isfinite(x) else None for x in numbers]
        return {"name": name, "kind": "range", "values": listed}
    texts = [_text(x) if ok else None for x, ok in zip(values, values.notna(), strict=True)]
    if numeric:
        options = [_text(value) for value in sorted(known.unique())]
    else:
        options = sorted({*texts} - {None}, key=lambda text: (CUES.get(text, len(CUES)), text))
    if len(options) > 40:
        return {"name": name, "kind": "text", "values": [text or "" for text in texts]}
    texts = [_NONE if text is None else text for text in texts]
    options = list(dict.fromkeys([*options, *texts]))
    codes = [options.index(text) for text in texts]
    return {"name": name, "kind": "set", "options": options, "codes": codes}


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _pictures(ids: Sequence[str], images: Images) -> Mapping[str, Any]:
    """Id -> PIL image, path or what opens it; InputError where none of the ids has one."""
    where: Any = "the mapping"
    if isinstance(images, ImageDataset):
        where, images = images.root, {image: partial(images.open, image) for image in images.ids}
    elif isinstance(images, str | os.PathLike):
        where = Path(images)
        images = {path.relative_to(where).as_posix(): path for path in where.rglob("*")}
    if ids and not any(image in images for image in ids):
        missing = f"none of the {len(ids):,} images is in {where} ({ids[0]}, ...)"
        raise InputError(f"{missing}: give the images that were predicted")
    return images


def safe_json(value: object) -> str:
    """JSON in ASCII that cannot end a script element nor begin a comment in it."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode()


def _lines(value: Any, name: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        inner = ((f"{name}.{key}".lstrip("."), part) for key, part in value.items())
        return [line for name, part in inner for line in _lines(part, name)]
    texts = value if isinstance(value, list) else ["" if value is None else value]
    return [(name, ", ".join(map(str, texts)))]
