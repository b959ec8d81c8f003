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

_EMOTIONS = {
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
"""Label -> polarity, colour, other forms of the word."""


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
        sides = set(self.polarity.values()) - {"negative", "positive"}
        if sides or set(self.polarity) - set(self.labels):
            raise InputError(f"{self.name}: polarity maps labels to 'negative' or 'positive'")

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
        groups = ({label, *forms} for label, (_, _, forms) in _EMOTIONS.items())
        same_word = next((group for group in groups if form in group), set())
        spelled = [label for label in self.labels if normalise(label) in same_word]
        return spelled[0] if len(spelled) == 1 else None


def _known(name: str, labels: str, reference: str) -> LabelSet:
    polarity = {label: _EMOTIONS[label][0] for label in labels.split()}
    colours = {label: _EMOTIONS[label][1] for label in labels.split()}
    return LabelSet(name, tuple(labels.split()), polarity, colours, reference)


MIKELS = _known(
    "mikels",
    "amusement awe contentment excitement anger disgust fear sadness",
    "Mikels et al. 2005, doi 10.3758/BF03192732",
)
"""Mikels' eight emotions, the positive ones first."""

EKMAN = _known(
    "ekman",
    "anger disgust fear joy sadness surprise",
    "Ekman 1992, doi 10.1080/02699939208411068",
)
"""Ekman's six emotions, as in Emotion6. That surprise is positive is a convention of this project;
a surprise can be either."""

POLARITY = _known(
    "polarity",
    "negative positive",
    "valence, the first dimension of affect: Russell 1980, doi 10.1037/h0077714",
)
"""Negative, positive."""

LABEL_SETS: dict[str, LabelSet] = {known.name: known for known in (MIKELS, EKMAN, POLARITY)}


def infer_label_set(folder_names: Iterable[str]) -> LabelSet:
    """The label set that folders are named after, in any order.

    The smallest known set of which every name spells a label, as `LabelSet.canonical` reads it.
    Otherwise a set 'custom' of the names, sorted, those that differ in case and spaces only taken
    once, without polarity; beyond eight labels its colours repeat.

    Raises InputError for no names, or fewer than two that belong to no known set.
    """
    names = sorted(set(folder_names))
    if not names:
        raise InputError("no class folders: put the images in one folder for each class")
    for known in sorted(LABEL_SETS.values(), key=len):
        if all(known.canonical(name) for name in names):
            return known
    first_spelling = {normalise(name): name for name in reversed(names)}
    labels = tuple(sorted(first_spelling.values()))
    palette = [MIKELS.colours[label] for label in MIKELS]
    colours = {label: palette[i % len(palette)] for i, label in enumerate(labels)}
    return LabelSet("custom", labels, {}, colours, "the names of the class folders")


def labels_of(folders: Iterable[str], label_set: LabelSet) -> dict[str, str]:
    """Folder name -> label; two folders may have one label."""
    labels = {folder: label_set.canonical(folder) for folder in folders}
    unknown = [folder for folder, label in labels.items() if label is None]
    if unknown:
        raise InputError(
            f"class folder {', '.join(map(repr, unknown))} names no label of {label_set.name!r} "
            f"({', '.join(label_set)}): rename it or choose another label set"
        )
    return labels
