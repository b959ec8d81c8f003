"""A linear probe: a logistic regression on the features of a frozen, pretrained network (lesson 2).

On few images it is hard to beat, and fine-tuning that starts from it spoils the features less than
from a random classifier (Kumar et al. 2022, arXiv 2202.10054)."""

import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # C of scikit-learn; val chooses
NEVER = -30.0  # logit of a class without images


def linear_probe(
    features: torch.Tensor,
    labels: torch.Tensor,
    val_features: torch.Tensor,
    val_labels: torch.Tensor,
    num_classes: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (C, d) and biases (C,) float64 of the penalty with the highest accuracy on val (of
    equals: the lowest loss). features (n, d), labels int64 (n,); those of val (m, d), (m,)."""
    candidates = []
    for strength in STRENGTHS:
        weight, bias = _fitted(features.double(), labels, num_classes, strength)
        logits = val_features.double() @ weight.T + bias  # (m, C)
        right = (logits.argmax(dim=1) == val_labels).double().mean().item()
        candidates.append((right, -F.cross_entropy(logits, val_labels).item(), weight, bias))
    *_, weight, bias = max(candidates, key=lambda candidate: candidate[:2])
    return weight, bias


def _fitted(
    x: torch.Tensor, y: torch.Tensor, num_classes: int, strength: float
) -> tuple[torch.Tensor, torch.Tensor]:
    mean, deviation = x.mean(0), x.std(0, correction=0) + 1e-6  # (d,) each
    model = LogisticRegression(C=strength, max_iter=2000).fit((x - mean) / deviation, y)
    rows = model.classes_[-len(model.coef_) :]  # of two classes the second alone has weights
    weight = torch.zeros(num_classes, x.shape[1], dtype=x.dtype)
    bias = torch.full((num_classes,), NEVER, dtype=x.dtype)
    bias[model.classes_] = 0
    weight[rows] = torch.from_numpy(model.coef_) / deviation
    bias[rows] = torch.from_numpy(model.intercept_) - weight[rows] @ mean
    return weight, bias
