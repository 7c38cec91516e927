"""Public seeds: an adversary knows ``task.seed`` and every number of a run, and tries them all.

Noise that a generator made of a public number is no noise. The adversary makes streams with every
generator that somebody might use and every seed that is public in a round, and looks for each of
them in the messages, at every shift. The same with coins.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from silotune.core import seed_of
from silotune.privacy.mechanisms.gaussian import standard_normal
from silotune.privacy.mechanisms.secure_rng import Randomness

from .checks import Check, Flags, Numbers, shared_coins, shifted_likeness
from .noise_claimed import Noise
from .transcript import SEED

MOST_MESSAGES, MOST_NUMBERS, MOST_STREAM = 8, 2048, 2**15
"""That are looked at: of a whole run, of one message, and of one stream."""


def public_numbers(release: Noise) -> dict[str, int]:
    """What anybody could take for a seed of a release, by what it is."""
    silo, round = release.of, release.round
    return {
        "task.seed": release.seed,
        "seed": SEED,
        "0": 0,
        "1": 1,
        "42": 42,
        "the round": round,
        "seed and round": seed_of(SEED, round),
        "seed and silo": seed_of(SEED, silo),
        "seed, round and silo": seed_of(SEED, round, silo),
        "seed for noise": seed_of(SEED, "noise"),
        "seed for insecure noise": seed_of(SEED, "insecure noise", silo),
        "task.seed for noise": seed_of(release.seed, "noise"),
        "the silo": seed_of(silo),
        "the run": seed_of("audit"),
    }


def seed_checks(noises: Sequence[Noise]) -> list[Check]:
    """Whether a stream that anybody can make is in the first messages."""
    tried: dict[_Stream, list[tuple[str, Noise]]] = {}
    for noise in sorted(noises, key=lambda noise: (noise.round, noise.of))[:MOST_MESSAGES]:
        sizes = tuple(len(t) for t in noise.tensors.values())
        for name, seed in public_numbers(noise).items():
            tried.setdefault(_Stream(seed, sizes, noise.steps), []).append((name, noise))
    return [check for stream, told in tried.items() for check in _of_stream(stream, told)]


def coin_checks(drawn: Flags, release: Noise, rate: float) -> list[Check]:
    """Whether anybody can make the coins of one silo's round.

    Args:
        drawn: (steps, n), which records each step read.
        release: of that round.
        rate: of a coin, as claimed.
    """
    if rate >= 1.0:
        return []
    steps, n = drawn.shape
    return [
        Check(f"coins of {release.of} made from {name} by {maker}", shared_coins(made, drawn, rate))
        for name, seed in public_numbers(release).items()
        for maker, made in _coins(seed, steps, n, rate)
    ]


class _Stream(NamedTuple):
    """What a message may have been made of; several messages may share it.

    Attributes:
        seed: of the generator.
        sizes: of the tensors, in the order in which they are drawn.
        steps: that draw them.
    """

    seed: int
    sizes: tuple[int, ...]
    steps: int


def _of_stream(stream: _Stream, told: Sequence[tuple[str, Noise]]) -> Iterator[Check]:
    """It beside every message for which its seed is public, by the name that it has there."""
    seen = np.stack([noise.flat[:MOST_NUMBERS] for _, noise in told])[:, None]
    for maker, numbers in _numbers(stream):
        chances = shifted_likeness(numbers[None], seen)
        for (name, noise), chance in zip(told, chances, strict=True):
            what = f"noise of {noise.of} in round {noise.round} made from {name} by {maker}"
            yield Check(what, float(chance))


def _numbers(stream: _Stream) -> Iterator[tuple[str, Numbers]]:
    """Normal numbers as many libraries make them: for all tensors at once, or one by one."""
    seed, sizes, steps = stream
    total = sum(sizes)
    length = min(MOST_STREAM, total * steps)
    steps = -(-length // total)
    for dtype in (torch.float32, torch.float64):
        g = torch.Generator().manual_seed(seed)
        whole = [torch.randn(total, generator=g, dtype=dtype) for _ in range(steps)]
        yield f"torch, {dtype}", torch.cat(whole)[:length].double().numpy()
        g = torch.Generator().manual_seed(seed)
        parts = [torch.randn(n, generator=g, dtype=dtype) for _ in range(steps) for n in sizes]
        yield f"torch tensor by tensor, {dtype}", torch.cat(parts)[:length].double().numpy()
    yield "numpy", np.random.default_rng(seed).standard_normal(length)
    yield "numpy's old generator", np.random.RandomState(seed % 2**32).standard_normal(length)
    g_python = random.Random(seed)
    yield "Python", np.array([g_python.gauss(0.0, 1.0) for _ in range(min(length, MOST_NUMBERS))])
    for name, g_own in _own(seed):
        yield name, standard_normal(g_own, length).numpy()


def _own(seed: int) -> Iterator[tuple[str, Randomness]]:
    """This package's streams, had somebody made their key from a seed."""
    whole = Randomness.insecure(seed)
    yield "a cipher", whole
    yield "a cipher, for noise", whole.fork("noise")
    yield "a cipher, for the noise of the first round", whole.fork(0).fork("noise")


def _coins(seed: int, steps: int, n: int, rate: float) -> Iterator[tuple[str, Flags]]:
    """(steps, n)."""
    g = torch.Generator().manual_seed(seed)
    yield "torch", np.asarray((torch.rand(steps, n, generator=g) < rate).numpy())
    g = torch.Generator().manual_seed(seed)
    yield (
        "torch, in float64",
        np.asarray((torch.rand(steps, n, generator=g, dtype=torch.float64) < rate).numpy()),
    )
    yield "numpy", np.random.default_rng(seed).random((steps, n)) < rate
    yield (
        "numpy's old generator",
        np.random.RandomState(seed % 2**32).random_sample((steps, n)) < rate,
    )
    whole = Randomness.insecure(seed)
    threshold = np.uint64(int(rate * 2.0**64) if rate < 1.0 else 2**64 - 1)
    for name, own in (("a cipher", whole), ("a cipher, for coins", whole.fork("coins"))):
        yield name, own.words(steps * n).reshape(steps, n) < threshold
