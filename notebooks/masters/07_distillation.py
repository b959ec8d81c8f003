# %% [markdown]
# # 7 Distillation: a vision model's judgement in a small head
#
# ## What you will be able to do
#
# - derive the distillation loss, and say why it holds the square of the temperature;
# - train a head on cached features, with every image passing each frozen network once;
# - sweep the teacher's weight and the temperature without touching the test split;
# - tell how much the teacher adds, on which images, and how far the head stays behind it.
#
# ## Minutes and machine
#
# About 45 minutes to read and run, 55 more for the exercises; any laptop, no GPU. Module:
# `emokd_utils.distillation`.
#
# <!-- measured -->

# %% [markdown]
# ## The idea
#
# Lesson 6 ended with two models that are right on different images. Running both costs twice. The VLM,
# though, has already *looked* at the image: its visual encoder hands 16 tokens to the language model. A
# small **head** on the mean of these tokens can learn to answer as the vision model would, so that the
# second model need not run at all. (Other models hand over several maps of an image to their layers, tiles of
# it, or a token for all of it: what the head sees is always the mean over what the language model is handed.)
#
# The head learns from two sources: the label of an image, and the whole answer of the vision model (the
# *teacher*), which says more than a label does: that this image is fear, but that awe would not have been
# absurd.

# %%
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from emokd_utils import checks, figures
from emokd_utils.complementarity import accuracy_difference
from emokd_utils.distillation import DistillationHead, distillation_loss, train_head
from emokd_utils.evidence import Claim
from emokd_utils.predictions import HEAD, HEAD_PLAIN, VISION
from emokd_utils.run import open_run

# %% [markdown]
# The run loads what has been made here before, or else what came with the course.

# %%
run = open_run(say=lambda line: None)  # loads without a line for each result
classes = list(run.dataset.label_set.labels)
features = torch.from_numpy(run.features())  # mean visual token of each image
teacher = torch.from_numpy(run.teacher_logits())  # logits of the vision model
labels = torch.from_numpy(run.dataset.label_index)
print(f"features {tuple(features.shape)}, teacher logits {tuple(teacher.shape)}")

# %% [markdown]
# ## Soft targets
#
# A teacher that was trained to the end is sure of itself, and a probability of 0.99 tells little more than
# the label. Dividing its logits by a **temperature** $T > 1$ before the softmax brings back what it knows
# about the other classes.
#
# > **Predict before you run.** What does the distribution become as $T$ grows without end?

# %% slide="What a teacher says beyond the label"
val = run.rows("val")
image = val[teacher[val].softmax(1).max(1).values.argsort()[len(val) // 2]]  # of middling certainty
soft = {f"T = {t}": (teacher[image] / t).softmax(0).numpy() for t in (1, 2, 4, 16)}
pd.DataFrame(soft, index=classes).round(3)

# %% [markdown]
# Entropy measures how much a distribution leaves open: 0 for certainty, $\ln 8 \approx 2.08$ nats for eight
# classes that are all alike.

# %%
temperatures = [1, 2, 4, 8, 16]
spread = [(teacher[val] / t).softmax(1) for t in temperatures]
entropy = [float(torch.distributions.Categorical(p).entropy().mean()) for p in spread]
print(pd.Series(entropy, index=temperatures, name="mean entropy, nats").round(2).to_string())

# %% [markdown]
# ## The loss
#
# With $p$ the student's and $q$ the teacher's distribution at temperature $T$, and $z$ the student's logits,
#
# $$\mathcal{L} = \alpha\, T^2 \,\mathrm{KL}(q \,\|\, p) + (1 - \alpha)\, \mathrm{CE}(z, y), \qquad
# \mathrm{KL}(q \,\|\, p) = \sum_c q_c \ln \frac{q_c}{p_c},$$
#
# averaged over the images. The cross-entropy (CE) with the label $y$ is at temperature 1. The paper takes
# $\alpha = 0.5$ and $T = 2$. In code:


# %%
def loss_by_hand(student_logits, teacher_logits, labels, alpha=0.5, temperature=2.0):
    log_p = (student_logits / temperature).log_softmax(1)
    log_q = (teacher_logits / temperature).log_softmax(1)
    divergence = (log_q.exp() * (log_q - log_p)).sum(1).mean()
    return alpha * temperature**2 * divergence + (1 - alpha) * F.cross_entropy(
        student_logits, labels
    )


# %% [markdown]
# Is it the library's? From here on `distillation_loss` of the library is used, which checks its input as
# well.

# %%
torch.manual_seed(0)
guess = torch.randn(6, len(classes))
ours = loss_by_hand(guess, teacher[:6], labels[:6])
theirs = distillation_loss(guess, teacher[:6], labels[:6])
torch.testing.assert_close(ours, theirs)
print(f"by hand {ours:.6f}, library {theirs:.6f}")

# %% [markdown]
# ### Why T squared
#
# The gradient of KL with respect to a student's logit is $(p_c - q_c) / T$. For large $T$ both softmaxes are
# nearly linear in the logits, so that $p_c - q_c$ shrinks like $1/T$ as well: the gradient falls like
# $1/T^2$, while that of the cross-entropy stays as it is. The factor $T^2$ undoes this, and one $\alpha$
# means one balance at every $T$ (Hinton, Vinyals & Dean 2015, section 2).
#
# > **Predict before you run.** Without the factor, how many times smaller is the gradient at $T = 8$ than at
# > $T = 2$?


# %% slide="Why T squared"
def gradient_size(temperature, squared):
    z = guess.clone().requires_grad_()
    loss = distillation_loss(z, teacher[:6], labels[:6], alpha=1.0, temperature=temperature)
    (loss if squared else loss / temperature**2).backward()
    return float(z.grad.norm())


rows = {t: [gradient_size(t, True), gradient_size(t, False)] for t in (1.0, 2.0, 4.0, 8.0, 16.0)}
pd.DataFrame(rows, index=["with T squared", "without"]).T.rename_axis("T").round(4)

# %% [markdown]
# ## Each image once
#
# Encoder and teacher are frozen: their outputs for an image never change. So each network sees each image
# once, and the outputs are kept **under the image's id**. Training then reads small tables instead of running
# two networks for every sample of every epoch. (Exercise 7.2 is about what happens when rows and ids part.)

# %%
train = run.rows("train")
x, t, y = features[train], teacher[train], labels[train]
x_val, y_val = features[val], labels[val]
mean, std = x.mean(0), x.std(0)
print(f"{len(x)} images to train on, {len(x_val)} to choose by; each of {x.shape[1]} numbers")

# %% [markdown]
# ## The head
#
# One hidden layer of 1024, GELU, dropout 0.1: this is all that is trained, beside a frozen VLM.

# %%
torch.manual_seed(0)
head = torch.nn.Sequential(
    torch.nn.Linear(x.shape[1], 1024),
    torch.nn.GELU(),
    torch.nn.Dropout(0.1),
    torch.nn.Linear(1024, len(classes)),
)
by_hand = sum(p.numel() for p in head.parameters())
library = sum(p.numel() for p in DistillationHead(x.shape[1], len(classes)).parameters())
print(f"{by_hand:,} parameters here, {library:,} in the library's head of depth 1")

# %% [markdown]
# Three passes over the training images, in the open (about 2 s):

# %%
optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3)
for epoch in range(3):
    head.train()
    for rows in torch.randperm(len(x)).split(64):
        loss = distillation_loss(head((x[rows] - mean) / std), t[rows], y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right = (head.eval()((x_val - mean) / std).argmax(1) == y_val).float().mean()
    print(f"epoch {epoch + 1}: {right:.1%} of {len(y_val)} val images right")

# %% [markdown]
# `train_head` does the same with early stopping, and `run.head()` keeps what it trained.

# %%
trained = run.head()
history = pd.DataFrame(trained.history).set_index("epoch")
print(f"{len(history)} epochs, the best was {trained.best_epoch}")
history.iloc[[0, trained.best_epoch - 1, -1]].round(3)

# %% [markdown]
# ## What the teacher adds
#
# The same head was trained with $\alpha = 0$: labels alone. Both have the same features, the same number of
# parameters and the same seed, so that the teacher is the one difference.

# %%
predictions = run.predictions()
gain = accuracy_difference(predictions[HEAD], predictions[HEAD_PLAIN])
print(
    Claim(
        "on the test images the distilled head beats the head without a teacher",
        gain.low > 0,
        f"{gain.points}, one seed",
    )
)

# %% [markdown]
# On which images? The cue of a scene says where its emotion comes from.
#
# > **Predict before you run.** The teacher learnt from pixels alone. On which cue will it help most?

# %% slide="What the teacher adds, by cue"
chosen = {name: predictions[name] for name in (HEAD_PLAIN, HEAD, VISION)}
if run.cues is None:
    print("this data set does not tell the cues of its images")
else:
    figures.show(figures.cue_bars(chosen, run.cues))

# %% [markdown]
# The teacher itself is the third bar. Is its student behind it? The head looks through an encoder that was never
# trained for this, but it also has the labels, and the teacher is not right about everything.

# %%
behind = accuracy_difference(predictions[VISION], predictions[HEAD])
print(
    Claim(
        "the teacher is still ahead of its student",
        behind.low > 0,
        behind.points,
    )
)

# %% [markdown]
# ## How much teacher, how soft?
#
# Two settings remain to be chosen, $\alpha$ and $T$. They are chosen on **val**: a setting chosen on the test
# split would make the final number too good (lesson 8 measures by how much). Each setting is trained with
# three seeds (about 25 s).


# %%
def accuracy_on_val(alpha, temperature, seed):
    settings = replace(run.profile.head, alpha=alpha, temperature=temperature, epochs=12)
    made = train_head(
        x,
        y,
        t,
        val_features=x_val,
        val_labels=y_val,
        num_classes=len(classes),
        settings=settings,
        seed=seed,
    )
    return made.history[made.best_epoch - 1]["val_accuracy"]


def table_of(settings):
    rows = [(a, tt, s, accuracy_on_val(a, tt, s)) for a, tt in settings for s in range(3)]
    return pd.DataFrame(rows, columns=["alpha", "temperature", "seed", "accuracy"])


# %% slide="How much teacher?"
by_alpha = table_of([(a, 2.0) for a in (0.0, 0.25, 0.5, 0.75, 1.0)])
figures.show(figures.sweep(by_alpha, x="alpha", n=len(y_val)))

# %%
by_temperature = table_of([(0.5, tt) for tt in (1.0, 2.0, 4.0, 8.0)])
figures.show(figures.sweep(by_temperature, x="temperature", n=len(y_val)))

# %% [markdown]
# The band is what another seed would change. Where the lines move less than the band is wide, the choice
# hardly matters, and the paper's values are as good as any.

# %%
for name, table in (("alpha", by_alpha), ("temperature", by_temperature)):
    means = table.groupby(name)["accuracy"].mean()
    wobble = table.groupby(name)["accuracy"].std().mean()
    moved = means.max() - means.min()
    print(
        f"{name}: best at {means.idxmax():g}; from worst to best {100 * moved:.1f} points, ", end=""
    )
    print(f"from seed to seed {100 * wobble:.1f} (standard deviation)")

# %% [markdown]
# ## Summary
#
# - A head on the frozen visual encoder learns from labels and from the teacher's softened answers at once.
# - $T^2$ keeps the teacher's part of the gradient at one size as $T$ changes.
# - Frozen networks run once for each image; caches are addressed by id.
# - Settings are chosen on val, the gain is told on test, with an interval and per cue.
#
# The head is one half of EmoVLM-KD. The other half is the VLM's own answer; lesson 8 combines them.

# %% [markdown]
# ## Exercises

# %% [markdown]
# ### Exercise 7.1 The loss, from its formula
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●●○ | 15 | turning a formula into a loss that is right to the last factor |
#
# Write the distillation loss. Do not copy the cell above: close your eyes to it and start from the formula.
# All logits are of shape (images, classes); return a scalar tensor.
#
# <details><summary>My loss is 4 times too small</summary>At which temperature? Compare T = 1, where it is right,
# with T = 2, and look at which factor of the formula is 1 in the first case.</details>
# <details><summary>My loss is 8 times too small</summary>There are 8 classes. Over what does your divergence take
# the mean, and over what should it?</details>
# <details><summary>My loss is negative</summary>A divergence never is. Which of its two arguments does your
# function expect as logarithms?</details>


# %% nbgrader={"grade_id": "7-1-loss", "solution": true}
def my_loss(student_logits, teacher_logits, labels, alpha, temperature):
    """alpha * T^2 * KL(teacher || student) + (1 - alpha) * CE, averaged over the images."""
    ### BEGIN SOLUTION
    soft_teacher = F.softmax(teacher_logits / temperature, dim=1)
    log_student = F.log_softmax(student_logits / temperature, dim=1)
    divergence = F.kl_div(log_student, soft_teacher, reduction="batchmean")
    return alpha * temperature**2 * divergence + (1 - alpha) * F.cross_entropy(
        student_logits, labels
    )
    ### END SOLUTION


# %% nbgrader={"grade_id": "7-1-check", "grade": true, "locked": true, "points": 4}
checks.check("7.1", my_loss)

# %% [markdown]
# ### Exercise 7.2 Rows and ids
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●○○ | 10 | keeping caches and images together |
#
# A cache holds teacher logits with the ids of the images they belong to, in the order in which they were
# made. Your data set lists its ids in another order, and not all of the cached ones. Return the rows of the
# cache that belong to `ids`, in the order of `ids`. When an id is not in the cache, raise a `KeyError`.
#
# <details><summary>The shapes fit, and yet the head learns nothing from the teacher</summary>That is how this
# mistake shows: each image learns from another image's teacher. Take two ids, and follow the first one by
# hand from the list to its row.</details>
# <details><summary>It works only when all cached ids are asked for</summary>Is your index a place in the cache, or
# a place in <code>ids</code>?</details>


# %% nbgrader={"grade_id": "7-2-align", "solution": true}
def rows_for(ids, cached_ids, cache):
    """The rows of `cache` (one for each of `cached_ids`) that belong to `ids`, in their order."""
    ### BEGIN SOLUTION
    place = {name: row for row, name in enumerate(cached_ids)}
    return cache[[place[name] for name in ids]]
    ### END SOLUTION


# %% nbgrader={"grade_id": "7-2-check", "grade": true, "locked": true, "points": 2}
checks.check("7.2", rows_for)

# %% [markdown]
# ### Exercise 7.3 Parameters of a head
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●○○ | 10 | counting what is trained |
#
# At the paper's scale the encoder of Qwen2-VL-7B gives 3584 numbers an image. Write a function that counts
# the parameters of a head with one hidden layer, from three numbers, without building it.
#
# <details><summary>I am off by a little more than a thousand</summary>Every layer adds something to its matrix
# product.</details>


# %% nbgrader={"grade_id": "7-3-count", "solution": true}
def head_parameters(features, hidden, classes):
    """Parameters of Linear, GELU, Dropout, Linear."""
    ### BEGIN SOLUTION
    return (features + 1) * hidden + (hidden + 1) * classes
    ### END SOLUTION


# %% nbgrader={"grade_id": "7-3-check", "grade": true, "locked": true, "points": 2}
checks.check("7.3", head_parameters)

# %% [markdown]
# ### Exercise 7.4 A wrong teacher (open)
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●●● | 20 | arguing from a measurement |
#
# Take ten images of the **val** split on which the teacher is wrong and the head without a teacher is right.
# (The logits of every image: `run.head_logits(alpha=0.0)` of the head without a teacher, `run.head_logits()` of
# the distilled one, `teacher` above.) Did the distilled head follow the teacher? Then argue: would a teacher
# that is wrong on one image in three be worth having? What decides it: how often it is wrong, or on which
# images, or what it says when it is?
#
# *Rubric (4 points): the images are found by code, on val, and looked at (1); it is counted how often the
# student follows (1); the argument separates the label's part of the loss from the teacher's (1); it names an
# observation that would prove it wrong (1).*

# %% nbgrader={"grade_id": "7-4-code", "solution": true}
# Find the images here.
### BEGIN SOLUTION
logits = run.head_logits(alpha=0.0), run.head_logits(), run.teacher_logits()
plain, distilled, taught = (values[val].argmax(1) for values in logits)
is_class = run.dataset.label_index[val]
misled = np.flatnonzero((taught != is_class) & (plain == is_class))
followed = distilled[misled] == taught[misled]
print(f"{len(misled)} images; the distilled head follows the teacher on {followed.sum()} of them")
shown = misled[:: max(1, len(misled) // 10)][:10]
picked = [run.dataset.ids[val[k]] for k in shown]
words = [f"is {classes[is_class[k]]}\nteacher: {classes[taught[k]]}" for k in shown]
pictures = [run.dataset.open(name) for name in picked]
figures.show(
    figures.pictures(
        pictures, words, "The teacher is wrong, the head without it is right", columns=5
    )
)
### END SOLUTION

# %% [markdown] nbgrader={"grade_id": "7-4-argument", "grade": true, "solution": true, "points": 4}
# ### BEGIN SOLUTION
# The count above says how often the student follows. It can resist because half of the loss is the label's: on
# a training image where teacher and label disagree, the two gradients pull apart, and the label's is the larger
# when the teacher hesitates. A teacher that is wrong at random adds noise, which averages out over the images;
# one that is wrong with confidence and always in the same way teaches its error. So it is less the rate that
# decides than whether its errors are systematic and sure. It would speak against this if a teacher whose
# wrong answers were replaced by random ones made a worse head than the teacher as it is.
# ### END SOLUTION

# %%
checks.progress()

# %% [markdown]
# ## Further reading
#
# - G. Hinton, O. Vinyals, J. Dean (2015). Distilling the knowledge in a neural network.
#   [arXiv:1503.02531](https://arxiv.org/abs/1503.02531)
# - J. Gou, B. Yu, S. J. Maybank, D. Tao (2021). Knowledge distillation: a survey. *International Journal of
#   Computer Vision* 129. [doi:10.1007/s11263-021-01453-z](https://doi.org/10.1007/s11263-021-01453-z)
# - The paper's section on the distillation module: Lee, Lee & Park (2025).
#   [doi:10.1109/CVPRW67362.2025.00560](https://doi.org/10.1109/CVPRW67362.2025.00560)
