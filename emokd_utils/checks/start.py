"""Checks of lesson 0: accuracy from a table, the macro-average, what is trained when."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ..checks import Exercise, Mistake, attempted, calls
from ..predictions import Predictions


def _table(labels: str, predicted: str) -> pd.DataFrame:
    """A table of predictions; a dot stands for an answer that names no class."""
    classes = ("awe", "fear", "anger")
    initials = {"w": 0, "f": 1, "a": 2}
    rows = [
        np.full(3, 1 / 3)
        if letter == "."
        else np.where(np.arange(3) == initials[letter], 0.4 + 0.05 * k, (0.6 - 0.05 * k) / 2)
        for k, letter in enumerate(predicted)
    ]
    return Predictions(
        ids=[f"test/{k}.png" for k in range(len(labels))],
        splits=["test"] * len(labels),
        labels=[classes[initials[letter]] for letter in labels],
        classes=classes,
        probabilities=np.array(rows),
        invalid=[letter == "." for letter in predicted],
    ).to_frame()


def _accuracy_probe(function):
    cases = (("wwffa", "wwf.f"), ("wfafw", "wfaww"), ("aaawf", "..aff"))
    if not callable(function):
        raise TypeError(f"a function is wanted here, this is {type(function).__name__}")
    return [float(attempted(function(_table(*case)))) for case in cases]


def _right(table):
    return (table["predicted"] == table["label"]).mean()


def _confidence(table):
    return table.filter(like="p_").max(axis=1).mean()


def _per_label(labels, predicted):
    table = pd.DataFrame({"label": labels, "predicted": predicted})
    return (table["label"] == table["predicted"]).groupby(table["label"]).mean()


def _macro_f1(labels, predicted):
    pairs = list(zip(labels, predicted, strict=True))
    scores = []
    for name in sorted(set(labels)):
        hits = sum(a == b == name for a, b in pairs)
        scores.append(2 * hits / (labels.count(name) + list(predicted).count(name)))
    return float(np.mean(scores))


def _by_prediction(labels, predicted):
    pairs = [(p, a) for a, p in zip(labels, predicted, strict=True) if p]
    return _per_label(*map(list, zip(*pairs, strict=True)))


MACRO_CASES = (
    (
        ["awe"] * 6 + ["fear"] * 2 + ["anger"] * 2,
        ["awe"] * 5 + ["fear", "fear", None, "anger", "sadness"],
    ),
    (["joy"] * 9 + ["fear"], ["joy"] * 7 + [None, "awe", "joy"]),
    (["fear", "joy", "joy", "joy"], ["fear", "fear", "joy", "joy"]),
)

PARTS = ("visual encoder", "language model", "adapter", "head", "gate", "vision model")
TRAINED = {
    "fine-tuning": "vision model",
    "instruction tuning": "adapter",
    "distillation": "head",
    "gating": "gate",
}


def _trained_probe(answer):
    """The part of each stage; errors that say which stage or part is not one of the map's."""
    if not isinstance(answer, Mapping):
        raise TypeError(f"a dictionary is wanted here, this is {type(answer).__name__}")
    found = {str(k).strip().lower(): str(v).strip().lower() for k, v in answer.items()}
    for stage in TRAINED:
        if stage not in found:
            raise ValueError(f"the stage {stage!r} has no part yet")
    for part in found.values():
        if part not in PARTS:
            raise ValueError(f"{part!r} is no box of the map")
    return {stage: found[stage] for stage in TRAINED}


EXERCISES = (
    Exercise(
        "0.1",
        "Accuracy, from a table",
        _accuracy_probe,
        _right,
        (
            Mistake(
                "answers that name no label are left out",
                "An invalid answer is a wrong one. If it is dropped, a model gains by saying "
                "nothing. How many rows does your mean run over?",
                lambda table: _right(table[~table["invalid"]]),
            ),
            Mistake(
                "answers that name no label count as right",
                "A missing prediction is not equal to any label.",
                lambda table: (
                    (table["predicted"] == table["label"]) | table["predicted"].isna()
                ).mean(),
            ),
            Mistake(
                "right images are counted, their share is not taken",
                "A share lies in 0 to 1. What is missing?",
                lambda table: (table["predicted"] == table["label"]).sum(),
            ),
            Mistake(
                "it is in per cent",
                "A share lies in 0 to 1; per cent are for people to read.",
                lambda table: 100 * _right(table),
            ),
            Mistake(
                "wrong images are counted in place of right ones",
                "A model that is always right should get 1.",
                lambda table: 1 - _right(table),
            ),
            Mistake(
                "confidence is averaged in place of correctness",
                "The highest probability says how sure the model is. Where does the label come in?",
                _confidence,
            ),
        ),
    ),
    Exercise(
        "0.2",
        "Every class counts the same",
        calls(*MACRO_CASES),
        lambda labels, predicted: _per_label(labels, predicted).mean(),
        (
            Mistake(
                "every image counts the same",
                "This is the ordinary accuracy. With 90 images of one label right and 10 of another "
                "wrong, what should come out?",
                lambda labels, predicted: np.mean(
                    [a == b for a, b in zip(labels, predicted, strict=True)]
                ),
            ),
            Mistake(
                "images are grouped by what was predicted",
                "Of the images *labelled* fear, how many are right? You asked it of those that were "
                "called fear.",
                lambda labels, predicted: _by_prediction(labels, predicted).mean(),
            ),
            Mistake(
                "classes that are nobody's label are in the mean",
                "A class that was only predicted has no images of its own to be right about.",
                lambda labels, predicted: (
                    _per_label(labels, predicted).sum()
                    / len({*labels, *(p for p in predicted if p)})
                ),
            ),
            Mistake(
                "images without a prediction are left out",
                "A missing prediction is a wrong one.",
                lambda labels, predicted: _per_label(
                    [a for a, p in zip(labels, predicted, strict=True) if p],
                    [p for p in predicted if p],
                ).mean(),
            ),
            Mistake(
                "the classes' shares are added, not averaged",
                "An average of shares is a share.",
                lambda labels, predicted: _per_label(labels, predicted).sum(),
            ),
            Mistake(
                "it is the macro F1",
                "F1 also counts false alarms. Here only each label's own images count.",
                _macro_f1,
            ),
        ),
    ),
    Exercise(
        "0.3",
        "What is trained when",
        _trained_probe,
        TRAINED,
        (
            Mistake(
                "the language model's own weights are said to be tuned",
                "Is its box filled or outlined? What lies right under it?",
                TRAINED | {"instruction tuning": "language model"},
            ),
            Mistake(
                "the encoder is said to be trained in distillation",
                "The head reads what the encoder gives. Is the encoder's box filled?",
                TRAINED | {"distillation": "visual encoder"},
            ),
            Mistake(
                "the teacher is said to be trained while it teaches",
                "Its number says when it was trained. Is that before or after distillation begins?",
                TRAINED | {"distillation": "vision model"},
            ),
            Mistake(
                "adapter and head are exchanged",
                "Which of the two lies beside the language model, and which one reads the mean of "
                "the visual tokens?",
                TRAINED | {"instruction tuning": "head", "distillation": "adapter"},
            ),
            Mistake(
                "the head is said to be trained once more with the gate",
                "When the gate is trained, what comes to it is already fixed.",
                TRAINED | {"gating": "head"},
            ),
        ),
    ),
)
