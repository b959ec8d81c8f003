# %% [markdown]
# # 2 The vision model: it learns how emotions look
#
# ## What you will be able to do
#
# - fine-tune a vision model that you name, and keep the epoch that is best on val;
# - read a confusion matrix along its rows and down its columns, and accuracy by cue;
# - tell whether a model is as often right as it says;
# - find out what it looked at, and say what such a map cannot show.
#
# ## Minutes and machine
#
# About 45 minutes to read and run, 65 more for the exercises; any laptop, no GPU. Module:
# `emokd_utils.vision`.
#
# <!-- measured -->

# %% [markdown]
# ## The idea
#
# EmoVLM-KD needs two models that know different things. One is a vision-language model (VLM), the subject of
# lessons 3 to 5. The other, here, is a conventional **vision model**: pixels go in, one number for each
# emotion comes out, and no word is involved. Whatever it knows of emotions it learns from our labelled
# images.
#
# **Fine-tuning** means to go on training a network that has already been trained for something else, usually
# with the photographs of ImageNet. In the profile `mini` the network starts from random values instead, so
# that nothing has to be downloaded. With `weights="timm"` it would start from published ones, and every cell
# below would stay as it is. Training would then begin with a **linear probe**, a logistic regression on the frozen
# network's features, and go on in small steps, smaller towards the pixels, so that what was learnt before is not
# spoilt (Kumar et al. 2022, [arXiv:2202.10054](https://arxiv.org/abs/2202.10054)); lesson 10 shows what that is worth.

# %%
import itertools
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from statsmodels.stats.proportion import confint_proportions_2indep

from emokd_utils import checks, figures
from emokd_utils.complementarity import accuracy_difference
from emokd_utils.evidence import Claim, Estimate, bootstrap, share, wilson
from emokd_utils.explanations import answers_of, grad_cam, occlusion
from emokd_utils.explorer import explore
from emokd_utils.maps import share_table
from emokd_utils.predictions import PROBE, VISION, Predictions
from emokd_utils.profiles import project_root
from emokd_utils.run import open_run
from emokd_utils.vision import Pixels, augment, schedule
from emokd_utils.weights import build_network
from emokd_utils.world.boxes import cue_boxes
from emokd_utils.world.scenes import scene_objects

# %%
run = open_run()
workbench = run.workbench  # what we take apart: the same, unless a run came without its models
data, classes = workbench.dataset, list(workbench.dataset.label_set)
settings = workbench.profile.vision
print(", ".join(f"{len(data.split(name)):,} {name}" for name in ("train", "val", "test")), "images")

# %% [markdown]
# ## A network by its name
#
# [timm](https://huggingface.co/docs/timm) knows about a thousand networks by name; the profile names one.
# Another name is the one change that another network needs.

# %%
torch.manual_seed(0)
network = build_network(settings, len(classes))
parameters = sum(p.numel() for p in network.parameters())
side = settings.image_size
print(f"{settings.name}: {parameters:,} parameters; images of {side} x {side} pixels")

# %% [markdown]
# Images become numbers: three colours a pixel, 0 to 255, then shifted and scaled to what the network expects.
# To train in the open, 800 images are enough; `few` takes them at random.


# %%
def few(split, count):
    part = data.split(split)
    return part.select(np.random.default_rng(0).permutation(part.ids)[:count].tolist())


train, val = few("train", 800), few("val", 400)
pixels, val_pixels = Pixels(train, side, 1024), Pixels(val, side, 1024)
labels, val_labels = (torch.from_numpy(part.label_index) for part in (train, val))
mean, std = (torch.tensor(network.pretrained_cfg[k]).view(3, 1, 1) for k in ("mean", "std"))


def prepare(batch):
    return (batch / 255 - mean) / std


batch = pixels[torch.arange(3)]
print(f"{tuple(batch.shape)} of {batch.dtype}; after prepare: {prepare(batch).dtype}")

# %% [markdown]
# The **cross-entropy** of an image is $-\ln p$, with $p$ the probability that the network gives to the label.
#
# > **Predict before you run.** The network has seen nothing yet. About which cross-entropy do you expect on
# > val, and which accuracy?


# %%
@torch.inference_mode()
def val_logits():
    network.eval()
    return torch.cat([network(prepare(batch)) for batch in val_pixels.batches()])


logits = val_logits()
guess = float(F.cross_entropy(logits, val_labels))
right = int((logits.argmax(1) == val_labels).sum())
untrained = share(right, len(val))
print(f"cross-entropy of the untrained network {guess:.3f}; right: {untrained.percent} val images")
print(f"a guess that gives each class the same: ln {len(classes)} = {math.log(len(classes)):.3f}")

# %% [markdown]
# ## Augmentation: the same label, another picture
#
# A network could learn 1,600 images by heart. **Augmentation** changes each image a little every time it is
# seen, in ways that leave its label true: a random crop, a mirror image.
#
# > **Predict before you run.** Many recipes also shift the colours at random. Why does this project never do
# > so? The last picture is a hint.


# %%
def picture_of(x):
    values = ((x * std + mean) * 255).round().clamp(0, 255).byte()
    return Image.fromarray(values.permute(1, 2, 0).numpy())


def turned_hue(image):
    hue, saturation, value = image.convert("HSV").split()
    hue = hue.point(lambda degrees: (degrees + 128) % 256)
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


# %%
cue_of = train.table.get("cue", pd.Series("", index=train.table.index)).to_numpy()
row = int(np.argmax(cue_of == "atmosphere"))  # the first such image, or the first of all
original = prepare(pixels[torch.tensor([row])])
copies = augment(original.repeat(4, 1, 1, 1), settings, torch.Generator().manual_seed(0))
shown = [picture_of(x) for x in (*original, *copies)]
words = [f"label: {train.labels[row]}", *["augmented"] * 4, "hue turned:\nnot done here"]
title = "Crops and mirror images keep the label; another hue may not"
figures.show(figures.pictures([*shown, turned_hue(shown[0])], words, title))

# %% [markdown]
# ## What a step of training does
#
# The loss is the cross-entropy with **label smoothing**: the label is to get the probability
# $1 - \varepsilon + \varepsilon / C$, each of the other $C - 1$ classes $\varepsilon / C$. So the network is
# never asked to be wholly certain.


# %%
def smoothed_loss(logits, labels, epsilon):
    log_p = logits.log_softmax(1)
    target = torch.full_like(log_p, epsilon / log_p.shape[1])
    target[range(len(labels)), labels] += 1 - epsilon
    return -(target * log_p).sum(1).mean()


epsilon = settings.label_smoothing
ours = smoothed_loss(logits, val_labels, epsilon)
theirs = F.cross_entropy(logits, val_labels, label_smoothing=epsilon)
torch.testing.assert_close(ours, theirs)
print(f"by hand {ours:.4f}, torch {theirs:.4f}, without smoothing {guess:.4f}")

# %% [markdown]
# The **learning rate** is how far a step goes. It rises at first (large steps from random values do harm),
# and then falls to 0 along a cosine, so that training ends with fine adjustments.


# %%
def rate(step, steps, warmup):
    rise = warmup * steps
    if step < rise:
        return (step + 1) / (rise + 1)
    return (1 + math.cos(math.pi * (step - rise) / (steps - rise))) / 2


ours = [rate(step, 50, settings.warmup) for step in range(50)]
np.testing.assert_allclose(ours, [schedule(step, 50, settings.warmup) for step in range(50)])
shares = {f"step {step}": round(settings.lr * ours[step], 5) for step in (0, 5, 10, 20, 30, 40, 49)}
pd.Series(shares, name="learning rate")

# %% [markdown]
# Now one **epoch**, which is one pass over the images, in the open (about 5 s).
#
# > **Predict before you run.** What share of val will be right after this one pass over 800 images? Chance is
# > one over the number of classes.

# %%
generator = torch.Generator().manual_seed(0)
optimizer = torch.optim.AdamW(network.parameters(), weight_decay=settings.weight_decay)
order = torch.randperm(len(train), generator=generator)
batches = order.tensor_split(max(1, len(train) // settings.batch_size))
network.train()
losses = []
for step, rows in enumerate(batches):
    optimizer.param_groups[0]["lr"] = settings.lr * schedule(step, len(batches), settings.warmup)
    x = augment(prepare(pixels[rows]), settings, generator)
    loss = F.cross_entropy(network(x), labels[rows], label_smoothing=epsilon)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
begin, end = np.mean(losses[:5]), np.mean(losses[-5:])
print(f"{len(losses)} steps: mean loss of the first five {begin:.2f}, of the last five {end:.2f}")

# %% [markdown]
# ### How sure is a share?
#
# Other images would have given another share. **Wilson's interval** holds every true share $p$ from which the
# observed $\hat p$ is no surprise, which means at most $z = 1.96$ standard deviations away:
#
# $$|\hat p - p| \le z \sqrt{p (1 - p) / n} \quad\Longleftrightarrow\quad
# p \in \frac{\hat p + \frac{z^2}{2n} \pm z \sqrt{\frac{\hat p (1 - \hat p)}{n} + \frac{z^2}{4 n^2}}}
# {1 + \frac{z^2}{n}}.$$


# %%
def wilson_by_hand(right, n, z=1.959964):
    share = right / n
    middle = share + z**2 / (2 * n)
    reach = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return (middle - reach) / (1 + z**2 / n), (middle + reach) / (1 + z**2 / n)


right = int((val_logits().argmax(1) == val_labels).sum())
np.testing.assert_allclose(wilson_by_hand(right, len(val)), wilson(right, len(val)), rtol=1e-6)
after_one = share(right, len(val))
chance = 1 / len(classes)
print(
    Claim(
        f"after one epoch the network is above chance ({chance:.1%})",
        after_one.low > chance,
        f"{after_one.percent} val images",
    )
)

# %% [markdown]
# ## Which epoch to keep
#
# `fine_tune` does the same for as many epochs as the profile says, judges each epoch on **val**, and keeps
# the best. The run loads what it made, or makes it now (about a minute).

# %%
data, classes = run.dataset, list(run.dataset.label_set)
settings = run.profile.vision
epochs, best = run.vision_history()
history = pd.DataFrame(epochs).set_index("epoch")
history.loc[sorted({1, len(history) // 2 or 1, best, len(history)})].round(3)


# %%
def learning_curves(history, best, n):
    colours = figures.model_colours([VISION])
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4), layout="constrained")
    left.plot(history["train_loss"], "--", color=figures.GREY, label="train, augmented")
    left.plot(history["val_loss"], color=colours[VISION], label="val")
    ends = np.array([wilson(round(share * n), n) for share in history["val_accuracy"]])
    right.fill_between(history.index, *(100 * ends.T), color=colours[VISION], alpha=0.2, lw=0)
    right.plot(100 * history["val_accuracy"], color=colours[VISION], label="val, 95 % interval")
    for ax, name in ((left, "loss (nats)"), (right, f"accuracy (%), n = {n} images")):
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.axvline(best, color=figures.INK, lw=1, ls=":", label=f"kept: epoch {best}")
        ax.set(xlabel="epoch", ylabel=name)
        ax.legend(fontsize=9.5)
    return figure


# %%
n_val = len(data.split("val"))
top = history.loc[best, "val_accuracy"]
title = f"Epoch {best} of {len(history)} is kept: {top:.1%} of val are right"
with figures.style():
    figure = learning_curves(history, best, n_val)
    figure.suptitle(title, x=0.01, ha="left", fontsize=13.5, fontweight="bold")
loss = history["val_loss"]
words = f"By epoch: loss on train and val (val from {loss.iloc[0]:.2f} to {loss.iloc[-1]:.2f})"
figures.show(figure, alt=f"{title}. {words}, and accuracy on val.")

# %% [markdown]
# Two curves, two opinions: the epoch of the lowest loss need not be that of the highest accuracy. The settings
# say which of them decides, before anyone looks.

# %%
by_loss, by_accuracy = history["val_loss"].idxmin(), history["val_accuracy"].idxmax()
print(f"lowest loss on val: epoch {by_loss}; highest accuracy: epoch {by_accuracy}")
print(f"the settings watch {settings.monitor}, so epoch {best} was kept")

# %% [markdown]
# The accuracy on val by which an epoch was chosen is a little too good, since the epoch was chosen for it.
# The **test** split has had no say in anything, and so it gives the final number (about 4 s for the answers to
# all images, which are kept).

# %%
test = run.vision_predictions().split("test")
on_test, on_val = share(test.correct), share(round(top * n_val), n_val)
print(f"val, which chose the epoch: {on_val.percent}")
print(f"test:                       {on_test.percent}")

# %% [markdown]
# ### Pretrained, and few images
#
# A network that starts from published weights can be used in two ways: leave it frozen and fit a logistic regression on
# its features, the linear probe, which takes a minute; or fine-tune it. `fine_tune` begins with the probe and keeps the
# best epoch by val, the probe among them. Here are both on EmoScenes, with EfficientNet-lite0 as ImageNet's photographs
# made it, by the number of training images (`python -m emokd_utils sweep` made the table, with two seeds).
#
# > **Predict before you run.** From how many images on is fine-tuning worth its time?

# %%
made = pd.read_csv(project_root() / "data" / "sweep.csv")
made = made[made["condition"] == "pretrained vision model"].astype({"value": int})
more = made[made["quantity"] == f"{VISION} minus its probe"].set_index("value")
first = more.index[more["low"] > 0].min()
title = f"Fine-tuning is ahead of the probe with {first:,} images and more"
with figures.style():
    figure, ax = plt.subplots(figsize=(8, 3.8), layout="constrained")
    for name, label in ((VISION, "fine-tuned"), (PROBE, "linear probe")):
        line = made[made["quantity"] == name].set_index("value")[["estimate", "low", "high"]] * 100
        ends = np.abs(line[["low", "high"]].sub(line["estimate"], axis=0)).T.to_numpy()
        colour = figures.MODEL_COLOURS["vision model"] if name == VISION else figures.GREY
        ax.errorbar(line.index, line["estimate"], ends, fmt="o-", color=colour, label=label)
    ax.set_xscale("log", base=2)
    ax.set_xticks(more.index, [f"{count:,}" for count in more.index], minor=False)
    n = made["n"].iloc[0]
    ax.set(xlabel="training images", ylabel=f"accuracy (%), n = {n:,}", title=title)
    ax.legend()
words = ", ".join(f"{k}: {100 * x:+.1f}" for k, x in more["estimate"].items())
figures.show(figure, alt=f"{title}. Fine-tuned minus probe by training images, points: {words}.")

# %%
evidence = "; ".join(
    f"{k:,} images {100 * r.estimate:+.1f} [{100 * r.low:+.1f}, {100 * r.high:+.1f}]"
    for k, r in more.iterrows()
)
print(
    Claim(
        "fine-tuning is nowhere more than a point below", (more["estimate"] > -0.01).all(), evidence
    )
)
above = (more["estimate"][more.index >= 1000] > 0).all()
print(Claim("it is above the probe with 1,000 images and more", bool(above), f"n = {n:,} each"))

# %% [markdown]
# ## The confusion matrix
#
# One number hides which emotions are mistaken for which. The **confusion matrix** counts them: a row for each
# label, a column for each predicted class.

# %%
confusion = np.zeros((len(classes), len(classes)), dtype=int)
for label, predicted in zip(test.label_index, test.predicted_index, strict=True):
    confusion[label, predicted] += 1
assert confusion.trace() == test.correct.sum() and confusion.sum() == len(test)
pd.DataFrame(confusion, index=classes, columns=classes)

# %%
figures.show(figures.confusion(test, name=VISION))

# %% [markdown]
# Along a row: of the images of a label, which share was found? That is **recall**. Down a column: of the
# images called by a name, which share deserve it? That is **precision**. A model can raise the recall of a
# class by naming it more often, and pays with precision.
#
# > **Predict before you run.** Find in the figure a class that the model names too often. Which of its two
# > numbers is the lower one?


# %%
def shares(hits, counts):
    found = [share(h, n) for h, n in zip(hits, counts, strict=True)]
    return [f"{s.value:.0%} [{s.low:.0%}, {s.high:.0%}]" for s in found]


hits, of_label, named = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
table = pd.DataFrame({"images": of_label, "named": named}, index=classes)
table.assign(recall=shares(hits, of_label), precision=shares(hits, named))

# %% [markdown]
# Some errors are worse than others. Is a wrong answer at least of the right **polarity**, positive for
# positive and negative for negative? If the wrong answers fell on the other classes by chance, some would be
# so anyway; that share is the yardstick.

# %%
polarity = np.array([data.label_set.polarity.get(name, "") for name in classes])
if not all(polarity):
    print("the polarity of these labels is not known")
else:
    same = polarity[:, None] == polarity[None, :]
    wrong = confusion - np.diag(hits)
    within, n = int(wrong[same].sum()), int(wrong.sum())
    by_chance = float(wrong.sum(1) @ (same.sum(1) - 1)) / (len(classes) - 1) / max(n, 1)
    found = share(within, n)
    print(
        Claim(
            "errors keep to the right polarity more often than by chance",
            found.low > by_chance,
            f"{found.percent} errors; by chance {by_chance:.1%}",
        )
    )

# %% [markdown]
# ## Right on which images?
#
# EmoScenes tells for each image where its emotion comes from: from an object in it (**content**), from how it
# looks (**atmosphere**), or from **both**. The objects come in many colours, sizes and turns, and there are
# few images of each.
#
# > **Predict before you run.** The network has learnt from 1,600 images and nothing else. On which cue will it
# > be better: on a skull in a neutral room, or on a dark red sky over a chair?

# %%
if run.cues is None:
    print("this data set does not tell the cues of its images")
else:
    figures.show(figures.cue_bars({VISION: test}, run.cues))

# %% [markdown]
# The two cues are on different images, so the interval of their difference is one for two separate samples
# (Newcombe's).

# %%
if run.cues is not None:
    cue = run.cues.loc[list(test.ids)].to_numpy()
    one, two = (test.correct[cue == name] for name in ("atmosphere", "content"))
    ends = confint_proportions_2indep(one.sum(), len(one), two.sum(), len(two), method="newcomb")
    gap = Estimate(one.mean() - two.mean(), *ends, len(one) + len(two))
    print(Claim("better on atmosphere than on content", gap.low > 0, gap.points))

# %% [markdown]
# Is the network more than an eye for colours? Beside it we put four numbers of an image's colours with a linear model
# (lesson 1), and look at each test image in the **explorer**: which are right by both, by one, by neither? A click on an area
# or on an image shows more. (Where pages are only read, as on paper, it is a line of text.)


# %%
def colours(image):
    """Direction of the hue, weighted by saturation, and mean saturation and brightness."""
    hue, saturation, brightness = np.moveaxis(np.asarray(image.convert("HSV")) / 255, 2, 0)
    turn = (saturation * np.exp(2j * np.pi * hue)).mean()
    return turn.real, turn.imag, saturation.mean(), brightness.mean()


train = data.split("train")
learnt, asked = (np.array([colours(data.open(k)) for k in part.ids]) for part in (train, test))
linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
known = linear.fit(learnt, train.labels).predict_proba(asked)
known = pd.DataFrame(known, columns=linear.classes_).reindex(columns=test.classes, fill_value=0.0)
by_colour = Predictions(test.ids, test.splits, test.labels, test.classes, known)
print(
    f"colours alone: {share(by_colour.correct).percent}; {accuracy_difference(test, by_colour).points}"
)
explore(test, by_colour, data, names=(VISION, "colours alone"))

# %% [markdown]
# What it does better is what it has to offer; lesson 6 asks whether the VLM lacks just that. Two things bound
# it from above: atmospheres of different emotions overlap, and some labels are wrong on purpose (the datasheet
# of EmoScenes, `data/emoscenes/README.md`, says more). Nobody can be right on every image.

# %% [markdown]
# ## Does it know what it knows?
#
# The softmax turns logits into probabilities. The largest one is the model's **certainty**. A model is
# **calibrated** if of the images on which it says 70 % it gets 70 % right.
#
# > **Predict before you run.** It was trained with label smoothing. Towards which certainty was it pulled, and
# > how often does it go beyond?

# %%
certainty, epsilon = test.probabilities.max(1), settings.label_smoothing
aim = 1 - epsilon + epsilon / len(classes)
beyond = share(certainty > aim)
print(f"trained towards {aim:.1%}; more certain than that: {beyond.percent} test images")

# %% [markdown]
# Calibration is looked at in **bins** of certainty. One bin by hand, and the library's row for it:

# %%
bins = figures.calibration(test)
fullest = bins.loc[bins["n"].idxmax()]
inside = (certainty >= fullest["lower"]) & (certainty <= fullest["upper"])
by_hand = [inside.sum(), certainty[inside].mean(), test.correct[inside].mean()]
np.testing.assert_allclose(by_hand, fullest[["n", "confidence", "accuracy"]])
fullest.round(3).to_frame("fullest bin").T

# %%
figures.show(figures.reliability(test, name=VISION))

# %% [markdown]
# The **expected calibration error** (ECE) is the mean distance of accuracy from certainty, each bin weighed by
# its images (Exercise 2.3 builds it). It is never 0 on a sample, even for a perfect model: in a bin of ten
# images the share that is right jumps about. How large is it by luck alone? Let a perfect model be right as
# often as this one says, a thousand times over.

# %%
error = figures.expected_calibration_error(test)
rng = np.random.default_rng(0)
right = rng.binomial(bins["n"], bins["confidence"], (1000, len(bins)))
by_luck = abs(right - (bins["n"] * bins["confidence"]).to_numpy()).sum(1) / len(test)
low, high = np.quantile(by_luck, [0.025, 0.975])
print(
    Claim(
        "luck alone could explain the calibration error",
        error <= high,
        f"ECE {error:.3f}; a calibrated model: {low:.3f} to {high:.3f} in 95 % of draws, "
        f"n = {len(test):,}",
    )
)

# %% [markdown]
# ## What did it look at?
#
# Hide a patch of the image and ask again: by how much does the probability of the label fall? Doing so patch
# by patch gives an **occlusion map**. It needs nothing of the network's inside, only answers.

# %%
model, data, classes = workbench.vision(), workbench.dataset, list(workbench.dataset.label_set)
print(model)


# %%
def occlusion_map(picture, label, steps=6):
    """Fall of the label's probability with a patch hidden (steps * steps), and the patches."""
    size = picture.width // 4
    starts = np.linspace(0, picture.width - size, steps).astype(int)
    patches = [(x, y, x + size, y + size) for y, x in itertools.product(starts, starts)]
    grey = tuple(int(v) for v in np.asarray(picture).mean((0, 1)))
    hidden = [picture.copy() for _ in patches]
    for copy, patch in zip(hidden, patches, strict=True):
        copy.paste(grey, patch)
    logits = torch.from_numpy(model.image_logits([picture, *hidden]))
    p = logits.softmax(1)[:, label].numpy()
    return p[0] - p[1:], patches


# %% [markdown]
# The patch is a quarter of the image wide and takes the image's mean colour. In EmoScenes we know more than
# one usually does: where the object that evokes the emotion stands. So the map can be checked. We take scenes
# that the model gets right and whose label is the intended one, twenty of each cue, drawn at random.

# %%
meaning = {item.noun: item.emotion for item in scene_objects()}


def square(name):
    picture = data.open(name)
    return ImageOps.fit(picture, (min(picture.size),) * 2)


def evocative_box(scene):
    for noun, box in zip(scene["objects"].split(";"), scene["boxes"].split(";"), strict=True):
        if meaning[noun] == scene["emotion"]:
            x, y, wide, high = map(int, box.split())
            return x, y, x + wide, y + high


# %%
known = {"cue", "emotion", "objects", "boxes"} <= set(data.table.columns)
judged = workbench.vision_predictions().split("test")
scenes = data.table.loc[list(judged.ids)][judged.correct].sample(frac=1, random_state=0)
if known:
    scenes = scenes[scenes["emotion"] == scenes["label"]]
    groups = {name: scenes[scenes["cue"] == name][:20] for name in ("content", "atmosphere")}
else:
    print("this data set tells neither cues nor boxes: the maps below are shown without them")
    groups = {"unknown": scenes[:20]}
print({name: len(group) for name, group in groups.items()})

# %% [markdown]
# The maps of all these scenes take about 6 s.
#
# > **Predict before you run.** In a content-led scene the emotion is in one object. In an atmosphere-led one it
# > is in the colours of the whole image. How will the maps of the two differ?

# %%
maps = {
    name: [occlusion_map(square(i), classes.index(s["label"])) for i, s in group.iterrows()]
    for name, group in groups.items()
}


# %%
def frame(ax, box):
    x, y, right, bottom = box
    ax.add_patch(plt.Rectangle((x, y), right - x, bottom - y, fill=False, ec=figures.INK, lw=1.6))


def draw_map(above, below, name, scene, cue, fall, limit):
    picture = square(name)
    above.imshow(picture)
    text = {"fontsize": 10, "fontweight": "normal"}
    above.set_title(f"{scene['label']}\n({cue})", **text)
    below.set_title(f"at most {100 * fall.max():.0f}", **text)
    width, step = picture.width, (picture.width - picture.width // 4) / 5
    low = (width - 6 * step) / 2  # so that each value stands in the middle of its patch
    look = {"cmap": "PuOr_r", "vmin": -limit, "vmax": limit}
    below.set_facecolor(figures.PALE)
    drawn = below.imshow(
        100 * fall.reshape(6, 6), extent=(low, width - low, width - low, low), **look
    )
    below.set(xlim=(0, width), ylim=(width, 0))
    if cue == "content":
        frame(above, evocative_box(scene))
        frame(below, evocative_box(scene))
    for ax in (above, below):
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    return drawn


# %%
shown = [
    (name, scene, cue, maps[cue][k][0])
    for cue, group in groups.items()
    for k, (name, scene) in enumerate(group[:3].iterrows())
]
limit = 100 * max(abs(fall).max() for *_, fall in shown)
title = "Where hiding a patch costs certainty (frame: the object that evokes the emotion)"
with figures.style():
    figure, grid = plt.subplots(2, len(shown), figsize=(1.9 * len(shown), 4), layout="constrained")
    for (above, below), scene in zip(grid.T, shown, strict=True):
        drawn = draw_map(above, below, *scene, limit)
    figure.colorbar(drawn, ax=grid, shrink=0.8, label="fall of the label's\nprobability (points)")
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
words = "; ".join(f"{s['label']} ({c}) {100 * fall.max():.0f}" for _, s, c, fall in shown)
figures.show(figure, alt=f"{title}. Largest fall of each test scene's map, in points: {words}.")

# %% [markdown]
# A few maps are anecdotes. Over all of them: what does it cost to hide the patch that covers most of the
# evocative object, compared with the patches that do not touch it?


# %%
def covered(box, patch):
    wide = min(box[2], patch[2]) - max(box[0], patch[0])
    high = min(box[3], patch[3]) - max(box[1], patch[1])
    return max(wide, 0) * max(high, 0)


def on_object(scene, fall, patches):
    cover = np.array([covered(evocative_box(scene), patch) for patch in patches])
    return fall[cover.argmax()] - fall[cover == 0].mean() if (cover == 0).any() else np.nan


# %%
if known:
    pairs = zip(groups["content"].iterrows(), maps["content"], strict=True)
    extra = np.array([on_object(scene, *found) for (_, scene), found in pairs])
    extra = extra[~np.isnan(extra)]
    extra = bootstrap(extra)
    words = f"by {extra.points} scenes"
    print(Claim("hiding the object costs more than hiding elsewhere", extra.low > 0, words))
for name, found in maps.items():
    value, low, high = 100 * np.array(bootstrap(np.array([fall.max() for fall, _ in found]))[:3])
    print(f"{name}: the costliest patch takes {value:.1f} points ", end="")
    print(f"[{low:.1f}, {high:.1f}], mean of n = {len(found)} scenes")

# %% [markdown]
# ### The same question, asked inside
#
# Occlusion asks from outside. **Grad-CAM** looks in. A stage of the network gives maps $A^k$, one for each
# channel $k$. How much the label's logit $y$ rises with a channel is the mean of its gradient; the channels,
# weighted by that and added up, give one map, of which the positive part is kept:
#
# $$w_k = \operatorname{mean}_{ij} \frac{\partial y}{\partial A^k_{ij}}, \qquad
# M = \max\Big(0, \sum_k w_k A^k\Big).$$
#
# One pass forwards and one backwards give the whole map, where occlusion needs a pass for each patch. Its cells
# are as coarse as the stage: we take the last one that has at least four cells a side.
#
# > **Predict before you run.** Will the two maps show the same part of a content-led scene? And of an
# > atmosphere-led one?


# %%
def both_maps(name, label):
    """Occlusion in finer steps, and Grad-CAM, from the library."""
    picture, answers = square(name), answers_of(model, data.label_set)
    outside = occlusion(answers, picture, classes.index(label), label=label)
    return {one.method: one for one in (outside, grad_cam(model, picture, label))}


looks = {
    kind: {name: both_maps(name, label) for name, label in group["label"].items()}
    for kind, group in groups.items()
}
for kind, found in looks.items():
    first, both = next(iter(found.items()))
    there = cue_boxes(data, first) if kind == "content" else {}
    title = f"cue: {kind}, labelled {data.table.label[first]}"
    figures.show(figures.explanations(square(first), both, there, title)[0].figure)

# %% [markdown]
# How much of each map lies on the object that evokes (`share`, in %, with its interval over n scenes), and how much
# of the image does that object cover (`area`)? A map that knew nothing would have the second for the first.
# `inside_more` is the share of scenes in which the map has more there than the area.

# %%
if known:
    table = share_table(looks["content"], data, cue_boxes, data.table["cue"])
    table[["share", "low", "high", "area"]] *= 100
    print(table.round(1).to_string())

# %% [markdown]
# What such maps do not show:
#
# - **What is everywhere.** An atmosphere does not go away with one patch. Where the map is flat, the model may
#   have used the whole image.
# - **What has a stand-in.** If either of two objects is enough, hiding one costs nothing, and the map says that
#   neither matters.
# - **The image without the patch.** It shows the image *with a grey square*, which the model has never seen.
#   Another fill or size gives another map.
# - **What speaks against.** Grad-CAM cuts it off, and one of its cells is fed by far more of the image than it
#   covers.
# - **Reasons.** They tell where an answer depends on pixels, for one image and one label; not why, and not what
#   the model would do with another image.

# %% [markdown]
# ## Summary
#
# - A name is enough to build a vision model; augmentation may change what leaves the label true, and here
#   colour does not.
# - Val says which epoch is kept; test gives the final number, with an interval.
# - Rows of a confusion matrix give recall, its columns precision; accuracy by cue says what was learnt.
# - Calibration compares what a model says with how often it is right; part of the distance is luck.
# - Occlusion and Grad-CAM show where one answer depends on pixels, and are silent on what is everywhere. Lesson 6
#   puts the VLM's map beside the vision model's.
#
# The next lesson looks at the other model, which knows what things are before it has seen any of our images.

# %% [markdown]
# ## Exercises

# %% [markdown]
# ### Exercise 2.1 Two averages over classes
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●●○ | 15 | making one number of a confusion matrix, and knowing what it weighs |
#
# With $TP$ the images of a class that were called so, $FN$ those that were missed and $FP$ those of other
# classes that were called so, recall is $TP / (TP + FN)$ and
#
# $$F_1 = \frac{2\, TP}{2\, TP + FP + FN}.$$
#
# Return two numbers, as a tuple, a list or an array: the mean over classes of recall (*balanced accuracy*) and of
# $F_1$ (*macro F1*). Rows are labels, columns predictions. Every class has images, but it may be that one is never predicted.
#
# <details><summary>Both of my numbers are the accuracy</summary>You divide once, by all images. Divide within
# each class first.</details>
# <details><summary>My F1 is nan</summary>Which class is it, and what is its precision? Then look at the formula
# above: does it need precision at all?</details>
# <details><summary>My recall is off, my F1 is right</summary>F1 treats rows and columns alike. Recall does
# not.</details>


# %% nbgrader={"grade_id": "2-1-averages", "solution": true}
def class_averages(confusion):
    """Mean recall and mean F1 over classes of an integer array (labels, predictions)."""
    ### BEGIN SOLUTION
    hit, of_label, named = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    return (hit / of_label).mean(), (2 * hit / (of_label + named)).mean()
    ### END SOLUTION


# %% nbgrader={"grade_id": "2-1-check", "grade": true, "locked": true, "points": 3}
checks.check("2.1", class_averages)

# %% [markdown]
# ### Exercise 2.2 The epoch to keep
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●●○ | 15 | early stopping, and who may choose |
#
# A training run was recorded to its end, though it should have stopped early. `history` is a list of
# dictionaries, one an epoch, with the keys `epoch` (from 1), `train_loss`, `val_loss` and `test_accuracy`.
# Training stops as soon as `patience` epochs in a row have brought no `val_loss` below the lowest before them.
# Return the number of the epoch that is kept: the one of lowest `val_loss` among those that were trained.
#
# <details><summary>My epoch is too late</summary>Epochs behind the stop never happened. Walk through the list by
# hand and say aloud how much patience is left.</details>
# <details><summary>My epoch is too early</summary>What happens to the patience when a new best epoch comes? And
# with which epoch do you compare, with the one before or with the best so far?</details>


# %% nbgrader={"grade_id": "2-2-epoch", "solution": true}
def epoch_to_keep(history, patience):
    """The number of the epoch that early stopping keeps."""
    ### BEGIN SOLUTION
    best = history[0]
    for record in history[1:]:
        if record["val_loss"] < best["val_loss"]:
            best = record
        elif record["epoch"] - best["epoch"] >= patience:
            break
    return best["epoch"]
    ### END SOLUTION


# %% nbgrader={"grade_id": "2-2-check", "grade": true, "locked": true, "points": 3}
checks.check("2.2", epoch_to_keep)

# %% [markdown]
# ### Exercise 2.3 Expected calibration error
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●●○ | 15 | comparing what a model says with what it does |
#
# Cut the certainties from 0 to 1 into `bins` bins of equal width. With $n_b$ images in bin $b$, of which the
# share $a_b$ is right and whose mean certainty is $c_b$,
#
# $$\mathrm{ECE} = \sum_b \frac{n_b}{n} \,|a_b - c_b|.$$
#
# `confidence` (n,) holds certainties, `correct` (n,) is True where the model is right. No certainty but 1
# itself lies on the edge of a bin.
#
# <details><summary>My error is close to 0</summary>Being too sure in one bin and not sure enough in another do
# not make a calibrated model. Where do you take the absolute value?</details>
# <details><summary>My error is nan</summary>A model with eight classes never says 5 %. What is the mean of a bin
# without images?</details>
# <details><summary>It is wrong only where some are 1</summary>A certainty of exactly 1 is the upper edge of the last
# bin. In which of your bins is it?</details>


# %% nbgrader={"grade_id": "2-3-ece", "solution": true}
def calibration_error(confidence, correct, bins):
    """Mean distance of accuracy from certainty over bins of equal width, weighed by images."""
    ### BEGIN SOLUTION
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    total = 0.0
    for k in np.unique(place):
        inside = place == k
        total += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return total
    ### END SOLUTION


# %% nbgrader={"grade_id": "2-3-check", "grade": true, "locked": true, "points": 3}
checks.check("2.3", calibration_error)

# %% [markdown]
# ### Exercise 2.4 Take the colour away (open)
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●●● | 20 | testing a belief about a model by an intervention |
#
# An occlusion map cannot show whether the model goes by colour, which is everywhere. An intervention can: turn
# all test images grey, let the same model answer again, and compare on each cue. Write down your prediction
# first, with a number. Then say what the result shows, and what else could explain it. (`model` is the vision
# model, `judged` what it says of the test images, `workbench.cues` their cues.)
#
# *Rubric (4 points): a prediction stands before the result (1); the comparison is paired, per cue and has
# intervals (1); the conclusion is about what the model uses, not about emotions or people (1); another
# explanation is named with a way to test it (1).*

# %% nbgrader={"grade_id": "2-4-code", "solution": true}
# Compare the answers on grey images here (about 3 s).
### BEGIN SOLUTION
greyed = [ImageOps.grayscale(data.open(name)).convert("RGB") for name in judged.ids]
parts = [model.image_logits(greyed[k : k + 100]) for k in range(0, len(greyed), 100)]
grey_right = np.concatenate(parts).argmax(1) == judged.label_index
parts = {"all": np.ones(len(judged), bool)}
if workbench.cues is not None:
    cue = workbench.cues.loc[list(judged.ids)]
    parts |= {name: (cue == name).to_numpy() for name in np.unique(cue)}
for name, here in parts.items():
    change = accuracy_difference(grey_right[here], judged.correct[here])
    print(
        f"{name}: {grey_right[here].mean():.1%} right on grey images, a change of {change.points}"
    )
### END SOLUTION

# %% [markdown] nbgrader={"grade_id": "2-4-argument", "grade": true, "solution": true, "points": 4}
# ### BEGIN SOLUTION
# I expect a large fall on atmosphere-led scenes, where hue and saturation carry the label, and a smaller one on
# content-led scenes, whose objects keep their form in grey. If the falls printed above are in this order, the
# model uses colour where colour carries the emotion; brightness, texture and weather remain and may keep it
# above chance. Another explanation: the model has never seen a grey image, so part of any fall is strangeness
# and not the missing information. A test: train the same network on grey images and compare. What that network
# reaches is what grey images hold; what it gains over the one above was mere strangeness. Nothing of this tells
# how people feel about grey pictures.
# ### END SOLUTION

# %%
checks.progress()

# %% [markdown]
# ## Further reading
#
# - R. Wightman (2019). PyTorch Image Models (timm).
#   [doi:10.5281/zenodo.4414861](https://doi.org/10.5281/zenodo.4414861)
# - K. He, X. Zhang, S. Ren, J. Sun (2016). Deep residual learning for image recognition. *CVPR*.
#   [doi:10.1109/CVPR.2016.90](https://doi.org/10.1109/CVPR.2016.90)
# - R. Müller, S. Kornblith, G. Hinton (2019). When does label smoothing help?
#   [arXiv:1906.02629](https://arxiv.org/abs/1906.02629)
# - C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger (2017). On calibration of modern neural networks.
#   [arXiv:1706.04599](https://arxiv.org/abs/1706.04599)
# - M. D. Zeiler, R. Fergus (2014). Visualizing and understanding convolutional networks (occlusion). *ECCV*.
#   [doi:10.1007/978-3-319-10590-1_53](https://doi.org/10.1007/978-3-319-10590-1_53)
# - R. R. Selvaraju and others (2017). Grad-CAM: visual explanations from deep networks via gradient-based
#   localization. *ICCV*. [doi:10.1109/ICCV.2017.74](https://doi.org/10.1109/ICCV.2017.74)
# - J. Adebayo and others (2018). Sanity checks for saliency maps.
#   [arXiv:1810.03292](https://arxiv.org/abs/1810.03292)
# - E. B. Wilson (1927). Probable inference, the law of succession, and statistical inference. *Journal of the
#   American Statistical Association* 22.
#   [doi:10.1080/01621459.1927.10502953](https://doi.org/10.1080/01621459.1927.10502953)
