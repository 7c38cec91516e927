"""Optional releases and people, from the configuration to the certificate."""

import json
import re
from pathlib import Path

import pytest

from by_config import forecast, mechanisms, open_federation, opened, releases
from federation.small import NO_WORKER, SILOS, notes, small, train, write_csv
from silotune.config.errors import ConfigError
from silotune.core.files import read_json, read_lines
from silotune.federation.run import rounds
from silotune.privacy import Charge
from silotune.privacy.accounting.accountant import epsilon
from silotune.runs.folder import RunFolder

SIZES = "data.num_examples={east: 20, west: 20}"
GIVEN = ("privacy={unit: example, noise_multiplier: 2, target_delta: 1e-3}", SIZES)
BUDGET = ("privacy={unit: example, target_epsilon: 8, target_delta: 1e-3}", SIZES)
METRIC = ("privacy.metric_noise=3", "evaluation=site", "data.num_held_out={east: 2, west: 2}")


def folder_of(config) -> RunFolder:
    return RunFolder(Path(config.output_dir))


def ledger(config, silo: str) -> list[dict]:
    return read_lines(folder_of(config).site(silo) / "ledger.jsonl", newest=3)


def test_a_noisy_count_is_a_weight_and_is_in_the_budget(place):
    config = small(place, *BUDGET, "privacy.count_noise=2")
    train(config)
    said = read_json(folder_of(config).privacy)
    for silo in SILOS:
        (count,) = [e for e in ledger(config, silo) if e["release"] == "count"]
        assert count["charge"]["noise_multiplier"] == 2
        updates = [e["charge"] for e in ledger(config, silo) if e["release"] == "update"]
        charges = [Charge(c["sampling_rate"], c["noise_multiplier"], c["steps"]) for c in updates]
        alone = epsilon(charges, 1e-3)
        assert alone < said["silos"][silo]["epsilon"] <= 8
    assert any("noise of its own" in text for text in said["released"])
    without = mechanisms(small(place, *BUDGET), {"east": 20})["east"].noise.multiplier
    assert mechanisms(config, {"east": 20})["east"].noise.multiplier > without
    plan = forecast(config)
    assert plan.epsilon["east"][-1] <= 8
    assert plan.epsilon["east"][0] > epsilon([Charge(1.0, 2.0, 1)], 1e-3)


def test_weights_are_the_noisy_counts_that_came(place, monkeypatch):
    seen = {}
    config = small(place, *GIVEN, "privacy.count_noise=5", "train.num_rounds=1")
    from silotune.engine import server

    weigh = server._weight

    def heard(result, experiment):
        assert experiment.weights[result.client] is None, "no other weight is known"
        seen[result.client] = (weigh(result, experiment), result.meters["records"].total)
        return seen[result.client][0]

    monkeypatch.setattr(server, "_weight", heard)
    train(config)
    for silo, (weight, said) in seen.items():
        (kept,) = [e["value"] for e in ledger(config, silo) if e["release"] == "count"]
        assert kept == said
        assert weight == min(max(1.0, kept), 2 * 20)


def test_without_a_noisy_count_weights_are_what_is_declared(place):
    workshop = open_federation(small(place, *GIVEN))
    declared = workshop.agreement.experiment("r").weights
    assert declared == {"east": 20.0, "west": 20.0}


def test_a_silo_that_brings_no_count_is_left_out(place, monkeypatch):
    config = small(place, *GIVEN, "privacy.count_noise=5", "train.min_clients=1")
    with opened(config, ["silotune"], NO_WORKER, resume=False) as job:
        monkeypatch.setattr("silotune.engine.client.noisy_records", _only_east)
        records = list(rounds(job))
    assert records[-1].clients == ("east",)
    assert "without the number of records" in records[-1].missing["west"]


def _only_east(task, silo, store):
    from silotune.core import Meter

    return {"records": Meter(7, 1)} if silo.client == "east" else {}


def test_a_count_is_the_same_after_a_resume(place):
    config = small(place, *GIVEN, "privacy.count_noise=5")
    train(config, until=0)
    first = [e["value"] for e in ledger(config, "east") if e["release"] == "count"]
    train(config, resume=True)
    assert [e["value"] for e in ledger(config, "east") if e["release"] == "count"] == first


def test_a_noisy_score_is_paid_for_by_the_held_out_records(place):
    config = small(place, *GIVEN, *METRIC, "train.eval_every=2")
    records = train(config)
    assert [bool(r.metrics) for r in records] == [False, False, True, True]
    assert all(0 <= r.metrics["accuracy"] <= 1 for r in records if r.metrics)
    assert all(r.silos == {} for r in records)
    for silo in SILOS:
        scores = [e for e in ledger(config, silo) if e["release"] == "metric"]
        assert [e["round"] for e in scores] == [2, 3]
        said = read_json(folder_of(config).privacy)["silos"][silo]
        training = epsilon([Charge(8 / 20, 2.0, 6)], 1e-3)
        held_out = epsilon([Charge(1.0, 3.0, 2)], 1e-3)
        assert said["epsilon"] == pytest.approx(max(training, held_out))
        assert len(read_lines(folder_of(config).site(silo) / "metrics.jsonl")) == 2


def test_a_repeated_score_is_the_same_number(place, monkeypatch):
    import silotune.federation.run as run_module

    config = small(place, *GIVEN, *METRIC)

    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "save_checkpoint", crash)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    first = [e["value"] for e in ledger(config, "east") if e["release"] == "metric"]
    train(config, resume=True)
    told = [e["value"] for e in ledger(config, "east") if e["release"] == "metric"]
    assert (len(first), len(told)) == (1, 3)
    assert told[0] == first[0]


def test_scores_that_would_spend_more_than_the_budget_are_refused(place):
    config = small(place, *BUDGET, *METRIC, "privacy.metric_noise=0.5")
    with pytest.raises(ValueError, match=r"^privacy\.metric_noise: 3 scores would cost"):
        open_federation(config)


def test_held_out_numbers_are_declared_like_others(place):
    config = small(place, *GIVEN, *METRIC, "data.num_held_out=null", "data.valid_fraction=0.5")
    with pytest.raises(ValueError, match=r"^data\.num_held_out: none is declared"):
        open_federation(config)
    write_csv(place.parent / "notes.csv", notes(500))
    workshop = open_federation(config)
    held = {name: len(silo.held_out.lengths) for name, silo in workshop.data.silos.items()}
    assert workshop.agreement.held_out == {name: n // 10 * 10 for name, n in held.items()}
    assert any(text.startswith("num_held_out: declared as public") for text in workshop.notices)
    with pytest.raises(ValueError, match=r"^data\.num_held_out: is declared for .*north, but the"):
        open_federation(small(place, *GIVEN, *METRIC, "data.num_held_out={east: 2, north: 3}"))


def test_secret_noise_is_secret_and_seeded_noise_is_not(place):
    config = small(place, *GIVEN, "privacy.count_noise=5")
    assert releases(config, "east", 0).count.insecure_seed is None
    seeded = small(place, *GIVEN, "privacy.count_noise=5", "privacy.insecure_seeded_noise=true")
    seeds = {releases(seeded, name, 0).count.insecure_seed for name in SILOS}
    assert len(seeds) == 2
    assert None not in seeds


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["privacy={unit: none, count_noise: 5}"], "privacy.count_noise: has no effect"),
        (["privacy={unit: none, metric_noise: 5}"], "privacy.metric_noise: has no effect"),
        (
            [*GIVEN, "privacy.count_noise=5", "train.weighting=uniform"],
            "privacy.count_noise: is a weight",
        ),
        (
            [*GIVEN, "privacy.count_noise=5", "privacy.relation=replace-one"],
            "takes the number of records as known",
        ),
        ([*GIVEN, "privacy.metric_noise=5"], "privacy.metric_noise: is for evaluation: site"),
        ([*GIVEN, "data.num_held_out=5"], "data.num_held_out: is for scores under"),
        ([*GIVEN, "privacy.count_noise=0"], "privacy.count_noise: must be greater than 0"),
        (["data.person=text"], "data.person: text is learned from"),
        (
            [
                "privacy={unit: client, noise_multiplier: 1, count_noise: 5}",
                "train.weighting=uniform",
            ],
            "privacy.count_noise: is for privacy.unit: example",
        ),
    ],
)
def test_combinations_that_make_no_sense_are_refused_in_words(place, overrides, words):
    with pytest.raises(ConfigError) as caught:
        small(place, *overrides)
    assert words in str(caught.value)


# People.


def with_people(place: Path, who) -> None:
    write_csv(
        place.parent / "notes.csv",
        [{**record, "who": who(i)} for i, record in enumerate(notes())],
    )


def overall(place, *overrides) -> dict:
    config = small(place, *GIVEN, "train.num_rounds=1", *overrides)
    train(config)
    said = read_json(folder_of(config).privacy)
    (place.parent / "run").rename(place.parent / "done")
    return said


def test_a_person_is_not_learned_from_and_silos_compose(place):
    with_people(place, lambda i: f"p{i % 24}")  # each is at both silos
    said = overall(place, "data.person=who")
    east, west = (said["silos"][silo]["epsilon"] for silo in SILOS)
    charges = [Charge(8 / 20, 2.0, 4)]
    assert said["overall"]["epsilon"] == pytest.approx(epsilon(charges, 1e-3))
    assert max(east, west) < said["overall"]["epsilon"] < east + west
    assert said["overall"]["rule"] == "composition"
    config = small(place, *GIVEN, "data.person=who")
    workshop = open_federation(config)
    assert any("have records at several silos" in text for text in workshop.notices)
    assert "p3" not in json.dumps(said)


def test_without_a_person_silos_are_taken_as_disjoint(place):
    said = overall(place)
    assert said["overall"]["epsilon"] == max(s["epsilon"] for s in said["silos"].values())
    assert "disjoint" in said["overall"]["holds_if"]


def test_several_records_of_a_person_at_one_silo_are_a_group_that_is_not_covered(place):
    with_people(place, lambda i: f"p{i // 3}")
    said = overall(place, "data.person=who")
    assert any("several records of one person" in text for text in said["not_covered"])
    assert not any("one person has" in text for text in said["not_covered"]), "a count of them"
    config = small(place, *GIVEN, "data.person=who")
    notices = open_federation(config).notices
    assert any(re.search(r"one person has [23] records", text) for text in notices)
