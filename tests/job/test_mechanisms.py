"""Sizes and noise come from what is public."""

import pytest

from job.small import PRIVATE, small
from silotune.job.mechanisms import declared_sizes, mechanisms, worst_case_steps

EXAMPLE = PRIVATE[0]


def test_a_size_that_is_not_declared_is_rounded_down_and_said(place):
    sizes, said = declared_sizes(small(place, EXAMPLE), {"a": 8, "b": 47, "c": 1999})
    assert sizes == {"a": 8, "b": 47, "c": 1900}
    assert said[0].startswith("data.num_examples: ")


def test_without_privacy_sizes_are_what_they_are(place):
    assert declared_sizes(small(place), {"a": 1999}) == ({"a": 1999}, [])


def test_declared_silos_must_be_those_of_the_data(place):
    config = small(place, EXAMPLE, "data.num_examples={east: 20, wst: 20}")
    with pytest.raises(ValueError, match=r"names west, wst differently"):
        declared_sizes(config, {"east": 20, "west": 20})


def test_one_declared_number_is_for_every_silo(place):
    config = small(place, EXAMPLE, "data.num_examples=20")
    assert declared_sizes(config, {"a": 5, "b": 50})[0] == {"a": 20, "b": 20}


def test_the_reserve_is_paid_for(place):
    assert worst_case_steps(small(place, EXAMPLE)) == (3 + 1) * 2


@pytest.mark.parametrize("privacy", [EXAMPLE, "privacy.unit=none"])
def test_a_batch_larger_than_a_silo_is_refused_with_or_without_privacy(place, privacy):
    with pytest.raises(ValueError, match=r"train\.batch_size: must be at most .* of silo b"):
        mechanisms(small(place, privacy), {"a": 2000, "b": 7})


def test_each_silo_has_the_rate_of_its_own_size(place):
    found = mechanisms(small(place, EXAMPLE), {"a": 16, "b": 80})
    assert {name: m.sampling.rate for name, m in found.items()} == {"a": 0.5, "b": 0.1}
