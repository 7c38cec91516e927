"""Counted costs: two layers tell what all weigh."""

from collections import Counter

import pytest
from torch import nn

from covering import full
from silotune.config import build, load_config
from silotune.core import Site
from silotune.federation.method_costs import costs, costs_on
from silotune.terms.agreement import ranks
from silotune.testing.tiny_models import tiny_bert, tiny_gpt2, tiny_llama, tiny_vit


def layers(*shapes):
    return [
        Site(f"layer.{i}", nn.Linear(a, b, device="meta"), a, b) for i, (b, a) in enumerate(shapes)
    ]


def test_bytes_are_those_of_every_layer_and_of_one_message():
    one, three, mixed = (
        costs(layers(*shapes), hidden=8, clients=2, rank=2).methods
        for shapes in ([(40, 20)], [(40, 20)] * 3, [(40, 20), (20, 40), (40, 20)])
    )
    for a, b, c in zip(one, three, mixed, strict=True):
        for way in ("up", "down"):
            single, triple = getattr(a.usual, way), getattr(b.usual, way)
            if a.method == "xgblora":  # which draws one layer, of one and of three
                assert triple == single
            else:
                assert 1.5 * single < triple < 3 * single
        assert b.method == c.method
    alike = {cost.method: cost.usual.up for cost in three}
    turned = {cost.method: cost.usual.up for cost in mixed}
    assert turned["fedit"] == pytest.approx(alike["fedit"], abs=20)
    assert turned["ffa-lora"] == pytest.approx(alike["ffa-lora"] - 4 * 2 * 20, abs=20)


@pytest.mark.parametrize("tiny", [full(tiny_bert), tiny_gpt2, full(tiny_llama), full(tiny_vit)])
def test_shapes_of_a_model_are_read_without_its_weights(tiny, tmp_path):
    folder = tiny(tmp_path / "model")
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    found = costs_on(str(folder), clients=2, rank=2)
    assert sum(found.layers.values()) > 0
    assert all(cost.usual.up > 0 for cost in found.methods)


SMALL = [
    "model={name_or_path: m, task: sequence-classification}",
    "data={path: hub/name, columns: {text: t, label: l}}",
    "privacy={unit: none}",
    "method.name=flexlora",
]


def test_ranks_of_silos():
    def found(*overrides):
        return ranks(build(load_config(None, [*SMALL, *overrides])).terms, ("a", "b"))

    assert found() == {}
    assert found("method.r=4", "method.ranks={a: 2}") == {"a": 2, "b": 4}
    assert found("method.r=2", "method.ranks={a: 4}") == {"a": 4, "b": 2}
    assert found("method.r=4", "method.ranks={a: 4, b: 4}") == {}
    assert found("method.r=4", "method.ranks={a: 2, b: 2}") == {"a": 2, "b": 2}
    with pytest.raises(ValueError, match=r"ranks: c is no silo .* a, b"):
        found("method.ranks={c: 2}")
    assert found("method.r=4", "method.ranks={'?': 3, a: 2}") == {"a": 2, "b": 3}
    assert found("method.r=4", "method.ranks={'*': 3, 'b*': 1}") == {"a": 3, "b": 1}
    with pytest.raises(ValueError, match=r"ranks: c\?, d\* is no silo"):
        found("method.ranks={'c?': 2, 'd*': 2, b: 3}")


def test_layers_are_told_by_shape():
    found = costs(layers((4, 3), (5, 3), (4, 3)), hidden=3, clients=1, rank=1)
    assert found.layers == Counter({(4, 3): 2, (5, 3): 1})
