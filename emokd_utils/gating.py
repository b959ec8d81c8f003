"""Gates: how the student head's output and the VLM's answer become one prediction.

A gate sees two inputs of C values an image, s from the student and v from the VLM, and returns C
logits. The paper compares five kinds and settles on concatenation with a linear layer (Lee, Lee &
Park 2025, EmoVLM-KD, doi 10.1109/CVPRW67362.2025.00560, section on the gate module). It names the
kinds; apart from concat_linear, the equations below are this project's own reading of the names.

A gate learns how far to trust each side from the rows it is trained on, and a VLM's answers about
its own training images are better than those about any other. Train a gate on rows the VLM was
not tuned on (the val split), or measure the damage with `optimism`.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .distillation import as_labels, as_matrix, read_weights, torch_threads, write_weights
from .errors import InputError

GATE_FORMAT = "emokd-gate-1"
SIDES = ("student", "vlm")
FLOOR = 1e-4

INPUT_MODES: dict[str, tuple[bool, bool]] = {
    "logits_onehot": (False, True),
    "softmax_onehot": (True, True),
    "probabilities": (True, True),
    "log_probabilities": (False, False),
}
"""Modes of `gate_inputs`; for each side, whether its values are probabilities (else logits)."""

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Student input (n, C), VLM input (n, C), labels (n,)."""


class Gate(nn.Module):
    """A gate for C = num_classes: forward(s (n, C), v (n, C)) -> logits (n, C)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def weights(self, student: torch.Tensor, vlm: torch.Tensor) -> torch.Tensor:
        """Shares (n, 2) of student and VLM in each decision, in [0, 1], rows summing to 1.

        A side's contribution is how far the winning logit, taken against the mean logit, moves
        when that side is flattened: every value replaced by the side's mean, which favours no
        class. The shares are the two absolute contributions over their sum, or one half each
        where both are zero. A VLM answer outside the label set is flat, so its share is 0.
        """
        full = self(student, vlm)
        winner = full.argmax(dim=1, keepdim=True)
        lead = _lead(full, winner)
        without = torch.cat(
            [
                _lead(self(_flat(student), vlm), winner),
                _lead(self(student, _flat(vlm)), winner),
            ],
            dim=1,
        )
        moved = (lead - without).abs()
        total = moved.sum(dim=1, keepdim=True)
        return torch.where(total > 1e-6, moved / total.clamp_min(1e-6), 0.5)


class ConcatLinear(Gate):
    """y = W [s; v] + b, the paper's gate. Starts as y = s + v."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.linear = _two_identities(num_classes)

    def forward(self, student: torch.Tensor, vlm: torch.Tensor) -> torch.Tensor:
        """Logits (n, C) of student (n, C) and vlm (n, C)."""
        return self.linear(torch.cat([student, vlm], dim=1))


class Bilinear(Gate):
    """y_k = s^T W_k v + b_k: every pair of a student's and a VLM's value has a weight a class.

    There are no terms in s or v alone, so an image whose VLM input is all zero (an answer outside
    the label set) gets the logits b whatever the student says. Starts with W near zero.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.bilinear = nn.Bilinear(num_classes, num_classes, num_classes)
        nn.init.normal_(self.bilinear.weight, std=0.02)
        nn.init.zeros_(self.bilinear.bias)

    def forward(self, student: torch.Tensor, vlm: torch.Tensor) -> torch.Tensor:
        """Logits (n, C) of student (n, C) and vlm (n, C)."""
        return self.bilinear(student, vlm)


class MixtureOfExperts(Gate):
    """y = r_s (A s + a) + r_v (B v + b), (r_s, r_v) = softmax(R [s; v] + r).

    One linear expert a side and a router that weighs them image by image. Starts with both
    experts the identity and both weights one half.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.student_expert = _identity(num_classes)
        self.vlm_expert = _identity(num_classes)
        self.router = _zeros(2 * num_classes, 2)

    def forward(self, student: torch.Tensor, vlm: torch.Tensor) -> torch.Tensor:
        """Logits (n, C) of student (n, C) and vlm (n, C)."""
        share = self.weights(student, vlm)
        return share[:, :1] * self.student_expert(student) + share[:, 1:] * self.vlm_expert(vlm)

    def weights(self, student: torch.Tensor, vlm: torch.Tensor) -> torch.Tensor:
        """The router's weights (n, 2): rows sum to 1."""
        return torch.softmax(self.router(torch.cat([student, vlm], dim=1)), dim=1)


class DynamicWeighting(Gate):
    """y = w c_s s + (1 - w) c_v v, with one w = sigmoid(MLP([s; v])) an image.

    The MLP has one hidden layer of 16 GELU units. c_s and c_v are learned positive scales, one a
    side, that bring a one-hot answer and unbounded logits to a common scale; both start at 1.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.weigh = nn.Sequential(nn.Linear(2 * num_classes, 16), nn.GELU(), nn.Linear(16, 1))
        self.log_scale = nn.Parameter(torch.zeros(2))

    def forward(self, student: torch.Tensor, vlm: torch.Tensor) -> torch.Tensor:
        """Logits (n, C) of student (n, C) and vlm (n, C)."""
        share = self.weights(student, vlm)
        scale = self.log_scale.exp()
        return share[:, :1] * scale[0] * student + share[:, 1:] * scale[1] * vlm

    def weights(self, student: torch.Tensor, vlm: torch.Tensor) -> torch.Tensor:
        """(w, 1 - w) for each row (n, 2)."""
        w = torch.sigmoid(self.weigh(torch.cat([student, vlm], dim=1)))
        return torch.cat([w, 1 - w], dim=1)


class CrossGating(Gate):
    """y = P [g_s * s; g_v * v] + p, with g_s = sigmoid(A v + a) and g_v = sigmoid(B s + b).

    Each side opens or closes every value of the other (* is element by element). Starts with all
    gates half open and y = (s + v) / 2.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.open_student = _zeros(num_classes, num_classes)
        self.open_vlm = _zeros(num_classes, num_classes)
        self.project = _two_identities(num_classes)

    def forward(self, student: torch.Tensor, vlm: torch.Tensor) -> torch.Tensor:
        """Logits (n, C) of student (n, C) and vlm (n, C)."""
        gated_student = torch.sigmoid(self.open_student(vlm)) * student
        gated_vlm = torch.sigmoid(self.open_vlm(student)) * vlm
        return self.project(torch.cat([gated_student, gated_vlm], dim=1))


GATES: dict[str, type[Gate]] = {
    "concat_linear": ConcatLinear,
    "bilinear": Bilinear,
    "mixture_of_experts": MixtureOfExperts,
    "dynamic_weighting": DynamicWeighting,
    "cross_gating": CrossGating,
}


def build_gate(name: str, num_classes: int) -> Gate:
    """A fresh gate of a kind in GATES; InputError listing the kinds for any other name."""
    if name not in GATES:
        raise InputError(f"no gate is called {name!r}: choose one of {', '.join(GATES)}")
    if num_classes < 2:
        raise InputError(f"num_classes is {num_classes}: a gate needs at least 2")
    return GATES[name](num_classes)


def gate_inputs(
    student_logits: np.ndarray,
    vlm_probabilities: np.ndarray | None,
    vlm_one_hot: np.ndarray | None,
    mode: str,
) -> tuple[np.ndarray, np.ndarray]:
    """The two inputs of a gate, each float32 (n, C), from what the two models yield.

    mode, one of INPUT_MODES:
    - "logits_onehot": the student's raw logits and the VLM's one-hot answer, as in the paper's
      published code;
    - "softmax_onehot": the student's softmax and the one-hot answer, as in the paper's figure;
    - "probabilities": the student's softmax and the VLM's label probabilities;
    - "log_probabilities": the logarithms of both, no probability taken below 1e-4.

    student_logits: (n, C). vlm_probabilities: (n, C), rows sum to 1. vlm_one_hot: (n, C), a single
    1 a row, or none where the answer lay outside the label set. The one a mode does not use may be
    None. Raises InputError for an unknown mode or arrays that do not fit.
    """
    if mode not in INPUT_MODES:
        raise InputError(f"no mode is called {mode!r}: choose one of {', '.join(INPUT_MODES)}")
    logits = as_matrix(student_logits, "student_logits")
    one_hot = mode.endswith("onehot")
    name, value = (
        ("vlm_one_hot", vlm_one_hot) if one_hot else ("vlm_probabilities", vlm_probabilities)
    )
    if value is None:
        raise InputError(f"{name} is None: mode {mode!r} needs it")
    vlm = as_matrix(value, name, logits.shape[1])
    if len(vlm) != len(logits):
        raise InputError(f"{name} has {len(vlm)} rows, student_logits {len(logits)}: align by id")
    sums = vlm.sum(dim=1)
    if one_hot:
        if not (((vlm == 0) | (vlm == 1)).all() and (sums <= 1).all()):
            raise InputError("vlm_one_hot must hold 0 and at most a single 1 in each row")
    elif vlm.min() < 0 or (sums - 1).abs().max() > 1e-4:
        raise InputError("vlm_probabilities must be at least 0 and sum to 1 in each row")

    if mode == "logits_onehot":
        student = logits
    elif mode == "log_probabilities":
        student = torch.log_softmax(logits, dim=1).clamp_min(float(np.log(FLOOR)))
        vlm = vlm.clamp_min(FLOOR).log()
    else:
        student = torch.softmax(logits, dim=1)
    return student.numpy().copy(), vlm.numpy().copy()


@dataclass(frozen=True)
class GateSettings:
    """How a gate is trained. kind, lr and the inputs "logits_onehot" are the paper's.

    kind: a name in GATES. inputs: a mode in INPUT_MODES. lr: AdamW's rate; 1e-4 suits the paper's
    tens of thousands of rows, a few hundred need about 1e-2. epochs: at most so many, fewer by
    early stopping on the loss of rows held out; patience: epochs without a better one before
    training stops. folds: of the cross-validation when no val rows are given; 0 trains for
    exactly `epochs`. Raises InputError for a value out of its range.
    """

    kind: str = "concat_linear"
    inputs: str = "logits_onehot"
    lr: float = 1e-4
    epochs: int = 100
    batch_size: int = 64
    weight_decay: float = 0.01
    patience: int = 10
    folds: int = 5

    def __post_init__(self) -> None:
        if self.kind not in GATES:
            raise InputError(f"no gate is called {self.kind!r}: choose one of {', '.join(GATES)}")
        if self.inputs not in INPUT_MODES:
            raise InputError(f"inputs is {self.inputs!r}: choose one of {', '.join(INPUT_MODES)}")
        if self.lr <= 0 or self.weight_decay < 0:
            raise InputError(
                f"lr is {self.lr} and weight_decay {self.weight_decay}: choose lr above 0 and "
                "weight_decay at least 0"
            )
        if min(self.batch_size, self.epochs, self.patience) < 1:
            raise InputError(
                f"batch_size {self.batch_size}, epochs {self.epochs} and patience {self.patience} "
                "must all be at least 1"
            )
        if self.folds < 0 or self.folds == 1:
            raise InputError(f"folds is {self.folds}: choose 0 (none) or at least 2")


@dataclass(frozen=True, eq=False, repr=False)
class TrainedGate:
    """A trained gate with what it was trained by and on.

    trained_on: the split its rows came from. epochs: those of the final training. report:
    accuracies on the rows that judge the gate, the training rows or, where given, the val rows:
    "student" and "vlm", each input alone; "gate_cv", the gate on rows it was not trained on;
    "gate_fit", the final gate. The last two are None without folds or val rows. passed_through:
    None, or the side, "student" or "vlm", that is passed through in place of the gate (see
    `train_gate`). history: one dict an epoch of the validation (epoch from 1, train_loss,
    held_out_loss, held_out_accuracy).
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
        if self.passed_through:
            chosen = self._chosen(v)
            s, v = (
                side.clamp_min(FLOOR).log() if is_probability else side
                for side, is_probability in zip(
                    (s, v), INPUT_MODES[self.settings.inputs], strict=True
                )
            )
            return torch.where(chosen[:, :1] == 1, s, v).numpy()
        with torch.inference_mode():
            return self.gate(s, v).numpy()

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
        write_weights(
            path,
            GATE_FORMAT,
            self.gate.state_dict(),
            {
                "num_classes": self.gate.num_classes,
                "settings": asdict(self.settings),
                "seed": self.seed,
                "trained_on": self.trained_on,
                "rows": self.rows,
                "epochs": self.epochs,
                "report": self.report,
                "passed_through": self.passed_through,
                "history": self.history,
            },
        )

    @classmethod
    def load(cls, path: str | Path) -> TrainedGate:
        """Read what `save` wrote; InputError when the file is missing, damaged or foreign."""
        state, about = read_weights(path, GATE_FORMAT)
        try:
            settings = GateSettings(**about.pop("settings"))
            with torch.random.fork_rng(devices=[]):
                gate = build_gate(settings.kind, about.pop("num_classes"))
            gate.load_state_dict(state)
            return cls(gate.eval(), settings, **about)
        except (KeyError, TypeError, RuntimeError) as error:
            raise InputError(f"{path} does not hold a gate: train it anew ({error})") from error

    def _chosen(self, vlm: torch.Tensor) -> torch.Tensor:
        student = torch.full((len(vlm),), self.passed_through == "student") | ~_names_class(vlm)
        return torch.stack([student, ~student], dim=1).float()


def train_gate(
    student: np.ndarray,
    vlm: np.ndarray,
    labels: np.ndarray,
    *,
    num_classes: int,
    settings: GateSettings,
    seed: int,
    trained_on: str,
    val: Rows | None = None,
    fallback: bool = True,
) -> TrainedGate:
    """Train a gate on cached inputs with cross-entropy and AdamW.

    student, vlm: (n, num_classes) from `gate_inputs` in the mode settings.inputs. labels: (n,) int
    in [0, num_classes). trained_on: the split these rows came from, kept with the gate. val: other
    rows, in the same form, on which training is stopped and the gate judged.

    Without val, settings.folds stratified parts of the rows are held out in turn; the number of
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
    judges = data if val is None else _tensors(val, num_classes)
    folds: list[tuple[np.ndarray, np.ndarray]] = []
    if val is None and settings.folds:
        fold = _stratified_folds(data[2].numpy(), settings.folds, seed)
        folds = [
            (np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(settings.folds)
        ]

    with torch.random.fork_rng(devices=[]), torch_threads(1):
        history: list[dict[str, float]] = []
        epochs, held_out = settings.epochs, None
        if val is not None:
            history, epochs, held_out, (gate,) = _validate([(data, judges)], settings, seed)
        elif folds:
            parts = [(_take(data, fit), _take(data, rest)) for fit, rest in folds]
            history, epochs, outputs, _ = _validate(parts, settings, seed)
            held_out = torch.empty_like(data[0])
            held_out[np.concatenate([rest for _, rest in folds])] = outputs
        if val is None:
            trainer = _Trainer(data, settings, seed)
            for _ in range(epochs):
                trainer.epoch()
            gate = trainer.gate
        gate.eval()
        with torch.no_grad():
            final = gate(judges[0], judges[1])
    if not final.isfinite().all():
        raise InputError(f"training diverged at lr {settings.lr}: choose a smaller one")

    report = {
        "gate_cv": None if held_out is None else _accuracy(held_out, judges[2]),
        "gate_fit": None if held_out is None else _accuracy(final, judges[2]),
        "student": _accuracy(judges[0], judges[2]),
        "vlm": _accuracy(judges[1], judges[2]),
    }
    better = max(SIDES, key=lambda side: report[side])
    behind = held_out is not None and min(report["gate_cv"], report["gate_fit"]) < report[better]
    passed_through = better if fallback and behind else None
    return TrainedGate(
        gate, settings, seed, trained_on, len(data[2]), epochs, report, passed_through, history
    )


@dataclass(frozen=True)
class Optimism:
    """Accuracy on rows a gate was trained on minus that on rows it never saw.

    seen, unseen: accuracies in [0, 1]. difference: seen - unseen; low, high: its interval.
    """

    seen: float
    unseen: float
    difference: float
    low: float
    high: float


def optimism(
    gate: TrainedGate,
    seen: Rows,
    unseen: Rows,
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Optimism:
    """Measure what a gate gains on the rows it was trained on, with a bootstrap interval.

    Each set of rows is resampled by itself. The number right in n rows drawn with replacement is
    binomial, which is drawn directly; the interval is the percentile interval of `draws`
    differences. Raises InputError for rows that do not fit the gate.
    """
    if not 0 < level < 1 or draws < 1:
        raise InputError(f"level {level} must lie in (0, 1) and draws {draws} be at least 1")
    accuracies = [gate.accuracy(rows) for rows in (seen, unseen)]
    rng = np.random.default_rng(seed)
    resampled = [
        rng.binomial(len(rows[2]), accuracy, draws) / len(rows[2])
        for rows, accuracy in zip((seen, unseen), accuracies, strict=True)
    ]
    tail = (1 - level) / 2
    low, high = np.quantile(resampled[0] - resampled[1], [tail, 1 - tail])
    return Optimism(*accuracies, accuracies[0] - accuracies[1], float(low), float(high))


class _Trainer:
    """One gate under training: its rows, optimiser and order of batches."""

    def __init__(self, data: tuple[torch.Tensor, ...], settings: GateSettings, seed: int) -> None:
        torch.default_generator.manual_seed(seed)
        self.data, self.settings = data, settings
        self.gate = build_gate(settings.kind, data[0].shape[1])
        self.batches = torch.Generator().manual_seed(seed)
        self.optimizer = torch.optim.AdamW(
            self.gate.parameters(),
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            fused=True,
        )

    def epoch(self) -> float:
        """Train for one epoch and return the mean loss."""
        student, vlm, labels = self.data
        total = 0.0
        order = torch.randperm(len(labels), generator=self.batches)
        for rows in order.split(self.settings.batch_size):
            loss = F.cross_entropy(self.gate(student[rows], vlm[rows]), labels[rows])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.item() * len(rows)
        return total / len(labels)


def _validate(
    parts: list[tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]],
    settings: GateSettings,
    seed: int,
) -> tuple[list[dict[str, float]], int, torch.Tensor, list[Gate]]:
    """Train one gate a part, all in step, and stop when their held-out loss stops falling.

    Returns the history, the best epoch and, of that epoch, the logits of the rows held out (part
    after part) and the gates.
    """
    trainers = [_Trainer(fit, settings, seed) for fit, _ in parts]
    sizes = np.array([len(fit[2]) for fit, _ in parts])
    labels = torch.cat([rest[2] for _, rest in parts])
    history: list[dict[str, float]] = []
    best_loss, best_epoch, best_logits, best_gates = np.inf, 0, None, []
    for epoch in range(1, settings.epochs + 1):
        losses = [trainer.epoch() for trainer in trainers]
        with torch.no_grad():
            logits = torch.cat(
                [
                    trainer.gate(rest[0], rest[1])
                    for trainer, (_, rest) in zip(trainers, parts, strict=True)
                ]
            )
        loss = F.cross_entropy(logits, labels).item()
        history.append(
            {
                "epoch": epoch,
                "train_loss": float(np.average(losses, weights=sizes)),
                "held_out_loss": loss,
                "held_out_accuracy": _accuracy(logits, labels),
            }
        )
        if loss < best_loss:
            best_loss, best_epoch, best_logits = loss, epoch, logits
            best_gates = [copy.deepcopy(trainer.gate) for trainer in trainers]
        elif epoch - best_epoch >= settings.patience:
            break
    if best_logits is None:
        raise InputError(f"training diverged at lr {settings.lr}: choose a smaller one")
    return history, best_epoch, best_logits, best_gates


def _stratified_folds(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold (n,) in 0..folds-1 of each row: each class is dealt out evenly, in random order."""
    if len(labels) < folds:
        raise InputError(f"{len(labels)} rows cannot make {folds} folds: choose fewer folds")
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    fold = np.empty(len(labels), dtype=np.int64)
    fold[by_class] = np.arange(len(labels)) % folds
    return fold


def _pair(
    student: np.ndarray, vlm: np.ndarray, num_classes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    s = as_matrix(student, "student", num_classes)
    v = as_matrix(vlm, "vlm", num_classes)
    if len(s) != len(v):
        raise InputError(f"student has {len(s)} rows and vlm {len(v)}: align both by id")
    return s, v


def _tensors(rows: Rows, num_classes: int) -> tuple[torch.Tensor, ...]:
    s, v = _pair(rows[0], rows[1], num_classes)
    return s, v, as_labels(rows[2], "labels", len(s), num_classes)


def _take(data: tuple[torch.Tensor, ...], rows: np.ndarray) -> tuple[torch.Tensor, ...]:
    return tuple(tensor[rows] for tensor in data)


def _names_class(values: torch.Tensor) -> torch.Tensor:
    """Which rows favour a class: a row of equal values names none."""
    return values.max(dim=1).values > values.min(dim=1).values


def _accuracy(values: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of rows whose highest value is the label's; a row that names no class is wrong."""
    right = (values.argmax(dim=1) == labels) & _names_class(values)
    return right.double().mean().item()


def _flat(values: torch.Tensor) -> torch.Tensor:
    return values.mean(dim=1, keepdim=True).expand_as(values)


def _lead(logits: torch.Tensor, winner: torch.Tensor) -> torch.Tensor:
    return logits.gather(1, winner) - logits.mean(dim=1, keepdim=True)


def _identity(num_classes: int) -> nn.Linear:
    linear = nn.Linear(num_classes, num_classes)
    nn.init.eye_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def _two_identities(num_classes: int) -> nn.Linear:
    """[s; v] -> s + v."""
    linear = nn.Linear(2 * num_classes, num_classes)
    with torch.no_grad():
        linear.weight.copy_(torch.eye(num_classes).repeat(1, 2))
    nn.init.zeros_(linear.bias)
    return linear


def _zeros(features: int, outputs: int) -> nn.Linear:
    linear = nn.Linear(features, outputs)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
