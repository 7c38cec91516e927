"""Opening: a run's folder is made, or found again, when everything else is in order.

With its checkpoint a run has begun: whatever else a start that was cut short has left out is
written when it is resumed (``keeping``). One process at a time has the folder.
"""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from silotune.certificate.issue import standing
from silotune.core import ClientId, GlobalState
from silotune.engine import Client, Runtime
from silotune.engine.checkpoint import CheckpointError
from silotune.engine.checkpoint import load as load_checkpoint
from silotune.engine.checkpoint import save as save_checkpoint
from silotune.models.hub import files_digest
from silotune.runs.facts import RunFacts, read_facts
from silotune.runs.folder import RunFolder
from silotune.runs.lock import held
from silotune.runs.unheard import Unheard
from silotune.runtimes import Courier, Crowds, InProcess, Remote
from silotune.terms import Agreement

from . import own_records
from .acceptance import Tell
from .adapter_check import refuse_unloadable
from .at_sites import AtSites
from .beside_sites import offer_out
from .bookkeeping import Bookkeeping, Followed, ledgers_here, refuse_spent
from .built import BuiltFederation, build_clients, build_federation, now
from .description import Description
from .free_space import free_space
from .identity import NoIdentityError, decided_in, describe, differences, digest
from .inputs import digests_of, public_digests_of, read_tables
from .keeping import is_whole, kept, restored, truncate_rounds, write_kept
from .lifetimes import Accounts, open_accounts, refuse_beyond, refuse_other_record
from .lifetimes import notices as lifetime_notices
from .micro_batch import found, recalled
from .observed import Observed
from .remembering import remembering
from .scoring import Measure, Scores, here, metric_name
from .versions import going_on, versions
from .versions import notices as version_notices
from .workers import Workers, refuse_unreachable, starting

_LOG = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False)
class OpenRun:
    """A run that is ready to go on. When a site joins late, ``built`` and ``facts`` are others.

    Attributes:
        built: its parts.
        folder: its result folder.
        state: where it stands.
        facts: what ``run.json`` says.
        books: every account's ledger, and the run's copy of all.
        runtime: where its silos train.
        accounts: of its silos in their book for life; empty where none is kept.
        keep: what its checkpoints keep of the files beside them.
        sites: its clients, where they are elsewhere; None if they are here.
        workers: the processes that train and score; None where this one does.
        scored: the round of the state that was scored last, and what was found; None if this
            process has scored none.
    """

    built: BuiltFederation
    folder: RunFolder
    state: GlobalState
    facts: RunFacts
    books: Bookkeeping
    runtime: Runtime
    accounts: Accounts
    keep: Mapping[str, str]
    sites: AtSites | None = None
    workers: Workers | None = None
    scored: tuple[int, Scores] | None = None

    @property
    def measure(self) -> Measure:
        """Scores what may be scored, where the run computes."""
        return self.workers.measure if self.workers else here(self.built)


@contextlib.contextmanager
def opened(
    federation: Description,
    path: Path,
    command: Sequence[str] = (),
    *,
    resume: bool,
    config: str | None = None,
    worker: Sequence[str] = (),
    courier: Courier | None = None,
    tell: Tell = _LOG.info,
) -> Iterator[OpenRun]:
    """Open a run, new or to be resumed; nothing has been trained yet.

    Args:
        federation: what is to run.
        path: of the result folder.
        command: the command line, for the record.
        resume: continue from the folder's checkpoint.
        config: the configuration file that it was described in, to be kept beside the result.
        worker: the command that starts a worker, without the folder.
        courier: the way to clients that are sites.
        tell: takes news while sites are waited for.

    Raises:
        ValueError: in words; a new run's folder is made only when everything else is in order.
    """
    if federation.in_workers:
        refuse_unreachable(describe(federation))
    folder = RunFolder(path)
    if resume and not folder.state.is_file() and offer_out(folder) is None:
        RunFolder.existing(path)  # refuses in words, and makes no folder
    with contextlib.ExitStack() as stack:
        stack.enter_context(held(folder))
        resume = resume and offer_out(folder) is None  # what has not begun begins
        told = _ready(federation, folder, resume=resume)
        run, began = _identity(folder, resume=resume)
        sites = None
        if federation.records.elsewhere:
            observed = Observed(_needed(courier), folder, federation, run, began)
            sites = AtSites(federation, folder, observed, run, began, tell)
        start = None
        if federation.in_workers:
            start = stack.enter_context(starting(federation, worker, folder.path, run, began))
        computing = recalled(federation, folder) if resume else federation
        built = build_federation(computing, began, sites.declare if sites else None)
        accounts = open_accounts(built)
        refuse_beyond(accounts, folder.site, run if resume else "")
        notices = (*built.notices, *lifetime_notices(accounts), *told)
        built = replace(built, federation=federation, notices=notices)
        if resume:
            state, facts, before = _found(built, folder)
        else:
            state, facts, before = _begun(built, folder, run, began, command=command, config=config)
        built = remembering(built, folder.site, folder.state.parent)
        for name in () if sites else built.agreement.sizes:
            folder.site(name).mkdir(parents=True, exist_ok=True)
        runtime: Runtime
        workers = start(built.agreement.planned) if start else None
        if sites:
            runtime = sites.begin(built.agreement, state.round)
        elif workers:
            names = [ClientId(name) for name in built.agreement.sizes]
            runtime = Remote(workers.courier, names, federation.round_deadline)
        else:
            clients = build_clients(built, folder.site, run, accounts)
            runtime = _here(built, clients)
        ledgers: Mapping[str, Followed] = ledgers_here(built.agreement, folder)
        if sites and built.terms.unit != "client":
            ledgers = sites.ledgers
        books = Bookkeeping(built.agreement, folder, run, ledgers)
        keep = before
        if resume:
            facts, keep = _going_on(built, folder, state, facts, books, before, config=config)
        built = replace(built, notices=(*built.notices, *version_notices(facts, state.round)))
        yield OpenRun(
            built=built,
            folder=folder,
            state=state,
            facts=facts,
            books=books,
            runtime=runtime,
            accounts=accounts,
            keep=keep,
            sites=sites,
            workers=workers,
        )


def _here(built: BuiltFederation, clients: Mapping[ClientId, Client]) -> Runtime:
    trainer, at_once = built.agreement.model.trainer, built.federation.machine.crowd
    return InProcess(trainer, clients) if at_once == 1 else Crowds(trainer, clients, at_once)


def _identity(folder: RunFolder, *, resume: bool) -> tuple[str, str]:
    """Name of the run, and when it began: a new one, one that has begun, or one on offer."""
    if resume:
        facts = read_facts(folder)
        return facts.run, facts.started
    return offer_out(folder) or (uuid.uuid4().hex[:12], now())


def _needed(courier: Courier | None) -> Courier:
    if courier is None:
        raise ValueError(
            "courier: these clients are at their sites, and nothing says how to reach them; give a "
            "courier, or run it with silotune run (runtime: folder, or nvflare)"
        )
    return courier


def is_finished(folder: RunFolder, federation: Description) -> bool:
    """Whether nothing is left to do for this federation, and all of the result is whole.

    Raises:
        ValueError: if all is done, but with other records.
    """
    if not folder.run.is_file():
        return False
    facts = read_facts(folder)
    if facts.status != "finished" or facts.config_digest != identity(federation):
        return False
    check_records(federation, folder)
    if folder.unheard.is_file() and Unheard(folder.unheard).silent():
        return False  # whoever is back is asked again
    return is_whole(folder, federation.terms.rounds, described=bool(facts.config_digest))


def identity(federation: Description) -> str:
    """The digest of what decides a run; empty where that cannot be told."""
    try:
        return digest(federation)
    except NoIdentityError:
        return ""


def _ready(federation: Description, folder: RunFolder, *, resume: bool) -> list[str]:
    """Refuse early what cannot work: a run in the way, another one's folder, a full disk.

    What is damaged of a run that is resumed is written again, as the result tells.
    """
    told = []
    if resume:
        told = restored(folder)[1]
        check_same(federation, folder)
        refuse_other_record(federation, folder)
    else:
        if not folder.state.exists() and not folder.run.exists():
            refuse_spent(folder)
        RunFolder.create(folder.path)
    free_space(folder.path)
    return told


def check_same(federation: Description, folder: RunFolder) -> None:
    """That a folder's run is one of this federation.

    Raises:
        ValueError: naming every field that differs, or the object by which nobody can tell.
    """
    now_described = describe(federation)
    if not folder.description.is_file():
        return
    with folder.advising():
        differ = differences(decided_in(folder.description), now_described)
    if differ:
        raise ValueError(
            f"resume: {folder.path} holds a run of another federation: {'; '.join(differ)}. Give "
            "the same one, or another folder"
        )


def check_records(federation: Description, folder: RunFolder) -> None:
    """That a folder's run is of the tables that lie in memory; others are told by their path.

    Raises:
        ValueError: naming a client that has other records.
    """
    if federation.records.in_memory:
        prepared = read_tables(federation.terms, federation.records)
        own_records.check(folder, {**digests_of(prepared), **public_digests_of(prepared)})


def _begun(
    built: BuiltFederation,
    folder: RunFolder,
    run: str,
    began: str,
    *,
    command: Sequence[str],
    config: str | None,
) -> tuple[GlobalState, RunFacts, Mapping[str, str]]:
    """Begin a run, whose folder holds none; if that fails, nothing is left of it."""
    adapter_check = refuse_unloadable(built.agreement.model, built.terms)
    state = built.agreement.first_state()
    facts = replace(_facts(built, run, command), started=began, adapter_check=adapter_check)
    keep = kept(facts, built.federation, config)
    try:
        digests = {**built.digests, **built.public_digests}
        own_records.keep(folder, digests, built.data.own_notices)
        save_checkpoint(folder.state, state, facts.run, facts.config_digest, keep)
        write_kept(folder, keep)
        folder.ledger.touch()
    except BaseException:
        _take_back(folder)
        raise
    return state, facts, keep


def _take_back(folder: RunFolder) -> None:
    """Remove what a start has written that failed; nothing of it was there before."""
    for file in folder.own_files():
        file.unlink(missing_ok=True)
    own_records.forget(folder)
    with contextlib.suppress(OSError):  # somebody else keeps something there
        folder.checkpoint.rmdir()


def _found(
    built: BuiltFederation, folder: RunFolder
) -> tuple[GlobalState, RunFacts, Mapping[str, str]]:
    """Where a run stands: by its checkpoint, if that is of this run and this base."""
    state, run, decided, before = load_checkpoint(folder.state)
    facts = read_facts(folder)
    if run != facts.run or decided != digest(built.federation):
        raise CheckpointError(f"{folder.checkpoint}: the checkpoint belongs to another run")
    if facts.model_digest != built.agreement.model.digest:
        field = "experts" if getattr(built.terms.method, "experts", ()) else "model"
        raise CheckpointError(f"{field}: the base weights are not those of this run")
    if facts.start_digest != built.agreement.model.start:
        raise CheckpointError(
            "init_from: this is not the adapter that the run began from (its SHA-256 is another)"
        )
    return state, facts, before


def _going_on(
    built: BuiltFederation,
    folder: RunFolder,
    state: GlobalState,
    facts: RunFacts,
    books: Bookkeeping,
    before: Mapping[str, str],
    *,
    config: str | None,
) -> tuple[RunFacts, Mapping[str, str]]:
    """Go on from the checkpoint, if no account has lost a charge. Nothing is trained before."""
    books.check(state, facts)
    own_records.check(folder, {**built.digests, **built.public_digests})
    books.collect()
    truncate_rounds(folder, state.round)
    silos = silos_of(built.agreement)  # one may have joined after the file was kept
    facts = going_on(replace(facts, status="running", finished=None, silos=silos), state.round)
    keep = {**before, **kept(facts, built.federation, config)}  # what it runs beside may change
    write_kept(folder, keep)
    return facts, keep


def silos_of(agreement: Agreement) -> dict[str, dict[str, int]]:
    """What ``run.json`` says of each silo."""
    return {name: {"num_examples": size} for name, size in agreement.sizes.items()}


def _facts(built: BuiltFederation, run: str, command: Sequence[str]) -> RunFacts:
    terms, model = built.terms, built.agreement.model
    return RunFacts(
        run=run,
        started=now(),
        status="running",
        privacy=standing(terms),
        seed=terms.seed,
        optimizer=terms.moved_by,
        metric=metric_name(terms),
        versions=versions(),
        config_digest=identity(built.federation),
        model_digest=model.digest,
        base_files="" if built.federation.given else files_digest(terms.model),
        start_digest=model.start,
        parameters={"trained": model.trained, "shared": model.shared, "total": model.total},
        command=list(command),
        host={
            "device": str(built.federation.machine.torch_device()),
            "threads": torch.get_num_threads(),
            "products": terms.products,
            "prefix_cache": built.federation.machine.prefix_cache,
            "crowd": built.federation.machine.crowd,
            **found(model),
        },
        chosen=list(built.federation.reasons),
        silos=silos_of(built.agreement),
        labels=list(built.agreement.labels),
    )
