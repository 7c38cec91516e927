"""Everything a new user gets wrong: one clear line, exit code 1, and nothing is left behind."""

import shutil
from pathlib import Path

import pytest
from torch import nn

import silotune.terms.opening as opening
from federation.small import notes, write_csv

EXAMPLE = "privacy={unit: example, noise_multiplier: 2, target_delta: 1e-3}"

WRONG = {
    "missing file": (["data.path=./gone.csv"], "data.path: there is no file or folder ./gone.csv"),
    "missing column": (
        ["data.columns.label=lable"],
        "data.columns.label: column 'lable' is not in the train table; it has: text, label, silo",
    ),
    "label out of range": (["data.labels=[cat, cow]"], "the label set is: cat, cow"),
    "silo smaller than the batch": (["train.batch_size=100"], "train.batch_size: must be at most"),
    "target module that matches nothing": (
        ["method.target_modules=[querry]"],
        "method.target_modules: 'querry' matches no module; did you mean query",
    ),
    "epsilon of zero": (
        ["privacy={unit: example, target_epsilon: 0}"],
        "privacy.target_epsilon: must be greater than 0",
    ),
    "delta beyond 1/n": (
        [
            "privacy={unit: example, noise_multiplier: 2, target_delta: 0.1}",
            "data.num_examples=20",
        ],
        "privacy.target_delta: must be below 1 / data.num_examples",
    ),
    "few records and no number of them": (
        ["privacy={unit: example, noise_multiplier: 2, target_delta: 0.001}"],
        "data.num_examples: none is declared, and taken from fewer than 200 records",
    ),
    "a quorum beyond the silos": (
        ["train.min_clients=3"],
        "train.min_clients: must be at most the number of clients, 2, not 3",
    ),
    "model absent, no network": (
        ["model.name_or_path=nobody/nothing"],
        "model.name_or_path: 'nobody/nothing' is neither a folder nor in the local cache",
    ),
    "model folder absent": (
        ["model.name_or_path=./gone"],
        "model.name_or_path: there is no folder",
    ),
    "unknown key": (["train.num_round=3"], "did you mean"),
    "no such configuration": (["--resume"], "no run is here"),
    "rank beyond the layer": (["method.init_lora_weights=svd", "method.r=99"], "method.r: "),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_a_mistake_is_one_clear_line(silotune, place, no_network, case):
    words, line = WRONG[case]
    refused(silotune("run", "small.yaml", *words), line)


def refused(result, line: str) -> None:
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert line in result.stderr
    assert not Path("run").exists()


def test_no_such_file(silotune, place):
    refused(silotune("run", "gone.yaml"), "gone.yaml: there is no such file; `silotune init`")


def test_an_empty_silo(silotune, place):
    records = notes()
    for record in records[24:]:
        record["text"] = "  "
    write_csv(Path("notes.csv"), records)
    refused(silotune("run", "small.yaml"), "silo 'west' is empty: all its 24 records are blank")


def test_a_silo_of_padding(silotune, place):
    records = notes()
    for record in records[24:]:
        record["text"] = "<pad><pad>"
    write_csv(Path("notes.csv"), records)
    refused(silotune("run", "small.yaml"), "silo 'west' is empty: all its")


def test_a_label_that_is_a_number_out_of_range(silotune, place):
    records = [{**record, "label": str(i % 3)} for i, record in enumerate(notes())]
    write_csv(Path("notes.csv"), records)
    refused(
        silotune("run", "small.yaml"),
        "a label outside of the label set; add it there, or say in data.label_map what it means",
    )


class OverTheBatch(nn.Module):
    """Batch normalisation of each feature."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(32)

    def forward(self, x):
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


def test_a_module_that_mixes_examples_is_refused_under_privacy(silotune, place, monkeypatch):
    read = opening.read_model

    def with_batch_norm(*given):
        loaded = read(*given)
        loaded.model.bert.encoder.layer[0].output.LayerNorm = OverTheBatch()
        return loaded

    monkeypatch.setattr(opening, "read_model", with_batch_norm)
    result = silotune("run", "small.yaml", EXAMPLE, "data.num_examples=20")
    refused(result, "LayerNorm.norm (BatchNorm1d) mixes the examples of a batch")


def test_a_full_disk(silotune, place, monkeypatch):
    usage = shutil.disk_usage(place)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    refused(silotune("run", "small.yaml"), "output_dir: only 1 MB are free")


def test_a_folder_with_a_run_and_another_configuration(silotune, place):
    assert silotune("run", "small.yaml", "train.num_rounds=1").exit_code == 0
    kept = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    result = silotune("run", "small.yaml", "train.num_rounds=1")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "already holds a run; continue it with --resume" in result.stderr
    result = silotune("run", "small.yaml", "--resume")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "train.num_rounds (1 -> 3)" in result.stderr
    assert {path: path.read_bytes() for path in kept} == kept


def test_a_folder_that_is_no_run(silotune, place):
    for words in (["evaluate", "."], ["export", ".", "--output", "out"]):
        result = silotune(*words)
        assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
        assert "no run is here" in result.stderr
    assert not Path("out").exists()
