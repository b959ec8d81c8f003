"""Exercises whose cases say what each is about: a name for what is not one of the known mistakes."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..checks import Exercise
from .values import Raised, called, difference, is_numbers, is_undefined


@dataclass(frozen=True)
class ByCase(Exercise):
    """about: for each of the first cases, from the simplest on, what is wrong if its result is;
    where to look follows, or else the case is shown."""

    about: Iterable[str] = ()

    def _unknown(self, answer: Any, found: list, right: list) -> tuple[str, str]:
        name, look = super()._unknown(answer, found, right)
        if name != "not one of the known mistakes":
            return name, look
        pairs = [pair for pair in zip(found, right, strict=False) if type(pair[1]) is not Raised]
        if all(_form(had) != _form(wanted) for had, wanted in pairs):
            return "the result has another form", look
        place = next(k for k, one in enumerate(right) if not self._same(found[k], one))
        names = [*self.about][place : place + 1]
        if is_undefined(found[place]):
            names = ["the result is undefined (nan)"]
        for text in names:
            name, _, hint = text.partition(". ")
            call = called(answer, self.probe.cases[place])
            look = hint or f"{call} {difference(found[place], right[place], right)}"
        return name, look


def _form(value: Any) -> Any:
    return value.shape if is_numbers(value) else type(value)
