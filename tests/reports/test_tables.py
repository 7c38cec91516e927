"""Tables say the right numbers, with their units, and obey nobody's markup."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from reports.clinics import facts, rounds, statement, summary
from silotune.data.summary import Lengths, SiloSummary
from silotune.reports.tables import (
    PlanRow,
    data_table,
    epsilon_table,
    label_rows,
    labels_table,
    plan_table,
    rounds_table,
    silos_table,
)
from silotune.reports.totals import silo_outcomes


def lines(table, width=200):
    """What a terminal shows, each row as its words."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(table)
    shown = console.file.getvalue().splitlines()
    return [" ".join(line.split()) for line in shown if line.strip(" ─")]


def plan_row(silo):
    return PlanRow(
        silo=silo,
        num_examples=1200,
        sampling_rate=0.10667,
        noise_multiplier=1.4213,
        noise_to_signal=3.05,
        steps=200,
        epsilon=5.98431,
        delta=1e-5,
        bytes_up=298_240,
        bytes_down=1_298_240,
    )


def test_rounds():
    head, before, *rest, last = lines(rounds_table(rounds(), "accuracy"))
    assert head == ("round accuracy loss largest ε bytes up bytes down aggregation error time")
    assert before == "before 23.0 % 1.370 – – – – –"
    assert len(rest) == 19
    assert rest[0].startswith("1 38.1 % 1.219 1.35 895 kB 895 kB 0 ")
    assert last.startswith("20 87.7 % 0.723 6.00 895 kB 895 kB 5.1e-8 ")


def test_rounds_without_privacy_have_no_epsilon():
    plain = [replace(record, epsilon={}) for record in rounds()]
    assert "ε" not in lines(rounds_table(plain, "accuracy"))[0]


def test_silos():
    rows = lines(silos_table(silo_outcomes(facts(), rounds(), statement()), "accuracy"))
    assert rows[0] == "silo declared records accuracy before alone federated ε spent"
    assert rows[3] == "hill 400 23.0 % 54.4 % 79.4 % 5.71"


def test_what_no_silo_has_is_no_column():
    from dataclasses import replace

    plain = replace(facts(), baselines={})
    rows = lines(silos_table(silo_outcomes(plain, rounds(), None), "accuracy"))
    assert rows[0] == "silo declared records accuracy before federated"


def test_data():
    head, north, *_ = lines(data_table(summary().split))
    assert head == (
        "silo records cardiology neurology orthopaedics paediatrics surgery "
        "p50 p95 max cut repeats empty"
    )
    assert north == "north 1,200 500 300 200 100 100 24 51 64 0 2 0"


def test_plan():
    head, row = lines(plan_table([plan_row("north")]))
    assert head == (
        "silo declared records sampling rate noise multiplier σ noise / signal steps ε δ "
        "bytes up / round bytes down / round"
    )
    assert row == "north 1,200 0.1067 1.421 3.05 200 5.99 1e-5 298 kB 1.3 MB"


def test_plan_of_clients_that_the_server_hides():
    head, row = lines(plan_table([plan_row("every client")], "client"))
    assert head.startswith("account clients sampling rate")
    assert " rounds ε δ " in head
    assert row.startswith("every client 1,200")


def test_epsilon_by_round_ends_with_the_last_round():
    rows = lines(epsilon_table({"a": [i / 10 for i in range(1, 24)], "b": [1.0] * 23}))
    assert rows[0] == "round ε a ε b"
    assert rows[-1] == "23 2.30 1.00"
    assert len(rows) <= 11
    assert lines(epsilon_table({"a": [0.5]}))[1:] == ["1 0.50"]


def test_names_are_not_markup():
    assert "[red]x[/red]" in lines(plan_table([plan_row("[red]x[/red]")]))[1]
    split = {"[/]": next(iter(summary().split.values()))}
    assert lines(data_table(split))[1].startswith("[/] 1,200")


def test_numbers_are_aligned_to_the_right():
    console = Console(file=io.StringIO(), width=200, color_system=None)
    console.print(data_table(summary().split))
    shown = console.file.getvalue().splitlines()
    ends = [
        line.index(n) + len(n) for line in shown for n in ("1,200", " 800", " 400") if n in line
    ]
    assert len(ends) == 3
    assert len(set(ends)) == 1


def silos_with(labels, silos, name="label"):
    counts = {f"{name} {i}": i + 1 for i in range(labels)}
    lengths = Lengths(p50=1, p95=2, max=3)
    one = SiloSummary(
        records=sum(counts.values()), labels=counts, lengths=lengths, duplicates=0, empty=0
    )
    return {f"silo {k}": one for k in range(silos)}


@pytest.mark.parametrize("width", [80, 200])
@pytest.mark.parametrize("labels", [2, 20, 150, 1000])
def test_no_number_of_labels_blanks_the_table_of_the_data(labels, width):
    split = silos_with(labels, 3)
    rows = lines(data_table(split, width), width)
    total = f"{next(iter(split.values())).records:,}"
    assert sum(total in row for row in rows) == 3
    if labels > 20:
        assert f"{total} {labels:,} {200 / (labels + 1):.1f}% 1 2 3 0 0 0" in " ".join(rows)
        assert f"{labels:,} labels in all" in " ".join(rows)


def test_the_list_of_labels_is_folded():
    rows = label_rows(silos_with(150, 3))
    assert len(rows) == 21
    assert (rows[0].label, rows[0].records, rows[0].silos) == ("label 149", 450, 3)
    assert rows[-1].label == "130 others"
    assert sum(row.records for row in rows) == 3 * sum(range(1, 151))
    assert [row.label for row in label_rows(silos_with(2, 1))] == ["label 1", "label 0"]
    assert "label 149" in lines(labels_table(silos_with(150, 3)))[1]


def test_many_silos_at_the_end_of_a_run_are_folded():
    many = [replace(silo_outcomes(facts(), rounds(), None)[0], silo=f"s{i}") for i in range(200)]
    rows = lines(silos_table(many, "accuracy"))
    assert len(rows) == 42
    assert rows[-1] == "and 160 more: the report has all"
