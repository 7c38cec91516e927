"""Runs on images with several labels: private and not, in worker processes, and exported."""

import json
import random

import pytest
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

import silotune as st
from federation.objects import federation
from silotune.federation.export import export_merged
from silotune.testing.tiny_models import tiny_vit

pytest.importorskip("sklearn")
NAMES = ("ash", "birch", "cedar")
SILOS = ("east", "west")


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    return tiny_vit(tmp_path_factory.mktemp("models") / "vit")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Of each silo, pictures whose colours say what is on them; lists, and columns of 0 and 1."""
    root = tmp_path_factory.mktemp("pictures")
    for silo in SILOS:
        draw, rows = random.Random(silo), []
        for i in range(24):
            there = [name for name in NAMES if draw.random() < 0.5]
            colour = tuple(250 if name in there else 20 for name in NAMES)
            path = root / f"{silo}-{i}.png"
            Image.new("RGB", (16, 16), colour).save(path)
            marks = {name: int(name in there) for name in NAMES}
            rows.append({"image": str(path), "there": there, **marks})
        (root / f"{silo}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return root


def objective(label="there", **changes):
    return st.MultiLabelImageClassification(image="image", label=label, labels=NAMES, **changes)


def seeing(vit, files, **changes):
    clients = {silo: str(files / f"{silo}.jsonl") for silo in SILOS}
    given = {"clients": clients, "objective": objective(), "rounds": 1, "num_examples": 20}
    return federation(vit, **{**given, **changes})


def test_what_is_merged_answers_in_a_pipeline_as_the_run_scores(vit, files, tmp_path):
    made = seeing(vit, files, objective=objective(threshold={"ash": 0.45}))
    run = made.fit(tmp_path / "run")
    rows = [json.loads(line) for line in (files / "west.jsonl").read_text().splitlines()]
    told, mine = run.evaluate(rows).metrics, run.predict([row["image"] for row in rows])
    assert told.keys() == made.terms.objective.facts.metrics.keys()
    right = [set(a.labels) == set(row["there"]) for a, row in zip(mine, rows, strict=True)]
    assert told["accuracy"] == pytest.approx(sum(right) / len(rows))
    export_merged(made, run.folder, tmp_path / "merged")
    ask = pipeline(
        "image-classification",
        model=AutoModelForImageClassification.from_pretrained(tmp_path / "merged"),
        image_processor=AutoImageProcessor.from_pretrained(tmp_path / "merged"),
        function_to_apply="sigmoid",
    )
    for answer, row in zip(mine, rows[:4], strict=False):
        told = {each["label"]: each["score"] for each in ask(row["image"])}
        assert told == pytest.approx(answer.probabilities, abs=1e-5)
    card = (run.folder.adapter / "README.md").read_text()
    assert "0.45" in card
    assert "pipeline_tag: image-classification" in card
