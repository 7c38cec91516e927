"""What must hold, for every method, of a run that begins from trained pairs."""

from dataclasses import replace
from itertools import count

import pytest
import torch

from covering import every_method, fitting, plain
from laws.test_round_laws import whole
from silotune.core import ClientId, GlobalState, Role, generator
from silotune.core.messages import Seeded
from silotune.engine import federate
from silotune.engine.client_agreement import NotAgreedError
from silotune.engine.loop import make_tasks
from silotune.engine.personalization import personal
from silotune.runtimes import InProcess
from toys import agreed, axes, begin, experiment, silos, trainer


def takes_pairs(name: str) -> bool:
    adapter = plain(name).adapter
    return adapter is not None and adapter.starts_from_pairs


def trained(method_axes) -> GlobalState:
    """The first state, if every pair and whole matrix came from elsewhere."""
    state = begin(method_axes)
    taken = {
        key: torch.randn(t.shape, generator=generator("start", *key), dtype=t.dtype) * 0.3
        for key, t in state.factors.items()
        if key.role in (Role.A, Role.B, Role.D)
    }
    drawn = {key: seed for key, seed in state.drawn.items() if key not in taken}
    return GlobalState(round=0, factors=state.factors.updated(taken), drawn=drawn)


@pytest.fixture
def clients(tmp_path):
    number = count()
    return lambda n=3: silos(n, home=tmp_path / str(next(number)))


@every_method(takes_pairs)
def test_a_round_that_learns_nothing_keeps_what_the_start_computes(method, clients):
    """Whatever is folded, drawn afresh, turned or cut back: nothing of the start is lost."""
    a = axes(method, replace(fitting(method)[0], lr=1e-12))
    before, own = trained(a), clients()
    runtime = InProcess(trainer(a), own)
    after = next(federate(experiment(a, runtime.clients()), runtime, before)).state
    expected = whole(before)
    for silo in own.values():
        found = whole(after, personal(silo.home, "law", before=1))
        assert found.keys() == expected.keys()
        for key, tensor in expected.items():
            torch.testing.assert_close(found[key], tensor, rtol=1e-6, atol=1e-7)


def test_a_server_cannot_put_drawn_tensors_in_the_place_of_the_start(clients):
    a = plain("ffa-lora")
    state, drawn = trained(a), begin(a)
    own = clients()
    exp = experiment(a, list(own))
    name = ClientId("silo-0")
    agreement = replace(agreed(exp, own)[name].agreement, first=state.factors, start="its digest")
    assert agreement.digest != replace(agreement, start="another").digest
    task = next(task for task in make_tasks(exp, list(own), state) if task.client == name)
    agreement.check_training(task)
    keys = tuple(key for key in state.factors if key.role is Role.A)
    swapped = replace(
        task,
        factors=task.factors.without(keys),
        seeded=(*task.seeded, Seeded(seed=0, keys=keys, digest="whatever it is")),
    )
    with pytest.raises(NotAgreedError, match="seeded"):
        agreement.check_training(swapped)
    sent = replace(task, factors=task.factors.updated({k: drawn.factors[k] for k in keys}))
    with pytest.raises(NotAgreedError, match="which no round has trained"):
        agreement.check_training(sent)
