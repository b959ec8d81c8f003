"""Reading answers: what is declared, what is only named, and what is nothing."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from emokd_utils.answers import parse_answer
from emokd_utils.emotions import EKMAN, MIKELS, POLARITY, infer_label_set
from emokd_utils.errors import InputError
from emokd_utils.instructions import answer_for

DECLARED = {
    "{'emotion': 'anger'}": "anger",
    '{"emotion": "Anger"}': "anger",
    "{‘emotion’: ‘Anger’}": "anger",
    "{emotion: anger}": "anger",
    "{'emotion': 'sad": "sadness",
    "{'emotion': 'conten": None,
    "The answer is {'emotion': 'awe'}, not fear.": "awe",
    "```json\n{'emotion': 'awe'}\n```": "awe",
    '{"label": "awe", "score": 0.7, "runner_up": "fear"}': "awe",
    '{"primary_emotion": "awe", "secondary_emotion": "fear"}': "awe",
    '{"emotion": "fear",\n "reason": "the path is lost in sadness"}': "fear",
    "**Emotion**: Disgust": "disgust",
    "**Emotion:** Disgust\n**Why:** the fear in her eyes": "disgust",
    "### Emotion\nFear\n\nSadness is not far.": "fear",
    "emotion: content": "contentment",
    "Emotion: Fear, because of the sadness in it": "fear",
    "Emotion: Contentment. The cat sleeps and nothing moves.": "contentment",
    "Emotion: fear (with some sadness)": "fear",
    "Answer: (C) excitement": "excitement",
    "(C) excitement": "excitement",
    "B. awe\nThe sky is wide, nearly a fear.": "awe",
    r"So it is \boxed{\text{anger}}.": "anger",
    "<answer>awe</answer> and no fear": "awe",
    "Fear.": "fear",
    "**fear**": "fear",
    "Fear\n\nThe path is lost in sadness.": "fear",
    "{'emotion': 'surprise'}<|im_end|>": None,
    "{'emotion': 'fear'}<|im_end|>": "fear",
    "I was asked for {'emotion': '...'}. Mine: {'emotion': 'awe'}": "awe",
    "{'emotion': 'sadness'} No, the smile decides: {'emotion': 'awe'}": "awe",
    "Sorry, I cannot be sure: {'emotion': 'awe'}": "awe",
    "<think>{'emotion': 'anger'}? No.</think>{'emotion': 'awe'}": "awe",
    "It may be fear.</think>\n{'emotion': 'awe'}": "awe",
    "<think>It must be fear": None,
    "<think>fear</think>I cannot tell.": None,
    "{'emotion': 'joy'}": None,
    "{'emotion': 'nothing'}, though the fear is plain": None,
    "{'emotion': 'fear, sadness'}": None,
    "{'emotion': 'awe/contentment'}": None,
    "{'emotion': ['fear', 'sadness']}": None,
    "{'emotion': 'disgust or anger'}": None,
    "{'emotion': 'not fear'}": None,
    "[{'emotion': 'anger'}, {'emotion': 'fear'}]": None,
    "[{'emotion': 'anger', 'p': 0.6}, {'emotion': 'fear', 'p': 0.4}]": None,
    "1. Emotion: anger, for the fist\n2. Emotion: fear, for the eyes": None,
    "- anger\n- fear": None,
    "{'anger': 0.4, 'fear': 0.6}": None,
}
NAMED = {
    "I feel sad looking at it.": "sadness",
    "The cat looks content in the sun.": "contentment",
    "A content smile.": "contentment",
    "This is awe, without a doubt.": "awe",
    "either anger or fear": None,
    "Is it fear?": None,
    "a chair in a room": None,
    "": None,
    "'" * 500: None,
    "The content of the picture is a street.": None,
    "The image content: a dog on a beach": None,
    "**Content**\nA dog on a beach.": None,
    "I'm afraid there is nothing to see.": None,
    "Nothing here makes one sad.": None,
    "It does not convey sadness.": None,
    "It isn't sad.": None,
    "Sadness is not what it conveys.": None,
    "Neither awe nor fear.": None,
    "Not only fear but also sadness.": None,
    "I cannot judge emotions such as fear.": None,
    "As an AI I feel no awe.": None,
}


@pytest.mark.parametrize(("text", "label"), (DECLARED | NAMED).items())
def test_what_an_answer_names(text, label):
    assert parse_answer(text, MIKELS) == label


@pytest.mark.parametrize(
    ("text", "label_set", "label"),
    [
        ("There is much negative space around it.", POLARITY, None),
        ("{'emotion': 'strongly positive'}", POLARITY, "positive"),
        ("I'm happy to help.", EKMAN, None),
        ("Everybody is happy.", EKMAN, "joy"),
        ("There are 2 dogs.", infer_label_set("123"), None),
        ("class 12", infer_label_set(["class 1", "class 12"]), "class 12"),
        ("{'emotion': 'Very good'}", infer_label_set(["very_good", "very_bad"]), "very_good"),
        ("情绪 (emotion)： 愤怒。", infer_label_set(["愤怒", "快乐"]), "愤怒"),
    ],
)
def test_what_an_answer_names_of_other_sets(text, label_set, label):
    assert parse_answer(text, label_set) == label


VISIBLE = st.characters(exclude_categories=("Cc", "Cs", "Cn", "Zl", "Zp"))


@given(st.lists(st.text(VISIBLE, min_size=1, max_size=8), min_size=2, max_size=5))
def test_every_label_is_found_in_its_own_answer(names):
    try:
        labels = infer_label_set(names)
    except InputError:
        assume(False)
    for label in labels:
        answer = answer_for(label)
        assert parse_answer(answer, labels) == parse_answer(f"I say {answer}.", labels) == label
