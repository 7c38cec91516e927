"""EVA's start: an adapter whose A is made of public text, for a run to begin from (``init_from``).

Explained Variance Adaptation (Paischer et al. 2024, arXiv 2410.07170) reads the very data that it
then trains on. Here that would release what silos hold, at a price that nobody has accounted; so
the text is public, and no record of a silo is opened. Of the paper's ranks by layer (rho > 1)
there are none: every layer has rank r.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from silotune.adapters import save_peft
from silotune.adapters.explained_variance import Directions, Inputs, watching
from silotune.core import Factors, Key, Role
from silotune.core.expert_matrix import parameter_of
from silotune.core.files import write_json
from silotune.linalg import NumericalError
from silotune.models.load import quiet
from silotune.objectives import find
from silotune.terms import BuiltModel, Terms
from silotune.terms.opening import open_unproved

from .description import Description
from .new_folder import new_folder

FILE = "eva.json"
"""In the folder: what the adapter was made of."""


@dataclass(frozen=True, kw_only=True)
class ExplainedVariance:
    """What was read, and how much of it the pairs can follow.

    Attributes:
        texts: that were read.
        tokens: of them.
        sha256: of the texts, one after another, a zero byte behind each.
        explained: site -> share of the variance of its inputs that lies in the rows of A.
    """

    texts: int
    tokens: int
    sha256: str
    explained: Mapping[str, float]


def explained_variance_start(
    federation: Description, texts: Sequence[str], folder: str | Path
) -> ExplainedVariance:
    """Write an adapter with A from what the layers read of public texts, and B = 0.

    The base model, r, scale and modules are those of the federation, which can then begin with
    ``method.init_from`` in place of ``init_lora_weights``; its head begins as it does without. No
    record is read.

    Args:
        federation: whose adapter it is.
        texts: that anybody may know; cut to ``max_length`` tokens.
        folder: a new one, in PEFT's format.

    Raises:
        ValueError: if there is no text, the method has no pair that may begin so, or the texts are
            too few for r.
    """
    terms = _plain(federation.terms, Path(folder))
    for place, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"texts: the one in place {place} is empty, or no text; leave it out")
    if not texts:
        raise ValueError("texts: there are none; give some hundreds of public ones")
    with quiet(), new_folder(Path(folder)) as draft:
        labels = terms.objective.label_names
        model = open_unproved(
            terms, ("0", "1") if labels is None else labels, given=federation.given
        )
        _check_sites(model)
        inputs, tokens = _read(model, texts, terms.objective.max_length)
        found = {site: _directions(site, sums, terms) for site, sums in inputs.items()}
        pairs = model.first.only({Role.A, Role.B})
        begun = pairs.updated(Factors({Key(s, Role.A): d.a for s, d in found.items()}))
        layout = replace(model.layout, modules_to_save=(), beside={})
        save_peft(draft, begun, model.axes.adapter, model.sites, layout)
        report = ExplainedVariance(
            texts=len(texts),
            tokens=tokens,
            sha256=hashlib.sha256(b"".join(t.encode() + b"\0" for t in texts)).hexdigest(),
            explained={site: directions.explained for site, directions in found.items()},
        )
        write_json(draft / FILE, vars(report))
    return report


def _plain(terms: Terms, folder: Path) -> Terms:
    """The terms with pairs that begin anyhow, once it is seen that they can begin with others.

    Raises:
        ValueError: if the method's pairs cannot, or single texts are not what is read.
    """
    if (task := find(terms.objective.task)).reads != "text":
        raise ValueError(f"task: {task.name} reads no text; EVA is made of texts here")
    if task.apart:
        raise ValueError(
            f"task: of {task.name} a record is two texts that go through the model apart, and EVA "
            "is made of single ones here; leave init_from out"
        )
    begun = replace(terms.method, init_from=str(folder), init_lora_weights="kaiming")
    return replace(terms, method=begun).without_start()


def _check_sites(model: BuiltModel) -> None:
    if {key.role for key in model.first} - {Role.HEAD} != {Role.A, Role.B}:
        raise ValueError("method: it trains no pair B A at each module, which EVA begins")
    stacked = [s.name for s in model.sites if parameter_of(s.name) != s.name]
    if stacked:
        raise ValueError(
            f"target_parameters: {parameter_of(stacked[0])} holds many experts, of which each "
            "reads what a router gives it; EVA is made for linear modules"
        )


def _read(model: BuiltModel, texts: Sequence[str], most: int) -> tuple[dict[str, Inputs], int]:
    """What each adapted layer reads of the texts, one by one so that nothing is padded; tokens."""
    adapted, tokenizer, tokens = model.trainer.adapted, model.loaded.tokenizer, 0
    assert tokenizer is not None, "a task of texts"
    layers = {site.name: adapted.model.get_submodule(site.name) for site in model.sites}
    adapted.model.eval()
    widths = {site.name: site.in_features for site in model.sites}
    with watching(layers, widths) as inputs, torch.inference_mode():
        for text in texts:
            read = tokenizer(text, truncation=True, max_length=most, return_tensors="pt")
            batch = {
                name: read[name].to(adapted.device) for name in ("input_ids", "attention_mask")
            }
            adapted(**batch)
            tokens += int(batch["input_ids"].numel())
    return inputs, tokens


def _directions(site: str, inputs: Inputs, terms: Terms) -> Directions:
    try:
        return inputs.directions(terms.method.largest_rank)
    except NumericalError as error:
        raise ValueError(f"model: {site}: {error}") from error
    except ValueError as error:
        raise ValueError(f"texts: {site}: {error}") from error
