"""Keeping: what a site writes down: the certificate and the result of a run, and errors."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from pathlib import Path

from silotune.core import append_line
from silotune.core.files import RecordError, in_words, read_lines
from silotune.engine import Client
from silotune.federation.adapter_folder import write_made
from silotune.federation.built import BuiltFederation
from silotune.federation.offer import Offer
from silotune.federation.scoring import measured
from silotune.federation.trained_models import ModelState, save_adapter
from silotune.privacy.ledger.private_files import write_private

from .home import SAID, Home, now
from .own_books import verify_own
from .permission import RefusedError

_LOG = logging.getLogger(__name__)

ERRORS, OLDER_ERRORS = "errors.jsonl", "errors.older.jsonl"
"""In a site's home: one line an error, for its own people; and those before, if they were many."""

MOST_ERRORS = 10_000_000
"""Bytes of them."""

NOT_TAKEN = "certificate.refused.json"
"""In the folder of a run: a certificate that is not what the ledger says, to be looked at."""


def keep_certificate(home: Home, site: str, run: str, text: str) -> None:
    """Keep a certificate that is what the site's own ledger says; one that is not, aside.

    Raises:
        RefusedError: if it is not.
    """
    aside = home.run(run) / NOT_TAKEN
    write_private(aside, text.encode())
    try:
        agrees = verify_own(home, site, run, aside).ok
    except (ValueError, RecursionError):
        agrees = False
    if not agrees:
        raise RefusedError("certificate")
    with in_words(aside):
        aside.replace(home.certificate(run))


def accepted(home: Home, offer: Offer, says: Mapping[str, object]) -> str:
    """Write down that the site takes part, and give the time; the same again has the time it had.

    Args:
        home: of the site.
        offer: that is accepted.
        says: what goes out with it.

    Raises:
        RecordError: if it cannot be written.
    """
    file = home.opened_run(offer.run) / SAID
    before = read_lines(file)[-1:] if file.exists() else []
    if before and {name: before[0].get(name) for name in says} == says:
        return str(before[0]["accepted"])
    time = now()
    append_line(file, {**says, "accepted": time})
    return time


def take(built: BuiltFederation, client: Client, offer: Offer, state: ModelState) -> None:
    """Write the adapter, and how it does on records that the site kept for the last."""
    folder = client.folder
    model = built.agreement.model
    save_adapter(model, state, folder / "adapter")
    write_made(folder / "adapter", built.terms, built.agreement.labels, model, offer.began)
    test = built.data.silos[client.client].test
    if test is not None:
        metrics = measured(built, [state], test).metrics()
        append_line(folder / "metrics.jsonl", {"split": "test", "metrics": metrics})


def note(home: Path) -> None:
    """Write an error down for the site's own people; errors without end fill no disk."""
    file = home / ERRORS
    try:
        with in_words(file):
            if file.exists() and file.stat().st_size > MOST_ERRORS:
                file.replace(home / OLDER_ERRORS)
        append_line(file, {"time": now(), "error": traceback.format_exc()})
    except RecordError as full:
        _LOG.error("an error could not be written down: %s", full)
