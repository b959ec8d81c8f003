"""Checks of lesson 2: averages over classes, the epoch to keep, the calibration error."""

import numpy as np

from ..checks import Exercise, Mistake, calls

# ----------------------------------------------------------------------- 2.1 averages over classes

_MATRICES = (
    np.array([[50, 3, 7], [6, 10, 4], [1, 5, 4]]),
    np.array([[8, 2, 0], [3, 7, 0], [1, 4, 0]]),  # a class that is never predicted
)


def _over(top, bottom, otherwise=0.0):
    """Quotient, ``otherwise`` where the divisor is 0."""
    top, bottom = np.asarray(top, dtype=float), np.asarray(bottom, dtype=float)
    return np.divide(top, bottom, out=np.full(bottom.shape, otherwise), where=bottom != 0)


def _parts(confusion, otherwise=0.0):
    """Recall, precision and F1 of each class, and its number of images."""
    confusion = np.asarray(confusion, dtype=float)
    hit, labelled, said = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    recall, precision = _over(hit, labelled, otherwise), _over(hit, said, otherwise)
    return recall, precision, _over(2 * hit, labelled + said), labelled


def _macro(confusion):
    recall, _, f1, _ = _parts(confusion)
    return recall.mean(), f1.mean()


def _exchanged(confusion):
    return _macro(np.asarray(confusion).T)


def _micro(confusion):
    share = np.diag(confusion).sum() / np.sum(confusion)
    return share, share


def _weighted(confusion):
    recall, _, f1, n = _parts(confusion)
    return np.average(recall, weights=n), np.average(f1, weights=n)


def _of_means(confusion):
    recall, precision, _, _ = _parts(confusion)
    r, p = recall.mean(), precision.mean()
    return r, 2 * r * p / (r + p)


def _arithmetic(confusion):
    recall, precision, _, _ = _parts(confusion)
    return recall.mean(), ((recall + precision) / 2).mean()


def _undefined(confusion):
    recall, precision, f1, _ = _parts(confusion, np.nan)
    return recall.mean(), np.where(np.isnan(precision), np.nan, f1).mean()


def _left_out(confusion):
    recall, precision, f1, _ = _parts(confusion, np.nan)
    return recall.mean(), f1[~np.isnan(precision)].mean()


# ------------------------------------------------------------------------------ 2.2 epoch to keep


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


_RUNS = (
    (_history([2.0, 1.5, 1.7, 1.4, 1.6, 1.55, 1.45, 1.5, 1.2], 6), 3),
    (_history([3.0, 2.5, 2.7, 2.4, 2.6, 2.3, 2.5, 2.6, 1.0, 1.1], 5), 2),
    (_history([2.0, 1.5, 1.7, 1.6, 1.65, 1.3, 1.4], 7), 2),
)


def _runs():
    """Fresh copies, so that an answer that changes its argument changes nothing here."""
    return [([dict(record) for record in history], patience) for history, patience in _RUNS]


def _stopping(history, patience):
    """The best epoch on val and the epoch at which training stops."""
    best, bad = 0, 0
    for k, record in enumerate(history):
        if record["val_loss"] < history[best]["val_loss"]:
            best, bad = k, 0
        elif k:
            bad += 1
        if bad == patience:
            break
    return history[best]["epoch"], history[k]["epoch"]


def _keep(history, patience):
    return _stopping(history, patience)[0]


def _by(key, sign=1):
    def keep(history, patience):
        return min(history, key=lambda record: sign * record[key])["epoch"]

    return keep


def _impatient(history, patience):
    return _stopping(history, 1)[0]


def _never_reset(history, patience):
    best, bad = 0, 0
    for k, record in enumerate(history):
        if record["val_loss"] < history[best]["val_loss"]:
            best = k
        elif k:
            bad += 1
        if bad == patience:
            break
    return history[best]["epoch"]


def _against_the_previous(history, patience):
    bad = 0
    for k in range(1, len(history)):
        bad = bad + 1 if history[k]["val_loss"] >= history[k - 1]["val_loss"] else 0
        if bad == patience:
            break
    return min(history[: k + 1], key=lambda record: record["val_loss"])["epoch"]


def _no_break(history, patience):
    return _by("val_loss")(history, patience)


# ------------------------------------------------------------------------ 2.3 calibration error


def _certainties():
    draw = np.random.default_rng(2)
    confidence = np.round(draw.uniform(0.31, 0.99, 60), 3) + 0.0004  # on no bin's edge
    right = draw.random(60) < 0.35 + 0.4 * confidence
    sure = np.append(confidence[:30], [1.0, 1.0, 1.0])
    return [
        (confidence, right, 10),
        (sure, np.append(right[:30], [True, False, False]), 10),
        (confidence, right, 5),
    ]


def _binned(confidence, correct, bins):
    """Images, mean certainty and accuracy of each bin that is not empty, and its number."""
    confidence, correct = np.asarray(confidence, float), np.asarray(correct, float)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    rows = [
        (inside.sum(), confidence[inside].mean(), correct[inside].mean(), k)
        for k in range(bins)
        if (inside := place == k).any()
    ]
    return np.array(rows).T


def _ece(confidence, correct, bins):
    n, said, right, _ = _binned(confidence, correct, bins)
    return (n * abs(right - said)).sum() / n.sum()


def _bins_alike(confidence, correct, bins):
    _, said, right, _ = _binned(confidence, correct, bins)
    return abs(right - said).mean()


def _over_all_bins(confidence, correct, bins):
    _, said, right, _ = _binned(confidence, correct, bins)
    return abs(right - said).sum() / bins


def _signed(confidence, correct, bins):
    return np.mean(correct) - np.mean(confidence)


def _signed_the_other_way(confidence, correct, bins):
    return -_signed(confidence, correct, bins)


def _distance_at_the_end(confidence, correct, bins):
    return abs(_signed(confidence, correct, bins))


def _largest(confidence, correct, bins):
    _, said, right, _ = _binned(confidence, correct, bins)
    return abs(right - said).max()


def _squared(confidence, correct, bins):
    n, said, right, _ = _binned(confidence, correct, bins)
    return (n * (right - said) ** 2).sum() / n.sum()


def _middle_of_the_bin(confidence, correct, bins):
    n, _, right, k = _binned(confidence, correct, bins)
    return (n * abs(right - (k + 0.5) / bins)).sum() / n.sum()


def _image_by_image(confidence, correct, bins):
    return np.mean(abs(np.asarray(correct, float) - confidence))


def _equal_counts(confidence, correct, bins):
    order = np.argsort(confidence)
    parts = np.array_split(order, bins)
    n = [len(part) for part in parts]
    distance = [abs(np.mean(correct[part]) - np.mean(confidence[part])) for part in parts]
    return np.average(distance, weights=n)


def _empty_bins(confidence, correct, bins):
    n = _binned(confidence, correct, bins)[0]
    return np.nan if len(n) < bins else _ece(confidence, correct, bins)


def _certain_lost(confidence, correct, bins):
    inside = np.asarray(confidence) < 1
    kept = _ece(confidence[inside], correct[inside], bins)
    return kept * inside.mean()


EXERCISES = (
    Exercise(
        "2.1",
        "Two averages over classes",
        calls(*[(matrix.copy(),) for matrix in _MATRICES]),
        _macro,
        (
            Mistake(
                "rows and columns are exchanged",
                "Recall asks what became of the images with a label. Are the images of one label a "
                "row of your matrix, or a column?",
                _exchanged,
            ),
            Mistake(
                "all images are counted alike",
                "What you have is the accuracy. A class of ten images should weigh as much as one of "
                "a thousand.",
                _micro,
            ),
            Mistake(
                "classes weigh by their number of images",
                "A macro average takes every class once, however many images it has.",
                _weighted,
            ),
            Mistake(
                "F1 is taken of the averages",
                "First F1 of each class, then the average: the order matters.",
                _of_means,
            ),
            Mistake(
                "precision and recall are averaged plainly",
                "F1 is another mean of the two. Try a class with precision 1 and recall near 0: what "
                "should it get?",
                _arithmetic,
            ),
            Mistake(
                "a class that is never predicted makes it undefined",
                "Its precision is 0 / 0. Write F1 with counts, and its divisor is no longer 0.",
                _undefined,
            ),
            Mistake(
                "a class that is never predicted is left out",
                "Then a model gains by giving up on a class. It has images, so it counts.",
                _left_out,
            ),
        ),
    ),
    Exercise(
        "2.2",
        "The epoch to keep",
        lambda function: calls(*_runs())(function),
        _keep,
        (
            Mistake(
                "the test split chooses",
                "Look at which column decides. A number that chose the model can no longer judge it.",
                _by("test_accuracy", -1),
            ),
            Mistake(
                "the epoch at which training stops is kept",
                "After its best epoch a model goes on for a while. Which of the two is wanted?",
                lambda history, patience: _stopping(history, patience)[1],
            ),
            Mistake(
                "the last epoch of the list is kept",
                "Training ends earlier, and the epoch where it ends need not be the best.",
                lambda history, patience: history[-1]["epoch"],
            ),
            Mistake(
                "training does not stop",
                "Your epoch is the best of all, but some of them lie behind the stop and were never "
                "seen. Where does patience come in?",
                _no_break,
            ),
            Mistake(
                "training stops at the first epoch that is not better",
                "That is patience 1. How many in a row are allowed?",
                _impatient,
            ),
            Mistake(
                "the count of bad epochs is not set back",
                "After a new best epoch the patience is whole again.",
                _never_reset,
            ),
            Mistake(
                "each epoch is compared with the one before",
                "An epoch can be better than the last and still no better than the best.",
                _against_the_previous,
            ),
            Mistake(
                "epochs are counted from 0",
                "Give the epoch's own number, which stands in the record.",
                lambda history, patience: _keep(history, patience) - 1,
            ),
            Mistake(
                "the training loss chooses",
                "It falls as long as training lasts, whatever happens to unseen images.",
                _by("train_loss"),
            ),
            Mistake(
                "the highest loss is taken for the best",
                "A loss is better when it is lower.",
                _by("val_loss", -1),
            ),
        ),
        rtol=0,
        atol=0.1,
    ),
    Exercise(
        "2.3",
        "Expected calibration error",
        calls(*_certainties()),
        _ece,
        (
            Mistake(
                "bins count alike",
                "A bin with three images should not weigh as much as one with three hundred.",
                _bins_alike,
            ),
            Mistake(
                "empty bins are averaged in",
                "You divide by the number of bins. By what should each bin's distance be weighed?",
                _over_all_bins,
            ),
            Mistake(
                "too sure and not sure enough cancel",
                "A distance has no sign. Look at a bin where accuracy is below certainty, and at one "
                "where it is above.",
                _signed,
            ),
            Mistake(
                "certainty minus accuracy, with its sign",
                "A distance has no sign: what one bin says too much, another may say too little.",
                _signed_the_other_way,
            ),
            Mistake(
                "the sign is dropped after the sum",
                "By then the bins have cancelled. Drop it in each bin.",
                _distance_at_the_end,
            ),
            Mistake(
                "the worst bin stands for all",
                "That is the maximum calibration error, another measure.",
                _largest,
            ),
            Mistake(
                "distances are squared",
                "The formula has an absolute value.",
                _squared,
            ),
            Mistake(
                "certainty is taken as the middle of the bin",
                "What did the images in the bin say on average?",
                _middle_of_the_bin,
            ),
            Mistake(
                "the distance is taken image by image",
                "One image is right or wrong, so its distance is never small. Average both sides over "
                "the bin before you compare.",
                _image_by_image,
            ),
            Mistake(
                "bins hold equally many images",
                "Here they are equally wide, from 0 to 1.",
                _equal_counts,
            ),
            Mistake(
                "an empty bin makes it undefined",
                "A bin without images has no mean and no weight: pass over it.",
                _empty_bins,
            ),
            Mistake(
                "a certainty of 1 falls out of the last bin",
                "In which of your bins is 1.0? Add up the images of all bins.",
                _certain_lost,
            ),
        ),
    ),
)
