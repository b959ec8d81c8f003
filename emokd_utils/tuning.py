"""Instruction tuning with LoRA (lesson 5): low-rank updates on projections of the language model; the
visual encoder and every base weight stay frozen (Hu et al. 2022, arXiv:2106.09685; Lee et al. 2025,
doi:10.1109/CVPRW67362.2025.00560: query, key, value and output, rank 8, alpha 8, dropout 0.05)."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainingArguments

from .data import ImageDataset
from .errors import InputError
from .families import lora_targets
from .instructions import IGNORED, Instruction, check_texts
from .packing import PackingCollator, answer_loss, by_image
from .processes import first, world
from .settings import TuningSettings
from .training import bf16_is_fast
from .vlm import VLM


def lora_config(model, settings: TuningSettings) -> LoraConfig:
    """peft's description of the adapter for a model. InputError as `families.lora_targets`."""
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=lora_targets(model, settings.projections),
        task_type="CAUSAL_LM",
    )


def add_lora(model, settings: TuningSettings):
    """Wrap a model with LoRA, W x + (alpha / rank) B A x; everything but A and B is frozen. For a W
    (out x in), A (rank x in) and B (out x rank) have rank * (in + out) weights."""
    return get_peft_model(model, lora_config(model, settings))


def adapted(model) -> str:
    """What LoRA was put on: how many layers of which names, and how many weights it has."""
    weights = {name: w.numel() for name, w in model.named_parameters() if ".lora_" in name}
    layers = {name.partition(".lora_")[0] for name in weights}
    names = ", ".join(sorted({name.rpartition(".")[2] for name in layers}))
    return f"LoRA: {sum(weights.values()):,} weights on {len(layers)} layers named {names}"


def recompute_layers(model) -> None:
    """In the backward pass each layer computes its inside anew (gradient checkpointing). To be called
    once the adapter is there, for peft does the same to a model that recomputes."""
    model.activation_checkpointing_enable()
    model.disable_input_require_grads()  # else the frozen visual encoder is gone through backwards


class _ProgressBar(ProgressCallback):
    """The Trainer's bar, with the loss on it in place of printed lines."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            self.training_bar.set_postfix(loss=logs["loss"])


class _Trainer(Trainer):
    """Of transformers, with the loss of packed rows."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        learnt = (inputs["next_ids"] != IGNORED).sum()
        share = learnt / self.accelerator.gather(learnt).float().mean()  # of all processes' tokens
        return share * answer_loss(model, inputs)


def instruction_tune(
    vlm: VLM,
    dataset: ImageDataset,
    instructions: Sequence[Instruction],
    settings: TuningSettings,
    seed: int,
    out: Path,
    progress: bool = True,
    checkpoints: Path | None = None,
) -> list[dict]:
    """Tune ``vlm``, write the adapter to ``out`` and return the log, one dict a logged step.
    ``checkpoints``: a folder for the state after every ``settings.checkpoint_steps`` steps, from
    which it goes on. InputError for no instructions, one that holds a special token, an image that
    `vlm` and its processor count otherwise, or a batch that the processes cannot share."""
    if not instructions:
        raise InputError("there are no instructions to tune on: none were written for this data")
    check_texts(instructions, vlm.processor.tokenizer)
    groups, (_, processes) = by_image(instructions, settings.batch_size), world()
    largest = max(groups, key=len)
    images = settings.batch_size // len(largest)
    if images % processes:
        what = f"a batch of {images} images cannot be shared by {processes} processes"
        raise InputError(f"{what}: choose another tuning.batch_size, {len(largest)} an image")
    collate = PackingCollator(vlm, dataset, settings.cache_megabytes)
    collate.share = collate.is_exact(largest)
    arguments = _arguments(settings, images // processes, seed, vlm.device, out, checkpoints)
    torch.manual_seed(seed)
    model = add_lora(vlm.core, settings)
    if progress and first():
        print(adapted(model) + ", one row an image" * collate.share)
    if settings.recompute:
        recompute_layers(model.get_base_model())
    bars = [_ProgressBar()] if progress and first() else []
    trainer = _Trainer(model, arguments, collate, groups, callbacks=bars)
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=checkpoints and _last_checkpoint(checkpoints))
    shutil.rmtree(out / "trainer", ignore_errors=True)
    model.peft_config["default"].base_model_name_or_path = vlm.name  # no path of this machine
    model.save_pretrained(out, save_embedding_layers=False)
    (out / "README.md").unlink(missing_ok=True)  # peft's empty form
    # The Trainer leaves its lower precision on the model; here it answers as when loaded.
    vlm.model = trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False).eval()
    return trainer.state.log_history


def _arguments(
    settings: TuningSettings,
    groups: int,
    seed: int,
    device: torch.device,
    out: Path,
    checkpoints: Path | None,
) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(checkpoints or out / "trainer"),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=groups,
        ddp_find_unused_parameters=False,
        learning_rate=settings.lr,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        bf16=bf16_is_fast(device),
        use_cpu=device.type == "cpu",
        seed=seed,
        save_strategy="steps" if checkpoints else "no",
        save_steps=settings.checkpoint_steps,
        save_total_limit=2,
        logging_steps=25,
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )


def _last_checkpoint(folder: Path) -> str | None:
    """The last whole checkpoint; one that was cut off while it was written has no state."""
    whole = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    return str(max(whole, key=lambda path: int(path.name.partition("-")[2]))) if whole else None
