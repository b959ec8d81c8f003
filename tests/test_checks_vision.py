import numpy as np
import pandas as pd
import torch

from emokd_utils import checks


def test_averages_by_loops_over_plain_lists_pass():
    def averages(confusion):
        rows = [[int(x) for x in row] for row in confusion]
        recalls, scores = [], []
        for k, row in enumerate(rows):
            hit, missed = row[k], sum(row) - row[k]
            false = sum(other[k] for other in rows) - hit
            recalls.append(hit / (hit + missed))
            scores.append(hit / (hit + (missed + false) / 2))
        return [sum(recalls) / len(rows), sum(scores) / len(rows)]

    assert checks.exercises("2")["2.1"](averages).status == checks.PASSED


def test_averages_by_torch_with_precision_made_finite_pass():
    def averages(confusion):
        counts = torch.as_tensor(confusion, dtype=torch.float64)
        hit = torch.einsum("kk->k", counts)
        recall, precision = hit / counts.sum(1), (hit / counts.sum(0)).nan_to_num()
        return torch.stack(
            [recall, (2 * precision * recall / (precision + recall)).nan_to_num()], 1
        ).mean(0)

    assert checks.exercises("2")["2.1"](lambda m: tuple(averages(m))).status == checks.PASSED


def test_the_epoch_by_a_table_passes():
    def keep(history, patience):
        table = pd.DataFrame(history).set_index("epoch")
        best_so_far = table["val_loss"].cummin()
        since = best_so_far.groupby(best_so_far).cumcount()
        stop = since[since == patience].index
        seen = table if not len(stop) else table.loc[: stop[0]]
        return seen["val_loss"].idxmin()

    assert checks.exercises("2")["2.2"](keep).status == checks.PASSED


def test_the_epoch_by_a_loop_with_infinity_passes():
    def keep(history, patience):
        lowest, kept = float("inf"), None
        for record in history:
            if record["val_loss"] < lowest:
                lowest, kept = record["val_loss"], record["epoch"]
            if record["epoch"] - kept >= patience:
                return kept
        return kept

    assert checks.exercises("2")["2.2"](keep).status == checks.PASSED


def test_the_calibration_error_with_bins_closed_above_passes():
    def error(confidence, correct, bins):
        edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
        confidence = torch.as_tensor(confidence)
        correct = torch.as_tensor(np.asarray(correct)).double()
        total = torch.zeros((), dtype=torch.float64)
        for low, high in zip(edges[:-1], edges[1:], strict=True):
            inside = (confidence > low) & (confidence <= high)
            if inside.any():
                total += (
                    inside.double().mean()
                    * (correct[inside].mean() - confidence[inside].mean()).abs()
                )
        return total

    assert checks.exercises("2")["2.3"](error).status == checks.PASSED


def test_the_calibration_error_by_sums_passes():
    def error(confidence, correct, bins):
        place = np.clip(np.digitize(confidence, np.linspace(0, 1, bins + 1)) - 1, 0, bins - 1)
        off = np.bincount(place, np.asarray(correct) - np.asarray(confidence), bins)
        return float(np.abs(off).sum() / len(confidence))

    assert checks.exercises("2")["2.3"](error).status == checks.PASSED
