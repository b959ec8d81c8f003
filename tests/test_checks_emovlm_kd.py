import numpy as np
import pytest

from emokd_utils import checks


def passes(number, answer):
    return checks.exercises("9")[number](answer).status == checks.PASSED


def test_the_share_of_the_gap_by_counting_passes():
    def share(vlm, vision, ours):
        only = sum(1 for a, b in zip(vlm, vision, strict=True) if a != b and (a or b))
        best = max(sum(vlm), sum(vision))
        top = sum(vlm & vision) + only
        return float(sum(ours) - best) / float(top - best)

    assert passes("9.1", share)


@pytest.mark.parametrize("style", ["bootstrap", "loops", "population", "torch"])
def test_intervals_over_images_pass_in_any_style(style):
    def interval(a, b):
        per_image = [np.mean([x - y for x, y in zip(*pair, strict=True)]) for pair in each(a, b)]
        middle = sum(per_image) / len(per_image)
        if style == "bootstrap":
            draws = np.random.default_rng(1).integers(0, len(per_image), (4000, len(per_image)))
            means = np.array(per_image)[draws].mean(1)
            return [middle, *np.percentile(means, [2.5, 97.5])]
        if style == "loops":
            squares = sum((d - middle) ** 2 for d in per_image) / (len(per_image) - 1)
            reach = 2 * (squares / len(per_image)) ** 0.5
        else:
            reach = 1.96 * np.std(per_image) / len(per_image) ** 0.5
        return middle, middle - reach, middle + reach

    def each(a, b):
        return zip(a.astype(float).T, b.astype(float).T, strict=True)

    def by_torch(a, b):
        import torch

        d = torch.tensor(a).double().sub(torch.tensor(b).double()).mean(0)
        reach = 1.96 * d.var().div(len(d)).sqrt()
        return d.mean(), d.mean() - reach, d.mean() + reach

    assert passes("9.2", by_torch if style == "torch" else interval)


def test_the_added_share_from_whole_systems_passes():
    def share(cost):
        vlm = cost["visual encoder"] + cost["language model"]
        together = sum(cost.values()) - cost["head"] - cost["gate"]
        ours = sum(cost.values()) - cost["vision model"]
        return (ours - vlm) / (together - vlm)

    assert passes("9.3", share)
