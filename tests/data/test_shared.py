"""Real data sets beside the project, read as the examples read them. Skipped where absent."""

from pathlib import Path

import pytest

from silotune.data import Columns, Partition, Splits, check_columns, load, prepare_silos
from silotune.data.formats import FileOptions

SHARED = Path(__file__).parents[3] / "shared" / "data"
PAIR = Columns(text="question", text_pair="sentence", label="label")
SPLIT = "label-skew-severe"

pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data"),
]


def prepare(name, task, columns, silos, splits=None, labels=None, evaluation="simulation"):
    check_columns(columns, task)
    return prepare_silos(
        load(str(SHARED / name), splits=splits, files=FileOptions(image=columns.image)),
        columns,
        silos,
        labels=labels,
        evaluation=evaluation,
        valid_fraction=0.1,
        limit=None,
        seed=0,
    )


def sizes(prepared):
    return {name: len(silo.train) for name, silo in prepared.silos.items()}


def test_sst2_severe_skew_is_the_reference_split():
    prepared = prepare(
        "glue_sst2",
        "sequence-classification",
        Columns(text="sentence", label="label"),
        Partition(num=3, split=SPLIT),
        Splits(valid="dev", test="test_labeled"),
        labels=("0", "1"),
    )
    assert sizes(prepared) == dict.fromkeys(["silo-0", "silo-1", "silo-2"], 19_840)
    ones = [sum(silo.train["label"][:]) / 19_840 for silo in prepared.silos.values()]
    assert ones == [0.95, 0.05, 0.5]
    assert (len(prepared.valid), len(prepared.test)) == (872, 1821)


def test_qnli_pairs():
    prepared = prepare("glue_qnli", "sequence-classification", PAIR, Partition(num=3))
    assert sizes(prepared) == {"silo-0": 3000, "silo-1": 3000, "silo-2": 2999}
    assert len(prepared.valid) == 5463


def test_mnli_has_three_classes():
    prepared = prepare(
        "glue_mnli",
        "sequence-classification",
        Columns(text="premise", text_pair="hypothesis", label="label"),
        Partition(num=3, split=SPLIT),
        Splits(valid="dev_matched"),
        labels=("entailment", "neutral", "contradiction"),
    )
    for own, silo in enumerate(prepared.silos.values()):
        labels = silo.train["label"][:]
        assert labels.count(own) == 0.9 * len(labels)


def test_reviews_by_domain_count_their_empty_record():
    columns = Columns(text="text", label="label")
    prepared = prepare("fdu_mtl", "sequence-classification", columns, Partition(by="domain"))
    assert len(prepared.silos) == 16
    assert sum(silo.left_out["train"] for silo in prepared.silos.values()) == 1


def test_one_file_with_a_column_split():
    columns = Columns(text="text", label="label")
    name = "medical_abstracts/abstracts.parquet"
    prepared = prepare(
        name, "sequence-classification", columns, Partition(num=2, split="dirichlet")
    )
    assert len(prepared.labels) == 5
    assert len(prepared.test) == 575


def test_compressed_prompts_and_completions():
    columns = Columns(prompt="question", completion="answer")
    prepared = prepare("gsm8k", "causal-lm", columns, Partition(num=3), evaluation="public")
    assert sum(sizes(prepared).values()) == 7473
    assert len(prepared.test) == 1319


def test_jpeg_bytes_by_domain():
    columns = Columns(image="jpeg", label="class")
    prepared = prepare("pacs_64", "image-classification", columns, Partition(by="domain"))
    assert list(prepared.silos) == ["art_painting", "cartoon", "photo", "sketch"]
    assert len(prepared.labels) == 7
    assert prepared.test is None
    for silo in prepared.silos.values():  # each domain is tested on its own part
        assert isinstance(silo.test["image"][0], bytes)
