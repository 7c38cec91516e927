"""What is foretold of every client's messages is what each of them weighs."""

import pytest

from silotune.core import ClientId
from silotune.engine import federate
from silotune.engine.communication import traffic
from silotune.optim import SGD
from silotune.runtimes import InProcess
from toys import adapter, axes, begin, experiment, silos, trainer

RANKS = {"silo-0": 1, "silo-1": 2, "silo-2": 3, "ö": 3, "silo-of-the-north": 3}
STEPS = {"silo-0": 2, "silo-1": 3, "silo-2": 4, "ö": 4, "silo-of-the-north": 11}


class Weighing:
    """Weighs what comes back."""

    def __init__(self, inner: InProcess) -> None:
        self.inner, self.up = inner, {}

    def clients(self):
        return self.inner.clients()

    def train(self, tasks):
        for result in self.inner.train(tasks):
            self.up[result.round, result.client] = len(result.sealed)
            yield result


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("method", ["fedit", "flora"])
def test_names_ranks_and_steps_of_their_own_count(method):
    a = axes(method, SGD(lr=0.3), adapter(rank=3))
    names = [ClientId(name) for name in STEPS]
    own = dict(zip(names, silos(len(names)).values(), strict=True))
    runtime = Weighing(InProcess(trainer(a), own))
    ranks = RANKS if method == "flora" else {}
    exp = experiment(a, names, local_steps=STEPS, ranks=ranks, rounds=3)
    rounds = list(federate(exp, runtime, begin(a)))
    foretold = traffic(exp, begin(a))
    assert [done.bytes_down for done in rounds] == [
        sum(sent.down for sent in of_round.values()) for of_round in foretold
    ]
    assert runtime.up == {(r, c): sent.up for r in range(3) for c, sent in foretold[r].items()}
