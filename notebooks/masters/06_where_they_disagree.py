# %% [markdown]
# # 6 Where they disagree
#
# ## What you will be able to do
#
# - build the four-way table of two models, and read oracle, kappa, double fault and Yule's Q off it;
# - derive McNemar's exact test, and put an interval on a difference that was measured on the same images;
# - look at the images behind each cell, and explain the disagreement by cue;
# - state an opportunity as "points below the oracle", and say how much of it may be luck.
#
# ## Minutes and machine
#
# About 50 minutes to read and run, 75 more for the exercises; any laptop, no GPU. Module:
# `emokd_utils.complementarity`.
#
# <!-- measured -->

# %% [markdown]
# ## The idea
#
# Two models can have the same accuracy in two very different ways. They may be right on the same images: then
# one of them is superfluous. Or each is right where the other is wrong: then whoever knew which of them to
# believe would be right far more often than either. Accuracy alone cannot tell the two cases apart. One small
# table can, and the whole of EmoVLM-KD rests on it.
#
# The two models are the tuned VLM of lesson 5 and the vision model of lesson 2. We call them **A** and **B**.

# %%
from math import comb

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from emokd_utils import checks, plots
from emokd_utils.complementarity import (
    Estimate,
    accuracy_difference,
    cohen_kappa,
    compare,
    double_fault,
    four_way,
    mcnemar_exact,
    oracle_accuracy,
    share,
    yules_q,
)
from emokd_utils.distillation import HeadSettings, train_head
from emokd_utils.pipeline import TUNED, VISION, Pipeline
from emokd_utils.report import Claim

# %% [markdown]
# The pipeline loads what has been made before; what is missing is made now (about 7 minutes if nothing is
# there).

# %%
pipeline = Pipeline()
predictions = pipeline.predictions()  # of the test split
vlm, vision = predictions[TUNED], predictions[VISION]
assert vlm.ids == vision.ids and vlm.labels == vision.labels  # image by image the same
a, b = vlm.correct, vision.correct  # (n,) True where the model is right
n = len(a)


# %%
for name, right in ((f"A, {TUNED}", a), (f"B, {VISION}", b)):
    print(f"{name}: {share(right.sum(), n).percent} test images right")

# %% [markdown]
# ## The four-way table
#
# Each image falls into one of four cells: both right, only A right, only B right, neither.
#
# > **Predict before you run.** From the two accuracies alone, between which two numbers must "both right" lie?
# > And which of the four cells is worth money?

# %%
cells = {
    "both": int((a & b).sum()),
    "only_a": int((a & ~b).sum()),
    "only_b": int((~a & b).sum()),
    "neither": int((~a & ~b).sum()),
}
counted = four_way(vlm, vision)
assert all(getattr(counted, name) == count for name, count in cells.items())
least, most = max(0, a.sum() + b.sum() - n), min(a.sum(), b.sum())
print(f"both right: {cells['both']:,}; from the accuracies alone: {least:,} to {most:,}")
counted.table()

# %%
plots.show(plots.four_way_map(vlm, vision, (TUNED, VISION)))

# %% [markdown]
# The cells where exactly one model is right are what can be won: there the knowledge *is* in one of the two.
# On "neither", choosing between the two answers cannot help.

# %% [markdown]
# ## The oracle
#
# The **oracle** asks both models and always believes the right one. It is no model, for it looks at the label.
# But no way of choosing one of the two answers can do better, so it bounds what can be won.
#
# > **Predict before you run.** By how much is the oracle ahead of the better model? It can be read off the
# > table: which cell is it?

# %%
oracle = a | b
assert oracle.mean() == oracle_accuracy(vlm, vision)
better = max(a.mean(), b.mean())
lead = oracle.mean() - better
assert np.isclose(lead, min(cells["only_a"], cells["only_b"]) / n)
print(f"oracle {share(oracle.sum(), n).percent}")
print(f"ahead of the better model by {100 * lead:.1f} points")

# %% [markdown]
# It is the smaller of the two cells where one model is right alone: whoever believes the better model always has
# the larger one already. (A combination that mixes probabilities may name a third class and be right where both
# are wrong. The oracle bounds *choosing*, and in practice little is won beyond it.)

# %% [markdown]
# ## An interval for what is paired
#
# Other test images would have given other numbers. The **bootstrap** imitates that: draw n images *with
# replacement* from ours, measure again, and do so 2,000 times. The middle 95 % of the results are the interval.
# An image is drawn with what *both* models said of it: the draw is **paired**.


# %%
def bootstrap(measure, a, b, paired=True, resamples=2000):
    rng = np.random.default_rng(0)
    found = []
    for _ in range(resamples):
        rows = rng.integers(0, n, n)
        others = rows if paired else rng.integers(0, n, n)
        found.append(measure(a[rows], b[others]))
    return Estimate(float(measure(a, b)), *np.quantile(found, [0.025, 0.975]), n)


def difference(a, b):
    return a.mean() - b.mean()


def oracle_lead(a, b):
    return (a | b).mean() - max(a.mean(), b.mean())


# %% [markdown]
# Is it the library's? The draws are others, so the ends agree up to a small part of the width.

# %%
measures = {"A minus B": difference, "oracle minus better": oracle_lead}
ours = {name: bootstrap(measure, a, b) for name, measure in measures.items()}
whole = compare(vlm, vision)
theirs = [accuracy_difference(vlm, vision), whole.value("oracle_gain")]
for (name, mine), library in zip(ours.items(), theirs, strict=True):
    width = library.high - library.low
    np.testing.assert_allclose(mine[:3], library[:3], atol=0.1 * width + 1e-9)
    print(f"{name}: by hand {mine.points}; library {library.points}")

# %% [markdown]
# > **Predict before you run.** Draw the images of A and those of B separately, as if each model had been tested
# > on images of its own. Does the interval of the difference become wider, narrower, or does it stay?

# %%
apart = bootstrap(difference, a, b, paired=False)
for name, found in (("paired", ours["A minus B"]), ("drawn apart", apart)):
    print(f"{name}: {found.points}, width {100 * (found.high - found.low):.1f} points")
correlation = np.corrcoef(a, b)[0, 1]
print(f"correlation of A right with B right: {correlation:+.2f}")

# %% [markdown]
# The variance of a difference is $\mathrm{var}(a) + \mathrm{var}(b) - 2\,\mathrm{cov}(a, b)$. An image that is
# hard for both pulls both accuracies down and cancels in their difference. Where the correlation is positive,
# pairing makes the interval narrower, for free; an unpaired interval throws that away.

# %% [markdown]
# ## Is one of them better? McNemar's test
#
# Images that both get right, or both wrong, say nothing about which model is better. Only the $m$ images of
# which *one* model is right do. If neither model were better, each of these would be as likely A's as B's: a
# fair coin is tossed $m$ times, and the number of heads $X$ is A's. The **p-value** is the probability of an
# outcome at least as uneven as ours, on either side:
#
# $$p = \min\Bigl(1,\; 2 \sum_{k=0}^{\min(x, m - x)} \binom{m}{k} \frac{1}{2^m}\Bigr).$$


# %%
def mcnemar_by_hand(only_a, only_b):
    tosses, fewer = only_a + only_b, min(only_a, only_b)
    tail = sum(comb(tosses, k) for k in range(fewer + 1)) / 2**tosses
    return min(1.0, 2 * tail)


ours = mcnemar_by_hand(counted.only_a, counted.only_b)
theirs = mcnemar(counted.table().to_numpy(), exact=True).pvalue
np.testing.assert_allclose([ours, theirs], mcnemar_exact(vlm, vision), rtol=1e-9)
print(f"by hand {ours:.3g}, library {mcnemar_exact(vlm, vision):.3g}, statsmodels {theirs:.3g}")


# %%
def draw_coin(only_a, only_b):
    tosses = only_a + only_b
    heads = np.arange(tosses + 1)
    probability = np.array([comb(tosses, int(k)) / 2**tosses for k in heads])
    extreme = abs(heads - tosses / 2) >= abs(only_a - tosses / 2)
    colours = plots.model_colours([TUNED, VISION])
    figure, ax = plt.subplots(figsize=(10.5, 3.6), layout="constrained")
    bars = ax.bar(
        heads, 100 * probability, 0.9, color=np.where(extreme, colours[VISION], plots.GREY)
    )
    for k, told in ((extreme.argmin(), "less uneven"), (0, "at least as uneven as observed")):
        bars[int(k)].set_label(told)
    observed = {"color": colours[TUNED], "lw": 2.4}
    ax.axvline(only_a, **observed, label=f"observed: {only_a:,} of {tosses:,}")
    ax.axvline(tosses - only_a, **observed, ls=":", label="as uneven the other way")
    reach = max(4 * tosses**0.5 / 2, 1.15 * abs(only_a - tosses / 2), 2)
    ax.set(xlim=(tosses / 2 - reach, tosses / 2 + reach), ylabel="probability (%)")
    ax.set_xlabel("images that A alone gets right, if a fair coin decides")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9.5)
    return figure, ax


# %%
tosses = counted.only_a + counted.only_b
title = f"{counted.only_a:,} heads in {tosses:,} tosses of a fair coin: p = {ours:.2g}"
with plots.style():
    figure, ax = draw_coin(counted.only_a, counted.only_b)
    ax.set_title(title)
words = f"Binomial distribution of {tosses:,} fair tosses, centre {tosses / 2:g}"
plots.show(figure, alt=f"{title}. {words}.")

# %% [markdown]
# > **Predict before you run.** Add ten thousand easy images that both models get right. What becomes of the
# > p-value, and what of the difference in points?

# %%
easy = np.ones(10_000, bool)
versions = {"as it is": (a, b), "with easy images": (np.r_[a, easy], np.r_[b, easy])}
for name, (x, y) in versions.items():
    print(f"{name}: p = {mcnemar_exact(x, y):.3g}; A minus B {accuracy_difference(x, y).points}")

# %% [markdown]
# So a p-value is not the size of a difference, and it should never stand without one. It answers "could this be
# a coin?", no more. The interval answers "how large may it be?".

# %%
gap = accuracy_difference(vlm, vision)
print(
    Claim(
        "one of the two models is better than the other",
        mcnemar_exact(vlm, vision) < 0.05,
        f"A minus B {gap.points}; McNemar's exact p = {mcnemar_exact(vlm, vision):.2g}",
    )
)

# %% [markdown]
# ## How alike are their answers?
#
# Four measures, each with its own question:
#
# - **Agreement**: on which share of images do they name the same class, right or wrong?
# - **Cohen's kappa**: how much more than two models that answer independently, each with its own habits of
#   naming? 0 is chance, 1 is always. It looks at the classes named, not at the labels.
# - **Double fault**: on which share are both wrong? There choosing is in vain.
# - **Yule's Q**: are they *right* on the same images? +1: wholly, 0: independently, -1: on different ones.
#
# For kappa, count each pair of answers. What is on the diagonal is agreement; what the margins alone would put
# there is chance.

# %%
pairs = pd.crosstab(pd.Series(vlm.predicted, name="A"), pd.Series(vision.predicted, name="B"))
names = sorted({*pairs.index, *pairs.columns})
joint = pairs.reindex(index=names, columns=names, fill_value=0).to_numpy() / pairs.to_numpy().sum()
observed = joint.trace()
by_chance = joint.sum(1) @ joint.sum(0)
kappa = (observed - by_chance) / (1 - by_chance)
print(f"same class on {observed:.1%}, by chance {by_chance:.1%}: kappa {kappa:.3f}, n = {n:,}")
if not (vlm.invalid.any() or vision.invalid.any()):  # answers that name no label are left out above
    assert np.isclose(kappa, cohen_kappa(vlm, vision))

# %%
same, different = counted.both * counted.neither, counted.only_a * counted.only_b
q = (same - different) / (same + different)
assert np.isclose(q, yules_q(vlm, vision)) and counted.neither / n == double_fault(vlm, vision)
rows = {}
for name in ("agreement", "cohen_kappa", "double_fault", "yules_q"):
    found = whole.value(name)
    rows[name] = [f"{found.value:.2f}", f"[{found.low:.2f}, {found.high:.2f}]"]
pd.DataFrame(rows, index=["value", f"95 % interval, n = {n:,}"]).T

# %% [markdown]
# > **Predict before you run.** Take the images on which *both* are wrong. Do the two models name the same wrong
# > class more often than if each drew one of the wrong classes at random?

# %%
both_wrong = ~a & ~b
same_error = (vlm.predicted_index == vision.predicted_index) & both_wrong
told = share(same_error.sum(), both_wrong.sum())
one_in = 1 / (len(vlm.classes) - 1)
print(
    Claim(
        f"both make the same mistake more often than by chance ({one_in:.1%})",
        told.low > one_in,
        f"{told.percent} images that neither gets right",
    )
)

# %% [markdown]
# Shared mistakes point to what both lack, or to a label that is wrong: no combination of the two will mend
# either.

# %% [markdown]
# ## Where does the disagreement come from?
#
# A cell is a number. Which images are in it? EmoScenes tells the **cue** of each: its emotion comes from an
# object (content), from how the image looks (atmosphere), or from both.
#
# > **Predict before you run.** Lesson 5 tuned a model that knows objects; lesson 2 trained one on 1,600 images
# > and their colours. On which cue is "only A" the larger cell, on which "only B"?

# %%
if pipeline.cues is None:
    print("this data set does not tell the cues of its images")
else:
    print(compare(vlm, vision, by=pipeline.cues))

# %%
if pipeline.cues is not None:
    plots.show(plots.cue_bars({TUNED: vlm, VISION: vision}, pipeline.cues))

# %% [markdown]
# Three cues make three tests, and whoever tests often enough finds something. **Holm's** correction makes up
# for it: the smallest of three p-values is multiplied by 3, the next by 2, the largest by 1.

# %%
cue = None if pipeline.cues is None else pipeline.cues.loc[list(vlm.ids)].to_numpy()
if cue is not None:
    parts = sorted(set(cue))
    raw = [mcnemar_exact(a[cue == name], b[cue == name]) for name in parts]
    adjusted = dict(zip(parts, multipletests(raw, method="holm")[1], strict=True))
    gaps = {name: accuracy_difference(a[cue == name], b[cue == name]) for name in parts}
    for name, sign, who in (("content", 1, "A"), ("atmosphere", -1, "B")):
        found = gaps.get(name, gap)
        holds = adjusted.get(name, 1.0) < 0.05 and sign * found.value > 0
        evidence = f"A minus B {found.points}; p = {adjusted[name]:.2g} after Holm"
        print(Claim(f"on {name}-led images {who} is ahead", holds, evidence))

# %% [markdown]
# Where both claims hold, the measurement has become an explanation: the two models do not differ by accident,
# they know different *kinds* of things. On photographs nobody knows the cue of an image, and an explanation has
# to be found by looking.

# %% [markdown]
# ## The images behind the cells
#
# So look. Below, five images of each cell, drawn at random (not chosen to please).


# %%
def show_cell(title, inside, count=5):
    rows = np.flatnonzero(inside)
    rows = np.random.default_rng(6).permutation(rows)[:count]
    cues = [""] * n if cue is None else [f"({name})\n" for name in cue]
    words = [
        f"{vlm.labels[k]}\n{cues[k]}A: {vlm.predicted[k]}\nB: {vision.predicted[k]}" for k in rows
    ]
    if not len(rows):
        print(f"{title}: no image")
    else:
        images = [pipeline.dataset.open(vlm.ids[k]) for k in rows]
        title = f"{title}: {inside.sum():,} images"
        plots.show(plots.pictures(images, words, title, columns=5, size=1.2))


show_cell("Only A is right (the tuned VLM)", a & ~b)

# %%
show_cell("Only B is right (the vision model)", ~a & b)

# %%
show_cell("Both are right", a & b)

# %%
show_cell("Neither is right", ~a & ~b)

# %% [markdown]
# And the classes? The two confusion matrices side by side:

# %%
plots.show(plots.confusion_pair(vlm, vision, (TUNED, VISION))[0].get_figure())

# %% [markdown]
# ## How much of the lead is luck?
#
# The oracle is told which model is right. That flatters *any* second model, even one that knows nothing.
#
# > **Predict before you run.** Put a die beside the better model, with one face for each class. By how much
# > does the oracle of model and die beat the model?

# %%
rng = np.random.default_rng(0)
first = a if a.mean() >= b.mean() else b
faces = len(vlm.classes)
die_lead = (1 - first.mean()) / faces
rolled = rng.integers(0, faces, n) == vlm.label_index
print(f"expected: (1 - {first.mean():.3f}) / {faces} = {100 * die_lead:.1f} points")
print(f"one roll for each image: {bootstrap(oracle_lead, first, rolled).points}")

# %% [markdown]
# A fairer yardstick: **twins**, one model trained twice, with another seed. They know the same and differ by
# accident. We train a small classifier on the VLM's visual features (lesson 7 explains it) with two seeds
# (about 5 s). Whatever lead the oracle of the twins has is luck. (A yardstick, not a proof: weaker models leave
# luck more room, so compare the twins' accuracy as well.)

# %%
features, labels = pipeline.features(), pipeline.dataset.label_index
rows = {split: pipeline.rows(split) for split in ("train", "val", "test")}
settings = pipeline.profile.settings("head", HeadSettings, alpha=0.0)


def twin(seed):
    trained = train_head(
        features[rows["train"]],
        labels[rows["train"]],
        None,
        val_features=features[rows["val"]],
        val_labels=labels[rows["val"]],
        num_classes=faces,
        settings=settings,
        seed=seed,
    )
    return trained.logits(features[rows["test"]]).argmax(1) == labels[rows["test"]]


one, two = twin(0), twin(1)
for name, right in (("twin 1", one), ("twin 2", two)):
    print(f"{name}: {share(right.sum(), n).percent} test images right")

# %% [markdown]
# All leads in one table, each with what it would be if the two were right independently of each other,
# $1 - (1 - p_A)(1 - p_B)$ less the better of the two.


# %%
beside = {
    "the better model and a die": (first, rolled),
    "twins: one model, two seeds": (one, two),
    f"{TUNED} and {VISION}": (a, b),
}
leads = {name: bootstrap(oracle_lead, *pair) for name, pair in beside.items()}
means = [(x.mean(), y.mean()) for x, y in beside.values()]
independent = [1 - (1 - p) * (1 - q) - max(p, q) for p, q in means]
told = {"lead of the oracle": [found.points for found in leads.values()]}
told["if independent, points"] = [f"{100 * value:.1f}" for value in independent]
pd.DataFrame(told, index=list(leads))

# %%
order = list(leads)[::-1]
values = np.array([[100 * leads[name][k] for k in range(3)] for name in order])
title = f"The oracle's lead: {values[0, 0]:.1f} points for A and B, {values[1, 0]:.1f} for twins"
with plots.style():
    figure, ax = plt.subplots(figsize=(9, 2.9), layout="constrained")
    colours = [plots.MODEL_COLOURS[name] for name in ("oracle", "head", "both models")]
    ax.hlines(range(3), values[:, 1], values[:, 2], color=colours, lw=3)
    ax.scatter(values[:, 0], range(3), color=colours, s=70, zorder=3)
    ax.set_yticks(range(3), order)
    ax.set(xlim=(0, None), ylim=(-0.6, 2.6))
    ax.set_xlabel(f"oracle minus better model (points), n = {n:,} images, 95 % intervals")
    ax.set_title(title)
words = "; ".join(f"{name}: {leads[name].points}" for name in order)
plots.show(figure, alt=f"{title}. {words}.")

# %%
draws = np.random.default_rng(0).integers(0, n, (2000, n))
beyond = [oracle_lead(a[k], b[k]) - oracle_lead(one[k], two[k]) for k in draws]
beyond = Estimate(lead - oracle_lead(one, two), *np.quantile(beyond, [0.025, 0.975]), n)
print(
    Claim(
        "the lead of A and B is larger than that of twins",
        beyond.low > 0,
        f"larger by {beyond.points}",
    )
)

# %% [markdown]
# Luck has no direction, knowledge has. Twins are each ahead of the other as often on one cue as on the next;
# models that know different things are not.
#
# > **Predict before you run.** For the twins, what is the difference in accuracy on content-led images, and on
# > atmosphere-led ones?

# %%
if cue is not None:
    pairs = {"A minus B": (a, b), "twin 1 minus twin 2": (one, two)}
    found = {
        name: [accuracy_difference(x[cue == p], y[cue == p]).points for p in parts]
        for name, (x, y) in pairs.items()
    }
    print(pd.DataFrame(found, index=parts).to_string())

# %% [markdown]
# Only knowledge can be won: a gate that sees the image, or how sure each model is, may learn to believe A on
# content and B on atmosphere. It cannot learn which of two coins will fall right. So the lead is an upper bound
# on what can be won, and a generous one.

# %% [markdown]
# ## The opportunity, stated
#
# This is how lessons 8 and 9 will use the result: not "A and B differ", but by how many **points** the better
# of them stays **below the oracle**, on how many images, with which interval, and where.

# %%
name = TUNED if a.mean() >= b.mean() else VISION
found = compare(vlm, vision, by=pipeline.cues)
for part in found.slices:
    value, low, high, count = found.value("oracle_gain", part)
    points = f"{100 * value:.1f} points [{100 * low:.1f}, {100 * high:.1f}]"
    print(f"{part}: the better model stays {points} below the oracle, n = {count:,}")
print(
    Claim(
        f"the better model ({name}) leaves more to win than a die would bring ({100 * die_lead:.1f})",
        leads[f"{TUNED} and {VISION}"].low > die_lead,
        leads[f"{TUNED} and {VISION}"].points,
    )
)

# %% [markdown]
# ## Summary
#
# - Everything is read off four cells. "Only A" and "only B" are what a combination can win.
# - Measured on the same images, so compared on the same images: paired intervals, McNemar on the two cells where
#   exactly one is right; no p-value without a size.
# - Kappa is about answers, Q and double fault are about being right.
# - A cue can explain the disagreement; the images behind the cells show whether it does.
# - The oracle bounds what can be won, and part of its lead is luck that nobody can win.
#
# Lesson 7 puts the vision model's knowledge into a head that costs almost nothing; lesson 8 learns whom to
# believe.

# %% [markdown]
# ## Exercises

# %% [markdown]
# ### Exercise 6.1 McNemar's exact test
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●●○ | 15 | a paired test on the right cells, to the last outcome |
#
# Two boolean arrays say on which images A and B are right, in the same order of images. Return the two-sided
# exact p-value of McNemar's test. Do not copy the cell above: start from the coin. In every case there are
# images that one model only gets right.
#
# <details><summary>My p is far too small</summary>How often is the coin tossed? Count the images that say
# anything about which model is better.</details>
# <details><summary>My p is half of what statsmodels says</summary>Could the outcome have been as uneven in the
# other direction?</details>
# <details><summary>My p is above 1</summary>When both counts are equal, every outcome is at least as uneven as
# yours. You counted the middle twice.</details>


# %% nbgrader={"grade_id": "6-1-mcnemar", "solution": true}
def my_mcnemar(a_right, b_right):
    """Two-sided exact p-value of McNemar's test for two boolean arrays (n,)."""
    ### BEGIN SOLUTION
    only_a, only_b = int((a_right & ~b_right).sum()), int((b_right & ~a_right).sum())
    tosses = only_a + only_b
    tail = sum(comb(tosses, k) for k in range(min(only_a, only_b) + 1)) / 2**tosses
    return min(1.0, 2 * tail)
    ### END SOLUTION


# %% nbgrader={"grade_id": "6-1-check", "grade": true, "locked": true, "points": 4}
checks.check("6.1", my_mcnemar)

# %% [markdown]
# ### Exercise 6.2 The oracle of many models
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●○○ | 10 | what an upper bound is made of |
#
# `predicted` (models, images) holds the classes that several models named, `labels` (images,) the labels, all as
# integers. Return the accuracy of the oracle of all these models.
#
# <details><summary>My accuracy is above 1</summary>What happens to an image that two models get right?</details>
# <details><summary>My accuracy is always 1</summary>Over which axis should one right answer be enough?</details>


# %% nbgrader={"grade_id": "6-2-oracle", "solution": true}
def my_oracle(predicted, labels):
    """Share of images that at least one of the models gets right."""
    ### BEGIN SOLUTION
    return (predicted == labels).any(axis=0).mean()
    ### END SOLUTION


# %% nbgrader={"grade_id": "6-2-check", "grade": true, "locked": true, "points": 2}
checks.check("6.2", my_oracle)

# %% [markdown]
# ### Exercise 6.3 Kappa from two lists of answers
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●●○ | 15 | taking chance off, and knowing which question is asked |
#
# Two lists hold the names of the classes that A and B gave, and a third the labels. Return Cohen's kappa *of A
# and B*:
#
# $$\kappa = \frac{o - e}{1 - e}, \qquad e = \sum_c a_c\, b_c,$$
#
# with $o$ the share of images on which they agree, and $a_c$ and $b_c$ the shares of images to which A and B
# give class $c$.
#
# <details><summary>I do not know what the labels are for</summary>Read the definition once more: does it mention
# them?</details>
# <details><summary>My kappa is too high</summary>Two models that like the same class agree often without knowing
# anything. How large is your e?</details>


# %% nbgrader={"grade_id": "6-3-kappa", "solution": true}
def my_kappa(a_answers, b_answers, labels):
    """Cohen's kappa of two lists of class names."""
    ### BEGIN SOLUTION
    answers_a, answers_b = np.array(a_answers), np.array(b_answers)
    agree = (answers_a == answers_b).mean()
    names = np.union1d(answers_a, answers_b)
    chance = sum((answers_a == name).mean() * (answers_b == name).mean() for name in names)
    return (agree - chance) / (1 - chance)
    ### END SOLUTION


# %% nbgrader={"grade_id": "6-3-check", "grade": true, "locked": true, "points": 3}
checks.check("6.3", my_kappa)

# %% [markdown]
# ### Exercise 6.4 A paired interval without resampling
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●●○ | 15 | what pairing changes, seen in a formula |
#
# For many images the bootstrap is not needed: the mean of $d_i = a_i - b_i$, each of them -1, 0 or 1, is nearly
# normal, and its standard error is the standard deviation of the $d_i$ over $\sqrt{n}$. Return the lower and the
# upper end of the 95 % interval of A's accuracy minus B's, as shares.
#
# <details><summary>My interval is wider than the bootstrap's</summary>Did you subtract image by image, or
# accuracy from accuracy?</details>
# <details><summary>My interval is far too wide</summary>Single images differ much, means of many little. Where
# does n stand?</details>


# %% nbgrader={"grade_id": "6-4-interval", "solution": true}
def paired_interval(a_right, b_right):
    """(low, high): 95 % interval of the difference of two accuracies on the same images."""
    ### BEGIN SOLUTION
    d = a_right.astype(float) - b_right.astype(float)
    reach = 1.96 * d.std() / np.sqrt(len(d))
    return d.mean() - reach, d.mean() + reach
    ### END SOLUTION


# %% nbgrader={"grade_id": "6-4-check", "grade": true, "locked": true, "points": 3}
checks.check("6.4", paired_interval)

# %% [markdown]
# ### Exercise 6.5 The images that contradict (open)
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●●● | 20 | holding an explanation against the cases that do not fit |
#
# The cue explains much, not all. Collect the images that speak *against* the story: content-led ones that only
# the vision model gets right, and atmosphere-led ones that only the VLM gets right. Count them, look at
# ten, and sort them: luck, a wrong label (compare the columns `emotion` and `label` of
# `pipeline.dataset.table`), a cue that is not as clean as it should be, or something else. Does the story
# survive? (Data without cues: sort ten images of "only A" and ten of "only B" by what you see in them, and look
# for a story of your own.)
#
# *Rubric (4 points): the images are found by code, counted and looked at (1); wrong labels are told apart from
# the rest (1); it is argued how many contradictions luck alone would give, the twins being the yardstick (1); a
# change of the data or the models is proposed that would make them rarer, with a prediction (1).*

# %% nbgrader={"grade_id": "6-5-code", "solution": true}
# Find the images here.
### BEGIN SOLUTION
if cue is None:
    show_cell("Only A is right", a & ~b, 10)
    show_cell("Only B is right", ~a & b, 10)
else:
    against = ((cue == "content") & ~a & b) | ((cue == "atmosphere") & a & ~b)
    intended = pipeline.dataset.table.loc[list(vlm.ids), "emotion"].to_numpy()
    mislabelled = against & (intended != np.array(vlm.labels))
    apart = one != two
    print(f"{against.sum()} of {(a != b).sum()} disagreements speak against the story")
    print(f"{mislabelled.sum()} of these have a label that is not the intended emotion")
    print(f"the twins, who know the same, disagree on {apart.sum()} of {n:,} images")
    show_cell("Against the story", against, 10)
### END SOLUTION

# %% [markdown] nbgrader={"grade_id": "6-5-argument", "grade": true, "solution": true, "points": 4}
# ### BEGIN SOLUTION
# The counts are printed above. Where the label is not the intended emotion, one model was "right" only by
# making a mistake: no knowledge is in such an image. For the rest, the twins are the yardstick: two models that
# know the same still part on a number of images, and of those half go either way, so a good part of the
# contradictions needs no explanation. Some remain that can be seen: a neutral object whose colour recalls an
# atmosphere, an atmosphere-led scene whose neutral objects the VLM has learnt to go by in tuning. The story
# survives if the images for it clearly outnumber those against it on both cues, which the claims by cue test.
# A change: draw the neutral atmospheres of content-led scenes from a still narrower range. If they are what the
# vision model goes by, its accuracy on content-led scenes should fall while the VLM's stays.
# ### END SOLUTION

# %%
checks.progress()

# %% [markdown]
# ## Further reading
#
# - Q. McNemar (1947). Note on the sampling error of the difference between correlated proportions or percentages.
#   *Psychometrika* 12. [doi:10.1007/BF02295996](https://doi.org/10.1007/BF02295996)
# - J. Cohen (1960). A coefficient of agreement for nominal scales. *Educational and Psychological Measurement*
#   20. [doi:10.1177/001316446002000104](https://doi.org/10.1177/001316446002000104)
# - L. I. Kuncheva, C. J. Whitaker (2003). Measures of diversity in classifier ensembles and their relationship
#   with the ensemble accuracy. *Machine Learning* 51.
#   [doi:10.1023/A:1022859003006](https://doi.org/10.1023/A:1022859003006)
# - T. G. Dietterich (1998). Approximate statistical tests for comparing supervised classification learning
#   algorithms. *Neural Computation* 10.
#   [doi:10.1162/089976698300017197](https://doi.org/10.1162/089976698300017197)
# - B. Efron, R. J. Tibshirani (1993). *An Introduction to the Bootstrap*.
#   [doi:10.1201/9780429246593](https://doi.org/10.1201/9780429246593)
# - The paper's own look at where the two models differ: Lee, Lee & Park (2025).
#   [doi:10.1109/CVPRW67362.2025.00560](https://doi.org/10.1109/CVPRW67362.2025.00560)
