"""A run that was imported: results without weights, in which the lessons work all the same (lesson 10).

`archive` writes and checks what lies in ``runs/<name>/``: run.json, which says what `Pipeline`
otherwise finds in images and weights; artefacts; and pictures under a hash of each image's id.
``Pipeline(data="runs/NAME")`` opens such a run, and so does every ``Pipeline()`` while the
environment variable EMOKD_RUN is NAME.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NoReturn

import pandas as pd
from PIL import Image, ImageDraw

from .. import __version__
from ..data import ImageDataset
from ..emotions import LabelSet, infer_label_set
from ..errors import InputError
from ..images import open_image
from ..profiles import MINI, PROFILES, Profile, project_root
from ..scan import SPLITS
from .pipeline import Pipeline, _checksum
from .store import Artefact, NotMadeError, Store

RUN, RUN_FORMAT = "run.json", "emokd-run-1"
PICTURES = ("thumbnails", "originals", "none")

_MAX_IMAGES, _MAX_LABELS, _MAX_TEXT, _MAX_DEPTH = 500_000, 100, 1000, 24
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def picture_name(image: str, pictures: str) -> str:
    """Where the picture of an image id lies below a run; 'originals' keep their suffix."""
    name = hashlib.sha256(image.encode()).hexdigest()[:32]
    suffix = ".webp" if pictures == "thumbnails" else PurePosixPath(image).suffix.lower()
    return f"pictures/{name}{suffix}"


# --------------------------------------------------------------------------------- what a run is


@dataclass(frozen=True, eq=False)
class Run:
    """What run.json says: what `Pipeline` otherwise finds in images and weights.

    keys: of vlm, data and metadata; starts: of each file that a vision model started from. data:
    the data set's name. table: as `ImageDataset.table`. pictures: one of PICTURES.
    """

    profile: Profile
    seeds: tuple[int, ...]
    keys: dict[str, str]
    starts: dict[str, str]
    data: str
    built_in: bool
    label_set: LabelSet
    table: pd.DataFrame
    pictures: str


def describe(pipeline: Pipeline, seeds: Iterable[int], pictures: str) -> bytes:
    """run.json of a pipeline, without a path of this machine.

    Raises InputError for what `read_run` would not take.
    """
    data, profile = pipeline.dataset, pipeline.profile
    further = [name.partition("@") for name in profile.further_vision]
    starts = {
        text: profile.path(text) for text in (profile.vision.weights, *(w[2] for w in further))
    }
    said = {
        "format": RUN_FORMAT,
        "version": __version__,
        "profile": asdict(profile)
        | {name: _portable(getattr(profile, name)) for name in ("data", "vlm", "vision_weights")}
        | {"vision_further": [f"{name}{at}{_portable(text)}" for name, at, text in further]},
        "seeds": list(seeds),
        "keys": {
            "vlm": pipeline._vlm_key,
            "data": data.fingerprint,
            "metadata": pipeline._metadata_key,
        },
        "starts": {_portable(text): _checksum(at) for text, at in starts.items() if at.is_file()},
        "data": pipeline.root.resolve().name,
        "built_in": pipeline.built_in,
        "labels": list(data.label_set),
        "ids": list(data.ids),
        "columns": {
            name: [
                None if gone else one
                for one, gone in zip(values.tolist(), values.isna(), strict=True)
            ]
            for name, values in data.table.items()
        },
        "pictures": pictures,
    }
    text = json.dumps(said, separators=(",", ":")).encode()
    read_run(text)
    return text


def read_run(text: bytes) -> Run:
    """The run that the bytes of a run.json describe.

    Raises InputError for one of another version, whose artefacts have other keys, and for what
    describes no run.
    """
    said = untrusted_json(text, RUN)
    try:
        if said["format"] != RUN_FORMAT:
            raise InputError(f"{RUN} is not of the format {RUN_FORMAT}")
        if said["version"] != __version__:
            raise InputError(
                f"it was made by emokd_utils {said['version']!r}, and this is {__version__}: "
                "results are found by the version too, so use the same one on both sides"
            )
        keys, starts, seeds, labels = (said[name] for name in ("keys", "starts", "seeds", "labels"))
        texts(
            [keys["vlm"], keys["data"], keys["metadata"], said["data"], *starts, *starts.values()]
        )
        need(0 < len(seeds) < 1000 and all(type(seed) is int for seed in seeds), "seeds")
        need(said["pictures"] in PICTURES and type(said["built_in"]) is bool, "pictures")
        label_set = infer_label_set(texts(labels, _MAX_LABELS))
        need(list(label_set) == labels, "labels")
        return Run(
            _profile(said["profile"]),
            tuple(seeds),
            keys,
            starts,
            said["data"],
            said["built_in"],
            label_set,
            _table(said["ids"], said["columns"], label_set),
            said["pictures"],
        )
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{RUN} describes no run ({error!r})") from error


def _profile(said: dict[str, Any]) -> Profile:
    """A profile; a field that was added since it was written has the value of `MINI`."""
    kinds = {field.name: field.type for field in fields(Profile)}
    types = {str: (str,), int: (int,), float: (float, int), bool: (bool,)}
    need(said.keys() <= kinds.keys(), "profile (of another state of the library)")
    for name, value in said.items():
        need(type(value) in types.get(kinds[name], (list,)), f"{name} in its profile")
        texts(value if isinstance(value, list) else [str(value)])
    said = asdict(MINI) | said
    starts = [text.partition("@")[2] for text in said["vision_further"]]
    for text in (said["data"], said["vlm"], said["vision_weights"], *starts):
        need(text == _portable(text), "path in its profile")
    return Profile(**{k: tuple(v) if isinstance(v, list) else v for k, v in said.items()})


def _table(ids: list, columns: dict[str, list], label_set: LabelSet) -> pd.DataFrame:
    need(len(set(texts(ids, _MAX_IMAGES))) == len(ids) > 0, "ids")
    paths = map(PureWindowsPath, ids)  # knows the drives and separators of every system
    need(not any(path.anchor or ".." in path.parts for path in paths), "ids")
    for name, values in columns.items():
        simple = all(one is None or type(one) in (bool, int, float, str) for one in values)
        need(len(values) == len(ids) and simple and texts([name]), f"column {name!r}")
    need(set(columns["split"]) <= set(SPLITS), "splits")
    need(set(columns["label"]) <= set(label_set), "labels")
    return pd.DataFrame(columns, pd.Index(ids, name="id"))


def _portable(text: str) -> str:
    """A relative path as it is, of any other the last part."""
    path = PureWindowsPath(text)
    return path.name if path.anchor or ".." in path.parts else text


def texts(values: list, most: int = _MAX_TEXT) -> list[str]:
    """Short texts on one line, at most so many."""
    need(isinstance(values, list) and len(values) <= most, "list of texts")
    for text in values:
        fits = isinstance(text, str) and len(text) <= _MAX_TEXT and not _UNFIT.search(text)
        need(fits, f"text {str(text)[:40]!r}")
    return values


def need(holds: object, what: str) -> None:
    """InputError that names what is unusable, unless it holds."""
    if not holds:
        raise InputError(f"it holds unusable {what}")


def untrusted_json(text: bytes, name: str) -> Any:
    """Untrusted JSON, of at most so many levels."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} is not JSON ({str(error)[:80]})") from error
    level = [found]
    for _ in range(_MAX_DEPTH):
        level = [one.values() if isinstance(one, dict) else one for one in level]
        level = [inner for one in level for inner in one if isinstance(inner, dict | list)]
    if level:
        raise InputError(f"{name} is nested deeper than {_MAX_DEPTH} levels")
    return found


# --------------------------------------------------------------------------- opening an imported run


@dataclass(frozen=True, eq=False)
class ImportedDataset(ImageDataset):
    """A data set whose images are those that came with a run; no id is taken for a path."""

    pictures: str = "none"

    def select(self, ids: Iterable[str]) -> ImportedDataset:
        """As `ImageDataset.select`."""
        chosen = super().select(ids)
        return self if chosen is self else ImportedDataset(**vars(chosen), pictures=self.pictures)

    def open(self, image: str) -> Image.Image:
        """The thumbnail or the original of an image; a tile that says so where none came along."""
        if image not in self.table.index:
            return super().open(image)
        if self.pictures != "none":
            return open_image(self.root / picture_name(image, self.pictures))
        tile = Image.new("RGB", (224, 224), "#dddddd")
        words = {"font_size": 24, "anchor": "mm", "align": "center", "fill": "#444444"}
        ImageDraw.Draw(tile).text((112, 112), "image not in\nthe archive", **words)
        return tile


class _ImportedStore(Store):
    """A store that makes heads and gates only, and takes a vision model as known by its key."""

    def __init__(self, run: Run, refuse: Callable[[str], NoReturn], *more: Any) -> None:
        super().__init__(*more)
        self.refuse = refuse
        self.starts = {str(run.profile.path(text)): key for text, key in run.starts.items()}

    def step(self, kind: str, inputs: dict, make: Callable, load: Callable, **more) -> Artefact:
        stage = kind.partition("-")[0]
        if stage == "vision":
            settings, load = inputs["settings"], lambda at: None
            start = self.starts.get(settings["weights"], settings["weights"])
            inputs = inputs | {"settings": settings | {"weights": start}}
        if stage not in ("head", "gate"):
            return super().step(kind, inputs, lambda to: self.refuse(kind), load, **more)
        return super().step(kind, inputs, make, load, **more)


class ImportedRun(Pipeline):
    """A pipeline over a run that `install` put there: results without weights.

    Arguments as `Pipeline`; `data`, or without it EMOKD_RUN, names the run. Its own profile counts,
    whichever known one is asked for; a changed one (`dataclasses.replace`) is taken as it is.
    """

    def __init__(self, profile=None, data=None, runs=None, *more: Any, **options: Any) -> None:
        folder = find_run(data, runs)
        self.run = read_run((folder / RUN).read_bytes())
        own = not isinstance(profile, Profile) or profile in PROFILES.values()
        profile = self.run.profile if own else profile
        super().__init__(profile, folder, folder.parent, *more, **options)
        if self.resplit is not None:
            raise InputError("an imported run has one division into splits, that of its results")
        self.folder, self.built_in = folder, self.run.built_in
        self.store = _ImportedStore(self.run, self._refuse, folder, self.say, self.store.make)

    @functools.cached_property
    def dataset(self) -> ImportedDataset:
        """The images, as thumbnails where they were exported so."""
        run = self.run
        return ImportedDataset(self.root, run.label_set, run.table, run.keys["data"], run.pictures)

    @functools.cached_property
    def _vlm_key(self) -> str:
        return self.run.keys["vlm"]

    @functools.cached_property
    def _metadata_key(self) -> str:
        return self.run.keys["metadata"]

    @functools.cached_property
    def workbench(self) -> Pipeline:
        """The built-in pipeline."""
        return self._built_in(f"{self.folder.name} was imported without weights")

    @functools.cached_property
    def base(self) -> NoReturn:
        """Raises NotMadeError: a VLM does not travel."""
        self._refuse("the VLM")

    def tuned_vlm(self, seed: int = 0) -> NoReturn:
        """Raises NotMadeError: an adapter does not travel."""
        self._refuse("the tuned VLM")

    def vision(self, seed: int = 0) -> NoReturn:
        """Raises NotMadeError: a vision model does not travel."""
        self._refuse("the vision model")

    def _refuse(self, what: str) -> NoReturn:
        raise NotMadeError(
            f"this run was imported without weights, so {what} is not here: work from its "
            "predictions(), features(), teacher_logits(), heads and gates, or where it was exported"
        )


def find_run(data: Path | str | None = None, runs: Path | str | None = None) -> Path | None:
    """The imported run that `data` is, or without `data` the one in `runs` that EMOKD_RUN names
    (which may be a path as well).

    None where there is none. Raises InputError where EMOKD_RUN names what is none, or EMOKD_DATA
    is set as well.
    """
    if data is not None:
        return Path(data) if (Path(data) / RUN).is_file() else None
    name = os.environ.get("EMOKD_RUN")
    if not name:
        return None
    if os.environ.get("EMOKD_DATA"):
        raise InputError("EMOKD_RUN and EMOKD_DATA both say what to work on: unset one of them")
    folder = (project_root() / "runs" if runs is None else Path(runs)) / name
    if not (folder / RUN).is_file():
        raise InputError(
            f"EMOKD_RUN is {name!r}, but {folder} is no imported run: "
            "`python -m emokd_utils import ARCHIVE` makes one; or unset the variable"
        )
    return folder
