"""Checks of the exercises, which say not only that an answer is wrong but how (every lesson).

An exercise measures the student's object with its *probe* (calls the function on known inputs, say)
and compares with what the same probe makes of a right answer, then of each known mistake. So any
right answer passes, however it is written. Each lesson has a module, which holds ``EXERCISES``.
"""

import importlib
import json
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, partial
from html import escape
from numbers import Real
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import write_text
from ..run.environment import grading, progress_file

_MODULES = "start emotions vision vlm instructions tuning complementarity distillation gating"
LESSONS = {str(k): name for k, name in enumerate(f"{_MODULES} emovlm_kd datasets".split())}
LESSONS["A1"] = "pretrain"

PASSED, NOT_ATTEMPTED, NOT_YET = "passed", "not attempted", "not yet"
OVERWRITTEN = "an argument is overwritten"


class NotAttempted(Exception):
    """Raised by a probe where the stub is still empty."""


class Raised(str):
    """In the place of a result: the kind of error with which a call ended; ``text``: its words."""

    def __new__(cls, error: Exception) -> "Raised":
        """The errors of arrays that do not fit, which NumPy and torch name differently, are one."""
        name = type(error).__name__
        misfit = isinstance(error, (RuntimeError, ValueError, IndexError))
        raised = super().__new__(cls, "misfit" if misfit else name)
        raised.text = f"{name}: {error}"
        return raised


@dataclass(frozen=True)
class Exercise:
    """An exercise with its check.

    number: ``"7.1"``. probe: what to measure on an answer; a list has one entry for each case.
    right: an answer that solves it. mistakes: for each wrong answer known by name, the most
    specific first, ``"name. Where to look"`` with an example of it.
    rtol, atol: how far numbers may be apart; whole ones are compared exactly.
    """

    number: str
    title: str
    probe: Callable[[Any], Any]
    right: Any
    mistakes: Mapping[str, Any]
    rtol: float = 1e-3
    atol: float = 1e-5

    def __call__(self, answer: Any) -> "Result":
        """The result for an answer; never raises for a wrong one."""
        try:
            found = self._measured(answer)
        except (NotAttempted, NotImplementedError):
            return Result(self, NOT_ATTEMPTED)
        except Exception as error:
            return Result(self, NOT_YET, "it raises an error", Raised(error).text)
        right = self._measured(self.right)
        if same(found, right, self.rtol, self.atol):
            return Result(self, PASSED)
        for text, example in self.mistakes.items():
            if same(found, self._measured(example), self.rtol, self.atol):
                return Result(self, NOT_YET, *text.split(". ", 1))
        return Result(self, NOT_YET, *self._unknown(found, right))

    def _measured(self, answer: Any) -> list:
        attempted(answer)
        if callable(self.right) and not callable(answer):
            raise TypeError(f"a function is wanted here, this is {type(answer).__name__}")
        found = self.probe(answer)
        return [plain(case) for case in found] if type(found) is list else [plain(found)]

    def _unknown(self, found: list, right: list) -> tuple[str, str]:
        """Name and look of a mistake that is not one of this exercise's own."""
        for case, wanted in zip(found, right, strict=False):
            if isinstance(case, Raised) and not isinstance(wanted, Raised):
                return "it raises an error", case.text
        if same(found, [*right, OVERWRITTEN], self.rtol, self.atol):
            return OVERWRITTEN, "The result is right. Who else may still need what you were given?"
        if all(is_numbers(case) for case in right):
            for text, change in _CHANGES.items():
                with np.errstate(all="ignore"):
                    changed = [plain(change(case.astype(float))) for case in right]
                if same(found, changed, self.rtol, self.atol):
                    return tuple(text.split(". ", 1))
        return "not one of the known mistakes", difference(found, right)


_CHANGES = {
    "its sign is turned round. What should be above zero here, and what below?": np.negative,
    "it is in per cent. A share lies in 0 to 1; per cent are to be read.": lambda x: 100 * x,
    "it is upside down. What is asked about stands above the line.": np.reciprocal,
    "it is the rest to 1. Your number and the wanted one sum to 1.": lambda x: 1 - x,
    "rows and columns are exchanged. What does a row of the result stand for?": np.transpose,
}


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
        style = f"border-left: 4px solid {colour}; padding: 2px 10px"
        head, _, rest = str(self).partition("] ")
        return f'<div style="{style}"><b>{escape(head)}]</b> {escape(rest)}</div>'


def attempted(value: Any) -> Any:
    """``value``; raises NotAttempted where a stub returned nothing. For use in probes."""
    if value is None or value is ...:
        raise NotAttempted
    return value


def variants(function: Callable) -> Callable:
    """``function`` in two steps: ``_loss()`` is a right answer then, ``_loss(squared=0)`` a wrong."""
    return partial(partial, function)


def calls(*cases: tuple, read: Callable = lambda x: x, keep: int | None = None) -> Callable:
    """A probe: what the function returns for each tuple of arguments, or the error it `Raised`.

    A function that returns nothing at all is an empty stub. read: what counts of a result, where it
    can be read. keep: the place of an argument that must stay as it is.
    """

    def probe(function: Callable) -> list:
        results, kept = [], True
        for case in cases:
            given = deepcopy(case)
            try:
                results.append(function(*given))
            except (NotAttempted, NotImplementedError):
                raise
            except Exception as error:
                results.append(Raised(error))
            kept = kept and (keep is None or same(plain(given[keep]), plain(case[keep])))
        if all(result is None or result is ... for result in results):
            raise NotAttempted
        for k, result in enumerate(results):
            with suppress(Exception):
                results[k] = result if isinstance(result, Raised) else read(result)
        return results if kept else [*results, OVERWRITTEN]

    return probe


def plain(value: Any) -> Any:
    """One form for what is alike: numbers, tensors, series and (nested) lists of numbers as arrays;
    texts and other sequences as lists of such; the rest as it is."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.double() if value.is_floating_point() else value).numpy()
    elif isinstance(value, Real):
        value = np.asarray(value if isinstance(value, (int, np.generic)) else float(value))
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        return array if is_numbers(array) else plain(array.tolist())
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        entries = [plain(entry) for entry in value]
        alike = all(is_numbers(entry) and entry.shape == entries[0].shape for entry in entries)
        return np.stack(entries) if entries and alike else entries
    return set(value) if isinstance(value, Set) else value


def is_numbers(value: Any) -> bool:
    """Whether a plain value is an array of numbers."""
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiub"


def same(found: Any, wanted: Any, rtol: float = 1e-3, atol: float = 1e-5) -> bool:
    """Whether two plain values agree: numbers within the tolerance, everything else equal."""
    if isinstance(found, np.ndarray) and isinstance(wanted, np.ndarray):
        if found.size == 1 and wanted.ndim == 0:
            found = found.reshape(())
        if wanted.dtype.kind == "i":
            rtol, atol = 0, 0.1
        return found.shape == wanted.shape and np.allclose(found, wanted, rtol, atol, True)
    if type(found) is not type(wanted):
        return False
    if isinstance(found, dict):
        alike = found.keys() == wanted.keys()
        return alike and all(same(found[key], wanted[key], rtol, atol) for key in found)
    if isinstance(found, list):
        pairs = zip(found, wanted, strict=False)
        return len(found) == len(wanted) and all(same(*pair, rtol, atol) for pair in pairs)
    return bool(found == wanted)


def difference(found: Any, wanted: Any) -> str:
    """A sentence on how a plain value differs from the wanted one, without telling the latter."""
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        for number, pair in enumerate(zip(found, wanted, strict=True), 1):
            if not same(*pair):
                here = f"Look at case {number} of {len(wanted)}: " if len(wanted) > 1 else ""
                return here + difference(*pair)
    if found is None:
        return "It returns nothing (None). Does every way through it end in a return?"
    if isinstance(wanted, Raised):
        return f"Here it should raise {wanted}"
    if type(found) is not type(wanted):
        return f"It gives {type(found).__name__}, wanted is {type(wanted).__name__}"
    if isinstance(found, np.ndarray):
        if found.shape != wanted.shape:
            return f"It has shape {found.shape}, wanted is {wanted.shape}"
        if np.isnan(found.astype(float)).any():
            return "It holds numbers that are undefined (nan)"
        if found.ndim == 0 and wanted:
            return f"It is {found:.6g}, which is {found / wanted:.3g} times the right value"
    return "Its form is right, its value is not. Work one case out by hand and compare"


@cache
def exercises(lesson: str) -> dict[str, Exercise]:
    """The checked exercises of a lesson (``"7"``, ``"A1"``) by number."""
    if lesson not in LESSONS:
        raise InputError(f"there is no lesson {lesson!r}; the lessons are {', '.join(LESSONS)}")
    module = importlib.import_module(f".{LESSONS[lesson]}", __name__)
    return {exercise.number: exercise for exercise in module.EXERCISES}


_here: set[str] = set()  # the lessons whose checks this kernel has called


def check(number: str, answer: Any) -> Result:
    """Check an answer to exercise ``number`` (``"7.1"``), note the result for `progress`, return it.

    Raises InputError for an unknown number; under nbgrader AssertionError where it does not pass.
    """
    lesson = number.rpartition(".")[0]
    known = exercises(lesson)
    if number not in known:
        raise InputError(f"lesson {lesson} has no check {number!r}; it has {', '.join(known)}")
    result = known[number](answer)
    _here.add(lesson)
    if result.status != NOT_ATTEMPTED:  # opening a fresh copy of a notebook takes nothing back
        write_text(progress_file(), json.dumps(_noted() | {number: result.status}, indent=1))
    if grading() and result.status != PASSED:
        raise AssertionError(str(result))
    return result


def _noted() -> dict[str, str]:
    try:
        return dict(json.loads(progress_file().read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


class Progress(str):
    """Which exercises have passed, as a text that a notebook shows as it is."""

    __repr__ = str.__str__


def progress(*lessons: str) -> Progress:
    """What is done in ``lessons`` (by default those checked here) and over the course."""
    noted, lines, every = _noted(), [], []
    for lesson in LESSONS:
        known = exercises(lesson).values()
        passed = [noted.get(exercise.number) == PASSED for exercise in known]
        every += passed
        if lesson in (lessons or _here):
            lines.append(f"Lesson {lesson}: {sum(passed)} of {len(passed)} passed")
            for exercise, done in zip(known, passed, strict=True):
                lines.append(f"  [{'x' if done else ' '}] {exercise.number} {exercise.title}")
    lines.append(f"The course: {sum(every)} of {len(every)} checked exercises passed")
    return Progress("\n".join(lines))
