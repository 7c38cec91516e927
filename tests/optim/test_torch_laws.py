"""What torch promises of an optimiser, for each of ours: groups, state, closures, schedulers."""

import io
from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR
from transformers import get_linear_schedule_with_warmup

from covering import every_combination
from optim.small_pairs import RANK, SCALE, SHAPES, pairs, random, set_gradients
from silotune.core import Key, Role
from silotune.optim import (
    AltLoRA,
    AltLoRAConfig,
    GaLore,
    LoRAFA,
    LoRAFAConfig,
    LoRAPlus,
    LoRAPro,
    LoRAProConfig,
    LoRARITE,
    LoRARITEConfig,
)
from silotune.optim.param_groups import groups_of

A, B, D = Role.A, Role.B, Role.D
HEAD, WHOLE = Key("classifier", Role.HEAD, "weight"), Key("embedding", D)

MAKERS = {
    "rite": LoRARITE,
    "rite with escape": lambda groups, **n: LoRARITE(groups, escape=True, **n),
    "pro": LoRAPro,
    "pro full": lambda groups, **n: LoRAPro(groups, full_moments=True, **n),
    "fa": LoRAFA,
    "plus": LoRAPlus,
    "alt": AltLoRA,
    "alt plus": lambda groups, **n: AltLoRA(groups, square=0.99, **n),
    "galore": lambda groups, **n: GaLore(groups, rank=2, gap=3, **n),
}
every = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def tensors(dtype=torch.float64):
    """Pairs, a head and a whole matrix."""
    all_of_them = pairs() | {
        HEAD: nn.Parameter(random(5, 3, 4)),
        WHOLE: nn.Parameter(random(6, 8, 5)),
    }
    return {k: nn.Parameter(p.detach().to(dtype)) for k, p in all_of_them.items()}


def give_gradients(ours, step, make):
    """Of all tensors, but LoRA-FA's A."""
    for i, (key, p) in enumerate(ours.items()):
        frozen = make is MAKERS["fa"] and key.role is A
        p.grad = None if frozen else random(100 * step + i, *p.shape).to(p.dtype)


def steps(optimizer, ours, numbers, make):
    for step in numbers:
        give_gradients(ours, step, make)
        optimizer.step()


def same(ours, theirs):
    return all(torch.equal(p, theirs[k]) for k, p in ours.items())


@every_combination(
    make=list(MAKERS.values()),
    saved=["as it is", "as bytes", "one by one"],
    dtype=[torch.float32, torch.float64],
)
def test_state_goes_out_and_in_in_the_middle_of_training(make, saved, dtype):
    """To the bit, in float32 too, where small matrices are in float64; and nothing is shared."""
    whole, first = tensors(dtype), tensors(dtype)
    steps(make(groups_of(whole, SCALE), lr=0.02, weight_decay=0.1), whole, range(9), make)
    begun = make(groups_of(first, SCALE), lr=0.02, weight_decay=0.1)
    steps(begun, first, range(5), make)
    state = begun.state_dict()
    if saved == "as bytes":
        file = io.BytesIO()
        torch.save(state, file)
        state = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    elif saved == "one by one":  # no common storage
        for memory in state["state"].values():
            memory |= {k: v.clone() for k, v in memory.items() if torch.is_tensor(v)}
    second = {k: nn.Parameter(p.detach().clone()) for k, p in first.items()}
    resumed = make(groups_of(second, SCALE), lr=9.0)
    resumed.load_state_dict(state)
    steps(begun, first, range(5, 9), make)  # does not change what was loaded
    steps(resumed, second, range(5, 9), make)
    assert same(first, whole)
    assert same(second, whole)
    for p, q in zip(first.values(), second.values(), strict=True):
        assert begun.state[p].keys() == resumed.state[q].keys()
        for name, value in begun.state[p].items():
            other = resumed.state[q][name]
            assert torch.equal(value, other) if torch.is_tensor(value) else value == other


@every
def test_a_copy_goes_its_own_way(make):
    ours = tensors()
    optimizer = make(groups_of(ours, SCALE), lr=0.02)
    steps(optimizer, ours, range(3), make)
    copied, copy_of = deepcopy((optimizer, ours))
    steps(optimizer, ours, range(3, 6), make)
    assert not same(ours, copy_of)
    steps(copied, copy_of, range(3, 6), make)
    assert same(ours, copy_of)


@every
@pytest.mark.parametrize(
    "scheduler",
    [
        lambda o: LambdaLR(o, lambda step: 0.5**step),
        lambda o: OneCycleLR(o, max_lr=0.1, total_steps=20),
        lambda o: get_linear_schedule_with_warmup(o, 2, 10),
    ],
    ids=["lambda", "one cycle", "warm-up"],
)
def test_a_scheduler_is_heard_in_every_step(make, scheduler):
    """The same as writing into the groups by hand; and a rate of 0 moves nothing."""
    ours, theirs = tensors(), tensors()
    scheduled, by_hand = (make(groups_of(t, SCALE), lr=0.02) for t in (ours, theirs))
    schedule = scheduler(scheduled)
    for step in range(5):
        for group, own in zip(by_hand.param_groups, scheduled.param_groups, strict=True):
            group |= {k: v for k, v in own.items() if k not in {"params", "initial_lr"}}
        before = {k: p.detach().clone() for k, p in ours.items()}
        give_gradients(ours, step, make)
        give_gradients(theirs, step, make)
        scheduled.step()
        by_hand.step()
        assert same(ours, theirs)
        if scheduled.param_groups[0]["lr"] == 0.0:
            assert same(ours, before)
        schedule.step()
    constant = tensors()
    steps(make(groups_of(constant, SCALE), lr=0.02), constant, range(5), make)
    assert not same(ours, constant)


CHANGES = {"lr": 0.001, "weight_decay": 0.5, "eps": 0.5}
OWN = {
    "rite": {"betas": (0.5, 0.6), "escape": True},
    "pro": {"betas": (0.5, 0.6), "damping": 1.0, "scale": 0.1},
    "pro full": {"betas": (0.5, 0.6), "damping": 1.0, "scale": 0.1},
    "fa": {"betas": (0.5, 0.6), "damping": 1.0},
    "plus": {"betas": (0.5, 0.6), "ratio": 2.0},
    "alt plus": {"momentum": 0.2, "square": 0.5, "damping": 1.0, "scale": 0.1},
    "galore": {"betas": (0.5, 0.6), "scale": 3.0, "gap": 2},
}


@pytest.mark.parametrize(
    ("name", "number", "value"),
    [(n, k, v) for n, own in OWN.items() for k, v in (CHANGES | own).items()],
)
def test_every_number_counts_from_the_step_after_it_is_changed(name, number, value):
    make = MAKERS[name]
    ours, theirs = tensors(), tensors()
    changed, plain = (make(groups_of(t, SCALE), lr=0.02) for t in (ours, theirs))
    for one, group in ((changed, ours), (plain, theirs)):
        steps(one, group, range(3), make)
    assert same(ours, theirs)
    for group in changed.param_groups:
        group[number] = value
    for one, group in ((changed, ours), (plain, theirs)):
        steps(one, group, range(3, 6), make)
    assert not same(ours, theirs)


@every
def test_a_closure_computes_gradients_and_its_loss_comes_back(make):
    ours, theirs = tensors(), tensors()
    closing, plain = (make(groups_of(t, SCALE), lr=0.02) for t in (ours, theirs))

    def loss_of(group, optimizer):
        optimizer.zero_grad()
        for key, p in group.items():
            p.requires_grad_(not (make is MAKERS["fa"] and key.role is A))
        loss = sum((p - 1.0).square().sum() for p in group.values())
        loss.backward()
        return loss

    for _ in range(3):
        given = closing.step(lambda: loss_of(ours, closing))
        expected = loss_of(theirs, plain)
        assert plain.step() is None
        assert given.item() == expected.item()
        assert given.requires_grad
        assert same(ours, theirs)


@every
def test_gradients_are_left_as_they_were(make):
    ours = tensors()
    optimizer = make(groups_of(ours, SCALE), lr=0.02)
    give_gradients(ours, 0, make)
    given = {k: (p.grad, None if p.grad is None else p.grad.clone()) for k, p in ours.items()}
    optimizer.step()
    for key, p in ours.items():
        gradient, copied = given[key]
        assert p.grad is gradient
        assert gradient is None or torch.equal(gradient, copied)
    optimizer.zero_grad()
    assert all(p.grad is None for p in ours.values())


@every
def test_groups_may_have_rates_of_their_own(make):
    ours = tensors()
    before = {k: p.detach().clone() for k, p in ours.items()}
    optimizer = make([{**g, "lr": 0.02 * (g["kind"] == "rest")} for g in groups_of(ours, SCALE)])
    steps(optimizer, ours, range(2), make)
    assert [k for k, p in ours.items() if not torch.equal(p, before[k])] == [HEAD]


# -- scales


@pytest.mark.parametrize("name", ["pro", "pro full", "fa", "alt"])
def test_every_group_of_pairs_has_a_scale_of_its_own(name):
    make = MAKERS[name]
    scales = {"q": 0.5, "up": 3.0, "v": 0.5}
    ours, alone = pairs(), pairs()
    groups = groups_of(ours, lambda site: scales[site])
    assert [(g["scale"], g["names"]) for g in groups] == [(0.5, ["q", "v"]), (3.0, ["up"])]
    together = make(groups, lr=0.02)
    each = [
        make(groups_of({Key(s, r): alone[Key(s, r)] for r in (A, B)}, scales[s]), lr=0.02)
        for s in SHAPES
    ]
    for step in range(4):
        for key in ours:
            frozen = name == "fa" and key.role is A
            g = None if frozen else random(step, *ours[key].shape)
            ours[key].grad = alone[key].grad = g
        for one in (together, *each):
            one.step()
    for key, p in ours.items():
        torch.testing.assert_close(p, alone[key], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("choice", "make"),
    [
        (LoRARITEConfig(lr=9.0, weight_decay=0.1), LoRARITE),
        (LoRAProConfig(lr=9.0, scale=SCALE, weight_decay=0.1), LoRAPro),
        (LoRAFAConfig(lr=9.0, scale=SCALE, weight_decay=0.1), LoRAFA),
    ],
)
def test_the_engines_choices_build_these(choice, make):
    ours, theirs = tensors(), tensors()
    built = choice.build(ours, 0.02)
    own = make(groups_of(theirs, SCALE), lr=0.02, weight_decay=0.1)
    assert type(built) is make
    assert built.moves_pairs == choice.moves_pairs
    kind = MAKERS["fa"] if make is LoRAFA else None
    steps(built, ours, range(4), kind)
    steps(own, theirs, range(4), kind)
    assert same(ours, theirs)


# -- AltLoRA alternates where nobody else does


@pytest.mark.parametrize("square", [None, 0.99])
def test_alt_lora_takes_turns_by_itself_and_b_comes_first(square):
    ours, theirs = pairs(), pairs()
    itself = AltLoRA(groups_of(ours, SCALE), lr=0.02, square=square)
    phases = AltLoRAConfig(lr=9.0, scale=SCALE, square=square).build(theirs, 0.02)
    for step in range(5):
        set_gradients(ours)
        set_gradients(theirs, (B,) if step % 2 == 0 else (A,))
        itself.step()
        phases.step()
        assert same(ours, theirs)


# -- what is refused


def test_parameters_without_groups_are_refused():
    with pytest.raises(ValueError, match=r"LoRARITE: a group must say .*lora_params\(model\)"):
        LoRARITE(pairs().values(), lr=0.1)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ({"lr": -1.0}, "lr: must not be negative"),
        ({"betas": (1.0, 0.9)}, r"betas\[0\] must be at least 0 and below 1"),
        ({"eps": -1.0}, "eps: must not be negative"),
        ({"weight_decay": float("nan")}, "weight_decay: must not be negative"),
        ({"damping": -1.0}, "damping: must not be negative"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(numbers, text):
    with pytest.raises(ValueError, match=f"LoRAPro: {text}"):
        LoRAPro(groups_of(pairs()), **numbers)


def test_a_ratio_rank_or_gap_that_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="LoRAPlus: ratio must be positive"):
        LoRAPlus(groups_of(pairs()), ratio=0.0)
    with pytest.raises(ValueError, match="GaLore: rank must be at least 1"):
        GaLore(tensors().values(), rank=0)
    with pytest.raises(ValueError, match="GaLore: gap must be at least 1"):
        GaLore(tensors().values(), gap=0)


def test_galore_without_a_whole_matrix_is_refused_and_takes_plain_tensors():
    with pytest.raises(ValueError, match="no group of whole matrices"):
        GaLore(groups_of(pairs()))
    ours = [nn.Parameter(random(1, 6, 9)), nn.Parameter(random(2, 9))]
    optimizer = GaLore(ours, rank=2)
    for p in ours:
        p.grad = random(3, *p.shape)
    optimizer.step()
    assert ["basis" in optimizer.state[p] for p in ours] == [True, False]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"scale": 0.0}, "needs their scale"),
        ({"names": ["q"]}, "needs a name for each"),
        ({"kind": "halves"}, "must say which"),
    ],
)
def test_a_group_that_does_not_say_what_it_is_is_refused(change, text):
    (group,) = groups_of(pairs())
    with pytest.raises(ValueError, match=text):
        LoRAPro([group | change])


def test_factors_that_do_not_fit_are_no_pair():
    a, b = nn.Parameter(random(1, RANK, 5)), nn.Parameter(random(2, 7, RANK + 1))
    group = {"kind": "pairs", "names": ["q"], "params": [a, b], "scale": 1.0}
    with pytest.raises(ValueError, match=r"q is no pair: A must be \(r, in\)"):
        LoRAPro([group])


def test_lora_rite_wants_factors_that_can_be_decomposed():
    halves = {k: nn.Parameter(p.detach().bfloat16()) for k, p in pairs().items()}
    with pytest.raises(ValueError, match=r"q is in torch\.bfloat16; keep A and B in float32"):
        LoRARITE(groups_of(halves))


def test_groups_may_be_added_and_are_checked():
    ours = pairs()
    first = {k: p for k, p in ours.items() if k.site != "up"}
    optimizer = LoRAPro(groups_of(first, SCALE), lr=0.02)
    set_gradients(ours)
    optimizer.step()
    (group,) = groups_of({k: p for k, p in ours.items() if k.site == "up"}, SCALE)
    optimizer.add_param_group(group | {"lr": 0.5})
    before = ours[Key("up", B)].detach().clone()
    optimizer.step()
    assert not torch.equal(ours[Key("up", B)], before)
    with pytest.raises(ValueError, match="must say which"):
        optimizer.add_param_group({"params": [nn.Parameter(random(1, 2, 2))]})


def test_a_state_of_other_parameters_is_refused():
    state = LoRAPro(groups_of(pairs())).state_dict()
    renamed = {Key(k.site.upper(), k.role): p for k, p in pairs().items()}
    with pytest.raises(ValueError, match=r"the state was saved for q \(pairs\) where Q"):
        LoRAPro(groups_of(renamed)).load_state_dict(state)
    with pytest.raises(ValueError, match=r"saved for pairs of scale 1\.0, and the model has 2\.0"):
        LoRAPro(groups_of(pairs(), 2.0)).load_state_dict(state)
    with pytest.raises(ValueError, match="the state was saved for 3 names and there are 4"):
        LoRAPro(groups_of(pairs() | {HEAD: nn.Parameter(random(1, 2, 2))})).load_state_dict(state)
