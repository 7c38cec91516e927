"""What the tests of a run's results share."""

from pathlib import Path

import torch
from transformers import AutoTokenizer

from federation.small import notes, train, write_csv
from silotune.core import GlobalState
from silotune.engine.checkpoint import load as load_checkpoint
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


def write_parts(folder: Path, *parts: str) -> str:
    """A folder with a file for each part, of which all but train are everybody's; gives the
    override that reads it."""
    folder.mkdir()
    write_csv(folder / "train.csv", notes())
    for seed, part in enumerate(parts, start=1):
        records = [{k: v for k, v in note.items() if k != "silo"} for note in notes(seed=seed)]
        write_csv(folder / f"{part}.csv", records)
    return f"data.path={folder}"
