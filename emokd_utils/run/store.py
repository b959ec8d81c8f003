"""Costly results, kept under a key made of what they depend on, and found again.

An artefact is the folder ``<runs>/<stage>[-<label>]-<key>/``: the files of one stage, and
``artefact.json``, which says what they were made from and the checksum of each. It is made beside
its place under a lock and renamed when complete, so a process killed at any moment leaves either
the whole artefact or none. Key and folder are known at once; the value is read when asked for.
What came with the course, a zip for each artefact, is unpacked where nothing is kept."""

import contextlib
import functools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from filelock import FileLock, Timeout

from .. import processes
from ..errors import InputError
from ..files import canonical_json, checksum, fingerprint, write_text

T = TypeVar("T")

MANIFEST = "artefact.json"
FORMAT = "emokd-artefact-2"
MAKING = ".making-"
CAME = "came with the course"  # in the manifest: how it was made


class NotMadeError(InputError):
    """What is asked for is not there, and must not or cannot be made here."""


@dataclass(frozen=True)
class Stage:
    """A step of the method that costs time.

    version: raised whenever what is computed changes. travels: the files that may leave with an
    archive. has_weights: a model's weights do not travel. together: all processes take part in the
    making; else the first one makes."""

    name: str
    version: int
    recipe: Callable[..., "Recipe"]
    travels: tuple[str, ...] = ()
    has_weights: bool = False
    together: bool = False


@dataclass(frozen=True)
class Recipe(Generic[T]):
    """How a stage's result comes about, for certain arguments.

    inputs: all that it depends on, but for needs: settings, seed, fingerprints. make: writes files
    into an empty folder. load: reads them from the artefact's folder. label: for people who look
    into the folder. needs: what is made before it, by all processes together, by the name under
    which its key is one of the inputs."""

    inputs: Mapping[str, Any]
    make: Callable[[Path], object]
    load: Callable[[Path], T]
    label: str = ""
    needs: Mapping[str, "Artefact"] = field(default_factory=dict)


STAGES: dict[str, Stage] = {}  # by name


def stage(version: int, *travels: str, **about: bool) -> Callable[[Callable[..., Recipe]], Stage]:
    """Make a stage of the function below, which gives the Recipe for a run and arguments."""

    def register(recipe: Callable[..., Recipe]) -> Stage:
        name = recipe.__name__
        return STAGES.setdefault(name, Stage(name, version, recipe, travels, **about))

    return register


class Artefact(Generic[T]):
    """One result of a stage. key: 16 hexadecimal digits of its stage's name and version and of its
    inputs. folder: where its files are, or will be."""

    def __init__(self, store: "Store", stage: Stage, recipe: Recipe[T]) -> None:
        self.store, self.stage, self.recipe = store, stage, recipe
        inputs = {**recipe.inputs, **{name: need.key for name, need in recipe.needs.items()}}
        about = {"stage": stage.name, "version": stage.version, "inputs": inputs}
        self.key = fingerprint(about)
        self.header = json.loads(canonical_json({"format": FORMAT, "key": self.key, **about}))
        name = "-".join(filter(None, (stage.name, recipe.label, self.key)))
        self.folder = store.folder / name

    @property
    def is_kept(self) -> bool:
        """Whether it is there, of the right files and sizes."""
        return not isinstance(self.store.manifest(self), str)

    @functools.cached_property
    def value(self) -> T:
        """The result, read or made once; NotMadeError where it must not be made."""
        return self.store.value(self)

    def path(self, name: str) -> Path:
        """One of its files, made where it is missing."""
        self.store.ensure(self)
        return self.folder / name


class Store:
    """Artefacts in one folder, which is made on first use.

    say: called with one line for each. may_make: of a Stage, whether its artefact may be made here.
    without_weights: why a model's weights cannot be read here, "" where they can. shipped: folder of
    what came with the course; without it that is not taken, unpacked or not."""

    def __init__(
        self,
        folder: Path,
        say=print,
        may_make=lambda stage: True,
        without_weights: str = "",
        shipped: Path | None = None,
    ) -> None:
        self.folder, self._say, self._told = folder, say, set()
        self.may_make, self.without_weights = may_make, without_weights
        self.shipped = shipped

    def value(self, artefact: Artefact[T]) -> T:
        """The artefact's value; where its files cannot be read, it is made anew."""
        stage = artefact.stage
        if stage.has_weights and self.without_weights:
            raise NotMadeError(f"{self.without_weights}, so {artefact.folder.name} is not here")
        made = self.ensure(artefact)
        try:
            return artefact.recipe.load(artefact.folder)
        except Exception as error:  # whatever loading raises on a file that is not its own
            if made or not self.may_make(stage):
                raise
            self.say(f"[anew] {stage.name} {artefact.key}: {error}")
            self._make(artefact, anew=True)
            return artefact.recipe.load(artefact.folder)

    def ensure(self, artefact: Artefact) -> bool:
        """Make the artefact unless it is there; True where it was made by this call."""
        manifest = self.manifest(artefact)
        if isinstance(manifest, str) and self._unpack(artefact):
            manifest = self.manifest(artefact)
        name = f"{artefact.stage.name} {artefact.key}"
        if processes.agree(isinstance(manifest, dict)):
            line, topic = f"[kept] {name} (made in {manifest['seconds']:.1f} s)", artefact.key
            if CAME in manifest:
                line = f"[came] with the course: results {manifest[CAME]}; `run` trains anew"
                topic = CAME
            if topic not in self._told:
                self.say(line)
                self._told.add(topic)
            return False
        if not self.may_make(artefact.stage):
            raise NotMadeError(
                f"{self.folder} holds no {artefact.stage.name} for these settings: "
                f"{self.without_weights or '`python -m emokd_utils run` makes it'}"
            )
        if artefact.folder.exists():
            self.say(f"[anew] {name}: {manifest}")
        self._make(artefact)
        return True

    def manifest(self, artefact: Artefact) -> dict[str, Any] | str:
        """As `read_manifest`, of an artefact that may be taken here."""
        manifest = read_manifest(artefact.folder, artefact.header)
        if CAME in manifest and not self.shipped:
            return "it came with the course"
        return manifest

    def _unpack(self, artefact: Artefact) -> bool:
        """Put in its place what came with the course; False where it did not."""
        packed = self.shipped and self.shipped / f"{artefact.folder.name}.zip"
        if not packed or not packed.is_file():
            return False
        self._prepare_folder()
        with (
            self._lock(artefact.key),
            tempfile.TemporaryDirectory(
                prefix=f"{MAKING}{artefact.key}-", dir=self.folder
            ) as aside,
        ):
            if not artefact.is_kept:
                shutil.unpack_archive(packed, Path(aside) / "whole")
                _place(Path(aside) / "whole", artefact.folder)
        return True

    def _make(self, artefact: Artefact, anew: bool = False) -> None:
        stage, first = artefact.stage, processes.first()
        self._prepare_folder()
        rank = processes.world()[0]
        aside = self.folder / f"{MAKING}{artefact.key}-{rank}"
        lock = self._lock(artefact.key)
        started, failure = time.perf_counter(), None
        try:
            if first:
                try:
                    lock.acquire(blocking=False)
                except Timeout:
                    self.say(f"[wait] another process is making {stage.name}")
                    lock.acquire()
            if processes.agree(first and not anew and artefact.is_kept):
                return
            for need in artefact.recipe.needs.values():
                self.ensure(need)
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            try:
                if stage.together:
                    artefact.recipe.make(aside)
                elif first:
                    with processes.alone():
                        artefact.recipe.make(aside)
                if first:
                    _publish(aside, artefact, time.perf_counter() - started)
            except Exception as error:
                failure = error
            if any(processes.gather([failure is not None])):
                raise failure or RuntimeError(f"another process could not make {stage.name}")
            seconds = time.perf_counter() - started
            self.say(f"[made] {stage.name} {artefact.key} in {seconds:.1f} s")
            self._told.add(artefact.key)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
            if first:
                lock.release()

    def _lock(self, key: str) -> FileLock:
        """The system frees it when its process ends, however that is."""
        (self.folder / ".locks").mkdir(exist_ok=True)
        return FileLock(self.folder / ".locks" / key)

    def _prepare_folder(self) -> None:
        """Make it, and remove what processes left that ended while they were making something."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise InputError(
                f"{error.filename} is a file, and results are kept in a folder: "
                "move it or choose another folder"
            ) from error
        for aside in self.folder.glob(f"{MAKING}*-*"):
            key = aside.name.removeprefix(MAKING).partition("-")[0]
            try:
                with self._lock(key).acquire(blocking=False):
                    shutil.rmtree(aside, ignore_errors=True)
            except Timeout:
                continue  # it is still being made

    def say(self, text: str) -> None:
        """Say one line, in the first process only."""
        if processes.first():
            line = " ".join(text.split())
            self._say(line if len(line) <= 240 else line[:239] + "…")


def read_manifest(folder: Path, header: Mapping[str, Any]) -> dict[str, Any] | str:
    """What ``artefact.json`` says, or why the folder does not hold the artefact of this header."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if any(manifest[name] != value for name, value in header.items()):
            return f"its {MANIFEST} is of something else"
        for name, entry in manifest["files"].items():
            if (folder / name).stat().st_size != entry["size"]:
                return f"{name} has another size"
        return manifest | {"seconds": float(manifest["seconds"])}
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"its {MANIFEST} is damaged"


def damaged_files(folder: Path) -> list[str]:
    """The files of an artefact whose content is no longer what it was when it was made."""
    files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    return [
        name
        for name, entry in files.items()
        if not (folder / name).is_file() or checksum(folder / name) != entry["sha256"]
    ]


def _publish(aside: Path, artefact: Artefact, seconds: float) -> None:
    """Complete the folder with its manifest, and give it its name."""
    files = {
        path.relative_to(aside).as_posix(): {"size": path.stat().st_size, "sha256": checksum(path)}
        for path in sorted(aside.rglob("*"))
        if path.is_file()
    }
    manifest = {**artefact.header, "files": files, "made_at": time.time(), "seconds": seconds}
    write_text(aside / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    _place(aside, artefact.folder)


def _place(aside: Path, folder: Path) -> None:
    if folder.exists():  # unsound, or it would have been taken
        shutil.rmtree(folder)
    os.rename(aside, folder)


def remembered_checksum(path: Path, memory: Path) -> str:
    """The SHA-256 of a large file, 64 hexadecimal digits; remembered in the file `memory` as long as
    its size and time stay the same, so that opening a kept run hashes no weights."""
    status, known = path.stat(), {}
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(memory.read_text(encoding="utf-8"))
    mark = [status.st_size, status.st_mtime_ns]
    *known_mark, digest = known.get(str(path), [""])
    if known_mark != mark:
        digest = checksum(path)
        write_text(memory, json.dumps(known | {str(path): [*mark, digest]}, indent=1))
    return digest
