"""Maps of what a model looked at: by hand where it can be reckoned, and where they must not lie."""

from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from emokd_utils.emotions import MIKELS
from emokd_utils.errors import InputError
from emokd_utils.explanations import answers_of, attention, explain, grad_cam, occlusion
from emokd_utils.instructions import answer_for, categorical_prompt
from emokd_utils.maps import (
    CAVEATS,
    Explanation,
    load_explanations,
    save_explanations,
    share_inside,
    share_table,
)
from emokd_utils.settings import VisionSettings
from emokd_utils.vision import VisionModel, build_network
from emokd_utils.vlm import VLM
from emokd_utils.world.boxes import boxes, cue_boxes


def corner(images):
    """Two classes; the first is as likely as the upper left of 64 cells is bright."""
    bright = np.array([np.asarray(image)[:10, :20].mean() / 255 for image in images])
    return np.stack([bright, 1 - bright], 1)


def model_of(name, side):
    torch.manual_seed(0)
    settings = VisionSettings(name=name, image_size=side)
    network = build_network(settings, 8).eval() if name else ChannelsLast()
    return VisionModel(network, tuple(MIKELS), settings, 0, 1, [], "")


class ChannelsLast(nn.Module):
    """A network whose one stage gives (n, rows, columns, channels), as Swin's do."""

    feature_info = [{"module": "stage", "num_chs": 5}]
    pretrained_cfg = {"mean": (0, 0, 0), "std": (1, 1, 1)}

    def __init__(self):
        super().__init__()
        self.stage, self.head = nn.Linear(3, 5), nn.Linear(5, 8)

    def forward(self, x):
        return self.head(self.stage(x.permute(0, 2, 3, 1)).mean((1, 2)))


def test_occlusion_by_hand():
    pixels = np.zeros((80, 160, 3), np.uint8)
    pixels[:10, :20] = 255
    lit, fall = Image.fromarray(pixels), 1 - 4 / 255  # the mean colour is 255 / 64, rounded
    # the one window at the corner hides it; a cell has the mean of the windows over it
    expected = np.zeros((8, 8))
    expected[:2, :2] = fall * np.array([[1, 1 / 2], [1 / 2, 1 / 4]])
    values = [occlusion(corner, lit, place).values for place in (0, 1)]
    np.testing.assert_allclose(values, [expected, -expected], atol=1e-6)


def test_each_pixel_has_its_cells_value_and_none_outside_of_the_area():
    values = np.array([[1.0, 2.0], [3.0, 4.0]])
    found = Explanation(values, "Grad-CAM", area=(0.25, 0, 0.75, 1)).on_pixels(8, 4)
    row = [np.nan, np.nan, 1, 1, 2, 2, np.nan, np.nan]
    np.testing.assert_equal(found[:2], [row, row])
    np.testing.assert_equal(found[3, 2:6], [3, 3, 4, 4])


def test_share_inside_by_hand():
    one = Explanation(np.array([[3.0, -5.0], [1.0, 0.0]]), "occlusion")
    assert share_inside(one, [(0, 0, 4, 4)], (8, 8)) == 0.75
    assert share_inside(one, [(0, 0, 2, 4), (0, 4, 4, 4)], (8, 8)) == 0.375 + 0.25
    assert share_inside(one, [(0, 0, 4, 4), (0, 0, 4, 4)], (8, 8)) == 0.75, "a union, not a sum"
    assert np.isnan(share_inside(Explanation(np.zeros((2, 2)), "occlusion"), [], (8, 8)))


def by_hand(model, layer, image, label, to_map):
    """Grad-CAM: channels weighted by their mean gradient, summed, cut at 0."""
    kept = []
    hook = layer.register_forward_hook(lambda module, args, out: kept.append(out))
    logit = model.network(model.inputs([image]))[0, MIKELS.index(label)]
    hook.remove()
    (slope,) = torch.autograd.grad(logit, kept[0])
    channels, slope = to_map(kept[0][0]), to_map(slope[0])  # (channels, rows, columns)
    return (slope.mean((1, 2), keepdim=True) * channels).sum(0).clamp(min=0).detach().numpy()


@pytest.mark.parametrize(
    ("name", "side", "label", "layer", "to_map"),
    [  # of a ResNet the last stage of at least four cells a side
        ("resnet10t", 64, "fear", "layer3", lambda x: x),
        ("test_vit", 160, "fear", "blocks.5.norm1", lambda x: x[1:].T.unflatten(1, (10, 10))),
        ("", 6, "awe", "stage", lambda x: x.permute(2, 0, 1)),
    ],
)
def test_grad_cam_is_its_definition(images, name, side, label, layer, to_map):
    model = model_of(name, side)
    found = grad_cam(model, images[0], label).values
    expected = by_hand(model, model.network.get_submodule(layer), images[0], label, to_map)
    np.testing.assert_allclose(found, expected, atol=1e-6, strict=True)
    assert found.any()


def test_grad_cam_covers_the_square_that_the_model_sees_or_says_that_there_is_none(images):
    model = model_of("", 6)
    assert grad_cam(model, images[0].resize((200, 100)), "awe").area == (0.25, 0, 0.75, 1)
    model.network.feature_info = []
    with pytest.raises(InputError, match="ChannelsLast has no map of channels"):
        grad_cam(model, images[0], "awe")


def test_attention_is_that_of_the_token_before_the_label(random_vlm, images):
    vlm, image = random_vlm, images[0].resize((112, 56))
    prompt, answers = categorical_prompt(MIKELS), [answer_for(label) for label in MIKELS]
    found = vlm.attention(image, prompt, answers)  # (layers, heads, rows, columns)
    assert found.shape[3] == 2 * found.shape[2] > 2, "of a wide image"
    assert vlm.core.config._attn_implementation != "eager", "left as it was"

    rows = [vlm.processor.tokenizer(a, add_special_tokens=False)["input_ids"] for a in answers]
    shared = next(rows[0][:k] for k in range(9, 0, -1) if len({tuple(r[:k]) for r in rows}) == 1)
    inputs = vlm.inputs([image], prompt)
    longer = {"input_ids": shared, "attention_mask": [1] * len(shared)}
    for name, more in (longer | {"mm_token_type_ids": [0] * len(shared)}).items():
        inputs[name] = torch.cat([inputs[name], torch.tensor([more])], 1)
    vlm.core.set_attn_implementation("eager")
    with torch.inference_mode():
        out = vlm.model(**inputs, output_attentions=True)
    vlm.core.set_attn_implementation("sdpa")
    last = torch.stack([layer[0, :, -1] for layer in out.attentions])
    visual = inputs["input_ids"][0] == vlm.core.config.image_token_id
    expected = last[..., visual].reshape(found.shape)
    np.testing.assert_allclose(found, expected, atol=1e-6)

    shares = attention(vlm, image, MIKELS).values
    np.testing.assert_allclose(shares, found.mean((0, 1)) / found.mean((0, 1)).sum(), atol=1e-6)


def test_explain_gives_four_named_maps_and_the_file_keeps_them(random_vlm, images, tmp_path):
    vision = model_of("resnet10t", 64)
    found = explain(images[0], "fear", random_vlm, vision, MIKELS)
    names = [f"{one.model}, {one.method}" for one in found.values()]
    assert list(found) == names and names[:2] == ["VLM, occlusion", "vision model, occlusion"]
    assert [one.label for one in found.values()] == ["fear", "fear", "fear", ""]
    assert {one.caveat for one in found.values()} == set(CAVEATS.values())
    with pytest.raises(InputError, match="joy"):
        explain(images[0], "joy", random_vlm, vision, MIKELS)
    with patch.object(VLM, "attention", side_effect=InputError("no map")):
        with pytest.warns(UserWarning, match="no map"):
            assert list(explain(images[0], "fear", random_vlm, vision, MIKELS)) == names[:-1]

    fear = MIKELS.index("fear")
    for name, model in zip(names, (random_vlm, vision), strict=False):
        answers = answers_of(model, MIKELS)
        assert answers(images[:2]).sum(1) == pytest.approx(1)
        alone = occlusion(answers, images[0], fear).values
        np.testing.assert_array_equal(found[name].values, alone)
    save_explanations(tmp_path / "maps.safetensors", {"a": found, "b": {}, "c": found})
    again = load_explanations(tmp_path / "maps.safetensors")
    assert list(again) == ["a", "c"]
    for kept, expected in zip(again["c"].values(), found.values(), strict=True):
        np.testing.assert_equal(vars(kept), vars(expected))


@pytest.fixture
def world():
    """Three scenes of 10 x 10; the map knows the coffin and nothing of the rest."""
    things = ["coffin;chair", "chair;coffin", "chair"]
    places = ["0 0 5 5;5 5 5 5", "5 5 5 5;0 0 5 5", "5 5 5 5"]
    columns = {"cue": ["content", "content", "atmosphere"], "objects": things, "boxes": places}
    table = pd.DataFrame(columns, ["1", "2", "3"])
    return SimpleNamespace(table=table, root="there", open=lambda name: Image.new("RGB", (10, 10)))


def test_share_table_by_hand(world):
    knows = Explanation(np.array([[1.0, 0], [0, 0]]), "occlusion")
    even, nothing = (Explanation(np.full((2, 2), x), "occlusion") for x in (0.25, 0))
    maps = dict.fromkeys("123", {"knows": knows, "even": even, "nothing": nothing})
    table = share_table(maps, world, cue_boxes, world.table["cue"])
    columns = ["n", "share", "area", "inside_more"]
    assert table.loc[("content", "knows"), columns].tolist() == [2, 1, 0.25, 1]
    assert table.loc[("content", "even"), ["share", "inside_more"]].tolist() == [0.25, 0]
    assert table.loc[("atmosphere", "knows"), "share"] == 0
    assert "nothing" not in table.index.get_level_values("map")


def test_boxes_of_objects_and_of_those_that_evoke(world):
    assert boxes(world, "2") == {"chair": (5, 5, 5, 5), "coffin": (0, 0, 5, 5)}
    assert cue_boxes(world, "2") == {"coffin": (0, 0, 5, 5)}
    assert cue_boxes(world, "3") == {"chair": (5, 5, 5, 5)}
    world.table = world.table.drop(columns="boxes")
    with pytest.raises(InputError, match="there does not say where its objects are"):
        boxes(world, "1")
