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
    about="for two classes/for three/where a class is never predicted",
)


@variants
def _averaged(averages, confusion):
    hit, n, named = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    recall, precision, f1 = hit / n, hit / np.maximum(named, 1), 2 * hit / (n + named)
    parts = {"recall": recall, "precision": precision, "f1": f1, "n": n}
    return averages(SimpleNamespace(**parts, undefined=np.where(named, 0, np.nan)))


_macro = _averaged(lambda c: (c.recall.mean(), c.f1.mean()))
_AVERAGES = {
    "rows and columns are exchanged. Recall asks about images with a label. Are "
    "those of one label a row of yours?": _averaged(lambda c: (c.precision.mean(), c.f1.mean())),
    "all images are counted alike. That is the accuracy. Ten images of a class "
    "should weigh as a thousand.": _averaged(lambda c: [np.average(c.recall, weights=c.n)] * 2),
    "classes weigh by their number of images. A macro average takes every class once, however "
    "many it has.": _averaged(lambda c: [np.average(x, weights=c.n) for x in (c.recall, c.f1)]),
    "F1 is taken of the averages. The order matters: first F1 of each class, then the "
    "mean.": _averaged(lambda c: (c.recall.mean(), hmean([c.recall.mean(), c.precision.mean()]))),
    "precision and recall are averaged plainly. What should a class with precision 1 and "
    "recall 0 get?": _averaged(lambda c: (c.recall.mean(), (c.recall + c.precision).mean() / 2)),
    "the accuracy stands in place of recall. Divide within each class.": _averaged(
        lambda c: (np.average(c.recall, weights=c.n), c.f1.mean())
    ),
    "F1 misses its 2. Put numbers into the formula.": _averaged(
        lambda c: (c.recall.mean(), c.f1.mean() / 2)
    ),
    "precision stands in place of F1. What was missed?": _averaged(
        lambda c: (c.recall.mean(), c.precision.mean())
    ),
    "a class that is never predicted is left out. Then it pays to give up on a class. "
    "It has images.": _averaged(lambda c: (c.recall.mean(), np.nanmean(c.f1 + c.undefined))),
}


def _history(best_on_test, *val_losses):
    table = pd.DataFrame({"val_loss": val_losses}, index=range(1, len(val_losses) + 1))
    table["train_loss"] = 2.0 / table.index + (table.index == len(table))
    table["test_accuracy"] = 0.5 + 0.01 * table.index
    table.loc[best_on_test, "test_accuracy"] = 0.9
    return table.rename_axis("epoch").reset_index().to_dict("records")


_HISTORIES = (
    (_history(6, 2.0, 1.5, 1.7, 1.4, 1.6, 1.55, 1.45, 1.5, 1.2), 3),
    (_history(5, 3.0, 2.5, 2.7, 2.4, 2.6, 2.3, 2.5, 2.6, 1.0, 1.1), 2),
    (_history(7, 2.0, 1.5, 1.7, 1.6, 1.65, 1.3, 1.4), 2),
    (_history(3, 2.0, 1.0, 1.5), 3),
    (_history(4, 2.0, 1.0, 1.0, 1.2, 0.9), 2),
    (_history(1, 2.0, 1.0, 0.99, 1.1, 1.2), 1),
)
_EPOCHS_PROBE = calls(
    *_HISTORIES,
    about="in long runs/in long runs/in long runs/where the list ends while there is patience/"
    "where a loss comes again/where a loss is just below",
)


@variants
def _stopping(history, patience, *, reset=True, previous=False, last=False, longer=0, equal=False):
    best, bad, before = history[0], 0, history[0]
    for record in history[1:]:
        lowest = (before if previous else best)["val_loss"]
        better = record["val_loss"] < lowest or (equal and record["val_loss"] == lowest)
        bad = 0 if better and reset else bad + (not better)
        lower = record["val_loss"] < best["val_loss"]
        best = record if lower or (better and not previous) else best
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
    "training stops at the first epoch that is not better. "
    "How many in a row are allowed?": lambda history, patience: _stopping()(history, 1),
    "the count of bad epochs is not set back. What after a new best one?": _stopping(reset=False),
    "each epoch is compared with the one before. Which is the best yet?": _stopping(previous=True),
    "patience is one epoch too long. After how many does training stop?": _stopping(longer=1),
    "patience is one epoch too short. After how many does training stop?": _stopping(longer=-1),
    "an equal loss counts as better. Is it below the lowest?": _stopping(equal=True),
    "the training loss chooses. It falls as long as one trains.": _lowest("train_loss"),
    "the highest loss is taken for the best. Is a high loss good?": _lowest("val_loss", best=max),
}

_DRAW = np.random.default_rng(2)
_SURE = np.round(_DRAW.uniform(0.31, 0.99, 60), 3) + 0.0004  # on no bin's edge
_CORRECT = _DRAW.random(60) < 0.35 + 0.4 * _SURE
_WITH_ONES = (np.append(_SURE[:30], [1.0] * 3), np.append(_CORRECT[:30], [True, False, False]))
_SMALL = (np.array([0.9, 0.95, 1.0, 0.3]), np.array([True, True, False, True]), 4)
_SURE_CASES = ((_SURE, _CORRECT, 10), (*_WITH_ONES, 10), (_SURE, _CORRECT, 5), _SMALL)


@variants
def _binned(combined, confidence, correct, bins, top=1, cut=np.floor):
    """Of the bins that hold images: their share, accuracy less certainty (gap) or middle (off)."""
    place = np.minimum(cut(confidence * bins), bins - top).astype(int)
    filled, inverse, n = np.unique(place, return_inverse=True, return_counts=True)
    sure, right = (np.bincount(inverse, of) / n for of in (confidence, correct))
    off = right - (filled + 0.5) / bins
    return combined(SimpleNamespace(share=n / n.sum(), gap=right - sure, off=off, bins=bins))


_ece = _binned(lambda bin: bin.share @ abs(bin.gap))


def _equal_counts(confidence, correct, bins):
    parts = np.array_split(np.argsort(confidence), bins)
    return sum(abs((correct[part] - confidence[part]).sum()) for part in parts) / len(correct)


def _certain_lost(confidence, correct, bins):
    inside = confidence < 1
    return _ece(confidence[inside], correct[inside], bins) * inside.mean()


_CALIBRATION = {
    "bins count alike. Three images or three hundred?": _binned(lambda bin: abs(bin.gap).mean()),
    "empty bins are averaged in. What weight?": _binned(lambda bin: abs(bin.gap).sum() / bin.bins),
    "too sure and not sure enough cancel. Drop the sign.": _binned(lambda bin: bin.share @ bin.gap),
    "certainty minus accuracy, with its sign. Drop it.": _binned(lambda bin: -bin.share @ bin.gap),
    "the sign is dropped after the sum. Bin by bin.": _binned(lambda bin: abs(bin.share @ bin.gap)),
    "the worst bin stands for all. Weigh all of them.": _binned(lambda bin: abs(bin.gap).max()),
    "distances are squared. Read the formula again.": _binned(lambda bin: bin.share @ bin.gap**2),
    "certainty is taken as the middle of the bin. What "
    "did the images in that bin say on average?": _binned(lambda bin: bin.share @ abs(bin.off)),
    "the distance is taken image by image. That of one image is never small. Average "
    "over the bin first.": lambda confidence, correct, bins: abs(correct - confidence).mean(),
    "bins hold equally many images. Here they are equally wide, from 0 to 1.": _equal_counts,
    "there is a bin too few. How many edges has a row of bins?": lambda confidence, correct, bins: (
        _ece(confidence, correct, bins - 1)
    ),
    "the bins begin at the lowest certainty. They begin at 0.": lambda confidence, correct, bins: (
        _ece(confidence, correct, bins, cut=lambda x: bins * (x - x.min()) // np.ptp(x))
    ),
    "certainties go to the nearest edge. Is 0.39 in 0.3 to 0.4?": lambda *given: _ece(
        *given, top=0, cut=np.round
    ),
    "the accuracy is averaged, not a distance. What is subtracted?": lambda confidence, correct, bins: (
        correct.mean()
    ),
    "a certainty of 1 has a bin of its own. How many bins are there then?": (
        lambda *given: _ece(*given, top=0)
    ),
    "a certainty of 1 falls out of the last bin. In which of your bins is 1.0?": _certain_lost,
}

EXERCISES = (
    Exercise("2.1", "Two averages over classes", _AVERAGES_PROBE, _macro, _AVERAGES),
    Exercise("2.2", "The epoch to keep", _EPOCHS_PROBE, _stopping(), _EPOCHS),
    Exercise("2.3", "Expected calibration error", calls(*_SURE_CASES), _ece, _CALIBRATION),
)
