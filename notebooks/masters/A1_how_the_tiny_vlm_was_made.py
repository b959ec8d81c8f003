# %% [markdown]
# # A1 How the tiny VLM was made
#
# ## What you will be able to do
#
# - name the parts of a Qwen2-VL, with their shapes and parameters;
# - learn a tokenizer's merges by hand, and write the loss of next-token prediction;
# - search a corpus for what it must not hold, and say what the search can and cannot show;
# - run pretraining in small, and find out what the shipped model names and what it misses.
#
# ## Minutes and machine
#
# About 45 minutes to read and run, 70 more for the exercises; any laptop, no GPU. Modules:
# `emokd_utils.world.pretrain` and `emokd_utils.world.corpus`.
#
# <!-- measured -->

# %% [markdown]
# ## The idea
#
# The course needs a vision-language model (VLM) that runs on a laptop and is built like the large ones. No
# such model could be borrowed: the large ones do not fit, and small ones do not know the drawn things of
# EmoScenes. So **TinyVLM** was pretrained from nothing: the architecture is Qwen2-VL with small numbers, and
# everything that it ever saw or read was made by the code of this project.
#
# That has a use of its own. Of a large VLM nobody can say exactly what it has read. Here one can look, and the
# main claim of the course depends on it: TinyVLM knows things and what they mean to people, and was never
# told what a palette does to a mood. This appendix shows how it was made, with nothing hidden, in small runs.

# %%
import json
import re
from collections import Counter
from dataclasses import replace
from random import Random

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.patches import Rectangle
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tokenizers.pre_tokenizers import ByteLevel
from torch.nn.functional import binary_cross_entropy_with_logits

from emokd_utils import checks, figures
from emokd_utils.costs import count_parameters
from emokd_utils.evidence import Claim, wilson
from emokd_utils.profiles import project_root
from emokd_utils.training import autocast
from emokd_utils.vlm import VLM
from emokd_utils.world import pretrain
from emokd_utils.world.corpus import CATEGORICAL_PROMPTS, WHY, WORDS, draw_turn, tokenizer_corpus
from emokd_utils.world.scenes import SETTINGS, TEXTURES, make_unlabelled_scene, scene_objects

# %% [markdown]
# The shipped model, and 400 scenes that it never saw: unlabelled scenes are numbered, and pretraining leaves out
# those that come next after `HELD_OUT` (about 2 s).

# %%
home = project_root() / "data" / "tiny_vlm"
shipped = VLM.load(home)
scenes = [make_unlabelled_scene(pretrain.HELD_OUT + number) for number in range(400)]
images = [scene.image for scene in scenes]
figures.show(
    figures.pictures(
        images[:6],
        [re.sub(r"(?<=,) | (?=and |in a|on a|by the)", "\n", s.caption) for s in scenes[:6]],
        "Unlabelled scenes: any things in any atmosphere",
    )
)

# %% [markdown]
# ## A Qwen2-VL, only smaller
#
# Three parts: a **visual encoder** turns patches of pixels into vectors; a **merger** joins each 2 x 2 of them
# into one *visual token* as wide as a word's vector; a **language model** reads visual tokens and words in one
# row, and foretells the next word.

# %%
config = shipped.core.config
see, speak = config.vision_config, config.text_config
rows = {
    "layers": [see.depth, speak.num_hidden_layers],
    "width": [see.embed_dim, speak.hidden_size],
    "attention heads": [see.num_heads, speak.num_attention_heads],
    "heads of keys and values": [see.num_heads, speak.num_key_value_heads],
    "width of the hidden layer": [see.embed_dim * see.mlp_ratio, speak.intermediate_size],
}
pd.DataFrame(rows, index=["visual encoder", "language model"]).T

# %% [markdown]
# > **Predict before you run.** Which part has most of the parameters? In a large VLM it is the language model by
# > far.

# %%
model = shipped.core.model
parts = {
    "visual: patch to vector": model.visual.patch_embed,
    "visual: layers": model.visual.blocks,
    "visual: merger": model.visual.merger,
    "language: word vectors, in and out": model.language_model.embed_tokens,
    "language: layers": model.language_model.layers,
    "language: last norm": model.language_model.norm,
}
counted = pd.Series({name: count_parameters(part).total for name, part in parts.items()})
assert counted.sum() == count_parameters(shipped.core).total
pd.DataFrame({"parameters": counted, "share": (counted / counted.sum()).map("{:.1%}".format)})

# %% [markdown]
# One layer of the language model, counted by hand: four projections of the attention (three with a bias), three
# matrices of the gated hidden layer, and two norms.

# %%
wide, hidden = speak.hidden_size, speak.intermediate_size
narrow = wide // speak.num_attention_heads * speak.num_key_value_heads
attention = (wide + 1) * wide + 2 * (wide + 1) * narrow + wide * wide
by_hand = attention + 3 * wide * hidden + 2 * wide
assert by_hand == count_parameters(model.language_model.layers[0]).total
print(f"{attention:,} + {3 * wide * hidden:,} + {2 * wide} = {by_hand:,} a layer")

# %% [markdown]
# How many visual tokens does an image become? Patches are 14 pixels wide, four of them make one token, and the
# processor first brings every image to about the area of 112 x 112.
#
# > **Predict before you run.** 112 x 112 pixels: how many tokens? And 448 x 448?

# %%
for size in ((112, 112), (448, 448), (160, 80)):
    ready = shipped.processor.image_processor(images=[Image.new("RGB", size)], return_tensors="pt")
    _, high, across = ready["image_grid_thw"][0].tolist()
    print(f"{size[0]} x {size[1]}: {high} x {across} patches, {high * across // 4} visual tokens")

# %% [markdown]
# ## From letters to tokens
#
# The language model reads numbers. The **tokenizer** that makes them was learnt too, by *byte pair encoding*
# (BPE): begin with single bytes; find the pair of neighbours that occurs most often; make it one new symbol;
# repeat. Frequent words end as one token, a rare word stays in pieces, and nothing is ever unknown.


# %%
def pair_counts(words):
    counts = Counter()
    for word, count in words.items():
        for pair in zip(word, word[1:], strict=False):
            counts[pair] += count
    return counts


def joined(word, pair):
    out = []
    for symbol in word:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return tuple(out)


# %% [markdown]
# The text is first cut into words, which no merge crosses. `Ġ` stands for the space before a word. Where two
# pairs are equally frequent, the one whose symbols came first is taken.

# %%
lines = tokenizer_corpus(scenes[:200])
cut = ByteLevel(add_prefix_space=False).pre_tokenize_str
words = Counter(tuple(word) for line in lines for word, _ in cut(line))
tokenizer = pretrain.build_tokenizer(lines)
number = tokenizer.get_vocab()  # needed for ties only
merges = []
for _ in range(60):
    counts = pair_counts(words)
    best = max(counts, key=lambda p: (counts[p], -number[p[0]], -number[p[1]]))
    merges.append(best)
    words = {joined(word, best): count for word, count in words.items()}
print("  ".join(a + "+" + b for a, b in merges[:30]))

# %% [markdown]
# The library's tokenizer, learnt on the same lines, should have begun with the same merges.

# %%
learnt = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
assert [tuple(pair) for pair in learnt[: len(merges)]] == merges
print(f"the same {len(merges)} merges, in the same order; in all it learnt {len(learnt)}")

# %% [markdown]
# > **Predict before you run.** Into how many tokens does the shipped tokenizer cut "wilted", which its corpus
# > holds, and "melancholy", which it does not?

# %%
pieces = shipped.processor.tokenizer
for text in ("a wilted flower in a room", "wilted", " melancholy", "{'emotion': 'sadness'}"):
    print(f"{text!r:32} {' | '.join(pieces.tokenize(text))}")
seen = {word for line in lines for word, _ in cut(line)}
whole = sum(len(pieces.tokenize(word.replace("Ġ", " "))) == 1 for word in seen)
print(f"{whole} of {len(seen)} different words of the sample are one token of {len(pieces)}")

# %% [markdown]
# ## What it read
#
# Every text is one question and its answer. Most go with an image; the rest are facts about nouns, without
# one. Here are twelve about the first scene.

# %%
rng = Random(1)
for turn in (draw_turn(rng, scenes[0]) for _ in range(12)):
    prompt = turn.prompt if len(turn.prompt) < 90 else turn.prompt[:87] + "..."
    print(f"[{'image' if turn.image else 'text '}] {prompt}\n        -> {turn.answer}")

# %% [markdown]
# ## What it must not have read
#
# A model that had read "a dark, grey picture is sad" could not show that tuning teaches what a palette does.
# Three searches, over 10 texts for each of the 400 scenes.
#
# **First**, words for how something looks. The tokenizer must know them (lesson 4's instructions use them), so
# that the corpus has facts of language such as "Name a colour." without any image.
#
# > **Predict before you run.** Will there be such words in texts that go *with* an image? From where might they
# > come?

# %%
rng = Random(2)
texts = [(scene, draw_turn(rng, scene)) for scene in scenes for _ in range(10)]
with_image = [turn for _, turn in texts if turn.image]
looks = {word for group in WORDS.values() for word in group}
looks |= {"colour", "colours", "palette", "light", "weather"}
hits = Counter()
for turn in with_image:
    for sentence in re.split(r"(?<=[.?!]) ", f"{turn.prompt} {turn.answer}"):
        for word in looks & set(re.findall("[a-z]+", sentence.lower())):
            hits[word, sentence] += 1
for (word, sentence), count in hits.most_common():
    print(f"{count:4} x {word}: {sentence}")

# %% [markdown]
# A search finds words, not meanings: each hit has to be read. Are they about the image, or are they part of a
# fixed fact about a noun, which is the same for every image that the noun is in?

# %%
facts = " ".join(WHY.values())
foreign = [s for _, s in hits if re.sub(r"^An? [a-z ]+ is ", "", s.rstrip(".")) not in facts]
print(
    Claim(
        "words on a look stand in fixed facts about nouns only",
        not foreign,
        f"{sum(hits.values())} hits in {len(with_image):,} texts with an image, "
        f"{len(foreign)} outside of such facts",
    )
)

# %% [markdown]
# **Second**, a test that needs no list of words. Give each scene the atmosphere of another one, and draw its
# texts anew with the same random numbers. If any text depended on how its scene looks, some would change.

# %%
others = [scene.atmosphere for scene in scenes[1:] + scenes[:1]]
changed = 0
for k, (scene, look) in enumerate(zip(scenes, others, strict=True)):
    one, two = Random(k), Random(k)
    for _ in range(10):
        changed += draw_turn(one, scene) != draw_turn(two, replace(scene, atmosphere=look))
print(
    Claim(
        "no text depends on how its scene looks",
        changed == 0,
        f"{changed} of {10 * len(scenes):,} texts changed with the atmosphere",
    )
)

# %% [markdown]
# **Third**, an image's emotion. An unlabelled scene has none:

# %%
named = {(scene.emotion, scene.label, scene.cue) for scene in scenes}
print(Claim("no scene has an emotion or a label", named == {("", "", "")}, f"n = {len(scenes)}"))
print("Yet these are asked, when the things in a scene bring one emotion at most:")
for prompt in CATEGORICAL_PROMPTS:
    print(f"- {prompt.format(labels='...')}")

# %% [markdown]
# Read them closely. They ask what the *things* bring, and the answer follows from the nouns alone. They are
# worded much like the question of lesson 3, and on purpose: without them, TinyVLM would know that a coffin is
# sad and could not say so when asked about an image. Whether this is a leak is for exercise A1.4.
#
# ## Seeing
#
# Pretraining goes in stages. This is what the module says of itself:

# %%
print(pretrain.__doc__.split("\n\n")[1])

# %% [markdown]
# Why seeing first? Captions alone teach a visual encoder slowly: what a caption says about one cell of the image
# reaches it through the whole language model, which can lower its loss for long by learning to write. So the
# first stage leaves language out. Each of the 16 visual tokens foretells **which objects lie under it**, and the
# colour and contrast of its own pixels. Targets of this kind, one for each place, are called *dense*.

# %%
nouns = np.array([item.noun for item in scene_objects()])


def draw_tokens(ax, scene):
    ax.imshow(scene.image)
    for token, under in enumerate(pretrain.objects_under_tokens(scene)):
        left, top = 28 * (token % 4) - 0.5, 28 * (token // 4) - 0.5
        ax.add_patch(Rectangle((left, top), 28, 28, fill=False, ec="white", lw=1.2))
        told = "\n".join(name.replace(" ", "\n") for name in nouns[under > 0])
        box = {"fc": "white", "alpha": 0.75, "ec": "none", "pad": 1}
        ax.text(
            left + 14,
            top + 14,
            told,
            ha="center",
            va="center",
            fontsize=7,
            bbox=box if told else None,
        )
    ax.set(xticks=range(0, 113, 28), yticks=range(0, 113, 28), xlabel="pixels")


# %%
with figures.style():
    figure, axes = plt.subplots(1, 3, figsize=(12, 4.1), layout="constrained")
    for ax, scene in zip(axes, scenes[:3], strict=True):
        draw_tokens(ax, scene)
    axes[0].set_ylabel("pixels")
    title = "What each of the 16 visual tokens has to tell: the objects under it"
    figure.suptitle(title, x=0.01, ha="left", fontsize=13.5, fontweight="bold")
figures.show(figure, alt=f"{title}. Scenes: {'; '.join(scene.caption for scene in scenes[:3])}.")

# %% [markdown]
# An object is one of many yes-or-no questions, so the loss is the binary cross-entropy, $-\ln p$ where the
# object is there and $-\ln(1 - p)$ where it is not, averaged over tokens and nouns; the pixels get a squared
# error. Here on the shipped encoder, with fresh output layers:


# %%
def dense_loss(heads, tokens, present, statistics):
    p = heads.objects(tokens).sigmoid()
    seen = -(present * p.log() + (1 - present) * (1 - p).log()).mean()
    return 4 * seen + 0.1 * (heads.pixels(tokens) - statistics).square().mean()


torch.manual_seed(0)
heads = pretrain.SeeingHeads()
tokens = torch.stack(shipped.visual_tokens(images[:8])).float().clone()
present, statistics = pretrain.seeing_targets(scenes[:8])[:2]
ours, theirs = (
    dense_loss(heads, tokens, present, statistics),
    heads.loss(tokens, present, statistics),
)
torch.testing.assert_close(ours, theirs)
print(f"by hand {ours:.5f}, library {theirs:.5f}; tokens {tuple(tokens.shape)}")

# %% [markdown]
# ### A reduced run
#
# A new model with random weights, 40 steps of 16 scenes, in which objects are as in their drawings (about 6 s).
#
# > **Predict before you run.** Most tokens have none of the 48 objects under them. Which loss does a model
# > reach that has learnt no more than how rare each object is?

# %%
processor = pretrain.build_processor(pieces)
fresh, heads = pretrain.build_model(pieces, seed=0), pretrain.SeeingHeads()
young = [make_unlabelled_scene(number, varied=False) for number in range(640)]
visual = fresh.model.visual


def visual_tokens(shown):
    ready = processor.image_processor(images=[s.image for s in shown], return_tensors="pt")
    return visual(ready["pixel_values"], grid_thw=ready["image_grid_thw"]).pooler_output


# %%
optimizer = torch.optim.AdamW([*visual.parameters(), *heads.parameters()], lr=1e-3)
seeing = []
for step in range(40):
    shown = young[16 * step : 16 * step + 16]
    present, statistics = pretrain.seeing_targets(shown)[:2]
    tokens = visual_tokens(shown).reshape(16, 16, -1)
    loss = heads.loss(tokens, present, statistics)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    seeing.append(binary_cross_entropy_with_logits(heads.objects(tokens), present).item())

# %%
everywhere = pretrain.seeing_targets(young)[0]
rate = everywhere.mean((0, 1)).clamp(1e-6, 1 - 1e-6)
rarity = binary_cross_entropy_with_logits(rate.logit().expand_as(everywhere), everywhere).item()
print(f"the loss on objects at the first step is {seeing[0]:.3f}")
print(
    Claim(
        f"40 steps teach no more than how rare each of the {len(nouns)} objects is",
        np.mean(seeing[-10:]) > 0.95 * rarity,
        f"{np.mean(seeing[-10:]):.3f} over the last ten steps; knowing how rare they are {rarity:.3f}",
    )
)

# %% [markdown]
# That objects are rare is learnt at once. *Which* object is where takes far longer: the model card below says how
# many steps the shipped encoder was given.
#
# ## Speaking
#
# Now the whole model learns to answer: at each place of the text it foretells the next token. Only the answer's
# tokens count, as in lesson 4. The logits at a place are about the token *after* it, so both are shifted by one.


# %%
def next_token_loss(logits, labels):
    logits, labels = logits[:, :-1], labels[:, 1:]
    counts = labels != -100
    right = logits.log_softmax(-1).gather(2, labels.clamp(min=0)[..., None])[..., 0]
    return -right[counts].mean()


batch = pretrain.encode(
    [turn for _, turn in texts[:8]], [scene for scene, _ in texts[:8]], processor
)
with torch.no_grad():
    out = fresh(**batch)
torch.testing.assert_close(next_token_loss(out.logits, batch["labels"]), out.loss)
print(f"{int((batch['labels'] != -100).sum())} tokens of {batch['labels'].numel()} count")
print(
    f"loss {out.loss:.3f}; a guess among all {len(pieces)} tokens costs {np.log(len(pieces)):.3f}"
)

# %% [markdown]
# Another 30 steps of 16 texts about the same scenes (about 8 s). The library keeps the first task on beside this
# one, so that the encoder does not unlearn it; we leave it out here.

# %%
optimizer, speaking = torch.optim.AdamW(fresh.parameters(), lr=7e-4), []
rng = Random(3)
for step in range(30):
    shown = young[16 * step : 16 * step + 16]
    inputs = pretrain.encode([draw_turn(rng, scene) for scene in shown], shown, processor)
    with autocast(torch.device("cpu")):  # in 16 bit where the processor is fast at it
        loss = fresh(**inputs).loss
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(fresh.parameters(), 1.0)
    optimizer.step()
    speaking.append(loss.item())

# %%
with figures.style():
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    left.plot(range(1, 41), seeing, color=figures.MODEL_COLOURS["head"])
    left.axhline(rarity, color=figures.INK, ls="--", lw=1.2, label="how rare each object is")
    right.plot(range(1, 31), speaking, color=figures.MODEL_COLOURS["VLM"])
    right.axhline(np.log(len(pieces)), color=figures.INK, ls="--", lw=1.2, label="a guess")
    better = "better than" if np.mean(seeing[-10:]) < 0.95 * rarity else "no better than"
    left.set(title=f"Seeing: {better} knowing what is rare", ylabel="loss (nats per noun, token)")
    right.set(
        title=f"Speaking: from {speaking[0]:.1f} to {speaking[-1]:.1f} nats",
        ylabel="loss (nats per token)",
    )
    for ax in (left, right):
        ax.set(xlabel="step (16 scenes each)", ylim=(0, None))
        ax.legend()
told = (
    f"seeing {seeing[0]:.2f} to {seeing[-1]:.2f}, speaking {speaking[0]:.2f} to {speaking[-1]:.2f}"
)
figures.show(figure, alt=f"Losses by step: {told} nats.")

# %% [markdown]
# > **Predict before you run.** What will a model write that has read 480 texts? Will it have the form of an
# > answer? Will it have the right nouns?

# %%
reduced = VLM(fresh, processor, "reduced")
for scene, a, b in zip(
    scenes[:3],
    reduced.generate(images[:3], "Describe the image.", 24),
    shipped.generate(images[:3], "Describe the image.", 24),
    strict=True,
):
    print(f"there is {scene.caption}\n  reduced: {a}\n  shipped: {b}")

# %% [markdown]
# Form comes before content: a language model learns first how answers look.
#
# ## The shipped model
#
# `python -m emokd_utils pretrain` runs all stages, with many more steps and larger batches, and writes the
# checkpoint with its card. These lines are read from the card.

# %%
card = (home / "README.md").read_text(encoding="utf-8")
training = re.search(r"- \*\*Training\*\*: (.*?)\n\n", card, re.DOTALL).group(1)
print(re.sub(r"\s+", " ", training).replace("; ", ";\n"))
rows = [line.strip("| ").split(" | ") for line in card.splitlines() if line.startswith("|")]
print("\n" + rows[0][0].strip(" |") + ":")
for what, share in rows[2:]:
    print(f"{share:>7}  {what}")

# %% [markdown]
# ## What it names, and what it misses
#
# We ask it to describe the 400 held-out scenes (about 4 s), and count for each noun how often it is named
# where it is.

# %%
written = []
for start in range(0, len(images), 50):
    written += shipped.generate(images[start : start + 50], "Describe the image.", 32)
said = [{noun for noun in nouns if re.search(rf"\b{noun}\b", text)} for text in written]
rows = [
    (noun, len(scene.objects), noun in told)
    for scene, told in zip(scenes, said, strict=True)
    for noun in scene.objects
]
found = pd.DataFrame(rows, columns=["noun", "things", "named"])
low, high = wilson(int(found["named"].sum()), len(found))
print(f"{found['named'].mean():.1%} [{low:.1%}, {high:.1%}] of {len(found)} objects are named")

# %%
by_noun = found.groupby("noun")["named"].agg(["mean", "sum", "size"]).sort_values("mean")
ends = [wilson(int(row["sum"]), int(row["size"])) for _, row in by_noun.iterrows()]
by_noun[["low", "high"]] = ends
shown = pd.concat([by_noun.head(8), by_noun.tail(8)])
title = f"Best known: {by_noun.index[-1]}; most often missed: {by_noun.index[0]}"
with figures.style():
    figure, ax = plt.subplots(figsize=(9, 5.6), layout="constrained")
    ax.hlines(range(16), 100 * shown["low"], 100 * shown["high"], color=figures.GREY)
    ax.plot(100 * shown["mean"], range(16), "o", color=figures.MODEL_COLOURS["VLM"])
    ax.axhline(7.5, color=figures.INK, lw=1, ls=":")
    ax.set_yticks(range(16), [f"{noun} (n = {n:.0f})" for noun, n in shown["size"].items()])
    ax.set(xlim=(0, 102), xlabel="named where it is (%), line: 95 % interval", title=title)
    ax.set_ylabel("the 8 most often missed, the 8 best known")
    ax.grid(axis="x")
told = ", ".join(f"{noun} {share:.0%}" for noun, share in shown["mean"].items())
figures.show(figure, alt=f"{title}. {told}.")

# %% [markdown]
# With few scenes to each noun the intervals are long, and the best and the worst of so many nouns are partly so by
# luck. What does it write in place of a thing that it misses? We take the answers with one thing missing and one
# thing too many.

# %%
instead = Counter()
for scene, told in zip(scenes, said, strict=True):
    missed, invented = set(scene.objects) - told, told - set(scene.objects)
    if len(missed) == len(invented) == 1:
        instead[missed.pop(), invented.pop()] += 1
print(f"{sum(instead.values())} such answers, {len(instead)} different pairs; the most frequent:")
for (there, told), count in sorted(instead.items(), key=lambda item: (-item[1], item[0]))[:10]:
    print(f"{count} x there is: {there}; it says: {told}")

# %% [markdown]
# > **Predict before you run.** Things are drawn smaller when there are more of them. Will they be named less
# > often in a scene of three?

# %%
by_count = {}
for count, group in found.groupby("things"):
    low, high = by_count[count] = wilson(int(group["named"].sum()), len(group))
    print(
        f"{count} in the scene: {group['named'].mean():.1%} [{low:.1%}, {high:.1%}], n = {len(group)}"
    )
print(
    Claim(
        "in a scene of three, things are named less often than alone",
        by_count[3].high < by_count[1].low,
        "the two intervals do not touch" if by_count[3].high < by_count[1].low else "they touch",
    )
)

# %% [markdown]
# ## It sees a look, and has no words for it
#
# In pretraining the mean token also had to tell colour, texture, light and weather, in numbers and not in words. So
# the visual tokens hold how a scene looks, which the head of lesson 7 lives on. A **linear probe** shows it: a
# plain classifier on the mean token, trained on one half of the scenes and tried on the other.

# %%
features = shipped.features(images)
kinds = {
    "texture": ([scene.atmosphere.texture for scene in scenes], len(TEXTURES)),
    "setting": ([scene.setting for scene in scenes], len(SETTINGS)),
}
for name, (truth, classes) in kinds.items():
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, C=0.01))
    probe.fit(features[:200], truth[:200])
    right = int((probe.predict(features[200:]) == np.array(truth[200:])).sum())
    most = max(Counter(truth[200:]).values()) / 200
    low, high = wilson(right, 200)
    print(f"{name} ({classes}): {right / 200:.1%} [{low:.1%}, {high:.1%}], n = 200; ", end="")
    print(f"always the most frequent: {most:.1%}")

# %% [markdown]
# And when it is asked in words?

# %%
questions = (
    "Is the image bright or dark?",
    "Which colours do you see?",
    "What is the weather like?",
)
for scene in scenes[:2]:
    look = scene.atmosphere
    print(f"brightness {look.brightness:.2f}, hue {look.hue:.0f} degrees, weather {look.weather}:")
    for question in questions:
        print(f"  {question} -> {shipped.generate([scene.image], question, 12)[0]}")

# %% [markdown]
# These questions were never part of its corpus. It answers all the same, in the form of what it was asked
# before: a model does not know what it does not know.
#
# ## Summary
#
# - TinyVLM is a Qwen2-VL with small numbers, and every text and pixel that it learnt from can be made again.
# - Dense targets taught it to see, next-token prediction to speak.
# - A search shows which words a corpus holds. That texts do not depend on looks at all is shown by changing the
#   looks and nothing else.
# - It misses things, and answers what it cannot know. Both are part of what the later lessons measure.

# %% [markdown]
# ## Exercises

# %% [markdown]
# ### Exercise A1.1 Under a visual token
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●●○ | 15 | keeping rows, columns, boxes and cells apart |
#
# An image of 112 x 112 pixels has 16 visual tokens, counted from 0 and row by row, each of a cell of 28 x 28. A
# box is (x, y, width, height), x to the right and y downwards. Return the places (in `boxes`) of those boxes
# whose overlap with the token's cell is **more than 8 pixels wide and more than 8 pixels high**.
#
# <details><summary>It is right for tokens 0, 5, 10 and 15 and wrong elsewhere</summary>What do these four have in
# common? Which of the numbers <code>token // 4</code> and <code>token % 4</code> goes to the right?</details>
# <details><summary>I find objects under cells where one can see nothing of them</summary>Try a box that only
# touches the cell from outside. How wide is your overlap there?</details>


# %% nbgrader={"grade_id": "A1-1-under", "solution": true}
def boxes_under(token, boxes):
    """The places of the boxes that lie under a token: a list of numbers, [] where there are none."""
    ### BEGIN SOLUTION
    top, left = 28 * (token // 4), 28 * (token % 4)
    places = []
    for place, (x, y, width, height) in enumerate(boxes):
        across = min(x + width, left + 28) - max(x, left)
        down = min(y + height, top + 28) - max(y, top)
        if across > 8 and down > 8:
            places.append(place)
    return places
    ### END SOLUTION


# %% nbgrader={"grade_id": "A1-1-check", "grade": true, "locked": true, "points": 3}
checks.check("A1.1", boxes_under)

# %% [markdown]
# ### Exercise A1.2 The next-token loss
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●●○ | 15 | which logits foretell which token |
#
# One text, as torch tensors: `logits` is (tokens, vocabulary), `ids` holds its tokens, and the answer begins at place `first`.
# Return the mean of $-\ln p$ over the answer's tokens, $p$ being the probability that the model gave to the
# token before it came.
#
# <details><summary>My loss of a trained model is as high as that of an untrained one</summary>At which place does
# the model foretell token 5? Write the places of logits and ids in two rows under each other.</details>
# <details><summary>My loss is lower than the library's</summary>Questions are easy to foretell, and padding is
# easier still. Over which places do you average?</details>


# %% nbgrader={"grade_id": "A1-2-loss", "solution": true}
def answer_loss(logits, ids, first):
    """Mean cost in nats of the tokens from `first` on."""
    ### BEGIN SOLUTION
    return torch.nn.functional.cross_entropy(logits[first - 1 : -1], ids[first:])
    ### END SOLUTION


# %% nbgrader={"grade_id": "A1-2-check", "grade": true, "locked": true, "points": 3}
checks.check("A1.2", answer_loss)

# %% [markdown]
# ### Exercise A1.3 One merge of the tokenizer
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●●○ | 15 | an algorithm on counts, and its corner cases |
#
# `words` maps words, each a tuple of symbols, to how often they occur: `{("l", "o", "w"): 2, ...}`. Find the
# pair of neighbouring symbols that occurs most often (no two are equally frequent), and merge it in every word, from left to right. Return
# the pair and the new `words`. Close your eyes to the cells above.
#
# <details><summary>I chose another pair</summary>A word that occurs five times shows its pairs five times, and a
# pair that stands twice in a word counts twice.</details>
# <details><summary>Symbols multiply</summary>In <code>a a a</code>, merged from the left, how many symbols are
# left over?</details>
# <details><summary>Words are merged that do not hold the pair</summary>Do you compare symbols, or text in which
# the borders between symbols are lost?</details>


# %% nbgrader={"grade_id": "A1-3-merge", "solution": true}
def merge_step(words):
    """(pair, words after the merge)."""
    ### BEGIN SOLUTION
    counts = pair_counts(words)
    pair = max(counts, key=counts.get)
    return pair, {joined(word, pair): count for word, count in words.items()}
    ### END SOLUTION


# %% nbgrader={"grade_id": "A1-3-check", "grade": true, "locked": true, "points": 3}
checks.check("A1.3", merge_step)

# %% [markdown]
# ### Exercise A1.4 What would leak? (open)
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●●● | 25 | telling a leak from knowledge that is wanted |
#
# The course claims that TinyVLM, before tuning, knows what things mean and not what a palette does. Someone
# proposes five additions to pretraining:
#
# 1. captions that also say how a scene looks: "a chair in a dark, grey room";
# 2. texts without any image: "Grey is often linked with sadness.";
# 3. scenes in which sad things stand in sad palettes more often than in others, with captions as they are;
# 4. captions of the val images, objects and setting only, without their emotion;
# 5. the questions "Which one of ... do the things in the picture bring?", which it has already.
#
# For each: does it make the claim untrue, and by which path? Which of them would the searches above have
# found? For one that they would not have found, write down a search that would.
#
# *Rubric (5 points): each of the five is judged with a path from the addition to an answer of the model (2); 3
# is seen to leak without any word of it (1); the limits of a search for words are named (1); the search
# proposed would come out differently with and without the leak (1).*

# %% [markdown] nbgrader={"grade_id": "A1-4-argument", "grade": true, "solution": true, "points": 5}
# ### BEGIN SOLUTION
# 1 gives the model words for looks, and no feeling: alone it leaks nothing about emotions, but together with 2 it
# closes a chain (image, "grey", "sadness"). 2 alone is knowledge of language, which large VLMs have; it makes the
# claim untrue as soon as the model can name a look, be it through 1 or through the instructions. So either is
# harmless only as long as the other is missing. 3 leaks without a word: the model learns to expect sad things in
# grey scenes, answers with their emotion where it sees no object well, and has then learnt what a palette does,
# from co-occurrence. 4 does not tell an emotion, but the val images are then no longer new: objects on them are
# named better than on test images, settings chosen on val are chosen on known images, and the gate is trained
# on answers that are too good. 5 asks for the things and is answered from the nouns alone, which is the knowledge
# that is wanted; it does teach the form of the answer, so that what tuning adds is to be read per cue. The search
# for words finds 1 (in texts with an image) and would have to be widened to texts without one for 2; exchanging
# the atmospheres finds 1, not 3, since each text of 3 still follows from its nouns. To find 3: tabulate emotion of
# the objects against texture and hue over many scenes, and compare with the same table after the atmospheres were
# shuffled among the scenes; drawn apart, the two differ no more than two shuffles do. To find 4: compare the pixel
# hashes of everything that was trained on with those of the labelled splits.
# ### END SOLUTION

# %%
checks.progress()

# %% [markdown]
# ## Further reading
#
# - P. Wang et al. (2024). Qwen2-VL: enhancing vision-language model's perception of the world at any resolution.
#   [arXiv:2409.12191](https://arxiv.org/abs/2409.12191)
# - R. Sennrich, B. Haddow, A. Birch (2016). Neural machine translation of rare words with subword units. *ACL*.
#   [doi:10.18653/v1/P16-1162](https://doi.org/10.18653/v1/P16-1162)
# - J. Ainslie et al. (2023). GQA: training generalized multi-query transformer models from multi-head
#   checkpoints. [arXiv:2305.13245](https://arxiv.org/abs/2305.13245)
# - G. Alain, Y. Bengio (2016). Understanding intermediate layers using linear classifier probes.
#   [arXiv:1610.01644](https://arxiv.org/abs/1610.01644)
# - M. Mitchell et al. (2019). Model cards for model reporting. *FAT\**.
#   [doi:10.1145/3287560.3287596](https://doi.org/10.1145/3287560.3287596)
