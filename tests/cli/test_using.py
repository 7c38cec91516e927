"""``predict`` and ``generate``: every task, from a file to a file."""

import csv
import errno
import io
import json
import math
import os
import random
from decimal import Decimal
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image
from tokenizers.processors import TemplateProcessing
from transformers import AutoImageProcessor, AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

import silotune as st
from federation.objects import federation, tables
from silotune.cli import app, use
from silotune.core import files
from silotune.federation.loaded_model import LEAST_TEMPERATURE, LoadedModel
from silotune.federation.questions import questions
from silotune.objectives import TASKS
from silotune.objectives.answers import cells
from silotune.testing import tiny_models

TREES = ("ash", "birch")
TEXT = {"text": "text", "max_length": 32}
OBJECTIVES = [
    st.SequenceClassification(label="kind", labels=TREES, **TEXT),
    st.MultiLabelClassification(label="trees", labels=TREES, **TEXT),
    st.Regression(
        label=("height", "width"), target_mean=(5.0, 1.0), target_scale=(2.0, 1.0), **TEXT
    ),
    st.TokenClassification(words="words", tags="tags", labels=["TREE"]),
    st.ImageClassification(image="image", label="kind", labels=TREES),
    st.MultiLabelImageClassification(
        image="image", label="trees", labels=TREES, threshold={"ash": 0.4}
    ),
    st.CausalLM(prompt="text", completion="kind", max_length=48),
]


def records(folder, n=12, seed=0):
    """All that any task reads; images are beside the file."""
    draw, made = random.Random(seed), []
    for i in range(n):
        trees = [tree for tree in TREES if draw.random() < 0.6]
        words = ["a", *trees, "in", "yard", str(i)]
        pixels = bytes(draw.randrange(256) for _ in range(16 * 16 * 3))
        Image.frombytes("RGB", (16, 16), pixels).save(folder / f"{seed}-{i}.png")
        made.append(
            {
                "id": f"{i:03}",
                "text": " ".join(words),
                "kind": draw.choice(TREES),
                "trees": trees,
                "height": float(i),
                "width": 1.0,
                "words": words,
                "tags": ["B-TREE" if word in TREES else "O" for word in words],
                "image": f"{seed}-{i}.png",
            }
        )
    return made


PIXELS = torch.zeros(2, 2)


class Flat(torch.nn.Module):
    """One that gives what it reads."""

    def __init__(self):
        super().__init__()
        self.here = torch.nn.Parameter(torch.zeros(1))

    def forward(self, pixel_values):
        return SimpleNamespace(logits=pixel_values)


def lines(rows) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def read(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def outputs(objective, run, base, rows, folder):
    """Of the merged model in plain transformers, a tensor for each record."""
    whole = run.merged_model().eval()
    if objective.facts.reads == "image":
        images = [Image.open(folder / row["image"]) for row in rows]
        batch = AutoImageProcessor.from_pretrained(base)(images, return_tensors="pt")
        return whole(**batch).logits
    tokenizer = AutoTokenizer.from_pretrained(base)
    if objective.task == "token-classification":
        texts = [" ".join(row["words"]) for row in rows]
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        logits = whole(**batch).logits
        return [logits[i, firsts(batch, i, row["words"])] for i, row in enumerate(rows)]
    batch = tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt")
    return whole(**batch).logits


def firsts(batch, row, words):
    """The first token of each word, by where it begins in the text."""
    places = [len(" ".join([*words[:i], ""])) for i in range(len(words))]
    return [batch.char_to_token(row, place) for place in places]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.task)
def test_what_a_file_is_told_is_what_is_scored_and_what_transformers_says(
    silotune, tmp_path, objective
):
    base = getattr(tiny_models, objective.facts.stand_in)(tmp_path / "base")
    rows = records(tmp_path)
    here = [{**row, "image": str(tmp_path / row["image"])} for row in rows]
    run = federation(base, objective=objective, clients={"east": here, "west": here}, rounds=1).fit(
        tmp_path / "run"
    )
    (tmp_path / "new.jsonl").write_text(lines(rows))
    files = ("--input", tmp_path / "new.jsonl", "--output", tmp_path / "said.jsonl")
    if objective.facts.target == "none":
        done = silotune("generate", tmp_path / "run", *files, "--max-new-tokens", 4)
        assert done.exit_code == 0, done.output
        said = read(tmp_path / "said.jsonl")
        tokenizer, whole = AutoTokenizer.from_pretrained(base), run.merged_model().eval()
        for one, row in zip(said, rows, strict=True):
            ids = tokenizer(row["text"], return_tensors="pt")["input_ids"]
            ids = ids[:, :-1] if ids[0, -1] == tokenizer.eos_token_id else ids
            told = whole.generate(input_ids=ids, max_new_tokens=4, do_sample=False)
            after = tokenizer.decode(told[0, ids.shape[1] :], skip_special_tokens=True)
            assert one == {**row, "generated": after}
        return
    done = silotune("predict", tmp_path / "run", *files, "--batch-size", 5)
    assert done.exit_code == 0, done.output
    said = read(tmp_path / "said.jsonl")
    assert [{name: one[name] for name in rows[0]} for one in said] == rows
    model = run.load()
    answered = cells(model.predict(here[:1])[0])
    assert model.columns(questions(objective, here[:1])[0]) == (*answered,)
    assert [*said[0]] == [*rows[0], *answered]
    scores = run.evaluate(here).metrics
    with torch.no_grad():
        plain = outputs(objective, run, base, rows, tmp_path)
    for one, logits in zip(said, plain, strict=True):
        told = [v for name, v in one.items() if name.startswith(("prediction_", "probability"))]
        each = {
            "label": lambda row: row.softmax(-1).tolist(),
            "labels": lambda row: row.sigmoid().tolist(),
            "numbers": lambda row: row.tolist(),
            "entities": lambda row: [row.softmax(-1).max(-1).values.tolist()],
        }[objective.facts.target](logits)
        assert told == [pytest.approx(value, rel=1e-4, abs=1e-5) for value in each]
    right = {
        "label": lambda one: one["prediction"] == one["kind"],
        "labels": lambda one: set(one["prediction"]) == set(one["trees"]),
        "numbers": lambda one: (
            (abs(one["prediction_height"] - one["height"]) + abs(one["prediction_width"] - 1.0)) / 2
        ),
        "entities": None,
    }[objective.facts.target]
    if right is None:
        pairs = [p for o in said for p in zip(o["prediction"], o["tags"], strict=True)]
        assert scores["token_accuracy"] == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))
        return
    metric = "mae" if objective.facts.target == "numbers" else "accuracy"
    assert scores[metric] == pytest.approx(sum(map(right, said)) / len(said))


def test_every_task_can_be_asked():
    elsewhere = {"seq2seq", "text-embedding"}  # tests/federation
    assert {objective.task for objective in OBJECTIVES} | elsewhere == set(TASKS)


@pytest.fixture(scope="module")
def trained(bert, tmp_path_factory):
    return federation(bert, rounds=1).fit(tmp_path_factory.mktemp("using") / "run").folder.path


ROWS = [{"id": "007", "text": "cat ran, today"}, {"id": "8", "text": "dog ate"}]


def as_csv(rows, mark=",") -> str:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), delimiter=mark, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def test_a_csv_is_kept_as_it_is_written(silotune, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new.csv").write_text(as_csv(ROWS))
    words = ("predict", trained, "--input", "new.csv", "--output")
    assert silotune(*words, "said.csv").exit_code == 0
    said = list(csv.DictReader((tmp_path / "said.csv").read_text().splitlines()))
    assert [{name: one[name] for name in ("id", "text")} for one in said] == ROWS
    expected = st.load(trained).predict([row["text"] for row in ROWS])
    assert [one["prediction"] for one in said] == [answer.label for answer in expected]
    for one, answer in zip(said, expected, strict=True):
        for label, probability in answer.probabilities.items():
            assert float(one[f"probability_{label}"]) == pytest.approx(probability, rel=1e-5)
    again = silotune(*words, "said.csv")
    assert again.exit_code == 1
    assert "--output: said.csv exists already" in again.stderr
    assert silotune(*words, "said.csv", "--overwrite").exit_code == 0
    assert silotune(*words, "said.parquet").exit_code == 0
    assert parquet.read_table("said.parquet").column_names[:3] == ["id", "text", "prediction"]


def test_lines_come_in_and_go_out_through_pipes(trained):
    done = CliRunner().invoke(
        app, ["predict", str(trained), "-i", "-", "-o", "-"], input=lines(ROWS)
    )
    assert (done.exit_code, done.stderr) == (0, "")
    said = [json.loads(line) for line in done.stdout.splitlines()]
    expected = st.load(trained).predict([row["text"] for row in ROWS])
    assert [one["prediction"] for one in said] == [answer.label for answer in expected]
    assert [{"id": one["id"], "text": one["text"]} for one in said] == ROWS


def test_texts_that_are_cut_are_told_beside_the_answers(silotune, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new.jsonl").write_text(lines([*ROWS, {"id": "9", "text": "zebra " * 9}]))
    done = silotune("predict", trained, "-i", "new.jsonl", "-o", "-")
    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) == 3
    told = (
        "notice: data.max_length: 1 of 3 records are longer than the 32 tokens that are read, row 2"
    )
    assert told in done.stderr
    assert "zebra" not in done.stderr


REFUSED = {
    "empty": (lines([*ROWS, {"id": "secret", "text": " "}]), "--input: row 2 (the first is 0)"),
    "number": (lines([{"text": 3}]), "holds no text in 'text'"),
    "column": (lines([{"note": "secret"}]), "has no column 'text', which the model reads; it has"),
    "taken": (lines([{"text": "a", "prediction": "b"}]), "have a column 'prediction' already"),
    "none": ("", "holds no records"),
    "broken": ("{", "--input: cannot read new.jsonl: line 1 is not JSON"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_asked_is_said_and_nothing_is_written(
    silotune, trained, tmp_path, monkeypatch, case
):
    monkeypatch.chdir(tmp_path)
    content, words = REFUSED[case]
    (tmp_path / "new.jsonl").write_text(content)
    done = silotune("predict", trained, "-i", "new.jsonl", "-o", "said.jsonl")
    assert done.exit_code == 1
    assert words in done.stderr
    assert "secret" not in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["new.jsonl"]


BEFORE = [
    ("predict", pa.table({"text": ["cat"], "scan": [b"secret"]}), "--output: the column 'scan'"),
    ("predict", pa.table({"text": ["cat"], "sum": [Decimal(1)]}), "--output: the column 'sum'"),
    ("generate", pa.table({"text": ["cat"], "generated": ["dog"]}), "a column 'generated' already"),
]


@pytest.mark.parametrize(("verb", "table", "words"), BEFORE)
def test_what_cannot_be_written_is_said_before_a_model_is_opened(
    silotune, tmp_path, monkeypatch, verb, table, words
):
    monkeypatch.chdir(tmp_path)
    parquet.write_table(table, "new.parquet")
    done = silotune(verb, "no run is here", "-i", "new.parquet", "-o", "said.csv")
    assert done.exit_code == 1
    assert words in done.stderr
    assert "secret" not in done.stderr


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        ([{"text": "a", "prediction": "b"}], "prediction"),
        ([{"text": "a", "probability_dog": 1}], "probability_dog"),
    ],
)
def test_a_column_that_would_be_written_is_refused_before_anything_is_computed(
    silotune, trained, tmp_path, monkeypatch, rows, name
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LoadedModel, "_batch", lambda *_: pytest.fail("a record was read"))
    (tmp_path / "new.jsonl").write_text(lines(rows))
    done = silotune("predict", trained, "-i", "new.jsonl", "-o", "said.jsonl")
    assert (done.exit_code, f"have a column {name!r} already" in done.stderr) == (1, True)


def test_a_full_disk_asks_for_space_and_for_nothing_that_predict_has_not(
    silotune, trained, tmp_path, monkeypatch
):
    def full(_descriptor, _data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.chdir(tmp_path)
    (tmp_path / "new.jsonl").write_text(lines(ROWS))
    monkeypatch.setattr(files, "write_all", full)
    done = silotune("predict", trained, "-i", "new.jsonl", "-o", "said.jsonl")
    assert done.stderr.endswith("said.jsonl: No space left on device; free some space\n")
    assert [file.name for file in tmp_path.iterdir()] == ["new.jsonl"]


def test_a_broken_image_is_told_by_its_row_before_any_is_looked_at(silotune, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    looks = []
    model = LoadedModel(
        model=Flat(),
        objective=st.ImageClassification(image="image", label="kind", labels=TREES),
        tokenizer=None,
        image_processor=lambda images, **_: looks.append(images) or {"pixel_values": PIXELS},
        labels=TREES,
    )
    monkeypatch.setattr(use, "load", lambda _path, client: model)
    Image.new("RGB", (16, 16)).save("sound.png")
    Image.new("RGB", (16, 16)).save("torn.bmp")
    os.truncate("torn.bmp", 200)
    words = ("predict", "run", "-i", "new.jsonl", "-o", "said.csv", "--batch-size", 2)
    for cell in ("gone.png", "torn.bmp"):
        (tmp_path / "new.jsonl").write_text(lines([{"image": "sound.png"}] * 2 + [{"image": cell}]))
        done = silotune(*words)
        assert "--input: row 2 (the first is 0) of new.jsonl is no readable image" in done.stderr
        assert not (tmp_path / "said.csv").exists()
    for odd in (3, {"image": {"path": "sound.png"}}, {"image": "torn.bmp"}):
        with pytest.raises(ValueError, match=r"records: row 1 .* is no readable image"):
            model.predict(["sound.png", odd])
    assert not looks
    with Image.open("sound.png") as image:
        assert len(model.predict(["sound.png", image])) == 2


def test_files_that_are_not_there_or_are_read_otherwise(silotune, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new.csv").write_text(as_csv(ROWS, ";"))
    words = ("predict", trained, "-i")
    for given, said in [
        (("gone.csv", "-o", "said.csv"), "--input: cannot read gone.csv: No such file"),
        (("new.csv", "-o", "said.txt"), "--output: said.txt is none of csv, tsv, jsonl"),
        (("new.csv", "-o", "gone/said.csv"), "--output: there is no folder gone"),
        (("new.csv", "-o", "said.csv"), "set delimiter to ';'"),
        (("new.csv", "-o", "said.csv", "--silo", "east"), "--delimiter"),
    ]:
        done = silotune(*words, *given)
        assert (done.exit_code, said in done.stderr) == (1, True), done.stderr
    assert silotune(*words, "new.csv", "-o", "said.csv", "--delimiter", ";").exit_code == 0
    done = silotune("generate", trained, "--prompt", "cat")
    assert "use predict" in done.stderr
    assert silotune("generate", trained).exit_code == 2
    assert silotune("generate", trained, "-i", "new.csv").exit_code == 2


def test_a_silos_own_model_is_asked_by_its_name(silotune, bert, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = federation(bert, method=st.methods.FedSALoRA(r=2), rounds=1).fit("run")
    (tmp_path / "new.jsonl").write_text(lines(ROWS))
    words = ("predict", "run", "-i", "new.jsonl", "-o", "said.jsonl")
    done = silotune(*words)
    assert done.exit_code == 1
    assert "--silo: every client of this run has a model of its own" in done.stderr
    assert silotune(*words, "--silo", "east").exit_code == 0
    said = read(tmp_path / "said.jsonl")
    expected = run.predict(ROWS, client="east")
    assert [one["probability_cat"] for one in said] == [
        pytest.approx(answer.probabilities["cat"], rel=1e-5) for answer in expected
    ]


def test_prompts_without_a_token_and_temperatures_that_overflow_are_refused(tmp_path):
    base = tiny_models.tiny_gpt2(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A")
    model = LoadedModel(
        model=AutoModelForCausalLM.from_pretrained(base).eval(),
        objective=st.CausalLM(text="text", max_length=48),
        tokenizer=tokenizer,
        image_processor=None,
        labels=(),
    )
    with pytest.raises(ValueError, match=r"prompt 1 \(the first is 0\) has no tokens"):
        model.generate(["cat", ""])
    for temperature in (1e-38, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="temperature must be 0, or a number from 1e-06 on"):
            model.generate(["cat"], temperature=temperature)
    assert model.generate(["cat"], temperature=LEAST_TEMPERATURE, max_new_tokens=2)


def test_a_chat_is_answered_and_what_is_drawn_comes_again(silotune, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = tiny_models.tiny_gpt2(tmp_path / "base")
    rows = {
        silo: [{"said": chat(row["text"], row["label"])} for row in table]
        for silo, table in tables().items()
    }
    objective = st.CausalLM(messages="said", max_length=48)
    run = federation(base, clients=rows, objective=objective, rounds=1).fit("run")
    (tmp_path / "asked.jsonl").write_text(lines([{"said": chat("cat ran")}] * 2))
    files = ("-i", "asked.jsonl", "-o", "said.jsonl", "--max-new-tokens", 6)
    assert silotune("generate", "run", *files).exit_code == 0
    said = [one["generated"] for one in read(tmp_path / "said.jsonl")]
    spoken = silotune("generate", "run/adapter", "--prompt", "cat ran", "--max-new-tokens", 6)
    assert spoken.exit_code == 0
    assert said == [spoken.stdout.removesuffix("\n")] * 2
    loaded = run.load()
    ask = [chat("cat ran")] * 2
    drawn = [
        loaded.generate(ask, max_new_tokens=6, temperature=2.0, seed=seed) for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0][0] != drawn[0][1], "every prompt has its own coins"
    with pytest.raises(ValueError, match=r"row 0 .* ends with what the assistant said"):
        loaded.generate([{"said": chat("cat ran", "dog")}])
    alone = [{"role": "system", "content": "be brief"}]
    loaded.tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role != 'system' %}{{ m.content }}{% endif %}{% endfor %}"
    )
    with pytest.raises(ValueError, match=r"prompt 1 \(the first is 0\): .* no question follows"):
        loaded.generate([chat("cat ran"), alone])
    with pytest.raises(ValueError, match="which leaves none to write in"):
        loaded.generate(["cat " * 500])


def test_what_a_model_writes_is_scored_where_it_is_asked_for(silotune, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base, clients = tiny_models.tiny_gpt2(tmp_path / "base"), {}
    for silo, table in tables().items():
        (tmp_path / f"{silo}.jsonl").write_text(lines(table))
        clients[silo] = f"{silo}.jsonl"
    objective = st.CausalLM(prompt="text", completion="label", max_length=48)
    federation(base, clients=clients, objective=objective, rounds=1).fit("run")
    asked = ("evaluate", "run", "--generate", "--max-new-tokens", 2)
    told = json.loads(silotune(*asked, "--json").stdout)["metrics"]
    assert {*told} == {"loss", "perplexity", "exact_match", "rouge1", "rouge2", "rougeL"}
    assert "exact_match " in silotune(*asked).stdout
    alone = silotune("evaluate", "run", "--max-new-tokens", 2)
    assert (alone.exit_code, "is of --generate" in alone.stderr) == (2, True)


def chat(asked, answer=None):
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return turns if answer else turns[:1]
