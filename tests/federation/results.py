"""What the tests of a run's results share."""

from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from by_config import export_merged
from federation.small import notes, train, write_csv
from silotune.core import GlobalState
from silotune.engine.checkpoint import load as load_checkpoint
from silotune.federation.results import model_in
from silotune.runs.folder import RunFolder

LABELS = ("cat", "dog")
TEXTS = ["cat ran", "the dog saw a bird again"]


def finished(config) -> RunFolder:
    """Train to the end."""
    train(config)
    return RunFolder(Path(config.output_dir))


def last_state(folder: RunFolder) -> GlobalState:
    state, *_ = load_checkpoint(folder.state)
    return state


def tokens(source) -> dict[str, torch.Tensor]:
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return dict(tokenizer(TEXTS, padding=True, return_tensors="pt"))


@torch.no_grad()
def logits(model, batch) -> torch.Tensor:
    return model(**batch).logits


def assert_the_same_everywhere(run, model, batch, expected, base_folder, merged_folder) -> None:
    """In PEFT beside the unchanged base, read again, and merged, a run gives ``expected``."""
    base = AutoModelForSequenceClassification.from_pretrained(base_folder, num_labels=2)
    plain = logits(base.eval(), batch)
    peft = PeftModel.from_pretrained(base, run.adapter).eval()
    torch.testing.assert_close(logits(peft, batch), expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(plain, expected, atol=1e-3), "or nothing was learned"

    adapted, numbers = model.trainer.adapted, model_in(run.adapter, model)
    adapted.load(numbers.factors, numbers.folded)
    torch.testing.assert_close(logits(adapted.model, batch), expected, atol=1e-5, rtol=1e-4)

    export_merged(run, merged_folder)
    merged = AutoModelForSequenceClassification.from_pretrained(merged_folder).eval()
    torch.testing.assert_close(logits(merged, batch), expected, atol=1e-5, rtol=1e-4)


def write_parts(folder: Path, *parts: str) -> str:
    """A folder with a file for each part, of which all but train are everybody's; gives the
    override that reads it."""
    folder.mkdir()
    write_csv(folder / "train.csv", notes())
    for seed, part in enumerate(parts, start=1):
        records = [{k: v for k, v in note.items() if k != "silo"} for note in notes(seed=seed)]
        write_csv(folder / f"{part}.csv", records)
    return f"data.path={folder}"
