"""Checks of lesson 2: averages over classes, the epoch to keep, the calibration error."""

from types import SimpleNamespace

import numpy as np

from ..checks import Exercise, calls


def _averaged(averages):
    """What `averages` makes of recall, precision, F1 and number of images of each class."""

    def of_matrix(confusion):
        hit, labelled, named = np.diag(confusion), confusion.sum(1), confusion.sum(0)
        f1, undefined = 2 * hit / (labelled + named), np.where(named, 0, np.nan)
        precision = hit / np.maximum(named, 1)
        parts = {"recall": hit / labelled, "precision": precision, "f1": f1, "n": labelled}
        return averages(SimpleNamespace(**parts, undefined=undefined))

    return of_matrix


def _of_means(c):
    recall, precision = c.recall.mean(), c.precision.mean()
    return recall, 2 * recall * precision / (recall + precision)


AVERAGES = Exercise(
    "2.1",
    "Two averages over classes",
    calls(
        (np.array([[50, 3, 7], [6, 10, 4], [1, 5, 4]]),),
        (np.array([[8, 2, 0], [3, 7, 0], [1, 4, 0]]),),  # a class that is never predicted
    ),
    _averaged(lambda c: (c.recall.mean(), c.f1.mean())),
    {
        "rows and columns are exchanged. Recall asks what became of the images with a label. Are "
        "the images of one label a row of your matrix, "
        "or a column?": _averaged(lambda c: (c.precision.mean(), c.f1.mean())),
        "all images are counted alike. What you have is the accuracy. A class of ten images should "
        "weigh as much as one of "
        "a thousand.": _averaged(lambda c: [np.average(c.recall, weights=c.n)] * 2),
        "classes weigh by their number of images. A macro average takes every class once, however "
        "many images it "
        "has.": _averaged(lambda c: [np.average(x, weights=c.n) for x in (c.recall, c.f1)]),
        "F1 is taken of the averages. First F1 of each class, then the average: "
        "the order matters.": _averaged(_of_means),
        "precision and recall are averaged plainly. F1 is another mean of the two. Try a class "
        "with precision 1 and recall near 0: what should it "
        "get?": _averaged(lambda c: (c.recall.mean(), (c.recall + c.precision).mean() / 2)),
        "a class that is never predicted makes it undefined. Its precision is 0 / 0. Write F1 with "
        "counts, and its divisor is no "
        "longer 0.": _averaged(lambda c: (c.recall.mean(), (c.f1 + c.undefined).mean())),
        "a class that is never predicted is left out. Then a model gains by giving up on a class. "
        "It has images, so "
        "it counts.": _averaged(lambda c: (c.recall.mean(), np.nanmean(c.f1 + c.undefined))),
    },
)


def _history(val_loss, best_on_test):
    return [
        {
            "epoch": epoch,
            "train_loss": 2.0 / epoch + (epoch == len(val_loss)),
            "val_loss": loss,
            "test_accuracy": 0.9 if epoch == best_on_test else 0.5 + 0.01 * epoch,
        }
        for epoch, loss in enumerate(val_loss, 1)
    ]


def _stopping(reset=True, previous=False, last=False, step=0):
    """Early stopping with one thing wrong."""

    def keep(history, patience):
        best, bad, before = history[0], 0, history[0]
        for record in history[1:]:
            better = record["val_loss"] < (before if previous else best)["val_loss"]
            bad = 0 if better and reset else bad + (not better)
            best = min(best, record, key=lambda epoch: epoch["val_loss"])
            before = record
            if bad == patience:
                break
        return (before if last else best)["epoch"] + step

    return keep


def _extreme(key, sign=1):
    return lambda history, _: min(history, key=lambda record: sign * record[key])["epoch"]


EPOCH = Exercise(
    "2.2",
    "The epoch to keep",
    calls(
        (_history([2.0, 1.5, 1.7, 1.4, 1.6, 1.55, 1.45, 1.5, 1.2], 6), 3),
        (_history([3.0, 2.5, 2.7, 2.4, 2.6, 2.3, 2.5, 2.6, 1.0, 1.1], 5), 2),
        (_history([2.0, 1.5, 1.7, 1.6, 1.65, 1.3, 1.4], 7), 2),
    ),
    _stopping(),
    {
        "the test split chooses. Look at which column decides. A number that chose the model can "
        "no longer judge it.": _extreme("test_accuracy", -1),
        "the epoch at which training stops is kept. After its best epoch a model goes on for a "
        "while. Which of the two is wanted?": _stopping(last=True),
        "the last epoch of the list is kept. Training ends earlier, and the epoch where it ends "
        "need not be the best.": lambda history, patience: history[-1]["epoch"],
        "training does not stop. Your epoch is the best of all, but some of them lie behind the "
        "stop and were never seen. Where does patience come in?": _extreme("val_loss"),
        "training stops at the first epoch that is not better. That is patience 1. How many in a "
        "row are allowed?": lambda history, patience: _stopping()(history, 1),
        "the count of bad epochs is not set back. After a new best epoch the patience is whole "
        "again.": _stopping(reset=False),
        "each epoch is compared with the one before. An epoch can be better than the last and "
        "still no better than the best.": _stopping(previous=True),
        "epochs are counted from 0. Give the epoch's own number, "
        "which stands in the record.": _stopping(step=-1),
        "the training loss chooses. It falls as long as training lasts, whatever happens to unseen "
        "images.": _extreme("train_loss"),
        "the highest loss is taken for the best. A loss is better when it is lower.": _extreme(
            "val_loss", -1
        ),
    },
    rtol=0,
    atol=0.1,
)


def _certainties():
    draw = np.random.default_rng(2)
    confidence = np.round(draw.uniform(0.31, 0.99, 60), 3) + 0.0004  # on no bin's edge
    right = draw.random(60) < 0.35 + 0.4 * confidence
    sure = np.append(confidence[:30], [1.0, 1.0, 1.0])
    some = np.append(right[:30], [True, False, False])
    return (confidence, right, 10), (sure, some, 10), (confidence, right, 5)


def _binned(combined):
    """What `combined` makes of the bins that are not empty: their share of the images, mean
    certainty, accuracy, gap between these, middle, and of the number of all bins."""

    def error(confidence, correct, bins):
        place = np.minimum((confidence * bins).astype(int), bins - 1)
        filled, inverse, n = np.unique(place, return_inverse=True, return_counts=True)
        said, right = (np.bincount(inverse, of) / n for of in (confidence, correct))
        middle = (filled + 0.5) / bins
        values = {"share": n / n.sum(), "right": right, "gap": right - said, "middle": middle}
        return combined(SimpleNamespace(**values, bins=bins))

    return error


_ece = _binned(lambda bin: bin.share @ abs(bin.gap))


def _equal_counts(confidence, correct, bins):
    parts = np.array_split(np.argsort(confidence), bins)
    return sum(abs((correct[part] - confidence[part]).sum()) for part in parts) / len(correct)


def _certain_lost(confidence, correct, bins):
    inside = confidence < 1
    return _ece(confidence[inside], correct[inside], bins) * inside.mean()


CALIBRATION = Exercise(
    "2.3",
    "Expected calibration error",
    calls(*_certainties()),
    _ece,
    {
        "bins count alike. A bin with three images should not weigh as much as one with three "
        "hundred.": _binned(lambda bin: abs(bin.gap).mean()),
        "empty bins are averaged in. You divide by the number of bins. By what should each bin's "
        "distance be weighed?": _binned(lambda bin: abs(bin.gap).sum() / bin.bins),
        "too sure and not sure enough cancel. A distance has no sign. Look at a bin where accuracy "
        "is below certainty, and at one where it "
        "is above.": _binned(lambda bin: bin.share @ bin.gap),
        "certainty minus accuracy, with its sign. A distance has no sign: what one bin says too "
        "much, another may say too little.": _binned(lambda bin: -bin.share @ bin.gap),
        "the sign is dropped after the sum. By then the bins have cancelled. "
        "Drop it in each bin.": _binned(lambda bin: abs(bin.share @ bin.gap)),
        "the worst bin stands for all. That is the maximum calibration error, "
        "another measure.": _binned(lambda bin: abs(bin.gap).max()),
        "distances are squared. The formula has an absolute value.": _binned(
            lambda bin: bin.share @ bin.gap**2
        ),
        "certainty is taken as the middle of the bin. What did the images in the bin say on "
        "average?": _binned(lambda bin: bin.share @ abs(bin.right - bin.middle)),
        "the distance is taken image by image. One image is right or wrong, so its distance is "
        "never small. Average both sides over the bin before "
        "you compare.": lambda confidence, correct, bins: abs(correct - confidence).mean(),
        "bins hold equally many images. Here they are equally wide, from 0 to 1.": _equal_counts,
        "an empty bin makes it undefined. A bin without images has no mean and no weight: pass "
        "over it.": _binned(
            lambda bin: np.nan if len(bin.gap) < bin.bins else bin.share @ abs(bin.gap)
        ),
        "a certainty of 1 falls out of the last bin. In which of your bins is 1.0? Add up the "
        "images of all bins.": _certain_lost,
    },
)

EXERCISES = (AVERAGES, EPOCH, CALIBRATION)
