"""A silo trusts no order: nothing is trained, written or charged that was not agreed."""

import json
import math
from dataclasses import replace
from itertools import count

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from covering import every_method, plain
from silotune.core import (
    ClientId,
    CorruptPayload,
    Factors,
    Key,
    Phase,
    Role,
    RoundPlan,
    Seeded,
    decode_result,
    decode_task,
    encode_result,
    encode_task,
    pack,
    unpack,
)
from silotune.core.files import read_lines
from silotune.engine import NotAgreedError, client_round, federate, score_at_home
from silotune.engine.client_errors import ERRORS, FAILED
from silotune.engine.cohorts import Cohorts
from silotune.engine.isolation import LARGEST
from silotune.engine.loop import make_tasks
from silotune.engine.order_book import MOST_ORDERS
from silotune.linalg import LowRank
from silotune.optim import SGD
from silotune.privacy import ExampleLevel, Gaussian, Poisson
from silotune.privacy.ledger.noisy_counts import NoisyCount, Releases
from silotune.runtimes import InProcess
from toys import agreed, axes, begin, experiment, notes, silos, trainer

NAME = ClientId("silo-1")
ROUNDS = 3
A = axes("ffa-lora", SGD(lr=0.3))
STATE = begin(A)
EXPERIMENT = experiment(A, list(silos()), private=True, rounds=ROUNDS)
TASKS = [
    next(
        t
        for t in make_tasks(EXPERIMENT, EXPERIMENT.clients, replace(STATE, round=r))
        if t.client == NAME
    )
    for r in range(ROUNDS)
]
UP = Key("up", Role.B)


class Spy:
    """An objective that tells whether anything was trained or scored."""

    def __init__(self, inner) -> None:
        self.inner, self.metric, self.used = inner, inner.metric, 0

    def losses(self, model, batch):
        self.used += 1
        return self.inner.losses(model, batch)

    def measure(self, model, batch):
        self.used += 1
        return self.inner.measure(model, batch)


def private_silo(home):
    home.mkdir(parents=True)
    mechanism = ExampleLevel(
        sampling=Poisson(0.5), noise=Gaussian(1.0), max_grad_norm=1.0, expected_batch_size=6.0
    )
    silo = replace(silos()[NAME], privacy=mechanism, home=home, held_out=notes(4))
    return agreed(EXPERIMENT, {NAME: silo})[NAME]


def files(home) -> dict[str, bytes]:
    """All that a silo holds but for the reasons of refusals."""
    found = (path for path in home.rglob("*") if path.is_file() and path.name != ERRORS)
    return {str(path.relative_to(home)): path.read_bytes() for path in found}


@every_method(part=(0, 4))
def test_an_honest_run_is_obeyed(method, tmp_path):
    a = plain(method)
    own = silos(home=tmp_path)
    for silo in own.values():
        silo.home.mkdir()
    exp = experiment(a, list(own))
    whole = list(federate(exp, InProcess(trainer(a), agreed(exp, own)), begin(a)))
    alone = list(federate(exp, InProcess(trainer(a), silos(home=tmp_path / "free")), begin(a)))
    assert [done.pooled.missing for done in whole] == [{}] * ROUNDS
    assert whole[-1].state.factors.digest() == alone[-1].state.factors.digest()
    silo = agreed(exp, own)[NAME]
    final = next(t for t in make_tasks(exp, exp.clients, whole[-1].state) if t.client == NAME)
    silo.agreement.check_scoring(final)  # the state after the last round is scored
    with pytest.raises(NotAgreedError, match="round"):
        silo.agreement.check_training(final)


def test_a_state_whose_score_is_not_due_may_be_a_result_all_the_same():
    """A run that stops early, since a budget is spent, ends with it."""
    anything = agreed(EXPERIMENT, silos())[NAME].agreement
    due = replace(anything, scored=lambda finished: finished == ROUNDS)
    anything.check_scoring(TASKS[1])
    due.check_result(TASKS[1])
    with pytest.raises(NotAgreedError, match="round is not one that is scored"):
        due.check_scoring(TASKS[1])
    with pytest.raises(NotAgreedError, match="run"):
        due.check_result(replace(TASKS[1], run="another"))


def test_client_agreements_are_equal_on_every_machine():
    first, again = (agreed(EXPERIMENT, silos()) for _ in range(2))
    digests = [client.agreement.digest for client in first.values()]
    assert digests == [client.agreement.digest for client in again.values()]
    assert len(set(digests)) == len(digests)
    changes = [
        {"local_steps": 5},
        {"rounds": 4},
        {"seed": 1},
        {"run": "other"},
        {"carried": True},
        {"cohorts": Cohorts(number=1)},
        {"cohorts": Cohorts(rate=0.5)},
    ]
    for change in changes:
        other = agreed(replace(EXPERIMENT, **change), silos())[NAME]
        assert other.agreement.digest != first[NAME].agreement.digest, change


def tensors(change):
    return replace(TASKS[0], factors=TASKS[0].factors.updated(change))


B = torch.zeros(10, 2)
ORDERS = {
    "another run": replace(TASKS[0], run="another"),
    "a path for a run": replace(TASKS[0], run="../../../../../evil"),
    "another client": replace(TASKS[0], client=ClientId("silo-0")),
    "a round before the first": replace(TASKS[0], round=-1),
    "a round after the last": replace(TASKS[-1], round=ROUNDS),
    "no learning rate": replace(TASKS[0], learning_rates=(math.nan,) * 4),
    "an endless learning rate": replace(TASKS[0], learning_rates=(math.inf,) * 4),
    "a memory of earlier rounds": replace(TASKS[0], remembers_since=0),
    "another learning rate": replace(TASKS[0], learning_rates=(0.3, 0.3, 0.3, 0.30001)),
    "a learning rate too few": replace(TASKS[0], learning_rates=(0.3,) * 3),
    "no learning rates": replace(TASKS[0], learning_rates=()),
    "more steps": replace(TASKS[0], steps=5),
    "no step": replace(TASKS[0], steps=0),
    "another seed": replace(TASKS[0], seed=0),
    "another rank": replace(TASKS[0], rank=1),
    "A is to be trained": replace(
        TASKS[0], plan=replace(TASKS[0].plan, phases=(Phase(roles=frozenset({Role.A})),))
    ),
    "all is to be shared": replace(TASKS[0], plan=replace(TASKS[0].plan, share=frozenset(Role))),
    "a fold": replace(TASKS[0], plan=replace(TASKS[0].plan, fold=True)),
    "nothing is fixed": replace(TASKS[0], plan=replace(TASKS[0].plan, fixed=frozenset({UP}))),
    "a tensor twice": tensors({UP: torch.zeros(10, 2)}),
    "a strange tensor": tensors({Key("elsewhere", Role.B): torch.zeros(2, 2)}),
    "a tensor too few": replace(TASKS[0], seeded=()),
    "a base that is added to elsewhere": replace(
        TASKS[0], folded={"classifier": torch.zeros(3, 6)}
    ),
    "another shape of what is added": replace(TASKS[0], folded={"up": torch.zeros(6, 10)}),
    "too much added": replace(TASKS[0], folded={"up": torch.full((10, 6), LARGEST * 1.1)}),
    "endless numbers added": replace(TASKS[0], folded={"up": torch.full((10, 6), math.nan)}),
    "a fold where nothing is folded": replace(TASKS[0], folded={"up": torch.zeros(10, 6)}),
    "steps that are no whole number": replace(TASKS[0], steps=float(TASKS[0].steps)),
    "a seed of somebody else's": replace(TASKS[0], seeded=(replace(TASKS[0].seeded[0], seed=5),)),
    "another A, which is frozen": replace(
        TASKS[0],
        seeded=(),
        factors=STATE.factors.updated({Key("up", Role.A): STATE.factors[Key("up", Role.A)] * 0}),
    ),
    "terms that cancel": replace(
        TASKS[0],
        folded={"up": LowRank(torch.ones(10, 2) * torch.tensor([1e6, -1e6]), torch.ones(2, 6))},
    ),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("work", [client_round, score_at_home])
def test_an_order_that_was_not_agreed_is_not_obeyed(order, work, tmp_path):
    silo = private_silo(tmp_path / "silo")
    spy = Spy(trainer(A).objective)
    place = replace(trainer(A), objective=spy)
    if order == "a round after the last" and work is score_at_home:
        pytest.skip("the state after the last round is scored")
    result = work(ORDERS[order], place, silo)
    assert (result.refusal, result.sealed, result.meters) == (FAILED, b"", {})
    assert spy.used == 0
    assert files(silo.home) == {}
    (line,) = read_lines(silo.home / ERRORS)
    assert "NotAgreedError" in line["error"]
    assert not work(TASKS[0], place, silo).refusal, "the honest order is obeyed afterwards"


def big(factor):
    """Task 1 as it would be sent after A and B had grown: nothing is drawn from a seed."""
    grown = Factors({k: t * factor for k, t in STATE.factors.items()})
    return replace(TASKS[0], factors=grown, seeded=())


@pytest.mark.parametrize(("factor", "obeyed"), [(1.0, True), (1e4, False), (math.nan, False)])
def test_numbers_that_rounding_would_betray_are_not_trained_on(factor, obeyed, tmp_path):
    silo = private_silo(tmp_path / "silo")
    assert (client_round(big(factor), trainer(A), silo).refusal == "") == obeyed


def test_rounds_only_go_on_and_are_not_asked_for_without_end(tmp_path):
    silo, place = private_silo(tmp_path / "silo"), trainer(A)
    assert not client_round(TASKS[1], place, silo).refusal
    assert client_round(TASKS[0], place, silo).refusal == FAILED
    charged = (silo.home / "ledger.jsonl").read_bytes()
    answers = [client_round(TASKS[1], place, silo) for _ in range(MOST_ORDERS)]
    assert [bool(a.refusal) for a in answers] == [False] * (MOST_ORDERS - 1) + [True]
    assert (silo.home / "ledger.jsonl").read_bytes() == charged
    scored = [score_at_home(TASKS[1], place, silo) for _ in range(MOST_ORDERS + 1)]
    assert [bool(a.refusal) for a in scored] == [False] * MOST_ORDERS + [True]
    assert not client_round(TASKS[2], place, silo).refusal


def test_a_run_that_is_another_under_its_own_name_is_refused(tmp_path):
    silo, place = private_silo(tmp_path / "silo"), trainer(A)
    assert not client_round(TASKS[0], place, silo).refusal
    longer = replace(EXPERIMENT, rounds=ROUNDS + 1)
    other = agreed(longer, {NAME: silo})[NAME]
    (task,) = make_tasks(longer, [NAME], replace(STATE, round=1))
    assert client_round(task, place, other).refusal == FAILED


def test_who_hides_records_and_has_agreed_to_nothing_does_nothing(tmp_path):
    silo = replace(private_silo(tmp_path / "silo"), agreement=None)
    assert client_round(TASKS[0], trainer(A), silo).refusal == FAILED


# Arbitrary orders.

NUMBERS = st.one_of(st.integers(-3, 9), st.floats(), st.just(2**70), st.booleans(), st.none())
NAMES = st.one_of(st.sampled_from(["law", "silo-1", "silo-0", "", "..", "a/b", "\0"]), st.text())
ROLES = st.frozensets(st.sampled_from(Role))
TENSOR = st.sampled_from(
    [B, B.double(), B[:5], torch.full((10, 2), math.inf), torch.full((10, 2), 1e30), B[0]]
)
PLANS = st.builds(
    RoundPlan,
    phases=st.lists(st.builds(Phase, roles=ROLES, steps=st.integers(1, 3)), max_size=3).map(tuple),
    share=ROLES,
    fold=st.booleans(),
    fixed=st.frozensets(st.sampled_from([UP, Key("x", Role.A)])),
)
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "run": NAMES,
        "client": NAMES,
        "round": NUMBERS,
        "steps": NUMBERS,
        "learning_rates": st.lists(NUMBERS, max_size=5).map(tuple),
        "rank": NUMBERS,
        "seed": NUMBERS,
        "remembers_since": NUMBERS,
        "plan": PLANS,
        "factors": st.dictionaries(
            st.sampled_from([UP, Key("down", Role.A), Key("x", Role.HEAD)]), TENSOR
        ).map(Factors),
        "folded": st.dictionaries(st.sampled_from(["up", "down", "x"]), TENSOR),
        "seeded": st.lists(
            st.builds(
                Seeded,
                seed=st.integers(0, 3),
                keys=st.lists(st.sampled_from([UP, Key("up", Role.A)])).map(tuple),
                digest=st.text(max_size=3),
            ),
            max_size=2,
        ).map(tuple),
    },
)
numbers = count()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES, scored=st.booleans())
def test_no_order_moves_a_silo_to_what_was_not_agreed(changes, scored, tmp_path):
    silo = private_silo(tmp_path / str(next(numbers)))
    spy = Spy(trainer(A).objective)
    place = replace(trainer(A), objective=spy)
    task = replace(TASKS[0], **changes)
    work = score_at_home if scored else client_round
    result = work(task, place, silo)
    if result.refusal:
        assert (result.refusal, result.sealed, spy.used) == (FAILED, b"", 0)
        assert files(silo.home) == {}
        return
    (as_agreed,) = (t for t in TASKS if t.round == task.round)
    for field in (
        "run",
        "client",
        "plan",
        "steps",
        "learning_rates",
        "rank",
        "seed",
        "remembers_since",
    ):
        assert getattr(task, field) == getattr(as_agreed, field), field


HEADERS = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(field=st.sampled_from(sorted(unpack(encode_task(TASKS[0]))[1])), value=HEADERS)
def test_whatever_a_header_says_is_a_task_or_is_refused(field, value):
    tensors, header = unpack(encode_task(TASKS[0]))
    try:
        task = decode_task(pack(tensors, header | {field: value}))
    except CorruptPayload:
        return
    for name in ("round", "steps", "seed"):
        assert type(getattr(task, name)) is int
    assert set(task.run) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


@pytest.mark.parametrize(
    "name", ["../evil", "", ".", "a/b", "a\\b", "x" * 101, "a\n", " a", None, 3]
)
def test_a_name_that_could_be_a_path_is_stopped_at_the_decoder(name):
    tensors, header = unpack(encode_task(TASKS[0]))
    for field in ("run", "client"):
        with pytest.raises(CorruptPayload, match="no name"):
            decode_task(pack(tensors, header | {field: name}))
    result = encode_result(replace(client_result(), client="a/b"))
    with pytest.raises(CorruptPayload, match="no name"):
        decode_result(result)


def client_result():
    from silotune.engine.client_errors import result

    return result(TASKS[0])


def test_what_was_agreed_can_be_read_again(tmp_path):
    silo = private_silo(tmp_path / "silo")
    client_round(TASKS[0], trainer(A), silo)
    (kept,) = (silo.home / "orders").glob("*.json")
    assert json.loads(kept.read_text())["agreement"] == silo.agreement.digest


@pytest.mark.parametrize(("released", "passes"), [(False, 2), (True, 4)])
def test_a_silo_scores_as_many_records_at_once_as_its_machine_says(tmp_path, released, passes):
    """A score that is paid for: no more than are trained at once."""
    silo = private_silo(tmp_path / "silo")
    place = replace(trainer(A, micro_batch=2), eval_batch=4)
    place = replace(place, objective=Spy(place.objective))
    if released:
        releases = Releases(metric=NoisyCount(multiplier=1.0), held_out=8)
        silo = replace(silo, releases=releases)
    silo = replace(silo, held_out=notes(8))
    assert not score_at_home(TASKS[1], place, silo).refusal
    assert place.objective.used == passes
