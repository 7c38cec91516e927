"""Results: the adapters of a run, read back from their folders and scored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeVar

from silotune.adapters import OWN_WEIGHTS, check_saved, load_own, load_peft
from silotune.adapters.peft_io import WEIGHTS
from silotune.core import Answers, joined
from silotune.core.files import DamagedError
from silotune.data.chat_dates import pin_date
from silotune.data.client_tables import empty_notice
from silotune.data.columns import Columns
from silotune.data.given import Table, filled_table_of
from silotune.data.messages import listed
from silotune.data.table_reader import TableReader
from silotune.engine import evaluate as score_examples
from silotune.methods import MoLE
from silotune.objectives import find
from silotune.objectives.base import score_range
from silotune.privacy import NoDP
from silotune.runs.facts import read_facts
from silotune.runs.folder import RunFolder
from silotune.runs.lock import refuse_while_written
from silotune.runs.scored import Scored
from silotune.runs.standing import standing
from silotune.terms import BuiltModel, Terms, open_unproved

from . import own_records
from .built import build_federation
from .description import Description
from .inputs import TEST, examples_of
from .scoring import Scores, final_scores, score, scored
from .trained_models import ModelState, TrainedModels, own_adapter
from .written_texts import check_writes, writing, written

T = TypeVar("T")
Split = Literal["valid", "test"]
Generate = bool | int
"""Whether a model also writes texts; or of how many tokens at most."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores of a run's adapter, or of its silos' own ones together.

    Attributes:
        split: ``valid``: what rounds are scored on; ``test``: the records for the final figure.
        metrics: of all records together.
        scored: how many records these are, and how sure the figures; None if there are none.
        silos: of each silo's own records; only in a simulation.
        notes: why figures are not to be compared with the run's own, what of that is lost, and what
            was left out of a table.
    """

    split: Split
    metrics: Mapping[str, float]
    scored: Scored | None
    silos: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def evaluate(
    federation: Description,
    folder: RunFolder,
    split: Split | None,
    masked_experts: Sequence[str] = (),
    generate: Generate = False,
) -> Evaluation:
    """Load what the run has learned into its model and score it.

    Args:
        federation: that the run is of.
        folder: of a run that has an adapter, or one for each silo.
        split: None for ``test`` if there is such a part, else ``valid``.
        masked_experts: folders of experts that are left out of a mixture, beside those that the
            run itself left out.
        generate: also let the model write the target of each record, and score these texts: for
            as many tokens as a record may have, or so many at most. That is slow.

    Raises:
        ValueError: in words.
    """
    _check_generate(federation, generate)
    places = _places(folder)
    terms = _masked(federation.terms, masked_experts)
    # which need not find out how much noise there was
    without_noise = replace(terms.without_start(), privacy=NoDP())
    began = read_facts(folder).started
    built = build_federation(federation.with_terms(without_noise), began)
    _refuse_other_base(built.agreement.model, terms, folder)
    models = {silo: model_in(place, built.agreement.model) for silo, place in places.items()}
    learned = TrainedModels(shared=models.pop(None, None), own=_named(models))
    measure = writing(built, _most(generate)) if generate else None
    final = Scores() if split == "valid" else final_scores(built, learned, measure)
    if final.overall:
        of_silos = built.digests if final.silos else {}
        beside = {name: d for name, d in built.public_digests.items() if name == TEST}
        notes = _notes(folder, {**beside, **of_silos})
        return _evaluation("test", final, tuple(notes))
    at_home = any(silo.test is not None for silo in built.data.silos.values())
    if split == "test" and not (at_home and terms.evaluation == "site"):
        why = "; those of the silos are private under evaluation: public" if at_home else ""
        raise ValueError(f"splits.test: the data have no such part; score valid{why}")
    if terms.evaluation == "site":
        raise ValueError(
            f"evaluation: site keeps every score at its silo, in {folder.path}/sites; only a test "
            "part beside the silos could be scored here"
        )
    scores = score(built, learned, measure)
    notes = _notes(folder, {**built.public_digests, **built.digests})
    return _evaluation("valid", scores, tuple(notes))


def _evaluation(split: Split, scores: Scores, notes: tuple[str, ...]) -> Evaluation:
    return Evaluation(
        split=split,
        metrics=scores.overall,
        silos=scores.silos,
        scored=scores.scored,
        notes=notes,
    )


def evaluate_table(
    federation: Description, folder: RunFolder, table: Table, generate: Generate = False
) -> Evaluation:
    """Score what the run has learned on records that may be looked at.

    Args:
        federation: that the run is of.
        folder: of a run that has an adapter, or one for each silo.
        table: with the columns that the objective names; a record that is empty or without a label
            is left out, as notes tell.
        generate: as of ``evaluate``.

    Raises:
        ValueError: in words.
    """
    _check_generate(federation, generate)
    terms, objective = federation.terms, federation.terms.objective
    places = _places(folder)
    labels = tuple(read_facts(folder).labels)
    model = open_as_run(federation, folder)
    columns = Columns.of(objective.columns)
    files = federation.records.file_options(columns.image)
    own, names = filled_table_of(table, "table", files), federation.records.label_map
    target = find(objective.task).target
    within = score_range(objective)
    reader = TableReader(
        columns=columns, labels=labels, label_map=names, target=target, within=within
    )
    rows, _ = reader.filled(own, "the table")
    examples = None if rows is None else examples_of(terms, rows, model.loaded, "the table")
    if examples is None or not len(examples.lengths):
        raise ValueError("the table: no record can be scored: all are empty, or without a label")
    numbers = [model_in(place, model) for place in places.values()]
    size = federation.machine.eval_batch_size

    def answers_of(n: ModelState) -> Answers:
        if generate:
            return written(model, objective, n, examples, _most(generate))
        return score_examples(model.trainer.adapted, objective, n.factors, examples, size, n.folded)

    answers = joined(map(answers_of, numbers))
    found = scored("test", answers, len(examples.lengths))
    left_out = len(own) - len(examples.lengths)
    notes = (text,) if (text := empty_notice(left_out, "the table")) else ()
    return Evaluation(split="test", metrics=found.metrics, scored=found, notes=notes)


def _check_generate(federation: Description, generate: Generate) -> None:
    if generate is not False:
        check_writes(federation.terms.objective, _most(generate))


def _most(generate: Generate) -> int | None:
    """Tokens of a text; None = as many as a record may have."""
    return None if isinstance(generate, bool) else generate


def open_as_run(federation: Description, folder: RunFolder) -> BuiltModel:
    """The model of a run, with its own base weights.

    Args:
        federation: that the run is of.
        folder: of the run.

    Raises:
        ValueError: in words, also if the base is not the one that the run was trained beside.
    """
    terms, labels = federation.terms, tuple(read_facts(folder).labels)
    model = open_unproved(terms.without_start(), labels, federation.machine, federation.given)
    _refuse_other_base(model, terms, folder)
    pin_date(model.loaded.tokenizer, read_facts(folder).started)
    return model


def _refuse_other_base(model: BuiltModel, terms: Terms, folder: RunFolder) -> None:
    if model.digest == read_facts(folder).model_digest:
        return
    if getattr(terms.method, "experts", ()):
        raise ValueError(
            "experts: these are not the experts that the run was trained with, or not its base"
        )
    raise other_base(folder)


def other_base(folder: RunFolder) -> ValueError:
    """That a run was trained beside another base."""
    return ValueError(
        f"model: the base weights are not those that the run in {folder.path} was trained beside "
        "(their SHA-256 is another); put back the model that it names"
    )


def _notes(folder: RunFolder, digests: Mapping[str, str]) -> Iterator[str]:
    """Of records that are not the run's, as their owner knows, of lost rounds, of no end."""
    if changed := own_records.changed(folder, digests):
        yield (
            f"the records of {listed(changed)} are not those of the run, so that these figures and "
            "the run's own are not of the same records"
        )
    try:
        folder.read_rounds()
    except DamagedError as error:
        yield f"{error}; the figures are of the adapter, which is whole"
    if (stands := standing(folder, read_facts(folder))) != "finished":
        yield f"the run did not end by itself ({stands}); its own figures may be of another round"


def _masked(terms: Terms, experts: Sequence[str]) -> Terms:
    """The terms without some of a mixture's experts.

    Raises:
        ValueError: if one of them is none of the run's, or none would be left.
    """
    if not experts:
        return terms
    method = terms.method
    known = (method.experts or ()) if isinstance(method, MoLE) else ()
    if not isinstance(method, MoLE) or (set(experts) - set(known)):
        asked = min(set(experts) - set(known))
        raise ValueError(f"mask_expert: {asked} is not among experts of this run")
    masked = tuple(sorted({*experts, *(method.masked_experts or ())}))
    return replace(terms, method=replace(method, masked_experts=masked))


def adapter_of(folder: RunFolder, silo: str | None) -> Path:
    """Where the adapter is that somebody asks for.

    Args:
        folder: of a run.
        silo: whose own model it is; None for the one that all share.

    Raises:
        ValueError: if there is no run, it has no adapter yet, or none of that kind; if a run is
            going on there, or the adapter is damaged.
    """
    own = _places(folder)
    if None in own:
        if silo is not None:
            raise ValueError("client: one model serves all clients of this run; leave it out")
        return own[None]
    if silo not in own:
        why = "every client of this run has a model of its own"
        asked = why if silo is None else f"there is no client {silo!r}"
        raise ValueError(f"client: {asked}; choose one of {', '.join(sorted(_named(own)))}")
    return own[silo]


def _places(folder: RunFolder) -> dict[str | None, Path]:
    """Where the adapters are: of every silo, or of None, which all share.

    Raises:
        FolderInUse: if a run is writing them.
        DamagedError: if one cannot be read.
        ValueError: if there are none yet.
    """
    refuse_while_written(folder)
    places: dict[str | None, Path] = dict(own_adapters(folder).items())
    if not places:
        places[None] = shared_adapter(folder)
    with folder.advising():
        for place in places.values():
            check_saved(place)
    return places


def _named(found: Mapping[str | None, T]) -> dict[str, T]:
    return {silo: one for silo, one in found.items() if silo is not None}


def own_adapters(folder: RunFolder) -> dict[str, Path]:
    """The adapters of the silos' own models; empty where one model serves all.

    Raises:
        RecordError: if there is no run.
    """
    RunFolder.existing(folder.path)
    places = {silo: own_adapter(folder, silo) for silo in read_facts(folder).silos}
    return places if all(map(_holds_adapter, places.values())) else {}


def shared_adapter(folder: RunFolder) -> Path:
    """The adapter that all silos share.

    Raises:
        ValueError: if the run has none yet.
    """
    if not _holds_adapter(folder.adapter):
        lost = read_facts(folder).status == "finished"
        what = f"{folder.adapter / WEIGHTS} is missing" if lost else "it has no adapter yet"
        raise ValueError(f"{folder.path}: {what}; resume the run (--resume), which writes it")
    return folder.adapter


def model_in(place: Path, model: BuiltModel) -> ModelState:
    """The numbers in an adapter folder.

    Args:
        place: ``adapter/``, of the run or of a silo.
        model: that it was made for.

    Raises:
        ValueError: if they do not fit the model.
    """
    shapes = {key: tuple(t.shape) for key, t in model.first.items()}
    if model.axes.adapter and not model.axes.adapter.fits_peft:
        return ModelState(factors=load_own(place, shapes))
    layout = model.layout
    factors, folded = load_peft(
        place,
        shapes,
        model.axes.adapter,
        layout.head_scale,
        layout.beside,
        layout.target_parameters,
        model.sites,
    )
    if model.axes.adapter:
        folded = dict(model.axes.adapter.out_of_base(model.sites, folded))
    return ModelState(factors=factors, folded=folded)


def _holds_adapter(place: Path) -> bool:
    """In PEFT's format or in our own."""
    return (place / WEIGHTS).is_file() or (place / OWN_WEIGHTS).is_file()
