"""Checks of lesson 2: averages over classes, the epoch to keep, the calibration error."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
from scipy.stats import hmean

from ..checks import Exercise, calls, variants

_AVERAGES_PROBE = calls(
    (np.array([[3, 1], [0, 2]]),),
    (np.array([[50, 3, 7], [6, 10, 4], [1, 5, 4]]),),
    (np.array([[8, 2, 0], [3, 7, 0], [1, 4, 0]]),),
    places="for two classes/for three/where a class is never predicted",
)


def _averages(confusion):
    """The two averages, and what is taken for them."""
    hit, n, named = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    recall, precision, f1 = hit / n, hit / np.maximum(named, 1), 2 * hit / (n + named)
    return {
        "recall": recall.mean(),
        "f1": f1.mean(),
        "precision": precision.mean(),
        "accuracy": hit.sum() / n.sum(),
        "weighed f1": np.average(f1, weights=n),
        "f1 of averages": hmean([recall.mean(), precision.mean()]),
        "plain": (recall + precision).mean() / 2,
        "f1 of named": f1[named > 0].mean(),
    }


@variants
def _averaged(names, confusion):
    return [_averages(confusion)[name] for name in names.split("/")]


_AVERAGES = {
    "rows and columns are exchanged. Are the images of one label a row of yours?": "precision/f1",
    "all images are counted alike. That is the accuracy. Divide by class.": "accuracy/accuracy",
    "classes weigh by their number of images. Take every class once.": "accuracy/weighed f1",
    "F1 is taken of the averages. First F1 of each class, then the mean.": "recall/f1 of averages",
    "precision and recall are averaged plainly. What do 1 and 0 give?": "recall/plain",
    "precision stands for F1. What was missed?": "recall/precision",
    "a class that is never predicted is left out. It has images.": "recall/f1 of named",
}
_macro = _averaged("recall/f1")
_AVERAGES = {text: _averaged(names) for text, names in _AVERAGES.items()}


def _history(best_on_test, *val_losses):
    table = pd.DataFrame({"val_loss": val_losses}, index=range(1, len(val_losses) + 1))
    table["train_loss"] = 2.0 / table.index + (table.index == len(table))
    table["test_accuracy"] = 0.5 + 0.01 * table.index
    table.loc[best_on_test, "test_accuracy"] = 0.9
    return table.rename_axis("epoch").reset_index().to_dict("records")


_EPOCHS_PROBE = calls(
    (_history(1, 2.0, 1.0, 0.99, 1.1, 1.2), 1),
    (_history(3, 2.0, 1.0, 2.5), 3),
    (_history(4, 2.0, 1.0, 1.0, 1.2, 0.9), 2),
    (_history(7, 2.0, 1.5, 1.7, 1.6, 1.65, 1.3, 1.4), 2),
    (_history(6, 2.0, 1.5, 1.7, 1.6, 1.4, 1.6, 1.55, 1.45, 1.2), 3),
    (_history(5, 3.0, 2.5, 2.7, 2.4, 2.6, 2.3, 2.5, 2.6, 1.0, 1.1), 2),
    places="where a loss is just below/where the list ends while there is patience/"
    "where a loss comes again/in long runs/in long runs/in long runs",
)


@variants
def _stopping(history, patience, *, reset=True, previous=False, last=False, longer=0):
    best, bad, before = history[0], 0, history[0]
    for record in history[1:]:
        better = record["val_loss"] < (before if previous else best)["val_loss"]
        bad = 0 if better and reset else bad + (not better)
        best = record if record["val_loss"] < best["val_loss"] else best
        before = record
        if bad and bad >= patience + longer:
            break
    return (before if last else best)["epoch"]


@variants
def _lowest(key, history, patience, *, best=min):
    return best(history, key=lambda record: record[key])["epoch"]


_EPOCHS = {
    "the test split chooses. What is then left to judge it?": _lowest("test_accuracy", best=max),
    "the epoch at which training stops is kept. Is it the best one?": _stopping(last=True),
    "the count of bad epochs is not set back. What after a new best one?": _stopping(reset=False),
    "each epoch is compared with the one before. Which is the best yet?": _stopping(previous=True),
    "patience is one epoch too long. After how many does training stop?": _stopping(longer=1),
    "the training loss chooses. It falls as long as one trains.": _lowest("train_loss"),
    "the highest loss is taken for the best. Is a high loss good?": _lowest("val_loss", best=max),
}

_DRAW = np.random.default_rng(2)
_SURE = np.round(_DRAW.uniform(0.31, 0.99, 60), 3) + 0.0004  # on no bin's edge
_CORRECT = _DRAW.random(60) < 0.35 + 0.4 * _SURE
_WITH_ONES = (np.append(_SURE[:30], [1.0] * 3), np.append(_CORRECT[:30], [True, False, False]))
_SMALL = (np.array([0.9, 0.95, 1.0, 0.3]), np.array([True, True, False, True]), 4)
_SURE_CASES = (_SMALL, (_SURE, _CORRECT, 10), (_SURE, _CORRECT, 5), (*_WITH_ONES, 10))
_ABOUT = "where some are 1/where none is 1/where none is 1/where some are 1"
_SURE_PROBE = calls(*_SURE_CASES, places=_ABOUT)


@variants
def _binned(combined, confidence, correct, bins, place=np.multiply):
    """Of the bins that hold images: their share, accuracy less certainty (gap)."""
    number = np.minimum(place(confidence, bins), bins - 1).astype(int)
    _, inverse, n = np.unique(number, return_inverse=True, return_counts=True)
    sure, right = (np.bincount(inverse, of) / n for of in (confidence, correct))
    return combined(SimpleNamespace(share=n / n.sum(), gap=right - sure, bins=bins))


def _weighed(bin):
    return bin.share @ abs(bin.gap)


_ece = _binned(_weighed)


def _stretched(sure, bins):
    return bins * (sure - sure.min()) / np.ptp(sure)


_CALIBRATION = {
    "bins count alike. Three images or three hundred?": _binned(lambda bin: abs(bin.gap).mean()),
    "empty bins are averaged in. What weight?": _binned(lambda bin: abs(bin.gap).sum() / bin.bins),
    "too sure and not sure enough cancel. Drop the sign.": _binned(lambda bin: bin.share @ bin.gap),
    "certainty minus accuracy, with its sign. Drop it.": _binned(lambda bin: -bin.share @ bin.gap),
    "the sign is dropped after the sum. Bin by bin.": _binned(lambda bin: abs(bin.share @ bin.gap)),
    "the worst bin stands for all. Weigh all of them.": _binned(lambda bin: abs(bin.gap).max()),
    "distances are squared. Read the formula again.": _binned(lambda bin: bin.share @ bin.gap**2),
    "a bin is missing. Count the edges.": lambda sure, right, bins: _ece(sure, right, bins - 1),
    "the bins begin at the lowest certainty. They begin at 0.": _binned(_weighed, place=_stretched),
}

EXERCISES = (
    Exercise("2.1", "Two averages over classes", _AVERAGES_PROBE, _macro, _AVERAGES),
    Exercise("2.2", "The epoch to keep", _EPOCHS_PROBE, _stopping(), _EPOCHS),
    Exercise("2.3", "Expected calibration error", _SURE_PROBE, _ece, _CALIBRATION),
)
