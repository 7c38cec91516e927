"""The model card of an adapter: ``README.md`` beside its weights, as the Hugging Face hub reads it.

It says how to load the adapter without silotune, how it was made and what its privacy is. It names
no silo, and shows no figure of a single one but its privacy.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace

import yaml

from silotune.certificate.guarantee import (
    NOT_PRIVATE,
    guarantee,
    in_plain_words,
    is_seeded,
    warning,
)
from silotune.core import work_text
from silotune.core.units import count_text, epsilon_text, metric_text, number_text
from silotune.objectives import find
from silotune.runs.facts import RunFacts, Summary
from silotune.runs.privacy_statement import PrivacyStatement, SiloPrivacy

from .certainty import METHOD
from .prose import EVALUATION, PERSONAL, decline, final_score, method_name, what_was_done
from .totals import Outcome
from .usage import adapter_program, is_hub_name, public_name


def model_card(
    summary: Summary, facts: RunFacts, outcome: Outcome, statement: PrivacyStatement | None
) -> str:
    """The card as Markdown with front matter."""
    public = replace(summary, base_model=public_name(summary.base_model))
    own = [OWN] if summary.personal else []
    sections = [
        f"# {_inline(summary.title)}",
        *([f"> **{NOT_PRIVATE}.** {warning(statement)}"] if is_seeded(statement) else []),
        _inline(what_was_done(public, facts, outcome, statement)),
        f"## Use\n\n{_use(summary, facts)}",
        f"## Method\n\n{_method(summary, facts)}",
        f"## Result\n\n{_result(summary, facts, outcome)}",
        "\n\n".join(["## Privacy", *own, _privacy(statement)]),
        f"## Origin\n\n{_origin(summary, facts, statement)}",
    ]
    return _front_matter(summary, statement) + "\n\n".join(sections) + "\n"


def _use(summary: Summary, facts: RunFacts) -> str:
    if not summary.fits_peft:
        return OWN_FORMAT
    return f"```python\n{adapter_program(summary, facts.labels)}```"


def signpost(summary: Summary) -> str:
    """The page where a run's adapter would be, had every silo not its own."""
    return f"""\
# {_inline(summary.title)}: no adapter for all silos

{_inline(method_name(summary))} was used here. {PERSONAL} So there are no weights in this folder.

Each silo's adapter, in PEFT's format, is in that silo's own folder, `sites/SILO/adapter`.
`silotune export RUN --silo SILO` takes one elsewhere, also merged into the model, and
`silotune evaluate RUN` scores them all.
"""


OWN_FORMAT = (
    "What this adapter adds to a layer differs from record to record, or with what other layers "
    "read. PEFT has no format for that, and nothing can be merged exactly, so the tensors are in a "
    "file of silotune's own, `adapter.silotune`. In Python, `silotune.load` makes a model of this "
    "folder that predicts or generates; `silotune evaluate RUN` scores its run."
)
"""How to use what is not in PEFT's format."""

OWN = (
    "This adapter is one silo's own: some of its tensors never left that silo. Treat it as the "
    "silo's, and do not pass it on as if all silos shared it."
)
"""Of an adapter with personal tensors in it."""


def _front_matter(summary: Summary, statement: PrivacyStatement | None) -> str:
    tags = ["lora", "federated-learning", summary.method, "silotune"]
    library = "peft" if summary.fits_peft else "silotune"
    front = {"library_name": library, "pipeline_tag": find(summary.task).pipeline}
    if is_hub_name(summary.base_model):
        front["base_model"] = summary.base_model
    data = {**front, "tags": tags + ([] if warning(statement) else ["differential-privacy"])}
    return f"---\n{yaml.safe_dump(data, sort_keys=False, allow_unicode=True)}---\n\n"


def _method(summary: Summary, facts: RunFacts) -> str:
    sizes = [silo.get("num_examples", 0) for silo in facts.silos.values()]
    parameters = facts.parameters
    lines = [
        _inline(summary.method_words),
        "",
        f"- silos: {len(sizes)}, with {sum(sizes):,} declared records in all",
        f"- {count_text(summary.num_rounds, 'round')} planned, of "
        f"{work_text(summary.local_steps, summary.local_epochs)} with an expected batch of "
        f"{summary.batch_size}",
        f"- optimiser: {_inline(summary.optimizer)}",
        f"- head: {summary.head}; pooling: {summary.pooling}",
    ]
    if summary.rank:
        lines.append(
            f"- adapter: rank {summary.rank}, lora_alpha {number_text(summary.lora_alpha)}, on "
            f"{_inline(summary.target_modules)}"
        )
    elif not summary.fits_peft:
        lines.append(f"- adapters that were there before, on {_inline(summary.target_modules)}")
    elif summary.target_modules != "none":
        lines.append(f"- adapter: a whole matrix on {_inline(summary.target_modules)}")
    lines += [f"- {_inline(name)}: {_inline(told)}" for name, told in summary.loss.items()]
    lines += _constants(summary)
    if "trained" in parameters and "total" in parameters:
        lines.append(f"- trained numbers: {parameters['trained']:,} of {parameters['total']:,}")
    return "\n".join(lines)


def _constants(summary: Summary) -> list[str]:
    """What makes answers of outputs, for whoever uses these without our words."""
    words = {
        "threshold": "a label is given from this probability on, one for all or one for each",
        "mean": "outputs are standardised; a number is mean + scale * output, and the mean is",
        "scale": "and the scale is",
        "score_range": "the lowest and the highest score",
        "cosine_range": "the cosines that these two stand for",
    }
    return [
        f"- {words.get(name, name)}: {', '.join(map(number_text, told))}"
        for name, told in summary.constants.items()
    ]


def _result(summary: Summary, facts: RunFacts, outcome: Outcome) -> str:
    sure = METHOD if facts.scored else ""
    note = f"{_inline(final_score(facts))} {EVALUATION.get(summary.evaluation, '')} {sure}".strip()
    if outcome.worse:
        note = f"**{_inline(decline(outcome))}.**\n\n{note}"
    if not math.isfinite(outcome.after):
        return note
    before = metric_text(outcome.metric, outcome.before)
    after = metric_text(outcome.metric, outcome.after)
    table = f"| {_inline(outcome.metric)} before | after |\n|---:|---:|\n| {before} | {after} |"
    return f"{table}\n\n{note}"


def _privacy(statement: PrivacyStatement | None) -> str:
    alarm = [f"**No differential privacy.** {warning(statement)}"] if warning(statement) else []
    if statement is None:
        return alarm[0]
    rows = [f"- **{term}.** {_inline(text)}" for term, text in guarantee(statement)]
    head = (
        "| silo | declared records | sampling rate | noise multiplier | steps | ε | ε (RDP) | δ |"
    )
    order = sorted(statement.silos.values(), key=lambda silo: -silo.epsilon)
    table = [head, "|---|---:|---:|---:|---:|---:|---:|---:|"]
    table += [_silo_row(i, silo) for i, silo in enumerate(order, start=1)]
    lists = [
        f"{title}\n\n" + "\n".join(f"- {_inline(item)}" for item in items)
        for title, items in (
            ("Released under this guarantee:" if not alarm else "Released:", statement.released),
            ("Not covered by it:", statement.not_covered),
            ("Not counted on, and so not claimed:", statement.not_claimed),
        )
        if items
    ]
    plain = [_inline(text) for text in in_plain_words(statement)]
    check = "The figures can be computed again: `silotune privacy verify RUN`, beside the ledgers."
    return "\n\n".join([*alarm, *plain, "\n".join(rows), "\n".join(table), *lists, check])


def _silo_row(number: int, silo: SiloPrivacy) -> str:
    cells = (
        str(number),
        f"{silo.num_examples:,}",
        number_text(silo.sampling_rate),
        number_text(silo.noise_multiplier),
        f"{silo.steps:,}",
        epsilon_text(silo.epsilon),
        epsilon_text(silo.epsilon_rdp),
        number_text(silo.delta),
    )
    return f"| {' | '.join(cells)} |"


QUANTISED = {
    "8bit": "BitsAndBytesConfig(load_in_8bit=True)",
    "4bit": 'BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")',
}
"""How transformers is told to quantise a base as a run does."""


def _origin(summary: Summary, facts: RunFacts, statement: PrivacyStatement | None) -> str:
    lines = [f"- base model: {_inline(public_name(summary.base_model))}"]
    if summary.quantization != "none":
        lines.append(
            f"- it was kept in {summary.quantization} by bitsandbytes; the scores are those beside "
            f"it so, which `quantization_config={QUANTISED[summary.quantization]}` loads"
        )
    if summary.products != "float32":
        lines.append(
            f"- its frozen linear maps multiplied in {summary.products}; the scores are those "
            "beside it so"
        )
    if facts.model_digest:
        lines.append(f"- SHA-256 of the base weights: `{facts.model_digest}`")
    if facts.start_digest:
        lines.append(
            "- it began from an adapter that was trained before; SHA-256 of that one's tensors: "
            f"`{facts.start_digest}`"
        )
    coins = "; noise and sampling coins came from the operating system" if statement else ""
    if is_seeded(statement):
        coins = f", which also decided noise and sampling coins: {NOT_PRIVATE}"
    lines.append(f"- seed {facts.seed}{coins}")
    lines += [f"- {_inline(name)} {_inline(version)}" for name, version in facts.versions.items()]
    for upgrade in facts.upgrades:
        named = (f"{_inline(n)} {_inline(v)}" for n, v in upgrade["versions"].items())
        lines.append(f"- from round {upgrade['round']} on: {', '.join(named)}")
    return "\n".join(lines)


def _inline(text: str) -> str:
    """Text as Markdown that shows it literally, on one line."""
    return re.sub(r"([\\`*_\[\]<>|#&])", r"\\\1", " ".join(text.split()))
