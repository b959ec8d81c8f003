"""Maps of what a model looked at: the type, its file, and how much of a map lies on an object.
`explanations` makes them; here no model is needed (lesson 6)."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from .data import ImageDataset
from .evidence import bootstrap
from .files import load_tensors, save_tensors

Box = tuple[float, float, float, float]  # x, y, width, height in pixels
MAPS_FORMAT = "emokd-maps-1"
OCCLUSION, GRAD_CAM, ATTENTION = "occlusion", "Grad-CAM", "attention"
CAVEATS = {
    OCCLUSION: "A hidden part is a grey patch, and no model was trained on images with patches; what "
    "two parts show alike is missed, since hiding one leaves the other.",
    GRAD_CAM: "One cell of the last map of channels covers a large part of the image, and what speaks "
    "against the label is cut off.",
    ATTENTION: "Where tokens are read from is not why an answer is given, and a visual token also "
    "holds what the visual encoder gathered from elsewhere.",
}
CELLS, WINDOW = 8, 2  # of occlusion: cells a side, and of these the patch that hides


@dataclass(frozen=True, eq=False)
class Explanation:
    """A map over an image: values (rows, columns), of occlusion the fall of the label's probability
    (-1..1) when a cell is hidden, of Grad-CAM at least 0, of attention the share of a visual token
    (sum 1). label: that it is about, "" for attention. area: left, top, right and bottom of what it
    covers, in shares of the image's sides."""

    values: np.ndarray
    method: str
    model: str = ""
    label: str = ""
    area: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)

    @property
    def caveat(self) -> str:
        """What this kind of map leaves open."""
        return CAVEATS[self.method]

    def on_pixels(self, width: int, height: int) -> np.ndarray:
        """(height, width): each pixel has its cell's value, and nan outside of the area."""
        left, top, right, bottom = self.area
        rows, columns = self.values.shape
        row = np.floor(((np.arange(height) + 0.5) / height - top) / (bottom - top) * rows)
        column = np.floor(((np.arange(width) + 0.5) / width - left) / (right - left) * columns)
        inside = ((row >= 0) & (row < rows))[:, None] & ((column >= 0) & (column < columns))
        row, column = row.clip(0, rows - 1).astype(int), column.clip(0, columns - 1).astype(int)
        return np.where(inside, self.values[row[:, None], column], np.nan)


Maps = Mapping[str, Mapping[str, Explanation]]  # image id -> name -> map


def save_explanations(path: str | Path, maps: Maps) -> None:
    """Write the maps of images, by name, as safetensors."""
    tensors, about = {}, []
    for image_id, of_image in maps.items():
        for name, shown in of_image.items():
            tensors[str(len(about))] = shown.values
            about.append([image_id, name, shown.method, shown.model, shown.label, shown.area])
    save_tensors(path, tensors, about, MAPS_FORMAT)


def load_explanations(path: str | Path) -> dict[str, dict[str, Explanation]]:
    """What `save_explanations` wrote. Raises InputError as `files.load_tensors`."""
    tensors, about = load_tensors(path, MAPS_FORMAT)
    maps: dict[str, dict[str, Explanation]] = {}
    for number, (image_id, name, method, model, label, area) in enumerate(about):
        shown = Explanation(tensors[str(number)], method, model, label, tuple(area))
        maps.setdefault(image_id, {})[name] = shown
    return maps


def share_inside(explanation: Explanation, boxes: Sequence[Box], size: tuple[int, int]) -> float:
    """The share, 0..1 or nan, of what is above 0 in a map that lies in boxes; size in pixels."""
    values = np.nan_to_num(explanation.on_pixels(*size)).clip(0)
    total = values.sum()
    return float(values[_inside(boxes, size)].sum() / total) if total else math.nan


def share_table(
    maps: Maps, dataset: ImageDataset, boxes_of: Callable[..., Mapping[str, Box]], by: pd.Series
) -> pd.DataFrame:
    """How much of each map lies in boxes: `boxes_of` of the data set and an image id, by name. A
    row for each group of `by`, of an image id, and map: n images with something above 0 in the map;
    the mean share in the boxes, low and high; the boxes' mean share of the area, what a map that
    knows nothing gives; inside_more, the share of images whose map has more in them than that."""
    rows = []
    for image_id, of_image in maps.items():
        size = dataset.open(image_id).size
        boxes = list(boxes_of(dataset, image_id).values())
        area = float(_inside(boxes, size).mean())
        shares = {name: share_inside(shown, boxes, size) for name, shown in of_image.items()}
        rows += [(by[image_id], name, share, area) for name, share in shares.items()]
    table = pd.DataFrame(rows, columns=[by.name, "map", "share", "area"]).dropna()
    measured = []
    for (group, name), part in table.groupby([by.name, "map"], sort=False):
        mean, low, high, n = bootstrap(part["share"].to_numpy())
        inside_more = (part["share"] > part["area"]).mean()
        measured.append((group, name, n, mean, low, high, part["area"].mean(), inside_more))
    columns = [by.name, "map", "n", "share", "low", "high", "area", "inside_more"]
    return pd.DataFrame(measured, columns=columns).set_index([by.name, "map"])


def _inside(boxes: Sequence[Box], size: tuple[int, int]) -> np.ndarray:
    """(height, width) bool: the pixels whose middle lies in a box."""
    x, y = np.arange(size[0]) + 0.5, np.arange(size[1])[:, None] + 0.5
    inside = np.zeros((size[1], size[0]), dtype=bool)
    for left, top, width, height in boxes:
        inside |= (x >= left) & (x < left + width) & (y >= top) & (y < top + height)
    return inside
