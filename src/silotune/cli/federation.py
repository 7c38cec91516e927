"""``silotune federation``: who takes part, as the coordinator decides it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .arguments import ConfigName, Json, Overrides, examples
from .errors import reported

federation = typer.Typer(no_args_is_help=True)

Place = Annotated[
    Path | None,
    typer.Option(
        "--federation",
        metavar="FOLDER",
        help="Its folder; by default the only one here.",
        show_default=False,
    ),
]
SiteName = Annotated[
    str, typer.Argument(metavar="SITE", help="The name of a site.", show_default=False)
]


@federation.command(
    epilog=examples(
        "silotune federation create north --sites hosp-1,hosp-2,hosp-3",
        "silotune federation create north --sites a,b --nvflare --server fl.coord.org:8002",
        "silotune federation create trial --sites a,b --with-keys",
    )
)
@reported
def create(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="NAME",
            help="A new folder; its name is that of the federation.",
            show_default=False,
        ),
    ],
    sites: Annotated[
        str,
        typer.Option("--sites", metavar="A,B,C", help="Who is invited.", show_default=False),
    ],
    coordinator: Annotated[
        str | None,
        typer.Option(
            "--coordinator",
            metavar="NAME",
            help="By what name you ask; that of the federation if left out.",
            show_default=False,
        ),
    ] = None,
    with_keys: Annotated[
        bool,
        typer.Option(
            "--with-keys",
            help="Make the sites' private keys here too, for sites that trust you with them.",
        ),
    ] = False,
    nvflare: Annotated[
        bool,
        typer.Option(
            "--nvflare",
            help="Make certificates for a server of NVIDIA FLARE too, and for sites that join.",
        ),
    ] = False,
    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            metavar="HOST[:PORT]",
            help="With --nvflare: this machine, as sites call it. The port is 8002 if left out.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make a federation: your key, and an invitation for every site.

    Hand each invitation over, and tell your fingerprint by another way, such as the telephone.
    """
    from .members import found

    if nvflare != (server is not None):
        raise typer.BadParameter("--nvflare and --server HOST go together")
    names = [name.strip() for name in sites.split(",")]
    found(folder, names, coordinator, server, with_keys=with_keys)


@federation.command(epilog=examples("silotune federation invite hosp-4"))
@reported
def invite(
    site: SiteName,
    folder: Place = None,
) -> None:
    """Write a new invitation: for a new site, one whose key is to change, or whose time is over.

    The invitation before it can be answered no more. A member stays one until it has answered.
    """
    from .members import invite_again

    invite_again(folder, site)


@federation.command(
    epilog=examples(
        "silotune federation approve hosp-1.request",
        'silotune federation approve hosp-1.request --fingerprint "0f3a 91cc ..."',
    )
)
@reported
def approve(
    file: Annotated[
        Path, typer.Argument(metavar="REQUEST", help="What the site sent.", show_default=False)
    ],
    fingerprint: Annotated[
        str | None,
        typer.Option(
            "--fingerprint",
            metavar="DIGITS",
            help="What the site told you of its key: another one is not admitted.",
            show_default=False,
        ),
    ] = None,
    days: Annotated[
        int, typer.Option("--days", metavar="N", min=1, max=3650, help="That it is a member.")
    ] = 365,
    folder: Place = None,
) -> None:
    """Admit a site by the key that it has made, and write its admission.

    Compare the fingerprint with the site by another way before you hand the admission over.
    """
    from .members import admit

    admit(folder, file, fingerprint, days)


@federation.command(epilog=examples("silotune federation revoke hosp-2"))
@reported
def revoke(site: SiteName, folder: Place = None) -> None:
    """End a site's membership now: nothing that it signs counts any more."""
    from .members import end

    end(folder, site)


@federation.command(epilog=examples("silotune federation rotate"))
@reported
def rotate(folder: Place = None) -> None:
    """Make your key anew, and the certificates of your server: once a year, or after a theft.

    Members stay members. Each is told by a letter, and takes orders by your new key once somebody
    there has compared it. Invitations that nobody has answered count no more.
    """
    from .members import renew

    renew(folder)


@federation.command(
    epilog=examples(
        "silotune federation status north",
        "silotune federation status runs/north --follow",
        "silotune federation status runs/north --follow --json",
    )
)
@reported
def status(
    name: Annotated[
        Path | None,
        typer.Argument(
            metavar="NAME",
            help="Folder of a federation, by default the only one here; or of a run over its "
            "sites.",
            show_default=False,
        ),
    ] = None,
    folder: Place = None,
    as_json: Json = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Of a run: say it again whenever something changes.")
    ] = False,
    prometheus: Annotated[
        bool, typer.Option("--prometheus", help="Of a run: in the text format of Prometheus.")
    ] = False,
) -> None:
    """List the sites: who was invited, who is a member until when, and by which key.

    Of a run: what each site does now by its own word, rounds, bytes, epsilon, and who is missing.
    """
    if name is not None and folder is not None:
        raise typer.BadParameter("name the federation once, as NAME or by --federation")
    if prometheus and (follow or as_json):
        raise typer.BadParameter("--prometheus stands alone")
    if follow or prometheus or _is_run(name):
        from .run_status import tell_run

        tell_run(name, follow=follow, as_json=as_json, as_prometheus=prometheus)
    else:
        from .members import tell

        tell(name or folder, as_json=as_json)


def _is_run(folder: Path | None) -> bool:
    """Whether a folder is that of a run over sites, and not of a federation."""
    return folder is not None and (folder / "live.json").is_file()


@federation.command(
    epilog=examples("silotune federation watch runs/north", "silotune federation watch --port 8080")
)
@reported
def watch(
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN",
            help="The folder of a run over sites; by default the only one here.",
            show_default=False,
        ),
    ] = None,
    port: Annotated[
        int, typer.Option("--port", metavar="N", min=0, max=65535, help="0: any that is free.")
    ] = 0,
) -> None:
    """Show a run over sites in a browser of this machine, live, until Ctrl-C.

    The same address has /status.json, and /metrics for Prometheus. Nobody else can reach it.
    """
    from .watch import watch as show

    show(run, port)


@federation.command(
    epilog=examples(
        "silotune federation rehearse triage",
        "silotune federation rehearse mine.yaml --sites 4 --rounds 5 --keep rehearsal",
    )
)
@reported
def rehearse(
    name: ConfigName,
    overrides: Overrides = None,
    sites: Annotated[
        int, typer.Option("--sites", metavar="N", min=1, max=20, help="Made on this machine.")
    ] = 3,
    rounds: Annotated[
        int, typer.Option("--rounds", metavar="N", min=1, help="That are trained.")
    ] = 3,
    keep: Annotated[
        Path | None,
        typer.Option(
            "--keep",
            metavar="FOLDER",
            help="Leave everything there; without it nothing is left.",
            show_default=False,
        ),
    ] = None,
    nvflare: Annotated[
        bool | None,
        typer.Option(
            "--nvflare/--folder",
            help="Over NVIDIA FLARE with TLS, which is the default where it is installed, or over "
            "a folder.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run a whole federation on this machine, with real keys and made-up records.

    Each site is a process tree with its own folder and policy. The result is compared with that of
    a simulation, byte by byte; noise is drawn from the seed for that.
    """
    from .rehearse import rehearse as run

    run(name, overrides or [], sites, rounds, keep, nvflare)


@federation.command(
    epilog=examples("silotune federation serve", "silotune federation serve --federation north")
)
@reported
def serve(folder: Place = None) -> None:
    """Run the server of NVIDIA FLARE that sites connect to, until Ctrl-C or SIGTERM.

    It carries bytes between sites and `silotune run`, which works on the same machine.
    """
    from .flare_server import serve_flare

    serve_flare(folder)
