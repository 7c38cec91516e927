"""A run whose server hides its clients, from the configuration to the certificate."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import silotune.federation.run as run_module
from by_config import central_mechanism, forecast, opened, verify
from covering import full
from federation.small import NO_WORKER, charge_again, small, train, weights
from silotune.core.files import read_json, read_lines
from silotune.engine import QuorumError
from silotune.engine.checkpoint import load, save
from silotune.federation.run import exhausted, finish, rounds
from silotune.privacy import Charge, CorrelatedCharge, FullParticipation
from silotune.privacy.accounting.accountant import epsilon
from silotune.privacy.ledger.chain import read_ledger
from silotune.privacy.ledger.entry import SiloStoreError
from silotune.privacy.mechanisms.dp_fedavg import CLIPPING_NORM
from silotune.privacy.mechanisms.matrix_factorization import best_bands, sensitivity
from silotune.runs.folder import RunFolder

KEYS = {"noise_multiplier": 2, "target_delta": 1e-2, "max_update_norm": 0.5}
TURNS = {"sampling": "rotation", "noise": "correlated"}


def hidden(place, *overrides: str, **keys):
    """The small configuration under client-level privacy."""
    privacy = {"unit": "client", **KEYS, **keys}
    given = json.dumps({key: value for key, value in privacy.items() if value is not None})
    declared = "data.num_examples=20"
    return small(place, f"privacy={given}", "train.weighting=uniform", declared, *overrides)


def folder_of(config) -> RunFolder:
    return RunFolder(Path(config.output_dir))


@pytest.mark.usefixtures("drawn")
def test_a_run_is_charged_to_every_client_and_certified(place):
    config = hidden(place, client_sampling_rate=0.5)
    records = train(config)
    folder = folder_of(config)
    charged = read_ledger(folder.server / "ledger.jsonl")
    assert [(e.silo, e.round, e.charge) for e in charged] == [
        ("every client", i, Charge(0.5, 2.0, 1)) for i in range(3)
    ]
    assert read_ledger(folder.ledger) == charged
    assert not (folder.site("east") / "ledger.jsonl").exists()
    said = read_json(folder.privacy)
    assert (said["unit"], said["private"], said["max_grad_norm"]) == ("client", True, 0.5)
    account = said["silos"]["every client"]
    assert (account["num_examples"], account["rounds"], account["steps"]) == (2, 3, 3)
    assert account["epsilon"] == pytest.approx(epsilon([Charge(0.5, 2.0, 3)], 1e-2))
    assert records[-1].epsilon["every client"] >= account["epsilon"]
    assert "not the server" in said["adversary"]
    assert "server" in said["trust_model"]
    assert verify(folder.path).findings == ()
    assert verify(folder.path).private


def test_a_run_with_turns_is_charged_as_one_stream_and_certified(place):
    config = hidden(place, **TURNS, client_sampling_rate=0.5, bands=2)
    records = train(config)
    folder = folder_of(config)
    charged = read_ledger(folder.server / "ledger.jsonl")
    assert [(e.round, e.charge) for e in charged] == [
        (i, CorrelatedCharge(2.0, 1, 2, 2)) for i in range(3)
    ]
    said = read_json(folder.privacy)
    account = said["silos"]["every client"]
    one = Charge(1.0, 2.0 / sensitivity(2, 2, 3), 1)
    assert account["epsilon"] == pytest.approx(epsilon([one], 1e-2))
    assert account["epsilon_rdp"] >= account["epsilon"]
    assert records[-1].epsilon["every client"] >= account["epsilon"]
    assert said["mechanism"] == {
        "sampling": "rotation",
        "noise": "correlated",
        "source": "operating system",
        "clipping": "fixed",
    }
    assert "one turn of 2" in said["sampling"]
    assert "correlated over rounds" in said["noise"]
    assert said["not_claimed"][0].startswith("amplification by sampling")
    assert verify(folder.path).findings == ()
    assert verify(folder.path).private


def test_everybody_in_every_round_is_said_so_with_correlated_noise_too(place):
    config = hidden(place, **TURNS)
    train(config)
    said = read_json(folder_of(config).privacy)
    assert "every client is asked in every round" in said["sampling"]
    assert verify(folder_of(config).path).findings == ()


@pytest.mark.parametrize("until", [full(-1), 0])
def test_a_run_with_turns_that_was_cut_goes_on_in_the_same_stream(place, until):
    keys = {**TURNS, "client_sampling_rate": 0.5, "insecure_seeded_noise": True}
    whole = hidden(place, f"output_dir={place.parent / 'whole'}", **keys)
    train(whole)
    config = hidden(place, **keys)
    train(config, until=until)
    train(config, resume=True)
    assert weights(config) == weights(whole)
    assert len(read_ledger(folder_of(config).server / "ledger.jsonl")) == 3
    assert verify(folder_of(config).path).findings == ()


def test_a_charged_state_that_was_lost_ends_the_run_in_words(place, monkeypatch):
    config = hidden(place, **TURNS)

    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "save_checkpoint", crash)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    [parcel] = (folder_of(config).server / "sent").glob("round-*")
    kept = parcel.read_bytes()
    parcel.unlink()
    with pytest.raises(SiloStoreError, match="correlated noise may not be drawn"):
        train(config, resume=True)
    parcel.write_bytes(kept)
    train(config, resume=True)
    assert [e.attempt for e in read_ledger(folder_of(config).server / "ledger.jsonl")] == [0, 0, 0]


def test_a_round_record_has_nothing_that_depends_on_the_cohort(place, monkeypatch):
    """Nobody or everybody took part: the lines have the same fields with the same values, but for
    what is computed from the released state."""

    def lines(name, cohort):
        monkeypatch.setattr(
            "silotune.privacy.mechanisms.dp_fedavg.ClientLevel.cohort",
            lambda self, clients, _: cohort,
        )
        config = hidden(place, f"output_dir={place.parent / name}", client_sampling_rate=0.5)
        train(config)
        return read_lines(folder_of(config).metrics), folder_of(config)

    (nobody, _), (everybody, folder) = lines("a", []), lines("b", ["east", "west"])
    told = {"metrics", "silos", "update_norm", "noise_to_signal"}
    for empty, some in zip(nobody, everybody, strict=True):
        same = [{k: v for k, v in line.items() if k not in told} for line in (empty, some)]
        assert same[0] == same[1]
    for line in everybody[1:]:
        assert (line["clients"], line["missing"]) == ([], {})
        assert line["aggregation_error"] is None
        assert line["seconds"] is None
        assert line["bytes_up"] > 1000
    entry = read_lines(folder.ledger, newest=3)[0]
    assert len(entry["time"]) == len("2026-01-31"), "the time of a round tells how large it was"


def test_a_client_that_fails_is_not_told_of(place, monkeypatch):
    def broken(*_, **__):
        raise ValueError("record 17 is odd")

    monkeypatch.setattr("silotune.engine.client.local_training", broken)
    config = hidden(place, "train.num_rounds=1")
    train(config)
    folder = folder_of(config)
    assert all(record.missing == {} for record in folder.read_rounds())
    for file in (folder.run, folder.metrics, folder.privacy, folder.report):
        assert "odd" not in file.read_text()
    assert "record 17 is odd" in (folder.site("east") / "errors.jsonl").read_text()


@pytest.mark.parametrize("until", [full(-1), 0])
def test_a_run_that_was_cut_ends_in_the_same_bits_and_costs_the_same(place, until):
    """With seeded noise, which alone can be compared; the clipping norm is in the checkpoint."""
    keys = {
        "insecure_seeded_noise": True,
        "adaptive_clipping": True,
        "noise_multiplier": 0.19,
        "target_delta": 0.3,
        "reserve_rounds": 0,
    }
    two = "train.num_rounds=2"
    whole = hidden(place, two, f"output_dir={place.parent / 'whole'}", **keys)
    train(whole)
    config = hidden(place, two, **keys)
    train(config, until=until)
    train(config, resume=True)
    assert weights(config) == weights(whole)
    folder = folder_of(config)
    assert len(read_ledger(folder.server / "ledger.jsonl")) == 2
    state, *_ = load(folder.state)
    assert state.memory[CLIPPING_NORM] != 0.5
    assert not read_json(folder.privacy)["private"]
    assert verify(folder.path).findings == ()


def test_a_released_state_is_not_charged_twice_when_its_checkpoint_is_lost(place, monkeypatch):
    config = hidden(place)

    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "save_checkpoint", crash)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    folder = folder_of(config)
    assert len(read_ledger(folder.server / "ledger.jsonl")) == 1
    train(config, resume=True)
    assert [e.attempt for e in read_ledger(folder.server / "ledger.jsonl")] == [0, 0, 0]


def test_a_server_that_lost_charges_does_not_go_on(place):
    config = hidden(place)
    train(config, until=1)
    shutil.rmtree(folder_of(config).server)
    lost = r"server/ledger\.jsonl: holds 0 charges, ledger\.jsonl shows 2 of every client"
    with pytest.raises(ValueError, match=lost):
        train(config, resume=True)
    folder_of(config).ledger.unlink()
    folder_of(config).privacy.unlink()
    with pytest.raises(ValueError, match=r"has no charge for round 0, in which metrics\.jsonl"):
        train(config, resume=True)


def test_a_state_that_was_never_charged_for_is_refused(place):
    config = hidden(place)
    train(config)
    folder = folder_of(config)
    state, run, decided, _ = load(folder.state)
    key, tensor = next(iter(state.factors.items()))
    moved = replace(state, factors=state.factors.updated({key: tensor + 1.0}))
    save(folder.state, moved, run, decided)
    said = "\n".join(f"{f.where}: {f.text}" for f in verify(folder.path).findings)
    assert (
        "checkpoint/state.bin: is not the state that server/ledger.jsonl has a charge for in "
        "round 2" in said
    )


def test_a_spent_budget_ends_the_run_with_what_is_done(place):
    config = hidden(place, noise_multiplier=None, target_epsilon=4)
    with opened(config, [], NO_WORKER, resume=False) as job:
        todo = rounds(job)
        next(todo)
        next(todo)
        assert exhausted(job) == []
        charge_again(job.folder.server / "ledger.jsonl", 3)
        assert exhausted(job) == ["every client"]
        with pytest.raises(QuorumError, match="budget of epsilon 4 of every client is spent"):
            next(todo)
        finish(job, status="stopped: spent")
    assert (folder_of(config).adapter / "adapter_model.safetensors").is_file()


def test_a_plan_is_what_then_happens(place):
    config = hidden(place, client_sampling_rate=0.5)
    plan = forecast(config)
    records = train(config)[1:]
    row = plan.silos[0]
    assert [r.silo for r in plan.silos] == ["every client"]
    assert (row.num_examples, row.sampling_rate, row.steps) == (2, 0.5, 3)
    assert plan.bytes_up == sum(record.bytes_up for record in records)
    assert plan.bytes_down == sum(record.bytes_down for record in records)
    curve = plan.epsilon["every client"]
    assert curve == pytest.approx([r.epsilon["every client"] for r in records], rel=1e-3)


def test_a_plan_with_turns_is_what_then_happens(place):
    config = hidden(place, **TURNS, client_sampling_rate=0.5)
    plan, records = forecast(config), train(config)[1:]
    assert (plan.silos[0].sampling_rate, plan.silos[0].steps) == (0.5, 3)
    assert plan.bytes_up == sum(record.bytes_up for record in records)
    curve = plan.epsilon["every client"]
    assert curve == pytest.approx([r.epsilon["every client"] for r in records], rel=1e-3)


def test_a_stream_has_no_reserve_and_the_best_bands(place):
    config = hidden(
        place,
        "train.num_rounds=12",
        noise_multiplier=None,
        target_epsilon=4,
        reserve_rounds=5,
        **TURNS,
    )
    found = central_mechanism(config, 2)
    assert (found.sampling.turns, found.noise.bands) == (1, best_bands(1, 12))
    one = replace(found.charge(), steps=12)
    assert 3.9 <= epsilon([one], 1e-2) <= 4


def test_the_noise_for_a_target_pays_for_the_reserve(place):
    config = hidden(place, noise_multiplier=None, target_epsilon=4)
    z = central_mechanism(config, 2).noise_multiplier
    assert epsilon([Charge(1.0, z, 4)], 1e-2) <= 4
    assert epsilon([Charge(1.0, z * 0.99, 4)], 1e-2) > 4
    assert isinstance(central_mechanism(small(place), 2), FullParticipation)


@pytest.mark.parametrize(
    ("keys", "clients", "words"),
    [
        ({"target_delta": 0.1}, 10, r"target_delta: must be below 1 / number of clients = 0\.1"),
        ({"noise_multiplier": 0.001}, 2, "noise_multiplier: epsilon would be infinite"),
        ({"noise_multiplier": 0.05}, 2, r"noise_multiplier: epsilon would be .* above 50"),
        (
            {"noise_multiplier": None, "target_epsilon": 51},
            2,
            "epsilon: epsilon would be 51",
        ),
        ({"adaptive_clipping": True}, 10, "adaptive_clipping: with 10 clients expected"),
    ],
)
def test_a_guarantee_that_is_none_is_refused_in_words(place, keys, clients, words):
    with pytest.raises(ValueError, match=words):
        central_mechanism(hidden(place, **keys), clients)


def test_people_at_several_clients_are_not_composed(place):
    with pytest.raises(ValueError, match=r"data\.person"):
        central_mechanism(hidden(place, "data.person=silo"), 2)


def test_weights_must_be_uniform(place):
    with pytest.raises(ValueError, match=r"train\.weighting"):
        hidden(place, "train.weighting=num_examples")


def test_silos_alone_are_trained_without_the_server_and_said_not_to_be_covered(place):
    from by_config import open_federation
    from silotune.federation.baselines import silo_alone

    config = hidden(place, "baselines=[silo-alone]", "train.num_rounds=1")
    assert [step.silo for step in silo_alone(open_federation(config))] == ["east", "west"]
    train(config)
    said = read_json(folder_of(config).privacy)
    assert any("baselines" in text for text in said["not_covered"])


def test_scores_of_a_site_stay_at_home_and_come_from_all_clients(place):
    config = hidden(place, "evaluation=site", "train.num_rounds=1", client_sampling_rate=1e-6)
    records = train(config)
    assert all(not record.metrics and not record.silos for record in records)
    for silo in ("east", "west"):
        assert len(read_lines(folder_of(config).site(silo) / "metrics.jsonl")) == 1
