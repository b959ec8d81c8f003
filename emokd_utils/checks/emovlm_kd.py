"""Checks of lesson 9: the share of the gap, an interval over images with several seeds, added
cost."""

import numpy as np

from ..checks import Exercise, Mistake, calls

# --------------------------------------------------------------------------------- share of the gap


def _gap_cases() -> list[tuple]:
    rng = np.random.default_rng(9)
    cases = []
    for n, vlm, vision, ours in ((200, 0.65, 0.6, 0.72), (120, 0.5, 0.62, 0.7)):
        cases.append(tuple(rng.random(n) < share for share in (vlm, vision, ours)))
    return cases


def _gap(floor=np.maximum, top=np.logical_or):
    """The share of the gap, from another floor or to another top."""

    def share(vlm, vision, ours):
        low = floor(vlm.mean(), vision.mean())
        high = top(vlm, vision).mean()
        return (ours.mean() - low) / (high - low)

    return share


def _oracle(vlm, vision):
    return (vlm | vision).mean()


def _better(vlm, vision):
    return max(vlm.mean(), vision.mean())


# --------------------------------------------------------------------------- an interval over images

_Z = 1.96


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


def _interval(spread, z=_Z, first=False):
    """Difference of two models and ``z`` times what ``spread`` gives to either side of it."""

    def interval(a, b):
        a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
        if first:
            a, b = a[:1], b[:1]
        middle, reach = float((a - b).mean()), z * float(spread(a, b))
        return middle, middle - reach, middle + reach

    return interval


def _of_images(a, b):
    """The standard error over images of the difference, averaged over the seeds first."""
    each = (a - b).mean(0)
    return each.std(ddof=1) / len(each) ** 0.5


def _of_all(a, b):
    return (a - b).std(ddof=1) / a.size**0.5


def _of_seeds(a, b):
    each = (a - b).mean(1)
    return each.std(ddof=1) / len(each) ** 0.5


def _unpaired(a, b):
    n = a.shape[1]
    return ((a.mean(0).var(ddof=1) + b.mean(0).var(ddof=1)) / n) ** 0.5


def _of_one_image(a, b):
    return (a - b).mean(0).std(ddof=1)


# --------------------------------------------------------------------------------------- added cost

_COSTS = (
    {
        "visual encoder": 600.0,
        "language model": 7000.0,
        "vision model": 300.0,
        "head": 3.7,
        "gate": 0.2,
    },
    {
        "visual encoder": 2.0,
        "language model": 4.0,
        "vision model": 5.0,
        "head": 0.5,
        "gate": 0.125,
    },
)


def _cost(above, below=lambda cost: cost["vision model"]):
    return lambda cost: above(cost) / below(cost)


def _vlm(cost):
    return cost["visual encoder"] + cost["language model"]


def _small(cost):
    return cost["head"] + cost["gate"]


EXERCISES = (
    Exercise(
        "9.1",
        "The share of the gap",
        calls(*_gap_cases()),
        _gap(),
        (
            Mistake(
                "the gap begins at the worse model",
                "Whoever has both models can already use the better one. From where should a combination "
                "have to climb?",
                _gap(floor=np.minimum),
            ),
            Mistake(
                "the gap begins at the mean of the two models",
                "Nobody runs the mean of two models. Which of the two would you run without a "
                "combination?",
                _gap(floor=lambda a, b: (a + b) / 2),
            ),
            Mistake(
                "the gap ends where both models are right",
                "The oracle is right where one of the two is. Which logical operation is that?",
                _gap(top=np.logical_and),
            ),
            Mistake(
                "the gap ends at 100 %",
                "On some images neither model is right, and no choice between the two helps there.",
                _gap(top=lambda vlm, vision: np.ones(1)),
            ),
            Mistake(
                "a ratio of accuracies",
                "That share is high even for the better model alone. What should the measure give "
                "for a combination that adds nothing?",
                lambda vlm, vision, ours: ours.mean() / _oracle(vlm, vision),
            ),
            Mistake(
                "points gained, not a share of the gap",
                "The first half of the measure is there. Points of how many that were to be had?",
                lambda vlm, vision, ours: ours.mean() - _better(vlm, vision),
            ),
            Mistake(
                "what is left of the gap, not what is recovered",
                "What should the measure give for a combination as good as the oracle?",
                lambda vlm, vision, ours: (
                    (_oracle(vlm, vision) - ours.mean())
                    / (_oracle(vlm, vision) - _better(vlm, vision))
                ),
            ),
        ),
    ),
    Exercise(
        "9.2",
        "An interval when there are seeds",
        calls(*_seed_cases()),
        _interval(_of_images),
        (
            Mistake(
                "the seeds are counted as more images",
                "Three seeds on 400 images are not 1,200 images: an image that is hard is hard for "
                "all of them. What is drawn anew when other images are taken?",
                _interval(_of_all),
            ),
            Mistake(
                "the interval is over the seeds",
                "That says what another seed would change. Here it is asked what other images would.",
                _interval(_of_seeds),
            ),
            Mistake(
                "the pairs are torn apart",
                "Both models were asked about the same images. Form something for each image before "
                "you take a spread.",
                _interval(_unpaired),
            ),
            Mistake(
                "the spread of single images, not of their mean",
                "Your interval would stay as wide with a million images.",
                _interval(_of_one_image),
            ),
            Mistake(
                "one standard error to either side",
                "That covers about two in three, not 95 %.",
                _interval(_of_images, z=1.0),
            ),
            Mistake(
                "only the first seed is used",
                "Look at your middle: is it the mean over all seeds?",
                _interval(_of_images, first=True),
            ),
        ),
        rtol=0.0,
        atol=4e-3,
    ),
    Exercise(
        "9.3",
        "What is added",
        calls(*[(cost,) for cost in _COSTS]),
        _cost(_small),
        (
            Mistake(
                "the VLM is counted again on both sides",
                "Both set-ups have the VLM already, and the question is what comes on top.",
                _cost(
                    lambda cost: _vlm(cost) + _small(cost),
                    lambda cost: _vlm(cost) + cost["vision model"],
                ),
            ),
            Mistake(
                "the VLM is counted as part of what EmoVLM-KD adds",
                "It is there before anything is added.",
                _cost(lambda cost: _vlm(cost) + _small(cost)),
            ),
            Mistake(
                "the visual encoder is paid for twice",
                "How often does an image pass the encoder in this lesson's first section?",
                _cost(lambda cost: cost["visual encoder"] + _small(cost)),
            ),
            Mistake(
                "the gate is left out",
                "Something has to put the two answers together.",
                _cost(lambda cost: cost["head"]),
            ),
            Mistake(
                "the share is upside down",
                "What stands above the line is what is asked about: what EmoVLM-KD adds.",
                lambda cost: cost["vision model"] / _small(cost),
            ),
            Mistake(
                "what is saved, not what is added",
                "Your number and the wanted one sum to 1.",
                lambda cost: 1 - _small(cost) / cost["vision model"],
            ),
        ),
        rtol=1e-4,
        atol=1e-7,
    ),
)
