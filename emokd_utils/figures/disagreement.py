"""Figures of what models get right and wrong: pictures, maps, four ways, confusion, cues."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.container import BarContainer
from matplotlib.patches import Rectangle
from PIL import Image

from ..complementarity import Outcome, four_way
from ..errors import InputError
from ..evidence import share
from ..predictions import Predictions
from . import base

BOTH_RIGHT = "#3d4753"
FOR, AGAINST = "#c1440e", "#2166ac"


@base.style()
def pictures(
    images: Sequence[Image.Image],
    captions: Sequence[str],
    title: str = "",
    columns: int = 6,
    size: float = 1.5,
) -> Axes:
    """Images row by row, each of ``size`` inches with a caption below it; the axes of the first.
    Raises InputError for no images and for captions of another number."""
    if not len(images) or len(images) != len(captions):
        raise InputError(f"{len(images)} images, {len(captions)} captions: give one caption each")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    lines = max(len(text.splitlines()) for text in captions)
    height = rows * (size + 0.17 * lines) + 0.45 * bool(title)
    grid = _picture_axes(rows, columns, (size * columns, height), title)
    for ax, image, text in zip(grid, images, captions, strict=False):
        ax.imshow(image.convert("RGB"))
        ax.set_xlabel(text, fontsize=8.5, labelpad=3)
    described = "; ".join(" ".join(text.split()) for text in captions if text)
    base.DESCRIPTIONS[grid[0]] = f"{len(images)} pictures. {described}"
    return grid[0]


@base.style()
def explanations(
    image: Image.Image,
    maps: Mapping[str, Any],
    boxes: Mapping[str, Sequence[float]] | None = None,
    title: str = "",
) -> list[Axes]:
    """An image and its maps (by name, of `explanations.explain`) side by side, those by occlusion on
    one scale; the axes. boxes: noun -> (x, y, width, height) in pixels. InputError for no maps."""
    if not maps:
        raise InputError("there are no maps to show")
    panels = len(maps) + 1
    row = _picture_axes(1, panels, (2.2 * panels, 3.2 + 0.3 * bool(title)), title)
    outline = {"fc": "none", "ec": base.INK, "lw": 1.2}
    for ax, (x, y, width, height) in itertools.product(row, (boxes or {}).values()):
        ax.add_patch(Rectangle((x - 0.5, y - 0.5), width, height, **outline))
    row[0].imshow(image.convert("RGB"))
    row[0].set_title("the image", fontsize=10)
    row[0].set_xlabel(", ".join(boxes or {}), fontsize=9)
    falls, facts = [np.abs(m.values).max() for m in maps.values() if m.method == "occlusion"], []
    grey = 0.5 + 0.45 * np.asarray(image.convert("L")) / 255
    for ax, (name, explanation) in zip(row[1:], maps.items(), strict=True):
        values = np.nan_to_num(explanation.on_pixels(*image.size))  # (height, width)
        top = max(falls) if explanation.method == "occlusion" else values.max()
        colour = np.where(values[..., None] < 0, to_rgb(AGAINST), to_rgb(FOR))
        strength = 0.85 * np.abs(values)[..., None] / (top or 1)
        ax.imshow(grey, cmap="gray", vmin=0, vmax=1)
        ax.imshow(np.concatenate([colour, strength], axis=2))  # (height, width, 4)
        ax.set_title(name.replace(", ", "\n"), fontsize=10)
        ax.set_xlabel(caption := _map_caption(explanation), fontsize=9)
        facts.append(f"{name}: {' '.join(caption.split())}")
    key = "red: speaks for the label, or is read; blue: against it"
    if len(falls) > 1:
        key += f"; in the maps by occlusion the darkest is {100 * max(falls):.0f} points"
    row[0].figure.supxlabel(f"{key}.", x=0.01, ha="left", fontsize=9, color=base.GREY)
    base.DESCRIPTIONS[row[0]] = f"An image and {len(maps)} maps. {'; '.join(facts)}."
    return row


def _picture_axes(rows: int, columns: int, size: tuple[float, float], title: str) -> list[Axes]:
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for ax in grid.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold")
    return list(grid.flat)


def _map_caption(explanation: Any) -> str:
    label, low, high = explanation.label, explanation.values.min(), explanation.values.max()
    if explanation.method == "occlusion":
        return f"{label} falls by\n{100 * low:+.0f} to {100 * high:+.0f} points"
    if explanation.method == "Grad-CAM":
        return f"speaks for {label}\n(darkest: {high:.2f} of the logit)"
    return f"read most: {high * explanation.values.size:.1f} times\nwhat an even share is"


@base.style()
def four_way_map(a: Outcome, b: Outcome, names: tuple[str, str], ax: Axes | None = None) -> Axes:
    """Both right, only A, only B, neither: a mosaic whose areas are the shares of images, with counts
    and Wilson intervals; left what A gets right, below what B does. InputError for no images."""
    counted = four_way(a, b)
    if not counted.n:
        raise InputError("the two models share no images: predict both for the same ones")
    colours = base.model_colours(names)
    ax = base.axes_or_new(ax, (10, 4.8))
    wide = (counted.both + counted.only_a) / counted.n
    left = counted.both / max(counted.both + counted.only_a, 1)
    right = counted.only_b / max(counted.only_b + counted.neither, 1)
    cells = [  # name, images, colour, ink, x, y, width, height
        ("both right", counted.both, BOTH_RIGHT, "white", 0, 0, wide, left),
        (f"only {names[0]}", counted.only_a, colours[names[0]], "white", 0, left, wide, 1 - left),
        (f"only {names[1]}", counted.only_b, colours[names[1]], base.INK, wide, 0, 1 - wide, right),
        ("neither", counted.neither, base.PALE, base.INK, wide, right, 1 - wide, 1 - right),
    ]
    facts = []
    for name, count, colour, ink, x, y, width, height in cells:
        value, *ends, _ = share(count, counted.n)
        caption = f"{count:,} images, {base.percent_with_ends(value, *ends, 1)}"
        cell = Rectangle((x, y), width, height, fc=colour, ec="white", lw=2.5)
        cell.set_label(f"{name}\n{caption}")
        ax.add_patch(cell)
        if min(width, height) > 0.12:
            look = {"color": ink, "ha": "center", "va": "center", "size": 16, "weight": "bold"}
            ax.text(x + width / 2, y + height / 2, base.percent(value), **look)
        facts.append(f"{name} {caption}")
    ax.set(xlabel="width: share of images (%)", ylabel="height: share of column (%)")
    sides = [f"right {base.percent(wide)}", f"wrong {base.percent(1 - wide)}"]
    ax.set_xticks([wide / 2, (1 + wide) / 2], [f"{names[0]}: {side}" for side in sides])
    ax.set_yticks([0, 0.5, 1], ["0", "50", "100"])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.legend(**base.BESIDE)
    oracle = base.percent(1 - counted.shares["neither"])
    note = f"n = {counted.n:,} images; oracle (either right): {oracle}; [ ]: 95 % interval"
    return base.headline(ax, "Which of the two is right", note, facts)


@base.style()
def confusion(predictions: Predictions, name: str = "model", ax: Axes | None = None) -> Axes:
    """How often each label was taken for each class, in % of the label's images (rows); answers that
    named no class have a column 'no label'. Raises InputError for no images."""
    classes = predictions.classes
    if not (n := len(predictions)):
        raise InputError("the predictions have no images")
    answered = np.where(predictions.invalid, len(classes), predictions.predicted_index)
    columns = range(len(classes) + predictions.invalid.any())
    shares = pd.crosstab(predictions.label_index, answered, normalize="index")
    shares = shares.reindex(index=range(len(classes)), columns=columns).fillna(0)
    names = [*classes, "no label"][: len(columns)]
    rows = [f"{label} ({predictions.labels.count(label):,})" for label in classes]
    look = {"cmap": "Blues", "vmin": 0, "vmax": 100, "cbar": False, "square": True}
    look |= {"linewidths": 1, "linecolor": base.PALE, "xticklabels": names, "yticklabels": rows}
    look |= {"annot": True, "fmt": ".0f", "annot_kws": {"size": 11 if len(classes) < 11 else 7}}
    ax = base.axes_or_new(ax, (8.4, 7))
    sns.heatmap(100 * shares, mask=shares == 0, ax=ax, **look)
    for text in ax.texts:
        text.set_color("white" if float(text.get_text()) > 65 else base.INK)
    ax.set(xlabel="predicted class", ylabel="label (number of images)")
    ax.tick_params(length=0)
    plt.setp(ax.get_xticklabels(), rotation=40, ha="right")
    accuracy = base.percent_with_ends(*share(predictions.correct)[:3])
    note = f"n = {n:,} images; right: {accuracy}; cells: % of the label's images"
    facts = []
    for row, parts in zip(rows, shares.to_numpy(), strict=True):
        each = (f"{base.percent(part)} {to}" for part, to in zip(parts, names, strict=True) if part)
        facts.append(f"{row}: {', '.join(each) or 'no images'}")
    return base.headline(ax, name, note, facts)


@base.style()
def confusion_pair(a: Predictions, b: Predictions, names: tuple[str, str]) -> tuple[Axes, Axes]:
    """`confusion` of two models side by side; InputError where their images differ."""
    axes = plt.subplots(1, 2, figsize=(15, 7), layout="constrained")[1]
    pairs = zip(a.aligned(b), names, axes, strict=True)
    return tuple(confusion(predictions, name, ax) for predictions, name, ax in pairs)


@base.style()
def cue_bars(predictions: dict[str, Predictions], by: pd.Series, ax: Axes | None = None) -> Axes:
    """Accuracy of each model on each slice: grouped bars with Wilson intervals, a line at chance. by:
    slice of each image id, such as the cue. InputError for other ids and images without a slice."""
    first = next(iter(predictions.values()))
    by = by.reindex(first.ids)
    if by.isna().any():
        missing = by.index[by.isna()]
        raise InputError(f"by has no value for {len(missing)} images, {missing[0]} the first")
    slices = base.slices_of(by)
    ticks = [f"{part}\nn = {inside.sum():,}" for part, inside in slices.items()]
    bars, reach, facts = pd.DataFrame(index=ticks), [], []
    for model, predicted in predictions.items():
        correct = first.aligned(predicted)[1].correct
        shares = {part: share(correct[inside])[:3] for part, inside in slices.items()}
        bars[model], low, high = 100 * np.array(list(shares.values())).T
        reach.append([bars[model] - low, high - bars[model]])
        each = (f"{part} {base.percent_with_ends(*ends)}" for part, ends in shares.items())
        facts.append(f"{model}: {', '.join(each)}")
    ax = base.axes_or_new(ax, (10.5, 4.6))
    look = {"color": base.model_colours(bars), "error_kw": {"ecolor": base.INK, "elinewidth": 1.6}}
    bars.plot.bar(ax=ax, yerr=np.array(reach), width=0.82, rot=0, ec="white", **look)
    for drawn in ax.containers:
        if isinstance(drawn, BarContainer):
            ax.bar_label(drawn, fmt="%.0f", padding=2, fontsize=10)
    chance, line = 1 / len(first.classes), {"color": base.INK, "lw": 1.2, "ls": base.DASHED}
    ax.axhline(100 * chance, label=f"chance {base.percent(chance, 1)}", **line)
    ax.tick_params(axis="x", length=0)
    name = str(by.name or "slice")
    ax.set(xlabel=name, ylabel="accuracy (%)", ylim=(0, 108), yticks=range(0, 101, 20))
    ax.grid(axis="y")
    ax.legend(**base.BESIDE)
    note = f"n = {len(first):,} images; lines: 95 % intervals"
    return base.headline(ax, f"Accuracy by {name}", note, facts)
