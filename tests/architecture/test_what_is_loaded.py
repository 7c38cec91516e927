"""What a process loads before it works: modules that stand at the head of others."""

import ast
import sys
from functools import cache
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "src"
LATE = {"matplotlib", "scipy"}
"""They take a second each; only the end of a run draws, and only audits and accounts compute."""
HEAVY = {"torch", "transformers", "datasets", "pydantic", "numpy", *LATE}
SLOW_DOORS = {
    f"transformers.{name}" for name in ("PreTrainedModel", "AutoTokenizer", "AutoImageProcessor")
}
"""Their modules take seconds, and not all commands read a model."""


def file_of(module: str) -> Path | None:
    """Of a module of ours."""
    path = SOURCES.joinpath(*module.split("."))
    return next((f for f in (path.with_suffix(".py"), path / "__init__.py") if f.is_file()), None)


@cache
def at_the_head(module: str, file: Path) -> frozenset[str]:
    """All that is imported outside functions and conditions; names may be modules or not."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            above = parts[: len(parts) + 1 - node.level] if node.level else []
            place = ".".join([*above, *filter(None, [node.module])])
            found |= {place, *(f"{place}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def loaded(module: str) -> set[str]:
    """Packages of others that come with it."""
    return {name.partition(".")[0] for name in imported(module)}


def imported(module: str) -> set[str]:
    """Modules and names of others that come with it."""
    seen, ahead, others = set(), {module}, set()
    while ahead:
        name = ahead.pop()
        seen.add(name)
        if file := file_of(name):
            parts = name.split(".")
            ahead |= {".".join(parts[:i]) for i in range(1, len(parts))}
            ahead |= at_the_head(name, file)
        elif not name.startswith("silotune."):
            others.add(name)
        ahead -= seen
    return others


def test_neither_workers_nor_plans_load_what_draws():
    for module in ("silotune.cli.worker", "silotune.cli.plan", "silotune.config.build"):
        found = loaded(module)
        assert "torch" in found, "it is followed"
        assert not LATE & found, module


def test_the_link_stands_on_the_standard_library():
    """But for its ways into NVIDIA FLARE and Flower, which these load themselves."""
    files = (SOURCES / "silotune_link").glob("*.py")
    names = [f.stem for f in files if not f.stem.startswith(("flare", "flower"))]
    modules = [f"silotune_link.{name}" for name in names]
    assert "silotune_link.daemon" in modules
    for module in modules:
        assert loaded(module) - {"silotune_link"} <= sys.stdlib_module_names, module


def test_a_configuration_is_copied_without_anything_heavy():
    for module in ("silotune.cli", "silotune.cli.init"):
        found = loaded(module)
        assert "typer" in found, "it is followed"
        assert not HEAVY & found, module


def test_only_who_reads_a_model_waits_for_all_of_transformers():
    for module in ("silotune.cli.plan", "silotune.cli.evaluate", "silotune.config.build"):
        found = imported(module)
        assert "transformers.AutoConfig" in found, "it is followed"
        assert not SLOW_DOORS & found, module


def test_it_would_be_seen():
    assert loaded("silotune.cli.draft") >= HEAVY - LATE
    assert "matplotlib" in loaded("silotune.reports.page")
    assert "scipy" in loaded("silotune.federation.audit")
