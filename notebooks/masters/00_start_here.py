# %% [markdown]
# # 0 Start here: one machine, one map, one prediction
#
# ## What you will be able to do
#
# - check that your machine has everything the course needs, and read what is missing;
# - say what a profile is, and change one setting of it;
# - read the map of EmoVLM-KD: which parts there are, what passes between them, what is trained when;
# - run the whole method on one image, and say why one image proves nothing.
#
# ## Minutes and machine
#
# About 25 minutes to read and run, 40 more for the exercises; any laptop, no GPU. Modules:
# `emokd_utils.cli.doctor`, `emokd_utils.profiles`, `emokd_utils.emovlm_kd`.
#
# <!-- measured -->

# %% [markdown]
# ## The idea
#
# Which emotion does an image evoke? Two kinds of model answer this question, and they answer it differently.
#
# A **vision model** was fine-tuned on labelled images and nothing else. It is good at what shows in colours
# and textures. A **vision-language model** (VLM) reads an image and a question, and writes an answer. It
# knows what things are and what they mean to people: that a coffin is sad whatever its colour.
#
# Lee, Lee & Park (2025) noticed that the two are right on *different* images. Running both costs twice, so
# they put the vision model's judgement into a small **head** on what the VLM has already seen, and let a
# **gate** combine the head's answer with the VLM's. That is EmoVLM-KD (KD: knowledge distillation), and this
# course takes it apart, measures each part, and puts it together again.
#
# Everything runs on drawn scenes made for this course, EmoScenes, with a small VLM of the same architecture
# as the paper's. So whatever you see here says how the method works, and nothing about photographs or people.

# %%
from dataclasses import asdict

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Patch

from emokd_utils import checks, figures
from emokd_utils.cli import doctor
from emokd_utils.complementarity import accuracy_difference, accuracy_interval
from emokd_utils.costs import count_parameters
from emokd_utils.evidence import Claim, Estimate
from emokd_utils.gates import gate_inputs
from emokd_utils.instructions import answer_for, categorical_prompt
from emokd_utils.predictions import HEAD, TOGETHER, TUNED, VISION, gate_name
from emokd_utils.profiles import project_root
from emokd_utils.run import named_profile, open_run

# %% [markdown]
# ## Is everything here?
#
# The *doctor* looks at each thing the course needs and says what it found, what it wanted and, where the two
# do not fit, what to do about it. In a terminal it is `python -m emokd_utils doctor`; here it is called from
# Python (about 10 s, since it imports every package once).

# %%
examined = list(doctor.checks(project_root()))
lasting = [check for check in examined if check.passed is not None and "free" not in check.name]
for check in lasting:
    print(check)

# %% [markdown]
# Two more lines depend on the hour: how much memory and how much disk are free. A check that fails is no
# disaster. It comes with its mend, and the mends are best followed from the top down, since the upper
# checks are what the lower ones rest on.

# %%
for check in examined:
    if "free" in check.name:
        verdict = {True: "enough", False: "too little", None: "not known"}[check.passed]
        print(f"{check.name}: wanted {check.wanted}, {verdict}")
failed = [check.name for check in examined if check.passed is False]
print("mend first: " + ", ".join(failed) if failed else "nothing to mend")

# %% [markdown]
# ## Profiles
#
# Model, data and every setting stand in one object, the **profile**, which holds the settings of each stage:
# `profile.head.alpha`. The default is `mini`, for a laptop; the environment variable `EMOKD_PROFILE` or
# `named_profile("name")` picks another. For every lesson at once EMOKD_DATA names another folder of images, and
# EMOKD_SET other values: `EMOKD_SET="tuning.epochs=2 head.depth=3"`.

# %%
profile = named_profile()
shown = {name: asdict(profile)[name] for name in ("vlm", "vision", "head")}
settings = {f"{stage}.{name}": value for stage in shown for name, value in shown[stage].items()}
pd.Series(settings | {"data": profile.data}, name=profile.name)

# %% [markdown]
# A stage receives its own settings and no others. A changed profile is a copy: the original cannot be
# altered, so that two notebooks can never disagree on what `mini` means.

# %%
softer = profile.changed(name="softer", head={"temperature": 4.0})
print(profile.head)
print(softer.head)

# %% [markdown]
# ## What is kept
#
# A *run* makes every stage of the method, and keeps what it made under a key of what it was made from, so that
# nothing is made twice. What is not kept here yet may have come with the course. A line that begins with `[kept]`
# was loaded, `[came]` says that results of the course are used, and `[made]` tells what was made now.
# `python -m emokd_utils run` trains everything on this machine (about 7 minutes), which then counts.

# %%
run = open_run(profile)
dataset, classes = run.dataset, list(run.dataset.label_set.labels)
counts = pd.crosstab(dataset.table["split"], dataset.table["label"])
counts.reindex(index=["train", "val", "test"], columns=classes)

# %% [markdown]
# Three **splits**: models learn on *train*, settings are chosen on *val*, and *test* is for final numbers
# alone. Whoever chooses on test reports a number that is too good.

# %%
test = dataset.split("test")
shown = [
    next(k for k, c in zip(test.ids, test.labels, strict=True) if c == name) for name in classes
]
columns = min(len(shown), 4)
figures.show(
    figures.pictures(
        [test.open(k) for k in shown], classes, "One test image of each label", columns=columns
    )
)

# %% [markdown]
# ## The map
#
# First the assembled model, of which the map will show the parts (about 5 s). What a lesson takes apart lies
# on the *workbench*. That is the same run, but for a run that was imported without its models (lesson 10):
# then the built-in ones lie there.

# %%
workbench = run.workbench
model = workbench.assembled()
vlm, visual = model.vlm.model, model.vlm.core.model.visual
counted = count_parameters(vlm, trained="lora_")
sizes = {
    "visual encoder": count_parameters(visual).total,
    "language model": counted.total - counted.trained - count_parameters(visual).total,
    "adapter": counted.trained,
    "head": count_parameters(model.head.head).total,
    "gate": count_parameters(model.gate.gate).total,
    "vision model": int(workbench.costs().loc[TOGETHER, "added parameters"]),
}
print(pd.Series(sizes, name="parameters").map("{:,}".format).to_string())

# %% [markdown]
# > **Predict before you run.** Four of these six parts are trained in this course, two stay as they were.
# > Which two? And which of the six is missing when EmoVLM-KD answers?

# %%
places = {  # middle (x, y), width, height
    "visual encoder": (3.3, 4.2, 1.9, 1.0),
    "language model": (7.0, 4.2, 1.9, 1.0),
    "adapter": (7.0, 3.3, 1.9, 0.7),
    "head": (7.0, 1.75, 1.9, 1.0),
    "gate": (9.9, 2.95, 1.5, 1.0),
    "vision model": (3.3, 0.6, 1.9, 1.0),
}
order = {"vision model": 0, "adapter": 1, "head": 2, "gate": 3}  # trained, one after the other
family = {"vision model": "vision model", "head": "head", "gate": "EmoVLM-KD"}


# %% [markdown]
# A filled box is trained, an outlined one frozen.


# %%
def box(ax, name):
    x, y, width, height = places[name]
    colour = figures.MODEL_COLOURS[family.get(name, "VLM")]
    fill = colour if name in order else "white"
    ink = "white" if sum(to_rgb(fill)) < 1.2 else figures.INK
    corner, rounded = (x - width / 2, y - height / 2), "round,pad=0,rounding_size=0.12"
    ax.add_patch(
        FancyBboxPatch(corner, width, height, boxstyle=rounded, fc=fill, ec=colour, lw=1.8)
    )
    ax.text(x, y + 0.14, name, color=ink, ha="center", va="center", fontweight="bold")
    ax.text(x, y - 0.17, f"{sizes[name]:,}", color=ink, ha="center", va="center", fontsize=9.5)
    if name in order:
        disc = {"boxstyle": "circle,pad=0.25", "fc": "white", "ec": colour, "lw": 1.5}
        at = (x - width / 2, y + height / 2 - 0.05)
        ax.text(*at, order[name], color=colour, ha="center", va="center", fontsize=10, bbox=disc)


def arrow(ax, corners, text="", at=(0, 0), dashed=False):
    style = {"color": figures.GREY, "lw": 1.6, "ls": (0, (4, 3)) if dashed else "-"}
    ax.plot(*zip(*corners, strict=True), **style, zorder=0.9)
    tip = {"arrowstyle": "-|>", "color": figures.GREY, "lw": 0, "shrinkB": 0, "mutation_scale": 16}
    ax.annotate("", corners[-1], corners[-2], arrowprops=tip)
    ax.text(*at, text, fontsize=9.5, color=figures.GREY, ha="center", va="center")


# %%
arrows = [
    ([(1.5, 4.2), (2.35, 4.2)], "", (0, 0), False),
    ([(4.25, 4.2), (6.05, 4.2)], "visual tokens", (5.15, 4.4), False),
    ([(7.0, 5.55), (7.0, 4.7)], "prompt", (7.45, 5.45), False),
    ([(5.15, 4.2), (5.15, 1.75), (6.05, 1.75)], "their mean", (5.65, 2.45), False),
    ([(7.95, 4.2), (9.9, 4.2), (9.9, 3.45)], "probabilities", (8.95, 4.4), False),
    ([(7.95, 1.75), (9.9, 1.75), (9.9, 2.45)], "probabilities", (8.95, 1.95), False),
    ([(10.65, 2.95), (11.25, 2.95)], "emotion", (11.65, 2.95), False),
    ([(0.8, 3.05), (0.8, 0.6), (2.35, 0.6)], "", (0, 0), True),
    ([(4.25, 0.6), (7.0, 0.6), (7.0, 1.25)], "its whole answer, softened", (5.6, 0.4), True),
]

# %%
used = sum(sizes[name] for name in places if name != "vision model")
share = sum(sizes[name] for name in ("adapter", "head", "gate")) / used
title = f"At work: {figures.percent(share, 1)} of the {used:,} parameters were trained for the task"
with figures.style():
    figure, ax = plt.subplots(figsize=(11.5, 6), layout="constrained")
    ax.set(xlim=(0, 12.1), ylim=(-0.35, 5.75), aspect="equal", title=title)
    ax.set_axis_off()
    frame = FancyBboxPatch((2.1, 2.8), 6.1, 2.45, "round,pad=0,rounding_size=0.2", zorder=0)
    frame.set(fc="#eaf3f9", ec="none")
    ax.add_patch(frame)
    ax.text(2.3, 5.0, "VLM", color=figures.MODEL_COLOURS["VLM"], va="center", fontweight="bold")
    ax.imshow(test.open(shown[-1]), extent=(0.1, 1.5, 3.5, 4.9))
    ax.text(0.8, 3.3, "image", ha="center", va="center", fontsize=9.5, color=figures.GREY)
    for line in arrows:
        arrow(ax, *line)
    for name in places:
        box(ax, name)
    legend = [
        Patch(fc=figures.GREY, ec=figures.GREY, label="trained, in the order of the numbers"),
        Patch(fc="white", ec=figures.GREY, label="frozen"),
        Line2D([], [], color=figures.GREY, ls=(0, (4, 3)), label="in training only"),
    ]
    ax.legend(handles=legend, loc="upper center", bbox_to_anchor=(0.5, 0.03), ncols=3)
said = ", ".join(f"{name} ({'trained' if name in order else 'frozen'})" for name in places)
figures.show(figure, alt=f"{title}. Map of the parts: {said}. Arrows as told in the text below.")

# %% [markdown]
# Read it along the arrows. The numbers under the names count parameters.
#
# - The **visual encoder** turns the image into visual tokens, vectors that stand among the words of the
#   prompt. It stays frozen.
# - The **language model** reads tokens and prompt, and says how likely each label is as the answer. Its own
#   weights stay frozen too. What instruction tuning trains (1) is the **adapter**, small matrices beside them.
# - The **vision model** is trained first (0). It is the head's *teacher*: while the head is trained (2), it
#   learns from the vision model's whole answer and from the label. Afterwards the vision model is put away.
# - The **gate** (3) is trained last. It sees two rows of probabilities, one from each side, and makes one.

# %% [markdown]
# ## One image, all the way
#
# Now the whole method on one test image. `model.answer` does it in one call, and returns what each part said.

# %%
scenes = workbench.dataset.split("test")
image_id = scenes.ids[0]
image, label = scenes.open(image_id), scenes.labels[0]
[answer] = model.answer([image])
print(f"{image_id}: label {label}, answer {answer.emotion}")
rows = {"VLM": answer.vlm, "head": answer.head, "EmoVLM-KD": answer.probabilities}
pd.DataFrame(rows).round(3)

# %% [markdown]
# Nothing in this call is hidden. Here it is step by step: the VLM scores each possible answer and hands over
# what its encoder saw; the head reads the latter; the gate takes both.

# %%
labels = list(model.label_set)
prompt = categorical_prompt(model.label_set)
scores, features = model.vlm.score_with_features([image], prompt, [answer_for(c) for c in labels])
vlm_says = torch.from_numpy(scores).softmax(1).numpy()
head_logits = model.head.logits(features)
one_hot = np.eye(len(labels))[vlm_says.argmax(1)]
inputs = gate_inputs(head_logits, vlm_says, one_hot, model.gate.settings.inputs)
by_hand = torch.from_numpy(model.gate.logits(*inputs)).double().softmax(1).numpy()[0]
np.testing.assert_allclose(by_hand, list(answer.probabilities.values()), atol=1e-6)
print(f"prompt: {prompt}")
print(f"by hand {labels[by_hand.argmax()]}, by the library {answer.emotion}: the same numbers")

# %% [markdown]
# The interesting images are those where the two sides disagree. Let us look at one.


# %%
@figures.style()
def draw_answer(image, says, title):
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9.5, 4.4), width_ratios=(1, 1.9), layout="constrained"
    )
    left.imshow(image)
    left.set_axis_off()
    for row, (name, share) in enumerate(says.items()):
        where = np.arange(len(share)) + 0.27 * (row - 1)
        height = 100 * np.array(list(share.values()))
        right.barh(where, height, 0.25, label=name, color=figures.MODEL_COLOURS[name])
    right.set_yticks(range(len(share)), list(share))
    right.set(xlabel="probability (%)", ylabel="emotion", xlim=(0, 100))
    right.invert_yaxis()
    figure.legend(loc="outside lower right", ncols=3)
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    tops = {name: max(share, key=share.get) for name, share in says.items()}
    words = ", ".join(f"{name}: {top} ({says[name][top]:.0%})" for name, top in tops.items())
    figures.show(figure, alt=f"{title}. An image beside three bars for each emotion; {words}.")


# %%
predictions = run.predictions()
final = gate_name(run.profile.gates[0])
tuned, head = predictions[TUNED], predictions[HEAD]
apart = np.flatnonzero(tuned.predicted_index != head.predicted_index)
print(f"on {len(apart)} of {len(tuned)} test images VLM and head name different emotions")

# %% [markdown]
# > **Predict before you run.** The image below has a label too. Before you read the title: what would you
# > have said, and which side will the gate follow?

# %%
row = apart[len(apart) // 2] if len(apart) else 0
sides = {"VLM": tuned, "head": head, "EmoVLM-KD": predictions[final]}
says = {
    name: dict(zip(classes, found.probabilities[row], strict=True)) for name, found in sides.items()
}
title = f"Label: {tuned.labels[row]}. EmoVLM-KD answers: {predictions[final].predicted[row]}"
draw_answer(dataset.open(tuned.ids[row]), says, title)

# %% [markdown]
# ## One image proves nothing
#
# Whether the gate was right just now is an anecdote. A claim needs many images, and an interval that says how
# far the number might have come out elsewhere with other images of the same kind. All intervals in this
# course are 95 % intervals.
#
# > **Predict before you run.** With this many test images, how wide will the interval of an accuracy be: 1,
# > 5 or 15 points?

# %%
for name in (TUNED, VISION, HEAD, final):
    found = predictions[name]
    print(f"{name:26} {Estimate(found.accuracy, *accuracy_interval(found), len(found)).percent}")

# %% [markdown]
# A conclusion is printed as a claim with its evidence. When a run does not support it, the line says so, and
# no sentence in a notebook survives its numbers. Two models on the same images are compared **paired**: what
# counts is on how many images one is right and the other is not.

# %%
for other, words in ((TUNED, "tuned VLM"), (VISION, "vision model")):
    gain = accuracy_difference(predictions[final], predictions[other])
    text = f"EmoVLM-KD is right on more test images than the {words}"
    print(Claim(text, gain.low > 0, f"{gain.points}, one seed"))

# %% [markdown]
# ## How the course works
#
# | lesson | its question |
# | --- | --- |
# | [1 Emotions in images](01_emotions_in_images.ipynb) | What can "the emotion of an image" mean? |
# | [2 The vision model](02_vision_model.ipynb) | What does a model see that learnt from pixels alone? |
# | [3 The VLM before tuning](03_vlm_before_tuning.ipynb) | How does an image become an answer in words? |
# | [4 Writing instructions](04_writing_instructions.ipynb) | What exactly is the VLM trained on? |
# | [5 Instruction tuning](05_instruction_tuning.ipynb) | What changes when few weights learn? |
# | [6 Where they disagree](06_where_they_disagree.ipynb) | Which images does only one of them get right? |
# | [7 Distillation](07_distillation.ipynb) | How does a judgement pass from one model to another? |
# | [8 The gate](08_the_gate.ipynb) | Whom to trust on which image? |
# | [9 EmoVLM-KD](09_emovlm_kd.ipynb) | Is the whole worth more than its parts? |
# | [10 Your data and scale](10_your_data_and_scale.ipynb) | What about my images, and a large model? |
# | [A1 How the tiny VLM was made](A1_how_the_tiny_vlm_was_made.ipynb) | Where does its knowledge come from? |
#
# *Predict before you run* is meant: say a number or a name aloud, then run the cell. A prediction that fails
# teaches more than a paragraph that is nodded at.
#
# **Exercises** have a card (difficulty, minutes, what they train), a stub to fill in, and a check. A check
# measures what your function does on inputs of its own; how you wrote it does not matter. It knows typical
# mistakes by name. Here is one at work, on a task that needs no thought.

# %%
square = checks.Exercise(
    "0.0",
    "The square of a number",
    checks.calls((3,), (5,)),
    lambda x: x * x,
    {"it is doubled. Is 6 the square of 3?": lambda x: 2 * x},
)
tried = {
    "x ** 2": lambda x: x**2,
    "2 * x": lambda x: 2 * x,
    "x ** 3": lambda x: x**3,
    "(empty)": lambda x: None,
}
results = {text: square(function) for text, function in tried.items()}
for text, result in results.items():
    told = f"{result.mistake}. {result.look}" if result.mistake else ""
    print(f"{text:8} {result.status:14} {told}".rstrip())

# %% [markdown]
# A mistake that it does not know is told by a case to work out by hand, and never by the right answer. An empty stub is
# "not attempted" and stops nothing, so a notebook always runs from top to bottom. Help stands under each
# exercise, titled by symptom: open only what fits yours. Exercises marked *open* have no check but a rubric.

# %% [markdown]
# ## Summary
#
# - The doctor says what is missing, and the mend.
# - A profile holds every setting; a changed one is a copy.
# - The visual encoder and the language model stay frozen. Adapter, head and gate are trained, after the vision
#   model, which teaches the head and is then put away.
# - One call answers an image; only many images, with an interval, support a claim.
#
# Lesson 1 asks what is being predicted at all.

# %% [markdown]
# ## Exercises

# %% [markdown]
# ### Exercise 0.1 Accuracy, from a table
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●○○ | 10 | reading a table of predictions |
#
# Every model of this course yields the same table, one row an image. Here are three rows of the one above.
# `predicted` is empty (None) where a VLM's written answer named no label; such a row is marked `invalid`.

# %%
tuned.to_frame()[["split", "label", "predicted", "invalid"]].head(3)

# %% [markdown]
# Write a function that takes such a table (with a column `p_...` of probabilities for each class as well) and
# returns the accuracy: the share, in 0 to 1, of images whose predicted class is their label.
#
# <details><summary>My number is above 1</summary>How many images are there, and did you divide by
# that?</details>
# <details><summary>My number is a little too high on one table only</summary>Which rows does your mean run over?
# Count them, and count the images.</details>


# %% nbgrader={"grade_id": "0-1-accuracy", "solution": true}
def accuracy_of(table):
    """Share of the rows of a table of predictions that are right, in 0 to 1."""
    ### BEGIN SOLUTION
    return (table["predicted"] == table["label"]).mean()
    ### END SOLUTION


# %% nbgrader={"grade_id": "0-1-check", "grade": true, "locked": true, "points": 2}
checks.check("0.1", accuracy_of)

# %% [markdown]
# ### Exercise 0.2 Every class counts the same
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●○○ | 10 | the difference between averaging over images and over classes |
#
# In photographs some emotions are rare. A model that never says "anger" loses little accuracy by it. The
# **macro-average** counts classes, not images: take the accuracy among the images of each label, then the
# plain mean of these numbers over the labels that occur. Write it for two lists of the same length. A
# prediction may be None, which is never right.
#
# <details><summary>I get the ordinary accuracy</summary>Two labels, one with 90 images all right, the other with
# 10 all wrong: what should come out?</details>
# <details><summary>My number is too low, and some classes have no images</summary>A class that the model named but
# that is nobody's label: does it belong in the mean?</details>


# %% nbgrader={"grade_id": "0-2-macro", "solution": true}
def macro_accuracy(labels, predicted):
    """Mean over the labels that occur of the share of their images that are right."""
    ### BEGIN SOLUTION
    table = pd.DataFrame({"label": labels, "predicted": predicted})
    right = table["label"] == table["predicted"]
    return right.groupby(table["label"]).mean().mean()
    ### END SOLUTION


# %% nbgrader={"grade_id": "0-2-check", "grade": true, "locked": true, "points": 2}
checks.check("0.2", macro_accuracy)

# %% [markdown]
# ### Exercise 0.3 What is trained when
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●○○ | 5 | reading the map |
#
# Four stages train one part each. Make a dictionary from stage (`"fine-tuning"`, `"instruction tuning"`,
# `"distillation"`, `"gating"`) to the name of the part, as it stands in the map.
#
# <details><summary>It says that my part is no box of the map</summary>Use the six names in bold in the map, in
# lower case.</details>
# <details><summary>Is the teacher not trained while it teaches?</summary>Follow the dashed arrows, and the numbers
# in the discs.</details>

# %% nbgrader={"grade_id": "0-3-trained", "solution": true}
trained_in = None
### BEGIN SOLUTION
trained_in = {
    "fine-tuning": "vision model",
    "instruction tuning": "adapter",
    "distillation": "head",
    "gating": "gate",
}
### END SOLUTION

# %% nbgrader={"grade_id": "0-3-check", "grade": true, "locked": true, "points": 2}
checks.check("0.3", trained_in)

# %% [markdown]
# ### Exercise 0.4 Who notices the colours? (open)
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●●○ | 15 | predicting, changing one thing, looking |
#
# Take a test image that VLM and head both get right, and make it grey (`image.convert("L").convert("RGB")`).
# Write down first which of the two will change its answer. Then run it, on this image and on some more. What
# do you conclude, and what do you not?
#
# *Rubric (4 points): the prediction is written before the result and gives a reason (1); the change is made by
# code and the answers before and after are shown (1); more than one image, with a count (1); the conclusion
# goes no further than the images do, and names one other explanation (1).*

# %% nbgrader={"grade_id": "0-4-code", "solution": true}
# Change an image here.
### BEGIN SOLUTION
both = [workbench.predictions()[name] for name in (TUNED, HEAD)]
agreed = np.array(scenes.ids)[both[0].correct & both[1].correct].tolist()
picked = agreed[:: max(len(agreed) // 12, 1)][:12]
grey = [scenes.open(k).convert("L").convert("RGB") for k in picked]
after = model.answer(grey)
moved = {"VLM": 0, "head": 0}
for k, found in zip(picked, after, strict=True):
    says = {"VLM": max(found.vlm, key=found.vlm.get), "head": max(found.head, key=found.head.get)}
    for side, emotion in says.items():
        moved[side] += emotion != scenes.table.loc[k, "label"]
for side, count in moved.items():
    print(f"{side}: {count} of {len(picked)} answers changed without colour")
if picked:
    says = {"VLM": after[0].vlm, "head": after[0].head, "EmoVLM-KD": after[0].probabilities}
    title = f"Without colour. Label: {scenes.table.loc[picked[0], 'label']}"
    draw_answer(grey[0], says, title)
### END SOLUTION

# %% [markdown] nbgrader={"grade_id": "0-4-argument", "grade": true, "solution": true, "points": 4}
# ### BEGIN SOLUTION
# Prediction: the head changes more often. It was taught by a model that learnt from pixels, and reads the mean
# of what the encoder saw, in which colour has a large part; the language model was taught to name things, and
# a drawn coffin keeps its outline in grey. The counts above say how it came out. If the VLM changes as often,
# this idea of it is wrong, or its encoder recognises things by colour. Either way a dozen images, chosen among
# those that both had right, say little: they are not a random sample, and a grey picture is also an unusual
# one, which could upset a model whatever it attends to. Grey images in training, or a change of colour that
# stays within the usual, would tell the two explanations apart.
# ### END SOLUTION

# %%
checks.progress()

# %% [markdown]
# ## Further reading
#
# - S. Lee, Y. Lee, E. Park (2025). EmoVLM-KD: fusing distilled expertise with vision-language models for visual
#   emotion analysis. *CVPR Workshops*.
#   [doi:10.1109/CVPRW67362.2025.00560](https://doi.org/10.1109/CVPRW67362.2025.00560),
#   [arXiv:2505.07164](https://arxiv.org/abs/2505.07164)
# - P. Wang et al. (2024). Qwen2-VL: enhancing vision-language model's perception of the world at any resolution.
#   [arXiv:2409.12191](https://arxiv.org/abs/2409.12191)
# - G. Hinton, O. Vinyals, J. Dean (2015). Distilling the knowledge in a neural network.
#   [arXiv:1503.02531](https://arxiv.org/abs/1503.02531)
