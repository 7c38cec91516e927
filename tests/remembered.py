"""Checks that a run makes of its model, remembered: of equal models they find the same.

They take nearly half of a tiny private run. What is found is remembered by all that it may depend
on; refusals are not. A test that is about a check, or about what records could change of it, asks
for the fixture `checked` and has it made.
"""

from collections.abc import Callable, Hashable
from typing import Any

import torch

from silotune.terms import BuiltModel, Terms

Check = Callable[..., Any]


def remembering(check: Check, found: dict[Hashable, Any], where: Hashable) -> Check:
    """The check, which looks up what it found of an equal model.

    Args:
        check: of a built model and its terms, first.
        found: what it found so far.
        where: only what was found there is looked up.
    """

    def remembered(model: BuiltModel, terms: Terms, *more: object, **changes: object) -> object:
        key = (where, _of(model, terms), *map(_shapes, more), *sorted(changes.items()))
        if key not in found:
            found[key] = check(model, terms, *more, **changes)
        return found[key]

    return remembered


def _of(model: BuiltModel, terms: Terms) -> Hashable:
    """All that a check of it may depend on, but for the code."""
    trainer = model.trainer
    modules = trainer.adapted.model.named_modules()
    return (
        model.digest,
        model.first.digest(),
        tuple((name, type(module)) for name, module in modules),
        tuple(sorted(map(str, model.fixed))),
        (type(terms.objective), repr(terms.objective), terms.unit, terms.seed),
        (terms.dtype, terms.quantization, terms.gradient_checkpointing),
        (type(terms.method), repr(model.axes), repr(model.layout)),
        trainer.micro_batch,
        torch.get_num_threads(),
    )


def _shapes(learned: Any) -> Hashable:
    """Of what a run has learned: PEFT is asked whether it can hold it."""
    return tuple(
        (
            tuple((str(k), t.shape) for k, t in sorted(one.factors.items())),
            tuple(sorted(one.folded)),
        )
        for one in learned.models()
    )
