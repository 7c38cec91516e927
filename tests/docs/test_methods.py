"""``docs/methods.md`` is what the catalogue says, and that is what the messages weigh."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from methods_page import page
from torch import nn

from covering import representatives, some
from silotune.adapters import fixed_keys, initial_factors
from silotune.config import ConfigError, load_config
from silotune.core import ClientId, GlobalState, Site
from silotune.engine.communication import traffic
from silotune.methods import built_in, registry
from silotune.methods.catalogue import catalogue
from silotune.optim import AdamW
from toys import experiment

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"
ENTRIES = {entry.name: entry for entry in catalogue()}
ADAPTED = [name for name in built_in() if name != "head-only"]
CLIENTS = [ClientId(f"silo-{i}") for i in range(3)]


def both(r, out, in_, k):
    return r * (out + in_)


def lengths(r, out, in_, k):
    return r * (out + in_) + out


def core(r, out, in_, k):
    return r * r


def of_b(r, out, in_, k):
    return r * out


def of_a(r, out, in_, k):
    return r * in_


def of_all(r, out, in_, k):
    return k * r * (out + in_)


def whole(r, out, in_, k):
    return out * in_


def larger(r, out, in_, k):
    return r * max(out, in_)


def of_gates(r, out, in_, k):
    return 64 * k * k * out


NUMBERS = {  # what travels up and down for a layer; two of each where rounds take turns
    "ffa-lora": ([of_b], [of_b]),
    "fed-sb": ([core], [core]),
    "fedit": ([both], [both]),
    "rolora": ([of_b, of_a], [of_a, of_b]),
    "la-lora": ([both], [both]),
    "fedsa-lora": ([of_a], [of_a]),
    "fedsvd": ([of_b], [both]),
    "fedask": ([of_b], [both]),
    "fedex-lora": ([both], [of_all]),
    "flora": ([both], [of_all]),
    "hetlora": ([both], [both]),
    "flexlora": ([both], [both]),
    "fedrot-lora": ([both], [both]),
    "lora-fair": ([both], [both]),
    "fedftg": ([whole], [whole]),
    "fedftg-seeded": ([larger], [both]),  # the folded pair goes down with its projector
    "cola": ([both], [both]),
    "rac-lora": ([of_b], [of_b]),
    "xgblora": ([both], [of_all]),
    "dora": ([lengths], [lengths]),
    "reslora": ([both], [both]),
    "lora-rite": ([both], [both]),
    "lora-pro": ([both], [both]),
    "lora-plus": ([both], [both]),
    "lora-fa": ([of_b], [of_b]),
    "alt-lora": ([both], [both]),
    "milora": ([both], [both]),
    "mole": ([of_gates], [of_gates]),
}
"""From the papers, or worked out by hand."""

BASE = {"r": 4, "out": 120, "in_": 80, "k": 3}
OTHERS = [
    {**BASE, "out": 240},
    {**BASE, "in_": 160},
    {**BASE, "r": 8},
    {**BASE, "k": 2},
]
SLACK = 60
"""Bytes by which headers differ: the digits of shapes and offsets, and how often they occur."""


def counted(name, *, r, out, in_, k, **options):
    """Up and down of one client, in an even round and the odd one after it."""
    site = Site("layer", nn.Linear(in_, out, device="meta"), in_, out)
    method = replace(built_in()[name].sample(r=r, clients=k), **options)
    axes = method.axes(AdamW(lr=1.0), head=False)

    def draw(seed):
        return initial_factors([site], axes.adapter, seed)

    played = traffic(
        experiment(axes, CLIENTS[:k], draw=draw, rounds=4, fixed=fixed_keys([site], axes.adapter)),
        GlobalState(round=0, factors=draw(0), drawn=dict.fromkeys(draw(0), 0)),
    )
    assert all(len(set(of_round.values())) == 1 for of_round in played), "clients are alike"
    return [(b.up, b.down) for b in (played[2][CLIENTS[0]], played[3][CLIENTS[0]])]


def told(name, formulas, case):
    """What was counted in two rounds, and the numbers by formula."""
    numbers = [formula(**case) for formula in formulas]
    return zip(counted(name, **case), numbers * 2 if len(numbers) == 1 else numbers, strict=True)


def test_the_page_is_up_to_date():
    """If not: python docs/build/methods_page.py > docs/methods.md."""
    assert PAGE.read_text(encoding="utf-8") == page()


def test_every_method_has_its_section():
    text = PAGE.read_text(encoding="utf-8")
    assert [name for name in built_in() if f"\n## {name}\n" not in text] == []


@pytest.mark.parametrize("name", some(ADAPTED, *representatives(ADAPTED)))
def test_the_bytes_of_real_messages_follow_the_formulas(name):
    up, down = NUMBERS[name]
    for way, formulas in ((0, up), (1, down)):
        base = [sizes[way] - 4 * n for sizes, n in told(name, formulas, BASE)]
        assert all(0 < header < 2500 for header in base)
        for case in OTHERS:
            other = [sizes[way] - 4 * n for sizes, n in told(name, formulas, case)]
            assert other == pytest.approx(base, abs=SLACK), "what is left is the header"


def test_the_formulas_that_are_written_are_those():
    wrong = []
    for name in ADAPTED:
        entry, (up, down) = ENTRIES[name], NUMBERS[name]
        for case in (BASE, *OTHERS):
            for text, formulas in ((entry.up, up), (entry.down, down)):
                written = [valued(part, **case) for part in text.split(", then ")]
                if written != [formula(**case) for formula in formulas]:
                    wrong.append((name, text, case, written))
    assert wrong == []


def valued(text, *, r, out, in_, k):
    """``K r (out + in)``: what stands side by side is multiplied."""
    product = re.sub(r"(?<=[\w)]) (?=[\w(])", " * ", text)
    names = {"r": r, "out": out, "in_": in_, "K": k, "max": max}
    return eval(re.sub(r"\bin\b", "in_", product), {"__builtins__": {}}, names)


def test_formulas_are_read_as_they_are_meant():
    assert valued("K r (out + in)", r=2, out=3, in_=5, k=7) == 7 * 2 * 8
    assert valued("r max(out, in)", r=2, out=3, in_=5, k=7) == 10
    assert valued("out in", r=2, out=3, in_=5, k=7) == 15


def test_a_residual_of_rank_s_sends_r_and_s():
    small = counted("fedex-lora", **BASE, residual_rank=1)[0][1]
    larger_ = counted("fedex-lora", **BASE, residual_rank=3)[0][1]
    assert larger_ - small == pytest.approx(4 * 2 * (120 + 80), abs=SLACK)


def test_a_fresh_pair_costs_what_an_average_one_does():
    average = counted("lora-fair", **BASE)[0]
    fresh = counted("lora-fair", **BASE, initialization="fresh")[0]
    assert fresh == pytest.approx(average, abs=500)


def test_rounds_between_two_svds_send_b_alone():
    (_, even), (_, odd) = counted("fedsvd", **BASE, refactor_every=2)
    assert even - odd == pytest.approx(4 * 4 * 80, abs=300), "A comes with the SVD of round 1"


def test_the_method_of_ones_own_that_is_shown_works(monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "_OWN", {})
    (source,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "slow_lora.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    given = ["method={name: 'slow_lora:SlowLoRA', step: 0.2}", "data.path=a/b", "target_epsilon=6"]
    model = "model={name_or_path: m, task: sequence-classification}"
    columns = "data.columns={text: t, label: l}"
    config = load_config(None, [*given, model, columns])
    method = config.method.build()
    assert (method.step, method.aggregator().step) == (0.2, 0.2)
    assert registry.known().keys() >= {"slow-lora", "slow_lora:SlowLoRA"}
    with pytest.raises(ConfigError, match=r"method\.step: must be at most 1"):
        load_config(None, [*given, model, columns, "method.step=2"])


def test_what_is_refused_is_told():
    text = PAGE.read_text(encoding="utf-8")
    refused = {(e.name, unit) for e in ENTRIES.values() for unit in e.refused}
    assert refused == {
        ("fedsa-lora", "client"),
        ("fedftg", "example"),
        ("milora", "example"),
        ("hetlora", "client"),
    }
    assert text.count("- Refused under `privacy.unit:") == len(refused)
