"""A plan is what then happens, and looks at no record that it need not see."""

import math
from pathlib import Path

import pytest

from by_config import forecast
from federation.small import PRIVATE, notes, small, train, write_csv

NO_DATA = "data.path=./nowhere.csv"


def test_bytes_steps_and_epsilon_are_those_of_the_run(place):
    config = small(place, *PRIVATE)
    plan = forecast(config)
    assert not Path(config.output_dir).exists()
    records = train(config)[1:]
    assert plan.bytes_up == sum(record.bytes_up for record in records)
    assert plan.bytes_down == sum(record.bytes_down for record in records)
    for name, curve in plan.epsilon.items():
        assert curve == pytest.approx([record.epsilon[name] for record in records], rel=1e-3)
    assert {row.silo: row.steps for row in plan.silos} == {"east": 6, "west": 6}


def test_declared_sizes_and_labels_make_the_records_unnecessary(place):
    plan = forecast(small(place, *PRIVATE, NO_DATA))
    assert [(row.silo, row.num_examples) for row in plan.silos] == [("east", 20), ("west", 20)]


@pytest.mark.parametrize(
    ("silos", "there"),
    [("{by: silo}", "east, west"), ("{num: 3}", "silo-0, silo-1, silo-2")],
)
def test_declarations_for_other_silos_than_the_data_have_are_refused(place, silos, there):
    declared = "data.num_examples={east: 20, north: 20}"
    with pytest.raises(
        ValueError, match=r"^data\.num_examples: is declared for east, north, but"
    ) as e:
        forecast(small(place, PRIVATE[0], f"data.silos={silos}", declared))
    assert f"the silos of the data are {there};" in str(e.value)


def test_where_no_data_are_at_hand_that_is_said(place):
    (notice,) = forecast(small(place, *PRIVATE, NO_DATA)).notices
    assert notice.startswith("num_examples: taken as it is declared; ./nowhere.csv is not on this")
    assert forecast(small(place, *PRIVATE)).notices == ()


def test_one_size_for_all_silos_that_are_dealt_out(place):
    drawn = "data.silos={num: 11, split: iid}"
    plan = forecast(small(place, PRIVATE[0], "data.num_examples=20", drawn, NO_DATA))
    assert [row.silo for row in plan.silos][::5] == ["silo-00", "silo-05", "silo-10"]


def test_records_are_read_where_nothing_else_tells_the_sizes(place):
    with pytest.raises(ValueError, match=r"^data\.num_examples: none is declared"):
        forecast(small(place, PRIVATE[0]))
    write_csv(place.parent / "notes.csv", notes(300))
    plan = forecast(small(place, PRIVATE[0]))
    assert {row.num_examples for row in plan.silos} <= {250, 260, 270}
    assert any("num_examples: declared" in notice for notice in plan.notices)
    with pytest.raises(ValueError, match="nowhere"):
        forecast(small(place, PRIVATE[0], NO_DATA))


def test_noise_to_signal_is_the_norm_of_the_noise_over_the_clip_norm(place):
    plan = forecast(small(place, *PRIVATE, "privacy.max_grad_norm=7"))
    row = plan.silos[0]
    std = row.noise_multiplier * 7 / 8  # of each number of a step's gradient; the batch is 8
    assert row.noise_to_signal == pytest.approx(std * math.sqrt(plan.trained) / 7)
    assert plan.averaged == pytest.approx(1 / math.sqrt(2))


def test_without_privacy_there_is_no_epsilon(place):
    plan = forecast(small(place))
    assert plan.epsilon == {}
    assert {row.noise_to_signal for row in plan.silos} == {0.0}
    assert {row.epsilon for row in plan.silos} == {math.inf}


def test_trained_numbers_are_those_that_travel(place):
    assert forecast(small(place, "method.name=head-only")).trained == 2 * 32 + 2
    assert forecast(small(place)).trained == 4 * 32 * 2 + 2 * 32 + 2  # B of two layers, q and v


def test_what_is_not_shown_of_epsilon_is_said(place):
    drawn = ("data.silos={num: 10, split: iid}", "data.num_examples=20", NO_DATA)
    text = repr(forecast(small(place, PRIVATE[0], *drawn)))
    assert "6 of 10 clients are shown; the table above has the last of all" in text
    assert "are shown" not in repr(forecast(small(place, *PRIVATE, NO_DATA)))


def test_a_chain_that_is_never_folded_is_said(place):
    (notice,) = forecast(small(place, "method.name=cola", "train.num_rounds=2")).notices
    assert notice.startswith("fold_every: nothing is folded in 2 rounds")
