"""Distillation: a frozen vision model's predictive pattern in a small head on the VLM's encoder.

The head reads the mean-pooled output of the VLM's frozen visual encoder and learns from two
sources: the labels, and the logits of a fine-tuned vision model (the teacher). Both networks are
frozen, so each image passes each of them once; what is cached by image id is trained on here.

Sources: Hinton, Vinyals & Dean 2015, "Distilling the Knowledge in a Neural Network",
arXiv 1503.02531; Lee, Lee & Park 2025, EmoVLM-KD, doi 10.1109/CVPRW67362.2025.00560, section on
the distillation module.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from .errors import InputError

HIDDEN_WIDTHS = (1024, 512, 256, 128, 64)
HEAD_FORMAT = "emokd-head-1"
CACHE_FORMAT = "emokd-cache-1"
MONITORS = ("val_loss", "val_accuracy")


class DistillationHead(nn.Module):
    """The distilled module: `depth` blocks of Linear, GELU, Dropout, then Linear to the classes.

    Hidden widths are (1024, 512, 256, 128, 64)[:depth]. The buffers `mean` and `std`, both
    (in_features,), standardise the input; they start at 0 and 1, which changes nothing.
    Qwen2-VL-7B's 3584 features and 8 classes at depth 1 make 3,679,240 parameters.

    Raises InputError for a depth outside 1 to 5, a dropout outside [0, 1), or no classes.
    """

    def __init__(
        self, in_features: int, num_classes: int, depth: int = 1, dropout: float = 0.1
    ) -> None:
        super().__init__()
        if not 1 <= depth <= len(HIDDEN_WIDTHS):
            raise InputError(f"depth is {depth}: choose 1 to {len(HIDDEN_WIDTHS)}")
        if not 0 <= dropout < 1:
            raise InputError(f"dropout is {dropout}: choose a value in [0, 1)")
        if in_features < 1 or num_classes < 2:
            raise InputError(
                f"{in_features} features and {num_classes} classes: a head needs at least 1 and 2"
            )
        self.in_features, self.num_classes = in_features, num_classes
        self.register_buffer("mean", torch.zeros(in_features))
        self.register_buffer("std", torch.ones(in_features))
        widths = (in_features, *HIDDEN_WIDTHS[:depth])
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise(widths):
            layers += [nn.Linear(width_in, width_out), nn.GELU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], num_classes))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map features (n, in_features) to logits (n, num_classes)."""
        return self.layers((features - self.mean) / self.std)


def distillation_loss(
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor | None,
    labels: torch.Tensor,
    alpha: float = 0.5,
    temperature: float = 2.0,
) -> torch.Tensor:
    """alpha * T^2 * KL(teacher || student) + (1 - alpha) * CE(student, labels), a scalar.

    KL compares softmax(teacher / T) with softmax(student / T), summed over the classes and
    averaged over the batch ("batchmean"); CE is at temperature 1, averaged over the batch.

    Why T squared: the gradient of KL by the student's logit z_i is (q_i - p_i) / T and, for T
    large against zero-mean logits z (student) and v (teacher) of C classes, both softmaxes are
    near-linear, so that it tends to (z_i - v_i) / (C T^2). Multiplied by T^2 it keeps its size as
    T changes while that of CE never depended on T, so one alpha means one balance at every T.

    Hinton et al. 2015, arXiv 1503.02531, section 2; Lee et al. 2025,
    doi 10.1109/CVPRW67362.2025.00560, section on the distillation module.

    student_logits: (n, C) float. teacher_logits: (n, C) float, no gradient reaches it; None is
    allowed when alpha is 0. labels: (n,) int64 in [0, C). alpha in [0, 1], temperature > 0.
    Raises InputError when any of these does not hold.
    """
    _check_balance(alpha, temperature)
    if student_logits.ndim != 2 or not student_logits.is_floating_point() or not len(labels):
        raise InputError(
            "student_logits must be a float tensor (n, C) with n > 0, not "
            f"{student_logits.dtype} {tuple(student_logits.shape)}"
        )
    rows, classes = student_logits.shape
    if labels.shape != (rows,) or labels.dtype != torch.int64:
        raise InputError(
            f"labels must be an int64 tensor ({rows},), not {labels.dtype} {tuple(labels.shape)}"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise InputError(f"labels must lie in 0..{classes - 1}; found {_outside(labels, classes)}")
    if teacher_logits is None and alpha > 0:
        raise InputError(f"alpha is {alpha} but teacher_logits is None: give them, or set alpha 0")
    if teacher_logits is not None and (
        teacher_logits.shape != student_logits.shape or not teacher_logits.is_floating_point()
    ):
        raise InputError(
            f"teacher_logits must be a float tensor {tuple(student_logits.shape)} like "
            f"student_logits, not {teacher_logits.dtype} {tuple(teacher_logits.shape)}"
        )
    cross_entropy = F.cross_entropy(student_logits, labels)
    if alpha == 0:
        return cross_entropy
    divergence = F.kl_div(
        F.log_softmax(student_logits / temperature, dim=1),
        F.log_softmax(teacher_logits.detach() / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return alpha * temperature**2 * divergence + (1 - alpha) * cross_entropy


@dataclass(frozen=True)
class HeadSettings:
    """How a head is trained. Defaults for alpha, temperature, depth and lr are the paper's.

    alpha: weight of the teacher in [0, 1]. temperature: > 0. lr: AdamW's rate; 1e-5 suits the
    paper's tens of thousands of images, a few thousand need about 1e-3. patience: epochs without
    a better `monitor` ("val_loss" or "val_accuracy") before training stops; the best epoch is
    kept. standardize: features are standardised by the training rows' mean and deviation.
    threads: of torch during training; one gives the same numbers on every number of cores and is
    no slower for a few hundred features, more pay off at the paper's 3584.
    Raises InputError for a value out of its range.
    """

    alpha: float = 0.5
    temperature: float = 2.0
    depth: int = 1
    dropout: float = 0.1
    lr: float = 1e-5
    weight_decay: float = 0.01
    batch_size: int = 64
    epochs: int = 60
    patience: int = 10
    monitor: str = "val_loss"
    standardize: bool = True
    threads: int = 1

    def __post_init__(self) -> None:
        _check_balance(self.alpha, self.temperature)
        if self.lr <= 0 or self.weight_decay < 0:
            raise InputError(
                f"lr is {self.lr} and weight_decay {self.weight_decay}: choose lr above 0 and "
                "weight_decay at least 0"
            )
        if min(self.batch_size, self.epochs, self.patience, self.threads) < 1:
            raise InputError(
                f"batch_size {self.batch_size}, epochs {self.epochs}, patience {self.patience} and "
                f"threads {self.threads} must all be at least 1"
            )
        if self.monitor not in MONITORS:
            raise InputError(f"monitor is {self.monitor!r}: choose one of {', '.join(MONITORS)}")


@dataclass(frozen=True, eq=False)
class TrainedHead:
    """A trained head with what it was trained by.

    head: in evaluation mode, at its best epoch. history: one dict an epoch (epoch from 1,
    train_loss, val_loss, val_accuracy). best_epoch: the epoch kept.
    """

    head: DistillationHead
    settings: HeadSettings
    seed: int
    best_epoch: int
    history: list[dict[str, float]]

    def logits(self, features: np.ndarray | torch.Tensor) -> np.ndarray:
        """Logits (n, C) float32 of features (n, d); InputError when d is not the head's."""
        rows = as_matrix(features, "features", self.head.in_features)
        with torch.inference_mode():
            return torch.cat([self.head(part) for part in rows.split(4096)]).numpy()

    def save(self, path: str | Path) -> None:
        """Write weights, buffers, settings and history to one safetensors file."""
        write_weights(
            path,
            HEAD_FORMAT,
            self.head.state_dict(),
            {
                "in_features": self.head.in_features,
                "num_classes": self.head.num_classes,
                "settings": asdict(self.settings),
                "seed": self.seed,
                "best_epoch": self.best_epoch,
                "history": self.history,
            },
        )

    @classmethod
    def load(cls, path: str | Path) -> TrainedHead:
        """Read what `save` wrote; InputError when the file is missing, damaged or foreign."""
        state, about = read_weights(path, HEAD_FORMAT)
        try:
            settings = HeadSettings(**about["settings"])
            head = DistillationHead(
                about["in_features"], about["num_classes"], settings.depth, settings.dropout
            )
            head.load_state_dict(state)
            return cls(head.eval(), settings, about["seed"], about["best_epoch"], about["history"])
        except (KeyError, TypeError, RuntimeError) as error:
            raise InputError(f"{path} does not hold a head: train it anew ({error})") from error


def train_head(
    features: np.ndarray | torch.Tensor,
    labels: np.ndarray | torch.Tensor,
    teacher_logits: np.ndarray | torch.Tensor | None,
    *,
    val_features: np.ndarray | torch.Tensor,
    val_labels: np.ndarray | torch.Tensor,
    num_classes: int,
    settings: HeadSettings,
    seed: int,
) -> TrainedHead:
    """Train a head on cached features with `distillation_loss`, AdamW and early stopping.

    features (n, d) and val_features (m, d): mean-pooled outputs of the frozen visual encoder, one
    row an image. labels (n,), val_labels (m,): int in [0, num_classes). teacher_logits
    (n, num_classes), or None when settings.alpha is 0. Rows must be in one order throughout: see
    `align_by_id`. The same seed gives the same numbers; torch's global random state is left as
    found. Raises InputError for shapes, labels or values that do not fit.
    """
    x = as_matrix(features, "features")
    y = as_labels(labels, "labels", len(x), num_classes)
    val_x = as_matrix(val_features, "val_features", x.shape[1])
    val_y = as_labels(val_labels, "val_labels", len(val_x), num_classes)
    teacher = None
    if settings.alpha > 0:
        if teacher_logits is None:
            raise InputError(
                f"alpha is {settings.alpha} but teacher_logits is None: give them, or set alpha 0"
            )
        teacher = as_matrix(teacher_logits, "teacher_logits", num_classes)
        if len(teacher) != len(x):
            raise InputError(
                f"teacher_logits has {len(teacher)} rows and features {len(x)}: align both by id"
            )

    batches = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]), torch_threads(settings.threads):
        torch.default_generator.manual_seed(seed)
        head = DistillationHead(x.shape[1], num_classes, settings.depth, settings.dropout)
        if settings.standardize:
            deviation = x.std(dim=0, unbiased=False)
            head.mean.copy_(x.mean(dim=0))
            head.std.copy_(torch.where(deviation > 1e-6, deviation, 1.0))
        optimizer = torch.optim.AdamW(
            head.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
        )
        history: list[dict[str, float]] = []
        best_score, best_epoch, best_state = -np.inf, 0, {}
        for epoch in range(1, settings.epochs + 1):
            head.train()
            total = 0.0
            for rows in torch.randperm(len(x), generator=batches).split(settings.batch_size):
                loss = distillation_loss(
                    head(x[rows]),
                    None if teacher is None else teacher[rows],
                    y[rows],
                    settings.alpha,
                    settings.temperature,
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.item() * len(rows)
            head.eval()
            with torch.no_grad():
                val_logits = head(val_x)
            record = {
                "epoch": epoch,
                "train_loss": total / len(x),
                "val_loss": F.cross_entropy(val_logits, val_y).item(),
                "val_accuracy": (val_logits.argmax(dim=1) == val_y).double().mean().item(),
            }
            history.append(record)
            score = (
                -record["val_loss"] if settings.monitor == "val_loss" else record["val_accuracy"]
            )
            if score > best_score:
                best_score, best_epoch = score, epoch
                best_state = copy.deepcopy(head.state_dict())
            elif epoch - best_epoch >= settings.patience:
                break
        if not best_state:
            raise InputError(f"training diverged at lr {settings.lr}: choose a smaller one")
        head.load_state_dict(best_state)
    return TrainedHead(head, settings, seed, best_epoch, history)


def align_by_id(ids: Sequence[str], cached_ids: Sequence[str], array: np.ndarray) -> np.ndarray:
    """Rows of `array`, which belong to `cached_ids` in that order, in the order of `ids`.

    Raises InputError when `array` has not one row a cached id, when a cached id comes twice, or
    when an asked id is missing (the first is named).
    """
    if len(cached_ids) != len(array):
        raise InputError(
            f"the cache has {len(array)} rows for {len(cached_ids)} ids: delete it, make it anew"
        )
    place: dict[str, int] = {}
    for row, image_id in enumerate(cached_ids):
        if place.setdefault(image_id, row) != row:
            raise InputError(f"the cache holds {image_id!r} twice: delete it and make it anew")
    missing = [image_id for image_id in ids if image_id not in place]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(ids)} ids are not in the cache, the first is {missing[0]!r}: "
            "make the cache anew for these images"
        )
    return np.asarray(array)[[place[image_id] for image_id in ids]]


def save_cache(path: str | Path, ids: Sequence[str], array: np.ndarray) -> None:
    """Write an array with one row an image together with its ids and a checksum over both."""
    array = np.ascontiguousarray(array)
    align_by_id(ids, ids, array)
    write_weights(
        path,
        CACHE_FORMAT,
        {"rows": torch.from_numpy(array.copy())},
        {"ids": list(ids), "sha256": _cache_hash(ids, array)},
    )


def load_cache(path: str | Path, ids: Sequence[str]) -> np.ndarray:
    """Rows of a cache in the order of `ids`.

    Raises InputError when the file is damaged, its rows no longer match its ids, or an id is
    missing.
    """
    tensors, about = read_weights(path, CACHE_FORMAT)
    if "rows" not in tensors or not {"ids", "sha256"} <= about.keys():
        raise InputError(f"{path} does not hold a cache: delete it and make it anew")
    array = tensors["rows"].numpy()
    if about["sha256"] != _cache_hash(about["ids"], array):
        raise InputError(f"{path}: rows and ids do not belong together: delete it, make it anew")
    return align_by_id(ids, about["ids"], array)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads inside the block and as many as before after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def as_matrix(
    value: np.ndarray | torch.Tensor, name: str, columns: int | None = None
) -> torch.Tensor:
    """A finite float32 tensor (n, columns), n > 0; InputError naming `name` otherwise."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().float().numpy()
    array = np.asarray(value, dtype=np.float32)
    if array.ndim != 2 or not array.size or columns not in (None, array.shape[1]):
        wanted = "columns" if columns is None else columns
        raise InputError(f"{name} must be of shape (n, {wanted}) with n > 0, not {array.shape}")
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise InputError(f"{name} is not finite in row {row}: make it anew")
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def as_labels(
    value: np.ndarray | torch.Tensor, name: str, rows: int, num_classes: int
) -> torch.Tensor:
    """An int64 tensor (rows,) in [0, num_classes); InputError naming `name` otherwise."""
    array = np.asarray(value)
    if array.shape != (rows,) or array.dtype.kind not in "iu":
        raise InputError(
            f"{name} must be {rows} whole numbers, not {array.dtype} of shape {array.shape}"
        )
    labels = torch.from_numpy(array.astype(np.int64))
    if labels.min() < 0 or labels.max() >= num_classes:
        raise InputError(
            f"{name} must lie in 0..{num_classes - 1}; found {_outside(labels, num_classes)}"
        )
    return labels


def write_weights(
    path: str | Path, file_format: str, state: Mapping[str, torch.Tensor], about: Mapping
) -> None:
    """Write tensors to a safetensors file with `about`, JSON-able, in its metadata."""
    metadata = {"format": file_format, "about": json.dumps(about)}
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, str(path), metadata)


def read_weights(path: str | Path, file_format: str) -> tuple[dict[str, torch.Tensor], dict]:
    """Tensors and metadata of a file made by `write_weights`.

    Raises InputError when it is missing, damaged or of another format.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != file_format:
                raise InputError(
                    f"{path} has the format {metadata.get('format')!r}, not {file_format!r}: "
                    "make it anew"
                )
            state = {name: file.get_tensor(name) for name in file.keys()}
            return state, json.loads(metadata["about"])
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise InputError(f"{path} cannot be read, make it anew: {error}") from error


def _check_balance(alpha: float, temperature: float) -> None:
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha is {alpha}: choose a value in [0, 1]")
    if not 0 < temperature < float("inf"):
        raise InputError(f"temperature is {temperature}: choose a finite value above 0")


def _outside(labels: torch.Tensor, num_classes: int) -> int:
    return int(labels[(labels < 0) | (labels >= num_classes)][0])


def _cache_hash(ids: Sequence[str], array: np.ndarray) -> str:
    about = json.dumps([list(ids), str(array.dtype), list(array.shape)])
    return hashlib.sha256(about.encode() + array.tobytes()).hexdigest()
