"""Which package may import which: the contracts in pyproject.toml."""

import subprocess
import sys
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[2]
LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")


def test_every_import_goes_down():
    """In a process of its own: the linter starts workers, which must not be copies of this one."""
    command = [str(LINT_IMPORTS), "--no-cache", "--no-logo"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_no_import_goes_round_in_a_circle():
    """Neither inside a package nor over packages; imports for type checkers count as well."""
    graph = grimp.build_graph("silotune", "silotune_link", cache_dir=None)
    imports = {m: graph.find_modules_directly_imported_by(m) for m in graph.modules}
    assert circles(imports) == []
    packages: dict[str, set[str]] = {}
    for module, others in imports.items():
        home = package(module)
        packages.setdefault(home, set()).update({package(o) for o in others} - {home})
    assert circles(packages) == []


def test_a_circle_is_seen():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}) == [["a", "b", "c"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def package(module):
    return ".".join(module.split(".")[:2])


def circles(imports):
    """Every largest group whose members all lead to each other."""
    reach = {start: reached(start, imports) for start in imports}
    groups = {frozenset(b for b in reach[a] if a in reach[b]) for a in imports}
    return sorted(sorted(group) for group in groups if group)


def reached(start, imports):
    """What one gets to from ``start`` in one step or more; itself only by a circle."""
    found, ahead = set(), [start]
    while ahead:
        new = set(imports[ahead.pop()]) - found
        found |= new
        ahead += new
    return found
