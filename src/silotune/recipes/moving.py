"""Methods that differ in the optimiser which moves a pair."""

from silotune.adapters import (
    LoRA,
)
from silotune.core import Role
from silotune.optim import (
    SGD,
    AdamW,
    AltLoRAConfig,
    LoRAFAConfig,
    LoRAPlusConfig,
    LoRAProConfig,
    LoRARITEConfig,
    OptimizerConfig,
)
from silotune.recipe import PAIR, IncompatibleAxes, Recipe

from .plans import constant, in_turn, refuse_all_but_adamw, together


def lora_rite(
    adapter: LoRA, optimizer: AdamW, *, head: bool, escape: bool = LoRARITEConfig.escape
) -> Recipe:
    """LoRA-RITE (Yen et al. 2024, arXiv 2410.20625): local steps that no factorisation changes.

    FedIT's averages. As B is near 0 when the first round begins, the second local step moves A by
    much, however low the learning rate, and at each client in its own way: in the first rounds the
    aggregation error is several times FedIT's. Steps are in units of the gradient's own spectrum,
    so directions that it lacks are filled with rounding: where gradients have a lower rank than r
    (a handful of records a step, a head that reads one token), take a smaller r.

    Exact: no, off by the covariance of B and A over clients.
    Noise: quadratic; while B is near 0, A moves by full steps of noise.
    Up: r (out + in)
    Down: r (out + in)

    Args:
        adapter: the pair.
        optimizer: AdamW, whose learning rate and weight decay it takes over; it moves the head.
        head: whether it moves.
        escape: shorten steps by the second moment that is lost when the basis turns.

    Raises:
        IncompatibleAxes: for any other optimiser.
    """
    refuse_all_but_adamw(optimizer, "LoRA-RITE")
    rite = LoRARITEConfig(
        learning_rate=optimizer.learning_rate,
        weight_decay=optimizer.weight_decay,
        escape=escape,
    )
    return constant(together(PAIR, head), adapter, rite)


def lora_pro(
    adapter: LoRA,
    optimizer: AdamW,
    *,
    head: bool,
    damping: float = LoRAProConfig.damping,
    full_moments: bool = LoRAProConfig.full_moments,
) -> Recipe:
    """LoRA-Pro (Wang et al. 2024, arXiv 2407.18242): local steps closest to those of full training.

    FedIT's averages. Under privacy, set damping to about 0.01: while B is near 0 the noise in A's
    gradient is divided by it.

    Exact: no, off by the covariance of B and A over clients.
    Noise: quadratic; while B is near 0, A moves by full steps of noise.
    Up: r (out + in)
    Down: r (out + in)

    Args:
        adapter: the pair, and the scale that gradients are corrected for.
        optimizer: AdamW, which takes steps with the corrected gradients.
        head: whether it moves.
        damping: added to the eigenvalues of B^T B and A A^T.
        full_moments: the paper's full mode, which remembers 2 out in numbers for every layer.

    Raises:
        IncompatibleAxes: for any other optimiser.
    """
    refuse_all_but_adamw(optimizer, "LoRA-Pro")
    pro = LoRAProConfig(
        learning_rate=optimizer.learning_rate,
        scale=adapter.scale,
        weight_decay=optimizer.weight_decay,
        damping=damping,
        full_moments=full_moments,
    )
    return constant(together(PAIR, head), adapter, pro)


def lora_plus(
    adapter: LoRA, optimizer: AdamW, *, head: bool, lora_plus_ratio: float = LoRAPlusConfig.ratio
) -> Recipe:
    """LoRA+ (Hayou et al. 2024, arXiv 2402.12354): B moves at a higher rate than A.

    FedIT's averages. The learning rate is that of A and of the head.

    Exact: no, off by the covariance of B and A over clients.
    Noise: quadratic; the product of means divides its energy by K^2.
    Up: r (out + in)
    Down: r (out + in)

    Args:
        adapter: the pair.
        optimizer: AdamW, which takes the steps.
        head: whether it moves.
        lora_plus_ratio: rate of B by that of A.

    Raises:
        IncompatibleAxes: for any other optimiser.
    """
    refuse_all_but_adamw(optimizer, "LoRA+")
    plus = LoRAPlusConfig(
        learning_rate=optimizer.learning_rate,
        ratio=lora_plus_ratio,
        weight_decay=optimizer.weight_decay,
    )
    return constant(together(PAIR, head), adapter, plus)


def lora_fa(
    adapter: LoRA, optimizer: AdamW, *, head: bool, damping: float = LoRAFAConfig.damping
) -> Recipe:
    """LoRA-FA (Zhang et al. 2023, arXiv 2308.03303): FFA-LoRA whose B moves as full training would.

    Gradients of B are multiplied by (A A^T)^-1 before AdamW takes its step, as in PEFT. With
    orthonormal A that changes nothing, and this is FFA-LoRA with AdamW.

    Exact: yes, since A is common.
    Noise: linear.
    Up: r out
    Down: r out

    Args:
        adapter: the pair, and the scale that gradients are corrected for.
        optimizer: AdamW, which takes steps with the corrected gradients.
        head: whether it moves.
        damping: added to the eigenvalues of A A^T.

    Raises:
        IncompatibleAxes: for any other optimiser.
    """
    refuse_all_but_adamw(optimizer, "LoRA-FA")
    fa = LoRAFAConfig(
        learning_rate=optimizer.learning_rate,
        scale=adapter.scale,
        weight_decay=optimizer.weight_decay,
        damping=damping,
    )
    return constant(together({Role.B}, head), adapter, fa)


def alt_lora(
    adapter: LoRA, optimizer: OptimizerConfig, *, head: bool, damping: float = AltLoRAConfig.damping
) -> Recipe:
    """AltLoRA (Yu et al. 2025, arXiv 2505.12455): B in one local step, A in the next, as W would.

    With sgd it is AltLoRA, whose momentum (the paper has 0.9) follows the factors; with adamw,
    AltLoRA+. B comes first, since A has no gradient while B = 0. Under privacy, damping bounds by
    how much the noise in A's gradient is magnified while B is near 0.

    Exact: no, off by the covariance of B and A over clients.
    Noise: linear in every step, divided by the eigenvalues of B^T B and damping in those of A.
    Up: r (out + in)
    Down: r (out + in)

    Args:
        adapter: the pair, and the scale that gradients are corrected for.
        optimizer: SGD or AdamW, whose numbers it takes over; it moves the head, in every step.
        head: whether it moves.
        damping: added to the eigenvalues of B^T B and A A^T.

    Raises:
        IncompatibleAxes: for any other optimiser.
    """
    if not isinstance(optimizer, SGD | AdamW):
        raise IncompatibleAxes(
            "AltLoRA is made of sgd or adamw: set train.optimizer to one of them"
        )
    alternating = AltLoRAConfig(
        learning_rate=optimizer.learning_rate,
        scale=adapter.scale,
        momentum=optimizer.momentum if isinstance(optimizer, SGD) else AltLoRAConfig.momentum,
        square=None if isinstance(optimizer, SGD) else 0.999,
        weight_decay=optimizer.weight_decay,
        damping=damping,
    )
    return constant(in_turn(head), adapter, alternating)
