"""Floor 5: the catalogue. Every method is one function; add a function and the laws cover it.

A docstring says what the method is and, in lines that the pages about methods are made of: whether
its average is *exact*, how privacy *noise* enters B A, and how many numbers travel *up* from and
*down* to one client for one adapted layer of (out, in) features in a usual round. r is the rank, K
the number of clients; heads travel besides. Keyword arguments are keys of the section ``method``.

Local optimisers begin afresh in every round, so none outlives a change of basis.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Literal

from silotune.adapters import Dense, Init, LoRA, Projection
from silotune.aggregation import Aggregator, Mean
from silotune.aggregation.exact import Fold, Residual
from silotune.aggregation.fair import Fair, FairCosine
from silotune.aggregation.fedsvd import Refactor
from silotune.aggregation.flexlora import Truncate
from silotune.core import Phase, Plan, Role
from silotune.optim import AdamW, GaLore, LowPass, Optimizer
from silotune.recipe import PAIR, IncompatibleAxes, Recipe
from silotune.schedules import AlternateRounds, Chain, Constant


def ffa_lora(adapter: LoRA, optimizer: Optimizer, *, head: bool) -> Recipe:
    """FFA-LoRA (Sun et al. 2024, arXiv 2403.12313): freeze A, train and average B.

    Half of LoRA's numbers travel; A is drawn from a seed.

    Exact: yes, since A is common.
    Noise: linear.
    Up: r out
    Down: r out
    """
    return _constant(_plan({Role.B}, head), adapter, optimizer)


def fedit(adapter: LoRA, optimizer: Optimizer, *, head: bool) -> Recipe:
    """FedIT (Zhang et al. 2024, arXiv 2305.05644): train both factors, average each by itself.

    The mean of products is not the product of means: the aggregation error is reported.

    Exact: no, off by the covariance of B and A over clients.
    Noise: quadratic; the product of means divides its energy by K^2.
    Up: r (out + in)
    Down: r (out + in)
    """
    return _constant(_plan(PAIR, head), adapter, optimizer)


def head_only(adapter: LoRA, optimizer: Optimizer, *, head: bool) -> Recipe:
    """The linear probe: train and average the head alone. The baseline to beat.

    Exact: yes.
    Noise: linear.
    Up: 0
    Down: 0

    Raises:
        IncompatibleAxes: if the head is frozen, since nothing is left to train.
    """
    if not head:
        raise IncompatibleAxes("method head-only trains the head: set model.head to trained")
    return _constant(_plan((), head), None, optimizer)


def rolora(adapter: LoRA, optimizer: Optimizer, *, head: bool) -> Recipe:
    """RoLoRA (Chen et al. 2024, arXiv 2409.02346): B in one round, A in the next, in turn.

    Exact: yes, since one factor is common in every round.
    Noise: linear in every round.
    Up: r out, then r in
    Down: r in, then r out
    """
    plans = (_plan({Role.B}, head), _plan({Role.A}, head))
    return Recipe(schedule=AlternateRounds(plans), optimizer=optimizer, adapter=adapter)


def la_lora(adapter: LoRA, optimizer: Optimizer, *, head: bool, low_pass: bool = True) -> Recipe:
    """LA-LoRA (arXiv 2602.19926): B in one local step, A in the next; gradients are smoothed.

    A step clips and noises what it trains and nothing else, so the guarantee is that of ordinary
    DP-SGD; the filter acts on gradients that are noised already. (The paper's released code filters
    with an FFT and steps B twice as fast.)

    Exact: no, off by the covariance of B and A over clients.
    Noise: linear in every step; the filter keeps 27 % of its variance.
    Up: r (out + in)
    Down: r (out + in)

    Args:
        adapter: the pair.
        optimizer: takes the steps.
        head: whether it moves, in every step.
        low_pass: filter gradients along the features with [1, 4, 6, 4, 1] / 16.
    """
    both = _plan(PAIR, head)
    turns = tuple(Phase(roles=_with_head({role}, head)) for role in (Role.B, Role.A))
    smooth = LowPass(optimizer) if low_pass else optimizer
    return _constant(replace(both, phases=turns), adapter, smooth)


def fedsa_lora(adapter: LoRA, optimizer: Optimizer, *, head: bool) -> Recipe:
    """FedSA-LoRA (Guo et al. 2024, arXiv 2410.01463): train both factors, share A alone.

    B and the classifier stay at home, as in the paper: every client ends with a model of its own,
    and its scores are those of that model. A client that comes late begins with B = 0.

    Exact: yes for A, which is all that is combined; there is no common B A.
    Noise: linear in A; B is noised too, and stays at home.
    Up: r in
    Down: r in
    """
    return _constant(replace(_plan(PAIR, head), share=frozenset({Role.A})), adapter, optimizer)


def fedsvd(
    adapter: LoRA,
    optimizer: Optimizer,
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
    return _constant(_plan({Role.B}, head), adapter, optimizer, rule)


def fedex_lora(
    adapter: LoRA, optimizer: Optimizer, *, head: bool, residual_rank: int | None = None
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
    return _constant(_plan(PAIR, head), adapter, optimizer, rule)


def flora(adapter: LoRA, optimizer: Optimizer, *, head: bool) -> Recipe:
    """FLoRA (Wang et al. 2024, arXiv 2409.05976): stack the products, fold them, begin afresh.

    Clients may have ranks of their own; then K r stands for the sum of their ranks. B = 0 at the
    start of every round, so the first local steps move little.

    Exact: yes.
    Noise: quadratic; averaging products divides its energy by K alone.
    Up: r (out + in)
    Down: K r (out + in)
    """
    schedule = Chain(_plan(PAIR, head))
    return Recipe(schedule=schedule, optimizer=optimizer, adapter=adapter, aggregator=Fold())


def flexlora(adapter: LoRA, optimizer: Optimizer, *, head: bool, balanced: bool = True) -> Recipe:
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
    return _constant(_plan(PAIR, head), adapter, optimizer, rule)


def lora_fair(
    adapter: LoRA,
    optimizer: Optimizer,
    *,
    head: bool,
    objective: Literal["closed-form", "cosine"] = "closed-form",
    fair_lambda: float = 0.01,
    initialization: Literal["average", "fresh"] = "average",
) -> Recipe:
    """LoRA-FAIR (Bian et al. 2024, arXiv 2411.14961): the mean of A, and a corrected mean of B.

    Of the paper's three ways to begin a round, ``average`` is its choice and ``fresh`` its
    Re-Initial: the pair is folded into the base and another one drawn. Local-Initial, in which a
    client goes on with its own pair, is left out: such a pair was never averaged.

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
    plan = _plan(PAIR, head)
    return Recipe(
        schedule=Chain(plan) if initialization == "fresh" else Constant(plan),
        optimizer=optimizer,
        adapter=adapter,
        aggregator=Fair(ridge=fair_lambda) if closed else FairCosine(ridge=fair_lambda),
    )


def fedftg(
    adapter: LoRA,
    optimizer: AdamW,
    *,
    head: bool,
    galore_gap: int = GaLore.gap,
    galore_scale: float = GaLore.scale,
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
    galore = GaLore(
        learning_rate=optimizer.learning_rate,
        rank=adapter.rank,
        gap=galore_gap,
        scale=galore_scale,
        weight_decay=optimizer.weight_decay,
    )
    return _constant(_plan({Role.D}, head), Dense(), galore)


def fedftg_seeded(
    adapter: LoRA, optimizer: Optimizer, *, head: bool, fold_every: int = 1
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
    schedule = Chain(_plan(PAIR, head), every=fold_every)
    return Recipe(schedule=schedule, optimizer=optimizer, adapter=projection)


RECIPES: Mapping[str, Callable[..., Recipe]] = {
    "ffa-lora": ffa_lora,
    "fedit": fedit,
    "head-only": head_only,
    "rolora": rolora,
    "la-lora": la_lora,
    "fedsa-lora": fedsa_lora,
    "fedsvd": fedsvd,
    "fedex-lora": fedex_lora,
    "flora": flora,
    "flexlora": flexlora,
    "lora-fair": lora_fair,
    "fedftg": fedftg,
    "fedftg-seeded": fedftg_seeded,
}


def _constant(
    plan: Plan, adapter: LoRA | Dense | None, optimizer: Optimizer, rule: Aggregator | None = None
) -> Recipe:
    """The same plan in every round; the mean unless another rule is given."""
    return Recipe(
        schedule=Constant(plan), optimizer=optimizer, adapter=adapter, aggregator=rule or Mean()
    )


def _plan(roles: Collection[Role], head: bool) -> Plan:
    """Train and share the same roles."""
    moving = _with_head(roles, head)
    return Plan(phases=(Phase(roles=moving),), share=moving)


def _with_head(roles: Collection[Role], head: bool) -> frozenset[Role]:
    return frozenset({*roles, Role.HEAD} if head else roles)
