"""Rounding of what clients send: against float64, number by number, and what a server refuses."""

import hashlib
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from silotune.core import (
    ClientId,
    ClientTask,
    ClientUpdate,
    CorruptPayload,
    Factors,
    Key,
    Phase,
    Role,
    RoundPlan,
    decode_task,
    encode_task,
    pack,
    plan_of,
    unpack,
)
from silotune.engine.channel import RefusedUpdateError, open_sealed, seal
from silotune.engine.upload import narrowed, widened

KEY, OTHER = Key("q", Role.B), Key("q", Role.A)
NARROW = ["bfloat16", "int8"]
FINITE = st.floats(-1e9, 1e9, width=32)


def one(values, dtype=torch.float64) -> Factors:
    return Factors({KEY: torch.tensor(values, dtype=dtype)})


def rounded(moved: Factors, upload: str, seed: int = 0) -> torch.Tensor:
    """What a server takes for a change, in float64."""
    start = moved.map(torch.zeros_like)
    return widened(narrowed(moved, start, upload, seed), start, upload)[KEY].double()


def gaps(moved: torch.Tensor, upload: str) -> torch.Tensor:
    """Distance of the two neighbours of each number, at most."""
    if upload == "int8":
        return torch.full_like(moved, moved.abs().max().item() / 127 * (1 + 1e-6))
    return (moved.abs() * 2.0**-7).clamp_min(2.0**-133)


@pytest.mark.parametrize("upload", NARROW)
@given(values=st.lists(FINITE, min_size=1, max_size=20), seed=st.integers(0, 2**31))
def test_a_number_becomes_one_of_its_neighbours(upload, values, seed):
    moved = one(values)
    found = rounded(moved, upload, seed)
    assert torch.all((found - moved[KEY]).abs() <= gaps(moved[KEY], upload))
    assert torch.all(found[moved[KEY] == 0] == 0)


@pytest.mark.parametrize("upload", NARROW)
@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e9])
def test_it_is_right_on_average(upload, size):
    """The mean of n roundings is within 5 standard errors, each at most half a gap over sqrt n."""
    n = 40_000
    g = torch.Generator().manual_seed(3)
    values = size * torch.randn(12, generator=g, dtype=torch.float64) ** 3
    many = Factors({KEY: values.float().double().expand(n, 12).contiguous()})
    found = rounded(many, upload).mean(dim=0)
    error = gaps(values, upload) / 2 / math.sqrt(n)
    assert torch.all((found - values).abs() <= 5 * error + 1e-7 * values.abs())


@pytest.mark.parametrize("upload", NARROW)
def test_what_can_be_written_is_not_rounded(upload):
    exact = one([-127.0, -64.0, 0.0, 1.0, 2.0, 127.0])
    for seed in range(20):
        assert torch.equal(rounded(exact, upload, seed), exact[KEY])


@pytest.mark.parametrize("upload", NARROW)
def test_coins_are_of_the_seed_and_of_the_tensor(upload):
    moved = torch.linspace(-1, 1, 999)
    both = Factors({KEY: moved, OTHER: moved})
    start = both.map(torch.zeros_like)

    def sent(seed):
        return widened(narrowed(both, start, upload, seed), start, upload)

    torch.manual_seed(1)
    first = sent(7)
    torch.manual_seed(2)
    assert first.digest() == sent(7).digest(), "no other generator is asked"
    assert not torch.equal(first[KEY], first[OTHER])
    assert not torch.equal(first[KEY], sent(8)[KEY])


@pytest.mark.parametrize("upload", NARROW)
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_what_is_not_finite_stays_so_and_is_refused(upload, bad):
    moved = one([1.0, bad, -2.0])
    assert not rounded(moved, upload).isfinite().all()
    with pytest.raises(RefusedUpdateError, match="not finite"):
        open_sealed(answer(moved, upload), moved.map(torch.zeros_like), upload)


def task(upload: str) -> ClientTask:
    return ClientTask(
        run="run",
        round=2,
        client=ClientId("north"),
        factors=Factors({}),
        seeded=(),
        plan=RoundPlan(
            phases=(Phase(roles=frozenset({Role.B})),), share=frozenset({Role.B}), upload=upload
        ),
        steps=4,
        learning_rates=(0.5, 0.5, 0.25, 0.0),
        seed=11,
    )


def answer(moved: Factors, upload: str) -> ClientUpdate:
    asked = task(upload)
    start = moved.map(torch.zeros_like)
    return ClientUpdate(
        run=asked.run, round=asked.round, client=asked.client, sealed=seal(moved, asked, start)
    )


MOVED = one([[0.5, -0.25], [0.125, 1.0]], torch.float32)
ZERO = MOVED.map(torch.zeros_like)


@pytest.mark.parametrize("agreed", ["float32", *NARROW])
@pytest.mark.parametrize("sent", ["float32", *NARROW])
def test_another_type_than_was_agreed_is_refused(agreed, sent):
    came = answer(MOVED, sent)
    if sent == agreed:
        assert open_sealed(came, ZERO, agreed)[KEY].dtype == torch.float32
        return
    with pytest.raises(RefusedUpdateError, match=r"belongs to|differ"):
        open_sealed(came, ZERO, agreed)


@pytest.mark.parametrize(
    "scales",
    [
        "",
        "3c",
        "3c010204" * 2,
        "3c01020",
        "7f800000",
        "7fc00000",
        "ff800000",
        "zzzzzzzz",
        "３c010204",
    ],
)
def test_scales_that_are_not_one_finite_number_a_tensor_are_refused(scales):
    came = answer(MOVED, "int8")
    tensors, header = unpack(came.sealed)
    spoiled = replace(came, sealed=pack(tensors, {**header, "scales": scales}))
    with pytest.raises(RefusedUpdateError):
        open_sealed(spoiled, ZERO, "int8")


@pytest.mark.parametrize("upload", NARROW)
def test_other_tensors_are_refused(upload):
    came = answer(MOVED, upload)
    tensors, header = unpack(came.sealed)
    for wrong in (
        tensors.map(lambda t: t[:1]),
        tensors.map(lambda t: t.to(torch.int16)),
        Factors({OTHER: tensors[KEY]}),
    ):
        with pytest.raises(RefusedUpdateError, match="tensors differ"):
            open_sealed(replace(came, sealed=pack(wrong, header)), ZERO, upload)


@pytest.mark.parametrize("upload", ["float32", *NARROW])
def test_an_order_says_in_which_type_to_answer(upload):
    asked = task(upload)
    assert decode_task(encode_task(asked)).plan == asked.plan
    assert plan_of(asked.plan.outline()) == asked.plan


@pytest.mark.parametrize("strange", ["float16", "", None, 8, ["int8"]])
def test_a_type_that_is_none_is_no_order(strange):
    tensors, header = unpack(encode_task(task("int8")))
    header["plan"]["upload"] = strange
    with pytest.raises(CorruptPayload, match="not a task"):
        decode_task(pack(tensors, header))


EXACT = one([[127.0, -64.0], [1.0, 0.0]], torch.float32)
PINNED = {"float32": "d1b49fb04d3dc561", "bfloat16": "12230a8a24320e43", "int8": "5a2d226d578dfa6c"}


@pytest.mark.parametrize("upload", PINNED)
def test_the_bytes_of_an_upload_are_pinned(upload):
    """Of numbers that need no coin: those of a generator may differ between machines."""
    sealed = answer(EXACT, upload).sealed
    assert hashlib.sha256(sealed).hexdigest()[:16] == PINNED[upload]
