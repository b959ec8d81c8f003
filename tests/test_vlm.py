import shutil

import numpy as np
import pytest
import torch

from emokd_utils import vlm as vlm_module
from emokd_utils.emotions import MIKELS
from emokd_utils.errors import InputError
from emokd_utils.instructions import AnswerCollator, answer_for, categorical_prompt, trained_text
from emokd_utils.profiles import MINI
from emokd_utils.vlm import VLM, common_prefix, parse_answer


def one_by_one(vlm, image, prompt, answer):
    """Log-likelihood of one answer, by one plain pass over the whole text."""
    batch = AnswerCollator(vlm.processor)([{"image": image, "prompt": prompt, "answer": answer}])
    with torch.inference_mode():
        log_p = vlm.model(**{k: v for k, v in batch.items() if k != "labels"}).logits.log_softmax(
            -1
        )
    targets = batch["labels"][0, 1:]
    learnt = targets != -100
    return log_p[0, :-1][learnt].gather(1, targets[learnt][:, None]).sum().item()


def test_scores_equal_those_of_each_answer_by_itself(random_vlm, images):
    prompt = categorical_prompt(MIKELS)
    answers = [answer_for(label) for label in MIKELS] + ["{'emotion': 'nothing'}", "A coffin."]
    scores = random_vlm.score(images, prompt, answers)
    assert scores.shape == (5, 10)
    expected = [[one_by_one(random_vlm, image, prompt, a) for a in answers] for image in images]
    np.testing.assert_allclose(scores, expected, atol=1e-4)


def test_scores_of_images_of_different_sizes_equal_those_alone(random_vlm, images):
    mixed = [images[0], images[1].resize((200, 90)), images[2].resize((60, 160))]
    answers = [answer_for(label) for label in MIKELS]
    together = random_vlm.score(mixed, "Which emotion?", answers)
    alone = np.concatenate(
        [random_vlm.score([image], "Which emotion?", answers) for image in mixed]
    )
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_features_are_the_mean_of_the_visual_tokens(random_vlm, images):
    tokens = random_vlm.visual_tokens(images)
    assert [t.shape for t in tokens] == [(16, 256)] * 5
    features = random_vlm.features(images)
    assert features.shape == (5, 256)
    np.testing.assert_allclose(features[3], tokens[3].numpy().mean(0), atol=1e-6)


def test_generation_does_not_depend_on_the_batch(random_vlm, images):
    mixed = [images[0], images[1].resize((200, 90)), images[2]]
    together = random_vlm.generate(mixed, "Describe the image.", max_new_tokens=6)
    assert together == [random_vlm.generate([i], "Describe the image.", 6)[0] for i in mixed]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("{'emotion': 'anger'}", "anger"),
        ('{"emotion": "Anger"}', "anger"),
        ("{'emotion': 'sad", "sadness"),
        ("The answer is {'emotion': 'awe'}.", "awe"),
        ("emotion: content", "contentment"),
        ("Fear.", "fear"),
        ("I feel sad looking at it.", "sadness"),
        ("{'emotion': 'joy'}", None),
        ("{'emotion': 'nothing'}", None),
        ("either anger or fear", None),
        ("a chair in a room", None),
        ("", None),
        ("'" * 500, None),
    ],
)
def test_parser(text, label):
    assert parse_answer(text, MIKELS) == label


def test_common_prefix_leaves_a_token_of_every_row():
    assert common_prefix([[1, 2, 3], [1, 2, 4, 5]]) == [1, 2]
    assert common_prefix([[1, 2], [1, 2, 3]]) == [1]
    assert common_prefix([[7], [7]]) == []


def test_only_the_answer_is_trained_on(random_vlm, images):
    answers = ["{'emotion': 'anger'}", "A coffin and a chair in a room."]
    examples = [
        {"image": image, "prompt": categorical_prompt(MIKELS), "answer": answer}
        for image, answer in zip(images, answers, strict=False)
    ]
    batch = AnswerCollator(random_vlm.processor)(examples)
    tokenizer = random_vlm.processor.tokenizer
    assert trained_text(batch, tokenizer) == [a + "<|im_end|>" for a in answers]
    for row, labels, mask in zip(
        batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True
    ):
        learnt = labels != -100
        assert (row[learnt] == labels[learnt]).all()
        begin = int(learnt.nonzero()[0])
        assert tokenizer.decode(row[:begin]).endswith("<|im_start|>assistant\n")
        assert not learnt[~mask.bool()].any()
    assert batch["mm_token_type_ids"].sum(1).tolist() == [16, 16]


def test_missing_model_is_named(tmp_path):
    with pytest.raises(InputError, match="config.json"):
        VLM.load(tmp_path)
    with pytest.raises(InputError, match="no such name! cannot be loaded: .* in reach"):
        VLM.load("no such name!")


def test_a_model_that_was_cut_off_is_named(tmp_path):
    for path in MINI.path(MINI.vlm.name).iterdir():
        shutil.copy(path, tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match=f"{tmp_path.name} cannot be loaded"):
        VLM.load(tmp_path)


def test_no_more_images_than_a_batch_pass_at_once(random_vlm, images):
    many, answers = (images * 3)[:5], ["fear", "awe"]
    ask = {
        "score": lambda vlm: vlm.score(many, "Which?", answers),
        "features": lambda vlm: vlm.features(many),
        "scores": lambda vlm: vlm.score_with_features(many, "Which?", answers)[0],
        "features too": lambda vlm: vlm.score_with_features(many, "Which?", answers)[1],
    }
    whole = {name: asked(random_vlm) for name, asked in ask.items()}
    seen, see = [], VLM._see
    small = VLM(random_vlm.model, random_vlm.processor, batch_size=2)

    def watched(vlm, inputs):
        seen.append(len(inputs["image_grid_thw"]))
        return see(vlm, inputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VLM, "_see", watched)
        for name, asked in ask.items():
            np.testing.assert_allclose(asked(small), whole[name], atol=1e-4)
    assert seen == [2, 2, 1] * 4
    written = small.generate(many, "Which?", 3)
    assert written == random_vlm.generate(many, "Which?", 3) and len(written) == 5


def test_scores_and_features_of_one_pass_equal_those_of_two(random_vlm, images):
    mixed = [images[0], images[1].resize((200, 90)), images[2]]
    answers = [answer_for(label) for label in MIKELS]
    scores, features = random_vlm.score_with_features(mixed, "Which emotion?", answers)
    np.testing.assert_allclose(
        scores, random_vlm.score(mixed, "Which emotion?", answers), atol=1e-5
    )
    np.testing.assert_allclose(features, random_vlm.features(mixed), atol=1e-5)


def test_without_glibc_freed_memory_is_left_alone(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(vlm_module.ctypes, "CDLL", missing)
    assert vlm_module.keep_freed_memory() is None
