"""Pictures are valid, deterministic, and honest about what is not there."""

import math
import re
from collections import Counter
from dataclasses import replace
from functools import cache
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import pytest

from covering import every_combination
from reports.clinics import rounds, summary
from silotune.data.summary import Lengths, SiloSummary
from silotune.reports import plot_style, plots, silo_plots
from silotune.runs.folder import RoundRecord

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "_<script>alert('x')</script> & $\\frac{1}{2}$ 标签 \x00 👩🏽‍⚕️"


def silo(records, labels):
    lengths = Lengths(p50=1, p95=2, max=3)
    return SiloSummary(records=records, labels=labels, lengths=lengths, duplicates=0, empty=0)


def results():
    return {"before": {"a": 0.25, "b": math.nan}, "federated": {"a": 0.875, "b": 0.5}}


PICTURES = {
    "metric": lambda: plots.metric_by_round(rounds(), "accuracy"),
    "epsilon": lambda: plots.epsilon_by_round(rounds(), 6.0),
    "bytes": lambda: plots.bytes_by_round(rounds()),
    "error": lambda: plots.aggregation_error_by_round(rounds()),
    "noise": lambda: plots.noise_by_round(rounds()),
    "split": lambda: silo_plots.data_split(summary().split),
    "silos": lambda: silo_plots.silo_results(results(), "accuracy"),
}


@cache
def drawn(name):
    """One of the pictures, which no test changes."""
    return PICTURES[name]()


every_picture = pytest.mark.parametrize("name", PICTURES)


def texts(svg):
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


@every_picture
def test_a_picture_is_svg_that_stands_alone(name):
    svg = drawn(name)
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    assert root.get("aria-label")
    assert "http" not in svg.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert "<script" not in svg
    assert "<style" not in svg, "a style would reach the whole page"


@every_picture
def test_equal_input_gives_equal_bytes_nothing_stays_open_and_no_setting_is_changed(name):
    before = dict(plt.rcParams)
    assert drawn(name) == PICTURES[name]()
    assert plt.get_fignums() == []
    assert dict(plt.rcParams) == before


@every_picture
def test_every_reference_inside_a_picture_leads_somewhere(name):
    svg = drawn(name)
    ids = re.findall(r' id="([^"]*)"', svg)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]*)\)|href=\"#([^\"]*)\"", svg)) <= {
        pair for name in ids for pair in ((name, ""), ("", name))
    }


def test_pictures_can_share_a_page():
    ids = [set(re.findall(r' id="([^"]*)"', drawn(name))) for name in PICTURES]
    assert sum(map(len, ids)) == len(set().union(*ids))


@every_picture
def test_a_page_can_choose_every_colour(name):
    themed = plot_style.themed(drawn(name))
    fixed = re.findall(r"#[0-9a-f]{6}(?!\))", themed)
    assert fixed == []
    assert "var(--ink, #1c1f23)" in themed or "var(--muted, #646b75)" in themed


def test_axes_say_what_they_show():
    assert {"rounds completed", "accuracy"} <= set(texts(drawn("metric")))
    assert {"rounds completed", "ε spent so far", "budget ε = 6"} <= set(texts(drawn("epsilon")))
    assert {"to the server", "to the silos", "15 MB"} <= set(map(str.strip, texts(drawn("bytes"))))
    assert {"relative error, log scale", "0", "10⁻⁸"} <= set(texts(drawn("error")))
    assert {"noise / signal, log scale", "no signal", "0.1", "1", "100"} <= set(
        texts(drawn("noise"))
    )
    assert {"records", "north", "1,200"} <= set(texts(drawn("split")))
    assert {"87.5 %", "25.0 %", "–", "a", "b"} <= set(texts(drawn("silos")))


def test_the_state_before_training_is_marked():
    started = drawn("metric")
    later = plots.metric_by_round(rounds()[1:], "accuracy")
    assert started.count("<use") > later.count("<use")


def hollow_marks(errors):
    records = [RoundRecord(round=i, aggregation_error=e) for i, e in enumerate(errors)]
    return hollow(plots.aggregation_error_by_round(records))


def hollow(svg):
    return len(
        re.findall(rf"<use [^>]*fill: {plot_style.SURFACE}; stroke: {plot_style.SERIES[0]}", svg)
    )


def test_zeros_are_shown_on_a_line_of_their_own():
    assert hollow_marks([0.0, 0.0, 1e-8, 0.0]) == 3
    assert hollow_marks([0.0] * 5) == 5
    assert hollow_marks([0.5, 0.25]) == 0


def test_rounds_without_a_signal_are_on_the_top_line():
    """So are not those whose noise is not known."""
    for ratios, marks in (([0.5, math.inf, 2.0, math.inf], 2), ([None, 3e5], 0), ([math.inf], 1)):
        records = [RoundRecord(round=i, noise_to_signal=r) for i, r in enumerate(ratios)]
        assert hollow(plots.noise_by_round(records)) == marks


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.noise_by_round([]),
        lambda: plots.noise_by_round([RoundRecord(round=0, noise_to_signal=1e-4)]),
        lambda: plots.metric_by_round([], "accuracy"),
        lambda: plots.metric_by_round(rounds()[:1], "accuracy"),
        lambda: plots.metric_by_round([RoundRecord(round=0)], "perplexity"),
        lambda: plots.metric_by_round([RoundRecord(round=0, metrics={"loss": math.nan})], "loss"),
        lambda: plots.epsilon_by_round([], None),
        lambda: plots.epsilon_by_round([RoundRecord(round=0, epsilon={"a": math.nan})], 1.0),
        lambda: plots.bytes_by_round([]),
        lambda: plots.bytes_by_round([RoundRecord(round=0)]),
        lambda: plots.aggregation_error_by_round([]),
        lambda: plots.aggregation_error_by_round(
            [RoundRecord(round=0, aggregation_error=math.nan)]
        ),
        lambda: plots.aggregation_error_by_round([RoundRecord(round=0, aggregation_error=3e4)]),
        lambda: silo_plots.data_split({"a": silo(0, {})}),
        lambda: silo_plots.silo_results({"federated": {"a": math.nan}}, "perplexity"),
        lambda: silo_plots.silo_results({"before": {"a": 0.0}, "federated": {"a": 0.0}}, "loss"),
    ],
)
def test_little_or_nothing_to_show_is_still_a_picture(draw):
    ElementTree.fromstring(draw())


def test_rounds_that_were_not_scored_make_no_gap():
    scored = [RoundRecord(round=i, metrics={"loss": 1.0 / (i + 2)}) for i in range(-1, 40)]
    some = [r if r.round % 2 else replace(r, metrics={}) for r in scored]
    path = re.compile(rf'<path d="([^"]*)"[^>]*stroke: {plot_style.SERIES[0]}; stroke-width: 2.2')
    (line,) = path.findall(plots.metric_by_round(some, "loss"))
    assert line.count("M") == 1
    assert line.count("L") == len([r for r in some if r.metrics]) - 1


def test_single_errors_between_zeros_are_seen():
    """A line cannot join them, so each is a mark."""
    errors = [1e-8, 0.0, 1e-8, 0.0] * 5
    lines = [RoundRecord(round=i, aggregation_error=e) for i, e in enumerate(errors)]
    svg = plots.aggregation_error_by_round(lines)
    color = plot_style.SERIES[0]
    assert len(re.findall(rf"<use [^>]*fill: {color}; stroke: {color}", svg)) == 10


def test_hostile_names_are_text():
    lines = [
        RoundRecord(round=i, silos={HOSTILE: {HOSTILE: 1.0}}, epsilon={HOSTILE: 1.0})
        for i in range(3)
    ]
    drawn = [
        plots.metric_by_round(lines, HOSTILE),
        plots.epsilon_by_round(lines, None),
        silo_plots.data_split({HOSTILE: silo(3, {HOSTILE: 2, "_b": 1})}),
        silo_plots.silo_results({"before": {HOSTILE: 1.0}, "after": {HOSTILE: 2.0}}, HOSTILE),
    ]
    for svg in drawn:
        ElementTree.fromstring(svg)
        assert "<script" not in svg
    assert any("<script>" in text for text in texts(drawn[2]))
    assert any("_b" in text for text in texts(drawn[2])), "no entry of the legend is hidden"


@every_combination(labels=[2, 8, 9, 20, 150, 1000], silos=[1, 10, 40])
def test_no_bar_is_grey_and_no_record_is_lost(labels, silos):
    """Whatever the number of labels and silos: colours carry the records."""
    own = {
        f"silo {k}": {f"label {i}": (7 * i + k) % 5 for i in range(labels)} for k in range(silos)
    }
    split = {name: silo(sum(counts.values()), counts) for name, counts in own.items()}
    svg = silo_plots.data_split(split)
    fills = Counter(re.findall(r'<path d="[^"]*"[^>]*style="fill: (#[0-9a-f]{6})["; ]', svg))
    assert sum(fills[color] for color in plot_style.SERIES) >= silos * min(labels, 2)
    assert (fills[plot_style.OTHER] > 0) == (labels == 8)
    assert len(svg) < 400_000
    if silos <= 10:
        assert {f"{next(iter(split.values())).records:,}"} & {
            w.split(" of ")[0] for w in words(svg)
        }


def test_many_labels_are_banded_by_their_rank():
    labels = {f"label {i}": i + 1 for i in range(12)}
    shown = words(silo_plots.data_split({"a": silo(sum(labels.values()), labels)}))
    assert {"its most common label", "the next 4", "all others", "78 of 12 labels"} <= shown
    assert silo_plots._stacks([silo(78, labels)]) == {
        "its most common label": [12],
        "the next 4": [11 + 10 + 9 + 8],
        "all others": [sum(range(1, 8))],
    }


def test_a_single_label_is_not_pooled():
    labels = {f"label {i}": i + 1 for i in range(8)}
    shown = words(silo_plots.data_split({"a": silo(sum(labels.values()), labels)}))
    assert set(labels) <= shown


def test_records_without_labels_are_one_bar():
    svg = silo_plots.data_split({"a": silo(30, {}), "b": silo(20, {})})
    assert {"30", "20", "a", "b"} <= set(texts(svg))


def many(silos):
    return [
        RoundRecord(
            round=i,
            metrics={"accuracy": 0.5},
            silos={f"silo {k}": {"accuracy": 0.1 + k / 50} for k in range(silos)},
            epsilon={f"silo {k}": 1.0 + k / 50 for k in range(silos)},
        )
        for i in range(3)
    ]


def words(svg):
    return set(map(str.strip, texts(svg)))


def test_many_silos_are_a_range():
    shown = words(plots.metric_by_round(many(30), "accuracy"))
    assert {"all silos", "range of 30 silos"} <= shown
    assert "silo 3" not in shown
    assert "silo 3" in words(plots.metric_by_round(many(6), "accuracy"))
    few, more = (plots.epsilon_by_round(many(n), None) for n in (30, 1000))
    assert len(more) < 1.2 * len(few), "the picture does not grow with the silos"


def test_a_picture_of_many_silos_does_not_grow_with_them():
    """They are too many to be named; what is left out is said."""
    split = {f"silo {k}": silo(k + 1, {"x": k + 1}) for k in range(500)}
    svg = silo_plots.data_split(split)
    assert "silos, largest first (400 of 500)" in words(svg)
    bars = {"before": dict.fromkeys(split, 0.1), "federated": dict.fromkeys(split, 0.2)}
    ranked = silo_plots.silo_results(bars, "accuracy")
    assert {"before", "federated", "silos, in order of federated (250 of 500)"} <= words(ranked)
    for picture in (svg, ranked):
        height = float(re.search(r'height="([\d.]+)pt"', picture)[1])
        assert height < 300
        assert len(picture) < 300_000
