"""MoLE (arXiv 2404.13628)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

from annotated_types import Ge

from silotune.adapters import Adapter, Expert, Experts, load_expert
from silotune.adapters.mole import Granularity
from silotune.adapters.mole_gate import GateInput
from silotune.core import Role
from silotune.schedules import Constant, Schedule

from .axes import IncompatibleMethodError
from .base import Kind, Method
from .options import About, BalanceWeight, Word
from .plans import together


@dataclass(frozen=True, kw_only=True)
class MoLE(Method):
    """MoLE (Wu et al. 2024, arXiv 2404.13628): gates over adapters that are trained already.

    The second of two stages. The first one is as many runs as there are experts, such as one for
    each silo alone, or the silos' own adapters of a personal method. Every client holds all
    experts, as it holds the base model; they are frozen, and only gates and head are trained and
    averaged. r, lora_alpha and init_lora_weights mean nothing here. What the experts learned was
    paid for, or was not, where they were trained. Below, there are as many experts as clients.
    Saved in a format of our own.

    The paper's gate reads the experts' outputs, all positions in a row, which asks for prompts of
    one length: here the first 64 positions count (``gate_positions``), and what a shorter one lacks
    is zero. The output of an expert is what its pair adds at the first adapted module that the gate
    serves. With ``gate_input: mean`` a gate has 64 times fewer numbers to send and to noise.

    Attributes:
        experts: folders of trained adapters; two at least.
        masked_experts: those that are left out, without training anything again.
        balance_weight: of the balance term in every record's loss.
        gate_input: what a gate reads of a prompt.
        gate_positions: how many positions of it.
        granularity: how many modules share a gate.
    """

    name: ClassVar[str] = "mole"
    title: ClassVar[str] = "MoLE"
    sentence: ClassVar[str] = (
        "Adapters that were trained before are mixed, layer by layer, by gates that look at the "
        "prompt; the gates alone are trained and averaged"
    )
    kind: ClassVar[Kind] = Kind.LAYER
    paper: ClassVar[str] = "2404.13628"
    exact: ClassVar[str] = (
        "yes for gates, of which no product is combined; the mean of gates is not the mean of what "
        "they decide."
    )
    noise: ClassVar[str] = "in the gates, and in the weights that a softmax makes of them."
    up: ClassVar[str] = "64 K K out"
    down: ClassVar[str] = "64 K K out"

    balance_weight: BalanceWeight = Experts.balance_weight
    experts: Annotated[
        tuple[Word, ...] | None,
        About(
            "Folders of trained adapters in PEFT's format, made for this base model; two at least. "
            "Relative paths start at the current working directory."
        ),
    ] = None
    masked_experts: Annotated[
        tuple[Word, ...] | None,
        About("Those of `experts` that are left out; the others' weights grow in proportion."),
    ] = None

    gate_input: Annotated[
        GateInput,
        About(
            "What a gate reads: the experts' outputs, position by position (the paper); the input "
            "of the layer, position by position (the released code); or the mean of the outputs "
            "over the prompt, for which a gate is `gate_positions` times smaller."
        ),
    ] = Experts.gate_input
    gate_positions: Annotated[
        int,
        Ge(1),
        About(
            "The first so many positions of a prompt are read, and shorter prompts filled with "
            "zeros; nothing with `gate_input: mean`, which reads all."
        ),
    ] = Experts.positions
    granularity: Annotated[
        Granularity,
        About(
            "One gate for each transformer layer, for each block of it (attention, feed forward), "
            "or for each adapted matrix."
        ),
    ] = Experts.granularity

    def schedule(self, *, head: bool) -> Schedule:
        """Gates in every round."""
        return Constant(together({Role.GATE}, head))

    def adapter(self) -> Adapter:
        """Gates over no expert as yet: enough for a plan, and refused by every model.

        Raises:
            IncompatibleMethodError: for dropout.
        """
        return self._over(())

    def opened(self, base_model: str) -> Self:
        """With its experts read."""
        return self.over([load_expert(folder, base_model) for folder in self.experts or ()])

    def over(self, experts: Sequence[Expert]) -> Self:
        """The method over experts that are in memory."""
        return self.with_(adapter=self._over(experts))

    @classmethod
    def sample(cls, *, r: int, clients: int) -> Self:
        """With as many experts as clients."""
        return cls(r=r).over([Expert(str(i), {}) for i in range(clients)])

    def _over(self, experts: Sequence[Expert]) -> Experts:
        if self.lora_dropout:
            raise IncompatibleMethodError("experts are not trained: set lora_dropout to 0")
        return Experts(
            experts=tuple(experts),
            masked=self.masked_experts or (),
            balance_weight=self.balance_weight,
            gate_input=self.gate_input,
            positions=self.gate_positions,
            granularity=self.granularity,
        )
