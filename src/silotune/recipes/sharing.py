"""Methods that differ in what is trained, and what of it is shared."""

from dataclasses import replace

from silotune.adapters import (
    LoRA,
)
from silotune.core import Role
from silotune.optim import (
    LowPassConfig,
    OptimizerConfig,
)
from silotune.recipe import PAIR, IncompatibleAxes, Recipe
from silotune.schedules import AlternateRounds

from .plans import constant, in_turn, together


def ffa_lora(adapter: LoRA, optimizer: OptimizerConfig, *, head: bool) -> Recipe:
    """FFA-LoRA (Sun et al. 2024, arXiv 2403.12313): freeze A, train and average B.

    Half of LoRA's numbers travel; A is drawn from a seed.

    Exact: yes, since A is common.
    Noise: linear.
    Up: r out
    Down: r out
    """
    return constant(together({Role.B}, head), adapter, optimizer)


def fedit(adapter: LoRA, optimizer: OptimizerConfig, *, head: bool) -> Recipe:
    """FedIT (Zhang et al. 2024, arXiv 2305.05644): train both factors, average each by itself.

    The mean of products is not the product of means: the aggregation error is reported.

    Exact: no, off by the covariance of B and A over clients.
    Noise: quadratic; the product of means divides its energy by K^2.
    Up: r (out + in)
    Down: r (out + in)
    """
    return constant(together(PAIR, head), adapter, optimizer)


def head_only(adapter: LoRA, optimizer: OptimizerConfig, *, head: bool) -> Recipe:
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
    return constant(together((), head), None, optimizer)


def rolora(adapter: LoRA, optimizer: OptimizerConfig, *, head: bool) -> Recipe:
    """RoLoRA (Chen et al. 2024, arXiv 2409.02346): B in one round, A in the next, in turn.

    Exact: yes, since one factor is common in every round.
    Noise: linear in every round.
    Up: r out, then r in
    Down: r in, then r out
    """
    plans = (together({Role.B}, head), together({Role.A}, head))
    return Recipe(schedule=AlternateRounds(plans), optimizer=optimizer, adapter=adapter)


def la_lora(
    adapter: LoRA, optimizer: OptimizerConfig, *, head: bool, low_pass: bool = True
) -> Recipe:
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
    smooth = LowPassConfig(optimizer) if low_pass else optimizer
    return constant(in_turn(head), adapter, smooth)


def fedsa_lora(adapter: LoRA, optimizer: OptimizerConfig, *, head: bool) -> Recipe:
    """FedSA-LoRA (Guo et al. 2024, arXiv 2410.01463): train both factors, share A alone.

    B and the classifier stay at home, as in the paper: every client ends with a model of its own,
    and its scores are those of that model. A client that comes late begins with B = 0.

    Exact: yes for A, which is all that is combined; there is no common B A.
    Noise: linear in A; B is noised too, and stays at home.
    Up: r in
    Down: r in
    """
    return constant(replace(together(PAIR, head), share=frozenset({Role.A})), adapter, optimizer)
