"""The balance term of MoLE, which keeps gates from using one expert alone, record by record.

Shapes: n examples, N experts that are not masked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from silotune.core import Context


@dataclass(frozen=True)
class Balance:
    """L_bal of all gates that decide in a forward pass."""

    weight: float
    context: Context

    def note(self, log_gates: Tensor) -> None:
        """Keep log G (n, kept experts) of one more gate."""
        notes = self.context.notes
        notes["log gates", len(notes)] = log_gates
        if self.weight:
            self.context.penalties["balance"] = self.term

    def term(self) -> Tensor:
        """(n,), weighed."""
        logs = torch.stack(list(self.context.notes.values()))
        log_q = logs.logsumexp(dim=0) - math.log(len(logs))
        return -self.weight * log_q.sum(dim=1)
