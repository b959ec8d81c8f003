"""A vision-language model as a classifier of emotions (lesson 3). It answers in two ways.
*Generate and parse*, as the paper does: the label is read out of what it writes, which may lie outside
the label set. *Label scoring*: how likely is each label's answer, given the image and the prompt; this
yields probabilities."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from .answers import parse_answer
from .data import ImageDataset
from .errors import InputError
from .families import check_model, encode, grid, tokens_of
from .instructions import REASONING_PROMPT, answer_for, categorical_prompt, questions
from .loading import load_model
from .predictions import Predictions, versions
from .processes import first, gather, part
from .scoring import AnswerTree, append_tokens

Images = Sequence[Image.Image]


class VLM:
    """A vision-language model with its processor; at most ``batch_size`` images pass it at once.
    Raises InputError as `families.check_model`."""

    def __init__(self, model, processor, name: str = "", adapter: str = "", batch_size: int = 32):
        self.model, self.processor, self.name, self.adapter = model.eval(), processor, name, adapter
        self.batch_size = batch_size
        check_model(self.core.config, processor)
        if processor.tokenizer.pad_token is None:
            processor.tokenizer.pad_token = processor.tokenizer.eos_token

    @classmethod
    def load(
        cls, source: str | Path, adapter: str | Path | None = None, batch_size: int = 32, **options
    ) -> "VLM":
        """A model and, where given, its LoRA adapter; options and errors of `loading.load_model`."""
        model, processor = load_model(str(source), adapter, **options)
        return cls(model, processor, Path(source).name, Path(adapter or "").name, batch_size)

    @property
    def core(self):
        """The model without the adapter's wrapper; adapted layers stay in it."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return next(self.model.parameters()).device

    def inputs(self, images: Images, prompt: str) -> dict[str, torch.Tensor]:
        """The model's inputs for one question about each image, padded on the left."""
        batch = questions(self.processor, [prompt] * len(images), images, padding_side="left")
        return {name: value.to(self.device) for name, value in batch.items() if name != "labels"}

    @torch.inference_mode()
    def visual_tokens(self, images: Images) -> Sequence[torch.Tensor]:
        """Per image what the language model is handed of it (`families.tokens_of`): (tokens, width)."""
        inputs = self.inputs(images, "")
        return self.tokens(inputs, encode(self.core, inputs))

    def tokens(self, inputs: dict[str, torch.Tensor], encoded) -> Sequence[torch.Tensor]:
        """`visual_tokens` of inputs whose images are `families.encode`d; errors as `tokens_of`."""
        visual = inputs["input_ids"] == self.core.config.image_token_id
        return tokens_of(encoded, visual.sum(1).tolist())

    def features(self, images: Images) -> np.ndarray:
        """(n, width) float32: the mean over an image's visual tokens, what the head reads."""
        return np.concatenate([_pool(self.visual_tokens(batch)) for batch in self._batches(images)])

    @torch.inference_mode()
    def generate(self, images: Images, prompt: str, max_new_tokens: int = 48) -> list[str]:
        """The answer to one question about each image, by greedy decoding."""
        texts = []
        for batch in self._batches(images):
            inputs = self.inputs(batch, prompt)  # input_ids (b, T)
            written = self.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
            answers = written[:, inputs["input_ids"].shape[1] :]  # (b, at most max_new_tokens)
            texts += self.processor.batch_decode(answers, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def reasons(self, images: Images) -> list[str]:
        """Why, in the model's words: its answers to the reasoning prompt."""
        return self.generate(images, REASONING_PROMPT, max_new_tokens=64)

    def score(self, images: Images, prompt: str, answers: Sequence[str]) -> np.ndarray:
        """(n, K) log-likelihood (nats) of each answer, with the token that ends it, given image and
        prompt: in one pass for all answers (`scoring`), as if each were scored by itself."""
        return self.score_with_features(images, prompt, answers)[0]

    @torch.inference_mode()
    def score_with_features(
        self, images: Images, prompt: str, answers: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """`score` and `features` from one and the same pass of the visual encoder."""
        tree = AnswerTree.of(answers, self.processor.tokenizer, self.device)
        scores, features = [], []
        for batch in self._batches(images):
            inputs = self.inputs(batch, prompt)
            encoded = encode(self.core, inputs)
            scores.append(tree.log_likelihood(self.core, inputs, encoded))  # (b, K)
            features.append(_pool(self.tokens(inputs, encoded)))
        return torch.cat(scores).double().cpu().numpy(), np.concatenate(features)

    @torch.inference_mode()
    def attention(self, image: Image.Image, prompt: str, answers: Sequence[str]) -> np.ndarray:
        """(layers, heads, rows, columns): attention to each visual token of the token after which
        the ``answers`` part. What is missing to 1 goes to the text. Errors as `families.grid`."""
        prefix = AnswerTree.of(answers, self.processor.tokenizer, self.device).prefix
        inputs = append_tokens(self.inputs([image], prompt), prefix)
        visual = inputs["input_ids"][0] == self.core.config.image_token_id
        rows, columns, start = grid(self.core.config, inputs, int(visual.sum()))
        before = self.core.config._attn_implementation
        self.core.set_attn_implementation("eager")  # the others do not give their weights
        try:
            layers = self.model(**inputs, output_attentions=True, use_cache=False).attentions
        finally:
            self.core.set_attn_implementation(before)
        weights = torch.stack([layer[0, :, -1, visual] for layer in layers if layer is not None])
        weights = weights[..., start:]
        return weights.unflatten(2, (rows, columns)).float().cpu().numpy()

    def predict(
        self,
        dataset: ImageDataset,
        method: str = "score",
        prompt: str | None = None,
        max_new_tokens: int = 48,
        progress: bool = True,
    ) -> Predictions:
        """Predictions for a data set, whose images several processes share. ``method`` "score":
        label scoring; "generate": what is written, parsed. ``prompt``: else categorical."""
        if method not in ("score", "generate"):
            raise InputError(f"there is no method {method!r}; choose 'score' or 'generate'")
        classes = dataset.label_set
        prompt = prompt or categorical_prompt(classes)
        expected = [answer_for(label) for label in classes]
        weights, answers = [], []
        for images in self._opened(dataset, f"{self.name} {method}", progress):
            if method == "score":
                scores = self.score(images, prompt, expected)  # (b, C)
                weights += [*np.exp(scores - np.logaddexp.reduce(scores, axis=1, keepdims=True))]
                answers += [expected[k] for k in scores.argmax(1)]
            else:
                written = self.generate(images, prompt, max_new_tokens)
                named = [parse_answer(text, classes) for text in written]
                weights += [[float(label in (None, each)) for each in classes] for label in named]
                answers += written
        weights, answers = np.array(gather(weights)), gather(answers)
        invalid = (weights == 1).all(1)  # where no class was named
        about = {"model": self.name, "adapter": self.adapter, "method": method, "prompt": prompt}
        about |= {"data": dataset.fingerprint, "versions": versions()}
        images = dataset.ids, dataset.table["split"], dataset.labels, classes
        shares = weights / weights.sum(1, keepdims=True)
        return Predictions(*images, shares, answers, invalid, about)

    def dataset_features(self, dataset: ImageDataset, progress: bool = True) -> np.ndarray:
        """(n, width) float32 features of every image, in the data set's order."""
        parts = self._opened(dataset, f"{self.name} features", progress)
        return np.stack(gather([row for images in parts for row in self.features(images)]))

    def _batches(self, items: Sequence) -> list[Sequence]:
        size = self.batch_size
        return [items[start : start + size] for start in range(0, len(items), size)]

    def _opened(self, dataset: ImageDataset, title: str, progress: bool) -> Iterator[list]:
        batches = self._batches(part(list(dataset.ids)))
        quiet = not (progress and first())
        for ids in tqdm(batches, desc=title, unit="batch", disable=quiet, leave=False):
            yield [dataset.open(image_id) for image_id in ids]


def _pool(visual_tokens: Sequence[torch.Tensor]) -> np.ndarray:
    """(n, width) float32: the mean of each image's visual tokens (tokens, width)."""
    return np.stack([tokens.float().mean(0).cpu().numpy() for tokens in visual_tokens])
