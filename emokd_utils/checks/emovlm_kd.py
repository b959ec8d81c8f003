"""Checks of lesson 9: the share of the gap, an interval over images with several seeds, added
cost."""

import numpy as np

from ..checks import Exercise, calls


def _gap_cases() -> list[tuple]:
    rng = np.random.default_rng(9)
    cases = []
    for n, *shares in ((200, 0.65, 0.6, 0.72), (120, 0.5, 0.62, 0.7), (90, 0.6, 0.5, 0.4)):
        cases.append(tuple(rng.random(n) < share for share in shares))
    return cases


def _gap(floor=max, top=np.logical_or, share=lambda low, ours, high: (ours - low) / (high - low)):
    """The share of the gap with one thing wrong."""

    def recovered(vlm, vision, ours):
        low = floor(vlm.mean(), vision.mean())
        return share(low, ours.mean(), top(vlm, vision).mean())

    return recovered


GAP = Exercise(
    "9.1",
    "The share of the gap",
    calls(*_gap_cases()),
    _gap(),
    {
        "the gap begins at the worse model. Whoever has both models can already use the better "
        "one. From where should a combination have to climb?": _gap(min),
        "the gap begins at the mean of the two models. Nobody runs the mean of two models. Which "
        "of the two would you run without a combination?": _gap(lambda a, b: (a + b) / 2),
        "the gap ends where both models are right. The oracle is right where one of the two is. "
        "Which logical operation is that?": _gap(top=np.logical_and),
        "the gap ends at 100 %. On some images neither model is right, and no choice between the "
        "two helps there.": _gap(top=lambda vlm, vision: np.ones(1)),
        "a ratio of accuracies. That share is high even for the better model alone. What should "
        "the measure give for a combination that "
        "adds nothing?": _gap(share=lambda low, ours, high: ours / high),
        "points gained, not a share of the gap. The first half of the measure is there. Points of "
        "how many that were to be had?": _gap(share=lambda low, ours, high: ours - low),
        "what is left of the gap, not what is recovered. What should the measure give for a "
        "combination as good as "
        "the oracle?": _gap(share=lambda low, ours, high: (high - ours) / (high - low)),
    },
)


def _seed_cases() -> list[tuple]:
    """Two models right or wrong, (seeds, n): alike from seed to seed and from model to model, for
    an image is easy or hard for all."""
    rng = np.random.default_rng(19)
    cases = []
    for seeds, n, shift in ((3, 400, 0.06), (5, 250, 0.12)):
        easy = rng.normal(0.4, 1, n)
        drift = rng.normal(0, 0.05, (seeds, 1))
        b = easy + rng.normal(0, 0.4, n) + rng.normal(0, 0.15, (seeds, n))
        a = easy + shift + drift + rng.normal(0, 0.4, n) + rng.normal(0, 0.15, (seeds, n))
        cases.append((a > 0, b > 0))
    return cases


def _interval(spread, z=1.96, seeds=None):
    """Difference of two models and ``z`` times what ``spread`` gives to either side of it."""

    def interval(a, b):
        a, b = a[:seeds].astype(float), b[:seeds].astype(float)
        middle, reach = (a - b).mean(), z * spread(a, b)
        return middle, middle - reach, middle + reach

    return interval


def _error(values):
    """The standard error of a mean."""
    return values.std(ddof=1) / values.size**0.5


def _over_images(a, b):
    return _error((a - b).mean(0))


INTERVAL = Exercise(
    "9.2",
    "An interval when there are seeds",
    calls(*_seed_cases()),
    _interval(_over_images),
    {
        "the seeds are counted as more images. Three seeds on 400 images are not 1,200 images: an "
        "image that is hard is hard for all of them. What is drawn anew when other images are "
        "taken?": _interval(lambda a, b: _error(a - b)),
        "the interval is over the seeds. That says what another seed would change. Here it is "
        "asked what other images would.": _interval(lambda a, b: _error((a - b).mean(1))),
        "the pairs are torn apart. Both models were asked about the same images. Form something "
        "for each image before you take "
        "a spread.": _interval(lambda a, b: np.hypot(_error(a.mean(0)), _error(b.mean(0)))),
        "the spread of single images, not of their mean. Your interval would stay as wide with a "
        "million images.": _interval(lambda a, b: (a - b).mean(0).std(ddof=1)),
        "one standard error to either side. That covers about two in three, not 95 %.": _interval(
            _over_images, z=1.0
        ),
        "only the first seed is used. Look at your middle: "
        "is it the mean over all seeds?": _interval(_over_images, seeds=1),
    },
    rtol=0.0,
    atol=4e-3,
)

_VLM = ("visual encoder", "language model")
_PARTS = (*_VLM, "vision model", "head", "gate")
_COSTS = ((600.0, 7000.0, 300.0, 3.7, 0.2), (2.0, 4.0, 5.0, 0.5, 0.125))


def _added(*parts, also=()):
    """The share of some parts and of the vision model, ``also`` counted on both sides."""

    def share(cost):
        above, below = (sum(cost[part] for part in names) for names in (parts, ["vision model"]))
        shared = sum(cost[part] for part in also)
        return (above + shared) / (below + shared)

    return share


ADDED = Exercise(
    "9.3",
    "What is added",
    calls(*[(dict(zip(_PARTS, costs, strict=True)),) for costs in _COSTS]),
    _added("head", "gate"),
    {
        "the VLM is counted again on both sides. Both set-ups have the VLM already, and the "
        "question is what comes on top.": _added("head", "gate", also=_VLM),
        "the VLM is counted as part of what EmoVLM-KD adds. "
        "It is there before anything is added.": _added("head", "gate", *_VLM),
        "the visual encoder is paid for twice. How often does an image pass the encoder in this "
        "lesson's first section?": _added("head", "gate", "visual encoder"),
        "the gate is left out. Something has to put the two answers together.": _added("head"),
    },
    rtol=1e-4,
    atol=1e-7,
)

EXERCISES = (GAP, INTERVAL, ADDED)
