"""Progress: a bar over rounds, in a terminal and in a notebook; none where nobody looks."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from tqdm.auto import tqdm

from silotune.core.units import epsilon_text, metric_text, number_text
from silotune.runs.folder import RoundRecord
from silotune.terms import Terms

from .time_left import TimeLeft


def watched(
    records: Iterable[RoundRecord],
    terms: Terms,
    metric: str,
    *,
    baseline: bool = False,
    progress: bool | None,
) -> Iterator[RoundRecord]:
    """The same records, with a bar beside them.

    Args:
        records: as rounds end.
        terms: say how many there are, and what may be spent.
        metric: the one to show.
        baseline: whether every silo trains alone in the end.
        progress: whether there is a bar; None = where somebody sees it.
    """
    seen = is_watched() if progress is None else progress
    left = TimeLeft(terms.rounds, terms.scored, baseline)
    with _bar(terms.rounds, seen=seen) as bar:
        for record in records:
            words = [*_words(record, terms, metric), left.text(record)]
            try:
                bar.n = record.round + 1
                bar.set_postfix_str(", ".join(filter(None, words)))
            except OSError:  # whoever watched has gone
                bar.disable = True
            yield record


def is_watched() -> bool:
    """Whether this is a terminal or a notebook."""
    return (sys.stderr is not None and sys.stderr.isatty()) or _in_notebook()


def _bar(rounds: int, *, seen: bool) -> tqdm:
    try:
        return tqdm(total=rounds, desc="round", disable=not seen, bar_format=FORMAT)
    except OSError:
        return tqdm(disable=True)


def _in_notebook() -> bool:
    python = sys.modules.get("IPython")
    shell = python.get_ipython() if python else None
    return shell is not None and "IPKernelApp" in shell.config


FORMAT = "{desc} {n_fmt}/{total_fmt} |{bar}| {elapsed}{postfix}"
"""Of a bar: what is left is counted here, since rounds are not all that is done."""


def _words(record: RoundRecord, terms: Terms, metric: str) -> list[str]:
    words = []
    if metric in record.metrics:
        words.append(f"{metric} {metric_text(metric, record.metrics[metric])}")
    if record.epsilon:
        target = terms.privacy.target_epsilon
        of = f" of {number_text(target)}" if target else ""
        words.append(f"ε {epsilon_text(max(record.epsilon.values()))}{of}")
    return words
