"""Profiles: everything that the stages need to know, under one name.

A profile is one flat dataclass. The fields of a stage share its prefix (``vision_lr``,
``head_alpha``), and ``Profile.settings("head", HeadSettings)`` hands them to the stage. The same
cells run another model or data set by naming another profile, or by ``dataclasses.replace`` of a
field.
"""

import os
from collections.abc import Callable
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
    published). ``vision_further``: more vision models for the report, none of them the teacher,
    each ``name`` or ``name@weights`` as of ``VisionSettings``. A file of weights is looked for in
    the project unless its path is absolute. ``images_per_split``: only so many images of each split
    (0: all).
    """

    name: str
    data: str
    images_per_split: int

    vlm: str
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
    tuning_lr: float
    tuning_epochs: int
    tuning_batch_size: int
    tuning_kinds: tuple[str, ...]

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
    tuning_lr=5e-3,
    tuning_epochs=4,
    tuning_batch_size=32,
    tuning_kinds=("categorical", "conversation", "reasoning"),
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

PROFILES = {profile.name: profile for profile in (MINI,)}


def get_profile(name: str | None = None) -> Profile:
    """The profile called ``name``; without a name the one in EMOKD_PROFILE, else ``mini``.

    Raises InputError for an unknown name.
    """
    name = name or os.environ.get("EMOKD_PROFILE") or "mini"
    if name not in PROFILES:
        raise InputError(f"there is no profile {name!r}; choose one of {', '.join(PROFILES)}")
    return PROFILES[name]


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
