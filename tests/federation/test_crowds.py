"""A run whose clients train together is the run in which they take turns, but for last digits."""

import json
from pathlib import Path

import pytest

from by_config import opened, verify
from federation.small import NO_WORKER, PRIVATE, small, train
from federation.test_remembering import SEEDED, of
from silotune.config.errors import ConfigError
from silotune.engine.crowd_training import train_together
from silotune.runs.folder import RunFolder

CROWD = "crowd=2"


@pytest.fixture
def counted(monkeypatch) -> list[int]:
    """How many clients trained together, each time that some did."""
    sizes: list[int] = []

    def together(trainings, trainer):
        sizes.append(len(trainings))
        return train_together(trainings, trainer)

    monkeypatch.setattr("silotune.engine.crowd.train_together", together)
    return sizes


@pytest.mark.parametrize("privacy", [("privacy={unit: none}",), (SEEDED, PRIVATE[1])])
def test_a_crowds_run_is_that_of_one_by_one(place, counted, privacy):
    alone, files = of(small(place, *privacy))
    assert not counted
    crowd, same = of(small(place, *privacy, CROWD, f"output_dir={place.parent / 'crowd'}"))
    assert counted == [2, 2, 2]
    assert same == files
    for (number, one, silos), (again, other, others) in zip(alone, crowd, strict=True):
        assert number == again
        assert one == pytest.approx(other, rel=1e-5)
        assert silos["east"] == pytest.approx(others["east"], rel=1e-5)


def test_its_books_and_certificate_are_those_of_any_run(place, counted):
    config = small(place, *PRIVATE, CROWD)
    train(config)
    assert counted == [2, 2, 2]
    folder = RunFolder(Path(config.output_dir))
    assert verify(folder.path).findings == ()
    assert json.loads(folder.run.read_text())["host"]["crowd"] == 2


def test_a_crowds_run_that_is_resumed_ends_in_the_same_bits(place, counted):
    whole = small(place, SEEDED, PRIVATE[1], CROWD)
    train(whole)
    halves = small(place, SEEDED, PRIVATE[1], CROWD, f"output_dir={place.parent / 'halves'}")
    train(halves, until=0)
    train(halves, resume=True)
    adapters = [
        (Path(config.output_dir) / "adapter" / "adapter_model.safetensors").read_bytes()
        for config in (whole, halves)
    ]
    assert adapters[0] == adapters[1]


def test_who_cannot_train_together_is_told_before_anything_trains(place):
    config = small(place, CROWD, "method.name=dora")
    with (
        pytest.raises((ValueError, ConfigError), match="crowd: DoRA does not claim"),
        opened(config, [], NO_WORKER, resume=False),
    ):
        raise AssertionError
    assert not RunFolder(Path(config.output_dir)).run.exists()
