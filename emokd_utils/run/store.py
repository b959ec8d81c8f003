"""Costly results, kept under a key made of what they depend on, and found again.

An artefact is the directory ``<folder>/<kind>-<key>/``: the files of one step, and
``artefact.json``, which says what they were made from and the checksum of each. A step is made in
a temporary directory beside it and renamed when complete, so a process killed at any moment leaves
either the whole artefact or none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .. import __version__, processes
from ..errors import InputError
from ..files import canonical_json, fingerprint

if TYPE_CHECKING:
    import numpy as np

MANIFEST = "artefact.json"
FORMAT = "emokd-artefact-1"
FOREIGN_HOST_SECONDS = 7 * 86400  # after which another machine's temporary directory is stale

_KIND = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_TEMPORARY = re.compile(r"\.making-([0-9a-f]{8})-([0-9]+)-[0-9a-f]{8}")
_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
_in_use: set[str] = set()  # names of the temporary directories of this process

T = TypeVar("T")


@dataclass(frozen=True)
class Artefact(Generic[T]):
    """One result of a step.

    value: what `load` read. key: 16 hexadecimal digits. folder: where the files are.
    made: True where this call made it. seconds: what making took, in this call or when it was made.
    """

    value: T
    key: str
    folder: Path
    made: bool
    seconds: float


class NotMadeError(InputError):
    """What is asked for is not there, and the store was told to make nothing."""


class Store:
    """Artefacts in one folder.

    folder: made on first use. say: called with one line for each step. make: False where what is
    not there must not be made.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        say: Callable[[str], object] = print,
        make: bool = True,
    ) -> None:
        self.folder = Path(folder)
        self.say = say
        self.make = make

    def step(
        self,
        kind: str,
        inputs: Mapping[str, Any],
        make: Callable[[Path], object],
        load: Callable[[Path], T],
        together: bool = False,
    ) -> Artefact[T]:
        """The artefact of `kind` made from `inputs`: loaded if present and sound, else made.

        kind: lower-case letters, digits, and "_.-" after the first.
        inputs: all that the result depends on (settings, fingerprints, keys of earlier artefacts),
            as canonical_json takes it; the key is made of it, of kind and of the library version.
        make: writes the files into the empty directory that it is given.
        load: reads them from the artefact's directory; also called after making.
        together: where there are several processes (`processes`), all of them take part in `make`,
            each in a directory of its own, and the first one's is kept; else only the first one
            makes and the others wait.

        An artefact that is damaged, foreign or that `load` fails on is made anew, and a line says
        why. What `make` raises passes through and leaves nothing behind.

        Raises InputError for an unusable kind or inputs, or where the folder is a file, and
        NotMadeError where the artefact would have to be made and must not be.
        """
        if not _KIND.fullmatch(kind):
            raise InputError(f"kind {kind!r}: use lower-case letters, digits and any of _.-")
        header = {"kind": kind, "inputs": dict(inputs), "version": __version__}
        key = fingerprint(header)
        header = json.loads(canonical_json({"format": FORMAT, "key": key, **header}))
        target = self.folder / f"{kind}-{key}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise InputError(
                f"{error.filename} is a file, and results are kept in a folder: "
                "move it or choose another folder"
            ) from error
        self._remove_stale()

        unsound = _identity(target)
        found = self._find(target, header, load) if unsound is not None else None
        if processes.agree(found is not None):
            return found or self._found(target, header, load)

        if not self.make:
            raise NotMadeError(
                f"{self.folder} holds no {kind} for these settings: "
                "`python -m emokd_utils run` makes it"
            )
        failed: BaseException | None = None
        made = False
        with self._temporary() as fresh:
            fresh.mkdir()
            started = time.perf_counter()
            try:
                if together or processes.first():
                    make(fresh)
                seconds = time.perf_counter() - started
                if processes.first():
                    _write_manifest(fresh, header, seconds)
                    made = self._publish(fresh, target, header, unsound)
            except Exception as error:
                failed = error
        if any(processes.gather([failed is not None])):
            raise failed or RuntimeError(f"another process could not make {kind}")
        made = processes.agree(made)
        if made:
            self._say(f"[made] {kind} {key} in {seconds:.1f} s")
        else:
            seconds = _examine(target, header)["seconds"]
            self._say(f"[kept] {kind} {key} (another process made it meanwhile)")
        return Artefact(load(target), key, target, made, seconds)

    def _find(self, target: Path, header: dict, load: Callable[[Path], T]) -> Artefact[T] | None:
        """The artefact if it is sound; a line says what was found."""
        kind, key = header["kind"], header["key"]
        try:
            found = self._found(target, header, load)
        except _Unsound as error:
            self._say(f"[anew] {kind} {key}, {error}")
        except Exception as error:  # whatever load raises on a file that is not its own
            self._say(f"[anew] {kind} {key}, loading fails: {type(error).__name__}: {error}")
        else:
            self._say(f"[kept] {kind} {key} (made in {found.seconds:.1f} s)")
            return found
        return None

    def _found(self, target: Path, header: dict, load: Callable[[Path], T]) -> Artefact[T]:
        manifest = _examine(target, header)
        return Artefact(load(target), header["key"], target, False, manifest["seconds"])

    def _say(self, text: str) -> None:
        if not processes.first():
            return
        line = " ".join(text.split())
        self.say(line if len(line) <= 240 else line[:239] + "…")

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[Path]:
        """A name in the folder that nothing has yet; what is there at the end is removed."""
        name = f".making-{_HOST}-{os.getpid()}-{secrets.token_hex(4)}"
        _in_use.add(name)
        try:
            yield self.folder / name
        finally:
            _remove(self.folder / name)
            _in_use.discard(name)

    def _remove_stale(self) -> None:
        """Remove the temporary directories of processes that have ended."""
        for path in list(self.folder.iterdir()):
            match = _TEMPORARY.fullmatch(path.name)
            if match and path.name not in _in_use and _abandoned(path, *match.groups()):
                _remove(path)

    def _publish(
        self, fresh: Path, target: Path, header: dict, unsound: tuple[int, int] | None
    ) -> bool:
        """Rename `fresh` to `target`; False where another process has put a sound one there.

        unsound: the identity of what was at `target` and is to be replaced.
        """
        attempts = 8
        while True:
            try:
                os.rename(fresh, target)
            except OSError:
                attempts -= 1
                if not attempts:
                    raise
            else:
                _sync(self.folder)
                return True
            found = _identity(target)
            if found is not None and found != unsound:
                with contextlib.suppress(_Unsound, OSError):
                    _examine(target, header)
                    return False
            if found is not None and found == _identity(target):
                with self._temporary() as aside, contextlib.suppress(FileNotFoundError):
                    os.rename(target, aside)


class _Unsound(Exception):
    """An artefact cannot be used; the message says why."""


def _examine(folder: Path, header: dict) -> dict:
    """The manifest of `folder`; _Unsound if it or a file is not what `header` and it say."""
    if folder.is_symlink() or not folder.is_dir():
        raise _Unsound("it is not a directory")
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _Unsound(f"it has no {MANIFEST}") from None
    except (ValueError, RecursionError):
        raise _Unsound(f"its {MANIFEST} is damaged") from None
    if not isinstance(manifest, dict):
        raise _Unsound(f"its {MANIFEST} is damaged")
    for name, value in header.items():
        if manifest.get(name) != value:
            raise _Unsound(f"its {MANIFEST} has another {name}")
    files, seconds = manifest.get("files"), manifest.get("seconds")
    if not isinstance(files, dict) or not isinstance(seconds, int | float):
        raise _Unsound(f"its {MANIFEST} is damaged")
    found = _list_files(folder)
    for name, entry in files.items():
        if name not in found:
            raise _Unsound(f"{name} is missing")
        if found[name] != entry:
            raise _Unsound(f"{name} is damaged (size or checksum differs)")
    for name in found.keys() - files.keys():
        if not _made_by_a_file_browser(name):
            raise _Unsound(f"{name} is not one of its files")
    return manifest


def _list_files(folder: Path, sync: bool = False) -> dict[str, dict[str, int | str]]:
    """Size and SHA-256 of each file but the manifest, by path relative to `folder`.

    sync: see to it that each file is on the disk.
    """
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != MANIFEST:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if sync:
                _sync(path)
            files[name] = {"size": path.stat().st_size, "sha256": digest}
    return files


def _write_manifest(folder: Path, header: dict, seconds: float) -> None:
    """Complete `folder` with its manifest, everything on the disk."""
    path = folder / MANIFEST
    if path.exists():
        raise InputError(f"a step wrote {MANIFEST}, the name of the manifest: use another name")
    manifest = {
        **header,
        "files": _list_files(folder, sync=True),
        "made_at": time.time(),
        "seconds": seconds,
    }
    text = json.dumps(manifest, indent=1)
    path.write_text(text + "\n", encoding="utf-8")
    _sync(path)
    for directory in [folder, *(child for child in folder.rglob("*") if child.is_dir())]:
        _sync(directory)


def _made_by_a_file_browser(name: str) -> bool:
    last = name.rsplit("/", 1)[-1]
    return last.startswith(".") or last in ("Thumbs.db", "desktop.ini")


def _sync(path: Path) -> None:
    """Wait until `path` is on the disk; directories only where the system has that (POSIX)."""
    posix = os.name == "posix"
    if not posix and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY if posix else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of `path` itself; None where there is nothing."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _abandoned(path: Path, host: str, pid: str) -> bool:
    """Has the process that was making `path` ended?"""
    if host != _HOST:
        try:
            return time.time() - path.stat().st_mtime > FOREIGN_HOST_SECONDS
        except OSError:
            return False
    return int(pid) == os.getpid() or not _alive(int(pid))


def _alive(pid: int) -> bool:
    """Does a process have this id? Always True where asking needs more than POSIX signals."""
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is another user's
        pass
    return True


def save_arrays(
    path: str | os.PathLike,
    arrays: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write named arrays of numbers or truth values, and texts about them, as safetensors.

    arrays: of any shape and memory layout. metadata: text to text.
    Raises InputError for other types, naming the entry.
    """
    import numpy as np
    from safetensors.numpy import save_file

    # safetensors writes an array's memory as it lies, which for a view is not its content.
    dense = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    for name, array in dense.items():
        if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
            raise InputError(
                f"array {name!r} has the type {array.dtype}: use truth values, integers, or floats "
                "of at most 64 bits"
            )
    metadata = dict(metadata or {})
    for name, text in metadata.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise InputError(f"metadata {name!r}: {text!r}: give text, json.dumps the rest")
    save_file(dense, path, metadata=metadata)


def load_arrays(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """What save_arrays wrote: the arrays in the order of their names, and the metadata.

    Raises FileNotFoundError, or InputError where the file is not sound safetensors.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in sorted(file.keys())}
            return arrays, dict(file.metadata() or {})
    except (SafetensorError, TypeError) as error:
        raise InputError(
            f"{path} is not a sound safetensors file of numpy types ({error}): make it again"
        ) from error
