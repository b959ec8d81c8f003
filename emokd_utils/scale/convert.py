"""From the released forms of data sets to one layout.

No image of the data sets in `sources` comes with this project. `convert` reads a copy in the form
in which its authors release it (`releases`), or any class folders, or any image data set of the
`datasets` library, and writes what `data.load_dataset` reads::

    OUT/{train,val,test}/<emotion>/*    the images, untouched
    OUT/metadata.csv                    file, and what the release calls it
    OUT/source.json                     where it comes from, seed, counts, all that was left out
"""

from __future__ import annotations

import glob
import json
import os
import posixpath
import re
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, count, islice
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pandas as pd
from PIL import Image

from ..data import stratified_split
from ..emotions import LABEL_SETS, LabelSet, infer_label_set, normalise
from ..errors import InputError
from ..files import checksum
from ..images import FORMATS, open_image
from ..scan import SPLITS
from .releases import READERS, Folder, Row, read_library
from .sources import SOURCES, Source

SOURCE_FORMAT = "emokd-source-1"

KINDS = {
    "tie": "the votes are tied: in no class",
    "no class": "by most votes in none of the classes",
    "conflict": "the same image is there in another class: in neither",
    "no split": "in no split of the release: left out",
    "no file": "listed without a file: it was not fetched, or is no longer to be had",
    "bad file": "no usable image: left out",
    "outside": "leads out of the source folder, or nowhere: not followed",
    "odd row": "a line of a list that cannot be read: left out",
    "unlisted": "in no list, or in no class folder: left out",
    "duplicate across splits": "known from training when tested: `skip_bad` leaves the earlier out",
    "duplicate": "the same image twice in one split",
}
"""Kind of finding -> what it means. The images of the last two kinds are kept."""

_SUFFIX = {name: suffix for suffix, name in reversed(FORMATS.items())} | {"MPO": ".jpg"}


@dataclass(frozen=True, eq=False)
class ConversionReport:
    """What `convert` wrote and what it left out.

    source: its name. root: the folder written. seed: of the split. split: "released" or "drawn".
    listed: lines of the lists, or files where there is no list.
    counts: images written; splits (rows) by classes (columns).
    problems: columns kind (see KINDS), id (as in the release), detail.
    published: a sentence for each published figure: that it matches, or by how much it does not.
    """

    source: str
    root: Path
    seed: int
    split: str
    listed: int
    counts: pd.DataFrame
    problems: pd.DataFrame
    published: tuple[str, ...]

    def text(self, limit: int = 8) -> str:
        """The report to read: counts, published figures, each kind of problem with some ids."""
        how = "as released" if self.split == "released" else f"drawn with seed {self.seed}"
        total = self.counts.to_numpy().sum()
        lines = [f"{self.root}: {total:,} of {self.listed:,} listed images, split {how}"]
        lines += [self.counts.assign(all=self.counts.sum(axis=1)).to_string(), *self.published]
        for kind, rows in self.problems.groupby("kind", sort=False):
            lines.append(f"{len(rows):,} {kind}: {KINDS[kind]}")
            for row in rows.head(limit).itertuples():
                lines.append(f"  {row.id}  ({row.detail})" if row.detail else f"  {row.id}")
            if len(rows) > limit:
                lines.append(f"  ... and {len(rows) - limit:,} more, all in source.json")
        return "\n".join(lines)

    def to_json(self) -> str:
        """The whole report, with the entry of SOURCES, as JSON."""
        entry = SOURCES.get(self.source)
        data = {"format": SOURCE_FORMAT, "source": asdict(entry) if entry else self.source}
        data |= {"seed": self.seed, "split": self.split, "listed": self.listed}
        data |= {"images": self.counts.T.to_dict(), "published": self.published}
        data["problems"] = {
            kind: rows[["id", "detail"]].to_numpy().tolist()
            for kind, rows in self.problems.groupby("kind", sort=False)
        }
        return json.dumps(data, indent=1)


def convert(
    name: str,
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    seed: int = 0,
    link: bool = False,
    say: Callable[[str], None] = print,
) -> ConversionReport:
    """Write the released data set below `source` in the common layout to the new folder `out`.

    name: one of SOURCES; "imagefolder" for class folders; "datasets" for a data set of the
        `datasets` library, saved on disk or by its id.
    seed: of the split of each class (`Source.test_val`), drawn where the release has no train and
        test.
    link: hard links instead of copies (both folders on one disk).
    say: is told of the progress.

    Votes are resolved to the class with most of them. Copies of one image stay in one split where
    the split is drawn. Images are read one by one; of each only its line of the table is held.
    `out` comes into being as a whole at the end, or not at all.

    Raises InputError for an unknown name, a source that is not in the known form or has no usable
    image, an `out` that is there and not empty or is inside `source`, and a disk that refuses.
    """
    out = Path(out)
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(f"{out} is there and not empty: give a new folder, or remove it")
        folder, labels, rows = _opened(name, source, out)
        with _draft(out, say) as (work, pool):
            take = partial(_take, folder, labels, pool, link)
            images, problems, listed = _collect(rows, folder, take, say)
            report = _lay_out(name, out, pool, work, images, problems, listed, labels, seed)
            (work / "source.json").write_text(report.to_json() + "\n", encoding="utf-8")
    except OSError as error:
        where, why = error.filename or out, error.strerror or error
        raise InputError(f"{where}: {why}; mend it and convert again") from error
    return report


@contextmanager
def _draft(out: Path, say: Callable[[str], None]) -> Iterator[tuple[Path, Path]]:
    """A folder that becomes `out` at the end of the block, unless it fails; and one beside it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    for left in out.parent.glob(f".{glob.escape(out.name)}-*.part"):
        say(f"{left} is left from a conversion that was ended: remove it if none runs")
    aside = {"prefix": f".{out.name}-", "suffix": ".part", "dir": out.parent}
    with tempfile.TemporaryDirectory(**aside, ignore_cleanup_errors=True) as draft:
        work, pool = Path(draft, "data"), Path(draft, "pool")
        work.mkdir()
        pool.mkdir()
        yield work, pool
        if out.exists():
            out.rmdir()
        os.rename(work, out)


def _opened(
    name: str, source: str | os.PathLike, out: Path
) -> tuple[Folder | None, LabelSet | None, Iterator[Row]]:
    """The folder of a release, the labels of its data set where they are known, and its rows."""
    if name == "datasets":
        return None, None, read_library(source)
    if name not in READERS:
        known = ", ".join([*READERS, "datasets"])
        raise InputError(f"there is no data set {name!r} to convert; choose one of {known}")
    root, entry = Path(source), SOURCES.get(name)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give the one that holds the unpacked release")
    if out.resolve().is_relative_to(root.resolve()):
        raise InputError(f"{out} is inside the source {root}: give a folder beside it")
    folder, labels = Folder(root), LABEL_SETS[entry.label_set] if entry else None
    for reader in READERS[name]:
        rows = reader(folder, labels)
        first = next(rows, None)
        if first is not None:
            return folder, labels, chain([first], rows)
    form = entry.form if entry else "One folder for each class, with its images."
    raise InputError(f"{root} does not hold {name} as it is released. Wanted: {form}")


_Problem = tuple[str, str, str]  # kind, id, detail


class _Kept(NamedTuple):
    """An image with a class; number: its name in the pool."""

    id: str
    label: str
    split: str
    sha256: str
    suffix: str
    number: int


def _collect(
    rows: Iterator[Row], folder: Folder | None, take: Callable, say: Callable[[str], None]
) -> tuple[pd.DataFrame, list[_Problem], int]:
    """The images with a class (columns of _Kept), the problems, and the number of rows."""
    kept, problems, listed, named = [], [], 0, set()
    with warnings.catch_warnings(), ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:
        warnings.simplefilter("ignore")  # Pillow's, on files that are a little odd
        while batch := list(islice(rows, 64)):
            for result in threads.map(take, batch, count(listed)):
                (kept if isinstance(result, _Kept) else problems).append(result)
            named.update(row.file for row in batch)
            listed += len(batch)
            if listed % 6400 == 0:
                say(f"{listed:,} read, {len(kept):,} with a class and a file")
    problems += [("unlisted", f, "") for f in (folder.images if folder else ()) if f not in named]
    kept.sort(key=lambda image: (image.id, image.split))
    # As objects: a file name may hold bytes that are no text, which pandas' columns of text refuse.
    return pd.DataFrame(kept, columns=_Kept._fields, dtype=object), problems, listed


def _take(
    folder: Folder | None, labels: LabelSet | None, pool: Path, link: bool, row: Row, number: int
) -> _Kept | _Problem:
    """The image of a row, copied to the pool, or what is wrong with it."""
    label, kind, why = row.decided(labels)
    if label is None:
        return kind, row.id, why
    if row.data is None and row.file is None:
        return "no file", row.id, label
    if row.file and not folder.inside(row.file):
        return "outside", row.id, label
    target = pool / str(number)
    try:
        if row.file:
            path = os.path.realpath(folder.root / row.file)
            os.link(path, target) if link else shutil.copyfile(path, target)
        else:
            target.write_bytes(row.data)
        open_image(target).close()
    except OSError as error:
        if link and row.file:
            raise InputError(
                f"{path} cannot be linked ({error.strerror}): convert without links"
            ) from error
        if isinstance(error, PermissionError):
            return "bad file", row.id, str(error.strerror)
        raise
    except InputError as error:
        target.unlink()
        return "bad file", row.id, str(error).removeprefix(f"{target} ")
    with Image.open(target) as image:
        suffix = _SUFFIX[image.format]
    return _Kept(row.id, label, row.split, checksum(target), suffix, number)


def _lay_out(
    name: str,
    out: Path,
    pool: Path,
    work: Path,
    images: pd.DataFrame,
    problems: list[_Problem],
    listed: int,
    labels: LabelSet | None,
    seed: int,
) -> ConversionReport:
    """Give each image its class and split, move it there, and say what became of all."""
    entry = SOURCES.get(name)
    if entry is None and len(images):
        labels = _infer(set(images["label"]))
        images["label"] = images["label"].map(labels.canonical)
    released = {"train", "test"} <= set(images["split"])
    images = _divided(images, problems, released, seed, (entry or Source).test_val)
    if not len(images):
        kinds = Counter(kind for kind, *_ in problems).items()
        why = "; ".join(f"{n:,} {kind}" for kind, n in kinds) or "none is there"
        form = f" {entry.form}" if entry else ""
        raise InputError(f"{name}: no image is left to write ({why}).{form}")
    _place(pool, work, images.sort_values("id", kind="stable"), labels)
    counts = pd.crosstab(images["split"], images["label"])
    counts = counts.reindex([s for s in SPLITS if s in counts.index], columns=list(labels))
    counts = counts.fillna(0).astype(int).rename_axis(index=None, columns=None)
    order = list(KINDS)
    problems.sort(key=lambda problem: (order.index(problem[0]), problem))
    table = [[_plain(text) for text in problem] for problem in problems]
    return ConversionReport(
        source=name,
        root=out,
        seed=seed,
        split="released" if released else "drawn",
        listed=listed,
        counts=counts,
        problems=pd.DataFrame(table, columns=["kind", "id", "detail"], dtype=str),
        published=entry.compared(listed, counts, released) if entry else (),
    )


def _divided(
    images: pd.DataFrame, problems: list[_Problem], released: bool, seed: int, shares: Sequence
) -> pd.DataFrame:
    """The images with a split each, in the order of the splits; what was found is added to
    `problems`."""
    alike = images.groupby("sha256")
    torn = alike["label"].transform("nunique") > 1
    for image in images[torn].itertuples():
        others = alike.get_group(image.sha256).drop(index=image.Index)
        problems.append(("conflict", image.id, _same(others)))
    images = images[~torn]
    if released:
        none = images["split"] == ""
        problems += [("no split", image, "") for image in images["id"][none]]
        images = images[~none]
    else:
        labels = images.drop_duplicates("sha256").set_index("sha256")["label"]
        images = images.assign(split=images["sha256"].map(_draw(labels, seed, shares)))
    images = images.sort_values("split", key=lambda s: s.map(SPLITS.index), kind="stable")
    last = images.drop_duplicates("sha256", keep="last").set_index("sha256", drop=False)
    for image in images[images.duplicated("sha256", keep="last")].itertuples():
        other = last.loc[[image.sha256]]
        across = image.split != other["split"].item()
        kind = "duplicate across splits" if across else "duplicate"
        problems.append((kind, image.id, _same(other)))
    return images


def _infer(names: set[str]) -> LabelSet:
    """The known set that all names are of, also where two spell one label; else one of its own."""
    for known in LABEL_SETS.values():
        labels = {known.canonical(name) for name in names}
        if None not in labels:
            return infer_label_set(labels)
    return infer_label_set({normalise(name): name for name in sorted(names)}.values())


def _same(others: pd.DataFrame) -> str:
    return ", ".join(
        f"same as {other.id} of {other.label}, {other.split or 'no split'}"
        for other in others.itertuples()
    )


def _draw(labels: pd.Series, seed: int, shares: Sequence[float]) -> dict[str, str]:
    """Content -> split, of each class the shares for test and val; by content and seed alone."""
    test, val = shares
    splits = dict.fromkeys(labels.index, "train")
    for split, share in (("test", test), ("val", val / (1 - test))):
        rest = [content for content in labels.index if splits[content] == "train"]
        splits |= dict.fromkeys(stratified_split(rest, labels[rest], share, seed), split)
    return splits


def _place(pool: Path, work: Path, images: pd.DataFrame, labels: LabelSet) -> None:
    """Move the images to SPLIT/CLASS/, under names that every system takes, and list them."""
    used: Counter[str] = Counter()
    folders = {label: _free(_safe(label), used) for label in labels}
    places = []
    for image in images.itertuples():
        folder = f"{image.split}/{folders[image.label]}"
        (work / folder).mkdir(parents=True, exist_ok=True)
        name = posixpath.basename(urlsplit(image.id).path if "://" in image.id else image.id)
        stem, suffix = posixpath.splitext(name)
        stem = _safe(stem if suffix.lower() in FORMATS else name)
        places.append(_free(f"{folder}/{stem}", used) + image.suffix)
        os.rename(pool / str(image.number), work / places[-1])
    table = pd.DataFrame({"file": places, "source_id": images["id"].array}, dtype=object)
    table.to_csv(work / "metadata.csv", index=False, encoding="utf-8", errors="backslashreplace")


def _safe(text: str) -> str:
    """`text` as a file name: letters, digits, dots and hyphens, neither hidden nor long."""
    return re.sub(r"[^\w.-]+", "_", text)[:50].strip("._-") or "image"


def _free(name: str, used: Counter[str]) -> str:
    """`name`, with a number where it is taken, in any case."""
    free = name
    while free.casefold() in used:
        used[name.casefold()] += 1
        free = f"{name}-{used[name.casefold()]}"
    used[free.casefold()] = 1
    return free


def _plain(text: str) -> str:
    """`text` on one line, with what cannot be printed as escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
