"""``python -m emokd_utils doctor``: is everything here that the pipeline needs?

One line a requirement, with what was found, what is wanted and, where it fails, the mend.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..profiles import project_root

MINIMUM_PYTHON = (3, 11)
MINIMUM_MEMORY = 3e9  # bytes free; what the pipeline needs at most
MINIMUM_DISK = 2e9  # bytes free; runs/ of several seeds, with room to spare

IMPORT_NAMES = {"scikit-learn": "sklearn", "pillow": "PIL"}
"""Distribution -> module, where the two names differ."""

SHIPPED = {
    "objects": "data/emoscenes/objects.csv",
    "sprite sheet": "data/emoscenes/objects.png",
    "TinyVLM config": "data/tiny_vlm/config.json",
    "TinyVLM tokens": "data/tiny_vlm/tokenizer.json",
    "TinyVLM weights": "data/tiny_vlm/model.safetensors",
}
"""Files that come with the project, relative to its folder."""


@dataclass(frozen=True)
class Check:
    """One requirement.

    passed: None for a line that only informs. detail, mend: shown where it failed.
    """

    name: str
    found: str
    wanted: str = ""
    passed: bool | None = True
    detail: str = ""
    mend: str = ""

    def __str__(self) -> str:
        mark = {True: "[ok]", False: "[fail]", None: "[info]"}[self.passed]
        wanted = f"wanted {self.wanted}" if self.wanted else ""
        lines = [f"{mark:<6} {self.name:<15} {self.found:<24} {wanted}".rstrip()]
        if self.passed is False:
            lines += [f"       {self.detail}"] * bool(self.detail)
            lines += [f"       mend: {self.mend}"]
        return "\n".join(lines)


def main(args: argparse.Namespace | None = None) -> int:
    """Print every check as it is made; 1 if any failed, else 0."""
    failed = total = 0
    for check in checks(project_root()):
        print(check, flush=True)
        total += check.passed is not None
        failed += check.passed is False
    if failed:
        print(f"{failed} of {total} failed: mend them from the top down, then run this again.")
    else:
        print(f"All {total} passed.")
    return int(failed > 0)


def checks(root: Path) -> Iterator[Check]:
    """Every check of the project in folder ``root``, the ones that others rest on first."""
    python = check_python(sys.version_info[:2])
    yield python
    if python.passed:
        yield from check_dependencies(root)
    for name, path in SHIPPED.items():
        yield check_file(root, name, path)
    yield check_runs(root / "runs")
    yield Check("device", device(), passed=None)
    yield Check("threads", threads(), passed=None)
    memory = free_memory()
    if memory is None:
        yield Check("free memory", "not known", at_least(MINIMUM_MEMORY), passed=None)
    else:
        yield check_space("free memory", memory, MINIMUM_MEMORY, "close other programs")
    disk = shutil.disk_usage(root).free
    yield check_space("free disk", disk, MINIMUM_DISK, "remove files you no longer need")


def check_python(version: tuple[int, ...]) -> Check:
    """The running Python against MINIMUM_PYTHON."""
    minimum = ".".join(map(str, MINIMUM_PYTHON))
    return Check(
        "Python",
        platform.python_version(),
        f">={minimum}",
        tuple(version) >= MINIMUM_PYTHON,
        mend=f"install Python {minimum} or newer, remove .venv, then `make tutorial`",
    )


def check_dependencies(root: Path) -> Iterator[Check]:
    """Each dependency of ``root/pyproject.toml``: installed, in its range, and does it import?"""
    import tomllib

    install = f"{python_command()} -m pip install --editable ."
    try:
        from packaging.requirements import Requirement
    except ModuleNotFoundError:
        yield Check("packages", "none installed", passed=False, mend=install)
        return
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    except FileNotFoundError:
        yield Check(
            "pyproject.toml",
            "missing",
            "beside emokd_utils/",
            passed=False,
            mend=f"in a copy of the whole project: {install}",
        )
        return
    for text in project["dependencies"]:
        requirement = Requirement(text)
        wanted = ",".join(sorted(map(str, requirement.specifier), reverse=True))
        yield check_dependency(requirement.name, wanted)


def check_dependency(name: str, wanted: str) -> Check:
    """One installed distribution: its version against the range ``wanted``, and its import."""
    from packaging.specifiers import SpecifierSet

    install = f'{python_command()} -m pip install "{name}{wanted}"'
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Check(name, "not installed", wanted, passed=False, mend=install)
    if not SpecifierSet(wanted).contains(found, prereleases=True):
        return Check(name, found, wanted, passed=False, mend=install)
    error = import_error(IMPORT_NAMES.get(name, name.replace("-", "_")))
    if error:
        reinstall = install.replace("install", "install --force-reinstall", 1)
        return Check(
            name, f"{found}, import fails", wanted, passed=False, detail=error, mend=reinstall
        )
    return Check(name, found, wanted)


def import_error(module: str) -> str:
    """The error on importing ``module``, in at most 72 characters; empty if it imports."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(module)
    except Exception as error:  # a broken installation may raise anything
        return textwrap.shorten(f"{type(error).__name__}: {error}", 72, placeholder=" ...")
    return ""


def check_file(root: Path, name: str, path: str) -> Check:
    """A file that comes with the project: there, and not empty."""
    try:
        size = (root / path).stat().st_size
    except OSError:
        size = 0
    return Check(
        name,
        f"{path} ({size / 1e3:,.0f} kB)" if size else f"{path} is missing or empty",
        passed=size > 0,
        mend=f"git checkout -- {path}",
    )


def check_runs(runs: Path) -> Check:
    """Can results be written to ``runs``, or be created where it does not exist yet?"""
    folder = runs
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Check(
            "results",
            f"{runs.name}/ is not writable",
            passed=False,
            detail=f"{folder}: {error.strerror}",
            mend="make the folder writable, or choose another: run --runs DIR",
        )
    return Check("results", f"{runs.name}/ is writable")


def device() -> str:
    """The device that torch would compute on: CUDA's name for it, mps or cpu."""
    if import_error("torch"):
        return "not known, torch does not import"
    import torch

    if torch.cuda.is_available():
        return f"cuda ({torch.cuda.get_device_name()})"
    return "mps (Apple)" if torch.backends.mps.is_available() else "cpu"


def threads() -> str:
    """How many threads torch would use, and how many cores this process may run on."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        cores = os.cpu_count() or 1
    if import_error("torch"):
        return f"{cores} cores"
    import torch

    return f"{torch.get_num_threads()} on {cores} cores"


def check_space(name: str, free: float, minimum: float, mend: str) -> Check:
    """``free`` bytes against ``minimum`` bytes."""
    return Check(name, f"{free / 1e9:.1f} GB", at_least(minimum), free >= minimum, mend=mend)


def at_least(size: float) -> str:
    """``size`` bytes as a wanted lower bound."""
    return f">={size / 1e9:.0f} GB"


def free_memory() -> int | None:
    """Bytes that programs could still take without swapping; None where it cannot be told."""
    if sys.platform == "darwin":
        report = subprocess.run(["vm_stat"], capture_output=True, text=True, check=False).stdout
        return vm_stat_available(report)
    try:
        available = meminfo_available(Path("/proc/meminfo").read_text("ascii"))
    except OSError:
        return None
    limit = Path("/sys/fs/cgroup/memory.max")  # of a container
    text = limit.read_text("ascii").strip() if limit.exists() else "max"
    if available is None or not text.isdecimal():
        return available
    return min(available, int(text))


def meminfo_available(report: str) -> int | None:
    """Bytes available according to Linux's /proc/meminfo."""
    match = re.search(r"^MemAvailable:\s+(\d+) kB", report, re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def vm_stat_available(report: str) -> int | None:
    """Bytes available according to macOS's vm_stat: free, inactive and speculative pages."""
    page = re.search(r"page size of (\d+) bytes", report)
    pages = re.findall(r"^Pages (?:free|inactive|speculative):\s+(\d+)", report, re.MULTILINE)
    return int(page[1]) * sum(map(int, pages)) if page and pages else None


def python_command() -> str:
    """The running Python, as it would be typed in the current folder."""
    path = os.path.relpath(sys.executable)
    return sys.executable if path.startswith(os.pardir) else path
