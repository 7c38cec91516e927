"""What runs say of each other: held against scipy's own intervals, and shown without loss."""

import csv
import io
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from reports.test_page import Page
from silotune.reports import comparison_plots as plots
from silotune.reports.comparison import (
    Comparison,
    Measurement,
    Point,
    compare,
    estimate,
    is_best,
    paired,
)
from silotune.reports.comparison_page import comparison_page
from silotune.reports.comparison_tables import (
    latex,
    markdown,
    shown,
    summary_csv,
    terminal,
)
from silotune.reports.tables import as_text

NUMBERS = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=9)
HOSTILE = "_<script>alert('x')</script> & 50 % $x$ | `a` \\ {~^} 标签"


def run(method, epsilon, seed, value, **more):
    known = {"epsilon": float(epsilon), "bytes_up": 1e6, "bytes_down": 2e6, "seconds": 3.0}
    rounds = [Point(round=i, value=0.5 + i * (value - 0.5) / 4) for i in range(5)]
    return Measurement(
        labels={"method": method, "epsilon": str(epsilon)},
        seed=seed,
        metric="accuracy",
        value=value,
        part="test",
        silos={"north": value + 0.02, "south": value - 0.03},
        rounds=rounds,
        peak_memory=6e8,
        **{**known, **more},
    )


def runs():
    """fedit is better at 6 at every seed; at 1 the two differ by luck."""
    luck = (0.0, 0.011, -0.006)
    found = []
    for epsilon, gaps in ((1, (0.01, -0.02, 0.015)), (6, (0.030, 0.033, 0.031))):
        for seed, wobble in enumerate(luck):
            base = 0.7 + 0.02 * epsilon + wobble
            found += [run("ffa", epsilon, seed, base)]
            found += [run("fedit", epsilon, seed, base + gaps[seed])]
    return found


def compared(found=None, **more) -> Comparison:
    told = {"axes": ["method", "epsilon"], "compared": ["method"], "baseline": {"method": "ffa"}}
    return compare(found or runs(), title="grid", **{**told, **more})


@given(NUMBERS)
def test_an_interval_is_students(values):
    found, n = estimate(values), len(values)
    assert found.mean == pytest.approx(np.mean(values))
    half = stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n)
    assert found.half == pytest.approx(half, abs=1e-9)


def test_of_one_value_or_none_there_is_no_interval():
    assert math.isnan(estimate([0.5]).half)
    assert (estimate([]).n, estimate([math.nan, 0.5]).n) == (0, 1)
    assert math.isnan(estimate([]).mean)


@given(NUMBERS, st.floats(-5, 5))
def test_a_paired_difference_is_scipys_and_sees_only_shared_seeds(values, gap):
    noise = np.random.default_rng(0).normal(size=len(values))
    ours = [run("a", 1, i, v + gap + e) for i, (v, e) in enumerate(zip(values, noise, strict=True))]
    others = [run("b", 1, i, v) for i, v in enumerate(values)]
    found = paired(ours, [*others, run("b", 1, 99, 1e9)], 0.95)
    reference = stats.ttest_rel([r.value for r in ours], [r.value for r in others])
    low, high = reference.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-6)
    assert found.n == len(values)


def test_the_best_is_marked_only_where_the_intervals_say_so():
    best = {tuple(g.labels.values()): g.best for g in compared().groups}
    assert best == {
        ("ffa", "1"): False,
        ("fedit", "1"): False,
        ("ffa", "6"): False,
        ("fedit", "6"): True,
    }


def test_to_be_better_than_more_others_takes_more():
    """Better than one at 95 %, and than each of eight with no correction, but not together."""
    wobble = (0.0, 0.02, -0.02, 0.01)
    own = [run("a", 1, i, 0.8) for i in range(4)]
    rivals = {
        f"b{k}": [run(f"b{k}", 1, i, 0.77 + w) for i, w in enumerate(wobble)] for k in range(8)
    }
    few = compared([*own, *rivals["b0"]], baseline={}).groups
    many = compared([*own, *(r for of_one in rivals.values() for r in of_one)], baseline={}).groups
    level = 1 - 0.05 / 8
    gap = paired(own, rivals["b0"], level)
    assert paired(own, rivals["b0"], 0.95).low > 0 > gap.low
    assert few[0].best
    assert not many[0].best


def test_one_seed_marks_nothing_and_neither_does_a_baseline_or_one_alone():
    once = [r for r in runs() if r.seed == 0]
    assert not any(group.best for group in compared(once).groups)
    pooled = [replace(r, beside="pooled", value=0.99 + 0.001 * r.seed) for r in runs()[:3]]
    groups = compared([*runs(), *(replace(p, labels={**p.labels, "method": "p"}) for p in pooled)])
    assert [g.best for g in groups.groups if g.beside] == [False] * len(
        [g for g in groups.groups if g.beside]
    )
    alone = compared([r for r in runs() if r.labels["method"] == "ffa"], baseline={})
    assert not any(is_best(group, [group]) for group in alone.groups)


def test_of_a_loss_the_lowest_is_best():
    losses = [replace(r, metric="perplexity", value=-r.value) for r in runs()]
    best = [tuple(g.labels.values()) for g in compared(losses).groups if g.best]
    assert best == [("fedit", "6")]


def test_failures_are_said_once_each_and_do_not_count():
    lost = [replace(r, failed="it broke", value=math.nan) if r.seed else r for r in runs()]
    found = compared(lost)
    assert all(group.score.n == 1 for group in found.groups)
    assert list(found.missing) == ["it broke"]
    assert len(found.missing["it broke"]) == 4


def test_trials_are_no_results():
    trial = replace(runs()[0], trial=True, value=0.0)
    assert compared([*runs(), trial]).groups == compared().groups


def hostile():
    return compared(
        [replace(r, labels={"method": HOSTILE, "epsilon": r.labels["epsilon"]}) for r in runs()],
        baseline={},
    )


def test_every_layout_has_every_group_and_marks_the_best():
    table = shown(compared())
    assert len({len(row.cells) for row in table.rows} | {len(table.columns)}) == 1
    lines = markdown(table).splitlines()
    assert len(lines) == 2 + 4
    assert [i for i, line in enumerate(lines) if "**" in line] == [5]
    assert latex(table).count(r"\textbf") == 1
    assert latex(table).count(r"\midrule") == 2, "below the head, and between blocks"
    assert "* " in as_text(terminal(table))
    rows = list(csv.DictReader(io.StringIO(summary_csv(compared()))))
    assert [row["best"] for row in rows] == ["False", "False", "False", "True"]
    gap = compared().groups[3].difference
    assert float(rows[3]["difference_half_width"]) == gap.half


def test_a_table_in_latex_balances_and_one_in_markdown_keeps_its_columns_whatever_the_label():
    table = shown(hostile())
    for line in markdown(table).splitlines():
        assert len(re.findall(r"(?<!\\)\|", line)) == len(table.columns) + 1
    body = latex(table)
    plain = re.sub(r"\\[&%$#_{}]", "", body)
    assert plain.count("{") == plain.count("}")
    for line in body.splitlines():
        if line.endswith(r"\\"):
            assert len(re.findall(r"(?<!\\)&", line)) == len(table.columns) - 1
    assert list(csv.reader(io.StringIO(summary_csv(hostile()))))[1][0] == HOSTILE


def test_what_is_known_of_nobody_has_no_column():
    columns = shown(compared()).columns
    assert "untrained" not in columns
    assert "each silo alone" not in columns
    told = [replace(r, untrained=0.5, alone={"north": 0.6, "south": 0.7}) for r in runs()]
    table = shown(compared(told))
    assert {"untrained", "each silo alone"} <= set(table.columns)
    assert "65.0 %" in table.rows[0].cells


def test_the_page_is_whole_and_loads_nothing_whatever_the_labels():
    for comparison in (hostile(), compared(runs()[:1])):
        html = comparison_page(comparison)
        page = Page(html)
        assert "<script>" not in html
        assert page.open == []
        assert html.rstrip().endswith("</html>")


def test_the_first_glance_says_of_what_a_label_is():
    html = comparison_page(compared())
    assert re.findall(r'<div class="tile words"><span>(.*?)</span>', html) == [
        "epsilon 1",
        "epsilon 6",
    ]


@pytest.mark.parametrize("picture", [plots.by_epsilon, plots.by_bytes, plots.by_round])
def test_pictures_are_of_every_block_and_equal_runs_give_equal_bytes(picture):
    found = picture(compared())
    assert found == picture(compared())
    assert all(svg.startswith("<svg") and svg.rstrip().endswith("</svg>") for svg in found.values())
    assert list(found) == ([""] if picture is plots.by_epsilon else ["epsilon 1", "epsilon 6"])
    for svg in found.values():
        assert "ffa" in svg
        assert "fedit" in svg


def test_a_picture_of_what_was_not_measured_is_not_drawn():
    bare = compared([replace(r, epsilon=math.nan, silos={}, rounds=()) for r in runs()])
    assert plots.by_epsilon(bare) == {}
    assert plots.by_round(bare) == {}
    assert plots.by_silo(bare) == ""
    assert "fedit · 6" in plots.by_silo(compared())
