"""``silotune eva``: a start of public texts, and what to do with it."""

import json
from pathlib import Path


def write(texts, name="public.jsonl"):
    Path(name).write_text("\n".join(json.dumps({"body": text}) for text in texts))


def test_it_writes_an_adapter_and_says_how_to_begin_with_it(silotune, place):
    write([f"{a} {b}" for a in ("red", "blue", "old", "new") for b in ("car", "house", "tree")])
    result = silotune(
        "eva", "small.yaml", "--texts", "public.jsonl", "--column", "body", "-o", "start"
    )
    assert result.exit_code == 0, result.stderr
    assert "12 texts" in result.stdout
    begin = next(line for line in result.stdout.splitlines() if "silotune run small.yaml" in line)
    assert silotune("plan", *begin.split("silotune run ")[1].split()).exit_code == 0


def test_what_is_wrong_is_named(silotune, place):
    write(["red car"])
    told = {
        ("--texts", "gone.csv"): "there is no file gone.csv",
        ("--texts", "public.jsonl", "data.path=public.jsonl"): "is among the records (data.path)",
        ("--texts", "public.jsonl", "data.path=."): "is among the records (data.path)",
        ("--texts", "public.jsonl"): "has no column text; it has body",
        ("--texts", "public.jsonl", "--column", "body", "method.r=16"): "give more texts",
    }
    for words, expected in told.items():
        result = silotune("eva", "small.yaml", *words, "-o", "start")
        assert result.exit_code == 1
        assert expected in " ".join(result.stderr.split())
    assert not Path("start").exists()
