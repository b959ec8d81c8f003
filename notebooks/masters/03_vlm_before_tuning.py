# %% [markdown]
# # 3 The VLM before tuning: from an image to an answer
#
# ## What you will be able to do
#
# - follow an image into patches, visual tokens and a chat prompt, and name every shape on the way;
# - read a label out of a language model in two ways, and compute the score of an answer by hand;
# - measure how far the wording of a question moves the answers, with intervals;
# - see which labels the model prefers before it looks, and what calibration does about it.
#
# ## Minutes and machine
#
# About 45 minutes to read and run, 60 more for the exercises; any laptop, no GPU. Modules:
# `emokd_utils.vlm`, and what it uses: `answers` and `scoring`.
#
# <!-- measured -->

# %% [markdown]
# ## The idea
#
# A **vision-language model** (VLM) is two networks in a row. A visual encoder turns an image into a few
# vectors, the **visual tokens**. A language model reads them as if they were words of the question, and
# writes an answer. Nobody built a classifier into it: to get one of a few emotions out of it, we have to ask,
# and then to understand the answer.
#
# This lesson looks at the VLM as it comes, before anything is tuned. What goes in, what comes out, and what
# does it know about emotions already?

# %%
from dataclasses import replace
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.nn.utils.rnn import pad_sequence

from emokd_utils import checks, figures
from emokd_utils.answers import parse_answer
from emokd_utils.complementarity import accuracy_difference, accuracy_interval
from emokd_utils.evidence import Claim, Estimate, bootstrap, share
from emokd_utils.explanations import answers_of, attention, occlusion
from emokd_utils.instructions import answer_for, categorical_prompt, chat_text
from emokd_utils.maps import Explanation, share_table
from emokd_utils.predictions import ZERO_SHOT
from emokd_utils.run import open_run
from emokd_utils.scoring import common_prefix
from emokd_utils.world.boxes import cue_boxes

# %%
run = open_run()
workbench = run.workbench  # what we take apart: the same, unless a run came without its models
vlm, val = workbench.base, workbench.dataset.split("val")
classes = list(workbench.dataset.label_set)
visual, tokenizer = vlm.core.model.visual, vlm.processor.tokenizer
for name, part in (("visual encoder", visual), ("language model", vlm.core.model.language_model)):
    print(f"{name}: {sum(p.numel() for p in part.parameters()):,} parameters")

# %% [markdown]
# ## From pixels to patches
#
# We follow one image (brought to 112 x 112 pixels, which the images of EmoScenes have already). The processor
# scales the colours and cuts the image into square **patches** of 14 pixels.
#
# > **Predict before you run.** How many patches are there? Each becomes one row of numbers: how long is it?

# %%
image = val.open(val.ids[0]).resize((112, 112))
seen = vlm.processor.image_processor(images=[image], return_tensors="pt").to(vlm.device)
for name, value in seen.items():
    print(name, tuple(value.shape))
print("grid of patches (time, height, width):", seen["image_grid_thw"][0].tolist())

# %% [markdown]
# A row has 14 x 14 pixels of 3 colours, *twice*: the encoder also reads films, two frames at a time, and a
# still image stands for both. The rows are not in reading order: the four patches of a 2 x 2 square follow one
# another, since they will be merged. By hand:

# %%
reader = vlm.processor.image_processor
patch, merge, frames = reader.patch_size, reader.merge_size, reader.temporal_patch_size
pixels = torch.tensor(np.asarray(image), dtype=torch.float32) / 255
pixels = (pixels - torch.tensor(reader.image_mean)) / torch.tensor(reader.image_std)
side = 112 // (patch * merge)
rows = pixels.reshape(side, merge, patch, side, merge, patch, 3)
rows = rows.permute(0, 3, 1, 4, 6, 2, 5).reshape(-1, 3, 1, patch * patch)
rows = rows.expand(-1, -1, frames, -1).reshape(len(rows), -1)
torch.testing.assert_close(rows, seen["pixel_values"].cpu())
print(
    f"{rows.shape[0]} rows of {rows.shape[1]} = {patch} x {patch} x 3 x {frames} numbers, as theirs"
)

# %%
with figures.style():
    fig, ax = plt.subplots(figsize=(4.6, 4.9), layout="constrained")
    ax.imshow(image)
    for at in range(0, 113, patch):
        thick = at % (patch * merge) == 0
        ax.axhline(at - 0.5, color="white" if thick else "black", lw=2.6 if thick else 0.6)
        ax.axvline(at - 0.5, color="white" if thick else "black", lw=2.6 if thick else 0.6)
    for k in range(side**2):
        x, y = (k % side + 0.5) * patch * merge, (k // side + 0.5) * patch * merge
        ax.text(x, y, k, ha="center", va="center", bbox={"fc": "white", "ec": "none", "pad": 1.5})
    title = f"{len(rows)} patches (thin lines)\nbecome {side**2} visual tokens (thick)"
    ax.set(title=title, xlabel="pixels", ylabel="pixels")
    ax.spines[:].set_visible(False)
figures.show(fig, alt=f"A scene under a grid. {len(rows)} patches become {side**2} visual tokens.")

# %% [markdown]
# ## From patches to visual tokens
#
# Each row becomes a vector (patch embedding), the blocks let the patches look at one another, and the
# **merger** puts the vectors of each 2 x 2 square side by side and maps them to the width of the language
# model.

# %%
with torch.inference_mode():
    embedded = visual.patch_embed(seen["pixel_values"])
    encoded = visual(seen["pixel_values"], seen["image_grid_thw"]).last_hidden_state
    tokens = visual.merger(encoded)
torch.testing.assert_close(tokens, vlm.visual_tokens([image])[0])
steps = {"image": pixels, "patches": rows, "embedded": embedded, "after the blocks": encoded}
steps["visual tokens"] = tokens
pd.Series({name: str(tuple(x.shape)) for name, x in steps.items()}, name="shape").to_frame()

# %% [markdown]
# The mean over the visual tokens is the **feature** of an image. It forgets where things are, and keeps what
# there is and how it looks. Lesson 7 trains its head on nothing else.

# %%
feature = tokens.float().mean(0).cpu().numpy()
np.testing.assert_allclose(feature, vlm.features([image])[0], atol=1e-5)
print(f"one image: {feature.shape[0]} numbers; all images: {workbench.features().shape}")

# %% [markdown]
# ## Into the prompt
#
# The question is written in the **chat format** that the model was trained with: marks for the roles, one
# place for the image, and at the end the mark after which the assistant speaks.

# %% slide="What the VLM is asked"
prompt = categorical_prompt(workbench.dataset.label_set)
print("\n".join(fill(line, 100) for line in chat_text(vlm.processor, prompt).split("\n")))

# %% [markdown]
# The tokenizer cuts this text into **tokens**, and the processor repeats `<|image_pad|>` until there is one
# for each visual token.
#
# > **Predict before you run.** What takes more tokens, the image or the question?

# %%
inputs = vlm.inputs([image], prompt)
ids = inputs["input_ids"][0]
words = [tokenizer.decode(token).replace("\n", "\\n") for token in ids]
pad = "<|image_pad|>"
short = [w if w != pad else f"{pad} x {words.count(pad)}" for w in words]
short = [w for k, w in enumerate(short) if k == 0 or w != short[k - 1] or pad not in w]
for k in range(0, len(short), 13):
    print(" | ".join(short[k : k + 13]))
print(f"\n{len(words)} tokens, {words.count(pad)} of them for the image")

# %% [markdown]
# Every token is looked up in a table of vectors, and the vectors at the image's places are **replaced by the
# visual tokens**. That is all there is to "seeing". If so, we can do it ourselves, and get the same logits:

# %%
image_places = inputs["input_ids"] == vlm.core.config.image_token_id
with torch.inference_mode():
    vectors = vlm.core.get_input_embeddings()(inputs["input_ids"])
    vectors[image_places] = tokens
    places, _ = vlm.core.model.get_rope_index(
        inputs["input_ids"], inputs["mm_token_type_ids"], inputs["image_grid_thw"]
    )
    by_hand = vlm.core(inputs_embeds=vectors, position_ids=places).logits
    logits = vlm.core(**inputs).logits
torch.testing.assert_close(by_hand, logits)
print(f"what goes in: {tuple(vectors.shape)}; what comes out: {tuple(logits.shape)}, as theirs")

# %% [markdown]
# `places` are the positions. A word has one number three times; a visual token has a time, a height and a
# width, so that the language model knows where in the image it was (Wang et al. 2024). The text goes on after
# the largest of them.

# %%
first = int(image_places[0].nonzero()[0])
around = places[:, 0, first - 2 : first + side**2 + 3].cpu()  # two tokens before, three behind
for name, numbers in zip(("time", "height", "width"), around, strict=True):
    print(f"{name:7}", *(f"{number:2}" for number in numbers))

# %% [markdown]
# ## How an answer is written
#
# Out comes, at each place, a **logit** for every token of the vocabulary: after a softmax, how likely each is
# to come *next*. Only the last place speaks about the answer. Writing means: take the likeliest token, append
# it, ask again, until the token that ends an answer comes (*greedy decoding*).


# %%
def append(inputs, tokens):
    """The inputs with more text tokens behind them."""
    more = torch.tensor([tokens], dtype=torch.long, device=vlm.device)
    old, types = inputs["input_ids"], inputs["mm_token_type_ids"]
    return inputs | {
        "input_ids": torch.cat([old, more], 1),
        "attention_mask": torch.cat([inputs["attention_mask"], torch.ones_like(more)], 1),
        "mm_token_type_ids": torch.cat([types, torch.zeros_like(more)], 1),
    }


# %%
written = []
with torch.inference_mode():
    while len(written) < 20 and tokenizer.eos_token_id not in written:
        logits = vlm.core(**append(inputs, written)).logits
        written.append(int(logits[0, -1].argmax()))
print([tokenizer.decode(token) for token in written])
assert (
    tokenizer.decode(written, skip_special_tokens=True).strip()
    == vlm.generate([image], prompt, 20)[0]
)

# %% [markdown]
# `vlm.generate` does the same for many images at once. What does it see in a few others, and what does it
# answer?

# %% slide="What it writes before tuning"
mixed = val.table.sample(frac=1, random_state=2)
some = list(mixed.groupby("label").head(1).sort_values("label").index[:8])  # one of each class
opened = [val.open(name) for name in some]
sees, says = vlm.generate(opened, "Describe the image."), vlm.generate(opened, prompt)
words = [
    f"label: {val.table.label[name]}\n"
    + fill(f"sees: {what}", 34)
    + "\n"
    + fill(f"says: {answer}", 34)
    for name, what, answer in zip(some, sees, says, strict=True)
]
title = "What the model sees and says before tuning"
figures.show(figures.pictures(opened, words, title, columns=4, size=2.3))

# %% [markdown]
# ## First reading: generate and parse
#
# As the paper does it: let the model write, then read the label out of the text. The reader has to be
# tolerant in form and strict in content. The rule of `parse_answer`: what was thought aloud does not count; a
# **declared** answer (the asked form in any quotes, or "Emotion: fear") counts, the last one whose label is valid,
# whatever is written around it; without a declaration a single label counts if the text is no refusal, the
# label stands there as a label (the *content* of a picture is no contentment) and is not denied. A text that
# names no label, or several, must not become a class: none is honest. Beside it a reader as many scripts have
# it, which takes the first label that occurs anywhere.


# %%
def first_label(text):
    """The label that occurs first anywhere in a text, or None."""
    places = {text.lower().find(label): label for label in classes if label in text.lower()}
    return places[min(places)] if places else None


texts = ["{'emotion': 'anger'}", '{"emotion": "Fear', "I feel sad looking at it."]
texts += ["{'emotion': 'nothing'}", "either anger or fear", "a chair in a room"]
texts += ["<think>Is it fear?</think> {'emotion': 'awe'}", "It evokes awe, not fear."]
texts += ["I'm sorry, I cannot judge the contentment of people.", "There is no sadness in it."]
read = {"read as": [parse_answer(text, workbench.dataset.label_set) for text in texts]}
read["first label"] = [first_label(text) for text in texts]
pd.DataFrame({"text": texts} | read).fillna("(no label)")

# %% [markdown]
# We ask about 100 images of the val split (about 2 s). An answer outside the label set is counted as such,
# and as wrong.
#
# > **Predict before you run.** The question lists the classes. On how many images will the model answer with
# > something else all the same?

# %%
chosen = np.random.default_rng(0).choice(len(val), min(100, len(val)), replace=False)
part = val.select([val.ids[k] for k in sorted(chosen)])
generated = vlm.predict(part, "generate", progress=False)
print(pd.Series(generated.answers).value_counts().head(9).to_string())


# %%
def accuracy(predictions):
    """An accuracy with its 95 % interval, as text."""
    return share(predictions.correct).percent


print("answers outside the label set:", share(generated.invalid).percent)
print("right, those counted as wrong:", accuracy(generated))
naive = [first_label(text) for text in generated.answers]
other = np.array([a != b for a, b in zip(naive, generated.predicted, strict=True)])
print("read otherwise by the first label anywhere:", share(other).percent)

# %% [markdown]
# A model that was made to answer in the form and writes nothing else, as TinyVLM, is read alike by every reader:
# the stricter rule changes no figure of this lesson. Larger models chat, think aloud and decline. There the rule
# decides, and so the share without a label stands beside the accuracy.

# %% [markdown]
# ## Second reading: label scoring
#
# Instead of waiting for what the model says, we can ask it **how likely it finds each answer**. The
# probability of an answer $a$ is the product of those of its tokens, each given all before it:
#
# $$\ln p(a \mid \text{image}, \text{prompt}) = \sum_{t} \ln p(a_t \mid \text{image}, \text{prompt},
# a_1 \dots a_{t-1}),$$
#
# where the last $a_t$ is the token that ends the answer. One pass over prompt *and* answer gives all terms.
# The logits at a place speak about the token **after** it: hence the shift by one in the slice.


# %% slide="How likely is each answer?"
def score_by_hand(image, prompt, answer):
    """The tokens of an answer with its end, and the log-probability of each."""
    tokens = tokenizer(answer, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    with torch.inference_mode():
        logits = vlm.core(**append(vlm.inputs([image], prompt), tokens)).logits[0].float()
    log_p = logits[-len(tokens) - 1 : -1].log_softmax(1).cpu()
    return tokens, log_p.gather(1, torch.tensor(tokens)[:, None])[:, 0]


tokens_of, log_p = score_by_hand(image, prompt, answer_for(val.labels[0]))
table = pd.DataFrame({"token": [repr(tokenizer.decode(t)) for t in tokens_of], "log p": log_p})
table.assign(probability=table["log p"].map(np.exp)).round(4)

# %% [markdown]
# The form is the same in all answers: what tells their scores apart is the token at which they part, and what
# follows it. The sum of the column is the score. Is it the library's?

# %%
answers = [answer_for(label) for label in classes]
by_hand = np.array([float(score_by_hand(image, prompt, a)[1].sum()) for a in answers])
library = vlm.score([image], prompt, answers)[0]
close = 1e-4 if vlm.model.dtype == torch.float32 else 0.1
np.testing.assert_allclose(by_hand, library, atol=close)
pd.DataFrame({"by hand": by_hand, "library": library}, index=classes).round(3)

# %% [markdown]
# ### The prompt once for all answers
#
# By hand each answer costs a pass over the whole prompt. But the answers begin alike, and the prompt is the
# same. So the library lets prompt and common beginning (the *trunk*) pass once and keeps the **cache**: in
# each layer the keys and values that later tokens look up, or where a layer is built otherwise, its state. It
# repeats the cache once for each answer, and there the different endings (the *branches*) go on, at the
# positions that they would have alone. So an answer sees the trunk and itself, and is blind to the others.

# %%
ends = [
    tokenizer(a, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id] for a in answers
]
begin = common_prefix(ends)
rest = [torch.tensor(row[len(begin) :]) for row in ends]
trunk, longest = len(ids) + len(begin), max(map(len, rest))
alone = sum(len(ids) + len(row) for row in ends)
together = trunk + len(answers) * (longest - 1)
print(f"tokens read for {len(answers)} answers: {alone} one by one, {together} with the cache")

# %% [markdown]
# In the open, for one image: the trunk's last logits tell how likely each first token after it is, and the
# second pass the rest.

# %%
branches = pad_sequence(rest, batch_first=True).to(vlm.device)  # (answers, longest)
with torch.inference_mode():
    first = vlm.core(**append(vlm.inputs([image], prompt), begin), use_cache=True)
    first.cache.reorder_cache(torch.zeros(len(answers), dtype=torch.long, device=vlm.device))
    second = vlm.core(input_ids=branches[:, :-1], cache=first.cache, use_cache=True)
log_p = first.logits[0].float().log_softmax(1).cpu()  # (trunk, vocabulary)
shared = sum(log_p[k - len(begin) - 1, token] for k, token in enumerate(begin))
further = second.logits.float().log_softmax(2).cpu()  # (answers, longest - 1, vocabulary)
by_cache = [
    float(shared + log_p[-1, own[0]] + sum(after[k, own[k + 1]] for k in range(len(own) - 1)))
    for own, after in zip(rest, further, strict=True)
]
np.testing.assert_allclose(by_cache, library, atol=close)
pd.DataFrame({"by cache": by_cache, "library": library}, index=classes).round(3)

# %% [markdown]
# ### From scores to probabilities
#
# A softmax over the scores of the classes makes probabilities that sum to 1. What the model would have given
# to answers *outside* the set is left out of the account, and so there is always a label. How much is left
# out?
#
# > **Predict before you run.** Compare with the share of answers outside the label set above: will the mean
# > probability that is left out be near it?

# %%
scores = vlm.score([part.open(name) for name in part.ids], prompt, answers)
left_out = 1 - np.exp(scores).sum(1)
mean, low, high, _ = bootstrap(left_out)
print("left out of the account, mean:", Estimate(mean, low, high, len(part)).percent)
probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
scored = workbench.zero_shot().select(part.ids)
np.testing.assert_allclose(probabilities, scored.probabilities, atol=max(close, 1e-3))

# %% [markdown]
# `workbench.zero_shot()` has kept these probabilities for all of val and test. (*Zero-shot*: the model was
# shown no image with a label of this task.) Which reading is right more often, on the same images?

# %%
print("generate and parse:", accuracy(generated), "| no label:", share(generated.invalid).percent)
print("label scoring:     ", accuracy(scored), "| no label:", share(scored.invalid).percent)
gain = accuracy_difference(scored, generated)
print(Claim("label scoring is right on more images", gain.low > 0, gain.points))
rescued = generated.invalid & scored.correct
print("named no label, and yet scored right:", f"{rescued.sum()} of {generated.invalid.sum()}")

# %% [markdown]
# Neither is the true one. Generating shows what a user would get; scoring shows what the model would choose
# if it had to choose. The gate of lesson 8 needs probabilities, so the run scores.

# %% [markdown]
# ## The same question in other words
#
# Four wordings that mean much the same to us. The scores are compared on the same images (about 5 s).
#
# > **Predict before you run.** Which wording will do best? And which will change more answers: the labels in
# > reverse order, or no list of labels at all?

# %%
offered, form = ", ".join(classes), "Answer in the form {'emotion': 'label'}."
wordings = {
    "as in the course": prompt,
    "labels in reverse": prompt.replace(offered, ", ".join(reversed(classes))),
    "asks for objects": f"Which emotion do the objects in this image evoke? Select one of {offered}. {form}",
    "no list of labels": f"Which emotion does this image evoke? {form}",
}
asked = {name: vlm.predict(part, prompt=w, progress=False) for name, w in wordings.items()}

# %%
usual = asked["as in the course"]
table = pd.DataFrame(index=list(asked))
table["right"] = [accuracy(p) for p in asked.values()]
table["against the first"] = [accuracy_difference(p, usual).points for p in asked.values()]
same = {name: (p.predicted_index == usual.predicted_index).mean() for name, p in asked.items()}
table["same class as the first"] = [figures.percent(value) for value in same.values()]
table

# %%
right = np.array([p.accuracy for p in asked.values()])
low, high = np.array([accuracy_interval(p) for p in asked.values()]).T
with figures.style():
    fig, ax = plt.subplots(figsize=(8, 3), layout="constrained")
    blue, y = figures.MODEL_COLOURS["VLM"], np.arange(len(asked))
    ax.errorbar(
        100 * right, y, xerr=100 * np.array([right - low, high - right]), fmt="o", color=blue
    )
    ax.axvline(100 / len(classes), color=figures.INK, lw=1.2, ls="--")
    ax.text(100 / len(classes), -0.75, " chance", fontsize=10)
    ax.set_yticks(y, list(asked))
    title = f"From the worst to the best wording: {100 * np.ptp(right):.0f} points"
    ax.set(title=title, xlim=(0, 100), ylim=(len(asked) - 0.5, -1.1))
    ax.set_xlabel(f"accuracy (%), n = {len(part)} val images, 95 % intervals")
told = zip(asked, right, low, high, strict=True)
figures.show(
    fig, alt=f"{title}. " + "; ".join(f"{a} {b:.0%} [{c:.0%}, {d:.0%}]" for a, b, c, d in told)
)

# %%
answered = np.stack([p.predicted_index for p in asked.values()])
moved = int((answered != answered[0]).any(0).sum())
text = "more than one image in ten gets another class by another wording"
moved = share(moved, len(part))
print(Claim(text, moved.low > 0.1, moved.percent))

# %% [markdown]
# A change of wording that changes nothing is one that the training had in many forms: TinyVLM met the list of
# labels in changing order, but never without its list (lesson A1). A large model has met more forms, and not
# all.
#
# Take two habits from this. Report the wording with the number. And do not try many wordings on few images to
# keep the best: the best of several is partly luck, and its number is too good. Large models are no
# exception: Sclar et al. (2024) find them sensitive to mere formatting, and advise to report the range over
# several formats.

# %% [markdown]
# ## What it prefers before it looks
#
# A model may lean to some labels whatever it sees, because their words were frequent in its training, or
# stand first in the list. Over many images, its mean probability of a class should be about the share of the
# images that have that label. Where it is not, there is a **label prior** of its own.

# %%
zero = workbench.zero_shot().split("val")
truth = np.bincount(zero.label_index, minlength=len(classes)) / len(zero)
mean, low, high, _ = np.array([bootstrap(column) for column in zero.probabilities.T]).T
with figures.style():
    fig, ax = plt.subplots(figsize=(9, 4.2), layout="constrained")
    x, colours = np.arange(len(classes)), figures.class_colours(classes)
    ax.bar(x, 100 * mean, color=[colours[c] for c in classes], width=0.7)
    ax.vlines(x, 100 * low, 100 * high, color=figures.INK, lw=1.6)
    ax.hlines(
        100 * truth, x - 0.42, x + 0.42, color=figures.INK, lw=2.4, label="share of the labels"
    )
    ax.set_xticks(x, classes, rotation=20)
    off = 100 * np.abs(mean - truth).max()
    title = f"Mean probability and share of the labels: at most {off:.0f} points apart"
    ax.set(title=title, ylabel="mean probability (%)", ylim=(0, 100 * high.max() + 4))
    ax.set_xlabel(f"class (n = {len(zero)} val images; thin lines: 95 % intervals)")
    ax.legend(ncols=2)
told = zip(classes, mean, truth, strict=True)
figures.show(fig, alt=f"{title}. " + "; ".join(f"{c} {p:.0%}, labels {t:.0%}" for c, p, t in told))

# %% [markdown]
# One can also ask about an image that shows **nothing**. Whatever the model prefers then, no image gave it a
# reason. How far two distributions are apart is told by their total variation distance, half the sum of the
# absolute differences: 0 for the same, 1 for no overlap.
#
# > **Predict before you run.** What would an unprejudiced model answer to a grey square? What does this one?

# %%
free = {name: Image.new("RGB", (112, 112), name) for name in ("black", "gray", "white")}
noise = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
free["noise"] = Image.fromarray(noise)
scores = vlm.score(list(free.values()), prompt, answers)
empty = np.exp(scores - np.logaddexp.reduce(scores, axis=1, keepdims=True))
pd.DataFrame(empty, index=list(free), columns=classes).round(2)

# %%
flat = empty.mean(0)  # over the four of them
apart = [np.abs(p - truth).sum() / 2 for p in (mean, flat)]
text = "an image that shows nothing brings out a stronger preference than real images do"
evidence = f"total variation distance to the labels {apart[1]:.2f} (n = {len(empty)})"
print(Claim(text, apart[1] > apart[0], f"{evidence} against {apart[0]:.2f} (n = {len(zero)})"))

# %% [markdown]
# **Contextual calibration** (Zhao et al. 2021) divides the probabilities by those of such a content-free
# input and makes them sum to 1 again: a label that is likely even for a grey square has to earn more. It needs
# no label and no training.

# %%
calibrated = zero.probabilities / flat
calibrated = replace(
    zero, probabilities=calibrated / calibrated.sum(1, keepdims=True), answers=None
)
print("as it is:  ", accuracy(zero))
print("calibrated:", accuracy(calibrated))
gain = accuracy_difference(calibrated, zero)
print(Claim("calibration makes more val images right", gain.low > 0, gain.points))
after = np.abs(calibrated.probabilities.mean(0) - truth).sum() / 2
text = "calibration brings the mean probabilities nearer to the labels"
evidence = f"total variation distance {apart[0]:.2f} before, {after:.2f} after, n = {len(zero)}"
print(Claim(text, after < apart[0], evidence))

# %% [markdown]
# Calibration helps where the preference for nothing drives the answers to real images as well. Where the mean
# over real images is near to the labels already, there is little to win and something to lose. And a grey square
# is a strange image for a model that has always seen objects: its answer need not be a prior for anything else.
#
# EmoVLM-KD goes another way: tuning (lesson 5) teaches the answers with labels, and with them how
# often each is right.

# %% [markdown]
# ## What it knows: accuracy by cue
#
# Nothing was chosen on the test split, so that it may be used for the number of this lesson. TinyVLM has
# learnt what *objects* mean to people; no one told it what a *palette* does.
#
# > **Predict before you run.** On which cue is it above chance, and on which is it not?

# %% slide="What it knows: right, by cue"
test = run.zero_shot().split("test")
print("all test images:", accuracy(test))
if run.cues is None:
    print("this data set does not tell the cues of its images")
else:
    figures.show(figures.cue_bars({ZERO_SHOT: test}, run.cues))

# %%
if run.cues is not None:
    cue, chance = run.cues.loc[list(test.ids)], 1 / len(test.classes)
    for name in ("content", "atmosphere"):
        inside = test.select(cue.index[cue == name])
        above = accuracy_interval(inside).low > chance
        text = f"on {name}-led images the untuned VLM is {{}}above chance ({chance:.1%})"
        if name == "content":
            print(Claim(text.format(""), above, accuracy(inside)))
        else:
            print(Claim(text.format("not "), not above, accuracy(inside)))

# %% [markdown]
# ## From where it reads
#
# Just before the label the model has written `{'emotion': '`. The token that comes next decides. Each layer of
# the language model lets that place look back, at the words and at the visual tokens; the weights of these looks
# are the **attention**. Averaged over layers and heads it is a map over the image, with a cell for each visual
# token. Here for one image, beside what occlusion says (lesson 2): hide a part, and see how far the label's
# probability falls.
#
# > **Predict before you run.** A scene whose emotion is in one object: which visual tokens are read most?

# %%
test = workbench.zero_shot().split("test")
table = workbench.dataset.table.loc[list(test.ids)]
told = {"cue", "objects", "boxes"} <= set(table)
some = table[test.correct & (table["cue"] == "content")] if told else table[test.correct]
some = some.sample(min(40, len(some)), random_state=0)
name, label = some.index[0], some["label"].iloc[0]
image = workbench.dataset.open(name)
maps = {
    "occlusion": occlusion(
        answers_of(vlm, workbench.dataset.label_set), image, classes.index(label), label=label
    ),
    "attention": attention(vlm, image, workbench.dataset.label_set),
}
boxes = cue_boxes(workbench.dataset, name) if told else {}
axes = figures.explanations(image, maps, boxes, f"labelled {label}; the untuned VLM is right")
figures.show(axes[0].figure)

# %% [markdown]
# One image is an anecdote. Over more of them (about 5 s): does the attention lie on the object that evokes more
# than its size would give? And how much attention does the image get at all? The rest goes to the words.

# %%
answers = [answer_for(label) for label in classes]
question = categorical_prompt(workbench.dataset.label_set)
weights = {  # (layers, heads, rows, columns) for each image
    name: vlm.attention(workbench.dataset.open(name), question, answers) for name in some.index
}
by_layer = np.array([w.mean(1).sum((1, 2)) for w in weights.values()])  # (images, layers)
for layer, values in enumerate(by_layer.T):
    print(f"layer {layer + 1}: the image gets", bootstrap(values).percent)
if told:
    shares = {name: w.mean((0, 1)) / w.mean((0, 1)).sum() for name, w in weights.items()}
    shown = {name: {"map": Explanation(x, "attention", "VLM")} for name, x in shares.items()}
    found = share_table(shown, workbench.dataset, cue_boxes, table["cue"]).loc[("content", "map")]
    text = "attention lies on the evocative object more than its size gives"
    words = f"{found['share']:.1%} [{found['low']:.1%}, {found['high']:.1%}] of it, on "
    words += f"{found['area']:.1%} of the image, n = {found['n']:.0f} images"
    print(Claim(text, found["low"] > found["area"], words))

# %% [markdown]
# Attention says from where a place was read, not why an answer was given: other weights may give the same answer,
# and a visual token also holds what the encoder's blocks gathered from its neighbours. So it is a hint to be
# held against occlusion, which changes the image and looks at the answer. Lesson 6 does so for both models.

# %% [markdown]
# ## Summary
#
# - An image becomes patches, patches become visual tokens, and these take the places of `<|image_pad|>` among
#   the words.
# - Generate and parse gives what the model says, with answers outside the label set; label scoring gives
#   probabilities, and leaves those out of the account.
# - The score of an answer is a sum of log-probabilities, shifted by one, the end token included.
# - Wording and label prior move the answers without any change in the image: report the one, measure the other.
# - Attention shows from where the deciding place was read; it is a hint, and no reason.
#
# Lesson 4 writes what the model will be tuned on, lesson 5 tunes it.

# %% [markdown]
# ## Exercises

# %% [markdown]
# ### Exercise 3.1 How many visual tokens?
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●○○ | 10 | knowing what an image costs before it is sent |
#
# Large VLMs of this family take images of nearly any size. Each side is first brought to the nearest multiple
# of `patch * merge` pixels, then the image is cut into patches of `patch` pixels, and squares of `merge` x
# `merge` patches become one visual token. Write the number of visual tokens as a function of the size. (Limits
# on the total, which a processor may have as well, are left aside.)
#
# <details><summary>My number is 4 times too large</summary>What do you count, patches or tokens?</details>
# <details><summary>It is right for 112 x 112 and wrong for 100 x 150</summary>Find the nearest multiple for each
# side on paper. Is it always in the same direction?</details>


# %% nbgrader={"grade_id": "3-1-tokens", "solution": true}
def visual_tokens(height, width, patch=14, merge=2):
    """The number of visual tokens of an image of height x width pixels."""
    ### BEGIN SOLUTION
    step = patch * merge
    return round(height / step) * round(width / step)
    ### END SOLUTION


# %% nbgrader={"grade_id": "3-1-check", "grade": true, "locked": true, "points": 2}
checks.check("3.1", visual_tokens)

# %% [markdown]
# ### Exercise 3.2 The score of an answer
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●●○ | 15 | knowing which logit speaks about which token |
#
# You get torch tensors: the `logits` of one row, of shape (tokens, vocabulary), the `tokens` themselves (prompt, then answer,
# the last one ends the answer), and `start`, the place of the first token of the answer. Return the
# log-likelihood of the answer, in nats. Start from the formula, with the cell above out of sight.
#
# <details><summary>My score is far too low</summary>Which token do the logits in row 0 speak about: the first
# or the second?</details>
# <details><summary>It is right for long answers and wrong for the shortest</summary>In one case the answer is
# nothing but its end. Does your slice still hold it?</details>
# <details><summary>My score is above 0</summary>A probability is at most 1. What is its logarithm at
# most?</details>


# %% nbgrader={"grade_id": "3-2-score", "solution": true}
def log_likelihood(logits, tokens, start):
    """ln p(tokens[start:] | tokens[:start]), the end token included."""
    ### BEGIN SOLUTION
    log_p = logits[start - 1 : -1].log_softmax(dim=-1)
    return log_p.gather(1, tokens[start:, None]).sum()
    ### END SOLUTION


# %% nbgrader={"grade_id": "3-2-check", "grade": true, "locked": true, "points": 4}
checks.check("3.2", log_likelihood)

# %% [markdown]
# ### Exercise 3.3 A parser that never guesses
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●●○ | 15 | being tolerant in form and strict in content |
#
# Read the label that an answer names, or return `None`. The rules, a small part of what `parse_answer` does:
#
# - What was thought aloud, all before the last `</think>`, does not count.
# - A text *declares* a label in the asked form, `{'emotion': 'label'}`, with single or double quotes, whole or cut
#   short, perhaps amid other words. If it has the form once or more, the last one whose word is one of `labels`
#   is the answer, and all around it changes nothing. If no word in a form is a label, there is no answer; a label
#   that was cut in the middle is none.
# - Without the form, a text names a label if exactly one of `labels` stands in it as a whole word, not right
#   behind "not" or "no". A text with the word "sorry", "cannot" or "can't" declines, and names nothing.
# - Capital letters do not matter. (Other word forms such as "sad" need not be read here.)
#
# <details><summary>It finds awe in "awesome"</summary>Cut the text into words before you compare.</details>
# <details><summary>It fails on an answer that was cut short</summary>Do not wait for the closing brace: what
# comes after the label does not matter. But "conten" is no label.</details>
# <details><summary>It reads a label from "either anger or fear"</summary>How many labels are there in this
# text?</details>
# <details><summary>It takes the first of two forms</summary>A model that corrects itself means the last
# one.</details>


# %% nbgrader={"grade_id": "3-3-parser", "solution": true}
def my_parser(text, labels):
    """The one of `labels` (in lower case) that the text names, or None."""
    ### BEGIN SOLUTION
    import re

    text = text.lower().rpartition("</think>")[2]
    declared = re.findall(r"""emotion['"]?\s*:\s*['"]([^'"}]*)""", text)
    if declared:
        valid = [word for word in declared if word in labels]
        return valid[-1] if valid else None
    words = re.findall("[a-z']+", text)
    if {"sorry", "cannot", "can't"} & set(words):
        return None
    pairs = zip(["", *words], words, strict=False)
    named = {word for before, word in pairs if word in labels and before not in ("not", "no")}
    return named.pop() if len(named) == 1 else None
    ### END SOLUTION


# %% nbgrader={"grade_id": "3-3-check", "grade": true, "locked": true, "points": 4}
checks.check("3.3", my_parser)

# %% [markdown]
# ### Exercise 3.4 Ask better (open)
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●●● | 20 | arguing from a measurement |
#
# Write two wordings of your own. Before you run them, write down which will do better, and why: think of what
# the model was trained to answer, and of its label prior. Then measure both on the images of `part`. What may
# you report of them, and what not?
#
# *Rubric (4 points): the prediction is written down with a reason before the result (1); both wordings are
# measured on the same images, with a paired interval (1); the result is explained by what the model has learnt
# or prefers, not by what a person would understand (1); it is said why the better of the two has a number that
# is too good, and on which images it would have to be measured again (1).*

# %% nbgrader={"grade_id": "3-4-code", "solution": true}
# Measure your wordings here.
### BEGIN SOLUTION
mine = {
    "about things": f"Look at the things in the picture. Which one of {offered} do they bring? {form}",
    "about the look": f"Look at the colours and the light. Which one of {offered} do they bring? {form}",
}
measured = {name: vlm.predict(part, prompt=w, progress=False) for name, w in mine.items()}
for name, predictions in measured.items():
    print(f"{name}: {accuracy(predictions)}")
things, look = measured.values()
print("about things against about the look:", accuracy_difference(things, look).points)
### END SOLUTION

# %% [markdown] nbgrader={"grade_id": "3-4-argument", "grade": true, "solution": true, "points": 4}
# ### BEGIN SOLUTION
# Prediction: the wording about things does better. The model was trained to say what objects bring, and it has
# learnt no word about what an image's look does to anyone; a question about colours is one that it has never
# met, and I expect the answer to fall back on its label prior or on the objects all the same. If the two come
# out alike, the words before the list hardly matter, and the list and the form decide.
#
# The paired interval above tells whether the two differ on these images. What I may report is this difference
# with its interval, and both wordings. What I may not report is the better accuracy alone: I chose the wording
# by these very images, so that luck on them is part of its number, the more so the more wordings I try. It has to be
# measured again on images that had no part in the choice: here the rest of val, and the test split once at the
# end.
# ### END SOLUTION

# %%
checks.progress()

# %% [markdown]
# ## Further reading
#
# - P. Wang et al. (2024). Qwen2-VL: enhancing vision-language model's perception of the world at any
#   resolution. [arXiv:2409.12191](https://arxiv.org/abs/2409.12191)
# - T. Z. Zhao, E. Wallace, S. Feng, D. Klein, S. Singh (2021). Calibrate before use: improving few-shot
#   performance of language models. [arXiv:2102.09690](https://arxiv.org/abs/2102.09690)
# - A. Holtzman, P. West, V. Shwartz, Y. Choi, L. Zettlemoyer (2021). Surface form competition: why the highest
#   probability answer isn't always right.
#   [doi:10.18653/v1/2021.emnlp-main.564](https://doi.org/10.18653/v1/2021.emnlp-main.564)
# - M. Sclar, Y. Choi, Y. Tsvetkov, A. Suhr (2024). Quantifying language models' sensitivity to spurious
#   features in prompt design. [arXiv:2310.11324](https://arxiv.org/abs/2310.11324)
# - S. Jain, B. C. Wallace (2019). Attention is not explanation. [arXiv:1902.10186](https://arxiv.org/abs/1902.10186)
# - S. Wiegreffe, Y. Pinter (2019). Attention is not not explanation.
#   [arXiv:1908.04626](https://arxiv.org/abs/1908.04626)
# - The paper: Lee, Lee & Park (2025).
#   [doi:10.1109/CVPRW67362.2025.00560](https://doi.org/10.1109/CVPRW67362.2025.00560)
