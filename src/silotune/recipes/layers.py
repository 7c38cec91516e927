"""Methods whose layers compute something else than one pair beside a base."""

from typing import Literal

from silotune.adapters import (
    Expert,
    Experts,
    LoRA,
    MiLoRA,
    ResLoRA,
    Shortcut,
)
from silotune.core import Role
from silotune.optim import (
    OptimizerConfig,
)
from silotune.recipe import PAIR, IncompatibleAxes, Recipe
from silotune.schedules import Constant

from .plans import constant, together


def reslora(
    adapter: LoRA,
    optimizer: OptimizerConfig,
    *,
    head: bool,
    shortcut: Literal["input", "block", "middle"] = "block",
    pre_num: int = 1,
) -> Recipe:
    """ResLoRA (Shi et al. 2024, arXiv 2402.18039): FedIT with shortcuts between layers' pairs.

    ``block`` lets a layer use the pairs of the layers before it as well, and merges exactly;
    ``input`` and ``middle`` let its pair see what they read, and cannot: their adapters are saved
    in a format of our own. Only layers of equal shape are linked. The aggregation error is told of
    every layer's own B A; with ``middle``, B also meets the A of other layers, which is not in it.

    Exact: no, off by the covariance of B and A over clients.
    Noise: quadratic; the product of means divides its energy by K^2.
    Up: r (out + in)
    Down: r (out + in)

    Args:
        adapter: the pair.
        optimizer: takes the steps.
        head: whether it moves.
        shortcut: what a layer takes from those before it: what they read, their pairs, their A x.
        pre_num: how many layers back; ``input`` reaches one.
    """
    linked = ResLoRA(pair=adapter, shortcut=Shortcut(shortcut), pre_num=pre_num)
    return Recipe(schedule=Constant(together(PAIR, head)), optimizer=optimizer, adapter=linked)


def milora(
    adapter: LoRA,
    optimizer: OptimizerConfig,
    *,
    head: bool,
    experts_per_prompt: int | None = None,
    balance_weight: float = MiLoRA.balance_weight,
) -> Recipe:
    """MiLoRA, the mixture (Zhang et al. 2024, arXiv 2410.18035): each prompt uses some pairs.

    A router in every transformer layer looks at the prompt and keeps a few of the layer's pairs;
    the others' layers are plain. Routers are averaged with the pairs: a module keeps its place, so
    their means have a meaning. The router of a layer with N > 1 adapted modules has (N + 1) in + 12
    numbers, which travel besides. Saved in a format of our own: nothing of it can be merged, and
    PEFT does not know it.

    Exact: no, off by the covariance of B and A over clients; nor is the mean of routers the mean of
        what they decide.
    Noise: quadratic, and through the routers.
    Up: r (out + in)
    Down: r (out + in)

    Args:
        adapter: every pair.
        optimizer: takes the steps.
        head: whether it moves.
        experts_per_prompt: pairs of a layer that a prompt goes through; None for half of them.
        balance_weight: of the balance term in every record's loss.
    """
    mixture = MiLoRA(expert=adapter, kept=experts_per_prompt, balance_weight=balance_weight)
    return constant(together({*PAIR, Role.GATE}, head), mixture, optimizer)


def mole(
    adapter: LoRA,
    optimizer: OptimizerConfig,
    *,
    head: bool,
    experts: tuple[Expert, ...] = (),
    masked_experts: tuple[str, ...] = (),
    balance_weight: float = Experts.balance_weight,
) -> Recipe:
    """MoLE (Wu et al. 2024, arXiv 2404.13628): gates over adapters that are trained already.

    The second of two stages. The first one is as many runs as there are experts, such as one for
    each silo alone, or the silos' own adapters of a personal method. Every client holds all
    experts, as it holds the base model; they are frozen, and only gates and head are trained and
    averaged. r, lora_alpha and init_lora_weights mean nothing here. What the experts learned was
    paid for, or was not, where they were trained. Below, there are as many experts as clients; a
    transformer layer has one gate for all its adapted modules. Saved in a format of our own.

    Exact: yes for gates, of which no product is combined; the mean of gates is not the mean of what
        they decide.
    Noise: in the gates, and in the weights that a softmax makes of them.
    Up: K K out
    Down: K K out

    Args:
        adapter: is not used.
        optimizer: takes the steps.
        head: whether it moves.
        experts: trained adapters; two at least.
        masked_experts: names of those that are left out, without training anything again.
        balance_weight: of the balance term in every record's loss.

    Raises:
        IncompatibleAxes: for dropout.
    """
    if adapter.dropout:
        raise IncompatibleAxes("experts are not trained: set method.lora_dropout to 0")
    mixture = Experts(experts=experts, masked=masked_experts, balance_weight=balance_weight)
    return constant(together({Role.GATE}, head), mixture, optimizer)
