"""The user's optimiser, as a private loop hands it back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer


class PrivateOptimizer(Optimizer):
    """The user's optimiser, whose ``step`` goes through the mechanism. Schedulers work on it.

    ``param_groups`` and ``state`` are the user's own.

    Args:
        inner: the user's.
        release: charges, noises and lets ``inner`` step.
    """

    def __init__(self, inner: Optimizer, release: Callable[[], None]) -> None:
        super().__init__(inner.param_groups, inner.defaults)
        self._inner, self._release = inner, release
        self._share()

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Noise once, divide by the expected batch, charge, and let the optimiser step.

        Raises:
            ValueError: if the batch is not finished, or was stepped already; or with a closure,
                which would look at the records again.
        """
        if closure is not None:
            raise ValueError("closure: would look at the records again, at no charge; leave it out")
        self._release()

    def state_dict(self) -> dict[str, Any]:
        """The user's optimiser's. The loop's own has it too, and what was charged."""
        return self._inner.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Into the user's optimiser."""
        self._inner.load_state_dict(state_dict)
        self._share()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refused once the loop is made: what is trained was checked.

        Raises:
            ValueError: always, then.
        """
        if hasattr(self, "_inner"):
            raise ValueError("add_param_group: what is trained was checked before; make it anew")
        super().add_param_group(param_group)

    def _share(self) -> None:
        self.param_groups, self.state = self._inner.param_groups, self._inner.state
