"""Where the objects of EmoScenes' images are, from its metadata."""

from ..data import ImageDataset
from ..errors import InputError
from ..maps import Box
from .scenes import objects_of


def boxes(dataset: ImageDataset, image_id: str) -> dict[str, Box]:
    """Where the objects of an image are, by noun: x, y, width, height in pixels.

    Raises InputError where the metadata has no columns ``objects`` and ``boxes``."""
    if not {"objects", "boxes"} <= set(dataset.table.columns):
        raise InputError(f"{dataset.root} does not say where its objects are: EmoScenes does")
    row = dataset.table.loc[image_id]
    nouns, places = str(row["objects"]).split(";"), str(row["boxes"]).split(";")
    return {n: tuple(map(float, place.split())) for n, place in zip(nouns, places, strict=True)}


def cue_boxes(dataset: ImageDataset, image_id: str) -> dict[str, Box]:
    """The boxes of the objects that evoke an emotion; where there is none, of all objects."""
    all_boxes = boxes(dataset, image_id)
    neutral = {item.noun for item in objects_of("neutral")}
    return {noun: box for noun, box in all_boxes.items() if noun not in neutral} or all_boxes
