"""Made-up records are read as an objective reads its own."""

import json

import pytest

from silotune.cli.made_up import made_up
from silotune.data import load
from silotune.data.columns import Columns, readable
from silotune.objectives import (
    CausalLM,
    MultiLabelClassification,
    Regression,
    Seq2Seq,
    SequenceClassification,
    TextEmbedding,
    TokenClassification,
    find,
)

NAMES = ("ash", "birch")
OBJECTIVES = {
    "one label": SequenceClassification(text="t", text_pair="u", label="kind", labels=NAMES),
    "lists": MultiLabelClassification(text="t", label="kinds", labels=NAMES),
    "marks": MultiLabelClassification(text="t", label=NAMES),
    "a number": Regression(text="t", label="days", target_mean=3, target_scale=2),
    "numbers": Regression(text="t", label=("a", "b"), target_mean=3, target_scale=2),
    "pairs": TextEmbedding(text="t", text_pair="u", label="s", score_range=(1, 4)),
    "tags": TokenClassification(words="w", tags="t", labels=("ASH", "NEW YORK")),
    "spans": TokenClassification(text="t", spans="s", labels=NAMES),
    "targets": Seq2Seq(source="s", target="t"),
    "texts": CausalLM(prompt="ask", completion="answer"),
    "chats": CausalLM(messages="turns"),
}


@pytest.mark.parametrize("which", OBJECTIVES)
def test_records_are_of_the_columns_and_can_be_read(which, tmp_path):
    objective = OBJECTIVES[which]
    file = made_up(tmp_path / "site", "north", objective, 12)
    assert len(list(map(json.loads, file.read_text().splitlines()))) == 12
    columns, target = Columns.of(objective.columns), find(objective.task).target
    within = getattr(objective, "score_range", None)
    told = {"target": target, "within": within}
    rows = readable(load(str(file)).train, columns, objective.label_names, "it", **told)
    assert len(rows) == 12
    assert set(rows.column_names) == set(objective.columns)
    again = made_up(tmp_path / "again", "north", objective, 12)
    assert again.read_bytes() == file.read_bytes()
