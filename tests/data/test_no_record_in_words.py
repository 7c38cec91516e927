"""No error and no notice of data shows what a record holds, whichever column was named wrongly."""

import gzip
import json
import logging
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import permutations
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset

from covering import every_combination
from data.written import every_format
from silotune.data import (
    Columns,
    Partition,
    Prepared,
    Source,
    Splits,
    check_columns,
    load,
    prepare_silos,
    text_examples,
)
from silotune.data.columns import require_kind
from silotune.data.given import table_of
from silotune.data.images import image_examples

MARK = "zebra"
"""In every cell, and nowhere else."""


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog, capfd, recwarn) -> Iterator[None]:
    with caplog.at_level(logging.DEBUG):
        yield
    shown = [caplog.text, *capfd.readouterr(), *(str(warning.message) for warning in recwarn)]
    assert MARK not in "".join(shown)


def words(act: Callable[[], object]) -> str:
    """What an act says: its refusal with all that led to it as far as it is shown, or notices."""
    try:
        done = act()
    except ValueError as error:
        causes: list[str] = []
        shown: BaseException | None = error
        while shown is not None:
            causes.append(str(shown))
            shown = shown.__cause__ or (None if shown.__suppress_context__ else shown.__context__)
        return " / ".join(causes)
    return str(getattr(done, "notices", ""))


def cell(row: int, column: int, kind: str = "note") -> str:
    long = " and more of what somebody said to somebody" if kind == "note" else ""
    return f"{MARK} {row}.{column}{long}"


def records(n: int = 30) -> Dataset:
    columns = ("text", "label", "by", "person", "split")
    return Dataset.from_dict(
        {name: [cell(row, i) for row in range(n)] for i, name in enumerate(columns)}
    )


ROLES = [
    dict(zip(("text", "label", "by"), named, strict=True))
    for named in permutations(("text", "label", "by", "person", "nowhere"), 3)
]


def prepared(roles: dict[str, str], labels: tuple[str, ...] | None, evaluation: str) -> Prepared:
    columns = Columns(text=roles["text"], label=roles["label"], person="person")
    check_columns(columns, "sequence-classification")
    return prepare_silos(
        Source(train=records(), valid=records()),
        columns,
        Partition(by=roles["by"]),
        labels=labels,
        evaluation=evaluation,
        valid_fraction=0.2,
        limit=20,
        seed=0,
    )


@every_combination(evaluation=["public", "site", "simulation"], labels=[None, ("a", "b")])
def test_whichever_column_is_named_for_what(labels, evaluation):
    for roles in ROLES:
        said = words(lambda roles=roles: prepared(roles, labels, evaluation))
        assert said
        assert MARK not in said, roles


def test_silos_and_labels_that_are_in_order_but_texts_that_are_not():
    table = records().add_column("site", ["east", "west"] * 15).add_column("kind", ["a", "b"] * 15)
    table = table.map(
        lambda r, i: {"site": r["site"] if i else MARK + "/" + r["site"]}, with_indices=True
    )
    prepare = {
        "columns": Columns(text="text", label="kind"),
        "labels": None,
        "evaluation": "simulation",
        "valid_fraction": 0.2,
        "limit": None,
        "seed": 0,
    }
    said = words(lambda: prepare_silos(Source(train=table), silos=Partition(by="site"), **prepare))
    assert "by: the silo of row 0" in said
    assert MARK not in said


def broken_files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Each a way in which a file of records is no such file, and what must be said of it."""

    def written(name: str, content: str | bytes) -> Path:
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    row = ",".join(cell(0, i) for i in range(2))
    yield (
        written("wide.csv", f"text,label\n{row}\n{row},{MARK}\n"),
        "line 3 has 3 cells, and the first row 2",
    )
    yield written("semicolons.csv", f"text;label\n{MARK}, {MARK};1\n"), "semicolon separated"
    yield written("latin.csv", f"text,label\n{MARK} \xe9,1\n".encode("latin-1")), "latin-1"
    yield (
        written("wide.csv.gz", gzip.compress(f"a\n{row}\n".encode())),
        "line 2 has 2 cells, and the first row 1",
    )
    yield written("quotes.csv", f'"text,label\n{MARK} "" {MARK}'), "no sound csv"
    yield written("no.xlsx", MARK * 50), "no sound xlsx file"
    yield written("no.zip", MARK * 50), "no sound zip file"
    yield written("no.arrow", MARK * 50), "no sound file"
    yield written("no.feather", "FEA1" + MARK * 50), "no sound file"
    mixed_parts = [
        {"m": [{"role": "user", "content": [{"type": "image", "text": MARK}]}]},
        {"m": MARK},
    ]
    yield written("parts.json", json.dumps(mixed_parts)), "the values of 'm' are of different kinds"
    yield written("cut.json", f'[{{"text": "{MARK}", "label"'), "line 1 is not JSON"
    yield written("cut.jsonl", f'{{"text": "{MARK}"}}\n{{"text": "{MARK}'), "line 2 is not JSON"
    yield written("list.jsonl", json.dumps([MARK])), "every record must be an object"
    mixed = [{"text": 1}, {"text": MARK}]
    yield written("mixed.json", json.dumps(mixed)), "the values of 'text' are of different kinds"
    yield written("latin.json", f'[{{"text": "{MARK} \xe9"}}]'.encode("latin-1")), "not UTF-8"
    yield written("no.parquet", MARK * 50), "no sound file of its kind"
    yield written("no.csv.gz", MARK * 50), "cannot read"
    yield written("cut.csv.gz", gzip.compress(f"text\n{MARK}\n".encode())[:-9]), "cannot read"


def test_a_broken_file(tmp_path):
    for path, what in broken_files(tmp_path):
        said = words(lambda path=path: load(str(path)))
        assert what in said, path.name
        assert MARK not in said, path.name


@pytest.mark.parametrize("name", every_format([{"text": MARK}]))
def test_a_file_of_any_format_that_was_cut_or_damaged(tmp_path, name):
    rows = [{"text": cell(row, 0), "label": cell(row, 1, "")} for row in range(30)]
    whole = every_format(rows)[name]
    for part in range(1, 12):
        place = len(whole) * part // 12
        for content in (whole[:place], whole[:place] + b'\xff"{' + whole[place + 3 :]):
            (tmp_path / name).write_bytes(content)
            said = words(lambda: labelled(load(str(tmp_path / name))))
            assert MARK not in said, place


def labelled(source: Source) -> Prepared:
    """Its records may be others than they were."""
    return prepare_silos(
        source,
        Columns(text="text", label="label"),
        Partition(num=2),
        labels=("a", "b"),
        evaluation="simulation",
        valid_fraction=0.2,
        limit=None,
        seed=0,
    )


@pytest.mark.parametrize(
    "kinds",
    [
        [MARK, MARK.upper(), "other"],
        ["0", "1", "-1", MARK],
        ["0.5", MARK],
        [f"{MARK} {i}" for i in range(9)],
        ["a", "b"] * 20 + [MARK],
        [MARK, " "],
    ],
)
@pytest.mark.parametrize("labels", [None, ("a", "b"), ("0", "1")])
def test_questions_about_labels(kinds, labels):
    rows = [{"text": f"{i}", "label": kinds[i % len(kinds)]} for i in range(41)]
    given = {"labels": labels, "label_map": {"0.5": None}}
    settings = {"evaluation": "simulation", "valid_fraction": 0.2, "limit": None, "seed": 0}
    said = words(
        lambda: prepare_silos(
            Source(train=Dataset.from_list(rows)),
            Columns(text="text", label="label"),
            Partition(num=2),
            **settings,
            **given,
        )
    )
    assert said
    assert MARK not in said.lower()


def test_a_parquet_file_whose_columns_do_not_fit(tmp_path):
    path = tmp_path / "odd.parquet"
    pq.write_table(pa.table({"text": [{"inner": MARK}], "label": [[MARK]]}), path)
    columns = Columns(text="text", label="label")
    said = words(
        lambda: prepare_silos(
            load(str(path)),
            columns,
            Partition(num=1),
            labels=None,
            evaluation="simulation",
            valid_fraction=0.2,
            limit=None,
            seed=0,
        )
    )
    assert "does not hold" in said
    assert MARK not in said


def test_a_file_without_a_header(tmp_path):
    """Its first record then stands where names of columns do."""
    path = tmp_path / "bare.csv"
    path.write_text("".join(f"{cell(i, 0)},{i},{cell(i, 2)}\n" for i in range(4)))
    said = words(
        lambda: prepare_silos(
            load(str(path)),
            Columns(text="text", label="label"),
            Partition(num=1),
            labels=None,
            evaluation="simulation",
            valid_fraction=0.2,
            limit=None,
            seed=0,
        )
    )
    assert "Is its header missing?" in said
    assert MARK not in said


def test_a_column_split(tmp_path):
    path = tmp_path / "parts.jsonl"
    rows = [{"text": cell(i, 0), "split": "train" if i else cell(i, 1)} for i in range(4)]
    path.write_text("\n".join(map(json.dumps, rows)))
    for splits in (None, Splits(valid=MARK), Splits(train=MARK)):
        source = words(lambda splits=splits: load(str(path), splits=splits))
        assert source
        assert cell(0, 1) not in source


def test_a_table_of_a_program(tmp_path):
    for rows in ([MARK], [{"a": MARK}, {"a": 1}], [{"a": object()}], {"a": MARK}, MARK):
        said = words(lambda rows=rows: table_of(rows, "clients: client east"))
        assert said
        if not isinstance(rows, str):  # that would be a path
            assert MARK not in said


def test_chats_that_a_template_refuses(llama):
    llama.chat_template = (
        "{% for m in messages %}{{ raise_exception('no role ' + m['role']) }}{% endfor %}"
    )
    table = Dataset.from_dict({"messages": [[{"role": MARK, "content": MARK}]]})
    said = words(lambda: text_examples(table, llama, 16, "silo east, train"))
    assert "the chat template refuses it (" in said
    assert MARK not in said


@pytest.mark.parametrize("image", [MARK, MARK.encode(), {"bytes": None, "path": MARK}])
def test_images_that_are_none(image):
    table = Dataset.from_dict({"image": [image], "label": [0]})
    said = words(lambda: image_examples(table, None, "silo east, train"))
    assert "image: row 0" in said
    assert MARK not in said


@pytest.mark.parametrize(
    "column",
    [
        pa.array([{MARK: 1}, {"other": MARK}]),
        pa.array([[{MARK: MARK}], []]),
        pa.array([datetime(2026, 1, 1)] * 2),
        Dataset.from_dict({"a": [MARK, "b"]}).class_encode_column("a").data["a"],
    ],
    ids=["keys", "lists of keys", "times", "classes"],
)
@pytest.mark.parametrize("part", ["text", "label", "messages", "words"])
def test_what_a_column_is_of(column, part):
    """Classes have names and mappings have keys, which may be those of people."""
    table = Dataset(pa.table({"a": column}))
    if pa.types.is_integer(column.type):
        table = table.cast_column("a", ClassLabel(names=[MARK, "b"]))
    for target in ("label", "labels", "numbers", "score"):
        said = words(lambda target=target: require_kind(table, ["a"], part, "it", target))
        assert MARK not in said
        assert not said or f"{part}: column 'a' of it does not hold" in said
