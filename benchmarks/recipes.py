"""Which settings did best, for which public facts? Makes the table behind ``auto``.

``python -m benchmarks.recipes GRID... > src/silotune/methods/recipes.json``

A grid is the folder of a finished ``silotune compare``. Of every block of it (a combination of
labels of the axes that do not compete) the group with the best mean over seeds gives a row; of
blocks that differ by how records are spread over the silos, which is not public, all together. It
has the public facts of its runs, its method, what its head reads, what the groups of the block do
not have in common or was tuned, and what it came to. What all of them share, such as how long they
train, is how the grid was made and was compared with nothing: it is no recipe. Where another is as
good by the intervals of their paired differences, the row says so. Baselines beside the groups, and
groups of which a seed is missing, give none. Nothing is read but what runs have written.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from silotune.comparison.record import GridRecord, configuration
from silotune.comparison.results import Compared, compared
from silotune.config import Config, yaml
from silotune.config import dump as written_out
from silotune.config.keys import flatten, home
from silotune.config.schema import LEAVES
from silotune.core.files import VERSION
from silotune.methods.recipes import POOLING, RATE, Facts, Recipe
from silotune.reports.comparison import (
    LEVEL,
    Estimate,
    Group,
    block_of,
    estimate,
    larger_is_better,
    words_of,
)
from silotune.reports.comparison_tables import difference_text, score_text
from silotune.runs.facts import read_facts
from silotune.runs.folder import RunFolder

SPREAD = ("data.silos.", "data.num_examples")

KEPT = (
    POOLING,
    "model.head_bias",
    "model.head_scale",
    "train.num_rounds",
    "train.local_steps",
    "train.batch_size",
    "train.optimizer",
    RATE,
    "train.lr_scheduler_type",
    "train.momentum",
    "train.server_optimizer",
    "train.server_momentum",
    "train.server_learning_rate",
    "train.tail_average",
    "train.local_state",
    "privacy.max_grad_norm",
)
"""Keys that a recipe has beside the method's: what a head reads, as rates are for that, and the
others where they were compared or tuned."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("grid", nargs="+", type=Path)
    asked = parser.parse_args()
    rows = [asdict(row) for grid in asked.grid for row in of_grid(compared(grid))]
    table = {"version": VERSION, "made_by": "python -m benchmarks.recipes", "recipes": rows}
    print(json.dumps(table, indent=2))


def of_grid(found: Compared) -> Iterator[Recipe]:
    """A row for all blocks of a grid that are alike in public, if groups of them are whole."""
    assert found.record is not None, "a grid"
    for blocks in alike(found):
        if competing := whole(found, blocks):
            sign = 1 if larger_is_better(found.comparison.metric) else -1
            best = max(competing, key=lambda groups: sign * score_of(groups).mean)
            yield recipe(found, best, [groups for groups in competing if groups is not best])


def whole(found: Compared, blocks: Sequence[Sequence[Group]]) -> list[list[Group]]:
    """What competes in all of these blocks, with every seed: its groups, one a block."""
    assert found.record is not None, "a grid"
    together: dict[tuple[str, ...], list[Group]] = {}
    for group in (group for block in blocks for group in block if not group.beside):
        if len(group.runs) == len(found.record.seeds):
            labels = tuple(group.labels[axis] for axis in found.comparison.compared)
            together.setdefault(labels, []).append(group)
    return [groups for groups in together.values() if len(groups) == len(blocks)]


def alike(found: Compared) -> list[list[Sequence[Group]]]:
    """Blocks, those together that differ by how records are spread over the silos."""
    assert found.record is not None, "a grid"
    kinds: dict[str, list[Sequence[Group]]] = {}
    for block in found.comparison.blocks.values():
        own = [values_of(config_of(found.record, group)) for group in block if not group.beside]
        public = [{k: v for k, v in each.items() if not k.startswith(SPREAD)} for each in own]
        kinds.setdefault(repr(public), []).append(block)
    return [*kinds.values()]


def recipe(found: Compared, best: Sequence[Group], others: Sequence[Sequence[Group]]) -> Recipe:
    """The row of groups that are alike, and whom they beat."""
    assert found.record is not None, "a grid"
    config = config_of(found.record, best[0])
    return Recipe(
        facts=facts_of(config, best[0]),
        settings=settings_of(found.record, config, best[0]),
        measured=measured(found, best, others),
        grid=found.comparison.title,
    )


def config_of(record: GridRecord, group: Group) -> Config:
    """The configuration of a group, without what was tuned."""
    [cell] = [c for c in record.cells if c.labels == group.labels and not c.beside]
    return configuration(cell.config)


def facts_of(config: Config, group: Group) -> Facts:
    """What was public of its runs, as they themselves say it."""
    run = read_facts(RunFolder(Path(group.runs[0].folder)))
    sizes = [silo["num_examples"] for silo in run.silos.values()]
    return Facts(
        task=config.model.task,
        unit=config.privacy.unit,
        model=config.model.name_or_path,
        epsilon=config.privacy.target_epsilon,
        labels=len(run.labels) or None,
        silos=len(sizes) or None,
        records=min(sizes, default=None),
    )


def settings_of(record: GridRecord, config: Config, group: Group) -> dict[str, Any]:
    """The method with its options, and what was tuned or sets it apart from those it met."""
    tuned = {home(key): value for key, value in group.runs[0].tuned.items()}
    own = values_of(config) | tuned
    method = {
        key.removeprefix("method."): value
        for key, value in own.items()
        if key.startswith("method.") and value is not None
    }
    block = block_of(group.labels, record.compared)
    met = [
        values_of(configuration(cell.config))
        for cell in record.cells
        if cell.config and not cell.beside and block_of(cell.labels, record.compared) == block
    ]
    apart = {key for key in KEPT if any(other.get(key) != own.get(key) for other in met)}
    read = {POOLING} if own.get(POOLING) != LEAVES[POOLING].default else set()
    return {"method": method} | {
        key: own[key] for key in KEPT if key in own and key in apart | tuned.keys() | read
    }


def values_of(config: Config) -> dict[str, Any]:
    """Key -> value, of all keys."""
    text, _ = yaml.parse(written_out(config))
    assert isinstance(text, dict)
    flat = flatten(text, (), {(): ""})
    return {str(s.key): s.value for s in flat if not isinstance(s, str)}


def score_of(groups: Sequence[Group]) -> Estimate:
    """Of all of their runs."""
    return estimate((run.value for group in groups for run in group.runs), LEVEL)


def gap(ours: Sequence[Group], others: Sequence[Group]) -> Estimate:
    """The mean difference, of runs with the same records and seed."""
    theirs = [{run.seed: run.value for run in group.runs} for group in others]
    pairs = zip(ours, theirs, strict=True)
    return estimate((run.value - their[run.seed] for g, their in pairs for run in g.runs), LEVEL)


def measured(found: Compared, best: Sequence[Group], others: Sequence[Sequence[Group]]) -> str:
    """What the best came to, and how sure it is."""
    metric = found.comparison.metric
    sign = 1 if larger_is_better(metric) else -1
    ways = f" and {len(best)} ways to spread records" if len(best) > 1 else ""
    text = f"{metric} {score_text(metric, score_of(best))} over {len(best[0].runs)} seeds{ways}"
    if not others:
        return text
    second = max(others, key=lambda groups: sign * score_of(groups).mean)
    ahead = gap(best, second)
    name = words_of({axis: second[0].labels[axis] for axis in found.comparison.compared})
    sure = "surely" if sign * ahead.mean - ahead.half > 0 else "not surely"
    return f"{text}, {sure} before {name} ({difference_text(metric, ahead)})"


if __name__ == "__main__":
    main()
