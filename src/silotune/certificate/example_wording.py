"""The sentences of certificates under unit: example, where each silo trusts itself only."""

from __future__ import annotations

from .wording import GENERATOR, Wording

EXAMPLE = Wording(
    adversary="the server, the other silos, whoever reads their messages and whoever gets the "
    "adapter, all of them together; they may know every other record and look on in every round",
    trust_model="each silo trusts itself only: its own machine, this software, and the random "
    "numbers of its operating system; noise is added inside the silo, before anything leaves it",
    sampling={
        "poisson": "Poisson: in every step each record enters by its own coin, drawn afresh from "
        "{source}; amplification by sampling is counted on, and holds only while nobody learns the "
        "coins",
        "truncated-poisson": "Poisson, by a fresh coin of each place from {source}; of a sample "
        "beyond the largest batch a random part is left out. Amplification by sampling is counted "
        "on, as far as it is left, and holds only while nobody learns the coins",
        "rotation": "in turn: a record takes part once in every cycle of steps and in no other "
        "step; no amplification by sampling is claimed",
    },
    noise={
        "gaussian": f"Gaussian, in double precision, {GENERATOR}; its standard deviation is the "
        "noise multiplier σ times C",
        "discrete": f"the discrete Gaussian on a grid, {GENERATOR}; records' parts are rounded to "
        "the same grid and summed without error, and σ counts what rounding adds to C",
        "correlated": "Gaussian, correlated over steps by a banded matrix factorisation, "
        f"{GENERATOR}; σ is that of the independent noise behind it, in units of C",
    },
    update="after each round, every silo's trained tensors ({roles})",
    declared=("each silo's declared number of records (public by declaration)",),
    holds_if="records of different silos are disjoint by origin; a person with records at several "
    "silos is protected by the sum of their epsilons",
    if_infinite="never: nothing is private",
    if_composed="nobody has more than one record at each silo; the charges of all silos are "
    "composed",
    baselines="the baselines ({names})",
    site_scores="exact scores on held-out records, which stay in each silo's own folder",
    limited="which records data.limit leaves: with one record more, another one is left out",
    dealt="how records were dealt out to silos, which looks at all of them (data.silos.num)",
    people="several records of one person at one silo: the unit is one record",
    participation=(
        "that a silo took part in the run at all, and which rounds it missed",
        "that something failed at a silo, and when; the reason stays in its own folder. Where one "
        "record can make its silo fail, a failure tells that it was drawn",
    ),
    other_runs=(
        "other runs on the same records, which add up: epsilon is that of this run, and each "
        "silo's figure for life adds those that its book knows from the same declared place",
        "that a silo refuses a run because its records have paid too much in others",
        "noise or length of a run that somebody chose by what others had released: runs are "
        "composed as if chosen beforehand",
    ),
    unrecorded="other runs on the same records, which add up: no book for life knows of this one "
    "(privacy.lifetime: off)",
    noise_rounding="rounding of floating-point numbers in the noise (noise: discrete closes this)",
    gradient_rounding="rounding in the gradients of records that are computed together, which is "
    "measured (coupling) and not bounded",
    unclaimed=(
        "amplification by shuffling: an order of records is never counted as random sampling",
        "amplification by silos that sit out: who takes part is seen",
        "averaging over silos: every silo's update is seen",
        "hidden state: every local step is charged as if its result were published",
        "distances between clip norm and actual gradients: every record is charged in full",
    ),
)
