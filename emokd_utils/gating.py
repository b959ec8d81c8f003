"""Training a gate on what head and VLM say, and what it learnt whom to trust for.

A gate learns how far to trust each side from the rows it is trained on, and a VLM's answers about
its own training images are better than those about any other. Train a gate on rows the VLM was
not tuned on (the val split), or measure the damage with `optimism`.

Lee, Lee & Park 2025, EmoVLM-KD, doi 10.1109/CVPRW67362.2025.00560, section on the gate module.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from .errors import InputError
from .evidence import RESAMPLES, Estimate, percentile_interval
from .gates import FLOOR, Gate, build_gate
from .settings import INPUT_MODES, GateSettings
from .training import (
    Fitted,
    as_labels,
    as_matrix,
    fit,
    gradient_steps,
    load_trained,
    save_trained,
    seeded,
)

GATE_FORMAT = "emokd-gate-2"
SIDES = ("student", "vlm")
Rows = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Student input (n, C), VLM input (n, C), labels (n,)."""

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True, eq=False, repr=False)
class TrainedGate:
    """A trained gate with what it was trained by and on.

    trained_on: the split its rows came from. epochs: those of the final training. report:
    accuracies on the training rows: "student" and "vlm", each input alone; "gate_cv", the gate on
    rows it was not trained on; "gate_fit", the final gate. The last two are None without folds.
    passed_through: None, or the side, "student" or "vlm", that is passed through in place of the
    gate (see `train_gate`). history: one dict an epoch of the validation (epoch from 1, train_loss,
    val_loss, val_accuracy, the last two of the rows held out).
    """

    gate: Gate
    settings: GateSettings
    seed: int
    trained_on: str
    rows: int
    epochs: int
    report: dict[str, float | None]
    passed_through: str | None
    history: list[dict[str, float]]

    def __repr__(self) -> str:
        passed = f", passes the {self.passed_through} through" if self.passed_through else ""
        return (
            f"TrainedGate({self.settings.kind} on {self.settings.inputs}, trained on "
            f"{self.rows} rows of {self.trained_on}{passed})"
        )

    def logits(self, student: np.ndarray, vlm: np.ndarray) -> np.ndarray:
        """Logits (n, C) float32 for inputs (n, C) made by `gate_inputs` in the settings' mode.

        With a side passed through, they are that side's logits (log-probabilities floored at 1e-4
        where the mode gives probabilities); a row whose VLM answer names no class is then the
        student's.
        """
        s, v = _pair(student, vlm, self.gate.num_classes)
        with torch.inference_mode():
            if not self.passed_through:
                return self.gate(s, v).numpy()
            of_probabilities = zip((s, v), INPUT_MODES[self.settings.inputs], strict=True)
            s, v = (side.clamp_min(FLOOR).log() if are else side for side, are in of_probabilities)
            return torch.where(self._chosen(v)[:, :1] == 1, s, v).numpy()

    def weights(self, student: np.ndarray, vlm: np.ndarray) -> np.ndarray:
        """Shares (n, 2) float32 of student and VLM, rows summing to 1: see `Gate.weights`."""
        s, v = _pair(student, vlm, self.gate.num_classes)
        if self.passed_through:
            return self._chosen(v).numpy()
        with torch.inference_mode():
            return self.gate.weights(s, v).numpy()

    def accuracy(self, rows: Rows) -> float:
        """Share of rows in [0, 1] whose highest logit is the label's."""
        logits = torch.from_numpy(self.logits(rows[0], rows[1]))
        return _accuracy(logits, as_labels(rows[2], "labels", len(logits), self.gate.num_classes))

    def save(self, path: str | Path) -> None:
        """Write weights, settings and where the gate was trained to one safetensors file."""
        save_trained(path, self, GATE_FORMAT)

    @classmethod
    def load(cls, path: str | Path) -> TrainedGate:
        """Read what `save` wrote; InputError when the file is missing, damaged or foreign."""
        return load_trained(path, GATE_FORMAT, cls, GateSettings, _build)

    def _chosen(self, vlm: torch.Tensor) -> torch.Tensor:
        student = torch.full((len(vlm),), self.passed_through == "student") | ~_names_class(vlm)
        return torch.stack([student, ~student], dim=1).float()  # (n, 2)


def _build(settings: GateSettings, num_classes: int) -> Gate:
    return build_gate(settings.kind, num_classes)


def train_gate(
    student: np.ndarray,
    vlm: np.ndarray,
    labels: np.ndarray,
    *,
    num_classes: int,
    settings: GateSettings,
    seed: int,
    trained_on: str,
    fallback: bool = True,
) -> TrainedGate:
    """Train a gate on cached inputs with cross-entropy and AdamW.

    student, vlm: (n, num_classes) from `gate_inputs` in the mode settings.inputs. labels: (n,) int
    in [0, num_classes). trained_on: the split these rows came from, kept with the gate.

    settings.folds stratified parts of the rows are held out in turn; the number of
    epochs with the lowest loss on them is used for the final training on all rows. The loss held
    out also chose the epoch, which makes "gate_cv" a little optimistic. folds = 0 trains for
    settings.epochs and judges nothing.

    fallback: where the gate, on the rows that judge it, is less accurate than the better of its
    two inputs alone (held out, or in the end), that input is passed through instead, and
    `passed_through` says which. So no gate ends below its best input on those rows.

    The same seed gives the same numbers; torch's global random state is left as found. Raises
    InputError for shapes, labels or values that do not fit, or fewer rows than folds.
    """
    data = _tensors((student, vlm, labels), num_classes)
    epochs, history, held_out = settings.epochs, [], None
    with seeded(seed, threads=1):
        if settings.folds:
            fold = stratified_folds(data[2].numpy(), settings.folds, seed)
            held = [np.flatnonzero(fold == k) for k in range(settings.folds)]
            parts = [
                (_take(data, np.flatnonzero(fold != k)), _take(data, rows))
                for k, rows in enumerate(held)
            ]
            fitted = _fit_held_out(parts, settings, seed)
            held_out = torch.empty_like(data[0])
            held_out[np.concatenate(held)] = fitted.best
            epochs, history = fitted.best_epoch, fitted.history
        trainer = _Trainer(data, settings, seed)
        for _ in range(epochs):
            trainer.epoch()
        gate = trainer.gate.eval()
        with torch.no_grad():
            final = gate(data[0], data[1])  # (n, C)
    if not final.isfinite().all():
        raise InputError(f"training diverged at lr {settings.lr}: choose a smaller one")
    judged = {"gate_cv": held_out, "gate_fit": None if held_out is None else final}
    judged |= {"student": data[0], "vlm": data[1]}
    report = {k: None if x is None else _accuracy(x, data[2]) for k, x in judged.items()}
    passed = _better_input(report) if fallback else None
    return TrainedGate(
        gate, settings, seed, trained_on, len(data[2]), epochs, report, passed, history
    )


def _better_input(report: dict[str, float | None]) -> str | None:
    """The side that alone is more accurate than the gate, if one is."""
    better = max(SIDES, key=lambda side: report[side])
    judged = report["gate_cv"] is not None
    behind = judged and min(report["gate_cv"], report["gate_fit"]) < report[better]
    return better if behind else None


class _Trainer:
    """One gate under training: its rows, optimiser and order of batches."""

    def __init__(self, data: Tensors, settings: GateSettings, seed: int) -> None:
        torch.manual_seed(seed)
        self.data, self.settings = data, settings
        self.gate = build_gate(settings.kind, data[0].shape[1])
        self.order = torch.Generator().manual_seed(seed)
        self.optimizer = torch.optim.AdamW(
            self.gate.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
        )

    def epoch(self) -> float:
        """Train for one epoch and return the mean loss."""
        student, vlm, labels = self.data

        def loss_of(rows: torch.Tensor) -> torch.Tensor:
            return F.cross_entropy(self.gate(student[rows], vlm[rows]), labels[rows])

        batches = torch.randperm(len(labels), generator=self.order).split(self.settings.batch_size)
        return gradient_steps(batches, loss_of, self.optimizer)


def _fit_held_out(
    parts: list[tuple[Tensors, Tensors]], settings: GateSettings, seed: int
) -> Fitted:
    """Train one gate a part, all in step, and stop when their held-out loss stops falling.

    What is kept: the logits of the rows held out, part after part.
    """
    trainers = [_Trainer(fitting, settings, seed) for fitting, _ in parts]
    sizes = [len(fitting[2]) for fitting, _ in parts]

    def train_epoch() -> float:
        return float(np.average([trainer.epoch() for trainer in trainers], weights=sizes))

    def held_out_logits() -> torch.Tensor:
        with torch.no_grad():
            pairs = zip(trainers, parts, strict=True)
            return torch.cat([t.gate(held[0], held[1]) for t, (_, held) in pairs])

    return fit(
        train_epoch,
        held_out_logits,
        torch.cat([held[2] for _, held in parts]),
        held_out_logits,
        epochs=settings.epochs,
        patience=settings.patience,
    )


def stratified_folds(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold (n,) in 0..folds-1 of each row: each class is dealt out evenly, in random order."""
    if len(labels) < folds:
        raise InputError(f"{len(labels)} rows cannot make {folds} folds: choose fewer folds")
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    fold = np.empty(len(labels), dtype=np.int64)
    fold[by_class] = np.arange(len(labels)) % folds
    return fold


def optimism(
    gate: TrainedGate, seen: Rows, unseen: Rows, seed: int = 0
) -> tuple[float, float, Estimate]:
    """What a gate gains on the rows it was trained on: its accuracies on seen and unseen rows, in
    [0, 1], and their difference with its interval.

    Each set of rows is resampled by itself. The number right in n rows drawn with replacement is
    binomial, which is drawn directly. Raises InputError for rows that do not fit the gate.
    """
    accuracies = [gate.accuracy(rows) for rows in (seen, unseen)]
    rng = np.random.default_rng(seed)
    resampled = [
        rng.binomial(len(rows[2]), accuracy, RESAMPLES) / len(rows[2])
        for rows, accuracy in zip((seen, unseen), accuracies, strict=True)
    ]
    ends = percentile_interval(resampled[0] - resampled[1])
    difference = Estimate(accuracies[0] - accuracies[1], *ends, len(unseen[2]))
    return (*accuracies, difference)


def _pair(
    student: np.ndarray, vlm: np.ndarray, num_classes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    s = as_matrix(student, "student", num_classes)
    v = as_matrix(vlm, "vlm", num_classes)
    if len(s) != len(v):
        raise InputError(f"student has {len(s)} rows and vlm {len(v)}: align both by id")
    return s, v


def _tensors(rows: Rows, num_classes: int) -> Tensors:
    s, v = _pair(rows[0], rows[1], num_classes)
    return s, v, as_labels(rows[2], "labels", len(s), num_classes)


def _take(data: Tensors, rows: np.ndarray) -> Tensors:
    return tuple(tensor[rows] for tensor in data)


def _names_class(values: torch.Tensor) -> torch.Tensor:
    """Which rows (n, C) favour a class: a row of equal values names none. bool (n,)."""
    return values.max(dim=1).values > values.min(dim=1).values


def _accuracy(values: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of rows whose highest value is the label's; a row that names no class is wrong."""
    right = (values.argmax(dim=1) == labels) & _names_class(values)
    return right.double().mean().item()
