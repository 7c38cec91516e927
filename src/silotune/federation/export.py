"""Export: a run's adapter for use elsewhere, by itself or merged into the whole model."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from silotune.adapters import OWN_WEIGHTS, Estimate
from silotune.adapters.merge_error import MergeError
from silotune.adapters.peft_io import read_files
from silotune.certificate.guarantee import guarantee, warning
from silotune.core.files import write_text
from silotune.models.hub import files_digest
from silotune.models.load import quiet
from silotune.models.originals import restore
from silotune.models.pooling import MeanPooledClassifier
from silotune.models.sentence import write_sentence_files
from silotune.objectives import find
from silotune.objectives.base import source_prefix
from silotune.objectives.embeddings import pooling_of
from silotune.objectives.registry import told_pooling
from silotune.reports.model_card import OWN
from silotune.reports.usage import merged_program
from silotune.runs.facts import read_facts
from silotune.runs.folder import RunFolder
from silotune.runs.privacy_statement import PrivacyStatement, read_statement
from silotune.terms import Terms

from .description import Description
from .merging import merged_whole, refuse_hidden, training_batches, unit_head
from .new_folder import new_folder
from .results import adapter_of, model_in, open_as_run, other_base


def export_peft(folder: RunFolder, output: Path, silo: str | None = None) -> str:
    """Copy an adapter and its card. No model is opened; the files of the base are compared.

    Args:
        folder: of a finished run.
        output: a new folder.
        silo: whose own adapter; None for the one that all share.

    Returns:
        Whether the base was compared, in words.

    Raises:
        ValueError: if there is no such adapter, the base on this machine is not the run's, or
            ``output`` is in use.
    """
    place = adapter_of(folder, silo)
    _refuse_own(place, "format: peft", "PEFT does not know it")
    compared = _same_base(folder, place)
    with new_folder(output) as draft:
        shutil.copytree(place, draft, dirs_exist_ok=True)
    return compared


def export_merged(
    federation: Description,
    folder: RunFolder,
    output: Path,
    silo: str | None = None,
    *,
    approximate: Estimate | None = None,
) -> MergeError:
    """Write the whole model with adapters and heads merged in, as transformers reads it.

    Tokenizer or image processor and configuration are the base's own.

    Args:
        federation: that the run is of.
        folder: of a finished run.
        output: a new folder.
        silo: whose own adapter; None for the one that all share.
        approximate: what ResLoRA's shortcuts, which no weight computes, are estimated by
            (``adapters.straightening``): weights, or what layers read of training records. What
            the result does is not what the run has scored.

    Returns:
        What was lost by merging, which the folder's README says as well.

    Raises:
        ValueError: if there is no such adapter, it does not fit, the base is not the run's, nothing
            can be merged or there is nothing to estimate, ``output`` is in use, or the records that
            an estimate reads are hidden by privacy or at sites.
    """
    place, terms = adapter_of(folder, silo), federation.terms
    statement = read_statement(folder)
    adapter = terms.axes(head=terms.trains_head).adapter
    estimable = adapter is not None and adapter.estimable
    if not estimable or approximate is None:
        _refuse_own(place, "format: merged", NO_WEIGHT + ESTIMABLE * estimable)
    if not estimable and approximate is not None:
        raise ValueError(
            "approximate: this run's adapter can be merged as it is, with nothing to estimate; "
            "leave it out"
        )
    if approximate is Estimate.INPUTS:
        refuse_hidden(terms)
    with quiet(), new_folder(output) as draft:
        model = open_as_run(federation, folder)
        numbers = model_in(place, model)
        reads = approximate is Estimate.INPUTS
        batches = training_batches(federation, model, silo) if reads else None
        whole, error = merged_whole(terms, model, numbers, estimate=approximate, batches=batches)
        _save(whole, draft)
        added = restore(draft, model.loaded, terms.model, federation.given)
        notes = [
            *([_estimated(approximate)] if approximate else []),
            *([f"**Added.** {added}."] if added else []),
        ]
        folded = unit_head(terms.objective, model.loaded.heads) is not None
        pooling = told_pooling(terms.objective, whole)
        if find(terms.objective.task).embeds:
            vectors = pooling_of(whole, pooling), whole.config.hidden_size
            write_sentence_files(draft, *vectors, terms.objective.max_length)
        text = _readme(
            statement,
            terms,
            error,
            notes,
            own=silo is not None,
            pooling=pooling,
            standardised=not folded,
        )
        write_text(draft / "README.md", text)
        if folder.privacy.exists():
            shutil.copy(folder.privacy, draft / folder.privacy.name)
        return error


def merged(federation: Description, folder: RunFolder, silo: str | None = None) -> Any:
    """The whole model with adapters and heads merged in; warns if much was lost by it.

    Args:
        federation: that the run is of.
        folder: of a finished run.
        silo: whose own adapter; None for the one that all share.

    Raises:
        ValueError: if there is no such adapter, or nothing can be merged.
    """
    place = adapter_of(folder, silo)
    _refuse_own(place, "merged_model", NO_WEIGHT)
    model = open_as_run(federation, folder)
    whole, error = merged_whole(federation.terms, model, model_in(place, model))
    if error.is_notable:
        warnings.warn(f"merged_model: {error}", stacklevel=3)
    return whole


def _same_base(folder: RunFolder, place: Path) -> str:
    """Compare the files of the base that an adapter names with those of the run."""
    _, config = read_files(place)
    name = str(config.get("base_model_name_or_path") or "")
    then, now = read_facts(folder).base_files, files_digest(name)
    if not then:
        return f"{name} was not compared: run.json does not know its files"
    if not now:
        return f"{name} was not compared: it is not on this machine"
    if then != now:
        raise other_base(folder)
    return f"base: {name} on this machine has the same files as in the run"


def _refuse_own(place: Path, key: str, why: str) -> None:
    """What is in our own format stays in it."""
    if (place / OWN_WEIGHTS).is_file():
        raise ValueError(
            f"{key}: what this run's adapter adds to a layer differs from record to record, or "
            f"with what other layers read, and {why}; use it in Python, with silotune.load, which "
            f"also takes a copy of {place}"
        )


def _save(whole: Any, folder: Path) -> None:
    """Write in transformers' format; a classifier of ours beside its encoder."""
    if isinstance(whole, MeanPooledClassifier):
        save_file(whole.classifier.state_dict(), folder / "classifier.safetensors")
        whole = whole.encoder
    whole.save_pretrained(folder)


def _readme(
    statement: PrivacyStatement | None,
    terms: Terms,
    error: MergeError,
    notes: Sequence[str],
    *,
    own: bool,
    pooling: str,
    standardised: bool,
) -> str:
    rows = [f"- **{term}.** {text}" for term, text in guarantee(statement)] if statement else []
    alarm = [f"**No differential privacy.** {warning(statement)}"] if warning(statement) else []
    base = terms.model
    objective = terms.objective
    code = merged_program(
        objective.task,
        pooling,
        objective.max_length,
        objective.columns,
        objective.constants,
        standardised=standardised,
        source_prefix=source_prefix(objective),
    )
    parts = [
        f"# {Path(base).name} with its adapter merged in",
        f"{base}, fine-tuned by silotune with {terms.method.label} and merged.",
        *notes,
        f"## Use\n\n```python\n{code}```",
        f"## Accuracy\n\n{str(error).capitalize()}.",
        "\n\n".join(
            ["## Privacy", *([OWN] if own else []), *alarm, *(["\n".join(rows)] if rows else [])]
        ),
    ]
    return "\n\n".join(parts) + "\n"


NO_WEIGHT = "no single weight could be added instead"
ESTIMABLE = " (its shortcuts can be estimated: --format merged --approximate weights)"


def _estimated(by: Estimate) -> str:
    """What to know of a model whose shortcuts were estimated."""
    what = "of the weights" if by is Estimate.WEIGHTS else "of what layers read of training records"
    return (
        "**Approximate.** Shortcuts between layers cannot be merged; an estimate from the norms "
        f"{what} stands in their place (arXiv 2402.18039). The run's scores are not this model's."
    )
