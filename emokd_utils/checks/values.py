"""Values that checks compare: one form for what is alike, what any answer gets wrong, and words."""

from collections.abc import Iterator, Mapping, MappingView, Sequence, Set
from contextlib import suppress
from numbers import Real
from typing import Any

import numpy as np

CUT = "numbers of shape"  # what `shown` says in place of numbers that are too many
UNKNOWN = "not one of the known mistakes"


class Raised(str):
    """In the place of a result: the kind of error with which a call ended; ``text``: its words."""

    def __new__(cls, error: Exception) -> "Raised":
        """The errors of arrays that do not fit, which NumPy and torch name differently, are one."""
        name = type(error).__name__
        misfit = isinstance(error, (RuntimeError, ValueError, IndexError))
        raised = super().__new__(cls, "misfit" if misfit else name)
        raised.text = f"{name}: {error}"
        return raised


def plain(value: Any) -> Any:
    """One form for what is alike: numbers, tensors, series and (nested) lists of numbers as arrays;
    texts and other sequences as lists of such; the rest as it is. A copy: what is written into the
    original later changes nothing."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.double() if value.is_floating_point() else value).numpy()
    elif isinstance(value, Real):
        value = np.asarray(value if isinstance(value, (int, np.generic)) else float(value))
    if hasattr(value, "__array__"):
        array = np.array(value)
        return array if is_numbers(array) else plain(array.tolist())
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (Iterator, MappingView)):
        value = list(value)
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        entries = [plain(entry) for entry in value]
        alike = all(is_numbers(entry) and entry.shape == entries[0].shape for entry in entries)
        return np.stack(entries) if entries and alike else entries
    return set(value) if isinstance(value, Set) else value


def is_numbers(value: Any) -> bool:
    """Whether a plain value is an array of numbers."""
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiub"


def is_undefined(value: Any) -> bool:
    """Whether a plain value holds numbers that are undefined."""
    return is_numbers(value) and bool(np.isnan(value.astype(float)).any())


def same(found: Any, wanted: Any, rtol: float = 1e-3) -> bool:
    """Whether two plain values agree: numbers within the tolerance, everything else equal."""
    if isinstance(found, np.ndarray) and isinstance(wanted, np.ndarray):
        if found.size == 1 and wanted.ndim == 0:
            found = found.reshape(())
        if wanted.dtype.kind in "iub":
            rtol = 0
        return found.shape == wanted.shape and np.allclose(found, wanted, rtol, 1e-5, True)
    if type(found) is not type(wanted):
        return False
    if isinstance(found, dict):
        alike = found.keys() == wanted.keys()
        return alike and all(same(found[key], wanted[key], rtol) for key in found)
    if isinstance(found, list):
        pairs = zip(found, wanted, strict=False)
        return len(found) == len(wanted) and all(same(*pair, rtol) for pair in pairs)
    return bool(found == wanted)


# Of the right value x, where n says how many there are; tried in this order.
_OF_NUMBERS = {
    "its sign is turned round. What should be above zero here, and what below?": lambda x, n: -x,
    "it is in per cent. A share lies in 0 to 1; per cent are to be read.": lambda x, n: 100 * x,
    "it is upside down. What is asked about stands above the line.": lambda x, n: 1 / x,
    "it is the rest to 1. Your number and the wanted one sum to 1.": lambda x, n: 1 - x,
    "rows and columns are exchanged. What does a row of the result stand for?": lambda x, n: x.T,
    "the results are in the wrong order. Read again which comes first.": lambda x, n: x[::-1],
    "it is a count, not a share. By what is a count divided?": lambda x, n: x * n,
    "it is a share, not a count. How many are there in all?": lambda x, n: x / n,
    "it is one too many. Where does your counting begin, where does it end?": lambda x, n: x + 1,
    "it is one too few. Where does your counting begin, where does it end?": lambda x, n: x - 1,
    "it is squared. Read again: is there a root?": lambda x, n: x**2,
    "it is the square root. Read again: is there a root?": lambda x, n: np.sqrt(x),
    "it is the exponential. Is a logarithm asked for?": lambda x, n: np.exp(x),
    "it is the logarithm. Is one asked for?": lambda x, n: np.log(x),
    "it is cut to whole numbers. Do // or int() belong there?": lambda x, n: np.trunc(x),
    "it is rounded. Return the number as it is.": lambda x, n: np.round(x),
    "it is rounded to tenths. Return the number as it is.": lambda x, n: np.round(x, 1),
    "it is rounded to hundredths. Return the number as it is.": lambda x, n: np.round(x, 2),
    "it is rounded to thousandths. Return the number as it is.": lambda x, n: np.round(x, 3),
}
_OF_OTHERS = {
    "yes and no are exchanged. What does True stand for?": lambda x, n: np.invert(x, dtype=bool),
}


def usual_slip(found: list, right: list, sizes: list[int], rtol: float) -> str | None:
    """What any answer can get wrong, as "name. Where to look", if it is so in all cases alike.
    sizes: how many images (say) each case is about."""
    if any(map(is_undefined, found)):
        return None
    if all(same(case, found[0]) for case in found) and any(not same(x, right[0]) for x in right):
        return "it is the same whatever comes in. Which arguments does your code use?"
    numbers = all(is_numbers(case) and case.dtype.kind != "b" for case in right)
    changes = _OF_NUMBERS | _OF_OTHERS if numbers else _OF_OTHERS
    for text, change in changes.items():
        with np.errstate(all="ignore"), suppress(Exception):  # where it makes no sense
            changed = [plain(change(*pair)) for pair in zip(right, sizes, strict=True)]
            if same(found, changed, rtol) and not same(right, changed, rtol):
                return text
    if same([_ordered(case) for case in found], [_ordered(case) for case in right], rtol):
        return "the order is another one. Read again in which order they are wanted."
    pairs = [*zip(found, right, strict=False)]
    if numbers and all(is_numbers(case) and case.shape == wanted.shape for case, wanted in pairs):
        return _apart(*(np.concatenate([*map(np.ravel, cases)]) for cases in (found, right)))
    return None


def _apart(found: np.ndarray, right: np.ndarray) -> str | None:
    """That numbers are off by the same factor or amount everywhere."""
    with np.errstate(all="ignore"):
        for what, apart in (("factor", found / right), ("amount", found - right)):
            apart = apart[(found != 0) | (right != 0)]
            if len({*right}) > 2 and np.allclose(apart, apart[:1], 1e-6):
                return f"it is off by the same {what} in every case. What is there once too often?"
    return None


def _ordered(value: Any) -> Any:
    """A plain list, set or array with its entries (rows) sorted; anything else as it is."""
    if is_numbers(value):
        return np.sort(value, axis=0) if value.ndim else value
    return sorted(map(str, value)) if isinstance(value, (list, set)) else value


def shown(value: Any) -> str:
    """A value in a few words, whole where it is small enough to work with by hand."""
    if hasattr(value, "weight") and hasattr(value, "bias"):
        return f"a layer of weight {shown(value.weight)} and bias {shown(value.bias)}"
    if hasattr(value, "to_dict"):
        value = value.to_dict("list")
    value = plain(value)
    if isinstance(value, np.ndarray):
        text = repr((np.round(value, 4) if value.dtype.kind == "f" else value).tolist())
        return text if len(text) <= 200 else f"{CUT} {value.shape}"
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {shown(entry)}" for key, entry in value.items()) + "}"
    return repr(value)


def kind(value: Any) -> str:
    """What a plain value is, without the value: type and shape."""
    if not is_numbers(value):
        length = f" of length {len(value)}" if isinstance(value, (list, set, dict)) else ""
        texts = {"str": "a text", "NoneType": "None"}
        return texts.get(name := type(value).__name__, f"a {name}{length}")
    if value.dtype.kind == "b":
        return "True or False" + (f" of shape {value.shape}" if value.ndim else "")
    noun = "number" if value.dtype.kind == "f" else "whole number"
    return f"{noun}s of shape {value.shape}" if value.ndim else f"a {noun}"


def is_alike(found: Any, wanted: Any) -> bool:
    """Whether a plain result is of the wanted kind: of its type, an array of its shape, and no nan."""
    if is_numbers(found) and is_numbers(wanted):
        return found.shape == wanted.shape and not is_undefined(found)
    return isinstance(wanted, Raised) or type(found) is type(wanted)


def parameters(answer: Any) -> tuple[str, ...]:
    """The names of a function's parameters, without those of ``*args``."""
    code = getattr(answer, "__code__", None)
    return code.co_varnames[: code.co_argcount] if code else ()


def called(answer: Any, case: tuple) -> str:
    """A call as a student would write it: ``f(a=1, b=[2, 3])``; '' without a case."""
    if not len(case):
        return ""
    names, given = parameters(answer), map(shown, case)
    if len(names) >= len(case):
        given = (f"{name}={value}" for name, value in zip(names, given, strict=False))
    return f"{getattr(answer, '__name__', 'it').strip('<>')}({', '.join(given)})"


def size(case: tuple) -> int:
    """How many images (say) a case is about: the rows of a table or the length of an array's last axis."""
    first = case[0] if len(case) else ()
    shape = np.shape(first)
    return len(first) if hasattr(first, "columns") else (shape[-1] if shape else 1)


def difference(found: Any, wanted: Any, right: list) -> tuple[str, str]:
    """Name and look of how a plain result differs from the wanted one, without telling the latter."""
    if isinstance(wanted, Raised):
        return f"it should raise a {wanted} here", f"gives {shown(found)}"
    if isinstance(found, dict) and isinstance(wanted, dict) and found.keys() == wanted.keys():
        wrong = [key for key in wanted if not same(found[key], wanted[key])]
        return "not yet right: " + ", ".join(map(str, wrong)), "has the rest right"
    every = np.concatenate([[0.0], *(np.ravel(case) for case in right if is_numbers(case))])
    positive = is_numbers(wanted) and every.min() >= 0
    limits = (" from 0 to 1" if every.max() <= 1 else " not below 0") if positive else ""
    sort, name, fits = kind(wanted), UNKNOWN, found
    if wanted is None or isinstance(wanted, str):
        sort = "a text or None" if any(case is None for case in right) else "a text"
    if is_numbers(found) and is_numbers(wanted) and found.dtype.kind != "b":
        with np.errstate(invalid="ignore"):
            whole = found.astype(wanted.dtype)
        fits = whole if (found == whole).all() else found
    if is_undefined(found):
        name = "it is undefined (nan)"
    elif kind(fits) not in sort:
        name = f"it is {kind(found)}, not {sort}"
    elif positive and is_numbers(found) and (found.min() < 0 or found.max() > 1 >= every.max()):
        name = f"it is out of range: what is wanted is{limits}"
    elif is_numbers(found) and found.ndim == 1:
        off = np.flatnonzero(~np.isclose(found, wanted, 1e-3 * (wanted.dtype.kind == "f"))) + 1
        if 0 < len(off) < len(found):
            name = f"it is right but for entry {', '.join(map(str, off))}"
    return name, f"gives {shown(found)}; wanted is {sort}{limits}. Work it out by hand and compare"
