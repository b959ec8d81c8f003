"""What came in an archive, read and compared with the data set that it is said to be of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ..distillation import HEAD_FORMAT, TrainedHead
from ..files import load_rows, load_tensors
from ..gating import GATE_FORMAT, TrainedGate
from ..maps import CAVEATS, load_explanations
from ..predictions import EMOVLM_KD, TOGETHER, VLM_ALONE, Predictions
from ..run.card import RunCard, check_texts, need, untrusted_json

HISTORY = ("epoch", "train_loss", "val_loss", "val_accuracy")  # of each epoch of a vision model
_MAX_WIDTH, _MAX_CELLS = 2**14, 256  # of a head's input; of an explanation, a side


def check_artefact(stage: str, at: Path, card: RunCard, scratch: Path) -> None:
    """Read an artefact and compare it with the data set; whatever is raised, it is not sound."""
    if stage in ("zero_shot", "tuned"):
        _predictions(at / "predictions.csv", card, scratch)
    for file in at.iterdir():
        if check := _CHECKS.get(file.name):
            check(file, card)


def _rows(file: Path, card: RunCard) -> None:
    rows, columns = load_rows(file, list(card.table.index)), {"logits": len(card.label_set)}
    columns |= {"shares": 2}
    need(rows.ndim == 2, f"{file.name} (no rows)")
    need(rows.shape[1] == columns.get(file.stem, rows.shape[1]), f"{file.name} (of another width)")
    need(rows.dtype == np.float32 and np.isfinite(rows).all(), f"{file.name} (not finite)")


def _predictions(file: Path, card: RunCard, scratch: Path) -> None:
    read = Predictions.load(file)
    rows = card.table.loc[list(read.ids)]
    of = (read.classes, read.splits, read.labels)
    wanted = (tuple(card.label_set), tuple(rows["split"]), tuple(rows["label"]))
    need(of == wanted, "predictions (of other data)")
    # Only what is written again as it was has the escapes that keep formulas out of a spreadsheet.
    again = read.save(scratch / "again.csv").read_bytes()
    need(again == file.read_bytes(), "predictions (not as `Predictions.save` writes)")


def _head(file: Path, card: RunCard) -> None:
    arrays, about = load_tensors(file, HEAD_FORMAT)
    width, classes = arrays["mean"].shape[0], len(card.label_set)
    like = {"in_features": width, "num_classes": classes}
    need(about["arguments"] == like and width <= _MAX_WIDTH, "head (of another size)")
    TrainedHead.load(file)


def _gate(file: Path, card: RunCard) -> None:
    about = load_tensors(file, GATE_FORMAT)[1]
    need(about["arguments"] == {"num_classes": len(card.label_set)}, "gate (of other classes)")
    TrainedGate.load(file)


def _costs(file: Path, card: RunCard) -> None:
    costs = pd.read_csv(file, index_col=0)
    need(list(costs.index) == [VLM_ALONE, TOGETHER, EMOVLM_KD], "costs (other rows)")
    need(all(kind.kind in "if" for kind in costs.dtypes), "costs (no numbers)")


def _maps(file: Path, card: RunCard) -> None:
    for image, maps in load_explanations(file).items():
        need(card.table.loc[image, "split"] == "test", "maps (of other images)")
        for explanation in maps.values():
            values, (left, top, right, bottom) = explanation.values, explanation.area
            need(values.ndim == 2 and max(values.shape) <= _MAX_CELLS, "maps (too large)")
            need(0 <= left < right <= 1 and 0 <= top < bottom <= 1, "maps (beside the image)")
            need(np.isfinite(values).all(), "maps (not finite)")
            known = explanation.method in CAVEATS
            need(known and explanation.label in ("", *card.label_set), "maps (of an unknown kind)")


def _reasons(file: Path, card: RunCard) -> None:
    texts = untrusted_json(file.read_bytes(), file.name)
    need(set(card.table.loc[list(texts), "split"]) <= {"test"}, "reasons (of other images)")
    check_texts(list(texts.values()), len(card.table))


def _history(file: Path, card: RunCard) -> None:
    about = untrusted_json(file.read_bytes(), file.name)
    rows = about["log" if file.name == "tuning.json" else "history"]
    kinds = {type(value) for row in rows for value in row.values()}
    need(kinds <= {int, float}, f"{file.name} (no numbers)")
    if file.name == "model.json":
        columns = [tuple(row) for row in rows]
        need(len(set(columns)) == 1 and set(HISTORY) <= set(columns[0]), "epochs")
        need(about["best_epoch"] in [row["epoch"] for row in rows], "best epoch")


_CHECKS = {
    "features.safetensors": _rows,
    "logits.safetensors": _rows,
    "shares.safetensors": _rows,
    "head.safetensors": _head,
    "gate.safetensors": _gate,
    "costs.csv": _costs,
    "maps.safetensors": _maps,
    "reasons.json": _reasons,
    "tuning.json": _history,
    "model.json": _history,
}
