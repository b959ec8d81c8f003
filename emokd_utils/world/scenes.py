"""EmoScenes, the built-in data: small scenes whose every emotional cue is known.

What an image evokes comes from an evocative object (cue ``content``), from palette, light, texture
and weather (cue ``atmosphere``), or from both (cue ``both``); whatever is not the cue is neutral.
So a class can see *why* two models disagree. Each image depends only on (seed, split, number): the
same seed gives the same pixels, in any order and on any number of processes.

The atmospheres follow what is known of affective colour and texture. Valdez & Mehrabian (1994,
doi:10.1037/0096-3445.123.4.394): pleasure grows with brightness (0.69) and saturation (0.22),
arousal with saturation (0.60) and falls with brightness (-0.31). Machajdik & Hanbury (2010,
doi:10.1145/1873951.1873965): colour, coarseness, contrast and directed lines carry emotion in
images. ``data/emoscenes/README.md`` is the datasheet.
"""

import colorsys
import csv
import functools
import hashlib
import io
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from PIL import __version__ as pillow_version

from ..emotions import MIKELS
from ..errors import InputError

HOME = Path(__file__).resolve().parent.parent.parent / "data" / "emoscenes"
SIZE = 112  # pixels; 16 visual tokens of 28 x 28 in TinyVLM
SEED = 2025
SPLIT_SIZES = {"train": 1600, "val": 400, "test": 1200}
LABEL_NOISE = 0.05
CUES = ("content", "atmosphere", "both")
_CUE_CYCLE = ("content", "atmosphere", "both", "atmosphere", "content")  # 40 %, 40 %, 20 %
_STREAMS = {"train": 1, "val": 2, "test": 3, "unlabelled": 4}
_CELL, _COLUMNS = 72, 8  # sprite sheet: pixels per object, objects per row
_ZOOM = 2  # shapes are drawn at twice the size and averaged down


# -------------------------------------------------------------------------------------------- objects


@dataclass(frozen=True)
class SceneObject:
    """A noun of the world: its emotion (``neutral`` for none) and, in a few words, why."""

    noun: str
    emotion: str
    why: str

    @property
    def file(self) -> str:
        """The name of its drawing in ``objects/``."""
        return self.noun.replace(" ", "_") + ".svg"


@functools.cache
def scene_objects() -> tuple[SceneObject, ...]:
    """The nouns of ``data/emoscenes/objects.csv``, in the order of the file and of the sprite
    sheet."""
    with (HOME / "objects.csv").open(encoding="utf-8", newline="") as file:
        rows = tuple(SceneObject(**row) for row in csv.DictReader(file))
    for row in rows:
        if row.emotion != "neutral" and row.emotion not in MIKELS.labels:
            raise InputError(
                f"objects.csv: {row.noun} has the unknown emotion {row.emotion!r}; use one of Mikels' eight"
            )
    return rows


def objects_of(emotion: str) -> list[SceneObject]:
    """The objects that evoke ``emotion``, or the ``neutral`` ones."""
    return [o for o in scene_objects() if o.emotion == emotion]


def render_sprites() -> Image.Image:
    """Render every SVG of ``objects/`` into one RGBA sheet (needs resvg-py, a development
    dependency).

    A pale rim goes round each object, outside its dark outline, so that it stays legible in the
    dark. Raises InputError where a row of objects.csv has no SVG.
    """
    import resvg_py

    rows = -(-len(scene_objects()) // _COLUMNS)
    sheet = Image.new("RGBA", (_CELL * _COLUMNS, _CELL * rows))
    for number, item in enumerate(scene_objects()):
        path = HOME / "objects" / item.file
        if not path.is_file():
            raise InputError(
                f"{item.noun} is in objects.csv but {path.name} is not in objects/; draw it or drop the row"
            )
        inner = _CELL - 4
        png = resvg_py.svg_to_bytes(
            svg_string=path.read_text(encoding="utf-8"), width=inner, height=inner
        )
        sprite = Image.new("RGBA", (_CELL, _CELL))
        sprite.paste(Image.open(io.BytesIO(bytes(png))).convert("RGBA"), (2, 2))
        rim = sprite.getchannel("A").filter(ImageFilter.MaxFilter(3)).point(lambda a: a * 3 // 5)
        cell = Image.new("RGBA", sprite.size, (246, 243, 235, 0))
        cell.putalpha(rim)
        cell.alpha_composite(sprite)
        sheet.paste(cell, (_CELL * (number % _COLUMNS), _CELL * (number // _COLUMNS)))
    return sheet


@functools.cache
def _sprites() -> dict[str, Image.Image]:
    sheet = Image.open(HOME / "objects.png").convert("RGBA")
    cells = {}
    for number, item in enumerate(scene_objects()):
        x, y = _CELL * (number % _COLUMNS), _CELL * (number // _COLUMNS)
        if y + _CELL > sheet.height:
            raise InputError(
                "objects.png has fewer objects than objects.csv; render it again: make sprites"
            )
        cells[item.noun] = sheet.crop((x, y, x + _CELL, y + _CELL))
    return cells


@functools.lru_cache(maxsize=4096)
def _sprite(noun: str, size: int, degrees: int) -> Image.Image:
    sprite = _sprites()[noun].rotate(degrees, resample=Image.Resampling.BICUBIC)
    sprite = sprite.resize((size, size), Image.Resampling.LANCZOS)
    return sprite.crop(sprite.getchannel("A").getbbox())


@dataclass(frozen=True)
class Variety:
    """How far an object may be from its drawing: spread of the hue in degrees, ranges of saturation,
    brightness and size, share of sketches, spread of the logarithm of width by height, spread of
    the rotation in degrees."""

    hue: float
    saturation: tuple[float, float]
    brightness: tuple[float, float]
    size: tuple[float, float]
    sketch: float
    stretch: float
    turn: float


# Pretraining sees things in more forms, and moods that overlap more, than the labelled scenes.
LABELLED_FORMS = Variety(35, (0.6, 1.15), (0.75, 1.1), (0.82, 1.0), 0.05, 0.15, 8)
UNLABELLED_FORMS = Variety(40, (0.55, 1.15), (0.7, 1.1), (0.8, 1.0), 0.07, 0.18, 9)


def _resized(sprite: Image.Image, width: int, height: int) -> Image.Image:
    """A square RGBA image in another size. Columns and rows are resampled one after the other, each
    rounded to 8 bits; which goes first depends on the version of Pillow, so it is said here: rows
    where they shrink more than twice as much."""
    side, resample = sprite.width, Image.Resampling.LANCZOS
    rows_first = side - height > max(0, 2 * (side - width))
    between = (side, height) if rows_first else (width, side)
    return (
        sprite.convert("RGBa")
        .resize(between, resample)
        .resize((width, height), resample)
        .convert("RGBA")
    )


def _vary(rng: np.random.Generator, noun: str, size: int, forms: Variety) -> Image.Image:
    """One of the many forms in which things of a kind are met: another colour, mirrored, wider or
    taller, turned, smaller, and now and then no more than a pale sketch."""
    sprite = _sprites()[noun]
    if rng.random() < 0.5:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    hue, saturation, value = sprite.convert("RGB").convert("HSV").split()
    turn = int(rng.normal(0, forms.hue) / 360 * 256)
    richness, brightness = (
        rng.uniform(*forms.saturation),
        rng.uniform(*forms.brightness),
    )
    hue = hue.point([(h + turn) % 256 for h in range(256)])
    saturation = saturation.point([min(255, int(s * richness)) for s in range(256)])
    value = value.point([min(255, int(v * brightness)) for v in range(256)])
    toned = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
    if rng.random() < forms.sketch:
        grey = toned.convert("L").point(
            [v if v < 70 else 70 + (v - 70) // 8 + 150 for v in range(256)]
        )
        toned = Image.merge("RGB", (grey, grey, grey))
    toned.putalpha(sprite.getchannel("A"))
    ratio = np.exp(rng.uniform(-1, 1) * forms.stretch)
    side = size * rng.uniform(*forms.size)
    toned = toned.rotate(
        float(np.clip(rng.normal(0, forms.turn), -35, 35)), Image.Resampling.BICUBIC
    )
    toned = _resized(toned, int(side * ratio**0.5), int(side / ratio**0.5))
    return toned.crop(toned.getchannel("A").getbbox())


# ------------------------------------------------------------------------------------------ atmosphere

TEXTURES = ("plain", "confetti", "stars", "bokeh", "stripes", "cracks", "blotches", "grain")
LIGHTS = ("flat", "glow", "rays", "harsh", "vignette")
WEATHERS = ("clear", "clouds", "fog", "rain")
SETTINGS = ("field", "room", "water", "street")


@dataclass(frozen=True)
class Mood:
    """Distribution of an atmosphere: means (and spreads) of hue in degrees, saturation and
    brightness in 0..1, and the favoured texture, light and weather."""

    hue: tuple[float, float]
    saturation: tuple[float, float]
    brightness: tuple[float, float]
    textures: tuple[str, ...]
    lights: tuple[str, ...]
    weathers: tuple[str, ...]


MOODS = {
    "amusement": Mood(
        (45, 20), (0.70, 0.14), (0.93, 0.07), ("confetti",), ("glow", "flat"), ("clear",)
    ),
    "awe": Mood((232, 26), (0.58, 0.15), (0.70, 0.13), ("stars",), ("rays",), ("clear", "clouds")),
    "contentment": Mood(
        (110, 30), (0.36, 0.11), (0.86, 0.08), ("bokeh",), ("glow",), ("clear", "clouds")
    ),
    "excitement": Mood(
        (325, 26), (0.80, 0.12), (0.92, 0.08), ("stripes",), ("glow", "harsh"), ("clear",)
    ),
    "anger": Mood(
        (6, 14), (0.80, 0.12), (0.52, 0.13), ("cracks",), ("harsh",), ("clear", "clouds")
    ),
    "disgust": Mood(
        (70, 17), (0.56, 0.14), (0.44, 0.12), ("blotches",), ("flat",), ("fog", "clear")
    ),
    "fear": Mood((262, 36), (0.36, 0.15), (0.24, 0.09), ("grain",), ("vignette",), ("fog",)),
    "sadness": Mood((212, 20), (0.20, 0.10), (0.48, 0.12), ("plain",), ("flat",), ("rain",)),
}


@dataclass(frozen=True)
class Blur:
    """How far moods overlap: ``spread`` widens the colour distributions, ``favour`` is how often an
    emotion's own texture, light and weather are drawn, and not any."""

    spread: float
    favour: float


LABELLED, UNLABELLED = Blur(1.5, 0.6), Blur(1.75, 0.55)


@dataclass(frozen=True)
class Atmosphere:
    """How a scene looks: hue in degrees, saturation and brightness in 0..1, texture, light and
    weather."""

    hue: float
    saturation: float
    brightness: float
    texture: str
    light: str
    weather: str

    def colour(
        self, turn: float = 0.0, saturation: float = 1.0, brightness: float = 1.0
    ) -> np.ndarray:
        """RGB in 0..255 of the palette, with the hue turned (degrees) and the rest scaled."""
        s, v = min(self.saturation * saturation, 1.0), min(self.brightness * brightness, 1.0)
        return 255 * np.array(colorsys.hsv_to_rgb((self.hue + turn) / 360 % 1, s, v))


def draw_atmosphere(
    rng: np.random.Generator, emotion: str | None, blur: Blur = LABELLED
) -> Atmosphere:
    """Draw the atmosphere of an emotion, or a neutral one (muted, any hue, nothing special) for
    ``None``."""
    if emotion is None:
        return Atmosphere(
            hue=float(rng.uniform(0, 360)),
            saturation=float(rng.uniform(0.04, 0.26)),
            brightness=float(rng.uniform(0.55, 0.82)),
            texture="plain" if rng.random() < 0.8 else str(rng.choice(TEXTURES)),
            light="flat" if rng.random() < 0.8 else str(rng.choice(LIGHTS)),
            weather="clear" if rng.random() < 0.8 else str(rng.choice(WEATHERS)),
        )
    mood = MOODS[emotion]

    def pick(own: tuple[str, ...], every: tuple[str, ...]) -> str:
        return str(rng.choice(own if rng.random() < blur.favour else every))

    return Atmosphere(
        hue=float((mood.hue[0] + blur.spread * mood.hue[1] * rng.standard_normal()) % 360),
        saturation=float(
            np.clip(
                mood.saturation[0] + blur.spread * mood.saturation[1] * rng.standard_normal(),
                0.02,
                1,
            )
        ),
        brightness=float(
            np.clip(
                mood.brightness[0] + blur.spread * mood.brightness[1] * rng.standard_normal(),
                0.10,
                1,
            )
        ),
        texture=pick(mood.textures, TEXTURES),
        light=pick(mood.lights, LIGHTS),
        weather=pick(mood.weathers, WEATHERS),
    )


# --------------------------------------------------------------------------------------------- painting


def _rgb(colour: np.ndarray) -> tuple[int, int, int]:
    return tuple(int(c) for c in np.clip(colour, 0, 255))


def _paint_setting(
    rng: np.random.Generator, look: Atmosphere, setting: str
) -> tuple[Image.Image, int]:
    """The empty stage at ``_ZOOM`` times the size, and the row (in final pixels) where the ground
    begins."""
    side = SIZE * _ZOOM
    horizon = int(rng.integers(56, 72))
    far, near = look.colour(), look.colour(rng.normal(0, 10), 0.9, 0.70)
    rows = np.linspace(0, 1, side)[:, None, None]
    sky = far * (1.06 - 0.12 * rows) if setting == "room" else far * (0.9 + 0.22 * rows)
    stage = Image.fromarray(
        np.broadcast_to(np.clip(sky, 0, 255), (side, side, 3)).astype(np.uint8).copy()
    )
    draw = ImageDraw.Draw(stage)
    edge = horizon * _ZOOM
    if setting == "field":
        x = np.arange(0, side + 8, 8)
        for shade, lift in ((0.84, 24), (0.76, 10)):
            wave = np.sin(x / rng.uniform(24, 60) + rng.uniform(0, 6)) * rng.uniform(4, 12)
            hill = [(int(a), int(edge - lift - b)) for a, b in zip(x, wave, strict=True)]
            draw.polygon(
                [*hill, (side + 8, side), (0, side)], fill=_rgb(look.colour(12, 0.9, shade))
            )
        draw.rectangle((0, edge, side, side), fill=_rgb(near))
        for _ in range(16):
            gx, gy = int(rng.integers(0, side)), int(rng.integers(edge + 6, side))
            draw.line(
                (gx, gy, gx + int(rng.integers(-4, 5)), gy - 7), fill=_rgb(near * 0.82), width=2
            )
    elif setting == "room":
        draw.rectangle((0, edge, side, side), fill=_rgb(near))
        draw.rectangle((0, edge - 6, side, edge), fill=_rgb(near * 1.18))
        wx, wy, ww, wh = (
            int(rng.integers(16, 136)),
            int(rng.integers(12, 28)),
            int(rng.integers(52, 72)),
            int(rng.integers(52, 70)),
        )
        draw.rectangle((wx - 4, wy - 4, wx + ww + 4, wy + wh + 4), fill=_rgb(near * 0.9))
        draw.rectangle((wx, wy, wx + ww, wy + wh), fill=_rgb(look.colour(20, 0.5, 1.25)))
        draw.line((wx + ww // 2, wy, wx + ww // 2, wy + wh), fill=_rgb(near * 0.9), width=4)
        draw.line((wx, wy + wh // 2, wx + ww, wy + wh // 2), fill=_rgb(near * 0.9), width=4)
        for x in range(-side, 2 * side, 44):
            draw.line(
                (side // 2 + (x - side // 2) // 2, edge, x, side), fill=_rgb(near * 0.88), width=2
            )
    elif setting == "water":
        draw.rectangle((0, edge - 6, side, side), fill=_rgb(look.colour(-14, 1.05, 0.78)))
        draw.ellipse((side * 0.66, 20, side * 0.66 + 36, 56), fill=_rgb(look.colour(0, 0.45, 1.3)))
        for _ in range(26):
            wx, wy = int(rng.integers(-10, side)), int(rng.integers(edge, side - 40))
            draw.arc(
                (wx, wy, wx + 26, wy + 9), 200, 340, fill=_rgb(look.colour(-14, 0.8, 0.95)), width=2
            )
        draw.polygon(
            [(0, side - 34), (side, side - 48), (side, side), (0, side)], fill=_rgb(near * 0.95)
        )
    else:  # street
        x = int(rng.integers(-20, 0))
        while x < side:
            width, top = int(rng.integers(34, 60)), int(rng.integers(16, edge - 40))
            draw.rectangle(
                (x, top, x + width, edge), fill=_rgb(look.colour(8, 0.85, rng.uniform(0.74, 0.9)))
            )
            for px in range(x + 7, x + width - 8, 14):
                for py in range(top + 8, edge - 12, 18):
                    draw.rectangle(
                        (px, py, px + 6, py + 8),
                        fill=_rgb(look.colour(0, 0.5, rng.choice((0.6, 1.25)))),
                    )
            x += width + int(rng.integers(0, 10))
        draw.rectangle((0, edge, side, side), fill=_rgb(near))
        draw.rectangle((0, edge, side, edge + 10), fill=_rgb(near * 1.12))
        for px in range(-10, side, 60):
            draw.rectangle((px, side - 40, px + 30, side - 35), fill=_rgb(near * 1.35))
    return stage, horizon


def _paint_texture(rng: np.random.Generator, look: Atmosphere, stage: Image.Image) -> Image.Image:
    side = stage.width
    bright, dark = look.colour(18, 0.75, 1.35), look.colour(-8, 1.1, 0.62)
    layer = Image.new("RGBA", stage.size)
    draw = ImageDraw.Draw(layer)
    if look.texture == "confetti":
        for _ in range(46):
            x, y, r = *rng.integers(0, side, 2), rng.integers(3, 8)
            tone = _rgb(
                255
                * np.array(
                    colorsys.hsv_to_rgb((look.hue / 360 + rng.normal(0, 0.12)) % 1, 0.75, 0.95)
                )
            )
            draw.ellipse((int(x - r), int(y - r), int(x + r), int(y + r)), fill=(*tone, 210))
    elif look.texture == "stars":
        for _ in range(40):
            x, y, r = (
                int(rng.integers(0, side)),
                int(rng.integers(0, side * 0.62)),
                int(rng.integers(1, 4)),
            )
            draw.line((x - 2 * r, y, x + 2 * r, y), fill=(255, 255, 240, 220), width=2)
            draw.line((x, y - 2 * r, x, y + 2 * r), fill=(255, 255, 240, 220), width=2)
    elif look.texture == "bokeh":
        for _ in range(13):
            x, y, r = *rng.integers(0, side, 2), rng.integers(12, 30)
            draw.ellipse((int(x - r), int(y - r), int(x + r), int(y + r)), fill=(*_rgb(bright), 62))
    elif look.texture == "stripes":
        lean, start = int(rng.integers(40, 150)), int(rng.integers(0, 30))
        for x in range(-2 * side + start, side, 30):
            draw.line((x, side, x + side + lean, 0), fill=(*_rgb(bright), 130), width=8)
    elif look.texture == "cracks":
        for _ in range(7):
            x, y = rng.integers(0, side, 2).astype(float)
            points, angle = [(x, y)], rng.uniform(0, 2 * np.pi)
            for _ in range(7):
                turn = angle + rng.normal(0, 0.9)
                x, y = x + 22 * np.cos(turn), y + 22 * np.sin(turn)
                points.append((x, y))
            draw.line(points, fill=(*_rgb(dark), 235), width=4)
    elif look.texture == "blotches":
        for _ in range(16):
            x, y, r = *rng.integers(0, side, 2), rng.integers(10, 26)
            tone = _rgb(dark if rng.random() < 0.6 else bright)
            for _ in range(3):
                dx, dy = rng.normal(0, r / 2, 2)
                draw.ellipse(
                    (
                        int(x + dx - r),
                        int(y + dy - r * 0.7),
                        int(x + dx + r),
                        int(y + dy + r * 0.7),
                    ),
                    fill=(*tone, 110),
                )
    if layer.getbbox():
        stage.paste(layer, (0, 0), layer)
    return stage


def _place_objects(
    rng: np.random.Generator,
    look: Atmosphere,
    scene: Image.Image,
    nouns: Sequence[str],
    horizon: int,
    forms: Variety | None,
) -> list[tuple[int, int, int, int]]:
    """Paste the objects, the farthest first, each with a soft shadow; returns boxes (x, y, width,
    height)."""
    low, high = {1: (52, 63), 2: (44, 55), 3: (36, 45)}[len(nouns)]
    slots = {1: [56], 2: [31, 81], 3: [20, 56, 92]}[len(nouns)]
    slots = [slots[k] for k in rng.permutation(len(slots))]
    boxes: list[tuple[int, int, int, int]] = [(0, 0, 0, 0)] * len(nouns)
    feet = rng.integers(horizon + 20, SIZE - 3, len(nouns))
    tint = Image.new("RGB", (1, 1), _rgb(look.colour(0, 0.8, 1.0)))
    for number in np.argsort(feet):
        size = int(rng.integers(low, high))
        if forms is None:
            sprite = _sprite(nouns[number], size, int(rng.integers(-3, 4)) * 3)
        else:
            sprite = _vary(rng, nouns[number], size, forms)
        width, height = sprite.size
        x = int(np.clip(slots[number] + rng.normal(0, 4) - width / 2, 1, SIZE - width - 1))
        y = int(max(feet[number] - height, 2))
        shadow = Image.new("L", (width + 8, 12))
        ImageDraw.Draw(shadow).ellipse((3, 3, width + 4, 9), fill=105)
        shadow = shadow.filter(ImageFilter.BoxBlur(1.6))
        scene.paste((12, 10, 24), (x - 4, y + height - 7), shadow)
        toned = Image.blend(sprite.convert("RGB"), tint.resize(sprite.size), 0.10)
        scene.paste(toned, (x, y), sprite.getchannel("A"))
        boxes[number] = (x, y, width, height)
    return boxes


@functools.cache
def _grid() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[0:SIZE, 0:SIZE] / (SIZE - 1)
    return x, y


def _light_and_weather(
    rng: np.random.Generator, look: Atmosphere, scene: Image.Image
) -> Image.Image:
    x, y = _grid()
    pixels = np.asarray(scene, dtype=np.float32)
    gain = np.ones((SIZE, SIZE), dtype=np.float32)
    if look.light == "glow":
        cx, cy = rng.uniform(0.2, 0.8), rng.uniform(0.0, 0.35)
        gain += 0.42 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 0.11)
    elif look.light == "rays":
        cx = rng.uniform(0.25, 0.75)
        angle = np.arctan2(x - cx, y + 0.18)
        gain += 0.30 * (np.sin(angle * 17 + rng.uniform(0, 6)) > 0.25) * (1.05 - y)
    elif look.light == "harsh":
        side = x if rng.random() < 0.5 else 1 - x
        gain = 1.38 - 0.85 * side
    elif look.light == "vignette":
        gain -= 0.62 * np.clip(((x - 0.5) ** 2 + (y - 0.55) ** 2) * 2.6, 0, 1)
    pixels = pixels * gain[..., None]
    if look.texture == "grain":
        pixels = pixels + rng.normal(0, 17, (SIZE, SIZE, 1))
    if look.weather == "fog":
        haze = look.colour(0, 0.35, 1.15)
        veil = 0.15 + 0.4 * np.exp(-((y - rng.uniform(0.45, 0.7)) ** 2) / 0.03)
        pixels = pixels * (1 - 0.6 * veil[..., None]) + haze * 0.6 * veil[..., None]
    scene = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if look.weather in ("clouds", "rain"):
        layer = Image.new("RGBA", scene.size)
        draw = ImageDraw.Draw(layer)
        if look.weather == "clouds":
            tone = (*_rgb(look.colour(0, 0.35, 1.3)), 165)
            for _ in range(3):
                cx, cy = int(rng.integers(4, 100)), int(rng.integers(6, 26))
                for dx, dy, r in ((-9, 2, 6), (0, -2, 8), (9, 2, 6)):
                    draw.ellipse(
                        (cx + dx - r, cy + dy - r * 3 // 4, cx + dx + r, cy + dy + r * 3 // 4),
                        fill=tone,
                    )
        else:
            tone = (*_rgb(look.colour(0, 0.5, 1.45)), 165)
            for px, py in rng.integers(-6, SIZE, (60, 2)):
                draw.line((int(px), int(py), int(px) - 2, int(py) + 7), fill=tone)
        scene.paste(layer, (0, 0), layer)
    return scene


# --------------------------------------------------------------------------------------------- scenes


@dataclass(frozen=True)
class Scene:
    """One image with everything that is known of it.

    ``image``: RGB, 112 x 112. ``emotion``: what the cue evokes; ``label``: the same but for 5 %
    label noise. ``objects``: nouns; ``boxes``: (x, y, width, height) in pixels, in the order of
    ``objects``.
    """

    image: Image.Image
    emotion: str
    label: str
    cue: str
    objects: tuple[str, ...]
    boxes: tuple[tuple[int, int, int, int], ...]
    setting: str
    atmosphere: Atmosphere = field(repr=False)

    @property
    def caption(self) -> str:
        """What is there and where."""
        return caption(self.objects, self.setting)


def article(noun: str) -> str:
    """The noun with its article: ``an apple``."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def caption(nouns, setting: str) -> str:
    """What is there and where, never how it looks: ``a coffin and a chair in a room``."""
    place = {
        "field": "in a field",
        "room": "in a room",
        "water": "by the water",
        "street": "on a street",
    }[setting]
    things = [article(noun) for noun in nouns]
    listed = things[0] if len(things) == 1 else ", ".join(things[:-1]) + " and " + things[-1]
    return f"{listed} {place}"


def _compose(
    rng: np.random.Generator, nouns: list[str], look: Atmosphere, forms: Variety | None, **known
) -> Scene:
    setting = str(rng.choice(SETTINGS))
    stage, horizon = _paint_setting(rng, look, setting)
    scene = _paint_texture(rng, look, stage).reduce(_ZOOM)
    boxes = _place_objects(rng, look, scene, nouns, horizon, forms)
    image = _light_and_weather(rng, look, scene)
    return Scene(
        image, objects=tuple(nouns), boxes=tuple(boxes), setting=setting, atmosphere=look, **known
    )


def make_scene(split: str, number: int, seed: int = SEED) -> Scene:
    """Scene ``number`` of a labelled split. Emotions come in turn, cues 40 / 40 / 20 % within
    each."""
    rng = np.random.default_rng([seed, _STREAMS[split], number])
    emotion = MIKELS.labels[number % 8]
    cue = _CUE_CYCLE[number // 8 % 5]
    nouns = [
        str(n)
        for n in rng.choice(
            [o.noun for o in objects_of("neutral")], int(rng.integers(1, 4)), replace=False
        )
    ]
    if cue != "atmosphere":
        nouns[int(rng.integers(len(nouns)))] = str(
            rng.choice([o.noun for o in objects_of(emotion)])
        )
    look = draw_atmosphere(rng, None if cue == "content" else emotion)
    label = emotion
    if rng.random() < LABEL_NOISE:
        label = str(rng.choice([e for e in MIKELS.labels if e != emotion]))
    return _compose(rng, nouns, look, LABELLED_FORMS, emotion=emotion, label=label, cue=cue)


def make_unlabelled_scene(number: int, seed: int = SEED, varied: bool = True) -> Scene:
    """A scene for pretraining: any objects in any atmosphere, drawn apart, so that nothing can be
    learnt of what a palette evokes. Its random stream is never that of a labelled split.
    ``varied`` False: objects as in their drawings, for the beginning of pretraining."""
    rng = np.random.default_rng([seed, _STREAMS["unlabelled"], number])
    nouns = [
        str(n)
        for n in rng.choice(
            [o.noun for o in scene_objects()], int(rng.integers(1, 4)), replace=False
        )
    ]
    mood = None if rng.random() < 0.3 else str(rng.choice(MIKELS.labels))
    look = draw_atmosphere(rng, mood, UNLABELLED)
    return _compose(
        rng, nouns, look, UNLABELLED_FORMS if varied else None, emotion="", label="", cue=""
    )


def contact_sheet(scenes, columns: int = 12) -> Image.Image:
    """The scenes' images side by side, row by row."""
    scenes = list(scenes)
    sheet = Image.new("RGB", (columns * SIZE, -(-len(scenes) // columns) * SIZE), "white")
    for k, scene in enumerate(scenes):
        sheet.paste(scene.image, (SIZE * (k % columns), SIZE * (k // columns)))
    return sheet


# ---------------------------------------------------------------------------------------------- on disk

METADATA = (
    "file",
    "emotion",
    "cue",
    "objects",
    "boxes",
    "setting",
    "hue",
    "saturation",
    "brightness",
    "light",
    "texture",
    "weather",
    "label_noise",
    "caption",
)


def _row(scene: Scene, file: str) -> dict[str, object]:
    look = scene.atmosphere
    return {
        "file": file,
        "emotion": scene.emotion,
        "cue": scene.cue,
        "objects": ";".join(scene.objects),
        "boxes": ";".join(" ".join(map(str, box)) for box in scene.boxes),
        "setting": scene.setting,
        "hue": round(look.hue, 1),
        "saturation": round(look.saturation, 3),
        "brightness": round(look.brightness, 3),
        "light": look.light,
        "texture": look.texture,
        "weather": look.weather,
        "label_noise": scene.label != scene.emotion,
        "caption": scene.caption,
    }


def _write_split(folder: Path, split: str, count: int, seed: int) -> tuple[list[dict], list[str]]:
    """Write the scenes of a split below ``folder``; returns metadata rows and pixel hashes."""
    rows, hashes = [], []
    for number in range(count):
        scene = make_scene(split, number, seed)
        file = f"{split}/{scene.label}/{number:05d}.png"
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        scene.image.save(path, compress_level=1)
        rows.append(_row(scene, file))
        hashes.append(hashlib.sha256(scene.image.tobytes()).hexdigest())
    return rows, hashes


def _digest(hashes: list[str]) -> str:
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def ensure_scenes(
    root: Path | str = HOME, seed: int = SEED, sizes: dict[str, int] | None = None, say=print
) -> Path:
    """Make EmoScenes below ``root`` unless it is there; returns ``root``.

    Everything is written to a temporary folder beside its place and renamed; ``metadata.csv`` comes
    last and marks the set as complete. Several processes may call this at once: each writes the
    same pixels, and the first to rename wins. Raises InputError where ``root`` holds scenes of
    another seed or size.
    """
    root, sizes = Path(root), sizes or SPLIT_SIZES
    mark = {"seed": seed, "sizes": sizes}
    stamp = root / "scenes.json"
    if stamp.is_file() and (root / "metadata.csv").is_file():
        found = json.loads(stamp.read_text(encoding="utf-8"))
        if {k: found.get(k) for k in mark} != mark:
            raise InputError(
                f"{root} holds scenes of seed {found.get('seed')} and sizes {found.get('sizes')}; "
                "give another folder"
            )
        return root
    draft = root / f".making-{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    rows, hashes = [], {}
    for split, count in sizes.items():
        made, known = _write_split(draft, split, count, seed)
        rows += made
        hashes[split] = _digest(known)
    with (draft / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, METADATA)
        writer.writeheader()
        writer.writerows(rows)
    mark |= {
        "pillow": pillow_version,
        "sha256": hashes,
    }
    (draft / "scenes.json").write_text(json.dumps(mark, indent=1) + "\n", encoding="utf-8")
    for name in (*sizes, "scenes.json", "metadata.csv"):
        target = root / name
        try:
            os.rename(draft / name, target)
        except OSError:
            if not target.exists():
                raise
    shutil.rmtree(draft)
    say(
        f"[made] EmoScenes: {', '.join(f'{n} {split}' for split, n in sizes.items())} images in {root}"
    )
    if root == HOME:
        say(check_scenes(root)[1])
    return root


def check_scenes(root: Path | str = HOME) -> tuple[bool, str]:
    """Whether the pixels on disk are those of the published checksum, and a sentence that says
    so."""
    root = Path(root)
    known = json.loads((HOME / "checksum.json").read_text(encoding="utf-8"))
    for split, expected in known["sha256"].items():
        files = sorted((root / split).glob("*/*.png"), key=lambda path: path.name)
        hashes = []
        for path in files:
            with Image.open(path) as image:
                hashes.append(hashlib.sha256(image.tobytes()).hexdigest())
        if _digest(hashes) != expected:
            return False, (
                f"[differs] {split}: other pixels than those published with Pillow {known['pillow']} "
                f"(here {pillow_version}); results may differ a little from those in the course"
            )
    return True, f"[ok] EmoScenes: every pixel as published (seed {known['seed']})"


def main(args) -> int:
    """The command ``scenes``: make the set, ``--check`` its pixels, or ``--render`` the sprite
    sheet."""
    if args.render:
        render_sprites().save(HOME / "objects.png", optimize=True)
        print(f"[made] {HOME / 'objects.png'}: {len(scene_objects())} objects")
        return 0
    ensure_scenes(args.root)
    if args.check:
        good, sentence = check_scenes(args.root)
        print(sentence)
        return 0 if good else 1
    return 0
