"""Checks of lesson 0: accuracy from a table, the macro-average, what is trained when."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score

from ..checks import Exercise, calls, variants
from ..predictions import Predictions

_CLASSES = {"w": "awe", "f": "fear", "a": "anger"}


def _table(labels: str, predicted: str) -> pd.DataFrame:
    """A table of predictions from letters; a dot stands for an answer that names no class."""
    named = np.array(list(predicted))[:, None] == list(_CLASSES)  # (N, C)
    sure = 0.4 + 0.05 * np.arange(len(labels))[:, None]
    rows = np.where(named, sure, (1 - sure) / 2)
    return Predictions(
        ids=[f"test/{k}.png" for k in range(len(labels))],
        splits=["test"] * len(labels),
        labels=[_CLASSES[letter] for letter in labels],
        classes=tuple(_CLASSES.values()),
        probabilities=np.where(named.any(1, keepdims=True), rows, 1 / 3),
        invalid=~named.any(1),
    ).to_frame()


_TABLES = [
    (_table(*pair.split()),)
    for pair in ("wf .f", "wfa fff", "wwffa wwf.f", "wfafw wfaww", "aaawf ..aff")
]


def _right(table):
    return (table["predicted"] == table["label"]).mean()


_ACCURACY = {
    "answers that name no label are left out. An invalid answer is wrong; "
    "dropped, it would pay to say nothing.": lambda table: _right(table[~table["invalid"]]),
    "answers that name no label count as right. A missing "
    "prediction is not equal to any label.": lambda table: _right(table) + table["invalid"].mean(),
    "the likeliest class stands for the prediction. Where no label was named all are equally "
    "likely, and the first is nobody's answer.": lambda table: (
        table.filter(like="p_").idxmax(axis=1).str[2:] == table["label"]
    ).mean(),
    "confidence is averaged in place of correctness. That is how sure it is. "
    "Where does the label come in?": lambda table: table.filter(like="p_").max(axis=1).mean(),
    "the label's probability is averaged. It says how likely, not how often.": lambda table: (
        np.mean([row[f"p_{row['label']}"] for row in table.to_dict("records")])
    ),
    "every class counts the same. Here every image does.": lambda table: _per_class(table).mean(),
}

_LABELS = ["awe"] * 6 + ["fear"] * 2 + ["anger"] * 2
_MACRO_PROBE = calls(
    (_LABELS, ["awe"] * 5 + ["fear"] * 2 + [None, "anger", "joy"]),
    (["joy"] * 9 + ["fear"], ["joy"] * 7 + [None, "awe", "joy"]),
    (["fear", "joy", "joy", "joy"], ["fear", "fear", "joy", "joy"]),
)


@variants
def _framed(measure, labels, predicted):
    return measure(pd.DataFrame({"label": labels, "predicted": predicted}))


def _per_class(table, by="label"):
    return (table["label"] == table["predicted"]).groupby(table[by]).mean()


def _macro_f1(table):
    label, predicted = table["label"], table["predicted"].fillna("none")
    return f1_score(label, predicted, labels=label.unique(), average="macro")


_macro = _framed(lambda table: _per_class(table).mean())
_MACRO = {
    "every image counts the same. This is the ordinary accuracy.": _framed(_right),
    "images are grouped by what was predicted. Of the images *labelled* "
    "fear, how many are right?": _framed(lambda table: _per_class(table, "predicted").mean()),
    "classes that are nobody's label are in the mean. Such a class has no image of its own "
    "to be right about.": _framed(lambda table: _per_class(table).sum() / table.stack().nunique()),
    "images without a prediction are left out. A missing prediction "
    "is a wrong one, not none at all.": _framed(lambda table: _per_class(table.dropna()).mean()),
    "classes that the model never names are left out. Their images are all wrong.": _framed(
        lambda table: _per_class(table)[lambda shares: shares > 0].mean()
    ),
    "right images of a class are divided by all. How many has the class?": _framed(
        lambda table: _right(table) / table["label"].nunique()
    ),
    "it is the macro F1. That counts false alarms too.": _framed(_macro_f1),
}

_PARTS = ("visual encoder", "language model", "adapter", "head", "gate", "vision model")
_STAGES = ("fine-tuning", "instruction tuning", "distillation", "gating")
_TRAINED = dict(zip(_STAGES, ("vision model", "adapter", "head", "gate"), strict=True))


def _stages_probe(answer):
    if not isinstance(answer, Mapping):
        raise TypeError(f"a dictionary is wanted here, this is {type(answer).__name__}")
    parts = {str(k).strip().lower(): str(v).strip().lower() for k, v in answer.items()}
    if missing := [stage for stage in _STAGES if stage not in parts]:
        raise ValueError(f"the stage {missing[0]!r} has no part yet")
    if unknown := [part for part in parts.values() if part not in _PARTS]:
        raise ValueError(f"{unknown[0]!r} is no box of the map")
    return {f"what {stage} trains": parts[stage] for stage in _STAGES}


_WRONG_STAGES = {
    "the language model's own weights are said to be tuned. Is its box filled or outlined? "
    "What lies right under it?": _TRAINED | {"instruction tuning": "language model"},
    "the encoder is said to be trained in distillation. The head reads what the encoder gives. "
    "Is the encoder's box filled?": _TRAINED | {"distillation": "visual encoder"},
    "the teacher is said to be trained while it teaches. Its number says when it was trained. "
    "Is that before distillation?": _TRAINED | {"distillation": "vision model"},
    "adapter and head are exchanged. Which of the two lies beside the language model on the "
    "map?": _TRAINED | {"instruction tuning": "head", "distillation": "adapter"},
    "the head is said to be trained once more with the gate. "
    "When the gate is trained, what comes to it is already fixed.": _TRAINED | {"gating": "head"},
}

EXERCISES = (
    Exercise("0.1", "Accuracy, from a table", calls(*_TABLES), _right, _ACCURACY),
    Exercise("0.2", "Every class counts the same", _MACRO_PROBE, _macro, _MACRO),
    Exercise("0.3", "What is trained when", _stages_probe, _TRAINED, _WRONG_STAGES),
)
