import numpy as np
import pandas as pd
import pytest

from emokd_utils.predictions import (
    HEAD,
    HEAD_PLAIN,
    ORACLE,
    TUNED,
    VISION,
    ZERO_SHOT,
    Predictions,
    gate_name,
)
from emokd_utils.run import results as report


def test_markdown():
    frame = pd.DataFrame({"a": ["1", "2"]}, index=pd.Index(["x", "y"], name="m"))
    assert report.markdown(frame) == "| m | a |\n| --- | --- |\n| x | 1 |\n| y | 2 |"


class FakePipeline:
    """Predictions by hand: 20 content-led images on which the VLM is right, 20 on which vision is."""

    def __init__(self, better):
        from emokd_utils.profiles import MINI

        self.profile, self.better = MINI, better
        self.ids = tuple(f"test/a/{k}.png" for k in range(40))
        self.cues = pd.Series(["content"] * 20 + ["atmosphere"] * 20, index=self.ids)
        self.dataset = type("Data", (), {"label_set": ("a", "b")})()

    def predictions(self, seed):
        first, second = np.arange(40) < 20, np.arange(40) >= 20
        rights = {ZERO_SHOT: np.zeros(40, bool), TUNED: first, VISION: second}
        rights |= {HEAD_PLAIN: np.arange(40) % 4 == 0, HEAD: np.arange(40) % 2 == 0}
        rights |= {gate_name(kind): self.better for kind in self.profile.gates}
        rights["both models run together"] = self.better
        return {name: self.made(right) for name, right in rights.items()}

    def made(self, right):
        return Predictions(
            self.ids,
            ("test",) * 40,
            ("a",) * 40,
            ("a", "b"),
            np.where(right[:, None], [1, 0], [0, 1]),
        )


def claims_of(better):
    results = report.Results(FakePipeline(better), seeds=(0, 1))
    return results, {claim.text: claim for claim in results.claims()}


def test_claims_that_hold_and_their_numbers():
    results, claims = claims_of(np.arange(40) < 36)
    assert claims["the tuned VLM is ahead of the vision model on content-led images"].holds
    assert claims["the tuned VLM is behind the vision model on atmosphere-led images"].holds
    assert claims["EmoVLM-KD is ahead of the tuned VLM in every seed"].holds
    assert claims["the distilled head beats the head without a teacher"].holds
    table = results.table()
    assert table.loc[ORACLE, "accuracy"] == 1
    assert table.loc[TUNED, "accuracy"] == 0.5
    assert table.loc[TUNED, "content"] == 1
    assert table.loc[TUNED, "atmosphere"] == 0
    np.testing.assert_allclose(results.gap_recovered(), (0.9 - 0.5) / 0.5)
    rows = results.disagreement()
    assert rows.query("seed == 0 and images == 'all'")["only VLM"].item() == 20


def test_a_claim_that_fails_says_so():
    _, claims = claims_of(np.arange(40) < 15)
    claim = claims["EmoVLM-KD is ahead of the tuned VLM in every seed"]
    assert not claim.holds
    assert str(claim).startswith("[DOES NOT HOLD]")
    assert not claims["EmoVLM-KD recovers half of the gap to the oracle or more"].holds
    assert not claims["the untuned VLM is above chance (50.0%) on content-led images"].holds


def test_the_teachers_gain_is_told_per_cue():
    results, _ = claims_of(np.ones(40, bool))
    whole, content, atmosphere = results.teacher_gain()
    assert whole.startswith("all images: +25.0 points")
    assert "n = 20" in content
    assert "content-led" in content
    assert "atmosphere-led" in atmosphere


def test_costs_stand_beside_the_set_ups_that_were_measured():
    results, _ = claims_of(np.ones(40, bool))
    names = ["VLM alone", "VLM and vision model together", "EmoVLM-KD"]
    costs = pd.DataFrame(
        {
            "parameters": [100, 150, 107],
            "ms per image": [9.0, 12.0, 9.5],
            "added parameters": [0, 50, 7],
            "added ms": [0.0, 3.0, 0.5],
        },
        index=names,
    )
    shown = report._with_costs(pd.DataFrame(index=[TUNED, VISION, HEAD, ORACLE]), costs, results)
    assert shown["parameters"].tolist() == ["100", "50", "", ""]
    assert shown["ms per image"].tolist() == ["9.0", "3.0", "", ""]


def test_repeated_divisions_count_an_image_once_by_hand():
    """Two divisions of ten images: the first tests 0 to 5, the second 4 to 9."""

    class Division:
        profile = FakePipeline(None).profile

        def __init__(self, number):
            self.resplit = number

        def predictions(self, seed):
            assert seed == self.resplit
            ids = tuple(str(k) for k in range(4 * seed, 4 * seed + 6))
            rights = {
                TUNED: np.arange(6) < 3,
                VISION: np.arange(6) >= 3,
                HEAD: np.zeros(6, bool),
                "both models run together": np.ones(6, bool),
                gate_name("concat_linear"): np.full(6, seed == 0),
            }
            return {
                name: Predictions(
                    ids,
                    ("test",) * 6,
                    ("a",) * 6,
                    ("a", "b"),
                    np.where(right[:, None], [1, 0], [0, 1]),
                )
                for name, right in rights.items()
            }

    results = report.Repeated([Division(0), Division(1)])
    table = results.table()
    final = gate_name("concat_linear")
    # images 4 and 5 are tested twice, right in the first division and wrong in the second
    assert table.loc[final, "accuracy"] == pytest.approx((4 + 2 * 0.5) / 10)
    assert table.loc[final, ["least", "greatest"]].tolist() == [0, 1]
    # the VLM: 0 to 2 right, 3 wrong; 4 and 5 wrong, then right; 6 right; 7 to 9 wrong
    assert table.loc[TUNED, "accuracy"] == pytest.approx((3 + 2 * 0.5 + 1) / 10)
    assert table.loc[ORACLE, "accuracy"] == 1
    gain = results.difference(final, HEAD)
    assert gain.value == pytest.approx(0.5) and gain.n == 10 and gain.low > 0
