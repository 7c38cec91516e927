"""Loaded model: what a run has learned, ready to be asked: it predicts, or writes on."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from silotune.core import seed_of
from silotune.data.assistant_turns import rendered, welcome
from silotune.data.chat_templates import prompt_lines
from silotune.data.images import check_image, decoded
from silotune.data.tokenization import template_of
from silotune.objectives import Objective, find
from silotune.objectives.answers import Answer, cell_names
from silotune.objectives.base import source_prefix

from .entities import tagged
from .questions import questions
from .similarity import compared
from .unread import unread

_LOG = logging.getLogger(__name__)

Tell = Callable[[str], None]
"""Hears a sentence."""

NEW_TOKENS = 128
"""That are written at most, if nobody says otherwise."""

LEAST_TEMPERATURE = 1e-6
"""Beside 0, which is another way; logits that are divided by less may overflow."""


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
        """Classify, find entities, tell numbers, or embed texts.

        Args:
            records: mappings with the columns of training, such as rows of a data set; or what a
                model reads itself: texts, pairs of texts where it was trained on pairs, lists of
                words where it was trained on words, images (paths, or images of Pillow).
            batch_size: records that go through the model at once.

        Returns:
            For each record a ``Prediction``; ``Labels`` where it may have several; numbers by name;
            of a model that tags, the entities of a text (IOB2, strictly), or ``Tags`` of a list of
            words; of one that embeds, the ``Similarity`` of a pair, or the ``Embedding`` of a
            single text. Of a text ``max_length`` tokens are read; a longer one is warned of.

        Raises:
            ValueError: if this is no such model, or the records are not what it reads.
        """
        return list(self.answers(records, batch_size=batch_size))

    def answers(
        self,
        records: Sequence[Any],
        *,
        batch_size: int = 64,
        where: str = "records",
        tell: Tell = _LOG.warning,
    ) -> Iterator[Answer]:
        """As ``predict``, one after another; what is wrong with records is said before the first.

        So images that are stored are read twice: to see that they are whole, and with their batch.

        Args:
            records: as ``predict``.
            batch_size: as ``predict``.
            where: what the records are called in an error.
            tell: hears what is not read of them.

        Raises:
            ValueError: as ``predict``.
        """
        if self._writes:
            raise ValueError("predict: this model writes texts and has no labels; use generate")
        if batch_size < 1:
            raise ValueError(f"predict: batch size must be at least 1, not {batch_size}")
        asked = self._asked(records, "predict", "records")
        if self.image_processor is None:
            self._check_texts(asked)
            self._tell_unread(asked, tell)
        else:
            for row, record in enumerate(asked):
                if _is_stored(record):
                    with _in_records():
                        check_image(record, row, where)
        return self._answers(asked, batch_size, where)

    def columns(self, question: Any) -> tuple[str, ...]:
        """Those that its answer fills in a table, in order (``objectives.answers.cells``)."""
        target = find(self.objective.task).target
        return cell_names(target, self.labels, alone=isinstance(question, str))

    def generate(
        self,
        prompts: Sequence[Any],
        *,
        max_new_tokens: int = NEW_TOKENS,
        temperature: float = 0.0,
        seed: int = 0,
        **options: Any,
    ) -> list[str]:
        """Continue texts, or write one for each.

        Args:
            prompts: texts; chats to answer, lists of {role, content}; or mappings with the columns
                of training.
            max_new_tokens: of each text at most, as far as the model has positions for them.
            temperature: 0 takes the most probable token each time.
            seed: of what is drawn at other temperatures; every prompt has its own coins.
            **options: of ``transformers``' ``generate``.

        Returns:
            What comes after each prompt, or is written for each source.

        Raises:
            ValueError: if this is no language model, or a prompt leaves it no position to write in.
        """
        return list(
            self.continuations(
                prompts,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                seed=seed,
                **options,
            )
        )

    def continuations(
        self,
        prompts: Sequence[Any],
        *,
        max_new_tokens: int = NEW_TOKENS,
        temperature: float = 0.0,
        seed: int = 0,
        tell: Tell = _LOG.warning,
        **options: Any,
    ) -> Iterator[str]:
        """As ``generate``, one after another; what is wrong with prompts is said before the first.

        ``tell`` hears what is not read of them.

        Raises:
            ValueError: as ``generate``.
        """
        if not self._writes or self.tokenizer is None:
            raise ValueError("generate: this model answers and writes nothing; use predict")
        if max_new_tokens < 1:
            raise ValueError(f"generate: {max_new_tokens} new tokens; ask for 1 at least")
        if temperature != 0 and not LEAST_TEMPERATURE <= temperature < math.inf:
            raise ValueError(
                f"generate: temperature must be 0, or a number from {LEAST_TEMPERATURE:g} on, not "
                f"{temperature}"
            )
        drawn = {"do_sample": True, "temperature": temperature} if temperature else {}
        asked = self._asked(prompts, "generate", "prompts")
        read = [self._prompt(one, row) for row, one in enumerate(asked)]
        rooms = [self._room(ids, row, max_new_tokens) for row, ids in enumerate(read)]
        if self._writes_anew:
            self._tell_unread(asked, tell)
        return (
            self._continued(
                ids,
                seed_of("generate", seed, row),
                {"do_sample": False, "max_new_tokens": room, **drawn, **options},
            )
            for row, (ids, room) in enumerate(zip(read, rooms, strict=True))
        )

    def __repr__(self) -> str:
        """Base model, task and labels."""
        base = getattr(self.model, "config", None)
        name = getattr(base, "name_or_path", "") or type(self.model).__name__
        labels = f", labels: {', '.join(self.labels)}" if self.labels else ""
        return f"LoadedModel({name}, {self.objective.task}{labels})"

    def _asked(self, records: Sequence[Any], verb: str, noun: str) -> list[Any]:
        if isinstance(records, str | Mapping):
            raise ValueError(f"{verb}: give a list of {noun}, also for a single one")
        return questions(self.objective, list(records))

    def _tell_unread(self, asked: Sequence[Any], tell: Tell) -> None:
        if told := unread(self.tokenizer, self.objective, asked):
            tell(told)

    def _check_texts(self, asked: Sequence[Any]) -> None:
        columns = self.objective.columns
        if find(self.objective.task).embeds:
            if not all(isinstance(r, str) or _is_pair(r) for r in asked):
                raise ValueError(
                    "predict: this model reads texts, or pairs of them; give a list of either"
                )
        elif "text_pair" in columns:
            if not all(map(_is_pair, asked)):
                raise ValueError(
                    "predict: this model reads pairs; give a list of (text, text_pair)"
                )
        elif "words" in columns:
            if not all(isinstance(record, str | list | tuple) for record in asked):
                raise ValueError("predict: this model reads words; give a list of lists, or texts")
        elif not all(isinstance(record, str) for record in asked):
            raise ValueError("predict: this model reads texts; give a list of them")

    @torch.inference_mode()
    def _answers(self, asked: Sequence[Any], size: int, where: str) -> Iterator[Answer]:
        task, constants = find(self.objective.task), self.objective.constants
        for first in range(0, len(asked), size):
            some = asked[first : first + size]
            if task.embeds:
                yield from compared(self.model, self.tokenizer, self.objective, some)
                continue
            if (answer := task.answer) is None:
                yield from tagged(self.model, self.tokenizer, self.objective, self.labels, some)
                continue
            batch = self._batch(some, first, where)
            device = next(self.model.parameters()).device
            logits = self.model(**{name: t.to(device) for name, t in batch.items()}).logits
            yield from (answer(row, self.labels, constants) for row in logits.float().cpu())

    def _batch(self, asked: Sequence[Any], first: int, where: str) -> Mapping[str, torch.Tensor]:
        if self.image_processor is not None:
            with _in_records():
                images = [
                    decoded(record, row, where) if _is_stored(record) else record
                    for row, record in enumerate(asked, first)
                ]
            read: Mapping[str, torch.Tensor] = self.image_processor(
                images=images, return_tensors="pt"
            )
            return {"pixel_values": read["pixel_values"]}
        assert self.tokenizer is not None
        pairs = "text_pair" in self.objective.columns
        encoded: Mapping[str, torch.Tensor] = self.tokenizer(
            *(map(list, zip(*asked, strict=True)) if pairs else [list(asked)]),
            padding=True,
            truncation=True,
            max_length=self.objective.max_length,
            return_tensors="pt",
        )
        known = ("input_ids", "token_type_ids", "attention_mask")
        return {name: encoded[name] for name in known if name in encoded}

    @property
    def _writes(self) -> bool:
        """Whether it goes on with texts, or writes some."""
        return find(self.objective.task).target == "none"

    @property
    def _writes_anew(self) -> bool:
        """Whether a decoder begins a text of its own, and does not go on with the prompt."""
        return find(self.objective.task).architecture == "encoder-decoder"

    def _source(self, text: Any) -> torch.Tensor:
        """The tokens (1, T) of what an encoder reads, as in training."""
        assert self.tokenizer is not None
        if not isinstance(text, str):
            raise ValueError("generate: this model reads texts; give a list of them")
        ids: torch.Tensor = self.tokenizer(
            source_prefix(self.objective) + text,
            truncation=True,
            max_length=self.objective.max_length,
            return_tensors="pt",
        )["input_ids"]
        return ids

    def _prompt(self, prompt: Any, row: int) -> torch.Tensor:
        """The tokens (1, T) of a text, or of a chat up to where the assistant goes on."""
        assert self.tokenizer is not None
        if self._writes_anew:
            return self._source(prompt)
        template = None if isinstance(prompt, str) else template_of(self.tokenizer)
        templated = template is not None
        if template is not None:  # it brings the special tokens
            try:
                prompt = rendered(template, welcome(prompt, template), True)
            except ValueError as error:
                raise ValueError(f"generate: prompt {row} (the first is 0): {error}") from None
        elif not isinstance(prompt, str):
            prompt = prompt_lines(prompt)
        encoded = self.tokenizer(
            prompt,
            add_special_tokens=not templated,
            return_tensors="pt",
            return_token_type_ids=False,
        )
        ids: torch.Tensor = encoded["input_ids"]
        if not templated and ids.numel() and ids[0, -1] == self.tokenizer.eos_token_id:
            ids = ids[:, :-1]  # the text goes on
        return ids

    def _room(self, ids: torch.Tensor, row: int, wanted: int) -> int:
        """How many tokens may be written after a prompt."""
        if not ids.numel():
            raise ValueError(
                f"generate: prompt {row} (the first is 0) has no tokens; give it something to go "
                "on from"
            )
        config: Any = self.model.config
        most: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
        if most is None:
            return wanted
        if self._writes_anew:  # its first position holds what a decoder begins with
            return min(wanted, most - 1)
        if ids.shape[1] >= most:
            raise ValueError(
                f"generate: prompt {row} (the first is 0) has {ids.shape[1]} tokens and the model "
                f"{most} positions, which leaves none to write in; shorten it"
            )
        return min(wanted, most - ids.shape[1])

    def written(self, ids: torch.Tensor, most: int) -> str:
        """The most probable text for what is read, or after it.

        Args:
            ids: (1, T) tokens.
            most: tokens of it.
        """
        room = self._room(ids, 0, most)
        return self._continued(ids, 0, {"do_sample": False, "max_new_tokens": room})

    def text_of(self, ids: torch.Tensor) -> str:
        """What tokens (T,) say, without special ones."""
        assert self.tokenizer is not None
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True)
        return text

    @torch.inference_mode()
    def _continued(self, ids: torch.Tensor, seed: int, options: Mapping[str, Any]) -> str:
        """One at a time: padding would move the positions of a shorter prompt."""
        assert self.tokenizer is not None
        model: Any = self.model
        ids = ids.to(model.device)
        usual = {"pad_token_id": self.tokenizer.pad_token_id}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            tokens = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), **{**usual, **options}
            )
        first = 0 if self._writes_anew else ids.shape[1]
        return self.text_of(tokens[0, first:])


def _is_pair(record: Any) -> bool:
    is_two = isinstance(record, tuple | list) and len(record) == 2
    return is_two and all(isinstance(text, str) for text in record)


def _is_stored(record: Any) -> bool:
    """Whether an image is to be decoded; one of Pillow is what a processor reads already."""
    return isinstance(record, str | Path | bytes | Mapping | int | float)


@contextmanager
def _in_records() -> Iterator[None]:
    """An image that is none is a fault of the records."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"records:{str(error).partition(':')[2]}") from None
