"""The page about papers speaks of every method, and the tests and options that it names exist."""

import ast
import re
from pathlib import Path

import pytest

from silotune.config import build, load_config
from silotune.methods import built_in
from silotune.methods.options import options

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
