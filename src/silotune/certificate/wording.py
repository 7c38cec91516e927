"""Wording: what a certificate says in sentences, for every kind of mechanism under unit: example.

Each sentence is a claim. It is here if the code keeps it, and nothing that would only make epsilon
look smaller is.
"""

from __future__ import annotations

from collections.abc import Iterator

from silotune.config import Config
from silotune.data.persons import People

ADVERSARY = (
    "the server, the other silos, whoever reads their messages and whoever gets the adapter, all "
    "of them together; they may know every other record and look on in every round"
)

TRUST = (
    "each silo trusts itself only: its own machine, this software, and the random numbers of its "
    "operating system; noise is added inside the silo, before anything leaves it"
)

DISJOINT = (
    "records of different silos are disjoint by origin; a person with records at several silos "
    "is protected by the sum of their epsilons"
)

COMPOSED = "nobody has more than one record at each silo; the charges of all silos are composed"

SECRET = "the operating system"
SEEDED = "train.seed, which is NO SECRET"

SAMPLINGS = {
    "poisson": "Poisson: in every step each record enters by its own coin, drawn afresh from "
    "{source}; amplification by sampling is counted on, and holds only while nobody learns the "
    "coins",
    "truncated-poisson": "Poisson, by a fresh coin of each place from {source}; of a sample beyond "
    "the largest batch a random part is left out. Amplification by sampling is counted on, as far "
    "as it is left, and holds only while nobody learns the coins",
    "rotation": "in turn: a record takes part once in every cycle of steps and in no other step; "
    "no amplification by sampling is claimed",
}

GENERATOR = "from a cryptographic generator (AES-256 in counter mode) keyed by {source}"

NOISES = {
    "gaussian": f"Gaussian, in double precision, {GENERATOR}; its standard deviation is the "
    "noise multiplier σ times C",
    "discrete": f"the discrete Gaussian on a grid, {GENERATOR}; records' parts are rounded to the "
    "same grid and summed without error, and σ counts what rounding adds to C",
    "correlated": f"Gaussian, correlated over steps by a banded matrix factorisation, {GENERATOR}; "
    "σ is that of the independent noise behind it, in units of C",
}

RDP = "Rényi divergences at integer orders"

UNCLAIMED = (
    "amplification by shuffling: an order of records is never counted as random sampling",
    "amplification by silos that sit out: who takes part is seen",
    "averaging over silos: every silo's update is seen",
    "hidden state: every local step is charged as if its result were published",
    "distances between clip norm and actual gradients: every record is charged in full",
)


def sampling(config: Config) -> str:
    """How batches are drawn."""
    return SAMPLINGS[config.privacy.sampling].format(source=source(config))


def noise(config: Config) -> str:
    """Which noise is added."""
    return NOISES[config.privacy.noise].format(source=source(config))


def source(config: Config) -> str:
    """Where noise and coins come from."""
    return SEEDED if config.privacy.insecure_seeded_noise else SECRET


def not_covered(config: Config, people: People | None = None) -> Iterator[str]:
    """What epsilon says nothing about.

    Args:
        config: of the run.
        people: as counted in a simulation.
    """
    if config.baselines:
        yield f"the baselines ({', '.join(config.baselines)})"
    if config.evaluation == "simulation":
        yield "all metrics and the pictures of the data: this was a simulation"
    if config.evaluation == "site":
        yield "exact scores on held-out records, which stay in each silo's own folder"
    if config.data.limit is not None:
        yield "which records data.limit leaves: that depends on all of them"
    if config.data.silos.num is not None:
        yield "how records were dealt out to silos, which looks at all of them (data.silos.num)"
    yield "the base model, and whatever it had learned before"
    if config.method.given("experts"):
        yield (
            "what the experts (method.experts) learned before: each carries the epsilon of its "
            "own run, if any, and where records are the same, the two add up"
        )
    yield "choices made by looking at private data: hyper-parameters, label set, declared sizes"
    most = f"; here one person has {people.most}" if people and people.most > 1 else ""
    yield f"several records of one person at one silo: the unit is one record{most}"
    yield "that a silo took part in the run at all, and which rounds it missed"
    yield "that something failed at a silo, and when; the reason stays in its own folder"
    yield "how long a round takes, and the behaviour of the machines"
    if config.privacy.noise != "discrete":
        yield "rounding of floating-point numbers in the noise (noise: discrete closes this)"
    yield "rounding in the gradients of records that are computed together"


def not_claimed(config: Config) -> Iterator[str]:
    """What would make epsilon smaller, and is not counted on."""
    if config.privacy.sampling == "rotation":
        yield "amplification by sampling: turns count as known to everybody"
    yield from UNCLAIMED
