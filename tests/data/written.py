"""Tables as the bytes of a file of each format."""

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile

import openpyxl
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.ipc as ipc
import pyarrow.parquet as parquet


def delimited(rows, delimiter=",", encoding="utf-8") -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode(encoding)


def arrow(rows, opened=ipc.new_file) -> bytes:
    table, sink = pa.Table.from_pylist(rows), io.BytesIO()
    with opened(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def feathered(rows) -> bytes:
    sink = io.BytesIO()
    feather.write_feather(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def xlsx(rows, *others) -> bytes:
    book, sink = openpyxl.Workbook(), io.BytesIO()
    for sheet, table in [(book.active, rows), *((book.create_sheet(), o) for o in others)]:
        for row in [list(table[0]), *(list(r.values()) for r in table)] if table else []:
            sheet.append(row)
    book.save(sink)
    return sink.getvalue()


def zipped(**files) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("_", "."), content)
        archive.writestr("__MACOSX/._a.csv", b"not a table")
        archive.writestr("README.md", b"neither")
    return sink.getvalue()


def parqueted(rows) -> bytes:
    sink = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def lines(rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def every_format(rows) -> dict[str, bytes]:
    """File name -> content."""
    return {
        "a.csv": delimited(rows),
        "B.CSV": delimited(rows),
        "a.tsv": delimited(rows, "\t"),
        "a.jsonl": lines(rows),
        "a.json": json.dumps(rows).encode(),
        "a.parquet": parqueted(rows),
        "a.xlsx": xlsx(rows),
        "sheets.xlsx": xlsx(rows, []),
        "a.feather": feathered(rows),
        "file.arrow": arrow(rows),
        "stream.arrow": arrow(rows, ipc.new_stream),
        "a.tsv.gz": gzip.compress(delimited(rows, "\t")),
        "a.csv.bz2": bz2.compress(delimited(rows)),
        "a.jsonl.xz": lzma.compress(lines(rows)),
        "a.zip": zipped(a_csv=delimited(rows)),
        "a.csv.zip": zipped(b_jsonl=lines(rows)),
    }
