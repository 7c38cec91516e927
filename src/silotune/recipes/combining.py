"""Methods that differ in how the server combines what silos send."""

from typing import Literal

from silotune.adapters import (
    LoRA,
)
from silotune.aggregation.exact import Fold, Residual
from silotune.aggregation.fair import Fair, FairCosine
from silotune.aggregation.fedsvd import Refactor
from silotune.aggregation.flexlora import Truncate
from silotune.core import Role
from silotune.optim import (
    OptimizerConfig,
)
from silotune.recipe import PAIR, Recipe
from silotune.schedules import Chain, Constant

from .plans import constant, together


def fedsvd(
    adapter: LoRA,
    optimizer: OptimizerConfig,
    *,
    head: bool,
    refactor_every: int = 1,
    randomised: bool = False,
) -> Recipe:
    """FedSVD (Lee et al. 2025, arXiv 2505.12805): train B; the server turns B A into its SVD.

    A then has orthonormal rows that follow what was learned. Rows three times as long as those of
    Kaiming-uniform A (in squared length) mean a learning rate three times as high: tune it again.

    Exact: yes, since only B moves.
    Noise: linear, and no larger in B A than in B.
    Up: r out
    Down: r (out + in)

    Args:
        adapter: the pair.
        optimizer: takes the steps.
        head: whether it moves.
        refactor_every: rounds between two SVDs; r out numbers go down in the others.
        randomised: a randomised SVD.
    """
    rule = Refactor(every=refactor_every, randomised=randomised)
    return constant(together({Role.B}, head), adapter, optimizer, rule)


def fedex_lora(
    adapter: LoRA, optimizer: OptimizerConfig, *, head: bool, residual_rank: int | None = None
) -> Recipe:
    """FedEx-LoRA (Singhal et al. 2024, arXiv 2410.09432): FedIT, its error folded into the base.

    The residual E[BA] - E[B] E[A] has rank (K - 1) r and goes down beside the means.

    Exact: yes; with residual_rank, off by the residual's tail.
    Noise: quadratic; averaging products divides its energy by K alone.
    Up: r (out + in)
    Down: K r (out + in)

    Args:
        adapter: the pair.
        optimizer: takes the steps.
        head: whether it moves.
        residual_rank: keep the best approximation of that rank; None keeps all.
    """
    rule = Residual(rank=residual_rank)
    return constant(together(PAIR, head), adapter, optimizer, rule)


def flora(adapter: LoRA, optimizer: OptimizerConfig, *, head: bool) -> Recipe:
    """FLoRA (Wang et al. 2024, arXiv 2409.05976): stack the products, fold them, begin afresh.

    Clients may have ranks of their own; then K r stands for the sum of their ranks. B = 0 at the
    start of every round, so the first local steps move little.

    Exact: yes.
    Noise: quadratic; averaging products divides its energy by K alone.
    Up: r (out + in)
    Down: K r (out + in)
    """
    schedule = Chain(together(PAIR, head))
    return Recipe(schedule=schedule, optimizer=optimizer, adapter=adapter, aggregator=Fold())


def flexlora(
    adapter: LoRA, optimizer: OptimizerConfig, *, head: bool, balanced: bool = True
) -> Recipe:
    """FlexLoRA (Bai et al. 2024, arXiv 2402.11505): the exact mean, cut back to rank r by an SVD.

    Clients may have ranks of their own: each gets the leading part that fits.

    Exact: no, off by the singular values beyond r; no pair of rank r does better.
    Noise: quadratic, cut along with the tail.
    Up: r (out + in)
    Down: r (out + in)

    Args:
        adapter: the pair; its rank is the largest of all clients'.
        optimizer: takes the steps.
        head: whether it moves.
        balanced: split singular values evenly between B and A; the paper gives all of them to B.
    """
    rule = Truncate(rank=adapter.rank, balanced=balanced)
    return constant(together(PAIR, head), adapter, optimizer, rule)


def lora_fair(
    adapter: LoRA,
    optimizer: OptimizerConfig,
    *,
    head: bool,
    objective: Literal["closed-form", "cosine"] = "closed-form",
    fair_lambda: float = 0.01,
    initialization: Literal["average", "fresh"] = "average",
) -> Recipe:
    """LoRA-FAIR (Bian et al. 2024, arXiv 2411.14961): the mean of A, and a corrected mean of B.

    Of the paper's three ways to begin a round, ``average`` is its choice and ``fresh`` its
    Re-Initial: the pair is folded into the base and another one drawn. Local-Initial, in which all
    go on with one client's pair, is left out: the server has means, and never one client's pair.

    Exact: no, what E[BA] has outside the row space of A is lost; in closed form never worse than
        FedIT.
    Noise: quadratic; the ridge damps it.
    Up: r (out + in)
    Down: r (out + in)

    Args:
        adapter: the pair.
        optimizer: takes the steps.
        head: whether it moves.
        objective: the squared error, solved at once; or the paper's cosine, by gradient steps.
        fair_lambda: how strongly B is held at its mean.
        initialization: what a round begins from: the corrected average, or a fresh pair.
    """
    closed = objective == "closed-form"
    plan = together(PAIR, head)
    return Recipe(
        schedule=Chain(plan) if initialization == "fresh" else Constant(plan),
        optimizer=optimizer,
        adapter=adapter,
        aggregator=Fair(ridge=fair_lambda) if closed else FairCosine(ridge=fair_lambda),
    )
