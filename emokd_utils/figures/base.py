"""What all figures share: colours, Matplotlib settings, texts, alt text, saving and showing.

The colours were chosen to stay apart under the common forms of colour blindness."""

import base64
import io
import itertools
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from html import escape
from pathlib import Path
from weakref import WeakKeyDictionary

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from PIL import Image

from ..emotions import infer_label_set
from ..errors import InputError

INK, GREY, PALE = "#1f2328", "#5b636d", "#e4e7eb"
DASHED = (0, (4, 3))
BESIDE = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}  # where a legend is

MODEL_COLOURS = {
    "VLM": "#0072b2",
    "vision model": "#de7a00",
    "head": "#1fa484",
    "EmoVLM-KD": "#5e1a50",
    "both models": "#7d8590",
    "oracle": INK,
}
_OTHER_COLOURS = ("#56b4e9", "#cc79a7", "#8c8c2f", "#a05a2c")
_PALER = ("zero-shot", "no teacher")
CUES = {"content": 0, "atmosphere": 1, "both": 2}  # the order in which they are shown

STYLE = {
    "font.size": 11.5,
    "axes.edgecolor": GREY,
    "axes.titlelocation": "left",
    "axes.titlesize": 13.5,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": PALE,
    "legend.frameon": False,
    "lines.linewidth": 2.2,
    "text.parse_math": False,  # no name of a class or model is a formula
}
DESCRIPTIONS: WeakKeyDictionary[Axes, str] = WeakKeyDictionary()


def style() -> AbstractContextManager:
    """A context, or decorator, in which Matplotlib has the project's settings."""
    return plt.style.context(["default", STYLE])


def model_colours(names: Iterable[str]) -> dict[str, str]:
    """A colour '#rrggbb' for each model, by how its name begins (see `MODEL_COLOURS`): tints for those
    of one family, the untuned VLM and the head without a teacher the paler ones."""
    families: dict[str, list[str]] = {}
    for name in sorted(dict.fromkeys(names), key=lambda name: any(w in name for w in _PALER)):
        family = next((f for f in MODEL_COLOURS if name.startswith(f)), "")
        families.setdefault(family, []).append(name)
    colours = dict(zip(families.pop("", []), itertools.cycle(_OTHER_COLOURS), strict=False))
    for family, members in families.items():
        colour = np.array(to_rgb(MODEL_COLOURS[family]))
        for name, tint in zip(members, np.linspace(0, 0.5, len(members)), strict=True):
            colours[name] = to_hex(colour + (1 - colour) * tint)
    return colours


def class_colours(classes: Sequence[str]) -> dict[str, str]:
    """The colour '#rrggbb' of each class: that of its label set."""
    label_set = infer_label_set(classes)
    return {name: label_set.colours[label_set.canonical(name) or name] for name in classes}


def percent(share: float, digits: int = 0) -> str:
    """A share in 0..1 as text: '21 %', with a space that does not break; 'undefined' for nan."""
    return "undefined" if np.isnan(share) else f"{100 * share:.{digits}f}\u00a0%"


def percent_with_ends(share: float, low: float, high: float, digits: int = 0) -> str:
    """A share and its interval, in 0..1, as text: '21 % [19, 24]'; no ends where they are nan."""
    ends = "" if np.isnan(low) else f" [{100 * low:.{digits}f},\u00a0{100 * high:.{digits}f}]"
    return percent(share, digits) + ends


def slices_of(values: pd.Series) -> dict[str, np.ndarray]:
    """Name of each slice -> bool (n,) of the images in it; cues first, or as a categorical orders."""
    names = values.astype(str).to_numpy()
    order = sorted(set(names), key=lambda name: (CUES.get(name, len(CUES)), name))
    if isinstance(values.dtype, pd.CategoricalDtype):
        order = [name for name in map(str, values.cat.categories) if name in order]
    return {name: names == name for name in order}


def axes_or_new(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """The axes given, or those of a new figure of this size in inches."""
    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def headline(ax: Axes, title: str, note: str, facts: Sequence[str]) -> Axes:
    """The axes with a title and a note below it; note and facts are kept as alt text."""
    ax.set_title(title, pad=25)
    place = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "bottom"}
    ax.annotate(note, (0, 1), (0, 8), fontsize=10.5, color=GREY, **place)
    DESCRIPTIONS[ax] = f"{'; '.join(facts)}. In all: {note}."
    return ax


def alt_text(drawn: Axes | Figure) -> str:
    """A figure of this package in words: its title, then the numbers it shows; else InputError."""
    figure = drawn.get_figure(root=True)
    axes = [ax for ax in (figure.axes if drawn is figure else [drawn]) if ax in DESCRIPTIONS]
    if not axes:
        raise InputError("nothing of emokd_utils.figures is drawn here: draw it first, or give alt")
    words = [part for ax in axes for part in (ax.get_title(loc="left"), DESCRIPTIONS[ax])]
    sentences = [" ".join(text.split()) for text in (figure.get_suptitle(), *words) if text]
    return " ".join(text if text.endswith(".") else f"{text}." for text in sentences)


def save(drawn: Axes | Figure, path: str | Path) -> Path:
    """Write the whole figure as a PNG of 150 dots an inch, its alt text as 'Description' inside; the
    same figure gives the same bytes with the same Matplotlib."""
    path, figure = Path(path), drawn.get_figure(root=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"Software": None, "Description": alt_text(figure)}
    figure.savefig(path, dpi=150, bbox_inches="tight", pad_inches=0.12, metadata=about)
    return path


def show(drawn: Axes | Figure, alt: str | None = None) -> None:
    """Display the whole figure in a notebook, with its alt text (`alt` for one that is not this
    package's), and close it. Raises InputError where it has none."""
    from IPython.display import display

    figure = drawn.get_figure(root=True)
    words = alt or alt_text(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, bbox_inches="tight", pad_inches=0.1)
    plt.close(figure)
    small = Image.open(buffer).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)  # a palette: a third of the size
    data = base64.b64encode(buffer.getvalue()).decode()
    html = (
        f'<img src="data:image/png;base64,{data}" alt="{escape(words)}" '
        f'style="max-width: 100%; width: {small.width}px; height: auto; background: white">'
    )
    display({"text/html": html, "text/plain": words}, raw=True)
