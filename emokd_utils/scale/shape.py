"""A profile's models at their true shape, with random weights: what its stages take here, before
anything is fetched (lesson 10). Every stage runs as it would, on a few images."""

import ctypes
import gc
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import psutil
import torch
import transformers
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING_NAMES

from ..profiles import MINI, Profile, project_root
from ..run import stages
from ..run.run import Run, open_run
from ..training import default_device
from .devices import get_device
from .plan import CONTEXT, Images, Plan
from .sizes import read_vlm

MARKS = {  # a special token, and what processors call it
    "<image>": "image context_image",
    "<video>": "video",
    "<audio>": "audio",
    "<begin>": "boi boa start_image image_start slice_start image_id_start",
    "<end>": "eoi eoa end_image image_end slice_end image_id_end img_line_break",
}
CHAT = (
    "{% for message in messages %}<s>user: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}MARK{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}</s>{% endfor %}{% if add_generation_prompt %}<s>assistant:{% endif %}"
)


def build_processor(
    kind: str, image_processor, mark: str = "<image>", stock: str | None = None, **more
):
    """The stock processor of a type of model, or one of another name, around an image processor;
    its words are TinyVLM's, its chat has ``mark`` where an image is."""
    tiny = transformers.AutoTokenizer.from_pretrained(project_root() / MINI.vlm.name)
    named = {f"{name}_token": token for token, names in MARKS.items() for name in names.split()}
    ends = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tiny.backend_tokenizer, extra_special_tokens=named, **ends
    )
    names = {
        "processor": stock or PROCESSOR_MAPPING_NAMES[kind],
        "video_processor": VIDEO_PROCESSOR_MAPPING_NAMES.get(kind, {}).get("torchvision"),
        "feature_extractor": "Gemma4AudioFeatureExtractor",
    }
    made_by = {part: getattr(transformers, name) for part, name in names.items() if name}
    parts = {"tokenizer": tokenizer, "image_processor": image_processor}
    for part in {*made_by["processor"].get_attributes()} - parts.keys():
        parts[part] = made_by[part]()
    return made_by["processor"](chat_template=CHAT.replace("MARK", mark), **parts, **more)


def save_random_vlm(source: str, folder: Path) -> None:
    """Write a VLM of the shape of a folder or a known hub id, with random weights and, of a hub id,
    with a `build_processor`. InputError as `sizes.sized_vlm`."""
    config, processor, image_processor = read_vlm(source)
    if processor is None:
        vision, more = config.vision_config, {}
        if hasattr(config, "scale_factor"):  # tokens of a tile
            more["image_seq_len"] = (
                vision.image_size // vision.patch_size // config.scale_factor
            ) ** 2
        processor = build_processor(config.model_type, image_processor, **more)
        tokenizer = processor.tokenizer
        for name in ("image_token_id", "video_token_id"):
            setattr(config, name, getattr(tokenizer, name))
        ends = {
            f"{name}_token_id": getattr(tokenizer, f"{name}_token_id")
            for name in ("bos", "eos", "pad")
        }
        config.get_text_config().update(ends)
    torch.manual_seed(0)
    half = default_device().type == "cuda"
    with torch.device(default_device()):
        model = transformers.AutoModelForImageTextToText.from_config(
            config, dtype=torch.bfloat16 if half else torch.float32
        )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


class Watch:
    """Seconds and peak GB of what is done inside, beyond what was taken before (on a GPU: in all)."""

    def __enter__(self) -> "Watch":
        gc.collect()
        with suppress(OSError, AttributeError):  # what was freed goes back to the system
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        self.on_gpu, self.done = torch.cuda.is_available(), threading.Event()
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        self.start, self.most = time.perf_counter(), 0
        self.watcher = threading.Thread(target=self._look, daemon=True)
        self.watcher.start()
        return self

    def _look(self) -> None:
        process = psutil.Process()
        while not self.done.wait(0.02):
            self.most = max(self.most, process.memory_info().rss)

    def __exit__(self, *error: object) -> None:
        self.seconds = time.perf_counter() - self.start
        self.done.set()
        self.watcher.join()
        taken = torch.cuda.max_memory_allocated() + 1e9 * CONTEXT if self.on_gpu else self.most
        self.peak = taken / 1e9


def true_shape(profile: Profile, count: int = 8) -> pd.DataFrame:
    """A row a stage, run for an epoch on ``count`` images of each split: seconds here, and planned
    from and to; the peak of memory in GB, and planned; hours of the whole profile at that speed.
    InputError as `sizes.sized_vlm`."""
    base = 0 if torch.cuda.is_available() else psutil.Process().memory_info().rss / 1e9
    with TemporaryDirectory() as home:
        save_random_vlm(profile.vlm.name, Path(home) / "vlm")
        once = {"vlm": {"name": str(Path(home) / "vlm")}, "further_vision": ()}
        whole = profile.changed(**once)
        few = whole.changed(
            images_per_split=count, vision={"weights": "", "epochs": 1}, tuning={"epochs": 1}
        )
        run = open_run(few, runs=home, say=lambda line: None, progress=False, shipped=False)
        every = open_run(whole, runs=home, say=lambda line: None, progress=False).dataset
        device = get_device(None, few)
        planned = Plan(few, Images.of(run.dataset, few), device).table
        later = Plan(whole, Images.of(every, whole), device).table
        rows = []
        for place, stage in enumerate(_stages(run)):
            with Watch() as watch:
                stage()
            row, end = planned.iloc[place], later.iloc[place]
            hours = watch.seconds / 3600 * end["TFLOP"] / row["TFLOP"]
            ends = 3600 * row[["hours from", "to"]]
            rows.append((watch.seconds, *ends, watch.peak - base, row["peak GB"], hours))
    columns = ["seconds", "planned from", "to", "peak GB", "planned GB", "hours in all"]
    return pd.DataFrame(rows, planned.index[: len(rows)], columns)


def _stages(run: Run) -> Iterable[Callable[[], object]]:
    yield run.features
    yield lambda: run.artefact(stages.adapter, 0).value
    yield lambda: (run.zero_shot(), run.tuned())
    yield lambda: run.artefact(stages.vision_model, 0, "").value
