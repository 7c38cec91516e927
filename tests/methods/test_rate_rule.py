"""The rate by rule: the noise that it lets through, by sums over single steps; and who has none."""

import math

import pytest

from covering import fitting
from silotune.aggregation import ServerAdam, ServerMomentum
from silotune.methods import built_in
from silotune.methods.axes import completed
from silotune.methods.rate_rule import LARGEST, SPREAD, refuse_unruled, ruled_rate, walk_of
from silotune.optim import SGD
from toys import axes

MOMENTUM = ServerMomentum(momentum=0.9)
RULED = {"ffa-lora", "head-only", "fed-sb"}


def spread_of_noise(rate, silos, batch, clip, steep, rounds, momentum, server_rate):
    """Standard deviation that a difference of logits ends with, one noise draw after another.

    What a round's noise moves still moves rounds later, by the server's momentum.
    """
    variance = 0.0
    for r in range(rounds):
        later = sum(momentum**k for k in range(rounds - r)) * server_rate
        for share, sigma, steps in silos:
            for _ in range(steps):
                variance += (later * rate * share * sigma * clip / batch * steep) ** 2
    return math.sqrt(variance)


@pytest.mark.parametrize("clip", [1.0, 0.3])
@pytest.mark.parametrize("server_rate", [1.0, 0.7])
def test_all_noise_together_moves_a_difference_of_logits_by_the_spread_at_most(clip, server_rate):
    """Silos of unequal sizes, noise and steps; the first rounds of momentum alone are missing."""
    silos, rounds, batch, steep = [(0.5, 0.9, 5), (0.3, 1.7, 3), (0.2, 2.2, 4)], 400, 60, 3.1
    server = ServerMomentum(momentum=0.9, learning_rate=server_rate)
    rate = ruled_rate(
        walk=walk_of((w, sigma, rounds * steps) for w, sigma, steps in silos),
        batch_size=batch,
        clipping_norm=clip,
        steepness=steep,
        server=server,
    )
    found = spread_of_noise(rate, silos, batch, clip, steep, rounds, 0.9, server_rate)
    assert 0.95 * SPREAD < found <= 1.01 * SPREAD


@pytest.mark.parametrize(
    ("sigma", "steps", "batch", "expected"),
    [(0.516, 100, 200, 1.94), (0.905, 100, 200, 1.11)],
)
def test_it_gives_the_rates_of_the_runs_that_it_is_fitted_on(sigma, steps, batch, expected):
    """SST-2 at epsilon 6 and 1, three equal silos, phi 4.5."""
    walk = walk_of([(1 / 3, sigma, steps)] * 3)
    rate = ruled_rate(
        walk=walk, batch_size=batch, clipping_norm=1.0, steepness=4.5, server=MOMENTUM
    )
    assert rate == expected


def test_it_is_bounded_where_there_is_hardly_any_noise():
    for walk in (0.0, 1e-9):
        rate = ruled_rate(
            walk=walk, batch_size=10, clipping_norm=0.5, steepness=2.0, server=MOMENTUM
        )
        assert rate == pytest.approx(0.1 * LARGEST / 0.5)


def at_work(name, optimizer=None, server=MOMENTUM, mu=0.0):
    return completed(axes(name, optimizer or fitting(name)[0]), mu, server)


def asked(name, unit="example", correlated=False, constant=True, **changes):
    refuse_unruled(at_work(name, **changes), unit, correlated=correlated, constant=constant)


def test_methods_in_which_one_factor_moves_by_sgd_have_a_rate_and_no_others():
    for name in built_in():
        try:
            found = at_work(name)
        except ValueError:
            continue  # a server's momentum is nothing for it
        if name in RULED:
            refuse_unruled(found, "example", correlated=False, constant=True)
        else:
            with pytest.raises(ValueError, match=r"^learning_rate: "):
                refuse_unruled(found, "example", correlated=False, constant=True)


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("learning_rate", {"unit": "none"}),
        ("learning_rate", {"unit": "client"}),
        ("noise", {"correlated": True}),
        ("lr_schedule", {"constant": False}),
        ("server_optimizer", {"server": None}),
        ("server_optimizer", {"server": ServerAdam()}),
        ("server_optimizer", {"server": ServerMomentum(momentum=0.0)}),
        ("learning_rate", {"optimizer": SGD(lr=0.1, momentum=0.5)}),
        ("learning_rate", {"optimizer": SGD(lr=0.1, weight_decay=0.5)}),
        ("learning_rate", {"mu": 0.1}),
    ],
)
def test_what_the_rule_does_not_speak_of_is_refused_by_its_field(field, changes):
    with pytest.raises(ValueError, match=rf"^{field}: .*(leave it out|set (it|noise) to|give a)"):
        asked("ffa-lora", **changes)
