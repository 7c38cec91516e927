"""``init --data``: a look at somebody's data, and a configuration for them that runs."""

import csv
import json
import random
import re
from pathlib import Path

import pytest
import yaml
from datasets import Dataset, DatasetDict
from PIL import Image

from data.written import xlsx
from federation.small import notes, write_csv
from silotune.config import load_config
from silotune.testing.tiny_models import tiny_llama, tiny_vit

SECRET = "zanthoxylum"

FREE = ("privacy.unit=none",)
"""Nothing to search for: a noise for every silo takes seconds."""


def written(path: str) -> dict:
    return yaml.safe_load(Path(path).read_text(encoding="utf-8"))


def secretive(n: int = 60) -> list[dict[str, str]]:
    """Records of which every text has a word that nothing may say."""
    return [{**r, "text": f"{r['text']} {SECRET}é"} for r in notes(n)]


def test_a_csv_becomes_a_configuration_that_runs(silotune, place, bert):
    write_csv(Path("my notes.csv"), secretive()[9:])
    told = silotune("init", "mine.yaml", "--data", "my notes.csv", "--model", bert)
    assert told.exit_code == 0, told.output
    assert "text is 'text', label is 'label'" in told.stdout
    assert "2 silos, named by the column 'silo'" in told.stdout
    text = Path("mine.yaml").read_text()
    assert SECRET not in told.output + text
    data, train = written("mine.yaml")["data"], written("mine.yaml")["train"]
    assert data["columns"] == {"text": "text", "label": "label"}
    assert data["silos"] == {"by": "silo"}
    assert data["labels"] == ["cat", "dog"]
    assert set(data["num_examples"]) == {"east", "west"}
    assert all(30 <= size < 60 and size % 10 == 0 for size in data["num_examples"].values())
    assert train["batch_size"] == min(data["num_examples"].values()) // 2
    config = load_config(Path("mine.yaml"))
    assert (config.privacy.unit, config.train.optimizer) == ("example", "sgd")
    short = ("train.num_rounds=1", "train.local_steps=1", "privacy.lifetime=off")
    given = ("privacy.target_epsilon=null", "privacy.noise_multiplier=2")  # nothing to search for
    assert silotune("run", "mine.yaml", *short, *given).exit_code == 0


@pytest.mark.parametrize(("labels", "many"), [(19, False), (20, True)])
@pytest.mark.parametrize("word", ["topic", ""])
def test_many_labels_that_mean_something_move_faster(silotune, place, bert, labels, many, word):
    """And codes have no meaning to begin at, so that these settings were not measured of them."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    named = [f"{word} {letters[i]}" if word else str(i) for i in range(labels)]
    rows = [{"text": f"note {i} of many", "label": named[i % labels]} for i in range(9 * labels)]
    write_csv(Path("b.csv"), rows)
    assert silotune("init", "b.yaml", "--data", "b.csv", "--model", bert).exit_code == 0
    model, train = written("b.yaml")["model"], written("b.yaml")["train"]
    faster = many and bool(word)
    assert (model.get("head_scale"), model.get("head_bias")) == (
        (5, "frozen") if faster else (None,) * 2
    )
    assert (train.get("learning_rate"), train["num_rounds"]) == ((8, 12) if faster else (None, 8))
    assert ("lr_scheduler_type" in train) != faster
    load_config(Path("b.yaml"))


def latin(place: Path) -> str:
    records = secretive()
    with (place / "latin.csv").open("w", newline="", encoding="latin-1") as file:
        writer = csv.DictWriter(file, list(records[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(records)
    return "latin.csv"


def saved(place: Path) -> str:
    parts = {"train": Dataset.from_list(secretive()), "test": Dataset.from_list(secretive(20))}
    DatasetDict(parts).save_to_disk(place / "saved")
    return "saved"


def folders(place: Path) -> str:
    for silo in ("east", "west"):
        folder = place / "silos" / silo
        folder.mkdir(parents=True)
        lines = (json.dumps(record) for record in secretive() if record["silo"] == silo)
        (folder / "train.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return "silos"


@pytest.mark.parametrize(
    "made",
    [
        latin,
        pytest.param(saved, marks=pytest.mark.full),
        pytest.param(folders, marks=pytest.mark.full),
    ],
)
def test_every_reader_is_followed(silotune, place, bert, made):
    data = made(place)
    told = silotune("init", "--data", data, "--model", bert, "--task", "classification")
    assert told.exit_code == 0, told.output
    file = f"{data.partition('.')[0]}.yaml"
    assert SECRET not in told.output + Path(file).read_text()
    assert written(file)["data"].get("encoding") == ("latin-1" if made is latin else None)
    assert ("silos" in written(file)["data"]) == (made is not folders)
    assert silotune("doctor", file, *FREE).exit_code == 0


def test_pairs_with_a_score_ask_for_its_range(silotune, place, bert):
    rows = [
        {"sentence1": f"{SECRET} {i}", "sentence2": f"b {i} and more", "score": i / 48}
        for i in range(240)
    ]
    Path("pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    told = silotune("init", "--data", "pairs.jsonl", "--model", bert)
    assert told.exit_code == 0, told.output
    assert "targets.score_range: declare the lowest and the highest score" in told.output
    assert SECRET not in told.output + Path("pairs.yaml").read_text()
    assert "  # score_range: ..." in Path("pairs.yaml").read_text()
    said = ["targets.score_range=[0, 5]", "model.pooling=cls"]
    checked = silotune("doctor", "pairs.yaml", *said, *FREE)
    assert checked.exit_code == 0, checked.output
    unsaid = silotune("doctor", "pairs.yaml", said[0], *FREE)
    assert "has no modules.json" in unsaid.output


def test_chats_and_images(silotune, place, tmp_path):
    turns = [
        [{"role": "user", "content": SECRET}, {"role": "assistant", "content": f"a b {i}"}]
        for i in range(60)
    ]
    lines = [json.dumps({"messages": t, "hospital": f"h{i % 2}"}) for i, t in enumerate(turns)]
    Path("chats.jsonl").write_text("\n".join(lines))
    llama = tiny_llama(tmp_path / "llama")
    told = silotune("init", "--data", "chats.jsonl", "--model", llama)
    assert told.exit_code == 0, told.output
    assert written("chats.yaml")["model"]["task"] == "causal-lm"
    assert written("chats.yaml")["data"]["columns"] == {"messages": "messages"}
    assert SECRET not in told.output + Path("chats.yaml").read_text()
    draw = random.Random(0)
    for kind in ("cat", "dog"):
        Path("pictures", kind).mkdir(parents=True)
        for i in range(30):
            color = tuple(draw.randrange(256) for _ in range(3))
            Image.new("RGB", (8, 8), color).save(Path("pictures", kind, f"{i}.png"))
    told = silotune("init", "--data", "pictures", "--model", tiny_vit(tmp_path / "vit"))
    assert told.exit_code == 0, told.output
    assert "a simulation" in told.stdout
    made = written("pictures.yaml")
    assert made["model"]["task"] == "image-classification"
    assert made["data"]["silos"] == {"num": 3, "split": "iid"}
    checked = silotune("doctor", "pictures.yaml", *FREE)
    assert (checked.exit_code, "token" in checked.stdout) == (0, False), "a picture has none"


def test_what_cannot_be_told_is_asked(silotune, place):
    records = [{"text": r["text"], "a": r["label"], "b": r["silo"]} for r in secretive()]
    write_csv(Path("open.csv"), records)
    told = silotune("init", "--data", "open.csv", "--task", "classification")
    assert told.exit_code == 0
    assert "data.columns.label: no column was recognised; fill in the line" in told.stdout
    assert "silotune doctor open.yaml" in told.stdout, "what to do when it is answered"
    text = Path("open.yaml").read_text()
    assert "# label:    # WHICH COLUMN? perhaps a, b" in text
    assert SECRET not in told.output + text
    answered = text.replace("# label:    #", "label: a    #").replace("num: 3, split: iid", "by: b")
    Path("open.yaml").write_text(answered)
    assert load_config(Path("open.yaml")).data.columns.label == "a"


def test_lengths_are_counted_by_the_models_own_tokenizer(silotune, place, bert, tmp_path):
    write_csv(Path("short.csv"), [{"text": f"t{i:039}", "label": "ab"[i % 2]} for i in range(60)])
    assert silotune("init", "--data", "short.csv", "--model", bert).exit_code == 0
    assert written("short.yaml")["data"]["max_length"] == 64, "a byte is a token of this model"
    assert "have 42 or fewer" in Path("short.yaml").read_text()
    chats = [
        [{"role": "user", "content": f"{i}"}, {"role": "assistant", "content": "b" * 400}]
        for i in range(60)
    ]
    Path("chats.jsonl").write_text("\n".join(json.dumps({"messages": chat}) for chat in chats))
    model = ("--model", tiny_llama(tmp_path / "llama"))
    assert silotune("init", "--data", "chats.jsonl", *model).exit_code == 0
    assert written("chats.yaml")["data"]["max_length"] == 128, "it reads no more"
    assert (
        silotune("init", "far.yaml", "--data", "chats.jsonl", "--model", "no/where").exit_code == 0
    )
    assert written("far.yaml")["data"]["max_length"] == 128
    assert "if four letters make a token" in Path("far.yaml").read_text()


def test_columns_that_are_not_used_are_named_with_the_keys(silotune, place, bert):
    write_csv(Path("texts.csv"), [{"text": r["text"], "Kategorie": r["label"]} for r in notes()])
    told = silotune("init", "--data", "texts.csv")
    assert (told.exit_code, "--task classification, or --task causal-lm" in told.stderr) == (
        1,
        True,
    )
    assert not Path("texts.yaml").exists()
    told = silotune("init", "--data", "texts.csv", "--task", "causal-lm")
    words = "not used: Kategorie (is one of them a label? --task classification, or data.columns."
    assert words in " ".join(told.stdout.split())
    assert words[1:] in " ".join(Path("texts.yaml").read_text().replace("#", "").split())


@pytest.mark.parametrize(
    ("task", "columns", "words"),
    [
        (
            "multi-label-classification",
            {"cat": [0, 1], "dog": [1, 0]},
            "one of: cat, dog; it holds lists of labels, or give several columns of 0 and 1",
        ),
        ("regression", {"days": [0.5, 2.5]}, "targets.target_mean, targets.target_scale: declare"),
        ("causal-lm", {"days": [0.5, 2.5]}, "a number to learn? --task classification or regress"),
    ],
)
def test_what_a_task_needs_is_asked_of_a_newcomer(silotune, place, task, columns, words):
    rows = [
        {
            "text": r["text"],
            "site": r["silo"],
            **{name: two[i % 2] for name, two in columns.items()},
        }
        for i, r in enumerate(secretive())
    ]
    write_csv(Path("asked.csv"), rows)
    told = silotune("init", "--data", "asked.csv", "--task", task)
    assert told.exit_code == 0, told.output
    said = " ".join(told.stdout.split())
    assert words in said
    assert re.search(r"(2 )?silos, named by the column 'site'", said)
    assert "0 silos" not in said
    assert SECRET not in told.output


def test_a_workbook_of_several_sheets_and_a_second_text(silotune, place, bert):
    rows = [{"asked": f"is it a {r['silo']} one", **r} for r in secretive()]
    Path("book.xlsx").write_bytes(xlsx([{"who": "me"}], rows))
    told = silotune("init", "--data", "book.xlsx", "--model", bert)
    assert told.exit_code == 0, told.output
    assert "sheet 'Sheet1'" in told.stdout
    words = " ".join(told.stdout.split())
    assert "(is asked a second text of each record? data.columns.text_pair)" in words
    assert written("book.yaml")["data"]["sheet"] == "Sheet1"
    assert SECRET not in told.output + Path("book.yaml").read_text()
    assert silotune("doctor", "book.yaml", *FREE).exit_code == 0


def test_labels_with_fractions_are_no_classes(silotune, place):
    rows = [{"text": r["text"], "stars": f"{i}.5"} for i, r in enumerate(notes())]
    write_csv(Path("only.csv"), rows)
    told = silotune("init", "--data", "only.csv", "--task", "classification")
    words = " ".join(told.stdout.split())
    assert "data.columns.label: stars holds numbers with fractions; numbers are no classes" in words
    assert "say in data.label_map what each of them means" in words


def test_images_in_a_folder_a_silo(silotune, place, tmp_path):
    draw = random.Random(0)
    for place_of in ("east/cat", "east/dog", "west/train/cat", "west/train/dog", "west/test/cat"):
        folder = Path("silos", place_of)
        folder.mkdir(parents=True)
        for i in range(12):
            color = tuple(draw.randrange(256) for _ in range(3))
            Image.new("RGB", (8, 8), color).save(folder / f"{i}.png")
    vit = tiny_vit(tmp_path / "vit")
    told = silotune("init", "--data", "silos", "--model", vit)
    assert told.exit_code == 0, told.output
    assert "2 silos, as the folder has them" in told.stdout
    assert "num_examples" in written("silos.yaml")["data"]
    short = ("train.num_rounds=1", "train.local_steps=1", "train.batch_size=4", *FREE)
    told = silotune("run", "silos.yaml", *short)
    assert told.exit_code == 0, told.output


def test_init_refuses_in_words(silotune, place):
    told = silotune("init", "--data", "gone.csv")
    assert (told.exit_code, "gone.csv" in told.stderr) == (1, True)
    assert not Path("gone.yaml").exists()
    told = silotune("init", "small.yaml", "--data", "notes.csv")
    assert (told.exit_code, "exists already" in told.stderr) == (1, True)
    told = silotune("init", "--task", "causal-lm")
    assert (told.exit_code, "--data" in told.stderr) == (2, True)
    Path("headless.csv").write_text(f"the {SECRET} is a long sentence of a record,cat\n" * 9)
    told = silotune("init", "--data", "headless.csv")
    assert (told.exit_code, SECRET in told.output) == (1, False)
