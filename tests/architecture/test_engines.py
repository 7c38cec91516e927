"""What is installed to test the engines is what the extras ask for."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
EXTRAS = ("flower", "nvflare", "ray")


def test_the_versions_that_are_tested_are_those_of_the_extras():
    text = (ROOT / "engines-requirements.txt").read_text()
    lines = [line.strip() for line in text.splitlines() if line.strip() and line[0] != "#"]
    installed = dict(line.split("==") for line in lines)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra in EXTRAS:
        for text in extras["optional-dependencies"][extra]:
            asked = Requirement(text)
            assert installed[asked.name] in asked.specifier, text
