"""How a scene is painted: a setting, a texture over it, the objects, then light and weather.

Every choice is drawn from the scene's own generator, so the order of the draws belongs to the data
set: another order paints other pixels."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 112  # pixels; 16 visual tokens of 28 x 28 in TinyVLM
_ZOOM = 2  # settings and textures are drawn at twice the size and averaged down
_SIDE = SIZE * _ZOOM
_X, _Y = (axis / (SIZE - 1) for axis in np.meshgrid(np.arange(SIZE), np.arange(SIZE)))  # in 0..1

TEXTURES = ("plain", "confetti", "stars", "bokeh", "stripes", "cracks", "blotches", "grain")
LIGHTS = ("flat", "glow", "rays", "harsh", "vignette")
WEATHERS = ("clear", "clouds", "fog", "rain")
SETTINGS = ("field", "room", "water", "street")

Box = tuple[int, int, int, int]  # x, y, width, height in pixels


@dataclass(frozen=True)
class Atmosphere:
    """How a scene looks: hue in degrees, saturation and brightness in 0..1, and words."""

    hue: float
    saturation: float
    brightness: float
    texture: str
    light: str
    weather: str

    def colour(self, turn: float, saturation: float, brightness: float) -> np.ndarray:
        """RGB in 0..255 of the palette, with the hue turned (degrees) and the rest scaled."""
        s, v = min(self.saturation * saturation, 1.0), min(self.brightness * brightness, 1.0)
        return 255 * np.array(colorsys.hsv_to_rgb((self.hue + turn) / 360 % 1, s, v))

    def tone(self, turn: float, saturation: float, brightness: float) -> tuple[int, ...]:
        """The same for Pillow."""
        return _rgb(self.colour(turn, saturation, brightness))


@dataclass(frozen=True)
class Variety:
    """How far scenes stray from their moods, and objects from drawings (angles in degrees)."""

    spread: float
    favour: float
    hue: float
    saturation: tuple[float, float]
    brightness: tuple[float, float]
    size: tuple[float, float]
    sketch: float
    stretch: float
    turn: float


def paint(
    rng, look: Atmosphere, setting: str, sprites: Sequence[Image.Image], forms: Variety | None
) -> tuple[Image.Image, list[Box]]:
    """A scene's image and the boxes of its one to three sprites. forms None: they hardly vary."""
    horizon = int(rng.integers(56, 72))  # the row where the ground begins
    far, near = look.colour(0, 1, 1), look.colour(rng.normal(0, 10), 0.9, 0.70)
    rows = np.linspace(0, 1, _SIDE)[:, None, None]
    sky = far * (1.06 - 0.12 * rows if setting == "room" else 0.9 + 0.22 * rows)  # (_SIDE, 1, 3)
    pixels = np.broadcast_to(np.clip(sky, 0, 255), (_SIDE, _SIDE, 3))
    stage = Image.fromarray(pixels.astype(np.uint8))
    _SETTING_PAINTERS[setting](rng, look, near, horizon * _ZOOM, ImageDraw.Draw(stage))
    layer = Image.new("RGBA", stage.size)
    if look.texture in _TEXTURE_PAINTERS:
        light, dark = look.tone(18, 0.75, 1.35), look.tone(-8, 1.1, 0.62)
        _TEXTURE_PAINTERS[look.texture](rng, look.hue / 360, light, dark, ImageDraw.Draw(layer))
    stage.paste(layer, (0, 0), layer)
    scene = stage.reduce(_ZOOM)
    boxes = _place_objects(rng, look, scene, sprites, horizon, forms)
    return _add_weather(rng, look, _add_light(rng, look, scene)), boxes


def _rgb(colour: np.ndarray) -> tuple[int, ...]:
    return tuple(int(c) for c in np.clip(colour, 0, 255))


def _field(rng, look, near, edge, draw):
    x = np.arange(0, _SIDE + 8, 8)
    for shade, lift in ((0.84, 24), (0.76, 10)):
        wave = np.sin(x / rng.uniform(24, 60) + rng.uniform(0, 6)) * rng.uniform(4, 12)
        hill = np.stack([x, edge - lift - wave], -1).astype(int).flatten().tolist()
        draw.polygon([*hill, _SIDE + 8, _SIDE, 0, _SIDE], fill=look.tone(12, 0.9, shade))
    draw.rectangle((0, edge, _SIDE, _SIDE), fill=_rgb(near))
    for x, y, lean in rng.integers((0, edge + 6, -4), (_SIDE, _SIDE, 5), (16, 3)):
        draw.line((x, y, x + lean, y - 7), fill=_rgb(near * 0.82), width=2)


def _room(rng, look, near, edge, draw):
    draw.rectangle((0, edge, _SIDE, _SIDE), fill=_rgb(near))
    draw.rectangle((0, edge - 6, _SIDE, edge), fill=_rgb(near * 1.18))
    x, y, width, height = rng.integers((16, 12, 52, 52), (136, 28, 72, 70)).tolist()
    frame = _rgb(near * 0.9)
    draw.rectangle((x - 4, y - 4, x + width + 4, y + height + 4), fill=frame)
    draw.rectangle((x, y, x + width, y + height), fill=look.tone(20, 0.5, 1.25))
    draw.line((x + width // 2, y, x + width // 2, y + height), fill=frame, width=4)
    draw.line((x, y + height // 2, x + width, y + height // 2), fill=frame, width=4)
    for x in range(-_SIDE, 2 * _SIDE, 44):
        board = (_SIDE // 2 + (x - _SIDE // 2) // 2, edge, x, _SIDE)
        draw.line(board, fill=_rgb(near * 0.88), width=2)


def _water(rng, look, near, edge, draw):
    draw.rectangle((0, edge - 6, _SIDE, _SIDE), fill=look.tone(-14, 1.05, 0.78))
    draw.ellipse((_SIDE * 0.66, 20, _SIDE * 0.66 + 36, 56), fill=look.tone(0, 0.45, 1.3))
    for x, y in rng.integers((-10, edge), (_SIDE, _SIDE - 40), (26, 2)):
        draw.arc((x, y, x + 26, y + 9), 200, 340, fill=look.tone(-14, 0.8, 0.95), width=2)
    draw.polygon((0, _SIDE - 34, _SIDE, _SIDE - 48, _SIDE, _SIDE, 0, _SIDE), _rgb(near * 0.95))


def _street(rng, look, near, edge, draw):
    left = rng.integers(-20, 0)
    while left < _SIDE:
        width, top = rng.integers(34, 60), rng.integers(16, edge - 40)
        wall = look.tone(8, 0.85, rng.uniform(0.74, 0.9))
        draw.rectangle((left, top, left + width, edge), fill=wall)
        for x in range(left + 7, left + width - 8, 14):
            for y in range(top + 8, edge - 12, 18):
                window = look.tone(0, 0.5, rng.choice((0.6, 1.25)))
                draw.rectangle((x, y, x + 6, y + 8), fill=window)
        left += width + rng.integers(0, 10)
    draw.rectangle((0, edge, _SIDE, _SIDE), fill=_rgb(near))
    draw.rectangle((0, edge, _SIDE, edge + 10), fill=_rgb(near * 1.12))
    for x in range(-10, _SIDE, 60):
        draw.rectangle((x, _SIDE - 40, x + 30, _SIDE - 35), fill=_rgb(near * 1.35))


_SETTING_PAINTERS = dict(zip(SETTINGS, (_field, _room, _water, _street), strict=True))


def _confetti(rng, hue, light, dark, draw):
    for _ in range(46):
        x, y, radius = *rng.integers(0, _SIDE, 2), rng.integers(3, 8)
        colour = 255 * np.array(colorsys.hsv_to_rgb((hue + rng.normal(0, 0.12)) % 1, 0.75, 0.95))
        draw.circle((x, y), radius, fill=(*_rgb(colour), 210))


def _stars(rng, hue, light, dark, draw):
    for x, y, reach in rng.integers((0, 0, 1), (_SIDE, int(_SIDE * 0.62), 4), (40, 3)) * (1, 1, 2):
        draw.line((x - reach, y, x + reach, y), fill=(255, 255, 240, 220), width=2)
        draw.line((x, y - reach, x, y + reach), fill=(255, 255, 240, 220), width=2)


def _bokeh(rng, hue, light, dark, draw):
    for x, y, radius in rng.integers((0, 0, 12), (_SIDE, _SIDE, 30), (13, 3)):
        draw.circle((x, y), radius, fill=(*light, 62))


def _stripes(rng, hue, light, dark, draw):
    lean, start = rng.integers(40, 150), rng.integers(0, 30)
    for x in range(start - 2 * _SIDE, _SIDE, 30):
        draw.line((x, _SIDE, x + _SIDE + lean, 0), fill=(*light, 130), width=8)


def _cracks(rng, hue, light, dark, draw):
    for _ in range(7):
        x, y = rng.integers(0, _SIDE, 2)
        points, angle = [(x, y)], rng.uniform(0, 2 * np.pi)
        for _ in range(7):
            turn = angle + rng.normal(0, 0.9)
            x, y = x + 22 * np.cos(turn), y + 22 * np.sin(turn)
            points.append((x, y))
        draw.line(points, fill=(*dark, 235), width=4)


def _blotches(rng, hue, light, dark, draw):
    for _ in range(16):
        x, y, radius = *rng.integers(0, _SIDE, 2), rng.integers(10, 26)
        tone, flat = (*(dark if rng.random() < 0.6 else light), 110), 0.7 * radius
        for u, v in (x, y) + rng.normal(0, radius / 2, (3, 2)):
            draw.ellipse((u - radius, v - flat, u + radius, v + flat), fill=tone)


# Nothing is to be drawn for "plain"; "grain" lies over the light.
_PAINTERS = (_confetti, _stars, _bokeh, _stripes, _cracks, _blotches)
_TEXTURE_PAINTERS = dict(zip(TEXTURES[1:-1], _PAINTERS, strict=True))


def _place_objects(rng, look, scene, sprites, horizon, forms) -> list[Box]:
    low, high = {1: (52, 63), 2: (44, 55), 3: (36, 45)}[len(sprites)]
    slots = rng.permutation({1: [56], 2: [31, 81], 3: [20, 56, 92]}[len(sprites)])
    boxes: list[Box] = [(0, 0, 0, 0)] * len(sprites)
    feet = rng.integers(horizon + 20, SIZE - 3, len(sprites))
    tint = Image.new("RGB", (1, 1), look.tone(0, 0.8, 1.0))
    for number in np.argsort(feet):
        size = int(rng.integers(low, high))
        sprite = _varied(rng, sprites[number], size, forms)
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


def _varied(rng, sprite: Image.Image, size: int, forms: Variety | None) -> Image.Image:
    if forms is None:
        sprite = sprite.rotate(int(rng.integers(-3, 4)) * 3, Image.Resampling.BICUBIC)
        sprite = sprite.resize((size, size), Image.Resampling.LANCZOS)
        return sprite.crop(sprite.getchannel("A").getbbox())
    if rng.random() < 0.5:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    hue, saturation, value = sprite.convert("RGB").convert("HSV").split()
    turn = int(rng.normal(0, forms.hue) / 360 * 256)
    richness, brightness = rng.uniform(*forms.saturation), rng.uniform(*forms.brightness)
    hue = hue.point(lambda h: (h + turn) % 256)
    saturation = saturation.point(lambda s: min(255, int(s * richness)))
    value = value.point(lambda v: min(255, int(v * brightness)))
    toned = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
    if rng.random() < forms.sketch:
        pale = toned.convert("L").point(lambda v: v if v < 70 else 220 + (v - 70) // 8)
        toned = pale.convert("RGB")
    toned.putalpha(sprite.getchannel("A"))
    ratio, side = np.exp(rng.uniform(-1, 1) * forms.stretch), size * rng.uniform(*forms.size)
    degrees = float(np.clip(rng.normal(0, forms.turn), -35, 35))
    toned = toned.rotate(degrees, Image.Resampling.BICUBIC)
    toned = _resized(toned, int(side * ratio**0.5), int(side / ratio**0.5))
    return toned.crop(toned.getchannel("A").getbbox())


def _resized(sprite: Image.Image, width: int, height: int) -> Image.Image:
    """A square RGBA image in another size; Pillow's versions differ in which side they do first."""
    side, resample = sprite.width, Image.Resampling.LANCZOS
    rows_first = side - height > max(0, 2 * (side - width))
    between = (side, height) if rows_first else (width, side)
    halfway = sprite.convert("RGBa").resize(between, resample)
    return halfway.resize((width, height), resample).convert("RGBA")


def _add_light(rng, look: Atmosphere, scene: Image.Image) -> np.ndarray:
    """The lit scene, (SIZE, SIZE, 3), not yet cut to 0..255."""
    gain = np.ones((SIZE, SIZE), dtype=np.float32)
    if look.light == "glow":
        x, y = rng.uniform(0.2, 0.8), rng.uniform(0.0, 0.35)
        gain += 0.42 * np.exp(-((_X - x) ** 2 + (_Y - y) ** 2) / 0.11)
    elif look.light == "rays":
        angle = np.arctan2(_X - rng.uniform(0.25, 0.75), _Y + 0.18)
        gain += 0.30 * (np.sin(angle * 17 + rng.uniform(0, 6)) > 0.25) * (1.05 - _Y)
    elif look.light == "harsh":
        gain = 1.38 - 0.85 * (_X if rng.random() < 0.5 else 1 - _X)
    elif look.light == "vignette":
        gain -= 0.62 * np.clip(((_X - 0.5) ** 2 + (_Y - 0.55) ** 2) * 2.6, 0, 1)
    pixels = np.asarray(scene, dtype=np.float32) * gain[..., None]
    if look.texture == "grain":
        pixels = pixels + rng.normal(0, 17, (SIZE, SIZE, 1))
    return pixels


def _add_weather(rng, look: Atmosphere, pixels: np.ndarray) -> Image.Image:
    if look.weather == "fog":
        veil = 0.15 + 0.4 * np.exp(-((_Y[..., None] - rng.uniform(0.45, 0.7)) ** 2) / 0.03)
        pixels = pixels * (1 - 0.6 * veil) + look.colour(0, 0.35, 1.15) * 0.6 * veil
    scene = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    layer = Image.new("RGBA", scene.size)
    draw = ImageDraw.Draw(layer)
    if look.weather == "clouds":
        tone = (*look.tone(0, 0.35, 1.3), 165)
        for x, y in rng.integers((4, 6), (100, 26), (3, 2)):
            for dx, dy, wide, high in ((-9, 2, 6, 4), (0, -2, 8, 6), (9, 2, 6, 4)):
                box = (x + dx - wide, y + dy - high, x + dx + wide, y + dy + high)
                draw.ellipse(box, fill=tone)
    elif look.weather == "rain":
        tone = (*look.tone(0, 0.5, 1.45), 165)
        for x, y in rng.integers(-6, SIZE, (60, 2)).tolist():
            draw.line((x, y, x - 2, y + 7), fill=tone)
    scene.paste(layer, (0, 0), layer)
    return scene
