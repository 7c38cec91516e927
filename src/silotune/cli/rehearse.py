"""``federation rehearse``: a whole federation on this machine, with made-up records.

Everything is as it would be between organisations: invitations and keys, a process tree a site
with its own folder and policy, orders and answers that nobody but the parties could have written.
Noise comes from the seed, so the result must be that of a simulation, bit for bit.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console

from silotune.config import Config, yaml
from silotune.config.build import arguments
from silotune.core import ClientId, steps_in
from silotune.core.files import write_json
from silotune.core.units import count_text, human_seconds
from silotune.federation.admission import Request
from silotune.federation.federation import Federation
from silotune.federation.members import Members
from silotune.federation.sites import Sites
from silotune.federation.workers import SILOTUNE
from silotune.models.hub import files_digest, local_folder
from silotune.objectives.base import columns_read
from silotune.privacy import ExampleDP
from silotune.privacy.ledger.private_files import write_private
from silotune.runtimes import Courier, FolderCourier
from silotune.runtimes.courier import Notice
from silotune.site.home import Home
from silotune.site.membership import accept_admission, answer_invitation
from silotune.testing.stand_in import base_for
from silotune_link.daemon import check_path
from silotune_link.keep import kept

from .config_source import chosen
from .console import busy, say, speaker
from .made_up import made_up

RECORDS, HELD_OUT = 300, 20
"""Made up for every site, and declared; about one in ten is held out."""

LOG = "serve.log"
"""In a site's folder: what it says."""

PATIENCE = 600.0
"""Seconds until every site must have taken part; a slow machine opens its models one by one."""

NO_FLARE = (
    "NVIDIA FLARE is not installed here (pip install 'silotune[nvflare]'), so a folder carries the "
    "messages, signed, and no network"
)

OWN = frozenset(
    {
        *("clients", "name", "delimiter", "encoding", "label_map", "splits", "partition"),
        *("valid", "test", "num_examples", "num_held_out", "person", "limit"),
        *("runtime", "baselines", "report_to", "coordinator", "offer_deadline", "lifetime"),
        *("round_deadline", "wait_after_quorum", "micro_batch_size"),
    }
)
"""Arguments that each of the two runs has its own of."""


def rehearse(
    name: str,
    overrides: Sequence[str],
    sites: int,
    rounds: int,
    keep: Path | None,
    nvflare: bool | None = False,
) -> None:
    """Run a configuration once as a federation and once as a simulation, and compare.

    Args:
        name: of a configuration of a simulation.
        overrides: ``key=value``.
        sites: how many.
        rounds: how many.
        keep: folder in which all is left; None = a temporary one, which goes.
        nvflare: bytes go through NVIDIA FLARE with TLS on both sides, not through a folder; None =
            if it is installed.

    Raises:
        ValueError: in words, if the configuration cannot be rehearsed, or the results differ.
        OSError: if a process does not start.
    """
    console = speaker(as_json=False)
    config = chosen(name, overrides)
    if nvflare is None:
        nvflare = find_spec("nvflare") is not None
        if not nvflare:
            say(console, NO_FLARE)
    with _place(keep) as place:
        names = [f"site-{number}" for number in range(1, sites + 1)]
        check_path(Home(place / names[-1] / "home").socket)
        given = _arguments(config, rounds)
        base = base_for(given["model"], place / "base")
        if base.said:
            say(console, base.said)
        given["model"] = base.name
        tables = {site: made_up(place / site, site, given["objective"], RECORDS) for site in names}
        say(console, f"{count_text(sites, 'site')}, {RECORDS} made-up records each, in {place}")
        members = _joined(place, names, given, tables, console)
        with busy(console, "simulating it, to compare"):
            began = time.monotonic()
            here = _simulation(given, tables).fit(place / "simulation", progress=False)
            say(console, f"simulation:  {human_seconds(time.monotonic() - began)}")
        way = _over_flare(place, names) if nvflare else _over_folder(place, names, members)
        with way as courier, busy(console, "training over sites"):
            began = time.monotonic()
            there = _federation(given, names, members).fit(
                place / "run", progress=False, courier=courier
            )
            say(console, f"federation:  {human_seconds(time.monotonic() - began)}")
        _compare(here.folder.path, there.folder.path)
        if there.privacy is not None and not there.privacy.verify().ok:
            raise ValueError(
                "rehearsal: the certificate does not add up; see silotune privacy verify"
            )
        say(console, "the same bits: what the sites trained is what the simulation trained")
        for line in _real(names, nvflare):
            say(console, line)


def _arguments(config: Config, rounds: int) -> dict[str, Any]:
    """What both runs are of: few rounds, and noise that can be drawn twice."""
    given = arguments(config)
    privacy = given["privacy"]
    if isinstance(privacy, ExampleDP):
        given["privacy"] = replace(privacy, insecure_seeded_noise=True)
    elif privacy.unit != "none":
        raise ValueError(
            "privacy.unit: client hides sites by a server that is trusted; rehearse example or none"
        )
    if "image" in given["objective"].columns:
        raise ValueError("model.task: a rehearsal makes up texts, and no images")
    common = {key: value for key, value in given.items() if key not in OWN}
    common.pop("learning_rate", None)  # the rule's needs sizes; any rate will do to compare bits
    return {
        **common,
        "rounds": rounds,
        "evaluation": "site",
        "threads": 1,
        "prefix_cache": "off",  # as of sites that do not say another
        "batch_size": min(common["batch_size"], RECORDS // 4),
    }


def _joined(
    place: Path,
    names: Sequence[str],
    given: Mapping[str, Any],
    tables: Mapping[str, Path],
    console: Console,
) -> Members:
    """Invitation, request, admission: the private key of a site never leaves its folder."""
    members = Members.create(place / "federation", names, "coordinator")
    for name in names:
        home, letters = place / name / "home", place / name
        request = letters / f"{name}.request"
        write_json(request, answer_invitation(home, members.invite(name)))
        admission = letters / f"{name}.admission"
        write_json(admission, members.approve(Request.read(request)).signed(members.key))
        accept_admission(home, admission)
        file = place / name / "site.yaml"
        write_private(file, _site_file(name, tables[name], given, members.coordinator).encode())
    say(console, f"keys: made at each site, admitted by {members.coordinator}")
    return members


def _site_file(name: str, table: Path, given: Mapping[str, Any], coordinator: str) -> str:
    """What a site allows that takes part in one rehearsal."""
    privacy = given["privacy"]
    allowed = {"units": ["example", "none"], "min_other_sites": 0}
    if privacy.unit == "example":
        allowed |= {"max_epsilon": 1000.0, "max_delta": 0.5}
        allowed |= {"relations": [privacy.relation], "noise": [privacy.noise]}
    return yaml.write(
        {
            "name": name,
            "home": "home",
            "data": {
                "path": str(table),
                "num_examples": RECORDS,
                "num_held_out": HELD_OUT,
                "valid_fraction": given["valid_fraction"],
            },
            "models": {files_digest(given["model"]): str(local_folder(given["model"]))},
            "device": "cpu",
            "threads": 1,
            "policy": {
                "approve": "any",
                "coordinator": coordinator,
                "privacy": allowed,
                "columns": sorted(columns_read(given["objective"])),
                "methods": [given["method"].name],
                "max_rounds": given["rounds"],
                "max_local_steps": steps_in(
                    RECORDS,
                    batch_size=given["batch_size"],
                    local_steps=given["local_steps"],
                    local_epochs=given["local_epochs"],
                ),
                "releases": ["count", "metric"],
                "personal": "keep",
                "accept_result": True,
            },
        }
    )


def _simulation(given: Mapping[str, Any], tables: Mapping[str, Path]) -> Federation:
    declared: dict[str, Any] = {"num_examples": dict.fromkeys(tables, RECORDS)}
    if given["privacy"].metric_noise is not None:
        declared["num_held_out"] = dict.fromkeys(tables, HELD_OUT)
    return Federation(**given, **declared, clients=dict(tables), lifetime="off")


def _federation(given: Mapping[str, Any], names: Sequence[str], members: Members) -> Federation:
    return Federation(
        **given,
        clients=Sites(tuple(names)),
        coordinator=members.coordinator,
        offer_deadline=PATIENCE,
        round_deadline=PATIENCE,
    )


@contextlib.contextmanager
def _over_folder(place: Path, names: Sequence[str], members: Members) -> Iterator[Courier]:
    own = members.public_keys(names)
    with (
        _served(place, names) as processes,
        FolderCourier(members.folder / "exchange", members.federation, members.key, own) as courier,
    ):
        yield _Attended(courier, processes, place)


@contextlib.contextmanager
def _over_flare(place: Path, names: Sequence[str]) -> Iterator[Courier]:
    """FLARE's server and clients, and a daemon with its trainer for every site."""
    from silotune.runtimes.nvflare import NvflareCourier
    from silotune.runtimes.nvflare_loopback import Loopback

    trainers = {
        ClientId(name): [*SILOTUNE, "site", "trainer", "--site", str(place / name / "site.yaml")]
        for name in names
    }
    with (
        tempfile.TemporaryDirectory(prefix="silotune-") as near,  # a socket's path is short
        Loopback(Path(near), trainers) as flare,
        NvflareCourier(flare.kit, flare.keys, place / "engine", poll=0.1) as courier,
    ):
        yield courier


class _Attended:
    """A courier that sees at once, and says, when a site's process has ended."""

    def __init__(
        self, courier: FolderCourier, processes: Mapping[str, subprocess.Popen[bytes]], place: Path
    ) -> None:
        self._courier, self._processes, self._place = courier, processes, place

    def tell(self, notice: Notice) -> None:
        """As the courier does."""
        self._courier.tell(notice)

    def exchange(
        self, orders: Mapping[ClientId, bytes], deadline: float
    ) -> Iterator[tuple[ClientId, bytes]]:
        for name, process in self._processes.items():
            if process.poll() is not None:
                log = (self._place / name / LOG).read_text(errors="replace").strip()
                raise ValueError(f"rehearsal: {name} ended: {log.rpartition(chr(10))[2][:500]}")
        yield from self._courier.exchange(orders, deadline)


@contextlib.contextmanager
def _served(place: Path, names: Sequence[str]) -> Iterator[Mapping[str, subprocess.Popen[bytes]]]:
    """``silotune site serve`` for every site, each a process tree of its own."""
    processes = {}
    with contextlib.ExitStack() as stack:
        for name in names:
            command = [*SILOTUNE, "site", "serve", "--site", str(place / name / "site.yaml")]
            command += ["--folder", str(place / "federation" / "exchange")]
            tied = kept(command, place / name / LOG, once=True)  # it ends with this process
            processes[name] = stack.enter_context(tied)
        yield processes


def _compare(here: Path, there: Path) -> None:
    """That both adapters are the same bytes.

    Raises:
        ValueError: if they are not.
    """
    files = sorted(file.name for file in (here / "adapter").glob("*.safetensors"))
    for name in files:
        if (here / "adapter" / name).read_bytes() != (there / "adapter" / name).read_bytes():
            raise ValueError(
                f"rehearsal: {name} of the federation is not that of the simulation; both are in "
                f"{there.parent} (keep them with --keep)"
            )


@contextlib.contextmanager
def _place(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        if keep.exists() and any(keep.iterdir()):
            raise ValueError(f"--keep: {keep} is not empty; name another folder")
        keep.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield keep.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="silotune-") as place:
        yield Path(place)


def _real(names: Sequence[str], nvflare: bool) -> Iterator[str]:
    server, folder = (" --nvflare --server HOST", "") if nvflare else ("", " --folder FOLDER")
    yield ""
    yield "For a real one, the same in four commands; each prints the next:"
    yield f"  you:       silotune federation create NAME --sites {','.join(names)}{server}"
    yield "  each site: silotune site join SITE.invitation --data DATA    (edit its site.yaml)"
    yield "  you:       silotune federation approve SITE.request"
    yield f"  each site: silotune site join SITE.admission && silotune site serve{folder}"
    if nvflare:
        yield "  you:       silotune federation serve"
    runtime = "nvflare" if nvflare else "folder"
    yield f"Then: silotune run CONFIG, with federation.sites, federation.kit and runtime: {runtime}"
