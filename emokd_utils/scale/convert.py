"""The paper's seven data sets, and OASIS: what is known of each, and how a copy gets one layout
with metadata.csv (file, and what the release calls it) and source.json, the report."""

import hashlib
import json
import os
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pandas as pd
from huggingface_hub.constants import HF_HOME

from ..data import drawn
from ..emotions import LABEL_SETS, LabelSet, infer_label_set
from ..errors import InputError
from ..folders import SPLITS, printable
from ..images import FORMATS, BadFile, decode, decode_bytes
from .releases import READERS, Folder, Row, read_library

_TOML = tomllib.loads(Path(__file__).with_name("sources.toml").read_text("utf-8"))
_DEFAULT = _TOML.pop("default")
_FORMS = {name: SimpleNamespace(**(_DEFAULT | about)) for name, about in _TOML.items()}
SOURCES = {name: source for name, source in _FORMS.items() if source.doi}
"""By name; their fields are told in ``sources.toml``."""

KINDS = {
    "tie": "the votes are tied: in no class",
    "no class": "by most votes in none of the classes",
    "conflict": "the same image is there in another class: in neither",
    "no split": "in no split of the release: left out",
    "no file": "listed without a file: it was not fetched, or is no longer to be had",
    "bad file": "no usable image: left out",
    "outside": "leads out of the source folder: not followed",
    "odd row": "a line of a list that cannot be read: left out",
    "unlisted": "in no list, or in no class folder: left out",
    "passed over": "put there by a system or program, not on purpose",
    "duplicate across splits": "known from an earlier split: a run leaves it out",
    "duplicate": "the same image twice in one split",
}
"""Kind of problem -> what it means. The images of the last two kinds are kept."""

_TAKEN = ("id", "split", "label", "kind", "detail", "sha256", "suffix")  # kind: of problem, or ""
_SUFFIX = {name: suffix for suffix, name in reversed(FORMATS.items())}


def overview() -> str:
    """SOURCES as a table: name, images, number of classes, where to ask."""
    table = pd.DataFrame(map(vars, SOURCES.values()), SOURCES)
    table["classes"] = [len(LABEL_SETS[name]) for name in table["label_set"]]
    return table[["images", "listed", "classes", "where"]].to_string()


def describe(name: str) -> str:
    """All that is known of a data set; InputError where it is none of SOURCES."""
    if name not in SOURCES:
        raise InputError(f"no data set {name!r}: choose one of {', '.join(SOURCES)}")
    about = {key: value for key, value in vars(SOURCES[name]).items() if value}
    return "\n".join(f"{key.replace('_', ' '):<10} {value}" for key, value in about.items())


@dataclass(frozen=True, eq=False)
class ConversionReport:
    """listed: lines of the lists, or files. counts: splits by classes. problems: kind (see KINDS), id,
    detail. published: figures that differ, in words."""

    source: str
    root: Path
    split: str
    listed: int
    counts: pd.DataFrame
    problems: pd.DataFrame
    published: Sequence[str]

    def text(self) -> str:
        """The report to read: counts, published figures, each kind of problem with some ids."""
        total = self.counts.to_numpy().sum()
        lines = [f"{self.root}: {total:,} of {self.listed:,} listed images, split {self.split}"]
        lines += [self.counts.assign(all=self.counts.sum(axis=1)).to_string(), *self.published]
        for kind, meaning in KINDS.items():
            rows = self.problems[self.problems["kind"] == kind]
            lines += [f"{len(rows):,} {kind}: {meaning}"] if len(rows) else []
            if kind == "passed over":  # counted, not listed
                continue
            for _, name, detail in rows.head(8).to_numpy():
                lines.append(f"  {name}  ({detail})" if detail else f"  {name}")
            lines += [f"  ... and {len(rows) - 8:,} more, all in source.json"] * (len(rows) > 8)
        return "\n".join(lines)


def convert(
    name: str, source: Path | str, out: Path | str, *, seed: int = 0, say: Callable = print
) -> ConversionReport:
    """Write the released data set below `source` to the new folder `out`, whole or not at all. name:
    one of SOURCES, "imagefolder" for class folders, "datasets" for one of that library. seed: of the
    split, where none is released. say: is told how far it is. Raises InputError."""
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is there and not empty: give a new folder, or remove it")
    try:
        rest, rows = _opened(name, source)
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as draft:
            labels = LABEL_SETS.get(_FORMS[name].label_set)
            taken = []
            for number, row in enumerate(rows, 1):
                taken.append(_take(Path(source), labels, Path(draft, str(number - 1)), row))
                rest.pop(row.file, None)
                if number % 5000 == 0:
                    say(f"{number:,} read")
            taken += [(printable(file), "", "", kind, "", "", "") for file, kind in rest.items()]
            table = pd.DataFrame(taken, columns=_TAKEN, dtype=str)
            report = _lay_out(name, out, Path(draft), table, seed)
            if out.exists():
                out.rmdir()
            os.rename(Path(draft, "data"), out)
    except OSError as error:
        what = f"{error.filename or out}: {error.strerror or error}"
        raise InputError(f"{what}; convert again") from error
    return report


def _opened(name: str, source: Path | str) -> tuple[dict[str, str], Iterator[Row]]:
    """The files, with what is wrong with those that no row names, and the rows."""
    if name not in _FORMS:
        raise InputError(f"no data set {name!r} to convert: choose one of {', '.join(_FORMS)}")
    if name == "datasets":
        return {}, read_library(source)
    if not Path(source).is_dir():
        raise InputError(f"{source}: no such folder; give the one that holds the unpacked release")
    folder, about = Folder(Path(source)), _FORMS[name]
    for form in map(dict, about.read):
        rows = READERS[form.pop("as")](folder, LABEL_SETS.get(about.label_set), **form)
        if first := next(rows, None):
            litter = dict.fromkeys(folder.litter, "passed over")
            return dict.fromkeys(folder.images, "unlisted") | litter, chain([first], rows)
    raise InputError(f"{source} does not hold {name} as it is released. Wanted: {about.form}")


def _take(source: Path, labels: LabelSet | None, copy: Path, row: Row) -> tuple:
    label, kind, detail = row.decided(labels)
    path, sha256, suffix = Path(source, row.file or "").resolve(), "", ""
    homes = (source.resolve(), Path(HF_HOME).resolve())
    if not kind and row.file:
        kind = "" if any(map(path.is_relative_to, homes)) else "outside"
    elif not kind and row.data is None:
        kind = "no file"
    if not kind:
        try:
            data, form = decode(path)[1:3] if row.file else (row.data, decode_bytes(row.data)[1])
            suffix, sha256 = _SUFFIX[form], hashlib.sha256(data).hexdigest()
            copy.write_bytes(data)
        except BadFile as error:
            kind, detail = "bad file", ": ".join(error.args)
    return printable(row.id), row.split, label, kind, printable(detail), sha256, suffix


def _lay_out(name: str, out: Path, draft: Path, table: pd.DataFrame, seed: int) -> ConversionReport:
    about, usable = _FORMS[name], table["kind"] == ""
    labels = LABEL_SETS.get(about.label_set)
    if not labels and usable.any():
        labels = infer_label_set(table["label"][usable])
        table["label"] = table["label"].map(labels.canonical)
    released = {"train", "test"} <= set(table["split"][usable])
    images = _divided(table, None if released else seed, about.test_val)
    if not len(images):
        why = "; ".join(f"{n:,} {kind}" for kind, n in Counter(table["kind"]).most_common())
        raise InputError(f"{name}: no image is left to write ({why or 'no row'}). {about.form}")
    _place(draft, images, labels)
    counts = pd.crosstab(images["split"], images["label"])
    counts = counts.reindex([s for s in SPLITS if s in counts.index], columns=list(labels))
    counts = counts.fillna(0).astype(int).rename_axis(index=None, columns=None)
    problems = table[table["kind"] != ""][["kind", "id", "detail"]].sort_values(["id", "detail"])
    published = {"listed": about.listed, "images": about.images} | about.per_class
    published |= about.per_split if released else {}
    listed = int((~table["kind"].isin(["unlisted", "passed over"])).sum())
    here = {"listed": listed, "images": len(images), **counts.sum(), **counts.sum(axis=1)}
    compared = [
        f"{what}: {here[what]:,} where {n:,} are published ({here[what] / n - 1:+.1%})"
        for what, n in published.items()
        if n and here[what] != n
    ]
    split = "as released" if released else f"drawn with seed {seed}"
    report = ConversionReport(name, out, split, listed, counts, problems, compared)
    facts = vars(report) | {"format": "emokd-source-2", "about": vars(about)}
    facts |= {"counts": counts.T.to_dict(), "problems": problems.to_dict("records")}
    del facts["root"]
    (draft / "data" / "source.json").write_text(json.dumps(facts, indent=1) + "\n")
    return report


def _divided(table: pd.DataFrame, seed: int | None, shares: Sequence[float]) -> pd.DataFrame:
    """The images with a split each, drawn if there is a seed; `table` gets what is wrong with one."""
    images = table[table["kind"] == ""].sort_values(["id", "split"], kind="stable")
    names = images["id"] + " of " + images["label"] + " " + images["split"]
    copied = images["sha256"][images.duplicated("sha256", keep=False)]
    table.loc[copied.index, "detail"] = names.groupby(copied).transform("; ".join)
    torn = images.groupby("sha256")["label"].transform("nunique") > 1
    table.loc[images.index[torn], "kind"] = "conflict"
    images = images[~torn]
    if seed is None:
        table.loc[images.index[images["split"] == ""], "kind"] = "no split"
        images = images[images["split"] != ""]
    else:
        one = images.drop_duplicates("sha256").set_index("sha256", drop=False)
        one["split"] = "train"
        for split, share in (("test", shares[0]), ("val", shares[1] / (1 - shares[0]))):
            one = drawn(one, split, share, one["sha256"], seed)
        images = images.assign(split=images["sha256"].map(one["split"]))
    by_split = images.sort_values("split", key=lambda s: s.map(SPLITS.index), kind="stable")
    copies = by_split[by_split.duplicated("sha256")]
    across = copies["split"] != by_split.groupby("sha256")["split"].transform("first")[copies.index]
    table.loc[copies.index, "kind"] = "duplicate"
    table.loc[copies.index[across], "kind"] += " across splits"
    return images


def _place(draft: Path, images: pd.DataFrame, labels: LabelSet) -> None:
    used, places = set(), []
    folders = {label: _free("", label, used) for label in labels}
    for image in images.itertuples():
        folder = f"{image.split}/{folders[image.label]}/"
        places.append(_free(folder, PurePosixPath(image.id).stem, used) + image.suffix)
        os.renames(draft / str(image.Index), draft / "data" / places[-1])
    table = pd.DataFrame({"file": places, "source_id": images["id"].array})
    table.to_csv(draft / "data" / "metadata.csv", index=False)


def _free(folder: str, text: str, used: set[str]) -> str:
    """`text` as the name of a file, with a number where it is taken in `folder`, in any case."""
    name = folder + (re.sub(r"[^\w.-]+", "_", text)[:50].strip("._-") or "image")
    names = chain([name], (f"{name}-{number}" for number in count(1)))
    free = next(one for one in names if one.casefold() not in used)
    used.add(free.casefold())
    return free
