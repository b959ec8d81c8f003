"""A row of metadata in words: what the offline writer of instructions knows (lesson 4)."""

import tomllib
from bisect import bisect_right

import pandas as pd

from .scenes import HOME, objects_of

LOOK_WORDS = tomllib.loads((HOME / "words.toml").read_text("utf-8"))


def describe_scene(row: pd.Series, label: str) -> tuple[str | None, str | None]:
    """What the instructions of the kinds *conversation* and *reasoning* answer about an image.

    label: what is to be explained, and is not named. None where a row lacks what a text needs."""
    look = describe_look(row) if set(LOOK_WORDS) <= set(row.index) and pd.notna(row.hue) else None
    caption, objects = row.get("caption"), row.get("objects")
    conversation = reasoning = None
    if isinstance(caption, str) and caption.strip():
        text = caption.strip()
        conversation = text[0].upper() + text[1:] + "." * (not text.endswith("."))
        conversation += f" It looks like this: {look}." if look else ""
    nouns = objects.split(";") if isinstance(objects, str) else []
    evocative = [item for noun in nouns for item in objects_of(label) if item.noun == noun]
    if evocative:
        reasoning = f"The {evocative[0].noun} is {evocative[0].why}."
    elif look:
        reasoning = f"The objects are everyday things. It is the look: {look}."
    return conversation, reasoning


def describe_look(row: pd.Series) -> str:
    """The atmosphere in words: ``bright, vivid yellow colours, glowing light, dotted, clear``."""
    words = {kind: LOOK_WORDS[kind][row[kind]] for kind in ("light", "texture", "weather")}
    for kind, value in {**row[["brightness", "saturation"]], "hue": row.hue % 360}.items():
        words[kind] = LOOK_WORDS[kind]["words"][bisect_right(LOOK_WORDS[kind]["limits"], value)]
    colours = "{brightness}, {saturation} {hue} colours, {light} light, {texture}, {weather}"
    return colours.format(**words)
