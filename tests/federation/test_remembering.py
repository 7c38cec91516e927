"""A run that remembers what lies below its adapters ends as one that does not; nothing is left."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from by_config import opened
from federation import objects
from federation.small import NO_WORKER, PRIVATE, SILOS, notes, small, train, write_csv
from silotune.config.errors import ConfigError
from silotune.engine import remembered
from silotune.engine.remembered import Remembered, plain
from silotune.federation import remembering
from silotune.federation.identity import describe, whole
from silotune.runs.folder import RunFolder

UPPER = "method.layers_to_transform=[1]"
SEEDED = (
    "privacy={unit: example, noise_multiplier: 2, target_delta: 1e-3, insecure_seeded_noise: true}"
)


def of(config):
    """Metrics of all rounds, and what the folder holds; a run's name has twelve digits."""
    records = train(config)
    folder = Path(config.output_dir)
    files = {
        re.sub(r"[0-9a-f]{12}", "RUN", str(f.relative_to(folder)))
        for f in folder.rglob("*")
        if f.is_file()
    }
    return [(r.round, r.metrics, r.silos) for r in records], files


def wrapped(config) -> dict[str, bool]:
    """Which records are remembered, by their place."""
    folder = Path(config.output_dir)
    with opened(config, [], NO_WORKER, resume=(folder / "run.json").exists()) as job:
        data = job.built.data
        found = {"valid": data.valid, "test": data.test}
        for name in SILOS:
            silo = data.silos[name]
            found |= {f"{name}.{p}": getattr(silo, p) for p in ("train", "held_out", "test")}
        return {name: isinstance(e, Remembered) for name, e in found.items() if e is not None}


@pytest.mark.parametrize("place_of_it", ["memory", "disk"])
@pytest.mark.parametrize("privacy", [(), (SEEDED, PRIVATE[1])], ids=["open", "private"])
def test_a_run_ends_as_without_and_leaves_nothing(place, tmp_path, place_of_it, privacy):
    few = (UPPER, *privacy)
    without, plain = of(small(place, *few, "train.prefix_cache=off"))
    kept, files = of(
        small(place, *few, f"train.prefix_cache={place_of_it}", f"output_dir={tmp_path / 'other'}")
    )
    assert [r[0] for r in kept] == [-1, 0, 1, 2]
    for (_, one, silos), (_, other, again) in zip(kept, without, strict=True):
        assert one == pytest.approx(other, rel=1e-5)
        assert silos["east"] == pytest.approx(again["east"], rel=1e-5)
    assert files == plain


def test_what_comes_again_is_remembered_and_nothing_else(place):
    held = {f"{name}.{part}" for name in SILOS for part in ("train", "held_out")}
    found = wrapped(small(place, UPPER))  # 3 rounds x 2 steps x 8 of 22 records: 2.2 times each
    assert {name for name, kept in found.items() if kept} == held
    assert not any(wrapped(small(place, UPPER, "train.prefix_cache=off")).values())
    few = (UPPER, "train.num_rounds=2", f"output_dir={place.parent / 'few'}")
    found = wrapped(small(place, *few))  # 1.5 times
    assert {name for name, kept in found.items() if kept} == {f"{n}.held_out" for n in SILOS}
    found = wrapped(small(place, *few, "baselines=[silo-alone]"))
    assert {name for name, kept in found.items() if kept} == held
    private = (UPPER, *PRIVATE, f"output_dir={place.parent / 'private'}")
    found = wrapped(small(place, *private))  # 2.4 times, and computed alone
    assert {name for name, kept in found.items() if kept} == {f"{n}.held_out" for n in SILOS}


@pytest.mark.parametrize(("privacy", "together"), [((), 8), ((SEEDED, PRIVATE[1]), 1)])
def test_under_privacy_every_record_is_computed_alone(place, privacy, together):
    config = small(place, UPPER, *privacy, "train.num_rounds=8")  # drawn six times or so
    with opened(config, [], NO_WORKER, resume=False) as job:
        silo = job.built.data.silos["east"]
        assert silo.train.together == together
        assert silo.held_out.together == 64


@pytest.mark.parametrize(("at_once", "together"), [(1, 1), (8, 8)])
def test_what_a_released_score_is_of_is_computed_as_it_trains(place, at_once, together):
    config = small(
        place,
        UPPER,
        *PRIVATE,
        "privacy.metric_noise=3",
        "evaluation=site",
        "data.num_held_out={east: 2, west: 2}",
        f"train.per_device_train_batch_size={at_once}",
    )
    with opened(config, [], NO_WORKER, resume=False) as job:
        assert job.built.data.silos["east"].held_out.together == together


def test_auto_keeps_what_it_has_room_for_and_says_so(place, monkeypatch):
    monkeypatch.setattr(remembering, "MOST_BYTES", 100_000)
    config = small(place, UPPER)
    with opened(config, [], NO_WORKER, resume=False) as job:
        kept = [isinstance(s.train, Remembered) for s in job.built.data.silos.values()]
        assert kept == [True, False]
        assert sum("prefix_cache: what would take more" in n for n in job.built.notices) == 1


@pytest.mark.parametrize(("evaluation", "kept"), [("simulation", True), ("site", False)])
def test_room_for_scored_records_is_that_of_their_own_where_they_are_seen(
    place, monkeypatch, evaluation, kept
):
    monkeypatch.setattr(remembering, "MOST_BYTES", 50_000)  # room for 2 of each silo, not for 20
    config = small(place, UPPER, *PRIVATE, f"evaluation={evaluation}")
    with opened(config, [], NO_WORKER, resume=False) as job:
        silos = job.built.data.silos.values()
        assert [isinstance(s.held_out, Remembered) for s in silos] == [kept] * len(SILOS)
        assert not any(isinstance(s.train, Remembered) for s in silos)


def test_scored_records_take_no_room_from_trained_ones(place, monkeypatch):
    few = (UPPER, *PRIVATE, "train.num_rounds=8")  # what is trained on comes often enough

    def opens(most: int, name: str) -> tuple[int, list[bool]]:
        monkeypatch.setattr(remembering, "MOST_BYTES", most)
        config = small(place, *few, f"output_dir={place.parent / name}")
        with opened(config, [], NO_WORKER, resume=False) as job:
            terms, agreement = job.built.terms, job.built.agreement
            a_record = remembering.prefix_fit(agreement.model, terms).bytes_of(
                [terms.objective.max_length]
            )
            kept = [isinstance(s.train, Remembered) for s in job.built.data.silos.values()]
        return sum(agreement.sizes.values()) * a_record, kept

    needed, kept = opens(10**9, "all")
    assert kept == [True, True]
    assert opens(needed, "just") == (needed, [True, True])


def test_how_long_hidden_records_are_decides_nothing(place, monkeypatch):
    """One that is longer would give all others other last digits, and be told in a notice."""
    few = (UPPER, *PRIVATE, "train.num_rounds=8", "evaluation=site")

    def decided(most: int, name: str) -> tuple[object, ...]:
        monkeypatch.setattr(remembering, "MOST_BYTES", most)
        config = small(place, *few, f"output_dir={place.parent / name}")
        with opened(config, [], NO_WORKER, resume=False) as job:
            silos = job.built.data.silos.items()
            kept = [(n, isinstance(s.train, Remembered)) for n, s in silos]
            fit = remembering.prefix_fit(job.built.agreement.model, job.built.terms)
            east = plain(job.built.data.silos["east"].train).lengths
        return fit.bytes_of(east), kept, [n for n in job.built.notices if "prefix_cache" in n]

    room, kept, _ = decided(10**9, "all")
    assert all(remembered for _, remembered in kept)
    before = decided(room, "before")
    rows = notes()
    rows[next(i for i, row in enumerate(rows) if row["silo"] == "east")]["text"] += " again"
    write_csv(place.parent / "notes.csv", rows)
    after = decided(room, "after")
    assert after[0] != before[0]
    assert after[1:] == before[1:]


def test_a_run_that_was_cut_short_goes_on(place):
    config = small(place, UPPER, "train.prefix_cache=disk")
    train(config, until=0)
    again = train(config, resume=True)
    folder = RunFolder(Path(config.output_dir))
    assert [r.round for r in folder.read_rounds()] == [-1, 0, 1, 2]
    assert again
    assert json.loads(folder.run.read_text())["status"] == "finished"


def test_baselines_and_the_run_compute_the_records_once(place, monkeypatch):
    filled = []
    computed = Remembered._computed
    monkeypatch.setattr(
        remembered.Remembered,
        "_computed",
        lambda self, row, part: (
            filled.append((self, row, tuple(part))) or computed(self, row, part)
        ),
    )
    config = small(place, UPPER, "baselines=[silo-alone]", "train.prefix_cache=memory")
    train(config)
    assert filled
    assert len(set(filled)) == len(filled)


@pytest.mark.parametrize("asked", ["memory", "disk"])
def test_what_cannot_be_remembered_is_refused_in_words(place, asked):
    with pytest.raises(
        ConfigError, match=r"train.prefix_cache: cannot be .* adapters reach .*; set it to off"
    ):
        train(small(place, f"train.prefix_cache={asked}"))


def test_a_model_that_the_check_refuses_runs_without_and_says_so(place, monkeypatch):
    fit = remembering.prefix_fit
    monkeypatch.setattr(
        remembering, "prefix_fit", lambda *given: replace(fit(*given), refused="it is odd")
    )
    with opened(small(place, UPPER), [], NO_WORKER, resume=False) as job:
        assert any("nothing can be remembered: it is odd" in n for n in job.built.notices)
        assert not isinstance(job.built.data.silos["east"].train, Remembered)


def test_it_decides_nothing_of_a_run(bert):
    one, other = (objects.federation(bert, prefix_cache=kept) for kept in ("off", "disk"))
    assert describe(one) == describe(other)
    assert whole(other)["beside"]["prefix_cache"] == "disk"
