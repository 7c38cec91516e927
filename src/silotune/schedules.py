"""Floor 2: schedules. Which roles move and are shared, in which round."""

from dataclasses import dataclass
from typing import Protocol

from silotune.core import Plan


class Schedule(Protocol):
    """Round number in, orders out. Pure: the same plan on every machine."""

    def plan(self, round: int) -> Plan:
        """Orders for ``round`` (0-based)."""
        ...


@dataclass(frozen=True)
class Constant:
    """The same plan every round: FedIT, FFA-LoRA, the linear probe."""

    always: Plan

    def plan(self, round: int) -> Plan:
        """Ignore the round."""
        return self.always
