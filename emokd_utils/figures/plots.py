"""Figures: one style, and each figure says in its title what its numbers show.

Every function takes `Predictions` or a result table (shares in 0..1) and an optional `ax`, draws,
and returns the Matplotlib axes; nothing is shown or saved until asked (`save`). Where images or
seeds were sampled there is a 95 % interval, and the line below the title states n. `alt_text` says
the same in words. Make axes of your own under ``with style():``, so that they match.

The four models of the method have a colour each, the classes those of their label set; both were
chosen to stay apart under the common forms of colour blindness.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import Bbox
from PIL import Image
from statsmodels.stats.weightstats import DescrStatsW

from ..complementarity import Outcome, four_way
from ..emotions import infer_label_set
from ..errors import InputError
from ..evidence import Interval, wilson
from ..predictions import Predictions

if TYPE_CHECKING:
    from ..explanations import Explanation

DPI = 150
INK, GREY, PALE = "#1f2328", "#5b636d", "#e4e7eb"
BOTH_RIGHT = "#3d4753"

MODEL_COLOURS = {
    "VLM": "#0072b2",
    "vision model": "#de7a00",
    "head": "#1fa484",
    "EmoVLM-KD": "#5e1a50",
    "both models": "#7d8590",
    "oracle": INK,
}
"""Colour of a model by how its name begins."""

_OTHER_COLOURS = ("#56b4e9", "#cc79a7", "#8c8c2f", "#a05a2c")
_PALER = ("zero-shot", "no teacher")
_FOR, _AGAINST = "#c1440e", "#2166ac"
_CUE_ORDER = ("content", "atmosphere", "both")
_COST_UNITS = {"parameter": "count", "flop": "per image", " ms": "per image"}

STYLE = {
    "figure.facecolor": "white",
    "figure.dpi": 100,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 11.5,
    "text.color": INK,
    "axes.facecolor": "white",
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.labelsize": 11.5,
    "axes.titlelocation": "left",
    "axes.titlesize": 13.5,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "grid.color": PALE,
    "grid.linewidth": 0.9,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "lines.linewidth": 2.2,
    "lines.markersize": 7,
    "savefig.dpi": DPI,
}
"""Matplotlib settings of every figure."""

_DESCRIPTIONS: WeakKeyDictionary[Axes, str] = WeakKeyDictionary()


def style() -> AbstractContextManager:
    """A context, or decorator, in which Matplotlib has the project's settings."""
    return mpl.rc_context(STYLE)


def model_colours(names: Iterable[str]) -> dict[str, str]:
    """A colour '#rrggbb' for each model, by how its name begins (see `MODEL_COLOURS`).

    Models of one family get tints of its colour; the untuned VLM and the head without a teacher
    the paler ones. Names of no family get further colours, repeated beyond four.
    """
    names = list(dict.fromkeys(names))
    families: dict[str, list[str]] = {}
    for name in names:
        family = next((start for start in MODEL_COLOURS if name.startswith(start)), "")
        families.setdefault(family, []).append(name)
    colours = {}
    for family, members in families.items():
        members.sort(key=lambda name: any(word in name for word in _PALER))
        for place, name in enumerate(members):
            if family:
                tint = 0.5 * place / (len(members) - 1) if place else 0.0
                colours[name] = _tint(MODEL_COLOURS[family], tint)
            else:
                colours[name] = _OTHER_COLOURS[place % len(_OTHER_COLOURS)]
    return {name: colours[name] for name in names}


def class_colours(classes: Sequence[str]) -> dict[str, str]:
    """The colour '#rrggbb' of each class: that of its label set."""
    label_set = infer_label_set(classes)
    return {name: label_set.colours[label_set.canonical(name) or name] for name in classes}


def alt_text(drawn: Axes | Figure | Iterable[Axes]) -> str:
    """A figure of this module in words: its title, then the numbers it shows.

    Raises InputError for axes that no function of this module drew on.
    """
    if isinstance(drawn, Axes):
        if drawn not in _DESCRIPTIONS:
            raise InputError("these axes hold no figure of emokd_utils.figures: draw one first")
        title = _words(drawn.get_title(loc="left"))
        return f"{title}. " * bool(title) + _words(_DESCRIPTIONS[drawn])
    if isinstance(drawn, Figure):
        known = [alt_text(ax) for ax in drawn.axes if ax in _DESCRIPTIONS]
        if not known:
            raise InputError("this figure holds none of emokd_utils.figures: draw one first")
        overall = _words(drawn.get_suptitle())
        return " ".join([f"{overall}."] * bool(overall) + known)
    return " ".join(alt_text(ax) for ax in drawn)


def save(drawn: Axes | Figure, path: str | Path) -> Path:
    """Write the whole figure as a PNG of 150 dots an inch, its alt text as 'Description' inside.

    The same figure gives the same bytes with the same Matplotlib. Raises InputError for another
    suffix.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"{path} is no .png: give a name that ends in .png")
    figure = drawn if isinstance(drawn, Figure) else drawn.get_figure(root=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(
        path,
        format="png",
        dpi=DPI,
        bbox_inches="tight",
        pad_inches=0.12,
        metadata={"Software": None, "Description": alt_text(figure)},
    )
    return path


def show(drawn: Axes | Figure, alt: str | None = None) -> None:
    """Display the whole figure in a notebook, with its alt text, and close it.

    ``alt``: for a figure that is none of this module's. Raises InputError where it has no alt text.
    """
    from IPython.display import HTML, display

    figure = drawn if isinstance(drawn, Figure) else drawn.get_figure(root=True)
    words = alt or alt_text(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, bbox_inches="tight", pad_inches=0.1)
    plt.close(figure)
    small = Image.open(buffer).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)  # a palette: a third of the size
    data = base64.b64encode(buffer.getvalue()).decode()
    page = HTML(
        f'<img src="data:image/png;base64,{data}" alt="{escape(words)}" '
        f'style="max-width: 100%; width: {small.width}px; height: auto; background: white">'
    )
    display({"text/html": page.data, "text/plain": words}, raw=True)


# ------------------------------------------------------------------------------------------- pictures


@style()
def pictures(
    images: Sequence[Image.Image],
    captions: Sequence[str] | None = None,
    title: str = "",
    columns: int = 6,
    size: float = 1.5,
) -> Axes:
    """Images side by side, row by row, each with a caption of one or more lines below it.

    title: what to see. size: inches a picture. Returns the first picture's axes. Raises InputError
    for no images and for captions of another number.
    """
    images, captions = list(images), list(captions or [""] * len(images))
    _need(len(images), "there are no images to show")
    if len(images) != len(captions):
        raise InputError(f"{len(images)} images have {len(captions)} captions: give one for each")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    lines = max(text.count("\n") + 1 if text else 0 for text in captions)
    figure, grid = plt.subplots(
        rows,
        columns,
        figsize=(size * columns, rows * (size + 0.17 * lines) + 0.45 * bool(title)),
        squeeze=False,
        layout="constrained",
    )
    for ax in grid.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for ax, image, text in zip(grid.flat, images, captions, strict=False):
        ax.imshow(np.asarray(image.convert("RGB")))
        ax.set_xlabel(_plain(text), fontsize=8.5, labelpad=3)
    if title:
        figure.suptitle(_plain(title), x=0.01, ha="left", fontsize=12.5, fontweight="bold")
    described = "; ".join(" ".join(text.split()) for text in captions if text)
    _DESCRIPTIONS[grid[0, 0]] = f"{len(images)} pictures. {described}"
    return grid[0, 0]


@style()
def explanations(
    image: Image.Image,
    found: Mapping[str, Explanation],
    boxes: Mapping[str, Sequence[float]] | None = None,
    title: str = "",
) -> list[Axes]:
    """An image and its maps side by side: occlusion of all models on one scale, each other map on
    its own.

    found: maps by name, as `explanations.explain` gives them. boxes: noun -> (x, y, width, height)
    in pixels, outlined. title: what to see. Returns the axes, the image's first. Raises InputError
    for no maps.
    """
    _need(len(found), "there are no maps to show")
    image = image.convert("RGB")
    figure, row = plt.subplots(
        1,
        len(found) + 1,
        figsize=(2.2 * (len(found) + 1), 3.2 + 0.3 * bool(title)),
        layout="constrained",
    )
    for ax in row:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        for x, y, width, height in (boxes or {}).values():
            ax.add_patch(Rectangle((x - 0.5, y - 0.5), width, height, fc="none", ec=INK, lw=1.2))
    row[0].imshow(np.asarray(image))
    row[0].set_title("the image", fontsize=10)
    row[0].set_xlabel(_plain(", ".join(boxes or {})), fontsize=9)
    pale = 0.5 + 0.45 * np.asarray(image.convert("L")) / 255
    falls = [np.abs(one.values).max() for one in found.values() if one.method == "occlusion"]
    facts = []
    for ax, (name, one) in zip(row[1:], found.items(), strict=True):
        ax.imshow(pale, cmap="gray", vmin=0, vmax=1)
        values = np.nan_to_num(one.on_pixels(*image.size))
        top = max(falls) if one.method == "occlusion" else values.max()
        share = values / top if top else values
        sides = np.where(share[..., None] < 0, to_rgb(_AGAINST), to_rgb(_FOR))
        ax.imshow(np.concatenate([sides, 0.85 * np.abs(share)[..., None]], axis=2))
        ax.set_title(_plain(name.replace(", ", "\n")), fontsize=10)
        if one.method == "occlusion":
            low, high = (round(100 * float(v)) for v in (one.values.min(), one.values.max()))
            told = f"{_plain(one.label)} falls by\n{low:+} to {high:+} points"
        elif one.method == "Grad-CAM":
            told = f"speaks for {_plain(one.label)}\n(darkest: {values.max():.2f} of the logit)"
        else:
            even = 1 / one.values.size
            told = f"read most: {one.values.max() / even:.1f} times\nwhat an even share is"
        ax.set_xlabel(told, fontsize=9)
        facts.append(f"{name}: {' '.join(told.split())}")
    legend = "red: speaks for the label, or is read; blue: against it"
    if len(falls) > 1:
        legend += f"; in the maps by occlusion the darkest is {100 * max(falls):.0f} points"
    figure.supxlabel(f"{legend}.", x=0.01, ha="left", fontsize=9, color=GREY)
    if title:
        figure.suptitle(_plain(title), x=0.01, ha="left", fontsize=12.5, fontweight="bold")
    _DESCRIPTIONS[row[0]] = f"An image and {len(found)} maps. {'; '.join(facts)}."
    return list(row)


# ----------------------------------------------------------------------- where two models disagree


@style()
def four_way_map(
    a: Outcome, b: Outcome, names: tuple[str, str] | None = None, ax: Axes | None = None
) -> Axes:
    """Both right, only A, only B, neither: a mosaic whose areas are the shares of images.

    The left column is what A gets right; in either column the lower part is what B gets right.
    Cells carry count, share and Wilson interval. names: of A and B, by default their provenance's.
    Raises InputError for no images and what `complementarity.four_way` does not take.
    """
    counted = four_way(a, b)
    _need(counted.n, "the two models share no images: predict both for the same ones")
    name_a, name_b = names or (_name(a, "A"), _name(b, "B"))
    colours = model_colours([name_a, name_b])
    ax = _axes(ax, (9, 5.2))

    wide = (counted.both + counted.only_a) / counted.n
    low_left = counted.both / max(counted.both + counted.only_a, 1)
    low_right = counted.only_b / max(counted.only_b + counted.neither, 1)
    cells = [
        ("both right", counted.both, BOTH_RIGHT, (0, 0, wide, low_left)),
        (f"only {name_a}", counted.only_a, colours[name_a], (0, low_left, wide, 1 - low_left)),
        (f"only {name_b}", counted.only_b, colours[name_b], (wide, 0, 1 - wide, low_right)),
        ("neither", counted.neither, PALE, (wide, low_right, 1 - wide, 1 - low_right)),
    ]
    facts, texts = [], []
    for title, count, colour, (x, y, width, height) in cells:
        share = f"{percent(count / counted.n, 1)} {_ends(wilson(count, counted.n), 1)}"
        facts.append(f"{title} {count:,} images, {share}")
        if count:
            ax.add_patch(Rectangle((x, y), width, height, fc=colour, ec="white", lw=2.5))
        label = f"{_plain(title)}\n{count:,}\n{share}"
        texts.append(
            ax.text(
                x + width / 2,
                y + height / 2,
                label,
                color=_readable_on(colour),
                ha="center",
                va="center",
                linespacing=1.35,
                clip_on=False,
            )
        )
    ax.set(ylim=(0, 1), xlabel="width: share of images (%)", ylabel="height: share of column (%)")
    ax.set_xticks(
        [wide / 2, (1 + wide) / 2],
        [
            f"{_plain(name_a)}: right {percent(wide)}",
            f"{_plain(name_a)}: wrong {percent(1 - wide)}",
        ],
    )
    ax.set_yticks([0, 0.5, 1], ["0", "50", "100"])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)

    alone = {
        side: f"{_the(name)} alone has {percent(counted.shares[key])}"
        for side, name, key in (("a", name_a, "only_a"), ("b", name_b, "only_b"))
    }
    if counted.neither == counted.n:
        title = "Neither model is right on any image"
    elif not counted.only_a and not counted.only_b:
        title = "Right on the same images: neither model is ever right alone"
    elif not counted.only_a:
        title = f"Right alone: {_the(name_a)} never is, {alone['b']}"
    elif not counted.only_b:
        title = f"Right alone: {_the(name_b)} never is, {alone['a']}"
    else:
        different = counted.only_a + counted.only_b > counted.both
        lead = "Right on different images" if different else "Mostly right on the same images"
        title = f"{lead}: {alone['a']}, {alone['b'].replace(' alone has', ' alone')}"
    oracle = percent(1 - counted.shares["neither"])
    note = f"{_images(a, counted.n)}; oracle (either right): {oracle}; [ ]: 95 % interval"
    _headline(ax, title, note, facts)
    _fit_cells(ax, [cell[3] for cell in cells], [cell[1] for cell in cells], texts)
    return ax


@style()
def confusion(predictions: Predictions, ax: Axes | None = None, name: str | None = None) -> Axes:
    """How often each label was taken for each class, in % of the label's images (rows).

    Answers that named no class have the last column, 'no label', where there are any. name: of the
    model, by default its provenance's. Raises InputError for no images.
    """
    ax = _axes(ax, (8.4, 7))
    return _confusion(ax, predictions, name, bool(predictions.invalid.any()))


@style()
def confusion_pair(
    a: Predictions,
    b: Predictions,
    names: tuple[str, str] | None = None,
    axes: Sequence[Axes] | None = None,
) -> tuple[Axes, Axes]:
    """`confusion` of two models side by side, with the same columns.

    A figure made here has a title above both that names the label on which they differ most.
    Raises InputError for no images and predictions that do not match.
    """
    a, b = a.aligned(b)
    name_a, name_b = names or (_name(a, "A"), _name(b, "B"))
    columns = bool(a.invalid.any() or b.invalid.any())
    figure = None
    if axes is None:
        figure, axes = plt.subplots(1, 2, figsize=(15, 7.4), layout="constrained")
        figure.get_layout_engine().set(h_pad=0.15)
    left, right = axes
    _confusion(left, a, name_a, columns)
    _confusion(right, b, name_b, columns)
    right.set_ylabel("")
    if figure is not None:
        recalls = [_over(np.diag(m), m.sum(axis=1)) for m in map(_confusion_counts, (a, b))]
        gap = recalls[0] - recalls[1]
        place = int(np.nanargmax(np.abs(gap)))
        shown = f"{_the(name_a)} is right on {percent(recalls[0][place])}, {_the(name_b)} on "
        shown += percent(recalls[1][place])
        title = f"They differ most on {a.classes[place]}: {shown}"
        figure.suptitle(_plain(title), x=0.01, ha="left", fontsize=16, fontweight="bold")
    return left, right


@style()
def cue_bars(
    predictions: Mapping[str, Predictions],
    by: pd.Series | Mapping[str, object],
    ax: Axes | None = None,
) -> Axes:
    """Accuracy of each model on each slice: grouped bars with Wilson intervals.

    predictions: by the models' names, over the same images. by: image id -> slice, such as the
    cue; slices come in the order of a categorical Series' categories, cues as content, atmosphere,
    both, others by name. The line is chance, one over the number of classes.
    Raises InputError for no models or images, ids that differ, or images without a slice.
    """
    models = _matched(predictions)
    first = next(iter(models.values()))
    slices = _slices(first.ids, by)
    colours = model_colours(models)
    ax = _axes(ax, (10.5, 5))

    width = 0.82 / len(models)
    facts, shares = [], {}
    for row, (model, predicted) in enumerate(models.items()):
        where = np.arange(len(slices)) + (row - (len(models) - 1) / 2) * width
        counts = [
            (int(predicted.correct[inside].sum()), int(inside.sum())) for inside in slices.values()
        ]
        height = np.array([right / n for right, n in counts])
        ends = np.array([wilson(*count) for count in counts])
        shares[model] = height
        ax.bar(where, 100 * height, 0.94 * width, color=colours[model], label=_plain(model))
        _whiskers(ax, where, height, ends)
        if len(models) * len(slices) <= 24:
            for x, share, (_, high) in zip(where, height, ends, strict=True):
                ax.annotate(
                    f"{100 * share:.0f}",
                    (x, 100 * high),
                    xytext=(0, 2),
                    textcoords="offset points",
                    ha="center",
                    va="bottom",
                    fontsize=10,
                )
        told = (
            f"{part} {percent(share)} {_ends(Interval(*end))}"
            for part, share, end in zip(slices, height, ends, strict=True)
        )
        facts.append(f"{model}: {', '.join(told)}")
    chance = 1 / len(first.classes)
    ax.axhline(
        100 * chance, color=INK, lw=1.2, ls=(0, (4, 3)), label=f"chance {percent(chance, 1)}"
    )
    ax.set_xticks(
        range(len(slices)),
        [f"{_plain(part)}\nn = {inside.sum():,}" for part, inside in slices.items()],
    )
    ax.tick_params(axis="x", length=0)
    ax.set(xlabel=_plain(_name_of(by, "slice")), ylabel="accuracy (%)", ylim=(0, 108))
    ax.set_yticks(range(0, 101, 20))
    ax.grid(axis="y")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    note = f"{_images(first, len(first))}; lines: 95 % intervals"
    _headline(ax, _leaders(shares, list(slices)), note, facts)
    return ax


# -------------------------------------------------------------------------------- what the gate wins


@style()
def oracle_gap(
    table: pd.DataFrame | Mapping[str, float | tuple[float, float, float]],
    n: int | None = None,
    ax: Axes | None = None,
    singles: Sequence[str] | None = None,
) -> Axes:
    """From the better single model to the oracle, and how much of that gap EmoVLM-KD recovers.

    table: rows are models, columns accuracy and where known low and high; or model -> accuracy or
    (accuracy, low, high), all in 0..1. The oracle and EmoVLM-KD are found by how their names
    begin; of several gates the first is in the title. singles: the models that the oracle is of,
    by default those whose names begin with 'VLM' or 'vision model'. n: images, by default the
    table's column n.

    Raises InputError where one of these is missing.
    """
    rows, n = _results(table, n)
    if singles is None:
        singles = [name for name in rows.index if name.startswith(("VLM", "vision model"))]
    missing = [name for name in singles if name not in rows.index]
    oracles = [name for name in rows.index if name.startswith("oracle")]
    ours = [name for name in rows.index if name.startswith("EmoVLM-KD")]
    if missing or not (singles and oracles and ours):
        raise InputError(
            f"the table has the rows {', '.join(rows.index)}: an oracle, EmoVLM-KD and the single "
            "models are needed; say singles= where these have other names"
        )
    best, oracle = rows.loc[list(singles), "accuracy"].idxmax(), oracles[0]
    low, high = rows.loc[best, "accuracy"], rows.loc[oracle, "accuracy"]
    share = {name: _over(rows.loc[name, "accuracy"] - low, high - low) for name in rows.index}
    combined = [name for name in rows.index if name in ours or name.startswith("both models")]

    ordered = rows.sort_values("accuracy", kind="stable")
    colours = model_colours(rows.index)
    ax = _axes(ax, (10, 1.9 + 0.42 * len(rows)))
    ax.axvspan(100 * low, 100 * high, color="#f3f4f6", zorder=0)
    facts = []
    for y, (name, row) in enumerate(ordered.iterrows()):
        strong = name in (best, oracle, ours[0])
        ax.plot([100 * row.low, 100 * row.high], [y, y], color=colours[name], lw=2.4)
        ax.plot(100 * row.accuracy, y, "o", color=colours[name], ms=10 if strong else 7.5)
        fact = percent(row.accuracy, 1)
        told = f"{name} {fact} {_ends(Interval(row.low, row.high), 1)}".strip()
        if name in combined and np.isfinite(share[name]):
            part = f"{percent(share[name])} of the gap"
            fact, told = f"{fact}, {part}", f"{told}, {part}"
        facts.append(told)
        ax.text(
            1.015,
            y,
            fact,
            transform=ax.get_yaxis_transform(),
            va="center",
            fontweight="bold" if strong else "normal",
        )
    ax.set_yticks(range(len(ordered)), [_plain(name) for name in ordered.index])
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set(ylim=(-0.6, len(ordered) - 0.4), xlabel="accuracy (%)", ylabel="model")
    ax.set_ylabel("")
    ax.grid(axis="x")
    if not high > low:
        title = f"No gap to win: the {oracle} is no better than {_the(best)} ({percent(low, 1)})"
    else:
        between = (
            f"the gap from {_the(best)} ({percent(low, 1)}) to the oracle ({percent(high, 1)})"
        )
        if share[ours[0]] > 0:
            title = f"EmoVLM-KD recovers {percent(share[ours[0]])} of {between}"
        else:
            title = f"EmoVLM-KD recovers none of {between}"
    note = f"n = {n:,} images; shaded: the gap" + _interval_note(rows)
    _headline(ax, title, note, facts[::-1])
    return ax


@style()
def sweep(
    table: pd.DataFrame,
    x: str = "temperature",
    y: str = "accuracy",
    group: str | None = None,
    n: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Mean of y over seeds against x, one line a group, with the 95 % interval of the mean as band.

    table: a row for each run, with columns x, y and group; rows of equal x and group are its seeds
    (a lone one has no band). y in 0..1. The interval is Student's t over seeds: what another seed
    would change, not other images. n: test images, by default the table's column n.
    Raises InputError for a missing column or no rows.
    """
    _columns(table, [x, y, *([group] if group else [])])
    _need(len(table), "the table has no rows: run the sweep first")
    if not (pd.api.types.is_numeric_dtype(table[x]) and table[y].between(0, 1).all()):
        raise InputError(f"{x} must be numbers and {y} shares in 0..1 in every row")
    n = _count(table, n)
    keys = [group, x] if group else [x]
    runs = table.groupby(keys, sort=True, observed=True)[y]
    means = runs.agg(
        mean="mean",
        low=lambda values: _mean_interval(values).low,
        high=lambda values: _mean_interval(values).high,
    )
    seeds = runs.size()
    lines = (
        [(value, means.xs(value)) for value in means.index.unique(0)] if group else [("", means)]
    )

    ax = _axes(ax, (9, 5))
    palette = [to_hex(colour) for colour in sns.color_palette("viridis", len(lines))]
    if not group:
        palette = [MODEL_COLOURS["head"]]
    facts = []
    for (value, line), colour, marker in zip(lines, palette, "osD^vPX*" * len(lines), strict=False):
        at = line.index.to_numpy(dtype=float)
        name = f"{group} {value}" if group else y
        ax.fill_between(at, 100 * line["low"], 100 * line["high"], color=colour, alpha=0.16, lw=0)
        ax.plot(at, 100 * line["mean"], marker=marker, color=colour, label=_plain(name))
        told = (
            f"{x} {key:g}: {percent(row['mean'], 1)} {_ends(row[['low', 'high']], 1)}".strip()
            for key, row in line.iterrows()
        )
        facts.append((f"{name}: " if group else "") + ", ".join(told))
    values = np.unique(table[x].to_numpy(dtype=float))
    if values.min() > 0 and values.max() / values.min() >= 8:
        ax.set_xscale("log", base=2)
    ax.xaxis.set_major_locator(FixedLocator(values))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.set(xlabel=_plain(f"{x} (no unit)"), ylabel=_plain(f"{y} (%)"))
    ax.grid(axis="y")
    if group:
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    best, worst = means["mean"].idxmax(), means["mean"].min()
    where = f"{x} {best[1]:g}, {group} {best[0]}" if group else f"{x} {best:g}"
    top = means["mean"].max()
    title = (
        f"Best at {where}: {y} {percent(top, 1)}, {100 * (top - worst):.1f} points above the worst"
    )
    few, many = int(seeds.min()), int(seeds.max())
    count = f"{few}" if few == many else f"{few} to {many}"
    note = f"n = {n:,} images; mean of {count} seed{'s' * (many > 1)}"
    if means["low"].notna().any():
        note += "; band: 95 % interval over seeds"
    _headline(ax, title, note, facts)
    return ax


@style()
def gate_weights(
    weights: np.ndarray,
    by: pd.Series | Sequence[object] | None = None,
    names: tuple[str, str] = ("head", "VLM"),
    ax: Axes | None = None,
    bins: int = 20,
) -> Axes:
    """How the second side's share in the decisions is distributed, one histogram a slice.

    weights: (n, 2) shares of head and VLM, rows summing to 1 (`gating.TrainedGate.weights`).
    by: n slices in the same order, such as the cue; None for the whole. The diamond is the mean,
    its line the 95 % interval (Student's t). Raises InputError for other shapes or values.
    """
    weights = np.asarray(weights, dtype=np.float64)
    if weights.ndim != 2 or weights.shape[1] != 2 or not len(weights):
        raise InputError(f"weights of shape {weights.shape}: give (n, 2), n at least 1")
    if not (np.abs(weights.sum(axis=1) - 1) < 1e-4).all() or weights.min() < 0:
        raise InputError("weights must be at least 0 and sum to 1 in each row")
    rows = range(len(weights))
    if by is None:
        slices = {"all images": np.ones(len(weights), bool)}
    elif len(by) != len(weights):
        raise InputError(f"{len(by)} slices for {len(weights)} weights: give one for each")
    else:
        slices = _slices(rows, by.reset_index(drop=True) if isinstance(by, pd.Series) else by)
    head, vlm = names
    colour = model_colours(names)[vlm]
    ax = _axes(ax, (9.5, 2.1 + 0.95 * len(slices)))

    edges = np.linspace(0, 1, bins + 1)
    tallest = max(np.histogram(weights[i, 1], edges)[0].max() / i.sum() for i in slices.values())
    facts, means = [], {}
    for place, (part, inside) in enumerate(slices.items()):
        base, share = len(slices) - 1 - place, weights[inside, 1]
        height = np.histogram(share, edges)[0] / inside.sum() / tallest * 0.78
        ax.bar(
            edges[:-1], height, 1 / bins, base, align="edge", color=colour, alpha=0.6, ec="white"
        )
        means[part] = float(share.mean())
        low, high = np.clip(_mean_interval(share), 0, 1)
        ax.plot([low, high], [base - 0.09] * 2, color=INK, lw=2)
        ax.plot(means[part], base - 0.09, "D", color=INK, ms=6)
        mean = f"{means[part]:.2f} {_ends(Interval(low, high), 2, 1)}".strip()
        text = f"mean {mean}"
        ax.text(1.02, base + 0.3, text, transform=ax.get_yaxis_transform(), va="center")
        facts.append(f"{part} (n = {inside.sum():,}) mean {mean}")
    ax.set_yticks(
        [len(slices) - 1 - place + 0.3 for place in range(len(slices))],
        [f"{_plain(part)}\nn = {inside.sum():,}" for part, inside in slices.items()],
    )
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set(xlim=(0, 1), ylim=(-0.25, len(slices)))
    ax.set_xlabel(_plain(f"share of the {vlm} in the decision (0: {head} alone, 1: {vlm} alone)"))
    ax.set_ylabel("height: share of images")
    ax.grid(axis="x")
    most, least = max(means, key=means.get), min(means, key=means.get)
    if len(means) == 1:
        title = f"The gate gives the {vlm} {percent(means[most])} of the say on average"
    else:
        title = (
            f"The gate leans on the {vlm} most for {most} ({percent(means[most])} of the say), "
            f"least for {least} ({percent(means[least])})"
        )
    _headline(ax, title, f"n = {len(weights):,} images; diamond: mean, 95 % interval", facts)
    return ax


@style()
def cost_accuracy(
    table: pd.DataFrame,
    cost: str = "added parameters",
    n: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Accuracy against what a system adds to the VLM, each point with its name.

    table: rows are systems; columns accuracy (and low, high) in 0..1 and the cost, at least 0, in
    the unit that its name says (`costs.cost_table`). Where costs spread over a factor of 10 or
    more, the axis is logarithmic but for zero. n: images, by default the table's column n.
    Raises InputError for a missing column, no rows or a cost below 0.
    """
    _columns(table, [cost])
    rows, n = _results(table, n)
    costs = table[cost].astype(float)
    if not (costs >= 0).all():
        raise InputError(f"{cost} must be known and at least 0: {costs.to_dict()}")
    ax = _axes(ax, (9.5, 5.6))
    colours = model_colours(rows.index)
    facts = []
    for name, row in rows.iterrows():
        at = costs[name]
        ax.plot([at, at], [100 * row.low, 100 * row.high], color=colours[name], lw=2)
        ax.plot(at, 100 * row.accuracy, "o", color=colours[name], ms=9)
        ends = _ends(Interval(row.low, row.high), 1)
        facts.append(f"{name} {percent(row.accuracy, 1)} {ends}".strip() + f" at {_si(at)}")
    positive = costs[costs > 0]
    units = [unit for word, unit in _COST_UNITS.items() if word in cost.lower()][:1]
    if len(positive) and positive.max() >= 10 * positive.min():
        start = 10 ** np.floor(np.log10(positive.min()))
        ax.set_xscale("symlog", linthresh=start, linscale=0.5)
        ax.set_xlim(-0.25 * start, positive.max() * 6)
        powers = 10.0 ** np.arange(np.log10(start), np.log10(positive.max()) + 1)
        ax.xaxis.set_major_locator(FixedLocator([0, *powers]))
        units.append(f"logarithmic from {_si(start)}")
        ax.xaxis.set_minor_locator(NullLocator())
    else:
        ax.set_xlim(-0.06 * costs.max() or -1, 1.3 * costs.max() or 1)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _si(value)))
    ax.set_xlabel(_plain(f"{cost} ({', '.join(units)})" if units else cost))
    ax.set_ylabel("accuracy (%)")
    ax.margins(y=0.16)
    ax.grid()

    dearest = costs.idxmax()
    ours = [name for name in rows.index if name.startswith("EmoVLM-KD")]
    shown = ours[0] if ours else rows["accuracy"].idxmax()
    title = f"{shown}: {percent(rows.loc[shown, 'accuracy'], 1)} for {_si(costs[shown])} {cost}"
    if dearest != shown:
        title += f"; {dearest}: {percent(rows.loc[dearest, 'accuracy'], 1)} for "
        title += _si(costs[dearest])
    _headline(ax, title, f"n = {n:,} images" + _interval_note(rows), facts)
    _label_points(ax, costs.to_numpy(), 100 * rows.to_numpy(), list(rows.index))
    return ax


# --------------------------------------------------------------------------------------- calibration


def calibration(predictions: Predictions, bins: int = 10) -> pd.DataFrame:
    """Accuracy of predictions by how confident they were, in bins of equal width over 0..1.

    Confidence is the probability of the predicted class. A row for each bin that is not empty, by
    its lower and upper end: n, confidence (mean), accuracy, low and high (Wilson). Invalid answers
    have no confidence and are left out. Raises InputError for fewer than one bin.
    """
    if bins < 1:
        raise InputError(f"bins is {bins}: choose 1 or more; 10 is usual")
    valid = ~predictions.invalid
    confidence, right = predictions.probabilities.max(axis=1)[valid], predictions.correct[valid]
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    rows = []
    for k in np.unique(place):
        here = place == k
        ends = wilson(int(right[here].sum()), int(here.sum()))
        rows.append(
            (
                k / bins,
                (k + 1) / bins,
                here.sum(),
                confidence[here].mean(),
                right[here].mean(),
                *ends,
            )
        )
    columns = ["lower", "upper", "n", "confidence", "accuracy", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def expected_calibration_error(predictions: Predictions, bins: int = 10) -> float:
    """ECE in [0, 1]: mean distance of accuracy from confidence over `calibration`'s bins.

    Bins count as many times as they have images (Guo et al. 2017, arXiv 1706.04599, equation 3).
    nan without valid answers.
    """
    table = calibration(predictions, bins)
    distance = (table["accuracy"] - table["confidence"]).abs()
    return float(_over((table["n"] * distance).sum(), table["n"].sum()))


@style()
def reliability(
    predictions: Predictions, ax: Axes | None = None, name: str | None = None, bins: int = 10
) -> Axes:
    """Calibration: accuracy against confidence with Wilson intervals, counts as bars, and ECE.

    On the diagonal a model is as often right as it says. name: of the model, by default its
    provenance's. Raises InputError where no answer is valid, or for fewer than one bin.
    """
    table = calibration(predictions, bins)
    n = int(table["n"].sum())
    _need(n, "no answer names a class: there is no confidence to draw")
    name = name or _name(predictions, "model")
    colour = model_colours([name])[name]
    error = expected_calibration_error(predictions, bins)
    right = int((table["n"] * table["accuracy"]).round().sum())
    said = float((table["n"] * table["confidence"]).sum() / n)
    ends = wilson(right, n)
    ax = _axes(ax, (9.6, 5.6))

    centres = (table["lower"] + table["upper"]) / 2
    ax.bar(100 * centres, 100 * table["n"] / n, 92 / bins, color=PALE, label="share of images")
    for at, count in zip(centres, table["n"], strict=True):
        ax.annotate(
            f"{count:,}",
            (100 * at, 0),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=9.5,
            color=GREY,
        )
    ax.plot([0, 100], [0, 100], color=INK, lw=1.2, ls=(0, (4, 3)), label="as often right as said")
    at, height = table["confidence"].to_numpy(), table["accuracy"].to_numpy()
    _whiskers(ax, 100 * at, height, table[["low", "high"]].to_numpy(), colour)
    ax.plot(100 * at, 100 * height, "o-", color=colour, label=_plain(f"accuracy of {name}"))
    ax.set(xlim=(0, 100), ylim=(0, 104), xlabel="confidence (%)", ylabel="accuracy, share (%)")
    ax.set_xticks(range(0, 101, 20))
    ax.set_yticks(range(0, 101, 20))
    ax.grid()
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    if said > ends.high:
        verdict = "is overconfident"
    elif said < ends.low:
        verdict = "is underconfident"
    else:
        verdict = "is right as often as it says"
    title = (
        f"{_capital(_the(name))} {verdict}: says {percent(said)} on average, has {percent(right / n)} right "
        f"(ECE {error:.2f})"
    )
    note = f"{_images(predictions, n)}; number in a bar: images; lines: 95 % intervals"
    if left_out := len(predictions) - n:
        note += f"; {left_out:,} invalid answers left out"
    facts = [
        f"confidence {percent(row.confidence)}: accuracy {percent(row.accuracy)} "
        f"{_ends(Interval(row.low, row.high))}, n = {row.n:,}"
        for row in table.itertuples()
    ]
    _headline(ax, title, note, facts)
    return ax


# -------------------------------------------------------------------------------------- text, numbers


def percent(share: float, digits: int = 0) -> str:
    """A share in 0..1 as text: '21 %', with a space that does not break; 'undefined' for nan."""
    return "undefined" if np.isnan(share) else f"{100 * share:.{digits}f}\u00a0%"


def _ends(interval: Iterable[float], digits: int = 0, scale: float = 100) -> str:
    """An interval as '[19, 24]', or '' where it is undefined."""
    low, high = interval
    if np.isnan(low):
        return ""
    return f"[{scale * low:.{digits}f},\u00a0{scale * high:.{digits}f}]"


def _si(value: float) -> str:
    """A number of three digits with k, M, G or T: '3.68 M'."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}\u00a0{letter}"
    return f"{value:.3g}"


def _plain(text: str) -> str:
    """Text as it is, never read as a formula by Matplotlib."""
    return str(text).replace("$", r"\$")


def _words(text: str) -> str:
    return " ".join(text.replace(r"\$", "$").split())


def _name(of: Outcome, otherwise: str) -> str:
    provenance = of.provenance if isinstance(of, Predictions) else {}
    return str(provenance.get("model", otherwise))


def _the(name: str) -> str:
    """A model in a sentence: 'the tuned VLM' for 'VLM, tuned', but 'EmoVLM-KD' as it is."""
    kind, _, which = name.partition(", ")
    if kind not in ("VLM", "vision model", "head"):
        return name
    if which == "no teacher":
        return f"the {kind} without a teacher"
    return f"the {which} {kind}" if which else f"the {kind}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _name_of(by: object, otherwise: str) -> str:
    return str(getattr(by, "name", None) or otherwise)


def _images(of: Outcome, n: int) -> str:
    """'n = 1,200 test images': with the split where there is one only."""
    splits = set(of.splits) if isinstance(of, Predictions) else set()
    split = f"{splits.pop()} " if len(splits) == 1 else ""
    return f"n = {n:,} {split}images"


def _interval_note(rows: pd.DataFrame) -> str:
    return "; lines: 95 % intervals" if rows["low"].notna().any() else ""


def _leaders(shares: dict[str, np.ndarray], slices: list[str]) -> str:
    """'Best on content: VLM (72 %); on atmosphere: vision model (79 %)', one model once."""
    if len(shares) == 1:
        model, values = next(iter(shares.items()))
        high, low = int(values.argmax()), int(values.argmin())
        told = f"{slices[high]} ({percent(values[high])})"
        if high == low:
            return f"{model} on {told}"
        return f"{model} does best on {told}, worst on {slices[low]} ({percent(values[low])})"
    best = [max(shares, key=lambda model: shares[model][k]) for k in range(len(slices))]
    if len(set(best)) == 1 and len(slices) > 1:
        model = best[0]
        told = (f"{part} {percent(x)}" for part, x in zip(slices, shares[model], strict=True))
        return f"{model} is best on every slice: {', '.join(told)}"
    told = (
        f"on {part}: {model} ({percent(shares[model][k])})"
        for k, (part, model) in enumerate(zip(slices, best, strict=True))
    )
    return f"Best {'; '.join(told)}"


def _over(top: np.ndarray | float, bottom: np.ndarray | float) -> np.ndarray | float:
    """Quotient, nan where the divisor is 0."""
    top, bottom = np.asarray(top, dtype=np.float64), np.asarray(bottom, dtype=np.float64)
    return np.divide(top, bottom, out=np.full(bottom.shape, np.nan), where=bottom != 0)[()]


def _mean_interval(values: Iterable[float]) -> Interval:
    """95 % interval of a mean by Student's t; nan for fewer than two values."""
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        return Interval(float("nan"), float("nan"))
    if np.ptp(values) == 0:
        return Interval(float(values[0]), float(values[0]))
    return Interval(*map(float, DescrStatsW(values).tconfint_mean()))


# --------------------------------------------------------------------------------------------- input


def _need(n: int, otherwise: str) -> None:
    if not n:
        raise InputError(otherwise)


def _columns(table: pd.DataFrame, names: Sequence[str]) -> None:
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise InputError(
            f"the table has no column {', '.join(missing)}; it has {', '.join(map(str, table))}"
        )


def _count(table: pd.DataFrame, n: int | None) -> int:
    """Number of images: as said, or the table's column n."""
    if n is None:
        if "n" not in table.columns or table["n"].nunique() != 1:
            raise InputError("say on how many images this was measured: n=, or one column n")
        n = table["n"].iloc[0]
    return int(n)


def _results(
    table: pd.DataFrame | Mapping[str, float | tuple[float, float, float]], n: int | None
) -> tuple[pd.DataFrame, int]:
    """A table with columns accuracy, low, high (nan where unknown), and the number of images."""
    if not isinstance(table, pd.DataFrame):
        ends = ("accuracy", "low", "high")
        parts = {name: np.atleast_1d(value) for name, value in table.items()}
        table = pd.DataFrame(
            [dict(zip(ends, map(float, values), strict=False)) for values in parts.values()],
            index=list(parts),
        )
    _need(len(table), "the table has no rows: give one for each model")
    _columns(table, ["accuracy"])
    if not table.index.is_unique:
        raise InputError(f"a model has two rows: {', '.join(map(str, table.index))}")
    if not table["accuracy"].between(0, 1).all():
        raise InputError("accuracy must be a share in 0..1 in every row")
    rows = table.reindex(columns=["accuracy", "low", "high"]).astype(float)
    rows.index = rows.index.map(str)
    return rows, _count(table, n)


def _matched(predictions: Mapping[str, Predictions]) -> dict[str, Predictions]:
    """The same predictions, all in the order of the first's images."""
    _need(len(predictions), "no predictions: give a model's name and Predictions, or more")
    first = next(iter(predictions.values()))
    _need(len(first), "the predictions have no images")
    return {str(name): first.aligned(other)[1] for name, other in predictions.items()}


def _slices(
    ids: Sequence[object], by: pd.Series | Mapping[object, object] | Sequence[object]
) -> dict[str, np.ndarray]:
    """Name of each slice that has images -> bool (n,) of the images in it."""
    series = by if isinstance(by, pd.Series) else pd.Series(by, dtype=object)
    if not series.index.is_unique:
        raise InputError("by has an image id twice: give each image one value")
    found = series.reindex(list(ids))
    if found.isna().any():
        missing = [image for image, gone in zip(ids, found.isna(), strict=True) if gone]
        raise InputError(f"by has no value for {len(missing)} images, {missing[0]} the first")
    values = found.map(str).to_numpy(dtype=object)
    if isinstance(series.dtype, pd.CategoricalDtype):
        order = [str(category) for category in series.cat.categories]
    else:
        rank = {cue: place for place, cue in enumerate(_CUE_ORDER)}
        order = sorted(set(values), key=lambda name: (rank.get(name, len(rank)), name))
    return {name: values == name for name in order if (values == name).any()}


# ------------------------------------------------------------------------------------------- drawing


def _axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """The axes given, or those of a new figure of this size in inches."""
    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def _settle(ax: Axes) -> None:
    """Lay the figure out, so that sizes on the canvas are known."""
    ax.get_figure(root=True).draw_without_rendering()


def _headline(ax: Axes, title: str, note: str, facts: Sequence[str]) -> None:
    """Set the title, wrapped to the axes' width, and the note below it; keep the alt text."""
    text = ax.text(
        0,
        1,
        _plain(note),
        transform=ax.transAxes + mpl.transforms.ScaledTranslation(0, 7 / 72, _dpi_scale(ax)),
        fontsize=10.5,
        color=GREY,
        va="bottom",
    )
    _settle(ax)
    figure, box = ax.get_figure(root=True), ax.get_window_extent()
    right = figure.bbox.width * 0.99 if len(figure.axes) == 1 else box.x1
    points = (right - box.x0) * 72 / figure.dpi
    notes = _wrapped(note, points, text.get_fontproperties())
    text.set_text("\n".join(notes))
    heading = ax.set_title(" ", pad=12 + 14 * len(notes), linespacing=1.2)
    heading.set_text("\n".join(_wrapped(title, points, heading.get_fontproperties())))
    _DESCRIPTIONS[ax] = f"{'; '.join(facts)}. In all: {note}."
    _settle(ax)


def _wrapped(text: str, points: float, font: FontProperties) -> list[str]:
    """As few lines of at most so many points as it takes, of about equal length.

    Lines break at spaces; formula signs are made plain.
    """
    width = {word: _points(word, font) for word in text.split(" ")}
    space = _points(" ", font)

    def fill(limit: float) -> list[str]:
        lines: list[str] = []
        used = 0.0
        for word in text.split(" "):
            used += space + width[word]
            if lines and used <= limit:
                lines[-1] += f" {word}"
            else:
                lines.append(word)
                used = width[word]
        return lines

    lines = fill(points)
    while len(lines) > 1 and len(closer := fill(points := points - 8)) == len(lines):
        lines = closer
    return [_plain(line) for line in lines]


def _points(text: str, font: FontProperties) -> float:
    return text_to_path.get_text_width_height_descent(text, font, False)[0]


def _dpi_scale(ax: Axes) -> mpl.transforms.Transform:
    return ax.get_figure(root=True).dpi_scale_trans


def _whiskers(
    ax: Axes, at: np.ndarray, shares: np.ndarray, ends: np.ndarray, colour: str = INK
) -> None:
    """Vertical 95 % intervals: ends (k, 2) around shares (k,), in 0..1, drawn in per cent."""
    reach = 100 * np.abs(ends - shares[:, None]).T
    ax.errorbar(at, 100 * shares, reach, fmt="none", ecolor=colour, elinewidth=1.6, capsize=0)


def _confusion_counts(predictions: Predictions) -> np.ndarray:
    """int64 (C, C + 1): images of each label (rows) by predicted class; the last column is none."""
    c = len(predictions.classes)
    cells = predictions.label_index * (c + 1) + predictions.predicted_index % (c + 1)
    return np.bincount(cells, minlength=c * (c + 1)).reshape(c, c + 1)


def _confusion(ax: Axes, predictions: Predictions, name: str | None, no_label: bool) -> Axes:
    n = len(predictions)
    _need(n, "the predictions have no images")
    name, classes = name or _name(predictions, "model"), predictions.classes
    counts = _confusion_counts(predictions)
    of_label = counts.sum(axis=1)
    shares = _over(counts, np.broadcast_to(of_label[:, None], counts.shape))
    columns = [*classes, "no label"] if no_label else list(classes)
    shown = 100 * shares[:, : len(columns)]
    words = np.where(counts[:, : len(columns)] > 0, np.char.mod("%.0f", shown), "")
    sns.heatmap(
        shown,
        annot=words,
        fmt="",
        cmap="Blues",
        vmin=0,
        vmax=100,
        cbar=False,
        square=True,
        linewidths=1,
        linecolor="white",
        ax=ax,
        annot_kws={"fontsize": 11 if len(columns) <= 10 else 7},
        xticklabels=[_plain(column) for column in columns],
        yticklabels=[
            f"{_plain(label)} ({count:,})" for label, count in zip(classes, of_label, strict=True)
        ],
    )
    for text in ax.texts:
        value = shown[int(text.get_position()[1]), int(text.get_position()[0])]
        text.set_color(_readable_on(mpl.colormaps["Blues"](value / 100)))
    colours = class_colours(classes)
    middles = np.arange(len(classes)) + 0.5
    fills = [colours[label] for label in classes]
    ax.scatter(np.full(len(classes), -0.2), middles, c=fills, marker="s", s=70, clip_on=False)
    ax.set(xlim=(0, len(columns)), xlabel="predicted class", ylabel="label (number of images)")
    ax.tick_params(length=0)
    ax.tick_params(axis="y", pad=16, rotation=0)
    ax.set_xticks(ax.get_xticks(), ax.get_xticklabels(), rotation=40, ha="right")

    right = int(np.diag(counts).sum())
    title = f"{name}: {percent(right / n)} right"
    wrong = np.where(np.eye(*counts.shape, dtype=bool), -1.0, np.nan_to_num(shares, nan=-1.0))
    wrong[:, -1] = -1.0
    row, column = np.unravel_index(wrong.argmax(), wrong.shape)
    if wrong[row, column] > 0:
        title += (
            f"; {classes[row]} is most often taken for {classes[column]} "
            f"({percent(wrong[row, column])} of {of_label[row]:,})"
        )
    note = f"{_images(predictions, n)}; accuracy {_ends(wilson(right, n))} %, 95 % interval"
    note += "; cells: % of the label's images"
    if none := int(counts[:, -1].sum()):
        note += f"; {none:,} answers name no label"
    facts = [
        f"{label} (n = {of_label[k]:,}): "
        + ", ".join(
            f"{percent(shares[k, j])} {column}" for j, column in enumerate(columns) if counts[k, j]
        )
        for k, label in enumerate(classes)
        if of_label[k]
    ]
    _headline(ax, title, note, facts)
    return ax


def _fit_cells(
    ax: Axes, boxes: list[tuple[float, ...]], counts: list[int], texts: list[mpl.text.Text]
) -> None:
    """Move the labels that are larger than their cell to the right, with a line to the cell."""
    outside: set[int] = set()
    while True:
        ax.set_xlim(0, 1.5 if outside else 1)
        _settle(ax)
        misfits = set()
        for k, ((x, y, width, height), text) in enumerate(zip(boxes, texts, strict=True)):
            cell = Bbox.from_bounds(x, y, width, height).transformed(ax.transData)
            label = text.get_window_extent()
            if counts[k] == 0 or label.width + 8 > cell.width or label.height + 4 > cell.height:
                misfits.add(k)
        if misfits <= outside:
            break
        outside |= misfits
    order = sorted(outside, key=lambda k: -(boxes[k][1] + boxes[k][3] / 2))
    middles = [boxes[k][1] + boxes[k][3] / 2 for k in order]
    heights, top = [], 1.14
    for middle in middles:
        top = min(middle, top - 0.24)
        heights.append(top)
    floor = -0.14
    for place in reversed(range(len(heights))):
        floor = max(heights[place], floor + 0.24)
        heights[place] = floor
    for k, height in zip(order, heights, strict=True):
        x, y, width, high = boxes[k]
        texts[k].set(position=(1.06, height), ha="left", color=INK)
        if counts[k]:
            ax.plot(
                [x + width / 2, 1.04],
                [y + high / 2, height],
                color=INK,
                lw=1,
                marker="o",
                markevery=[0],
                ms=4,
            )


def _label_points(ax: Axes, xs: np.ndarray, ys: np.ndarray, names: list[str]) -> None:
    """Name points, the names overlapping neither each other nor a point or its interval.

    xs: (k,); ys: (k, 3) value, low, high. Each name takes the nearest free place within the axes,
    or the least covered one; a line leads to those farther off.
    """
    _settle(ax)
    frame, scale = ax.get_window_extent(), ax.get_figure(root=True).dpi / 72
    taken = []
    for x, (y, low, high) in zip(xs, ys, strict=True):
        for height in (y, *([low, high] if np.isfinite(low) else [])):
            at, level = ax.transData.transform((x, height))
            reach = 7 * scale if height == y else scale
            taken.append(Bbox.from_extents(at - reach, level - reach, at + reach, level + reach))
        if np.isfinite(low):
            taken[-2:] = [Bbox.union(taken[-2:])]
    sides = [(1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1)]
    places = [(far, *side) for far in (10, 20, 32, 46, 62, 80, 100, 125) for side in sides]
    for k in np.argsort(-ys[:, 0], kind="stable"):
        sample = ax.text(0, 0, _plain(names[k]), fontsize=11)
        width, height = sample.get_window_extent().size
        sample.remove()
        at, level = ax.transData.transform((xs[k], ys[k, 0]))
        best, least, kept = places[0], np.inf, frame
        for far, right, up in places:
            x0 = at + far * scale * right - width * (1 - right) / 2
            y0 = level + far * scale * up - height * (1 - up) / 2
            box = Bbox.from_bounds(x0, y0, width, height)
            covered = sum(_shared(box, other) for other in taken)
            cost = covered + width * height - _shared(box, frame)
            if cost < least - 1e-6:
                best, least, kept = (far, right, up), cost, box
        taken.append(kept)
        far, right, up = best
        ax.annotate(
            _plain(names[k]),
            (xs[k], ys[k, 0]),
            xytext=(far * right, far * up),
            textcoords="offset points",
            ha=("center", "left", "right")[right],
            va=("center", "bottom", "top")[up],
            fontsize=11,
            arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.8} if far > 10 else None,
        )


def _shared(one: Bbox, other: Bbox) -> float:
    """Area in square pixels that two boxes share."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return max(width, 0) * max(height, 0)


def _tint(colour: str, share: float) -> str:
    """A colour mixed with white: share 0 leaves it, 1 is white."""
    return to_hex([channel + (1 - channel) * share for channel in to_rgb(colour)])


def _readable_on(colour: str | tuple[float, ...]) -> str:
    """White or ink, whichever has more contrast on a background (WCAG 2 relative luminance)."""
    channels = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return "white" if linear @ [0.2126, 0.7152, 0.0722] < 0.18 else INK
