"""Figures of what is won, by what setting, at what cost, and how far to trust it."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, NullLocator
from scipy.stats import t

from ..errors import InputError
from ..evidence import share
from ..predictions import BOTH_RUN, ORACLE, TUNED, VISION, Predictions
from . import base

ENDS = ["accuracy", "low", "high"]
NO_BREAK = "\u00a0"


@base.style()
def oracle_gap(table: pd.DataFrame, n: int, ax: Axes | None = None) -> Axes:
    """From the better single model to the oracle, and how much of that gap EmoVLM-KD recovers. table:
    rows are models, columns accuracy, low and high in 0..1, measured on n images."""
    rows = table[ENDS].sort_values("accuracy", kind="stable")
    best = rows.loc[[TUNED, VISION], "accuracy"].idxmax()
    low, high = rows.loc[[best, ORACLE], "accuracy"]
    colours = base.model_colours(table.index)
    ax = base.axes_or_new(ax, (10, 1.9 + 0.42 * len(rows)))
    ax.axvspan(100 * low, 100 * high, color="#f3f4f6", zorder=0)
    facts = []
    for y, (name, row) in enumerate(rows.iterrows()):
        reach = [[100 * (row.accuracy - row.low)], [100 * (row.high - row.accuracy)]]
        ax.errorbar(100 * row.accuracy, y, xerr=reach, fmt="o", color=colours[name], ms=9)
        part = ""
        if name.startswith(("EmoVLM-KD", BOTH_RUN)) and high > low:
            part = f", {base.percent((row.accuracy - low) / (high - low))} of the gap"
        facts.append(f"{name} {base.percent_with_ends(*row, 1)}{part}")
        label, across = base.percent(row.accuracy, 1) + part, ax.get_yaxis_transform()
        ax.text(1.015, y, label, transform=across, va="center_baseline")
    ax.set_yticks(range(len(rows)), rows.index)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set(ylim=(-0.6, len(rows) - 0.4), xlabel="accuracy (%)")
    ax.grid(axis="x")
    gap = f"shaded: from {best} to the oracle" if high > low else "no gap: the oracle is no better"
    note = f"n = {n:,} images; {gap}; lines: 95 % intervals"
    return base.headline(ax, "How much of the gap is won", note, facts[::-1])


@base.style()
def sweep(table: pd.DataFrame, x: str, n: int, ax: Axes | None = None) -> Axes:
    """Mean accuracy over seeds against a setting, its 95 % interval (Student's t) as band. table: a row
    a run, with columns x (numbers) and accuracy (in 0..1, on n images); equal x: its seeds."""
    runs = table.groupby(x)["accuracy"]
    low, mean, high = np.array([_mean_with_ends(values) for _, values in runs]).T
    at, seeds = np.array(list(runs.groups)), sorted(set(runs.size()))
    ax = base.axes_or_new(ax, (9, 4.6))
    ax.fill_between(at, 100 * low, 100 * high, color=base.MODEL_COLOURS["head"], alpha=0.16, lw=0)
    ax.plot(at, 100 * mean, "o-", color=base.MODEL_COLOURS["head"])
    if at.min() > 0 and at.max() >= 8 * at.min():
        ax.set_xscale("log", base=2)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(at, [f"{value:g}" for value in at])
    ax.set(xlabel=f"{x} (no unit)", ylabel="accuracy (%)")
    ax.grid(axis="y")
    note = f"n = {n:,} images; mean of {' or '.join(map(str, seeds))} seeds"
    if max(seeds) > 1:
        note += "; band: 95 % interval over seeds"
    rows = zip(at, mean, low, high, strict=True)
    facts = [f"{x} {value:g}: {base.percent_with_ends(*ends, 1)}" for value, *ends in rows]
    return base.headline(ax, f"Accuracy by {x}", note, facts)


@base.style()
def gate_weights(weights: np.ndarray, by: pd.Series | None, ax: Axes | None = None) -> Axes:
    """How the VLM's share in the decisions is distributed, a histogram for each slice of ``by``.
    weights: (n, 2) shares of head and VLM (`gating.TrainedGate.weights`)."""
    of_vlm = pd.Series(weights[:, 1], dtype=float)
    slices = base.slices_of(pd.Series("all", of_vlm.index) if by is None else by)
    edges, floors = np.linspace(0, 1, 21), np.arange(len(slices))[::-1]
    shares = {part: np.histogram(of_vlm[k], edges)[0] / k.sum() for part, k in slices.items()}
    tallest = np.max(list(shares.values()))
    ax = base.axes_or_new(ax, (9.5, 2.1 + 0.95 * len(slices)))
    look = {"align": "edge", "color": base.MODEL_COLOURS["VLM"], "alpha": 0.6, "ec": "white"}
    facts, ticks = [], []
    for floor, (part, inside) in zip(floors, slices.items(), strict=True):
        ax.bar(100 * edges[:-1], 0.78 * shares[part] / tallest, 5, floor, **look)
        low, mean, high = _mean_with_ends(of_vlm[inside])
        ax.plot([100 * low, 100 * high], [floor - 0.09] * 2, color=base.INK, lw=2)
        ax.plot(100 * mean, floor - 0.09, "D", color=base.INK, ms=6)
        ends = f"mean {base.percent_with_ends(mean, low, high)}"
        ax.text(1.02, floor + 0.3, ends, transform=ax.get_yaxis_transform(), va="center")
        ticks.append(f"{part}\nn = {inside.sum():,}")
        facts.append(f"{part} (n = {inside.sum():,}) {ends}")
    ax.set_yticks(floors + 0.3, ticks)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set(xlim=(0, 100), ylim=(-0.25, len(slices)), ylabel="height: share of images")
    ax.set_xlabel("share of the VLM in the decision (%; 0: head alone, 100: VLM alone)")
    ax.grid(axis="x")
    note = f"n = {len(of_vlm):,} images; diamond: mean, 95 % interval"
    return base.headline(ax, "How much say the gate gives the VLM", note, facts)


def _mean_with_ends(values: pd.Series) -> tuple[float, float, float]:
    """Low end, mean, high end (Student's t) of shares; the ends of a single value are nan."""
    mean, reach = values.mean(), t.ppf(0.975, len(values) - 1) * values.sem()
    return max(mean - reach, 0.0), mean, min(mean + reach, 1.0)


@base.style()
def cost_accuracy(table: pd.DataFrame, n: int, ax: Axes | None = None) -> Axes:
    """Accuracy against the parameters that a system adds to the VLM. table: rows are systems; columns
    accuracy, low and high in 0..1 (on n images), and 'added parameters' (`costs.compare`)."""
    ax, colours, facts = base.axes_or_new(ax, (10, 4.8)), base.model_colours(table.index), []
    rows = table.sort_values("accuracy", ascending=False)[["added parameters", *ENDS]]
    for name, (added, accuracy, low, high) in rows.iterrows():
        cost = f"{EngFormatter(sep=NO_BREAK)(float(f'{added:.3g}'))} added parameters"
        reach = 100 * np.array([[accuracy - low], [high - accuracy]])
        look = {"fmt": "o", "color": colours[name], "ms": 10, "elinewidth": 2.2}
        label = f"{name}\n{base.percent(accuracy, 1)}, {cost}"
        ax.errorbar(added, 100 * accuracy, reach, label=label, **look)
        facts.append(f"{name} {base.percent_with_ends(accuracy, low, high, 1)} for {cost}")
    ax.xaxis.set_major_formatter(EngFormatter(sep=NO_BREAK))
    ax.set(xlabel="added parameters", ylabel="accuracy (%)")
    ax.margins(x=0.1, y=0.16)
    ax.grid()
    ax.legend(**base.BESIDE)
    note = f"n = {n:,} images; lines: 95 % intervals"
    return base.headline(ax, "What is gained, and what is added", note, facts)


def calibration(predictions: Predictions, bins: int = 10) -> pd.DataFrame:
    """Accuracy by confidence, the predicted class's probability, with Wilson intervals: a row a bin of
    equal width that is not empty. Invalid answers are left out."""
    valid = ~predictions.invalid
    confidence, right = predictions.probabilities.max(axis=1)[valid], predictions.correct[valid]
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    rows = []
    for k in np.unique(place):
        inside = place == k
        accuracy, low, high, n = share(right[inside])
        rows.append((k / bins, (k + 1) / bins, n, confidence[inside].mean(), accuracy, low, high))
    return pd.DataFrame(rows, columns=["lower", "upper", "n", "confidence", *ENDS])


def expected_calibration_error(predictions: Predictions, bins: int = 10) -> float:
    """ECE in [0, 1] of `calibration`'s bins (Guo et al. 2017, arXiv 1706.04599, equation 3); nan
    without valid answers."""
    table = calibration(predictions, bins)
    distance = (table["accuracy"] - table["confidence"]).abs()
    return float((table["n"] * distance).sum() / table["n"].sum()) if len(table) else float("nan")


@base.style()
def reliability(predictions: Predictions, name: str = "model", ax: Axes | None = None) -> Axes:
    """Calibration: accuracy against confidence, counts as bars; InputError without valid answers."""
    table = calibration(predictions)
    if not (n := int(table["n"].sum())):
        raise InputError("no answer names a class: there is no confidence to draw")
    ax = base.axes_or_new(ax, (9.6, 5))
    centres = 50 * (table["lower"] + table["upper"])
    bars = ax.bar(centres, 100 * table["n"] / n, 9.2, color=base.PALE, label="share of images")
    ax.bar_label(bars, [f"{count:,}" for count in table["n"]], fontsize=9.5)
    line = {"color": base.INK, "lw": 1.2, "ls": base.DASHED}
    ax.plot([0, 100], [0, 100], label="as often right as said", **line)
    height, low, high = 100 * table[ENDS].to_numpy().T
    look = {"fmt": "o-", "color": base.model_colours([name])[name], "label": f"accuracy of {name}"}
    ax.errorbar(100 * table["confidence"], height, np.stack([height - low, high - height]), **look)
    ax.set(xlim=(0, 100), ylim=(0, 104), xlabel="confidence (%)", ylabel="accuracy, share (%)")
    ax.grid()
    ax.legend(**base.BESIDE)
    stated = base.percent((table["n"] * table["confidence"]).sum() / n)
    right = base.percent_with_ends(*share(predictions.correct[~predictions.invalid])[:3])
    note = f"n = {n:,} images; says {stated} on average, right: {right}; "
    note += f"ECE {expected_calibration_error(predictions):.2f}"
    if left_out := len(predictions) - n:
        note += f"; {left_out:,} invalid answers left out"
    facts = [
        f"confidence {base.percent(mean)}: accuracy {base.percent_with_ends(*ends)}, n = {count:,}"
        for _, _, count, mean, *ends in table.itertuples(index=False)
    ]
    return base.headline(ax, f"Calibration of {name}", note, facts)
