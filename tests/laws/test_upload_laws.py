"""Uploads in fewer bits: of every method, near what was trained, right on average, and small."""

import hashlib
from dataclasses import replace

import pytest
import torch

from covering import every_method, plain
from silotune.core import ClientId
from silotune.engine import client_round, federate
from silotune.engine.channel import open_sealed
from silotune.engine.communication import traffic
from silotune.engine.loop import make_tasks
from silotune.engine.own_start import own_start
from silotune.engine.personalization import personal
from silotune.engine.upload import narrowed, widened
from silotune.privacy import ExampleLevel, Gaussian, Poisson
from silotune.privacy.ledger.store import SiloStore
from silotune.runtimes import InProcess
from toys import agreed, begin, experiment, loss, notes, silos, trainer

NARROW = ["bfloat16", "int8"]
SILO = ClientId("silo-0")
SIZES = {"float32": 8, "bfloat16": 2, "int8": 1}
"""Bytes of a number; laws compute in float64, which is then sent as it is."""


def sent(method: str, upload: str, home, seed: int = 0):
    """One client's answer to the first order, the order, and the shared tensors before it."""
    a = plain(method)
    own = silos(1, home=home)
    exp = experiment(a, list(own), upload=upload, seed=seed)
    state = begin(a)
    (task,) = make_tasks(exp, list(own), state)
    answer = client_round(task, trainer(a), agreed(exp, own)[SILO])
    start = task.plan.shared(state.factors).updated(own_start(task, exp.draw))
    return answer, task, start


def most(moved: torch.Tensor, upload: str) -> torch.Tensor:
    """Distance of the two neighbours of every number."""
    if upload == "bfloat16":
        return moved.abs() * 2.0**-7 + 1e-30
    return torch.full_like(moved, moved.abs().max().item() / 127 * (1 + 1e-6))


@every_method(part=(1, 3), upload=NARROW)
def test_what_arrives_is_near_what_was_trained(method, upload, tmp_path):
    """Against the same round sent in float64, tensor by tensor."""
    whole, _, start = sent(method, "float32", tmp_path / "whole")
    answer, _, _ = sent(method, upload, tmp_path / "narrow")
    trained, arrived = open_sealed(whole, start, "float32"), open_sealed(answer, start, upload)
    assert arrived.keys() == trained.keys()
    assert arrived.digest() != trained.digest()
    for key, tensor in trained.items():
        error = (arrived[key] - tensor).abs()
        assert torch.all(error <= most(tensor - start[key], upload) + 1e-15), key


@every_method(part=(0, 3), upload=NARROW)
def test_it_is_right_on_average(method, upload, tmp_path):
    """The mean of n roundings of a round is within 6 standard errors of what was trained."""
    n = 300
    whole, _, start = sent(method, "float32", tmp_path)
    trained = open_sealed(whole, start, "float32")
    roundings = [widened(narrowed(trained, start, upload, i), start, upload) for i in range(n)]
    for key, tensor in trained.items():
        mean = torch.stack([rounding[key] for rounding in roundings]).mean(dim=0)
        error = most(tensor - start[key], upload) / 2 / n**0.5
        assert torch.all((mean - tensor).abs() <= 6 * error + 1e-12), key


@every_method(upload=NARROW)
def test_it_is_as_small_as_it_says_and_as_was_counted(method, upload, tmp_path):
    answer, _, start = sent(method, upload, tmp_path)
    numbers = start.num_elements()
    beside = len(answer.sealed) - numbers * SIZES[upload]
    names = sum(len(str(key)) for key in start)
    assert 0 < beside < 400 + 4 * names + 130 * len(start), "names, shapes, scales and a digest"
    exp = experiment(plain(method), [SILO], upload=upload)
    counted = traffic(exp, begin(plain(method)))[0][SILO].up
    assert counted == len(answer.sealed)


@every_method(part=(2, 3))
def test_in_eight_bits_every_method_learns(method, tmp_path):
    a, own = plain(method), silos(home=tmp_path, records=40)
    exp = experiment(a, list(own), upload="int8", rounds=8, local_steps=4)
    runtime = InProcess(trainer(a), own)
    state = list(federate(exp, runtime, begin(a)))[-1].state
    held_out = notes(60, "held out")
    parts = [personal(silo.home, "law", before=8) for silo in own.values()]
    before = loss(trainer(a), begin(a), held_out)
    assert max(loss(trainer(a), state, held_out, part) for part in parts) < before - 0.03


@pytest.mark.parametrize("upload", ["float32", *NARROW])
def test_what_is_charged_kept_and_sent_again_is_what_was_rounded(upload, tmp_path):
    a = plain("ffa-lora")
    private = ExampleLevel(
        sampling=Poisson(0.5), noise=Gaussian(1.0), max_grad_norm=1.0, expected_batch_size=6.0
    )
    own = replace(silos(1, home=tmp_path)[SILO], privacy=private)
    exp = experiment(a, [SILO], upload=upload, private=True)
    own = agreed(exp, {SILO: own})[SILO]
    (task,) = make_tasks(exp, [SILO], begin(a))
    first = client_round(task, trainer(a), own)
    again = client_round(task, trainer(a), own)
    assert (again.sealed, first.resent, again.resent) == (first.sealed, False, True)
    with SiloStore(own.folder) as store:
        (line,) = store.entries(task.run)
    assert line.sent == hashlib.sha256(first.sealed).hexdigest()


def test_an_order_in_another_type_than_was_agreed_is_not_obeyed(tmp_path):
    """Or a server could choose what a round's ledger line is of."""
    a = plain("ffa-lora")
    own = silos(1, home=tmp_path)
    asked = experiment(a, [SILO], upload="float32")
    (task,) = make_tasks(asked, [SILO], begin(a))
    with pytest.raises(ValueError, match="plan is not what was agreed"):
        client_round(task, trainer(a), agreed(experiment(a, [SILO], upload="int8"), own)[SILO])
