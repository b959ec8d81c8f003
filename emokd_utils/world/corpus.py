"""What TinyVLM reads in pretraining: captions, questions and knowledge about nouns (lesson A1).

Every text is about *objects* and *settings*. None is about an image's emotion or about how a scene
looks, so that TinyVLM, like a real vision-language model, knows things and what they mean to
people, and was never taught what a palette does.
"""

from dataclasses import dataclass
from random import Random

from ..emotions import MIKELS
from .scenes import SETTINGS, Scene, article, caption, scene_objects

CAPTION_PROMPTS = (
    "Describe the image.",
    "What is in the image?",
    "What do you see?",
    "Describe this picture in one sentence.",
    "Write a caption for the image.",
    "List the objects in the image.",
    "Name what is shown here.",
    "What does the picture show?",
    "Observe the image and name the key elements.",
    "Which key elements do you see in this image?",
)
_FORM = "Answer in the form {{'emotion': 'label'}}."
CATEGORICAL_PROMPTS = (
    "Observe the objects in the image and select the emotion they bring to mind from {labels}. "
    + _FORM,
    "Which emotion do the objects in this image evoke? Select one of {labels}. " + _FORM,
    "Look at the things in the picture. Which one of {labels} do they bring? " + _FORM,
    "Select the emotion category that fits the objects in the image from {labels}, and answer in "
    "the form {{'emotion': 'label'}}.",
    "Choose from {labels}: what do the objects you see evoke? " + _FORM,
    "From {labels}, select the emotion that belongs to what is shown. " + _FORM,
)
REASON_PROMPTS = (
    "Explain which feeling the things in the image bring.",
    "What do the objects in the image mean to people, and why?",
    "Describe the key elements and explain what each brings to mind.",
    "How do the objects in the image lead to a feeling?",
)
LIST_PROMPTS = (
    "What is in the image and what does each thing bring?",
    "Name the objects and the feeling each of them brings.",
    "For every object you see, say which emotion it evokes.",
    "What does each thing in the picture bring to mind?",
)
PLACES = {
    "field": "In a field.",
    "room": "In a room.",
    "water": "By the water.",
    "street": "On a street.",
}
NUMBERS = {1: "One.", 2: "Two.", 3: "Three."}
# Words for light, colour and weather, so that the tokenizer knows them. Facts of language only: no feeling.
WORDS = {
    "a colour": ("red", "orange", "yellow", "green", "blue", "violet", "pink", "grey"),
    "a kind of weather": ("clear", "cloudy", "foggy", "rainy"),
    "a kind of light": ("flat", "glowing", "harsh", "beaming", "shadowed"),
    "a texture": (
        "plain",
        "dotted",
        "starry",
        "blurred",
        "striped",
        "cracked",
        "blotched",
        "grainy",
    ),
    "a word for brightness": ("bright", "dim", "dark"),
    "a word for colourfulness": ("vivid", "soft", "muted", "pale"),
}


@dataclass(frozen=True)
class Turn:
    """One question and its answer; ``image``: whether the question goes with the image."""

    prompt: str
    answer: str
    image: bool = True


FEELING = {o.noun: o.emotion if o.emotion != "neutral" else "nothing" for o in scene_objects()}
WHY = {o.noun: o.why for o in scene_objects()}


def sentence(text: str) -> str:
    """``text`` with a capital letter and a full stop."""
    return text[0].upper() + text[1:] + "."


def left_to_right(scene: Scene) -> list[str]:
    """The scene's nouns, ordered by where they stand."""
    return [
        noun
        for _, noun in sorted(
            zip(scene.boxes, scene.objects, strict=True), key=lambda pair: pair[0][0]
        )
    ]


def label_list(rng: Random, shuffled: bool = True) -> str:
    """Mikels' eight labels, separated by commas."""
    labels = list(MIKELS.labels)
    if shuffled:
        rng.shuffle(labels)
    return ", ".join(labels)


def _caption(rng: Random, scene: Scene) -> Turn:
    nouns = left_to_right(scene)
    text = caption(nouns, scene.setting)
    prompt = rng.choice(CAPTION_PROMPTS)
    answer = rng.choice(
        (sentence(text), sentence(text), f"I see {text}.", f"The image shows {text}.")
    )
    return Turn(prompt, answer)


def _question(rng: Random, scene: Scene) -> Turn:
    nouns = left_to_right(scene)
    kind = rng.randrange(5)
    if kind == 0:
        noun = rng.choice(nouns)
        return Turn(
            rng.choice((f"Is there {article(noun)} in the image?", f"Do you see {article(noun)}?")),
            "Yes.",
        )
    if kind == 1:
        noun = rng.choice([o.noun for o in scene_objects() if o.noun not in nouns])
        return Turn(
            rng.choice((f"Is there {article(noun)} in the image?", f"Do you see {article(noun)}?")),
            "No.",
        )
    if kind == 2 and len(nouns) > 1:
        noun = rng.choice(nouns)
        where = ("On the left.", "In the middle.", "On the right.")
        answer = where[0] if noun == nouns[0] else where[2] if noun == nouns[-1] else where[1]
        return Turn(f"Where is the {noun}?", answer)
    if kind == 3:
        return Turn(
            rng.choice(("How many objects are in the image?", "How many things do you see?")),
            NUMBERS[len(nouns)],
        )
    return Turn(
        rng.choice(("Where does this take place?", "What is the setting of the scene?")),
        PLACES[scene.setting],
    )


def _brings(noun: str) -> str:
    return f"{article(noun)} brings {FEELING[noun]}"


def _listed(rng: Random, scene: Scene) -> Turn:
    return Turn(
        rng.choice(LIST_PROMPTS), sentence(" and ".join(_brings(n) for n in left_to_right(scene)))
    )


def _reason(rng: Random, scene: Scene) -> Turn:
    nouns = left_to_right(scene)
    told = [n for n in nouns if FEELING[n] != "nothing"]
    answer = sentence(caption(nouns, scene.setting))
    for noun in told[:2]:
        answer += f" {sentence(article(noun) + ' is ' + WHY[noun])} It brings {FEELING[noun]}."
    if not told:
        answer += " These are everyday things. They bring nothing."
    return Turn(rng.choice(REASON_PROMPTS), answer)


def _one_feeling(rng: Random, scene: Scene) -> Turn:
    noun = rng.choice(scene.objects)
    prompts = (
        f"What feeling does the {noun} in the image bring?",
        f"Which emotion does the {noun} evoke?",
        f"What does the {noun} here bring to mind?",
    )
    return Turn(rng.choice(prompts), sentence(FEELING[noun]))


def _any_feeling(rng: Random, scene: Scene) -> Turn:
    present = {FEELING[n] for n in scene.objects} - {"nothing"}
    if present and rng.random() < 0.5:
        emotion = rng.choice(sorted(present))
    else:
        emotion = rng.choice(MIKELS.labels)
    return Turn(
        f"Is there something in the image that brings {emotion}?",
        "Yes." if emotion in present else "No.",
    )


def _categorical(rng: Random, scene: Scene) -> Turn | None:
    present = {FEELING[n] for n in scene.objects} - {"nothing"}
    if len(present) > 1:
        return None
    prompt = rng.choice(CATEGORICAL_PROMPTS).format(
        labels=label_list(rng, shuffled=rng.random() < 0.5)
    )
    return Turn(prompt, "{'emotion': '" + (present.pop() if present else "nothing") + "'}")


def knowledge(rng: Random) -> Turn:
    """A text-only fact about a noun, an emotion or a word."""
    item = rng.choice(scene_objects())
    noun, feeling = item.noun, FEELING[item.noun]
    kind = rng.randrange(7)
    if kind == 0:
        prompt = rng.choice(
            (
                f"What feeling does {article(noun)} bring?",
                f"Which emotion does {article(noun)} evoke?",
            )
        )
        return Turn(prompt, sentence(feeling), image=False)
    if kind == 1:
        return Turn(
            f"What does {article(noun)} mean to people?",
            sentence(f"{article(noun)} is {item.why}"),
            image=False,
        )
    if kind == 2:
        emotion = rng.choice(MIKELS.labels)
        example = rng.choice([o.noun for o in scene_objects() if o.emotion == emotion])
        return Turn(
            f"Name something that brings {emotion}.", sentence(article(example)), image=False
        )
    if kind == 3:
        emotion = (
            feeling if feeling != "nothing" and rng.random() < 0.5 else rng.choice(MIKELS.labels)
        )
        return Turn(
            f"Does {article(noun)} bring {emotion}?",
            "Yes." if emotion == feeling else "No.",
            image=False,
        )
    if kind == 4:
        emotion = rng.choice(MIKELS.labels)
        return Turn(
            f"Is {emotion} a positive or a negative emotion?",
            sentence(MIKELS.polarity[emotion]),
            image=False,
        )
    if kind == 5:
        group = rng.choice(sorted(WORDS))
        return Turn(f"Name {group}.", sentence(rng.choice(WORDS[group])), image=False)
    others = rng.sample(scene_objects(), 2)
    nouns = [noun] + [o.noun for o in others if o.noun != noun]
    prompt = f"There is {caption(nouns, rng.choice(SETTINGS))}. What does each thing bring?"
    return Turn(prompt, sentence(" and ".join(_brings(n) for n in nouns)), image=False)


# Share of each kind of text; the rest is knowledge without an image.
MIXTURE = (
    (_caption, 0.20),
    (_question, 0.10),
    (_listed, 0.15),
    (_reason, 0.10),
    (_one_feeling, 0.10),
    (_any_feeling, 0.05),
    (_categorical, 0.20),
)


def draw_turn(rng: Random, scene: Scene) -> Turn:
    """A random text for a scene, in the proportions of ``MIXTURE``."""
    point = rng.random()
    for writer, share in MIXTURE:
        point -= share
        if point < 0:
            return writer(rng, scene) or _listed(rng, scene)
    return knowledge(rng)


def tokenizer_corpus(scenes, seed: int = 0) -> list[str]:
    """Sentences on which the tokenizer's merges are learnt: every kind of text, and every word of
    the lists."""
    rng = Random(seed)
    lines = [
        turn_text
        for scene in scenes
        for turn in (draw_turn(rng, scene),)
        for turn_text in (turn.prompt, turn.answer)
    ]
    lines += [
        f"{sentence(f'{article(o.noun)} is {o.why}')} The {o.noun} brings {FEELING[o.noun]}."
        for o in scene_objects()
    ] * 6
    lines += [
        f"the {word} light and {word} colours, {word}."
        for words in WORDS.values()
        for word in words
    ] * 6
    lines += ["{'emotion': '" + label + "'}" for label in (*MIKELS.labels, "nothing")] * 40
    return lines
