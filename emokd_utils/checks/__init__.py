"""Checks of the exercises, which say not only that an answer is wrong but how (every lesson).

An exercise measures the student's object with its *probe* (calls the function on known inputs, say)
and compares with what the same probe makes of a right answer, then of each known mistake. So any
right answer passes, however it is written. Each lesson has a module, which holds ``EXERCISES``."""

import dis
import importlib
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, partial
from html import escape
from typing import Any

from ..errors import InputError
from ..files import write_text
from ..run.environment import grading, progress_file
from . import values
from .values import Raised, plain, same

_MODULES = "start emotions vision vlm instructions tuning complementarity distillation gating"
LESSONS = {str(k): name for k, name in enumerate(f"{_MODULES} emovlm_kd datasets".split())}
LESSONS |= {"A1": "pretrain", "A2": "forecast"}

PASSED, NOT_ATTEMPTED, NOT_YET = "passed", "not attempted", "not yet"
OVERWRITTEN, NOTHING = "an argument is overwritten", "it returns nothing (None)"
_NOTHING, _CONSTANT = {"RESUME", "RETURN_VALUE", "NOP"}, {"LOAD_CONST", "RETURN_CONST"}


class NotAttempted(Exception):
    """Raised where an answer is still empty."""


class Slip(Exception):
    """Raised by a probe that cannot go on: ``"name. Where to look"`` of the mistake."""


@dataclass(frozen=True)
class Exercise:
    """An exercise with its check.

    number: ``"7.1"``. probe: what to measure on an answer; a list has one entry for each case.
    right: an answer that solves it. mistakes: for each wrong answer known by name, the most
    specific first, ``"name. Where to look"`` with an example of it. rtol: how far numbers may be
    apart, in shares; whole ones are compared exactly."""

    number: str
    title: str
    probe: Callable[[Any], Any]
    right: Any
    mistakes: Mapping[str, Any]
    rtol: float = 1e-3

    def __call__(self, answer: Any) -> "Result":
        """The result for an answer; never raises for a wrong one."""
        try:
            found = self._measured(answer)
        except (NotAttempted, NotImplementedError):
            return Result(self, NOT_ATTEMPTED)
        except Slip as slip:
            return Result(self, NOT_YET, *str(slip).split(". ", 1))
        except Exception as error:
            return Result(self, NOT_YET, "it raises an error", Raised(error).text)
        right = self._measured(self.right)
        if self._same(found, right):
            return Result(self, PASSED)
        share, mistake = self._nearest(found, right)
        if share < 1:
            mistake = self._unknown(answer, found, right, mistake if share > 0.6 else None)
        return Result(self, NOT_YET, *mistake.split(". ", 1))

    def _same(self, found: list, wanted: list) -> bool:
        return same(found, wanted, self.rtol)

    def _measured(self, answer: Any) -> list:
        if answer is None or answer is ... or is_stub(answer):
            raise NotAttempted
        if callable(self.right) and not callable(answer):
            raise TypeError(f"a function is wanted here, this is {type(answer).__name__}")
        found = self.probe(answer)
        return [plain(case) for case in found] if type(found) is list else [plain(found)]

    def _nearest(self, found: list, right: list) -> tuple[float, str]:
        """The known mistake that makes most of the wrong cases what they are, and of how many."""
        shares = {}
        for text, example in self.mistakes.items():
            cases = [*zip(found, self._measured(example), right, strict=False)]
            both = [self._same(a, b) for a, b, c in cases if not self._same([a, b], [c, c])]
            shares[text] = sum(both) / max(len(both), 1)
        nearest = max(shares, key=shares.get)
        return shares[nearest], nearest

    def _unknown(self, answer: Any, found: list, right: list, nearest: str | None) -> str:
        """``"name. Where to look"`` for a mistake that is not one of this exercise's own."""
        found = found[: len(right)]
        if self._same(found, right):  # then `calls` has left its mark behind it
            return f"{OVERWRITTEN}. Who else may still need what you were given?"
        cases = getattr(self.probe, "cases", None) or [()] * len(right)
        calls_made = [values.called(answer, case) for case in cases]
        pairs = enumerate(zip(found, right, strict=False))
        wrong = [k for k, pair in pairs if not self._same(*pair)]
        for k in wrong:
            if isinstance(found[k], Raised) and not isinstance(right[k], Raised):
                return f"it raises an error. {found[k].text}. Called as {calls_made[k]}"
        by_hand = sorted(wrong, key=lambda k: (values.CUT in calls_made[k], len(calls_made[k])))
        silent = found if any(case is None for case in right) else [found[k] for k in wrong]
        if all(case is None for case in silent):
            return f"{NOTHING}. Does every way through it end in a return? {calls_made[by_hand[0]]}"
        slip = values.usual_slip(found, right, [*map(values.size, cases)], self.rtol)
        first, about = wrong[0], getattr(self.probe, "about", ())
        if slip or (nearest and not about):
            return slip or nearest
        if first < len(about) and values.is_alike(found[first], right[first]):
            text, look = about[first], values.difference(found[first], right[first], right)[1]
            return text if ". " in text else f"{text}. {calls_made[first] or 'It'} {look}"
        told = [(*values.difference(found[k], right[k], right), calls_made[k]) for k in by_hand]
        name, look, call = min(told, key=lambda each: each[0] == values.UNKNOWN)
        places = getattr(self.probe, "places", None) or [""] * len(right)
        if name == values.UNKNOWN and (unused := self._unused(answer, cases)):
            name = f"the argument {unused} changes nothing"
        elif name == values.UNKNOWN and (here := {places[k] for k in wrong}) < {*places}:
            only = min({*places} - here, here, key=len)
            name = f"it is {'wrong' if only is here else 'right'} only "
            name += ", ".join(place for place in dict.fromkeys(places) if place in only)
        return f"{name}. {call or 'It'} {look}"

    def _unused(self, answer: Any, cases: list) -> str | None:
        """The argument that changes nothing in the answer, though it does in a right one."""
        for k, name in enumerate(values.parameters(answer)):
            others = [(*case[:k], None, *case[k + 1 :])[: len(case)] for case in cases]
            if self._same(*(calls(*given)(answer) for given in (cases, others))):
                if not self._same(*(calls(*given)(self.right) for given in (cases, others))):
                    return name
        return None


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


def returned(value: Any) -> Any:
    """``value``; raises a Slip for None. For use in probes."""
    if value is None:
        raise Slip(f"{NOTHING}. Does every way through it end in a return?")
    return value


def variants(function: Callable) -> Callable:
    """``function`` in two steps: ``_loss()`` is a right answer then, ``_loss(squared=0)`` a wrong."""
    return partial(partial, function)


def calls(
    *cases: tuple,
    read: Callable = lambda x: x,
    keep: int | None = None,
    about: Iterable[str] = (),
    places: str = "",
) -> Callable:
    """A probe: what the function returns for each tuple of arguments, or the error it `Raised`.

    read: what counts of a result, where it can be read. keep: the place of an argument that must
    stay as it is. about: for each of the first cases, from the simplest on, what is said where its
    result is the first wrong one, as of a mistake. places: "where.., with..", between slashes."""

    def probe(function: Callable) -> list:
        results, kept = [], True
        for case in cases:
            given = deepcopy(case)
            try:
                result = function(*given)
            except NotImplementedError:
                raise
            except Exception as error:
                result = Raised(error)
            results.append(plain(result))
            kept = kept and (keep is None or same(plain(given[keep]), plain(case[keep])))
        if any(result is not None for result in results):
            results = [_read(result, read) for result in results]
        return results if kept else [*results, OVERWRITTEN]

    probe.cases, probe.about, probe.places = cases, [*about], places and places.split("/")
    return probe


def _read(result: Any, read: Callable) -> Any:
    with suppress(Exception):
        return result if isinstance(result, Raised) else read(result)
    return result


def is_stub(function: Callable) -> bool:
    """Whether a function does nothing but return nothing, as it is before it is written."""
    if not hasattr(function, "__code__"):
        return False
    steps = [(step.opname, step.argval) for step in dis.get_instructions(function)]
    return all(name in _NOTHING or (name in _CONSTANT and value is None) for name, value in steps)


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
