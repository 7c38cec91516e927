"""From a choice and public sizes to mechanisms."""

import math
from dataclasses import replace

import pytest

from covering import every_combination, full
from silotune.privacy import (
    Charge,
    ClientDP,
    ClientLevel,
    Correlated,
    Discrete,
    ExampleDP,
    FullParticipation,
    Gaussian,
    NoDP,
    NoPrivacy,
    Poisson,
    PrivacyBudget,
    Rotation,
    TruncatedCharge,
    TruncatedPoisson,
    calibrated,
)
from silotune.privacy.accounting.accountant import epsilon
from silotune.privacy.mechanisms.matrix_factorization import best_bands
from silotune.privacy.mechanisms_from_choice import (
    client_mechanisms,
    server_budget,
    server_mechanism,
)
from silotune.privacy.planned_charges import (
    Training,
    beside_training,
    check_planned,
    client_budget,
    planned_charges,
    releases,
    worst_case_rounds,
    worst_case_steps,
)
from silotune.privacy.size_checks import check_batch_size, check_delta, check_max_batch_size
from silotune.privacy.sizes import declared_sizes

NOISE = ExampleDP(noise_multiplier=2.0, target_delta=1e-4)
TRAINING = Training(rounds=3, local_steps=2, batch_size=8)


def of(choice, size: int = 80, training: Training = TRAINING):
    return client_mechanisms(choice, {"a": size}, training)["a"]


# ---- choices


def test_a_budget_is_there_where_an_epsilon_is():
    assert NOISE.budget is None
    assert NoDP().budget is None
    for choice in (ExampleDP(target_epsilon=6.0), ClientDP(target_epsilon=6.0)):
        assert choice.budget == PrivacyBudget(epsilon=6.0, delta=1e-5, relation="add-remove")


@pytest.mark.parametrize("choice", [ExampleDP, ClientDP])
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "target_epsilon: needed"),
        ({"target_epsilon": 1.0, "noise_multiplier": 1.0}, "target_epsilon: each determines"),
        ({"target_epsilon": 0.0}, "target_epsilon: must be a positive"),
        ({"target_epsilon": math.inf}, "target_epsilon: must be a finite number"),
        ({"noise_multiplier": 0.0}, "noise_multiplier: must be a positive"),
        ({"noise_multiplier": math.nan}, "noise_multiplier: must be a finite number"),
        ({"target_epsilon": 1.0, "target_delta": 0.0}, "target_delta: must be at least 1e-10"),
        ({"target_epsilon": 1.0, "target_delta": 1.0}, "target_delta: must be at least 1e-10"),
        ({"target_epsilon": 1.0, "relation": "replace"}, "relation: must be one of"),
        ({"target_epsilon": 1.0, "sampling": "shuffle"}, "sampling: must be one of"),
        ({"target_epsilon": 1.0, "noise": "laplace"}, "noise: must be one of"),
        ({"target_epsilon": 1.0, "reserve_rounds": -1}, "reserve_rounds: must be a whole"),
        ({"target_epsilon": 1.0, "noise": "correlated"}, "noise: correlated belongs to"),
        ({"target_epsilon": 1.0, "sampling": "rotation"}, "noise: correlated belongs to"),
        ({"target_epsilon": 1.0, "bands": 2}, "bands: is for noise: correlated"),
        ({"target_epsilon": 1.0, "bands": 0}, "bands: must be a whole number"),
    ],
)
def test_what_makes_no_sense_is_refused(choice, fields, words):
    with pytest.raises(ValueError, match=words):
        choice(**fields)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_grad_norm": 0.0}, "max_grad_norm: must be a positive number"),
        ({"max_grad_norm": math.inf}, "max_grad_norm: must be a finite number"),
        ({"max_grad_norm": None}, "max_grad_norm: must be a number, not null"),
        ({"reserve_rounds": None}, "reserve_rounds: must be a whole number"),
        ({"insecure_seeded_noise": "no"}, "insecure_seeded_noise: must be true or false"),
        ({"sampling": "truncated-poisson"}, "relation: sampling: truncated-poisson is proved for"),
        ({"max_batch_size": 9}, "max_batch_size: is for sampling: truncated-poisson"),
        ({"count_noise": 5.0, "relation": "replace-one"}, "count_noise: relation: replace-one"),
        ({"count_noise": 0.0}, "count_noise: must be a positive"),
        ({"metric_noise": -1.0}, "metric_noise: must be a positive"),
    ],
)
def test_what_is_not_proved_of_records_is_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        ExampleDP(target_epsilon=1.0, **fields)


TURNS = {"sampling": "rotation", "noise": "correlated"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_update_norm": 0.0}, "max_update_norm: must be a positive"),
        ({"relation": "replace-one"}, "relation: hidden clients know"),
        ({"sampling": "truncated-poisson"}, "sampling: truncated-poisson is for hiding single"),
        ({"noise": "discrete"}, "noise: discrete is for hiding single records"),
        ({"client_sampling_rate": 0.0}, "client_sampling_rate: must be above 0"),
        ({"client_sampling_rate": 1.1}, "client_sampling_rate: must be above 0"),
        ({"target_quantile": 1.0}, "target_quantile: must be between"),
        ({**TURNS, "adaptive_clipping": True}, "adaptive_clipping: noise: correlated needs"),
        ({**TURNS, "client_sampling_rate": 0.4}, r"client_sampling_rate: .* set it to 0\.5"),
    ],
)
def test_what_is_not_proved_of_clients_is_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        ClientDP(target_epsilon=1.0, **fields)


def test_everything_that_is_wrong_is_said_at_once():
    with pytest.raises(ValueError, match="target_epsilon") as refusal:
        ExampleDP(max_grad_norm=-1.0, bands=3)
    named = [line.split(":")[0] for line in str(refusal.value).splitlines()]
    assert named == ["target_epsilon", "max_grad_norm", "bands"]


@pytest.mark.parametrize(("rate", "turns"), [(1, 1), (0.5, 2), (0.333, 3), (0.001, 1000)])
def test_a_rotation_of_clients_has_whole_turns(rate, turns):
    choice = ClientDP(noise_multiplier=1.0, client_sampling_rate=rate, **TURNS)
    assert choice.turns == turns


# ---- records


def test_the_reserve_is_paid_for():
    assert worst_case_steps(NOISE, TRAINING, 80) == (3 + 1) * 2
    stream = ExampleDP(noise_multiplier=1.0, **TURNS)
    assert worst_case_steps(stream, TRAINING, 80) == 3 * 2, "a stream is drawn once"
    assert worst_case_steps(NoDP(), TRAINING, 80) == 3 * 2


def test_each_client_has_the_rate_of_its_own_size():
    found = client_mechanisms(NOISE, {"a": 16, "b": 80}, TRAINING)
    assert {name: m.sampling.rate for name, m in found.items()} == {"a": 0.5, "b": 0.1}


@pytest.mark.parametrize("relation", ["add-remove", full("replace-one")])
def test_the_noise_for_a_target_is_the_least_that_pays_for_everything(relation):
    choice = ExampleDP(target_epsilon=4.0, target_delta=1e-3, relation=relation)
    found = of(choice)
    steps = worst_case_steps(choice, TRAINING, 80)
    assert 3.98 <= epsilon([found.charge(steps)], 1e-3, relation=relation) <= 4.0


@pytest.mark.full  # at hand `federation/test_releases.py` trains under such a budget
def test_a_noisy_count_is_paid_from_the_same_budget():
    plain = ExampleDP(target_epsilon=4.0, target_delta=1e-3)
    counted = replace(plain, count_noise=3.0)
    assert of(counted).noise.multiplier > of(plain).noise.multiplier
    (count,) = beside_training(counted)
    assert count == Charge(1.0, 3.0, 1)
    whole = [count, of(counted).charge(worst_case_steps(counted, TRAINING, 80))]
    assert 3.98 <= epsilon(whole, 1e-3) <= 4.0
    assert beside_training(plain) == beside_training(NoDP()) == ()


def test_kinds_of_sampling_and_noise():
    truncated = replace(NOISE, sampling="truncated-poisson", relation="zero-out")
    assert of(truncated).sampling == TruncatedPoisson(0.1, 32, 80)
    assert of(replace(truncated, max_batch_size=9)).sampling == TruncatedPoisson(0.1, 9, 80)
    assert of(replace(NOISE, noise="gaussian")).noise == Gaussian(2.0)
    assert of(truncated).charge(3) == TruncatedCharge(0.1, 2.0, 3, 32, 80, Discrete.grid_points)
    stream = of(replace(NOISE, **TURNS), size=85)
    assert stream.sampling == Rotation(10)
    assert stream.noise == Correlated(2.0, best_bands(10, 6))
    assert stream.expected_batch_size == 8.5
    assert of(replace(NOISE, **TURNS, bands=3)).noise == Correlated(2.0, 3)
    assert of(NOISE).sampling == Poisson(0.1)
    assert of(NOISE).noise == Discrete(2.0)


def test_only_where_it_is_asked_for_noise_comes_from_the_seed():
    assert of(NOISE).insecure_seed is None
    seeded = replace(NOISE, insecure_seeded_noise=True)
    sizes = {"a": 80, "b": 80}
    found = client_mechanisms(seeded, sizes, TRAINING)
    assert found["a"].insecure_seed not in (None, found["b"].insecure_seed)
    other = client_mechanisms(seeded, sizes, replace(TRAINING, seed=1))
    assert other["a"].insecure_seed != found["a"].insecure_seed


@pytest.mark.parametrize("choice", [NOISE, NoDP(), ClientDP(noise_multiplier=1.0)])
def test_a_batch_larger_than_a_client_is_refused_with_or_without_privacy(choice):
    with pytest.raises(ValueError, match=r"^batch_size: must be at most .* of silo b"):
        client_mechanisms(choice, {"a": 2000, "b": 7}, TRAINING)


def test_batch_may_fill_a_client():
    check_batch_size(100, {"a": 100})
    with pytest.raises(ValueError, match=r"batch_size.*99 of silo b"):
        check_batch_size(100, {"a": 100, "b": 99})


def test_a_truncated_batch_has_room_for_the_usual_one():
    choice = replace(
        NOISE, sampling="truncated-poisson", relation="zero-out", max_batch_size=TRAINING.batch_size
    )
    assert of(choice).sampling.largest == 8
    with pytest.raises(ValueError, match="max_batch_size: must be at least batch_size = 8"):
        of(replace(choice, max_batch_size=7))
    check_max_batch_size(None, 8)


def test_delta_must_be_below_one_over_n():
    check_delta(1e-5, 99_999)
    check_delta(1e-5, {"a": 500, "b": 99_999})
    check_delta(1e-2, {"b": 9, "a": 99})
    with pytest.raises(ValueError, match=r"^target_delta.*1e-05.*usual is 3e-06"):
        check_delta(1e-5, 100_000)
    with pytest.raises(ValueError, match="of silo a"):
        check_delta(1e-2, {"b": 90, "a": 101})
    with pytest.raises(ValueError, match=r"^target_delta: must be below .* = 0\.013,"):
        of(replace(NOISE, target_delta=0.1))


@pytest.mark.parametrize("n", [2, 3, 7, 50, 1234, 10**6, 10**9])
def test_the_usual_delta_is_allowed(n):
    with pytest.raises(ValueError, match="usual is") as error:
        check_delta(1 / n, n)
    check_delta(float(str(error.value).rpartition(" ")[2]), n)


def test_scores_may_not_cost_held_out_records_more_than_the_budget():
    choice = ExampleDP(target_epsilon=2.0, target_delta=1e-3, metric_noise=3.0)
    of(choice, training=replace(TRAINING, scores=1))
    with pytest.raises(ValueError, match=r"^metric_noise: 100 scores would cost"):
        of(choice, training=replace(TRAINING, scores=100))


def test_releases_are_those_that_were_chosen():
    chosen = releases(replace(NOISE, count_noise=2.0, metric_noise=3.0), "a", 7)
    assert (chosen.count.multiplier, chosen.metric.multiplier, chosen.held_out) == (2.0, 3.0, 7)
    assert chosen.count.insecure_seed is None
    for choice in (NOISE, NoDP(), ClientDP(noise_multiplier=1.0)):
        assert releases(choice, "a", 7).count is releases(choice, "a", 7).metric is None


@pytest.mark.parametrize("field", ["rounds", "local_steps", "batch_size"])
def test_training_has_at_least_one_of_everything(field):
    with pytest.raises(ValueError, match=f"{field}: must be at least 1"):
        replace(TRAINING, **{field: 0})


# ---- clients


def test_the_server_hides_clients_and_they_train_as_they_are():
    found = calibrated(
        ClientDP(noise_multiplier=2.0, target_delta=1e-2, client_sampling_rate=0.5),
        sizes={"a": 80, "b": 90},
        batch_size=8,
        rounds=3,
        local_steps=2,
    )
    assert found.clients == dict.fromkeys("ab", NoPrivacy(batch_size=8))
    assert found.server == ClientLevel(
        clients=2, sampling=Poisson(0.5), noise=Gaussian(2.0), max_update_norm=1.0
    )


@pytest.mark.parametrize("choice", [NoDP(), NOISE])
def test_who_hides_no_client_asks_everyone(choice):
    assert isinstance(server_mechanism(choice, 2, TRAINING), FullParticipation)


def test_the_servers_noise_for_a_target_pays_for_the_reserve():
    choice = ClientDP(target_epsilon=4.0, target_delta=1e-2)
    z = server_mechanism(choice, 2, TRAINING).noise_multiplier
    assert epsilon([Charge(1.0, z, 4)], 1e-2) <= 4
    assert epsilon([Charge(1.0, z * 0.99, 4)], 1e-2) > 4


def test_adaptive_clipping_costs_nothing():
    choice = ClientDP(target_epsilon=4.0, target_delta=1e-3, reserve_rounds=0)
    adaptive = replace(choice, adaptive_clipping=True, target_quantile=0.3)
    one = replace(TRAINING, rounds=1)
    fixed = server_mechanism(choice, 500, one)
    assert server_mechanism(adaptive, 500, one) == replace(fixed, target_quantile=0.3)


@pytest.mark.parametrize(
    ("fields", "clients", "words"),
    [
        ({"target_delta": 0.1}, 10, r"^target_delta: must be below 1 / number of clients = 0\.1"),
        ({"noise_multiplier": 0.001}, 2, "^noise_multiplier: epsilon would be infinite"),
        ({"noise_multiplier": 0.05}, 2, r"^noise_multiplier: epsilon would be .* above 50"),
        ({"noise_multiplier": None, "target_epsilon": 51.0}, 2, "^target_epsilon: epsilon would"),
        ({"adaptive_clipping": True}, 10, "^adaptive_clipping: with 10 clients expected"),
    ],
)
def test_a_guarantee_that_is_none_is_refused_in_words(fields, clients, words):
    good = {"noise_multiplier": 2.0, "target_delta": 1e-2}
    with pytest.raises(ValueError, match=words):
        server_mechanism(ClientDP(**(good | fields)), clients, TRAINING)


# ---- declared sizes


def test_a_size_that_is_not_declared_is_rounded_down_and_said():
    sizes, said = declared_sizes("num_examples", None, {"a": 200, "b": 479, "c": 1999})
    assert sizes == {"a": 200, "b": 470, "c": 1900}
    assert said[0].startswith("num_examples: declared as public, rounded down")


def test_of_few_records_a_number_must_be_declared():
    few = {f"clinic {i}": 199 for i in range(20)}
    with pytest.raises(ValueError, match=r"^n: none is declared, .* fewer than 200") as caught:
        declared_sizes("n", None, {"north": 5000, **few})
    assert "clinic 11 and 8 others" in str(caught.value)
    assert not {"north", "199"} & set(str(caught.value).replace(",", "").split())
    assert declared_sizes("n", 100, few)[0] == dict.fromkeys(few, 100)


def test_one_declared_number_is_for_every_client():
    assert declared_sizes("n", 20, {"a": 5, "b": 50}) == ({"a": 20, "b": 20}, [])


def test_declared_clients_must_be_those_of_the_data():
    with pytest.raises(
        ValueError, match=r"n: is declared for .*wst.*, but the silos of the data are east, west;"
    ):
        declared_sizes("n", {"east": 20, "wst": 20}, {"east": 20, "west": 20})


# ---- budgets


CHOICES = {
    "poisson": {"noise": "gaussian"},
    "discrete": {},
    "replace-one": {"relation": "replace-one"},
    "count": {"count_noise": 10.0},
    "truncated": {"sampling": "truncated-poisson", "relation": "zero-out"},
    "rotation": TURNS,
}


@every_combination(kind=list(CHOICES), size=[16, 123])
def test_what_was_planned_fits_and_nothing_is_computed_for_it(kind, size, monkeypatch):
    choice = ExampleDP(target_epsilon=3.0, target_delta=1e-3, **CHOICES[kind])
    training = replace(TRAINING, rounds=4)
    planned = planned_charges(choice, {"a": size}, training)
    budget, mechanism = client_budget(choice, planned[size]), of(choice, size, training)
    besides = list(beside_training(choice))
    spent = [mechanism.charge(2 * n) for n in range(1, worst_case_rounds(choice, 4) + 1)]
    whole = epsilon([*besides, spent[-1]], budget.delta, relation=budget.relation, library=True)
    assert whole <= 3.0

    def computed(*_, **__):
        raise ArithmeticError("computed")

    monkeypatch.setattr("silotune.privacy.choice.epsilon", computed)
    for charge in spent:
        assert budget.affords([charge, *besides])
        assert budget.affords([charge])
    one_more = replace(spent[-1], steps=spent[-1].steps + 1)
    less_noise = replace(spent[0], noise_multiplier=0.999 * spent[0].noise_multiplier)
    for charges in ([one_more], [less_noise], [*spent[:1], Charge(1.0, 9.0, 1)]):
        with pytest.raises(ArithmeticError, match="computed"):
            budget.affords(charges)
    with pytest.raises(ArithmeticError, match="computed"):
        replace(budget, epsilon=2.0).affords(spent[:1])


def test_a_server_knows_that_its_rounds_fit(monkeypatch):
    choice = ClientDP(target_epsilon=8.0, target_delta=1e-3, client_sampling_rate=0.5)
    training = replace(TRAINING, rounds=4)
    server = server_mechanism(choice, 200, training)
    budget = server_budget(choice, server, training)
    monkeypatch.setattr("silotune.privacy.choice.epsilon", None)
    assert budget.affords([replace(server.charge(), steps=5)])
    with pytest.raises(TypeError):
        budget.affords([replace(server.charge(), steps=6)])


def test_where_the_noise_is_given_there_is_no_budget():
    for choice in (NOISE, NoDP()):
        assert planned_charges(choice, {"a": 80}, TRAINING) == {}
        assert client_budget(choice, None) is None


def test_what_was_planned_may_be_handed_over_if_it_is_of_this_very_run():
    choice = ExampleDP(target_epsilon=3.0, target_delta=1e-3)
    sizes = {"a": 80, "b": 123, "c": 80}
    planned = planned_charges(choice, sizes, TRAINING)
    assert sorted(planned) == [80, 123]
    check_planned(choice, sizes, TRAINING, planned)
    own = client_mechanisms(choice, sizes, TRAINING)
    assert client_mechanisms(choice, sizes, TRAINING, planned) == own
    longer, larger = replace(TRAINING, rounds=99), replace(TRAINING, batch_size=20)
    for training in (longer, larger):
        with pytest.raises(ValueError, match=r"noise: .* for (80|123) declared .* not of this run"):
            check_planned(choice, sizes, training, planned)
    with pytest.raises(ValueError, match="for 90 declared"):
        check_planned(choice, {"a": 80, "d": 90}, TRAINING, planned)
