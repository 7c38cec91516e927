"""What a run reads and checks of its model, remembered: of equal models it is the same.

It takes more than half of a tiny private run. What is found is remembered by all that it may
depend on; refusals are not. A test that is about it, or about what records could change of it,
asks for the fixture `checked` and has it read and checked.
"""

import copy
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from silotune.core import Site
from silotune.models.load import Loaded
from silotune.terms import BuiltModel, Terms

Check = Callable[..., Any]


def remembering(check: Check, found: dict[Hashable, Any], where: Hashable) -> Check:
    """The check, which looks up what it found of an equal model.

    Args:
        check: of a model, its terms, sites or what was learned.
        found: what it found so far.
        where: only what was found there is looked up.
    """

    def remembered(*given: object, **changes: object) -> object:
        key = (where, torch.get_num_threads(), *map(_of, given), *sorted(changes.items()))
        if key not in found:
            found[key] = check(*given, **changes)
        return found[key]

    return remembered


def reading(read: Callable[..., Loaded], found: dict[Hashable, Any], where: Hashable) -> Check:
    """``read_model``, which copies what it read before of a folder with the same files.

    Args:
        read: from terms, labels and perhaps an object, which is read anew.
        found: what it read so far, as it was.
        where: as of ``remembering``.
    """

    def read_again(terms: Terms, labels: tuple[str, ...], given: object = None) -> Loaded:
        folder = Path(terms.model)
        if given is not None or not folder.is_dir():
            return read(terms, labels, given)
        files = sorted((f.name, f.stat().st_mtime_ns, f.stat().st_size) for f in folder.iterdir())
        key = (where, terms.model, tuple(files), labels, _of(terms))
        if key not in found:
            found[key] = read(terms, labels)
        return copy.deepcopy(found[key])

    return read_again


def _of(given: Any) -> Hashable:
    """All of it that a check may depend on, but for the code."""
    if isinstance(given, BuiltModel):
        trainer = given.trainer
        return (
            given.digest,
            given.first.digest(),
            _modules(trainer.adapted.model),
            tuple(sorted(map(str, given.fixed))),
            (repr(given.axes), repr(given.layout)),
            trainer.micro_batch,
        )
    if isinstance(given, Loaded):
        reader = given.tokenizer and (type(given.tokenizer), repr(given.tokenizer))
        return (given.digest, _modules(given.model), repr(given.inputs), reader, given.absent)
    if isinstance(given, Terms):
        return (
            (type(given.objective), repr(given.objective), given.unit, given.seed),
            (given.dtype, given.quantization, given.gradient_checkpointing),
            (type(given.method), repr(given.method)),
        )
    if isinstance(given, Sequence) and all(isinstance(s, Site) for s in given):
        return tuple(site.name for site in given)
    return given if isinstance(given, Hashable) and not hasattr(given, "models") else _shapes(given)


def _modules(model: nn.Module) -> Hashable:
    return tuple((name, type(module)) for name, module in model.named_modules())


def _shapes(learned: Any) -> Hashable:
    """Of what a run has learned: PEFT is asked whether it can hold it."""
    return tuple(
        (
            tuple((str(k), t.shape) for k, t in sorted(one.factors.items())),
            tuple(sorted(one.folded)),
        )
        for one in learned.models()
    )
