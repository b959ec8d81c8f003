"""What a VLM's answer names (lesson 3): a label of the set, or nothing."""

from __future__ import annotations

import re

import numpy as np

from .emotions import LabelSet

_ANSWER = re.compile(
    r"""['"]?\s*(?:emotion|label)\s*['"]?\s*[:=]\s*['"]?\s*([A-Za-z][A-Za-z \-]*)""", re.IGNORECASE
)


def parse_answer(text: str, label_set: LabelSet) -> str | None:
    """The label that an answer names, or None: ``{'emotion': 'anger'}`` with any quotes or none, cut
    short or amid other words, a bare label, or a sentence that names one label; also as ``angry``."""
    if answer := _ANSWER.search(text):
        return label_set.canonical(answer.group(1).strip())
    if bare := label_set.canonical(text.strip(" \t\n.!'\"{}")):
        return bare
    named = {label_set.canonical(word) for word in re.findall(r"[A-Za-z]+", text)} - {None}
    return named.pop() if len(named) == 1 else None


def one_hot(label: str | None, label_set: LabelSet) -> np.ndarray:
    """float64 (C,): 1 at the label, or all the same where an answer names none."""
    if label is None:
        return np.full(len(label_set), 1 / len(label_set))
    return np.eye(len(label_set))[label_set.index(label)]
