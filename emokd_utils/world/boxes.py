"""Where the objects of EmoScenes' images are, from its metadata."""

from __future__ import annotations

from ..data import ImageDataset
from ..errors import InputError
from ..maps import Box
from .scenes import scene_objects


def boxes(dataset: ImageDataset, image_id: str) -> dict[str, Box]:
    """Where the objects of an image are, by noun: x, y, width, height in pixels.

    Raises InputError where the metadata has no columns ``objects`` and ``boxes``.
    """
    table = dataset.table
    if not {"objects", "boxes"} <= set(table.columns):
        raise InputError(f"{dataset.root} does not say where its objects are: EmoScenes does")
    nouns, places = (str(table.loc[image_id, name]).split(";") for name in ("objects", "boxes"))
    return {
        noun: tuple(float(number) for number in place.split())
        for noun, place in zip(nouns, places, strict=True)
    }


def cue_boxes(dataset: ImageDataset, image_id: str) -> dict[str, Box]:
    """The boxes of the objects that evoke an emotion; where there is none, as on images led by
    atmosphere, of all objects."""
    emotion = {thing.noun: thing.emotion for thing in scene_objects()}
    all_boxes = boxes(dataset, image_id)
    evocative = {noun: box for noun, box in all_boxes.items() if emotion.get(noun) != "neutral"}
    return evocative or all_boxes
