"""Progress: a bar over rounds, in a terminal and in a notebook; none where nobody looks."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from tqdm.auto import tqdm

from silotune.core.units import epsilon_text, metric_text, number_text
from silotune.runs.folder import RoundRecord
from silotune.terms import Terms


def watched(
    records: Iterable[RoundRecord], terms: Terms, metric: str, *, progress: bool | None
) -> Iterator[RoundRecord]:
    """The same records, with a bar beside them.

    Args:
        records: as rounds end.
        terms: say how many there are, and what may be spent.
        metric: the one to show.
        progress: whether there is a bar; None = where somebody sees it.
    """
    seen = is_watched() if progress is None else progress
    with _bar(terms.rounds, seen=seen) as bar:
        for record in records:
            try:
                bar.n = record.round + 1
                bar.set_postfix_str(_words(record, terms, metric))
            except OSError:  # whoever watched has gone
                bar.disable = True
            yield record


def is_watched() -> bool:
    """Whether this is a terminal or a notebook."""
    return (sys.stderr is not None and sys.stderr.isatty()) or _in_notebook()


def _bar(rounds: int, *, seen: bool) -> tqdm:
    try:
        return tqdm(total=rounds, desc="round", unit="round", disable=not seen)
    except OSError:
        return tqdm(disable=True)


def _in_notebook() -> bool:
    python = sys.modules.get("IPython")
    shell = python.get_ipython() if python else None
    return shell is not None and "IPKernelApp" in shell.config


def _words(record: RoundRecord, terms: Terms, metric: str) -> str:
    words = []
    if metric in record.metrics:
        words.append(f"{metric} {metric_text(metric, record.metrics[metric])}")
    if record.epsilon:
        target = terms.privacy.target_epsilon
        of = f" of {number_text(target)}" if target else ""
        words.append(f"ε {epsilon_text(max(record.epsilon.values()))}{of}")
    return ", ".join(words)
