"""Runs of tasks with several labels on a record, or numbers: private and not, here and exported."""

import json
import random

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

import silotune as st
from silotune.federation.export import export_merged
from silotune.objectives.answers import Labels

pytest.importorskip("sklearn")
TREES = ("ash", "birch", "cedar")


def records(silo: str, n: int = 40) -> list[dict[str, object]]:
    draw = random.Random(silo)
    made = []
    for _ in range(n):
        trees = [tree for tree in TREES if draw.random() < 0.4]
        height = 100 + 10 * len(trees) + draw.random()
        marks = {f"is_{tree}": int(tree in trees) for tree in TREES}
        text = " ".join([*trees, "in", "yard", str(draw.randint(0, 999))])
        made.append({"text": text, "trees": trees, "height": height, "width": 1.0, **marks})
    return made


HEIGHT = {"text": "text", "label": "height", "target_mean": 110.0, "target_scale": 8.0}
OBJECTIVES = {
    "lists": st.MultiLabelClassification(
        text="text", label="trees", labels=TREES, threshold={"ash": 0.4}, max_length=64
    ),
    "columns": st.MultiLabelClassification(
        text="text", label=("is_ash", "is_birch"), class_weights={"is_ash": 2.0}, max_length=64
    ),
    "number": st.Regression(**HEIGHT, max_length=64, pooling="mean"),
    "numbers": st.Regression(
        text="text",
        label=("height", "width"),
        target_mean=(110.0, 1.0),
        target_scale=(8.0, 1.0),
        loss="huber",
        max_length=64,
    ),
}


def federation(bert, which, **more) -> st.Federation:
    return st.Federation(
        model=str(bert),
        objective=more.pop("objective", OBJECTIVES[which]),
        method=st.methods.FFALoRA(r=2),
        optimizer=st.optim.SGD(lr=0.05),
        rounds=2,
        local_steps=2,
        batch_size=8,
        **{
            "clients": {silo: records(silo) for silo in ("east", "west")},
            "privacy": st.NoDP(),
            "valid_fraction": 0.3,
            **more,
        },
    )


@pytest.fixture(scope="module", params=OBJECTIVES)
def which(request):
    return request.param


@pytest.fixture(scope="module")
def run(bert, which, tmp_path_factory):
    return federation(bert, which).fit(tmp_path_factory.mktemp(which) / "run")


def test_a_run_scores_as_its_task_says(run, which):
    objective, told = OBJECTIVES[which], run.evaluate(records("north")).metrics
    assert told.keys() == objective.facts.metrics.keys()
    card = (run.folder.path / "adapter" / "README.md").read_text()
    assert objective.facts.title in card
    assert ("0.4, 0.5, 0.5" in card) == (which == "lists")
    assert ("mean + scale" in card) == (which in ("number", "numbers"))


def test_what_is_loaded_and_what_is_merged_answer_as_the_run_scores(run, which, tmp_path):
    """The merged model in plain transformers, whose numbers are in their own units."""
    objective, rows = OBJECTIVES[which], records("north", 12)
    texts = [row["text"] for row in rows]
    mine = st.load(run.folder.path).predict(texts)
    told = run.evaluate(rows).metrics
    if which in ("lists", "columns"):
        assert all(isinstance(answer, Labels) for answer in mine)
        wanted = [
            {t for t in TREES if t in r["trees"]}
            if which == "lists"
            else {c for c in objective.label_names if r[c]}
            for r in rows
        ]
        right = [set(a.labels) == w for a, w in zip(mine, wanted, strict=True)]
        assert sum(right) / 12 == told["accuracy"]
        expected = [list(answer.probabilities.values()) for answer in mine]
    else:
        away = [
            abs(answer[name] - row[name])
            for answer, row in zip(mine, rows, strict=True)
            for name in objective.label_names
        ]
        assert sum(away) / len(away) == pytest.approx(told["mae"], rel=1e-5)
        expected = [list(answer.values()) for answer in mine]
    if which == "number":  # our classifier beside its encoder
        whole = run.merged_model()
        batch = AutoTokenizer.from_pretrained(run.federation.terms.model)(
            texts, padding=True, return_tensors="pt"
        )
        with torch.no_grad():
            found = whole(**batch).logits.tolist()
    else:
        export_merged(run.federation, run.folder, tmp_path / "merged")
        about = json.loads((tmp_path / "merged" / "config.json").read_text())
        assert about["problem_type"] == objective.facts.problem
        ask = pipeline(
            "text-classification",
            model=AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged"),
            tokenizer=AutoTokenizer.from_pretrained(tmp_path / "merged"),
            top_k=None,
        )
        names = objective.label_names
        answers = [{a["label"]: a["score"] for a in each} for each in ask(texts)]
        found = [[each[name] for name in names] for each in answers]
    for ours, theirs in zip(expected, found, strict=True):
        assert theirs == pytest.approx(ours, rel=1e-4, abs=1e-4)


def test_only_a_charged_count_of_wholly_right_records_leaves_a_silo(bert, tmp_path):
    hidden = st.ExampleDP(noise_multiplier=1.0, target_delta=1e-3, metric_noise=5.0)
    run = federation(
        bert,
        "lists",
        privacy=hidden,
        num_examples=30,
        num_held_out=4,
        evaluation="site",
    ).fit(tmp_path / "run")
    assert run.facts.metric == "accuracy"
    assert all(set(r.metrics) <= {"accuracy"} for r in run.folder.read_rounds())
    home = (run.folder.path / "sites" / "east" / "metrics.jsonl").read_text().splitlines()
    assert "macro_f1" in json.loads(home[-1])["metrics"]
    with pytest.raises(ValueError, match=r"^metric_noise: counts right answers"):
        federation(bert, "number", privacy=hidden, num_examples=30, evaluation="site")


def test_a_label_without_a_record_is_noticed(bert, tmp_path):
    objective = st.MultiLabelClassification(
        text="text", label="trees", labels=(*TREES, "oak"), max_length=64
    )
    made = federation(bert, "lists", objective=objective)
    assert any("no training record at east has oak" in notice for notice in made.data().notices)


def test_silos_whose_lists_number_the_labels_otherwise_are_read_by_name(bert):
    """Ids of a ``ClassLabel`` are of its own table; a name that the set has not ends in words."""

    def silo(*names, told_as=lambda tree: tree):
        kind = Features({"text": Value("string"), "trees": List(ClassLabel(names=[*names]))})
        rows = [
            {"text": r["text"], "trees": [told_as(tree) for tree in r["trees"]]}
            for r in records("east")
        ]
        return Dataset.from_list(rows, features=kind)

    def told(west):
        clients = {"east": silo(*TREES), "west": west}
        silos = (
            federation(bert, "lists", clients=clients, valid=records("south"), valid_fraction=0.0)
            .data()
            .silos
        )
        return [silos[name].labels for name in ("east", "west")]

    one, other = told(silo("cedar", "ash", "birch"))
    assert one == other
    with pytest.raises(ValueError, match=r"^label: row \d+ .*west.* outside of the label set"):
        told(silo(*"abc", told_as=lambda tree: tree[0]))
