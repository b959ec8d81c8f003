# %% [markdown]
# # 4 Writing instructions: what the VLM will learn from
#
# ## What you will be able to do
#
# - write the three kinds of instruction of the paper for an image: categorical, conversation, reasoning;
# - detect an answer that gives away the label, and measure how often a writer does it;
# - say of every token of a training row whether it is learnt, and why;
# - compute the loss by hand, with the mask and without it.
#
# ## Minutes and machine
#
# About 40 minutes to read and run, 60 more for the exercises; any laptop, no GPU. Module:
# `emokd_utils.instructions`.
#
# <!-- measured -->

# %% [markdown]
# ## The idea
#
# Lesson 3 asked a VLM that had been told nothing about the task. To tune it we need examples of how it
# *should* answer: **instructions**, pairs of a question about an image and the answer to be learnt. The images
# have a label and no such texts, so somebody has to write them. The paper has three kinds for each training
# image (Lee et al. 2025):
#
# | kind | asks | answers with | is to teach |
# | --- | --- | --- | --- |
# | categorical | which of these emotions? | the label, in a fixed form | the task and its form |
# | conversation | what do you see, and how does it look? | key elements and look | where to look |
# | reasoning | how do these lead to what it evokes? | reasons, the label **not named** | from elements to feeling |
#
# The writer is told the label, and knows more of the image than its pixels. For photographs one takes a large
# language model as a writer (Liu et al. 2023; Xie et al. 2024). Here it is a few rules that read the metadata
# of the drawn scenes, so that everything can be followed to its source.

# %%
import re
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from emokd_utils import checks, figures
from emokd_utils.emotions import MIKELS
from emokd_utils.evidence import Claim, Estimate, bootstrap, share
from emokd_utils.instructions import (
    IGNORED,
    AnswerCollator,
    answer_for,
    categorical_prompt,
    leaks,
    trained_text,
    write_instructions,
)
from emokd_utils.run import open_run
from emokd_utils.scale.ask import WriterSettings, estimate
from emokd_utils.scale.judging import judge
from emokd_utils.settings import KINDS
from emokd_utils.world.describe import describe_look, describe_scene

# %%
run = open_run()
vlm, train = run.workbench.base, run.dataset.split("train")
label_set = run.dataset.label_set
processor, tokenizer = vlm.processor, vlm.processor.tokenizer
written, counts = write_instructions(train, describe=describe_scene)
print(f"{len(train)} training images")
print(pd.Series(counts).to_string())

# %% [markdown]
# ## The categorical kind
#
# The simplest: the question lists the classes and shows the form, the answer fills the form in. The question
# is the same for every image, so that the answer can come from the image alone.

# %%
offered = ", ".join(label_set.labels)
ask = f"Observe the image and select the emotion category it evokes from {offered}. "
ask += "Answer in the form {'emotion': 'label'}."
answer = "{'emotion': '" + train.labels[0] + "'}"
assert (ask, answer) == (categorical_prompt(label_set), answer_for(train.labels[0]))
print(ask, answer, sep="\n")

# %% [markdown]
# ## The other two kinds
#
# What does the writer know of an image? Its row of `metadata.csv`:

# %%
kinds_of = {}
for item in written:
    kinds_of.setdefault(item.image_id, {})[item.kind] = item
complete = [name for name in train.ids if len(kinds_of[name]) == len(KINDS)] or list(train.ids)
mixed = train.table.loc[complete].sample(frac=1, random_state=4)
picked = list(mixed.groupby("cue").head(1).index if "cue" in mixed else mixed.index[:3])
mixed.loc[picked].T

# %% [markdown]
# *Conversation* tells what is in the image (the caption) and how it looks: colour, light, texture, weather.
#
# > **Predict before you run.** The table has columns that would make the writer's work too easy. Which ones
# > must it never put into an answer?

# %%
row = train.table.loc[picked[0]]
if {"caption", "hue", "light", "texture", "weather"} <= set(row.index):
    text = row.caption[0].upper() + row.caption[1:] + "."
    text += f" It looks like this: {describe_look(row)}."
    assert text == kinds_of[picked[0]]["conversation"].answer
    print(text)
else:
    print("this data set has no metadata to write a conversation from")

# %% [markdown]
# The columns label, emotion and cue stay out of it.
#
# *Reasoning* is told the label and looks for what speaks for it: an object that stands for this emotion, or
# else the look. The question says that the label must not be named. All three, for one image of each cue:

# %%
captions = []
for name in picked:
    head = train.table.label[name]
    head += f", cue: {run.cues[name]}" if "cue" in mixed else ""
    texts = [f"{kind}: {item.answer}" for kind, item in sorted(kinds_of[name].items())]
    captions.append("\n\n".join([head] + [fill(text, 42) for text in texts]))
opened = [train.open(name) for name in picked]
figures.show(
    figures.pictures(opened, captions, "One image, three instructions", columns=3, size=3.0)
)

# %% [markdown]
# Where did the reasons come from? Each reasoning answer speaks either of an object or of the look.
#
# > **Predict before you run.** What does the writer take for images whose cue is *both*?

# %%
reasons = {item.image_id: item.answer for item in written if item.kind == "reasoning"}
by_look = {n: "the look" if "It is the look" in r else "an object" for n, r in reasons.items()}
if run.cues is None or not reasons:
    print(f"{len(reasons)} images have a reasoning; this data set does not tell cues")
else:
    said = pd.Series(by_look, name="reasons with")
    print(pd.crosstab(run.cues.loc[said.index], said).to_string())

# %% [markdown]
# ### A writer believes what it is told
#
# In EmoScenes about one label in twenty is wrong on purpose, and recorded. The writer is told the label of the
# folder, wrong or not, and finds reasons for it all the same. What does it tell the VLM then?

# %%
if "label_noise" in train.table and reasons:
    wrong = train.table[train.table["label_noise"].astype(bool)]
    wrong = wrong[wrong.index.isin(reasons) & (wrong["cue"] != "atmosphere")]
    some = list(wrong.sample(frac=1, random_state=1).groupby("label").head(1).index[:4])
    told = [f"drawn as {wrong.emotion[n]}, label {wrong.label[n]}" for n in some]
    words = [f"{fill(a, 30)}\n\n{fill(reasons[n], 30)}" for a, n in zip(told, some, strict=True)]
    title = "A wrong label gets its reasons too"
    figures.show(figures.pictures([train.open(n) for n in some], words, title, columns=4, size=2.2))
    excused = sum(by_look[n] == "the look" for n in wrong.index)
    print(f"of {len(wrong)} with a telling object, {excused} are explained by their look")

# %% [markdown]
# Where it says that the objects are everyday things, that is not true of these images. Yet no check of the
# *texts* finds it: they name no label and are well formed. A large model that is told a wrong
# label is in the same position, and may write the more convincingly. Wrong labels have to be found among the
# labels.

# %% [markdown]
# ## Leaks
#
# A reasoning answer that names the label is worthless: the VLM would learn "it is sad because it is sad". So a
# text **leaks** if it names the label or a close form of it. Which words are close? The simplest detector
# searches for the label as a piece of text, the next one for the label as a word.
#
# > **Predict before you run.** For which of these sentences are the three detectors of different opinion?

# %%
sentences = [
    ("The mood is one of sadness.", "sadness"),
    ("Sadly, it rains.", "sadness"),
    ("A saddle on a fence.", "sadness"),
    ("A chest of drawers.", "awe"),
    ("Whoever enters is awestruck.", "awe"),
    ("Discontentment on every face.", "contentment"),
    ("A scary mask in the dark.", "fear"),
    ("A fearless knight.", "fear"),
]


# %%
def opinions(text, label):
    words = re.findall("[a-z]+", text.lower())
    return label in text.lower(), label in words, leaks(text, label, MIKELS)


table = pd.DataFrame(sentences, columns=["text", "label"]).set_index("text")
table[["as a piece", "as a word", "library"]] = [opinions(*pair) for pair in sentences]
table

# %% [markdown]
# None of them is right on all eight. A detector makes two kinds of error, and they cost different things: a
# *missed* leak teaches the VLM to repeat the label, a *false alarm* throws away a good text. The library's
# `leaks` knows word forms and stems: with a longer stem every word that begins with it counts, with a short one
# (awe, sad) only some endings do. It does not know meanings.

# %% [markdown]
# ### How often does a writer leak?
#
# First our rules, over all training images.


# %%
drafts = counts["conversation"] + counts["reasoning"] + counts["leaked"]
print("drafts that leak, set aside:", share(counts["leaked"], drafts).percent)

# %% [markdown]
# Rules leak only what their author put in. A language model as a writer is another matter. We have one at
# hand: the VLM of lesson 3 itself. We ask it for reasons about 64 images, *with the instruction not to name
# the emotion* (about 2 s).
#
# > **Predict before you run.** How many of its answers will name the label of the image? And how many another
# > emotion?

# %%
order = np.random.default_rng(0).permutation(len(train))[:64]
asked = [train.ids[k] for k in order]
own = vlm.reasons([train.open(name) for name in asked])
pd.DataFrame({"label": train.table.label[asked[:5]].to_list(), "the VLM's reason": own[:5]})

# %%
truth = train.table.label[asked]
leaked = [leaks(text, label, label_set) for text, label in zip(own, truth, strict=True)]
exact = [opinions(text, label)[1] for text, label in zip(own, truth, strict=True)]
named = [any(leaks(text, name, label_set) for name in label_set) for text in own]
print("name the label as it is written:  ", share(sum(exact), len(own)).percent)
print("name it or a close form (library):", share(sum(leaked), len(own)).percent)
print("name another emotion of the set:  ", share(sum(named) - sum(leaked), len(own)).percent)

# %%
text = "told not to, the untuned VLM names an emotion in more than a quarter of its answers"
any_named = share(sum(named), len(own))
print(Claim(text, any_named.low > 0.25, any_named.percent))

# %% [markdown]
# So a writer has to be checked, however clearly it was instructed. What leaks can be set aside (as the
# library does), asked for again, or mended by hand. Setting aside has a price that a count does not show: the
# texts that go are not a random part. Classes whose words are common may lose the most.
#
# An answer that names *another* emotion is no leak. It is wrong, or at least at odds with the label, and it
# should not be learnt either.

# %% [markdown]
# ### A writer that sees the image
#
# The paper's texts come from a model of GPT-4's class, which is shown the image and told its label.
# `emokd_utils.scale.ask` asks any server that speaks the same protocol (`python -m emokd_utils
# write-instructions`; address and key come from the environment, and the key is kept nowhere). Such a run
# costs money and hours, so it begins with an estimate, which asks nobody. The prices are an example: put in
# your provider's, for a million tokens.

# %%
writer = WriterSettings(model="a-large-model", price_in=2.5, price_out=10.0, max_cost=15.0)
print(estimate(train, writer, run.folder / "written"))

# %% [markdown]
# What comes back is checked like our own drafts, and more strictly. Both sections must be there, in English, of a
# fair length, without the label; a refusal is no answer. One that fails is asked for again, with the reason, and
# after three tries set aside.
#
# > **Predict before you run.** Four answers to an image labelled sadness. Which pass?

# %%
seen = "Key elements: A coffin stands on a pale field under a grey sky, and nobody is with it.\n"
answers = {
    "sound": seen
    + "Reasoning: A coffin is where a life has ended, and the empty field leaves it alone.",
    "leaks": seen
    + "Reasoning: The coffin and the grey sky make whoever sees them feel sad at once.",
    "half": seen,
    "refusal": "I'm sorry, but I can't say what people feel about this image.",
}
for name, text in answers.items():
    sections, wrong = judge(text, "sadness", label_set)
    print(f"{name:8} {'passes: ' + ', '.join(sections) if sections else 'no: ' + wrong}")

# %% [markdown]
# Every answer is on the disk before anything else happens to it, so a run that is killed goes on without paying
# twice; a budget in images, tokens or money ends it cleanly. What was written goes into tuning with
# `--set tuning.instructions=JOURNAL`.

# %% [markdown]
# ## From instructions to tokens
#
# The **collator** makes a batch of instructions: the question in the chat format of lesson 3, the answer
# behind it, the token that ends it, and padding up to the longest row. Beside the tokens stand the **labels**:
# at each place the token that is to be learnt, or -100, which the loss passes over. Only the answer and its
# end are learnt.

# %%
collate = AnswerCollator(processor)


def example(item):
    return {"image": train.open(item.image_id), "prompt": item.prompt, "answer": item.answer}


trio = [kinds_of[picked[0]][kind] for kind in KINDS if kind in kinds_of[picked[0]]]
batch = collate([example(item) for item in trio])
pd.Series({name: str(tuple(value.shape)) for name, value in batch.items()}, name="shape").to_frame()

# %% [markdown]
# The masking in the open, and is it the library's?

# %%
rows = []
for item in trio:
    question = vlm.inputs([train.open(item.image_id)], item.prompt)["input_ids"][0].tolist()
    answer = tokenizer(item.answer, add_special_tokens=False)["input_ids"]
    rows.append([IGNORED] * len(question) + answer + [tokenizer.eos_token_id])
longest = max(map(len, rows))
by_hand = torch.tensor([row + [IGNORED] * (longest - len(row)) for row in rows])
assert torch.equal(by_hand, batch["labels"])
print(f"{by_hand.numel()} places, {(by_hand != IGNORED).sum()} of them learnt, as in the library")

# %% [markdown]
# Token by token, for the categorical row. Look at where the labels begin, and at where they end.

# %%
ids, labels = batch["input_ids"][0], batch["labels"][0]
learnt = (labels != IGNORED).nonzero()[:, 0]
begin, end = int(learnt[0]), int(learnt[-1])
names = [tokenizer.decode(token).replace("\n", "\\n") for token in ids]
table = pd.DataFrame({"token": names, "id": ids, "attended": batch["attention_mask"][0]})
table["label"] = ["-100" if t == IGNORED else str(int(t)) for t in labels]
table["learnt"] = ["yes" if t != IGNORED else "" for t in labels]
table.rename_axis("place").iloc[[*range(7), *range(begin - 5, min(end + 3, len(table)))]]

# %% [markdown]
# The same for all three rows, as a picture.


# %%
def parts_of(batch):
    """What each place holds: 0 image, 1 question and marks, 2 answer, 3 its end, 4 padding."""
    kind = torch.ones_like(batch["input_ids"])
    kind[batch["mm_token_type_ids"] != 0] = 0
    learnt = batch["labels"] != IGNORED
    kind[learnt] = 2
    kind[learnt & (batch["labels"] == tokenizer.eos_token_id)] = 3
    kind[batch["attention_mask"] == 0] = 4
    return kind


PARTS = ["image", "question and marks", "answer", "end of the answer", "padding"]
COLOURS = ["#9aa3ad", "#d5dae0", "#0072b2", "#de7a00", "#ffffff"]

# %%
parts = parts_of(batch)
with figures.style():
    fig, ax = plt.subplots(figsize=(10, 2.9), layout="constrained")
    mesh = plt.matplotlib.colors.ListedColormap(COLOURS)
    ax.pcolormesh(parts.flip(0), cmap=mesh, vmin=-0.5, vmax=4.5, edgecolors=figures.PALE, lw=0.6)
    ax.set_yticks(np.arange(len(trio)) + 0.5, [item.kind for item in reversed(trio)])
    for name, colour in zip(PARTS, COLOURS, strict=True):
        ax.bar(0, 0, color=colour, edgecolor=figures.GREY, lw=0.6, label=name)
    ax.legend(loc="upper center", bbox_to_anchor=(0.45, -0.3), ncols=5, fontsize=10)
    kept = f"{(parts == 2).sum() + (parts == 3).sum()} of {parts.numel()}"
    ax.set(title=f"Learnt: {kept} places, blue and orange", xlabel="place in the row (tokens)")
    ax.set(xlim=(0, parts.shape[1]), ylim=(0, len(trio)))
figures.show(
    fig, alt=f"{len(trio)} rows of tokens; {kept} places are learnt, the answers and their ends."
)

# %% [markdown]
# The check to make before any tuning run, in one line: decode what is learnt, and read it.

# %%
for text in trained_text(batch, tokenizer):
    print(text)

# %% [markdown]
# ## What the loss is made of
#
# Each kind has about a third of the instructions. But the loss is a mean over *tokens*, and a long answer has
# more of them.
#
# > **Predict before you run.** Of all tokens that are learnt, what share belongs to categorical answers? And
# > how many tokens tell the label?

# %%
lengths = [len(tokenizer(i.answer, add_special_tokens=False)["input_ids"]) + 1 for i in written]
table = pd.DataFrame({"kind": [i.kind for i in written], "tokens": lengths})
per_kind = table.groupby("kind")["tokens"].agg(["count", "mean", "sum"])
shares = per_kind[["count", "sum"]] / per_kind[["count", "sum"]].sum()
shares.columns = ["instructions", "learnt tokens"]
telling = per_kind["count"]["categorical"] / per_kind["sum"].sum()
print(per_kind.round(1).to_string())
print(f"one answer token in {1 / telling:.0f} tells the label, counting one for each image")

# %%
with figures.style():
    fig, ax = plt.subplots(figsize=(9, 2.4), layout="constrained")
    (100 * shares.T[::-1]).plot.barh(stacked=True, color=["#0072b2", "#1fa484", "#c46500"], ax=ax)
    for bars in ax.containers:
        ax.bar_label(bars, fmt="%.0f %%", label_type="center", color="white")
    part = shares["learnt tokens"]["categorical"]
    title = f"Categorical answers are {figures.percent(part)} of what is learnt"
    ax.set(title=title, xlim=(0, 100), xlabel=f"share (%), n = {len(written):,} instructions")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
told = shares.mul(100).round().astype(int).to_dict()
figures.show(fig, alt=f"{title}. Shares in per cent: {told}.")

# %% [markdown]
# So the tokens that we care about most are few. It works all the same, because the rest of the answer soon
# costs nothing: once the form is learnt, what is left of a categorical answer's loss is the label.

# %% [markdown]
# ## The loss by hand, with the mask and without
#
# A batch of 96 instructions goes through the untuned model. The loss of a place is minus the log-probability
# of its token, given everything before it; the shift by one is that of lesson 3. With the mask, the mean runs
# over the learnt places only:

# %%
some = written[:96]
batch = {name: x.to(vlm.device) for name, x in collate([example(i) for i in some]).items()}
with torch.inference_mode():
    out = vlm.core(**batch)
logits, targets = out.logits[:, :-1].float(), batch["labels"][:, 1:]
learnt = targets != IGNORED
by_hand = -logits.log_softmax(-1)[learnt].gather(1, targets[learnt][:, None]).mean()
torch.testing.assert_close(by_hand, out.loss.float())
print(f"by hand {by_hand:.4f}, the model's own {out.loss:.4f}, over {learnt.sum()} tokens")

# %% [markdown]
# Without the mask, every place would be learnt: question, image places, padding.
#
# > **Predict before you run.** Which part would then make up most of the loss?

# %%
tokens = batch["input_ids"][:, 1:]
every = F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none").cpu()
parts = parts_of(batch)[:, 1:].cpu()
rows = {name: every[parts == k] for k, name in enumerate(PARTS)}
table = {name: [len(x), x.mean(), x.sum() / every.sum()] for name, x in rows.items()}
table = pd.DataFrame(table, dtype=float).T
table.columns = ["tokens", "mean loss", "share of the loss"]
print(table.round(3).to_string())
print(f"\nmean over everything {every.mean():.3f}, over the answers and their ends {by_hand:.3f}")
even = np.log(logits.shape[-1])
print(f"a blind guess, all {logits.shape[-1]:,} tokens alike, would have {even:.3f} everywhere")

# %% [markdown]
# A loss above that of a blind guess means: sure of itself, and wrong. That can be, since TinyVLM was masked in
# its pretraining too (lesson A1): it never learnt to write a question, and so does not know how.

# %%
outside = (every * (~learnt).cpu()).sum(1) / every.sum(1)
mean, low, high, _ = bootstrap(outside.double().numpy())
text = "without the mask more than half of the loss of a row is not about its answer"
print(Claim(text, low > 0.5, Estimate(mean, low, high, len(some)).percent))

# %% [markdown]
# Tuning would spend its few parameters on writing questions that it will always be given, and on predicting
# `<|image_pad|>` and padding, which nobody ever asks for. Some find a loss on the instructions useful where
# answers are short and examples few (Shi et al. 2024): a mask is a choice, and one that should be made knowing
# what it does. Nothing speaks for a loss on image places and padding.
#
# ### Where there is something to learn
#
# Back to the answers. The loss of each token shows what is news to the untuned model.
#
# > **Predict before you run.** In an answer that names the objects and then the look, which tokens will be
# > expensive? And which kind of instruction?

# %%
row = next((k for k, item in enumerate(some) if item.kind == "conversation"), 0)
here = learnt[row].cpu()
names = [tokenizer.decode(token) for token in targets[row].cpu()[here]]
with figures.style():
    fig, ax = plt.subplots(figsize=(10, 3.6), layout="constrained")
    ax.bar(range(len(names)), every[row][here], color=figures.MODEL_COLOURS["VLM"])
    ax.axhline(even, color=figures.INK, lw=1.2, ls="--", label="blind guess: all tokens alike")
    ax.set_xticks(range(len(names)), names, rotation=75, fontsize=10)
    dear = int((every[row][here] > even).sum())
    title = f"{dear} of {len(names)} tokens of this {some[row].kind} answer cost more than a blind guess"
    ax.set(title=title, ylabel="loss (nats)", xlabel="token of the answer", ylim=(0, None))
    ax.legend(loc="upper left", fontsize=10)
told = zip(names, every[row][here], strict=True)
figures.show(
    fig, alt=f"{title}, loss in nats: " + ", ".join(f"{a.strip()} {b:.1f}" for a, b in told)
)

# %%
mine = (every * learnt.cpu()).sum(1) / learnt.cpu().sum(1)
kinds = np.array([item.kind for item in some])
for kind in sorted(set(kinds)):
    values = mine.double().numpy()[kinds == kind]
    mean, low, high, _ = bootstrap(values)  # over instructions
    print(f"{kind:13} {mean:.2f} nats a token [{low:.2f}, {high:.2f}], n = {len(values)}")

# %% [markdown]
# What is cheap the model knows already. What is dear is what tuning will add, or fail to add.

# %% [markdown]
# ## Summary
#
# - Three kinds of instruction: the label in its form, what there is to see, and how it leads to the feeling.
# - A writer that is told the label finds reasons for it, right or wrong; whether it names it must be measured,
#   with a detector whose errors are known.
# - Only the answer and its end are learnt; all else has the label -100. Decode what is learnt before you tune.
# - A mean over tokens weighs long answers more: few of the learnt tokens tell the label.
#
# Lesson 5 tunes the VLM on these instructions.

# %% [markdown]
# ## Exercises

# %% [markdown]
# ### Exercise 4.1 Mask all but the answer
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●●○ | 15 | knowing, for every place, whether it is learnt |
#
# You get `tokens` of shape (rows, places), padded on the right; `starts`, the place of the first token of each
# row's answer; and `lengths`, the number of real tokens of each row, the one that ends the answer included.
# Return the labels: a new tensor of the same shape, with the token where it is learnt and -100, which the loss
# passes over, elsewhere.
#
# <details><summary>It works for the longest row only</summary>What stands behind the end of a shorter
# row?</details>
# <details><summary>It is right until the padding is the same token as the end</summary>How do you find out what
# is padding: by the token, or by its place?</details>
# <details><summary>The check says that I overwrite something</summary>What does <code>labels = tokens</code> do:
# copy the numbers, or give them a second name?</details>


# %% nbgrader={"grade_id": "4-1-labels", "solution": true}
def make_labels(tokens, starts, lengths):
    """(rows, places): the token where it is learnt, elsewhere what the loss passes over."""
    ### BEGIN SOLUTION
    place = torch.arange(tokens.shape[1])
    learnt = (place >= starts[:, None]) & (place < lengths[:, None])
    return torch.where(learnt, tokens, -100)
    ### END SOLUTION


# %% nbgrader={"grade_id": "4-1-check", "grade": true, "locked": true, "points": 4}
checks.check("4.1", make_labels)

# %% [markdown]
# ### Exercise 4.2 A leak detector
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●●○ | 15 | finding words in texts, and only words |
#
# `forms` is a list of the forms of a label in lower case, such as `["sadness", "sad", "sadly"]`. Say whether a
# text has one of them as a whole word, in capitals or not. A word ends at anything that is not a letter. Return
# `True` or `False`.
#
# <details><summary>It finds awe in a drawer</summary>Compare words with words, not a word with a text.</details>
# <details><summary>It misses the last word of a sentence</summary>Print the list of words that you compare. What
# sticks to the last one?</details>


# %% nbgrader={"grade_id": "4-2-leaks", "solution": true}
def names_a_form(text, forms):
    """Whether one of the forms stands in the text as a word."""
    ### BEGIN SOLUTION
    words = re.findall("[a-z]+", text.lower())
    return any(word in forms for word in words)
    ### END SOLUTION


# %% nbgrader={"grade_id": "4-2-check", "grade": true, "locked": true, "points": 3}
checks.check("4.2", names_a_form)

# %% [markdown]
# ### Exercise 4.3 A categorical instruction
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●○○ | 10 | a question that asks for all it wants and gives nothing away |
#
# Write a categorical instruction in words of your own, for any list of classes. Return the question and the
# answer, two texts. The question offers exactly these classes (no "neutral", no "other") and shows the form
# `{'emotion': 'label'}`; the answer is in this form, letter by letter.
#
# <details><summary>Python complains about my braces</summary>In an f-string braces mean something. How does one
# write a brace there, or can the string be put together without an f?</details>
# <details><summary>The check says that the classes are typed in</summary>Are the classes typed into your question, or do they
# come from the argument?</details>


# %% nbgrader={"grade_id": "4-3-instruction", "solution": true}
def categorical_instruction(classes, label):
    """(question, answer) for an image with this label, one of `classes`."""
    ### BEGIN SOLUTION
    question = "What does this picture evoke? Choose one of " + ", ".join(classes) + ". "
    question += "Reply with {'emotion': 'label'} and nothing else."
    return question, "{'emotion': '" + label + "'}"
    ### END SOLUTION


# %% nbgrader={"grade_id": "4-3-check", "grade": true, "locked": true, "points": 3}
checks.check("4.3", categorical_instruction)

# %% [markdown]
# ### Exercise 4.4 Reasons without the word (open)
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●●● | 20 | writing, and judging, a text that leads to a label without naming it |
#
# Take three images of different labels and write a reasoning answer for each, of one or two sentences. Test
# them with `leaks`. Then let somebody who does not see the images guess the labels from your texts, or read
# them again tomorrow. Last: find a sentence that gives a label away although `leaks` is silent, and one that is
# an innocent victim; propose a change to the detector, and say what it would cost.
#
# *Rubric (4 points): three texts that speak of what is in the image or how it looks, and pass the detector (1);
# it is reported how the guesses came out, and what it means if a text cannot be guessed, or always is (1); a
# missed leak and a false alarm, tested by code (1); the proposed change comes with the error that it makes more
# frequent (1).*

# %% nbgrader={"grade_id": "4-4-code", "solution": true}
# Look at your images and test your texts here.
### BEGIN SOLUTION
mine = {
    "coffin": (
        "sadness",
        "Somebody is carried away for ever, and those who stay behind fall silent.",
    ),
    "comet": ("awe", "A light that few see twice crosses the whole sky; one stops and looks up."),
    "rotten apple": (
        "disgust",
        "Something moves in the brown flesh; nobody would put this in the mouth.",
    ),
}
for noun, (label, text) in mine.items():
    print(f"{noun}, {label}: leaks {leaks(text, label, MIKELS)}")
if "objects" in train.table:
    of = train.table[["objects", "label"]]
    found = [
        of.index[of.objects.str.contains(n) & (of.label == label)] for n, (label, _) in mine.items()
    ]
    texts = [fill(text, 34) for _, text in mine.values()]
    figures.show(
        figures.pictures([train.open(f[0]) for f in found], texts, "Which emotion?", size=2.4)
    )
print("missed leak:", not leaks("It makes one weep with grief.", "sadness", MIKELS))
print("false alarm:", leaks("A fearless knight.", "fear", MIKELS))
### END SOLUTION

# %% [markdown] nbgrader={"grade_id": "4-4-argument", "grade": true, "solution": true, "points": 4}
# ### BEGIN SOLUTION
# My texts pass, and a reader guesses their labels. That is as it should be: a reasoning text from which the label
# cannot be guessed gives no reason, and one from which it can be guessed leaks in a wider sense, without the word.
# What I want to exclude is a text from which it can be guessed *without any reason*. A text that every reader
# guesses at once ("it makes one weep with grief") is near to that: it names the feeling of the viewer and nothing
# of the image.
#
# Change: add the nearest synonyms of each label to its forms (grief, weep for sadness; scary for fear). It finds
# the missed leak above. It costs more false alarms, since a synonym is more often used of things than of viewers:
# a weeping willow would be set aside, and texts of the class with the most synonyms would become the fewest. The
# other way, a list of exceptions such as "fearless", removes that false alarm and misses the ironic uses of it.
# ### END SOLUTION

# %%
checks.progress()

# %% [markdown]
# ## Further reading
#
# - H. Liu, C. Li, Q. Wu, Y. J. Lee (2023). Visual instruction tuning.
#   [arXiv:2304.08485](https://arxiv.org/abs/2304.08485)
# - H. Xie et al. (2024). EmoVIT: revolutionizing emotion insights with visual instruction tuning.
#   [arXiv:2404.16670](https://arxiv.org/abs/2404.16670)
# - Z. Shi et al. (2024). Instruction tuning with loss over instructions.
#   [arXiv:2405.14394](https://arxiv.org/abs/2405.14394)
# - The paper's section on visual emotion instruction data: Lee, Lee & Park (2025).
#   [doi:10.1109/CVPRW67362.2025.00560](https://doi.org/10.1109/CVPRW67362.2025.00560)
