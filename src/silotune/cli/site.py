"""``silotune site``: how it joins, what it was asked and says to it, what its records have paid."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .arguments import Json, examples
from .errors import reported

site = typer.Typer(no_args_is_help=True)

SiteFile = Annotated[
    Path,
    typer.Option("--site", metavar="FILE", help="The site's own file.", show_default="site.yaml"),
]
RunName = Annotated[
    str, typer.Argument(metavar="RUN", help="The name of a run.", show_default=False)
]
Digest = Annotated[
    str | None,
    typer.Option(
        "--digest",
        metavar="SHA256",
        help="The beginning of the offer's digest, as `show` prints it; by default the offer must "
        "be the one that `show` has shown here last.",
        show_default=False,
    ),
]
HERE = Path("site.yaml")


@site.command(
    epilog=examples(
        "silotune site join hosp-1.invitation --data /data/notes --num-examples 3900",
        "silotune site join hosp-1.admission",
        "silotune site join hosp-1.kit --data /data/notes",
    )
)
@reported
def join(
    letter: Annotated[
        Path,
        typer.Argument(
            metavar="LETTER",
            help="An invitation, the admission that followed it, a rotation, or a kit.",
            show_default=False,
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DATA",
            help="File or folder of the records; they are not opened.",
            show_default=False,
        ),
    ] = None,
    num_examples: Annotated[
        int | None,
        typer.Option(
            "--num-examples",
            metavar="N",
            min=1,
            help="The number of training records that you declare in public.",
            show_default=False,
        ),
    ] = None,
    home: Annotated[
        Path | None,
        typer.Option(
            "--home",
            metavar="FOLDER",
            help="Where keys, ledgers and what was sent will lie; by default home, beside FILE.",
            show_default=False,
        ),
    ] = None,
    allow: Annotated[
        Path | None,
        typer.Option(
            "--allow",
            metavar="CONFIG",
            help="A configuration that you have read: the new file allows runs like it, and "
            "nobody looks at them again.",
            show_default=False,
        ),
    ] = None,
    fingerprint: Annotated[
        str | None,
        typer.Option(
            "--fingerprint",
            metavar="DIGITS",
            help="With a rotation: the coordinator's new key, as you heard it by telephone.",
            show_default=False,
        ),
    ] = None,
    file: SiteFile = HERE,
) -> None:
    """Join a federation. An invitation first: a key is made here, and a file to allow things in.

    The private key never leaves this machine. Send the request back, tell its fingerprint by
    telephone, and join again with the admission that comes.
    """
    from .join import Wishes, join_federation

    join_federation(letter, Wishes(file, data, num_examples, home, allow, fingerprint))


@site.command(epilog=examples("silotune site offers", "silotune site offers --site /etc/site.yaml"))
@reported
def offers(file: SiteFile = HERE, as_json: Json = False) -> None:
    """List the runs that this site was asked to take part in, and what it says to each."""
    from .site_offers import list_offers

    list_offers(file, as_json=as_json)


@site.command(epilog=examples("silotune site show triage-7"))
@reported
def show(
    run: RunName,
    file: SiteFile = HERE,
    count: Annotated[
        bool,
        typer.Option("--count", help="Also open the base model, and count what is trained."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show who asks for what: what is trained, what leaves, what it costs the records, who decides.

    This is what whoever answers for the records reads before `approve`.
    """
    from .site_offers import show_offer

    show_offer(file, run, count=count, as_json=as_json)


@site.command(
    epilog=examples(
        "silotune site approve triage-7", "silotune site approve triage-7 --digest 3fa94c01"
    )
)
@reported
def approve(run: RunName, digest: Digest = None, file: SiteFile = HERE) -> None:
    """Let a run begin, as far as the policy allows it.

    Look at it first (`show`). An offer that is altered later needs it again.
    """
    from .site_offers import decide

    decide(file, run, digest, "approved")


@site.command(epilog=examples("silotune site refuse triage-7"))
@reported
def refuse(run: RunName, digest: Digest = None, file: SiteFile = HERE) -> None:
    """Keep a run from beginning, and from going on if it has begun."""
    from .site_offers import decide

    decide(file, run, digest, "refused")


@site.command(epilog=examples("silotune site spent", "silotune site spent --json"))
@reported
def spent(
    file: SiteFile = HERE,
    delta: Annotated[
        float | None,
        typer.Option(
            "--delta",
            metavar="D",
            min=1e-10,
            max=1.0,
            help="At which epsilon for life is told; by default that of the policy's lifetime.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List what this site's records have paid in all runs, and what they may pay at most."""
    from .site_offers import tell_spent

    tell_spent(file, delta, as_json=as_json)


@site.command(epilog=examples("silotune site verify triage-7"))
@reported
def verify(run: RunName, file: SiteFile = HERE, as_json: Json = False) -> None:
    """Hold the certificate that came with the end of a run against this site's own ledger.

    Exit code 1 if anything does not add up.
    """
    from .site_offers import verify_certificate

    verify_certificate(file, run, as_json=as_json)


@site.command(
    epilog=examples(
        "silotune site serve --site /etc/silotune/site.yaml",
        "silotune site serve --folder /mnt/federation",
    )
)
@reported
def serve(
    file: SiteFile = HERE,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder",
            metavar="DIR",
            help="Answer the orders that come in this folder.",
            show_default=False,
        ),
    ] = None,
    door: Annotated[
        Path | None,
        typer.Option(
            "--flower",
            metavar="SOCKET",
            help="Answer the orders that Flower's SuperNode brings to this socket, which is made.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Take part: answer what the coordinator asks, as far as policy and people allow it.

    Runs until Ctrl-C or SIGTERM. What dies in it is started again; nothing is charged twice.
    """
    from .serve import serve_site

    serve_site(file, folder, door)


@site.command(epilog=examples("silotune site answer /media/stick"))
@reported
def answer(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", show_default=False)],
    file: SiteFile = HERE,
) -> None:
    """Answer the orders that lie in a folder, and end: for a site that no wire reaches."""
    from .serve import answer_once

    answer_once(file, folder)


@site.command(hidden=True)
@reported
def trainer(file: SiteFile = HERE) -> None:
    """Compute for a site's daemon, which starts this."""
    from .trainer import work_at_site

    work_at_site(file)
