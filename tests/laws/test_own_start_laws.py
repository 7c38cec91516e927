"""FLoRA: every client begins a round at an A of its own, which both sides draw and nobody sends."""

from dataclasses import replace

import pytest
import torch

from silotune.core import ClientId, Key, Role, decode_task, encode_task
from silotune.engine import federate
from silotune.engine.loop import make_tasks
from silotune.engine.own_start import own_start
from silotune.linalg import dense
from silotune.optim import SGD
from silotune.runtimes import InProcess
from spies import Tapped
from toys import adapter, axes, begin, experiment, first_factors, silos, trainer

STEP = SGD(lr=0.3)
A, B = Key("up", Role.A), Key("up", Role.B)


def flora(**options):
    return axes("flora", STEP, adapter(rank=1, alpha=3.0), **options)


def rounds(a, number=2, **changes):
    runtime = Tapped(InProcess(trainer(a), silos()))
    exp = experiment(a, runtime.clients(), rounds=number, **changes)
    return exp, [done.state for done in federate(exp, runtime, begin(a))], runtime


def rank_of(matrix: torch.Tensor) -> int:
    return int(torch.linalg.matrix_rank(matrix, rtol=1e-9))


def test_stacks_of_own_draws_have_the_rank_of_all_clients_together_after_one_step():
    """From a shared A of rank 1, the first step of every client is along the same row."""
    _, own, _ = rounds(flora(), 1, local_steps=1)
    _, shared, _ = rounds(flora(initial_a="shared"), 1, local_steps=1)
    assert rank_of(dense(own[0].folded["up"])) == 3
    assert rank_of(dense(shared[0].folded["up"])) == 1


def test_what_is_folded_is_the_mean_of_what_clients_made_of_their_own_pairs():
    """Each client alone, from its own A as the state's, ends where it ended in the federation."""
    a = flora()
    exp, (first, _), _ = rounds(a)
    weights, total = [1.0, 2.0, 3.0], torch.zeros(10, 6)
    tasks = make_tasks(exp, list(exp.clients), begin(a))
    alone = flora(initial_a="shared")
    for weight, task in zip(weights, tasks, strict=True):
        draws = own_start(task, exp.draw)
        assert draws.keys() == {Key(s, Role.A) for s in ("up", "down")}
        state = replace(begin(alone), factors=begin(alone).factors.updated(draws), drawn={})
        runtime = InProcess(trainer(alone), {task.client: silos()[task.client]})
        (done,) = federate(experiment(alone, [task.client], rounds=1), runtime, state)
        total += weight / 6 * dense(done.state.folded["up"])
    torch.testing.assert_close(dense(first.folded["up"]), total, rtol=1e-10, atol=1e-12)


def test_draws_differ_between_clients_and_rounds_and_repeat_themselves():
    a = flora()
    exp, (state, _), _ = rounds(a)
    drawn = [
        own_start(task, exp.draw)[A]
        for s in (begin(a), state)
        for task in make_tasks(exp, list(exp.clients), s)
    ]
    apart = [(x - y).abs().max() for i, x in enumerate(drawn) for y in drawn[:i]]
    assert min(apart) > 0.01
    again = own_start(make_tasks(exp, list(exp.clients), begin(a))[0], exp.draw)
    assert torch.equal(again[A], drawn[0])


def test_they_are_an_order_that_travels_and_cost_no_number():
    (own_exp, _, own), (_, _, shared) = rounds(flora()), rounds(flora(initial_a="shared"))
    task = make_tasks(own_exp, list(own_exp.clients), begin(flora()))[0]
    assert decode_task(encode_task(task)).plan == task.plan
    assert task.plan.own_start
    sizes = [[len(blob) for blob in tapped.results] for tapped in (own, shared)]
    assert sizes[0] == sizes[1]


def test_an_adapter_that_a_run_begins_from_is_everybodys():
    """Its A is not as drawn."""
    a = flora()
    exp = experiment(a, list(silos()), rounds=1)
    given = replace(begin(a), drawn={k: 0 for k in first_factors(a.adapter) if k.role is Role.HEAD})
    task = make_tasks(exp, [ClientId("silo-0")], given)[0]
    assert not own_start(task, exp.draw)


@pytest.mark.parametrize("largest", [1.0, 1e4])
def test_an_update_is_measured_from_the_clients_own_start(largest):
    """The draws alone are further apart than what one step moves."""
    _, states, _ = rounds(flora(), 1, local_steps=1, largest_update=largest)
    assert states
