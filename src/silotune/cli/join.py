"""``site join``: a letter of the coordinator, and what this site makes of it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from silotune.config.allowing import allowing
from silotune.config.load import load_config, read_mapping
from silotune.config.site_draft import drafted_site
from silotune.core.files import in_words, write_json
from silotune.federation.admission import Admission, Invitation, Rotation
from silotune.federation.kit import is_kit, read_kit
from silotune.keys import LetterError, fingerprint
from silotune.keys.letters import read_small
from silotune.privacy.ledger.private_files import write_private
from silotune.site.flare import write_own_kit
from silotune.site.home import Home
from silotune.site.membership import (
    accept_admission,
    accept_kit,
    accept_rotation,
    answer_invitation,
    coordinator_key,
    rotated,
)

from .console import say, speaker


@dataclass(frozen=True)
class Wishes:
    """What the owner of a site says of it.

    Attributes:
        file: the site's own file.
        data: where the records are.
        num_examples: what is declared in public.
        home: the site's folder.
        allow: a configuration whose runs may begin; None = nothing may.
        fingerprint: of a coordinator's new key, as a person heard it.
    """

    file: Path
    data: Path | None = None
    num_examples: int | None = None
    home: Path | None = None
    allow: Path | None = None
    fingerprint: str | None = None


def join_federation(letter: Path, wishes: Wishes) -> None:
    """Answer an invitation, or become a member; the site's file is written if it is not there.

    Raises:
        ValueError: in words, if the letter is refused or something is lacking; then no file is
            written.
    """
    told = read_small(letter)
    if is_kit(told):
        kit = read_kit(letter)
        home, text = _begun(wishes, kit.admission.site, kit.admission.coordinator)
        admission = accept_kit(home, kit, letter)
        _write(wishes, text)
        _welcome(home, admission, wishes.file)
        say(speaker(), f"Delete {letter}: whoever reads it can answer in this site's name.")
    elif told.get("purpose") == Invitation.purpose():
        invitation = Invitation.read(letter)
        home, text = _begun(wishes, invitation.site, invitation.coordinator)
        request = answer_invitation(home, letter)
        _write(wishes, text)
        _ask(invitation, request)
    elif told.get("purpose") == Admission.purpose():
        home = wishes.home or _home_in(wishes.file, Admission.read(letter).site)
        _welcome(home, accept_admission(home, letter), wishes.file)
    elif told.get("purpose") == Rotation.purpose():
        home = wishes.home or _home_in(wishes.file, Rotation.read(letter).site)
        _rotate(home, letter, wishes)
    else:
        raise LetterError(f"{letter}: is no invitation, admission, rotation or kit of this version")


def _ask(invitation: Invitation, request: Mapping[str, str]) -> None:
    console, place = speaker(), Path(f"{invitation.site}.request")
    write_json(place, request)
    say(console, f"wrote {place}: send it to {invitation.coordinator}")
    say(console, f"key of {invitation.coordinator}: {fingerprint(invitation.coordinator_key)}")
    say(console, f"key of this site: {fingerprint(request['site_key'])}")
    say(console, "Compare both by telephone: the letters cannot show who wrote them.")
    say(console, f"next: silotune site join {invitation.site}.admission")


def _rotate(home: Path, letter: Path, wishes: Wishes) -> None:
    """Show both keys; take the new one if its fingerprint was told by another way."""
    console, after = speaker(), rotated(home, letter)
    mark = fingerprint(after.coordinator_key)
    say(
        console, f"key of {after.coordinator} until now: {coordinator_key(home, after.coordinator)}"
    )
    say(console, f"key of {after.coordinator} from now on: {mark}")
    if wishes.fingerprint is None:
        say(console, "Nothing is changed: a thief of the old key could have written this letter.")
        say(console, f"Ask {after.coordinator} by telephone, and if it is so, say what you heard:")
        again = ["silotune", "site", "join", str(letter), "--site", str(wishes.file)]
        say(console, f'  {shlex.join(again)} --fingerprint "DIGITS"')
        return
    accept_rotation(home, letter, wishes.fingerprint)
    write_own_kit(Home(home))
    say(console, "taken; a `site serve` that runs is to be started again")


def _welcome(home: Path, admission: Admission, file: Path) -> None:
    console, kit = speaker(), write_own_kit(Home(home))
    say(
        console,
        f"{admission.site} is a member of {admission.federation_name} until {admission.expires}",
    )
    say(console, f"key of {admission.coordinator}: {fingerprint(admission.coordinator_key)}")
    say(console, f"key of this site: {fingerprint(admission.site_key)}")
    if kit is not None:
        say(console, f"it reaches {admission.coordinator} at {admission.server}, by the kit {kit}")
    serve = f"silotune site serve --site {shlex.quote(str(file))}"
    if kit is None:
        serve += " --folder FOLDER"
    say(console, f"next: say in {file} what is allowed, then: {serve}")


def _begun(wishes: Wishes, site: str, coordinator: str) -> tuple[Path, str]:
    """The site's home, and the text of its file; empty if that is there already."""
    file, data = wishes.file, wishes.data
    if file.exists():
        if wishes != Wishes(file):
            raise ValueError(
                f"{file}: is there, and stays as it is; leave --data, --num-examples, --home and "
                "--allow out, or name another file (--site)"
            )
        return _home_in(file, site), ""
    if data is None:
        raise ValueError("--data: say where the records are")
    if not data.exists():
        raise ValueError(f"--data: nothing is at {data}")
    declared = {} if wishes.num_examples is None else {"num_examples": wishes.num_examples}
    home = "home" if wishes.home is None else str(wishes.home.resolve())
    allowed = (
        {} if wishes.allow is None else allowing(load_config(wishes.allow), wishes.num_examples)
    )
    known = {
        **allowed,
        "name": site,
        "data": {"path": str(data.resolve()), **declared},
        "home": home,
        "policy": {**allowed.get("policy", {}), "coordinator": coordinator},
    }
    return file.resolve().parent / home, drafted_site(known)


def _write(wishes: Wishes, text: str) -> None:
    if not text:
        return
    with in_words(wishes.file):
        write_private(wishes.file, text.encode())
    allows = "nothing yet" if wishes.allow is None else f"runs like {wishes.allow}, and no others"
    say(speaker(), f"wrote {wishes.file}: it allows {allows}; every key is explained there")
    if wishes.num_examples is None:
        say(speaker(), "to be set there before anything runs: data.num_examples")


def _home_in(file: Path, site: str) -> Path:
    """The home that a site's file names; the rest of the file may still be open."""
    values, _ = read_mapping(file, "`silotune site join`")
    home, name = values.get("home"), values.get("name")
    if not isinstance(home, str):
        raise ValueError(f"{file}: home: is missing; set it")
    if name != site:
        raise ValueError(f"{file}: is of another site than the letter, {site}; name its (--site)")
    return file.resolve().parent / Path(home).expanduser()
