"""Layers whose input is not (records, tokens, features), and models that write into outputs."""

import pytest
import torch
from torch import nn

from silotune.adapters import Dense, DoRA, Head, LoRA, LoRASB
from silotune.core import LEADING, Key, PerExampleGradients, RecordAxis, Role, Site
from silotune.core.forward_context import Context
from silotune.privacy.mechanisms.no_privacy import NoPrivacy

N, PARTS, T, IN, OUT = 3, 2, 4, 6, 5


def layer(kind, sink, records=LEADING):
    """One layer in float64 with factors that are not zero."""
    torch.manual_seed(0)
    base = nn.Linear(IN, OUT, dtype=torch.float64).requires_grad_(False)
    site = Site("q", base, IN, OUT, records=records)
    if kind == "head":
        made = Head(site, 1.5, sink).double()
    else:
        adapter = {
            "dense": Dense(),
            "lora": LoRA(rank=2, alpha=3.0),
            "core": LoRASB(rank=2, alpha=3.0),
            "dora": DoRA(pair=LoRA(rank=2, alpha=3.0)),
        }[kind]
        made = adapter.layers([site], sink, Context())["q"]
    for key, parameter in made.tensors().items():
        nn.init.normal_(parameter)
        parameter.requires_grad_(kind != "core" or key.role is Role.R)
    return made


def trained(made):
    return {key: p for key, p in made.tensors().items() if p.requires_grad}


KINDS = ("lora", "dense", "head", "core", "dora")
SHAPES = {
    "broadcast over the batch": (1, T, IN),
    "windows": (N * PARTS, T, IN),
    "flattened": (N * T, IN),
    "positions first": (T, N, IN),
    "of no record": (IN,),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_without_privacy_any_shape_trains_as_by_autograd(kind, shape):
    sink = PerExampleGradients()
    made = layer(kind, sink)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    tensors = trained(made)

    def losses(batch):
        return made(x).square().sum() * torch.ones(len(batch["labels"]), dtype=x.dtype)

    batch = {"labels": torch.zeros(N)}
    expected = torch.autograd.grad(losses(batch).sum(), [*tensors.values(), x])
    mechanism = NoPrivacy(batch_size=N)
    mechanism.gradients(tensors, sink, losses, [batch], mechanism.draws(0, None))
    for parameter, gradient in zip(tensors.values(), expected, strict=False):
        torch.testing.assert_close(parameter.grad, gradient / N)
    torch.testing.assert_close(x.grad, expected[-1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("opened", ["rows", "sums"])
def test_a_model_may_write_into_what_a_layer_gives(kind, opened):
    """As Longformer scales its queries, and DeBERTa adds a bias to a part of its projection."""
    sink = PerExampleGradients()
    made = layer(kind, sink)
    x = torch.randn(N, T, IN, dtype=torch.float64)

    def total():
        y = made(x)
        y /= 2.0
        part, _ = y.split((2, OUT - 2), dim=-1)
        return (part + 1.0).square().sum() + y.sum()

    expected = torch.autograd.grad(total(), [*trained(made).values()])
    with sink.collect(N) if opened == "rows" else sink.summed() as rows:
        total().backward()
        found = [rows[k].sum(0) if rows else p.grad for k, p in trained(made).items()]
    torch.testing.assert_close(found, list(expected))


LAYOUTS = {
    "leading": (RecordAxis(), lambda x: x),
    "windows": (RecordAxis(0, "outer"), lambda x: x.reshape(N * PARTS, T, IN)),
    "flattened": (RecordAxis(0, "outer"), lambda x: x.reshape(N * PARTS * T, IN)),
    "windows, records inside": (
        RecordAxis(0, "inner"),
        lambda x: x.transpose(0, 1).reshape(PARTS * N, T, IN),
    ),
    "positions first": (
        RecordAxis(1),
        lambda x: x.reshape(N, PARTS * T, IN).transpose(0, 1),
    ),
    "records in the middle, windowed": (
        RecordAxis(1, "outer"),
        lambda x: x.permute(2, 0, 1, 3).reshape(T, N * PARTS, IN),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("records", "laid"), LAYOUTS.values(), ids=LAYOUTS)
def test_rows_are_the_gradients_of_records_one_by_one(kind, records, laid):
    sink = PerExampleGradients()
    made = layer(kind, sink, records)
    x = torch.randn(N, PARTS, T, IN, dtype=torch.float64)
    tensors = trained(made)
    with sink.collect(N) as rows:
        made(laid(x)).tanh().square().sum().backward()
        found = dict(rows)
    for i in range(N):
        alone = torch.autograd.grad(made(x[i]).tanh().square().sum(), [*tensors.values()])
        torch.testing.assert_close([found[key][i] for key in tensors], list(alone))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_of_one_record_everything_is_its_own(kind, shape):
    sink = PerExampleGradients()
    made = layer(kind, sink)
    x = torch.randn(shape, dtype=torch.float64)
    expected = torch.autograd.grad(made(x).square().sum(), [*trained(made).values()])
    with sink.collect(1) as rows:
        made(x).square().sum().backward()
        found = [rows[key][0] for key in trained(made)]
    torch.testing.assert_close(found, list(expected))


@pytest.mark.parametrize(
    ("records", "shape"),
    [
        (RecordAxis(), (1, T, IN)),
        (RecordAxis(), (N * PARTS, T, IN)),
        (RecordAxis(0, "outer"), (1, T, IN)),
        (RecordAxis(0, "outer"), (N + 1, IN)),
        (RecordAxis(1), (T, N + 1, IN)),
        (RecordAxis(1), (N, IN)),
    ],
)
def test_rows_are_never_taken_from_an_axis_that_holds_other_things(records, shape):
    sink = PerExampleGradients()
    made = layer("lora", sink, records)
    with sink.collect(N), pytest.raises(ValueError, match=r"q.*dimension counts examples"):
        made(torch.randn(shape, dtype=torch.float64)).sum().backward()


def test_rows_and_sums_are_not_collected_at_once():
    sink = PerExampleGradients()
    with sink.summed(), pytest.raises(AssertionError, match="open already"), sink.collect(2):
        pass
    with sink.collect(2), pytest.raises(AssertionError, match="open already"), sink.summed():
        pass
    assert not sink.is_open
    assert Key("q", Role.A) not in sink._rows
