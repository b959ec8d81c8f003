"""What the environment and a command line ask for: EMOKD_PROFILE, EMOKD_DATA, EMOKD_SET, EMOKD_RUN,
EMOKD_RUNS; and where exercises are noted and graded: EMOKD_PROGRESS, NBGRADER_EXECUTION."""

import os
import shlex
from argparse import Namespace
from pathlib import Path

from .. import processes
from ..errors import InputError
from ..profiles import Profile, get_profile, project_root, reduced, with_settings
from .card import CARD


def named_profile(name: str | None = None) -> Profile:
    """The profile called `name`, by default the one in EMOKD_PROFILE, else ``mini``.

    EMOKD_DATA names another folder of images, and EMOKD_SET has fields of the profile in
    EMOKD_PROFILE, ``stage.field=value`` with spaces between and quotes around what has spaces
    inside. Raises InputError for an unknown name, and as `profiles.with_settings`."""
    usual = os.environ.get("EMOKD_PROFILE") or "mini"
    name = name or usual
    profile = get_profile(name)
    if data := os.environ.get("EMOKD_DATA"):
        profile = profile.changed(data=data)
    if name == usual:
        text = os.environ.get("EMOKD_SET", "")
        try:
            settings = shlex.split(text)
        except ValueError as error:
            mend = "write 'field=value field=value'"
            raise InputError(f"EMOKD_SET={text}: {error}; {mend}") from None
        profile = with_settings(profile, settings)
    return profile


def asked_profile(args: Namespace) -> Profile:
    """The profile that a command line asks for, by ``--profile``, ``--vlm``, ``--vision``, ``--set``,
    ``--further-vision`` and ``--reduced``. Raises InputError as `profiles.with_settings`."""
    models = [f"{name}={value}" for name in ("vlm", "vision") if (value := getattr(args, name))]
    profile = with_settings(named_profile(args.profile), [*models, *args.settings])
    further = getattr(args, "further_vision", [])
    profile = profile.changed(further_vision=(*profile.further_vision, *further))
    return reduced(profile) if getattr(args, "reduced", False) else profile


def runs_folder() -> Path:
    """Where results are kept: EMOKD_RUNS, else ``runs/`` in the project."""
    return Path(os.environ.get("EMOKD_RUNS") or project_root() / "runs")


def join_processes() -> None:
    """Take part where a launcher has started several processes of the same command."""
    processes.join(int(os.environ.get("WORLD_SIZE", "1")))


def imported_run(data: Path | str | None, runs: Path) -> Path | None:
    """The imported run that `data` is, or without `data` the one in `runs` that EMOKD_RUN names;
    None where there is none. Raises InputError where EMOKD_RUN names none, or EMOKD_DATA is set."""
    if data is not None:
        return Path(data) if (Path(data) / CARD).is_file() else None
    name = os.environ.get("EMOKD_RUN")
    if not name:
        return None
    if os.environ.get("EMOKD_DATA"):
        raise InputError("EMOKD_RUN and EMOKD_DATA both say what to work on: unset one of them")
    folder = runs / name
    if not (folder / CARD).is_file():
        raise InputError(
            f"EMOKD_RUN is {name!r}, but {folder} is no imported run: "
            "`python -m emokd_utils import ARCHIVE` makes one; or unset the variable"
        )
    return folder


def progress_file() -> Path:
    """Where `checks` notes which exercises have passed: EMOKD_PROGRESS, else in ``runs/``."""
    return Path(os.environ.get("EMOKD_PROGRESS") or runs_folder() / "progress.json")


def grading() -> bool:
    """Whether nbgrader executes this notebook: NBGRADER_EXECUTION."""
    return bool(os.environ.get("NBGRADER_EXECUTION"))
