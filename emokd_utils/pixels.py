"""Images as a vision model takes them: the middle squares as pixels, and what it says of them."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import ImageOps
from torch import nn

from .data import ImageDataset


class Pixels:
    """The middle squares of a data set's images as uint8 (n, 3, size, size), in its order; kept where
    all fit in `cache_megabytes`, else decoded when asked for."""

    def __init__(self, dataset: ImageDataset, size: int, cache_megabytes: int) -> None:
        self.dataset, self.ids, self.size = dataset, dataset.ids, size
        self.threads = ThreadPoolExecutor()
        fits = len(self.ids) * 3 * size * size <= cache_megabytes * 2**20
        self.cache = self._decode(range(len(self.ids))) if fits else None

    def __getitem__(self, rows: torch.Tensor) -> torch.Tensor:
        """The images (len(rows), 3, size, size) of these rows."""
        return self._decode(rows.tolist()) if self.cache is None else self.cache[rows]

    def batches(self) -> Iterator[torch.Tensor]:
        """All images in order, at once at most 100, and no more pixels than 100 of 224 a side have."""
        size = min(100, 100 * 224**2 // self.size**2) or 1
        for rows in torch.arange(len(self.ids)).split(size):
            yield self[rows]

    def _decode(self, rows: Sequence[int]) -> torch.Tensor:
        pixels = np.empty((len(rows), self.size, self.size, 3), dtype=np.uint8)

        def decode(place: int, row: int) -> None:
            pixels[place] = ImageOps.fit(self.dataset.open(self.ids[row]), (self.size, self.size))

        list(self.threads.map(decode, range(len(rows)), rows))  # raises what a thread raised
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)  # (n, size, size, 3) -> channels first


def normalise(pixels: torch.Tensor, network: nn.Module) -> torch.Tensor:
    """0..255 to the mean 0 and deviation 1, channel by channel, that the model's weights expect."""
    device, about = next(network.parameters()).device, network.pretrained_cfg
    mean, std = (torch.tensor(about[name], device=device).view(3, 1, 1) for name in ("mean", "std"))
    images = pixels.to(device).float().div_(255).sub_(mean).div_(std)
    return images.contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def outputs(network: nn.Module, batches: Iterable[torch.Tensor]) -> torch.Tensor:
    """Logits (n, C) of pixels; where the network has no classifier, features (n, d)."""
    return torch.cat([network(normalise(batch, network)) for batch in batches])
