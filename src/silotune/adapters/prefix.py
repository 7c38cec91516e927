"""The frozen prefix: layers below the lowest adapted one, whose output is a constant of a record.

In training and in scoring a batch may bring that output along, under ``PREFIX``; then the layers
below do not compute. The uppermost of them gives what was brought, so that whatever a model does
between two layers, and the masks that it makes before them, stays as it is.

What is found here by names is only where to look: that a model gives the same when it is fed is
proved by trying (``engine/prefix_check.py``).

Shapes: n records, T positions, h features.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import cycle
from typing import Any

import torch
from torch import Tensor, nn

from silotune.core.site import place_of

PREFIX = "frozen_prefix"
"""The part of a batch that is the output of the frozen prefix, (n, T, h); of a second text that a
model reads in a pass of its own the name begins as those of its other parts do."""


class NoPrefixError(ValueError):
    """What layers hand to each other is no tensor that could be brought."""


class Prefix:
    """The layers of one list that lie below every adapted one.

    Attributes:
        layers: in their order, one or more.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        """Nothing of the layers is changed.

        Args:
            layers: in their order.
        """
        self.layers = tuple(layers)
        self._outputs: dict[int, int] = {}  # of each: how long its tuple is; 0 for a bare tensor

    @classmethod
    def below(cls, model: nn.Module, sites: Collection[str]) -> Prefix | None:
        """The prefix of a model; None if adapters reach its lowest layer, or its form is another.

        Args:
            model: transformers', or one that holds such a model.
            sites: names of all places that are adapted; of heads alone all layers are below.
        """
        places = [place for site in sites if (place := place_of(site))]
        lists = {n: m for n, m in model.named_modules() if isinstance(m, nn.ModuleList)}
        stacks = {place.stack for place in places} or _longest(lists)
        if len(stacks) != 1 or not stacks <= lists.keys():
            return None
        layers = list(lists[stacks.pop()])
        depth = min((place.layer for place in places), default=len(layers))
        return cls(layers[:depth]) if 0 < depth <= len(layers) else None

    def captured(self, forward: Callable[[], object]) -> Tensor:
        """What the uppermost layer gives, (n, T, h), in a forward pass that ends there.

        Args:
            forward: begins the pass.

        Raises:
            NoPrefixError: if a layer is left out, or gives no (n, T, h).
        """
        with ExitStack() as hooks:
            for i, layer in enumerate(self.layers):
                hooks.callback(layer.register_forward_hook(self._seen(i)).remove)
            try:
                forward()
            except _Captured as found:
                return found.states
        raise NoPrefixError("the model leaves its layers out")

    @contextmanager
    def fed(self, *states: Tensor) -> Iterator[None]:
        """Forward passes that begin with ``states`` in place of what the layers would compute.

        Args:
            *states: (n, T, h) for each pass, in turn and from the first again, as ``captured`` gave
                them; it must have been called before.
        """
        last, brought = len(self.layers) - 1, cycle(states)
        with ExitStack() as after:
            for i, layer in enumerate(self.layers):
                after.callback(_restorer(layer, "forward", "gradient_checkpointing"))
                vars(layer)["forward"] = _stand_in(self._outputs[i], brought if i == last else None)
                vars(layer)["gradient_checkpointing"] = False
            yield

    def _seen(self, i: int) -> Callable[..., None]:
        """A hook that notes the form of a layer's output, and ends the pass after the last."""

        def seen(_: nn.Module, __: object, output: object) -> None:
            first, others = (output[0], output[1:]) if isinstance(output, tuple) else (output, ())
            if not isinstance(first, Tensor) or first.dim() != 3:
                raise NoPrefixError("its layers give no tensor of records, positions and features")
            self._outputs[i] = 1 + len(others) if isinstance(output, tuple) else 0
            if i == len(self.layers) - 1:
                if len(self._outputs) != len(self.layers):
                    raise NoPrefixError("the model leaves its layers out")
                raise _Captured(first)

        return seen


def _longest(lists: Mapping[str, nn.ModuleList]) -> set[str]:
    """Names of the lists with the most layers, of those that are in no other list's layers."""
    outer = {name: len(layers) for name, layers in lists.items() if place_of(name) is None}
    return {name for name, length in outer.items() if length == max(outer.values())}


class _Captured(Exception):
    """Ends a forward pass with what was looked for."""

    def __init__(self, states: Tensor) -> None:
        super().__init__()
        self.states = states


def _stand_in(length: int, states: Iterator[Tensor] | None) -> Callable[..., Any]:
    """A layer that gives the next ``states``, or else what it reads, in the form of its output."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        read = args[0] if args else kwargs["hidden_states"]
        given = read if states is None else next(states)
        if read.requires_grad and not given.requires_grad:  # reentrant checkpoints ask for it
            given = given.detach().requires_grad_()
        return (given, *[None] * (length - 1)) if length else given

    return forward


def _restorer(layer: nn.Module, *names: str) -> Callable[[], None]:
    """Puts attributes of an instance back, or takes away those that only its class had."""
    before = {name: vars(layer)[name] for name in names if name in vars(layer)}

    def restore() -> None:
        for name in names:
            vars(layer).pop(name, None)
        vars(layer).update(before)

    return restore


def without_grad(states: Tensor) -> Tensor:
    """A copy of states that may be kept: on the CPU, of no graph and no inference mode."""
    with torch.inference_mode(False):
        return torch.empty(states.shape, dtype=states.dtype).copy_(states)
