"""Messages survive the wire bit for bit, and nothing torn or foreign is taken for one."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from silotune.core import (
    ClientId,
    CorruptPayload,
    Factors,
    Key,
    Meter,
    Phase,
    Plan,
    Result,
    Role,
    Seeded,
    Task,
    decode_result,
    decode_task,
    encode_result,
    encode_task,
    pack,
    unpack,
)

FACTORS = Factors(
    {
        Key("layer.0.query", Role.B): torch.randn(5, 2),
        Key("layer.0.query", Role.A): torch.randn(2, 3, dtype=torch.float64),
        Key('odd "name"', Role.HEAD, "bias"): torch.randn(4),
    }
)
TASK = Task(
    run="r",
    round=3,
    client=ClientId("clinic é"),
    factors=FACTORS,
    seeded=Seeded(seed=2**62, keys=(Key("x", Role.A),), digest="ab"),
    plan=Plan(
        phases=(Phase(roles=frozenset({Role.A, Role.B}), steps=2), Phase(roles=frozenset())),
        share=frozenset({Role.B}),
    ),
    steps=7,
    learning_rate=0.1,
    seed=2**62 + 1,
)
RESULT = Result(
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
    for field in ("run", "round", "client", "seeded", "plan", "steps", "learning_rate", "seed"):
        assert getattr(back, field) == getattr(TASK, field)


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
