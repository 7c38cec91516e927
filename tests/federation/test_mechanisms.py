"""Sizes and noise come from what is public, and what is refused names a key."""

import pytest

from by_config import central_mechanism, declared_sizes, mechanisms, training
from federation.small import PRIVATE, small
from silotune.config import ConfigError
from silotune.privacy import NoPrivacy
from silotune.privacy.planned_charges import Training

EXAMPLE = PRIVATE[0]


def test_a_size_that_is_not_declared_is_rounded_down_and_said(place):
    sizes, said = declared_sizes(small(place, EXAMPLE), {"c": 1999})
    assert sizes == {"c": 1900}
    assert said[0].startswith("num_examples: ")


def test_without_privacy_sizes_are_what_they_are(place):
    assert declared_sizes(small(place), {"a": 1999}) == ({"a": 1999}, [])


def test_declared_silos_must_be_those_of_the_data(place):
    config = small(place, EXAMPLE, "data.num_examples={east: 20, wst: 20}")
    with pytest.raises(ValueError, match=r"data\.num_examples: is declared for .*wst, but the"):
        declared_sizes(config, {"east": 20, "west": 20})


def test_what_is_public_of_the_training(place):
    config = small(place, EXAMPLE, "train.eval_every=2", "train.seed=5")
    assert training(config) == Training(rounds=3, local_steps=2, batch_size=8, scores=2, seed=5)


@pytest.mark.parametrize("privacy", [EXAMPLE, "privacy.unit=none"])
def test_a_batch_larger_than_a_silo_is_refused_with_or_without_privacy(place, privacy):
    with pytest.raises(ConfigError, match=r"^train\.batch_size: must be at most .* of silo b"):
        mechanisms(small(place, privacy), {"a": 2000, "b": 7})


def test_refusals_name_the_key(place):
    config = small(place, EXAMPLE, "privacy.target_delta=0.1")
    with pytest.raises(ConfigError, match=r"^privacy\.target_delta: must be below"):
        mechanisms(config, {"a": 16})
    hidden = "privacy={unit: client, noise_multiplier: 0.001, target_delta: 1e-3}"
    config = small(place, hidden, "train.weighting=uniform")
    with pytest.raises(ConfigError, match=r"^privacy\.noise_multiplier: epsilon would be infinite"):
        central_mechanism(config, 2)


def test_the_section_decides_what_each_silo_does(place):
    found = mechanisms(small(place, EXAMPLE), {"a": 16, "b": 80})
    assert {name: m.sampling.rate for name, m in found.items()} == {"a": 0.5, "b": 0.1}
    assert found["a"].noise.multiplier == 2.0
    assert mechanisms(small(place), {"a": 16}) == {"a": NoPrivacy(batch_size=8)}
