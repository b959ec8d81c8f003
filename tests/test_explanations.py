"""Maps of what a model looked at: by hand where it can be reckoned, and where they must not lie."""

import math
from types import SimpleNamespace

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
from emokd_utils.world.boxes import boxes, cue_boxes


def corner(images):
    """Two classes; that of the first is as likely as the upper left quarter's quarter is bright."""
    bright = np.array([np.asarray(image)[:10, :10].mean() / 255 for image in images])
    return np.stack([bright, 1 - bright], 1)


@pytest.fixture
def lit():
    """40 x 40, black but for a white square of 10 x 10 in the upper left corner."""
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:10, :10] = 255
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def vision():
    return model_of("resnet10t", 64)


def model_of(name, side):
    torch.manual_seed(0)
    settings = VisionSettings(name=name, image_size=side)
    network = build_network(settings, 8).eval()
    return VisionModel(network, tuple(MIKELS), settings, 0, 1, [], "")


def test_occlusion_by_hand(lit):
    fall, expected = 1 - 16 / 255, np.zeros((4, 4))  # the mean colour is 255 / 16, rounded
    expected[0, 0] = fall
    values = [occlusion(corner, lit, k, cells=4, window=1).values for k in (0, 1)]
    np.testing.assert_allclose(values, [expected, -expected], atol=1e-6)
    # one window of four hides the corner; a cell has the mean of the windows over it
    expected[:2, :2] = fall * np.array([[1, 1 / 2], [1 / 2, 1 / 4]])
    values = occlusion(corner, lit, 0, cells=4, window=2).values
    np.testing.assert_allclose(values, expected, atol=1e-6)


def test_occlusion_takes_any_shape_and_says_what_does_not_fit(lit):
    asked = []

    def blind(images):
        asked.extend(image.size for image in images)
        return np.full((len(images), 2), 0.5)

    assert not occlusion(blind, lit.resize((90, 31)), 0).values.any()
    assert set(asked) == {(90, 31)}
    for cells, window in ((4, 5), (4, 0), (41, 1)):
        with pytest.raises(InputError, match=f"window {window} and cells {cells}"):
            occlusion(blind, lit, 0, cells=cells, window=window)


def test_each_pixel_has_its_cells_value_and_none_outside_of_the_area():
    values = np.array([[1.0, 2.0], [3.0, 4.0]])
    one = Explanation(values, "Grad-CAM", "m", "awe", (0.25, 0, 0.75, 1))
    found = one.on_pixels(8, 4)
    row = [np.nan, np.nan, 1, 1, 2, 2, np.nan, np.nan]
    np.testing.assert_equal(found[:2], [row, row])
    np.testing.assert_equal(found[3, 2:6], [3, 3, 4, 4])


def test_share_inside_by_hand():
    one = Explanation(np.array([[3.0, -5.0], [1.0, 0.0]]), "occlusion", "m", "awe")
    assert share_inside(one, [(0, 0, 4, 4)], (8, 8)) == 0.75
    assert share_inside(one, [(0, 0, 2, 4), (0, 4, 4, 4)], (8, 8)) == 0.375 + 0.25
    assert share_inside(one, [(0, 0, 4, 4), (0, 0, 4, 4)], (8, 8)) == 0.75, "a union, not a sum"
    assert math.isnan(share_inside(Explanation(np.zeros((2, 2)), "occlusion", "m"), [], (8, 8)))


def by_hand(network, layer, inputs, target):
    """Grad-CAM in four lines: channels weighted by their mean gradient, summed, cut at 0."""
    kept = []
    hook = layer.register_forward_hook(lambda module, args, out: kept.append(out))
    logit = network(inputs)[0, target]
    hook.remove()
    slope = torch.autograd.grad(logit, kept[0])[0]
    return (slope.mean((2, 3), keepdim=True) * kept[0]).sum(1)[0].clamp(min=0).detach().numpy()


def test_grad_cam_is_its_definition_on_the_square_that_the_model_sees(vision, images):
    inputs = vision.inputs(images[:1]).requires_grad_()
    found = grad_cam(vision, images[0], "fear")
    assert found.values.shape == (4, 4), "the last stage with four cells a side"
    expected = by_hand(vision.network, vision.network.layer3, inputs, MIKELS.index("fear"))
    np.testing.assert_allclose(found.values, expected, atol=1e-6)
    assert grad_cam(vision, images[0].resize((200, 100)), "awe").area == (0.25, 0, 0.75, 1)
    assert grad_cam(vision, images[0].resize((100, 200)), "awe").area == (0, 0.25, 1, 0.75)


def test_grad_cam_of_a_transformer_leaves_the_network_as_it_was(images):
    model = model_of("test_vit", 160)
    before = model.image_logits(images[:1])
    norm = model.network.blocks[-1].norm1
    found = grad_cam(model, images[0], "awe")
    assert found.values.shape == (10, 10)
    assert found.values.any()
    assert model.network.blocks[-1].norm1 is norm
    np.testing.assert_array_equal(model.image_logits(images[:1]), before)


class ChannelsLast(nn.Module):
    """A network whose one stage gives (n, rows, columns, channels), as Swin's do."""

    feature_info = [{"module": "stage", "num_chs": 5}]
    pretrained_cfg = {"mean": (0, 0, 0), "std": (1, 1, 1)}

    def __init__(self):
        super().__init__()
        self.stage, self.head = nn.Linear(3, 5), nn.Linear(5, 8)

    def forward(self, x):
        return self.head(self.stage(x.permute(0, 2, 3, 1)).mean((1, 2)))


def test_grad_cam_of_channels_last_and_of_no_map_at_all(images):
    torch.manual_seed(0)
    network = ChannelsLast()
    model = VisionModel(network, tuple(MIKELS), VisionSettings(image_size=6), 0, 1, [], "")
    found = grad_cam(model, images[0], "awe").values
    weight = network.head.weight[MIKELS.index("awe")] / 36
    seen = network.stage(model.inputs(images[:1])[0].permute(1, 2, 0))
    np.testing.assert_allclose(found, (seen @ weight).clamp(min=0).detach(), atol=1e-6)

    network.feature_info = []
    with pytest.raises(InputError, match="ChannelsLast has no map of channels"):
        grad_cam(model, images[0], "awe")
    with pytest.raises(InputError, match="does not know 'joy'"):
        grad_cam(model, images[0], "joy")


def test_attention_is_that_of_the_token_before_the_label(random_vlm, images):
    vlm, image = random_vlm, images[0].resize((112, 56))
    prompt, answers = categorical_prompt(MIKELS), [answer_for(label) for label in MIKELS]
    found = vlm.attention(image, prompt, answers)
    config = vlm.core.config
    text = config.text_config
    assert found.shape[:2] == (text.num_hidden_layers, text.num_attention_heads)
    assert found.shape[3] == 2 * found.shape[2] > 2, "rows and columns of a wide image"
    assert vlm.core.config._attn_implementation != "eager", "left as it was"

    rows = [vlm.processor.tokenizer(a, add_special_tokens=False)["input_ids"] for a in answers]
    shared = next(rows[0][:k] for k in range(9, 0, -1) if len({tuple(r[:k]) for r in rows}) == 1)
    inputs = vlm.inputs([image], prompt)
    ids = torch.cat([inputs["input_ids"], torch.tensor([shared])], 1)
    types = torch.cat([inputs["mm_token_type_ids"], torch.zeros(1, len(shared), dtype=int)], 1)
    vlm.core.set_attn_implementation("eager")
    with torch.inference_mode():
        out = vlm.model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=types,
            pixel_values=inputs["pixel_values"],
            image_grid_thw=inputs["image_grid_thw"],
            output_attentions=True,
        )
    vlm.core.set_attn_implementation("sdpa")
    last = torch.stack([layer[0, :, -1] for layer in out.attentions])
    assert last.sum(-1).numpy() == pytest.approx(1, abs=1e-5)
    expected = last[..., ids[0] == config.image_token_id].reshape(found.shape)
    np.testing.assert_allclose(found, expected, atol=1e-6)

    shares = attention(vlm, image, MIKELS).values
    np.testing.assert_allclose(shares, found.mean((0, 1)) / found.mean((0, 1)).sum(), atol=1e-6)


def test_explain_gives_four_named_maps_of_one_image(random_vlm, vision, images, tmp_path):
    found = explain(images[0], "fear", random_vlm, vision, MIKELS)
    assert list(found) == [
        "VLM, occlusion",
        "vision model, occlusion",
        "vision model, Grad-CAM",
        "VLM, attention",
    ]
    assert [one.label for one in found.values()] == ["fear", "fear", "fear", ""]
    assert {one.caveat for one in found.values()} == set(CAVEATS.values())
    with pytest.raises(InputError, match="joy"):
        explain(images[0], "joy", random_vlm, vision, MIKELS)

    grey = tuple(np.asarray(images[0]).mean((0, 1)).round().astype(int))
    corner_hidden = images[0].copy()
    corner_hidden.paste(grey, (0, 0, 28, 28))
    for model, name in ((random_vlm, "VLM"), (vision, "vision model")):
        seen = answers_of(model, MIKELS)([images[0], corner_hidden])[:, MIKELS.index("fear")]
        assert found[f"{name}, occlusion"].values[0, 0] == pytest.approx(
            seen[0] - seen[1], abs=1e-5
        )

    save_explanations(tmp_path / "maps.safetensors", {"a": found, "b": {}, "c": found})
    again = load_explanations(tmp_path / "maps.safetensors")
    assert list(again) == ["a", "c"]
    for name, one in again["c"].items():
        np.testing.assert_array_equal(one.values, found[name].values)
        about = (one.method, one.model, one.label, one.area)
        assert about == (found[name].method, found[name].model, found[name].label, found[name].area)


@pytest.fixture
def world():
    """Three scenes of 10 x 10; the map knows the coffin and nothing of the rest."""
    table = pd.DataFrame(
        {
            "cue": ["content", "content", "atmosphere"],
            "objects": ["coffin;chair", "chair;coffin", "chair"],
            "boxes": ["0 0 5 5;5 5 5 5", "5 5 5 5;0 0 5 5", "5 5 5 5"],
        },
        index=["1", "2", "3"],
    )
    return SimpleNamespace(table=table, root="there", open=lambda name: Image.new("RGB", (10, 10)))


def test_share_table_by_hand(world):
    knows = Explanation(np.array([[1.0, 0], [0, 0]]), "occlusion", "VLM", "sadness")
    even = Explanation(np.full((2, 2), 0.25), "attention", "VLM")
    cue = world.table["cue"]
    maps = {name: {"knows": knows, "even": even} for name in "123"}
    table = share_table(maps, world, cue_boxes, cue)
    columns = ["n", "share", "area", "inside_more"]
    assert table.loc[("content", "knows"), columns].tolist() == [2, 1, 0.25, 1]
    assert table.loc[("content", "even"), ["share", "inside_more"]].tolist() == [0.25, 0]
    assert table.loc[("atmosphere", "knows"), "share"] == 0
    nothing = Explanation(np.zeros((2, 2)), "occlusion", "VLM", "sadness")
    maps = {"1": {"m": nothing}, "2": {"m": knows}}
    assert share_table(maps, world, cue_boxes, cue)["n"].tolist() == [1]


def test_boxes_of_objects_and_of_those_that_evoke(world):
    assert boxes(world, "2") == {"chair": (5, 5, 5, 5), "coffin": (0, 0, 5, 5)}
    assert cue_boxes(world, "2") == {"coffin": (0, 0, 5, 5)}
    assert cue_boxes(world, "3") == {"chair": (5, 5, 5, 5)}
    world.table = world.table.drop(columns="boxes")
    with pytest.raises(InputError, match="there does not say where its objects are"):
        boxes(world, "1")
