"""The settings of each stage, and the ranges of their values; `profiles` names sets of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .errors import InputError

INPUT_MODES: dict[str, tuple[bool, bool]] = {
    "logits_onehot": (False, True),
    "softmax_onehot": (True, True),
    "probabilities": (True, True),
    "log_probabilities": (False, False),
}
"""Modes of `gating.gate_inputs`; of student and VLM, whether the values are probabilities (else
logits)."""

KINDS = ("categorical", "conversation", "reasoning")  # of instruction
PROJECTIONS = ("q", "k", "v", "o")  # of an attention layer: query, key, value, output
GATE_KINDS = tuple(
    "concat_linear bilinear mixture_of_experts dynamic_weighting cross_gating published_bilinear "
    "published_mixture published_weighting published_cross".split()
)
MONITORS = ("val_loss", "val_accuracy")  # what can make an epoch the best one


def within(settings: object, **ranges: tuple[float, float]) -> None:
    """InputError for a value that is not inside its range, ends included."""
    for name, (low, high) in ranges.items():
        value = getattr(settings, name)
        if not low <= value <= high:
            wanted = f"at least {low:g}" if high == INF else f"a value from {low:g} to {high:g}"
            raise InputError(f"{name} is {value}: choose {wanted}")


INF = float("inf")
ABOVE_0 = (1e-12, 1e38)
SHARE = (0.0, 1.0)
COUNT = (1, INF)
PRETRAINED_LR = 3e-4


def one_of(settings: object, **choices: Sequence[str]) -> None:
    """InputError for a value, or an item of a tuple, that is none of its choices."""
    for name, known in choices.items():
        value = getattr(settings, name)
        for item in value if isinstance(value, tuple) else (value,):
            if item not in known:
                raise InputError(f"{name} is {item!r}: choose one of {', '.join(map(repr, known))}")


@dataclass(frozen=True)
class VLMSettings:
    """Which vision-language model, and how it is loaded and asked.

    name: the folder of a saved model or its id on the hub. quantize: "" for the weights as
    published, "nf4" for 4 bits, "nf4-tuning" for 4 bits while it is tuned. pixels: what it sees of
    an image at most (`loading.limit_pixels`; 0: what its processor allows). batch_size: images that
    pass it at once. max_new_tokens: of a generated answer.
    """

    name: str = "Qwen/Qwen2-VL-7B-Instruct"
    quantize: str = ""
    pixels: int = 0
    batch_size: int = 32
    max_new_tokens: int = 48

    def __post_init__(self) -> None:
        within(self, pixels=(0, INF), batch_size=COUNT, max_new_tokens=COUNT)
        one_of(self, quantize=("", "nf4", "nf4-tuning"))


@dataclass(frozen=True)
class VisionSettings:
    """How a vision model is made and trained.

    name: of a timm model. image_size: pixels a side; images are cropped to their middle square.
    weights: where training starts: "" at random values, "timm" at those that timm publishes for
    the name (downloaded), "package" at those of an installed Python package, else the path of a
    safetensors file of them. epochs: from pretrained weights also 0, a linear probe.
    lr: AdamW's highest rate; warmup: share of all steps in which it rises to that, before it falls
    to 0 along a cosine. batch_size: images a step, up to twice as many where they do not divide.
    layer_decay: from pretrained weights on, each layer's rate as a share of the next one's.
    monitor: what makes an epoch the best; patience: epochs without a better one before training
    stops; the best is kept.
    crop: smallest share of the image's area that a random crop keeps, 1: none. flip: probability
    of a mirror image. label_smoothing in [0, 1). Colours are never altered, for they carry the
    emotion. cache_megabytes: decoded images are kept when a split's fit in it.

    Raises InputError for a value out of its range.
    """

    name: str = "resnet10t"
    image_size: int = 112
    weights: str = ""
    epochs: int = 20
    batch_size: int = 32
    lr: float = 2e-3
    weight_decay: float = 0.05
    warmup: float = 0.2
    layer_decay: float = 0.8
    patience: int = 20
    monitor: str = "val_accuracy"
    crop: float = 0.6
    flip: float = 0.5
    label_smoothing: float = 0.1
    cache_megabytes: int = 1024

    def __post_init__(self) -> None:
        least = 0 if self.weights else 1  # of a pretrained network the probe alone
        within(self, image_size=COUNT, epochs=(least, INF), batch_size=COUNT, patience=COUNT)
        within(self, lr=ABOVE_0, weight_decay=(0, INF), crop=(1e-6, 1), flip=SHARE)
        within(self, layer_decay=(1e-6, 1))
        within(self, warmup=(0, 0.999), label_smoothing=(0, 0.999))
        one_of(self, monitor=MONITORS)

    def of(self, model: str) -> "VisionSettings":
        """Those of another model, ``name`` or ``name@weights``; steps from pretrained weights on are
        small, so PRETRAINED_LR takes the place of a rate for random ones."""
        name, _, weights = model.partition("@")
        lr = PRETRAINED_LR if weights and not self.weights else self.lr
        return replace(self, name=name, weights=weights, lr=lr)


@dataclass(frozen=True)
class TuningSettings:
    """How the adapter is trained. Defaults are the paper's.

    rank, alpha, dropout: LoRA's. projections: some of PROJECTIONS. batch_size: images a step.
    kinds: of instruction, some of KINDS. How, and not what, is computed: recompute keeps only what
    goes into each layer and computes the rest again in the backward pass; checkpoint_steps: the
    state is kept so often. instructions: a journal of ``write-instructions`` in place of the
    offline writer ("" for that).

    Raises InputError for a value out of its range.
    """

    rank: int = 8
    alpha: int = 8
    dropout: float = 0.05
    projections: tuple[str, ...] = PROJECTIONS
    lr: float = 1e-4
    epochs: int = 5
    batch_size: int = 16
    kinds: tuple[str, ...] = KINDS
    recompute: bool = False
    checkpoint_steps: int = 100
    instructions: str = ""

    def __post_init__(self) -> None:
        within(self, rank=COUNT, epochs=COUNT, batch_size=COUNT, checkpoint_steps=COUNT)
        within(self, lr=ABOVE_0, dropout=(0, 0.999))
        one_of(self, projections=PROJECTIONS, kinds=KINDS)
        for name in ("projections", "kinds"):
            if not getattr(self, name):
                raise InputError(f"tuning.{name} is empty: name one or more")


@dataclass(frozen=True)
class HeadSettings:
    """How a head is trained. Defaults for alpha, temperature, depth and lr are the paper's.

    alpha: weight of the teacher in [0, 1]. temperature: > 0. depth: hidden layers, 1 to 5. lr:
    AdamW's rate; 1e-5 suits the paper's tens of thousands of images, a few thousand need about
    1e-3. patience: epochs without a better `monitor` before training stops; the best epoch is
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
        within(self, alpha=SHARE, temperature=ABOVE_0, depth=(1, 5), dropout=(0, 0.999))
        within(self, lr=ABOVE_0, weight_decay=(0, INF), batch_size=COUNT, epochs=COUNT)
        within(self, patience=COUNT, threads=COUNT)
        one_of(self, monitor=MONITORS)


@dataclass(frozen=True)
class GateSettings:
    """How a gate is trained. kind, lr and the inputs "logits_onehot" are the paper's.

    kind: a name in `gates.GATES`. inputs: a mode in INPUT_MODES. lr: AdamW's rate; 1e-4 suits the
    paper's tens of thousands of rows, a few hundred need about 1e-2. epochs: at most so many, fewer
    by early stopping on the loss of rows held out; patience: epochs without a better one before
    training stops. folds: of the cross-validation when no val rows are given; 0 trains for exactly
    `epochs`.

    Raises InputError for a value out of its range.
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
        within(self, lr=ABOVE_0, weight_decay=(0, INF), batch_size=COUNT, epochs=COUNT)
        within(self, patience=COUNT, folds=(0, INF))
        one_of(self, inputs=tuple(INPUT_MODES))
        if self.folds == 1:
            raise InputError("folds is 1: choose 0 (none) or at least 2")
