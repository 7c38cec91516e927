"""Whole runs of so many epochs a round, where silos of unequal sizes take unequal steps."""

import json
from pathlib import Path

import pytest

import silotune as st
from by_config import forecast, verify
from federation.objects import federation
from federation.small import PRIVATE, small, train, weights
from silotune.config import ConfigError
from silotune.privacy.ledger.store import LEDGER
from silotune.runs.folder import RunFolder

EPOCHS = ("train.local_steps=null", "train.num_local_epochs=1.5")
UNEQUAL = (*PRIVATE[:1], "data.num_examples={east: 20, west: 9}", *EPOCHS)


@pytest.mark.parametrize("normalized", ["false", "true"])
def test_a_run_charges_every_silo_for_its_own_steps(place, normalized):
    slowly = ("train.batch_size=4", "train.learning_rate=0.01")  # whatever the noise is
    unequal = (*UNEQUAL, *slowly, f"train.normalize_steps={normalized}")
    config = small(place, *unequal)
    plan = forecast(config)
    assert {row.silo: row.steps for row in plan.silos} == {"east": 3 * 8, "west": 3 * 4}
    assert (plan.local_steps, plan.local_epochs) == (8, 1.5)
    assert "3 rounds of 1.5 epochs (at most 8 steps)" in " ".join(repr(plan).split())
    records = train(config)
    for name, curve in plan.epsilon.items():
        assert curve == pytest.approx([r.epsilon[name] for r in records[1:]], rel=1e-3)
    folder = RunFolder(Path(config.output_dir))
    for name, each in (("east", 8), ("west", 4)):
        lines = (folder.site(name) / LEDGER).read_text().splitlines()
        assert [json.loads(line)["charge"]["steps"] for line in lines] == [each] * 3
    assert verify(folder.path).findings == ()
    cut = small(place, *unequal, f"output_dir={config.output_dir}-cut")
    train(cut, until=0)
    assert len(train(cut, resume=True)) == 2


def test_unequal_steps_go_on_in_the_same_bits(place):
    whole = small(place, *EPOCHS, "train.lr_scheduler_type=linear")
    train(whole)
    cut = small(place, *EPOCHS, "train.lr_scheduler_type=linear", f"output_dir={whole.output_dir}2")
    train(cut, until=0)
    train(cut, resume=True)
    assert weights(cut) == weights(whole)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"local_epochs": 2.0}, "local_epochs: local_steps says how much"),
        ({"local_steps": None, "local_epochs": 0.0}, "local_epochs: must be above 0"),
        ({"local_steps": None, "local_epochs": float("inf")}, "local_epochs: must be a finite"),
        (
            {"local_steps": None, "local_epochs": 0.1, "method": st.methods.LALoRA(r=2)},
            "local_epochs: silo .* would take 1 step .* one thing after another in 2; raise it",
        ),
        (
            {
                "local_steps": None,
                "local_epochs": 1.0,
                "lr_schedule": "linear",
                "warmup_steps": 9,
            },
            "warmup_steps: must be below the 9 steps",
        ),
    ],
)
def test_what_is_said_twice_or_leaves_too_few_steps_is_refused(bert, changes, words):
    with pytest.raises(ValueError, match=words):
        federation(bert, **changes).plan()


def test_what_has_no_mean_by_the_step_is_refused(place):
    by_step = (*EPOCHS, "train.normalize_steps=true")
    with pytest.raises(ConfigError, match=r"train\.normalize_steps: averages changes of single"):
        small(place, *by_step, "method.name=flexlora")
    client = "privacy={unit: client, noise_multiplier: 2, target_delta: 1e-3}"
    with pytest.raises(ConfigError, match=r"train\.normalize_steps: how far the clients"):
        small(place, *by_step, client, "train.weighting=uniform")
    plan = forecast(small(place, "train.normalize_steps=true"))
    assert any("normalize_steps: all take the same steps" in each for each in plan.notices)


def test_a_file_says_steps_or_epochs(place):
    with pytest.raises(ConfigError, match=r"train\.num_local_epochs: train\.local_steps says"):
        small(place, "train.num_local_epochs=2")
    both = ("train.clients_per_round=1", "train.client_sampling_rate=0.5")
    with pytest.raises(ConfigError, match=r"train\.client_sampling_rate: train\.clients_per_round"):
        small(place, *both)
