"""``methods --costs``: what every method sends on a model."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from silotune.core.units import human_bytes
from silotune.federation.method_costs import LABELS, Costs, costs_on

from .console import busy, emit, say, speaker


def list_costs(name_or_path: str, clients: int, rank: int, *, as_json: bool) -> None:
    """Show what every method sends on a model.

    Args:
        name_or_path: of the model.
        clients: that take part in every round.
        rank: of the adapters.
        as_json: for a script.
    """
    console = speaker(as_json=as_json)
    with busy(console, "making the messages of every method"):
        costs = costs_on(name_or_path, clients, rank)
    layers = " and ".join(f"{n} layers of {o} x {i}" for (o, i), n in costs.layers.items())
    say(console, f"{name_or_path}: {layers}, r = {rank}, {clients} clients; bytes of one client")
    console.print(_costs(costs))
    say(
        console,
        f"heads are left out: a trained one of {LABELS} labels adds {human_bytes(costs.head.up)} "
        "each way. It is all that head-only sends; with fedsa-lora it stays at home",
    )
    if as_json:
        shapes = [{"out": o, "in": i, "layers": n} for (o, i), n in costs.layers.items()]
        emit(
            {
                "model": name_or_path,
                "clients": clients,
                "r": rank,
                "layers": shapes,
                "head": costs.head._asdict(),
                "methods": {
                    cost.method: {"first": cost.first._asdict(), "usual": cost.usual._asdict()}
                    for cost in costs.methods
                },
            }
        )


def _costs(costs: Costs) -> Table:
    shown = Table("method.name", box=box.SIMPLE_HEAD)
    for column in ("up / round", "down / round", "up, first round", "down, first round"):
        shown.add_column(column, justify="right")
    for cost in costs.methods:
        sizes = (*cost.usual, *cost.first)
        shown.add_row(Text(cost.method, style="bold"), *map(human_bytes, sizes))
    return shown
