"""What a silo does with a round that it must not train as asked."""

from dataclasses import replace

from silotune.core import ClientId
from silotune.core.files import read_lines
from silotune.engine import Client, client, client_round
from silotune.engine.client_errors import BROKE_DOWN, ERRORS, FAILED
from silotune.engine.loop import make_tasks
from silotune.linalg import NumericalError
from silotune.optim import SGD
from silotune.privacy import Correlated, ExampleLevel, Gaussian, Poisson, Rotation
from silotune.privacy.mechanisms.no_privacy import NoPrivacy
from toys import Notes, agreed, axes, begin, experiment, notes, trainer

NAME = ClientId("silo-0")


def silo(home, mechanism, train=None) -> Client:
    return Client(
        client=NAME, train=train or notes(12), held_out=None, privacy=mechanism, home=home
    )


def mechanism(sampling, noise, insecure_seed=None) -> ExampleLevel:
    return ExampleLevel(
        sampling=sampling,
        noise=noise,
        max_grad_norm=1.0,
        expected_batch_size=6.0,
        insecure_seed=insecure_seed,
    )


def play(own: Client, *rounds, lr=0.1, run="law"):
    """The results of one client in ``rounds``, on the same first state."""
    method = axes("ffa-lora", SGD(lr=lr))
    place = trainer(method)
    exp = experiment(method, [NAME], private=own.privacy.private, quorum=0, run=run)
    own = agreed(exp, {NAME: own})[NAME]
    state = begin(method)
    for number in rounds:
        (task,) = make_tasks(exp, [NAME], replace(state, round=number))
        yield client_round(task, place, own)


def reasons(home) -> list[str]:
    """Last lines of the errors that stayed at the silo."""
    return [line["error"].splitlines()[-1] for line in read_lines(home / ERRORS)]


TURNING = mechanism(Rotation(2), Correlated(1.0, 2))


def test_correlated_noise_needs_the_same_records_in_every_round(tmp_path):
    assert [r.refusal for r in play(silo(tmp_path, TURNING), 0, 1)] == ["", ""]
    fewer = silo(tmp_path, TURNING, Notes(notes(12).ids[1:]))
    (refused,) = play(fewer, 2)
    assert (refused.refusal, refused.sealed) == (FAILED, b"")
    assert "training records are not those that this run began with" in reasons(tmp_path)[-1]
    (goes_on,) = play(silo(tmp_path, TURNING), 2)
    assert goes_on.refusal == ""


def test_independent_noise_does_not(tmp_path):
    own = mechanism(Poisson(0.5), Gaussian(1.0))
    assert [r.refusal for r in play(silo(tmp_path, own), 0)] == [""]
    other = silo(tmp_path, own, Notes(notes(12).ids[1:]))
    assert [r.refusal for r in play(other, 1)] == [""]


def test_a_correlated_round_is_sent_again_or_not_at_all(tmp_path):
    (first,) = play(silo(tmp_path, TURNING), 0)
    (again,) = play(silo(tmp_path, TURNING), 0)
    assert (again.sealed, again.resent) == (first.sealed, True)
    (otherwise,) = play(silo(tmp_path, TURNING), 0, lr=0.7)
    assert (otherwise.refusal, otherwise.sealed) == (FAILED, b"")
    assert "agreed on at its beginning" in reasons(tmp_path)[-1]


def test_training_that_breaks_down_says_no_more_without_privacy_either(tmp_path, monkeypatch):
    """The text of its error could have a number of a record."""

    def breaks(*_, **__):
        raise NumericalError("a loss of 7.25")

    monkeypatch.setattr(client, "local_training", breaks)
    (refused,) = play(silo(tmp_path, NoPrivacy(batch_size=6)), 0)
    assert (refused.refusal, refused.sealed) == (BROKE_DOWN, b"")
    assert "7.25" not in BROKE_DOWN
    assert reasons(tmp_path) == ["silotune.linalg.decompositions.NumericalError: a loss of 7.25"]
