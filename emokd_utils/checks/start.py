"""Checks of lesson 0: accuracy from a table, the macro-average, what is trained when."""

from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import pandas as pd

from ..checks import Exercise, Slip, calls, variants
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


_TABLES = [(_table(*pair.split()),) for pair in ("wf .f", "wfa fff", "wfafw wfaww", "faaaw fa..f")]
_VALID = "with an invalid answer/with valid ones/with valid ones/with an invalid answer"


def _right(t):
    return (t["predicted"] == t["label"]).mean()


_ACCURACY = {
    "answers that name no label are left out. They are wrong.": lambda t: _right(t[~t["invalid"]]),
    "confidence is averaged. Where is the label?": lambda t: t.filter(like="p_").max(axis=1).mean(),
    "every class counts the same. Here every image does.": lambda t: (
        t["correct"].groupby(t["label"]).mean().mean()
    ),
}

_MACRO_PROBE = calls(
    (["fear", "joy", "joy", "joy"], ["fear", "fear", "joy", "joy"]),
    (["joy"] * 9 + ["fear"], ["joy"] * 7 + [None, "awe", "joy"]),
    (["fear"] * 3 + ["joy", "awe", "awe"], ["fear"] * 2 + ["awe", "joy", None, "awe"]),
    places="where every class is named/where none is right in a class/where a prediction is None",
)


@variants
def _counted(measure, labels, predicted):
    """hit, n, named: of each label the right images, all, and those called so; other: more classes."""
    names, pairs = [*dict.fromkeys(labels)], [*zip(labels, predicted, strict=True)]
    hit = np.array([pairs.count((name, name)) for name in names])
    n, named = (np.array([*map(side.count, names)]) for side in (labels, predicted))
    other = len({*predicted} - {*names, None})
    return measure(SimpleNamespace(hit=hit, n=n, named=named, other=other))


_macro = _counted(lambda c: (c.hit / c.n).mean())
_MACRO = {
    "every image counts the same. This is the ordinary accuracy.": lambda c: c.hit.sum() / sum(c.n),
    "images are grouped by what was predicted. Of those *labelled* fear, how many are right?": (
        lambda c: (c.hit / np.maximum(c.named, 1)).mean()
    ),
    "classes that are nobody's label are in the mean. Which of their images is right?": lambda c: (
        sum(c.hit / c.n) / (len(c.n) + c.other)
    ),
    "right images of a class are divided by all. How many has it?": lambda c: (
        c.hit.mean() / sum(c.n)
    ),
    "false alarms count too. That is F1.": lambda c: (2 * c.hit / (c.n + c.named)).mean(),
}
_MACRO = {text: _counted(measure) for text, measure in _MACRO.items()}

_PARTS = ("visual encoder", "language model", "adapter", "head", "gate", "vision model")
_STAGES = ("fine-tuning", "instruction tuning", "distillation", "gating")
_TRAINED = dict(zip(_STAGES, ("vision model", "adapter", "head", "gate"), strict=True))


def _stages_probe(answer):
    if not isinstance(answer, Mapping):
        raise Slip(f"a dictionary is wanted here. This is a {type(answer).__name__}")
    parts = {str(k).strip().lower(): str(v).strip().lower() for k, v in answer.items()}
    if missing := [stage for stage in _STAGES if stage not in parts]:
        raise Slip(f"the stage {missing[0]!r} has no part yet. The stages are the keys")
    if unknown := [part for part in parts.values() if part not in _PARTS]:
        raise Slip(f"{unknown[0]!r} is no box of the map. Copy a name in bold")
    return {f"what {stage} trains": parts[stage] for stage in _STAGES}


_WRONG_STAGES = {
    "the language model's own weights are said to be tuned. Is its box filled or outlined? "
    "What lies right under it?": _TRAINED | {"instruction tuning": "language model"},
    "the teacher is said to be trained while it teaches. Its number says when it was trained. "
    "Is that before distillation?": _TRAINED | {"distillation": "vision model"},
    "adapter and head are exchanged. Which of the two lies beside the language model on the "
    "map?": _TRAINED | {"instruction tuning": "head", "distillation": "adapter"},
}

EXERCISES = (
    Exercise("0.1", "Accuracy, from a table", calls(*_TABLES, places=_VALID), _right, _ACCURACY),
    Exercise("0.2", "Every class counts the same", _MACRO_PROBE, _macro, _MACRO),
    Exercise("0.3", "What is trained when", _stages_probe, _TRAINED, _WRONG_STAGES),
)
