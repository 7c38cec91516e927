"""Silos of SST-2 as the model reads it, or of random records with the lengths that SST-2 has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from silotune.core import ClientDataset, seed_of
from silotune.data import TextExamples
from silotune.data.loading import load
from silotune.data.tokenization import Ragged, text_examples
from silotune.engine.batches import PASS_TOKENS, microbatches
from silotune.models.load import Loaded

_SHARE = (0.0, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
_TOKENS = (3, 4, 6, 10, 18, 27, 33, 44, 56, 66)
"""Quantiles of the token counts of SST-2's 67,349 training phrases; their mean is 13.3."""

_RECORDS = 22_450  # a third of them


@dataclass(frozen=True, eq=False)
class Drawn:
    """One silo's records and the batches that every side trains on.

    Attributes:
        examples: all records, or those of the batches.
        batches: of them.
        records: how many the silo has.
    """

    examples: ClientDataset
    batches: Sequence[Sequence[int]]
    records: int

    def cells(self, size: int | None = None) -> int:
        """Tokens that go through a model, padding included: whole batches, or sorted and cut."""
        parts = (
            part
            for rows in self.batches
            for part in (
                microbatches(rows, self.examples.lengths, size, PASS_TOKENS["cpu"])
                if size
                else [rows]
            )
        )
        return sum(len(p) * max(self.examples.lengths[i] for i in p) for p in parts)


def silos(folder: Path | None, loaded: Loaded, n: int) -> list[TextExamples]:
    """``n`` silos of equal size.

    Args:
        folder: of SST-2 with columns ``sentence`` and ``label``; None for random records.
        loaded: whose tokenizer reads them.
        n: at most three.

    Raises:
        ValueError: if the folder holds no such records.
    """
    if folder is None:
        return [random_phrases(seed) for seed in range(n)]
    table = load(str(folder)).train
    if table is None or not {"sentence", "label"} <= set(table.column_names):
        raise ValueError(f"--data: {folder} has no records with the columns sentence and label")
    table = table.rename_column("sentence", "text").select_columns(["text", "label"])
    return [text_examples(table.shard(3, i), loaded.tokenizer, 128, str(folder)) for i in range(n)]


def draw(examples: TextExamples, batch_size: int, steps: int, seed: int) -> Drawn:
    """Poisson batches of ``batch_size`` on average; from a seed, since nobody is to be hidden."""
    random = np.random.default_rng(seed_of("coins", seed))
    n = len(examples.lengths)
    coins = [random.random(n) < batch_size / n for _ in range(steps)]
    return Drawn(examples, [np.flatnonzero(c).tolist() for c in coins], n)


def random_phrases(seed: int, records: int = _RECORDS) -> TextExamples:
    """Records of random tokens, as long as SST-2's phrases are."""
    random = np.random.default_rng(seed_of("records", seed))
    lengths = np.interp(random.random(records), _SHARE, _TOKENS).astype(np.int64)
    tokens = random.integers(4, 260, lengths.sum(), dtype=np.int32)
    columns = {"input_ids": Ragged(tokens, lengths, padding=0)}
    return TextExamples(
        rows=np.arange(records),
        truncated=0,
        unlike_alone=0,
        cut_entities=0,
        cut_seconds=0,
        lengths=tuple(lengths.tolist()),
        tokens=columns,
        targets=random.integers(0, 2, records),
    )
