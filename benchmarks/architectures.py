"""Which architectures can be trained, private and not, and whether PEFT loads what is saved.

Every model is tiny, random and made without a network (``architecture_models``). Each is trained
for two rounds over two clients; what is saved is loaded by PEFT onto a fresh copy of the base and
compared with the run's own merged model. A full run writes ``docs/models.md``.
"""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
import transformers
from PIL import Image

import silotune as st
from silotune.models.load import quiet
from silotune.models.target_modules import DEFAULT_TARGETS

from .architecture_models import PIXELS, Task, Tiny, architectures, tiny
from .measure import arguments, print_json, print_table

QUICK = ("bert", "deberta-v2", "swin", "opt", "qwen2_moe", "clip", "t5", "big_bird")
MORE = ("bert-generation", "canine", "ctrl", "jamba", "resnet", "siglip2", "whisper")
"""Types without a default that are tried besides, with ``all-linear``."""

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
LABELS = ("a", "b")
PRIVACY: Mapping[str, Any] = {
    "not private": st.NoDP(),
    "private": st.ExampleDP(noise_multiplier=1.0, target_delta=1e-3),
}
RECORDS = 4  # of each client


_HEAD = """\
# Models

{counts} (`unit: example`): each a tiny random model of transformers {version},
trained for two rounds. What was saved was loaded by PEFT onto the base and computed the same.
Made by `python -m benchmarks.architectures`.

**Targets** are the defaults (`all-linear` where there are none); `target_modules` takes others, and
`all-linear` whatever a loss depends on. What is not here can be used with `target_modules`: before
any record is read a run proves its gradients, or says why it cannot.

**One record at a time**: a target reads something that is not by record (positions that all share),
so single gradients take as many passes. **A hard choice**, as of experts for a token: set
`micro_batch_size: 1`, at the price of time, or hide clients instead (`unit: client`).

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
    """

    refused: str = ""
    sites: int = 0
    one_by_one: bool = False
    gap: float = 0.0

    def __str__(self) -> str:
        if self.refused:
            return f"no: {self.refused}"
        return "works, one record at a time" if self.one_by_one else "works"


@dataclass(frozen=True)
class Row:
    """One architecture."""

    name: str
    task: str
    targets: str
    plain: Outcome
    private: Outcome


def row(name: str, task: Task | None) -> Row:
    """Try one."""
    asked = DEFAULT_TARGETS.get(name)
    targets = "all-linear" if asked is None else asked
    shown = f"`{targets}`" if isinstance(targets, str) else ", ".join(f"`{t}`" for t in targets)
    if task is None:
        why = Outcome(f"transformers {transformers.__version__} has no such model for a task here")
        return Row(name, "", shown, why, why)
    plain, private = (_tried(name, task, privacy) for privacy in PRIVACY.values())
    return Row(name, task, shown, plain, private)


def _tried(name: str, task: Task, privacy: Any) -> Outcome:
    try:
        model = tiny(name, task)
    except Exception as error:  # whatever transformers says of sizes that do not fit
        return Outcome(f"no tiny model could be made ({_short(error)})")
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _run(model, task, privacy, name, Path(folder))
    except ValueError as error:
        return Outcome(_short(error))
    except Exception as error:
        return Outcome(f"{type(error).__name__}: {_short(error)}")


def _run(model: Tiny, task: Task, privacy: Any, name: str, folder: Path) -> Outcome:
    federation = st.Federation(
        model=model.model,
        **{"image_processor" if task == "image-classification" else "tokenizer": model.reader},
        clients={client: _records(task) for client in ("east", "west")},
        objective=_objective(task),
        method=st.methods.FedIT(
            r=2, target_modules=None if name in DEFAULT_TARGETS else "all-linear"
        ),
        optimizer=st.optim.SGD(lr=0.1),
        privacy=privacy,
        num_examples=RECORDS,
        rounds=2,
        local_steps=1,
        batch_size=2,
        micro_batch_size=4,
        valid=_records(task)[:2],
        eval_every=2,
    )
    notices = " ".join(federation.plan().notices)
    run = federation.fit(folder / "run", progress=False)
    run.save_pretrained(folder / "adapter")
    return Outcome(
        sites=len(_adapted(folder / "adapter")),
        one_by_one="one by one" in notices,
        gap=_gap(model.model, run.merged_model(), folder / "adapter", federation),
    )


def _adapted(folder: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        return [name for name in file.keys() if name.endswith("lora_A.weight")]  # noqa: SIM118


@torch.no_grad()
def _gap(base: Any, ours: Any, adapter: Path, federation: st.Federation) -> float:
    """The largest difference of logits on made-up records."""
    import peft

    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(base), adapter).eval()
    if isinstance(federation.objective, st.ImageClassification):
        inputs = {"pixel_values": torch.randn(2, 3, PIXELS, PIXELS)}
    else:
        ids = torch.randint(4, 260, (2, 8))
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    found, expected = theirs(**inputs).logits, ours.eval()(**inputs).logits
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6))


def _records(task: Task) -> list[dict[str, Any]]:
    if task == "image-classification":
        g = torch.Generator().manual_seed(0)
        pixels = torch.randint(256, (RECORDS, PIXELS, PIXELS, 3), generator=g, dtype=torch.uint8)
        images = [Image.fromarray(p.numpy()) for p in pixels]
        return [{"image": im, "label": LABELS[i % 2]} for i, im in enumerate(images)]
    texts = ("a cat slept", "the dog ran again", "birds saw it", "a mouse ate today")
    return [{"text": text, "label": LABELS[i % 2]} for i, text in enumerate(texts)]


def _objective(task: Task) -> Any:
    match task:
        case "causal-lm":
            return st.CausalLM(text="text", max_length=24)
        case "image-classification":
            return st.ImageClassification(image="image", label="label", labels=LABELS)
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
    works = sum(not r.plain.refused for r in rows)
    private = sum(not r.private.refused for r in rows)
    counts = f"{len(rows)} architectures, {works} of them without privacy, {private} with it"
    lines = [_HEAD.format(counts=counts, version=transformers.__version__)]
    for r in rows:
        lines.append(f"| {r.name} | {r.task} | {r.targets} | {r.plain} | {r.private} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = arguments(__doc__ or "")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    rows = []
    for name, task in _wanted(quick=args.quick):
        with quiet():
            rows.append(row(name, task))
        print(f"{name}: {rows[-1].plain} | {rows[-1].private}", flush=True)
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
    return "refused" if outcome.refused else str(outcome)


if __name__ == "__main__":
    main()
