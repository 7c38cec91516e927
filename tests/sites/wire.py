"""Two sites of cats and dogs in this process, and the courier between them and a coordinator."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import silotune as st
from federation.objects import classifier, tables
from federation.small import SILOS
from silotune.federation.records import Records
from silotune.federation.sites import Sites
from silotune.models.hub import files_digest
from silotune.site import OwnSite, Policy, PrivacyPolicy
from silotune.site.site import Site
from silotune.terms import Machine

LEAD = "lead"

OPEN = PrivacyPolicy(
    units=("example", "none"),
    max_epsilon=10.0,
    max_delta=1e-2,
    relations=("add-remove",),
    noise=("discrete", "gaussian"),
)
EVERYTHING = Policy(
    approve="any",
    coordinator=LEAD,
    columns=("text", "label"),
    privacy=OPEN,
    methods=("ffa-lora", "fedit", "fedsa-lora", "flexlora"),
    max_rounds=20,
    max_local_steps=20,
    releases=("count", "metric"),
    personal="keep",
    accept_result=True,
)


def table_of(folder: Path, name: str) -> Path:
    """A site's records, in a file of its own."""
    file = folder / f"{name}.csv"
    rows = [{"text": r["text"], "label": r["label"]} for r in tables()[name]]
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, ["text", "label"])
        writer.writeheader()
        writer.writerows(rows)
    return file


def own(folder: Path, name: str, model: Path, **changes: Any) -> OwnSite:
    """What a site says of itself."""
    records = Records(
        clients={name: table_of(folder, name)},
        num_examples={name: 20},
        num_held_out={name: 2},
        valid_fraction=0.11,
    )
    given = {
        "name": name,
        "records": records,
        "home": folder / "homes" / name,
        "models": {files_digest(str(model)): model},
        "machine": Machine(micro_batch_size=8),
        "policy": EVERYTHING,
    }
    return OwnSite(**{**given, **changes})


class Wire:
    """A courier to sites in this process; ``own`` may be changed at any time."""

    def __init__(self, owned: dict[str, OwnSite]) -> None:
        self.own = owned
        self.kinds: list[tuple[str, str, str]] = []
        self.sites = {name: self.started(name) for name in owned}

    def started(self, name: str) -> Site:
        return Site(lambda: self.own[name])

    def restart(self, name: str) -> None:
        self.sites[name] = self.started(name)

    def allow(self, name: str, **changes: Any) -> None:
        self.own[name] = replace(self.own[name], policy=replace(self.own[name].policy, **changes))

    def exchange(self, orders, deadline):
        assert deadline >= 0.0
        for name in orders:
            order = orders[name]
            answer = self.carried(name, order)
            if answer is not None:
                self.kinds.append((name, order[:1].decode(), answer[:1].decode()))
                yield name, answer

    def carried(self, name: str, order: bytes) -> bytes | None:
        return self.sites[name].answer(order)


def wire(folder: Path, model: Path, kind: type[Wire] = Wire, **changes: Any) -> Wire:
    """Both sites."""
    return kind({name: own(folder, name, model, **changes) for name in SILOS})


def terms(model: Path, **changes: Any) -> dict[str, Any]:
    """What both a simulation and a federation of sites are of."""
    given = {
        "model": str(model),
        "objective": classifier(),
        "method": st.methods.FFALoRA(r=2),
        "optimizer": st.optim.SGD(lr=0.5),
        "privacy": st.NoDP(),
        "evaluation": "site",
        "rounds": 3,
        "local_steps": 2,
        "batch_size": 8,
        "micro_batch_size": 8,
    }
    return {**given, **changes}


def federation(model: Path, **changes: Any) -> st.Federation:
    """The coordinator's."""
    return st.Federation(
        clients=Sites(SILOS), coordinator=LEAD, offer_deadline=20.0, **terms(model, **changes)
    )


def simulation(folder: Path, model: Path, **changes: Any) -> st.Federation:
    """The same on one machine."""
    clients = {name: table_of(folder, name) for name in SILOS}
    declared = {"num_examples": dict.fromkeys(SILOS, 20), "num_held_out": dict.fromkeys(SILOS, 2)}
    return st.Federation(
        clients=clients, lifetime="off", valid_fraction=0.11, **declared, **terms(model, **changes)
    )


def weights(folder: Path) -> bytes:
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()
