"""A whole matrix beside the base: its forward, its gradient, and that no row is made in vain."""

import math

import pytest
import torch
from torch import nn

from silotune.adapters.dense import Dense, DenseLinear
from silotune.adapters.linear import Head
from silotune.core import Key, PerExampleGradients, Role, Site
from silotune.privacy import NoPrivacy
from toys import Conv1D

IN, OUT, CLASSES = 5, 9, 3
D = Key("q", Role.D)


class Net(nn.Module):
    """Something below (so that the layer must pass a gradient on), the layer, and a head."""

    def __init__(self, transposed: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        base = Conv1D(OUT, IN) if transposed else nn.Linear(IN, OUT)
        self.sink = PerExampleGradients()
        self.below = nn.Parameter(torch.randn(IN))
        self.layer = DenseLinear(
            Site("q", base.requires_grad_(False), IN, OUT, transposed), self.sink
        )
        self.head = Head(Site("c", nn.Linear(OUT, CLASSES), OUT, CLASSES), 1.0, self.sink)
        with torch.no_grad():
            for p in (*self.layer.tensors().values(), *self.head.tensors().values()):
                p.normal_(std=0.3)

    def forward(self, x):
        h = torch.tanh(self.layer(torch.tanh(x * self.below)))
        return self.head(h.flatten(1, -2).mean(dim=1) if h.dim() > 2 else h)

    def losses(self, batch):
        return nn.functional.cross_entropy(self(batch["x"]), batch["labels"], reduction="none")

    def tensors(self):
        return self.layer.tensors() | self.head.tensors()


def batch(n: int, *between: int):
    return {"x": torch.randn(n, *between, IN), "labels": torch.arange(n) % CLASSES}


pytestmark = pytest.mark.usefixtures("double_precision")


@pytest.fixture(params=[False, True], ids=["linear", "conv1d"])
def net(request) -> Net:
    return Net(request.param)


BETWEEN = [(), (4,), (2, 3)]


def autograd(net: Net, data):
    """Gradients of the summed loss by ordinary autograd, the sink closed."""
    wanted = [*net.tensors().values(), net.below]
    return torch.autograd.grad(net.losses(data).sum(), wanted)


def test_birth_changes_no_output():
    site = Site("q", nn.Linear(IN, OUT), IN, OUT)
    born = Dense().initial_factors(site, 0)
    assert born.keys() == {Role.D}
    assert born[Role.D].shape == (OUT, IN)
    assert born[Role.D].dtype == torch.float32
    x, layer = torch.randn(2, IN), DenseLinear(site, PerExampleGradients())
    torch.testing.assert_close(layer(x), site.module(x))


@pytest.mark.parametrize("between", BETWEEN)
def test_the_forward_is_the_formula(net, between):
    x = batch(3, *between)["x"]
    layer = net.layer
    expected = layer.base(x) + x @ layer.D.T
    torch.testing.assert_close(layer(x), expected)
    with net.sink.collect(3):
        torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("between", BETWEEN)
def test_sums_are_autograds_gradient_and_it_is_passed_on_below(net, between):
    data = batch(4, *between)
    *expected, below = autograd(net, data)
    with net.sink.summed():
        net.losses(data).sum().backward()
    for parameter, gradient in zip(net.tensors().values(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    torch.testing.assert_close(net.below.grad, below)


@pytest.mark.parametrize("between", BETWEEN)
def test_where_only_rows_will_do_each_is_that_of_its_example(net, between):
    data = batch(4, *between)
    with net.sink.collect(4) as rows:
        net.losses(data).sum().backward()
        slots = dict(rows)
    for i in range(4):
        alone, *_ = autograd(net, {name: t[i : i + 1] for name, t in data.items()})
        torch.testing.assert_close(slots[D][i], alone)


def test_a_layer_that_is_used_twice_adds_up():
    net, x = Net(), torch.randn(3, IN)

    def loss():
        return (net.layer(x) * net.layer(2 * x)).sum()

    (expected,) = torch.autograd.grad(loss(), [net.layer.D])
    with net.sink.summed():
        loss().backward()
    torch.testing.assert_close(net.layer.D.grad, expected)


def test_a_frozen_matrix_leaves_nothing():
    net, data = Net(), batch(3)
    net.layer.D.requires_grad_(False)
    with net.sink.collect(3) as rows:
        net.losses(data).sum().backward()
        assert rows
        assert D not in rows
    with net.sink.summed():
        net.losses(data).sum().backward()
    assert net.layer.D.grad is None


@pytest.mark.parametrize("size", [1, 3, 7])
def test_without_privacy_the_gradient_is_the_mean_over_all_micro_batches(net, size):
    data = batch(7, 4)
    expected = autograd(net, data)
    parts = [{k: t[i : i + size] for k, t in data.items()} for i in range(0, 7, size)]
    mechanism = NoPrivacy(batch_size=7)
    tensors = net.tensors()
    mechanism.gradients(tensors, net.sink, net.losses, parts, mechanism.draws(0, None))
    for parameter, gradient in zip(tensors.values(), expected, strict=False):
        torch.testing.assert_close(parameter.grad, gradient / 7)


def test_a_matrix_trains_without_a_head():
    """Then there are no rows at all."""
    net, data, mechanism = Net(), batch(4), NoPrivacy(batch_size=4)
    for p in net.head.tensors().values():
        p.requires_grad_(False)
    (expected, *_) = torch.autograd.grad(net.losses(data).sum(), [net.layer.D])
    mechanism.gradients(net.layer.tensors(), net.sink, net.losses, [data], mechanism.draws(0, None))
    torch.testing.assert_close(net.layer.D.grad, expected / 4)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("head", [True, False])
def test_a_sum_that_is_not_finite_stops_the_step(bad, head):
    net, data, mechanism = Net(), batch(4), NoPrivacy(batch_size=4)
    for p in net.head.tensors().values():
        p.requires_grad_(head)

    def losses(records):
        return net.losses(records) * torch.tensor([1.0, bad, 1.0, 1.0])

    with pytest.raises(ValueError, match="not finite"):
        mechanism.gradients(net.layer.tensors(), net.sink, losses, [data], mechanism.draws(0, None))


@pytest.mark.parametrize("transposed", [False, True])
def test_a_half_precision_base_keeps_its_matrix_beside_it_in_float32(transposed):
    """An entry far below the base's precision still acts, and its gradient is in float32."""
    base = (Conv1D(OUT, IN) if transposed else nn.Linear(IN, OUT)).to(torch.bfloat16)
    sink = PerExampleGradients()
    layer = DenseLinear(Site("q", base.requires_grad_(False), IN, OUT, transposed), sink)
    assert layer.D.dtype == torch.float32
    x = torch.randn(3, 4, IN, dtype=torch.bfloat16, requires_grad=True)
    with torch.no_grad():
        layer.D.fill_(0.5)
    expected = (base(x).float() + 0.5 * x.float().sum(-1, keepdim=True)).to(torch.bfloat16)
    with sink.summed():
        y = layer(x)
        y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected, rtol=2e-2, atol=2e-2)
    assert layer.D.grad.dtype == torch.float32
    torch.testing.assert_close(layer.D.grad, x.float().sum((0, 1)).expand(OUT, IN))
    assert x.grad is not None


def test_it_has_no_scale_and_no_inner_dimension():
    site, adapter = Site("q", nn.Linear(IN, OUT), IN, OUT), Dense()
    assert (adapter.rank, adapter.scale, adapter.dropout) == (0, 1.0, 0.0)
    assert adapter.frozen(site) == frozenset()
    assert adapter.seeded
    assert Dense() == Dense()
