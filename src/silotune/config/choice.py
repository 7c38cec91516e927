"""The chosen method at work: with the optimisers of the section ``train``."""

from __future__ import annotations

from silotune.aggregation.fedopt import ServerAdam, ServerMomentum, ServerStep, ServerYogi
from silotune.methods import Axes, Method
from silotune.methods.axes import with_proximal, with_server
from silotune.optim import SGD, AdamW, OptimizerConfig

from .sections import TrainConfig


def chosen_axes(method: Method, train: TrainConfig, *, head: bool) -> Axes:
    """The point on the axes that the sections name.

    Args:
        method: of the section ``method``.
        train: brings the optimisers.
        head: whether there is one that moves.

    Raises:
        ValueError: if a number is out of range.
        IncompatibleMethodError: if the combination would be wrong.
    """
    axes = method.axes(local_optimizer(train, adamw=method.made_of_adamw), head=head)
    axes = with_proximal(axes, train.proximal_mu)
    step = _server_step(train)
    return with_server(axes, step) if step else axes


def local_optimizer(train: TrainConfig, *, adamw: bool) -> OptimizerConfig:
    """What takes the local steps, or what a method's own optimiser is made of.

    Args:
        train: the section.
        adamw: whether the method is made of AdamW, whatever the section says.
    """
    if train.optimizer == "adamw" or adamw:
        return AdamW(learning_rate=train.learning_rate, weight_decay=train.weight_decay)
    return SGD(
        learning_rate=train.learning_rate,
        momentum=train.momentum,
        weight_decay=train.weight_decay,
    )


def _server_step(train: TrainConfig) -> ServerStep | None:
    """What the server steps with; its papers' numbers where none are given."""
    rate = (
        {} if train.server_learning_rate is None else {"learning_rate": train.server_learning_rate}
    )
    momentum = {} if train.server_momentum is None else {"momentum": train.server_momentum}
    match train.server_optimizer:
        case "none":
            return None
        case "momentum":
            return ServerMomentum(**rate, **momentum)
        case "adam":
            return ServerAdam(**rate)
        case "yogi":
            return ServerYogi(**rate)
