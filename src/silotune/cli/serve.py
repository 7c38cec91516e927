"""``site serve`` and ``site answer``: a site at work.

While it serves, a site is one tree of processes. This one looks after the others, tells the news
and watches a folder. The daemon, and FLARE's client if there is a server, are its children: they
are started again whenever they end, and end with it. The daemon keeps the trainer.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from threading import Thread

from silotune.config.site_file import read_site
from silotune.core.files import in_words
from silotune.core.units import count_text
from silotune.federation.workers import SILOTUNE
from silotune.keys import Member, fingerprint
from silotune.keys.letters import ends_soon
from silotune.privacy.ledger.private_files import make_private
from silotune.runtimes import answer_folder
from silotune.runtimes.nvflare_kits import command
from silotune.runtimes.signed_socket import answer_socket
from silotune.site import OwnSite
from silotune.site.flare import own_kit
from silotune.site.guarded import check_private
from silotune.site.held import held
from silotune.site.home import Home
from silotune.site.membership import membership, own_admission
from silotune.site.site import Site
from silotune_link.daemon import ask, check_path
from silotune_link.keep import kept

from .console import say, speaker
from .site_news import News

LOOK = 2.0
"""Seconds between two looks for news."""

AGAIN = 0.5
"""Seconds until a daemon that is away is asked again."""

FLARE_LOG = "flare.log"
"""In a site's home: what FLARE's client says."""


def serve_site(file: Path, folder: Path | None, door: Path | None = None) -> None:
    """Serve until this process is told to end.

    Where its federation has a server of NVIDIA FLARE, FLARE's client runs too.

    Args:
        file: the site's own.
        folder: also answer the orders that lie there.
        door: also answer at this socket, for Flower.

    Raises:
        ValueError: in words, if the site's file or home can be written by others, it is no member
            or no longer, FLARE's kit was altered, or another process serves.
        RuntimeError: if a part of it is gone that cannot be started again.
    """
    own, member = _checked(file)
    home = Home(own.home)
    for path in (home.socket, *([door] if door else [])):
        check_path(path)
    kit = own_kit(home)
    with held(home), ExitStack() as stack:
        parts = {"daemon": stack.enter_context(kept(_daemon(file, home)))}
        if kit is not None:
            log, env = home.path / FLARE_LOG, {"HOME": str(home.path.resolve())}
            parts["FLARE's client"] = stack.enter_context(kept(command(kit), log, env))
        _tell(file, own, member, folder, kit, door)
        ended: Future[None] = Future()
        if folder is not None:
            watched = partial(answer_folder, folder, member, watch=True)
            Thread(target=_answer, args=(watched, home, ended), daemon=True).start()
        if door is not None:
            opened = partial(answer_socket, door, member)
            Thread(target=_answer, args=(opened, home, ended), daemon=True).start()
        news = News(file, own)
        while not wait([ended], timeout=LOOK).done:
            membership(home.path)  # which may have ended meanwhile
            for line in news.look():
                say(speaker(), line)
            for name, process in parts.items():
                if process.poll() is not None:
                    raise RuntimeError(f"{name}: what keeps it running is gone; serve again")
        ended.result()


def answer_once(file: Path, folder: Path) -> None:
    """Answer what lies in a folder, in this process.

    Raises:
        ValueError: as ``serve_site``.
    """
    own, member = _checked(file)
    with held(Home(own.home)):
        count = answer_folder(folder, member, Site(lambda: read_site(file)).answer)
    say(speaker(), f"{own.name}: answered {count_text(count, 'order')} in {folder}")
    for line in News(file, own).waiting(own):
        say(speaker(), line)


def _checked(file: Path) -> tuple[OwnSite, Member]:
    """What the site is, and as whom it speaks.

    Raises:
        ValueError: in words, if it may not.
    """
    own = read_site(file)  # which refuses what others can write
    with in_words(own.home):
        make_private(own.home)
        check_private(own.home)
    member = membership(own.home)
    if member.site != own.name:
        raise ValueError(
            f"name: {file} is of {own.name}, and its home of {member.site}; name it as it was "
            "admitted"
        )
    return own, member


def _daemon(file: Path, home: Home) -> list[str]:
    trainer = [*SILOTUNE, "site", "trainer", "--site", str(file.resolve())]
    daemon = [sys.executable, "-P", "-m", "silotune_link.daemon"]
    return [*daemon, str(home.socket.resolve()), str(home.log.resolve()), *trainer]


def _answer(
    act: Callable[[Callable[[bytes], bytes]], object], home: Home, ended: Future[None]
) -> None:
    """Answer by the daemon, wherever orders come, until that fails."""

    def answer(order: bytes) -> bytes:
        membership(home.path)  # which may have ended meanwhile
        return _asked(home.socket, order)

    try:
        act(answer)
    except Exception as error:
        ended.set_exception(error)


def _asked(socket: Path, order: bytes) -> bytes:
    """The daemon's answer; it may be started again meanwhile."""
    while True:
        try:
            return ask(socket, order)
        except ConnectionError:
            time.sleep(AGAIN)


def _tell(
    file: Path,
    own: OwnSite,
    member: Member,
    folder: Path | None,
    kit: Path | None,
    door: Path | None,
) -> None:
    console = speaker()
    letter = own_admission(own.home)
    assert letter is not None, "it is a member"
    name = letter.federation_name
    say(console, f"{own.name} serves {name} until {letter.expires}; Ctrl-C ends it")
    say(console, f"asked by {letter.coordinator}, with the key {fingerprint(member.coordinator)}")
    say(console, f"home: {own.home}")
    if folder is None and kit is None and door is None:
        say(
            console,
            f"nothing brings orders (--folder, --flower) but what asks {Home(own.home).socket}",
        )
    if folder is not None:
        say(console, f"orders come in {folder}")
    if kit is not None:
        say(console, f"orders come through NVIDIA FLARE, from {letter.server}")
    if door is not None:
        say(console, f"orders come through Flower, whose SuperNode brings them to {door}")
    if ends_soon(letter.expires):
        say(console, f"the membership ends soon; ask {letter.coordinator} for a new invitation")
    for line in News(file, own).waiting(own):
        say(console, line)
