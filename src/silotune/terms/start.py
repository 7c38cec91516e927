"""Start: the adapter that a run begins from (``init_from``), found, compared and read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from silotune.adapters import Adapter, start
from silotune.adapters.native_io import OWN_WEIGHTS
from silotune.adapters.peft_io import CONFIG
from silotune.core import Factors, Role
from silotune.core.files import read_json
from silotune.models.load import Loaded
from silotune.runs.folder import RunFolder

from .terms import Terms

MADE = "silotune.json"
"""In an adapter folder of ours: how it was made."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Start:
    """What is taken over; by default nothing.

    Attributes:
        factors: the tensors that replace the first ones.
        digest: SHA-256 of them; empty without a start.
        notices: what the user should know.
    """

    factors: Factors = field(default_factory=lambda: Factors({}))
    digest: str = ""
    notices: tuple[str, ...] = ()


def read_start(
    terms: Terms,
    loaded: Loaded,
    first: Factors,
    adapter: Adapter | None,
    beside: Mapping[str, Tensor],
    target_parameters: Sequence[str] = (),
) -> Start:
    """Read the adapter that the terms name, if they do.

    Args:
        terms: what was agreed.
        loaded: the base model, with its labels.
        first: the tensors that the run would begin with.
        adapter: the run's; None for a head alone.
        beside: what else the model has in the modules that are saved whole, by name.
        target_parameters: tensors of experts that the run adapts, in the model's order.

    Raises:
        ValueError: in words, naming the field in which the adapter does not agree.
    """
    if terms.method.init_from is None:
        return Start()
    folder = adapter_folder(terms.method.init_from)
    _refuse_other_base(folder, terms, loaded)
    scale = terms.objective.head_scale
    factors = start.read_start(
        folder, terms.model, first, adapter, scale, beside, target_parameters
    )
    heads = first.only({Role.HEAD})
    notices: tuple[str, ...] = ()
    if heads and not factors.only({Role.HEAD}):
        notices = (f"init_from: {folder} has no head; it begins as head_init says",)
    elif heads:
        _refuse_other_labels(folder, loaded)
    return Start(factors=factors, digest=factors.digest(), notices=notices)


def adapter_folder(place: str) -> Path:
    """The folder that holds an adapter in PEFT's format: the place itself, or a run's ``adapter``.

    Raises:
        ValueError: in words, if there is none.
    """
    path = Path(place)
    for folder in (path, RunFolder(path).adapter):
        if (folder / CONFIG).is_file():
            return folder
        if (folder / OWN_WEIGHTS).is_file():
            raise ValueError(
                f"init_from: {folder} holds an adapter in a format of our own, which no plain pair "
                "can be made of; start from one in PEFT's format"
            )
    if RunFolder(path).run.is_file():
        raise ValueError(
            f"init_from: the run in {path} has no adapter: it has not finished, or each silo has "
            "its own; name the folder of one"
        )
    raise ValueError(f"init_from: there is no adapter in {path}: no {CONFIG}")


def _refuse_other_base(folder: Path, terms: Terms, loaded: Loaded) -> None:
    """An adapter of ours says beside which weights it was trained, if they were kept alike."""
    match _made(folder):
        case {
            "terms": {"dtype": dtype, "quantization": bits, **others},
            "model_digest": str(digest),
        }:
            whole = others.get("products", "float32") == "float32"  # or its digest has more in it
            alike = whole and (dtype, bits) == (terms.dtype, terms.quantization)
            if alike and digest != loaded.digest:
                raise ValueError(
                    f"init_from: {folder} was trained beside other weights (SHA-256 "
                    f"{digest[:12]}...) than those of {terms.model} ({loaded.digest[:12]}...)"
                )


def _refuse_other_labels(folder: Path, loaded: Loaded) -> None:
    names: Mapping[int, str] = loaded.model.config.id2label  # type: ignore[union-attr, assignment]
    here = [names[i] for i in sorted(names)]
    match _made(folder):
        case {"labels": list(there)} if there != here:
            raise ValueError(
                f"labels: {', '.join(here)} here, and {', '.join(map(str, there))} in {folder}, "
                "whose head is for these in this order"
            )


def _made(folder: Path) -> Mapping[str, object]:
    file = folder / MADE
    return read_json(file) if file.is_file() else {}
