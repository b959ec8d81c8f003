"""The paper's seven data sets, and OASIS: what is known of each, and where to ask for it.

The facts are in ``sources.toml``; no image comes with this project.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd

from ..emotions import LABEL_SETS
from ..errors import InputError


@dataclass(frozen=True)
class Source:
    """One data set as published.

    terms, where: on which terms, and where to ask for it. label_set: a name of LABEL_SETS.
    form: what the folder holds that `convert` reads.
    listed: ids in the lists of the release. images: those with a class, in all, then by class and
        by split. None and empty: no such figure is known.
    test_val: shares of each class that are drawn for test and val where the release has no split;
        80/5/15 is usual for FI.
    note: what to know about the figures, and what could not be checked.
    """

    name: str
    title: str
    citation: str
    doi: str
    terms: str
    where: str
    label_set: str
    form: str
    listed: int | None = None
    images: int | None = None
    per_class: Mapping[str, int] = field(default_factory=dict, hash=False)
    per_split: Mapping[str, int] = field(default_factory=dict, hash=False)
    test_val: Sequence[float] = field(default=(0.15, 0.05), hash=False)
    note: str = ""

    def text(self) -> str:
        """The entry to read, a line for each field."""
        lines = []
        for key, value in asdict(self).items():
            if key == "test_val":
                value = "{:.0%} and {:.0%} where there is no split".format(*value)
            elif isinstance(value, dict):
                value = ", ".join(f"{name} {n:,}" for name, n in value.items())
            if value:
                text = f"{value:,}" if isinstance(value, int) else value
                lines.append(f"{key.replace('_', ' '):<10} {text}")
        return "\n".join(lines)

    def compared(self, listed: int, counts: pd.DataFrame, released: bool) -> tuple[str, ...]:
        """A sentence for each published figure; counts: images by split (rows) and class."""
        found = [("listed", listed, self.listed), ("images", counts.to_numpy().sum(), self.images)]
        found += [(label, counts[label].sum(), n) for label, n in self.per_class.items()]
        if released:
            splits = counts.sum(axis=1)
            found += [(split, splits.get(split, 0), n) for split, n in self.per_split.items()]
        sentences = []
        for what, number, published in found:
            if published is None:
                continue
            off = int(number) - published
            share = f"{100 * off / published:+.1f}" if abs(off) * 2000 > published else "under 0.1"
            more = f"{abs(off):,} {'more' if off > 0 else 'fewer'} than the {published:,} published"
            sentences.append(
                f"{what}: {more} ({share} %)" if off else f"{what}: {published:,}, as published"
            )
        return tuple(sentences)


_ENTRIES = tomllib.loads(Path(__file__).with_name("sources.toml").read_text("utf-8"))
SOURCES = {name: Source(name=name, **about) for name, about in _ENTRIES.items()}
"""The data sets by name."""


def overview() -> str:
    """SOURCES as a table: name, images, number of classes, where to ask."""
    rows = [("name", "images", "classes", "where to ask for it")]
    for source in SOURCES.values():
        size = f"{source.images or source.listed:,}"
        rows.append((source.name, size, str(len(LABEL_SETS[source.label_set])), source.where))
    return "\n".join(f"{name:<10} {size:>8} {classes:>8}  {w}" for name, size, classes, w in rows)


def describe(name: str) -> str:
    """All that is known of a data set; InputError where it is none of SOURCES."""
    if name not in SOURCES:
        raise InputError(f"no data set {name!r}: choose one of {', '.join(SOURCES)}")
    return SOURCES[name].text()
