"""Methods that learn in a chain of subspaces: pairs, projectors or boosters, one after another."""

from silotune.adapters import (
    Dense,
    Init,
    LoRA,
    Projection,
)
from silotune.aggregation.exact import Fold
from silotune.core import Role
from silotune.optim import (
    AdamW,
    GaLoreConfig,
    OptimizerConfig,
)
from silotune.recipe import PAIR, IncompatibleAxes, Recipe
from silotune.schedules import Boost, Chain

from .plans import constant, together


def fedftg(
    adapter: LoRA,
    optimizer: AdamW,
    *,
    head: bool,
    galore_gap: int = GaLoreConfig.gap,
    galore_scale: float = GaLoreConfig.scale,
) -> Recipe:
    """FedFTG (Mahla et al. 2024, arXiv 2410.23111): average whole matrices, trained by GaLore.

    The system of "Why Gradient Subspace?". r is the rank of GaLore's projector, which is a client's
    own; lora_alpha and the other keys of a pair mean nothing here.

    Exact: yes, a mean of matrices.
    Noise: linear, in all out in numbers: refused under example-level privacy.
    Up: out in
    Down: out in

    Args:
        adapter: brings the rank.
        optimizer: AdamW, whose learning rate and weight decay GaLore takes over.
        head: whether it moves.
        galore_gap: local steps between two choices of the projector.
        galore_scale: factor on the steps of the matrices.

    Raises:
        IncompatibleAxes: for any other optimiser, and for dropout.
    """
    if not isinstance(optimizer, AdamW):
        raise IncompatibleAxes(
            "the local optimiser is GaLore, which is AdamW in a subspace: set train.optimizer to "
            "adamw"
        )
    if adapter.dropout:
        raise IncompatibleAxes("a whole matrix has no dropout: set method.lora_dropout to 0")
    galore = GaLoreConfig(
        learning_rate=optimizer.learning_rate,
        rank=adapter.rank,
        gap=galore_gap,
        scale=galore_scale,
        weight_decay=optimizer.weight_decay,
    )
    return constant(together({Role.D}, head), Dense(), galore)


def fedftg_seeded(
    adapter: LoRA, optimizer: OptimizerConfig, *, head: bool, fold_every: int = 1
) -> Recipe:
    """FedFTG in a common subspace: every round draws a projector from the seed, the same for all.

    The form that may be private: a seed tells nothing of any record, and noise enters
    r max(out, in) numbers alone. The projector is orthonormal, on the smaller side of a layer;
    init_lora_weights means nothing here. With adamw, lora_alpha = r is a GaLore scale of 1.

    Exact: yes, since the projector is common.
    Noise: linear.
    Up: r max(out, in)
    Down: r (out + in)

    Args:
        adapter: brings rank, scale and dropout.
        optimizer: takes the steps.
        head: whether it moves.
        fold_every: rounds that a projector lasts; then the pair is folded and another one drawn.
    """
    if adapter.init is Init.SVD:
        raise IncompatibleAxes(
            "a common projector is drawn from the seed: leave method.init_lora_weights out"
        )
    projection = Projection(
        rank=adapter.rank,
        alpha=adapter.alpha,
        dropout=adapter.dropout,
        rslora=adapter.rslora,
    )
    schedule = Chain(together(PAIR, head), every=fold_every)
    return Recipe(schedule=schedule, optimizer=optimizer, adapter=projection)


def cola(adapter: LoRA, optimizer: OptimizerConfig, *, head: bool, fold_every: int = 5) -> Recipe:
    """COLA (Xia et al. 2024, arXiv 2401.04151): a chain of pairs, each folded, then a fresh one.

    FedIT for ``fold_every`` rounds; then W + s B A is the new base, and a new A and B = 0 begin. So
    the whole change may have a rank of r times the number of links. (The paper warms the learning
    rate up in every link; here the rate is the schedule's over all rounds.)

    Exact: no, off by the covariance of B and A over clients.
    Noise: quadratic; the product of means divides its energy by K^2.
    Up: r (out + in)
    Down: r (out + in)

    Args:
        adapter: the pair.
        optimizer: takes the steps.
        head: whether it moves.
        fold_every: rounds that a link of the chain lasts.
    """
    schedule = Chain(together(PAIR, head), every=fold_every)
    return Recipe(schedule=schedule, optimizer=optimizer, adapter=adapter)


def rac_lora(
    adapter: LoRA, optimizer: OptimizerConfig, *, head: bool, fold_every: int = 5
) -> Recipe:
    """RAC-LoRA (Malinovsky et al. 2024, arXiv 2410.08305): COLA's chain, A frozen in every link.

    FFA-LoRA for ``fold_every`` rounds, in each link with another A from the seed: all directions
    have their turn. After a fold r (out + in) numbers go down once.

    Exact: yes, since A is common.
    Noise: linear.
    Up: r out
    Down: r out

    Args:
        adapter: the pair.
        optimizer: takes the steps.
        head: whether it moves.
        fold_every: rounds that a link of the chain lasts.
    """
    schedule = Chain(together({Role.B}, head), every=fold_every)
    return Recipe(schedule=schedule, optimizer=optimizer, adapter=adapter)


def xgblora(
    adapter: LoRA,
    optimizer: OptimizerConfig,
    *,
    head: bool,
    booster_layers: int | None = None,
    booster_seed: int = 0,
) -> Recipe:
    """XGBLoRA (Zhang et al. 2024, arXiv 2410.19694): rank-1 boosters on a few layers a round.

    A round is one booster: a seed draws some of the model's layers, their pairs are trained,
    stacked and folded, and fresh ones begin. Only drawn layers travel, so the numbers below are of
    each of these. The paper's rank is 1, which is the default of ``method.r`` here; more is
    allowed.

    Exact: yes.
    Noise: quadratic; averaging products divides its energy by K alone.
    Up: r (out + in)
    Down: K r (out + in)

    Args:
        adapter: the pair.
        optimizer: takes the steps.
        head: whether it moves, in every round.
        booster_layers: layers that a round draws; None for a third of them.
        booster_seed: decides which. Not ``train.seed``, so that repetitions may share the layers.
    """
    schedule = Boost(link=together(PAIR, head), layers=booster_layers, seed=booster_seed)
    return Recipe(schedule=schedule, optimizer=optimizer, adapter=adapter, aggregator=Fold())
