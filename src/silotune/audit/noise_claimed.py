"""Noise as claimed: what a silent silo's messages must be, made into numbers that are N(0, 1).

A silo whose records all have gradients of exactly zero sends noise alone. By the claim the noise of
a step is N(0, (sigma C / b)^2) in every number, so a message of k steps has k times that variance,
and all messages are independent; correlated noise has a known covariance over rounds, which a
Cholesky factor takes out. The rest of the audit asks whether the numbers so made are independent
and normal, and needs to know nothing more of the mechanism.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular, toeplitz

from silotune.core import Key
from silotune.privacy import Correlated, ExampleLevel

from .checks import Numbers
from .transcript import Message, Transcript


@dataclass(frozen=True, kw_only=True, eq=False)
class Noise:
    """One release, in units of what is claimed.

    Attributes:
        of: who released it: a silo, or the server.
        round: 0-based; or a step, where steps are looked at.
        seed: public, of that round.
        steps: noised steps that are in it.
        tensors: N(0, 1) by key, if the claim holds.
    """

    of: str
    round: int
    seed: int
    steps: int
    tensors: Mapping[Key, Numbers]

    @property
    def flat(self) -> Numbers:
        """All of it, in the order in which it is drawn."""
        return np.concatenate([*self.tensors.values()])


def still(transcript: Transcript) -> list[str]:
    """Tensors that moved although no step of their round trained them."""
    return sorted(
        {
            str(key)
            for message in transcript.messages
            for key, steps in message.steps.items()
            if not steps and message.moved[key].any()
        }
    )


def in_claimed_units(transcript: Transcript, mechanisms: Mapping[str, ExampleLevel]) -> list[Noise]:
    """Every message of silent silos as numbers that must be independent N(0, 1).

    Args:
        transcript: of silos whose records have no gradient.
        mechanisms: as claimed, by silo.
    """
    return [
        noise
        for silo in transcript.silos
        for noise in _of_silo(transcript.of(silo), mechanisms[silo], transcript.local_steps)
    ]


def steps_in_claimed_units(
    transcript: Transcript, mechanisms: Mapping[str, ExampleLevel]
) -> list[Noise]:
    """Every local step of silent silos likewise, numbered through all rounds.

    The accountant prices a step as if its gradient were released. Noise that is right in the sum of
    a round only, such as the same in all its steps, shows here.
    """
    noises = []
    for silo, steps in transcript.steps.items():
        claimed = mechanisms[silo]
        rows: Sequence[Mapping[Key, Numbers]] = [step.moved for step in steps]
        if isinstance(claimed.noise, Correlated):
            rows = whitened(rows, covariance(claimed.noise.bands, len(rows), 1))
        for i, row in enumerate(rows):
            std = _std(claimed, sum(map(len, row.values())))
            tensors = {key: numbers / std for key, numbers in row.items()}
            noises.append(Noise(of=silo, round=i, seed=0, steps=1, tensors=tensors))
    return noises


def _of_silo(messages: Sequence[Message], claimed: ExampleLevel, steps: int) -> list[Noise]:
    trained = [[key for key, n in message.steps.items() if n] for message in messages]
    rows: Sequence[Mapping[Key, Numbers]] = [
        {key: message.moved[key] / math.sqrt(message.steps[key]) for key in keys}
        for message, keys in zip(messages, trained, strict=True)
    ]
    if isinstance(claimed.noise, Correlated):
        sums = [message.moved for message in messages]
        rows = whitened(sums, covariance(claimed.noise.bands, len(sums), steps))
    noises = []
    for message, row, keys in zip(messages, rows, trained, strict=True):
        std = _std(claimed, sum(len(message.moved[key]) for key in keys))
        tensors = {key: row[key] / std for key in keys}
        noise = Noise(
            of=message.silo, round=message.round, seed=message.seed, steps=steps, tensors=tensors
        )
        noises.append(noise)
    return noises


def _std(claimed: ExampleLevel, numbers: int) -> float:
    """Of one step's noise on each number: sigma C / b, and on a grid what rounding adds to C."""
    reach = claimed.max_grad_norm + math.sqrt(numbers) * claimed.grid / 2
    return claimed.noise.multiplier * reach / claimed.expected_batch_size


def whitened(
    rows: Sequence[Mapping[Key, Numbers]], covariances: Numbers
) -> list[dict[Key, Numbers]]:
    """Independent over rows: L^-1 of them, where L L^T is their covariance.

    Args:
        rows: of equal keys.
        covariances: (rows, rows).
    """
    factor = np.linalg.cholesky(covariances)
    white = {
        key: solve_triangular(factor, np.stack([row[key] for row in rows]), lower=True)
        for key in rows[0]
    }
    return [{key: white[key][i] for key in white} for i in range(len(rows))]


def covariance(bands: int, rounds: int, steps: int) -> Numbers:
    """Of the sums over each round's steps of z = C^-1 xi, in units of the variance of xi.

    Returns:
        (rounds, rounds).
    """
    noise = np.linalg.inv(square_root(bands, rounds * steps))
    sums = noise.reshape(rounds, steps, -1).sum(axis=1)
    return np.asarray(sums @ sums.T)


def square_root(bands: int, steps: int) -> Numbers:
    """C: the banded square root of the matrix of prefix sums, written down here afresh.

    C^2 has ones on and below the diagonal, before the cut (Kalinin and Lampert 2024, arXiv
    2405.13763).

    Returns:
        (steps, steps), lower triangular.
    """
    column = np.zeros(steps)
    column[0] = 1.0
    for k in range(1, min(bands, steps)):
        column[k] = column[k - 1] * (2 * k - 1) / (2 * k)
    return np.asarray(toeplitz(column, np.zeros(steps)))
