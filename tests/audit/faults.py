"""Mechanisms with one mistake each, all of them seen in the wild, for the audit to find."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from silotune.core import Key, Role
from silotune.privacy import ExampleLevel, Gaussian, Poisson, RoundRandomness

BOUND, SIZE = 0.5, 8.0

Rows = Mapping[Key, Tensor]
"""Per-example gradients, (n, *shape) each."""


def honest(sigma: float = 1.0, rate: float = 1.0) -> ExampleLevel:
    return ExampleLevel(
        sampling=Poisson(rate),
        noise=Gaussian(sigma),
        max_grad_norm=BOUND,
        expected_batch_size=SIZE,
    )


def norms(rows: Rows) -> Tensor:
    return torch.stack([r.flatten(1).norm(dim=1) for r in rows.values()]).norm(dim=0)


def scaled(rows: Rows, factor: Tensor) -> Rows:
    return {key: torch.einsum("n,n...->n...", factor, r) for key, r in rows.items()}


def clipped(rows: Rows) -> Rows:
    return scaled(rows, (BOUND / norms(rows)).clamp(max=1.0))


def unclipped(rows: Rows) -> Rows:
    return rows


def mean_clipped(rows: Rows) -> Rows:
    n = len(next(iter(rows.values())))
    mean = {key: r.mean(dim=0, keepdim=True) for key, r in rows.items()}
    return scaled(clipped(mean), torch.tensor([float(n)]))


def sum_clipped(rows: Rows) -> Rows:
    return clipped({key: r.sum(dim=0, keepdim=True) for key, r in rows.items()})


def clipped_layer_by_layer(rows: Rows) -> Rows:
    sites = {key.site for key in rows}
    layers = [{key: r for key, r in rows.items() if key.site == site} for site in sites]
    return {key: r for layer in layers for key, r in clipped(layer).items()}


def clipped_by(kept: Callable[[Key], bool]) -> Callable[[Rows], Rows]:
    """The norm runs over some of the tensors only."""

    def clip(rows: Rows) -> Rows:
        seen = norms({key: r for key, r in rows.items() if kept(key)})
        return scaled(rows, (BOUND / seen).clamp(max=1.0))

    return clip


def averaged_in_pairs(rows: Rows) -> Rows:
    def pairs(r: Tensor) -> Tensor:
        return torch.stack([part.mean(dim=0) for part in r.split(2)])

    return clipped({key: pairs(r) for key, r in rows.items()})


def clipped_to_twice(rows: Rows) -> Rows:
    return scaled(rows, (2 * BOUND / norms(rows)).clamp(max=1.0))


@dataclass(frozen=True)
class Faulty:
    """DP-SGD in plain words; each field is right unless it is changed."""

    clip: Callable[[Rows], Rows] = clipped
    noise: Callable[[float, Key], float] = lambda std, key: std
    denominator: Callable[[int], float] = lambda records: SIZE

    @property
    def private(self):
        return True

    @property
    def max_grad_norm(self):
        return BOUND

    def draws(self, seed, past) -> RoundRandomness:
        mechanism = honest()
        return mechanism.draws(seed, past)

    def batches(self, records, steps, draws):
        return honest().batches(records, steps, draws)

    def charge(self, steps):
        return honest().charge(steps)

    def gradients(self, tensors, sink, losses, micro_batches, draws) -> int:
        sums, records = {key: torch.zeros_like(p) for key, p in tensors.items()}, 0
        for batch in micro_batches:
            n = len(batch["labels"])
            with sink.collect(n) as rows:
                losses(batch).sum().backward()
                for key, r in self.clip(rows).items():
                    sums[key] = sums[key] + r.sum(dim=0)
            records += n
        for key, p in tensors.items():
            drawn = draws.noise.draw(1.0, p.numel()).view(p.shape).to(p)
            total = sums[key] + self.noise(BOUND, key) * drawn
            p.grad = total / self.denominator(records)
        return 0


FAULTS = {
    "half the noise": Faulty(noise=lambda std, key: std / 2),
    "no clipping": Faulty(unclipped),
    "the batch mean clipped": Faulty(mean_clipped),
    "the batch sum clipped": Faulty(sum_clipped),
    "each layer clipped to C": Faulty(clipped_layer_by_layer),
    "head left out of the norm": Faulty(clipped_by(lambda key: key.role is not Role.HEAD)),
    "adapters left out of the norm": Faulty(clipped_by(lambda key: key.role is Role.HEAD)),
    "noise divided twice": Faulty(noise=lambda std, key: std / SIZE),
    "pairs averaged before clipping": Faulty(averaged_in_pairs),
    "divided by the records drawn": Faulty(denominator=float),
    "clipped to 2 C": Faulty(clipped_to_twice),
    "no noise on the head": Faulty(noise=lambda std, key: 0.0 if key.role is Role.HEAD else std),
}
