"""Distillation: a frozen vision model's predictive pattern in a small head on the VLM's encoder.

The head reads the mean-pooled output of the VLM's frozen visual encoder and learns from the labels
and from the logits of a fine-tuned vision model (the teacher). Both networks are frozen, so each
image passes each of them once (Hinton, Vinyals & Dean 2015, arXiv 1503.02531; Lee, Lee & Park 2025,
doi 10.1109/CVPRW67362.2025.00560, section on the distillation module)."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .settings import HeadSettings
from .training import Array, Trained, as_labels, as_matrix, fit, gradient_steps, seeded

HIDDEN_WIDTHS = (1024, 512, 256, 128, 64)


class DistillationHead(nn.Module):
    """The distilled module: `depth` blocks of Linear, GELU, Dropout, then Linear to the classes.
    Qwen2-VL-7B's 3584 features and 8 classes make 3,679,240 parameters at depth 1."""

    def __init__(self, in_features: int, num_classes: int, depth: int = 1, dropout: float = 0.1):
        super().__init__()
        self.in_features = in_features
        self.arguments = {"in_features": in_features, "num_classes": num_classes}
        self.register_buffer("mean", torch.zeros(in_features))  # 0 and 1 change nothing
        self.register_buffer("std", torch.ones(in_features))
        layers, width = [], in_features
        for hidden in HIDDEN_WIDTHS[:depth]:
            layers += [nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout)]
            width = hidden
        self.layers = nn.Sequential(*layers, nn.Linear(width, num_classes))

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
    """alpha * T^2 * KL(teacher || student) + (1 - alpha) * CE(student, labels), a scalar. KL is of
    the softmaxes at temperature T; CE is at temperature 1. student_logits, teacher_logits: (n, C);
    the teacher's may be None when alpha is 0. labels: int64 (n,). alpha in [0, 1]. T > 0."""
    cross_entropy = F.cross_entropy(student_logits, labels)  # (n, C), (n,) -> ()
    if alpha == 0:
        return cross_entropy
    divergence = F.kl_div(
        F.log_softmax(student_logits / temperature, dim=1),  # (n, C)
        F.log_softmax(teacher_logits.detach() / temperature, dim=1),  # (n, C)
        reduction="batchmean",  # sum over classes, mean over images: ()
        log_target=True,
    )
    # The gradient of KL by a student's logit, (q - p) / T, falls with T^2 (Hinton et al. 2015,
    # section 2), which T^2 undoes: one alpha means one balance at every temperature.
    return alpha * temperature**2 * divergence + (1 - alpha) * cross_entropy


@dataclass(frozen=True, eq=False)
class TrainedHead(Trained):
    """A trained head, in evaluation mode at its best epoch. history: one dict an epoch (epoch from 1,
    train_loss, val_loss, val_accuracy)."""

    head: DistillationHead
    settings: HeadSettings
    seed: int
    best_epoch: int
    history: list[dict[str, float]]

    file_format = "emokd-head-2"
    settings_type = HeadSettings

    @staticmethod
    def build(settings: HeadSettings, in_features: int, num_classes: int) -> DistillationHead:
        """A head at random values."""
        return DistillationHead(in_features, num_classes, settings.depth, settings.dropout)

    def logits(self, features: Array) -> np.ndarray:
        """Logits (n, C) float32 of features (n, d); InputError when d is not the head's."""
        rows = as_matrix(features, "features", self.head.in_features)
        with torch.inference_mode():
            return torch.cat([self.head(part) for part in rows.split(4096)]).numpy()


def train_head(
    features: Array,
    labels: Array,
    teacher_logits: Array | None,
    *,
    val_features: Array,
    val_labels: Array,
    num_classes: int,
    settings: HeadSettings,
    seed: int,
) -> TrainedHead:
    """Train a head on cached features with `distillation_loss`, AdamW and early stopping.
    features (n, d), val_features (m, d): one row an image, in one order throughout. labels (n,),
    val_labels (m,): int in [0, num_classes). teacher_logits (n, num_classes); None when alpha is 0.
    The same seed gives the same numbers. Raises InputError for what does not fit."""
    x = as_matrix(features, "features")  # (n, d)
    y = as_labels(labels, "labels", len(x), num_classes)  # (n,)
    val_x = as_matrix(val_features, "val_features", x.shape[1])  # (m, d)
    val_y = as_labels(val_labels, "val_labels", len(val_x), num_classes)  # (m,)
    teacher = x.new_zeros(len(x), num_classes)  # (n, C); alpha 0 does not look at it
    if settings.alpha:
        teacher = as_matrix(teacher_logits, "teacher_logits", num_classes, len(x))
    with seeded(seed, settings.threads) as order:
        head = TrainedHead.build(settings, x.shape[1], num_classes)
        if settings.standardize:
            deviation = x.std(dim=0, unbiased=False)  # (d,)
            head.mean.copy_(x.mean(dim=0))
            head.std.copy_(torch.where(deviation > 1e-6, deviation, 1.0))
        optimizer = torch.optim.AdamW(
            head.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
        )

        def loss_of(rows: torch.Tensor) -> torch.Tensor:
            triple = head(x[rows]), teacher[rows], y[rows]  # (b, C), (b, C), (b,)
            return distillation_loss(*triple, settings.alpha, settings.temperature)

        def train_epoch() -> float:
            batches = torch.randperm(len(x), generator=order).split(settings.batch_size)
            return gradient_steps(batches, loss_of, optimizer)

        # the logits of the val rows: (m, C)
        history, best, _ = fit(head, train_epoch, lambda: head(val_x), val_y, settings)
    return TrainedHead(head, settings, seed, best, history)
