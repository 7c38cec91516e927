"""The tutorial runs from the first cell to the last, and its YAML means the same federation."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from tutorial_page import SCRIPT, cells, outputs

from silotune.config import build, load_config

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

TEXT = SCRIPT.read_text(encoding="utf-8")


def federation_in(scope_of: Path):
    """What the YAML of the tutorial describes, read in the folder that the tutorial leaves."""
    (block,) = re.findall(
        r"```yaml.*?\n(.*?)```", "\n".join(c.text for c in cells(TEXT) if not c.is_code), re.DOTALL
    )
    file = scope_of / "clinics.yaml"
    file.write_text(block)
    return build(load_config(file, []))


@pytest.mark.full
def test_it_runs_and_its_yaml_means_the_same(tmp_path, monkeypatch, no_network):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    scope = {}
    shown = [text for _, text in outputs(TEXT, scope)]
    assert sum("<svg" in text for text in shown) == 1
    assert "```text\nTrue\n```" in "\n".join(shown), "the certificate adds up"
    ours, theirs = scope["federation"], federation_in(tmp_path)
    labels = tuple(ours.terms.objective.labels)
    objective = replace(ours.terms.objective, labels=labels)  # a list in Python, a tuple of YAML
    assert theirs.terms == replace(ours.terms, objective=objective)
    assert theirs.records.valid_fraction == ours.records.valid_fraction
    assert theirs.plan() == ours.plan()


def test_cells_are_told_apart():
    first, second = cells("# %% [markdown]\n# # Title\n#\n# Text.\n\n# %%\nx = 1  # %% no cell\n")
    assert (first.is_code, first.text) == (False, "# Title\n\nText.")
    assert (second.is_code, second.text) == (True, "x = 1  # %% no cell")
