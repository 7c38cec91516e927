"""Verify: the certificate of a run, held against the description that lies beside it as well."""

from __future__ import annotations

from pathlib import Path

from silotune.certificate import verify as certificate
from silotune.certificate.circumstances import Circumstances, Described
from silotune.certificate.verify import Verification
from silotune.core.files import read_json
from silotune.runs.folder import RunFolder

from .identity import BESIDE, decisive, decoded, digest_of


def verify(place: str | Path) -> Verification:
    """Compute every epsilon of a certificate again; nothing trains and no record is read.

    Args:
        place: a run's folder, whose description, record and ledgers are then compared; or a
            certificate, which is checked alone.

    Raises:
        RecordError: if there is no certificate, or it cannot be read at all.
    """
    path = Path(place)
    is_described = RunFolder(path).description.is_file()
    return certificate.verify(path, described_beside if is_described else None)


def described_beside(folder: RunFolder) -> Described:
    """The run as ``federation.json`` describes it, whether or not its records are to be had.

    Raises:
        ValueError: in words, if it is not there or damaged.
    """
    file = folder.description
    found = read_json(file)
    try:
        records = found["records"]
        circumstances = Circumstances(
            baselines=tuple(found[BESIDE]["baselines"]),
            limited=records["limit"] is not None,
            dealt=records["partition"]["num"] is not None,
            composed=records["person"] is not None,
            recorded=found[BESIDE].get("lifetime", {}).get("record", True),
        )
        terms = decoded({**found["terms"], "eval_every": found[BESIDE]["eval_every"]}, str(file))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file}: damaged, this describes no federation") from error
    return Described(terms, circumstances, digest_of(decisive(found)), file.name)
