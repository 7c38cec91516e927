"""Export: a run's adapter for use elsewhere, by itself or merged into the whole model."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors.torch import save_file

from silotune.adapters import OWN_WEIGHTS, merge, straighten
from silotune.certificate.guarantee import guarantee, warning
from silotune.config import Config
from silotune.core.files import in_words, write_text
from silotune.models.pooling import MeanPooledClassifier
from silotune.reports.model_card import OWN
from silotune.runs.facts import read_facts, read_statement
from silotune.runs.folder import RunFolder

from .build import BuiltModel, open_model
from .opening import saved_config
from .results import adapter_of, model_in


def export_peft(folder: RunFolder, output: Path, silo: str | None = None) -> None:
    """Copy an adapter and its card.

    Args:
        folder: of a finished run.
        output: a new folder.
        silo: whose own adapter; None for the one that all share.

    Raises:
        ValueError: if there is no such adapter, or ``output`` is in use.
    """
    place = adapter_of(folder, silo)
    _refuse_own(place, "--format: peft", "PEFT does not know it")
    with _new_folder(output) as draft:
        shutil.copytree(place, draft, dirs_exist_ok=True)


def export_merged(
    folder: RunFolder, output: Path, silo: str | None = None, *, approximate: bool = False
) -> None:
    """Write the whole model with adapters and heads merged in, as transformers reads it.

    Args:
        folder: of a finished run.
        output: a new folder.
        silo: whose own adapter; None for the one that all share.
        approximate: estimate input shortcuts by weight norms (``adapters.reslora``), which no
            weight computes. What the result does is not what the run has scored.

    Raises:
        ValueError: if there is no such adapter, it does not fit, nothing can be merged, or
            ``output`` is in use.
    """
    place, config = adapter_of(folder, silo), saved_config(folder)
    unmerged = (place / OWN_WEIGHTS).is_file()
    if not approximate:
        _refuse_own(place, "--format: merged", "no single weight could be added instead")
    with _new_folder(output) as draft:
        model = open_model(config, tuple(read_facts(folder).labels))
        numbers = model_in(place, model)
        model.bench.adapted.load(numbers.factors, numbers.folded)
        if approximate:
            straighten(model.bench.adapted.layers)
        _save(model, draft)
        text = _readme(folder, config, own=silo is not None, estimated=unmerged)
        write_text(draft / "README.md", text)
        if folder.privacy.exists():
            shutil.copy(folder.privacy, draft / folder.privacy.name)


def _refuse_own(place: Path, key: str, why: str) -> None:
    """What is in our own format stays in it."""
    if (place / OWN_WEIGHTS).is_file():
        raise ValueError(
            f"{key}: what this run's adapter adds to a layer differs from record to record, or "
            f"with what other layers read, and {why}; copy {place}, and use it with silotune "
            "evaluate (input shortcuts can be estimated: --format merged --approximate)"
        )


def _save(model: BuiltModel, folder: Path) -> None:
    """Merge, and write in transformers' format; a classifier of ours beside its encoder."""
    loaded = model.loaded
    whole = merge(model.bench.adapted, loaded.heads).cpu()
    if isinstance(whole, MeanPooledClassifier):
        save_file(whole.classifier.state_dict(), folder / "classifier.safetensors")
        whole = whole.encoder
    for part in (whole, loaded.tokenizer, loaded.image_processor):
        if part is not None:
            part.save_pretrained(folder)  # type: ignore[operator]  # transformers' own


@contextlib.contextmanager
def _new_folder(output: Path) -> Iterator[Path]:
    """A draft that becomes ``output`` when it is whole, and is removed when it is not."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"--output: {output} exists already; choose another folder")
    draft = output.with_name(f".{output.name}.tmp")
    with in_words(output):
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        try:
            yield draft
            draft.replace(output)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _readme(folder: RunFolder, config: Config, *, own: bool, estimated: bool) -> str:
    statement = read_statement(folder)
    rows = [f"- **{term}.** {text}" for term, text in guarantee(statement)] if statement else []
    alarm = [f"**No differential privacy.** {warning(statement)}"] if warning(statement) else []
    base = config.model.name_or_path
    code = _SNIPPETS[_kind(config)].format(max_length=config.data.max_length)
    parts = [
        f"# {Path(base).name} with its adapter merged in",
        f"{base}, fine-tuned by silotune with {config.method.title} and merged.",
        *([ESTIMATED] if estimated else []),
        f"## Use\n\n```python\n{code}```",
        "\n\n".join(
            ["## Privacy", *([OWN] if own else []), *alarm, *(["\n".join(rows)] if rows else [])]
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _kind(config: Config) -> str:
    return "mean" if config.model.pooling == "mean" else config.model.task


ESTIMATED = (
    "**Approximate.** Shortcuts between layers cannot be merged; an estimate from the norms of the "
    "weights stands in their place (arXiv 2402.18039). The run's scores are not this model's."
)
"""Of a model whose shortcuts were estimated."""

_CLASSIFIER = """\
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

MODEL = "path/to/this/folder"
tokenizer = AutoTokenizer.from_pretrained(MODEL)
model = AutoModelForSequenceClassification.from_pretrained(MODEL).eval()

texts = ["a text to classify"]
batch = tokenizer(
    texts, padding=True, truncation=True, max_length={max_length}, return_tensors="pt"
)
with torch.no_grad():
    logits = model(**batch).logits
print([model.config.id2label[i] for i in logits.argmax(dim=-1).tolist()])
"""

_MEAN = """\
import torch
from safetensors.torch import load_file
from torch.nn.functional import linear, normalize
from transformers import AutoModel, AutoTokenizer

MODEL = "path/to/this/folder"
tokenizer = AutoTokenizer.from_pretrained(MODEL)
encoder = AutoModel.from_pretrained(MODEL).eval()
classifier = load_file(f"{{MODEL}}/classifier.safetensors")

texts = ["a text to classify"]
batch = tokenizer(
    texts, padding=True, truncation=True, max_length={max_length}, return_tensors="pt"
)
with torch.no_grad():
    hidden = encoder(**batch).last_hidden_state.float()
    mask = batch["attention_mask"].unsqueeze(-1).float()
    mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
    logits = linear(normalize(mean, dim=-1), classifier["weight"], classifier["bias"])
print([encoder.config.id2label[i] for i in logits.argmax(dim=-1).tolist()])
"""

_CAUSAL = """\
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

MODEL = "path/to/this/folder"
tokenizer = AutoTokenizer.from_pretrained(MODEL)
model = AutoModelForCausalLM.from_pretrained(MODEL).eval()

batch = tokenizer("Once upon a time", return_tensors="pt", return_token_type_ids=False)
with torch.no_grad():
    logits = model(**batch).logits
    tokens = model.generate(**batch, max_new_tokens=50)
print(tokenizer.decode(tokens[0], skip_special_tokens=True))
"""

_IMAGES = """\
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

MODEL = "path/to/this/folder"
processor = AutoImageProcessor.from_pretrained(MODEL)
model = AutoModelForImageClassification.from_pretrained(MODEL).eval()

batch = processor(Image.open("picture.jpg").convert("RGB"), return_tensors="pt")
with torch.no_grad():
    logits = model(**batch).logits
print([model.config.id2label[i] for i in logits.argmax(dim=-1).tolist()])
"""

_SNIPPETS = {
    "sequence-classification": _CLASSIFIER,
    "mean": _MEAN,
    "causal-lm": _CAUSAL,
    "image-classification": _IMAGES,
}
