import re
from pathlib import Path

import pytest

from silotune.cli.templates import bundled
from silotune.config import digest, dump, load_config

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
NAMES = {"compare", "sst2", "qnli", "mnli", "stories", "pacs"}


def test_the_examples_are_there():
    assert {path.stem for path in EXAMPLES} >= NAMES


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path, tmp_path):
    config = load_config(path)
    assert config.output_dir == f"runs/{path.stem}"
    assert config.privacy.unit == "example"
    again = tmp_path / "again.yaml"
    again.write_text(dump(config))
    assert digest(load_config(again)) == digest(config)


@pytest.mark.parametrize("name", sorted(bundled()))
def test_bundled(name, tmp_path):
    path = tmp_path / f"{name}.yaml"
    path.write_text(bundled()[name].read_text())
    assert load_config(path).output_dir == f"runs/{name}"


def test_the_default_is_bundled_and_says_everything_in_comments():
    text = bundled()["triage"].read_text()
    sections = ("model:", "data:", "method:", "privacy:", "train:")
    assert all(f"\n{section}\n" in text for section in sections)
    assert text.count("#") > 25


@pytest.mark.parametrize("name", ["sst2", "qnli", "mnli"])
def test_documented_changes_of_the_text_examples(name):
    path = next(p for p in EXAMPLES if p.stem == name)
    plain = ["privacy.unit=none"]
    assert load_config(path, plain).privacy.unit == "none"
    changes = ["data.path=folder", "data.silos.split=label-skew-severe", "method.name=head-only"]
    assert load_config(path, changes).data.silos.num == 3


COMPARISONS = [
    line.partition("examples/compare.yaml ")[2].partition("--output-dir")[0].strip()
    for line in (EXAMPLES[0].parent / "compare.yaml").read_text().splitlines()
    if "examples/compare.yaml method" in line
]


@pytest.mark.parametrize("words", COMPARISONS)
def test_documented_methods_of_the_comparison(words):
    path = EXAMPLES[0].parent / "compare.yaml"
    overrides = re.split(r" (?=(?:method|train|privacy)\b)", words)
    assert load_config(path, overrides).method.name in words
    assert len(COMPARISONS) == 10


def test_no_example_needs_a_path_of_ours():
    for text in [path.read_text() for path in (*EXAMPLES, *bundled().values())]:
        assert "/work" not in text
        assert "../" not in text
