"""Profiles: everything that the stages need to know, under one name.

A profile holds the settings of each stage: ``profile.head.alpha``, ``profile.vision.lr``. The same
cells run another model or data set by naming another profile in the environment (EMOKD_PROFILE,
EMOKD_DATA, EMOKD_SET: see `run.open_run`), or by ``profile.changed(head={"alpha": 0.3})``; on the
command line also by ``--vlm``, ``--vision``, ``--data`` and ``--set head.alpha=0.3``.

========  =====================================  ==============================================
profile   models                                 for
========  =====================================  ==============================================
mini      TinyVLM, ResNet-10 (both built in)     a laptop, offline; what the course measures
laptop    SmolVLM-500M, MobileNetV3              a laptop with patience, or any GPU
colab     Qwen3-VL-2B in NF4, ViT-S/16           one GPU of 16 GB
paper     Qwen2-VL-7B in NF4, ViT-B/16 at 384    one GPU of 24 GB; ``plan`` says what it takes
========  =====================================  ==============================================

What is not from the paper in ``laptop`` and ``colab`` is a start, not tuned (VLMs: lesson 10).

The paper (Lee, Lee & Park 2025, doi:10.1109/CVPRW67362.2025.00560) and its published code
(github.com/sange1104/EmoVLM-KD) differ in places. ``paper`` takes the left value; the right one is
selected by the fields named:

=====================  ==================================  =========================================
what                   paper (T: text, F: figure)          published code, and how to select it
=====================  ==================================  =========================================
precision of the VLM   4-bit NF4 (T)                       NF4 with double quantisation while tuned,
                                                           then float32: vlm.quantize=nf4-tuning
gate's student input   softmax (F)                         logits: gate.inputs=logits_onehot
gate's training split  not known here; ours is val, on     train: gate_split=train
                       which the VLM was not tuned
=====================  ==================================  =========================================

Text and code agree on LoRA (rank 8, alpha 8, dropout 0.05), rates (1e-4 tuning, 1e-5 head, 1e-4
gate), five epochs of tuning, alpha 0.5, T 2 and the linear gate on concatenated inputs. LoRA is on
the query, key, value and output projections of the language model, as in the code; where the text
is retold, only the first three are named: tuning.projections=q,k,v. From the code alone: batches of
one (ten images for the vision model), five epochs of the head, ten of gate and vision model, weight
decays, images of at most 1,024 pixels a side when answering, answers of up to 256 tokens. ResNet-50
and VGG-16 are further rows of the report; ``--vision resnet50.tv_in1k@timm`` makes one the teacher.

Ours differ from the code in every profile: label scoring where it samples one answer (temperature
0.8; ``bench`` runs its loop); AdamW where it has Adam for vision model, head and gate; the best
epoch on val where it keeps the last; a cosine after a warm-up of 0.05 and gradients clipped at 1
where tuning has a constant rate after 0.03 and 0.3; the loss of the answer alone where it learns
the question too. Four of the five gates have other equations there: gates=published_bilinear,...
What keeps that code, of 20 March 2025, from running as it stands is exercise 9.6."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from .errors import InputError
from .settings import (
    GATE_KINDS,
    Checked,
    CountOr0,
    GateSettings,
    HeadSettings,
    TuningSettings,
    VisionSettings,
    VLMSettings,
)


def project_root() -> Path:
    """The folder that holds ``data/``, ``notebooks/`` and the package."""
    return Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Profile(Checked):
    """What every stage of EmoVLM-KD needs. Relative paths are relative to the project.

    data: the folder of images. images_per_split: only so many images of each split (0: all).
    further_vision: more vision models for the report, none of them the teacher, each ``name`` or
    ``name@weights`` as of VisionSettings. gates: the kinds that the report compares, the first one
    EmoVLM-KD's. gate_split: what the gate is trained on ("val", whose answers the VLM was not tuned
    on, or "train" as published)."""

    name: str
    data: str = "data/emoscenes"
    images_per_split: CountOr0 = 0
    vlm: VLMSettings = VLMSettings()
    vision: VisionSettings = VisionSettings()
    further_vision: tuple[str, ...] = ()
    tuning: TuningSettings = TuningSettings()
    head: HeadSettings = HeadSettings()
    gate: GateSettings = GateSettings()
    gates: Annotated[tuple[str, ...], GATE_KINDS] = GATE_KINDS
    gate_split: Annotated[str, ("train", "val")] = "val"

    def changed(self, **values: Any) -> "Profile":
        """The profile with other values; those of a stage as a dict: ``head={"alpha": 0.3}``."""
        for name, value in values.items():
            if isinstance(value, dict):
                values[name] = replace(getattr(self, name), **value)
        return replace(self, **values)

    def path(self, text: str) -> Path:
        """A path of the profile, made absolute."""
        return project_root() / text


MINI = Profile(
    name="mini",
    vlm=VLMSettings("data/tiny_vlm"),
    vision=VisionSettings(image_size=64),
    tuning=TuningSettings(lr=5e-3, epochs=4, batch_size=32),
    head=HeadSettings(lr=1e-3, patience=15),
    gate=GateSettings(inputs="probabilities", lr=1e-2, weight_decay=1e-3, epochs=200, patience=20),
)

LAPTOP = MINI.changed(
    name="laptop",
    vlm=VLMSettings("HuggingFaceTB/SmolVLM-500M-Instruct", pixels=512 * 512, batch_size=8),
    vision=VisionSettings("mobilenetv3_large_100", 224, "timm", epochs=10, lr=5e-4, patience=10),
    tuning={"lr": 1e-4, "epochs": 2, "batch_size": 4},
)

COLAB = LAPTOP.changed(
    name="colab",
    vlm=VLMSettings("Qwen/Qwen3-VL-2B-Instruct", "nf4", pixels=448 * 448, batch_size=8),
    vision={"name": "vit_small_patch16_224", "lr": 5e-5},
    tuning={"recompute": True},
)

PAPER = Profile(
    name="paper",
    vlm=VLMSettings(quantize="nf4", pixels=1024 * 768, batch_size=4, max_new_tokens=256),
    vision=VisionSettings(
        name="vit_base_patch16_384.orig_in21k_ft_in1k",
        weights="timm",
        image_size=384,
        epochs=10,
        batch_size=10,
        lr=3e-5,
        weight_decay=1e-5,
        patience=10,
    ),
    further_vision=("resnet50.tv_in1k@timm", "vgg16.tv_in1k@timm"),
    tuning=TuningSettings(batch_size=1, recompute=True),
    head=HeadSettings(weight_decay=1e-4, batch_size=1, epochs=5, patience=5, standardize=False),
    gate=GateSettings(
        inputs="softmax_onehot", weight_decay=1e-4, batch_size=1, epochs=10, patience=10
    ),
)

PROFILES = {profile.name: profile for profile in (MINI, LAPTOP, COLAB, PAPER)}


def get_profile(name: str) -> Profile:
    """The profile called ``name``. Raises InputError, naming those there are, for another one."""
    if name not in PROFILES:
        raise InputError(f"there is no profile {name!r}; choose one of {', '.join(PROFILES)}")
    return PROFILES[name]


def with_settings(profile: Profile, settings: Sequence[str]) -> Profile:
    """The profile with fields set by ``stage.field=value`` or ``field=value``, the items of a list
    divided by commas; ``vlm=NAME`` and ``vision=NAME[@WEIGHTS]`` name another model.

    A folder or file that is there from where the command runs is taken from there. Raises
    InputError for a field that a profile lacks, or a value of another type than the field's."""
    for text in settings:
        path, _, value = text.partition("=")
        if path == "vlm":
            profile = profile.changed(vlm={"name": _here(value)})
        elif path == "vision":
            name, at, weights = value.partition("@")
            profile = profile.changed(vision=profile.vision.of(f"{name}{at}{_here(weights)}"))
        else:
            profile = _with_setting(profile, text, path, value)
    return profile


def _with_setting(profile: Profile, text: str, path: str, value: str) -> Profile:
    stage, _, name = path.rpartition(".")
    owner = getattr(profile, stage, None) if stage else profile
    known = {f.name for f in fields(owner)} if is_dataclass(owner) else set()
    if name not in known - ({"name"} if not stage else set()) or is_dataclass(getattr(owner, name)):
        raise InputError(
            f"{text!r}: a profile has no field {path!r}; fields are like head.alpha, and "
            "emokd_utils.profiles lists them"
        )
    kind = type(getattr(owner, name))
    try:
        typed = _VALUES[kind](value)
    except (ValueError, KeyError):
        raise InputError(f"{text!r}: {path} wants {kind.__name__}, not {value!r}") from None
    return profile.changed(**({stage: {name: typed}} if stage else {name: typed}))


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
    return profile.changed(
        images_per_split=96,
        vision={"epochs": 2},
        tuning={"epochs": 1},
        head={"epochs": 5},
        gate={"epochs": 20},
    )
