"""What users and other packages may rely on, pinned: a change here is a change for them.

After a change that is meant (and told in CHANGELOG.md if users see it), from the root:
    python tests/architecture/test_public_names.py > tests/architecture/public_names.txt
"""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
PINNED = Path(__file__).with_name("public_names.txt")
VERBS = {
    "init",
    "doctor",
    "plan",
    "data",
    "run",
    "evaluate",
    "export",
    "methods",
    "audit",
    "privacy",
}


def public_names() -> str:
    """One line per package: the names that its ``__init__`` hands on (``import x as x``)."""
    lines = []
    for init in sorted((ROOT / "src").rglob("__init__.py")):
        package = ".".join(init.parent.relative_to(ROOT / "src").parts)
        names = sorted(
            alias.name
            for node in ast.parse(init.read_text(encoding="utf-8")).body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
            if alias.asname == alias.name
        )
        lines.append(f"{package}: {' '.join(names)}".rstrip(": ") + "\n")
    return "".join(lines)


def test_packages_hand_on_the_pinned_names():
    assert public_names().splitlines() == PINNED.read_text(encoding="utf-8").splitlines()


def test_the_command_line_has_these_verbs():
    import typer

    from silotune.cli import app

    commands = typer.main.get_command(app).commands
    assert {name for name, command in commands.items() if not command.hidden} == VERBS


if __name__ == "__main__":
    print(public_names(), end="")
