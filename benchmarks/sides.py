"""A round's three sides: the engine, its bare gradients and steps, and the usual loop.

All train on the same batches, drawn before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from opacus import GradSampleModule
from torch import Tensor, nn

from silotune.adapters import AdaptedModel
from silotune.core import Batch, ClientId, Factors, GlobalState, Key, PerExampleGradients
from silotune.engine import Client, ClientAgreement, Experiment, LocalTrainer, Round, federate
from silotune.engine.batches import microbatches, pass_tokens
from silotune.methods import FFALoRA
from silotune.objectives import SequenceClassification
from silotune.optim import SGD
from silotune.privacy import AnyCharge, ExampleLevel, NoiseState, PrivacyBudget, RoundRandomness
from silotune.privacy.mechanisms.clipping import Losses
from silotune.runtimes import InProcess

from .measure import Clock
from .peers import LORA, Case, dp_optimizer, mechanism, peft_model, usual_step
from .records import Drawn

MICRO_BATCH = 32  # the default of train.per_device_train_batch_size


@dataclass(frozen=True, eq=False)
class Replay:
    """A mechanism that trains on known batches and notes how long each gradient takes.

    Attributes:
        mechanism: does all else.
        drawn: the batches of every round.
        clock: for ``spent``.
        spent: seconds of every gradient so far: forward, backward, clipping, noise.
    """

    mechanism: ExampleLevel
    drawn: Sequence[Sequence[int]]
    clock: Clock
    spent: list[float] = field(default_factory=list)

    @property
    def private(self) -> bool:
        """As the mechanism."""
        return self.mechanism.private

    @property
    def max_grad_norm(self) -> float:
        """As the mechanism."""
        return self.mechanism.max_grad_norm

    def draws(self, seed: int, past: NoiseState | None) -> RoundRandomness:
        """As the mechanism."""
        return self.mechanism.draws(seed, past)

    def batches(self, records: int, steps: int, draws: RoundRandomness) -> Iterator[Sequence[int]]:
        """The known ones; coins are thrown all the same, since they take time."""
        fresh = self.mechanism.batches(records, steps, draws)
        return (known for known, _ in zip(self.drawn, fresh, strict=True))

    def gradients(
        self,
        tensors: Mapping[Key, nn.Parameter],
        sink: PerExampleGradients,
        losses: Losses,
        micro_batches: Iterable[Batch],
        draws: RoundRandomness,
    ) -> int:
        """As the mechanism; the batches are made before the clock starts."""
        ready = list(micro_batches)
        start = self.clock()
        dropped = self.mechanism.gradients(tensors, sink, losses, ready, draws)
        self.spent.append(self.clock() - start)
        return dropped

    def charge(self, steps: int) -> AnyCharge:
        """As the mechanism."""
        return self.mechanism.charge(steps)


def our_rounds(
    case: Case, adapted: AdaptedModel, replays: Sequence[tuple[Drawn, Replay]], home: Path
) -> Iterator[Round]:
    """The engine's rounds, one after another, ledgers and budgets included."""
    axes = FFALoRA(r=LORA.rank, lora_alpha=LORA.alpha).axes(SGD(lr=case.learning_rate), head=False)
    first = adapted.extract()
    silos = {
        client: Client(
            client=client,
            train=drawn.examples,
            held_out=None,
            privacy=replay,
            home=home / client,
            budget=PrivacyBudget(epsilon=6.0, delta=1e-5),
        )
        for i, (drawn, replay) in enumerate(replays)
        for client in [ClientId(f"silo-{i}")]
    }
    trainer = LocalTrainer(
        adapted=adapted,
        objective=SequenceClassification(text="text", label="label"),
        optimizer=axes.optimizer,
        draw=lambda _: first,
        gain=axes.gain,
        micro_batch=MICRO_BATCH,
    )
    experiment = Experiment(
        run="benchmark",
        axes=axes,
        weights=dict.fromkeys(silos, 1.0),
        rounds=1000,
        local_steps=dict.fromkeys(silos, len(replays[0][1].drawn)),
        seed=0,
        draw=lambda _: first,
        quorum=len(silos),
        private=True,
    )
    agreed = {
        client: replace(silo, agreement=_agreement(silo, experiment, first))
        for client, silo in silos.items()
    }
    return federate(experiment, InProcess(trainer, agreed), GlobalState(round=0, factors=first))


def _agreement(silo: Client, experiment: Experiment, first: Factors) -> ClientAgreement:
    """A silo that hides something obeys what was agreed, and nothing else."""
    return ClientAgreement(
        client=silo.client,
        experiment=experiment,
        first=first,
        base="",
        start="",
        mechanism=repr(silo.privacy),
        clips=True,
        scored=bool,
    )


def bare_steps(case: Case, adapted: AdaptedModel, one: Drawn) -> Callable[[], None]:
    """The same gradients and steps, on batches that are ready."""
    examples, objective = one.examples, SequenceClassification(text="text", label="label")
    privacy = mechanism(case, records=len(examples.lengths))
    tensors = {k: p for k, p in adapted.tensors.items() if p.requires_grad}
    optimizer = SGD(lr=case.learning_rate).build(tensors, case.learning_rate)
    batches = [
        [
            examples.batch(part)
            for part in microbatches(rows, examples.lengths, MICRO_BATCH, pass_tokens(adapted))
        ]
        for rows in one.batches
    ]

    def losses(batch: Batch) -> Tensor:
        return objective.losses(adapted.model, batch)

    def run() -> None:
        draws = privacy.draws(0, None)
        for micro_batches in batches:
            optimizer.zero_grad()
            privacy.gradients(tensors, adapted.sink, losses, micro_batches, draws)
            optimizer.step()

    return run


def usual_round(case: Case, many: Sequence[Drawn]) -> Callable[[], None]:
    """Load, train, average: PEFT with Opacus' hooks, batches padded to their longest record."""
    model, tensors = peft_model(case)
    hooked = GradSampleModule(model)
    state = {key: p.detach().clone() for key, p in tensors.items()}

    def train(silo: Drawn) -> dict[Key, Tensor]:
        for key, parameter in tensors.items():
            parameter.data.copy_(state[key])
        optimizer = dp_optimizer(tensors, case)
        for rows in silo.batches:
            usual_step(hooked, optimizer, silo.examples.batch(rows))
        return {key: p.detach().clone() for key, p in tensors.items()}

    def run() -> None:
        updates = [train(silo) for silo in many]
        for key in state:
            state[key] = torch.stack([update[key] for update in updates]).mean(dim=0)

    return run
