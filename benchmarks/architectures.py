"""Which architectures can be trained, private and not, and whether PEFT loads what is saved.

Every model is tiny, random and made without a network (``architecture_models``). Each is opened as
for a run, gradient check and all, and trained for two rounds over two clients of made-up records;
what is saved is loaded by PEFT onto a fresh copy of the base and compared. A full run writes
``docs/models.md``.
"""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten
from typing import Any

import peft
import torch
import transformers

import silotune as st
from silotune.adapters import save_peft
from silotune.core import Batch, ClientId, ClientTask, Factors, seed_of
from silotune.core.masks import DECODER, MASK
from silotune.engine.local_training import local_training
from silotune.engine.participants import Client
from silotune.models.load import GivenModel, quiet
from silotune.models.target_modules import DEFAULT_TARGETS
from silotune.models.target_parameters import endings, expert_stacks
from silotune.privacy.mechanisms.dp_sgd import ExampleLevel
from silotune.privacy.mechanisms.no_privacy import NoPrivacy
from silotune.privacy.mechanisms.noise import Gaussian
from silotune.privacy.mechanisms.sampling import Poisson
from silotune.terms import BuiltModel, Terms, open_model
from silotune.terms.machine import Machine

from .architecture_models import Task, Tiny, architectures, finds_entities, tiny
from .measure import arguments, print_json, print_table

QUICK = ("bert", "deberta-v2", "swin", "opt", "qwen2_moe", "clip", "t5", "big_bird")
EXPERTS = ", experts"
"""After the type, in the row of what its experts do."""

ENTITIES = ", entities"
"""After the type, in the row of what its class that tags tokens does."""

MORE = ("bert-generation", "canine", "ctrl", "jamba", "resnet", "siglip2", "whisper")
"""Types without a default that are tried besides, with ``all-linear``."""

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
LABELS = ("a", "b")
MECHANISMS = (
    NoPrivacy(batch_size=2),
    ExampleLevel(
        sampling=Poisson(0.5), noise=Gaussian(1.0), max_grad_norm=1.0, expected_batch_size=2.0
    ),
)
RECORDS = 4  # of each client


_HEAD = """\
# Models

{counts} (`unit: example`). Each is a tiny random model
of transformers {version}, opened and proved as for a run and trained for two rounds over two
clients. What was saved was loaded by PEFT onto the base and computed the same (logits within
{gap:.0e} of their largest). Made by `python -m benchmarks.architectures`.

**Targets** are the defaults (`all-linear` where there are none); `target_modules` takes others, and
`all-linear` whatever a loss depends on. What is not here can be used with `target_modules`: before
any record is read a run proves its gradients, or says why it cannot.

What does `sequence-classification` does `multi-label-classification` and `regression` as well: it
is the same class of model under another loss; so it is of `image-classification` and
`multi-label-image-classification`. `token-classification` has a class of its own, on the same
targets: where transformers has one, its row is "type, entities". `text-embedding` takes the bare
model, on the same targets too.

**One record at a time**: a target reads something that is not by record (positions that all share),
so single gradients take as many passes. **`micro_batch_size: 1`** must be set: the model
mixes records, or chooses hard (experts for a token), so they must not go through it together; that
costs time, and `unit: client` does not need it.

**Experts** that are one tensor are adapted by `target_parameters`, beside `target_modules` or
alone, by methods of plain pairs; PEFT loads them under the same key. Records share them, so that
`unit: example` refuses them; `unit: client` does not.

| type | task | targets | not private | private |
|---|---|---|---|---|"""


@dataclass(frozen=True)
class Outcome:
    """How one training went.

    Attributes:
        refused: why there is none; empty if it ran.
        sites: linear maps that were adapted.
        one_by_one: whether records went through the model one by one.
        gap: largest difference between PEFT's logits and ours.
        together: why it would be refused with more records at once; empty if it would not.
    """

    refused: str = ""
    sites: int = 0
    one_by_one: bool = False
    gap: float = 0.0
    together: str = ""

    def __str__(self) -> str:
        if self.refused:
            return f"no: {self.refused}"
        if self.together:
            return f"works with `micro_batch_size: 1`; without: {self.together}"
        return "works, one record at a time" if self.one_by_one else "works"


@dataclass(frozen=True)
class Row:
    """One architecture."""

    name: str
    task: str
    targets: str
    plain: Outcome
    private: Outcome


def rows_of(name: str, task: Task | None) -> Iterator[Row]:
    """Try one; where it has experts in one tensor, with pairs beside them as well."""
    asked = DEFAULT_TARGETS.get(name)
    targets = "all-linear" if asked is None else asked
    named = [targets] if isinstance(targets, str) else targets
    shown = ", ".join(f"`{target}`" for target in named).replace("|", r"\|")
    if task is None:
        why = Outcome(f"transformers {transformers.__version__} has no such model for a task here")
        yield Row(name, "", shown, why, why)
        return
    plain, private = _both(name, task)
    yield Row(name, task, shown, plain, private)
    if finds_entities(name, task):
        yield Row(
            name + ENTITIES, "token-classification", shown, *_both(name, "token-classification")
        )
    if not plain.refused and (experts := endings(list(expert_stacks(tiny(name, task).model)))):
        plain, private = (_tried(name, task, m, experts=experts) for m in MECHANISMS)
        yield Row(name + EXPERTS, task, ", ".join(f"`{e}`" for e in experts), plain, private)


def _both(name: str, task: Task) -> tuple[Outcome, Outcome]:
    """Not private and private."""
    plain, private = (_tried(name, task, mechanism) for mechanism in MECHANISMS)
    if private.refused and not plain.refused:
        alone = _tried(name, task, MECHANISMS[1], micro_batch=1)
        private = private if alone.refused else replace(alone, together=private.refused)
    return plain, private


def _tried(
    name: str, task: Task, mechanism: Any, micro_batch: int = 4, experts: Sequence[str] = ()
) -> Outcome:
    try:
        model = tiny(name, task)
    except Exception as error:  # whatever transformers says of sizes that do not fit
        return Outcome(f"no tiny model could be made ({_short(error)})")
    try:
        with tempfile.TemporaryDirectory() as folder:
            machine = Machine(device="cpu", micro_batch_size=micro_batch)
            return _run(model, task, mechanism, name, Path(folder), machine, experts)
    except ValueError as error:
        return Outcome(_short(error))
    except Exception as error:
        return Outcome(f"{type(error).__name__}: {_short(error)}")


def _run(
    model: Tiny,
    task: Task,
    mechanism: Any,
    name: str,
    folder: Path,
    machine: Machine,
    experts: Sequence[str],
) -> Outcome:
    private = mechanism.private
    terms = Terms(
        model=name,
        objective=_objective(task),
        optimizer=st.optim.SGD(lr=0.5),
        method=st.methods.FedIT(
            r=2,
            target_modules=() if experts else None if name in DEFAULT_TARGETS else "all-linear",
            target_parameters=tuple(experts) or None,
        ),
        privacy=st.ExampleDP(noise_multiplier=1.0, target_delta=1e-3) if private else st.NoDP(),
    )
    labels = terms.objective.label_names or ()
    built = open_model(terms, labels, machine, GivenModel(model.model, model.reader))
    learned = _trained(built, mechanism)
    save_peft(folder, learned, built.axes.adapter, built.sites, built.layout)
    built.trainer.adapted.load(learned)
    return Outcome(
        sites=len(built.sites),
        one_by_one=built.trainer.micro_batch == 1,
        gap=_gap(model.model, built, folder),
    )


@dataclass(frozen=True, eq=False)
class MadeUp:
    """Records that belong to nobody, of one length."""

    records: Batch

    @property
    def lengths(self) -> list[int]:
        """The same for all."""
        return [1] * len(self.records["labels"])

    def batch(self, indices: Sequence[int]) -> Batch:
        """Some of them."""
        return {name: t[list(indices)] for name, t in self.records.items()}


def _trained(built: BuiltModel, mechanism: Any) -> Factors:
    """All tensors after two rounds of two clients, each a step, and their mean."""
    factors, objective = built.first, built.trainer.objective
    for number in range(2):
        ends = []
        for name in ("east", "west"):
            seed = seed_of(name, number)
            made = objective.synthetic(built.loaded.inputs, [8] * RECORDS, seed)  # type: ignore[attr-defined]
            client = Client(
                client=ClientId(name), train=MadeUp(made), held_out=None, privacy=mechanism
            )
            task = ClientTask(
                run="tiny",
                round=number,
                client=client.client,
                factors=factors,
                seeded=(),
                plan=built.plan,
                steps=1,
                learning_rates=(1.0,),
                seed=seed,
            )
            ends.append(local_training(task, built.trainer, client, factors).factors)
        factors = ends[0].zip(ends[1], lambda one, other: (one + other) / 2)
    return factors


@torch.no_grad()
def _gap(base: Any, built: BuiltModel, folder: Path) -> float:
    """How far PEFT's logits are from ours on made-up records, relative to the largest."""
    objective = built.trainer.objective
    inputs = objective.synthetic(built.loaded.inputs, [8, 8], 1)  # type: ignore[attr-defined]
    labels = inputs.pop("labels")
    if DECODER + MASK in inputs:
        inputs[f"{DECODER}input_ids"] = labels.clamp(min=0)
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(base), folder).eval()
    expected = built.trainer.adapted.model.eval()(**inputs).logits
    found = theirs(**inputs).logits
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6))


def _objective(task: Task) -> Any:
    match task:
        case "causal-lm":
            return st.CausalLM(text="text", max_length=24)
        case "seq2seq":
            return st.Seq2Seq(source="text", target="line", max_length=24, max_target_length=12)
        case "image-classification":
            return st.ImageClassification(image="image", label="label", labels=LABELS)
        case "token-classification":
            return st.TokenClassification(words="words", tags="tags", labels=["A"], max_length=24)
        case _:
            return st.SequenceClassification(
                text="text", label="label", labels=LABELS, max_length=24
            )


def _short(error: Exception) -> str:
    return shorten(str(error).replace("|", "/").replace("\n", " "), 220)


def _wanted(*, quick: bool) -> Iterator[tuple[str, Task | None]]:
    tasks = dict(architectures())
    names = QUICK if quick else (*DEFAULT_TARGETS, *MORE)
    return ((name, tasks.get(name)) for name in sorted(names, key=str.lower))


def page(rows: Sequence[Row]) -> str:
    """``docs/models.md``."""
    whole = [r for r in rows if not r.name.endswith((EXPERTS, ENTITIES))]
    works = sum(not r.plain.refused for r in whole)
    private = sum(not r.private.refused for r in whole)
    counts = f"{len(whole)} architectures: {works} train without privacy, {private} with it"
    gap = max(max(r.plain.gap, r.private.gap) for r in rows)
    lines = [_HEAD.format(counts=counts, version=transformers.__version__, gap=gap)]
    for r in rows:
        lines.append(f"| {r.name} | {r.task} | {r.targets} | {r.plain} | {r.private} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = arguments(__doc__ or "")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    rows: list[Row] = []
    for name, task in _wanted(quick=args.quick):
        with quiet():
            found = list(rows_of(name, task))
        for each in found:
            print(f"{each.name}: {each.plain} | {each.private}", flush=True)
        rows += found
    print_table(
        "architectures",
        ("type", "not private", "private", "gap"),
        [(r.name, _word(r.plain), _word(r.private), f"{r.plain.gap:.0e}") for r in rows],
    )
    if not args.quick:
        PAGE.write_text(page(rows))
    print_json(
        tried=len(rows),
        plain=sum(not r.plain.refused for r in rows),
        private=sum(not r.private.refused for r in rows),
        largest_gap=max(max(r.plain.gap, r.private.gap) for r in rows),
    )


def _word(outcome: Outcome) -> str:
    return "refused" if outcome.refused else str(outcome).partition(";")[0]


if __name__ == "__main__":
    main()
