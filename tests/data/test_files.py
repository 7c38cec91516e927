"""Files that people have: every format gives the same table, and what is in the way is asked."""

import json

import pytest
from datasets import Dataset, DatasetDict

from data.written import delimited, every_format, xlsx, zipped
from silotune.data import Splits, load
from silotune.data.delimited import check_delimiter
from silotune.data.encodings import check_encoding
from silotune.data.files import is_file_name, is_url, part_name, read_file
from silotune.data.formats import FileOptions
from silotune.data.messages import UnreadableError

ROWS = [{"text": "good film", "label": 1}, {"text": "bad film", "label": 0}]
LATIN = [{"text": "café; naïve, über", "label": "gut"}, {"text": "señor", "label": "schön"}]


FILES = every_format(ROWS)


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_table(tmp_path, name):
    (tmp_path / name).write_bytes(FILES[name])
    assert load(str(tmp_path / name)).train.to_list() == ROWS
    assert is_file_name(name)


def test_a_url_is_read_like_a_file(tmp_path):
    import fsspec

    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
        assert load((tmp_path / name).as_uri()).train.to_list() == ROWS
    fsspec.filesystem("memory").pipe("/notes/a.csv", FILES["a.csv"])
    source = load("memory://notes/a.csv")
    assert source.train.to_list() == ROWS


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:9/notes.csv", r"cannot read http://127.0.0.1:9/notes.csv: it cannot be"),
        ("memory://nowhere/a.csv", "it cannot be fetched .* without a network give a local file"),
        ("https://example.org/notes", "does not end like a data file: csv"),
        ("nowhere://a.csv", "it cannot be fetched"),
    ],
)
def test_what_is_not_at_a_url_is_said(url, words):
    with pytest.raises(ValueError, match=f"^clients: .*{words}"):
        load(url)


def test_a_hub_data_set_by_its_url(monkeypatch):
    asked = []

    def load_dataset(path, name):
        asked.append((path, name))
        return {"train": Dataset.from_list(ROWS)}

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    assert load("hf://datasets/nyu-mll/glue", "sst2").train.to_list() == ROWS
    assert asked == [("nyu-mll/glue", "sst2")]


def test_names_of_files_and_of_urls():
    assert {part_name(f"train.{n}") for n in ["csv.zip", "zip", "TSV.gz", "xlsx"]} == {"train"}
    assert is_file_name("https://a.org/x.csv?sig=1/2")
    assert not is_file_name("https://a.org/x?file=y.csv")
    assert not any(map(is_file_name, ["notes", "a.txt", "csv", "train-0-of-1"]))
    assert is_url("s3://bucket/a.csv")
    assert not any(map(is_url, ["C:/a.csv", "demo:triage", "owner/name", "./a.csv"]))


@pytest.mark.parametrize(
    ("content", "advice", "options"),
    [
        (
            delimited(LATIN, ";", "latin-1"),
            "delimiter: .* looks like semicolon separated latin-1 columns: set delimiter to ';' "
            "and encoding to 'latin-1'",
            FileOptions(delimiter=";", encoding="latin-1"),
        ),
        (
            delimited(LATIN, ";"),
            "delimiter: .* looks like semicolon separated columns: set delimiter to ';'$",
            FileOptions(delimiter=";"),
        ),
        (
            delimited(LATIN, "\t"),
            r"tab separated columns: set delimiter to '\\t'$",
            {"delimiter": "\t"},
        ),
        (
            delimited(LATIN, "|"),
            r"bar separated columns: set delimiter to '\|'$",
            {"delimiter": "|"},
        ),
        (
            delimited(LATIN, ",", "latin-1"),
            "encoding: .* it is not UTF-8 and looks like latin-1: set encoding to 'latin-1'",
            {"encoding": "latin-1"},
        ),
        (
            delimited([{"text": "10 €", "label": "x"}], ",", "cp1252"),
            "looks like cp1252",
            {"encoding": "cp1252"},
        ),
        (delimited(LATIN, ",", "utf-16"), "set encoding to 'utf-16'", {"encoding": "utf-16"}),
        (
            delimited(ROWS, "\t", "utf-16-le"),
            "tab separated utf-16-le columns",
            {"encoding": "utf-16-le", "delimiter": "\t"},
        ),
    ],
)
def test_advice_of_a_sniffed_file_is_right(tmp_path, content, advice, options):
    path = tmp_path / "notes.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=advice):
        load(str(path))
    options = options if isinstance(options, FileOptions) else FileOptions(**options)
    table = load(str(path), files=options).train
    assert table.column_names == ["text", "label"]
    assert len(table) in (1, 2)
    if len(table) == 2 and isinstance(table["label"][0], str):
        assert table.to_list() == LATIN


@pytest.mark.parametrize(
    ("content", "said", "advice"),
    [
        (delimited(LATIN, ","), ";", "set delimiter to ','$"),
        (delimited(LATIN, "\t"), ";", r"set delimiter to '\\t'$"),
        (delimited(LATIN, ";", "latin-1"), "|", "';' and encoding to 'latin-1'$"),
        (b"text, free;label\na;1\nb, c, d;2\n", None, "set delimiter to ';'$"),
    ],
)
def test_a_separator_that_is_not_there_is_asked_about(tmp_path, content, said, advice):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^delimiter: .*{advice}"):
        read_file(path, FileOptions(delimiter=said))


@pytest.mark.parametrize(
    ("content", "said", "words"),
    [
        ('a,b\n"x\ny",1\n\n2,3,4\n', None, "line 5 has 3 cells, and the first row 2; put quotes"),
        ("a,b\r\n1,2\r\n1\r\n", None, "line 3 has 1 cells, .* hold a comma, or set delimiter"),
        ("a~b\n1~2~3\n", "~", "line 2 has 3 cells, .* hold a '~'"),
    ],
)
def test_a_ragged_line_is_named_and_not_shown(tmp_path, content, said, words):
    path = tmp_path / "a.csv"
    path.write_bytes(content.encode())
    with pytest.raises(ValueError, match=f"clients: cannot read .*a.csv: {words}"):
        read_file(path, FileOptions(delimiter=said))


def test_a_column_alone_is_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("one;two\nx\ny\n")
    assert read_file(path, FileOptions(delimiter=",")).column_names == ["one;two"]
    path.write_text("notes; and what else\nsingle column\nwith a; in it\n")
    assert read_file(path).column_names == ["notes; and what else"], "rows do not agree"
    path.write_bytes(delimited(LATIN, ",", "latin-1"))
    with pytest.raises(ValueError, match=r"encoding: .* it is not ascii"):
        read_file(path, FileOptions(encoding="ascii"))


def test_json_in_another_encoding(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(json.dumps(LATIN[0], ensure_ascii=False).encode("latin-1"))
    with pytest.raises(ValueError, match=r"encoding: .*set encoding to 'latin-1'"):
        read_file(path)
    assert read_file(path, FileOptions(encoding="latin-1")).to_list() == LATIN[:1]


@pytest.mark.parametrize("delimiter", ["", ";;", '"', "\n", "§", 3])
def test_delimiters_that_are_none(delimiter):
    with pytest.raises(ValueError, match=r"delimiter: .* is not one character"):
        check_delimiter(delimiter)


@pytest.mark.parametrize("encoding", ["utf-9", "base64"])
def test_encodings_that_are_none(encoding):
    with pytest.raises(ValueError, match=r"encoding: .* is none that Python knows"):
        check_encoding(encoding)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("two.zip", zipped(a_csv=b"a\n1\n", b_csv=b"a\n1\n"), "it holds 2 data files"),
        ("none.zip", zipped(), "it holds 0 data files"),
        ("no.zip", b"PK not", "no sound zip file"),
        ("no.xlsx", b"PK not", "no sound xlsx file"),
        ("bare.xlsx", xlsx([{None: 1, "a": 2}]), "a column of it has no name"),
        ("no.feather", b"not feather", "no sound file"),
        ("no.csv.bz2", b"not packed", "no sound file"),
        ("no.csv.xz", b"not packed", "no sound file"),
        ("twice.csv", b"a,b,b\n1,2,3\n", "it has two columns 'b'"),
    ],
)
def test_broken_files_are_named(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"clients: cannot read .*{name}: .*{words}"):
        load(str(tmp_path / name))


def test_xlsx_keeps_words_and_holes(tmp_path):
    rows = [{"text": "NA", "label": 1}, {"text": None, "label": None}, {"text": "x", "label": 2}]
    (tmp_path / "a.xlsx").write_bytes(xlsx(rows))
    assert read_file(tmp_path / "a.xlsx").to_list() == [rows[0], rows[2]], "a blank line is none"


def test_of_several_sheets_one_is_asked_for_and_taken(tmp_path):
    path = tmp_path / "two.xlsx"
    path.write_bytes(xlsx(ROWS[:1], ROWS))
    words = r"sheet: .*2 of its sheets hold something: Sheet, Sheet1; set sheet to .* 'Sheet1', the"
    with pytest.raises(UnreadableError, match=words) as asked:
        read_file(path)
    assert read_file(path, FileOptions(**asked.value.answers)).to_list() == ROWS
    assert read_file(path, FileOptions(sheet="Sheet")).to_list() == ROWS[:1]
    with pytest.raises(
        UnreadableError, match=r"no sheet 'Shet'; it has: .* \(did you mean 'Sheet'"
    ):
        read_file(path, FileOptions(sheet="Shet"))


def test_without_openpyxl_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.xlsx").write_bytes(xlsx(ROWS))
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    with pytest.raises(ValueError, match=r"pip install 'silotune\[excel\]'"):
        load(str(tmp_path / "a.xlsx"))


def saved(place, rows=ROWS, **parts):
    tables = {part: Dataset.from_list(own) for part, own in parts.items()}
    (DatasetDict(tables) if parts else Dataset.from_list(rows)).save_to_disk(str(place))


def test_what_save_to_disk_wrote(tmp_path):
    saved(tmp_path / "table")
    assert load(str(tmp_path / "table")).train.to_list() == ROWS
    saved(tmp_path / "parts", train=ROWS * 3, validation=ROWS, test=ROWS * 2, spare=ROWS)
    source = load(str(tmp_path / "parts"))
    assert (len(source.train), len(source.valid), len(source.test)) == (6, 2, 4)
    assert source.notices == (f"splits: not used of {tmp_path / 'parts'}: spare",)
    renamed = load(str(tmp_path / "parts"), splits=Splits(train="test", valid="spare"))
    assert (len(renamed.train), len(renamed.valid)) == (4, 2)
    (tmp_path / "table" / "state.json").write_text("{")
    with pytest.raises(ValueError, match=r"clients: cannot read .*, which save_to_disk wrote"):
        load(str(tmp_path / "table"))


def test_silos_that_save_to_disk_wrote(tmp_path):
    saved(tmp_path / "east", train=ROWS, test=ROWS)
    saved(tmp_path / "west", ROWS * 2)
    source = load(str(tmp_path))
    assert {name: len(silo.train) for name, silo in source.silos.items()} == {"east": 2, "west": 4}
    assert (len(source.silos["east"].test), source.silos["west"].test) == (2, None)


def test_parts_that_were_saved_one_by_one(tmp_path):
    for part, rows in {"train": ROWS * 3, "test": ROWS}.items():
        saved(tmp_path / part, rows)
    source = load(str(tmp_path))
    assert (len(source.train), len(source.test), source.silos) == (6, 2, {})


def test_a_file_a_silo(tmp_path):
    for name, times in {"s0": 1, "s1": 2, "test": 3}.items():
        (tmp_path / f"{name}.csv").write_bytes(delimited(ROWS * times))
    source = load(str(tmp_path))
    assert {name: len(silo.train) for name, silo in source.silos.items()} == {"s0": 2, "s1": 4}
    assert (source.train, len(source.test)) == (None, 6)
    assert source.notices == (f"clients: each file of {tmp_path} is taken for a silo: s0, s1",)


@pytest.mark.parametrize("name", ["training", "my_train", "Validation2", "testing", "dev_matched"])
def test_a_file_that_may_be_meant_as_a_part_is_no_silo(tmp_path, name):
    for file in ("s0", "s1", name):
        (tmp_path / f"{file}.csv").write_bytes(delimited(ROWS))
    with pytest.raises(ValueError, match=r"splits.train: there is no 'train' in"):
        load(str(tmp_path))
