"""Limits: what no verification of a run's files can show. Said with every result."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from silotune.runs.privacy_statement import PrivacyStatement

NOISE = (
    "that the noise was really drawn, afresh and of this size: for that there is the code, and "
    "silotune audit"
)

RECORDS = (
    "that the records were what they were said to be: as many, one of each {noun}, and of no other "
    "run that has spent of the same ones"
)

OBSERVED = (
    "that how records moved each other, and charges of other runs, are as they were found: "
    "run.json has a digest of both, and no other file shows them"
)

REWRITTEN = (
    "that nobody who owns every file wrote all of them anew, or put the whole folder back from an "
    "older copy: then everything agrees. A signature shows it, by a key that they do not have "
    "(silotune privacy sign); {unsigned} not signed"
)

AT_SITES = (
    "that sites accepted as is said, and by what way messages went: each site compares its own "
    "part (silotune site verify)"
)

OWN_KEYS = (
    "that a signature is by its silo: the keys came with the files; have them from the silos, and "
    "give them (--key)"
)

OTHERS_KEYS = "that a key belongs to whom you had it from, and was kept secret"

ALONE = "that ledgers, metrics and adapter are those that it is bound to: give the run's folder"

OWN_MODELS = "that models of silos' own, if there are any, are those that were trained"


def limits(
    statement: PrivacyStatement, signed: Collection[str], keys: Collection[str], *, alone: bool
) -> Iterator[str]:
    """Each begins with "that".

    Args:
        statement: the certificate.
        signed: accounts whose signature holds.
        keys: accounts whose key was given by whoever verifies.
        alone: whether nothing was beside it.
    """
    yield NOISE
    yield RECORDS.format(noun=statement.unit if statement.unit == "client" else "record")
    if statement.coupling or any(silo.lifetime for silo in statement.silos.values()):
        yield OBSERVED
    if statement.federation:
        yield AT_SITES
    unsigned = [name for name in statement.silos if name not in signed]
    if unsigned:
        told = f"{', '.join(unsigned)} {'has' if len(unsigned) == 1 else 'have'}"
        yield REWRITTEN.format(unsigned=told)
    if set(signed) - set(keys):
        yield OWN_KEYS
    if set(signed) & set(keys):
        yield OTHERS_KEYS
    yield ALONE if alone else OWN_MODELS
