"""What one machine decides for itself: where and how to compute, and nothing of the result."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch

from silotune.core.fields import check_fields
from silotune.engine.gradient_check import MICRO_BATCH


@dataclass(frozen=True, kw_only=True)
class Machine:
    """How this machine computes.

    Attributes:
        device: where; auto = cuda where there is one.
        threads: of each process; None = torch decides. Results depend on it in their last bits.
        micro_batch_size: records computed at once in training; costs memory. auto: as many as are
            found to fit, which a run then keeps. Results depend on it in their last bits.
        eval_batch_size: records computed at once when scoring.
        prefix_cache: whether what the layers below the lowest adapted one make of a record is kept
            until the process ends, in memory, or on the disk in a file without a name. auto: in
            memory, of records that come again, as far as there is room. Results depend on it in
            their last bits.
        crowd: clients of a simulation that train together, their records in the same passes, at
            most ``micro_batch_size`` at once; 1 = one client after the other. Faster where clients
            have few records. Results depend on it in their last bits.

    Raises:
        ValueError: naming the field, if it is of the wrong kind or out of range.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = None
    micro_batch_size: int | Literal["auto"] = MICRO_BATCH
    eval_batch_size: int = 64
    prefix_cache: Literal["off", "auto", "memory", "disk"] = "auto"
    crowd: int = 1

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("threads", "micro_batch_size", "eval_batch_size", "crowd"):
            number = getattr(self, name)
            if isinstance(number, int) and number < 1:
                raise ValueError(f"{name}: must be at least 1, not {number}")

    @property
    def together(self) -> int:
        """Records computed at once in training; of auto the usual number, until it is measured."""
        return MICRO_BATCH if self.micro_batch_size == "auto" else self.micro_batch_size

    def check_processes(self, *, in_one_process: bool) -> None:
        """That what needs all clients in one process has them there.

        Raises:
            ValueError: naming the field, if they are not.
        """
        if self.micro_batch_size == "auto" and not in_one_process:
            raise ValueError(
                "micro_batch_size: auto is measured by the process that trains, and several, or "
                "those of sites, would find several numbers; set one (silotune plan, in one "
                "process, says which fits)"
            )
        if self.crowd > 1 and not in_one_process:
            raise ValueError(
                "crowd: clients in worker processes, or at their sites, cannot go through one "
                "model together; set it to 1, or use runtime='in-process' with all records here"
            )

    def settled(self) -> Machine:
        """With a number of records at once, for what looks at few of them and measures nothing."""
        return replace(self, micro_batch_size=32) if self.micro_batch_size == "auto" else self

    def torch_device(self) -> torch.device:
        """Where to compute.

        Raises:
            ValueError: if CUDA is asked for and absent.
        """
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device: cuda is not available here; use cpu or auto")
        if self.device == "cpu" or not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda")

    def use_threads(self) -> None:
        """Let torch use as many threads as are said, in this process."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
