"""Time each stage beside the loop of the paper's published code, on the same models and images.

The published loop runs every frozen network anew for every image of every epoch; its VLM answers by
sampled decoding of up to 256 tokens. Ours passes each image through each frozen network once, in
batches, and scores labels; an image's instructions share a pass. Tuning is timed beside TRL's
SFTTrainer too, where that is installed. One epoch of the other loop is timed, times their number; ours
is timed whole."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from timeit import repeat, timeit

import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy.special import softmax
from torch.nn.functional import cross_entropy

from ..answers import parse_answer
from ..data import ImageDataset
from ..distillation import DistillationHead, distillation_loss, train_head
from ..gates import build_gate, gate_inputs
from ..gating import train_gate
from ..instructions import AnswerCollator, answer_for, categorical_prompt, write_instructions
from ..run.run import Run
from ..training import bf16_is_fast
from ..tuning import add_lora, instruction_tune, lora_config
from ..world.describe import describe_scene

EPOCHS = 5  # the paper's number, for adapter, head and gate alike
TRL = "tuning, TRL"
WANTED = {
    "tuning": 4,
    TRL: 1.6,
    "distillation": 10,
    "gate": 20,
    "VLM prediction": 5,
}  # least ratios


class Loops:
    """Both ways through the stages, on the models of a run and some of its images."""

    def __init__(self, run: Run, data: ImageDataset) -> None:
        self.vlm, self.vision, self.profile = run.tuned_vlm(0), run.vision(0), run.profile
        self.data, classes = data, len(data.label_set)
        self.images = [data.open(image_id) for image_id in data.ids]
        self.labels = torch.from_numpy(data.label_index)
        self.question = categorical_prompt(data.label_set)
        self.head = DistillationHead(self.vlm.features(self.images[:1]).shape[1], classes)
        self.gate = build_gate("concat_linear", classes)
        self.common = {"num_classes": classes, "seed": 0}  # of head and gate
        kinds, self.untuned = self.profile.tuning.kinds, lambda: run.load_vlm(tuning=True)
        self.instructions, _ = write_instructions(data, kinds, 0, describe_scene)

    def _answer(self, image: Image.Image) -> np.ndarray:
        """The VLM's sampled answer: (1, C), one-hot, or zeros where it names no label."""
        inputs = self.vlm.inputs([image], self.question)
        with torch.inference_mode():
            written = self.vlm.model.generate(**inputs, max_new_tokens=256, do_sample=True)
        fresh = written[:, inputs["input_ids"].shape[1] :]
        text = self.vlm.processor.batch_decode(fresh, skip_special_tokens=True)[0]
        label = parse_answer(text, self.data.label_set)
        return np.array([[label == name for name in self.data.label_set.labels]], np.float32)

    def _student(self, image: Image.Image) -> torch.Tensor:  # (1, C)
        return self.head(torch.from_numpy(self.vlm.features([image])))

    def published_tuning(self) -> None:
        """Visual encoder and language model run for each instruction; the question is learnt too."""
        vlm = self.untuned()
        model = add_lora(vlm.core, self.profile.tuning).train()
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
        collate = AnswerCollator(vlm.processor)
        for item in self.instructions:
            image = self.data.open(item.image_id)
            batch = collate([{"image": image, "prompt": item.prompt, "answer": item.answer}])
            batch["labels"] = batch["input_ids"]
            inputs = {name: value.to(vlm.device) for name, value in batch.items()}
            _step(optimizer, model(**inputs).loss)

    def trl_tuning(self) -> None:
        """The same rows, batches and adapter by TRL's SFTTrainer."""
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

        vlm, settings = self.untuned(), self.profile.tuning
        rows = [
            {
                "images": [self.data.open(item.image_id)],
                "prompt": [{"role": "user", "content": item.prompt}],
                "completion": [{"role": "assistant", "content": item.answer}],
            }
            for item in self.instructions
        ]
        with TemporaryDirectory() as to:
            options = {"save_strategy": "no", "report_to": [], "disable_tqdm": True}
            options |= {"num_train_epochs": 1, "max_length": None, "learning_rate": settings.lr}
            options |= {"per_device_train_batch_size": settings.batch_size}
            options |= {"bf16": bf16_is_fast(vlm.device), "use_cpu": vlm.device.type == "cpu"}
            config = SFTConfig(to, gradient_checkpointing=settings.recompute, **options)
            parts = {"train_dataset": Dataset.from_list(rows), "processing_class": vlm.processor}
            SFTTrainer(
                vlm.core, config, peft_config=lora_config(vlm.core, settings), **parts
            ).train()

    def our_tuning(self) -> None:
        """The instructions of an image behind one pass of it, whose encoding is kept."""
        settings = replace(self.profile.tuning, epochs=EPOCHS)
        with TemporaryDirectory() as to:
            vlm, texts = self.untuned(), self.instructions
            instruction_tune(vlm, self.data, texts, settings, 0, Path(to), progress=False)

    def published_head(self) -> None:
        """Teacher and visual encoder run for each image."""
        optimizer = torch.optim.AdamW(self.head.parameters(), lr=1e-5)
        for image, label in zip(self.images, self.labels.split(1), strict=True):
            teacher = torch.from_numpy(self.vision.image_logits([image]).copy())  # (1, C)
            _step(optimizer, distillation_loss(self._student(image), teacher, label))

    def published_gate(self) -> None:
        """Visual encoder, head and the VLM's sampled answer for each image."""
        optimizer = torch.optim.AdamW(self.gate.parameters(), lr=1e-4)
        for image, label in zip(self.images, self.labels.split(1), strict=True):
            student, answer = self._student(image).detach(), torch.from_numpy(self._answer(image))
            _step(optimizer, cross_entropy(self.gate(student, answer), label))

    def published_answers(self) -> list[np.ndarray]:
        """The VLM's sampled answers, one image at a time."""
        return [self._answer(image) for image in self.images]

    def our_head(self) -> None:
        """On features and teacher logits of all images."""
        features = self.vlm.dataset_features(self.data, progress=False)
        labels, teacher = self.data.label_index, self.vision.logits(self.data)
        settings = replace(self.profile.head, epochs=EPOCHS, patience=EPOCHS)
        val = {"val_features": features[:8], "val_labels": labels[:8]}
        train_head(features, labels, teacher, **val, settings=settings, **self.common)

    def our_gate(self) -> None:
        """On the head's logits and the VLM's scored answers."""
        probabilities, features = self.our_answers()
        with torch.no_grad():
            student = self.head(torch.from_numpy(features)).numpy()
        one_hot = np.eye(len(self.data.label_set))[probabilities.argmax(1)]
        inputs = gate_inputs(student, probabilities, one_hot, self.profile.gate.inputs)
        settings = replace(self.profile.gate, epochs=EPOCHS, folds=0)
        about = self.common | {"settings": settings, "trained_on": "train"}
        train_gate(*inputs, self.data.label_index, **about)

    def our_answers(self) -> tuple[np.ndarray, np.ndarray]:
        """The VLM's probabilities (n, C) by scoring, and features (n, d) from the same pass."""
        answers = [answer_for(label) for label in self.data.label_set.labels]
        scores, features = self.vlm.score_with_features(self.images, self.question, answers)
        return softmax(scores, axis=1), features


def _step(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def bench(run: Run, count: int = 64) -> pd.DataFrame:
    """Seconds of both ways for ``count`` training images, and their ratio, a row per stage."""
    train = run.dataset.split("train")
    loops = Loops(run, train.select(train.ids[:count]))
    torch.manual_seed(0)
    loops.our_head(), loops.our_answers()  # warm
    pairs = [("tuning", loops.published_tuning, loops.our_tuning)]
    if importlib.util.find_spec("trl"):
        pairs.append((TRL, loops.trl_tuning, loops.our_tuning))
    else:
        print(f'[left out] {TRL}: `pip install -e ".[datasets,bench]"` adds it')
    pairs.append(("distillation", loops.published_head, loops.our_head))
    pairs.append(("gate", loops.published_gate, loops.our_gate))
    pairs.append(("VLM prediction", loops.published_answers, loops.our_answers))
    rows, ours = {}, {way: min(repeat(way, number=1)) for way in {way for *_, way in pairs}}
    for stage, other, way in pairs:
        epochs = EPOCHS if way != loops.our_answers else 1
        slow, fast = timeit(other, number=1) * epochs, ours[way]
        rows[stage] = len(loops.images), epochs, slow, fast, slow / fast, WANTED[stage]
    columns = ["images", "epochs", "other loop, s", "ours, s", "ratio", "wanted"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    return table.rename_axis("stage").round(2)
