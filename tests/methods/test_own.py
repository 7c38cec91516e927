"""A method and its axes written outside of the package: they run, privately, or are refused."""

from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar

import pytest
import torch
from annotated_types import Ge

from silotune.adapters import Adapter, LoRA
from silotune.aggregation import Aggregator, Combined, Fold, ServerMomentum
from silotune.core import Phase, Role, RoundPlan
from silotune.engine import federate
from silotune.methods import (
    About,
    FedIT,
    FFALoRA,
    IncompatibleMethodError,
    Method,
    find,
    known,
    register,
)
from silotune.methods.axes import refuse_unproved, with_server
from silotune.methods.catalogue import catalogue
from silotune.optim import SGD
from silotune.optim.base import Moves
from silotune.privacy import ExampleLevel, Gaussian, Poisson
from silotune.runtimes import InProcess
from silotune.schedules import Constant, Schedule
from toys import agreed, begin, experiment, silos, trainer

STEP = SGD(lr=0.3)


@dataclass(frozen=True)
class HalfStep(Aggregator):
    """Half of the way to the mean."""

    step: float = 0.5

    def combine(self, previous, mean):
        return Combined(factors=previous.factors.lerp(mean.first, self.step))


@dataclass(frozen=True, kw_only=True)
class Slow(Method):
    """Slow LoRA (nobody): B alone, in small steps.

    Attributes:
        slowness: what the step is divided by.
    """

    name: ClassVar[str] = "slow"
    title: ClassVar[str] = "Slow LoRA"
    sentence: ClassVar[str] = "B is trained, and the server goes a part of the way to the mean"

    slowness: Annotated[int, Ge(1), About("What the server's step is divided by.")] = 2

    def schedule(self, *, head: bool) -> Schedule:
        roles = frozenset({Role.B, Role.HEAD} if head else {Role.B})
        return Constant(RoundPlan(phases=(Phase(roles=roles),), share=roles))

    def aggregator(self) -> Aggregator:
        return HalfStep(1 / self.slowness)


@dataclass(frozen=True)
class Quiet(Adapter):
    """LoRA that claims nothing."""

    pair: LoRA = field(default_factory=lambda: LoRA(rank=2, alpha=6.0))

    def frozen(self, site):
        return self.pair.frozen(site)

    def initial_factors(self, site, seed):
        return self.pair.initial_factors(site, seed)

    def layers(self, sites, sink, context):
        return self.pair.layers(sites, sink, context)


@dataclass(frozen=True)
class Claiming(Quiet):
    """The same, and it says what it is."""

    per_example_safe: ClassVar[bool] = True


def mechanism() -> ExampleLevel:
    return ExampleLevel(
        sampling=Poisson(0.5),
        noise=Gaussian(0.8),
        max_grad_norm=1.0,
        expected_batch_size=6.0,
        insecure_seed=5,
    )


def privately(method: Method, home, rounds: int = 2):
    """The states of a private run."""
    axes = method.axes(STEP, head=True)
    refuse_unproved(axes, "example")
    mine = {c: replace(s, privacy=mechanism()) for c, s in silos(home=home).items()}
    exp = experiment(axes, list(mine), rounds=rounds, private=True)
    done = list(federate(exp, InProcess(trainer(axes), agreed(exp, mine)), begin(axes)))
    assert all(not round.pooled.missing for round in done)
    return [round.state for round in done]


def test_an_aggregator_of_ones_own_runs_privately(tmp_path):
    """And half a step is half of what the mean would have moved."""
    half = privately(FedIT(r=2).with_(aggregator=HalfStep()), tmp_path / "half", 1)[0].factors
    whole = privately(FedIT(r=2), tmp_path / "whole", 1)[0].factors
    start = begin(FedIT(r=2).axes(STEP, head=True)).factors
    moved = 0.0
    for key, x in start.items():
        torch.testing.assert_close(half[key] - x, 0.5 * (whole[key] - x))
        moved += (half[key] - x).abs().sum().item()
    assert moved > 0


def test_a_method_of_ones_own_runs_privately(tmp_path):
    one, two = privately(Slow(r=2, slowness=4), tmp_path)
    assert (one.round, two.round) == (1, 2)
    same = one.factors.zip(two.factors, torch.eq)
    changed = {key.role for key, equal in same.items() if not equal.all()}
    assert changed == {Role.B, Role.HEAD}


def test_it_is_the_one_of_ours_where_it_says_the_same(tmp_path):
    ours = privately(FFALoRA(r=2), tmp_path / "ours")[-1].factors
    own = privately(Slow(r=2, slowness=1), tmp_path / "own")[-1].factors
    assert ours.digest() == own.digest()


def test_what_an_aggregator_does_not_claim_is_refused():
    axes = FedIT().with_(aggregator=HalfStep()).axes(STEP, head=True)
    refuse_unproved(axes, "example")
    refuse_unproved(axes, "client")
    with pytest.raises(IncompatibleMethodError, match="use gaussian"):
        refuse_unproved(axes, "client", correlated=True)
    with pytest.raises(IncompatibleMethodError, match="server_optimizer"):
        with_server(axes, ServerMomentum())
    with pytest.raises(IncompatibleMethodError, match="ranks"):
        FedIT(ranks={"a": 2}).with_(aggregator=HalfStep()).axes(STEP, head=True)
    with pytest.raises(ValueError, match="an aggregator of your own"):
        replace(FedIT().with_(aggregator=HalfStep()), aggregation=find("flexlora")())


def test_an_adapter_that_claims_nothing_is_refused_under_example_level_privacy(tmp_path):
    axes = FFALoRA().with_(adapter=Quiet()).axes(STEP, head=True)
    refuse_unproved(axes, "none")
    refuse_unproved(axes, "client")
    with pytest.raises(IncompatibleMethodError, match=r"Quiet does not claim .*per_example_safe"):
        privately(FFALoRA().with_(adapter=Quiet()), tmp_path)
    states = privately(FFALoRA().with_(adapter=Claiming()), tmp_path / "claiming")
    plain = privately(FFALoRA(r=2, lora_alpha=6.0), tmp_path / "plain")
    assert states[-1].factors.digest() == plain[-1].factors.digest()


def test_the_engine_refuses_it_as_well():
    axes = FFALoRA().with_(adapter=Quiet()).axes(STEP, head=True)
    experiment(axes, ["a"])
    with pytest.raises(IncompatibleMethodError, match="per_example_safe"):
        experiment(axes, ["a"], private=True)


def test_an_adapter_that_claims_nothing_is_neither_folded_nor_combined_by_products():
    assert not Quiet().fits_peft
    with pytest.raises(IncompatibleMethodError, match="drawn from a seed"):
        find("cola")().with_(adapter=Quiet()).axes(STEP, head=True)
    with pytest.raises(IncompatibleMethodError, match="all that is learned"):
        FedIT().with_(adapter=Quiet(), aggregator=Fold()).axes(STEP, head=True)


def test_a_schedule_that_does_not_claim_to_be_steady_has_no_correlated_noise():
    class Own(Schedule):
        def plan(self, round, sites=()):
            return self.plans()[0]

        def plans(self):
            return FFALoRA().schedule(head=True).plans()

    axes = FFALoRA().with_(schedule=Own()).axes(STEP, head=True)
    refuse_unproved(axes, "example")
    refuse_unproved(FFALoRA().axes(STEP, head=True), "example", correlated=True)
    with pytest.raises(IncompatibleMethodError, match="use gaussian"):
        refuse_unproved(axes, "example", correlated=True)


class NoCombine:
    needs_product = mixes_ranks = keeps_basis = leaves_base = needs_b_alone = replaceable = False
    rule, turns, scales_by_rank = None, None, False
    pads = weighs_by_norm = False


class NoBuild:
    lr = 0.1
    moves_pairs = Moves.ANYTHING
    basis_free = False


@pytest.mark.parametrize(
    ("axis", "value", "words"),
    [
        (
            "aggregator",
            NoCombine(),
            "NoCombine lacks combine; .*inherit from Aggregator",
        ),
        ("adapter", LoRA, r"adapter: give an object, LoRA\(\.\.\.\), not the class itself"),
        ("adapter", object(), "adapter: object lacks frozen, initial_factors, layers, gates"),
        ("schedule", object(), "schedule: object lacks plan, plans, steady"),
        ("optimizer", NoBuild(), "optimizer: NoBuild lacks build"),
    ],
)
def test_an_object_that_lacks_a_member_is_refused_by_its_name(axis, value, words):
    with pytest.raises(ValueError, match=words):
        FedIT().with_(**{axis: value})


def test_an_aggregator_without_combine_cannot_be_made():
    class Empty(Aggregator):
        pass

    with pytest.raises(TypeError, match="combine"):
        Empty()


def test_a_registered_method_is_known_by_its_name():
    assert "slow" not in known()
    assert register(Slow) is Slow
    assert find("slow") is Slow
    (entry,) = catalogue([Slow])
    assert entry.summary == "Slow LoRA (nobody): B alone, in small steps."
    assert entry.trains == "B, head"
    assert entry.options == {"slowness": 2}
    assert register(Slow) is Slow, "twice is once, as in a notebook"
    with pytest.raises(ValueError, match="did you mean slow"):
        find("slowly")


def nameless():
    @dataclass(frozen=True, kw_only=True)
    class Nameless(FedIT):
        """Nothing."""

        name: ClassVar[str] = ""

    return Nameless


def undescribed():
    @dataclass(frozen=True, kw_only=True)
    class Undescribed(FedIT):
        """Something."""

        name: ClassVar[str] = "undescribed"
        speed: int = 3

    return Undescribed


def undecorated():
    class Undecorated(Slow):
        """Something."""

        name: ClassVar[str] = "undecorated"

    return Undecorated


def unscheduled():
    @dataclass(frozen=True, kw_only=True)
    class Unscheduled(Method):
        """Something."""

        name: ClassVar[str] = "unscheduled"
        title: ClassVar[str] = "Unscheduled"
        sentence: ClassVar[str] = "It does nothing"

    return Unscheduled


def taken():
    @dataclass(frozen=True, kw_only=True)
    class Taken(Slow):
        """Something."""

        name: ClassVar[str] = "fedit"

    return Taken


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (nameless, "Nameless lacks name"),
        (undescribed, r"Undescribed\.speed: say what it means, by About"),
        (undecorated, "Undecorated is no dataclass"),
        (unscheduled, "Unscheduled lacks schedule"),
        (taken, "Taken: there is a method fedit already"),
        (lambda: 3, "3 is no class"),
        (lambda: LoRA, "is no class that inherits from"),
    ],
)
def test_what_is_no_method_is_not_registered(made, words):
    with pytest.raises(ValueError, match=words):
        register(made())


def test_an_adapter_that_claims_nothing_is_not_computed_again_by_layers():
    assert "computed again by itself; define recomputable" in Quiet().not_recomputable_because
