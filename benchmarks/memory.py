"""How much memory does a private step take, beside PEFT's without privacy at the same batch?

``python -m benchmarks.memory [--quick] [--threads N]``

What is counted are the bytes of tensors that are alive at once in one step, besides the model's
own: exact, and the same on every machine (``core.tensor_memory``). A decoder of 160 million random
weights really runs, in a process of its own for every row, and the most resident memory stands
beside the count; Llamas of 1B and 8B are counted by their shapes alone, without a number in them,
as is that of 160M, whose two counts must agree. Kernels of a GPU (attention above all) keep less
than a CPU's; both sides of a ratio are counted alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM

from silotune.adapters import LoRA, initial_factors, inject
from silotune.core import Batch
from silotune.core.tensor_memory import peak_bytes
from silotune.models.target_modules import find_sites
from silotune.objectives import CausalLM
from silotune.privacy import ClientMechanism, Discrete, NoPrivacy
from silotune.privacy.mechanisms.noise import NoNoise

from .measure import arguments, frugal_allocator, in_child, peak, print_json, print_table
from .peers import KINDS, mechanism
from .peers import Case as Peer

GOAL = 1.10
REFERENCE = "PEFT"
OBJECTIVE = CausalLM(text="text", max_length=4096)
TARGETS: Mapping[str, str | list[str]] = {"q,v": ["q_proj", "v_proj"], "all-linear": "all-linear"}

SMALL = {"num_attention_heads": 12, "num_key_value_heads": 12, "vocab_size": 32_000}
LARGE = {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256}
SHAPES: Mapping[str, Mapping[str, int]] = {
    "160M": {"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072} | SMALL,
    "1B": {"hidden_size": 2048, "num_hidden_layers": 16, "intermediate_size": 8192} | LARGE,
    "8B": {"hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14336} | LARGE,
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96}
    | {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 260},
}


@dataclass(frozen=True)
class Case:
    """One step.

    Attributes:
        shape: key of ``SHAPES``.
        targets: key of ``TARGETS``.
        kind: key of ``KINDS``.
        rank: r; alpha is twice that.
        records: of the batch.
        tokens: of a record.
        half: whether the base is in bfloat16.
        checkpointing: whether layers are computed again in the backward pass.
    """

    shape: str
    targets: str = "q,v"
    kind: str = "FFA"
    rank: int = 8
    records: int = 4
    tokens: int = 512
    half: bool = False
    checkpointing: bool = False

    def __str__(self) -> str:
        half, again = ("bfloat16" if self.half else "float32"), ", checkpointing"
        return (
            f"{self.shape} {half} {self.kind} {self.targets} r {self.rank}, "
            f"{self.records}x{self.tokens}{again if self.checkpointing else ''}"
        )


Step = Callable[[], object]

RUN = [
    Case("160M", records=4, tokens=128),
    Case("160M", "all-linear", "LoRA", 64, records=4, tokens=128),
]
COUNTED = [
    case
    for shape in ("1B", "8B")
    for case in (
        Case(shape, half=True),
        Case(shape, "all-linear", "LoRA", 64, half=True),
        Case(shape, "all-linear", "LoRA", 64, half=True, checkpointing=True),
    )
]
QUICK = [Case("tiny", tokens=16), Case("tiny", "all-linear", "LoRA", 16, tokens=16, half=True)]


def main() -> None:
    """Count every case, and run the small ones."""
    options = arguments("Memory of a private step beside PEFT's.").parse_args()
    torch.set_num_threads(options.threads)
    runs, cases = (QUICK[:1], QUICK) if options.quick else (RUN, COUNTED)
    counted = {str(case): {name: counted_by_shapes(case, name) for name in ARMS} for case in cases}
    rows = [[case, *_beside(found)] for case, found in counted.items()]
    header = ["MiB of tensors, by shapes alone", REFERENCE, *[f"{n} / it" for n in OTHERS]]
    print_table("Peak of a step", header, rows)
    ran: dict[str, dict[str, list[int]]] = {}
    for case in runs:
        with frugal_allocator():
            ran[str(case)] = {n: in_child(run, case, n, options.threads) for n in ARMS}
        table = [[n, *[f"{b / 2**20:.1f}" for b in found]] for n, found in ran[str(case)].items()]
        header = ["MiB of a step of", "counted as it ran", "by shapes alone", "resident"]
        print_table(str(case), header, table)
    together = [row["ours private"] / row[REFERENCE] for row in counted.values()]
    print_json(
        benchmark="memory",
        counted=counted,
        ran=ran,
        highest_of_ours_private=round(max(together), 4),
        above_the_goal=[c for c, f in counted.items() if f["ours private"] > GOAL * f[REFERENCE]],
    )


def counted_by_shapes(case: Case, arm: str) -> int:
    """Bytes at the peak of one step, of which no number is computed."""
    with torch.device("meta"):
        model = MODELS.get(arm, decoder)(case)
    with FakeTensorMode(allow_non_fake_inputs=True), _Agreeable():
        return peak_bytes(ARMS[arm](case, _without_numbers(model), silent=True))


def run(case: Case, arm: str, threads: int) -> list[int]:
    """Bytes at the peak of one step: counted as it ran, by shapes, and of resident memory."""
    torch.set_num_threads(threads)
    make = MODELS.get(arm, decoder)
    small = replace(case, records=2, tokens=8)
    ARMS[arm](small, make(small), silent=False)()  # loads what is loaded late
    step = ARMS[arm](case, make(case), silent=False)
    resident = peak(step).step
    return [peak_bytes(step), counted_by_shapes(case, arm), resident]


def decoder(case: Case) -> Any:
    """A frozen Llama with random weights."""
    sizes = SHAPES[case.shape]
    config = LlamaConfig(**sizes, max_position_embeddings=4096, use_cache=False, pad_token_id=0)
    with _default(torch.bfloat16 if case.half else torch.float32):
        model = LlamaForCausalLM(config)
    model.requires_grad_(False)
    if case.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model


def batch_of(case: Case) -> Batch:
    """Records of exactly so many random tokens."""
    vocabulary = SHAPES[case.shape]["vocab_size"]
    ids = torch.randint(4, vocabulary, (case.records, case.tokens))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}


def peft_model(case: Case) -> Any:
    """The same with PEFT's pairs."""
    config = LoraConfig(r=case.rank, lora_alpha=2 * case.rank, target_modules=TARGETS[case.targets])
    model = get_peft_model(decoder(case), config)
    if case.kind == "FFA":
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("lora_B" in name)
    return model


def peft_step(case: Case, model: Any, *, silent: bool) -> Step:
    """As everybody writes it."""
    batch = batch_of(case)
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()

    return step


def our_step(
    case: Case, model: Any, *, silent: bool, private: bool = False, singly: bool = False
) -> Step:
    """Ours.

    Args:
        case: what is trained.
        model: frozen; changed in place.
        silent: draw no noise, whose place is taken all the same.
        private: clip every record, and add noise on a grid, as a run does that says nothing else.
        singly: records go through the model one by one, as they do in half precision.
    """
    batch, adapter = batch_of(case), LoRA(rank=case.rank, alpha=2.0 * case.rank)
    sites = find_sites(model, TARGETS[case.targets])
    adapted = inject(model, sites, (), adapter)
    adapted.load(initial_factors(sites, adapter, seed=0))
    trained = adapted.train_only(KINDS[case.kind])
    adapted.model.train()
    privacy: ClientMechanism = NoPrivacy(batch_size=case.records)
    if private:
        noisy = Peer(model="", batch_size=case.records)
        privacy = mechanism(noisy, 100 * case.records, Discrete)
    draws = privacy.draws(0, None)
    draws = draws._replace(noise=NoNoise()) if silent else draws
    optimizer = torch.optim.SGD(list(trained.values()), lr=1e-4)
    # From the second on each is alike: the sums are there since the first.
    parts = [{n: t[i : i + 1] for n, t in batch.items()} for i in range(min(2, case.records))]
    losses = partial(adapted.losses, OBJECTIVE.losses)

    def step() -> None:
        optimizer.zero_grad()
        privacy.gradients(trained, adapted.sink, losses, parts if singly else [batch], draws)
        optimizer.step()

    return step


ARMS: Mapping[str, Callable[..., Step]] = {
    REFERENCE: peft_step,
    "ours": our_step,
    "ours private": partial(our_step, private=True),
    "one by one": partial(our_step, private=True, singly=True),
}
MODELS = {REFERENCE: peft_model}
OTHERS: Sequence[str] = list(ARMS)[1:]


class _Agreeable(TorchDispatchMode):
    """Tensors without numbers, asked for one: whatever is asked is so, and what is counted is 0."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return args[0].dtype == torch.bool
        return func(*args, **(kwargs or {}))


def _without_numbers(model: Any) -> Any:
    """A model of the meta device as one of the CPU, as ``FakeTensorMode`` has it."""
    for module in model.modules():
        for name, p in module.named_parameters(recurse=False):
            fake = torch.empty(p.shape, dtype=p.dtype)
            setattr(module, name, nn.Parameter(fake, requires_grad=p.requires_grad))
        for name, b in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(b.shape, dtype=b.dtype))
    return model


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _beside(found: Mapping[str, int]) -> list[str]:
    base = found[REFERENCE]
    return [f"{base / 2**20:.0f}", *[f"{found[name] / base:.3f}" for name in OTHERS]]


if __name__ == "__main__":
    main()
