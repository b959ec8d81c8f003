"""The settings of each stage; `profiles` names sets of them.

The type of a field says what its value may be, and any other raises InputError."""

from dataclasses import dataclass, replace
from typing import Annotated, get_type_hints

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

INF = float("inf")
ABOVE_0 = (1e-12, 1e38)
COUNT = (1, INF)
PRETRAINED_LR = 3e-4

Count = Annotated[int, COUNT]
CountOr0 = Annotated[int, (0, INF)]
Amount = Annotated[float, (0, INF)]
Above0 = Annotated[float, ABOVE_0]
Share = Annotated[float, (0, 1)]
Below1 = Annotated[float, (0, 0.999)]
Monitor = Annotated[str, ("val_loss", "val_accuracy")]  # what can make an epoch the best one


def within(settings: object, **ranges: tuple[float, float]) -> None:
    """InputError for a value that is not inside its range, ends included."""
    for name, (low, high) in ranges.items():
        value = getattr(settings, name)
        if not low <= value <= high:
            wanted = f"at least {low:g}" if high == INF else f"a value from {low:g} to {high:g}"
            raise InputError(f"{name} is {value}: choose {wanted}")


def _one_of(name: str, value: str | tuple[str, ...], known: tuple[str, ...]) -> None:
    items = value if isinstance(value, tuple) else (value,)
    if not items:
        raise InputError(f"{name} is empty: choose one or more of {', '.join(known)}")
    for item in items:
        if item not in known:
            raise InputError(f"{name} is {item!r}: choose one of {', '.join(map(repr, known))}")


class Checked:
    """Settings: a number is inside the range, a text among the choices, that its type carries."""

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self), include_extras=True).items():
            for allowed in getattr(kind, "__metadata__", ()):
                if isinstance(allowed[0], str):
                    _one_of(name, getattr(self, name), allowed)
                else:
                    within(self, **{name: allowed})


@dataclass(frozen=True)
class VLMSettings(Checked):
    """Which vision-language model, and how it is loaded and asked.

    name: the folder of a saved model or its id on the hub. quantize: "" for the weights as
    published, "nf4" for 4 bits, "nf4-tuning" for 4 bits while it is tuned. pixels: what it sees of
    an image at most (`loading.limit_pixels`; 0: what its processor allows). batch_size: images that
    pass it at once. max_new_tokens: of a generated answer."""

    name: str = "Qwen/Qwen2-VL-7B-Instruct"
    quantize: Annotated[str, ("", "nf4", "nf4-tuning")] = ""
    pixels: CountOr0 = 0
    batch_size: Count = 32
    max_new_tokens: Count = 48


@dataclass(frozen=True)
class VisionSettings(Checked):
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
    emotion. cache_megabytes: decoded images are kept when a split's fit in it."""

    name: str = "resnet10t"
    image_size: Count = 112
    weights: str = ""
    epochs: CountOr0 = 20
    batch_size: Count = 32
    lr: Above0 = 2e-3
    weight_decay: Amount = 0.05
    warmup: Below1 = 0.2
    layer_decay: Annotated[float, (1e-6, 1)] = 0.8
    patience: Count = 20
    monitor: Monitor = "val_accuracy"
    crop: Annotated[float, (1e-6, 1)] = 0.6
    flip: Share = 0.5
    label_smoothing: Below1 = 0.1
    cache_megabytes: int = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.epochs or self.weights):
            raise InputError("epochs is 0: choose at least 1, or pretrained weights for a probe")

    def of(self, model: str) -> "VisionSettings":
        """Those of another model, ``name`` or ``name@weights``; steps from pretrained weights on are
        small, so PRETRAINED_LR takes the place of a rate for random ones."""
        name, _, weights = model.partition("@")
        lr = PRETRAINED_LR if weights and not self.weights else self.lr
        return replace(self, name=name, weights=weights, lr=lr)


@dataclass(frozen=True)
class TuningSettings(Checked):
    """How the adapter is trained. Defaults are the paper's.

    rank, alpha, dropout: LoRA's. projections: some of PROJECTIONS. batch_size: images a step.
    kinds: of instruction, some of KINDS. How, and not what, is computed: recompute keeps only what
    goes into each layer and computes the rest again in the backward pass; checkpoint_steps: the
    state is kept so often; cache_megabytes: of encoded images, as far as they fit, so that the
    frozen visual encoder sees each once. instructions: a journal of ``write-instructions`` in place
    of the offline writer ("" for that)."""

    rank: Count = 8
    alpha: int = 8
    dropout: Below1 = 0.05
    projections: Annotated[tuple[str, ...], PROJECTIONS] = PROJECTIONS
    lr: Above0 = 1e-4
    epochs: Count = 5
    batch_size: Count = 16
    kinds: Annotated[tuple[str, ...], KINDS] = KINDS
    recompute: bool = False
    checkpoint_steps: Count = 100
    cache_megabytes: CountOr0 = 1024
    instructions: str = ""


@dataclass(frozen=True)
class HeadSettings(Checked):
    """How a head is trained. Defaults for alpha, temperature, depth and lr are the paper's.

    alpha: weight of the teacher in [0, 1]. temperature: > 0. depth: hidden layers, 1 to 5. lr:
    AdamW's rate; 1e-5 suits the paper's tens of thousands of images, a few thousand need about
    1e-3. patience: epochs without a better `monitor` before training stops; the best epoch is
    kept. standardize: features are standardised by the training rows' mean and deviation.
    threads: of torch during training; one gives the same numbers on every number of cores and is
    no slower for a few hundred features, more pay off at the paper's 3584."""

    alpha: Share = 0.5
    temperature: Above0 = 2.0
    depth: Annotated[int, (1, 5)] = 1
    dropout: Below1 = 0.1
    lr: Above0 = 1e-5
    weight_decay: Amount = 0.01
    batch_size: Count = 64
    epochs: Count = 60
    patience: Count = 10
    monitor: Monitor = "val_loss"
    standardize: bool = True
    threads: Count = 1


@dataclass(frozen=True)
class GateSettings(Checked):
    """How a gate is trained. kind, lr and the inputs "logits_onehot" are the paper's.

    kind: a name in `gates.GATES`. inputs: a mode in INPUT_MODES. lr: AdamW's rate; 1e-4 suits the
    paper's tens of thousands of rows, a few hundred need about 1e-2. epochs: at most so many, fewer
    by early stopping on the loss of rows held out; patience: epochs without a better one before
    training stops. folds: of the cross-validation when no val rows are given; 0 trains for exactly
    `epochs`."""

    kind: str = "concat_linear"
    inputs: Annotated[str, tuple(INPUT_MODES)] = "logits_onehot"
    lr: Above0 = 1e-4
    epochs: Count = 100
    batch_size: Count = 64
    weight_decay: Amount = 0.01
    patience: Count = 10
    folds: CountOr0 = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.folds == 1:
            raise InputError("folds is 1: choose 0 (none) or at least 2")
