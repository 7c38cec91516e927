"""``methods``: the catalogue."""

from __future__ import annotations

import inspect
from collections.abc import Collection

from rich import box
from rich.table import Table

from silotune.adapters import LoRA
from silotune.core import Role
from silotune.optim import SGD
from silotune.recipes import RECIPES

from .console import emit, speaker

ROLES = {Role.A: "A", Role.B: "B", Role.HEAD: "head"}


def list_methods(*, as_json: bool) -> None:
    """Show every recipe: what it is, what it trains and what it sends."""
    console = speaker(as_json=as_json)
    table = Table("method.name", "what it is", "trains", "sends", box=box.SIMPLE_HEAD)
    found = []
    for name, recipe in RECIPES.items():
        plan = recipe(LoRA(), SGD(learning_rate=1.0), head=True).schedule.plan(0)
        summary = (inspect.getdoc(recipe) or "").partition("\n")[0]
        trained, shared = _named(plan.trained()), _named(plan.share)
        table.add_row(name, summary, ", ".join(trained), ", ".join(shared))
        found.append({"name": name, "summary": summary, "trained": trained, "shared": shared})
    console.print(table)
    console.print("A and B: the factors of an adapter; head: the classifier, if it is trained.")
    if as_json:
        emit(found)


def _named(roles: Collection[Role]) -> list[str]:
    return [word for role, word in ROLES.items() if role in roles]
