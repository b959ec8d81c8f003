"""The explorer: seeing, image by image, where two models disagree.

``explore(a, b, images)`` is a Jupyter widget, and its ``to_html`` writes the same thing as one page
that opens from disk, without a server or a network. Both are drawn by `explorer.js`.

What is shown is one text, the *view*, written like the query of a URL: ``cell=a&label=fear`` is what
only A got right among the images labelled fear. The page keeps it in the URL's hash, the widget in
``view``. Its keys, of which those that filter may be repeated where they take names:

    a, b                names of the two models
    cell                both, a, b or neither: who is right
    label               a class
    says_a, says_b      a predicted class, or (none) for an answer that names none
    conf_a, conf_b      LOW..HIGH, probability of the predicted class, in 0..1
    words               all of these words are in the VLM's answer or reason
    gate                right or wrong
    share               LOW..HIGH, the student's share in the gate's decision, in 0..1
    col.NAME            a metadata column: a value, LOW..HIGH, or words
    sort, order         disagreement, conf_a, conf_b or id; up or down
    open                id of the image that is open

Disagreement is the Jensen-Shannon divergence of the two distributions in bits, 0 to 1 (Lin 1991,
doi 10.1109/18.61115).
"""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote

import anywidget
import numpy as np
import pandas as pd
import traitlets
from PIL import Image

from ..data import ImageDataset
from ..errors import InputError
from ..figures import class_colours, model_colours
from ..images import open_image
from ..predictions import Predictions

if TYPE_CHECKING:
    from ..run.pipeline import Pipeline

STATIC = Path(__file__).parent
MAX_MB = 8.0
CELLS = ("both", "a", "b", "neither")
CELL_NAMES = ("both right", "only A", "only B", "neither")
NONE = "(none)"
SORTS = ("disagreement", "conf_a", "conf_b", "id")

Images = ImageDataset | Mapping[str, Any] | str | os.PathLike
"""Where pictures come from: a data set, id -> PIL image or path, or a folder the ids are below."""

_PICTURES = ((256, 82), (192, 80), (160, 78), (128, 75), (112, 70), (96, 60), (80, 50))
"""Longest side in pixels and WebP quality, from the best to the smallest."""
_FOLDER_PICTURE, _TILE_PICTURE, _OPEN_PICTURE = (256, 80), (224, 80), (1024, 85)
_MOST_PICTURES = 256  # of one message
_MOST_OPTIONS = 40  # different values of a metadata column that are listed
_FEW_OPTIONS = 12  # so many are listed however few images there are
_FEW_NUMBERS = 12  # different numbers that are listed and not put on a scale
_CUES = ("content", "atmosphere", "both")
_DARK = "#15191e"


@dataclass(frozen=True, eq=False)
class GateView:
    """A gate's answers with what went into them, over n images.

    predictions: the gate's. student, vlm: those of its two sides, for the same images. weights:
    (n, 2) shares of student and VLM in each decision, rows summing to 1, in the order of
    `predictions`, as `TrainedGate.weights` gives them. What is None is not shown.

    Raises InputError for weights that are not such shares.
    """

    predictions: Predictions
    student: Predictions | None = None
    vlm: Predictions | None = None
    weights: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.weights is None:
            return
        weights = np.asarray(self.weights, dtype=np.float64)
        shape = (len(self.predictions), 2)
        if weights.shape != shape or not np.isfinite(weights).all():
            raise InputError(f"weights of shape {weights.shape}: give finite shares {shape}")
        if weights.size and (weights.min() < -1e-4 or abs(weights.sum(1) - 1).max() > 1e-4):
            raise InputError("weights must be at least 0 and sum to 1 in each row")
        object.__setattr__(self, "weights", weights)

    @classmethod
    def from_pipeline(
        cls, pipeline: Pipeline, seed: int = 0, kind: str | None = None, split: str = "test"
    ) -> GateView:
        """The gate of a pipeline, for the images of one split; what is missing is trained."""
        from ..gates import gate_inputs
        from ..predictions import HEAD

        gate, vlm = pipeline.gate(seed, kind), pipeline.tuned(seed)
        logits = pipeline.head(seed).logits(pipeline.features())
        student = Predictions.from_logits(
            logits,
            ids=vlm.ids,
            splits=vlm.splits,
            labels=vlm.labels,
            classes=vlm.classes,
            provenance={"model": HEAD, "seed": seed},
        )
        inputs = gate_inputs(logits, vlm.probabilities, vlm.one_hot(), gate.settings.inputs)
        inside = np.array([where == split for where in vlm.splits], dtype=bool)
        return cls(
            pipeline.emovlm_kd(seed, kind=kind).split(split),
            student.split(split),
            vlm.split(split),
            gate.weights(*inputs)[inside],
        )


def explore(
    a: Predictions,
    b: Predictions,
    images: Images,
    gate: Predictions | GateView | None = None,
    *,
    more: Mapping[str, Predictions] | Iterable[Predictions] = (),
    names: tuple[str, str] | None = None,
    metadata: pd.DataFrame | None = None,
    reasons: Mapping[str, str] | None = None,
    view: str = "",
) -> Explorer:
    """A widget that shows where models A and B agree and where they do not.

    images: a data set, a mapping of image id to PIL image or path, or the folder that the ids are
        relative to. An image that is missing or damaged is shown as missing.
    gate: what combines the two, its Predictions alone or with what went into them.
    more: further predictions of the same images, to be put in A's or B's place; of a mapping the
        keys are the names (also of A, B and the gate where they are among its values).
    names: of A and B; by default those in `more`, else their provenance's model.
    metadata: a row an image, indexed by id; by default the columns of the data set's table.
    reasons: image id -> why, in the VLM's words (`VLM.reasons`).
    view: what to show at first, see this module.

    Raises InputError, naming models and images, for predictions of other images, labels or
    classes; where none of the images is found; for metadata with an id twice; for a view that
    cannot be read.
    """
    content = _content(a, b, images, gate, more, names, metadata, reasons)
    content.state(view)
    return Explorer(content, view)


class Explorer(anywidget.AnyWidget):
    """What `explore` returns.

    view: what is shown (see this module), kept by the widget as one clicks; assigning it changes
    what is shown, and InputError says what of it cannot be read.
    """

    _esm = STATIC / "explorer.js"
    _css = STATIC / "explorer.css"
    _data = traitlets.Bytes().tag(sync=True)
    view = traitlets.Unicode("").tag(sync=True)

    def __init__(self, content: _Content, view: str = "") -> None:
        self._content = content
        super().__init__(_data=content.to_json().encode("ascii"), view=view)
        self.on_msg(self._on_message)

    def __repr__(self) -> str:
        chosen, (a, b) = self.selection, self.selection.attrs.values()
        return f"Explorer({a} and {b}: {len(chosen):,} of {len(self._content):,} images selected)"

    @traitlets.validate("view")
    def _valid_view(self, proposal: dict[str, Any]) -> str:
        view = proposal["value"].removeprefix("#")
        self._content.state(view)
        return view

    @property
    def selection(self) -> pd.DataFrame:
        """The images that pass the filters, in the gallery's order, indexed by id.

        Columns: split, label, cell; predicted, confidence (0..1) and correct of A and of B;
        disagreement (bits, 0..1); answer and reason of the VLM; predicted, correct and student's
        share of the gate; the metadata. What was not given has no column. ``attrs`` names A and B.
        """
        return self._content.table(self.view)

    def to_html(
        self,
        path: str | os.PathLike,
        *,
        view: str | None = None,
        pictures: str = "inside",
        max_mb: float = MAX_MB,
    ) -> Path:
        """Write the explorer as a page that needs no server and no network.

        view: what the page shows at first, by default what the widget shows now.
        pictures: 'inside' the page, as large as fits, or in a 'folder' beside it,
            ``<stem>_pictures``, for many images; mail both then.
        max_mb: size of the page at most, in 10^6 bytes.

        Raises InputError for another suffix than .html, a view that cannot be read, or more
        images than fit.
        """
        path, content = Path(path), self._content
        if path.suffix.lower() not in (".html", ".htm"):
            raise InputError(f"{path} is no page: give a name that ends in .html")
        if pictures not in ("inside", "folder"):
            raise InputError(f"pictures is {pictures!r}: choose 'inside' or 'folder'")
        view = self.view if view is None else view.removeprefix("#")
        content.state(view)
        path.parent.mkdir(parents=True, exist_ok=True)
        if pictures == "folder":
            folder = path.with_name(f"{path.stem}_pictures")
            content.write_pictures(folder)
            where: dict[str, Any] = {"folder": quote(folder.name)}
            page = _page(content, view, where)
        else:
            page = _page(content, view, {"inside": []})
            left = int(max_mb * 1e6) - len(page.encode())
            page = _page(content, view, {"inside": content.pictures(left, max_mb)})
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(page, encoding="utf-8", newline="\n")
        temporary.replace(path)
        return path

    def _on_message(self, widget: object, message: object, buffers: object) -> None:
        """Answer the page's request for pictures; anything else is left alone."""
        if not isinstance(message, dict) or message.get("type") != "pictures":
            return
        rows, large = message.get("rows"), message.get("large") is True
        if not isinstance(rows, list) or len(rows) > _MOST_PICTURES:
            return
        n = len(self._content)
        rows = [row for row in rows if isinstance(row, int) and 0 <= row < n]
        size = _OPEN_PICTURE if large else _TILE_PICTURE
        found = [self._content.picture(row, *size) or b"" for row in rows]
        self.send({"type": "pictures", "rows": rows, "large": large}, found)


# ------------------------------------------------------------------------------------- what is shown


@dataclass(frozen=True, eq=False)
class _Column:
    """A metadata column. kind: 'category' (options, codes (n,)), 'number' or 'text' (values)."""

    name: str
    kind: str
    values: pd.Series
    options: tuple[str, ...] = ()
    codes: np.ndarray | None = None

    def numbers(self) -> np.ndarray:
        """float64 (n,): the values, nan where there is none."""
        found = pd.to_numeric(self.values, errors="coerce").to_numpy(np.float64, na_value=np.nan)
        return np.where(np.isfinite(found), found, np.nan)

    def texts(self) -> list[str]:
        """The values as n texts, empty where there is none."""
        pairs = zip(self.values, self.values.isna(), strict=True)
        return ["" if gone else str(value) for value, gone in pairs]


@dataclass(frozen=True)
class _Filter:
    """One thing to filter by: options and codes (n,), or values (n,), or n lower-case texts."""

    kind: str
    options: tuple[str, ...] = ()
    codes: np.ndarray | None = None
    values: np.ndarray | None = None
    texts: tuple[str, ...] = ()

    def passing(self, wanted: list[str], key: str) -> np.ndarray:
        """bool (n,): rows that pass; InputError for a value that is not there to be chosen."""
        if self.kind == "set":
            unknown = [name for name in wanted if name not in self.options]
            if unknown:
                there = ", ".join(self.options[:12]) + ", ..." * (len(self.options) > 12)
                raise InputError(f"{key} is {unknown[0]!r}: choose of {there}")
            return np.isin(self.codes, [self.options.index(name) for name in wanted])
        if self.kind == "range":
            low, _, high = wanted[-1].partition("..")
            try:
                ends = float(low), float(high)
            except ValueError:
                raise InputError(f"{key} is {wanted[-1]!r}: write LOW..HIGH, as 0.2..0.8") from None
            return (self.values >= ends[0]) & (self.values <= ends[1])
        words = wanted[-1].lower().split()
        return np.array([all(word in text for word in words) for text in self.texts], dtype=bool)


@dataclass(frozen=True, eq=False)
class _State:
    """A view that was read: places of A and B, the rows shown in their order, divergence (n,)."""

    a: int
    b: int
    rows: np.ndarray
    disagreement: np.ndarray


@dataclass(frozen=True, eq=False)
class _Content:
    """Everything that the explorer shows, aligned to one order of n images."""

    models: tuple[tuple[str, Predictions], ...]
    columns: tuple[_Column, ...]
    images: Images
    present: np.ndarray
    gate: int | None
    student: int | None
    vlm: int | None
    weights: np.ndarray | None
    reasons: tuple[str | None, ...] | None

    def __len__(self) -> int:
        return len(self.first)

    @property
    def first(self) -> Predictions:
        """The predictions whose order of images is that of everything."""
        return self.models[0][1]

    # --------------------------------------------------------------------------------- the view

    def state(self, view: str) -> _State:
        """Read a view; InputError for a key or value that is unknown."""
        asked: dict[str, list[str]] = {}
        for key, value in parse_qsl(view.removeprefix("#"), keep_blank_values=True):
            asked.setdefault(key, []).append(value)
        names = [name for name, _ in self.models]
        places = []
        for side, otherwise in (("a", 0), ("b", 1)):
            name = asked.pop(side, [names[otherwise]])[-1]
            if name not in names:
                raise InputError(f"{side} is {name!r}: choose of {', '.join(names)}")
            places.append(names.index(name))
        sort, order = asked.pop("sort", ["disagreement"])[-1], asked.pop("order", [None])[-1]
        if sort not in SORTS or order not in (None, "up", "down"):
            raise InputError(
                f"sort is {sort!r} and order {order!r}: choose of {', '.join(SORTS)}; up, down"
            )
        opened = asked.pop("open", [""])[-1]
        if opened and opened not in self.first.ids:
            raise InputError(f"open is {opened!r}, but no such image is shown")
        filters = self._filters(*places)
        inside = np.ones(len(self), dtype=bool)
        for key, wanted in asked.items():
            if key not in filters:
                there = ", ".join(["a", "b", *filters, "sort", "order", "open"])
                raise InputError(f"a view has no {key!r}: choose of {there}")
            inside &= filters[key].passing(wanted, key)
        p, q = (self._float32(place) for place in places)
        disagreement = jensen_shannon(p, q)
        keys = {
            "disagreement": np.round(disagreement, 6),
            "conf_a": p.max(axis=1),
            "conf_b": q.max(axis=1),
            "id": self._rank().astype(np.float64),
        }[sort]
        down = order == "down" if order else sort != "id"
        ranked = np.lexsort((self._rank(), -keys if down else keys))
        return _State(*places, ranked[inside[ranked]], disagreement)

    def _filters(self, a: int, b: int) -> dict[str, _Filter]:
        first, (one, two) = self.first, (self.models[a][1], self.models[b][1])
        cell = 2 * ~one.correct + ~two.correct
        says = (*first.classes, NONE)
        filters = {
            "cell": _Filter("set", CELLS, cell),
            "label": _Filter("set", first.classes, first.label_index),
        }
        for side, place in (("a", a), ("b", b)):
            model = self.models[place][1]
            codes = model.predicted_index % len(says)
            filters[f"says_{side}"] = _Filter("set", says, codes)
            sure = self._float32(place).max(axis=1)
            filters[f"conf_{side}"] = _Filter("range", values=sure)
        if (writer := self._writer(a, b)) is not None or self.reasons:
            answers = () if writer is None else self.models[writer][1].answers
            answers, reasons = answers or [""] * len(self), self.reasons or [None] * len(self)
            both = zip(answers, reasons, strict=True)
            texts = tuple(f"{answer}\n{reason or ''}".lower() for answer, reason in both)
            filters["words"] = _Filter("text", texts=texts)
        if self.gate is not None:
            right = self.models[self.gate][1].correct
            filters["gate"] = _Filter("set", ("right", "wrong"), 1 - right.astype(int))
        if self.weights is not None:
            share = self.weights[:, 0].astype(np.float32).astype(np.float64)
            filters["share"] = _Filter("range", values=share)
        for column in self.columns:
            key = f"col.{column.name}"
            if column.kind == "category":
                filters[key] = _Filter("set", column.options, column.codes)
            elif column.kind == "number":
                filters[key] = _Filter("range", values=column.numbers())
            else:
                texts = tuple(text.lower() for text in column.texts())
                filters[key] = _Filter("text", texts=texts)
        return filters

    def _writer(self, a: int, b: int) -> int | None:
        """Whose answers are searched and shown: A's, else B's, else the first there are."""
        order = [a, b, *range(len(self.models))]
        return next((k for k in order if self.models[k][1].answers is not None), None)

    def _float32(self, place: int) -> np.ndarray:
        """float64 (n, C) probabilities, rounded as the page has them."""
        return self.models[place][1].probabilities.astype(np.float32).astype(np.float64)

    def _rank(self) -> np.ndarray:
        """int32 (n,): each image's place by id."""
        order = sorted(range(len(self)), key=self.first.ids.__getitem__)
        rank = np.empty(len(self), dtype=np.int32)
        rank[order] = np.arange(len(self), dtype=np.int32)
        return rank

    def table(self, view: str) -> pd.DataFrame:
        """`Explorer.selection` of a view."""
        state, first = self.state(view), self.first
        index = pd.Index(first.ids, name="id", dtype=object)

        def texts(values: Sequence[str | None]) -> pd.Series:
            return pd.Series(values, index, dtype=object)  # None stays None

        names = self.models[state.a][0], self.models[state.b][0]
        one, two = (self.models[place][1] for place in (state.a, state.b))
        found: dict[str, Any] = {
            "split": first.splits,
            "label": first.labels,
            "cell": np.array(CELL_NAMES, object)[2 * ~one.correct + ~two.correct],
        }
        for side, model, place in (("a", one, state.a), ("b", two, state.b)):
            found[f"predicted_{side}"] = texts(model.predicted)
            found[f"confidence_{side}"] = self._float32(place).max(axis=1)
            found[f"correct_{side}"] = model.correct
        found["disagreement"] = state.disagreement
        if (writer := self._writer(state.a, state.b)) is not None:
            found["answer"] = texts(self.models[writer][1].answers)
        if self.reasons is not None:
            found["reason"] = texts(self.reasons)
        if self.gate is not None:
            gate = self.models[self.gate][1]
            found["gate_predicted"] = texts(gate.predicted)
            found["gate_correct"] = gate.correct
        if self.weights is not None:
            found["gate_student_share"] = self.weights[:, 0]
        table = pd.DataFrame(found, index=index)
        for column in self.columns:
            name = column.name
            if name != "split":
                free = f"{name} (metadata)" if name in table else name
                table[free] = column.values.set_axis(index)
        table = table.iloc[state.rows]
        table.attrs = {"a": names[0], "b": names[1]}
        return table

    # --------------------------------------------------------------------------------- the data

    def to_json(self) -> str:
        """The data of widget and page: ASCII, and no '<', '>' or '&' in it."""
        first, n = self.first, len(self)
        names = [name for name, _ in self.models]
        shades, classes = model_colours(names), class_colours(first.classes)
        splits = sorted(set(first.splits))
        data = {
            "n": n,
            "ids": first.ids,
            "rank": _packed(self._rank(), np.int32),
            "labels": _packed(first.label_index, np.int32),
            "classes": [{"name": name, "colour": _shades(classes[name])} for name in first.classes],
            "splits": {
                "options": splits,
                "codes": _packed([splits.index(name) for name in first.splits], np.int32),
            },
            "models": [
                {
                    "name": name,
                    "colour": _shades(shades[name]),
                    "probabilities": _packed(model.probabilities, np.float32),
                    "predicted": _packed(model.predicted_index, np.int32),
                    "answers": model.answers,
                    "provenance": _flat(model.provenance),
                }
                for name, model in self.models
            ],
            "gate": self.gate,
            "student": self.student,
            "vlm": self.vlm,
            "share": None if self.weights is None else _packed(self.weights[:, 0], np.float32),
            "columns": [_column_data(column) for column in self.columns],
            "reasons": self.reasons,
            "missing": np.flatnonzero(~self.present).tolist(),
        }
        return _safe_json(data)

    # ----------------------------------------------------------------------------- the pictures

    def picture(self, row: int, size: int, quality: int) -> bytes | None:
        """One image as WebP, its longer side at most `size` pixels; None where it is missing."""
        if not self.present[row]:
            return None
        try:
            image = _open(self.images, self.first.ids[row])
        except (InputError, OSError):
            return None
        if image is None:
            return None
        image = image.convert("RGB")
        image.thumbnail((size, size), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=quality, method=4)
        return buffer.getvalue()

    def pictures(self, budget: int, max_mb: float) -> list[str | None]:
        """Every image in base64, as large as all of them fit into `budget` bytes."""
        n = len(self)
        sample = np.unique(np.linspace(0, n - 1, min(n, 48)).astype(int)) if n else []
        for size, quality in _PICTURES:
            if n > len(sample):
                some = [self.picture(row, size, quality) or b"" for row in sample]
                if np.mean([4 * len(one) / 3 + 5 for one in some]) * n > 0.98 * budget:
                    continue
            found = [
                base64.b64encode(one).decode() if one else None for one in self._all(size, quality)
            ]
            if sum(len(one or "null") + 3 for one in found) <= budget:
                return found
        raise InputError(
            f"the data and {n:,} pictures do not fit into {max_mb:g} MB: write them beside the "
            "page with pictures='folder', explore fewer images, or raise max_mb"
        )

    def write_pictures(self, folder: Path) -> None:
        """Every image as ``<row>.webp`` in a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for row, data in enumerate(self._all(*_FOLDER_PICTURE)):
            path = folder / f"{row:06d}.webp"
            if data is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(data)

    def _all(self, size: int, quality: int) -> Iterable[bytes | None]:
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            yield from pool.map(lambda row: self.picture(row, size, quality), range(len(self)))


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """float64 (n,): Jensen-Shannon divergence in bits, 0 to 1, of rows of probabilities (n, C)."""
    p, q = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [np.where(x > 0, x * np.log2(x / middle), 0) for x in (p, q)]
    return np.clip((parts[0] + parts[1]).sum(axis=1) / 2, 0, 1)


# -------------------------------------------------------------------------------------- putting in


def _content(
    a: Predictions,
    b: Predictions,
    images: Images,
    gate: Predictions | GateView | None,
    more: Mapping[str, Predictions] | Iterable[Predictions],
    names: tuple[str, str] | None,
    metadata: pd.DataFrame | None,
    reasons: Mapping[str, str] | None,
) -> _Content:
    further = list(more.items()) if isinstance(more, Mapping) else [(None, one) for one in more]
    known = [(name, model) for name, model in further if name is not None]
    if gate is not None and not isinstance(gate, GateView):
        gate = GateView(gate)
    models: list[tuple[str, Predictions]] = []

    def load(model: Predictions, name: str | None) -> int:
        """Place of a model among those loaded, at their end if it is new."""
        if not isinstance(model, Predictions):
            raise InputError(f"{name or 'a model'} is {type(model).__name__}: give Predictions")
        name = name or next((key for key, one in known if _same(one, model)), None)
        name = name or str(model.provenance.get("model", f"model {len(models) + 1}"))
        if models:
            try:
                model = models[0][1].aligned(model)[1]
            except InputError as error:
                raise InputError(
                    f"{models[0][0]!r} (first) and {name!r} (second) cannot be compared: {error}"
                ) from error
        for place, (its, loaded) in enumerate(models):
            if _same(loaded, model, name == its):
                return place
        taken = {its for its, _ in models}
        free = (f"{name} ({k})" if k > 1 else name for k in itertools.count(1))
        models.append((next(one for one in free if one not in taken), model))
        return len(models) - 1

    given = names or (None, None)
    load(a, given[0])
    if load(b, given[1]) == 0:
        models.append((f"{models[0][0]} (again)", models[0][1]))
    places: dict[str, int | None] = {"gate": None, "student": None, "vlm": None}
    if gate is not None:
        for part, model in (
            ("vlm", gate.vlm),
            ("student", gate.student),
            ("gate", gate.predictions),
        ):
            places[part] = None if model is None else load(model, None)
    for name, model in further:
        load(model, name)

    first = models[0][1]
    weights = None
    if gate is not None and gate.weights is not None:
        row_of = {image: row for row, image in enumerate(gate.predictions.ids)}
        weights = gate.weights[[row_of[image] for image in first.ids]]
    if metadata is None and isinstance(images, ImageDataset):
        metadata = images.table.drop(columns=["split", "label"], errors="ignore")
    said = None
    if reasons is not None:
        said = tuple(
            None if (one := reasons.get(image)) is None else str(one) for image in first.ids
        )
    return _Content(
        models=tuple(models),
        columns=tuple(_columns(first, metadata)),
        images=images,
        present=_present(first.ids, images),
        weights=weights,
        reasons=said,
        **places,
    )


def _same(one: Predictions, other: Predictions, same_name: bool = False) -> bool:
    """Equal in what they say of which images, and made in one way or called the same."""
    if one is other:
        return True
    return (
        (same_name or one.provenance == other.provenance)
        and one.ids == other.ids
        and one.answers == other.answers
        and np.array_equal(one.probabilities, other.probabilities)
        and np.array_equal(one.invalid, other.invalid)
    )


def _columns(first: Predictions, metadata: pd.DataFrame | None) -> Iterable[_Column]:
    if len(set(first.splits)) > 1:
        yield _column("split", pd.Series(first.splits, dtype=object))
    if metadata is None:
        return
    if not metadata.index.is_unique:
        twice = metadata.index[metadata.index.duplicated()][0]
        raise InputError(f"metadata has {twice!r} twice: give each image one row")
    # As objects: where pyarrow is, pandas' own text takes no lone surrogate, which an id may hold.
    index = pd.Index(first.ids, dtype=object)
    found = metadata.set_axis(metadata.index.astype(object)).reindex(index)
    taken = {"split", "label"}
    for place, name in enumerate(map(str, metadata.columns)):
        if name not in taken:
            taken.add(name)
            yield _column(name, found.iloc[:, place].reset_index(drop=True))


def _column(name: str, values: pd.Series) -> _Column:
    """A column of the kind that its values are best chosen by."""
    known = values.dropna()
    numeric = pd.api.types.is_numeric_dtype(known) and not pd.api.types.is_bool_dtype(known)
    distinct = list(pd.unique(known))
    if numeric and len(distinct) > _FEW_NUMBERS:
        return _Column(name, "number", values)
    texts = [None if gone else _text(v) for v, gone in zip(values, values.isna(), strict=True)]
    if isinstance(values.dtype, pd.CategoricalDtype):
        options = [_text(value) for value in values.cat.categories]
    elif numeric:
        options = [_text(value) for value in sorted(distinct)]
    else:
        rank = {cue: place for place, cue in enumerate(_CUES)}
        there = {text for text in texts if text is not None}
        options = sorted(there, key=lambda text: (rank.get(text, len(rank)), text))
    options = list(dict.fromkeys(options))
    if len(options) > _MOST_OPTIONS or len(options) > max(_FEW_OPTIONS, len(values) / 4):
        return _Column(name, "text", values)
    if None in texts and NONE not in options:
        options.append(NONE)
    place = {text: k for k, text in enumerate(options)}
    codes = np.array([place[NONE if text is None else text] for text in texts], dtype=np.int64)
    return _Column(name, "category", values, tuple(options), codes)


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _present(ids: Sequence[str], images: Images) -> np.ndarray:
    """bool (n,): the images that are there by name; InputError where that is none of them."""
    if isinstance(images, ImageDataset):
        here = set(images.ids)
        found, where = [image in here for image in ids], str(images.root)
    elif isinstance(images, Mapping):
        found, where = [image in images for image in ids], "the mapping"
    elif isinstance(images, str | os.PathLike):
        root = Path(images)
        if not root.is_dir():
            raise InputError(f"{root} is no folder; give the one that the image ids are below")
        found, where = [_below(root, image) is not None for image in ids], str(root)
    else:
        raise InputError(
            f"images is {type(images).__name__}: give an ImageDataset, a mapping of id to image, "
            "or a folder"
        )
    if ids and not any(found):
        some = ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")
        raise InputError(
            f"none of the {len(ids):,} images is in {where} ({some}): give the images that were "
            "predicted"
        )
    return np.array(found, dtype=bool)


def _below(root: Path, image: str) -> Path | None:
    """The file of an id, None where there is none below root."""
    try:
        path = (root / image).resolve()
        inside = path.is_relative_to(root.resolve()) and path.is_file()
    except (OSError, ValueError):
        return None
    return path if inside else None


def _open(images: Images, image: str) -> Image.Image | None:
    if isinstance(images, ImageDataset):
        return images.open(image)
    if isinstance(images, Mapping):
        found = images.get(image)
        if isinstance(found, Image.Image) or found is None:
            return found
        return open_image(found)
    path = _below(Path(images), image)
    return None if path is None else open_image(path)


# -------------------------------------------------------------------------------------- putting out


def _page(content: _Content, view: str, where: dict[str, Any]) -> str:
    """The page: style, data, pictures and module in one text; nothing else is allowed to run."""
    css = _asset("explorer.css") + "\nbody { margin: 0; background: light-dark(#fff, #15191e); }\n"
    css += ":root { color-scheme: light dark; }\n"
    script = "\n" + _asset("explorer.js") + "\nopenPage();\n"
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"script-src '{_digest(script)}'; style-src '{_digest(css)}'; "
        + ("img-src data:" if "inside" in where else "img-src 'self' file: data:")
    )
    names = " and ".join(name for name, _ in content.models[:2])
    return (
        "<!doctype html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{escape(_printable(f'{names}: where they disagree'))}</title>\n"
        f"<style>{css}</style>\n</head>\n<body>\n"
        '<main id="emx"></main>\n'
        "<noscript>This page needs JavaScript to show its pictures and numbers.</noscript>\n"
        f'<script type="application/json" id="emx-data">{content.to_json()}</script>\n'
        f'<script type="application/json" id="emx-view">{_safe_json(view)}</script>\n'
        f'<script type="application/json" id="emx-pictures">{_safe_json(where)}</script>\n'
        f'<script type="module">{script}</script>\n'
        "</body>\n</html>\n"
    )


def _asset(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8").replace("\r\n", "\n")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _printable(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", " ", text)


def _safe_json(value: object) -> str:
    """JSON in ASCII that cannot end a script element nor begin a comment in it."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def _packed(values: Any, dtype: type) -> str:
    """Base64 of the values in little-endian order."""
    array = np.ascontiguousarray(values, dtype=np.dtype(dtype).newbyteorder("<"))
    return base64.b64encode(array.tobytes()).decode()


def _column_data(column: _Column) -> dict[str, Any]:
    data: dict[str, Any] = {"name": column.name, "kind": column.kind}
    if column.kind == "category":
        return data | {"options": column.options, "codes": _packed(column.codes, np.int32)}
    if column.kind == "number":
        return data | {"values": _packed(column.numbers(), np.float64)}
    return data | {"values": column.texts()}


def _flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """A provenance as lines of name and text."""
    if isinstance(value, dict) and value:
        items = [(f"{name}.{key}" if name else str(key), part) for key, part in value.items()]
    elif isinstance(value, list) and any(isinstance(part, dict | list) for part in value):
        items = [(f"{name}.{place}", part) for place, part in enumerate(value, 1)]
    elif isinstance(value, list):
        return [(name, ", ".join(map(str, value)))]
    else:
        return [(name, "" if value is None else str(value))] if name else []
    return [line for key, part in items for line in _flat(part, key)]


def _shades(colour: str) -> dict[str, str]:
    """A colour '#rrggbb' on white and on the dark ground, and what is written on either."""
    lifted, share = colour, 0.0
    while _contrast(lifted, _DARK) < 4.5:
        share += 0.05
        lifted = _mixed(colour, share)
    return {
        "light": colour,
        "light_ink": _ink(colour),
        "dark": lifted,
        "dark_ink": _ink(lifted),
    }


def _ink(colour: str) -> str:
    return max(("#ffffff", "#15191e"), key=lambda ink: _contrast(ink, colour))


def _mixed(colour: str, share: float) -> str:
    channels = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
    return "#" + "".join(f"{round(c + (255 - c) * share):02x}" for c in channels)


def _contrast(one: str, other: str) -> float:
    """WCAG 2 contrast of two colours, 1 to 21."""
    lights = []
    for colour in (one, other):
        channels = np.array([int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)])
        linear = np.where(
            channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
        lights.append(float(linear @ [0.2126, 0.7152, 0.0722]) + 0.05)
    return max(lights) / min(lights)
