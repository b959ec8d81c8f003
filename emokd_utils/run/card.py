"""run.json: what a run is, without its images and models and without a path of the machine.

It holds the profile, the data set's table and what keys are made of, so that a run that travelled
finds its results under the same keys. What is read here is untrusted."""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import PureWindowsPath
from typing import Any

import pandas as pd

from ..emotions import LabelSet, infer_label_set
from ..errors import InputError
from ..folders import SPLITS
from ..profiles import MINI, Profile

CARD = "run.json"
CARD_FORMAT = "emokd-run-2"
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, eq=False)
class RunCard:
    """What run.json says. keys: of vlm, data and metadata. files: name -> SHA-256, of each file that
    the profile names. data: the data set's name. table: as `ImageDataset.table`. pictures:
    "thumbnails" or "none"."""

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
    """run.json of a run."""
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
        "columns": data.table.astype(object).where(data.table.notna(), None).to_dict("list"),
        "pictures": pictures,
    }
    return json.dumps(content, separators=(",", ":")).encode()


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
    try:
        card = json.loads(text, object_hook=_with_tuples)
        if card["format"] != CARD_FORMAT:
            raise InputError(
                f"{CARD} is of the format {card['format']!r}, not {CARD_FORMAT!r}: "
                "export the run anew with this version"
            )
        keys, files, data, pictures = (card[k] for k in ("keys", "files", "data", "pictures"))
        profile = MINI.changed(**card["profile"])
        label_set = infer_label_set(card["labels"])
        table = pd.DataFrame(card["columns"], pd.Index(card["ids"], name="id"))
        need(profile == portable_profile(profile), "path in its profile")
        need(table.index.is_unique and all(name == portable(name) for name in table.index), "ids")
        need(set(table["split"]) <= set(SPLITS), "splits")
        need(tuple(label_set) == card["labels"], "labels")
        need(set(table["label"]) <= set(label_set), "labels")
        for shown in (data, profile.name, *label_set, *table.index, *table.columns):
            need(not _UNFIT.search(shown), f"text {shown[:40]!r}")
        seeds, built_in = tuple(card["seeds"]), card["built_in"]
        return RunCard(profile, seeds, keys, files, data, built_in, label_set, table, pictures)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{CARD} describes no run ({error!r})") from error


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    """What JSON made lists of, as the tuples that a profile has."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def need(holds: object, what: str) -> None:
    """InputError that names what is unusable, unless it holds."""
    if not holds:
        raise InputError(f"it holds unusable {what}")
