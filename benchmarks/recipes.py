"""Which settings did best, for which public facts? Makes the table behind ``auto``.

``python -m benchmarks.recipes GRID... > src/silotune/methods/recipes.json``

A grid is the folder of a finished ``silotune compare``. Of every block of it (a combination of
labels of the axes that do not compete) the group with the best mean over seeds gives a row: the
public facts of its runs, its method, what its head reads, what the groups of the block do not have
in common or was tuned, and what it came to. What all of them share, such as how long they train, is
how the grid was made and was compared with nothing: it is no recipe. Where another is as good by
the intervals of their paired differences, the row says so. Baselines beside the groups, and
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
from silotune.reports.comparison import LEVEL, Group, block_of, larger_is_better, paired
from silotune.reports.comparison_tables import difference_text, score_text
from silotune.runs.facts import read_facts
from silotune.runs.folder import RunFolder

KEPT = (
    POOLING,
    "model.head_bias",
    "model.head_scale",
    "train.num_rounds",
    "train.local_steps",
    "train.batch_size",
    "train.optimizer",
    RATE,
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
    """A row for every block of a grid that has a best group."""
    assert found.record is not None, "a grid"
    for block in found.comparison.blocks.values():
        whole = [g for g in block if not g.beside and len(g.runs) == len(found.record.seeds)]
        if not whole:
            continue
        sign = 1 if larger_is_better(found.comparison.metric) else -1
        best = max(whole, key=lambda group: sign * group.score.mean)
        yield recipe(found, best, [group for group in whole if group is not best])


def recipe(found: Compared, best: Group, others: Sequence[Group]) -> Recipe:
    """The row of a group, and whom it beat."""
    assert found.record is not None, "a grid"
    config = config_of(found.record, best)
    return Recipe(
        facts=facts_of(config, best),
        settings=settings_of(found.record, config, best),
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


def measured(found: Compared, best: Group, others: Sequence[Group]) -> str:
    """What the best came to, and how sure it is."""
    metric = found.comparison.metric
    sign = 1 if larger_is_better(metric) else -1
    text = f"{metric} {score_text(metric, best.score)} over {best.score.n} seeds"
    if not others:
        return text
    second = max(others, key=lambda group: sign * group.score.mean)
    gap = paired(best.runs, second.runs, LEVEL)
    name = " · ".join(second.labels[axis] for axis in found.comparison.compared)
    sure = "surely" if sign * gap.mean - gap.half > 0 else "not surely"
    return f"{text}, {sure} before {name} ({difference_text(metric, gap)})"


if __name__ == "__main__":
    main()
