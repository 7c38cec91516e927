"""Credentials by NVIDIA FLARE's own commands; a private key stays where it was made."""

import stat
import zipfile

import pytest

from silotune.runtimes.nvflare_kits import check, command, harden_server, harden_site
from silotune.runtimes.nvflare_provision import Address, Authority, package, provision_all, request

pytest.importorskip("nvflare", reason="NVIDIA FLARE is not installed: silotune[nvflare]")

pytestmark = pytest.mark.slow

ADDRESS = Address("trial", "fl.coord.org", 8002)


def private_files(folder):
    return {f.name for f in folder.rglob("*") if f.is_file() and b"PRIVATE KEY" in f.read_bytes()}


def test_a_site_gets_its_kit_and_its_key_never_leaves_it(tmp_path):
    authority = Authority.create(tmp_path / "coordinator", ADDRESS)
    site = tmp_path / "site"
    asks = request(site, "trial", "hosp-1", "client", "St. Mary's")
    with zipfile.ZipFile(asks) as sent:
        assert all(b"PRIVATE" not in sent.read(name) for name in sent.namelist())
    signed = authority.approve(asks, tmp_path / "hosp-1.signed.zip")
    with zipfile.ZipFile(signed) as back:
        assert all(b"PRIVATE" not in back.read(name) for name in back.namelist())
    kit = package(signed, site, "hosp-1", authority.fingerprint)
    check(kit, harden_site(kit, tmp_path / "site.sock"))
    assert "uid=hosp-1" in command(kit)
    assert private_files(tmp_path / "coordinator") == {"rootCA.key"}
    for key in tmp_path.rglob("*.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_a_root_that_is_another_than_was_told_is_refused(tmp_path):
    authority = Authority.create(tmp_path / "coordinator", ADDRESS)
    asks = request(tmp_path / "site", "trial", "hosp-1", "client", "org")
    signed = authority.approve(asks, tmp_path / "hosp-1.signed.zip")
    other = "00:" + authority.fingerprint[3:]
    with pytest.raises(ValueError, match=r"nvflare package .* failed"):
        package(signed, tmp_path / "site", "hosp-1", other)
    assert not list((tmp_path / "site").glob("kits/*/*/hosp-1/startup"))


def test_a_request_of_another_federation_is_not_signed(tmp_path):
    authority = Authority.create(tmp_path / "coordinator", ADDRESS)
    asks = request(tmp_path / "site", "another", "hosp-1", "client", "org")
    with pytest.raises(ValueError, match="nvflare cert approve failed"):
        authority.approve(asks, tmp_path / "signed.zip")


def test_all_kits_at_once_can_be_hardened_and_their_keys_are_nobody_elses(tmp_path):
    folder = tmp_path / "all"
    kits = provision_all(folder, ADDRESS, "lead@coord.org", ["hosp-1", "hosp-2"])
    assert set(kits) == {"fl.coord.org", "lead@coord.org", "hosp-1", "hosp-2"}
    check(kits["hosp-2"], harden_site(kits["hosp-2"], tmp_path / "site.sock"))
    check(kits["fl.coord.org"], harden_server(kits["fl.coord.org"], tmp_path / "own"))
    for file in folder.rglob("*"):
        if file.is_file() and b"PRIVATE KEY" in file.read_bytes():
            assert not stat.S_IMODE(file.stat().st_mode) & 0o077, file


def test_a_name_that_flare_does_not_take_is_refused_in_its_words(tmp_path):
    with pytest.raises(ValueError, match="Straße 9 is ill-formatted"):
        provision_all(tmp_path / "all", ADDRESS, "lead@coord.org", ["Straße 9"])
