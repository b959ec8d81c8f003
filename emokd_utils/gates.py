"""Gates: ways to make one prediction of the student head's output and the VLM's answer.

A gate sees two inputs of C values an image, s from the student and v from the VLM, and returns C
logits. The paper compares five kinds and settles on concat_linear (Lee, Lee & Park 2025, doi
10.1109/CVPRW67362.2025.00560, section on the gate module). It names the other four; each stands
here twice, as this project reads the name and by the equation of the paper's published code."""

import math

import numpy as np
import torch
from torch import nn

from .errors import InputError
from .settings import INPUT_MODES
from .training import as_matrix

FLOOR = 1e-4  # no probability is taken below this before its logarithm


class Gate(nn.Module):
    """A gate for C = num_classes: forward(s (n, C), v (n, C)) -> logits (n, C)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.arguments = {"num_classes": num_classes}

    def weights(self, student: torch.Tensor, vlm: torch.Tensor) -> torch.Tensor:
        """Shares (n, 2) of student and VLM in each decision, in [0, 1], rows summing to 1: by how far
        the winning logit's lead on the mean logit moves when a side is replaced by its mean, which
        favours no class; so the share of a VLM answer outside the label set is 0."""
        winner = self(student, vlm).argmax(dim=1, keepdim=True)  # (n, 1)

        def lead(s: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            logits = self(s, v)  # (n, C)
            return logits.gather(1, winner) - logits.mean(dim=1, keepdim=True)  # (n, 1)

        flat_s, flat_v = (x.mean(dim=1, keepdim=True).expand_as(x) for x in (student, vlm))
        without = torch.cat([lead(flat_s, vlm), lead(student, flat_v)], dim=1)  # (n, 2)
        moved = (lead(student, vlm) - without).abs()
        total = moved.sum(dim=1, keepdim=True)
        # where none moves: half each
        return torch.where(total > 1e-6, moved / total.clamp_min(1e-6), 0.5)


class ConcatLinear(Gate):
    """y = W [s; v] + b, the paper's gate. Starts as y = s + v."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.linear = _linear(torch.eye(num_classes).repeat(1, 2))

    def forward(self, student: torch.Tensor, vlm: torch.Tensor) -> torch.Tensor:
        """Logits (n, C)."""
        return self.linear(torch.cat([student, vlm], dim=1))  # (n, 2 C) -> (n, C)


class Bilinear(Gate):
    """y_k = s^T W_k v + b_k. Starts with W near zero. Where v is zero (an answer outside the label
    set), y is b whatever s is."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.bilinear = nn.Bilinear(num_classes, num_classes, num_classes)
        nn.init.normal_(self.bilinear.weight, std=0.02)
        nn.init.zeros_(self.bilinear.bias)

    def forward(self, student: torch.Tensor, vlm: torch.Tensor) -> torch.Tensor:
        """Logits (n, C)."""
        return self.bilinear(student, vlm)


class MixtureOfExperts(Gate):
    """y = r_s (A s + a) + r_v (B v + b), (r_s, r_v) = softmax(R [s; v] + r). Starts with both experts,
    A and B, the identity and the router's weights one half."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.student_expert = _linear(torch.eye(num_classes))
        self.vlm_expert = _linear(torch.eye(num_classes))
        self.router = _linear(torch.zeros(2, 2 * num_classes))

    def forward(self, student: torch.Tensor, vlm: torch.Tensor) -> torch.Tensor:
        """Logits (n, C)."""
        share = self.weights(student, vlm)
        return share[:, :1] * self.student_expert(student) + share[:, 1:] * self.vlm_expert(vlm)

    def weights(self, student: torch.Tensor, vlm: torch.Tensor) -> torch.Tensor:
        """The router's weights (n, 2): rows sum to 1."""
        return torch.softmax(self.router(torch.cat([student, vlm], dim=1)), dim=1)


class DynamicWeighting(Gate):
    """y = w c_s s + (1 - w) c_v v, with one w = sigmoid(MLP([s; v])) an image. c_s and c_v bring a
    one-hot answer and unbounded logits to a common scale; both start at 1."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.weigh = nn.Sequential(nn.Linear(2 * num_classes, 16), nn.GELU(), nn.Linear(16, 1))
        self.log_scale = nn.Parameter(torch.zeros(2))

    def forward(self, student: torch.Tensor, vlm: torch.Tensor) -> torch.Tensor:
        """Logits (n, C)."""
        share, scale = self.weights(student, vlm), self.log_scale.exp()  # (n, 2), (2,)
        return share[:, :1] * scale[0] * student + share[:, 1:] * scale[1] * vlm

    def weights(self, student: torch.Tensor, vlm: torch.Tensor) -> torch.Tensor:
        """(w, 1 - w) for each row (n, 2)."""
        w = torch.sigmoid(self.weigh(torch.cat([student, vlm], dim=1)))  # (n, 1)
        return torch.cat([w, 1 - w], dim=1)


class CrossGating(Gate):
    """y = P [g_s * s; g_v * v] + p, with g_s = sigmoid(A v + a), g_v = sigmoid(B s + b), * element
    by element. Starts with all gates half open and y = (s + v) / 2."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.open_student = _linear(torch.zeros(num_classes, num_classes))
        self.open_vlm = _linear(torch.zeros(num_classes, num_classes))
        self.project = _linear(torch.eye(num_classes).repeat(1, 2))

    def forward(self, student: torch.Tensor, vlm: torch.Tensor) -> torch.Tensor:
        """Logits (n, C)."""
        gated_student = torch.sigmoid(self.open_student(vlm)) * student
        gated_vlm = torch.sigmoid(self.open_vlm(student)) * vlm
        return self.project(torch.cat([gated_student, gated_vlm], dim=1))


class PublishedBilinear(Gate):
    """y = L z + l, z_k = s^T W_k v + b_k, by the published code."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.bilinear = nn.Bilinear(num_classes, num_classes, num_classes)
        self.linear = nn.Linear(num_classes, num_classes)

    def forward(self, student: torch.Tensor, vlm: torch.Tensor) -> torch.Tensor:
        """Logits (n, C)."""
        return self.linear(self.bilinear(student, vlm))


class PublishedMixture(Gate):
    """y = sum_e r_e (E_e [s; v] + e_e) of three experts, r = softmax(R [s; v] + r'), by the published
    code. Every expert sees both sides."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.experts = nn.Linear(2 * num_classes, 3 * num_classes)
        self.router = nn.Linear(2 * num_classes, 3)

    def forward(self, student: torch.Tensor, vlm: torch.Tensor) -> torch.Tensor:
        """Logits (n, C)."""
        both = torch.cat([student, vlm], dim=1)  # (n, 2 C)
        shares = torch.softmax(self.router(both), dim=1)  # (n, 3)
        answers = self.experts(both).unflatten(1, (3, self.num_classes))  # (n, 3, C)
        return (shares[..., None] * answers).sum(dim=1)


class PublishedWeighting(Gate):
    """y = L (w_s s + w_v v) + l, (w_s, w_v) = softmax(R [s; v] + r), by the published code."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.router = nn.Linear(2 * num_classes, 2)
        self.linear = nn.Linear(num_classes, num_classes)

    def forward(self, student: torch.Tensor, vlm: torch.Tensor) -> torch.Tensor:
        """Logits (n, C)."""
        share = self.weights(student, vlm)
        return self.linear(share[:, :1] * student + share[:, 1:] * vlm)

    def weights(self, student: torch.Tensor, vlm: torch.Tensor) -> torch.Tensor:
        """(w_s, w_v) for each row (n, 2)."""
        return torch.softmax(self.router(torch.cat([student, vlm], dim=1)), dim=1)


class PublishedCross(Gate):
    """y = L (sigmoid(A v + a) * s + sigmoid(B s + b) * v) + l, by the published code."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.open_student = nn.Linear(num_classes, num_classes)
        self.open_vlm = nn.Linear(num_classes, num_classes)
        self.linear = nn.Linear(num_classes, num_classes)

    def forward(self, student: torch.Tensor, vlm: torch.Tensor) -> torch.Tensor:
        """Logits (n, C)."""
        gated_student = torch.sigmoid(self.open_student(vlm)) * student
        return self.linear(gated_student + torch.sigmoid(self.open_vlm(student)) * vlm)


def _linear(weight: torch.Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        linear.weight.copy_(weight)
        linear.bias.zero_()
    return linear


GATES: dict[str, type[Gate]] = {
    "concat_linear": ConcatLinear,
    "bilinear": Bilinear,
    "mixture_of_experts": MixtureOfExperts,
    "dynamic_weighting": DynamicWeighting,
    "cross_gating": CrossGating,
    "published_bilinear": PublishedBilinear,
    "published_mixture": PublishedMixture,
    "published_weighting": PublishedWeighting,
    "published_cross": PublishedCross,
}


def build_gate(name: str, num_classes: int) -> Gate:
    """A fresh gate of a kind in GATES; InputError listing the kinds for any other name."""
    if name not in GATES:
        raise InputError(f"no gate is called {name!r}: choose one of {', '.join(GATES)}")
    return GATES[name](num_classes)


def gate_inputs(
    student_logits: np.ndarray,
    vlm_probabilities: np.ndarray | None,
    vlm_one_hot: np.ndarray | None,
    mode: str,
) -> tuple[np.ndarray, np.ndarray]:
    """The two inputs of a gate, each float32 (n, C), from what the two models yield.
    student_logits, vlm_probabilities, vlm_one_hot: (n, C), the last without a 1 in the row of an
    answer outside the label set; what a mode does not use may be None. mode: "logits_onehot" as in
    the paper's published code, "softmax_onehot" as in its figure, "probabilities", or their
    logarithms, "log_probabilities". Raises InputError for an unknown mode or what does not fit."""
    if mode not in INPUT_MODES:
        raise InputError(f"no mode is called {mode!r}: choose one of {', '.join(INPUT_MODES)}")
    student = as_matrix(student_logits, "student_logits")
    values = vlm_one_hot if mode.endswith("onehot") else vlm_probabilities
    vlm = as_matrix(values, f"the VLM's input in mode {mode!r}", *student.shape[::-1])
    if mode == "log_probabilities":
        student = torch.log_softmax(student, dim=1).clamp_min(math.log(FLOOR))
        vlm = vlm.clamp_min(FLOOR).log()
    elif mode != "logits_onehot":
        student = torch.softmax(student, dim=1)
    return student.numpy().copy(), vlm.numpy().copy()
