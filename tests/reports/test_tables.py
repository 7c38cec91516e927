"""Tables say the right numbers, with their units, and obey nobody's markup."""

import io

from rich.console import Console

from reports.clinics import facts, rounds, statement, summary
from silotune.reports.tables import (
    PlanRow,
    data_table,
    epsilon_table,
    plan_table,
    rounds_table,
    silos_table,
)
from silotune.reports.totals import silo_outcomes


def lines(table):
    """What a terminal shows, each row as its words."""
    console = Console(file=io.StringIO(), width=200, color_system=None)
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
    from dataclasses import replace

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
        "median length 95 % longest cut duplicates empty"
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
