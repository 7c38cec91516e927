"""Mechanisms with one mistake each, all of them seen in the wild, for the audit to find.

``FAULTS`` show in a single step. Those of transcripts need rounds, silos or single tensors:
``NOISE``, ``SAMPLING`` and ``SENSITIVITY`` by what finds them.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from silotune.core import Key, Role
from silotune.privacy import ExampleLevel, Gaussian, Poisson, RoundRandomness
from silotune.privacy.mechanisms.sampling import epochs
from silotune.privacy.mechanisms.secure_rng import Randomness

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
    sigma: float = 1.0
    rate: float = 1.0
    expected_batch_size: float = SIZE

    @property
    def private(self):
        return True

    @property
    def max_grad_norm(self):
        return BOUND

    def draws(self, seed, past) -> RoundRandomness:
        return honest(self.sigma).draws(seed, past)

    def batches(self, records, steps, draws):
        return honest(self.sigma, self.rate).batches(records, steps, draws)

    def charge(self, steps):
        return honest(self.sigma, self.rate).charge(steps)

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


@dataclass(frozen=True, eq=False)
class Altered:
    """The real mechanism with one method replaced."""

    real: ExampleLevel
    drawn: Callable[..., RoundRandomness] = ExampleLevel.draws
    sampled: Callable[..., Iterator[Sequence[int]]] = ExampleLevel.batches
    stepped: Callable[..., int] = ExampleLevel.gradients

    @property
    def private(self):
        return True

    @property
    def max_grad_norm(self):
        return self.real.max_grad_norm

    @property
    def expected_batch_size(self):
        return self.real.expected_batch_size

    def draws(self, seed, past):
        return self.drawn(self.real, seed, past)

    def batches(self, records, steps, draws):
        return self.sampled(self.real, records, steps, draws)

    def gradients(self, tensors, sink, losses, micro_batches, draws):
        return self.stepped(self.real, tensors, sink, losses, micro_batches, draws)

    def charge(self, steps):
        return self.real.charge(steps)


@dataclass
class Source:
    """Noise that something else makes: ``made(step, bound, numbers)``."""

    made: Callable[[int, float, int], Tensor]
    steps: int = 0

    def draw(self, bound: float, numbers: int) -> Tensor:
        self.steps += 1
        return self.made(self.steps - 1, bound, numbers)


HALF = honest(1.0, 0.5)
"""What is claimed where noise and coins are looked at."""


def with_noise(made: Callable[[RoundRandomness, int], Callable[[int, float, int], Tensor]]):
    """Every silo the same: the noise of a round is made from its true draws and its seed."""

    def drawn(real: ExampleLevel, seed: int, past) -> RoundRandomness:
        true = real.draws(seed, past)
        return true._replace(noise=Source(made(true, seed)))

    return lambda silo: Altered(HALF, drawn=drawn)


def only_first_step(true, seed):
    return lambda t, c, n: true.noise.draw(c, n) * (t == 0)


def from_task_seed(true, seed):
    g = torch.Generator().manual_seed(seed)
    return lambda t, c, n: torch.randn(n, generator=g, dtype=torch.float64) * c


def from_numpy_and_round_seed(true, seed):
    g = np.random.default_rng(seed)
    return lambda t, c, n: torch.from_numpy(g.standard_normal(n)) * c


def one_for_all_tensors(true, seed):
    """The tensors' noise repeats the first numbers drawn."""

    def made(t, c, n):
        few = true.noise.draw(c, 64)
        return few.repeat(-(-n // 64))[:n]

    return made


def same_in_every_step(true, seed):
    """Scaled so that the spread of a round is right."""
    kept = []

    def made(t, c, n):
        if not kept:
            kept.append(true.noise.draw(c, n))
        return kept[0] / math.sqrt(3.0)

    return made


def taken_back_at_the_next_step(true, seed):
    last = [None]

    def made(t, c, n):
        now = true.noise.draw(c, n)
        before, last[0] = last[0], now
        return now if before is None else now - before

    return made


def nearly_enough(true, seed):
    return lambda t, c, n: 0.9 * true.noise.draw(c, n)


def uniform(true, seed):
    """Of the right spread, but bounded: whoever sees a larger number knows."""

    def made(t, c, n):
        return (true.noise.draw(c, n) / c / math.sqrt(2)).erf() * math.sqrt(3.0) * c

    return made


def laplace(true, seed):
    def made(t, c, n):
        u = (true.noise.draw(c, n) / c / math.sqrt(2)).erf() / 2
        return -u.sign() * torch.log1p(-2 * u.abs()) / math.sqrt(2) * c

    return made


def off_centre(true, seed):
    return lambda t, c, n: true.noise.draw(c, n) + 0.1 * c


def with_key(key: Callable[[str], bytes]):
    """All draws from one key for a silo, afresh in every round."""

    def of(silo: str) -> Altered:
        def drawn(real, seed, past):
            g = Randomness(key(silo))
            return RoundRandomness(g.fork("coins"), real.noise.source(g.fork("noise"), 0), 0)

        return Altered(HALF, drawn=drawn)

    return of


def read_from_another_place(silo: str) -> Altered:
    """One stream, begun 40 numbers later in every round: most of it was used before."""
    rounds = [0]

    def drawn(real, seed, past):
        true = real.draws(seed, past)
        g = Randomness(silo.ljust(32).encode())
        g.words(40 * rounds[0])
        rounds[0] += 1
        return true._replace(noise=real.noise.source(g, 0))

    return Altered(HALF, drawn=drawn)


def sharing_between_silos():
    """Two silos begin each round from the same key."""
    keys: dict[int, bytes] = {}
    seen: dict[str, int] = {}

    def of(silo: str) -> Altered:
        def drawn(real, seed, past):
            round = seen[silo] = seen.get(silo, -1) + 1
            true = real.draws(seed, past)
            if round not in keys:
                keys[round] = true.coins.words(4).tobytes()
            g = Randomness(keys[round])
            return true._replace(noise=real.noise.source(g, 0))

        return Altered(HALF, drawn=drawn)

    return of


def lacking_on(kept: Callable[[Key], float]):
    """The noise of a tensor times something."""
    return lambda silo: Faulty(noise=lambda std, key: kept(key) * std, rate=0.5)


def one_silo_without(silo: str):
    return Altered(HALF, drawn=_silent) if silo == "west" else HALF


def _silent(real, seed, past):
    return replace(real, noise=Gaussian(1e-3)).draws(seed, past)


def of_the_true_batch(silo: str) -> Faulty:
    return Faulty(denominator=lambda records: max(1.0, float(records)), rate=0.5)


def without_a_batch_none(silo: str) -> Altered:
    """No noise where a coin says so: a step that is skipped, and left as it was."""

    def stepped(real, tensors, sink, losses, micro_batches, draws):
        found = real.gradients(tensors, sink, losses, micro_batches, draws)
        if draws.coins.words(1)[0] % 4 == 0:
            for parameter in tensors.values():
                parameter.grad.zero_()
        return found

    return Altered(HALF, stepped=stepped)


NOISE = {
    "on the first step of a round only": (with_noise(only_first_step), "noise"),
    "from task.seed": (with_noise(from_task_seed), "independence"),
    "from task.seed, by numpy": (with_noise(from_numpy_and_round_seed), "independence"),
    "the same in every round": (with_key(lambda silo: silo.ljust(32).encode()), "independence"),
    "the same at every silo": (sharing_between_silos(), "independence"),
    "none on the head's bias": (lacking_on(lambda key: float(key.name != "bias")), "noise"),
    "half of it on one tensor": (
        lacking_on(lambda key: 0.5 if ".1." in key.site and "query" in key.site else 1.0),
        "noise",
    ),
    "scaled by the tensor's number": (
        lacking_on(lambda key: 1.0 + 0.5 * (key.role is Role.B)),
        "noise",
    ),
    "one draw for all tensors": (with_noise(one_for_all_tensors), "independence"),
    "the same in every step of a round": (with_noise(same_in_every_step), "steps"),
    "taken back at the next step": (with_noise(taken_back_at_the_next_step), "noise"),
    "at 0.9 sigma": (with_noise(nearly_enough), "noise"),
    "uniform": (with_noise(uniform), "steps"),
    "Laplace": (with_noise(laplace), "steps"),
    "not centred": (with_noise(off_centre), "noise"),
    "one stream, read again from another place": (read_from_another_place, "independence"),
    "none at one silo": (one_silo_without, "noise"),
    "over the true batch": (of_the_true_batch, "noise"),
    "none in some steps": (without_a_batch_none, "noise"),
}


def with_coins(sampled):
    return lambda silo: Altered(HALF, sampled=sampled)


def too_often(real, records, steps, draws):
    return Poisson(0.75).batches(records, steps, draws)


def in_pairs(real, records, steps, draws):
    for batch in real.sampling.batches(records // 2, steps, draws):
        yield sorted([2 * i for i in batch] + [2 * i + 1 for i in batch])


def one_coin_for_a_round(real, records, steps, draws):
    [batch] = real.sampling.batches(records, 1, draws)
    return iter([batch] * steps)


def shuffled(real, records, steps, draws):
    return (sorted(b.tolist()) for b in epochs(records, records // 2, steps, draws.coins))


def the_first_always(real, records, steps, draws):
    for batch in real.sampling.batches(records, steps, draws):
        yield sorted({0, *batch})


def twice(real, records, steps, draws):
    for batch in real.sampling.batches(records, steps, draws):
        yield [*batch, *batch[:1]]


def seeded_coins(silo: str) -> Altered:
    def drawn(real, seed, past):
        return real.draws(seed, past)._replace(coins=Randomness.insecure(seed))

    return Altered(HALF, drawn=drawn)


def torch_seeded_coins(silo: str) -> Altered:
    """Coins from torch's generator, which training seeds with ``task.seed``."""

    def sampled(real, records, steps, draws):
        for _ in range(steps):
            yield torch.nonzero(torch.rand(records) < 0.5).flatten().tolist()

    return Altered(HALF, sampled=sampled)


SAMPLING = {
    "a rate too high": with_coins(too_often),
    "one coin for two records": with_coins(in_pairs),
    "one sample for all steps of a round": with_coins(one_coin_for_a_round),
    "shuffled batches of one size": with_coins(shuffled),
    "one record always": with_coins(the_first_always),
    "a record twice in a batch": with_coins(twice),
    "the same coins in every round": with_key(lambda silo: silo.ljust(32).encode()),
    "the same coins at every silo": with_key(lambda silo: b"one key for all".ljust(32)),
    "coins from task.seed": seeded_coins,
    "coins from torch's generator": torch_seeded_coins,
}


def clipped_tensor_by_tensor(rows: Rows) -> Rows:
    return {key: clipped({key: r})[key] for key, r in rows.items()}


def without_one(part: str, role: Role) -> Callable[[Rows], Rows]:
    return clipped_by(lambda key: not (part in key.site and key.role is role))


def without_bias(rows: Rows) -> Rows:
    return clipped_by(lambda key: key.name != "bias")(rows)


def second_phase_open(rows: Rows) -> Rows:
    """Where A trains and B does not, nothing is clipped."""
    phase = {key.role for key in rows}
    return rows if Role.A in phase and Role.B not in phase else clipped(rows)


def by_the_micro_batch(rows: Rows) -> Rows:
    """The norm of a micro-batch's sum scales all its records."""
    total = norms({key: r.sum(dim=0, keepdim=True) for key, r in rows.items()})
    return scaled(rows, (BOUND / total).clamp(max=1.0).expand(len(norms(rows))))


def clipped_to_a_little_more(rows: Rows) -> Rows:
    return scaled(rows, (1.1 * BOUND / norms(rows)).clamp(max=1.0))


def clipped_in_the_largest_norm(rows: Rows) -> Rows:
    """The norm of the largest tensor in place of all of them."""
    largest = torch.stack([r.flatten(1).norm(dim=1) for r in rows.values()]).amax(dim=0)
    return scaled(rows, (BOUND / largest).clamp(max=1.0))


SENSITIVITY = {
    "one A left out of the norm": (without_one("layer.1.attention.self.query", Role.A), "fedit"),
    "one B left out of the norm": (without_one("layer.0.attention.self.value", Role.B), "ffa-lora"),
    "the head's bias left out of the norm": (without_bias, "ffa-lora"),
    "each tensor clipped to C": (clipped_tensor_by_tensor, "ffa-lora"),
    "each layer clipped to C": (clipped_layer_by_layer, "ffa-lora"),
    "the second phase not clipped": (second_phase_open, "la-lora"),
    "the norm of a micro-batch": (by_the_micro_batch, "ffa-lora"),
    "the micro-batch's sum clipped": (sum_clipped, "ffa-lora"),
    "the batch mean clipped": (mean_clipped, "ffa-lora"),
    "pairs averaged before clipping": (averaged_in_pairs, "ffa-lora"),
    "clipped to 1.1 C": (clipped_to_a_little_more, "ffa-lora"),
    "the norm of the largest tensor": (clipped_in_the_largest_norm, "ffa-lora"),
    "no clipping": (unclipped, "ffa-lora"),
}
