"""Load: a finished run, or an adapter folder of ours, as a model that predicts and generates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from silotune.adapters import OWN_WEIGHTS
from silotune.adapters.peft_io import WEIGHTS
from silotune.data.chat_dates import pin_date
from silotune.data.chat_templates import prompt_lines
from silotune.models.load import GivenModel
from silotune.objectives import Objective, find
from silotune.runs.folder import RunFolder
from silotune.terms import Machine
from silotune.terms.build import build_model, read_model

from .adapter_folder import Made, read_made
from .entities import Entity, entities_of
from .results import adapter_of, model_in


class Prediction(NamedTuple):
    """What a classifier says of one record.

    Attributes:
        label: the most probable one.
        probability: of this label.
        probabilities: of every label.
    """

    label: str
    probability: float
    probabilities: Mapping[str, float]


class Labels(NamedTuple):
    """What a classifier with several labels a record says of one.

    Attributes:
        labels: those whose probability reaches their threshold.
        probabilities: of every label; they do not sum to 1.
    """

    labels: tuple[str, ...]
    probabilities: Mapping[str, float]


Answer = Prediction | Labels | dict[str, float]
"""What is said of one record: one label, several, or numbers by name in their own units."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedModel:
    """A base model with what was learned, ready to be used.

    Attributes:
        model: a ``transformers`` model (with ``pooling="mean"``, a classifier on one), with our
            layers in it, in evaluation mode.
        objective: what it was trained for.
        tokenizer: None for images.
        image_processor: None for texts.
        labels: in the order of ids; empty for a language model.
    """

    model: nn.Module
    objective: Objective
    tokenizer: Any | None
    image_processor: Any | None
    labels: tuple[str, ...]

    def predict(self, records: Sequence[Any], *, batch_size: int = 64) -> list[Answer]:
        """Classify, or tell numbers.

        Args:
            records: texts, pairs of texts where the model was trained on pairs, or images: paths,
                or images of Pillow.
            batch_size: records that go through the model at once.

        Returns:
            A ``Prediction`` for each record, ``Labels`` where it may have several, or numbers by
            name.

        Raises:
            ValueError: if this is no such model, or the records are not what it reads.
        """
        if not self.labels:
            raise ValueError("predict: this model writes texts and has no labels; use generate")
        if self._tags:
            raise ValueError("predict: this model finds entities; use entities")
        if isinstance(records, str) or not isinstance(records, Sequence):
            raise ValueError("predict: give a list of records, also for a single one")
        return list(self._predictions(records, batch_size))

    @torch.inference_mode()
    def entities(self, texts: Sequence[str], *, batch_size: int = 64) -> list[list[Entity]]:
        """Find entities, as scores count them (IOB2, strictly).

        Args:
            texts: as they are; where training had lists of words, spaces divide them.
            batch_size: texts that go through the model at once.

        Returns:
            Those of each text in their order, as far as ``max_length`` of it is read.

        Raises:
            ValueError: if this model finds none, or these are no texts.
        """
        if not self._tags:
            raise ValueError("entities: this model finds none; use predict or generate")
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise ValueError("entities: give a list of texts, also for a single one")
        found: list[list[Entity]] = []
        for first in range(0, len(texts), batch_size):
            some = texts[first : first + batch_size]
            found += entities_of(self.model, self.tokenizer, self.objective, self.labels, some)
        return found

    @property
    def _tags(self) -> bool:
        return bool({"tags", "spans"} & self.objective.columns.keys())

    def generate(self, prompts: Sequence[Any], **options: Any) -> list[str]:
        """Continue texts; the most probable tokens, unless options say otherwise.

        Args:
            prompts: texts; or chats to answer, lists of {role, content}.
            **options: of ``transformers``' ``generate``, such as ``max_new_tokens``.

        Returns:
            What comes after each prompt.

        Raises:
            ValueError: if this is no language model.
        """
        if self.labels or self.tokenizer is None:
            raise ValueError("generate: this model classifies; use predict")
        if isinstance(prompts, str):
            raise ValueError("generate: give a list of prompts, also for a single one")
        return [self._continued(prompt, {"do_sample": False, **options}) for prompt in prompts]

    def __repr__(self) -> str:
        """Base model, task and labels."""
        base = getattr(self.model, "config", None)
        name = getattr(base, "name_or_path", "") or type(self.model).__name__
        labels = f", labels: {', '.join(self.labels)}" if self.labels else ""
        return f"LoadedModel({name}, {self.objective.task}{labels})"

    @torch.inference_mode()
    def _predictions(self, records: Sequence[Any], size: int) -> Iterator[Answer]:
        for first in range(0, len(records), size):
            batch = self._batch(records[first : first + size])
            device = next(self.model.parameters()).device
            logits = self.model(**{name: t.to(device) for name, t in batch.items()}).logits
            yield from map(self._answer, logits.float().cpu())

    def _answer(self, logits: torch.Tensor) -> Answer:
        """Of one record's outputs (C,)."""
        target, constants = find(self.objective.task).target, self.objective.constants
        if target == "numbers":
            mean, scale = map(logits.double().new_tensor, (constants["mean"], constants["scale"]))
            return dict(zip(self.labels, (mean + scale * logits.double()).tolist(), strict=True))
        row = logits.sigmoid() if target == "labels" else logits.softmax(dim=-1)
        each = dict(zip(self.labels, row.tolist(), strict=True))
        if target == "labels":
            reached = row >= row.new_tensor(constants["threshold"])
            given = zip(self.labels, reached.tolist(), strict=True)
            return Labels(tuple(label for label, is_given in given if is_given), each)
        best = self.labels[int(row.argmax())]
        return Prediction(best, each[best], each)

    def _batch(self, records: Sequence[Any]) -> Mapping[str, torch.Tensor]:
        if self.image_processor is not None:
            read: Mapping[str, torch.Tensor] = self.image_processor(
                images=[_image(record) for record in records], return_tensors="pt"
            )
            return {"pixel_values": read["pixel_values"]}
        assert self.tokenizer is not None
        columns = self._texts(records)
        encoded: Mapping[str, torch.Tensor] = self.tokenizer(
            *columns,
            padding=True,
            truncation=True,
            max_length=self.objective.max_length,
            return_tensors="pt",
        )
        known = ("input_ids", "token_type_ids", "attention_mask")
        return {name: encoded[name] for name in known if name in encoded}

    def _texts(self, records: Sequence[Any]) -> list[list[str]]:
        """One list of texts, or two of the halves of pairs."""
        if "text_pair" not in self.objective.columns:
            if not all(isinstance(record, str) for record in records):
                raise ValueError("predict: this model reads texts; give a list of them")
            return [list(records)]
        if not all(isinstance(r, tuple | list) and len(r) == 2 for r in records):
            raise ValueError("predict: this model reads pairs; give a list of (text, text_pair)")
        first, second = zip(*records, strict=True)
        return [list(first), list(second)]

    @torch.inference_mode()
    def _continued(self, prompt: Any, options: Mapping[str, Any]) -> str:
        """One at a time: padding would move the positions of a shorter prompt."""
        assert self.tokenizer is not None
        model: Any = self.model
        templated = not isinstance(prompt, str) and self.tokenizer.chat_template is not None
        if templated:  # its template brings the special tokens
            prompt = self.tokenizer.apply_chat_template(
                list(prompt), tokenize=False, add_generation_prompt=True
            )
        elif not isinstance(prompt, str):
            prompt = prompt_lines(prompt)
        encoded = self.tokenizer(
            prompt,
            add_special_tokens=not templated,
            return_tensors="pt",
            return_token_type_ids=False,
        )
        ids = encoded["input_ids"].to(model.device)
        if not templated and ids[0, -1] == self.tokenizer.eos_token_id:
            ids = ids[:, :-1]  # the text goes on
        usual = {"pad_token_id": self.tokenizer.pad_token_id}
        tokens = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), **{**usual, **options}
        )
        text: str = self.tokenizer.decode(tokens[0, ids.shape[1] :], skip_special_tokens=True)
        return text


def load(
    folder: str | Path,
    *,
    client: str | None = None,
    model: Any = None,
    tokenizer: Any = None,
    image_processor: Any = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> LoadedModel:
    """Load what a run has learned, in PEFT's format or in our own.

    A class of your own that the run is made of must be imported before: a name in a folder imports
    no code. A chat template that prints the date prints the one of training.

    Args:
        folder: of a run, or an adapter's (``adapter/``, or what ``save_pretrained`` wrote).
        client: whose own adapter, where the clients of a run have one; None for the shared one.
        model: the base model, where the run was made with an object; it is copied.
        tokenizer: of such an object.
        image_processor: the same for images.
        device: where to compute; auto = cuda where there is one.

    Raises:
        ValueError: in words, if the folder holds no adapter of ours, or the base model is another.
    """
    place = _place(Path(folder), client)
    with RunFolder(Path(folder)).advising():
        made = read_made(place)
    given = None if model is None else GivenModel(model, tokenizer or image_processor)
    machine = Machine(device=device)
    built = build_model(made.terms.without_start(), _base(made, given), machine)
    if built.digest != made.digest:
        raise ValueError(
            f"model: the base weights are not those that {place} was trained beside; give "
            "load(..., model=...) the right ones"
        )
    pin_date(built.loaded.tokenizer, made.began)
    numbers = model_in(place, built)
    adapted = built.trainer.adapted
    adapted.load(numbers.factors, numbers.folded)
    return LoadedModel(
        model=adapted.model.eval(),
        objective=made.terms.objective,
        tokenizer=built.loaded.tokenizer,
        image_processor=built.loaded.image_processor,
        labels=made.labels,
    )


def _place(folder: Path, client: str | None) -> Path:
    """The folder that holds the adapter itself."""
    if (folder / WEIGHTS).is_file() or (folder / OWN_WEIGHTS).is_file():
        if client is not None:
            raise ValueError("client: this folder is an adapter itself; leave client out")
        return folder
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder")
    return adapter_of(RunFolder.existing(folder), client)


def _base(made: Made, given: GivenModel | None) -> Any:
    try:
        return read_model(made.terms, made.labels, given)
    except ValueError as error:
        if given is not None:
            raise
        raise ValueError(
            f"{error}. If the run was made with an object, give it: load(..., model=..., "
            "tokenizer=...)"
        ) from error


def _image(record: Any) -> Any:
    if not isinstance(record, str | Path):
        return record
    from PIL import Image

    with Image.open(record) as image:
        return image.convert("RGB")
