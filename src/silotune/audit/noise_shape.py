"""The shape of the noise: of every tensor, of every message, and of all of them.

Noise may be enough on the whole and missing in one place. So each tensor of each releaser is
looked at by itself over all its messages: its spread, its centre, its distribution function and its
tails; and each message over all its tensors, where a spread that follows the data would show.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import binom, chi2

from silotune.core import Key
from silotune.privacy import Discrete, ExampleLevel

from .checks import Check, Numbers, both, centre, form, share, spread, tails
from .noise_claimed import Noise
from .transcript import Message

HALF = 0.5
"""Of the noise: what an audit should at least be able to miss."""

ON_GRID = 0.3
"""Least mean of cos(2 pi x / grid) of numbers on a grid, as single precision leaves it. Numbers
between the points have a mean of 0."""


def shape_checks(noises: Sequence[Noise]) -> list[Check]:
    """All of them."""
    checks = []
    for of, key, numbers in _by_tensor(noises):
        where = f"{key} of {of}"
        checks += [
            Check(
                f"spread of the noise on {where}, {_size(numbers)} times as claimed",
                spread(numbers),
            ),
            Check(f"centre of the noise on {where}", centre(numbers)),
            Check(f"form of the noise on {where}", form(numbers)),
            Check(f"tails of the noise on {where}", tails(numbers)),
        ]
    for noise in noises:
        flat = noise.flat
        where = f"{noise.of} in round {noise.round}"
        what = f"spread of the noise of {where}, {_size(flat)} times as claimed"
        checks.append(Check(what, spread(flat)))
    for of in sorted({noise.of for noise in noises}):
        flat = np.concatenate([noise.flat for noise in noises if noise.of == of])
        checks += [
            Check(f"spread of all noise of {of}, {_size(flat)} times as claimed", spread(flat)),
            Check(f"form of all noise of {of}", form(flat)),
            Check(f"tails of all noise of {of}", tails(flat)),
        ]
    return checks


def size(noises: Sequence[Noise]) -> float:
    """Root mean square of all, 1 as claimed."""
    flat = np.concatenate([noise.flat for noise in noises])
    return float(np.sqrt(np.mean(flat**2)))


def too_few(noises: Sequence[Noise]) -> list[str]:
    """Tensors with so few numbers that half the noise might not be missed."""
    found = list(_by_tensor(noises))
    least = share(len(shape_checks(noises)))
    return sorted(
        {
            str(key)
            for _, key, numbers in found
            if 2.0 * chi2.cdf(HALF**2 * len(numbers), len(numbers)) > least
        }
    )


def grid_checks(messages: Sequence[Message], claimed: ExampleLevel) -> list[Check]:
    """Whether discrete noise lies on its grid, and on no coarser one.

    Only a first round of one step that begins at zero can tell: later ones are rounded to single
    precision on their way. Numbers of less than 2^19 grid points survive that.

    Args:
        messages: of such rounds.
        claimed: whose noise is discrete.
    """
    if not isinstance(claimed.noise, Discrete):
        return []
    unit = claimed.grid / claimed.expected_batch_size
    flat = (
        np.concatenate([m.moved[key] for m in messages for key, n in m.steps.items() if n]) / unit
    )
    near = flat[np.abs(flat) < 2**19]
    if len(near) < 100:  # with so few, nothing can be told
        return []
    fine = float(np.cos(2 * np.pi * near).mean())
    checks = [Check("discrete noise lies on its grid", float(fine > ON_GRID))]
    if fine > ON_GRID:
        odd = int((np.rint(near) % 2).sum())
        halves = both(
            float(binom.cdf(odd, len(near), 0.5)), float(binom.sf(odd - 1, len(near), 0.5))
        )
        checks.append(Check("discrete noise uses all of its grid", halves))
    return checks


def _by_tensor(noises: Sequence[Noise]) -> list[tuple[str, Key, Numbers]]:
    """Every tensor of every releaser, over its messages."""
    parts: dict[tuple[str, Key], list[Numbers]] = {}
    for noise in noises:
        for key, numbers in noise.tensors.items():
            parts.setdefault((noise.of, key), []).append(numbers)
    return [(of, key, np.concatenate(each)) for (of, key), each in parts.items()]


def _size(numbers: Numbers) -> str:
    return f"{float(np.sqrt(np.mean(numbers**2))):.4f}"
