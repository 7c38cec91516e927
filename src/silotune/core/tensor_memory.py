"""TensorMemory: bytes of the tensors that are alive while something runs, counted and not timed.

Every operation that runs below it is seen, forward and backward, so that the figure is the same in
every run and on every machine, and holds of tensors without numbers too (``FakeTensorMode``). What
operations take for themselves and give back is not seen, nor what an allocator keeps.
"""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CPU = torch.device("cpu")

MACHINE, CONTAINER = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
"""Where Linux says how much memory is left."""


class TensorMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages that are made inside ``with``; those that were there before are not.

    Attributes:
        held: bytes that are alive now.
        most: bytes that were alive at once.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held = 0
        self.most = 0
        self._alive: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run one operation, and count what it made."""
        named = kwargs or {}
        given = {id(storage) for storage in _storages((args, named))}
        result = func(*args, **named)
        for storage in _storages(result):
            place = id(storage)
            if place not in given and place not in self._alive:
                self._alive[place] = weakref.ref(storage, self._gone(place, storage.nbytes()))
                self.held += storage.nbytes()
                self.most = max(self.most, self.held)
        return result

    def _gone(self, place: int, size: int) -> Callable[[object], None]:
        def forget(_: object) -> None:
            self._alive.pop(place)
            self.held -= size

        return forget


def peak_bytes(run: Callable[[], object], device: torch.device = CPU) -> int:
    """The most bytes of tensors that ``run`` holds at once, besides what was there before.

    Args:
        run: what is measured.
        device: where it computes; a GPU's own count is taken there.
    """
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return int(torch.cuda.max_memory_allocated(device)) - before
    memory = TensorMemory()
    with memory:
        run()
    return memory.most


def free_bytes(device: torch.device) -> int:
    """Memory that may still be taken: of a GPU, or of this machine or the container around us."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    if available := re.search(r"MemAvailable:\s+(\d+) kB", _text(MACHINE)):
        found.append(int(available[1]) * 1024)
    limit, used = (_text(CONTAINER / name).strip() for name in ("memory.max", "memory.current"))
    if limit.isdigit() and used.isdigit():
        cached = re.search(r"inactive_file (\d+)", _text(CONTAINER / "memory.stat"))
        found.append(int(limit) - int(used) + (int(cached[1]) if cached else 0))
    return max(0, min(found))


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def _storages(tree: object) -> list[Any]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
