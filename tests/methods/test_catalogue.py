"""Every method is told: documented, titled, registered, handed on; the pages follow."""

import inspect
import re
from dataclasses import fields, is_dataclass
from pathlib import Path

from silotune import methods
from silotune.methods import Kind, Method, built_in, registry
from silotune.methods.base import NOT_SAID
from silotune.methods.options import own_options

FOLDER = Path(methods.__file__).parent
TOOLS = {
    "__init__",
    "axes",
    "base",
    "catalogue",
    "options",
    "plans",
    "rate_rule",
    "rates",
    "recipes",
    "registry",
}
"""Files of the package that are no method."""


def told_wrongly(name: str, method: type[Method]) -> list[str]:
    """What a class fails to say of itself."""
    wrong = []
    doc = inspect.getdoc(method) or ""
    summary = doc.partition("\n")[0]
    if not method.__doc__ or not re.fullmatch(r".+: .+\.", summary):
        wrong.append("a docstring whose first line is: name (paper): what it is.")
    if not method.title or not method.sentence or method.sentence.endswith("."):
        wrong.append("a title, and a sentence without its full stop")
    if NOT_SAID in (method.exact, method.noise, method.up, method.down):
        wrong.append("exact, noise, up and down")
    if method.kind is Kind.OWN:
        wrong.append("its kind")
    if not all(re.fullmatch(r"\d{4}\.\d{5}", p) for p in method.paper.split(", ") if p):
        wrong.append("arXiv numbers, separated by commas")
    if not method.paper and name != "head-only":
        wrong.append("its paper")
    if not all(number in summary for number in method.paper.split(", ")[:1] if number) and (
        name != "fedftg-seeded"
    ):
        wrong.append("its paper in the first line of its docstring")
    attributes = doc.partition("Attributes:")[2]
    untold = [o for o in own_options(method) if f"\n    {o}:" not in attributes]
    if set(untold) - {"r", "lora_alpha"}:
        wrong.append(f"what its options are, under Attributes: {untold}")
    if getattr(methods, method.__name__, None) is not method:
        wrong.append("a line in silotune/methods/__init__.py, which hands it on")
    return wrong


def test_every_method_is_documented_titled_and_handed_on():
    wrong = {name: told for name, m in built_in().items() if (told := told_wrongly(name, m))}
    assert wrong == {}


def test_every_file_of_the_package_is_one_method_and_the_registry_finds_it():
    files = {path.stem for path in FOLDER.glob("*.py")} - TOOLS
    modules = [method.__module__.rpartition(".")[2] for method in built_in().values()]
    assert sorted(modules) == sorted(files)
    assert all(m == name.replace("-", "_") for m, name in zip(modules, built_in(), strict=True))


def test_every_class_is_a_frozen_dataclass_with_defaults_one_step_below_method():
    for method in built_in().values():
        registry.check_method(method)
        assert is_dataclass(method)
        assert method.__bases__ == (Method,)
        assert {f.name for f in fields(method)} >= {f.name for f in fields(Method)}
        assert method() == method()


def test_the_order_is_by_kind_and_then_by_the_age_of_the_paper():
    order = list(Kind)
    keys = [(order.index(m.kind), m.paper) for m in built_in().values()]
    assert keys == sorted(keys)
