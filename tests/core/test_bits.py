"""What machines must agree on bit for bit: drawn tensors, plans, digests, messages and ledgers.

Each is pinned by its SHA-256, so that a machine, a kernel or a version that differs is seen here
before a federation of unlike machines refuses to begin. What is trained is not among them: its last
bits depend on the processor, and are promised on one machine only.
"""

import hashlib
import json

import pytest
import torch
from torch import nn

from silotune.adapters import MiLoRA, Projection, ResLoRA, initial_factors
from silotune.adapters.lora import Init, LoRA
from silotune.adapters.mole import Expert, Experts
from silotune.core import (
    ClientId,
    ClientTask,
    ClientUpdate,
    Factors,
    Key,
    Meter,
    Phase,
    Role,
    RoundPlan,
    Seeded,
    Site,
    encode_result,
    encode_task,
    seed_of,
)
from silotune.linalg import LowRank
from silotune.models.heads import random_head
from silotune.privacy import Charge, LedgerEntry
from silotune.privacy.ledger.entry import written
from silotune.privacy.mechanisms.secure_rng import Randomness
from silotune.schedules import Boost

OUT, IN, RANK = 24, 40, 3
ONES = torch.ones(IN, IN, dtype=torch.float32)
SITES = [
    Site(f"encoder.layer.{layer}.{name}", nn.Linear(IN, OUT), IN, OUT)
    for layer in range(4)
    for name in ("query", "value")
]
EXPERTS = tuple(
    Expert(f"e{i}", {s.name: LowRank(ONES[:OUT, :2], ONES[:2]) for s in SITES}) for i in range(3)
)
PAIR = LoRA(rank=RANK, alpha=6.0)

DRAWN = {
    "kaiming": PAIR,
    "orthonormal": LoRA(rank=RANK, alpha=6.0, init=Init.ORTHONORMAL),
    "projector": Projection(rank=RANK, alpha=6.0),
    "reslora": ResLoRA(pair=PAIR),
    "routers": MiLoRA(expert=PAIR),
    "gates": Experts(experts=EXPERTS, gate_input="mean"),
}


def sha(blob: bytes) -> str:
    return hashlib.sha256(blob).hexdigest()[:16]


def fixed_factors() -> Factors:
    """Numbers that are exact in binary, of no generator."""
    shapes = {Key("q", Role.A): (RANK, IN), Key("q", Role.B): (OUT, RANK)}
    return Factors(
        {k: torch.arange(s[0] * s[1], dtype=torch.float32).view(s) / 64 for k, s in shapes.items()}
    )


def task() -> ClientTask:
    return ClientTask(
        run="run",
        round=2,
        client=ClientId("north"),
        factors=fixed_factors(),
        folded={"q": LowRank(ONES[:OUT, :1], ONES[:1])},
        seeded=(Seeded(seed=7, keys=(Key("q", Role.A),), digest="0" * 64),),
        plan=RoundPlan(phases=(Phase(roles=frozenset({Role.B})),), share=frozenset({Role.B})),
        steps=4,
        learning_rates=(0.5, 0.5, 0.25, 0.0),
        seed=11,
    )


def answer() -> ClientUpdate:
    return ClientUpdate(
        run="run",
        round=2,
        client=ClientId("north"),
        sealed=b"sealed",
        meters={"n": Meter(3.0, 1.0)},
    )


def entry() -> LedgerEntry:
    return LedgerEntry(
        run="run",
        silo="north",
        round=2,
        attempt=0,
        charge=Charge(0.1, 0.7, 4),
        max_grad_norm=1.0,
        time="2026-01-01T00:00:00+00:00",
    )


PINNED = {
    "kaiming": "a3a77536edd5fc37",
    "orthonormal": "2c9fdafaeeec4daa",
    "projector": "71c96cfb1c82cc25",
    "reslora": "a3a77536edd5fc37",
    "routers": "8874492cbf445348",
    "gates": "a49456a2d4a85a36",
    "head": "d0d211a84c1c11c7",
    "seed": "4433033844473224797",
    "boosted layers": "11ab6f3b2d24e88f",
    "factors": "deacc8f85fc17513",
    "task": "1ee4ca65fd07369f",
    "result": "be7f2927aab87073",
    "ledger": "8808fca82c7d8603",
    "coins": "b772b90d1fa6700c",
}


def found() -> dict[str, str]:
    drawn = {
        name: initial_factors(SITES, adapter, seed=5).digest()[:16]
        for name, adapter in DRAWN.items()
    }
    boost = Boost(link=task().plan, seed=3)
    boosted = [boost.drawn(round, [s.name for s in SITES]) for round in range(20)]
    return {
        **drawn,
        "head": random_head(SITES, 5).digest()[:16],
        "seed": str(seed_of("run", "order", 3, "north")),
        "boosted layers": sha(json.dumps(boosted).encode()),
        "factors": fixed_factors().digest()[:16],
        "task": sha(encode_task(task())),
        "result": sha(encode_result(answer())),
        "ledger": sha(written(3, "ab" * 32, entry())),
        "coins": sha(Randomness.insecure(5).words(64).tobytes()),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_machines_agree_bit_for_bit(dtype):
    """Whatever torch's default type is when they are drawn."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        assert found() == PINNED
    finally:
        torch.set_default_dtype(before)
