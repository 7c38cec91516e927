"""Local optimisers that are carried: one silo by itself trains as if there were no rounds."""

from dataclasses import replace

import pytest
import torch

from covering import every_method, plain
from silotune.core import ClientId
from silotune.engine import federate, local_memory
from silotune.engine.checkpoint import everything
from silotune.engine.client import client_round
from silotune.engine.loop import make_tasks
from silotune.optim import SGD, AdamW
from silotune.privacy import ExampleLevel, Gaussian, Poisson, PrivacyBudget
from silotune.runtimes import InProcess
from toys import agreed, axes, begin, experiment, notes, silos, trainer

ADAMW = AdamW(lr=0.02, weight_decay=0.1)
NAME = ClientId("silo-0")

POINTS = {
    "sgd with momentum": ("fedit", SGD(lr=0.1, momentum=0.9), {}),
    "adamw": ("fedit", ADAMW, {}),
    "lora-rite": ("lora-rite", ADAMW, {}),
    "lora-rite with escape": ("lora-rite", ADAMW, {"escape": True}),
    "lora-pro": ("lora-pro", ADAMW, {}),
    "lora-pro with full moments": ("lora-pro", ADAMW, {"full_moments": True}),
    "lora-fa": ("lora-fa", ADAMW, {}),
    "lora-plus": ("lora-plus", ADAMW, {}),
    "alt-lora": ("alt-lora", SGD(lr=0.1, momentum=0.9), {}),
    "alt-lora plus": ("alt-lora", ADAMW, {}),
    "la-lora": ("la-lora", ADAMW, {}),
    "galore": ("fedftg", ADAMW, {"galore_gap": 3}),
    "personal tensors": ("fedsa-lora", ADAMW, {}),
}


def clients(place, n=1):
    """Every step reads all records, so that rounds draw no other batches than one round does."""
    return silos(n, records=8, batch_size=8, home=place)


def ended(a, own, *, rounds, steps, carried=True, state=None):
    exp = experiment(a, list(own), rounds=rounds, local_steps=steps, carried=carried)
    return list(federate(exp, InProcess(trainer(a), own), state or begin(a)))[-1].state


def farthest(one, other):
    return max(float((one[k] - other[k]).abs().max()) for k in one)


@pytest.mark.parametrize("point", POINTS)
def test_rounds_of_one_silo_are_one_run_of_its_optimiser(point, tmp_path):
    method, optimizer, options = POINTS[point]
    a = axes(method, optimizer, **options)
    whole = ended(a, clients(tmp_path / "whole"), rounds=1, steps=8).factors
    rounds = ended(a, clients(tmp_path / "rounds"), rounds=4, steps=2).factors
    fresh = ended(a, clients(tmp_path / "fresh"), rounds=4, steps=2, carried=False).factors
    assert farthest(whole, rounds) < 1e-9
    assert farthest(whole, fresh) > 1e-4, "or nothing was shown"


def carries(method):
    return plain(method).remembers_since(1) == 0


@every_method(carries, (0, 2))
def test_a_round_that_is_asked_for_again_begins_where_it_began(method, tmp_path):
    """Killed after training, and before the server wrote down what came of it."""
    a = plain(method)
    own = clients(tmp_path / "again", 2)
    half = ended(a, own, rounds=2, steps=4)
    ended(a, own, rounds=3, steps=4, state=half)
    again = ended(a, own, rounds=4, steps=4, state=half)
    whole = ended(a, clients(tmp_path / "whole", 2), rounds=4, steps=4)
    assert everything(again).digest() == everything(whole).digest()


def test_it_forgets_where_a_link_ends_and_where_the_basis_turns(tmp_path):
    chain = axes("cola", ADAMW, fold_every=2)
    assert [chain.remembers_since(r) for r in range(5)] == [0, 0, 2, 2, 4]
    turned = axes("fedsvd", ADAMW, refactor_every=3)
    assert [turned.remembers_since(r) for r in range(7)] == [0, 0, 0, 3, 3, 3, 6]
    assert [axes("flexlora", ADAMW).remembers_since(r) for r in range(3)] == [0, 1, 2]
    own = clients(tmp_path)
    exp = experiment(chain, list(own), rounds=4, carried=True)
    tasks = []

    class Seen(InProcess):
        def train(self, asked):
            tasks.extend(asked)
            return super().train(asked)

    for done in federate(exp, Seen(trainer(chain), own), begin(chain)):
        kept = local_memory.kept(own[NAME].home, replace(tasks[-1], round=done.state.round))
        steps = {float(memory["step"]) for memory in kept.values()}
        assert steps == {exp.local_steps * (1.0 + (done.state.round - 1) % 2)}
    assert [task.remembers_since for task in tasks] == [0, 0, 2, 2]
    assert local_memory.kept(own[NAME].home, replace(tasks[-1], round=4, remembers_since=4)) == {}


def mechanism():
    return ExampleLevel(
        sampling=Poisson(0.5), noise=Gaussian(1.0), max_grad_norm=1.0, expected_batch_size=4.0
    )


def test_what_was_not_paid_for_is_not_remembered(tmp_path):
    """A round is trained, and its charge cannot be written: the next one knows nothing of it."""
    a = axes("ffa-lora", ADAMW)
    own = silos(1, home=tmp_path)
    exp = experiment(a, list(own), private=True, carried=True)
    budget = PrivacyBudget(epsilon=1e-6, delta=1e-5)
    poor = replace(own[NAME], privacy=mechanism(), held_out=notes(4), budget=budget)
    poor.home.mkdir(parents=True)
    silo = agreed(exp, {NAME: poor})[NAME]
    [task] = make_tasks(exp, exp.clients, begin(a))
    assert client_round(task, trainer(a), silo).refusal
    assert local_memory.kept(silo.home, replace(task, round=1)) == {}
    rich = replace(silo, budget=None)
    assert not client_round(task, trainer(a), rich).refusal
    assert local_memory.kept(silo.home, task) == {}
    assert local_memory.kept(silo.home, replace(task, round=1))


def test_a_private_round_that_is_sent_again_leaves_its_memory(tmp_path, monkeypatch):
    """Killed between the charge and the acceptance."""
    a = axes("ffa-lora", ADAMW)
    own = silos(1, home=tmp_path)
    exp = experiment(a, list(own), private=True, carried=True)
    silo = agreed(exp, {NAME: replace(own[NAME], privacy=mechanism(), held_out=notes(4))})[NAME]
    silo.home.mkdir(parents=True)
    [task] = make_tasks(exp, exp.clients, begin(a))
    with monkeypatch.context() as killed:
        killed.setattr(local_memory, "accept", lambda *_: 1 / 0)
        assert client_round(task, trainer(a), silo).refusal
    assert local_memory.kept(silo.home, replace(task, round=1)) == {}
    assert client_round(task, trainer(a), silo).resent
    memory = local_memory.kept(silo.home, replace(task, round=1))
    assert {float(slots["step"]) for slots in memory.values()} == {float(task.steps)}


def test_a_torn_file_is_named(tmp_path):
    a = axes("fedit", ADAMW)
    own = clients(tmp_path)
    ended(a, own, rounds=1, steps=1)
    [path] = own[NAME].home.rglob("optimizer/*/*.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    [task] = make_tasks(experiment(a, list(own), carried=True), list(own), begin(a))
    with pytest.raises(ValueError, match=r"optimizer.*torn"):
        local_memory.kept(own[NAME].home, replace(task, round=1))


def test_memory_of_another_kind_is_refused_in_words(tmp_path):
    class Odd(torch.optim.SGD):
        def step(self, closure=None):
            super().step(closure)
            for p in self.param_groups[0]["params"]:
                self.state[p]["history"] = []

    class OddConfig(SGD):
        def build(self, tensors, lr):
            return Odd(tensors.values(), lr=lr)

    a = axes("fedit", OddConfig(lr=0.1))
    with pytest.raises(ValueError, match=r"Odd remembers history of .*, a list.*to fresh"):
        ended(a, clients(tmp_path), rounds=1, steps=1)


def test_a_silo_without_a_folder_cannot_carry(tmp_path):
    a = axes("fedit", ADAMW)
    with pytest.raises(ValueError, match=r"needs a folder of its own"):
        ended(a, clients(None), rounds=1, steps=1)
