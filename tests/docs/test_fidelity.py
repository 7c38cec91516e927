"""The page about papers speaks of every method, and the tests and options that it names exist."""

import ast
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from federation.small import train
from silotune.config import build, load_config
from silotune.methods import built_in
from silotune.methods.options import options
from silotune.terms.agreement import ranks
from silotune.testing.tiny_models import tiny_llama

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8")
ROWS = {
    row[1].strip(): row for row in (r.split("|") for r in PAGE.splitlines()) if len(row) == 7
}  # six bars
"""Method -> the cells of its row."""


def test_every_method_has_a_row_and_a_test():
    assert set(ROWS) - {"method", "---"} == set(built_in())
    assert all("::" in ROWS[name][5] for name in built_in())


def test_tests_that_are_named_exist():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not (ROOT / file).exists()
        or test not in {n.name for n in ast.walk(tree(file)) if isinstance(n, ast.FunctionDef)}
    ]
    assert named
    assert missing == []


def tree(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text(encoding="utf-8"))


def test_options_that_are_named_are_the_methods_own():
    for name, method in built_in().items():
        named = re.findall(r"`([a-z_]\w*)(?:: \w+)?`", ROWS[name][4])
        assert set(named) <= set(options(method)), name


@pytest.mark.parametrize("task", ["mnli", "sst2", "qnli", "qqp"])
def test_the_papers_settings_of_ffa_lora_are_a_file_for_each_task(task):
    config = load_config(ROOT / "examples" / "paper" / f"ffa-lora-{task}.yaml")
    assert (config.model.head, config.model.head_init) == ("frozen", "random")
    method = config.method.build()
    assert (method.name, method.r, method.lora_alpha) == ("ffa-lora", 8, 8)
    assert method.init_lora_weights == "kaiming"
    assert method.target_modules == ("query", "value")
    train = config.train
    assert (train.optimizer, train.learning_rate, train.batch_size) == ("sgd", 0.5, 200)
    assert (train.num_rounds, train.local_steps, config.data.silos.num) == (1000, 10, 3)
    assert (config.privacy.max_grad_norm, config.privacy.target_delta) == (2, 1e-5)


def test_the_settings_of_fedsvd_are_a_file():
    config = load_config(ROOT / "examples" / "paper" / "fedsvd-mnli.yaml")
    terms = build(config).terms
    assert (terms.method.name, terms.method.r, terms.method.refactor_every) == ("fedsvd", 8, 1)
    assert (terms.rounds, terms.local_steps, terms.batch_size) == (100, 10, 128)
    assert (config.data.silos.num, terms.clients_per_round) == (6, 3)
    assert 50 < terms.training_of(6).rounds < 70, "the most of 100 that one silo is asked in"


def test_the_settings_of_flexlora_are_a_file_with_a_rank_for_each_silo_and_a_draw_of_silos():
    config = load_config(ROOT / "examples" / "paper" / "flexlora-natural-instructions.yaml")
    terms = build(config).terms
    method = terms.method
    assert (method.name, method.lora_alpha, method.balanced, method.rank_scale) == (
        "flexlora",
        16,
        False,
        "own",
    )
    silos = [f"task{number:03}_some_1_2_name" for number in range(1, 1614)]
    found = Counter(ranks(terms, silos).values())
    assert found == {8: 1613 - 162 - 162, 30: 162, 200: 162}, "four of five have rank 8"
    assert terms.clients_per_round == round(0.05 * len(silos))
    assert (terms.batch_size, terms.rounds, terms.local_epochs) == (4, 50, 1)


@pytest.mark.usefixtures("no_network")
def test_it_runs_small(tmp_path):
    """Twenty tasks of made-up texts, two of which are asked in a round."""
    table = tmp_path / "tasks.jsonl"
    with table.open("w") as file:
        for number in range(1, 21):
            for i in range(12):
                row = {
                    "task_name": f"task{number:03}_made_up",
                    "definition": "Say a word.",
                    "inputs": f"Number {number}",
                    "targets": ["red", "blue", "green"][i % 3],
                }
                file.write(json.dumps(row) + "\n")
    config = load_config(
        ROOT / "examples" / "paper" / "flexlora-natural-instructions.yaml",
        [
            f"model.name_or_path={tiny_llama(tmp_path / 'model')}",
            f"data.path={table}",
            "data.max_length=16",
            "method.r=2",
            "method.ranks={'task??1_*': 3, 'task??2_*': 4}",
            "train.num_rounds=2",
            "train.clients_per_round=2",
            f"output_dir={tmp_path / 'run'}",
        ],
    )
    train(config)
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()
