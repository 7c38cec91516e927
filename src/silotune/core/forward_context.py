"""Forward context: what the adapted layers of one model tell each other during a forward pass.

Layers that read one another (shortcuts), that must know which positions are padding (routers), or
that add to the loss, meet here. Everything is forgotten when the next forward pass begins, but for
what counts as long as a cache of keys and values does.

Shapes: n examples, T positions.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from .masks import are_of_tokens

_IGNORED = -100
"""The label of a token that is not learned."""


class Context:
    """One forward pass of one model.

    Attributes:
        mask: (n, T), 1 where there is something and 0 where there is padding; None if the model's
            inputs have no such thing.
        opaque: whether there is a mask of another form, from which padding cannot be told.
        divided: whether the model reads two rows of positions, an encoder's and a decoder's.
        prompt: (n, T), True for what comes before the first token that is learned; None where
            tokens have no labels of their own. A router may look at nothing else: what it decides
            counts for all tokens, also for those that are to be predicted.
        follows: whether the pass goes on with positions that a cache holds.
        notes: what layers leave for those that come after them, by keys of their own.
        lasting: notes that also count for passes which go on with the same cache.
        served: by transformer layer, the sites that its router has decided for.
        penalties: give (n,) each, what layers add to every example's loss, by keys of their own;
            asked for when all layers are done.
    """

    def __init__(self) -> None:
        self.mask: Tensor | None = None
        self.opaque = False
        self.divided = False
        self.prompt: Tensor | None = None
        self.follows = False
        self.notes: dict[Hashable, Tensor] = {}
        self.lasting: dict[Hashable, Tensor] = {}
        self.served: dict[str, set[str]] = {}
        self.penalties: dict[Hashable, Callable[[], Tensor]] = {}
        self._next: Tensor | None = None
        self._adds_up = False
        self._before: Tensor | float = 0.0
        self._by_cache: WeakKeyDictionary[object, dict[Hashable, Tensor]] = WeakKeyDictionary()

    def expect(self, batch: Mapping[str, Tensor]) -> None:
        """Say which records all forward passes are about until ``over``: penalties of them add up.

        A record of two texts that are read apart has two passes, of which each has a penalty.
        Labels of tokens are those of the first.
        """
        labels = batch.get("labels")
        if labels is not None and are_of_tokens(labels):
            self._next = (labels != _IGNORED).cumsum(dim=1) == 0
        else:
            self._next = None
        self._adds_up, self._before, self.penalties = True, 0.0, {}

    def over(self) -> None:
        """Passes are about other records from now on."""
        self._adds_up, self._before = False, 0.0

    def begin(self, mask: object = None, cache: object = None, *, divided: bool = False) -> None:
        """A new forward pass: of the last one nothing is left but what goes with the cache.

        Args:
            mask: the model's attention mask, in whatever form.
            cache: the keys and values that it goes on with, if it does.
            divided: whether a decoder reads another row of positions than this mask's.
        """
        self.divided = divided
        self.mask = mask if isinstance(mask, Tensor) and mask.dim() == 2 else None
        self.opaque = mask is not None and self.mask is None
        self.prompt, self._next = self._next, None
        self._before = self.penalty() if self._adds_up else 0.0
        self.notes, self.penalties, self.served = {}, {}, {}
        self.follows = _is_filled(cache)
        known = self._by_cache.get(cache, {}) if self.follows and _is_cache(cache) else {}
        self.lasting = dict(known)

    def end(self, cache: object) -> None:
        """The pass is over; ``cache`` is what the next one may go on with."""
        if _is_cache(cache) and self.lasting:
            self._by_cache[cache] = {key: t.detach() for key, t in self.lasting.items()}

    def penalty(self) -> Tensor | float:
        """The sum (n,) of what layers add to the losses; 0 if none does."""
        terms = [give() for give in self.penalties.values()]
        return self._before + torch.stack(terms).sum(dim=0) if terms else self._before


def _is_cache(cache: object) -> bool:
    return hasattr(cache, "get_seq_length")


def _is_filled(cache: object) -> bool:
    """Whether there is a cache with positions in it; one that cannot be asked has some."""
    if cache is None:
        return False
    return bool(cache.get_seq_length()) if _is_cache(cache) else True  # type: ignore[attr-defined]
