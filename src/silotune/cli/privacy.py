"""``silotune privacy``: what a run claims, what records have paid, and signatures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .arguments import Json, RunPath, examples
from .errors import reported

privacy = typer.Typer(no_args_is_help=True)


@privacy.command(
    epilog=examples(
        "silotune privacy verify runs/triage",
        "silotune privacy verify privacy.json",
        "silotune privacy verify runs/triage --key north=PUBLIC_KEY",
    )
)
@reported
def verify(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="A run's folder, or a privacy.json alone.", show_default=False
        ),
    ],
    key: Annotated[
        list[str] | None,
        typer.Option(
            "--key",
            metavar="SILO=PUBLIC",
            help="A silo's public key, or a file that holds it: it must have signed. May be given "
            "again.",
            show_default=False,
        ),
    ] = None,
    require_signatures: Annotated[
        bool, typer.Option("--require-signatures", help="Every account must be signed.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a certificate's figures and sentences again, and compare it with all that lies beside.

    Exit code 1 if anything does not add up. A run that is marked NOT PRIVATE, and claims nothing,
    adds up. What no verification can show is said at the end.
    """
    from .verify import check

    check(path, key or [], require_signatures=require_signatures, as_json=as_json)


@privacy.command(
    epilog=examples("silotune privacy spent", "silotune privacy spent /srv/silotune/lifetime")
)
@reported
def spent(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER",
            help="Of the book for life; by default that of privacy.lifetime.folder's default.",
            show_default=False,
        ),
    ] = None,
    delta: Annotated[
        float | None,
        typer.Option(
            "--delta",
            metavar="D",
            min=1e-10,
            max=1.0,
            help="At which epsilon for life is told; by default the smallest of a set's runs.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List what records have paid in their life: sets of records, runs, releases, epsilon.

    For the owner of the records alone: which runs have records in common is private.
    """
    from .spent import show

    show(folder, delta, as_json=as_json)


@privacy.command(
    epilog=examples(
        "silotune privacy sign runs/triage", "silotune privacy sign runs/triage --silo north"
    )
)
@reported
def sign(
    run_path: RunPath,
    silo: Annotated[
        list[str] | None,
        typer.Option(
            "--silo",
            metavar="NAME",
            help="For whom; by default for all. May be given again.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Sign a run's certificate and ledger with the key of each silo, which stays in its folder.

    A key is made when there is none. What is signed cannot be written anew without that key.
    """
    from .sign import sign_run

    sign_run(run_path, silo or [], as_json=as_json)
