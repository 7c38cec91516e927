"""What optimisers of pairs must obey: what is the same for every (T^-1 A, B T), and what is W's."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import toys
from optim.small_pairs import (
    RANK,
    SCALE,
    SHAPES,
    difference,
    pairs,
    products,
    random,
    refactored,
    set_gradients,
    train,
)
from silotune.adapters import LoRA, Projection
from silotune.core import Key, Phase, Role, RoundPlan
from silotune.engine import federate
from silotune.methods import Axes, IncompatibleMethodError
from silotune.optim import (
    SGD,
    AdamW,
    AltLoRAConfig,
    FedProxConfig,
    LoRAFAConfig,
    LoRAPlusConfig,
    LoRAProConfig,
    LoRARITEConfig,
    LowPassConfig,
)
from silotune.optim.lora_pro import Pair
from silotune.privacy import ExampleLevel, Gaussian, Poisson
from silotune.runtimes import InProcess
from silotune.schedules import AlternateRounds, Constant

A, B, HEAD = Role.A, Role.B, Role.HEAD
BOTH, IN_TURN, ONLY_B = ((A, B),), ((B,), (A,)), ((B,),)
STEPS = 25

RITE = LoRARITEConfig(clip_unmagnified_grad=0.0, lr=0.02, weight_decay=0.1, betas=(0.9, 0.99))
ESCAPING = LoRARITEConfig(
    clip_unmagnified_grad=0.0, lr=0.02, weight_decay=0.1, betas=(0.9, 0.99), escape=True
)
PRO = LoRAProConfig(lr=0.02, scale=SCALE)
FULL = LoRAProConfig(lr=0.02, scale=SCALE, full_moments=True)
ALT = AltLoRAConfig(lr=0.05, scale=SCALE, weight_decay=0.1, damping=0.0)
ALT_PLUS = AltLoRAConfig(lr=0.05, scale=SCALE, damping=0.0, square=0.99)
FA = LoRAFAConfig(lr=0.02, scale=SCALE)

PAIRWISE = [
    pytest.param(RITE, BOTH, id="rite"),
    pytest.param(ESCAPING, BOTH, id="rite with escape"),
    pytest.param(PRO, BOTH, id="pro"),
    pytest.param(FULL, BOTH, id="pro full"),
    pytest.param(ALT, IN_TURN, id="alt"),
    pytest.param(ALT_PLUS, IN_TURN, id="alt plus"),
    pytest.param(FA, ONLY_B, id="fa"),
]


def trajectories(optimizer, phases, zero=False):
    """From (A, B), and from (T^-1 A, B T)."""
    return [
        train(optimizer.build(t, optimizer.lr), t, STEPS, phases)
        for t in (pairs(zero=zero), refactored(pairs(zero=zero)))
    ]


# -- no factorisation changes them


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize(
    ("optimizer", "phases"),
    [(RITE, BOTH), (ESCAPING, BOTH), (ALT, IN_TURN)],
    ids=["rite", "rite with escape", "alt"],
)
def test_the_whole_trajectory_is_the_same_for_every_factorisation(optimizer, phases, zero):
    ours, theirs = trajectories(optimizer, phases, zero)
    assert difference(ours, theirs) < 1e-12
    assert difference(ours, [ours[0]] * STEPS) > 0.1, "it went somewhere"


@pytest.mark.parametrize(
    ("optimizer", "phases"),
    [(AdamW(lr=0.02), BOTH), (SGD(lr=0.02), BOTH), (ALT_PLUS, IN_TURN)],
    ids=["adamw", "sgd", "alt plus"],
)
def test_that_of_others_is_not(optimizer, phases):
    assert difference(*trajectories(optimizer, phases)) > 0.05


def test_escape_and_decay_count_in_that_law():
    rite, escaping = (trajectories(o, BOTH)[0] for o in (RITE, ESCAPING))
    still = trajectories(LoRARITEConfig(lr=0.02, betas=(0.9, 0.99)), BOTH)[0]
    assert difference(rite, escaping) > 1e-4
    assert difference(rite, still) > 1e-3


# -- LoRA-Pro's gradients are those of W, as far as a pair can follow


def stacked(site="q", seed=0, rank=RANK):
    """A stack of one: A, B, and the gradient of W."""
    out, into = SHAPES[site]
    return (
        random(seed, 1, rank, into),
        random(seed + 1, 1, out, rank),
        random(seed + 2, 1, out, into),
    )


def projections(a, b):
    return b @ torch.linalg.pinv(b), torch.linalg.pinv(a) @ a


def of_factors(a, b, g, scale):
    return scale * b.mT @ g, scale * g @ a.mT


scales = pytest.mark.parametrize("scale", [0.25, 1.0, LoRA(rank=5, alpha=3, rslora=True).scale])


@scales
def test_the_equivalent_gradient_is_the_projection_of_ws_own(scale):
    a, b, g = stacked()
    p_b, p_a = projections(a, b)
    whole = Pair(a, b, scale, 0.0).whole(*of_factors(a, b, g, scale))
    torch.testing.assert_close(whole, p_b @ g + g @ p_a - p_b @ g @ p_a)
    rest = g - p_b @ g - g @ p_a + p_b @ g @ p_a
    torch.testing.assert_close(g - whole, rest)


@scales
def test_it_is_the_same_for_every_x_and_closest_to_the_gradients_at_ours(scale):
    a, b, g = stacked()
    given = of_factors(a, b, g, scale)
    pair = Pair(a, b, scale, 0.0)
    zero_a, zero_b = pair.at_zero(*given)

    def distance(one, other):
        return (one - given[0]).square().sum() + (other - given[1]).square().sum()

    ours = pair.equivalent(*given)
    for seed in range(5):
        x = random(seed, 1, RANK, RANK)
        other = zero_a + x @ a, zero_b - b @ x
        assert distance(*ours) < distance(*other)
        for one in (ours, other):
            torch.testing.assert_close(scale * (b @ one[0] + one[1] @ a), pair.whole(*given))


@pytest.mark.parametrize("damping", [0.0, 1e-2])
def test_it_is_stationary_in_x_when_gradients_are_noised_and_damped_too(damping):
    a, b, _ = stacked()
    g_a, g_b = random(7, *a.shape), random(8, *b.shape)  # no B^T gB = gA A^T here
    pair = Pair(a, b, SCALE, damping)
    new_a, new_b = pair.equivalent(g_a, g_b)
    zero_a, zero_b = pair.at_zero(g_a, g_b)
    x = (torch.linalg.pinv(b) @ (zero_b - new_b)).requires_grad_()
    torch.testing.assert_close(zero_a + x @ a, new_a)
    distance = (zero_a + x @ a - g_a).square().sum() + (zero_b - b @ x - g_b).square().sum()
    (slope,) = torch.autograd.grad(distance, x)
    assert slope.abs().max() < 1e-10


def test_it_goes_downhill():
    a, b, g = stacked()
    given = of_factors(a, b, g, SCALE)
    new_a, new_b = Pair(a, b, SCALE, 0.0).equivalent(*given)
    assert (given[0] * new_a).sum() + (given[1] * new_b).sum() > 0
    torch.testing.assert_close(
        (given[0] * new_a).sum() + (given[1] * new_b).sum(),
        Pair(a, b, SCALE, 0.0).whole(*given).square().sum(),
    )


@pytest.mark.parametrize("site", ["q", "up"])
def test_of_full_rank_it_is_ws_own(site):
    a, b, g = stacked(site, rank=min(SHAPES[site]))
    whole = Pair(a, b, SCALE, 0.0).whole(*of_factors(a, b, g, SCALE))
    torch.testing.assert_close(whole, g)


def test_no_factorisation_changes_it():
    a, b, g = stacked()
    t = random(9, RANK, RANK)
    turned = torch.linalg.solve(t, a), b @ t
    whole = [Pair(*p, SCALE, 0.0).whole(*of_factors(*p, g, SCALE)) for p in ((a, b), turned)]
    torch.testing.assert_close(*whole, rtol=1e-11, atol=1e-12)


def test_at_b_0_it_is_that_of_a_frozen_a():
    a, b, g = stacked()
    b = torch.zeros_like(b)
    whole = Pair(a, b, SCALE, 1e-8).whole(random(1, *a.shape), SCALE * g @ a.mT)
    torch.testing.assert_close(whole, g @ projections(a, b)[1], rtol=1e-6, atol=1e-7)


# -- and what goes for every optimiser of pairs


@pytest.mark.parametrize(("optimizer", "phases"), PAIRWISE)
def test_a_pair_moves_as_it_would_alone(optimizer, phases):
    together, alone = pairs(), pairs()
    both = optimizer.build(together, 0.02)
    each = [
        optimizer.build({Key(s, role): alone[Key(s, role)] for role in (A, B)}, 0.02)
        for s in SHAPES
    ]
    for t in range(6):
        for tensors in (together, alone):
            set_gradients(tensors, phases[t % len(phases)])
        for one in (both, *each):
            one.step()
    for key, p in together.items():
        torch.testing.assert_close(p, alone[key], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("optimizer", "phases"), PAIRWISE)
def test_a_pair_without_gradients_stays(optimizer, phases):
    tensors = pairs()
    before = {k: p.detach().clone() for k, p in tensors.items()}
    built = optimizer.build(tensors, 0.02)
    for t in range(4):
        set_gradients(tensors, phases[t % len(phases)])
        tensors[Key("v", A)].grad = tensors[Key("v", B)].grad = None
        built.step()
    for key, p in tensors.items():
        moves = key.site != "v" and key.role in {role for phase in phases for role in phase}
        assert torch.equal(p, before[key]) != moves


@pytest.mark.parametrize(("optimizer", "phases"), PAIRWISE)
def test_gradients_of_other_factors_are_an_error_and_not_a_pair_that_stands_still(
    optimizer, phases
):
    wrong = (A,) if phases[0] == (A, B) else (A, B)
    tensors = pairs()
    set_gradients(tensors, wrong)
    with pytest.raises(ValueError, match=f"needs gradients of {optimizer.moves_pairs} in every"):
        optimizer.build(tensors, 0.02).step()


def test_a_gradient_that_is_not_finite_is_named():
    tensors = pairs()
    set_gradients(tensors)
    tensors[Key("v", B)].grad[2, 1] = math.nan
    with pytest.raises(ValueError, match="v: the gradient of B is not finite"):
        RITE.build(tensors, 0.02).step()


@pytest.mark.parametrize(("optimizer", "phases"), PAIRWISE)
def test_other_pairs_in_a_later_step_move_as_they_would_alone(optimizer, phases):
    """A pair keeps its own memory and counts its own steps, whatever stack it is moved in."""
    together, alone = pairs(), pairs()
    both = optimizer.build(together, 0.02)
    each = {
        s: optimizer.build({Key(s, role): alone[Key(s, role)] for role in (A, B)}, 0.02)
        for s in SHAPES
    }
    for t, missing in enumerate(["v", "v", None, "q", "up", None]):
        for tensors in (together, alone):
            set_gradients(tensors, phases[t % len(phases)])
        if missing:
            together[Key(missing, A)].grad = together[Key(missing, B)].grad = None
        both.step()
        for site, one in each.items():
            if site != missing:
                one.step()
    for key, p in together.items():
        torch.testing.assert_close(p, alone[key], rtol=1e-12, atol=1e-14)


def test_half_a_pair_is_no_pair():
    """A whole matrix, a head, or a B that belongs to nothing is moved by AdamW."""
    lonely = Key("lonely", B)
    tensors = pairs() | {lonely: nn.Parameter(random(3, 4, 4))}
    theirs = nn.Parameter(tensors[lonely].detach().clone())
    built, plain = RITE.build(tensors, 0.02), AdamW(lr=0.0, weight_decay=0.1)
    alone = plain.build({lonely: theirs}, 0.02)
    set_gradients({k: p for k, p in tensors.items() if k != lonely})
    tensors[lonely].grad = theirs.grad = random(4, 4, 4)
    built.step()
    alone.step()
    torch.testing.assert_close(tensors[lonely], theirs)


# -- recipes refuse what would not train


def plan(*phases, share=None):
    trained = frozenset().union(*phases)
    return RoundPlan(
        phases=tuple(Phase(roles=frozenset(p)) for p in phases), share=share or trained
    )


REFUSED = [
    (PRO, Constant(plan({B})), "A and B"),
    (RITE, Constant(plan({B, HEAD})), "A and B"),
    (RITE, Constant(plan({A, B}, {HEAD})), "A and B"),
    (RITE, AlternateRounds((plan({B}), plan({A}))), "A and B"),
    (FedProxConfig(RITE, 0.1), Constant(plan({A}, {B})), "A and B"),
    (LowPassConfig(PRO), Constant(plan({A})), "A and B"),
    (ALT, Constant(plan({A, B})), "either A or B"),
    (FA, Constant(plan({A, B})), "B and not A"),
    (FA, AlternateRounds((plan({B}), plan({A}))), "B and not A"),
]


@pytest.mark.parametrize(("optimizer", "schedule", "needed"), REFUSED)
def test_a_recipe_without_what_the_optimiser_needs_is_refused(optimizer, schedule, needed):
    with pytest.raises(
        IncompatibleMethodError, match=f"a pair optimiser needs {needed} in every phase"
    ):
        Axes(schedule=schedule, optimizer=optimizer, adapter=LoRA())


def test_an_adapter_that_freezes_one_factor_is_refused_too():
    with pytest.raises(IncompatibleMethodError, match="needs A and B in every phase"):
        Axes(schedule=Constant(plan({A, B})), optimizer=RITE, adapter=Projection())


@pytest.mark.parametrize(
    ("optimizer", "schedule"),
    [
        (RITE, Constant(plan({A, B, HEAD}))),
        (FedProxConfig(PRO, 0.1), Constant(plan({A, B}))),
        (ALT, Constant(plan({A}, {B, HEAD}))),
        (ALT, AlternateRounds((plan({B}), plan({A})))),
        (FA, Constant(plan({B, HEAD}))),
        (LoRAPlusConfig(lr=0.1), Constant(plan({B}))),
    ],
)
def test_others_are_not(optimizer, schedule):
    Axes(schedule=schedule, optimizer=optimizer, adapter=LoRA())


@pytest.mark.parametrize("method", ["lora-pro", "lora-fa", "alt-lora"])
@pytest.mark.parametrize("lora", [LoRA(rank=4, alpha=6), LoRA(rank=4, alpha=6, rslora=True)])
def test_recipes_tell_the_optimiser_the_adapters_scale(method, lora):
    axes = toys.axes(method, AdamW(lr=0.1), lora)
    assert axes.optimizer.scale == lora.scale


@pytest.mark.parametrize("method", ["lora-rite", "lora-pro", "lora-plus", "lora-fa"])
def test_recipes_made_of_adamw_refuse_others(method):
    with pytest.raises(IncompatibleMethodError, match=r"set optimizer to adamw"):
        toys.axes(method, SGD(lr=0.1))


def test_alt_lora_is_plain_with_sgd_and_plus_with_adamw():
    plain = toys.axes("alt-lora", SGD(lr=0.1, momentum=0.8))
    plus = toys.axes("alt-lora", AdamW(lr=0.1))
    assert (plain.optimizer.momentum, plain.optimizer.square) == (0.8, None)
    assert (plus.optimizer.momentum, plus.optimizer.square) == (0.9, 0.999)
    with pytest.raises(IncompatibleMethodError, match="sgd or adamw"):
        toys.axes("alt-lora", PRO)


def test_products_are_what_the_laws_compare():
    """The two beginnings are one model."""
    assert difference([products(pairs())], [products(refactored(pairs()))]) < 1e-12


# -- noise


@pytest.mark.parametrize("method", ["lora-rite", "lora-pro", "lora-plus", "lora-fa", "alt-lora"])
def test_noised_gradients_from_b_0_on_do_no_harm(method, tmp_path):
    """In float32, as in a real run: whatever the noise does, tensors stay finite and moderate."""
    torch.set_default_dtype(torch.float32)
    axes = toys.axes(method, AdamW(lr=0.01))
    mechanism = ExampleLevel(
        sampling=Poisson(0.5),
        noise=Gaussian(2.0),
        max_grad_norm=1.0,
        expected_batch_size=6.0,
        insecure_seed=1,
    )
    silos = {
        client: replace(silo, privacy=mechanism)
        for client, silo in toys.silos(2, home=tmp_path).items()
    }
    experiment = toys.experiment(axes, list(silos), private=True, local_steps=6)
    runtime = InProcess(toys.trainer(axes), toys.agreed(experiment, silos))
    begun = toys.begin(axes)
    *_, last = federate(experiment, runtime, begun)
    for key, tensor in last.state.factors.items():
        assert tensor.isfinite().all()
        assert tensor.abs().max() < 100
        assert torch.equal(tensor, begun.factors[key]) == (method == "lora-fa" and key.role is A)
