"""EmoScenes, the built-in data: small scenes whose every emotional cue is known.

What an image evokes comes from an evocative object (cue ``content``), from palette, light, texture
and weather (``atmosphere``), or ``both``; the rest is neutral. Each image depends only on (seed,
split, number). The datasheet ``data/emoscenes/README.md`` names the studies behind it."""

import csv
import functools
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from PIL import Image

from ..emotions import MIKELS
from ..profiles import project_root
from .painting import LIGHTS, SETTINGS, TEXTURES, WEATHERS, Atmosphere, Box, Variety, paint

HOME = project_root() / "data" / "emoscenes"
SEED = 2025
LABEL_NOISE = 0.05
CELL = 72  # pixels of an object on the sprite sheet
_CUE_CYCLE = ("content", "atmosphere", "both", "atmosphere", "content")  # 40 %, 40 %, 20 %
_STREAMS = {"train": 1, "val": 2, "test": 3, "unlabelled": 4}


@dataclass(frozen=True)
class SceneObject:
    """A noun of the world: its emotion (``neutral`` for none) and, in a few words, why."""

    noun: str
    emotion: str
    why: str


@functools.cache
def scene_objects() -> tuple[SceneObject, ...]:
    """The nouns of ``data/emoscenes/objects.csv``, in the order of the file and of the sheet."""
    with (HOME / "objects.csv").open(encoding="utf-8", newline="") as file:
        return tuple(SceneObject(**row) for row in csv.DictReader(file))


def objects_of(emotion: str) -> list[SceneObject]:
    """The objects that evoke ``emotion``, or the ``neutral`` ones."""
    return [item for item in scene_objects() if item.emotion == emotion]


@functools.cache
def sprites() -> dict[str, Image.Image]:
    """The drawing of each noun, RGBA, from the sprite sheet."""
    sheet = Image.open(HOME / "objects.png").convert("RGBA")
    corners = ((k % 8 * CELL, k // 8 * CELL) for k in range(len(scene_objects())))
    cells = (sheet.crop((x, y, x + CELL, y + CELL)) for x, y in corners)
    return {item.noun: cell for item, cell in zip(scene_objects(), cells, strict=True)}


# Pretraining sees things in more forms, and moods that overlap more, than the labelled scenes.
LABELLED = Variety(1.5, 0.6, 35, (0.6, 1.15), (0.75, 1.1), (0.82, 1.0), 0.05, 0.15, 8)
UNLABELLED = Variety(1.75, 0.55, 40, (0.55, 1.15), (0.7, 1.1), (0.8, 1.0), 0.07, 0.18, 9)

# Each mood: mean and spread of hue (degrees), saturation and brightness (0..1), and what it favours.
_MOODS = tomllib.loads((HOME / "moods.toml").read_text("utf-8"))
MOODS = {emotion: SimpleNamespace(**mood) for emotion, mood in _MOODS.items()}


def draw_atmosphere(rng: np.random.Generator, emotion: str | None, variety: Variety) -> Atmosphere:
    """The atmosphere of an emotion, or for None a neutral one: muted, any hue, nothing special."""
    if emotion is None:
        ranges = (0, 360), (0.04, 0.26), (0.55, 0.82)
        hue, saturation, brightness = (rng.uniform(low, high) for low, high in ranges)
        favourites, favour = (("plain",), ("flat",), ("clear",)), 0.8
    else:
        mood = MOODS[emotion]
        hue, saturation, brightness = (
            mean + variety.spread * deviation * rng.standard_normal()
            for mean, deviation in (mood.hue, mood.saturation, mood.brightness)
        )
        hue, saturation = hue % 360, np.clip(saturation, 0.02, 1)
        brightness = np.clip(brightness, 0.10, 1)
        favourites, favour = (mood.textures, mood.lights, mood.weathers), variety.favour
    words = (
        str(rng.choice(own if rng.random() < favour else every))
        for own, every in zip(favourites, (TEXTURES, LIGHTS, WEATHERS), strict=True)
    )
    return Atmosphere(float(hue), float(saturation), float(brightness), *words)


@dataclass(frozen=True)
class Scene:
    """One image (RGB, 112 x 112) with what is known of it; the label is another for 5 %."""

    image: Image.Image
    emotion: str
    label: str
    cue: str
    objects: tuple[str, ...]
    boxes: tuple[Box, ...]
    setting: str
    caption: str
    atmosphere: Atmosphere


def article(noun: str) -> str:
    """The noun with its article: ``an apple``."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


_PLACES = ("in a field", "in a room", "by the water", "on a street")
PLACES = dict(zip(SETTINGS, _PLACES, strict=True))


def caption(nouns: Iterable[str], setting: str) -> str:
    """What is there and where, never how it looks: ``a coffin and a chair in a room``."""
    *others, last = (article(noun) for noun in nouns)
    first = f"{', '.join(others)} and " if others else ""
    return f"{first}{last} {PLACES[setting]}"


@dataclass(frozen=True)
class World:
    """What may differ between worlds. content: of the images with one cue, the share that content
    leads, 0.5 or fifths of 1; learnt_content: that of train and val, where it is another one.
    label_noise: the share of labels that are replaced, 0..1."""

    content: float = 0.5
    learnt_content: float | None = None
    label_noise: float = LABEL_NOISE

    def cue(self, split: str, turn: int) -> str:
        """The cue of an emotion's image; in each five one has both."""
        learnt = split != "test" and self.learnt_content is not None
        share = self.learnt_content if learnt else self.content
        if turn % 5 == 2 or share == 0.5:
            return _CUE_CYCLE[turn % 5]
        place = turn - (turn + 2) // 5  # among the images with one cue
        return "content" if place % 5 < round(5 * share) else "atmosphere"


USUAL = World()


def make_scene(split: str, number: int, seed: int = SEED, world: World = USUAL) -> Scene:
    """Scene ``number`` of a labelled split: emotions in turn, cues 40 / 40 / 20 % within each."""
    rng = np.random.default_rng([seed, _STREAMS[split], number])
    emotion = label = MIKELS.labels[number % 8]
    cue = world.cue(split, number // 8)
    nouns = _some_nouns(rng, objects_of("neutral"))
    if cue != "atmosphere":
        evocative = str(rng.choice([item.noun for item in objects_of(emotion)]))
        nouns[rng.integers(len(nouns))] = evocative
    look = draw_atmosphere(rng, None if cue == "content" else emotion, LABELLED)
    if rng.random() < world.label_noise:
        label = str(rng.choice([other for other in MIKELS.labels if other != emotion]))
    return _compose(rng, nouns, look, LABELLED, emotion, label, cue)


def make_unlabelled_scene(number: int, seed: int = SEED, varied: bool = True) -> Scene:
    """Any objects in any atmosphere, for pretraining; not ``varied``: as in their drawings."""
    rng = np.random.default_rng([seed, _STREAMS["unlabelled"], number])
    nouns = _some_nouns(rng, scene_objects())
    mood = None if rng.random() < 0.3 else str(rng.choice(MIKELS.labels))
    look = draw_atmosphere(rng, mood, UNLABELLED)
    return _compose(rng, nouns, look, UNLABELLED if varied else None)


def _some_nouns(rng: np.random.Generator, objects: Iterable[SceneObject]) -> list[str]:
    count = int(rng.integers(1, 4))
    return [str(noun) for noun in rng.choice([o.noun for o in objects], count, replace=False)]


def _compose(rng, nouns, look, forms, emotion="", label="", cue="") -> Scene:
    setting = str(rng.choice(SETTINGS))
    image, boxes = paint(rng, look, setting, [sprites()[noun] for noun in nouns], forms)
    where = setting, caption(nouns, setting)
    return Scene(image, emotion, label, cue, tuple(nouns), tuple(boxes), *where, look)
