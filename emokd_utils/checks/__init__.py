"""Checks of the exercises, which say not only that an answer is wrong but how (every lesson).

    checks.check("7.1", my_loss)     # passed, not attempted, or which mistake it looks like
    checks.progress()                # what is done in this notebook and over the course

An exercise measures the student's object with its *probe* (calls the function on known inputs, say)
and compares with what the same probe makes of a right answer, then of each known mistake. So any
right answer passes, however it is written, and a wrong one is told by its name where it is known.
One module here for each lesson, named as in the library; each holds ``EXERCISES``.
"""

import functools
import importlib
import json
import os
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError

LESSONS = {
    "0": "start",
    "1": "emotions",
    "2": "vision",
    "3": "vlm",
    "4": "instructions",
    "5": "tuning",
    "6": "complementarity",
    "7": "distillation",
    "8": "gating",
    "9": "emovlm_kd",
    "10": "datasets",
    "A1": "pretrain",
}
"""The module of this package that holds a lesson's exercises."""

PASSED, NOT_ATTEMPTED, NOT_YET = "passed", "not attempted", "not yet"


class NotAttempted(Exception):
    """Raised by a probe where the stub is still empty."""


@dataclass(frozen=True)
class Mistake:
    """A typical wrong answer: its name, where to look (without the answer), and an example of it,
    which the tests feed to the check."""

    name: str
    look: str
    example: Any


@dataclass(frozen=True)
class Exercise:
    """An exercise with its check.

    number: ``"7.1"``. probe: what to measure on an answer; returns numbers, texts, arrays or
    containers of them. right: an answer that solves it. mistakes: the wrong answers known by name,
    the most specific first. rtol, atol: how far numbers may be apart.
    """

    number: str
    title: str
    probe: Callable[[Any], Any]
    right: Any
    mistakes: tuple[Mistake, ...]
    rtol: float = 1e-3
    atol: float = 1e-5

    @property
    def lesson(self) -> str:
        """``"7"`` of ``"7.1"``."""
        return self.number.rpartition(".")[0]

    def __call__(self, answer: Any) -> "Result":
        """The result for an answer; never raises for a wrong one."""
        try:
            found = self._measure(answer)
        except (NotAttempted, NotImplementedError):
            return Result(self, NOT_ATTEMPTED)
        except Exception as error:
            return Result(self, NOT_YET, "it raises an error", f"{type(error).__name__}: {error}")
        right = self.probe(self.right)
        if self._same(found, right):
            return Result(self, PASSED)
        for mistake in self.mistakes:
            if self._same(found, self._measure(mistake.example)):
                return Result(self, NOT_YET, mistake.name, mistake.look)
        return Result(self, NOT_YET, "not one of the known mistakes", difference(found, right))

    def _measure(self, answer: Any) -> Any:
        if answer is None or answer is ...:
            raise NotAttempted
        return self.probe(answer)

    def _same(self, a: Any, b: Any) -> bool:
        return same(a, b, self.rtol, self.atol)


@dataclass(frozen=True)
class Result:
    """What a check found: status, the mistake's name and where to look."""

    exercise: Exercise
    status: str
    mistake: str = ""
    look: str = ""

    def __str__(self) -> str:
        line = f"[{self.status}] {self.exercise.number} {self.exercise.title}"
        return f"{line}: {self.mistake}. {self.look}" if self.mistake else line

    __repr__ = __str__

    def _repr_html_(self) -> str:
        colour = {PASSED: "#1a7f37", NOT_ATTEMPTED: "#6e7781", NOT_YET: "#b35900"}[self.status]
        head, _, rest = str(self).partition("] ")
        return (
            f'<div style="border-left: 4px solid {colour}; padding: 2px 10px">'
            f"<b>{escape(head)}]</b> {escape(rest)}</div>"
        )


def attempted(value: Any) -> Any:
    """``value``; raises NotAttempted where a stub returned nothing. For use in probes."""
    if value is None or value is ...:
        raise NotAttempted
    return value


def calls(*cases: tuple) -> Callable[[Callable], list]:
    """A probe: what the function returns for each tuple of arguments."""

    def probe(function: Callable) -> list:
        if not callable(function):
            raise TypeError(f"a function is wanted here, this is {type(function).__name__}")
        return [attempted(function(*case)) for case in cases]

    return probe


def same(a: Any, b: Any, rtol: float = 1e-3, atol: float = 1e-5) -> bool:
    """Whether two measurements agree: numbers within the tolerance, everything else equal."""
    a, b = plain(a), plain(b)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        if a.shape != b.shape:
            return False
        if a.dtype.kind in "fiub" and b.dtype.kind in "fiub":
            return bool(np.allclose(a, b, rtol, atol, equal_nan=True))
        return bool((a == b).all())
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(a[k], b[k], rtol, atol) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y, rtol, atol) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and a == b


def plain(value: Any) -> Any:
    """Tensors, series, numbers and arrays as numpy arrays, tuples as lists; the rest as it is."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().float().numpy() if value.is_floating_point() else value.numpy()
    if isinstance(value, (bool, int, float, np.generic)) or hasattr(value, "__array__"):
        return np.asarray(value)
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return list(value)
    return set(value) if isinstance(value, Set) else value


def difference(found: Any, wanted: Any) -> str:
    """A sentence on how a measurement differs from the wanted one, without telling the latter."""
    found, wanted = plain(found), plain(wanted)
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        for number, (one, other) in enumerate(zip(found, wanted, strict=True), 1):
            if not same(one, other):
                return f"Look at case {number} of {len(wanted)}: {difference(one, other)}"
    if type(found) is not type(wanted):
        return f"It gives {type(found).__name__}, wanted is {type(wanted).__name__}"
    if isinstance(found, np.ndarray) and found.shape != wanted.shape:
        return f"It has shape {found.shape}, wanted is {wanted.shape}"
    if isinstance(found, np.ndarray) and found.dtype.kind == "f" and np.isnan(found).any():
        return "It holds numbers that are undefined (nan)"
    if isinstance(found, np.ndarray) and found.ndim == 0 and found.dtype.kind in "fiu" and wanted:
        return (
            f"It is {float(found):.6g}, which is {float(found / wanted):.3g} times the right value"
        )
    return "Its form is right, its value is not. Work one case out by hand and compare"


@functools.cache
def exercises(lesson: str) -> dict[str, Exercise]:
    """The checked exercises of a lesson (``"7"``, ``"A1"``) by number."""
    if lesson not in LESSONS:
        raise InputError(f"there is no lesson {lesson!r}; the lessons are {', '.join(LESSONS)}")
    module = importlib.import_module(f".{LESSONS[lesson]}", __name__)
    return {exercise.number: exercise for exercise in module.EXERCISES}


_here: set[str] = set()  # the lessons whose checks this kernel has called


def check(number: str, answer: Any) -> Result:
    """Check an answer to exercise ``number`` (``"7.1"``), note the result for `progress`, return it.

    Under nbgrader an answer that does not pass raises AssertionError, as grading by cells needs.
    Raises InputError for a number that no exercise has.
    """
    lesson = number.rpartition(".")[0]
    known = exercises(lesson)
    if number not in known:
        raise InputError(f"lesson {lesson} has no check {number!r}; it has {', '.join(known)}")
    result = known[number](answer)
    _here.add(lesson)
    _note(number, result.status)
    if os.environ.get("NBGRADER_EXECUTION") and result.status != PASSED:
        raise AssertionError(str(result))
    return result


def _file() -> Path:
    from ..profiles import project_root

    return Path(os.environ.get("EMOKD_PROGRESS") or project_root() / "runs" / "progress.json")


def _noted() -> dict[str, str]:
    try:
        return dict(json.loads(_file().read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _note(number: str, status: str) -> None:
    noted = _noted()
    if status == NOT_ATTEMPTED and number not in noted:
        return
    if noted.get(number) == PASSED and status == NOT_ATTEMPTED:
        return  # opening a fresh copy of a notebook takes nothing back
    path = _file()
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}-{os.getpid()}")
    draft.write_text(json.dumps(noted | {number: status}, indent=1), encoding="utf-8")
    draft.replace(path)


@dataclass(frozen=True)
class Progress:
    """Which exercises have passed; shown as text."""

    passed: dict[str, dict[str, bool]]  # lesson -> number -> passed
    here: tuple[str, ...]

    def __str__(self) -> str:
        lines = []
        for lesson in self.here:
            found = self.passed[lesson]
            lines.append(f"Lesson {lesson}: {sum(found.values())} of {len(found)} passed")
            for number, done in found.items():
                title = exercises(lesson)[number].title
                lines.append(f"  [{'x' if done else ' '}] {number} {title}")
        every = [done for found in self.passed.values() for done in found.values()]
        lines.append(f"The course: {sum(every)} of {len(every)} checked exercises passed")
        return "\n".join(lines)

    __repr__ = __str__


def progress(*lessons: str) -> Progress:
    """What is done in ``lessons`` (by default those whose checks ran in this notebook) and over the
    course."""
    noted = _noted()
    passed = {
        lesson: {number: noted.get(number) == PASSED for number in exercises(lesson)}
        for lesson in LESSONS
    }
    here = lessons or tuple(lesson for lesson in LESSONS if lesson in _here)
    return Progress(passed, here)
