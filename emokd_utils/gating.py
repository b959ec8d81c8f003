"""Training a gate on what head and VLM say, and what it learnt whom to trust for.

A VLM's answers about its own training images are better than those about any other: train a gate
on rows that the VLM was not tuned on (the val split), or measure the damage with `optimism`
(Lee, Lee & Park 2025, doi 10.1109/CVPRW67362.2025.00560, section on the gate module)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import nn

from .errors import InputError
from .evidence import RESAMPLES, Estimate, percentile_interval
from .gates import FLOOR, Gate, build_gate
from .probe import NEVER
from .settings import INPUT_MODES, GateSettings
from .training import Trained, as_labels, as_matrix, fit, gradient_steps, seeded

SIDES = ("student", "vlm")
Rows = tuple[np.ndarray, np.ndarray, np.ndarray]  # student (n, C), VLM (n, C), labels (n,)


@dataclass(frozen=True, eq=False, repr=False)
class TrainedGate(Trained):
    """A gate trained on `rows` rows of the split `trained_on`. report: accuracies on these of
    "student" and "vlm", each alone, of the gate held out, "gate_cv", and in the end, "gate_fit"
    (None without folds). passed_through: the side in the gate's place. history: of folds."""

    gate: Gate
    settings: GateSettings
    seed: int
    trained_on: str
    rows: int
    epochs: int
    report: dict[str, float | None]
    passed_through: str | None
    history: list[dict[str, float]]

    file_format = "emokd-gate-2"
    settings_type = GateSettings

    def __repr__(self) -> str:
        passed = f", passes the {self.passed_through} through" if self.passed_through else ""
        rows = f"trained on {self.rows} rows of {self.trained_on}"
        return f"TrainedGate({self.settings.kind} on {self.settings.inputs}, {rows}{passed})"

    @staticmethod
    def build(settings: GateSettings, num_classes: int) -> Gate:
        """A gate before training."""
        return build_gate(settings.kind, num_classes)

    def logits(self, student: np.ndarray, vlm: np.ndarray) -> np.ndarray:
        """Logits (n, C) float32 for inputs (n, C) made by `gate_inputs` in the settings' mode. With a
        side passed through, that side's (of probabilities the logarithms); where the VLM's answer
        names no class, the student's."""
        s, v = self._sides(student, vlm)
        with torch.inference_mode():
            if not self.passed_through:
                return self.gate(s, v).numpy()
            sides = zip((s, v), INPUT_MODES[self.settings.inputs], strict=True)
            s, v = (x.clamp_min(FLOOR).log() if probabilities else x for x, probabilities in sides)
            return torch.where(self._chosen(v)[:, :1] == 1, s, v).numpy()

    def weights(self, student: np.ndarray, vlm: np.ndarray) -> np.ndarray:
        """Shares (n, 2) float32 of student and VLM, rows summing to 1: see `Gate.weights`."""
        s, v = self._sides(student, vlm)
        with torch.inference_mode():
            return (self._chosen(v) if self.passed_through else self.gate.weights(s, v)).numpy()

    def _sides(self, student: np.ndarray, vlm: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        s = as_matrix(student, "student", self.gate.num_classes)
        return s, as_matrix(vlm, "vlm", self.gate.num_classes, len(s))

    def _chosen(self, vlm: torch.Tensor) -> torch.Tensor:
        student = torch.full((len(vlm),), self.passed_through == "student") | ~_names_class(vlm)
        return torch.stack([student, ~student], dim=1).float()  # (n, 2)


def train_gate(
    student: np.ndarray,
    vlm: np.ndarray,
    labels: np.ndarray,
    *,
    num_classes: int,
    settings: GateSettings,
    seed: int,
    trained_on: str,
) -> TrainedGate:
    """Train a gate on cached inputs with cross-entropy and AdamW.
    student, vlm: (n, num_classes) from `gate_inputs` in the mode settings.inputs. labels: (n,) int
    in [0, num_classes). settings.folds parts of the rows are held out in turn; the number of epochs
    with the lowest loss on them is that of the final training on all rows (0 folds: as in the
    settings). Where the gate, held out or in the end, is less accurate than its better input alone,
    that input is passed through instead. Raises InputError for what does not fit."""
    s = as_matrix(student, "student", num_classes)  # (n, C)
    v = as_matrix(vlm, "vlm", num_classes, len(s))  # (n, C)
    y = as_labels(labels, "labels", len(s), num_classes)  # (n,)
    epochs, history = settings.epochs, []
    report = {"gate_cv": None, "gate_fit": None}
    with seeded(seed, threads=1):
        if settings.folds:
            (history, epochs, held_out), order = _cross_validation((s, v, y), settings, seed)
            report["gate_cv"] = _accuracy(held_out, y[order])
        gate, train_epoch = _training((s, v, y), settings, seed)
        for _ in range(epochs):
            train_epoch()
        with torch.no_grad():
            final = gate.eval()(s, v)  # (n, C)
    if not final.isfinite().all():
        raise InputError(f"training diverged at lr {settings.lr}: choose a smaller one")
    if settings.folds:
        report["gate_fit"] = _accuracy(final, y)
    report |= {"student": _accuracy(s, y), "vlm": _accuracy(v, y)}
    better = max(SIDES, key=report.get)
    behind = settings.folds and min(report["gate_cv"], report["gate_fit"]) < report[better]
    passed = better if behind else None
    return TrainedGate(gate, settings, seed, trained_on, len(y), epochs, report, passed, history)


def _training(
    rows: Sequence[torch.Tensor], settings: GateSettings, seed: int
) -> tuple[Gate, Callable[[], float]]:
    """A fresh gate, and what trains it for one epoch and returns the mean loss."""
    student, vlm, labels = rows
    torch.manual_seed(seed)
    gate = TrainedGate.build(settings, student.shape[1])
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(
        gate.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
    )

    def loss_of(batch: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(gate(student[batch], vlm[batch]), labels[batch])  # of (b, C), (b,)

    def train_epoch() -> float:
        batches = torch.randperm(len(labels), generator=order).split(settings.batch_size)
        return gradient_steps(batches, loss_of, optimizer)

    return gate, train_epoch


def _cross_validation(
    rows: Sequence[torch.Tensor], settings: GateSettings, seed: int
) -> tuple[tuple, torch.Tensor]:
    """Train one gate a fold on the others, all in step, until their held-out loss stops falling: what
    `fit` returns, with the logits (n, C) of the rows held out, fold after fold, and these rows."""
    student, vlm, labels = rows
    fold = torch.from_numpy(stratified_folds(labels.numpy(), settings.folds, seed))  # (n,)
    held = [(fold == k).nonzero()[:, 0] for k in range(settings.folds)]
    others = [fold != k for k in range(settings.folds)]
    trainings = [_training([x[kept] for x in rows], settings, seed) for kept in others]
    gates = nn.ModuleList([gate for gate, _ in trainings])
    sizes = [int(kept.sum()) for kept in others]

    def train_epoch() -> float:
        return float(np.average([train() for _, train in trainings], weights=sizes))

    def held_out_logits() -> torch.Tensor:
        pairs = zip(gates, held, strict=True)
        return torch.cat([gate(student[out], vlm[out]) for gate, out in pairs])  # (n, C)

    order = torch.cat(held)
    return fit(gates, train_epoch, held_out_logits, labels[order], settings), order


def stratified_folds(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold (n,) in 0..folds-1 of each row: each class is dealt out evenly, in random order."""
    if len(labels) < folds:
        raise InputError(f"{len(labels)} rows cannot make {folds} folds: choose fewer folds")
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    fold = np.empty(len(labels), dtype=np.int64)
    fold[by_class] = np.arange(len(labels)) % folds
    return fold


def optimism(gate: TrainedGate, seen: Rows, unseen: Rows) -> tuple[float, float, Estimate]:
    """A gate's accuracies on the rows that it was trained on and on others, in [0, 1], and their
    difference with its interval: the number right in n rows drawn with replacement is binomial."""
    rng = np.random.default_rng(0)
    here, there = (
        _accuracy(torch.from_numpy(gate.logits(student, vlm)), torch.as_tensor(labels))
        for student, vlm, labels in (seen, unseen)
    )
    n, m = len(seen[2]), len(unseen[2])
    resampled = rng.binomial(n, here, RESAMPLES) / n - rng.binomial(m, there, RESAMPLES) / m
    return here, there, Estimate(here - there, *percentile_interval(resampled), n + m)


def _names_class(values: torch.Tensor) -> torch.Tensor:
    """Which rows (n, C) favour a class: a row of equal values names none. bool (n,)."""
    return values.max(dim=1).values > values.min(dim=1).values


def _accuracy(values: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of rows whose highest value is the label's; a row that names no class is wrong."""
    right = (values.argmax(dim=1) == labels) & _names_class(values)
    return right.double().mean().item()


def regression(
    student: np.ndarray, vlm: np.ndarray, labels: np.ndarray, rows: np.ndarray, num_classes: int
) -> np.ndarray:
    """Logits (n, C) float32 by scikit-learn's logistic regression on both inputs of a gate, (n, C)
    each, fitted on some rows: what a gate has to beat. labels: int64 (n,)."""
    both = np.hstack([student, vlm])  # (n, 2 C)
    fitted = LogisticRegression(max_iter=1000).fit(both[rows], labels[rows])
    logits = np.full((len(both), num_classes), NEVER, np.float32)
    logits[:, fitted.classes_] = fitted.predict_log_proba(both)
    return logits
