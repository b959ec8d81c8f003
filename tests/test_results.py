"""The final table, its claims and the report, from predictions made by hand and from a kept run."""

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from kept_run import folder_run, made
from PIL import Image

from emokd_utils.predictions import (
    AVERAGE,
    BOTH_RUN,
    HEAD,
    HEAD_PLAIN,
    ORACLE,
    REGRESSION,
    TUNED,
    VISION,
    ZERO_SHOT,
    gate_name,
)
from emokd_utils.profiles import MINI
from emokd_utils.run.report import markdown, write_report
from emokd_utils.run.results import Repeated, Results

FINAL = gate_name("concat_linear")


def predictions(ids, right):
    return made(np.where(right, "a", "b"), ["a"] * len(ids), classes=("a", "b"), ids=ids)


class ByHand:
    """20 content-led images on which the VLM is right, 20 on which the vision model is."""

    profile = MINI
    ids = tuple(f"test/a/{k}.png" for k in range(40))
    cues = pd.Series(["content"] * 20 + ["atmosphere"] * 20, index=ids)
    dataset = type("Data", (), {"label_set": ("a", "b")})()

    def __init__(self, final):
        self.final = final

    def predictions(self, seed):
        k = np.arange(len(self.ids))
        rights = {ZERO_SHOT: k < 0, TUNED: k < 20, VISION: k >= 20}
        rights |= {
            HEAD_PLAIN: k % 4 == 0,
            HEAD: k % 2 == 0,
            FINAL: self.final,
            BOTH_RUN: self.final,
            AVERAGE: k % 2 == 0,
            REGRESSION: self.final,
        }
        return {name: predictions(self.ids, right) for name, right in rights.items()}


def claims_of(final):
    results = Results(ByHand(final), seeds=(0, 1))
    return results, {claim.text: claim for claim in results.claims()}


def test_claims_that_hold_and_their_numbers():
    results, claims = claims_of(np.arange(40) < 36)
    for text in (
        "the tuned VLM is ahead of the vision model on content-led images",
        "the tuned VLM is behind the vision model on atmosphere-led images",
        "EmoVLM-KD is ahead of the tuned VLM in every seed",
        "EmoVLM-KD is ahead of the average of head and VLM in every seed",
        "the distilled head beats the head without a teacher",
    ):
        assert claims[text].holds, text
    assert not claims["EmoVLM-KD is ahead of the logistic regression on both in every seed"].holds
    table = results.table()
    assert table.loc[ORACLE, "accuracy"] == 1 and np.isnan(table.loc[ORACLE, "macro F1"])
    assert table.loc[TUNED, ["accuracy", "content", "atmosphere"]].tolist() == [0.5, 1, 0]
    np.testing.assert_allclose(results.gap_recovered(), (0.9 - 0.5) / 0.5)
    assert results.disagreement().query("seed == 0 and images == 'all'")["only VLM"].item() == 20
    whole, content, atmosphere = results.teacher_gain()
    assert whole.startswith("all images: +25.0 points") and "n = 40" in whole
    assert content.startswith("content-led") and "n = 20" in atmosphere


def test_a_claim_that_fails_says_so():
    _, claims = claims_of(np.arange(40) < 15)
    claim = claims["EmoVLM-KD is ahead of the tuned VLM in every seed"]
    assert not claim.holds and str(claim).startswith("[DOES NOT HOLD]")
    assert not claims["EmoVLM-KD recovers 55 % of the gap to the oracle or more"].holds
    assert not claims["the untuned VLM is above chance (50.0%) on content-led images"].holds


def test_what_few_images_or_no_gap_cannot_tell_is_said():
    class Few(ByHand):
        ids = ByHand.ids[:10]  # all led by content, all right by the VLM

    claims = Results(Few(np.arange(10) < 5)).claims()
    assert {claim.holds for claim in claims} == {None} and len(claims) == 13
    assert str(claims[-1]).startswith("[cannot be told]") and "nan" not in str(claims)


def test_repeated_divisions_count_an_image_once_by_hand():
    """Two divisions of ten images: the first tests 0 to 5, the second 4 to 9."""

    class Division:
        profile = MINI

        def __init__(self, number):
            self.source = type("Source", (), {"resplit": number})

        def predictions(self, seed):
            assert seed == self.source.resplit
            ids = tuple(str(k) for k in range(4 * seed, 4 * seed + 6))
            k = np.arange(6)
            rights = {TUNED: k < 3, VISION: k >= 3, HEAD: k < 0, BOTH_RUN: k < 6}
            rights[FINAL] = np.full(6, seed == 0)
            return {name: predictions(ids, right) for name, right in rights.items()}

    results = Repeated([Division(0), Division(1)])
    table = results.table()
    # 0..2 and 4..6 by the VLM; images 4 and 5 are tested twice and count a half each time.
    right = [1, 1, 1, 0, 0.5, 0.5, 1, 0, 0, 0]
    assert table.loc[TUNED, "accuracy"] == pytest.approx(np.mean(right))
    assert table.loc[ORACLE, "accuracy"] == 1 and results.final == FINAL
    assert table.loc[FINAL, ["least", "greatest"]].tolist() == [0, 1]
    gain = results.difference(FINAL, TUNED)
    final = [1, 1, 1, 1, 0.5, 0.5, 0, 0, 0, 0]
    assert gain.value == pytest.approx(np.mean(np.array(final) - right)) and gain.n == 10


def test_markdown():
    frame = pd.DataFrame({"a": ["1", "2"]}, index=pd.Index(["x", "y"], name="m"))
    assert markdown(frame) == "| m | a |\n| --- | --- |\n| x | 1 |\n| y | 2 |"


@pytest.mark.slow
@pytest.mark.parametrize("cues", [True, False], ids=["cues", "no cues"])
def test_the_report_of_a_kept_run(tmp_path, cues):
    run = folder_run(tmp_path, seeds=(0, 1), each=5, cues=cues)
    printed = write_report(Results(run, (0, 1)))
    text = (run.folder / "report.md").read_text("utf-8")
    accuracy = run.predictions(0)[TUNED].accuracy + run.predictions(1)[TUNED].accuracy
    row = next(line for line in printed.splitlines() if line.startswith(TUNED))
    assert f"{50 * accuracy:.1f} [" in row and "6,110,848" in row and "14.4" in row
    vision = next(line for line in printed.splitlines() if line.startswith(VISION))
    assert "4,926,592" in vision and vision.split()[-1] == "4.0", "what it adds to the VLM"
    assert ("content" in printed.splitlines()[0]) is cues
    assert "EmoVLM-KD, bilinear: TrainedGate(bilinear on" in text
    pictures = re.findall(r"!\[(.+)\]\((.+?\.png)\)", text)
    assert len(pictures) == (5 if cues else 4)
    for alt, name in pictures:
        assert len(alt) > 20 and Image.open(run.folder / name).width > 300


OPEN = """
import sys
from emokd_utils import figures
from emokd_utils.explorer import GateView, explore
from emokd_utils.predictions import TUNED, VISION
from emokd_utils.profiles import MINI, reduced
from emokd_utils.run import open_run
from emokd_utils.run.report import write_report
from emokd_utils.run.results import Results

profile = reduced(MINI).changed(images_per_split=0)
run = open_run(profile, sys.argv[1], sys.argv[2], say=lambda line: None, make=False)
results = Results(run)
results.table(), results.claims(), write_report(results)
rows = results.predictions[0]
figures.four_way_map(rows[TUNED], rows[VISION], (TUNED, VISION))
view = explore(rows[TUNED], rows[VISION], run.dataset, GateView(*run.gate_parts()), more=rows)
assert len(view.table) == 24
print(*{"torch", "transformers", "peft", "timm", "captum"} & set(sys.modules))
"""


def test_opening_a_kept_run_imports_no_library_of_models(tmp_path):
    run = folder_run(tmp_path)
    command = [sys.executable, "-c", OPEN, str(run.root), str(run.folder.parent)]
    opened = subprocess.run(command, capture_output=True, text=True, check=False)
    assert opened.returncode == 0, opened.stderr
    assert opened.stdout.split() == []
