"""Checks of lesson 6: McNemar's test, the oracle, kappa, a paired interval."""

from math import comb, erfc, sqrt

import numpy as np

from . import Exercise, Mistake, calls

# ------------------------------------------------------------------------------ 6.1 McNemar's test


def _rights(both, only_a, only_b, neither, seed):
    """Two arrays of what is right with these counts, in a mixed order."""
    a = np.repeat([True, True, False, False], [both, only_a, only_b, neither])
    b = np.repeat([True, False, True, False], [both, only_a, only_b, neither])
    order = np.random.default_rng(seed).permutation(len(a))
    return a[order], b[order]


def _pairs():
    return [
        _rights(30, 14, 5, 11, 0),
        _rights(22, 3, 9, 6, 1),
        _rights(12, 4, 4, 7, 2),
    ]


def _cells(a, b):
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    return [int(x.sum()) for x in (a & b, a & ~b, ~a & b, ~a & ~b)]


def _tail(k, m):
    """P(X <= k) of a binomial count of m tosses of a fair coin."""
    return sum(comb(m, j) for j in range(k + 1)) / 2**m


def _two_sided(x, y):
    return min(1.0, 2 * _tail(min(x, y), x + y))


def _normal(z):
    """Two-sided p of a standard normal value."""
    return erfc(abs(z) / sqrt(2))


def _mcnemar(a, b):
    _, only_a, only_b, _ = _cells(a, b)
    return _two_sided(only_a, only_b)


def _wrong_cells(a, b):
    both, _, _, neither = _cells(a, b)
    return _two_sided(both, neither)


def _all_right(a, b):
    both, only_a, only_b, _ = _cells(a, b)
    return _two_sided(both + only_a, both + only_b)


def _one_sided(a, b):
    _, only_a, only_b, _ = _cells(a, b)
    return _tail(min(only_a, only_b), only_a + only_b)


def _not_capped(a, b):
    return 2 * _one_sided(a, b)


def _chi_square(correction):
    def test(a, b):
        _, only_a, only_b, _ = _cells(a, b)
        return _normal((abs(only_a - only_b) - correction) / sqrt(only_a + only_b))

    return test


def _every_image_a_toss(a, b):
    both, only_a, only_b, neither = _cells(a, b)
    return min(1.0, 2 * _tail(min(only_a, only_b), both + only_a + only_b + neither))


def _other_tail(a, b):
    _, only_a, only_b, _ = _cells(a, b)
    return min(1.0, 2 * (1 - _strictly_below(min(only_a, only_b), only_a + only_b)))


def _strictly_below(k, m):
    return _tail(k - 1, m)


def _tail_of_a(a, b):
    _, only_a, only_b, _ = _cells(a, b)
    return min(1.0, 2 * _tail(only_a, only_a + only_b))


def _observed_left_out(a, b):
    _, only_a, only_b, _ = _cells(a, b)
    return 2 * _strictly_below(min(only_a, only_b), only_a + only_b)


def _point(a, b):
    _, only_a, only_b, _ = _cells(a, b)
    return comb(only_a + only_b, only_a) / 2 ** (only_a + only_b)


def _two_samples(a, b):
    n, p, q = len(a), np.mean(a), np.mean(b)
    pooled = (p + q) / 2
    return _normal((p - q) / sqrt(2 * pooled * (1 - pooled) / n))


# ------------------------------------------------------------------------------------ 6.2 oracle


def _several():
    draw = np.random.default_rng(62)
    cases = []
    for images, shares in ((20, (0.6, 0.5, 0.4)), (12, (0.4, 0.3)), (15, (0.3,) * 4)):
        labels = draw.integers(0, 5, images)
        told = [
            np.where(draw.random(images) < share, labels, (labels + 1 + k) % 5)
            for k, share in enumerate(shares)
        ]
        cases.append((np.stack(told), labels))
    return cases


def _hits(predicted, labels):
    return np.asarray(predicted) == np.asarray(labels)


def _oracle(predicted, labels):
    return _hits(predicted, labels).any(0).mean()


def _sum_of_accuracies(predicted, labels):
    return _hits(predicted, labels).mean(1).sum()


def _vote(predicted, labels):
    told = [np.bincount(column).argmax() for column in np.asarray(predicted).T]
    return np.mean(np.array(told) == labels)


def _independent(predicted, labels):
    return 1 - np.prod(1 - _hits(predicted, labels).mean(1))


def _first_two(predicted, labels):
    return _hits(predicted, labels)[:2].any(0).mean()


# ------------------------------------------------------------------------------------- 6.3 kappa


def _answers():
    draw = np.random.default_rng(63)
    names = np.array(["awe", "fear", "anger", "sadness"])
    cases = []
    for n, weights in ((40, (0.5, 0.25, 0.15, 0.1)), (30, (0.1, 0.2, 0.3, 0.4))):
        labels = draw.choice(names, n, p=weights)
        told = [
            np.where(draw.random(n) < share, labels, draw.choice(names[:k], n))
            for share, k in ((0.6, 4), (0.5, 3))
        ]
        cases.append(tuple([str(x) for x in column] for column in (*told, labels)))
    return cases


def _observed(a, b):
    return float(np.mean(np.asarray(a) == np.asarray(b)))


def _frequencies(answers, names):
    return np.array([np.mean(np.asarray(answers) == name) for name in names])


def _corrected(observed, chance):
    return (observed - chance) / (1 - chance)


def _by_chance(a, b):
    names = sorted({*a, *b})
    return float(_frequencies(a, names) @ _frequencies(b, names))


def _kappa(a, b, labels=None):
    return _corrected(_observed(a, b), _by_chance(a, b))


def _kappa_of_correctness(a, b, labels):
    right = [np.asarray(side) == np.asarray(labels) for side in (a, b)]
    return _kappa(right[0].tolist(), right[1].tolist())


def _uniform_chance(a, b, labels):
    return _corrected(_observed(a, b), 1 / len({*a, *b, *labels}))


def _no_division(a, b, labels):
    return _observed(a, b) - _by_chance(a, b)


def _pooled_chance(a, b, labels):
    names = sorted({*a, *b})
    mean = (_frequencies(a, names) + _frequencies(b, names)) / 2
    return _corrected(_observed(a, b), float(mean @ mean))


def _both_right(a, b, labels):
    hits = [x == y == z for x, y, z in zip(a, b, labels, strict=True)]
    return _corrected(float(np.mean(hits)), _by_chance(a, b))


def _chance_of_being_right(a, b, labels):
    p, q = _observed(a, labels), _observed(b, labels)
    return _corrected(_observed(a, b), p * q + (1 - p) * (1 - q))


# -------------------------------------------------------------------------------- 6.4 paired interval

_Z = 1.959964


def _many():
    return [_rights(900, 420, 250, 430, 3), _rights(500, 150, 330, 520, 4)]


def _around(mean, error):
    return mean - error, mean + error


def _differences(a, b):
    return np.asarray(a, float) - np.asarray(b, float)


def _paired(a, b, z=_Z):
    d = _differences(a, b)
    return _around(d.mean(), z * d.std() / sqrt(len(d)))


def _unpaired(a, b):
    a, b = np.asarray(a, float), np.asarray(b, float)
    return _around(a.mean() - b.mean(), _Z * sqrt((a.var() + b.var()) / len(a)))


def _whole_spread(a, b):
    d = _differences(a, b)
    return _around(d.mean(), _Z * d.std())


def _only_where_they_differ(a, b):
    d = _differences(a, b)
    d = d[d != 0]
    return _around(d.mean(), _Z * d.std() / sqrt(len(d)))


def _spread_of_all_over_few(a, b):
    d = _differences(a, b)
    return _around(d.mean(), _Z * d.std() / sqrt((d != 0).sum()))


def _intervals_subtracted(a, b):
    ends = []
    for side in (a, b):
        p = np.mean(side)
        ends.append(_around(p, _Z * sqrt(p * (1 - p) / len(side))))
    (low_a, high_a), (low_b, high_b) = ends
    return low_a - high_b, high_a - low_b


def _ends_of_the_data(a, b):
    return tuple(np.quantile(_differences(a, b), [0.025, 0.975]))


EXERCISES = (
    Exercise(
        "6.1",
        "McNemar's exact test",
        calls(*_pairs()),
        _mcnemar,
        (
            Mistake(
                "the test is on both right and neither right",
                "On those images the two models did equally well. Which images say that one of them "
                "is better?",
                _wrong_cells,
            ),
            Mistake(
                "the numbers of right answers are compared",
                "The images that both got right are in both numbers and only dilute them. Which are "
                "in one of them only?",
                _all_right,
            ),
            Mistake(
                "the test is one-sided",
                "You did not know beforehand which model would win. An outcome as uneven the other "
                "way would have surprised you as much.",
                _one_sided,
            ),
            Mistake(
                "the probability goes above 1",
                "When both counts are equal, the two tails share the middle. What can a probability "
                "be at most?",
                _not_capped,
            ),
            Mistake(
                "it is the chi-square approximation",
                "The exact test counts tosses of a coin. The approximation is for large counts.",
                _chi_square(0),
            ),
            Mistake(
                "it is the chi-square approximation with a correction",
                "The correction brings it nearer to the exact test, which needs none.",
                _chi_square(1),
            ),
            Mistake(
                "every image is a toss of the coin",
                "The coin is tossed where exactly one model is right, and nowhere else. How many "
                "tosses are that?",
                _every_image_a_toss,
            ),
            Mistake(
                "the tail is the wrong one",
                "Of the smaller count you want the outcomes at least as small. Yours are at least as "
                "large.",
                _other_tail,
            ),
            Mistake(
                "the tail is always that of the first model",
                "Exchange the two models: p should stay. Which of the counts should begin the tail?",
                _tail_of_a,
            ),
            Mistake(
                "the observed outcome is left out of the tail",
                "At least as extreme: what was observed is itself one of these.",
                _observed_left_out,
            ),
            Mistake(
                "it is the probability of this one outcome",
                "A p-value adds up all outcomes that are at least as extreme.",
                _point,
            ),
            Mistake(
                "the pairs are taken for two separate samples",
                "Both models saw the same images. Your test would be right if each had its own.",
                _two_samples,
            ),
        ),
        atol=1e-6,
    ),
    Exercise(
        "6.2",
        "The oracle of many models",
        calls(*_several()),
        _oracle,
        (
            Mistake(
                "accuracies are added",
                "An image that two models get right is counted twice. Could your number be above 1?",
                _sum_of_accuracies,
            ),
            Mistake(
                "accuracies are added and cut off at 1",
                "Cutting off hides that images are counted twice.",
                lambda predicted, labels: min(1.0, _sum_of_accuracies(predicted, labels)),
            ),
            Mistake(
                "it is the best single model",
                "The oracle may choose another model for each image, not one for all.",
                lambda predicted, labels: _hits(predicted, labels).mean(1).max(),
            ),
            Mistake(
                "all models have to be right",
                "One that is right is enough.",
                lambda predicted, labels: _hits(predicted, labels).all(0).mean(),
            ),
            Mistake(
                "it is the mean accuracy",
                "That is what a model drawn at random for each image would reach.",
                lambda predicted, labels: _hits(predicted, labels).mean(),
            ),
            Mistake(
                "it is the majority's accuracy",
                "A vote does not know the labels; the oracle does.",
                _vote,
            ),
            Mistake(
                "the models are taken to err independently",
                "A product of error rates holds if one model's error says nothing of the other's. "
                "Count on the images themselves.",
                _independent,
            ),
            Mistake(
                "it is taken over the wrong axis",
                "Rows are models and columns images. Over which of the two should one be enough?",
                lambda predicted, labels: _hits(predicted, labels).any(1).mean(),
            ),
            Mistake(
                "only the first two models are asked",
                "There may be more of them.",
                _first_two,
            ),
        ),
    ),
    Exercise(
        "6.3",
        "Kappa from two lists of answers",
        calls(*_answers()),
        _kappa,
        (
            Mistake(
                "chance is not taken off",
                "This is the agreement. Two models that answer the same class always agree wholly and "
                "share no knowledge.",
                lambda a, b, labels: _observed(a, b),
            ),
            Mistake(
                "right and wrong are compared, not the classes",
                "Two models that are both wrong agree only if they name the same class.",
                _kappa_of_correctness,
            ),
            Mistake(
                "accuracy stands in place of agreement",
                "You compare a model with the labels. Whom does the model's answer have to equal?",
                lambda a, b, labels: _kappa(a, labels),
            ),
            Mistake(
                "accuracy stands in place of agreement, for the second model",
                "You compare a model with the labels. Whom does the model's answer have to equal?",
                lambda a, b, labels: _kappa(b, labels),
            ),
            Mistake(
                "all classes are taken to be equally frequent",
                "A model that likes one class agrees with another that likes it more often than that. "
                "Count how often each model gives each class.",
                _uniform_chance,
            ),
            Mistake(
                "it is not divided by what chance leaves open",
                "Two models that always agree should come to 1.",
                _no_division,
            ),
            Mistake(
                "both models have the same frequencies",
                "You pooled the two. Each keeps its own; multiply one's by the other's.",
                _pooled_chance,
            ),
            Mistake(
                "only right answers count as agreement",
                "Two models that give the same wrong class agree as well.",
                _both_right,
            ),
            Mistake(
                "chance is that of both being right or both wrong",
                "Observed agreement is of classes. Then so is that by chance.",
                _chance_of_being_right,
            ),
        ),
    ),
    Exercise(
        "6.4",
        "A paired interval without resampling",
        calls(*_many()),
        _paired,
        (
            Mistake(
                "the pairing is lost",
                "Your width would be right for two separate sets of images. Subtract image by image "
                "before you take any spread.",
                _unpaired,
            ),
            Mistake(
                "two intervals are subtracted from each other",
                "That is wider than either way of counting. Subtract image by image first.",
                _intervals_subtracted,
            ),
            Mistake(
                "it is one standard error wide",
                "How many standard errors does a 95 % interval of a normal distribution reach?",
                lambda a, b: _paired(a, b, 1.0),
            ),
            Mistake(
                "it is a 90 % interval",
                "On each side 2.5 % should be left, not 5 %.",
                lambda a, b: _paired(a, b, 1.644854),
            ),
            Mistake(
                "it is the spread of single images",
                "More images should make it narrower. Where does n come in?",
                _whole_spread,
            ),
            Mistake(
                "it gives the quantiles of the single differences",
                "These are -1, 0 or 1. Wanted is how far their mean may be off.",
                _ends_of_the_data,
            ),
            Mistake(
                "images on which both do alike are left out",
                "They are differences too, of 0. The difference of accuracies is over all images.",
                _only_where_they_differ,
            ),
            Mistake(
                "n is the number of images on which they differ",
                "The mean is over all images, and so is the root of n.",
                _spread_of_all_over_few,
            ),
            Mistake(
                "it is B minus A",
                "The first model is better in the first case: the sign should be positive.",
                lambda a, b: _paired(b, a),
            ),
            Mistake(
                "the unit is the point, wanted is the share",
                "Return numbers between -1 and 1.",
                lambda a, b: tuple(100 * end for end in _paired(a, b)),
            ),
        ),
        rtol=5e-3,
        atol=1e-4,
    ),
)
