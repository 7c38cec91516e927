"""Every task, with records hidden and not: here, and by what a worker process does, to the bit.

The worker is told all in the frames of a real one, in this process: to start one takes longer than
all that it does. Real ones are in ``tests/cli/test_processes.py``.
"""

import json
import random
from pathlib import Path

import pytest
from PIL import Image

import silotune as st
from covering import every_combination
from federation.objects import SEEDED, federation
from silotune.federation import worker_answers, workers
from silotune.federation.worker_answers import open_worker
from silotune.objectives import TASKS
from silotune.runs.folder import RunFolder
from silotune.testing import tiny_models

pytest.importorskip("sklearn")
LABELS = ("ash", "birch", "cedar")
PRIVACY = {"plain": st.NoDP(), "private": SEEDED}
TEXT = {"text": "text", "max_length": 32}
CASES = {
    objective.task: objective
    for objective in (
        st.SequenceClassification(label="kind", labels=LABELS, **TEXT),
        st.MultiLabelClassification(label="trees", labels=LABELS, **TEXT),
        st.Regression(label="height", target_mean=5.0, target_scale=2.0, pooling="mean", **TEXT),
        st.TextEmbedding(
            text_pair="line", label="height", score_range=(0, 24), pooling="mean", **TEXT
        ),
        st.TokenClassification(words="words", tags="tags", labels=["TREE"], max_length=32),
        st.CausalLM(prompt="text", completion="line", max_length=48),
        st.Seq2Seq(source="text", target="line", max_length=32, max_target_length=20),
        st.ImageClassification(image="image", label="kind", labels=LABELS),
        st.MultiLabelImageClassification(image="image", label="trees", labels=LABELS),
    )
}


class WorkerHere:
    """A pool of one worker, which opens the run and answers in this process."""

    size = 1

    def __init__(self, command, _workers, told):
        self.folder, self.told, self.answer = RunFolder(Path(command[-1])), iter(told), None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def warm(self):
        pass

    def exchange(self, orders, _deadline):
        if self.answer is None:
            self.answer = open_worker(self.folder, lambda: next(self.told).result(timeout=0))
        for client, order in orders.items():
            yield client, self.answer(order)


@pytest.fixture(scope="module")
def clients(tmp_path_factory):
    """Of each silo a file with all that any task reads."""
    root, found = tmp_path_factory.mktemp("records"), {}
    for silo in ("east", "west"):
        draw, rows = random.Random(silo), []
        for i in range(24):
            trees = [tree for tree in LABELS if draw.random() < 0.5]
            words = ["a", *trees, "in", "yard", str(i)]
            picture = root / f"{silo}-{i}.png"
            colour = tuple(250 * (tree in trees) for tree in LABELS)
            Image.new("RGB", (16, 16), colour).save(picture)
            rows.append(
                {
                    "text": " ".join(words),
                    "line": f"{len(trees)} trees",
                    "kind": draw.choice(LABELS),
                    "trees": trees,
                    "height": float(i),
                    "words": words,
                    "tags": ["B-TREE" if word in LABELS else "O" for word in words],
                    "image": str(picture),
                }
            )
        found[silo] = str(root / f"{silo}.jsonl")
        (root / f"{silo}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return found


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny model for a task, made once."""
    root = tmp_path_factory.mktemp("models")

    def made(task):
        kind = TASKS[task].stand_in
        place = root / kind
        return place if place.exists() else getattr(tiny_models, kind)(place)

    return made


def test_every_task_has_a_case():
    assert CASES.keys() == TASKS.keys()


@every_combination(task=list(CASES), privacy=list(PRIVACY))
def test_a_worker_ends_in_the_same_bits(clients, base, tmp_path, monkeypatch, task, privacy):
    monkeypatch.setattr(workers, "Pool", WorkerHere)
    monkeypatch.setattr(worker_answers.os, "dup2", lambda *_: None)
    given = {"clients": clients, "objective": CASES[task], "num_examples": 20}
    given["privacy"] = PRIVACY[privacy]
    made = {"here": {}, "there": {"runtime": "pool", "workers": 1}}
    here, there = (
        federation(base(task), **given, **how, rounds=1, local_steps=1).fit(tmp_path / name)
        for name, how in made.items()
    )
    assert here.metrics.records[-1].metrics == there.metrics.records[-1].metrics
    adapters = [run.folder.adapter / "adapter_model.safetensors" for run in (here, there)]
    assert adapters[0].read_bytes() == adapters[1].read_bytes()
    assert here.privacy.verify().ok
    assert there.privacy.verify().ok
