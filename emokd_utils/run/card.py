"""run.json: what a run is, without its images and models and without a path of the machine.

It holds the profile, the data set's table and what keys are made of, so that a run that travelled
finds its results under the same keys. What is read here is untrusted.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import PureWindowsPath
from typing import Any, TypeVar

import pandas as pd

from ..emotions import LabelSet, infer_label_set
from ..errors import InputError
from ..folders import SPLITS
from ..profiles import MINI, Profile

T = TypeVar("T")

CARD = "run.json"
CARD_FORMAT = "emokd-run-2"
PICTURES = ("thumbnails", "none")

MAX_IMAGES, MAX_LABELS, MAX_TEXT = 500_000, 100, 1000
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, eq=False)
class RunCard:
    """What run.json says. keys: of vlm, data and metadata. files: name -> SHA-256, of each file that
    the profile names. data: the data set's name. table: as `ImageDataset.table`. pictures: one of
    PICTURES."""

    profile: Profile
    seeds: tuple[int, ...]
    keys: dict[str, str]
    files: dict[str, str]
    data: str
    built_in: bool
    label_set: LabelSet
    table: pd.DataFrame
    pictures: str


def write_card(run, seeds: Iterable[int], pictures: str) -> bytes:
    """run.json of a run. Raises InputError for what `read_card` would not take."""
    data, profile, source = run.dataset, run.profile, run.source
    further = [name.partition("@")[2] for name in profile.further_vision]
    named = [profile.vision.weights, profile.tuning.instructions, *further]
    content = {
        "format": CARD_FORMAT,
        "profile": asdict(portable_profile(profile)),
        "seeds": list(seeds),
        "keys": {
            "vlm": source.vlm_key,
            "data": data.fingerprint,
            "metadata": source.metadata_key(data),
        },
        "files": {
            portable(name): source.mark_of(name) for name in named if source.mark_of(name) != name
        },
        "data": source.name,
        "built_in": source.built_in,
        "labels": list(data.label_set),
        "ids": list(data.ids),
        "columns": {
            name: [
                None if gone else value for value, gone in zip(column, column.isna(), strict=True)
            ]
            for name, column in data.table.astype(object).items()
        },
        "pictures": pictures,
    }
    text = json.dumps(content, separators=(",", ":")).encode()
    read_card(text)
    return text


def portable_profile(profile: Profile) -> Profile:
    """The profile with the last part of each absolute path."""
    further = [name.partition("@") for name in profile.further_vision]
    return profile.changed(
        data=portable(profile.data),
        vlm={"name": portable(profile.vlm.name)},
        vision={"weights": portable(profile.vision.weights)},
        tuning={"instructions": portable(profile.tuning.instructions)},
        further_vision=tuple(f"{name}{at}{portable(start)}" for name, at, start in further),
    )


def portable(text: str) -> str:
    """A relative path as it is, of any other the last part."""
    path = PureWindowsPath(text)  # knows the drives and separators of every system
    return path.name if path.anchor or ".." in path.parts else text


def read_card(text: bytes) -> RunCard:
    """The run that the bytes of a run.json describe. Raises InputError for what describes none."""
    card = untrusted_json(text, CARD)
    try:
        if card["format"] != CARD_FORMAT:
            raise InputError(
                f"{CARD} is of the format {card['format']!r}, not {CARD_FORMAT!r}: "
                "export the run anew with this version"
            )
        keys, files, seeds, labels = (card[name] for name in ("keys", "files", "seeds", "labels"))
        check_texts([keys["vlm"], keys["data"], keys["metadata"], card["data"]])
        check_texts([*files, *files.values()])
        need(0 < len(seeds) < 1000 and all(type(seed) is int for seed in seeds), "seeds")
        need(card["pictures"] in PICTURES and type(card["built_in"]) is bool, "pictures")
        label_set = infer_label_set(check_texts(labels, MAX_LABELS))
        need(list(label_set) == labels, "labels")
        profile = _typed(Profile, card["profile"], asdict(MINI))
        need(profile == portable_profile(profile), "path in its profile")
        table = _table(card["ids"], card["columns"], label_set)
        about = (card["data"], card["built_in"], label_set, table, card["pictures"])
        return RunCard(profile, tuple(seeds), keys, files, *about)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{CARD} describes no run ({error!r})") from error


def _typed(kind: type[T], values: Mapping[str, Any], usual: Mapping[str, Any]) -> T:
    """A dataclass of values of its fields' types; a field that is not there has its usual value."""
    known = {field.name: field for field in fields(kind)}
    need(values.keys() <= known.keys(), "profile (of another state of the library)")
    typed = {}
    for name, value in (usual | values).items():
        like = getattr(MINI, name) if kind is Profile else usual[name]
        if is_dataclass(like):
            typed[name] = _typed(type(like), value, usual[name])
        elif isinstance(like, tuple):
            typed[name] = tuple(check_texts(list(value)))
        else:
            number = type(like) is float and type(value) is int
            need(number or type(value) is type(like), f"{name} in its profile")
            typed[name] = check_texts([value])[0] if isinstance(value, str) else value
    return kind(**typed)


def _table(ids: list, columns: Mapping[str, list], label_set: LabelSet) -> pd.DataFrame:
    need(len(set(check_texts(ids, MAX_IMAGES))) == len(ids) > 0, "ids")
    need(all(image_id == portable(image_id) for image_id in ids), "ids")
    for name, values in columns.items():
        simple = all(value is None or type(value) in (bool, int, float, str) for value in values)
        need(len(values) == len(ids) and simple and check_texts([name]), f"column {name!r}")
    need(set(columns["split"]) <= set(SPLITS), "splits")
    need(set(columns["label"]) <= set(label_set), "labels")
    return pd.DataFrame(columns, pd.Index(ids, name="id"))


def check_texts(values: list, most: int = MAX_TEXT) -> list[str]:
    """Short texts on one line, at most so many; InputError for others."""
    need(isinstance(values, list) and len(values) <= most, "list of texts")
    for text in values:
        fits = isinstance(text, str) and len(text) <= MAX_TEXT and not _UNFIT.search(text)
        need(fits, f"text {str(text)[:40]!r}")
    return values


def need(holds: object, what: str) -> None:
    """InputError that names what is unusable, unless it holds."""
    if not holds:
        raise InputError(f"it holds unusable {what}")


def untrusted_json(text: bytes, name: str) -> Any:
    """Untrusted JSON. Raises InputError for what is none, or nested without an end."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} is not JSON ({str(error)[:80]})") from error
