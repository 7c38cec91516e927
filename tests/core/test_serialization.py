"""Messages survive the wire bit for bit, and nothing torn or foreign is taken for one."""

from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from silotune.core import (
    Change,
    ClientId,
    ClientTask,
    ClientUpdate,
    CorruptPayload,
    Factors,
    Key,
    Meter,
    Phase,
    Role,
    RoundPlan,
    Seeded,
    StateNotHeld,
    accumulated,
    decode_result,
    decode_task,
    encode_result,
    encode_task,
    pack,
    state_digest,
    tensors_of,
    unpack,
)
from silotune.linalg import LowRank

FACTORS = Factors(
    {
        Key("layer.0.query", Role.B): torch.randn(5, 2),
        Key("layer.0.query", Role.A): torch.randn(2, 3, dtype=torch.float64),
        Key('odd "name"', Role.HEAD, "bias"): torch.randn(4),
    }
)
TASK = ClientTask(
    run="r",
    round=3,
    client=ClientId("clinic é"),
    factors=FACTORS,
    folded={
        "layer.0.query": LowRank(torch.randn(5, 1), torch.randn(1, 3)),
        "up": torch.randn(2, 2),
    },
    rank=2,
    seeded=(
        Seeded(seed=2**62, keys=(Key("x", Role.A),), digest="ab"),
        Seeded(seed=1, keys=(Key("y", Role.B), Key("y", Role.HEAD, "bias")), digest="cd"),
    ),
    plan=RoundPlan(
        phases=(Phase(roles=frozenset({Role.A, Role.B}), steps=2), Phase(roles=frozenset())),
        share=frozenset({Role.B}),
        fold=True,
        fixed=frozenset({Key("z", Role.A)}),
    ),
    steps=7,
    learning_rates=(0.1, 1e-9, 0.0, 1.0, 2.0, 3.0, 4.0),
    seed=2**62 + 1,
    remembers_since=2,
)
RESULT = ClientUpdate(
    run="r",
    round=3,
    client=ClientId("c"),
    sealed=b"\x00\xffabc",
    meters={"loss": Meter(1.5, 2.0)},
    refusal="no",
    resent=True,
)


def test_a_task_survives():
    back = decode_task(encode_task(TASK))
    assert back.factors.digest() == TASK.factors.digest()
    assert tensors_of(back.folded).digest() == tensors_of(TASK.folded).digest()
    for field in fields(ClientTask):
        if field.name not in ("factors", "folded"):
            assert getattr(back, field.name) == getattr(TASK, field.name)


def next_task(new_fold):
    """One tensor and one fold are new."""
    moved, site = Key("layer.0.query", Role.B), "layer.0.query"
    return replace(
        TASK,
        round=TASK.round + 1,
        factors=FACTORS.updated({moved: torch.ones(5, 2)}),
        folded=accumulated(TASK.folded, {site: new_fold}),
        change=Change(keys=frozenset({moved}), folded={site: new_fold}),
    )


@pytest.mark.parametrize(
    "new_fold",
    [LowRank(torch.randn(5, 1), torch.randn(1, 3)), torch.randn(5, 3)],
    ids=["product", "whole"],
)
def test_who_holds_the_round_before_is_sent_what_is_new(new_fold):
    task = next_task(new_fold)
    blob = encode_task(task, leaning_on=state_digest(TASK))
    sent, _ = unpack(blob)
    assert {k.name for k in sent if k.role is Role.D} <= {"left", "right", "whole"}
    assert [k for k in sent if k.role is not Role.D] == [Key("layer.0.query", Role.B)]
    back = decode_task(blob, {state_digest(TASK): TASK}.get)
    assert back.factors.digest() == task.factors.digest()
    assert tensors_of(back.folded).digest() == tensors_of(task.folded).digest()
    assert encode_task(back) == encode_task(task)


def test_what_leans_on_a_task_that_is_not_there_is_refused():
    blob = encode_task(next_task(torch.randn(5, 3)), leaning_on=state_digest(TASK))
    other = replace(TASK, folded={})  # of the same run, round and rank
    for find in (None, {}.get, {state_digest(other): other}.get):
        with pytest.raises(StateNotHeld, match="leans on the state of an earlier one"):
            decode_task(blob, find)


def test_a_result_survives():
    assert decode_result(encode_result(RESULT)) == RESULT


def test_equal_messages_are_equal_bytes():
    assert encode_task(TASK) == encode_task(decode_task(encode_task(TASK)))


@given(data=st.data())
def test_a_flipped_bit_anywhere_is_noticed(data):
    for blob, decode in [(encode_task(TASK), decode_task), (encode_result(RESULT), decode_result)]:
        place = data.draw(st.integers(0, len(blob) * 8 - 1))
        torn = bytearray(blob)
        torn[place // 8] ^= 1 << place % 8
        with pytest.raises(CorruptPayload):
            decode(bytes(torn))


@given(junk=st.binary(max_size=200))
def test_junk_is_refused(junk):
    for decode in (decode_task, decode_result, unpack):
        with pytest.raises(CorruptPayload):
            decode(junk)


def test_a_blob_of_another_kind_is_refused():
    with pytest.raises(CorruptPayload, match="not a task"):
        decode_task(pack(FACTORS, {"round": 1}))


def test_factors_refuse_to_be_combined_with_others():
    with pytest.raises(ValueError, match=r"tensors differ: odd"):
        FACTORS.zip(FACTORS.only({Role.A, Role.B}), torch.add)


def test_a_digest_depends_on_names_shapes_types_and_numbers():
    one = Factors({Key("a", Role.B): torch.zeros(2, 3)})
    others = [
        Factors({Key("b", Role.B): torch.zeros(2, 3)}),
        Factors({Key("a", Role.B): torch.zeros(3, 2)}),
        Factors({Key("a", Role.B): torch.zeros(2, 3, dtype=torch.float64)}),
        Factors({Key("a", Role.B): -torch.zeros(2, 3)}),
    ]
    assert len({one.digest(), *(o.digest() for o in others)}) == 5


def test_a_digest_of_some_tensors_is_that_of_these_alone():
    keys = sorted(TASK.factors)
    for some in (keys[:1], keys[::-1][:2], keys):
        expected = Factors({key: TASK.factors[key] for key in some}).digest()
        assert TASK.factors.digest(some) == expected
        assert TASK.factors.digest(some) == expected, "and is remembered as such"
    assert TASK.factors.digest(keys) == TASK.factors.digest()


def test_a_norm_is_that_of_the_tensor_in_float64():
    for key, tensor in TASK.factors.items():
        exact = torch.linalg.vector_norm(tensor.double()).item()
        assert TASK.factors.norm(key) == TASK.factors.norm(key) == pytest.approx(exact, rel=1e-15)
