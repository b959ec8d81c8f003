"""What the explorer shows of two models and the images they were asked about: table, pictures, data.

Nothing is filtered or sorted here: `explorer.js` does that in the browser, pandas in a notebook.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
from collections.abc import Callable, Mapping, Sequence
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
from ..figures import class_colours, model_colours
from ..images import open_image
from ..predictions import Predictions

CELLS = ("both", "a", "b", "neither")
"""Who is right: both models, A alone, B alone, neither."""

Images = ImageDataset | Mapping[str, Any] | str | os.PathLike
"""Where pictures come from: a data set, id -> PIL image or path, or a folder the ids are below."""

_NONE = "(none)"
_MOST_OPTIONS = 40  # different values of a metadata column that are listed
_FEW = 12  # so many are listed however few images there are, and numbers not put on a scale
_CUES = ("content", "atmosphere", "both")


@dataclass(frozen=True, eq=False)
class GateView:
    """A gate's answers with what went into them, over n images, as `Run.gate_parts` gives them.

    predictions: the gate's. student, vlm: those of its two sides, for the same images. weights:
    (n, 2) shares of student and VLM in each decision, 0 to 1, rows summing to 1, in the order of
    `predictions`. What is None is not shown.
    """

    predictions: Predictions | None
    student: Predictions | None = None
    vlm: Predictions | None = None
    weights: np.ndarray | None = None


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """float64 (n,): Jensen-Shannon divergence in bits, 0 to 1, of rows of probabilities (n, C).

    Lin (1991), doi 10.1109/18.61115.
    """
    middle = (p + q) / 2
    both = rel_entr(p, middle) + rel_entr(q, middle)
    return np.clip(both.sum(axis=1) / (2 * np.log(2)), 0, 1)


class Content:
    """Everything that the explorer shows, for the arguments of `explore`, in one order of n images.

    models: name -> predictions, A and B first. parts: of "vlm", "student" and "gate" those there are
    -> their names. share: (n,) the student's share in each decision, 0 to 1, or None. reasons: n
    texts, None where there is none, or None. columns: the metadata, a row an image. table: see
    `Explorer`. present: bool (n,), images that are there. open: id -> image.
    """

    def __init__(self, a, b, images, gate, more, names, metadata, reasons) -> None:
        view = gate if isinstance(gate, GateView) else GateView(gate)
        further = more.items() if isinstance(more, Mapping) else [(None, model) for model in more]
        self.models: dict[str, Predictions] = {}
        self._known = [(name, model) for name, model in further if name]
        added = [self._add(a, names and names[0]), self._add(b, names and names[1])]
        if added[0] == added[1]:
            self.models[f"{added[0]} (again)"] = a
        parts = {"vlm": view.vlm, "student": view.student, "gate": view.predictions}
        there = {part: model for part, model in parts.items() if model is not None}
        self.parts = {part: self._add(model) for part, model in there.items()}
        for name, model in further:
            self._add(model, name)

        self.first = self.models[added[0]]
        ids, weights = self.first.ids, view.weights
        self.share, self.reasons = None, None
        if weights is not None:
            shares = dict(zip(view.predictions.ids, weights[:, 0], strict=True))
            self.share = np.array([shares[image] for image in ids])
        if reasons is not None:
            self.reasons = [reasons.get(image) for image in ids]
        if metadata is None and isinstance(images, ImageDataset):
            metadata = images.table
        facts = self._facts()
        self.columns = _columns(self.first.splits, metadata, facts)
        self.table = facts.join(self.columns)
        self.table.attrs = {"a": added[0], "b": list(self.models)[1]}
        self.present, self.open = _source(ids, images)

    def _add(self, model: Predictions, name: str | None = None) -> str:
        """Take in a model; its name, which is that of the same one where it is here already."""
        if not isinstance(model, Predictions):
            raise InputError(f"{name or 'a model'} is {type(model).__name__}: give Predictions")
        name = name or next((key for key, known in self._known if _same(known, model)), None)
        name = name or str(model.provenance.get("model", f"model {len(self.models) + 1}"))
        for first, known in itertools.islice(self.models.items(), 1):
            try:
                model = known.aligned(model)[1]
            except InputError as error:
                raise InputError(
                    f"{first!r} (first) and {name!r} (second) cannot be compared: {error}"
                ) from error
        for key, known in self.models.items():
            if _same(known, model):
                return key
        free = (f"{name} ({k})" if k > 1 else name for k in itertools.count(1))
        name = next(key for key in free if key not in self.models)
        self.models[name] = model
        return name

    def _facts(self) -> pd.DataFrame:
        """What the models say, a row an image."""
        a, b = list(self.models.values())[:2]
        # As objects: None stays None, and pandas' own text may refuse what an id or answer holds.
        index = pd.Index(a.ids, name="id", dtype=object)
        texts = partial(pd.Series, index=index, dtype=object)
        table = pd.DataFrame({"label": texts(a.labels)})
        table["cell"] = texts(np.array(CELLS)[3 - 2 * a.correct - b.correct])
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
            "missing": np.flatnonzero(~self.present).tolist(),
        }
        return safe_json(data)

    def picture(self, row: int, size: int, quality: int) -> bytes | None:
        """One image as WebP, its longer side at most `size` pixels; None where it is missing."""
        if not self.present[row]:
            return None
        try:
            image = self.open(self.table.index[row])
        except (InputError, OSError):
            return None
        image = image.convert("RGB")
        image.thumbnail((size, size), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=quality, method=4)
        return buffer.getvalue()


def _same(a: Predictions, b: Predictions) -> bool:
    same = np.array_equal(a.probabilities, b.probabilities)
    return same and a.ids == b.ids and a.answers == b.answers


def _columns(splits: Sequence[str], metadata: pd.DataFrame | None, taken: pd.DataFrame):
    """The metadata of the images, under names that the table has not."""
    split = pd.DataFrame({"split": splits}, index=taken.index)
    if metadata is None:
        return split
    if not metadata.index.is_unique:
        twice = metadata.index[metadata.index.duplicated()][0]
        raise InputError(f"metadata has {twice!r} twice: give each image one row")
    metadata = metadata.set_axis(metadata.index.astype(object))
    metadata = metadata.drop(columns=["split", "label"], errors="ignore")
    names = [f"{name} (metadata)" if name in taken else str(name) for name in metadata.columns]
    return split.join(metadata.set_axis(names, axis=1))


def facet(name: str, values: pd.Series) -> dict[str, Any]:
    """A metadata column as the page has it: of the kind that its values are best chosen by.

    kind 'set': options and codes (n,); 'range': values (n,), None where there is none; 'text': n
    texts.
    """
    known = values.dropna()
    numeric = pd.api.types.is_numeric_dtype(known) and not pd.api.types.is_bool_dtype(known)
    if numeric and known.nunique() > _FEW:
        numbers = values.astype(float).to_numpy()
        finite = np.isfinite(numbers)
        listed = [x if ok else None for x, ok in zip(numbers.tolist(), finite, strict=True)]
        return {"name": name, "kind": "range", "values": listed}
    texts = [_text(x) if ok else None for x, ok in zip(values, values.notna(), strict=True)]
    if isinstance(values.dtype, pd.CategoricalDtype):
        options = [_text(value) for value in values.cat.categories]
    elif numeric:
        options = [_text(value) for value in sorted(known.unique())]
    else:
        cues = {cue: place for place, cue in enumerate(_CUES)}
        options = sorted({*texts} - {None}, key=lambda text: (cues.get(text, len(cues)), text))
    if len(options) > min(_MOST_OPTIONS, max(_FEW, len(values) / 4)):
        return {"name": name, "kind": "text", "values": [text or "" for text in texts]}
    if None in texts and _NONE not in options:
        options.append(_NONE)
    place = {text: k for k, text in enumerate(options)}
    codes = [place[_NONE if text is None else text] for text in texts]
    return {"name": name, "kind": "set", "options": options, "codes": codes}


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


# -------------------------------------------------------------------------------------- the pictures


def _source(ids: Sequence[str], images: Images) -> tuple[np.ndarray, Callable[[str], Image.Image]]:
    """Which images are there by name, bool (n,), and what opens one; InputError for none at all."""
    here, where = images, "the mapping"
    if isinstance(images, ImageDataset):
        here, where = set(images.ids), images.root
    elif isinstance(images, str | os.PathLike):
        where = Path(images)
        here = {path.relative_to(where).as_posix(): path for path in where.rglob("*")}
    present = np.array([image in here for image in ids], dtype=bool)
    if ids and not present.any():
        some = ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")
        raise InputError(
            f"none of the {len(ids):,} images is in {where} ({some}): give the images that were "
            "predicted"
        )
    if isinstance(images, ImageDataset):
        return present, images.open
    # Got by `get`, so that a mapping may draw its pictures when they are asked for.
    return present, lambda image: _opened(here.get(image))


def _opened(image: Image.Image | str | os.PathLike) -> Image.Image:
    return image if isinstance(image, Image.Image) else open_image(image)


# -------------------------------------------------------------------------------------- as JSON


def safe_json(value: object) -> str:
    """JSON in ASCII that cannot end a script element nor begin a comment in it."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def _packed(values: np.ndarray) -> str:
    """Base64 of the values as 32-bit floats in little-endian order."""
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode()


def _lines(value: Any, name: str = "") -> list[tuple[str, str]]:
    """A provenance as lines of name and text."""
    if isinstance(value, dict):
        parts = [_lines(part, f"{name}.{key}" if name else key) for key, part in value.items()]
        return list(itertools.chain(*parts))
    texts = [str(part) for part in (value if isinstance(value, list) else [value])]
    return [(name, "" if value is None else ", ".join(texts))]
