"""Checks of lesson 0: accuracy from a table, the macro-average, what is trained when."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score

from ..checks import Exercise, calls
from ..predictions import Predictions

_CLASSES = ("awe", "fear", "anger")


def _table(labels: str, predicted: str) -> pd.DataFrame:
    """A table of predictions from letters; a dot stands for an answer that names no class."""
    rows = np.full((len(labels), 3), 1 / 3)
    for k, letter in enumerate(predicted):
        if letter != ".":
            rows[k] = (0.6 - 0.05 * k) / 2
            rows[k, "wfa".index(letter)] = 0.4 + 0.05 * k
    return Predictions(
        ids=[f"test/{k}.png" for k in range(len(labels))],
        splits=["test"] * len(labels),
        labels=[_CLASSES["wfa".index(letter)] for letter in labels],
        classes=_CLASSES,
        probabilities=rows,
        invalid=[letter == "." for letter in predicted],
    ).to_frame()


def _right(table):
    return (table["predicted"] == table["label"]).mean()


ACCURACY = Exercise(
    "0.1",
    "Accuracy, from a table",
    calls(*[(_table(*pair.split()),) for pair in ("wwffa wwf.f", "wfafw wfaww", "aaawf ..aff")]),
    _right,
    {
        "answers that name no label are left out. An invalid answer is a wrong one. If it is "
        "dropped, a model gains by saying nothing. "
        "How many rows does your mean run over?": lambda table: _right(table[~table["invalid"]]),
        "answers that name no label count as right. A missing prediction is not equal to any "
        "label.": lambda table: (table["invalid"] | (table["predicted"] == table["label"])).mean(),
        "right images are counted, their share is not taken. A share lies in 0 to 1. What is "
        "missing?": lambda table: _right(table) * len(table),
        "wrong images are counted in place of right ones. A model that is always right should get "
        "1.": lambda table: 1 - _right(table),
        "confidence is averaged in place of correctness. The highest probability says how sure the "
        "model is. Where does the label "
        "come in?": lambda table: table.filter(like="p_").max(axis=1).mean(),
    },
)


def _per_label(labels, predicted):
    table = pd.DataFrame({"label": labels, "predicted": predicted})
    return (table["label"] == table["predicted"]).groupby(table["label"]).mean()


def _answered(labels, predicted):
    """The labels and predictions of the images that have a prediction."""
    pairs = [(a, p) for a, p in zip(labels, predicted, strict=True) if p]
    return map(list, zip(*pairs, strict=True))


def _macro_f1(labels, predicted):
    names = sorted(set(labels))
    return f1_score(labels, [p or "none" for p in predicted], labels=names, average="macro")


MACRO = Exercise(
    "0.2",
    "Every class counts the same",
    calls(
        (
            ["awe"] * 6 + ["fear"] * 2 + ["anger"] * 2,
            ["awe"] * 5 + ["fear", "fear", None, "anger", "sadness"],
        ),
        (["joy"] * 9 + ["fear"], ["joy"] * 7 + [None, "awe", "joy"]),
        (["fear", "joy", "joy", "joy"], ["fear", "fear", "joy", "joy"]),
    ),
    lambda labels, predicted: _per_label(labels, predicted).mean(),
    {
        "every image counts the same. This is the ordinary accuracy. With 90 images of one label "
        "right and 10 of another wrong, what should come "
        "out?": lambda labels, predicted: np.mean(np.array(labels) == np.array(predicted)),
        "images are grouped by what was predicted. Of the images *labelled* fear, how many are "
        "right? You asked it of those that were "
        "called fear.": lambda *both: _per_label(*reversed([*_answered(*both)])).mean(),
        "classes that are nobody's label are in the mean. A class that was only predicted has no "
        "images of its own to be right about.": (
            lambda labels, predicted: (
                _per_label(labels, predicted).sum() / len({*labels, *predicted} - {None})
            )
        ),
        "images without a prediction are left out. "
        "A missing prediction is a wrong one.": lambda *both: _per_label(*_answered(*both)).mean(),
        "the classes' shares are added, not averaged. "
        "An average of shares is a share.": lambda *both: _per_label(*both).sum(),
        "it is the macro F1. F1 also counts false alarms. "
        "Here only each label's own images count.": _macro_f1,
    },
)

_PARTS = ("visual encoder", "language model", "adapter", "head", "gate", "vision model")
_TRAINED = {
    "fine-tuning": "vision model",
    "instruction tuning": "adapter",
    "distillation": "head",
    "gating": "gate",
}


def _trained_probe(answer):
    """The part of each stage; errors that say which stage or part is not one of the map's."""
    if not isinstance(answer, Mapping):
        raise TypeError(f"a dictionary is wanted here, this is {type(answer).__name__}")
    parts = {str(k).strip().lower(): str(v).strip().lower() for k, v in answer.items()}
    for stage in _TRAINED:
        if stage not in parts:
            raise ValueError(f"the stage {stage!r} has no part yet")
    for part in parts.values():
        if part not in _PARTS:
            raise ValueError(f"{part!r} is no box of the map")
    return {stage: parts[stage] for stage in _TRAINED}


STAGES = Exercise(
    "0.3",
    "What is trained when",
    _trained_probe,
    _TRAINED,
    {
        "the language model's own weights are said to be tuned. Is its box filled or outlined? "
        "What lies right under it?": _TRAINED | {"instruction tuning": "language model"},
        "the encoder is said to be trained in distillation. The head reads what the encoder gives. "
        "Is the encoder's box filled?": _TRAINED | {"distillation": "visual encoder"},
        "the teacher is said to be trained while it teaches. Its number says when it was trained. "
        "Is that before or after distillation begins?": _TRAINED | {"distillation": "vision model"},
        "adapter and head are exchanged. Which of the two lies beside the language model, and "
        "which one reads the mean of the "
        "visual tokens?": _TRAINED | {"instruction tuning": "head", "distillation": "adapter"},
        "the head is said to be trained once more with the gate. When the gate is trained, what "
        "comes to it is already fixed.": _TRAINED | {"gating": "head"},
    },
)

EXERCISES = (ACCURACY, MACRO, STAGES)
