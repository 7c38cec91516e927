"""Pages: links lead somewhere, code in them is real, every public name has its place."""

import ast
import importlib
import re
from pathlib import Path

import pytest
import yaml

import silotune
from silotune.config import load_config

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")]
)
BLOCK = re.compile(r"^([ ]*)```(\w+)[^\n]*\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
MADE = {DOCS / "tutorial.md": DOCS / "tutorial.py"}
"""Pages that exist in the site alone -> what they are made of."""


def blocks(language: str) -> list[tuple[Path, str]]:
    """All code of a language, without its indentation."""
    return [
        (page, re.sub(rf"^{indent}", "", code, flags=re.MULTILINE))
        for page in PAGES
        for indent, name, code in BLOCK.findall(page.read_text(encoding="utf-8"))
        if name == language
    ]


def anchors(page: Path) -> set[str]:
    """As mkdocs and GitHub make them of headings."""
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r"^(?:# )?#+ (.+)$", text, re.MULTILINE)
    return {
        re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", h.lower()).strip()) for h in headings
    } | set(re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE))


def dead_links(page: Path) -> list[str]:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        target = MADE.get(target, target)
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(f"{page.relative_to(ROOT)}: {link}")
    return dead


def unknown_names(code: str) -> list[str]:
    """Names of silotune in a piece of code that are not there."""
    tree = ast.parse(code)
    unknown, modules = [], {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {a.asname or a.name: a.name for a in node.names if a.name == "silotune"}
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("silotune"):
            module = importlib.import_module(node.module)
            unknown += [a.name for a in node.names if not hasattr(module, a.name)]
    for node in ast.walk(tree):
        chain = dotted(node)
        if chain and chain[0] in modules:
            value = silotune
            for name in chain[1:]:
                if not hasattr(value, name):
                    unknown.append(".".join(chain))
                    break
                value = getattr(value, name)
    return unknown


def dotted(node: ast.AST) -> list[str]:
    """``st.methods.FFALoRA`` -> its parts; empty for anything else."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return [*before, node.attr]
    return []


def test_links_lead_somewhere():
    assert [link for page in PAGES for link in dead_links(page)] == []


def test_python_in_pages_uses_names_that_exist():
    found = blocks("python")
    shown = [code for _, code in found if "--8<--" not in code]
    assert len(shown) >= 4
    assert [name for code in shown for name in unknown_names(code)] == []
    files = [(ROOT / "docs" / f) for _, c in found for f in re.findall(r'--8<-- "(.+)"', c)]
    assert sorted(files) == sorted((DOCS / "quick_starts").glob("*.py")), "each has its page"


def test_a_name_that_is_not_there_is_seen():
    code = (
        "import silotune as st\nfrom silotune.data import Nothing\nst.methods.NoSuch(r=8)\nst.load"
    )
    assert unknown_names(code) == ["Nothing", "st.methods.NoSuch"]


def test_federations_in_pages_can_be_made():
    made = 0
    for page, code in blocks("python"):
        calls = [
            node
            for node in ast.walk(ast.parse(code))
            if isinstance(node, ast.Call) and dotted(node.func) == ["st", "Federation"]
        ]
        for call in calls if page.name in ("README.md", "index.md") else []:
            eval(compile(ast.Expression(call), str(page), "eval"), {"st": silotune})
            made += 1
    assert made == 2


def test_yaml_in_pages_is_understood():
    found = blocks("yaml")
    for page, text in found:
        assert isinstance(yaml.safe_load(text), dict), page
    whole = [text for _, text in found if text.startswith("model:")]
    assert len(whole) >= 2
    for text in whole:
        load_config(None, [f"{key}={yaml.safe_dump(value, default_flow_style=True)}"
                           for key, value in yaml.safe_load(text).items()])  # fmt: skip


def test_every_public_name_has_its_place_in_the_reference():
    text = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    documented = set(re.findall(r"^::: silotune\.([\w.]+)$", text, re.MULTILINE))
    modules = {name for name in silotune.__all__ if f"`silotune.{name}`" in text}
    missing = set(silotune.__all__) - documented - modules - {"__version__"}
    assert missing == set()


def test_every_method_is_named_in_the_reference():
    text = (DOCS / "reference" / "methods.md").read_text(encoding="utf-8")
    classes = {type(m).__name__ for m in _samples()}
    assert {name for name in classes if f"`{name}`" not in text} == set()


def _samples():
    from silotune.methods import built_in

    return [cls.sample(r=2, clients=2) for cls in built_in().values()]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_targets_of_make_exist(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"(?:^ {4}|`|\n)make ([a-z-]+)", (ROOT / page).read_text(encoding="utf-8"))
    assert named
    assert set(named) - targets == set()
