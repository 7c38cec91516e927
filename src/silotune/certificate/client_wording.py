"""The sentences of certificates under unit: client, where all clients trust the server."""

from __future__ import annotations

from .wording import EVERYBODY, GENERATOR, Wording

ADDED = (
    "added once to every coordinate of the sum of clipped changes, which is then divided by the "
    "expected cohort"
)

ONE_CLIENT = "everything that one person has is at one client"

CLIENT = Wording(
    adversary="whoever sees the released models: the other clients, who are sent one in every "
    "round they take part in, and whoever gets the adapter, all of them together; not the server",
    trust_model="the server sees every client's update as it is and must be trusted with it, and "
    "with the names of those whom it asks; it clips, adds the noise, and keeps its random numbers "
    "secret. The way to the server must be closed to others",
    sampling={
        "poisson": "Poisson: in every round each client is asked by its own coin, drawn afresh "
        "from {source}; amplification by sampling is claimed, and holds while nobody but the "
        "server learns the coins",
        "rotation": "in turn: each client has one turn of {turns}, drawn once for the whole run "
        "from {source}, is asked in every round that it comes round, and in no other round; no "
        "amplification by sampling is claimed",
        EVERYBODY: "every client is asked in every round; no amplification by sampling is claimed",
    },
    noise={
        "gaussian": f"Gaussian, in double precision, {GENERATOR}; {ADDED}",
        "correlated": "Gaussian, in double precision, correlated over rounds by a banded matrix "
        f"factorisation, {GENERATOR}; σ is that of the independent noise behind it, in units of S; "
        f"{ADDED}",
    },
    update="after each round, the noised mean of the trained tensors ({roles})",
    declared=(
        "the list of clients, and their number (public by declaration)",
        "each client's declared number of records (public by declaration)",
    ),
    holds_if=ONE_CLIENT,
    if_infinite=ONE_CLIENT,
    baselines="the baselines ({names}): they were trained without any noise",
    site_scores="scores on held-out records, which stay in each client's own folder",
    dealt="how records were dealt out to clients, which looks at all of them (data.silos.num)",
    insiders="what the server, or whoever reads its messages or its memory, learns of a client",
    people="people whose records are at several clients: the unit is one client",
    participation=("that somebody is one of the clients at all: their list is taken as public",),
    unrecorded="other runs with the same clients, which add up: no book is kept of them",
    noise_rounding="rounding of floating-point numbers in the noise",
    unclaimed=(
        "amplification by shuffling or by local steps: one release a round, charged in full",
        "clients that were lost: whoever might have been asked is charged",
        "distances between clipping norm and actual changes: every client is charged in full",
    ),
)
