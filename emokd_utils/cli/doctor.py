"""``python -m emokd_utils doctor``: is everything here that a run needs? A line a requirement."""

import importlib
import importlib.metadata
import platform
import shutil
import sys
import tempfile
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.request import getproxies

from packaging.requirements import Requirement

from ..profiles import project_root
from ..run.environment import runs_folder

MINIMUM_PYTHON = (3, 11)
MINIMUM_MEMORY = 3e9  # bytes free; what a run needs at most
MINIMUM_DISK = 2e9  # bytes free; runs/ of several seeds, with room to spare
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")

IMPORT_NAMES = {"scikit-learn": "sklearn", "pillow": "PIL"}  # where the two names differ
SHIPPED = {
    "objects": "data/emoscenes/objects.csv",
    "sprite sheet": "data/emoscenes/objects.png",
    "TinyVLM config": "data/tiny_vlm/config.json",
    "TinyVLM tokens": "data/tiny_vlm/tokenizer.json",
    "TinyVLM weights": "data/tiny_vlm/model.safetensors",
}


class Check(NamedTuple):
    """One requirement. passed: None for a line that only informs. mend: shown where it failed."""

    name: str
    found: str
    passed: bool | None
    wanted: str = ""
    mend: str = ""

    def __str__(self) -> str:
        mark = {True: "[ok]", False: "[fail]", None: "[info]"}[self.passed]
        wanted = f"wanted {self.wanted}" if self.wanted else ""
        line = f"{f'{mark:<6} {self.name:<15} {self.found}':<47} {wanted}".rstrip()
        return f"{line}\n       mend: {self.mend}" if self.passed is False else line


def doctor() -> int:
    """The command ``doctor``: print every check as it is made; 1 if any failed, else 0."""
    results = [print(check, flush=True) or check.passed for check in checks(project_root())]
    failed, total = results.count(False), len(results) - results.count(None)
    mend = f"{failed} of {total} failed: mend them from the top down, then run this again."
    print(mend if failed else f"All {total} passed.")
    return int(failed > 0)


def checks(root: Path) -> Iterator[Check]:
    """Every check of the project in folder ``root``, the ones that others rest on first."""
    wanted = ".".join(map(str, MINIMUM_PYTHON))
    mend = f"install Python {wanted} or newer, remove .venv, then `make tutorial`"
    passed = sys.version_info[:2] >= MINIMUM_PYTHON
    yield Check("Python", platform.python_version(), passed, f">={wanted}", mend)
    if passed:
        yield from check_dependencies(root)
    for name, path in SHIPPED.items():
        size = (root / path).stat().st_size if (root / path).is_file() else 0
        found = f"{path} ({size / 1e3:,.0f} kB)" if size else f"{path} is missing or empty"
        yield Check(name, found, size > 0, mend=f"git checkout -- {path}")
    yield check_folder("results", runs_folder(), "run --runs DIR, or set EMOKD_RUNS")
    yield check_folder("scenes", root / "data" / "emoscenes", "run --data DIR")
    yield from check_proxies()
    yield from check_machine()
    disk = shutil.disk_usage(root).free
    yield check_space("free disk", disk, MINIMUM_DISK, "remove files you no longer need")


def check_dependencies(root: Path) -> Iterator[Check]:
    """Each dependency of ``root/pyproject.toml``: installed, in its range, and does it import?"""
    import tomllib  # since Python 3.11: the check before tells of an older one

    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    yield from map(check_dependency, map(Requirement, project["dependencies"]))


def check_dependency(requirement: Requirement) -> Check:
    """One distribution: its version against the range, and its import."""
    name, specifier = requirement.name, requirement.specifier
    wanted = ",".join(sorted(map(str, specifier), reverse=True))
    mend = f'{sys.executable} -m pip install "{name}{wanted}"'
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Check(name, "not installed", False, wanted, mend)
    if not specifier.contains(found, prereleases=True):
        return Check(name, found, False, wanted, mend)
    try:
        with warnings.catch_warnings(action="ignore"):
            importlib.import_module(IMPORT_NAMES.get(name, name.replace("-", "_")))
    except Exception as error:  # a broken installation may raise anything
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 72, placeholder=" ...")
        mend = f"{mend.replace('install', 'install --force-reinstall', 1)}\n       ({reason})"
        return Check(name, f"{found}, import fails", False, wanted, mend)
    return Check(name, found, True, wanted)


def check_folder(name: str, wanted: Path, other: str) -> Check:
    """Can files be written to a folder, or the folder be created where it does not exist yet?"""
    folder = next(folder for folder in (wanted, *wanted.parents) if folder.exists())
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        mend = f"make {folder} writable ({error.strerror}), or choose another: {other}"
        return Check(name, f"{wanted.name}/ is not writable", False, mend=mend)
    return Check(name, f"{wanted.name}/ is writable", True)


def check_proxies() -> Iterator[Check]:
    """Can the proxies that the environment names be used? Downloads and the writer go through them."""
    if proxies := getproxies().keys() - {"no"}:  # hosts without one
        try:
            importlib.import_module("httpx").Client().close()
            yield Check("proxies", ", ".join(proxies), True)
        except Exception as error:  # whatever httpx raises on an address or a missing package
            mend = f"write HTTP_PROXY and the like as http://HOST:PORT, or unset them ({error})"
            yield Check("proxies", ", ".join(proxies), False, mend=mend)


def check_machine() -> Iterator[Check]:
    """The device and threads of torch, and the memory that programs could still take."""
    try:
        import psutil
        import torch
    except Exception:  # told already, of its dependency
        return
    device = "mps (Apple)" if torch.backends.mps.is_available() else "cpu"
    if torch.cuda.is_available():
        device = f"cuda ({torch.cuda.get_device_name()})"
    threads = f"{torch.get_num_threads()} threads on {psutil.cpu_count()} cores"
    yield Check("device", f"{device}, {threads}", None)
    memory = psutil.virtual_memory().available
    limit = CONTAINER_LIMIT.read_text("ascii").strip() if CONTAINER_LIMIT.exists() else "max"
    memory = min(memory, int(limit)) if limit.isdecimal() else memory
    yield check_space("free memory", memory, MINIMUM_MEMORY, "close other programs")


def check_space(name: str, free: float, minimum: float, mend: str) -> Check:
    """``free`` bytes against ``minimum`` bytes."""
    wanted = f">={minimum / 1e9:.0f} GB"
    return Check(name, f"{free / 1e9:.1f} GB", free >= minimum, wanted, mend)
