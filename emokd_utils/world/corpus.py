"""What TinyVLM reads in pretraining: captions, questions and knowledge about nouns (lesson A1).

Every text is about *objects* and *settings*. None is about an image's emotion or about how a scene
looks, so that TinyVLM knows what things mean to people, and was never taught what a palette does.
"""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from ..emotions import MIKELS
from .describe import LOOK_WORDS
from .painting import SETTINGS
from .scenes import HOME, PLACES, Scene, article, caption, scene_objects

PROMPTS = tomllib.loads((HOME / "prompts.toml").read_text("utf-8"))
CATEGORICAL_PROMPTS = PROMPTS["categorical"]
# Facts of language, so that the tokenizer knows the words of the instructions; of no feeling.
WORDS = {
    "a colour": ("red", "orange", "yellow", "green", "blue", "violet", "pink", "grey"),
    "a kind of weather": tuple(LOOK_WORDS["weather"].values()),
    "a kind of light": tuple(LOOK_WORDS["light"].values()),
    "a texture": tuple(LOOK_WORDS["texture"].values()),
    "a word for brightness": ("bright", "dim", "dark"),
    "a word for colourfulness": ("vivid", "soft", "muted", "pale"),
}


@dataclass(frozen=True)
class Turn:
    """One question and its answer; ``image``: whether the question goes with the image."""

    prompt: str
    answer: str
    image: bool = True


FEELING = {o.noun: o.emotion.replace("neutral", "nothing") for o in scene_objects()}
WHY = {o.noun: o.why for o in scene_objects()}


def sentence(text: str) -> str:
    """``text`` with a capital letter and a full stop."""
    return text[0].upper() + text[1:] + "."


def left_to_right(scene: Scene) -> list[str]:
    """The scene's nouns, ordered by where they stand."""
    pairs = zip(scene.boxes, scene.objects, strict=True)
    return [noun for _, noun in sorted(pairs, key=lambda pair: pair[0][0])]


def _ask(rng: Random, kind: str, **words: str) -> str:
    return rng.choice(PROMPTS[kind]).format(**words)


def _caption(rng: Random, scene: Scene) -> Turn:
    text, prompt = caption(left_to_right(scene), scene.setting), _ask(rng, "caption")
    forms = (sentence(text), sentence(text), f"I see {text}.", f"The image shows {text}.")
    return Turn(prompt, rng.choice(forms))


def _question(rng: Random, scene: Scene) -> Turn:
    nouns = left_to_right(scene)
    kind = rng.randrange(5)
    if kind in (0, 1):
        noun = rng.choice(nouns if kind == 0 else [noun for noun in FEELING if noun not in nouns])
        return Turn(_ask(rng, "presence", thing=article(noun)), "No." if kind else "Yes.")
    if kind == 2 and len(nouns) > 1:
        noun = rng.choice(nouns)
        side = {nouns[0]: "On the left.", nouns[-1]: "On the right."}
        return Turn(f"Where is the {noun}?", side.get(noun, "In the middle."))
    if kind == 3:
        return Turn(_ask(rng, "number"), ("One.", "Two.", "Three.")[len(nouns) - 1])
    return Turn(_ask(rng, "setting"), sentence(PLACES[scene.setting]))


def _brings(nouns: Iterable[str]) -> str:
    return sentence(" and ".join(f"{article(noun)} brings {FEELING[noun]}" for noun in nouns))


def _emotions_of(scene: Scene) -> list[str]:
    return sorted({FEELING[noun] for noun in scene.objects} - {"nothing"})


def _listed(rng: Random, scene: Scene) -> Turn:
    return Turn(_ask(rng, "list"), _brings(left_to_right(scene)))


def _reason(rng: Random, scene: Scene) -> Turn:
    nouns = left_to_right(scene)
    evocative = [noun for noun in nouns if FEELING[noun] != "nothing"]
    reasons = [f"{_meaning(noun)} It brings {FEELING[noun]}." for noun in evocative[:2]]
    texts = [sentence(caption(nouns, scene.setting)), *reasons]
    texts += [] if reasons else ["These are everyday things. They bring nothing."]
    return Turn(_ask(rng, "reason"), " ".join(texts))


def _meaning(noun: str) -> str:
    return sentence(f"{article(noun)} is {WHY[noun]}")


def _one_feeling(rng: Random, scene: Scene) -> Turn:
    noun = rng.choice(scene.objects)
    return Turn(_ask(rng, "feeling", noun=noun), sentence(FEELING[noun]))


def _any_feeling(rng: Random, scene: Scene) -> Turn:
    present = _emotions_of(scene)
    emotion = rng.choice(present if present and rng.random() < 0.5 else MIKELS.labels)
    answer = "Yes." if emotion in present else "No."
    return Turn(f"Is there something in the image that brings {emotion}?", answer)


def _categorical(rng: Random, scene: Scene) -> Turn:
    present, labels = _emotions_of(scene), list(MIKELS.labels)
    if len(present) > 1:
        return _listed(rng, scene)
    prompt = rng.choice(CATEGORICAL_PROMPTS)
    if rng.random() < 0.5:
        rng.shuffle(labels)
    answer = {"emotion": present[0] if present else "nothing"}
    return Turn(prompt.format(labels=", ".join(labels)), str(answer))


# Share of each kind of text; the rest is knowledge without an image.
MIXTURE = {
    _caption: 0.20,
    _question: 0.10,
    _listed: 0.15,
    _reason: 0.10,
    _one_feeling: 0.10,
    _any_feeling: 0.05,
    _categorical: 0.20,
}


def draw_turn(rng: Random, scene: Scene) -> Turn:
    """A random text for a scene, in the proportions of ``MIXTURE``."""
    point = rng.random()
    for writer, share in MIXTURE.items():
        point -= share
        if point < 0:
            return writer(rng, scene)
    return knowledge(rng)


def knowledge(rng: Random) -> Turn:
    """A text-only fact about a noun, an emotion or a word."""
    noun = rng.choice(scene_objects()).noun
    thing, feeling = article(noun), FEELING[noun]
    kind = rng.randrange(7)
    if kind == 0:
        prompt, answer = _ask(rng, "meaning", thing=thing), sentence(feeling)
    elif kind == 1:
        prompt, answer = f"What does {thing} mean to people?", _meaning(noun)
    elif kind == 2:
        emotion = rng.choice(MIKELS.labels)
        example = rng.choice([noun for noun in FEELING if FEELING[noun] == emotion])
        prompt, answer = f"Name something that brings {emotion}.", sentence(article(example))
    elif kind == 3:
        true = feeling != "nothing" and rng.random() < 0.5
        emotion = feeling if true else rng.choice(MIKELS.labels)
        prompt, answer = f"Does {thing} bring {emotion}?", "Yes." if emotion == feeling else "No."
    elif kind == 4:
        emotion = rng.choice(MIKELS.labels)
        prompt = f"Is {emotion} a positive or a negative emotion?"
        answer = sentence(MIKELS.polarity[emotion])
    elif kind == 5:
        group = rng.choice(sorted(WORDS))
        prompt, answer = f"Name {group}.", sentence(rng.choice(WORDS[group]))
    else:
        nouns = list(dict.fromkeys([noun, *(o.noun for o in rng.sample(scene_objects(), 2))]))
        place = caption(nouns, rng.choice(SETTINGS))
        prompt, answer = f"There is {place}. What does each thing bring?", _brings(nouns)
    return Turn(prompt, answer, image=False)


def tokenizer_corpus(scenes: Iterable[Scene], seed: int = 0) -> list[str]:
    """What the tokenizer's merges are learnt on: every kind of text, every word of the lists."""
    rng = Random(seed)
    turns = [draw_turn(rng, scene) for scene in scenes]
    lines = [text for turn in turns for text in (turn.prompt, turn.answer)]
    lines += [f"{_meaning(noun)} The {noun} brings {FEELING[noun]}." for noun in WHY] * 6
    words = sum(WORDS.values(), ())
    lines += [f"the {word} light and {word} colours, {word}." for word in words] * 6
    lines += [str({"emotion": label}) for label in (*MIKELS.labels, "nothing")] * 40
    return lines
