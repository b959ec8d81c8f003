"""Checks of lesson 9: the share of the gap, an interval with several seeds, added cost."""

import numpy as np

from ..checks import Exercise, calls, variants
from .values import is_numbers

_DRAW = np.random.default_rng(9)
_SHARES = ((200, 0.65, 0.6, 0.72), (120, 0.5, 0.62, 0.7), (90, 0.6, 0.5, 0.4))
_SMALL = [(1, 1, 0, 0, 0), (0, 1, 1, 1, 0), (1, 1, 0, 0, 0)]  # VLM, vision model, combination
_GAP_CASES = [np.array(_SMALL, dtype=bool)]
_GAP_CASES += [_DRAW.random((3, n)) < np.array(shares)[:, None] for n, *shares in _SHARES]


def _share(low, ours, high):
    return (ours - low) / (high - low)


@variants
def _gap(vlm, vision, ours, *, floor=max, top=np.logical_or, share=_share):
    return share(floor(vlm.mean(), vision.mean()), ours.mean(), top(vlm, vision).mean())


_GAP = {
    "the gap begins at the VLM. Which model would you run alone?": _gap(floor=lambda a, b: a),
    "the gap begins at the vision model. Which would you run alone?": _gap(floor=lambda a, b: b),
    "a loss becomes 0. The share may be negative.": lambda *given: max(0.0, _gap()(*given)),
    "a loss becomes a gain. The share may be negative.": lambda *given: abs(_gap()(*given)),
    "the gap begins at the worse model. From where should one climb?": _gap(floor=min),
    "the gap begins at the mean of the two models. Nobody runs that. Which "
    "of the two would you run without a combination?": _gap(floor=lambda *both: sum(both) / 2),
    "the gap ends where both models are right. The oracle needs one.": _gap(top=np.logical_and),
    "the gap ends at 100 %. Are not some images lost?": _gap(top=lambda vlm, vision: np.ones(1)),
    "a ratio of accuracies. Is no gain a 0?": _gap(share=lambda low, ours, high: ours / high),
    "points gained, not a share of the gap. Points of how many "
    "that were to be had with both of the models?": _gap(share=lambda low, ours, high: ours - low),
    "what is left of the gap, not what is recovered. What should it "
    "give for one as good as the oracle?": _gap(share=lambda *accuracies: 1 - _share(*accuracies)),
}


def _seeded(seeds, n, ahead):
    """Two models right or wrong, (2, seeds, n): an image is easy or hard for all."""
    ahead = ahead * np.array([[[1]], [[0]]])
    shapes = {(n,): 1, (2, 1, n): 0.4, (2, seeds, n): 0.15, (2, seeds, 1): 0.14}
    return sum(_DRAW.normal(0, s, shape) for shape, s in shapes.items()) + 0.4 + ahead > 0


_SEEDED = [_seeded(3, 400, 0.06), _seeded(5, 250, 0.12), _seeded(4, 300, 0.1)]


@variants
def _interval(a, b, *, of=lambda a, b: _error((a - b).mean(0)), z=1.96, seeds=None):
    a, b = a[:seeds].astype(float), b[:seeds].astype(float)
    return (a - b).mean() + z * of(a, b) * np.array([0, -1, 1])


def _error(values):
    return values.std(ddof=1) / values.size**0.5


_paired = _interval()
_USUAL = [np.ptp(_paired(*case)) for case in _SEEDED]  # the widths


def _interval_probe(function):
    """The middles, exact as sums over seeds and images; whether they lie inside; how wide the
    intervals are on average beside the usual ones, which a bootstrap meets within some per cent."""
    results = calls(*_SEEDED)(function)
    if not all(is_numbers(result) and result.shape == (3,) for result in results):
        return results
    middle, low, high = np.array(results).T
    sums = middle * [a.size for a, b in _SEEDED]
    whole = np.where(abs(sums - sums.round()) < 0.01, sums.round(), 0).astype(int)
    return [whole, (low < middle) & (middle < high), np.mean((high - low) / _USUAL)]


_WIDTHS = {
    "the seeds are counted as more images. They are not.": _interval(of=lambda a, b: _error(a - b)),
    "the interval is over the seeds. That says what another seed would change. "
    "Here it is asked what other images would.": _interval(of=lambda a, b: _error((a - b).mean(1))),
    "the pairs are torn apart. Both models saw the same images. Form something for each "
    "before a spread.": _interval(of=lambda *both: np.hypot(*(_error(x.mean(0)) for x in both))),
    "the spread of single images, not of their mean. Your interval would "
    "stay as wide with a million images.": _interval(of=lambda a, b: (a - b).mean(0).std(ddof=1)),
    "one standard error to either side. How much is covered?": _interval(z=1.0),
    "the difference is the wrong way round. Which model is A?": lambda a, b: _paired(b, a),
    "it is in per cent. A share lies in 0 to 1.": lambda a, b: 100 * _paired(a, b),
    "only the first seed is used. Take the mean over all.": _interval(seeds=1),
}

_VLM = ("visual encoder", "language model")
_PARTS = (*_VLM, "vision model", "head", "gate")
_COSTS = ((600.0, 7000.0, 300.0, 3.7, 0.2), (2.0, 4.0, 5.0, 0.5, 0.125))
_COST_CASES = [(dict(zip(_PARTS, costs, strict=True)),) for costs in _COSTS]


@variants
def _added(cost, *, parts=("head", "gate"), both=()):
    above, below = (sum(cost[p] for p in [*side, *both]) for side in (parts, ["vision model"]))
    return above / below


_ADDED = {
    "the VLM is counted again on both sides. What comes on top of it?": _added(both=_VLM),
    "the VLM is counted as part of what EmoVLM-KD adds. "
    "It is there before anything is added to it.": _added(parts=(*_VLM, "head", "gate")),
    "the visual encoder is paid for twice. How often does an image pass "
    "the encoder in this lesson's first section?": _added(parts=("head", "gate", "visual encoder")),
    "the gate is left out. Something puts the answers together.": _added(parts=["head"]),
}

EXERCISES = (
    Exercise("9.1", "The share of the gap", calls(*_GAP_CASES), _gap(), _GAP),
    Exercise("9.2", "An interval when there are seeds", _interval_probe, _paired, _WIDTHS, 0.15),
    Exercise("9.3", "What is added", calls(*_COST_CASES), _added(), _ADDED),
)
