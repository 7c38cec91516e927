"""What may become of a file."""

import json
from pathlib import Path


def missing(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garbage(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 2)


def torn(path: Path) -> None:
    """Something more was begun to be written."""
    with path.open("ab") as file:
        file.write(b'{"version": 1, "rou')


def garbled_end(path: Path) -> None:
    """The last eighth has other bytes."""
    data = path.read_bytes()
    whole = len(data) - len(data) // 8 - 1
    path.write_bytes(data[:whole] + bytes(byte ^ 0x5A for byte in data[whole:]))


def of_other_types(path: Path) -> None:
    """Every value of every line is a number, or a text where it was one; YAML and bytes a list."""
    if path.suffix not in (".json", ".jsonl"):
        path.write_text("[1, 2]\n")
        return
    text = path.read_text()
    lines = text.splitlines() if path.suffix == ".jsonl" else [text]
    values = [json.loads(line) for line in lines]
    turned = [{k: v if k == "version" else _other(v) for k, v in one.items()} for one in values]
    path.write_text("".join(json.dumps(one) + "\n" for one in turned))


def _other(value: object) -> object:
    return "7" if isinstance(value, int | float) else 7


ENDS = (torn, garbled_end)
"""Of a file whose beginning is as it was."""

DAMAGES = (missing, empty, cut_short, garbage, of_other_types)
