"""Five minutes for a machine with a GPU: is it right there, and what does it cost beside PEFT?

``python -m benchmarks.gpu [--device cuda|cpu] [--tiny] [--shapes 1B 8B] [--tokens 512]``

Random weights of Llama's shapes, nothing is downloaded. It says, for a base in bfloat16 with pairs
on queries and values:

- how far gradients of single records are from those of a CPU in float64, for a base in float32 and
  in bfloat16, and by how many C records move each other: above the limit of the gradient check
  they go through the model one by one when single records are hidden;
- a step of PEFT, of silotune and of silotune with privacy (noise on a grid, as is usual) beside the
  physical limit, which is the frozen base's forward pass and the gradient of its input; and their
  peak memory;
- what noise costs: it is drawn on the CPU from the secure stream, and copied;
- where the time of a private step goes.

With ``--device cpu --tiny`` everything runs, in seconds, on any machine; its times mean nothing.
"""

from __future__ import annotations

import argparse
import copy
import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from silotune.adapters import AdaptedModel, inject
from silotune.core import Batch, Factors, Key, generator
from silotune.core.inputs import TextInput
from silotune.engine import RecordsMixError, check_gradients
from silotune.engine.isolation import ROUNDING
from silotune.models.target_modules import find_sites
from silotune.objectives import CausalLM
from silotune.privacy.mechanisms.gaussian import standard_normal
from silotune.privacy.mechanisms.no_privacy import NoPrivacy
from silotune.privacy.mechanisms.noise import Discrete, NoNoise
from silotune.privacy.mechanisms.secure_rng import Randomness

from .measure import print_json, print_table
from .peers import KINDS, LORA, Case, mechanism, start

TARGETS = ["q_proj", "v_proj"]
OBJECTIVE = CausalLM(text="text", max_length=4096)
REPETITIONS = 5
WRONG = 1e-3  # what float32 rounds is a hundred times less


@dataclass(frozen=True)
class Shape:
    """A decoder, and how many records go through it at once.

    Attributes:
        config: of its layers.
        records: sizes of a micro-batch.
    """

    config: Mapping[str, Any]
    records: Sequence[int]


SHAPES = {
    "1B": Shape(
        {"hidden_size": 2048, "num_hidden_layers": 16, "intermediate_size": 8192}, (4, 8, 16, 32)
    ),
    "8B": Shape(
        {"hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14336}, (4, 16)
    ),
}
LARGE = {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256}
TINY = Shape(
    {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96, "vocab_size": 260}
    | {"num_attention_heads": 4, "num_key_value_heads": 2},
    (2, 4),
)


def main(given: Sequence[str] | None = None) -> None:
    """Ask everything in turn; what does not fit into memory is said."""
    parser = argparse.ArgumentParser(description="What a GPU makes of a private step.")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a tiny model: does it run at all?")
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--tokens", type=int, default=512, help="of a record")
    options = parser.parse_args(given)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            "--device cuda: there is none here; --device cpu --tiny shows that it runs"
        )
    device, tokens = torch.device(options.device), 12 if options.tiny else options.tokens
    shapes = {"tiny": TINY} if options.tiny else {name: SHAPES[name] for name in options.shapes}
    torch.backends.cuda.matmul.allow_tf32 = False
    right = {kind: correct(device, kind) for kind in (torch.float32, torch.bfloat16)}
    rows = [[str(kind)[6:], *[f"{n:.1e}" for n in found.values()]] for kind, found in right.items()]
    print_table("Against a CPU in float64", ["base", *right[torch.float32]], rows)
    if not right[torch.float32]["single gradients"] < WRONG:
        raise SystemExit("single gradients are wrong here; what follows would mean nothing")
    found: dict[str, Any] = {}
    for name, shape in shapes.items():
        found[name] = measured(name, shape, device, tokens)
    print_json(
        benchmark="gpu",
        device=torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        tokens=tokens,
        right={str(kind)[6:]: errors for kind, errors in right.items()},
        shapes=found,
    )


def made(shape: Shape, device: torch.device, dtype: torch.dtype) -> Any:
    """A frozen decoder with random weights."""
    sizes = {**LARGE, **shape.config}
    config = LlamaConfig(**sizes, max_position_embeddings=4096, use_cache=False, pad_token_id=0)
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(dtype)
    model = model.to_empty(device=device)
    with device:  # angles are no weights, and were made without numbers
        model.model.rotary_emb = type(model.model.rotary_emb)(config)
    draw = torch.Generator(device).manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            torch.nn.init.ones_(parameter)
        else:
            parameter.data.normal_(std=parameter.shape[1] ** -0.5, generator=draw)
        parameter.requires_grad_(False)
    return model.eval()


def twin(model: Any) -> Any:
    """The same modules anew, on the same weights."""
    return copy.deepcopy(model, {id(p): p for p in model.parameters()})


def ours(model: Any) -> AdaptedModel:
    """Pairs beside queries and values, not zero, B alone trained as in FFA-LoRA."""
    sites = find_sites(model, TARGETS)
    adapted = inject(model, sites, (), LORA)
    adapted.load(start(sites, ()))
    adapted.train_only(KINDS["FFA"])
    adapted.model.train()
    return adapted


def batch_of(vocabulary: int, records: int, tokens: int, device: torch.device) -> Batch:
    """Records of exactly so many random tokens."""
    g = generator("gpu", records, tokens)
    ids = torch.randint(4, vocabulary, (records, tokens), generator=g).to(device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}


def correct(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """How far losses, gradients of records and their clipped sum are off, and who moves whom.

    Errors are relative to the largest number.
    """
    there = made(TINY, torch.device("cpu"), dtype)
    here = ours(copy.deepcopy(there).double())
    there = ours(there.to(device))
    batch = batch_of(TINY.config["vocab_size"], 4, 12, torch.device("cpu"))
    expected, got = _gradients(here, batch), _gradients(there, _moved(batch, device))
    errors = {
        part: _gap(got[part], expected[part]) for part in ("losses", "single gradients", "sum")
    }
    return {**errors, "moved, in C": coupling(there, TINY.config["vocab_size"], 24, 8)}


def coupling(adapted: AdaptedModel, vocabulary: int, tokens: int, records: int) -> float:
    """By how many C records that go through the model together move each other."""
    spec = TextInput(vocabulary=vocabulary, special=frozenset({0, 1, 2, 3}), pad=0)
    lengths = [5, 8, 4, 7, 6, 8, 5, 7, tokens // 2, tokens - 1, tokens]
    made_up = OBJECTIVE.synthetic(spec, lengths, 0)
    try:
        found = check_gradients(
            adapted, OBJECTIVE, made_up, KINDS["FFA"], micro_batch=records
        ).moved
    except RecordsMixError as error:
        found = error.moved
    adapted.train_only(KINDS["FFA"])
    adapted.model.train()
    return found


def measured(name: str, shape: Shape, device: torch.device, tokens: int) -> dict[str, Any]:
    """Steps, memory, noise and profile of one shape."""
    base = made(shape, device, torch.bfloat16)
    steps = _steps_of(base, shape)
    adapted = steps.pop("adapted")
    vocabulary = base.config.vocab_size
    found: dict[str, Any] = {"trained": sum(t.numel() for t in _trained(adapted).values())}
    found["moved, in C"] = coupling(adapted, vocabulary, tokens, 4)
    together = "together" if found["moved, in C"] <= ROUNDING else "one by one"
    print(
        f"\n{name}: records move each other by {found['moved, in C']:.1e} C, so they go {together}"
    )
    for records in shape.records:
        batch = batch_of(vocabulary, records, tokens, device)
        try:
            timed = _in_turns({n: partial(step, batch) for n, step in steps.items()}, device)
            peaks = {n: _peak(partial(step, batch), device) for n, step in steps.items()}
        except torch.OutOfMemoryError:
            print(f"\n{name}, {records} records: out of memory")
            continue
        finally:
            gc.collect()
        title = f"{name}, bfloat16, {records} records of {tokens} tokens"
        rows = [
            [n, f"{1e3 * s:.1f}", f"{timed['limit'] / s:.3f}", f"{timed['PEFT'] / s:.3f}", peaks[n]]
            for n, s in timed.items()
        ]
        header = ["step of", "ms", "limit / it", "PEFT / it", "peak MiB"]
        print_table(title, header, [[str(cell) for cell in row] for row in rows])
        found[str(records)] = {n: [round(1e3 * s, 2), peaks[n]] for n, s in timed.items()}
    found["noise"] = _noise(found["trained"], device)
    _profile(partial(steps["ours private"], batch_of(vocabulary, shape.records[0], tokens, device)))
    return found


Step = Callable[[Batch], object]


def _steps_of(base: Any, shape: Shape) -> dict[str, Any]:
    """By name; all on the same weights."""
    peft = get_peft_model(
        twin(base), LoraConfig(r=LORA.rank, lora_alpha=int(LORA.alpha), target_modules=TARGETS)
    )
    for name, parameter in peft.named_parameters():
        parameter.requires_grad_("lora_B" in name)
    moving = [p for p in peft.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(moving, lr=1e-4)
    adapted = ours(twin(base))
    peft.train()

    def limit(batch: Batch) -> None:
        embedded = base.get_input_embeddings()(batch["input_ids"]).requires_grad_()
        inputs = {"inputs_embeds": embedded, "attention_mask": batch["attention_mask"]}
        base(**inputs, labels=batch["labels"]).loss.backward()

    def peft_step(batch: Batch) -> None:
        optimizer.zero_grad()
        peft(**batch).loss.backward()
        optimizer.step()

    size = max(shape.records)
    private = mechanism(Case(model="", batch_size=size), 100 * size, Discrete)
    return {
        "adapted": adapted,
        "limit": limit,
        "PEFT": peft_step,
        "ours": _step(adapted, NoPrivacy(batch_size=size)),
        "ours private": _step(adapted, private),
        "ours private, without noise": _step(adapted, private, silent=True),
        "ours private, one by one": _step(adapted, private, singly=True),
    }


def _step(
    adapted: AdaptedModel, privacy: Any, *, singly: bool = False, silent: bool = False
) -> Step:
    trained, draws = _trained(adapted), privacy.draws(0, None)
    draws = draws._replace(noise=NoNoise()) if silent else draws
    optimizer = torch.optim.SGD(list(trained.values()), lr=1e-4)

    def step(batch: Batch) -> None:
        optimizer.zero_grad()
        records = range(len(batch["labels"]))
        parts = (
            [{n: t[i : i + 1] for n, t in batch.items()} for i in records] if singly else [batch]
        )
        privacy.gradients(
            trained, adapted.sink, lambda b: adapted.losses(OBJECTIVE.losses, b), parts, draws
        )
        optimizer.step()

    return step


def _trained(adapted: AdaptedModel) -> dict[Key, torch.nn.Parameter]:
    return {key: p for key, p in adapted.tensors.items() if p.requires_grad}


def _gradients(adapted: AdaptedModel, batch: Batch) -> dict[str, Tensor]:
    """Losses (n,), single gradients (n, P) and their clipped sum (P,)."""
    records = len(batch["labels"])
    with adapted.sink.collect(records) as rows:
        losses = adapted.losses(OBJECTIVE.losses, batch)
        losses.sum().backward()
        flat = torch.cat([g.reshape(records, -1) for _, g in sorted(rows.items())], dim=1)
    privacy = mechanism(Case(model="", batch_size=1, noise=0.0), 100)
    trained = _trained(adapted)
    privacy.gradients(
        trained,
        adapted.sink,
        lambda b: adapted.losses(OBJECTIVE.losses, b),
        [batch],
        privacy.draws(0, None),
    )
    total = Factors({key: p.grad for key, p in trained.items() if p.grad is not None})
    whole = torch.cat([tensor.flatten() for _, tensor in sorted(total.items())])
    return {"losses": losses.detach(), "single gradients": flat.detach(), "sum": whole}


def _gap(found: Tensor, expected: Tensor) -> float:
    reference = expected.double().cpu()
    return float((found.double().cpu() - reference).abs().max() / reference.abs().max())


def _moved(batch: Batch, device: torch.device) -> Batch:
    return {name: tensor.to(device) for name, tensor in batch.items()}


def _noise(numbers: int, device: torch.device) -> dict[str, float]:
    """Milliseconds of a step's noise from the secure stream, and of its way to the device."""
    stream, waits = Randomness.secret(), {}
    on_grid, drawn = Discrete(1.0).source(stream, 0), standard_normal(stream, numbers)
    for name, run in {
        "drawn on a grid": lambda: on_grid.draw(1.0, numbers),
        "drawn in floating point": lambda: standard_normal(stream, numbers),
        "copied": lambda: drawn.to(device),
        "torch.randn there, which is not secret": lambda: torch.randn(numbers, device=device),
    }.items():
        waits[name] = round(1e3 * _in_turns({name: run}, device)[name], 3)
    rows = [[name, str(ms)] for name, ms in waits.items()]
    print_table(f"Noise of {numbers:,} numbers", ["", "ms"], rows)
    return waits


def _profile(step: Callable[[], object]) -> None:
    """Where the time of a private step goes."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as seen:
        step()
    order = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    print("\nWhere the time of a private step goes")
    print(seen.key_averages().table(sort_by=order, row_limit=12, max_name_column_width=40))


def _in_turns(runs: Mapping[str, Callable[[], object]], device: torch.device) -> dict[str, float]:
    """Median seconds of each, in turns, after one run of each to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(REPETITIONS + 1):
        for name in list(runs)[:: -1 if turn % 2 else 1]:
            _wait(device)
            begin = time.perf_counter()
            runs[name]()
            _wait(device)
            if turn:
                seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(s) for name, s in seconds.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak(run: Callable[[], object], device: torch.device) -> str:
    """MiB above what was held before; a dash where that is not known."""
    if device.type != "cuda":
        return "-"
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    return f"{(torch.cuda.max_memory_allocated(device) - before) / 2**20:.0f}"


if __name__ == "__main__":
    main()
