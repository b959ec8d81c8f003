# %% [markdown]
# # 5 Instruction tuning: a small correction to a frozen model
#
# ## What you will be able to do
#
# - derive LoRA's low-rank correction, write it as a layer, and say why one of its matrices starts at zero;
# - count an adapter's parameters by hand, and say what stays frozen and why;
# - tune a VLM for a few steps in the open, and read the loss curve of a whole run;
# - compare before and after with a paired test, cue by cue, and read the answers that changed.
#
# ## Minutes and machine
#
# About 50 minutes to read and run, 75 more for the exercises; any laptop, no GPU. Module:
# `emokd_utils.tuning`.
#
# <!-- measured -->

# %% [markdown]
# ## The idea
#
# Lesson 4 wrote instructions: questions about each training image, and the answers to be learnt. Now the VLM
# learns from them. One could change all of its weights. That needs room for a gradient and an optimiser's
# memory for every single one, it makes a second copy of the whole model, and it invites the model to forget
# what it knew.
#
# **LoRA** (low-rank adaptation, Hu et al. 2021) leaves every weight as it is, and trains a small correction
# beside a few chosen matrices: the **adapter**. It is saved apart, it weighs next to nothing, and when it is
# taken away the old model is back.

# %%
import copy
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from accelerate.utils import send_to_device

from emokd_utils import checks, figures
from emokd_utils.complementarity import accuracy_difference, four_way, mcnemar_exact
from emokd_utils.costs import count_parameters
from emokd_utils.evidence import Claim, wilson
from emokd_utils.instructions import write_instructions
from emokd_utils.packing import PackingCollator, answer_loss, by_image, pack, single_row
from emokd_utils.predictions import TUNED, ZERO_SHOT
from emokd_utils.run import open_run
from emokd_utils.training import autocast
from emokd_utils.tuning import add_lora, recompute_layers
from emokd_utils.world.describe import describe_scene

# %% [markdown]
# The run loads what has been made here before, or else what came with the course.

# %%
run = open_run()
workbench = run.workbench  # what we take apart: the same, unless a run came without its models
settings = workbench.profile.tuning
base, tuned = workbench.base, workbench.tuned_vlm()
print(settings)

# %% [markdown]
# ## A correction of low rank
#
# Let $W$ be a matrix of the model, with as many rows as there are outputs and as many columns as inputs.
# Tuning changes it to $W + \Delta W$. LoRA's assumption is that the change needs only a few directions: that
# its **rank** is some small $r$.
#
# What does a matrix of rank $r$ look like? All of its columns lie in a space of $r$ dimensions. Take a basis
# of that space as the columns of a matrix $B$ (outputs by $r$). Every column of $\Delta W$ is then $B$ times
# $r$ coordinates; write these as the columns of a matrix $A$ ($r$ by inputs). So
#
# $$\Delta W = B A, \qquad W' = W + \frac{\alpha}{r}\, B A .$$
#
# Only $A$ and $B$ are trained: $r\,(\text{inputs} + \text{outputs})$ numbers in place of
# $\text{inputs} \times \text{outputs}$. The constant $\alpha / r$ is explained below.
#
# > **Predict before you run.** Rank 8 on a square matrix: what share of its numbers is trained when it is 256
# > wide? And when it is 3584 wide?

# %%
widths, ranks = (256, 1024, 3584), (1, 8, 64)
share = {f"rank {r}": [r * (w + w) / (w * w) for w in widths] for r in ranks}
pd.DataFrame(share, index=pd.Index(widths, name="width")).map("{:.2%}".format)

# %% [markdown]
# ## The layer, in the open
#
# The input goes two ways: through the frozen layer, and through $A$ (down to $r$ numbers) and $B$ (up again).
# The product $BA$ is never formed: two thin products cost less than one thick one.


# %%
class LoRALinear(torch.nn.Module):
    def __init__(self, frozen, rank, alpha):
        super().__init__()
        self.frozen, self.scale = frozen.requires_grad_(False), alpha / rank
        self.A = torch.nn.Parameter(torch.empty(rank, frozen.in_features))
        self.B = torch.nn.Parameter(torch.zeros(frozen.out_features, rank))
        torch.nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))

    def forward(self, x):
        return self.frozen(x) + self.scale * (x @ self.A.T @ self.B.T)


# %% [markdown]
# Is it what the library trains? `emokd_utils.tuning` takes LoRA from the package `peft`. We take the query
# projection of the first layer of the tuned VLM, put its weights into ours, and compare the answers.

# %%
theirs = copy.deepcopy(tuned.core.model.language_model.layers[0].self_attn.q_proj).float()
torch.manual_seed(0)
x = torch.randn(5, theirs.in_features, device=tuned.device)
for factor in (4, 1):  # alpha four times as large, and then as it was trained
    theirs.set_scale("default", factor)
    ours = LoRALinear(theirs.base_layer, settings.rank, factor * settings.alpha)
    ours.A.data = theirs.lora_A["default"].weight.data
    ours.B.data = theirs.lora_B["default"].weight.data
    torch.testing.assert_close(ours(x), theirs(x))
    print(f"A {tuple(ours.A.shape)}, B {tuple(ours.B.shape)}, scale {ours.scale:g}: same answers")

# %% [markdown]
# ## Why B starts at zero
#
# With $s = \alpha / r$ and $G$ the gradient that full tuning would give to $W$, the chain rule says
#
# $$\nabla_B = s\, G A^\top, \qquad \nabla_A = s\, B^\top G .$$
#
# Each gradient holds the *other* matrix. Three ways to begin, on a small example:
#
# > **Predict before you run.** Which of the three can never learn anything? Which one has changed the model's
# > answers before learning has begun?

# %%
torch.manual_seed(0)
plain, inputs, wanted = torch.nn.Linear(64, 64), torch.randn(32, 64), torch.randn(32, 64)


def first_look(a, b):
    layer = LoRALinear(plain, rank=4, alpha=4)
    layer.A.data *= a
    layer.B.data += b * torch.randn_like(layer.B)
    (layer(inputs) - wanted).square().mean().backward()
    change = (layer(inputs) - plain(inputs)).norm()
    return [number.item() for number in (change, layer.A.grad.norm(), layer.B.grad.norm())]


starts = {"A random, B zero": (1, 0), "both zero": (0, 0), "both random": (1, 1)}
columns = ["output changed by", "gradient of A", "gradient of B"]
pd.DataFrame({k: first_look(*v) for k, v in starts.items()}, index=columns).T.round(3)

# %% [markdown]
# Zero times anything is zero, so with $B = 0$ tuning begins at exactly the old model. The first step moves
# $B$ alone; from the second on, both learn. With both at zero there is nothing to begin with.

# %% [markdown]
# ## Why alpha over r
#
# Adam moves each number of $B$ by about the learning rate, whatever its gradient is. Each of the $r$ columns
# adds its part to the first step, so that the step grows with the rank. The factor $\alpha / r$ takes this
# back: $\alpha$ alone says how large the first step is, and a learning rate that was found for one rank
# serves for another.
#
# > **Predict before you run.** Without the division, how many times larger is the first gain at rank 32 than
# > at rank 4?


# %%
def first_gain(rank, alpha, seed):
    torch.manual_seed(seed)
    layer = LoRALinear(plain, rank, alpha)
    optimizer = torch.optim.Adam([layer.A, layer.B], lr=1e-4)
    before = (layer(inputs) - wanted).square().mean()
    before.backward()
    optimizer.step()
    return (before - (layer(inputs) - wanted).square().mean()).item()


rows = {  # the mean over 20 random A each
    r: [sum(first_gain(r, alpha, seed) for seed in range(20)) / 20 for alpha in (8, 8 * r)]
    for r in (1, 2, 4, 8, 16, 32)
}
gains = pd.DataFrame(rows, index=["scale 8 / r", "scale 8, not divided"]).T.rename_axis("rank")
(1e4 * gains).round(2)

# %% [markdown]
# (The gain is the fall of the loss in the first step, times 10,000.)
#
# ## Counted by hand
#
# Which matrices get an adapter? As in the paper, four of each layer of the language model: the projections to
# queries, keys and values, and the one out of the attention. In a Qwen2-VL several query heads share one head
# of keys and values (*grouped-query attention*).
#
# > **Predict before you run.** Two of the four matrices are not square. Which ones, and are they narrower or
# > wider?

# %%
attention = base.core.model.language_model.layers[0].self_attn
names = [f"{one}_proj" for one in settings.projections]
matrices = [getattr(attention, name) for name in names]
shapes = [(matrix.out_features, matrix.in_features) for matrix in matrices]
table = pd.DataFrame(shapes, index=names, columns=["outputs", "inputs"])
table["frozen"] = table["outputs"] * table["inputs"]
table["adapter"] = settings.rank * (table["outputs"] + table["inputs"])
table

# %%
layers = len(base.core.model.language_model.layers)
by_hand = layers * int(table["adapter"].sum())
torch.manual_seed(0)
model = add_lora(copy.deepcopy(base.core), settings)  # a copy: the adapter is put into the model
library = count_parameters(model)
assert by_hand == library.trained
print(f"{layers} layers x {table['adapter'].sum():,} = {by_hand:,}, as the library counts:")
print(f"{library.trained / library.total:.2%} of {library.total:,} parameters are trained")

# %% [markdown]
# ## What stays frozen
#
# Everything else, the visual encoder above all. There is a reason beyond thrift: the head of lesson 7 reads
# the visual tokens. As tuning does not touch the encoder, what is computed from it once holds before and
# after.

# %%
core = model.get_base_model()
parts = {"visual encoder": core.model.visual, "language model": core.model.language_model}
counted = {name: count_parameters(part) for name, part in parts.items()}
pd.DataFrame({name: [c.total, c.trained] for name, c in counted.items()}, ["all", "trained"]).T

# %% [markdown]
# ## One pass for one image
#
# That the encoder is frozen saves work as well: what it makes of an image is the same in every epoch and for
# every instruction, so each image passes it once. And the instructions of an image begin alike: the chat's
# first marks, then the visual tokens. In one row this beginning, the **trunk**, passes the language model once,
# and behind it stand the three questions with their answers, the **branches**.
#
# For that, each token may see the trunk and what came before it in its own branch, and nothing of the others;
# and its position is counted along its branch. Each token then sees what it would see in a row of its own, at
# the same distances. So it gets the same output. The loss is the same sum, and the gradient of a sum is the sum
# of the gradients: the trunk, which is there once, collects what it would get in three rows.

# %%
train, val = workbench.dataset.split("train"), workbench.dataset.split("val")
written, counts = write_instructions(train, settings.kinds, 0, describe_scene)
unseen, _ = write_instructions(val, settings.kinds, 0, describe_scene)
print(f"{len(written):,} instructions about {len(train):,} images: {counts}")
items, held_out = by_image(written, len(settings.kinds)), by_image(unseen, len(settings.kinds))
about_one = items[0]
image = train.open(about_one[0].image_id)
apart = [single_row(base, image, item) for item in about_one]
packed = pack(apart)
tokens = [len(row.order) for row in apart]
print(
    f"tokens of {len(apart)} rows: {tokens}, in all {sum(tokens)}; as one row: {len(packed.order)}"
)

# %% [markdown]
# Who sees whom? The tokens that are learnt from have been put last, since the model's output, a number for each
# word of the vocabulary, is needed for them alone.

# %%
who = packed.sees().int() * (1 + packed.branch[:, None])  # 0: not seen
with figures.style():
    figure, ax = plt.subplots(figsize=(6.4, 5), layout="constrained")
    colours = ["white", figures.GREY, *figures.MODEL_COLOURS.values()][: len(apart) + 2]
    ax.imshow(who, cmap=plt.matplotlib.colors.ListedColormap(colours), interpolation="nearest")
    first_learnt = int((packed.next_ids == -100).sum())
    ax.axhline(first_learnt - 0.5, color=figures.INK, lw=1, ls=(0, (4, 3)))
    for k, name in enumerate(["trunk", *(item.kind for item in about_one)]):
        ax.bar(0, 0, color=colours[k + 1], label=name)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), title="a token of")
    title = f"{len(apart)} instructions in one row: who sees whom"
    ax.set(xlabel="token that is seen", ylabel="token that sees", title=title)
figures.show(
    figure,
    alt=f"{title}: below the dashed line, from token {first_learnt} on, those that are learnt from.",
)

# %% [markdown]
# And the gradient? We give the copy's $B$ random values, so that none is zero, and compare the two ways.


# %%
def loss_on(groups, share):
    batch = PackingCollator(base, data, 0, share)(groups)
    batch = send_to_device(batch, base.device)
    learnt = int((batch["next_ids"] != -100).sum())
    with autocast(base.device):
        return answer_loss(model, batch), learnt  # the mean over so many tokens


def gradient(share):
    model.zero_grad()
    loss_on(items[:2], share)[0].backward()
    return torch.cat([weight.grad.flatten() for weight in learning.values()])


data = workbench.dataset
learning = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
start = copy.deepcopy(learning)
torch.manual_seed(0)
for name, weight in learning.items():
    if "lora_B" in name:
        torch.nn.init.normal_(weight, std=0.1)
model.eval()  # without dropout, which is random
share = PackingCollator(base, data, 0).is_exact(about_one)
if share:
    three, one = gradient(False), gradient(True)
    print(f"the gradients differ by {(three - one).norm() / three.norm():.0e} of their length")
else:  # layers with a memory or a window
    print("this model's instructions stay in rows of their own")
for name, weight in learning.items():
    weight.data = start[name].data

# %% [markdown]
# ## A few steps in the open
#
# All that remains is a training loop. The instructions are those of lesson 4. We take 20 steps of 15 instructions
# about 5 images (about 5 s; fewer at a time where the profile's batches are smaller), and measure the loss on
# instructions about val images before and after.


# %%
def unseen_loss():
    model.eval()
    with torch.inference_mode():
        parts = [loss_on(held_out[k : k + size], share) for k in range(0, 20, size)]
    return sum(float(loss) * n for loss, n in parts) / sum(n for _, n in parts)


# %%
torch.manual_seed(0)
size = max(1, min(16, settings.batch_size) // len(about_one))  # images a step
if workbench.profile.tuning.recompute:  # a large model's layers are computed again (lesson 10)
    recompute_layers(core)
adapter = list(learning.values())
optimizer = torch.optim.AdamW(adapter, lr=settings.lr, weight_decay=0.0)
before, losses = unseen_loss(), []
model.train()
for step in range(20):
    loss, _ = loss_on(items[size * step : size * step + size], share)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(adapter, 1.0)
    optimizer.step()
    losses.append(loss.item())
after = unseen_loss()

# %%
with figures.style():
    figure, ax = plt.subplots(figsize=(8, 4), layout="constrained")
    ax.plot(range(1, 21), losses, "o-", color=figures.MODEL_COLOURS["VLM"], label="training batch")
    ax.plot(
        [0.5, 20.5],
        [before, after],
        "D",
        color=figures.INK,
        label="instructions about 20 val images",
    )
    title = f"20 steps take the loss on unseen instructions from {before:.2f} to {after:.2f}"
    ax.set(
        xlabel=f"step ({size * len(about_one)} instructions each)",
        ylabel="loss (nats per token)",
        title=title,
    )
    ax.set_xticks(range(0, 21, 5))
    ax.set_ylim(0)
    ax.grid(axis="y")
    ax.legend()
figures.show(figure, alt=f"{title}; training batches from {losses[0]:.2f} to {losses[-1]:.2f}.")

# %% [markdown]
# What moved? Every tensor of the copy is compared with the model that it was copied from.

# %%
old = dict(base.core.named_parameters())
new = {n.replace(".base_layer", ""): p for n, p in core.named_parameters() if "lora_" not in n}
moved = [name for name in old if not torch.equal(old[name], new[name])]
print(f"{len(moved)} of {len(old)} tensors of the old model moved; the adapter has {len(adapter)}")

# %% [markdown]
# ## The whole run
#
# `instruction_tune` runs the same loop through the `Trainer` of `transformers`: all instructions, several
# epochs, a learning rate that warms up and then falls along a cosine (exercise 5.4). The run keeps the
# adapter and the log.
#
# > **Predict before you run.** From the second epoch on, the model meets every instruction again. Will the
# > curve show where an epoch begins?

# %%
log = pd.DataFrame([row for row in run.tuning_log() if "loss" in row])
if len(log):
    start, end = log["loss"].iloc[[0, -1]]
    early = log.loc[log["epoch"] <= max(1, log["epoch"].iloc[0]), "loss"].iloc[-1]
    way = (start - early) / (start - end)
    title = f"The loss falls from {start:.2f} to {end:.2f}, "
    title += f"{way:.0%} of the way in the first of {run.profile.tuning.epochs} epochs"


# %%
def draw_log():
    figure, (up, down) = plt.subplots(
        2, 1, figsize=(9, 5), sharex=True, height_ratios=[2, 1], layout="constrained"
    )
    up.plot(log["epoch"], log["loss"], "o-", ms=5, color=figures.MODEL_COLOURS["VLM"])
    down.plot(log["epoch"], log["learning_rate"], color=figures.GREY)
    up.set(ylabel="loss (nats per token)", title=title)
    down.set(xlabel="epoch", ylabel="learning rate")
    for ax in (up, down):
        ax.set_ylim(0)
        ax.grid()
    return figure


if len(log):
    with figures.style():
        figures.show(draw_log(), alt=f"{title}. Below, the learning rate rises and falls to 0.")
else:
    print("the run was shorter than the 25 steps after which the log gets a line")

# %% [markdown]
# One run, one seed; each point is the mean of the steps since the one before. The curve shows *that* the
# model learns its training answers. Whether it learnt to judge new images, no training loss can say.
#
# ## Where the change went
#
# The size of the correction beside that of the matrix it corrects (the square root of the sum of squares of
# each), layer by layer. What a frozen matrix is, also where it is kept in 4 bits, shows in what the layer makes
# of the unit vectors.


# %%
def update_of(layer):
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    return settings.alpha / settings.rank * (b @ a).detach()


@torch.no_grad()
def matrix_of(linear):
    linear = copy.deepcopy(linear).float()
    units = torch.eye(linear.in_features, device=tuned.device)
    return (linear(units) - linear(torch.zeros_like(units))).T


def adapted(layer):
    return {name: getattr(layer.self_attn, name) for name in names}


trained_layers = [adapted(layer) for layer in tuned.core.model.language_model.layers]
sizes = [
    {n: float(update_of(p).norm() / matrix_of(p.base_layer).norm()) for n, p in layer.items()}
    for layer in trained_layers
]
pd.DataFrame(sizes).rename_axis("layer").map("{:.0%}".format)

# %% [markdown]
# Did it need all of its rank? A matrix's **singular values** say how much each of its directions does. Here
# is how many of them hold 90 % of the correction (of the sum of squares).

# %%
needed = []
for layer in trained_layers:
    shares = {n: torch.linalg.svdvals(update_of(p)).square().cumsum(0) for n, p in layer.items()}
    needed.append({n: int((s < 0.9 * s[-1]).sum()) + 1 for n, s in shares.items()})
pd.DataFrame(needed).rename_axis(f"layer (of rank {settings.rank})")

# %% [markdown]
# ## Merged
#
# A correction of this kind can be added into the weights. The merged model has the old shape and costs what
# the old one costs; `peft` does it for all layers with `merge_and_unload`.

# %%
frozen = theirs.base_layer
merged = matrix_of(frozen) + update_of(theirs)
torch.testing.assert_close(update_of(theirs), theirs.get_delta_weight("default").detach())
answer = torch.nn.functional.linear(x, merged, frozen.bias)
close = 1e-5 if frozen.weight.dtype == torch.float32 else 0.02  # 4 bits are multiplied in 16
torch.testing.assert_close(answer, theirs(x), rtol=10 * close, atol=close)
print("one matrix product in place of three, and the same answers")

# %% [markdown]
# ## Before and after, paired
#
# The two models answered the same test images. So we look at pairs: images that only the tuned model gets
# right, and images that only the untuned one does. All others say nothing about which of the two is better.

# %%
untuned_test, tuned_test = (p.split("test") for p in (run.zero_shot(), run.tuned()))
pairs = four_way(tuned_test, untuned_test)
print(f"A: tuned, B: untuned. {pairs}")

# %% [markdown]
# **McNemar's test** asks: if tuning had changed nothing but luck, each image of these two kinds would be as
# likely of one kind as of the other, like the toss of a coin. How often would tosses be as uneven as this, or
# more so? (Lesson 6 takes it apart.)


# %%
def mcnemar_by_hand(only_a, only_b):
    tosses, fewer = only_a + only_b, min(only_a, only_b)
    tail = sum(math.comb(tosses, heads) for heads in range(fewer + 1)) / 2**tosses
    return min(1.0, 2 * tail)


p_value = mcnemar_by_hand(pairs.only_a, pairs.only_b)
assert math.isclose(p_value, mcnemar_exact(tuned_test, untuned_test), rel_tol=1e-6)
gain = accuracy_difference(tuned_test, untuned_test)
print(
    Claim(
        "tuning makes the VLM better on the test images",
        gain.low > 0 and p_value < 0.05,
        f"{gain.points}, one seed; McNemar's exact p = {p_value:.2g}",
    )
)

# %% [markdown]
# On which images? The untuned model was taught what objects mean to people, and never what a palette does
# (lesson A1).
#
# > **Predict before you run.** On which cue is the gain largest? Is there one on which you expect a loss?

# %%
shown = {ZERO_SHOT: untuned_test, TUNED: tuned_test}
if run.cues is None:
    print("this data set does not tell the cues of its images")
else:
    figures.show(figures.cue_bars(shown, run.cues))

# %%
by_cue = {}
if run.cues is not None:
    cue = run.cues.loc[list(tuned_test.ids)]
    for name in cue.unique():
        ids = list(cue.index[cue == name])
        a, b = tuned_test.select(ids), untuned_test.select(ids)
        by_cue[name] = accuracy_difference(a, b)
        print(f"{name}: {by_cue[name].points}; McNemar's exact p = {mcnemar_exact(a, b):.2g}")

# %%
if {"content", "atmosphere"} <= set(by_cue):
    content, look = by_cue["content"], by_cue["atmosphere"]
    print(
        Claim(
            "tuning helps most where the look carries the emotion",
            look.low > content.high,
            f"atmosphere {look.points}; content {content.points}",
        )
    )
    print(
        Claim(
            "on images that an object carries, tuning has a price",
            content.high < 0,
            content.points,
        )
    )

# %% [markdown]
# ## The answers that changed
#
# Numbers say how many answers changed; images say which. We look at the **val** images for this: whoever
# looks through the test images, and then has an idea for the training, has trained on them a little.

# %%
old_val, new_val = (p.split("val") for p in (run.zero_shot(), run.tuned()))
words = {True: "right", False: "wrong"}
change = pd.DataFrame(
    {
        "before": [words[x] for x in old_val.correct],
        "after": [words[x] for x in new_val.correct],
        "answer": [
            "other" if x != y else "same"
            for x, y in zip(old_val.predicted, new_val.predicted, strict=True)
        ],
    },
    index=list(new_val.ids),
)
change.groupby(["before", "after", "answer"]).size().rename("images").reset_index()


# %%
def spread(ids, count=6):
    """Some of the ids, from the first to the last."""
    count = min(count, len(ids))
    return [ids[len(ids) * k // count] for k in range(count)]


def gallery(before, after, title):
    every = list(change.index[(change["before"] == before) & (change["after"] == after)])
    if not every:
        return print(f"{title}: no image")
    a, b = new_val.select(spread(every)), old_val.select(spread(every))
    told = zip(a.labels, b.predicted, a.predicted, strict=True)
    captions = [f"is {label}\nbefore: {x}\nafter: {y}" for label, x, y in told]
    images = [run.dataset.open(name) for name in a.ids]
    figures.show(
        figures.pictures(images, captions, f"{title}: {len(a)} of {len(every)} val images")
    )


gallery("wrong", "right", "Wrong before, right after")

# %% [markdown]
# > **Predict before you run.** Now the reverse: right before, wrong after. What will these images have in
# > common?

# %%
gallery("right", "wrong", "Right before, wrong after")

# %% [markdown]
# Before blaming the model, look at the label. EmoScenes gives some images a wrong one on purpose (lesson 1): to be
# right on such an image is luck, and to be wrong is no fault.

# %%
if "label_noise" in run.dataset.table:
    noisy = run.dataset.table.loc[change.index, "label_noise"].astype(str) == "True"
    by_change = noisy.groupby([change["before"], change["after"]]).agg(["size", "sum"])
    print(by_change.set_axis(["images", "with a wrong label"], axis=1).to_string())
else:
    print("this data set does not tell which labels are wrong")

# %% [markdown]
# And in words? The same three images, the same question, before and after (about 3 s).

# %%
three = workbench.tuned().select(spread(val.ids, 3))
images = [workbench.dataset.open(name) for name in three.ids]
for label, was, now in zip(three.labels, base.reasons(images), tuned.reasons(images), strict=True):
    print(f"is {label}\n  before: {was}\n  after:  {now}")

# %% [markdown]
# ## Generate or score
#
# Up to here the tuned model was asked by label scoring, which never gives an answer outside the label set.
# The paper lets the model write and reads the label out of what it wrote (lesson 3 compares the two for the
# untuned model). How often does it write something else now?

# %%
wrote = run.tuned(method="generate").split("test")
failed = int(wrote.invalid.sum())
low, high = wilson(failed, len(wrote))
print(f"{failed} of {len(wrote):,} answers name no label: {failed / len(wrote):.1%} ", end="")
print(f"[{low:.1%}, {high:.1%}], 95 % interval")
print(pd.Series(wrote.answers).value_counts().head(10).to_string())

# %%
apart = accuracy_difference(tuned_test, wrote)
print(
    Claim(
        "after tuning, scoring and writing are equally accurate as far as can be told",
        apart.low <= 0 <= apart.high,
        f"scoring minus writing {apart.points}",
    )
)

# %% [markdown]
# ## At the paper's scale
#
# The paper tunes Qwen2-VL-7B: 8.29 billion parameters, a language model of 28 layers and width 3584, 28 query
# heads and 4 key-value heads; LoRA of rank 8, $\alpha = 8$, dropout 0.05, learning rate $10^{-4}$, 5 epochs.
# Its published code holds the frozen weights in **NF4**: each weight is one of 16 levels (4 bits), the levels
# lie where weights of a normal distribution are dense, and each block of 64 weights has a scale of its own.
# The scales are quantised again, which leaves 8 bits a scale and 32 more for every 256 of them (Dettmers et
# al. 2023). Word vectors and output layer are not quantised. What does all this save?

# %%
total, vocabulary, width, kv_width, depth, rank = 8.29e9, 152_064, 3584, 512, 28, 8
words_16_bit = 2 * vocabulary * width  # word vectors in, output layer out
small = depth * rank * (2 * (width + width) + 2 * (width + kv_width))
nf4_bits = 4 + 8 / 64 + 32 / (64 * 256)
gigabytes = {
    "full tuning: weights, gradients (16 bit), Adam (2 x 32 bit)": total * (2 + 2 + 8) / 1e9,
    "LoRA: frozen weights of 16 bit": total * 2 / 1e9,
    "LoRA: frozen weights of NF4": (words_16_bit * 2 + (total - words_16_bit) * nf4_bits / 8) / 1e9,
    "the adapter: weights, gradients, Adam (4 x 32 bit)": small * 16 / 1e9,
}
print(
    f"adapter: {small:,} parameters, {small / total:.3%} of {total:.3g}; NF4: {nf4_bits:.3f} bits"
)
print(pd.Series(gigabytes).round(2).to_string())

# %% [markdown]
# What the images and texts need while they pass through comes on top, and does not shrink. NF4 needs a GPU
# and rounds every frozen weight; TinyVLM is small enough to do without. Lesson 10 plans such a run.
#
# ## Summary
#
# - LoRA adds $\frac{\alpha}{r} BA$ to a frozen matrix: few numbers to train, nothing to forget for good.
# - $B$ starts at zero, so that tuning starts at the old model; $\alpha / r$ keeps the first step's size when
#   the rank changes.
# - The visual encoder is not touched: what is computed from it holds before and after.
# - A training loss says that answers were learnt. A paired test on images never trained on says what for.
#
# The VLM is tuned. Lesson 6 asks on which images it and the vision model part ways.

# %% [markdown]
# ## Exercises

# %% [markdown]
# ### Exercise 5.1 The low-rank layer
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●●○ | 15 | turning a formula into matrix products with the right shapes |
#
# Write the output of an adapted layer without a bias, from its matrices, all torch tensors. `x` is (images, inputs), `weight`
# (outputs, inputs), `a` (rank, inputs), `b` (outputs, rank); the rank is to be read off the shapes. Close
# your eyes to the class above and start from $W + \frac{\alpha}{r} B A$.
#
# <details><summary>The shapes do not fit</summary>Write the shape under each letter of the formula. The formula
# acts on a column x; your x holds one image in each row.</details>
# <details><summary>It is right as long as alpha equals the rank</summary>Then one of the two is where it should
# not be, or both are missing.</details>
# <details><summary>With B = 0 my answers are not the old ones</summary>Which terms are left when B is 0? Only one
# should be, without any factor.</details>


# %% nbgrader={"grade_id": "5-1-layer", "solution": true}
def low_rank_layer(x, weight, a, b, alpha):
    """x through W + alpha / rank * B A: (images, outputs)."""
    ### BEGIN SOLUTION
    rank = a.shape[0]
    return x @ weight.T + (alpha / rank) * (x @ a.T) @ b.T
    ### END SOLUTION


# %% nbgrader={"grade_id": "5-1-check", "grade": true, "locked": true, "points": 4}
checks.check("5.1", low_rank_layer)

# %% [markdown]
# ### Exercise 5.2 The size of an adapter
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●○○ | 10 | reading shapes off a configuration |
#
# Count the parameters of an adapter on the query, key, value and output projections, from five numbers of the
# configuration, without building anything. Try it on TinyVLM's, which you know from above, and on those of
# the paper's model.
#
# <details><summary>It is too large for the paper's model and right for a model without key-value heads</summary>
# Which two of the four matrices have fewer rows? How many?</details>
# <details><summary>It is half of what it should be</summary>Count the matrices: how many are adapted in a layer,
# and how many small ones does each get?</details>


# %% nbgrader={"grade_id": "5-2-count", "solution": true}
def adapter_parameters(width, heads, key_value_heads, layers, rank):
    """Parameters of LoRA on q, k, v and o of every layer."""
    ### BEGIN SOLUTION
    narrow = width // heads * key_value_heads
    return layers * rank * (2 * (width + width) + 2 * (width + narrow))
    ### END SOLUTION


# %% nbgrader={"grade_id": "5-2-check", "grade": true, "locked": true, "points": 3}
checks.check("5.2", adapter_parameters)

# %% [markdown]
# ### Exercise 5.3 Merging the adapter
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●○○ | 10 | adding a correction without losing the original |
#
# Return the one matrix that does the work of $W$, $A$ and $B$. Others still hold the base model, so leave
# `weight` itself as it is.
#
# <details><summary>The answers are right, and then the base model is wrong</summary>Compare <code>weight</code>
# before and after the call. Which operators of Python change what they are applied to?</details>
# <details><summary>It works for queries and fails for keys</summary>The matrices of the keys are not square. Write
# the shapes under B and A: in which order do they give outputs by inputs?</details>


# %% nbgrader={"grade_id": "5-3-merge", "solution": true}
def merge(weight, a, b, alpha):
    """W + alpha / rank * B A as a new matrix (outputs, inputs)."""
    ### BEGIN SOLUTION
    return weight + alpha / a.shape[0] * (b @ a)
    ### END SOLUTION


# %% nbgrader={"grade_id": "5-3-check", "grade": true, "locked": true, "points": 2}
checks.check("5.3", merge)

# %% [markdown]
# ### Exercise 5.4 The course of the learning rate
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●●○ | 15 | reading a schedule, and writing it down |
#
# The lower panel of "The whole run" shows the learning rate. It rises in a straight line from 0 at step 0 to
# its `peak` at step `warmup`. From there it falls along half a wave of a cosine, flat at its beginning and at
# its end, and is 0 at step `steps`. Write it as a function of the step.
#
# <details><summary>It jumps where the warm-up ends</summary>At that step the falling part should begin at its
# peak. How far along the wave is it there?</details>
# <details><summary>It becomes negative</summary>A cosine goes from 1 down to -1. Which two operations bring that
# to 1 and 0?</details>
# <details><summary>It does not look flat at the end</summary>How much of a wave does your angle run through, in
# radians?</details>


# %% nbgrader={"grade_id": "5-4-schedule", "solution": true}
def learning_rate(step, steps, warmup, peak):
    """The rate at a step of 0 to `steps`."""
    ### BEGIN SOLUTION
    if step < warmup:
        return peak * step / warmup
    along = (step - warmup) / (steps - warmup)
    return peak * (1 + math.cos(math.pi * along)) / 2
    ### END SOLUTION


# %% nbgrader={"grade_id": "5-4-check", "grade": true, "locked": true, "points": 3}
checks.check("5.4", learning_rate)

# %% [markdown]
# ### Exercise 5.5 Forgotten, or overruled? (open)
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●●● | 25 | telling two explanations apart by an observation |
#
# Some val images were right before tuning and are wrong after. Two explanations: the model has **forgotten**
# the object that gave the emotion away, or it still knows the object, and the look now **overrules** it. Ask
# the tuned model something that would come out differently under the two, count, and argue.
# `tuned.generate(images, "...")` asks it, and `base` is the model before tuning. TinyVLM can describe an image
# ("Describe the image.") and tell its emotion, and little else. (The column
# `objects` of `workbench.dataset.table` tells which objects a scene holds.)
#
# *Rubric (5 points): the images are found by code and looked at (1); the question asked would be answered
# differently under the two explanations (1); the same is asked of the untuned model, or of images that stayed
# right, for comparison (1); the argument says what the count shows and what it leaves open (1); it names a
# change of the instructions or of the training that would help if the explanation is true (1).*

# %% nbgrader={"grade_id": "5-5-code", "solution": true}
# Ask here.
### BEGIN SOLUTION
was, now = (p.split("val") for p in (workbench.zero_shot(), workbench.tuned()))
lost, kept = (np.array(val.ids)[was.correct & right][:40] for right in (~now.correct, now.correct))
scenes = workbench.dataset.table
if "objects" in scenes:
    for name, ids in (("lost", lost), ("kept", kept)):
        images = [workbench.dataset.open(i) for i in ids]
        objects = [scenes.loc[i, "objects"].split(";") for i in ids]
        for when, vlm in (("before", base), ("after", tuned)):
            told = vlm.generate(images, "Describe the image.") if images else []
            named = sum(
                noun in text for text, nouns in zip(told, objects, strict=True) for noun in nouns
            )
            print(
                f"{name}, {when}: {named} of {sum(map(len, objects))} objects named, {len(ids)} images"
            )
### END SOLUTION

# %% [markdown] nbgrader={"grade_id": "5-5-argument", "grade": true, "solution": true, "points": 5}
# ### BEGIN SOLUTION
# If objects were forgotten, the tuned model would no longer name them when asked for a description, and less
# often on the lost images than the untuned model does. If they are overruled, it names them as well as before
# and still answers with the emotion of the look. So the two rows "lost" are to be compared with each other,
# and with the rows "kept", since a tuned model may describe all images worse merely because it was not asked
# to describe for a while. What the count leaves open: naming in a description is not the same as using the
# object when asked for the emotion, and a third explanation is chance, as some answers hang by a hair before
# and after. Against forgetting, some descriptions from before could be mixed into the instructions; against
# overruling, more training scenes would help in which an object's emotion stands against an indifferent look,
# or reasoning instructions that say which of the two decides.
# ### END SOLUTION

# %%
checks.progress()

# %% [markdown]
# ## Further reading
#
# - E. J. Hu, Y. Shen, P. Wallis, Z. Allen-Zhu, Y. Li, S. Wang, L. Wang, W. Chen (2021). LoRA: low-rank
#   adaptation of large language models. [arXiv:2106.09685](https://arxiv.org/abs/2106.09685)
# - T. Dettmers, A. Pagnoni, A. Holtzman, L. Zettlemoyer (2023). QLoRA: efficient finetuning of quantized LLMs.
#   [arXiv:2305.14314](https://arxiv.org/abs/2305.14314)
# - A. Aghajanyan, S. Gupta, L. Zettlemoyer (2021). Intrinsic dimensionality explains the effectiveness of
#   language model fine-tuning. *ACL-IJCNLP*.
#   [doi:10.18653/v1/2021.acl-long.568](https://doi.org/10.18653/v1/2021.acl-long.568)
# - Q. McNemar (1947). Note on the sampling error of the difference between correlated proportions or
#   percentages. *Psychometrika* 12. [doi:10.1007/BF02295996](https://doi.org/10.1007/BF02295996)
# - The paper's section on instruction tuning: Lee, Lee & Park (2025).
#   [doi:10.1109/CVPRW67362.2025.00560](https://doi.org/10.1109/CVPRW67362.2025.00560)
