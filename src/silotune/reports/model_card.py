"""The model card of an adapter: ``README.md`` beside its weights, as the Hugging Face hub reads it.

It says how to load the adapter without silotune, how it was made and what its privacy is. It names
no silo, and shows no figure of a single one but its privacy.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from silotune.certificate.guarantee import (
    NOT_PRIVATE,
    guarantee,
    in_plain_words,
    is_seeded,
    warning,
)
from silotune.core.units import count_text, epsilon_text, metric_text, number_text
from silotune.runs.facts import PrivacyStatement, RunFacts, SiloPrivacy, Summary

from .prose import EVALUATION, PERSONAL, final_score, method_name, what_was_done
from .totals import Outcome

PIPELINES = {
    "sequence-classification": "text-classification",
    "causal-lm": "text-generation",
    "image-classification": "image-classification",
}


def model_card(
    summary: Summary, facts: RunFacts, outcome: Outcome, statement: PrivacyStatement | None
) -> str:
    """The card as Markdown with front matter."""
    public = replace(summary, base_model=_public_name(summary.base_model))
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
    return f"```python\n{usage(summary, facts.labels)}```" if summary.fits_peft else OWN_FORMAT


def signpost(summary: Summary) -> str:
    """The page where a run's adapter would be, had every silo not its own."""
    return f"""\
# {_inline(summary.title)}: no adapter for all silos

{_inline(method_name(summary))} was used here. {PERSONAL} So there are no weights in this folder.

Each silo's adapter, in PEFT's format, is in that silo's own folder, `sites/SILO/adapter`.
`silotune export RUN --silo SILO` takes one elsewhere, also merged into the model, and
`silotune evaluate RUN` scores them all.
"""


def usage(summary: Summary, labels: Sequence[str], adapter: str = "path/to/adapter") -> str:
    """A Python program that loads the adapter and uses it; needs torch, transformers and peft."""
    name = summary.base_model
    place = name if _is_hub_name(name) else f"path/to/{_public_name(name)}"
    base = json.dumps(place, ensure_ascii=False)
    heading = f"ADAPTER = {json.dumps(adapter)}\nBASE = {base}\n"
    if summary.task != "causal-lm":
        indent = 4 if sum(len(label) + 4 for label in labels) > 80 else None
        heading += f"LABELS = {json.dumps(list(labels), ensure_ascii=False, indent=indent)}\n"
    if summary.pooling == "mean":
        return MEAN_POOLING.format(heading=heading, max_length=summary.max_length)
    templates = {"causal-lm": CAUSAL_LM, "image-classification": IMAGES}
    template = templates.get(summary.task, CLASSIFIER)
    return template.format(heading=heading, max_length=summary.max_length)


OWN_FORMAT = (
    "What this adapter adds to a layer differs from record to record, or with what other layers "
    "read. PEFT has no format for that, and nothing can be merged exactly, so the tensors are in a "
    "file of silotune's own, `adapter.silotune`. `silotune evaluate RUN` loads it, from the folder "
    "of its run."
)
"""How to use what is not in PEFT's format."""

OWN = (
    "This adapter is one silo's own: some of its tensors never left that silo. Treat it as the "
    "silo's, and do not pass it on as if all silos shared it."
)
"""Of an adapter with personal tensors in it."""

CLASSIFIER = """\
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

{heading}
tokenizer = AutoTokenizer.from_pretrained(BASE, padding_side="right")
tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
base = AutoModelForSequenceClassification.from_pretrained(
    BASE, num_labels=len(LABELS), ignore_mismatched_sizes=True
)
base.config.pad_token_id = tokenizer.pad_token_id
model = PeftModel.from_pretrained(base, ADAPTER).eval()

texts = ["a text to classify"]
batch = tokenizer(
    texts, padding=True, truncation=True, max_length={max_length}, return_tensors="pt"
)
with torch.no_grad():
    logits = model(**batch).logits
print([LABELS[i] for i in logits.argmax(dim=-1).tolist()])
"""

MEAN_POOLING = """\
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModel, AutoTokenizer

{heading}

class MeanPooledClassifier(nn.Module):
    # a linear classifier on the masked mean of the last hidden states, scaled to length one

    def __init__(self, encoder, num_labels):
        super().__init__()
        self.config = encoder.config
        self.prefix = encoder.base_model_prefix  # the name under which the adapter looks for it
        self.add_module(self.prefix, encoder)
        self.classifier = nn.Linear(encoder.config.hidden_size, num_labels)

    def forward(self, attention_mask, **inputs):
        given = {{name: value for name, value in inputs.items() if value is not None}}
        encoder = self.get_submodule(self.prefix)
        hidden = encoder(attention_mask=attention_mask, **given).last_hidden_state.float()
        mask = attention_mask.unsqueeze(-1).float()
        mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
        return self.classifier(nn.functional.normalize(mean, dim=-1))


base = MeanPooledClassifier(AutoModel.from_pretrained(BASE), len(LABELS))
model = PeftModel.from_pretrained(base, ADAPTER).eval()
tokenizer = AutoTokenizer.from_pretrained(BASE)

texts = ["a text to classify"]
batch = tokenizer(
    texts, padding=True, truncation=True, max_length={max_length}, return_tensors="pt"
)
with torch.no_grad():
    logits = model(**batch)
print([LABELS[i] for i in logits.argmax(dim=-1).tolist()])
"""

CAUSAL_LM = """\
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

{heading}
base = AutoModelForCausalLM.from_pretrained(BASE)
model = PeftModel.from_pretrained(base, ADAPTER).eval()
tokenizer = AutoTokenizer.from_pretrained(BASE)

batch = tokenizer("Once upon a time", return_tensors="pt", return_token_type_ids=False)
with torch.no_grad():
    tokens = model.generate(**batch, max_new_tokens=50)
print(tokenizer.decode(tokens[0], skip_special_tokens=True))
"""

IMAGES = """\
import torch
from peft import PeftModel
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

{heading}
base = AutoModelForImageClassification.from_pretrained(
    BASE, num_labels=len(LABELS), ignore_mismatched_sizes=True
)
model = PeftModel.from_pretrained(base, ADAPTER).eval()
processor = AutoImageProcessor.from_pretrained(BASE)

batch = processor(Image.open("picture.jpg").convert("RGB"), return_tensors="pt")
with torch.no_grad():
    logits = model(**batch).logits
print([LABELS[i] for i in logits.argmax(dim=-1).tolist()])
"""


def _front_matter(summary: Summary, statement: PrivacyStatement | None) -> str:
    tags = ["lora", "federated-learning", summary.method, "silotune"]
    library = "peft" if summary.fits_peft else "silotune"
    front = {"library_name": library, "pipeline_tag": PIPELINES.get(summary.task, summary.task)}
    if _is_hub_name(summary.base_model):
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
        f"{count_text(summary.local_steps, 'step')} with an expected batch of {summary.batch_size}",
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
    if "trained" in parameters and "total" in parameters:
        lines.append(f"- trained numbers: {parameters['trained']:,} of {parameters['total']:,}")
    return "\n".join(lines)


def _result(summary: Summary, facts: RunFacts, outcome: Outcome) -> str:
    note = f"{_inline(final_score(facts))} {EVALUATION.get(summary.evaluation, '')}".strip()
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


def _origin(summary: Summary, facts: RunFacts, statement: PrivacyStatement | None) -> str:
    lines = [f"- base model: {_inline(_public_name(summary.base_model))}"]
    if facts.model_digest:
        lines.append(f"- SHA-256 of the base weights: `{facts.model_digest}`")
    coins = "; noise and sampling coins came from the operating system" if statement else ""
    if is_seeded(statement):
        coins = f", which also decided noise and sampling coins: {NOT_PRIVATE}"
    lines.append(f"- seed {facts.seed}{coins}")
    lines += [f"- {_inline(name)} {_inline(version)}" for name, version in facts.versions.items()]
    return "\n".join(lines)


def _is_hub_name(name: str) -> bool:
    return bool(re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name)) and not Path(name).exists()


def _public_name(name: str) -> str:
    """The base model without the folders of the machine that trained it."""
    return name if _is_hub_name(name) else Path(name).name


def _inline(text: str) -> str:
    """Text as Markdown that shows it literally, on one line."""
    return re.sub(r"([\\`*_\[\]<>|#&])", r"\\\1", " ".join(text.split()))
