"""Verify: the certificate of a run, held against the description that lies beside it as well."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from silotune.certificate import verify as certificate
from silotune.certificate.circumstances import Circumstances, Described, counted
from silotune.certificate.signature import public_key
from silotune.certificate.verify import Demands, Describe, Verification
from silotune.core.files import read_json
from silotune.runs.folder import RunFolder

from .identity import BESIDE, CLASS, decisive, decoded, digest_of, name_of
from .offer import digest_of_terms
from .sites import Sites


def verify(
    place: str | Path,
    *,
    keys: Mapping[str, str] | None = None,
    require_signatures: bool = False,
) -> Verification:
    """Make every figure and sentence of a certificate again; nothing trains, no record is read.

    Args:
        place: a run's folder, whose ``federation.json``, record, ledgers, metrics, checkpoint and
            adapter are then compared; or a certificate, which is checked alone.
        keys: client -> its public key, 64 hexadecimal digits or a file that holds it: these must
            have signed.
        require_signatures: whether all must have.

    Raises:
        ValueError: if a key is none.
        RecordError: if there is no certificate, or it cannot be read at all.
    """
    demands = Demands(
        keys={name: public_key(key) for name, key in (keys or {}).items()},
        everybody=require_signatures,
    )
    return certificate.verify(Path(place), DESCRIBERS, demands)


def described_beside(folder: RunFolder) -> Described:
    """The run as ``federation.json`` describes it, whether or not its records are to be had.

    Raises:
        ValueError: in words, if it is not there or damaged.
    """
    file = folder.description
    found = read_json(file)
    try:
        records = found["records"]
        terms = decoded({**found["terms"], "eval_every": found[BESIDE]["eval_every"]}, str(file))
        at_sites = is_at_sites(records["clients"])
        circumstances = Circumstances(
            baselines=tuple(found[BESIDE]["baselines"]),
            limited=records["limit"] is not None,
            dealt=records["partition"]["num"] is not None,
            composed=records["person"] is not None,
            counted=() if at_sites else counted(terms, records),
            recorded=found[BESIDE].get("lifetime", {}).get("record", True),
            at_sites=at_sites,
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file}: damaged, this describes no federation") from error
    offered = digest_of_terms(terms) if at_sites else ""
    return Described(terms, circumstances, digest_of(decisive(found)), file.name, offered)


def is_at_sites(clients: object) -> bool:
    """Whether clients, as they are described, are the names of sites."""
    return isinstance(clients, Mapping) and clients.get(CLASS) == name_of(Sites)


DESCRIBERS: Mapping[str, Describe] = {"federation.json": described_beside}
"""What can be read without the file format: a configuration beside it is not."""
