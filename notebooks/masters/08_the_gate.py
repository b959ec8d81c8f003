# %% [markdown]
# # 8 The gate: which side to trust, image by image
#
# ## What you will be able to do
#
# - write five gates from their equations, and train one;
# - say what a gate is given, and why the form of its inputs matters;
# - read off a trained gate where it trusts which side;
# - find the leak of a gate that was trained on the VLM's own training images, and measure it.
#
# ## Minutes and machine
#
# About 50 minutes to read and run, 65 more for the exercises; any laptop, no GPU. Module:
# `emokd_utils.gating`.
#
# <!-- measured -->

# %% [markdown]
# ## The idea
#
# For every image there are two answers now: that of the tuned VLM (lesson 5) and that of the distilled head
# (lesson 7). Lesson 6 showed that an *oracle*, which always picks the right one of two answers where there is
# one, would gain many points. No oracle is for sale. A **gate** is what one can have: a small module that sees
# both answers, $s$ from the student (the head) and $v$ from the VLM, each of one number a class, and returns
# one logit a class. It is trained with cross-entropy, like any classifier.
#
# A gate does not see the image. It can only learn from the two answers themselves whom to believe: this side
# is sure, that one is torn; this side confuses these two classes, that one does not.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from emokd_utils import checks, figures
from emokd_utils.complementarity import accuracy_difference
from emokd_utils.evidence import Claim, Estimate, bootstrap, share
from emokd_utils.explorer import GateView, explore
from emokd_utils.gates import GATES, build_gate, gate_inputs
from emokd_utils.gating import SIDES, optimism
from emokd_utils.predictions import HEAD, TUNED
from emokd_utils.run import open_run
from emokd_utils.settings import INPUT_MODES

# %% [markdown]
# The run loads what has been made here before, or else what came with the course.

# %%
run = open_run(say=lambda line: None)  # loads without a line for each result
classes = list(run.dataset.label_set.labels)
labels = run.dataset.label_index
train, val, test = (run.rows(split) for split in ("train", "val", "test"))
vlm = run.tuned()  # label scores of every image
head_logits = run.head_logits()
correct = {TUNED: vlm.correct, HEAD: head_logits.argmax(1) == labels}
print(f"{len(train)} train, {len(val)} val and {len(test)} test images, {len(classes)} classes")

# %% [markdown]
# ## What a gate is given
#
# Some images of the val split on which the two sides disagree:

# %% slide="What a gate is given"
differ = val[head_logits[val].argmax(1) != vlm.predicted_index[val]]
shown = differ[:: max(1, len(differ) // 6)][:6]
words = [
    f"is {vlm.labels[k]}\nhead: {classes[head_logits[k].argmax()]}\nVLM: {vlm.predicted[k]}"
    for k in shown
]
pictures = [run.dataset.open(vlm.ids[k]) for k in shown]
title = f"Head and VLM disagree on {len(differ)} of {len(val)} val images"
figures.show(figures.pictures(pictures, words, title))

# %% [markdown]
# The two answers can be handed over in more than one form. `gate_inputs` knows four *modes*:
#
# - `logits_onehot`: the head's logits as they are; from the VLM a **one-hot** row, 1 at the class it named
#   and 0 elsewhere. The paper's published code does this.
# - `softmax_onehot`: the head's softmax and the one-hot row, as the paper's figure shows it.
# - `probabilities`: the head's softmax, and the VLM's probability of each class from label scoring (lesson 3).
# - `log_probabilities`: the logarithms of both.
#
# Here they are for the first image above:


# %%
def inputs(mode, rows):
    """Both inputs of a gate for some images, each (rows, classes)."""
    return gate_inputs(head_logits[rows], vlm.probabilities[rows], vlm.one_hot()[rows], mode)


first = {
    (mode, side): values[0]
    for mode in INPUT_MODES
    for side, values in zip(SIDES, inputs(mode, shown[:1]), strict=True)
}
pd.DataFrame(first, index=classes).round(2)

# %% [markdown]
# None of them is magic. By hand, and compared with the library's:

# %%
logits = torch.from_numpy(head_logits[val])
softmax = logits.exp() / logits.exp().sum(1, keepdim=True)
one_hot = torch.zeros_like(logits)
one_hot[torch.arange(len(val)), torch.from_numpy(vlm.probabilities[val].argmax(1))] = 1
np.testing.assert_allclose(softmax, inputs("probabilities", val)[0], rtol=1e-4, atol=1e-6)
np.testing.assert_array_equal(one_hot, inputs("logits_onehot", val)[1])
print("softmax and one-hot rows are the library's")

# %% [markdown]
# ### Why the form matters
#
# Take the simplest gate there is: add the two inputs, $s + v$. It is also where the paper's gate starts from in
# this library, before any training. A one-hot row adds 1 to one class. A logit may lie 5 above the next one.
#
# > **Predict before you run.** On the images where the two sides disagree, whom does the sum $s + v$ follow
# > in each mode?


# %%
rows = {}
for mode in INPUT_MODES:
    s, v = inputs(mode, differ)
    winner = (s + v).argmax(1)
    rows[mode] = [share(winner == s.argmax(1)).percent, share(winner == v.argmax(1)).percent]
pd.DataFrame(rows, index=["follows the head", "follows the VLM"]).T

# %% [markdown]
# So the form decides who has the louder voice before anything is learnt. Training can mend the scale, since a
# weight can multiply it. It cannot mend what is not there: a one-hot row does not say how sure the VLM was. Is
# that worth knowing? The VLM's probability of its own answer, in four groups of equal size, and how often the
# answer is right:

# %%
sure = pd.Series(vlm.probabilities[val].max(1))
group = pd.qcut(sure, 4, duplicates="drop")
right = pd.Series(vlm.correct[val]).groupby(group, observed=True).agg(share)
right.rename("VLM right").rename_axis("its probability, in quarters of the val images").to_frame()

# %%
quarters = group.cat.codes.to_numpy()
least, most = (vlm.correct[val][quarters == k] for k in (0, quarters.max()))
print(
    Claim(
        "the VLM is more often right where it is surer, which a one-hot row hides",
        share(most).low > share(least).high,
        f"least sure {share(least).percent}; most sure {share(most).percent}",
    )
)

# %% [markdown]
# ## Five gates, written down
#
# The paper compares five kinds and settles on the first. Its text names them; apart from the first, the equations
# here are this course's reading of the names. $[s; v]$ is one vector after the other, $\sigma$ the logistic function,
# $\odot$ the product element by element.
#
# | kind | logits |
# | --- | --- |
# | concatenation, linear | $W [s; v] + b$ |
# | bilinear | $y_k = s^\top W_k v + b_k$ |
# | mixture of experts | $r_s (A s + a) + r_v (B v + b)$ with $(r_s, r_v) = \mathrm{softmax}(R [s; v] + r)$ |
# | dynamic weighting | $w\, c_s s + (1 - w)\, c_v v$ with one $w = \sigma(\mathrm{MLP}[s; v])$ an image |
# | cross gating | $P [g_s \odot s; g_v \odot v] + p$ with $g_s = \sigma(A v + a)$, $g_v = \sigma(B s + b)$ |
#
# In the first, every value has one weight for all images. In the others, what a value counts depends on the
# image: on the other side's values, or on both sides'. As code, with `w` the dictionary of a gate's weights:


# %%
def linear(x, w, name):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def concat_linear(s, v, w):
    return linear(torch.cat([s, v], dim=1), w, "linear")


def bilinear(s, v, w):
    return torch.einsum("ni,kij,nj->nk", s, w["bilinear.weight"], v) + w["bilinear.bias"]


# %% [markdown]
# Two that weigh the sides image by image: a *router* gives each expert its share, or one number $w$ turns the
# balance.


# %%
def mixture_of_experts(s, v, w):
    shares = linear(torch.cat([s, v], dim=1), w, "router").softmax(dim=1)
    return shares[:, :1] * linear(s, w, "student_expert") + shares[:, 1:] * linear(
        v, w, "vlm_expert"
    )


def dynamic_weighting(s, v, w):
    hidden = F.gelu(linear(torch.cat([s, v], dim=1), w, "weigh.0"))
    share_s = torch.sigmoid(linear(hidden, w, "weigh.2"))
    scale_s, scale_v = w["log_scale"].exp()  # one-hot rows and logits differ in scale
    return share_s * scale_s * s + (1 - share_s) * scale_v * v


# %% [markdown]
# And one in which each side opens or closes every single value of the other:


# %%
def cross_gating(s, v, w):
    open_s = torch.sigmoid(linear(v, w, "open_student"))
    open_v = torch.sigmoid(linear(s, w, "open_vlm"))
    return linear(torch.cat([open_s * s, open_v * v], dim=1), w, "project")


# %% [markdown]
# Names are not equations. The code that the authors published (of 20 March 2025) defines the other four as well,
# and otherwise. All but one pass what they have through one more linear layer $L$; no expert is for one side
# alone. They are gates of their own here:
#
# | kind | logits in the published code |
# | --- | --- |
# | `published_bilinear` | $L z + l$ with $z_k = s^\top W_k v + b_k$ |
# | `published_mixture` | $\sum_e r_e (E_e [s; v] + b_e)$, three experts, $r = \mathrm{softmax}(R [s; v] + c)$ |
# | `published_weighting` | $L (w_s s + w_v v) + l$ with $(w_s, w_v) = \mathrm{softmax}(R [s; v] + c)$ |
# | `published_cross` | $L (g_s \odot s + g_v \odot v) + l$ with $g_s = \sigma(A v + a)$, $g_v = \sigma(B s + b)$ |


# %%
def published_bilinear(s, v, w):
    return linear(bilinear(s, v, w), w, "linear")


def published_mixture(s, v, w):
    both = torch.cat([s, v], dim=1)
    shares = linear(both, w, "router").softmax(dim=1)[..., None]  # (n, 3, 1)
    return (shares * linear(both, w, "experts").unflatten(1, (3, -1))).sum(dim=1)


def published_weighting(s, v, w):
    shares = linear(torch.cat([s, v], dim=1), w, "router").softmax(dim=1)
    return linear(shares[:, :1] * s + shares[:, 1:] * v, w, "linear")


def published_cross(s, v, w):
    open_s = torch.sigmoid(linear(v, w, "open_student"))
    open_v = torch.sigmoid(linear(s, w, "open_vlm"))
    return linear(open_s * s + open_v * v, w, "linear")


# %% [markdown]
# Are they the library's? The same random weights go into both.
#
# > **Predict before you run.** Which gate has the most parameters, and how many times as many as the first?

# %%
by_hand = [concat_linear, bilinear, mixture_of_experts, dynamic_weighting, cross_gating]
by_hand += [published_bilinear, published_mixture, published_weighting, published_cross]
s, v = map(torch.from_numpy, inputs("probabilities", val))
rows = {}
for function in by_hand:
    torch.manual_seed(0)
    gate = build_gate(function.__name__, len(classes)).requires_grad_(False)
    for weight in gate.parameters():
        torch.nn.init.normal_(weight)
    ours, theirs = function(s, v, gate.state_dict()), gate(s, v)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    rows[function.__name__] = [sum(p.numel() for p in gate.parameters()), "same logits"]
pd.DataFrame(rows, index=["parameters", "by hand and library"]).T

# %% [markdown]
# ## Training one
#
# Cross-entropy and AdamW, as ever; but on which images? On those of **val**: neither the VLM nor the head
# has learnt from their labels. (The head's best epoch was chosen on them, a much weaker use. The last part of
# this lesson shows what happens on the training images instead.) A fifth of them is held out to judge by. The
# rows lie class by class, so every fifth row is a fifth of each class.

# %%
y = torch.from_numpy(labels[val])
held = torch.arange(len(val)) % 5 == 0
fit = (~held).nonzero()[:, 0]
torch.manual_seed(0)
gate = build_gate("concat_linear", len(classes))
optimizer = torch.optim.AdamW(gate.parameters(), lr=1e-2)
for epoch in range(1, 81):
    for part in torch.randperm(len(fit)).split(64):
        rows = fit[part]
        loss = F.cross_entropy(gate(s[rows], v[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if epoch in (1, 5, 20, 80):
        right = gate(s[held], v[held]).argmax(1) == y[held]
        print(f"epoch {epoch:2}: loss {loss:.2f}, held out {share(right).percent}")

# %% [markdown]
# `train_gate` does the same with five parts held out in turn (*cross-validation*), takes the number of epochs
# that was best on them, and trains on all rows in the end. If the gate is then behind the better of its two
# inputs, that input is passed through in its place: a gate should do no harm. `run.gate()` keeps the result.

# %%
trained = run.gate(kind="concat_linear")
print(trained, "after", trained.epochs, "epochs")


def judged(accuracy):
    """An accuracy in a gate's report, with its 95 % interval and n."""
    n = trained.rows
    return share(round(n * accuracy), n).percent


for name, words in (("student", "head alone"), ("vlm", "VLM alone"), ("gate_cv", "gate, held out")):
    print(f"{words:15} {judged(trained.report[name])}")

# %% [markdown]
# A linear gate can be read. Row $k$ of $W$ says what raises the logit of class $k$.
#
# > **Predict before you run.** What will the two diagonals look like? And what could be off them?

# %% slide="What a linear gate has learnt"
weights = trained.gate.linear.weight.detach().numpy()
own = [np.trace(part) / len(classes) for part in np.split(weights, 2, axis=1)]
top = np.abs(weights).max()
title = f"A class's own weight: head {own[0]:.1f}, VLM {own[1]:.1f} on average"
with figures.style():
    figure, ax = plt.subplots(figsize=(10, 5), layout="constrained")
    image = ax.imshow(weights, cmap="PuOr_r", vmin=-top, vmax=top)
    ax.set_xticks(range(2 * len(classes)), 2 * classes, rotation=90)
    ax.set_yticks(range(len(classes)), classes)
    ax.axvline(len(classes) - 0.5, color=figures.INK)
    ax.set(xlabel="input: the head's class, then the VLM's class", ylabel="class whose logit rises")
    ax.set_title(title)
    figure.colorbar(image, label="weight (no unit)", shrink=0.7)
figures.show(figure, alt=f"{title}. The largest weight is {top:.1f} in size.")

# %% [markdown]
# ## All of them on the test split
#
# Which is best is a question for val: the held-out accuracy. The test column is for the final numbers only. Eight
# gates are compared with the first, so each of these eight intervals is at 99.4 %: then all hold together at
# about 95 % (Bonferroni).
#
# > **Predict before you run.** How far apart will they be? Do the two readings of a name differ?

# %%
combined = {kind: run.emovlm_kd(kind=kind).split("test") for kind in GATES}
rows, apart = {}, {}
for kind, found in combined.items():
    held_out = judged(run.gate(kind=kind).report["gate_cv"])
    rows[kind] = [held_out, share(found.correct).percent, ""]
    if kind != "concat_linear":
        apart[kind] = accuracy_difference(
            found, combined["concat_linear"], level=1 - 0.05 / (len(GATES) - 1)
        )
        rows[kind][2] = apart[kind].points
pd.DataFrame(rows, index=["held out on val", "test", "test, minus concat_linear"]).T

# %%
largest = max(apart.values(), key=lambda found: abs(found.value))
print(
    Claim(
        "no gate differs from the paper's by more than other images would change",
        all(found.low <= 0 <= found.high for found in apart.values()),
        f"the largest difference is {largest.points}",
    )
)

# %% [markdown]
# And is a gate worth having at all? There are two bars: the better of its sides (the better on val), and the plain
# sum of its inputs, which nobody has to train.
#
# > **Predict before you run.** Which of the two bars is the higher one?

# %%
better = TUNED if trained.report["vlm"] >= trained.report["student"] else HEAD
s, v = inputs(trained.settings.inputs, test)
bars = {
    f"its better side ({better})": correct[better][test],
    "the sum of its two inputs": (s + v).argmax(1) == labels[test],
}
for name, bar in bars.items():
    gain = accuracy_difference(combined["concat_linear"].correct, bar)
    print(Claim(f"the trained gate is ahead of {name}", gain.low > 0, f"{gain.points}, one seed"))

# %% [markdown]
# If the second does not hold, the inputs already were on one scale, and combining was worth more than learning how.
# With logits and one-hot rows the sum is another matter, as the table of the four modes has shown.

# %% [markdown]
# ## Where it trusts whom
#
# How much say has each side in a decision? The library measures it: how far the winning logit moves when one side is
# flattened (all its values replaced by their mean), as a part of how far it moves for both. The paper's gate:
#
# > **Predict before you run.** On images led by which cue will the gate lean on the VLM most? Remember that it
# > does not see the image.

# %% slide="Whom it trusts where"
cues = None if run.cues is None else run.cues.iloc[test]
trust = trained.weights(*inputs(trained.settings.inputs, test))
figures.show(figures.gate_weights(trust, cues))

# %% [markdown]
# The same for all, the mean share of the VLM with its 95 % interval over the images. For the mixture of experts
# and for dynamic weighting it is the gate's own weight, which is not the whole truth: an expert with large numbers can
# make up for a small share.


# %%
def mean_of(values):
    """Mean with its 95 % interval over images."""
    return "{:.2f} [{:.2f}, {:.2f}]".format(*bootstrap(values)[:3])


part = np.full(len(test), "all images") if cues is None else cues.to_numpy()
parts = {f"{name}, n = {(part == name).sum()}": part == name for name in dict.fromkeys(part)}


def trust_in_vlm(gate):
    """Mean share of the VLM in the test decisions of a gate, for each part of the images."""
    shares = gate.weights(*inputs(gate.settings.inputs, test))[:, 1]
    return {name: mean_of(shares[inside]) for name, inside in parts.items()}


pd.DataFrame({kind: trust_in_vlm(run.gate(kind=kind)) for kind in GATES}).T

# %% [markdown]
# How can a gate tell, without seeing the image? It sees how sure each side is. The test images in quarters, by
# how much surer the VLM is than the head (the difference of their highest probabilities):

# %%
of_head, of_vlm = inputs("probabilities", test)
lead = of_vlm.max(1) - of_head.max(1)
quarter = pd.qcut(lead, 4, labels=["VLM least ahead", "second", "third", "VLM most ahead"])
rows = {
    name: [
        mean_of(trust[quarter == name, 1]),
        share(correct[TUNED][test][quarter == name]).percent,
        share(correct[HEAD][test][quarter == name]).percent,
    ]
    for name in quarter.categories
}
pd.DataFrame(rows, index=["share of the VLM", "VLM right", "head right"]).T

# %%
ends = [bootstrap(trust[quarter == name, 1]) for name in quarter.categories[[0, -1]]]
print(
    Claim(
        "the gate leans more on the VLM where the VLM is surer, beside the head",
        ends[1][1] > ends[0][2],
        f"mean share {ends[1][0]:.2f} in the last quarter, {ends[0][0]:.2f} in the first",
    )
)

# %% [markdown]
# ### Look at single decisions
#
# Means hide images. The explorer (lesson 6) opens the gate's decisions one by one: both sides' distributions, what
# the gate made of them, and each side's part. Open one image, go on with the arrow keys; the filters find the
# gate's mistakes, and a range of the head's share finds where it is believed.
#
# > **Predict before you run.** The gate is wrong although one side was right: which side will it have believed?

# %%
view = GateView(*run.gate_parts())
explorer = explore(view.vlm, view.student, run.dataset, gate=view, names=(TUNED, HEAD))
chosen = explorer.table.query("cell in ['a', 'b'] and not gate_correct")
chosen = chosen.sort_values("disagreement", ascending=False, kind="stable")
explorer.show(chosen.index)
explorer

# %% [markdown]
# What is clicked there comes back as `explorer.selection`, rows of the same table. The selection made above as
# pictures, where no widget runs:

# %%
believed = np.where(chosen["gate_student_share"] > 0.5, "the head", "the VLM")
print(f"{len(chosen)} of {len(test):,} test images: one side is right, and the gate is wrong")
print(pd.crosstab(chosen["cell"].to_numpy(), believed, rownames=["right"], colnames=["believed"]))
some = chosen.head(12)
captions = [
    f"is {row.label}\nhead: {row.predicted_b}\nVLM: {row.predicted_a}\nhead's part {row.gate_student_share:.0%}"
    for row in some.itertuples()
]
title = "One side was right, the gate was not: the strongest disagreements"
figures.show(figures.pictures([run.dataset.open(i) for i in some.index], captions, title))

# %% [markdown]
# ## The leak
#
# There are many more training images than val images. Why not train the gate on those? Because the VLM was
# tuned on them, and the head trained on them. What both say there is not what they will say about a new image.
#
# > **Predict before you run.** How much more often is each side right on its own training images than on new
# > ones? Does that change which of the two looks better?

# %%
splits = {"train": train, "val": val, "test": test}
rows = {name: [share(right[k]).percent for k in splits.values()] for name, right in correct.items()}
pd.DataFrame(rows, index=list(splits)).rename_axis("split")


# %%
def gap(a, b):
    """Difference of two shares over different images, with its 95 % interval (normal)."""
    value, reach = a.mean() - b.mean(), 1.96 * np.sqrt(a.var() / len(a) + b.var() / len(b))
    return Estimate(float(value), value - reach, value + reach, len(a) + len(b))


new = np.r_[val, test]
for name, right in correct.items():
    flattered = gap(right[train], right[new])
    text = f"{name}: more often right on the images it was trained on than on new ones"
    print(Claim(text, flattered.low > 0, flattered.points))
for words, rows in (("training images", train), ("new images", new)):
    print(
        f"on the {words} the better side is: {max(correct, key=lambda k: correct[k][rows].mean())}"
    )

# %% [markdown]
# A gate that is trained on these images learns to trust whom it sees to be right *there*: the side that has learnt
# its training images best by heart gains by it, whichever that is. The published code trains the gate so, on logits
# and one-hot rows. To tell the two choices apart, each is changed alone: two forms of inputs, two splits to train on,
# the same linear gate (about 5 s the first time).

# %%
modes = ("logits_onehot", "probabilities")
choices = [(mode, split) for mode in modes for split in ("train", "val")]
leak, answers = {}, {}
for mode, split in choices:
    how = {"kind": "concat_linear", "inputs": mode, "split": split}
    leak[mode, split] = run.gate(**how)
    answers[mode, split] = run.emovlm_kd(**how).split("test").correct
rows = {mode: [share(answers[mode, split]).percent for split in ("train", "val")] for mode in modes}
pd.DataFrame(rows, index=["trained on train", "trained on val"]).T.rename_axis("accuracy on test")

# %%
for mode in modes:
    lost = accuracy_difference(answers[mode, "val"], answers[mode, "train"])
    text = f"with {mode}, a gate trained on val beats one trained on train, on the test images"
    print(Claim(text, lost.low > 0, f"{lost.points}, one seed"))

# %% [markdown]
# What it believed of itself: its accuracy on the rows it was trained on, against that on images that nobody has
# seen. The difference is its **optimism**. A gate trained on val has some of it too, as every trained thing has; the
# question is how much.

# %%
rows, how_much = {}, {}
for (mode, split), gate in leak.items():
    seen, unseen = ((*inputs(mode, part), labels[part]) for part in (splits[split], test))
    *accuracies, how_much[mode, split] = optimism(gate, seen, unseen)
    shares = [figures.percent(accuracy, 1) for accuracy in accuracies]
    rows[mode, f"trained on {split}"] = [*shares, how_much[mode, split].points]
pd.DataFrame(rows, index=["its own rows", "test", "optimism"]).T

# %%
for mode in modes:
    here, there = how_much[mode, "train"], how_much[mode, "val"]
    text = f"with {mode}, the gate trained on train is the more optimistic one"
    told = f"{here.points} against {there.points}"
    print(Claim(text, here.low > there.high, told))

# %% [markdown]
# The whole leak in one figure: each side, and two gates on probabilities, on images that were trained on and on
# new ones.

# %%
every = np.arange(len(labels))
lines = dict(correct)
for split in ("train", "val"):
    logits = leak["probabilities", split].logits(*inputs("probabilities", every))
    lines[f"EmoVLM-KD, gate trained on {split}"] = logits.argmax(1) == labels
rows = []
for name, right in lines.items():
    for split, k in splits.items():
        rows.append((name, split, right[k].mean(), *share(right[k])[1:3]))
table = pd.DataFrame(rows, columns=["model", "split", "accuracy", "low", "high"])
told = table.set_index(["model", "split"])["accuracy"].unstack().map(figures.percent)
told = told.loc[list(lines), list(splits)]
told

# %% slide="The leak"
fall = [100 * (right[train].mean() - right[test].mean()) for right in list(lines.values())[2:]]
title = f"Train to test: the gate trained on train falls by {fall[0]:.0f} points,\n"
title += f"the one trained on val by {fall[1]:.0f}"
colours = figures.model_colours(lines)
with figures.style():
    figure, ax = plt.subplots(figsize=(8.5, 5), layout="constrained")
    for place, (name, line) in enumerate(table.groupby("model", sort=False)):
        at, values = np.arange(3) + 0.06 * (place - 1.5), 100 * line["accuracy"].to_numpy()
        reach = np.abs(100 * line[["low", "high"]].to_numpy().T - values)
        ax.errorbar(at, values, reach, color=colours[name], marker="osD^"[place], label=name)
    ax.set_xticks(range(3), [f"{name}\nn = {len(rows):,}" for name, rows in splits.items()])
    ax.set(xlabel="split", ylabel="accuracy (%), 95 % intervals", title=title)
    ax.grid(axis="y")
    ax.legend()
each = [f"{name}: {', '.join(f'{k} {v}' for k, v in row.items())}" for name, row in told.iterrows()]
figures.show(figure, alt=" ".join(f"{title}. {'; '.join(each)}".split()))

# %% [markdown]
# And whom did it learn to trust? The mean share of the VLM in the test decisions, by what the gate was trained on:

# %%
rows = {(mode, f"trained on {split}"): trust_in_vlm(gate) for (mode, split), gate in leak.items()}
pd.DataFrame(rows).T

# %% [markdown]
# ### A smaller leak: choosing on test
#
# There is a quieter way to use images twice: train on val, but *choose* among gates by their test accuracy. How
# much too good is the number that one then reports? Let one half of the test images choose the best of all gates
# of this lesson, and the other half judge it; draw the halves 2,000 times.
#
# > **Predict before you run.** How many points better does the chosen gate look on the half that chose it?

# %%
made = [found.correct for found in combined.values()] + list(answers.values())
right = np.unique(np.stack(made), axis=0)  # the same gate counts once
rng = np.random.default_rng(0)
flattery = []
for _ in range(2000):
    choose, judge = np.array_split(rng.permutation(right.shape[1]), 2)
    best = right[:, choose].mean(1).argmax()
    flattery.append(right[best, choose].mean() - right[best, judge].mean())
low, high = np.percentile(flattery, [2.5, 97.5])
print(f"{len(right)} gates, {right.shape[1] // 2} images choose and as many judge:")
print(
    f"{100 * np.mean(flattery):+.1f} points on average; 95 % of the splits give "
    f"{100 * low:+.1f} to {100 * high:+.1f}"
)

# %% [markdown]
# A gate that was fixed beforehand would come out at 0 on average. The more settings one tries, and the fewer images
# choose, the larger this flattery is. So: train the gate on val, choose on val, and look at test once.

# %% [markdown]
# ## Summary
#
# - A gate sees two answers and no image. Probabilities tell it how sure each side is; a one-hot row does not.
# - Five kinds, four of them in two readings, from one linear layer to gates that weigh the sides image by image;
#   the table above says whether the kind matters here.
# - It must be trained on images that neither side has learnt from, and judged on images that nobody has chosen by.
# - Optimism is measurable: accuracy on the rows that were used, minus accuracy on rows that were not.
#
# Everything is in place now. Lesson 9 puts it together.

# %% [markdown]
# ## Exercises

# %% [markdown]
# ### Exercise 8.1 An answer as numbers
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●○○ | 10 | turning words into inputs, with the cases that do not fit |
#
# Write the one-hot rows of a list of answers: one row for each answer, one column for each class, in the order
# of `classes`. An answer may be `None`, or a word that is not, letter for letter, among the classes: such a row is
# all zero, for the VLM named no class. Return an array of shape (answers, classes).
#
# <details><summary>One class is far too frequent</summary>Look at the rows of the answers that are
# <code>None</code>. What did your search for their place give?</details>
# <details><summary>The shape is wrong by a few rows</summary>How many rows are there for an answer that names no
# class?</details>


# %% nbgrader={"grade_id": "8-1-one-hot", "solution": true}
def one_hot_rows(answers, classes):
    """(answers, classes): 1 where the answer is the class; all 0 where it is none of them."""
    ### BEGIN SOLUTION
    rows = np.zeros((len(answers), len(classes)))
    for row, answer in enumerate(answers):
        if answer in classes:
            rows[row, classes.index(answer)] = 1
    return rows
    ### END SOLUTION


# %% nbgrader={"grade_id": "8-1-check", "grade": true, "locked": true, "points": 2}
checks.check("8.1", one_hot_rows)

# %% [markdown]
# ### Exercise 8.2 Two experts and a router
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●●○ | 15 | a gate from its equation, with every axis in its place |
#
# Write the mixture of experts,
#
# $$y = \rho_1\, E_s(s) + \rho_2\, E_v(v), \qquad (\rho_1, \rho_2) = \mathrm{softmax}(R\,[s; v]).$$
#
# You get `student` and `vlm`, both of shape
# (images, classes), and three layers that can be called: `student_expert`, `vlm_expert` and `router`, which gives
# two scores an image, the student's first. Return logits of shape (images, classes).
#
# <details><summary>My result changes when other images are in the batch</summary>Then something is summed or
# normalised over the images. Which axis is that?</details>
# <details><summary>My logits are all too large, or too small</summary>Print the sum of the two shares of each
# image.</details>
# <details><summary>The shapes do not fit</summary>A share is one number an image, an expert's output one a class.
# How does a column of shape (images, 1) multiply a table?</details>


# %% nbgrader={"grade_id": "8-2-mixture", "solution": true}
def mixture(student, vlm, student_expert, vlm_expert, router):
    """Logits: each expert's view of its side, weighed by the router image by image."""
    ### BEGIN SOLUTION
    scores = router(torch.cat([student, vlm], dim=1))
    share_student, share_vlm = torch.softmax(scores, dim=1).unbind(dim=1)
    return share_student[:, None] * student_expert(student) + share_vlm[:, None] * vlm_expert(vlm)
    ### END SOLUTION


# %% nbgrader={"grade_id": "8-2-check", "grade": true, "locked": true, "points": 4}
checks.check("8.2", mixture)

# %% [markdown]
# ### Exercise 8.3 Which images may train the gate?
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●●○ | 15 | keeping track of who has seen what |
#
# `ids` lists all images. `learnt_from` says for each part, `"VLM"` and `"head"`, from which images (a set of ids)
# it has learnt; the two sets need not be the same, and a split's name promises nothing. `reported` is the set of
# images on which the final numbers will be. Return the ids of the images on which the gate may be trained, in the
# order of `ids`.
#
# <details><summary>There are too many</summary>Take each id you return and ask three questions: has the VLM learnt
# from it, has the head, will it be reported?</details>
# <details><summary>The right ones, but the check is not content</summary>Is their order that of
# <code>ids</code>?</details>


# %% nbgrader={"grade_id": "8-3-images", "solution": true}
def images_for_the_gate(ids, learnt_from, reported):
    """The ids on which a gate may be trained, in their order."""
    ### BEGIN SOLUTION
    used = set(reported).union(*learnt_from.values())
    return [name for name in ids if name not in used]
    ### END SOLUTION


# %% nbgrader={"grade_id": "8-3-check", "grade": true, "locked": true, "points": 3}
checks.check("8.3", images_for_the_gate)

# %% [markdown]
# ### Exercise 8.4 A gate without training (open)
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●●● | 25 | designing a rule, testing it fairly, knowing when it must fail |
#
# Here is a gate that learns nothing: *follow the side that is surer*, the one whose highest probability is
# larger. Build it, or a rule of your own that needs no training. Compare it on **val** with both sides alone and
# with the trained gate (held out), and name the images on which it fails. Then argue: what must be true of the two
# sides' probabilities for such a rule to be as good as a trained gate? Lesson 2 measured that.
#
# *Rubric (5 points): the rule is code and is measured on val with n and an interval (1); it is compared with both
# sides alone and with the gate's held-out accuracy (1); some of its failures are looked at (1); the argument names
# calibration, that a probability of 0.8 means right four times in five, and that both sides must share one scale
# (1); it names a way to mend the rule or to test the argument, and keeps test out of it (1).*

# %% nbgrader={"grade_id": "8-4-code", "solution": true}
# Build and measure your rule here.
### BEGIN SOLUTION
of_head, of_vlm = inputs("probabilities", val)
follow_vlm = of_vlm.max(1) > of_head.max(1)
rule = np.where(follow_vlm, of_vlm.argmax(1), of_head.argmax(1)) == labels[val]
for name, right in (("VLM", vlm.correct[val]), ("head", correct[HEAD][val]), ("the surer", rule)):
    print(f"{name:10} {share(right).percent}")
print(f"gate, held out {judged(trained.report['gate_cv'])}")
for name, p in (("VLM", of_vlm), ("head", of_head)):
    said, was = p.max(1).mean(), (p.argmax(1) == labels[val]).mean()
    print(f"{name} says {figures.percent(said)} on average and is right on {figures.percent(was)}")
could = (vlm.correct[val] | correct[HEAD][val]) & ~rule
missed = val[could]
words = [
    f"is {vlm.labels[k]}\nhead: {classes[head_logits[k].argmax()]}\nVLM: {vlm.predicted[k]}"
    for k in missed
]
pictures = [run.dataset.open(vlm.ids[k]) for k in missed[:12]]
title = f"On {len(missed)} of {len(val)} val images the rule follows the wrong side"
figures.show(figures.pictures(pictures, words[:12], title))
### END SOLUTION

# %% [markdown] nbgrader={"grade_id": "8-4-argument", "grade": true, "solution": true, "points": 5}
# ### BEGIN SOLUTION
# The rule compares two probabilities that come from two models. It can be as good as a trained gate only if both
# mean the same thing: if each side is calibrated, so that among its answers of probability 0.8 four in five are
# right. Then the surer side is the one more often right, and little is left to learn. A side that is overconfident
# shouts the other down, also where it is wrong. The printed lines compare what each side says on average with how
# often it is right; where the two numbers of a side are close, and so is the rule to the gate, the argument has
# passed its first test, and the side with the wider gap should be the one that the failures follow. A louder side
# can be quietened by dividing its logits by a temperature fitted on val. The argument would be wrong if a badly
# calibrated side did no harm: multiply one side's logits by 3, which changes none of its answers, and measure the rule
# on val again; it should fall, and the trained gate, once trained anew, should not. None of this needs a test image.
# ### END SOLUTION

# %%
checks.progress()

# %% [markdown]
# ## Further reading
#
# - R. A. Jacobs, M. I. Jordan, S. J. Nowlan, G. E. Hinton (1991). Adaptive mixtures of local experts. *Neural
#   Computation* 3. [doi:10.1162/neco.1991.3.1.79](https://doi.org/10.1162/neco.1991.3.1.79)
# - D. H. Wolpert (1992). Stacked generalization. *Neural Networks* 5.
#   [doi:10.1016/S0893-6080(05)80023-1](https://doi.org/10.1016/S0893-6080%2805%2980023-1). A second model is
#   trained on what the first ones say about data that they were not trained on: the rule of this lesson.
# - C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger (2017). On calibration of modern neural networks.
#   [arXiv:1706.04599](https://arxiv.org/abs/1706.04599)
# - The paper's section on the gate module: Lee, Lee & Park (2025).
#   [doi:10.1109/CVPRW67362.2025.00560](https://doi.org/10.1109/CVPRW67362.2025.00560)
