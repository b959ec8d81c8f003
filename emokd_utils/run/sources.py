"""Where a run's images and models come from: a folder of images with models, or an archive without.

A source says what keys are made of. What an archive's run.json says, a folder's source finds in
images and weights; so both find their results under the same keys."""

import functools
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from PIL import Image, ImageDraw

from ..data import ImageDataset, load_dataset
from ..errors import InputError
from ..files import fingerprint
from ..images import open_image
from ..profiles import Profile, project_root
from ..world import files as world
from .card import CARD, read_card
from .stages import scanned
from .store import remembered_checksum

CHEAP = "head head_logits gate gate_logits regression".split()  # an archive makes these too
SHIPPED = project_root() / "data" / "mini_run"  # what `ship` wrote of the built-in run


class FolderSource:
    """Images in a folder, and the profile's models. memory: where checksums of weights are
    remembered. skip_bad, resplit: as of `open_run`."""

    without_weights = ""
    found = ""  # what the scan found, in a line
    may_make = staticmethod(lambda stage: True)

    def __init__(
        self, profile: Profile, root: Path, memory: Path, skip_bad: bool, resplit: int | None
    ) -> None:
        self.profile, self.root, self.skip_bad, self.resplit = profile, root, skip_bad, resplit
        self._checksum = functools.partial(remembered_checksum, memory=memory)
        self.name = root.resolve().name
        self.built_in = root.resolve() == world.HOME.resolve()
        self.shipped = SHIPPED if self.built_in else None

    def dataset(self, run) -> ImageDataset:
        """The images; EmoScenes is made on first use, and every data set is scanned once."""
        if self.built_in:
            world.ensure_scenes(self.root, say=run.store.say)
        if not self.root.is_dir():
            raise InputError(f"{self.root} is no folder: give the one with train/ and test/")
        report = run.artefact(scanned).value
        if report.found:
            run.store.say(f"[found] {report.found}")
        self.found = report.found
        dataset = load_dataset(self.root, skip_bad=self.skip_bad, report=report)
        if self.built_in and (known := world.published_fingerprint(report.images["pixels"])):
            dataset = replace(dataset, fingerprint=known)
        if self.resplit is not None:
            dataset = dataset.resplit(self.resplit)
        count = self.profile.images_per_split
        return _few_of_each_split(dataset, count) if count else dataset

    def check(self, dataset: ImageDataset) -> None:
        """InputError for images that could not be trained on, before anything costly is begun."""
        classes = dataset.table.groupby("split")["label"].nunique()
        if classes["train"] < 2:
            raise InputError(f"{self.root}: train has images of one class: two or more are needed")
        split, folds = self.profile.gate_split, self.profile.gate.folds
        if (rows := len(dataset.split(split))) < folds:
            mend = f"add images to {split}, or --set gate.folds={rows if rows > 1 else 0}"
            raise InputError(
                f"{self.root}: {rows} images of {split} cannot make the gate's {folds} folds: {mend}"
            )

    @property
    def vlm(self) -> str:
        """The VLM's folder, or its id on the hub."""
        local = self.profile.path(self.profile.vlm.name)
        return str(local) if local.is_dir() else self.profile.vlm.name

    @functools.cached_property
    def revision(self) -> str:
        """The revision of the hub's model: the one that was fetched, else the newest."""
        if Path(self.vlm).is_dir():
            return ""
        kept = try_to_load_from_cache(self.vlm, "config.json")
        if isinstance(kept, str):
            return Path(kept).parent.name  # snapshots/<revision>/config.json
        try:
            return HfApi().model_info(self.vlm).sha
        except (HfHubHTTPError, OfflineModeIsEnabled, OSError, ValueError) as error:
            raise InputError(
                f"{self.vlm} cannot be loaded: {str(error).splitlines()[0]} (Give the folder of a "
                "saved model, or its id on the Hugging Face hub, which must be in reach.)"
            ) from error

    @functools.cached_property
    def vlm_key(self) -> str:
        """The hub's id and revision, or the checksum of a folder's files; and how the VLM is used,
        where that is not as published."""
        folder = Path(self.vlm)
        key = f"{self.vlm}@{self.revision}"
        if folder.is_dir():
            files = [p for p in sorted(folder.glob("*")) if p.suffix in _PARTS]
            key = fingerprint({path.name: self._checksum(path) for path in files})
        if pixels := self.profile.vlm.pixels:
            key += f" {pixels} pixels"
        return key + " nf4" * (self.profile.vlm.quantize == "nf4")

    def metadata_key(self, dataset: ImageDataset) -> str:
        """Of all that is known of the images, which the offline writer puts into words."""
        return fingerprint(dataset.table.astype(str).fillna("").to_dict("list"))

    def mark_of(self, name: str) -> str:
        """What a key holds of a file that the profile names: its checksum; else the name."""
        file = self.profile.path(name)
        return self._checksum(file) if name and file.is_file() else name


_PARTS = (".json", ".jinja", ".safetensors")


def _few_of_each_split(dataset: ImageDataset, count: int) -> ImageDataset:
    ids = []
    for split in ("train", "val", "test"):
        part = dataset.split(split)
        order = np.random.default_rng(0).permutation(len(part))[:count]
        ids += [part.ids[k] for k in sorted(order)]
    return dataset.select(ids)


class ArchiveSource:
    """A run that was imported: results without weights. folder: where it was installed."""

    resplit = shipped = None
    found = ""
    check = staticmethod(lambda dataset: None)  # it has been trained on
    may_make = staticmethod(lambda stage: stage.name in CHEAP)

    def __init__(self, folder: Path, profile: Profile | None = None) -> None:
        self.root, self.card = folder, read_card((folder / CARD).read_bytes())
        self.profile = profile or self.card.profile
        self.name, self.built_in = folder.resolve().name, self.card.built_in
        self.vlm, self.vlm_key = self.card.profile.vlm.name, self.card.keys["vlm"]
        self.without_weights = (
            f"{self.name} was imported without weights: work from its predictions(), features(), "
            "teacher_logits(), heads and gates, or where it was exported"
        )

    def dataset(self, run) -> "ImportedDataset":
        """The images, as thumbnails where they were exported so."""
        card = self.card
        key = card.keys["data"]
        return ImportedDataset(self.root, card.label_set, card.table, key, card.pictures)

    def metadata_key(self, dataset: ImageDataset) -> str:
        """As where it was exported."""
        return self.card.keys["metadata"]

    def mark_of(self, name: str) -> str:
        """As where it was exported."""
        return self.card.files.get(name, name)


@dataclass(frozen=True, eq=False)
class ImportedDataset(ImageDataset):
    """A data set whose images are those that came with a run; no id is taken for a path."""

    pictures: str = "none"

    def select(self, ids: Iterable[str]) -> "ImportedDataset":
        """As `ImageDataset.select`."""
        chosen = super().select(ids)
        return self if chosen is self else ImportedDataset(**vars(chosen), pictures=self.pictures)

    def open(self, image: str) -> Image.Image:
        """The thumbnail of an image; a tile that says so where none came along."""
        if image not in self.table.index:
            return super().open(image)
        if self.pictures != "none":
            return open_image(self.root / picture_name(image))
        tile = Image.new("RGB", (224, 224), "#dddddd")
        words = {"font_size": 24, "anchor": "mm", "align": "center", "fill": "#444444"}
        ImageDraw.Draw(tile).text((112, 112), "image not in\nthe archive", **words)
        return tile


def picture_name(image: str) -> str:
    """Where the thumbnail of an image id lies below a run."""
    return f"pictures/{hashlib.sha256(image.encode()).hexdigest()[:32]}.webp"
