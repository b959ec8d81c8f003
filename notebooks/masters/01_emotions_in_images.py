# %% [markdown]
# # 1 Emotions in images: what a label can and cannot say
#
# ## What you will be able to do
#
# - name the label sets of this field, where they come from, and what is lost between them;
# - read EmoScenes' cues and its datasheet, and hold the one against the other;
# - measure the colours of an emotion, with intervals, and say how far colour alone would get you;
# - compute the ceiling of a data set, and say what "the emotion of an image" can and cannot mean.
#
# ## Minutes and machine
#
# About 40 minutes to read and run, 55 more for the exercises; any laptop, no GPU. Modules:
# `emokd_utils.emotions`, `emokd_utils.world.scenes`.
#
# <!-- measured -->

# %% [markdown]
# ## The idea
#
# A model that predicts "the emotion of an image" is trained on pairs of an image and a word. Before any model
# is trained, three questions decide what its accuracy will mean. **Which words?** The label set is a theory of
# emotion, whether one likes it or not. **Why this word for this image?** What is in the picture, and how it
# looks, may each evoke something. **Whose word?** An image feels nothing; somebody who looked at it did.
#
# On photographs the second question has no sure answer. That is why this course uses EmoScenes, drawn scenes
# in which it has one: each image carries its emotion through a known **cue**.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display
from matplotlib.colors import rgb_to_hsv
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from emokd_utils import checks, figures
from emokd_utils.complementarity import accuracy_difference
from emokd_utils.emotions import EKMAN, LABEL_SETS, MIKELS, POLARITY, infer_label_set
from emokd_utils.evidence import Claim, Estimate, bootstrap, wilson
from emokd_utils.run import open_run
from emokd_utils.world import scenes

# %% [markdown]
# ## Three label sets
#
# - **Ekman** (1992) argues for a few *basic* emotions, each with its own signal and its own history in
#   evolution. Emotion6 uses six of them.
# - **Mikels** et al. (2005) went the other way round: they showed people photographs, asked what these evoked,
#   and found four positive and four negative categories. FI, EmoSet and EmoScenes use these eight.
# - **Polarity**, negative or positive, keeps one question only. It is the first dimension of Russell's (1980)
#   *circumplex*, in which emotions are no boxes at all but places on a plane of valence (pleasant or
#   unpleasant) and arousal (stirred or calm).
#
# > **Predict before you run.** Which emotions will Mikels and Ekman have in common: the positive or the
# > negative ones?

# %%
rows = {}
for name, known in LABEL_SETS.items():
    sides = {side: [c for c in known if known.polarity[c] == side] for side in POLARITY}
    rows[name] = {side: ", ".join(labels) for side, labels in sides.items()}
    print(f"{name}: {known.reference}")
print("Mikels and Ekman share:", ", ".join(label for label in MIKELS if label in EKMAN))
pd.DataFrame(rows).T

# %% [markdown]
# A photograph of a mountain range has a place in Mikels' set (awe) and hardly one in Ekman's; a joke has to
# share "joy" with a wedding. That is no flaw of either: what to tell apart is a choice, and it comes before
# the data. Note *surprise*: that it is positive here is a convention. A surprise can be either.
#
# The order of the labels matters as well: it is the order of every column of probabilities in this course.

# %% [markdown]
# ### One emotion, many spellings
#
# Folders are called `sad`, models write "in awe". `canonical` reads word forms, and gives None for anything
# else. It never guesses: an answer outside the set must not silently become a class.

# %%
spellings = ["Sad", "in awe", "HAPPY", "content", "melancholy"]
read = {known.name: [known.canonical(text) for text in spellings] for known in (MIKELS, EKMAN)}
pd.DataFrame(read, index=spellings).astype(object).replace({None: "(none)"})

# %%
for folders in (["Content", "sad", "fear"], ["pos", "neg"], ["happy", "sad"], ["cats", "dogs"]):
    found = infer_label_set(folders)
    print(f"{', '.join(folders):20} -> {found.name}: {', '.join(found)}")

# %% [markdown]
# ## EmoScenes, cue by cue
#
# The cue says what carries the emotion: **content**, an object that people associate with it; **atmosphere**,
# that is palette, light, texture and weather; or **both**. Whatever is not the cue is neutral.

# %%
run = open_run()
dataset = run.dataset
classes = list(dataset.label_set.labels)
table = dataset.table.copy()
documented = {"emotion", "cue", "label_noise"} <= set(table)  # EmoScenes' own columns
if not documented:
    table["cue"] = "not known"
print(f"{len(table):,} images; columns: {', '.join(table.columns)}")

# %% [markdown]
# > **Predict before you run.** Below are scenes of one cue at a time. Cover the captions and name the emotion
# > from your gut. On which cue will you be surest, and on which will a model that knows colours only be lost?

# %% slide="Which emotion does each scene convey?"
order = [c for c in ("content", "atmosphere", "both", "not known") if c in set(table["cue"])]
train = table[table["split"] == "train"]
clean = train[~train["label_noise"]] if documented else train  # labels as intended
for cue in order:
    rows = slice(1, 3) if cue != "both" else slice(1, 2)
    first = [clean[(clean["cue"] == cue) & (clean["label"] == c)].index[rows] for c in classes]
    ids = [k for row in zip(*first, strict=True) for k in row]
    opened, captions = [dataset.open(k) for k in ids], [table.loc[k, "label"] for k in ids]
    figures.show(figures.pictures(opened, captions, f"Cue: {cue}", columns=8, size=1.02))

# %% [markdown]
# Which object stands for what is written down, with a reason, in `data/emoscenes/objects.csv`.

# %%
if documented:
    for emotion in [*classes, "neutral"]:
        nouns = [thing.noun for thing in scenes.objects_of(emotion)]
        print(f"{emotion:12} {', '.join(nouns[:8])}{' ...' if len(nouns) > 8 else ''}")

# %% [markdown]
# And so is each atmosphere: a *distribution* of hue, saturation and brightness, with a favoured texture, light
# and weather. The choice follows two studies. Valdez & Mehrabian (1994) had people rate colours: pleasure
# grows with brightness, and a little with saturation; arousal grows with saturation and falls with brightness.
# Machajdik & Hanbury (2010) found that texture, contrast and lines carry emotion as well.

# %%
if documented:
    moods = {e: vars(scenes.MOODS[e]) for e in classes}
    means = pd.DataFrame(moods).T[["hue", "saturation", "brightness"]].map(lambda pair: pair[0])
    words = pd.DataFrame(moods).T[["textures", "lights", "weathers"]].map(" or ".join)
    display(means.join(words))

# %% [markdown]
# ### Reading the datasheet
#
# A *datasheet* (Gebru et al. 2021) says how a data set came to be, what it is good for and what it is not.
# The section to read first is the last but one: what must not be claimed with it.

# %%
sheet = (scenes.HOME / "README.md").read_text(encoding="utf-8")
sections = dict(part.split("\n", 1) for part in sheet.split("\n## ")[1:])
print("sections:", "; ".join(sections))
print(next(text for name, text in sections.items() if "not be used" in name))

# %% [markdown]
# A datasheet can be wrong. What it states can often be counted: here that each emotion has 40 % content, 40 %
# atmosphere and 20 % both.

# %%
if documented:
    shares = pd.crosstab(table["emotion"], table["cue"], normalize="index")[order]
    stated = np.array([0.4, 0.4, 0.2])
    off = float(np.abs(shares - stated).to_numpy().max())
    display(shares.loc[classes].map("{:.1%}".format))
    text = "in each emotion the cues have the shares that the datasheet states"
    print(Claim(text, off < 0.01, f"at most {100 * off:.2f} points off, n = {len(table):,} images"))

# %% [markdown]
# ## The colours of an emotion
#
# A pixel is red, green and blue. **HSV** says the same in words closer to seeing: *brightness* (value) is the
# largest of the three; *saturation* is how far the smallest stays behind it, from grey (0) to pure (1); and
# *hue* is the place on the colour circle, in degrees: red 0, green 120, blue 240, and back to red.


# %%
def hsv_by_hand(rgb):
    """(..., 3) red, green, blue in 0..1 -> hue, saturation, brightness, each in 0..1."""
    red, green, blue = np.moveaxis(rgb, -1, 0)
    top, spread = rgb.max(-1), np.ptp(rgb, axis=-1)
    safe = np.where(spread == 0, 1, spread)  # grey has no hue: 0 by convention
    after_red, after_green = (green - blue) / safe % 6, (blue - red) / safe + 2
    sixth = np.select(
        [top == red, top == green], [after_red, after_green], (red - green) / safe + 4
    )
    saturation = spread / np.where(top == 0, 1, top)
    return np.stack([sixth / 6, saturation, top], axis=-1)


image = np.asarray(dataset.open(clean.index[0])) / 255
np.testing.assert_allclose(hsv_by_hand(image), rgb_to_hsv(image), atol=1e-12)
print("the same as Matplotlib's rgb_to_hsv on", image.shape, "numbers")

# %% [markdown]
# Hue needs care: it runs in a circle. The middle of 350 and 10 degrees is 0, not 180. So hues are averaged as
# **arrows**: each pixel is an arrow that points to its hue, as long as the pixel is colourful, and the arrows
# are added (exercise 1.2). For a whole image that gives four numbers (about 8 s for all of train and val).


# %%
def colours_of(image_id):
    hue, saturation, brightness = np.moveaxis(
        rgb_to_hsv(np.asarray(dataset.open(image_id)) / 255), -1, 0
    )
    arrow = (saturation * brightness * np.exp(2j * np.pi * hue)).mean()
    return saturation.mean(), brightness.mean(), arrow.real, arrow.imag


measured = table[table["split"].isin(["train", "val"])]
names = ["saturation", "brightness", "to red", "to yellow-green"]
colours = pd.DataFrame([colours_of(k) for k in measured.index], measured.index, names)
colours.describe().loc[["mean", "std", "min", "max"]].round(2)

# %% [markdown]
# ### How bright, how saturated
#
# > **Predict before you run.** Left, images whose cue is the content; right, the atmosphere. Where will the
# > eight means lie in each? Where will fear be, where excitement?


# %%
def dots(ax, values, x, y):
    """Mean of each emotion with 95 % intervals; returns the means in words."""
    facts, fills = [], figures.class_colours(classes)
    for name in classes:
        own = values[table.loc[values.index, "label"] == name]
        (mx, *ex, _), (my, *ey, _) = bootstrap(own[x].to_numpy()), bootstrap(own[y].to_numpy())
        ax.plot(ex, [my, my], color=figures.INK, lw=1.2)
        ax.plot([mx, mx], ey, color=figures.INK, lw=1.2)
        marker = "s" if dataset.label_set.polarity.get(name) == "negative" else "o"
        ax.plot(mx, my, marker, color=fills[name], mec=figures.INK, ms=10, label=name)
        facts.append(f"{name} {x} {mx:.2f}, {y} {my:.2f}")
    ax.set(xlabel=f"mean {x} (0 to 1)", ylabel=f"mean {y} (0 to 1)")
    return f"n = {len(values)}: " + "; ".join(facts)


# %%
apart, said = {}, []
with figures.style():
    figure, axes = plt.subplots(
        1, len(order[:2]), figsize=(11, 4.4), sharey=True, squeeze=False, layout="constrained"
    )
    for ax, cue in zip(axes[0], order[:2], strict=True):
        values = colours.loc[train.index[train["cue"] == cue]]
        said.append(f"{cue}, {dots(ax, values, 'saturation', 'brightness')}")
        apart[cue] = values["brightness"].groupby(table["label"]).mean().std()
        ax.set_title(f"Cue: {cue}, n = {len(values)} train images", fontsize=12)
        ax.set(xlim=(0, 0.75), ylim=(0.2, 0.95))
    figure.legend(*ax.get_legend_handles_labels(), loc="outside right center")
    title = "Brightness and saturation of each emotion's images"
    if documented and apart["atmosphere"] > 2 * apart["content"]:
        title = "Emotions part in brightness and saturation only where the atmosphere is the cue"
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    note = "lines: 95 % intervals of the means; round: positive, square: negative"
    figure.supxlabel(note, fontsize=10, color=figures.GREY)
figures.show(figure, alt=f"{title}. {' '.join(said)}")

# %% [markdown]
# ### Which hue
#
# For each emotion the mean direction of its images' hues, with its interval. The longer the arrow, the more
# the images agree; an arrow of length 1 would mean one hue for all.


# %%
def direction(hues, seed=0):
    """Mean direction of angles (radians), its length, and its 95 % interval (bootstrap)."""
    arrows = np.exp(1j * np.asarray(hues))
    middle = arrows.mean()
    draws = np.random.default_rng(seed).choice(arrows, (1000, len(arrows))).mean(1)
    off = np.angle(draws / middle)
    return np.angle(middle), abs(middle), *(np.angle(middle) + np.percentile(off, [2.5, 97.5]))


led = train.index[train["cue"] == ("atmosphere" if documented else order[0])]
kind = "atmosphere-led train" if documented else "train"
hues = np.arctan2(colours.loc[led, "to yellow-green"], colours.loc[led, "to red"])
compass = {c: direction(hues[table.loc[led, "label"] == c]) for c in classes}

# %% slide="Which hue goes with which emotion?"
fills, rim = figures.class_colours(classes), np.linspace(0, 2 * np.pi, 361)
with figures.style():
    figure, ax = plt.subplots(
        figsize=(6.6, 6.8), subplot_kw={"projection": "polar"}, layout="constrained"
    )
    ax.pcolormesh(rim, [1.2, 1.27], rim[None, :-1], cmap="hsv", shading="flat")
    for name, (angle, length, low, high) in compass.items():
        ax.plot([angle, angle], [0, length], color=fills[name], lw=3.5)
        ax.plot(np.linspace(low, high, 30), [length] * 30, color=figures.INK, lw=1.6)
        ax.plot(angle, length, "o", color=fills[name], mec=figures.INK, ms=9)
        ax.annotate(name, (angle, length), xytext=(7, 5), textcoords="offset points", fontsize=10)
    ax.set(ylim=(0, 1.27), yticks=[0.5, 1.0], yticklabels=["0.5", "1"], xlabel="hue (degrees)")
    ax.grid(color=figures.PALE)
    ranked = sorted(compass, key=lambda c: compass[c][1])
    title = f"The images of {ranked[-1]} agree most on their hue, those of {ranked[0]} least"
    figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold")
    note = f"n = {len(led)} {kind} images; arcs: 95 % intervals of the direction"
    figure.supxlabel(note, fontsize=10, color=figures.GREY)
told = "; ".join(f"{c} {np.degrees(a) % 360:.0f} degrees" for c, (a, *_) in compass.items())
figures.show(figure, alt=f"{title}. Mean hue of n = {len(led)} images by emotion: {told}.")

# %% [markdown]
# ### On Russell's plane
#
# Valdez & Mehrabian give numbers: with standardised brightness $B$ and saturation $S$, pleasure is
# $0.69\,B + 0.22\,S$ and arousal $-0.31\,B + 0.60\,S$. So every image has a place on Russell's plane that
# follows from its colours alone.
#
# > **Predict before you run.** Will the positive emotions all lie to the right? Which negative emotion will lie
# > highest, which lowest?

# %%
z = (colours - colours.mean()) / colours.std()
pleasure = 0.69 * z["brightness"] + 0.22 * z["saturation"]
arousal = -0.31 * z["brightness"] + 0.60 * z["saturation"]
plane = pd.DataFrame({"pleasure": pleasure, "arousal": arousal})
middles = plane.loc[led, "pleasure"].groupby(table["label"]).mean()
polarity = dataset.label_set.polarity
fitting = [c for c, x in middles.items() if (x > 0) == (polarity.get(c) == "positive")]
title = f"Colours put {len(fitting)} of {len(middles)} emotions on their side of Russell's plane"

# %%
with figures.style():
    figure, ax = plt.subplots(figsize=(8.2, 5.2), layout="constrained")
    said = dots(ax, plane.loc[led], "pleasure", "arousal")
    ax.axhline(0, color=figures.PALE, zorder=0)
    ax.axvline(0, color=figures.PALE, zorder=0)
    ax.set(xlabel="pleasure that the colours predict (standard deviations)")
    ax.set(ylabel="arousal that they predict (standard deviations)")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    note = f"n = {len(led)} {kind} images; lines: 95 % intervals of the means"
    ax.set_title(note, fontsize=10.5, fontweight="normal", color=figures.GREY)
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
figures.show(figure, alt=f"{title}. {said}")

# %%
side = table.loc[led, "label"].map(polarity)
groups = [DescrStatsW(plane.loc[led, "pleasure"][side == name]) for name in POLARITY]
gap, ends = groups[1].mean - groups[0].mean, CompareMeans(groups[1], groups[0]).tconfint_diff()
evidence = f"{gap:+.2f} standard deviations [{ends[0]:+.2f}, {ends[1]:+.2f}], n = {len(led)}"
print(Claim("colours predict more pleasure for positive labels", ends[0] > 0, evidence))

# %% [markdown]
# This is no evidence *for* Valdez & Mehrabian. The palettes were made after their equations, and here the
# equations find what was put in. On photographs that step would be a finding. It pays to ask of every result
# whether it could have come out otherwise.

# %% [markdown]
# ### How far colour alone gets
#
# Four numbers an image and a linear model: a baseline that any other model should be held against. It learns
# on train and is judged on val.
#
# > **Predict before you run.** Chance is one over the number of classes. Where will it be on each cue?

# %%
baseline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
baseline.fit(colours.loc[train.index], train["label"])
val = table[table["split"] == "val"]
right = pd.Series(baseline.predict(colours.loc[val.index]) == val["label"], val.index)
chance = 1 / len(classes)
by_cue = {}
for cue in order:
    part = right[val["cue"] == cue]
    by_cue[cue] = Estimate(part.mean(), *wilson(int(part.sum()), len(part)), len(part))
    print(f"{cue:12} {by_cue[cue].percent} (chance {chance:.1%})")

# %%
if documented:
    found = by_cue["atmosphere"]
    print(
        Claim(
            "colour alone beats chance where atmosphere is the cue",
            found.low > chance,
            found.percent,
        )
    )
    found = by_cue["content"]
    same = found.low <= chance <= found.high
    print(Claim("it is no better than chance where content is the cue", same, found.percent))

# %% [markdown]
# ## The ceiling
#
# How good can a model get? Not 100 %, for two reasons that have nothing to do with the model.
#
# **Label noise.** Some labels are wrong. A model that always named the intended emotion would be marked wrong
# on those. In real data nobody knows how many they are; Northcutt, Athalye & Mueller (2021) estimate over 3 % on
# average over the test sets of ten well-known data sets. In EmoScenes each wrong label is recorded.

# %% slide="Labels are not all right"
test = table[table["split"] == "test"]
if documented:
    parts = {name: table[table["split"] == name] for name in ("train", "val", "test")}
    noise = {}
    for name, part in (parts | {"all": table}).items():
        wrong = int(part["label_noise"].sum())
        noise[name] = Estimate(wrong / len(part), *wilson(wrong, len(part)), len(part))
        print(f"{name:6}{noise[name].percent}")
    fits = noise["all"].low <= scenes.LABEL_NOISE <= noise["all"].high
    text = f"over all images the label noise fits the {scenes.LABEL_NOISE:.0%} of the datasheet"
    print(Claim(text, fits, noise["all"].percent))
    example = test[test["label_noise"]].iloc[0]
    print(f"{example['caption']}: labelled {example['label']}, intended {example['emotion']}")

# %% [markdown]
# One interval in twenty misses the true value by chance alone, so when several are looked at, one that misses
# is no surprise. For the ceiling it does not matter: what counts is what was drawn.
#
# **Overlap.** A pale blue afternoon may be contentment or sadness: the distributions of the atmospheres
# overlap, as they do in the world. The best anyone can do is to know all distributions and to choose the
# likeliest emotion. Here they *are* known, so this ideal observer can be computed: for each mood, how likely
# is this image's hue, saturation, brightness, texture, light and weather?


# %%
def normal(value, mean, deviation):
    deviation = scenes.LABELLED.spread * deviation
    return -0.5 * ((value - mean) / deviation) ** 2 - np.log(deviation)


def word(value, own, every):
    favour = scenes.LABELLED.favour  # how often an emotion's own is drawn, and not any
    return np.log((1 - favour) / len(every) + (favour / len(own) if value in own else 0))


def log_likelihood(row, mood):
    turn = (row.hue - mood.hue[0] + 180) % 360 - 180
    seen = normal(turn, 0, mood.hue[1])
    seen += normal(row.saturation, *mood.saturation) + normal(row.brightness, *mood.brightness)
    seen += word(row.texture, mood.textures, scenes.TEXTURES)
    seen += word(row.light, mood.lights, scenes.LIGHTS)
    return seen + word(row.weather, mood.weathers, scenes.WEATHERS)


# %%
if documented:
    part = test[test["cue"] == "atmosphere"]
    ideal = [
        max(classes, key=lambda c, row=row: log_likelihood(row, scenes.MOODS[c]))
        for row in part.itertuples()
    ]
    for text, truth in (("intended emotion", part["emotion"]), ("label", part["label"])):
        hits = int((truth.to_numpy() == ideal).sum())
        ceiling = Estimate(hits / len(part), *wilson(hits, len(part)), len(part))
        print(f"the ideal observer names the {text} of {ceiling.percent}")

# %% [markdown]
# No model that sees an atmosphere can be expected above that, apart from luck. How near does the trained
# vision model come (lesson 2)?

# %%
if documented:
    named = pd.Series(run.teacher_logits().argmax(1), dataset.ids)[part.index]  # its classes
    vision = np.array(classes)[named] == part["label"].to_numpy()
    behind = accuracy_difference(part["label"].to_numpy() == ideal, vision)
    text = "on atmosphere-led test images the vision model is below the ideal observer"
    print(Claim(text, behind.low > 0, f"behind by {behind.points}"))

# %% [markdown]
# ## Whose emotion?
#
# EmoScenes' labels are rules of a game. Real ones come from people, and people differ. If six viewers in ten
# feel awe at a waterfall and four feel fear, then *no* answer is right for more than six of them, however
# good the model. So labels are made by vote. What does a vote do? Say five raters choose among the classes,
# each names what most people would name with probability $q$ and otherwise anything else, and an image is
# kept when three agree.
#
# > **Predict before you run.** When raters agree with the majority only half of the time: what share of the
# > images is kept, and how many of the kept labels are wrong?


# %%
def vote(q, raters=5, needed=3, images=20_000, seed=0):
    rng = np.random.default_rng(seed)
    other = rng.integers(1, len(classes), (images, raters))
    votes = np.where(rng.random((images, raters)) < q, 0, other)  # 0: what most would name
    tally = (votes[:, :, None] == np.arange(len(classes))).sum(1)
    kept = tally.max(1) >= needed
    return kept.mean(), (tally.argmax(1) != 0)[kept].mean()


rows = {q: vote(q) for q in (0.3, 0.5, 0.7, 0.9)}
percents = pd.DataFrame(rows, index=["images kept", "of these, wrong label"]).T
percents.rename_axis("q").map("{:.1%}".format)

# %% [markdown]
# A vote makes labels cleaner by throwing out the images on which people differ. What is left is easier than
# the world, and the minority's feeling is gone from the data. Neither shows in the accuracy.
#
# ### What "the emotion of an image" can and cannot mean
#
# - **Depicted, intended, evoked.** A crying child is sad *in* the picture; the photographer may want to make
#   you angry; you may feel tenderness. Data sets in this field ask, more or less clearly, for what is evoked.
# - **In whom?** Raters are few, often paid by the piece, often from few countries. Associations of colours and
#   emotions are alike across the world and yet differ by nation and language (Jonauskaite et al. 2020, 30
#   nations). White is for weddings here and for mourning there. EmoScenes' crosses and clowns belong to some
#   cultures and not to others.
# - **A majority is no truth.** A model learns what most raters said. It says nothing of what *you* feel.
# - **Never from a picture of a person to that person's feelings.** What a face shows does not tell reliably
#   what its owner feels (Barrett et al. 2019). In the European Union, systems that infer people's emotions at
#   work or at school are prohibited, apart from medical and safety reasons (Regulation (EU) 2024/1689,
#   Article 5(1)(f)). Choosing images so as to frighten or to sell works on people who did not ask for it.
#
# What remains is useful enough: searching archives by mood, describing images to those who cannot see them,
# studying how pictures work, and, in this course, finding out how two kinds of model differ.

# %% [markdown]
# ## Summary
#
# - A label set is a theory. Mikels' eight came from photographs; Ekman's six did not; polarity keeps one axis
#   of Russell's plane.
# - EmoScenes tells for each image whether content, atmosphere or both carry its emotion. Its datasheet says
#   what must not be claimed with it.
# - Colour statistics carry much where the atmosphere is the cue and nothing where the content is.
# - Label noise and overlap set a ceiling; votes hide disagreement.
#
# Lesson 2 trains a model that learns from pixels alone.

# %% [markdown]
# ## Exercises

# %% [markdown]
# ### Exercise 1.1 Eight into two
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●○○ | 10 | moving probabilities from one label set to another |
#
# Turn probabilities for a label set's emotions (an array of shape (images, classes), rows sum to 1) into
# probabilities of negative and positive, in the order of `POLARITY.labels`. `label_set.polarity` maps each
# label to its side. It must work for any label set in which each label has one.
#
# <details><summary>My rows do not sum to 1</summary>"Amusement or awe or ..." is one event made of several that
# exclude each other. What is done with the probabilities of such events?</details>
# <details><summary>It is right for Mikels and wrong for Ekman</summary>How many labels does each side have in
# either set, and in which order do they come?</details>


# %% nbgrader={"grade_id": "1-1-polarity", "solution": true}
def to_polarity(probabilities, label_set):
    """Probabilities (n, C) of a label set's emotions -> (n, 2), negative and positive."""
    ### BEGIN SOLUTION
    sides = [label_set.polarity[label] for label in label_set]
    columns = [[k for k, s in enumerate(sides) if s == side] for side in POLARITY]
    return np.stack([probabilities[:, own].sum(1) for own in columns], axis=1)
    ### END SOLUTION


# %% nbgrader={"grade_id": "1-1-check", "grade": true, "locked": true, "points": 2}
checks.check("1.1", to_polarity)

# %% [markdown]
# ### Exercise 1.2 The middle of a hue
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●●○ | 15 | averaging what runs in a circle |
#
# Return the mean direction, in degrees from 0 up to 360, of a list of hues in degrees. Each hue is an arrow of
# length 1; add the arrows, and see where the sum points.
#
# <details><summary>Red comes out as cyan</summary>What is the middle of 350 and 10?</details>
# <details><summary>My angles make no sense at all</summary>In which unit do sine and cosine want their
# angle?</details>
# <details><summary>Some of my results are negative</summary>-90 and 270 are the same direction. Which one is
# asked for?</details>


# %% nbgrader={"grade_id": "1-2-hue", "solution": true}
def mean_hue(degrees):
    """Mean direction of hues in degrees, in 0 up to 360."""
    ### BEGIN SOLUTION
    angles = np.radians(degrees)
    return np.degrees(np.arctan2(np.sin(angles).sum(), np.cos(angles).sum())) % 360
    ### END SOLUTION


# %% nbgrader={"grade_id": "1-2-check", "grade": true, "locked": true, "points": 3}
checks.check("1.2", mean_hue)

# %% [markdown]
# ### Exercise 1.3 Votes into a label
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●○○ | 10 | making labels from raters, ties included |
#
# Given the list of what the raters of one image said, return the label that at least `needed` of them gave,
# if it is the only one with the most votes. Otherwise return `"undecided"`.
#
# <details><summary>Which label wins a tie?</summary>None. An image that splits its raters has no label of
# this kind.</details>
# <details><summary>Everything works when needed is 3 of 5</summary>Then try 2 of 5, and 4 of 5.</details>


# %% nbgrader={"grade_id": "1-3-votes", "solution": true}
def label_from_votes(votes, needed):
    """The label with the most votes, at least `needed` and no tie; else "undecided"."""
    ### BEGIN SOLUTION
    tally = pd.Series(votes).value_counts()
    top = tally[tally == tally.max()]
    return top.index[0] if len(top) == 1 and top.iloc[0] >= needed else "undecided"
    ### END SOLUTION


# %% nbgrader={"grade_id": "1-3-check", "grade": true, "locked": true, "points": 2}
checks.check("1.3", label_from_votes)

# %% [markdown]
# ### Exercise 1.4 A cue that not everyone shares (open)
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●●○ | 20 | questioning a label, designing a measurement |
#
# Choose one object or one atmosphere of EmoScenes whose emotion is not everyone's. Look at its images. Who
# would label them differently, and how? Then redesign the cue (another object, another palette, another
# label, or no label), and plan how you would find out with people whether your cue is better: whom you would
# ask, what, and how many images.
#
# *Rubric (4 points): the images are found by code and looked at (1); a group of viewers and their different
# label are named with a reason or a source (1); the redesign says what changes in the data and what stays (1);
# the plan asks people from more than one group and says which result would speak against you (1).*

# %% nbgrader={"grade_id": "1-4-code", "solution": true}
# Find the images here.
### BEGIN SOLUTION
if documented:
    noun = "tombstone"
    having = clean[clean["objects"].str.split(";").map(lambda nouns: noun in nouns)]
    print(f"{noun}: {len(having)} train images, cues {', '.join(sorted(set(having['cue'])))}")
    some = having.index[:6]
    captions = [table.loc[k, "label"] for k in some]
    drawn = [dataset.open(k) for k in some]
    figures.show(figures.pictures(drawn, captions, f"Scenes with a {noun}", size=1.2))
### END SOLUTION

# %% [markdown] nbgrader={"grade_id": "1-4-argument", "grade": true, "solution": true, "points": 4}
# ### BEGIN SOLUTION
# The tombstone stands for sadness. Where the dead are visited on a feast day with food and flowers, as on the
# Mexican Day of the Dead, a grave may as well mean contentment or even amusement; to children who know it from
# stories of ghosts it may mean fear. Redesign: keep the drawing and make its label a distribution, with shares
# of sadness, fear and contentment in place of one word, so that a model is not punished for saying fear. The
# atmosphere, the other objects and the splits stay as they are. To test it, show 40 scenes with a tombstone and
# 40 with a wilted flower to 30 viewers from each of two groups that differ in how the dead are remembered, and
# let them choose among the eight emotions or "nothing". If both groups call the tombstone sad as often as they
# do the flower, the redesign solves no problem, and the single label should stay.
# ### END SOLUTION

# %%
checks.progress()

# %% [markdown]
# ## Further reading
#
# - J. A. Mikels et al. (2005). Emotional category data on images from the International Affective Picture
#   System. *Behavior Research Methods* 37. [doi:10.3758/BF03192732](https://doi.org/10.3758/BF03192732)
# - P. Ekman (1992). An argument for basic emotions. *Cognition and Emotion* 6.
#   [doi:10.1080/02699939208411068](https://doi.org/10.1080/02699939208411068)
# - J. A. Russell (1980). A circumplex model of affect. *Journal of Personality and Social Psychology* 39.
#   [doi:10.1037/h0077714](https://doi.org/10.1037/h0077714)
# - P. Valdez, A. Mehrabian (1994). Effects of color on emotions. *Journal of Experimental Psychology: General*
#   123. [doi:10.1037/0096-3445.123.4.394](https://doi.org/10.1037/0096-3445.123.4.394)
# - J. Machajdik, A. Hanbury (2010). Affective image classification using features inspired by psychology and
#   art theory. *ACM Multimedia*. [doi:10.1145/1873951.1873965](https://doi.org/10.1145/1873951.1873965)
# - D. Jonauskaite et al. (2020). Universal patterns in color-emotion associations are further shaped by
#   linguistic and geographic proximity. *Psychological Science* 31.
#   [doi:10.1177/0956797620948810](https://doi.org/10.1177/0956797620948810)
# - L. F. Barrett et al. (2019). Emotional expressions reconsidered. *Psychological Science in the Public
#   Interest* 20. [doi:10.1177/1529100619832930](https://doi.org/10.1177/1529100619832930)
# - T. Gebru et al. (2021). Datasheets for datasets. *Communications of the ACM* 64.
#   [doi:10.1145/3458723](https://doi.org/10.1145/3458723)
# - C. G. Northcutt, A. Athalye, J. Mueller (2021). Pervasive label errors in test sets destabilize machine
#   learning benchmarks. [arXiv:2103.14749](https://arxiv.org/abs/2103.14749)
# - S. Zhao et al. (2021). Affective image content analysis: two decades review and new perspectives.
#   [arXiv:2106.16125](https://arxiv.org/abs/2106.16125)
