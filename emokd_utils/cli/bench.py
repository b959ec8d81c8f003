"""Time each stage beside the loop that the paper's published code uses, on the same models and images.

The published loop takes one image at a time and runs every frozen network anew for every image of
every epoch; its VLM answers by sampled decoding of up to 256 tokens. Ours passes each image through
each frozen network once, in batches, and scores labels. One epoch of the published loop is timed
and multiplied by the number of epochs; ours is timed whole.
"""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from PIL import Image

from ..answers import parse_answer
from ..distillation import DistillationHead, distillation_loss, train_head
from ..emovlm_kd import softmax
from ..gates import build_gate, gate_inputs
from ..gating import train_gate
from ..instructions import answer_for, categorical_prompt
from ..run.environment import asked_profile
from ..run.pipeline import Pipeline
from ..vlm import VLM

EPOCHS = 5  # the paper's number, for head and gate alike
WANTED = {"distillation": 10, "gate": 20, "VLM prediction": 5}  # least ratios


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


class PublishedLoop:
    """One epoch of each stage, an image at a time, every network run anew."""

    def __init__(self, vlm: VLM, teacher, images: list[Image.Image], labels: np.ndarray, label_set):
        self.vlm, self.teacher, self.images, self.labels = vlm, teacher, images, labels
        self.label_set = label_set
        classes = len(label_set)
        self.head = DistillationHead(vlm.features(images[:1]).shape[1], classes)
        self.gate = build_gate("concat_linear", classes)

    def _answer(self, image: Image.Image) -> str:
        inputs = self.vlm.inputs([image], categorical_prompt(self.label_set))
        with torch.inference_mode():
            written = self.vlm.model.generate(**inputs, max_new_tokens=256, do_sample=True)
        fresh = written[:, inputs["input_ids"].shape[1] :]
        return self.vlm.processor.batch_decode(fresh, skip_special_tokens=True)[0]

    def distil(self) -> None:
        """The head: teacher and visual encoder run for each image."""
        optimizer = torch.optim.AdamW(self.head.parameters(), lr=1e-5)
        for image, label in zip(self.images, self.labels, strict=True):
            features = torch.from_numpy(self.vlm.features([image]))
            teacher = torch.from_numpy(self.teacher([image]).copy())
            loss = distillation_loss(self.head(features), teacher, torch.tensor([label]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def train_gate(self) -> None:
        """The gate: visual encoder, head and the VLM's sampled answer for each image."""
        optimizer = torch.optim.AdamW(self.gate.parameters(), lr=1e-4)
        classes = len(self.label_set)
        for image, label in zip(self.images, self.labels, strict=True):
            with torch.no_grad():
                student = self.head(torch.from_numpy(self.vlm.features([image])))
            named = parse_answer(self._answer(image), self.label_set)
            vlm = torch.zeros(1, classes)
            if named is not None:
                vlm[0, self.label_set.index(named)] = 1
            loss = torch.nn.functional.cross_entropy(self.gate(student, vlm), torch.tensor([label]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def predict(self) -> None:
        """The VLM's answers, one image at a time."""
        for image in self.images:
            parse_answer(self._answer(image), self.label_set)


def bench(pipeline: Pipeline, count: int = 64, seed: int = 0) -> pd.DataFrame:
    """Seconds of both loops for ``count`` training images, and their ratio, a row per stage."""
    data = pipeline.dataset.split("train")
    data = data.select(list(data.ids)[:count])
    images = [data.open(image_id) for image_id in data.ids]
    labels = np.asarray(data.label_index)
    vlm, vision = pipeline.tuned_vlm(seed), pipeline.vision(seed)
    label_set, classes, profile = data.label_set, len(data.label_set), pipeline.profile
    published = PublishedLoop(vlm, vision.image_logits, images, labels, label_set)

    def ours_distil() -> None:
        features = vlm.dataset_features(data, progress=False)
        settings = replace(profile.head, epochs=EPOCHS, patience=EPOCHS)
        train_head(
            features,
            labels,
            vision.logits(data),
            val_features=features[:8],
            val_labels=labels[:8],
            num_classes=classes,
            settings=settings,
            seed=seed,
        )

    prompt, expected = categorical_prompt(label_set), [answer_for(x) for x in label_set.labels]

    def ours_gate() -> None:
        scores, features = vlm.score_with_features(images, prompt, expected)
        probabilities = softmax(scores)
        with torch.no_grad():
            student = published.head(torch.from_numpy(features)).numpy()
        one_hot = np.eye(classes)[probabilities.argmax(1)]
        inputs = gate_inputs(student, probabilities, one_hot, profile.gate.inputs)
        settings = replace(profile.gate, epochs=EPOCHS, folds=0)
        train_gate(
            *inputs, labels, num_classes=classes, settings=settings, seed=seed, trained_on="train"
        )

    def ours_predict() -> None:
        softmax(vlm.score(images, prompt, expected))

    torch.manual_seed(seed)
    for warm in (ours_distil, ours_predict):
        warm()
    rows = []
    for stage, theirs, ours, epochs in (
        ("distillation", published.distil, ours_distil, EPOCHS),
        ("gate", published.train_gate, ours_gate, EPOCHS),
        ("VLM prediction", published.predict, ours_predict, 1),
    ):
        slow, fast = _seconds(theirs) * epochs, min(_seconds(ours) for _ in range(5))
        rows.append(
            {
                "stage": stage,
                "images": len(images),
                "epochs": epochs,
                "published loop, s": round(slow, 2),
                "ours, s": round(fast, 2),
                "ratio": round(slow / fast, 1),
                "wanted": WANTED[stage],
            }
        )
    return pd.DataFrame(rows).set_index("stage")


def main(args) -> int:
    """The command ``bench``: both loops side by side; exit code 1 where a ratio is not reached."""
    pipeline = Pipeline(asked_profile(args))
    table = bench(pipeline, args.images or 64)
    print(f"\n{table.to_string()}")
    good = bool((table["ratio"] >= table["wanted"]).all())
    print("[ok] every ratio is reached" if good else "[fail] a ratio is not reached")
    return 0 if good else 1
