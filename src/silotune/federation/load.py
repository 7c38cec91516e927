"""Load: a finished run, or an adapter folder of ours, as a model that predicts and generates."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from silotune.adapters import OWN_WEIGHTS
from silotune.adapters.peft_io import WEIGHTS
from silotune.data.chat_dates import pin_date
from silotune.models.load import GivenModel
from silotune.runs.folder import RunFolder
from silotune.terms import Machine
from silotune.terms.build import build_model, read_model

from .adapter_folder import Made, read_made
from .loaded_model import LoadedModel
from .results import adapter_of, model_in


def load(
    folder: str | Path,
    *,
    client: str | None = None,
    model: Any = None,
    tokenizer: Any = None,
    image_processor: Any = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> LoadedModel:
    """Load what a run has learned, in PEFT's format or in our own.

    A class of your own that the run is made of must be imported before: a name in a folder imports
    no code. A chat template that prints the date prints the one of training.

    Args:
        folder: of a run, or an adapter's (``adapter/``, or what ``save_pretrained`` wrote).
        client: whose own adapter, where the clients of a run have one; None for the shared one.
        model: the base model, where the run was made with an object; it is copied.
        tokenizer: of such an object.
        image_processor: the same for images.
        device: where to compute; auto = cuda where there is one.

    Raises:
        ValueError: in words, if the folder holds no adapter of ours, or the base model is another.
    """
    given = None if model is None else GivenModel(model, tokenizer or image_processor)
    return load_given(Path(folder), client, given, Machine(device=device))


def load_given(
    folder: Path, client: str | None, given: GivenModel | None, machine: Machine
) -> LoadedModel:
    """As ``load``, of the base that a federation was given.

    Raises:
        ValueError: as ``load``.
    """
    place = _place(folder, client)
    with RunFolder(folder).advising():
        made = read_made(place)
    built = build_model(made.terms.without_start(), _base(made, given), machine)
    if built.digest != made.digest:
        raise ValueError(
            f"model: the base weights are not those that {place} was trained beside; give "
            "load(..., model=...) the right ones"
        )
    pin_date(built.loaded.tokenizer, made.began)
    numbers = model_in(place, built)
    adapted = built.trainer.adapted
    adapted.load(numbers.factors, numbers.folded)
    return LoadedModel(
        model=adapted.model.eval(),
        objective=made.terms.objective,
        tokenizer=built.loaded.tokenizer,
        image_processor=built.loaded.image_processor,
        labels=made.labels,
    )


def _place(folder: Path, client: str | None) -> Path:
    """The folder that holds the adapter itself."""
    if (folder / WEIGHTS).is_file() or (folder / OWN_WEIGHTS).is_file():
        if client is not None:
            raise ValueError("client: this folder is an adapter itself; leave client out")
        return folder
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder")
    return adapter_of(RunFolder.existing(folder), client)


def _base(made: Made, given: GivenModel | None) -> Any:
    try:
        return read_model(made.terms, made.labels, given)
    except ValueError as error:
        if given is not None:
            raise
        raise ValueError(
            f"{error}. If the run was made with an object, give it: load(..., model=..., "
            "tokenizer=...)"
        ) from error
