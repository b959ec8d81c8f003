"""Label sets: which emotions there are, in which order, and the colour of each in every figure.

Mikels et al. 2005 (doi 10.3758/BF03192732) sort what photographs evoke into eight emotions, four
positive and four negative. Ekman 1992 (doi 10.1080/02699939208411068) argues for six basic
emotions, which Emotion6 (Peng et al. 2015, doi 10.1109/CVPR.2015.7298687) asks about photographs.
Polarity is the coarsest set: negative or positive.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .errors import InputError

POLARITIES = ("negative", "positive")

_COLOURS = {
    "amusement": "#cea600",
    "awe": "#82ddff",
    "contentment": "#00b3a0",
    "excitement": "#f4d699",
    "anger": "#e90000",
    "disgust": "#6a756e",
    "fear": "#730031",
    "sadness": "#334d88",
    "joy": "#cea600",
    "surprise": "#82ddff",
    "negative": "#334d88",
    "positive": "#cea600",
}

_WORD_FORMS = (
    ("amusement", "amused", "amusing"),
    ("awe", "awed", "awestruck", "in awe"),
    ("contentment", "content", "contented"),
    ("excitement", "excited", "exciting"),
    ("anger", "angry", "angered"),
    ("disgust", "disgusted", "disgusting"),
    ("fear", "fearful", "afraid", "scared", "frightened"),
    ("sadness", "sad", "saddened"),
    ("joy", "joyful", "happy", "happiness"),
    ("surprise", "surprised", "surprising"),
    ("negative", "neg"),
    ("positive", "pos"),
)


def normalise(text: str) -> str:
    """Text in lower case, with underscores, hyphens and runs of white space as single spaces."""
    return " ".join(text.casefold().replace("_", " ").replace("-", " ").split())


@dataclass(frozen=True)
class LabelSet:
    """The emotions a task distinguishes.

    name: of the set.
    labels: in the order of every probability column.
    polarity: label -> 'negative' or 'positive'; empty where it is not known.
    colours: label -> '#rrggbb'.
    reference: where the set comes from.

    Raises InputError for fewer than two labels, labels that differ in case or spaces only, and a
    polarity or colour that does not fit the labels.
    """

    name: str
    labels: tuple[str, ...]
    polarity: dict[str, str] = field(hash=False)
    colours: dict[str, str] = field(hash=False)
    reference: str

    def __post_init__(self) -> None:
        if len(self.labels) < 2:
            raise InputError(f"{self.name}: a label set needs two labels or more: {self.labels}")
        forms = [normalise(label) for label in self.labels]
        if "" in forms or len(set(forms)) < len(forms):
            raise InputError(
                f"{self.name}: a label is empty, or two differ in case and spaces only; "
                f"rename or merge: {self.labels}"
            )
        if set(self.colours) != set(self.labels):
            raise InputError(f"{self.name}: give each of {self.labels} one colour, no other")
        if set(self.polarity) - set(self.labels) or set(self.polarity.values()) - set(POLARITIES):
            raise InputError(f"{self.name}: polarity maps labels to one of {POLARITIES}")

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[str]:
        return iter(self.labels)

    def __contains__(self, label: object) -> bool:
        return label in self.labels

    def index(self, label: str) -> int:
        """Column of a label; InputError where it is not in the set."""
        if label not in self.labels:
            raise InputError(f"{label!r} is not in {self.name}: use one of {', '.join(self)}")
        return self.labels.index(label)

    def canonical(self, text: str) -> str | None:
        """The label of this set that text spells, or None.

        Case, white space, underscores and hyphens do not matter, and a word form ('sad' for
        sadness, 'content' for contentment, 'happy' for joy) stands for its label.
        """
        form = normalise(text)
        for label in self.labels:
            if normalise(label) == form:
                return label
        forms = next((group for group in _WORD_FORMS if form in group), ())
        found = [label for label in self.labels if normalise(label) in forms]
        return found[0] if len(found) == 1 else None


def _known(name: str, positive: str, negative: str, reference: str, order: str) -> LabelSet:
    polarity = dict.fromkeys(positive.split(), "positive")
    polarity |= dict.fromkeys(negative.split(), "negative")
    labels = tuple(order.split())
    return LabelSet(
        name,
        labels,
        {label: polarity[label] for label in labels},
        {label: _COLOURS[label] for label in labels},
        reference,
    )


MIKELS = _known(
    "mikels",
    positive="amusement awe contentment excitement",
    negative="anger disgust fear sadness",
    reference="Mikels et al. 2005, doi 10.3758/BF03192732",
    order="amusement awe contentment excitement anger disgust fear sadness",
)
"""Mikels' eight emotions, the positive ones first."""

EKMAN = _known(
    "ekman",
    positive="joy surprise",
    negative="anger disgust fear sadness",
    reference="Ekman 1992, doi 10.1080/02699939208411068",
    order="anger disgust fear joy sadness surprise",
)
"""Ekman's six emotions, as in Emotion6. That surprise is positive is a convention of this project;
a surprise can be either."""

POLARITY = _known(
    "polarity",
    positive="positive",
    negative="negative",
    reference="valence, the first dimension of affect: Russell 1980, doi 10.1037/h0077714",
    order="negative positive",
)
"""Negative, positive."""

LABEL_SETS: dict[str, LabelSet] = {known.name: known for known in (MIKELS, EKMAN, POLARITY)}


def get_label_set(name: str) -> LabelSet:
    """The known label set of that name, in any case; InputError names the known ones."""
    if normalise(name) not in LABEL_SETS:
        raise InputError(f"no label set {name!r}: use one of {', '.join(LABEL_SETS)}")
    return LABEL_SETS[normalise(name)]


def infer_label_set(folder_names: Iterable[str]) -> LabelSet:
    """The label set that folders are named after, in any order.

    A known set where every name spells another of its labels, as `LabelSet.canonical` reads it:
    the set with just these labels, else the smallest. Otherwise a set 'custom' of the names,
    sorted, without polarity; beyond eight labels its colours repeat.

    Raises InputError for no names, or fewer than two that belong to no known set.
    """
    names = sorted(set(folder_names))
    if not names:
        raise InputError("no class folders: put the images in one folder for each class")
    for known in sorted(LABEL_SETS.values(), key=len):
        found = {known.canonical(name) for name in names}
        if None not in found and len(found) == len(names):
            return known
    palette = [_COLOURS[label] for label in MIKELS]
    colours = {name: palette[i % len(palette)] for i, name in enumerate(names)}
    return LabelSet("custom", tuple(names), {}, colours, "the names of the class folders")
