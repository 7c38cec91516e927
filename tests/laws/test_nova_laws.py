"""FedNova (arXiv 2007.07481): with equal steps the mean, with unequal ones the paper's formula."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from silotune.engine import federate
from silotune.engine.local_training import local_training
from silotune.engine.loop import make_tasks
from silotune.methods import built_in
from silotune.methods.axes import IncompatibleMethodError
from silotune.optim import SGD, AdamW, FedProxConfig
from silotune.optim.learning_rate import LearningRateSchedule
from silotune.optim.reach import reach
from silotune.runtimes import InProcess
from toys import axes, begin, experiment, silos, trainer

AVERAGE = ("head-only", "fedit", "ffa-lora", "rolora", "fedsa-lora", "cola", "lora-plus", "fedftg")
"""Some methods whose rule is the plain mean, in one phase."""

OPTIMIZERS = {
    "sgd": SGD(lr=0.2),
    "momentum": SGD(lr=0.2, momentum=0.8),
    "proximal": FedProxConfig(SGD(lr=0.2, momentum=0.3), 0.7),
    "adamw": AdamW(lr=0.01),
}


def by_step(exp):
    return replace(exp, reach=partial(reach, exp.axes.optimizer))


def test_the_reach_is_how_far_a_gradient_of_one_moves():
    """By the papers' closed forms, and by torch's own steps at rates that change."""
    lr, m, mu, n = 0.3, 0.8, 0.7, 5
    plain = [lr] * n
    assert reach(SGD(lr=lr), plain) == pytest.approx(lr * n)
    assert reach(AdamW(lr=lr), plain) == pytest.approx(lr * n)
    with_momentum = (n - m * (1 - m**n) / (1 - m)) / (1 - m)
    assert reach(SGD(lr=lr, momentum=m), plain) == pytest.approx(lr * with_momentum)
    proximal = (1 - (1 - lr * mu) ** n) / (lr * mu)
    assert reach(FedProxConfig(SGD(lr=lr), mu), plain) == pytest.approx(lr * proximal)
    optimizer = FedProxConfig(SGD(lr=lr, momentum=m), mu)
    rates = [0.3, 0.1, 0.2, 0.05]
    p = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    taken = optimizer.build({"p": p}, lr)
    for rate in rates:
        taken.param_groups[0]["lr"] = rate
        p.grad = torch.ones_like(p)
        taken.step()
    assert reach(optimizer, rates) == pytest.approx(1.0 - p.item(), rel=1e-12)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("name", AVERAGE)
def test_with_equal_steps_it_is_the_mean(name, tmp_path):
    a = axes(name, AdamW(lr=0.01) if built_in()[name].made_of_adamw else SGD(lr=0.2))
    own = silos(3, home=tmp_path / "mean")
    exp = experiment(a, list(own))
    plain = [*federate(exp, InProcess(trainer(a), own), begin(a))][-1].state
    own = silos(3, home=tmp_path / "nova")
    nova = [*federate(by_step(exp), InProcess(trainer(a), own), begin(a))][-1].state
    for key, tensor in plain.factors.items():
        torch.testing.assert_close(nova.factors[key], tensor, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_with_unequal_steps_it_is_the_papers_formula(kind):
    """Weights 1:2:3, steps 2, 5 and 8, rates that fall; against sums written out."""
    a, own = axes("fedit", OPTIMIZERS[kind]), silos(3)
    taken = dict(zip(own, (2, 5, 8), strict=True))
    falling = LearningRateSchedule(kind="linear")
    exp = by_step(experiment(a, list(own), local_steps=taken, lr_schedule=falling))
    state = begin(a)
    start = state.factors
    ends = {
        task.client: local_training(task, trainer(a), own[task.client], start).factors
        for task in make_tasks(exp, exp.clients, state)
    }
    reaches = {c: reach(a.optimizer, exp.learning_rates(0, taken[c])) for c in own}
    shares = {c: (i + 1) / 6 for i, c in enumerate(own)}
    tau = sum(shares[c] * reaches[c] for c in own)
    done = next(federate(exp, InProcess(trainer(a), own), state))
    for key, begun in start.items():
        moved = sum(shares[c] * (ends[c][key] - begun) / reaches[c] for c in own)
        torch.testing.assert_close(done.state.factors[key], begun + tau * moved)
    mean = next(federate(replace(exp, reach=None), InProcess(trainer(a), own), state)).state
    head = next(key for key in start if str(key).startswith("classifier"))
    assert not torch.allclose(mean.factors[head], done.state.factors[head], rtol=1e-3)


def test_who_does_not_answer_counts_for_nothing():
    a, own = axes("ffa-lora", SGD(lr=0.2)), silos(3)
    taken = dict(zip(own, (2, 5, 8), strict=True))
    exp = by_step(experiment(a, list(own), local_steps=taken, quorum=2, rounds=1))
    away = exp.clients[-1]

    class Absent(InProcess):
        def train(self, tasks):
            return super().train([task for task in tasks if task.client != away])

    some = replace(exp, weights={c: w for c, w in exp.weights.items() if c != away})
    alone = {c: client for c, client in own.items() if c != away}
    (missing,) = federate(exp, Absent(trainer(a), own), begin(a))
    (without,) = federate(some, InProcess(trainer(a), alone), begin(a))
    assert missing.state.factors.digest() == without.state.factors.digest()


APART = {
    "la-lora": "one thing after another",
    "alt-lora": "one thing after another",
    "fedrot-lora": "turned before it is sent",
}
"""What is said of those that have no way of their own to combine."""


def test_methods_that_combine_pairs_or_train_one_thing_after_another_are_refused():
    refused = {}
    for name, kind in built_in().items():
        a = axes(name, AdamW(lr=0.01) if kind.made_of_adamw else SGD(lr=0.1))
        try:
            by_step(experiment(a, ["a"]))
        except IncompatibleMethodError as error:
            refused[name] = str(error)
    assert not refused.keys() & set(AVERAGE)
    assert {"flexlora", "flora", "fedex-lora", "lora-fair", "fedsvd", "la-lora"} <= refused.keys()
    for name, words in refused.items():
        alone = APART.get(name, "of its own")
        assert words.startswith("normalize_steps: "), name
        assert alone in words, name
