"""What weight decay shrinks where a whole matrix trains beside its base weight."""

from dataclasses import replace

import pytest
import torch

from silotune.core import ClientId, Key, Role
from silotune.engine import federate
from silotune.optim import AdamW, FedProxConfig
from silotune.runtimes import InProcess
from toys import Toy, adapter, axes, begin, experiment, silos, trainer

RATE, DECAY = 0.01, 0.3


def trained(decay: float, pull: float, **options):
    a = axes("fedftg", AdamW(lr=RATE, weight_decay=decay), adapter(), **options)
    a = replace(a, optimizer=FedProxConfig(a.optimizer, pull))
    (client,) = silos(1, records=6, batch_size=6).values()
    runtime = InProcess(trainer(a), {ClientId("silo-0"): client})
    exp = experiment(a, runtime.clients(), rounds=1, local_steps=1)
    (done,) = federate(exp, runtime, begin(a))
    return {site: done.state.factors[Key(site, Role.D)] for site in ("up", "down")}


@pytest.mark.parametrize("pull", [0.0, 0.1])
def test_of_the_whole_weight_it_is_galores_papers(pull):
    """The gradient of the first step is that without decay; D begins at 0. ``down`` is a Conv1D."""
    toy = Toy().double()
    weights = {"up": toy.up.weight.detach(), "down": toy.down.weight.detach().T}
    without, of_update, of_weight = (
        trained(0.0, pull),
        trained(DECAY, pull),
        trained(DECAY, pull, weight_decay_of="weight"),
    )
    for site, weight in weights.items():
        torch.testing.assert_close(of_update[site], without[site])
        shrunk = without[site] - RATE * DECAY * weight
        torch.testing.assert_close(of_weight[site], shrunk, rtol=1e-12, atol=1e-12)
