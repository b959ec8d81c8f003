"""A scene's row of metadata in words: what the offline writer of instructions knows of EmoScenes
(lesson 4)."""

from bisect import bisect_right

import pandas as pd

from .painting import TEXTURES
from .scenes import objects_of

# The words for ranges of hue (degrees), brightness and saturation (0..1), and the limits between.
_HUES = ("red", "orange", "yellow", "green", "blue", "violet", "pink", "red")
_HUE_LIMITS = (20, 45, 70, 165, 255, 300, 345)
_BRIGHTNESS, _BRIGHTNESS_LIMITS = ("dark", "dim", "bright"), (0.34, 0.66)
_COLOURFULNESS, _COLOURFULNESS_LIMITS = ("grey", "muted", "soft", "vivid"), (0.15, 0.35, 0.62)
WEATHER_WORDS = {"clear": "clear", "clouds": "cloudy", "fog": "foggy", "rain": "rainy"}
LIGHT_WORDS = {
    "flat": "flat",
    "glow": "glowing",
    "harsh": "harsh",
    "rays": "beaming",
    "vignette": "shadowed",
}
_TEXTURES = ("plain", "dotted", "starry", "blurred", "striped", "cracked", "blotched", "grainy")
TEXTURE_WORDS = dict(zip(TEXTURES, _TEXTURES, strict=True))
_LOOK = {"hue", "saturation", "brightness", "light", "texture", "weather"}


def describe_scene(row: pd.Series, label: str) -> tuple[str | None, str | None]:
    """What the instructions of the kinds *conversation* and *reasoning* answer about an image.

    row: its metadata. label: what is to be explained, and is not named. A text is None where the
    row does not hold what it needs: a row with a caption alone makes a conversation of it.
    """
    look = describe_look(row) if _LOOK <= set(row.index) and pd.notna(row.hue) else None
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
    """The atmosphere of a scene in words: ``bright, vivid yellow colours, glowing light, dotted,
    clear``."""
    hue = _HUES[bisect_right(_HUE_LIMITS, row.hue % 360)]
    brightness = _BRIGHTNESS[bisect_right(_BRIGHTNESS_LIMITS, row.brightness)]
    colourfulness = _COLOURFULNESS[bisect_right(_COLOURFULNESS_LIMITS, row.saturation)]
    light, texture = LIGHT_WORDS[row.light], TEXTURE_WORDS[row.texture]
    colours = f"{brightness}, {colourfulness} {hue} colours"
    return f"{colours}, {light} light, {texture}, {WEATHER_WORDS[row.weather]}"
