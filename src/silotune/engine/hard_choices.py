"""Hard choices: where a forward pass turns a record's numbers into whole ones, and goes by them.

A router that sends a token to its best few experts decides, where two are all but alike, by the
last digits of a sum; and these depend on the records beside it. Such ties are rare, so that no
comparison of gradients on a few records finds them. So one forward pass is watched: a tensor that
came of weights and of a record (an activation) may become numbers, and nothing else. Whole numbers
or yes and no that were made of activations (top-k, argmax, sorting, comparing, rounding to
integers) are a hard choice as soon as anything reads them. Choices made of token ids and masks
alone are none: no weight is in them, and no rounding.

What is not seen: a choice inside one compiled kernel that gives only real numbers back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_WEIGHT, _RECORD = 1, 2
_ACTIVATION = _WEIGHT | _RECORD

_SHAPED = ("new_",), ("_like",)
"""Beginnings and ends of operations that take a tensor's shape and type, not its numbers."""

_JUMPS = frozenset({"sign", "sgn", "round", "floor", "ceil", "trunc", "frac", "heaviside"})
"""Operations of ATen that jump and give real numbers."""


def hard_choice(model: nn.Module, compute: Callable[[], object], records: Iterable[Tensor]) -> str:
    """The first hard choice of a forward pass, as ``module (operation)``; empty if there is none.

    Args:
        model: whose weights take part, and whose modules are named.
        compute: the forward pass, losses included.
        records: all tensors that it reads of records.
    """
    watch = _Watch(model, records)
    with watch.named(model), watch:
        compute()
    return watch.found


class _Watch(TorchDispatchMode):
    """Follows what every tensor was made of, by its storage, so that views count as well."""

    def __init__(self, model: nn.Module, records: Iterable[Tensor]) -> None:
        super().__init__()
        self.found = ""
        self._made_of: dict[StorageWeakRef, int] = {}
        self._chosen: dict[StorageWeakRef, str] = {}  # whole numbers made of activations, and where
        self._inside: list[str] = []
        for tensors, mark in (
            (model.parameters(), _WEIGHT),
            (model.buffers(), _WEIGHT),
            (records, _RECORD),
        ):
            for tensor in tensors:
                self._made_of[_storage(tensor)] = mark

    @contextmanager
    def named(self, model: nn.Module) -> Iterator[None]:
        """Know which module computes."""
        hooks = []
        for name, module in model.named_modules():
            hooks.append(module.register_forward_pre_hook(self._enter(name), prepend=True))
            hooks.append(module.register_forward_hook(self._leave))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run one operation, and mark what comes of it."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not self.found:
            self._mark(func.overloadpacket.__name__, _tensors((args, kwargs)), result)
        return result

    def _mark(self, operation: str, given: list[Tensor], result: object) -> None:
        made_of = 0
        if operation.startswith(_SHAPED[0]) or operation.endswith(_SHAPED[1]):
            given = []
        for tensor in given:
            storage = _storage(tensor)
            made_of |= self._made_of.get(storage, 0)
            if storage in self._chosen:
                self.found = self._chosen[storage]
                return
        of_activations = made_of == _ACTIVATION and any(
            _real(t) and self._made_of.get(_storage(t)) == _ACTIVATION for t in given
        )
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._note(operation, leaf, made_of, of_activations)
            elif of_activations and isinstance(leaf, bool | int | float):  # Python goes by it
                self.found = self._here(operation)

    def _note(self, operation: str, made: Tensor, made_of: int, of_activations: bool) -> None:
        storage = _storage(made)
        self._made_of[storage] = self._made_of.get(storage, 0) | made_of
        if of_activations and operation.rstrip("_") in _JUMPS:
            self.found = self._here(operation)
        elif of_activations and not _real(made):
            self._chosen[storage] = self._here(operation)

    def _here(self, operation: str) -> str:
        return f"{self._inside[-1] if self._inside else 'the objective'} ({operation})"

    def _enter(self, name: str) -> Callable[..., None]:
        def enter(module: nn.Module, _: object) -> None:
            self._inside.append(name or type(module).__name__)

        return enter

    def _leave(self, *_: object) -> None:
        self._inside.pop()


def _tensors(nest: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(nest) if isinstance(leaf, Tensor)]


def _storage(tensor: Tensor) -> StorageWeakRef:
    """Of the memory that it shares with its views: no other gets its name as long as it is kept."""
    return StorageWeakRef(tensor.untyped_storage())


def _real(tensor: Tensor) -> bool:
    return tensor.dtype.is_floating_point or tensor.dtype.is_complex
