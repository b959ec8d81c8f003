"""Checks of lesson 9: the share of the gap, an interval with several seeds, added cost."""

import numpy as np

from ..checks import Exercise, calls, variants
from .values import Raised, is_numbers

_RIGHTS = {  # where the VLM, the vision model and the combination are right
    "a combination as good as the better model, here the VLM, does not get 0": "1100 0010 0110",
    "a combination as good as the better model, the vision model, does not get 0": "010 101 011",
    "a combination as good as the oracle does not get 1": "11100 00010 11110",
    "a combination that recovers a third of the gap does not get it": "11110000 00011110 11111000",
    "a combination worse than the better model gets a wrong share below 0": "1100 0110 0001",
    "a combination better than the oracle gets a wrong share above 1": "1100 0110 1111",
}
_GAP_CASES = [[np.array(list(side)) == "1" for side in x.split()] for x in _RIGHTS.values()]
_GAP_PROBE = calls(*_GAP_CASES, about=_RIGHTS)


def _share(low, ours, high):
    return (ours - low) / (high - low)


@variants
def _gap(vlm, vision, ours, *, floor=max, top=np.logical_or, share=_share):
    return share(floor(vlm.mean(), vision.mean()), ours.mean(), top(vlm, vision).mean())


_GAP = {
    "the gap begins at the VLM. Which model would you run alone?": _gap(floor=lambda a, b: a),
    "the gap begins at the vision model. Which would you run alone?": _gap(floor=lambda a, b: b),
    "the gap begins at the worse model. From where should one climb?": _gap(floor=min),
    "the gap ends where both models are right. The oracle needs one.": _gap(top=np.logical_and),
    "the gap ends at 100 %. Are not some images lost?": _gap(top=lambda vlm, vision: np.ones(1)),
    "points gained, not a share. Of what gap?": _gap(share=lambda low, ours, high: ours - low),
}

_DRAW = np.random.default_rng(9)


def _seeded(seeds, n, ahead):
    """Two models right or wrong, (2, seeds, n): an image is easy or hard for all."""
    ahead = ahead * np.array([[[1]], [[0]]])
    shapes = {(n,): 1, (2, 1, n): 0.4, (2, seeds, n): 0.1, (2, seeds, 1): 0.4}
    return sum(_DRAW.normal(0, s, shape) for shape, s in shapes.items()) + 0.4 + ahead > 0


_SEEDED = [_seeded(16, 400, 0.06), _seeded(20, 250, 0.12), _seeded(18, 300, 0.1)]


@variants
def _interval(a, b, *, of=lambda a, b: _error((a - b).mean(0))):
    a, b = a.astype(float), b.astype(float)
    return (a - b).mean() + 1.96 * of(a, b) * np.array([0, -1, 1])


def _error(values):
    return values.std(ddof=1) / values.size**0.5


_paired = _interval()
_USUAL = [np.ptp(_paired(*case)) for case in _SEEDED]  # the widths


def _interval_probe(function):
    """The middles, exact as sums over seeds and images; whether they lie inside; how wide the
    intervals are on average beside the usual ones, which a bootstrap meets within some per cent,
    cut to at most and at least 1."""
    results = calls(*_SEEDED)(function)
    if any(result is None or isinstance(result, Raised) for result in results):
        return results
    if not all(is_numbers(result) and result.shape == (3,) for result in results):
        raise ValueError("three numbers are wanted: the difference, the low end, the high end")
    middle, low, high = np.array(results).T
    sums = middle * [a.size for a, b in _SEEDED]
    whole = np.where(abs(sums - sums.round()) < 0.01, sums.round(), 0).astype(int)
    width = np.mean((high - low) / _USUAL)
    return [whole, (low < middle) & (middle < high), min(1.0, width), max(1.0, width)]


_interval_probe.cases = [()] * 4
_interval_probe.about = (
    "the first number is not the difference in accuracy. A minus B, over all seeds, as a share?",
    "the difference does not lie between the two ends. In which order are the three?",
    "the interval is too narrow. How many images were drawn? How much should it cover?",
    "the interval is too wide. Whose spread is it: of one image, of the mean of all, of a seed?",
)
_WIDTHS = {
    "the seeds are counted as more images. They are not.": _interval(of=lambda a, b: _error(a - b)),
    "the interval is over the seeds. That says what another seed would change. "
    "Here it is asked what other images would.": _interval(of=lambda a, b: _error((a - b).mean(1))),
    "the pairs are torn apart. Both models saw the same images. Form something for each "
    "before a spread.": _interval(of=lambda *both: np.hypot(*(_error(x.mean(0)) for x in both))),
}

_VLM, _OLD, _OURS = ["visual encoder", "language model"], ["vision model"], ["head", "gate"]
_PARTS = (*_VLM, *_OLD, *_OURS)
_COSTS = ((2.0, 6.0, 4.0, 1.0, 0.5), (600.0, 7000.0, 300.0, 3.7, 0.2))
_LINE = ["what stands above the line, or below it, is not what one of the two adds"]
_COST_PROBE = calls(*[(dict(zip(_PARTS, costs, strict=True)),) for costs in _COSTS], about=_LINE)


@variants
def _added(ours, below, cost):
    above, below = (sum(cost[part] for part in side) for side in (ours, below))
    return above / below


_ADDED = {
    "the VLM is counted on both sides. What is on top of it?": _added(_OURS + _VLM, _OLD + _VLM),
    "the VLM is counted as something added. What runs anyway?": _added(_OURS + _VLM, _OLD),
    "the VLM is counted below the line. What is added to it?": _added(_OURS, _OLD + _VLM),
    "it is divided by the VLM. With what is it to be compared?": _added(_OURS, _VLM),
    "the visual encoder is paid for twice. How often does an image pass "
    "the encoder in this lesson's first section?": _added(_OURS + _VLM[:1], _OLD),
    "the language model is paid for twice. It runs anyway.": _added(_OURS + _VLM[1:], _OLD),
    "the gate is left out. Something puts the answers together.": _added(["head"], _OLD),
    "the head is left out. What does the gate put together?": _added(["gate"], _OLD),
    "it is a sum, not a share. Of what?": lambda cost: cost["head"] + cost["gate"],
}

EXERCISES = (
    Exercise("9.1", "The share of the gap", _GAP_PROBE, _gap(), _GAP),
    Exercise("9.2", "An interval when there are seeds", _interval_probe, _paired, _WIDTHS, 0.11),
    Exercise("9.3", "What is added", _COST_PROBE, _added(_OURS, _OLD), _ADDED),
)
