"""Remembering: which records are kept with what the frozen prefix makes of them, and where.

Those that come again: what rounds are scored on, and what is trained on if each record is expected
to be drawn twice or more, or five times where each is computed alone. What is decided here follows
from public numbers and the model: a record that is fed has other last digits, so that no record may
decide whether others are. Where nobody is hidden, ``auto`` sees how long records are; so it does of
those that a simulation scores, whose scores it tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from silotune.core import ClientDataset
from silotune.engine.prefix_check import PrefixFit
from silotune.engine.remembered import Remembered, in_folder, in_memory
from silotune.terms.opening import prefix_fit

from .built import BuiltFederation
from .inputs import ReadData, SiloExamples

MOST_BYTES = 1_000_000_000
"""That ``auto`` keeps in the memory of one process, as far as is known in public."""

OFTEN = 2.0
"""How often a record is used in all, from which on it is remembered: half of its passes or more."""

OFTEN_ALONE = 5.0
"""The same of records that are computed alone, which takes four times as long on short texts."""


def remembering(
    built: BuiltFederation, home: Callable[[str], Path], beside: Path, *, insist: bool = True
) -> BuiltFederation:
    """The same federation, its data remembering where that pays and fits the model.

    Nothing is computed before records are used, but the check on made-up ones.

    Args:
        built: with its data and model opened.
        home: the folder of each silo for this run.
        beside: a folder for what belongs to no silo.
        insist: whether what is asked for and cannot be is an error, and not only a notice: a
            site's file is written before anybody knows the models.

    Raises:
        ValueError: if ``prefix_cache`` asks for what the model cannot do.
    """
    asked = built.federation.machine.prefix_cache
    if asked == "off" or (asked == "auto" and not _worth(built)):
        return built
    fit = prefix_fit(built.agreement.model, built.terms)
    if fit.refused and asked != "auto" and insist:
        raise ValueError(
            f"prefix_cache: cannot be {asked} with this model: {fit.refused}; set it to off"
        )
    if fit.refused:
        told = f"prefix_cache: off, since of this model nothing can be remembered: {fit.refused}"
        return replace(built, notices=(*built.notices, told))
    memory = _Memory(built, fit)
    data = built.data
    silos = data.silos  # what is trained on comes first, so that no scored record decides of it
    silos = {name: memory.trained(name, silo, home(name)) for name, silo in silos.items()}
    silos = {name: memory.watched(name, silo, home(name)) for name, silo in silos.items()}
    valid = memory.scored(data.valid, beside)
    test = memory.scored(data.test, beside) if _tests_each_round(data) else data.test
    told = (
        f"prefix_cache: what would take more than {MOST_BYTES // 10**9} GB of memory is computed "
        "again each time; set it to disk or memory to keep all"
    )
    return replace(
        built,
        data=replace(data, silos=silos, valid=valid, test=test),
        notices=(*built.notices, told) if memory.full else built.notices,
    )


class _Memory:
    """What is kept so far."""

    def __init__(self, built: BuiltFederation, fit: PrefixFit) -> None:
        self._built, self._fit = built, fit
        self._bytes = 0
        self.full = False

    def trained(self, name: str, examples: SiloExamples, home: Path) -> SiloExamples:
        """With what one silo trains on."""
        built, trainer = self._built, self._built.agreement.model.trainer
        train, alone = examples.train, built.terms.unit == "example"
        if _pays(built, name) or built.federation.machine.prefix_cache != "auto":
            hidden = name if built.agreement.terms.private else ""
            train = self._kept(train, 1 if alone else trainer.micro_batch, home, hidden)
        return replace(examples, train=train)

    def watched(self, name: str, examples: SiloExamples, home: Path) -> SiloExamples:
        """With what one silo is scored on."""
        built = self._built
        only = built.data.valid is None and built.data.test is None and examples.held_out is None
        return replace(
            examples,
            held_out=self.scored(examples.held_out, home, name),
            test=self.scored(examples.test, home, name) if only else examples.test,
        )

    def scored(
        self, examples: ClientDataset | None, folder: Path, silo: str = ""
    ) -> ClientDataset | None:
        """Records that rounds are scored on; a silo's own, if it is named."""
        built, trainer = self._built, self._built.agreement.model.trainer
        if examples is None or _scorings(built) < OFTEN:
            return examples
        together = trainer.eval_batch
        if silo and built.terms.privacy.metric_noise is not None:
            together = min(together, trainer.micro_batch)  # as they are scored
        seen = built.terms.evaluation == "simulation" or not built.agreement.terms.private
        return self._kept(examples, together, folder, "" if seen else silo)

    def _kept(
        self, examples: ClientDataset, together: int, folder: Path, hidden: str
    ) -> ClientDataset:
        """Remembered, if there is room.

        Args:
            examples: which.
            together: how many of them are computed at once.
            folder: for those that go on the disk.
            hidden: the silo whose records nobody may see, whatever is decided; empty for none.
        """
        trainer, asked = self._built.agreement.model.trainer, self._built.federation.machine
        if asked.prefix_cache == "auto":
            needed = self._needed(examples, hidden)
            if self._bytes + needed > MOST_BYTES:
                self.full = True
                return examples
            self._bytes += needed
        keep = in_folder(folder) if asked.prefix_cache == "disk" else in_memory
        return Remembered(examples, trainer.adapted, trainer.objective, together, keep)

    def _needed(self, examples: ClientDataset, hidden: str) -> int:
        """Bytes; of a silo that is hidden those of the declared number, of full length."""
        agreement = self._built.agreement
        if not hidden:
            return self._fit.bytes_of(examples.lengths)
        longest = agreement.terms.objective.max_length
        return agreement.sizes[hidden] * self._fit.bytes_of([longest])


def _worth(built: BuiltFederation) -> bool:
    """Whether anything comes again, above a layer that is not adapted."""
    if built.agreement.model.trainer.adapted.prefix is None:
        return False
    return _scorings(built) >= OFTEN or any(_pays(built, name) for name in built.data.silos)


def _scorings(built: BuiltFederation) -> int:
    """How often a record that rounds are scored on is scored."""
    rounds = range(1, built.terms.rounds + 1)
    return 1 + sum(built.terms.scored(finished) for finished in rounds)


def _pays(built: BuiltFederation, silo: str) -> bool:
    """Whether training records are expected to be drawn often, in the run and in its baselines."""
    terms, sizes = built.terms, built.agreement.sizes
    steps = terms.training_of(len(sizes)).rounds * terms.steps_of(sizes[silo])
    runs = 1 + len(built.federation.baselines)
    uses = runs * steps * terms.batch_size / sizes[silo]
    return uses >= (OFTEN_ALONE if terms.unit == "example" else OFTEN)


def _tests_each_round(data: ReadData) -> bool:
    """Whether the records for the final figure are what rounds are scored on as well."""
    return data.valid is None and not any(_held_out(data))


def _held_out(data: ReadData) -> Iterator[bool]:
    return (silo.held_out is not None for silo in data.silos.values())
