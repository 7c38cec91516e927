"""Which linear maps are adapted, by what the model does with them.

What is asked for by name is adapted, or refused when gradients are checked. An architecture's
defaults and ``all-linear`` leave out, and say so, what no loss depends on. Where single records are
hidden, ``all-linear`` also leaves out what reads something that is not by record. Anything else
that reads it, and no mixture of records, makes these go through the model one by one: of one record
everything is its own. A mixture is left to the gradient check, which refuses it by name. Experts
in one tensor are adapted if they are asked for (``target_parameters``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from silotune.adapters import Adapter
from silotune.core import LEADING, Key, Role, Site
from silotune.core.expert_matrix import experts_by_parameter
from silotune.engine.batches import to_device
from silotune.engine.passes import refused_in_words
from silotune.models.heads import random_head
from silotune.models.load import Loaded
from silotune.models.probe import LENGTHS, Probed, placed, probe
from silotune.models.target_modules import find_sites, is_all_linear
from silotune.models.target_parameters import endings, expert_stacks, find_experts

from .terms import Terms


@dataclass(frozen=True, eq=False)
class ChosenSites:
    """What is adapted, and how.

    Attributes:
        sites: with where their records lie.
        heads: likewise.
        notices: what the user should know, one sentence each.
        one_by_one: whether records must go through the model one by one.
    """

    sites: tuple[Site, ...]
    heads: tuple[Site, ...]
    notices: tuple[str, ...] = ()
    one_by_one: bool = False


def choose_sites(terms: Terms, loaded: Loaded, adapter: Adapter | None) -> ChosenSites:
    """Find the sites that the method asks for, and see how the model uses them.

    Args:
        terms: with the method opened.
        loaded: the model.
        adapter: the method's; None where heads alone train.

    Raises:
        ValueError: naming the field, if nothing is left to adapt, or a router could not read what
            is asked for by name.
    """
    method = terms.method
    heads = [head.name for head in loaded.heads]
    experts = _experts(terms, loaded) if adapter is not None else ()
    found = _modules(terms, loaded, heads)
    everything = is_all_linear(method.target_modules) and adapter is not None
    routed = adapter is not None and adapter.routed
    if method.target_modules and not (everything or routed or terms.unit == "example"):
        return ChosenSites((*found, *experts), loaded.heads)
    probed = _probed(terms, loaded, found if adapter else ())
    sites, own_heads = placed(found, probed), placed(loaded.heads, probed)
    notices: tuple[str, ...] = ()
    if adapter is not None and (everything or method.target_modules is None):
        sites, notices = _used(sites, probed, "all-linear" if everything else "the default")
    if everything and terms.unit == "example":
        sites, more = _by_record(sites, probed)
        notices = (*notices, *more)
    if everything:
        notices = (*notices, *_unreached(terms, loaded, experts))
    if routed:
        sites, more = _readable(sites, probed, everything=everything)
        notices = (*notices, *more)
    if not (sites or experts):
        raise ValueError(f"target_modules: nothing is left ({'; '.join(notices)}); name modules")
    apart = probed.records.keys() | probed.mixing  # what mixes records is for the check to refuse
    mixed = [s for s in sites if s.name not in apart] if adapter else []
    if not mixed or terms.unit != "example":
        return ChosenSites((*sites, *experts), own_heads, notices)
    notices = (*notices, _slowly(mixed))
    return ChosenSites((*sites, *experts), own_heads, notices, one_by_one=True)


def _modules(terms: Terms, loaded: Loaded, heads: Sequence[str]) -> tuple[Site, ...]:
    """Linear maps; an empty list asks for experts alone, as it does in PEFT."""
    method = terms.method
    if method.target_modules == () and method.target_parameters:
        return ()
    return find_sites(loaded.model, method.target_modules, method.layers_to_transform, heads)


def _experts(terms: Terms, loaded: Loaded) -> tuple[Site, ...]:
    method = terms.method
    return find_experts(loaded.model, method.target_parameters, method.layers_to_transform)


def _probed(terms: Terms, loaded: Loaded, sites: Sequence[Site]) -> Probed:
    lengths = [min(n, terms.objective.max_length) for n in LENGTHS]
    records = terms.objective.synthetic(loaded.inputs, lengths, terms.seed)
    names = [site.name for site in (*sites, *loaded.heads)]
    device = next(loaded.model.parameters()).device
    with _begun(loaded.heads, terms.seed), refused_in_words():
        return probe(loaded.model, names, terms.objective.losses, to_device(records, device))


@contextmanager
def _begun(heads: Sequence[Site], seed: int) -> Iterator[None]:
    """Heads drawn for a while: one that is zero, or absent, would let no gradient through."""
    drawn = random_head(heads, seed)
    weights = {head.name: head.module.get_parameter("weight") for head in heads}
    before = {name: weight.clone() for name, weight in weights.items()}
    for name, weight in weights.items():
        weight.copy_(drawn[Key(name, Role.HEAD, "weight")])
    try:
        yield
    finally:
        for name, weight in weights.items():
            weight.copy_(before[name])


def _used(
    sites: tuple[Site, ...], probed: Probed, asked: str
) -> tuple[tuple[Site, ...], tuple[str, ...]]:
    """Sites that a loss depends on, and what is said of the others."""
    unused = [s for s in sites if s.name not in probed.used]
    kept = tuple(s for s in sites if s.name in probed.used)
    notice = f"{asked} leaves out {_names(unused)}: no loss depends on its output"
    return kept, (notice,) if unused else ()


def _by_record(sites: tuple[Site, ...], probed: Probed) -> tuple[tuple[Site, ...], tuple[str, ...]]:
    """Sites that read something by record, and what is said of the others."""
    mixed = [s for s in sites if s.name not in probed.records]
    kept = tuple(s for s in sites if s.name in probed.records)
    notice = (
        f"all-linear leaves out {_names(mixed)}: what it reads is not by record (relative "
        "positions, experts), so no record has a gradient of its own there; asked for by name "
        "in target_modules, it trains, and records go through the model one by one"
    )
    return kept, (notice,) if mixed else ()


def _readable(
    sites: tuple[Site, ...], probed: Probed, *, everything: bool
) -> tuple[tuple[Site, ...], tuple[str, ...]]:
    """Sites that a router can follow: those that read (records, positions, features)."""
    others = [s for s in sites if probed.records.get(s.name) != LEADING]
    if not others:
        return sites, ()
    reason = "a router needs records first, and positions second, in what a module reads"
    if not everything:
        raise ValueError(f"target_modules: leave out {_names(others)}: {reason}")
    names = {s.name for s in others}
    kept = tuple(s for s in sites if s.name not in names)
    return kept, (f"all-linear leaves out {_names(others)}: {reason}",)


def _unreached(terms: Terms, loaded: Loaded, experts: Sequence[Site]) -> tuple[str, ...]:
    """What is said of experts that are no linear maps, and are not asked for."""
    asked = experts_by_parameter(site.name for site in experts)
    rest = [name for name in expert_stacks(loaded.model) if name not in asked]
    if not rest:
        return ()
    key = f"target_parameters: [{', '.join(endings(rest))}]"
    cure = (
        "no single record has a gradient there, so they stay as they are"
        if terms.unit == "example"
        else f"{key} does"
    )
    return (f"all-linear does not reach {_listed(rest)}: experts that are one tensor; {cure}",)


def _slowly(mixed: Sequence[Site]) -> str:
    return (
        f"target_modules: what {_names(mixed)} reads is not by record (relative positions, "
        "experts), so records go through the model one by one, which takes longer; without it in "
        "target_modules they go together"
    )


def _names(sites: Sequence[Site]) -> str:
    return _listed([site.name for site in sites])


def _listed(names: Sequence[str]) -> str:
    """The first names, and how many more."""
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(names[:2]) + more
