"""Once: what follows from a frozen base weight is computed once for each site, however many ask."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import TypeVar
from weakref import WeakKeyDictionary

from silotune.core import Site

A = TypeVar("A", bound=Hashable)
T = TypeVar("T")


def once_a_site(compute: Callable[[A, Site], T]) -> Callable[[A, Site], T]:
    """A function of an adapter and a site that remembers, as long as the site is there.

    The base is frozen, so that nothing of it changes meanwhile. What is given is shared: whoever
    writes into it takes a copy.
    """
    known: WeakKeyDictionary[Site, dict[A, T]] = WeakKeyDictionary()

    @functools.wraps(compute)
    def asked(adapter: A, site: Site) -> T:
        of_site = known.setdefault(site, {})
        if adapter not in of_site:
            of_site[adapter] = compute(adapter, site)
        return of_site[adapter]

    return asked
