"""DoRA: the paper's formula, PEFT's own as the reference, and what is saved."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from silotune.adapters import (
    DoRA,
    Init,
    LoRA,
    PeftLayout,
    initial_factors,
    inject,
    load_peft,
    merge,
    save_peft,
)
from silotune.core import Key, Role, Site
from silotune.core.forward_context import Context
from silotune.core.per_example import PerExampleGradients
from silotune.linalg import LowRank
from toys import Toy, adapted, heads, notes, random_factors

DORA = DoRA(pair=LoRA(rank=4, alpha=6.0))
TRAINED = {Role.A, Role.B, Role.M}
in_double = pytest.mark.usefixtures("double_precision")


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.wide, self.narrow = nn.Linear(6, 11), nn.Linear(11, 5, bias=False)

    def forward(self, x):
        return self.narrow(torch.tanh(self.wide(x)))


def places(model: Two) -> list[Site]:
    return [Site("wide", model.wide, 6, 11), Site("narrow", model.narrow, 11, 5)]


def peft_of(model: nn.Module, dropout: float, rslora: bool) -> nn.Module:
    config = LoraConfig(
        r=4,
        lora_alpha=6,
        use_rslora=rslora,
        lora_dropout=dropout,
        use_dora=True,
        target_modules=["wide", "narrow"],
    )
    return get_peft_model(model, config)


def theirs_by_key(peft: nn.Module) -> dict[Key, torch.Tensor]:
    found = {}
    for site in ("wide", "narrow"):
        layer = getattr(peft.base_model.model, site)
        found[Key(site, Role.A)] = layer.lora_A["default"].weight
        found[Key(site, Role.B)] = layer.lora_B["default"].weight
        found[Key(site, Role.M)] = layer.lora_magnitude_vector["default"].weight
    return found


def of_two(dropout: float = 0.0, rslora: bool = False):
    """Ours and PEFT's at the same numbers, none of them zero, in float64."""
    dora = DoRA(pair=LoRA(rank=4, alpha=6.0, dropout=dropout, rslora=rslora))
    model, peft = Two().double(), peft_of(Two().double(), dropout, rslora).double()
    found = places(model)
    ours = inject(model, found, [], dora)
    g = torch.Generator().manual_seed(8)
    born = initial_factors(found, dora, 0)
    factors = born.map(lambda t: 0.3 * torch.randn(t.shape, generator=g).double())
    ours.load(factors)
    with torch.no_grad():
        for key, parameter in theirs_by_key(peft).items():
            more = parameter if key.role is Role.M else 0.0  # PEFT's has |W| in it
            parameter.copy_(factors[key] + more)
    ours.train_only(TRAINED)
    return ours, peft, factors


@in_double
@pytest.mark.parametrize("transposed", [False, True])
def test_the_forward_and_every_gradient_are_the_papers_formula(transposed):
    """With alpha/r = 1.5 and norms that pass no gradient, record by record, by numpy."""
    model, factors = adapted(DORA), random_factors(DORA, 1)
    model.load(factors)
    name = "down" if transposed else "up"
    layer = model.layers[name]
    a, b, more = (factors[Key(name, role)].numpy() for role in (Role.A, Role.B, Role.M))
    w = layer.weight.numpy().T if transposed else layer.weight.numpy()
    n, into = 3, w.shape[1]
    x = torch.randn(n, 2, into, generator=torch.Generator().manual_seed(0)).double()
    back = torch.randn(n, 2, len(w), generator=torch.Generator().manual_seed(1)).double()
    turned = w + 1.5 * b @ a
    norms = np.sqrt((turned**2).sum(axis=1))
    m = np.sqrt((w**2).sum(axis=1)) + more
    expected = x.numpy() @ ((m / norms)[:, None] * turned).T + layer.bias.detach().numpy()
    model.train_only(TRAINED)
    with model.sink.collect(n) as rows:
        y = layer(x)
        (y * back).sum().backward()
        found = {role: rows[Key(name, role)].numpy() for role in TRAINED}
    np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-12)
    g, h = back.numpy(), back.numpy() * (m / norms)
    of_m = np.einsum("nto,nti,oi->no", g, x.numpy(), turned) / norms
    of_b = 1.5 * np.einsum("nto,nti,ri->nor", h, x.numpy(), a)
    of_a = 1.5 * np.einsum("or,nto,nti->nri", b, h, x.numpy())
    for role, of in ((Role.M, of_m), (Role.B, of_b), (Role.A, of_a)):
        np.testing.assert_allclose(found[role], of, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("rslora", [False, True])
def test_forward_and_gradients_are_pefts(opened, rslora):
    ours, peft, _ = of_two(rslora=rslora)
    x = torch.randn(9, 6, generator=torch.Generator().manual_seed(5)).double()
    if opened:
        with ours.sink.summed():
            y = ours.model(x)
            y.square().sum().backward()
    else:
        y = ours.model(x)
        y.square().sum().backward()
    other = peft(x)
    other.square().sum().backward()
    torch.testing.assert_close(y, other, rtol=1e-10, atol=1e-12)
    for key, parameter in theirs_by_key(peft).items():
        torch.testing.assert_close(ours.tensors[key].grad, parameter.grad, rtol=1e-9, atol=1e-12)


def test_dropped_inputs_are_pefts():
    """The same masks are drawn for both, and what the base itself computes is not dropped."""
    ours, peft, _ = of_two(dropout=0.4)
    x = torch.randn(9, 6, generator=torch.Generator().manual_seed(5)).double()
    ours.model.train(), peft.train()
    torch.manual_seed(1)
    with ours.sink.summed():
        y = ours.model(x)
        y.square().sum().backward()
    torch.manual_seed(1)
    other = peft(x)
    other.square().sum().backward()
    torch.testing.assert_close(y, other, rtol=1e-10, atol=1e-12)
    for key, parameter in theirs_by_key(peft).items():
        torch.testing.assert_close(ours.tensors[key].grad, parameter.grad, rtol=1e-9, atol=1e-12)
    ours.model.eval(), peft.eval()
    torch.testing.assert_close(ours.model(x), peft(x), rtol=1e-10, atol=1e-12)


def test_it_begins_as_the_base_to_the_bit():
    ours, _, _ = of_two()
    ours.load(initial_factors(places(Two()), DORA, 0))
    x = torch.randn(9, 6, generator=torch.Generator().manual_seed(5)).double()
    assert torch.equal(ours.model(x), Two().double()(x))
    with ours.sink.collect(9):
        torch.testing.assert_close(ours.model(x), Two().double()(x), rtol=1e-13, atol=1e-14)


@in_double
def test_closed_open_beside_and_merged_agree():
    model, batch = adapted(DORA), notes(4).batch(range(4))

    def logits(of):
        return of(batch["input_ids"], batch["attention_mask"]).logits

    model.load(random_factors(DORA, 2))
    model.train_only({*TRAINED, Role.HEAD})
    closed = logits(model.model)
    with model.sink.collect(4):
        torch.testing.assert_close(logits(model.model), closed)
        kept = [(layer, layer.forward) for layer in model.layers.values()]
        for layer, _ in kept:
            layer.forward = lambda x, own=layer: own._beside(x, 0.0)
        torch.testing.assert_close(logits(model.model), closed)
    for layer, forward in kept:
        layer.forward = forward
    torch.testing.assert_close(logits(merge(model, heads(Toy().double()))), closed)


def test_beside_half_precision_it_computes_in_its_own():
    """Against the layer of a base whose weight is the same number in float32."""
    half = nn.Linear(7, 5).to(torch.bfloat16)
    whole = nn.Linear(7, 5)
    whole.load_state_dict(half.state_dict())
    layers = []
    for base in (half, whole):
        layer = DORA.layers([Site("q", base, 7, 5)], PerExampleGradients(), Context())["q"]
        for role, p in layer.tensors().items():
            nn.init.normal_(p, std=0.3, generator=torch.Generator().manual_seed(len(str(role))))
        layers.append(layer)
    assert all(p.dtype == torch.float32 for p in layers[0].tensors().values())
    torch.testing.assert_close(layers[0].delta(), layers[1].delta())
    x = torch.randn(6, 7, generator=torch.Generator().manual_seed(2)).to(torch.bfloat16)
    torch.testing.assert_close(layers[0](x).float(), layers[1](x.float()), rtol=0.05, atol=0.05)


@pytest.mark.filterwarnings("ignore")  # PEFT's own
def test_what_is_saved_is_pefts_and_what_peft_saves_reads_back(tmp_path):
    ours, peft, factors = of_two()
    single = factors.map(lambda t: t.float())
    layout = PeftLayout(
        base_model="two",
        task_type=None,
        target_modules=("wide", "narrow"),
        modules_to_save=(),
        head_scale=1.0,
    )
    found = places(Two())
    save_peft(tmp_path / "ours", single, DORA, found, layout)
    x = torch.randn(9, 6, generator=torch.Generator().manual_seed(5))
    loaded = PeftModel.from_pretrained(Two(), tmp_path / "ours")
    expected = ours.model(x.double()).float()
    torch.testing.assert_close(loaded(x), expected, rtol=1e-4, atol=1e-5)
    peft.float().save_pretrained(tmp_path / "theirs")
    shapes = {key: tuple(t.shape) for key, t in factors.items()}
    for name in ("ours", "theirs"):
        read, folded = load_peft(tmp_path / name, shapes, DORA, 1.0, adapted=found)
        assert not folded
        for key, tensor in read.items():
            torch.testing.assert_close(tensor, single[key], rtol=1e-5, atol=1e-6)


def test_a_folder_of_another_kind_is_refused(tmp_path):
    _, _, factors = of_two()
    single = factors.map(lambda t: t.float())
    found = places(Two())
    layout = PeftLayout(
        base_model="two",
        task_type=None,
        target_modules=("wide", "narrow"),
        modules_to_save=(),
        head_scale=1.0,
    )
    plain = single.only({Role.A, Role.B})
    save_peft(tmp_path / "dora", single, DORA, found, layout)
    save_peft(tmp_path / "lora", plain, DORA.pair, found, layout)
    shapes = {key: tuple(t.shape) for key, t in single.items()}
    of_pairs = {key: shape for key, shape in shapes.items() if key.role is not Role.M}
    with pytest.raises(ValueError, match="does not fit the model; tensors differ"):
        load_peft(tmp_path / "lora", shapes, DORA, 1.0, adapted=found)
    with pytest.raises(ValueError, match="does not fit the model"):
        load_peft(tmp_path / "dora", of_pairs, DORA.pair, 1.0)
    other = {k: (3, *s[1:]) if k.role is Role.A else s for k, s in shapes.items()}
    with pytest.raises(ValueError, match="r differs at narrow"):
        load_peft(tmp_path / "dora", other, DORA, 1.0, adapted=found)


def test_what_has_no_length_of_its_own_is_refused():
    where = Site("q", nn.Linear(5, 3), 5, 3)
    DORA.check_sites([where])
    with torch.no_grad():
        where.module.weight[1] = 0.0
    with pytest.raises(ValueError, match=r"target_modules: q has a row of zeros.*fedit"):
        DORA.check_sites([where])
    for init in (Init.PISSA, Init.OLORA):
        with pytest.raises(ValueError, match="takes a pair out"):
            DoRA(pair=LoRA(init=init))
    layer = adapted(DORA).layers["up"]
    with pytest.raises(ValueError, match="no pair is folded"):
        layer.fold(LowRank(torch.ones(10, 1), torch.ones(1, 6)))
