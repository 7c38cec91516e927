import gzip
import json
import socket

import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from silotune.data import Splits, load
from silotune.data.files import part_name, read_file
from silotune.data.formats import FileOptions

ROWS = [{"text": "good film", "label": 1}, {"text": "bad film", "label": 0}]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("a local source opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def write(path, rows=ROWS):
    """Rows in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(rows)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    if path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(lines.encode()))
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text(lines)
    return path


def refused(words, *args, **kwargs):
    with pytest.raises(ValueError, match=words) as caught:
        load(*args, **kwargs)
    message = str(caught.value)
    assert message.partition(":")[0].partition(".")[0] in ("clients", "splits", "encoding")
    assert "\n" not in message


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl", "jsonl.gz", "parquet"])
def test_every_format_gives_the_same_table(tmp_path, suffix):
    source = load(str(write(tmp_path / f"notes.{suffix}")))
    assert source.train.to_list() == ROWS
    assert (source.valid, source.test, source.silos, source.notices) == (None, None, {}, ())


def test_reading_leaves_the_folder_as_it_was(tmp_path):
    for suffix in ["csv", "jsonl", "parquet"]:
        path = write(tmp_path / suffix / f"train.{suffix}")
        load(str(path.parent))
    assert len([file for file in tmp_path.rglob("*") if file.is_file()]) == 3


def test_csv_keeps_words_that_look_like_nothing(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('\ufefftext,label\nNA,0\nnull,1\n"two\nlines",\n', encoding="utf-8")
    table = read_file(path)
    assert table["text"][:] == ["NA", "null", "two\nlines"]
    assert table["label"][:] == [0, 1, None]


def test_csv_types_come_from_the_whole_file(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("label\n" + "1\n" * 1_000_000 + "none of these\n")
    assert read_file(path)["label"][-1] == "none of these"


def test_csv_may_break_lines_inside_quotes(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + '"one\ntwo",1\n' * 200_000)
    assert len(read_file(path)) == 200_000


def test_json_lines_fill_missing_keys_with_null(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n{"b": [{"role": "user", "content": "x"}]}\n')
    assert read_file(path).to_list() == [
        {"a": 1, "b": None},
        {"a": None, "b": [{"role": "user", "content": "x"}]},
    ]


def test_parquet_keeps_class_labels_and_undoes_categories(tmp_path):
    names = ClassLabel(names=["no", "yes"])
    Dataset.from_dict({"label": [1]}, features=Features({"label": names})).to_parquet(
        tmp_path / "a.parquet"
    )
    assert read_file(tmp_path / "a.parquet").features["label"] == names
    pd.DataFrame({"clinic": pd.Categorical(["east", "west"])}).to_parquet(tmp_path / "b.parquet")
    table = read_file(tmp_path / "b.parquet")
    assert table["clinic"][:] == ["east", "west"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": \n', "a.jsonl: line 2 is not JSON"),
        ("a.jsonl", "[1, 2]", "every record must be an object"),
        ("a.jsonl", '{"a": 1}\n{"a": "x"}\n', "the values of 'a' are of different kinds"),
        ("a.jsonl", b"\xff\xfe\x00", "cannot read"),
        ("a.csv", "a,b\n1,2,3\n", "cannot read"),
        ("a.parquet", "not parquet", "cannot read"),
        ("a.jsonl.gz", "not gzip", "cannot read"),
        ("a.txt", "text", "none of csv, tsv, json, jsonl, parquet"),
    ],
)
def test_broken_files_are_named(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(words, str(path))


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.json", "a.jsonl", "a.csv.gz"])
def test_an_empty_file_has_no_records(tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(b"") if name.endswith("gz") else b" \n")
    assert len(read_file(tmp_path / name)) == 0


def test_part_names():
    names = ["train.csv", "train.jsonl.gz", "train-00000-of-00002.parquet", "train"]
    assert {part_name(name) for name in names} == {"train"}
    assert part_name("test_labeled.parquet") == "test_labeled"


@pytest.mark.parametrize("valid", ["valid", "validation", "val", "dev"])
def test_a_folder_is_read_by_usual_names(tmp_path, valid):
    write(tmp_path / "train.jsonl", ROWS * 3)
    write(tmp_path / f"{valid}.csv", ROWS * 2)
    write(tmp_path / "test.parquet")
    (tmp_path / "README.md").write_text("not data")
    source = load(str(tmp_path))
    assert (len(source.train), len(source.valid), len(source.test)) == (6, 4, 2)
    assert source.notices == ()


def test_named_parts_replace_the_usual_ones(tmp_path):
    for part, times in [("train", 3), ("dev", 2), ("holdout", 1)]:
        write(tmp_path / f"{part}.parquet", ROWS * times)
    assert load(str(tmp_path)).test is None
    source = load(str(tmp_path), splits=Splits(test="holdout.parquet"))
    assert (len(source.train), source.valid, len(source.test)) == (6, None, 2)
    assert source.notices == (f"splits: not used of {tmp_path}: dev",)


def test_a_part_that_is_not_there(tmp_path):
    write(tmp_path / "train.csv")
    write(tmp_path / "dev_matched.csv")
    words = r"splits.valid: there is no 'dev_mached' in .*; it has: dev_matched, train \(did you"
    refused(words, str(tmp_path), splits=Splits(valid="dev_mached"))
    refused(r"splits.train", str(tmp_path), splits=Splits(train="training"))


def test_shards_are_joined_and_namesakes_refused(tmp_path):
    write(tmp_path / "train-00000-of-00002.parquet", ROWS)
    write(tmp_path / "train-00001-of-00002.parquet", ROWS)
    assert len(load(str(tmp_path)).train) == 4
    write(tmp_path / "train-00001-of-00002.parquet", [{"text": "x", "label": "secret"}])
    refused("train-00001-of-00002.parquet in .* have other columns, or", str(tmp_path))
    write(tmp_path / "train.csv")
    refused("are all called 'train'; keep one", str(tmp_path))


def test_one_file_in_a_folder_is_that_file(tmp_path):
    write(tmp_path / "images.parquet")
    assert len(load(str(tmp_path)).train) == 2


def test_a_column_split_divides_one_table(tmp_path):
    rows = [{"text": str(i), "split": part} for i, part in enumerate(["train", "test", "train"])]
    path = write(tmp_path / "a.csv", rows)
    source = load(str(path))
    assert [row["split"] for row in source.train] == ["train", "train"]
    assert [row["split"] for row in source.test] == ["test"]
    swapped = load(str(path), splits=Splits(train="test", valid="train"))
    assert (len(swapped.train), len(swapped.valid), swapped.test) == (1, 2, None)
    refused("no 'dev' in the column 'split' of a.csv", str(path), splits=Splits(valid="dev"))
    assert source.notices == (
        "splits: of the column 'split' of a.csv only these are used: test, train",
    )


def test_what_else_a_column_split_holds_is_not_told(tmp_path):
    rows = [{"text": str(i), "split": part} for i, part in enumerate(["train", "secret", "test"])]
    path = write(tmp_path / "a.csv", rows)
    assert "secret" not in str(load(str(path)).notices)
    with pytest.raises(ValueError, match=r"splits\.valid: .* it has: test, train") as caught:
        load(str(path), splits=Splits(valid="secre"))
    assert "secret" not in str(caught.value)


def test_a_column_split_that_means_something_else_is_left_alone(tmp_path):
    path = write(
        tmp_path / "a.csv", [{"text": "x", "split": "left"}, {"text": "y", "split": "right"}]
    )
    assert len(load(str(path)).train) == 2


def test_parts_of_a_table_without_them(tmp_path):
    path = write(tmp_path / "a.csv")
    refused("a.csv is one table without a column 'split'", str(path), splits=Splits(test="test"))


def test_one_folder_a_silo(tmp_path):
    write(tmp_path / "west" / "train.jsonl", ROWS * 2)
    write(tmp_path / "east" / "train.csv")
    write(tmp_path / "east" / "valid.csv")
    write(tmp_path / "test.csv", ROWS * 5)
    (tmp_path / "notes").mkdir()
    source = load(str(tmp_path))
    assert list(source.silos) == ["east", "west"]
    assert source.train is None
    assert (len(source.silos["east"].valid), source.silos["west"].valid) == (2, None)
    assert (source.valid, len(source.test)) == (None, 10)


def test_tables_beside_a_train_table_win_over_folders(tmp_path):
    write(tmp_path / "train.csv")
    write(tmp_path / "old" / "train.csv", ROWS * 2)
    source = load(str(tmp_path))
    assert (len(source.train), source.silos) == (2, {})
    assert source.notices == (f"clients: not used of {tmp_path}: the folders old",)


def test_a_train_table_beside_silos_is_nobodys(tmp_path):
    write(tmp_path / "train.csv")
    write(tmp_path / "east" / "mine.csv")
    source = load(str(tmp_path), splits=Splits(train="mine"))
    assert (source.train, list(source.silos)) == (None, ["east"])


def test_a_silo_without_a_train_file_is_named(tmp_path):
    write(tmp_path / "west" / "train.jsonl")
    write(tmp_path / "east" / "test.jsonl")
    refused("splits.train: there is no 'train' in .*/east; it has: test", str(tmp_path))


def test_images_by_class(tmp_path):
    for name in ["cat/1.png", "dog/2.JPG", "dog/notes.txt"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    table = load(str(tmp_path)).train
    assert table["label"][:] == ["cat", "dog"]
    assert table["image"][:] == [str(tmp_path / "cat/1.png"), str(tmp_path / "dog/2.JPG")]


def test_images_by_part_and_class(tmp_path):
    for name in ["train/cat/1.png", "train/dog/2.png", "test/cat/3.png"]:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"")
    source = load(str(tmp_path))
    assert (len(source.train), len(source.test)) == (2, 1)


def pictures(place, *names):
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(b"")


def shown(table):
    return [] if table is None else table["label"][:]


def test_images_of_each_silo(tmp_path):
    pictures(tmp_path / "flat", "east/cat/1.png", "east/dog/2.png", "west/cat/3.png")
    source = load(str(tmp_path / "flat"))
    assert {s: shown(t.train) for s, t in source.silos.items()} == {
        "east": ["cat", "dog"],
        "west": ["cat"],
    }
    parts = ("east/train/cat/1.png", "east/test/dog/2.png", "west/cat/3.png", "valid/dog/4.png")
    pictures(tmp_path / "deep", *parts)
    (tmp_path / "deep" / "east" / "valid").mkdir()
    source = load(str(tmp_path / "deep"))
    east, west = source.silos["east"], source.silos["west"]
    assert (shown(east.train), shown(east.test), len(east.valid)) == (["cat"], ["dog"], 0)
    assert (shown(west.train), west.valid, shown(source.valid)) == (["cat"], None, ["dog"])
    pictures(tmp_path / "deep", "west/train/dog/5.png")
    refused(
        "west has images by class itself, and in train inside; keep one", str(tmp_path / "deep")
    )


def test_images_by_parts_of_other_names(tmp_path):
    pictures(tmp_path, "mine/cat/1.png", "mine/dog/2.png", "yours/cat/3.png")
    source = load(str(tmp_path), splits=Splits(train="mine", test="yours"))
    assert (shown(source.train), shown(source.test)) == (["cat", "dog"], ["cat"])
    pictures(tmp_path / "silos", "east/mine/cat/1.png", "west/mine/dog/2.png")
    source = load(str(tmp_path / "silos"), splits=Splits(train="mine"))
    assert {s: shown(t.train) for s, t in source.silos.items()} == {
        "east": ["cat"],
        "west": ["dog"],
    }


def test_folders_beside_images_are_said(tmp_path):
    pictures(tmp_path, "train/cat/1.png", "train/dog/2.png", "more/cat/3.png", "cat/4.png")
    source = load(str(tmp_path))
    assert (shown(source.train), source.silos) == (["cat"], {})
    assert source.notices == (f"clients: not used of {tmp_path}: the folders more, train",)


def test_what_programs_leave_among_images_is_no_image(tmp_path):
    pictures(tmp_path, "cat/1.png", "cat/._1.png", ".ipynb_checkpoints/1.png", "__MACOSX/cat/1.png")
    assert shown(load(str(tmp_path)).train) == ["cat"]


def test_what_programs_leave_among_files_is_no_part(tmp_path):
    write(tmp_path / "east" / "train.csv")
    write(tmp_path / "._east" / "train.csv")
    write(tmp_path / "east" / "._train.csv")
    write(tmp_path / "spare.csv")
    source = load(str(tmp_path))
    assert (list(source.silos), source.silos["east"].train.to_list()) == (["east"], ROWS)
    assert source.notices == (f"clients: not used of {tmp_path}, beside the silos: spare",)


def test_relative_image_paths_count_from_their_file(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"image": "pictures/1.png"}, {"image": None}])
    assert load(str(path), files=FileOptions(image="image")).train["image"][:] == [
        str(tmp_path / "pictures/1.png"),
        None,
    ]
    assert load(str(path)).train["image"][0] == "pictures/1.png"


@pytest.mark.parametrize("path", ["./nowhere", "nowhere.csv", "a/b/c", "train.jsonl.gz"])
def test_a_missing_path_is_said_without_asking_the_hub(path):
    refused(f"there is no file or folder {path}", path)


def test_an_empty_folder(tmp_path):
    refused("has neither data files", str(tmp_path))


def test_a_hub_data_set(monkeypatch):
    train = Dataset.from_list(ROWS)
    asked = []

    def load_dataset(path, name):
        asked.append((path, name))
        return {"train": train, "validation": train, "unsupervised": train}

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    source = load("nyu-mll/glue", "sst2")
    assert asked == [("nyu-mll/glue", "sst2")]
    assert len(source.valid) == 2
    assert source.notices == ("splits: not used of nyu-mll/glue: unsupervised",)


def test_no_network_is_said_in_words(monkeypatch):
    def load_dataset(path, name):
        raise ConnectionError("Couldn't reach\nthe Hub")

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    refused("'glue' is no file or folder here.*Couldn't reach the Hub.*give a local file", "glue")


def test_the_demo_has_both_parts_and_no_other():
    source = load("demo:triage")
    assert len(source.train) > len(source.test) > 0
    refused(
        "there is no demo:trriage; the bundled data are demo:triage and demo:letters",
        "demo:trriage",
    )


def test_features_survive_reading(tmp_path):
    assert read_file(write(tmp_path / "a.jsonl")).features == Features(
        {"text": Value("string"), "label": Value("int64")}
    )
