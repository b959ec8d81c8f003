"""Label sets: which emotions there are, in which order, and the colour of each in every figure.

Mikels et al. 2005 (doi 10.3758/BF03192732) sort what photographs evoke into eight emotions, four
positive and four negative. Ekman 1992 (doi 10.1080/02699939208411068) argues for six basic
emotions, which Emotion6 (Peng et al. 2015, doi 10.1109/CVPR.2015.7298687) asks about photographs.
Polarity is the coarsest set: negative or positive."""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import cycle

from .errors import InputError

_EMOTIONS = {  # label -> polarity, colour, other forms of the word
    "amusement": ("positive", "#cea600", ("amused", "amusing")),
    "awe": ("positive", "#82ddff", ("awed", "awestruck", "in awe")),
    "contentment": ("positive", "#00b3a0", ("content", "contented")),
    "excitement": ("positive", "#f4d699", ("excited", "exciting")),
    "anger": ("negative", "#e90000", ("angry", "angered")),
    "disgust": ("negative", "#6a756e", ("disgusted", "disgusting")),
    "fear": ("negative", "#730031", ("fearful", "afraid", "scared", "frightened")),
    "sadness": ("negative", "#334d88", ("sad", "saddened")),
    "joy": ("positive", "#cea600", ("joyful", "happy", "happiness")),
    "surprise": ("positive", "#82ddff", ("surprised", "surprising")),
    "negative": ("negative", "#334d88", ("neg",)),
    "positive": ("positive", "#cea600", ("pos",)),
}
_EMOTION_OF = {form: label for label, row in _EMOTIONS.items() for form in (label, *row[2])}


def normalise(text: str) -> str:
    """Text in lower case and in Unicode's form NFC, with underscores, hyphens and runs of white space
    as single spaces, and "&" as "and"."""
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return " ".join(re.sub("[_-]", " ", text.replace("&", " and ")).split())


@dataclass(frozen=True)
class LabelSet:
    """The emotions a task distinguishes: labels in the order of every probability column; polarity,
    label -> 'negative' or 'positive', empty where not known; colours, label -> '#rrggbb'."""

    name: str
    labels: tuple[str, ...]
    polarity: dict[str, str] = field(hash=False)
    colours: dict[str, str] = field(hash=False)
    reference: str

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[str]:
        return iter(self.labels)

    def index(self, label: str) -> int:
        """Column of a label; InputError where it is not in the set."""
        if label not in self.labels:
            raise InputError(f"{label!r} is not in {self.name}: use one of {', '.join(self)}")
        return self.labels.index(label)

    @cached_property
    def forms(self) -> dict[str, str]:
        """What spells a label, as `normalise` gives it, and the label: the labels themselves, and the
        word forms ('sad', 'content', 'happy') that stand for one label of this set alone."""
        exact = {normalise(label): label for label in self}
        emotions = [_EMOTION_OF.get(form) for form in exact]
        label_of = dict(zip(emotions, exact.values(), strict=True))
        words = {w: label_of[e] for w, e in _EMOTION_OF.items() if emotions.count(e) == 1}
        return words | exact

    def canonical(self, text: str) -> str | None:
        """The label of this set that text spells (`forms`), or None."""
        return self.forms.get(normalise(text))


def _known(name: str, labels: str, reference: str) -> LabelSet:
    polarity = {label: _EMOTIONS[label][0] for label in labels.split()}
    colours = {label: _EMOTIONS[label][1] for label in labels.split()}
    return LabelSet(name, tuple(labels.split()), polarity, colours, reference)


MIKELS = _known(
    "mikels",
    "amusement awe contentment excitement anger disgust fear sadness",
    "Mikels et al. 2005, doi 10.3758/BF03192732",
)
EKMAN = _known(
    "ekman", "anger disgust fear joy sadness surprise", "Ekman 1992, doi 10.1080/02699939208411068"
)
"""Ekman's six emotions, as in Emotion6. That surprise is positive is a convention of this project;
a surprise can be either."""

POLARITY = _known(
    "polarity",
    "negative positive",
    "valence, the first dimension of affect: Russell 1980, doi 10.1037/h0077714",
)
LABEL_SETS: dict[str, LabelSet] = {known.name: known for known in (MIKELS, EKMAN, POLARITY)}


def infer_label_set(folder_names: Iterable[str], known: LabelSet | None = None) -> LabelSet:
    """The label set that folders are named after, in any order.
    known: the set that the data set is known to have, of which classes may be missing. Otherwise the
    smallest known set of which every name spells a label (`LabelSet.canonical`): whole where all its
    labels are there, else the task of those that are there, 'part of ekman'. Else 'custom' of the
    names, sorted; those that differ in case, spaces and Unicode form only are one class. InputError
    for fewer than two classes, or one without letters."""
    names = sorted({unicodedata.normalize("NFC", name) for name in folder_names})
    for each in [known] if known else sorted(LABEL_SETS.values(), key=len):
        there = {each.canonical(name) for name in names}
        if None not in there and (known or len(there) == len(each)):
            return each
        if None not in there and len(there) > 1:
            labels = tuple(label for label in each if label in there)
            polarity, colours = ({k: v[k] for k in labels} for v in (each.polarity, each.colours))
            return LabelSet(f"part of {each.name}", labels, polarity, colours, each.reference)
    first_spelling = {normalise(name): name for name in reversed(names)}
    if len(first_spelling) < 2 or "" in first_spelling:
        classes = ", ".join(map(repr, names))
        raise InputError(f"the classes {classes}: two classes or more are needed, each with a name")
    labels = tuple(sorted(first_spelling.values()))
    colours = dict(zip(labels, cycle(MIKELS.colours.values()), strict=False))
    return LabelSet("custom", labels, {}, colours, "the names of the class folders")
