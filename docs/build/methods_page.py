"""docs/methods.md, made from the catalogue: ``python docs/build/methods_page.py``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from configuration_page import written
from torch import nn

from silotune.aggregation import ServerAdam
from silotune.core import Site
from silotune.core.units import human_bytes
from silotune.federation.method_costs import LABELS, costs
from silotune.methods import IncompatibleMethodError, find
from silotune.methods.axes import completed
from silotune.methods.catalogue import UNITS, Entry, catalogue
from silotune.methods.options import options
from silotune.methods.rates import usual_kind, usual_rate
from silotune.methods.recipes import recipes
from silotune.methods.registry import lenders
from silotune.optim import AdamW

HEAD = """\
# The methods

<!-- Made by `python docs/build/methods_page.py`: change the methods, not this page. -->

A method says what silos train, what they share, and how the server combines it. With E[.] the
weighted mean over clients, every rule solves

    E[B A]  =  B' A'  +  R  +  error        B', A': the next factors;  R: folded into the base

and the relative error is recorded in every round. `silotune methods` lists what follows, and
`silotune methods --costs MODEL` counts what each method sends on a model of yours.
"""

LEGEND = """
Numbers that travel between the server and one client in a usual round, for each adapted layer of
(out, in) features: r is the rank, K the number of clients that took part. Heads travel besides (not
with fedsa-lora). What a seed draws is never sent. A client that missed a round is sent the whole
state once, with all that was folded so far.
"""

COUNTED = """
## Counted bytes

From the messages of the program, with all they carry: {layers} layers of {size} x {size} (the
queries and values of all-MiniLM-L6-v2), r = {rank}, float32, heads left out ({head} each way for
{labels} labels).
"""

AROUND = """
## Around every method

- `train.proximal_mu` pulls every silo towards where its round began (FedProx, arXiv 1812.06127).
- `train.server_optimizer` takes the server's step by FedAvgM (arXiv 1909.06335), FedAdam or FedYogi
  (arXiv 2003.00295) in place of the plain one. Its moments live in the basis of A and B, so methods
  that change it refuse: {without}.
- The state of local optimisers begins afresh in every round, or is carried (`train.local_state`):
  none outlives a change of basis that it would mean something else in.
- All that the server does to updates is post-processing: it costs no privacy. How much noise it
  lets through is another matter, told below. *Linear*: noise enters B A once, times the factor that
  is common. *Quadratic*: noise of B also meets noise of A.
- Under `privacy.unit: client` the server clips and noises what clients changed: of the products B A
  too, where a rule reads them.
"""

MATRIX = """
## Methods, rules and privacy

`method.aggregation` puts another method's rule in the place of the plain mean. A rule that reads
products needs clients that share both factors; where one factor is common, the mean is exact
already. A cell has the values of `privacy.unit` that go with it; a dash is refused before work
starts, with the reason.
"""

RATES = """
## Learning rates

What a run takes that names no optimiser and no rate (`train.optimizer`, `train.learning_rate`): SGD
where every record's gradient is clipped (`privacy.unit: example`), since clipping bounds its steps;
AdamW elsewhere, since it divides out the scale of gradients, which differs between models by more
than ten times. `silotune plan` and `silotune run` print what that comes to; `run.json` keeps it.

Under clipping the rate of SGD is divided by `privacy.max_grad_norm`; momentum, of the silo or of
the server, divides it by what it adds up. At a rate some times as large, methods that train both
factors end at chance. They are rates that learn, not the best ones: `python -m
benchmarks.learning_rates` tries others, and the log has what they come to.
"""

RULE = """
## A rate by rule

`train.learning_rate: auto` (`learning_rate="auto"` of a `Federation`) is as large as the noise of
the whole run lets it be. Over T steps all noise together walks η C √(Σ T_i (w_i σ_i)²) / b in every
trained number (w_i a silo's share of the mean, σ_i its noise multiplier, b the batch, C the
clipping norm), and moves the difference of two logits by φ times that, φ the length of that
difference's gradient. The rule sets it to 1.3, with η at most 40 / C; what a silo takes is η (1 -
momentum of the server). φ is the median over texts made of what labels are called or described by
("{}", "This is about {}.", "It says: {}."), where training begins. So the rate follows from
declared sizes, labels and ε, and no record is read, unless sizes or labels are not declared. It is
chosen before the run, which keeps the number: `plan` and `run` say it with its reason,
`config.yaml` has it, `run.json` both, and sites are offered it; they must be planned with
`data.num_examples`.

It is for text classification by SGD under `privacy.unit: example` with `train.server_optimizer:
momentum`, and methods in which one factor moves: ffa-lora, head-only, fed-sb. Others are refused.
The two constants are fitted to a handful of runs on SST-2 and QNLI (MiniLM, two labels, FFA-LoRA,
frozen bias), whose best rates of a grid of powers of two it meets within a factor of three: a rule
of thumb.
"""

CHOSEN = """
## Chosen by what was measured

`method.name: auto` (`method="auto"`) takes the method, with its options, that did best where it was
measured nearest by public facts: the same task and unit of privacy, the same model if it was
measured with any, and then what differs least in the logarithms of epsilon, the number of labels,
silos and records, as far as they are declared; of rows about as near the first, where the longest
runs come first. Which parts are adapted (`target_modules`, `layers_to_transform`) and what the head
reads (`model.pooling`) is taken over for that model alone, and so is a rate that is a number.
`defaults: auto` takes all that is in that row for every key that nobody sets. No record is read;
what was chosen is written out in `config.yaml`, and `plan`, `run` and `run.json` say why. Where
nothing was measured it is refused. The table comes with silotune (`methods/recipes.json`), and
`python -m benchmarks.recipes GRID...` makes it of grids that `silotune compare` has finished. A row
has what its grid compared or tuned, and nothing of what all cells shared, such as how long they
trained: batch, rounds and steps are usual ones, or yours. "Not surely" means that the interval of
the difference holds zero: the best mean is taken all the same.
"""

OWN = '''\
## A method of your own

A method is a frozen dataclass: its fields are options, and four functions give the axes. Write
those that differ from plain LoRA, averaged. An axis of your own inherits from `Aggregator`,
`Adapter` or `Schedule`, whose defaults claim nothing: what is not claimed is refused where it would
matter, such as an adapter that does not say that records of a batch leave each other alone
(`per_example_safe`) under example-level privacy.

```python
"""slow_lora.py"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt, Le

from silotune.aggregation import Aggregator, Combined
from silotune.core import Phase, Role, RoundPlan
from silotune.methods import About, Method, register
from silotune.schedules import Constant, Schedule


@dataclass(frozen=True)
class PartOfTheWay(Aggregator):
    step: float

    def combine(self, previous, mean):
        return Combined(factors=previous.factors.lerp(mean.first, self.step))


@register
@dataclass(frozen=True, kw_only=True)
class SlowLoRA(Method):
    """Slow LoRA (an example): B is trained, and the server goes a part of the way."""

    name: ClassVar[str] = "slow-lora"
    title: ClassVar[str] = "Slow LoRA"
    sentence: ClassVar[str] = "B is trained, and the server goes a part of the way to the mean"

    step: Annotated[float, Gt(0), Le(1), About("Part of the way.")] = 0.5

    def schedule(self, *, head: bool) -> Schedule:
        roles = frozenset({Role.B, Role.HEAD} if head else {Role.B})
        return Constant(RoundPlan(phases=(Phase(roles=roles),), share=roles))

    def aggregator(self) -> Aggregator:
        return PartOfTheWay(self.step)
```

In Python it is `SlowLoRA(r=8, step=0.2)`; in YAML `method: {name: "slow_lora:SlowLoRA", step: 0.2}`
where Python can import `slow_lora`. That runs the module, so only a file of your own, an override
or `silotune --method-class slow_lora:SlowLoRA ...` may name one, never the folder of a run or a
message. To change one axis alone: `FedIT(r=8).with_(aggregator=PartOfTheWay(0.5))`.
'''

SIZE, LAYERS, RANK = 384, 12, 8


def page() -> str:
    """The whole page as Markdown."""
    entries = catalogue()
    return "\n".join(
        [
            HEAD + LEGEND,
            *_summary(entries),
            *_matrix(entries),
            *_counted(),
            RATES,
            *_rates(),
            RULE,
            CHOSEN,
            *_recipes(),
            AROUND.format(without=", ".join(_refuse_a_server(entries))),
            *(line for entry in entries for line in _section(entry)),
            OWN.rstrip(),
            "",
        ]
    )


def _recipes() -> list[str]:
    """The rows that are shipped."""
    if not recipes():
        return ["The table has no rows as yet.", ""]
    lines = ["| measured at | grid | method | other keys | came to |", "|---|---|---|---|---|"]
    for row in recipes():
        method = ", ".join(f"{key}: {value}" for key, value in row.method.items())
        others = ", ".join(f"{k}: {v}" for k, v in row.settings.items() if k != "method")
        lines.append(f"| {row.facts.words} | {row.grid} | {method} | {others} | {row.measured} |")
    return [*lines, ""]


def _rates() -> Iterator[str]:
    yield "| method | clipped at C = 1 | not clipped |"
    yield "|---|---|---|"
    for entry in catalogue():
        method = find(entry.name)
        cells = []
        for clipped_at in (1.0, None):
            moved = usual_kind(method, clipped_at)
            cells.append(f"{moved}, {usual_rate(method, moved, clipped_at):g}")
        if "example" in entry.refused:
            cells[0] = "refused"
        yield f"| {entry.name} | {cells[0]} | {cells[1]} |"


def _summary(entries: Sequence[Entry]) -> Iterator[str]:
    yield "| method | trains | up | down | ranks may differ | `example` | `client` |"
    yield "|---|---|---|---|---|---|---|"
    for entry in entries:
        differ = "yes" if entry.ranks_may_differ else "no"
        units = ["refused" if u in entry.refused else "yes" for u in ("example", "client")]
        link = f"[{entry.name}](#{entry.name})"
        cells = (link, entry.trains, entry.up, entry.down, differ, *units)
        yield f"| {' | '.join(cells)} |"


def _matrix(entries: Sequence[Entry]) -> Iterator[str]:
    yield MATRIX
    yield f"| method | its own rule | {' | '.join(lenders())} |"
    yield "|---|" + "---|" * (1 + len(lenders()))
    for entry in entries:
        own = ("none", *(unit for unit in UNITS if unit not in entry.refused))
        cells = (", ".join(units) or "–" for units in (own, *entry.aggregations.values()))
        yield f"| {entry.name} | {' | '.join(cells)} |"


def _counted() -> Iterator[str]:
    module = nn.Linear(SIZE, SIZE, device="meta")
    names = [f"encoder.layer.{i}.attention.self.{n}" for i in range(6) for n in ("query", "value")]
    sites = [Site(name, module, SIZE, SIZE) for name in names]
    few, many = (costs(sites, SIZE, clients, RANK) for clients in (3, 10))
    yield COUNTED.format(
        layers=LAYERS, size=SIZE, rank=RANK, head=human_bytes(few.head.up), labels=LABELS
    )
    yield "| method | up | down, 3 clients | down, 10 clients | down in round 0 |"
    yield "|---|--:|--:|--:|--:|"
    for a, b in zip(few.methods, many.methods, strict=True):
        sizes = (a.usual.up, a.usual.down, b.usual.down, a.first.down)
        yield f"| {a.method} | {' | '.join(map(human_bytes, sizes))} |"


def _refuse_a_server(entries: Sequence[Entry]) -> Iterator[str]:
    for entry in entries:
        try:
            axes = find(entry.name)().axes(AdamW(lr=0.01), head=True)
            completed(axes, 0.0, ServerAdam())
        except IncompatibleMethodError:
            yield entry.name


def _section(entry: Entry) -> Iterator[str]:
    yield f"## {entry.name}\n\n{entry.summary}\n"
    if entry.text:
        yield f"{entry.text.replace('``', '`')}\n"
    yield f"- Trains {entry.trains}; sends {entry.sends}."
    yield f"- Up: `{entry.up}`. Down: `{entry.down}`."
    yield f"- Exact: {entry.exact}"
    yield f"- Privacy noise: {entry.noise}"
    yield f"- Basis of A and B: {entry.basis}."
    for unit, why in entry.refused.items():
        yield f"- Refused under `privacy.unit: {unit}`: {why}."
    if entry.options:
        yield "\n| option | default | meaning |\n|---|---|---|"
        for option, default in entry.options.items():
            meaning = options(find(entry.name))[option].about.text
            yield f"| `method.{option}` | `{written(default)}` | {meaning} |"
    yield ""


if __name__ == "__main__":
    print(page(), end="")
