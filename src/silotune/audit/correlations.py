"""Correlations of the noise: within a message, between tensors, over rounds and over silos.

Noise may have the right shape and be drawn once: the same in every round, at every silo, in every
worker that was forked from another, or for a tensor after it served its neighbour. Every pair of
messages is compared at every shift of one against the other, so a stream that is read again from
another place is found as well. What is only partly alike is added up over many messages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from silotune.core import Key

from .checks import Check, Numbers, likeness, shifted_likeness
from .noise_claimed import Noise

MOST_NUMBERS = 4096
"""Of each message, that are compared at every shift; all are compared without one."""


def correlation_checks(noises: Sequence[Noise]) -> list[Check]:
    """All of them."""
    return [
        *_between_messages(noises),
        *over_rounds(noises),
        *_between_silos(noises),
        *_within(noises),
        *_between_tensors(noises),
    ]


def _between_messages(noises: Sequence[Noise]) -> Iterator[Check]:
    """Each with all later ones; the worst shift of each pair, and no shift at all."""
    flats = [noise.flat for noise in noises]
    width = min(MOST_NUMBERS, max(map(len, flats)))
    rows = [flat[:width] for flat in flats]
    by_length: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        by_length.setdefault(len(row), []).append(i)
    for i, noise in enumerate(noises):
        worst = 1.0
        pairs = 0
        for same in by_length.values():
            later = [j for j in same if j > i]
            if later:
                fresh = np.stack([rows[j] for j in later])[:, None]
                worst = min(worst, float(shifted_likeness(rows[i][None], fresh).min()))
                pairs += len(later)
        if pairs:
            what = f"noise of {noise.of} in round {noise.round} and of any later message, shifted"
            yield Check(what, min(1.0, worst * pairs))
    for a, b in combinations(range(len(noises)), 2):
        n = min(len(flats[a]), len(flats[b]))
        what = f"noise of {_name(noises[a])} and of {_name(noises[b])}"
        yield Check(what, likeness([flats[a][:n]], [flats[b][:n]]))


def over_rounds(noises: Sequence[Noise]) -> Iterator[Check]:
    """Each round, or step, with the one so many later, added up; none is on both sides."""
    for of in sorted({noise.of for noise in noises}):
        by_round = {noise.round: noise.flat for noise in noises if noise.of == of}
        for gap in range(1, (max(by_round) + 1) // 2 + 1):
            first = [r for r in by_round if (r // gap) % 2 == 0 and r + gap in by_round]
            first = [r for r in first if len(by_round[r]) == len(by_round[r + gap])]
            if first:
                chance = likeness([by_round[r] for r in first], [by_round[r + gap] for r in first])
                yield Check(f"noise of {of} and of itself {gap} later", chance)


def _between_silos(noises: Sequence[Noise]) -> Iterator[Check]:
    """Two silos in the same rounds, added up."""
    names = sorted({noise.of for noise in noises})
    flats = {(noise.of, noise.round): noise.flat for noise in noises}
    rounds = sorted({noise.round for noise in noises})
    for a, b in combinations(names, 2):
        both = [r for r in rounds if (a, r) in flats and (b, r) in flats]
        chance = likeness([flats[a, r] for r in both], [flats[b, r] for r in both])
        yield Check(f"noise of {a} and of {b} in the same rounds", chance)


def _within(noises: Sequence[Noise]) -> Iterator[Check]:
    """The halves of every message, and its even and odd places, at every shift, added up."""
    for of in sorted({noise.of for noise in noises}):
        flats = [noise.flat[:MOST_NUMBERS] for noise in noises if noise.of == of]
        least = min(map(len, flats)) // 2 * 2
        if least < 2:
            continue
        rows = np.stack([flat[:least] for flat in flats])
        parts = {
            "the halves": (rows[:, : least // 2], rows[:, least // 2 :]),
            "even and odd places": (rows[:, ::2], rows[:, 1::2]),
        }
        for name, (given, fresh) in parts.items():
            chance = float(shifted_likeness(given, fresh))
            yield Check(f"{name} of the noise of {of}", chance)


def _between_tensors(noises: Sequence[Noise]) -> Iterator[Check]:
    """Two tensors of the same messages, as far as the shorter one goes, added up."""
    for of in sorted({noise.of for noise in noises}):
        own = [noise.tensors for noise in noises if noise.of == of]
        keys = sorted({key for tensors in own for key in tensors})
        for a, b in combinations(keys, 2):
            pairs = [_overlap(t, a, b) for t in own if a in t and b in t]
            if pairs:
                chance = likeness([u for u, _ in pairs], [v for _, v in pairs])
                yield Check(f"noise on {a} and on {b} of {of}", chance)


def _overlap(tensors: Mapping[Key, Numbers], a: Key, b: Key) -> tuple[Numbers, Numbers]:
    u, v = tensors[a], tensors[b]
    n = min(len(u), len(v))
    return u[:n], v[:n]


def _name(noise: Noise) -> str:
    return f"{noise.of} in round {noise.round}"
