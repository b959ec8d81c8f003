"""Profiles: everything that the stages need to know, under one name.

A profile is one flat dataclass. The fields of a stage share its prefix (``vision_lr``,
``head_alpha``), and ``Profile.settings("head", HeadSettings)`` hands them to the stage. The same
cells run another model or data set by naming another profile in the environment (EMOKD_PROFILE,
EMOKD_DATA, EMOKD_SET: see `get_profile`), or by ``dataclasses.replace`` of a field; on the command
line also by ``--vlm``, ``--vision``, ``--data`` and ``--set FIELD=VALUE``.

========  =====================================  ==============================================
profile   models                                 for
========  =====================================  ==============================================
mini      TinyVLM, ResNet-10 (both built in)     a laptop, offline; what the course measures
laptop    SmolVLM-256M, MobileNetV3              a laptop with patience, or any GPU
colab     Qwen2-VL-2B in NF4, ViT-S/16           one GPU of 16 GB
paper     Qwen2-VL-7B in NF4, ViT-B/16 at 384    one GPU of 24 GB; ``plan`` says what it takes
========  =====================================  ==============================================

What is not from the paper in ``laptop`` and ``colab`` is a start, and was not tuned.

The paper (Lee, Lee & Park 2025, doi:10.1109/CVPRW67362.2025.00560) and its published code
(github.com/sange1104/EmoVLM-KD) differ in places. ``paper`` takes the left value; the right one is
selected by the fields named:

=====================  ==================================  =========================================
what                   paper (T: text, F: figure)          published code, and how to select it
=====================  ==================================  =========================================
precision of the VLM   4-bit NF4 (T)                       NF4 with double quantisation while tuned,
                                                           then float32: vlm_quantize=nf4-tuning
gate's student input   softmax (F)                         logits: gate_inputs=logits_onehot
gate's training split  not known here; ours is val, on     train: gate_split=train
                       which the VLM was not tuned
=====================  ==================================  =========================================

Text and code agree on LoRA (rank 8, alpha 8, dropout 0.05), rates (1e-4 tuning, 1e-5 head, 1e-4
gate), five epochs of tuning, alpha 0.5, T 2 and the linear gate on concatenated inputs. LoRA is on
the query, key, value and output projections of the language model, as in the code; where the text
is retold, only the first three are named: tuning_projections=q,k,v. From the code alone: batches of
one (ten images for the vision model), five epochs of the head, ten of gate and vision model, weight
decays, images of at most 1,024 pixels a side when answering, answers of up to 256 tokens. ResNet-50
and VGG-16 are further rows of the report; ``--vision resnet50.tv_in1k@timm`` makes one the teacher.

Ours differ from the code in every profile: label scoring where it samples one answer (temperature
0.8; ``bench`` runs its loop); AdamW where it has Adam for vision model, head and gate; the best
epoch on val where it keeps the last; a cosine after a warm-up of 0.05 and gradients clipped at 1
where tuning has a constant rate after 0.03 and 0.3; the loss of the answer alone where it learns
the question too.
"""

import os
import shlex
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TypeVar

from .errors import InputError

T = TypeVar("T")


def project_root() -> Path:
    """The folder that holds ``data/``, ``notebooks/`` and the package."""
    return Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Profile:
    """What every stage of EmoVLM-KD needs. Relative paths are relative to the project.

    The meaning and range of a field is that of the same field of the stage's settings:
    ``vision.VisionSettings``, ``tuning.TuningSettings``, ``distillation.HeadSettings``,
    ``gating.GateSettings``. ``gate_kinds``: the gates that the report compares; ``gate_split``: the
    split that the gate is trained on ("val", whose answers the VLM was not tuned on, or "train" as
    published). ``vlm_quantize``: "" for the weights as published, "nf4" for 4 bits, "nf4-tuning" for 4
    bits while it is tuned. ``vlm_pixels``: what the VLM sees of an image at most (`vlm.limit_pixels`;
    0: what its processor allows). ``tuning_recompute``: keep only what goes into each layer, and
    compute the rest again in the backward pass. ``tuning_instructions``: a journal of
    ``write-instructions`` in place of the offline writer ("" for that). ``vision_further``: more
    vision models for the report, none of them the teacher, each ``name`` or ``name@weights`` as of
    ``VisionSettings``. A file of weights is looked for in the project unless its path is absolute.
    ``images_per_split``: only so many images of each split (0: all).
    """

    name: str
    data: str
    images_per_split: int

    vlm: str
    vlm_quantize: str
    vlm_pixels: int
    vlm_batch_size: int
    vlm_max_new_tokens: int

    vision_name: str
    vision_weights: str
    vision_further: tuple[str, ...]
    vision_image_size: int
    vision_epochs: int
    vision_batch_size: int
    vision_lr: float
    vision_weight_decay: float
    vision_patience: int

    tuning_rank: int
    tuning_alpha: int
    tuning_dropout: float
    tuning_projections: tuple[str, ...]
    tuning_lr: float
    tuning_epochs: int
    tuning_batch_size: int
    tuning_kinds: tuple[str, ...]
    tuning_recompute: bool
    tuning_checkpoint_steps: int
    tuning_instructions: str

    head_alpha: float
    head_temperature: float
    head_depth: int
    head_dropout: float
    head_lr: float
    head_weight_decay: float
    head_batch_size: int
    head_epochs: int
    head_patience: int
    head_standardize: bool

    gate_kinds: tuple[str, ...]
    gate_inputs: str
    gate_split: str
    gate_lr: float
    gate_weight_decay: float
    gate_batch_size: int
    gate_epochs: int
    gate_patience: int
    gate_folds: int

    def settings(self, stage: str, kind: Callable[..., T], /, **other) -> T:
        """``kind`` made from the fields that begin with ``stage_`` and that it knows; ``other``
        overrides."""
        known = {field.name for field in fields(kind)}
        prefix = stage + "_"
        own = {
            field.name.removeprefix(prefix): getattr(self, field.name)
            for field in fields(self)
            if field.name.startswith(prefix) and field.name.removeprefix(prefix) in known
        }
        return kind(**own | other)

    def path(self, text: str) -> Path:
        """A path of the profile, made absolute."""
        return project_root() / text


MINI = Profile(
    name="mini",
    data="data/emoscenes",
    images_per_split=0,
    vlm="data/tiny_vlm",
    vlm_quantize="",
    vlm_pixels=0,
    vlm_batch_size=32,
    vlm_max_new_tokens=48,
    vision_name="resnet10t",
    vision_weights="",
    vision_further=(),
    vision_image_size=64,
    vision_epochs=20,
    vision_batch_size=32,
    vision_lr=2e-3,
    vision_weight_decay=0.05,
    vision_patience=20,
    tuning_rank=8,
    tuning_alpha=8,
    tuning_dropout=0.05,
    tuning_projections=("q", "k", "v", "o"),
    tuning_lr=5e-3,
    tuning_epochs=4,
    tuning_batch_size=32,
    tuning_kinds=("categorical", "conversation", "reasoning"),
    tuning_recompute=False,
    tuning_checkpoint_steps=100,
    tuning_instructions="",
    head_alpha=0.5,
    head_temperature=2.0,
    head_depth=1,
    head_dropout=0.1,
    head_lr=1e-3,
    head_weight_decay=0.01,
    head_batch_size=64,
    head_epochs=60,
    head_patience=15,
    head_standardize=True,
    gate_kinds=(
        "concat_linear",
        "bilinear",
        "mixture_of_experts",
        "dynamic_weighting",
        "cross_gating",
    ),
    gate_inputs="probabilities",
    gate_split="val",
    gate_lr=1e-2,
    gate_weight_decay=1e-3,
    gate_batch_size=64,
    gate_epochs=200,
    gate_patience=20,
    gate_folds=5,
)

LAPTOP = replace(
    MINI,
    name="laptop",
    vlm="HuggingFaceTB/SmolVLM-256M-Instruct",
    vlm_pixels=512 * 512,
    vlm_batch_size=8,
    vision_name="mobilenetv3_large_100",
    vision_weights="timm",
    vision_image_size=224,
    vision_epochs=10,
    vision_lr=5e-4,
    vision_patience=10,
    tuning_lr=1e-4,
    tuning_epochs=2,
    tuning_batch_size=4,
)

COLAB = replace(
    LAPTOP,
    name="colab",
    vlm="Qwen/Qwen2-VL-2B-Instruct",
    vlm_quantize="nf4",
    vlm_pixels=448 * 448,
    vision_name="vit_small_patch16_224",
    vision_lr=5e-5,
    tuning_recompute=True,
)

PAPER = replace(
    MINI,
    name="paper",
    vlm="Qwen/Qwen2-VL-7B-Instruct",
    vlm_quantize="nf4",
    vlm_pixels=1024 * 768,
    vlm_batch_size=4,
    vlm_max_new_tokens=256,
    vision_name="vit_base_patch16_384.orig_in21k_ft_in1k",
    vision_weights="timm",
    vision_further=("resnet50.tv_in1k@timm", "vgg16.tv_in1k@timm"),
    vision_image_size=384,
    vision_epochs=10,
    vision_batch_size=10,
    vision_lr=3e-5,
    vision_weight_decay=1e-5,
    vision_patience=10,
    tuning_lr=1e-4,
    tuning_epochs=5,
    tuning_batch_size=1,
    tuning_recompute=True,
    head_lr=1e-5,
    head_weight_decay=1e-4,
    head_batch_size=1,
    head_epochs=5,
    head_patience=5,
    head_standardize=False,
    gate_inputs="softmax_onehot",
    gate_lr=1e-4,
    gate_weight_decay=1e-4,
    gate_batch_size=1,
    gate_epochs=10,
    gate_patience=10,
)

PROFILES = {profile.name: profile for profile in (MINI, LAPTOP, COLAB, PAPER)}


def get_profile(name: str | None = None) -> Profile:
    """The profile called ``name``; without a name the one in EMOKD_PROFILE, else ``mini``.

    The environment may change it: EMOKD_DATA names a folder of images in the place of the profile's
    own, and EMOKD_SET has fields of the profile in EMOKD_PROFILE, ``field=value`` with spaces between
    them and quotes around what has spaces inside.

    Raises InputError for an unknown name, and for EMOKD_SET as `changed`.
    """
    usual = os.environ.get("EMOKD_PROFILE") or "mini"
    name = name or usual
    if name not in PROFILES:
        raise InputError(f"there is no profile {name!r}; choose one of {', '.join(PROFILES)}")
    profile = PROFILES[name]
    if data := os.environ.get("EMOKD_DATA"):
        profile = replace(profile, data=data)
    if name == usual:
        text = os.environ.get("EMOKD_SET", "")
        try:
            settings = shlex.split(text)
        except ValueError as error:
            raise InputError(
                f"EMOKD_SET={text}: {error}; write 'field=value field=value'"
            ) from None
        profile = changed(profile, settings=settings)
    return profile


def changed(
    profile: Profile, vlm: str = "", vision: str = "", settings: Sequence[str] = ()
) -> Profile:
    """The profile with another VLM (hub id or folder), another vision model (``name`` or
    ``name@weights``) and fields set by ``field=value``, the items of a list divided by commas.

    A folder or file that is there from where the command runs is taken from there. Raises
    InputError for a field that a profile lacks, or a value of another type than the field's.
    """
    if vlm:
        profile = replace(profile, vlm=_here(vlm))
    if vision:
        name, _, weights = vision.partition("@")
        profile = replace(profile, vision_name=name, vision_weights=_here(weights))
    for text in settings:
        field, _, value = text.partition("=")
        if field not in {f.name for f in fields(Profile)} - {"name"}:
            raise InputError(
                f"{text!r}: a profile has no field {field!r}; see emokd_utils.profiles"
            )
        kind = type(getattr(profile, field))
        try:
            profile = replace(profile, **{field: _VALUES[kind](value)})
        except (ValueError, KeyError):
            raise InputError(f"{text!r}: {field} wants {kind.__name__}, not {value!r}") from None
    return profile


def chosen(args: Namespace) -> Profile:
    """The profile that a command line asks for: ``--profile`` with ``--vlm``, ``--vision``,
    ``--set`` and, where the command has it, ``--further-vision``. Raises InputError as `changed`."""
    profile = changed(get_profile(args.profile), args.vlm, args.vision, args.settings)
    further = getattr(args, "further_vision", [])
    return replace(profile, vision_further=(*profile.vision_further, *further))


_VALUES: dict[type, Callable[[str], object]] = {
    str: str,
    int: int,
    float: float,
    bool: lambda text: {"true": True, "false": False}[text.lower()],
    tuple: lambda text: tuple(filter(None, text.split(","))),
}


def _here(text: str) -> str:
    return str(Path(text).resolve()) if text and Path(text).exists() else text


def reduced(profile: Profile) -> Profile:
    """The same profile with few images and epochs: every stage runs, nothing is learnt well."""
    return replace(
        profile,
        images_per_split=96,
        vision_epochs=2,
        tuning_epochs=1,
        head_epochs=5,
        gate_epochs=20,
    )
