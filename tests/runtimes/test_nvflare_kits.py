"""Kits of NVIDIA FLARE: what they allow, and that one which was altered is seen."""

import json
import shutil
import stat
import sys
from pathlib import Path

import pytest

from silotune.core.files import RecordError
from silotune.runtimes.nvflare_certificates import Credentials
from silotune.runtimes.nvflare_job import SERVER_CLASS, SITE_CLASS, write_job
from silotune.runtimes.nvflare_kits import (
    LEAD,
    Address,
    check_kit,
    command,
    flare_name,
    lead_kit,
    placed,
    server_kit,
    site_kit,
    write_kit,
)

ADDRESS, FEDERATION = Address("fl.coord.org", 8002), "f" * 32
SHOWN = Credentials("a root", "a certificate", "a secret")


@pytest.fixture
def own(tmp_path):
    """A site's kit, and its folder."""
    kit = site_kit(ADDRESS, FEDERATION, "hosp-1", SHOWN, tmp_path / "site.sock")
    return kit, placed(tmp_path / "flare", kit)


def told(kit, place: str):
    return json.loads(kit[place])


def test_a_site_lets_jobs_name_one_class_and_streams_nothing(own, tmp_path):
    kit, _ = own
    resources = told(kit, "local/resources.json")
    assert resources["class_allow_list"] == [SITE_CLASS]
    assert resources["class_list_enforcement_mode"] == "enforce"
    assert resources["allow_log_streaming"] is False
    assert "log" not in json.dumps([part["path"] for part in resources["components"]])
    assert told(kit, "local/silotune.json") == {"socket": str(tmp_path / "site.sock")}
    client = told(kit, "startup/fed_client.json")
    assert client["client"]["connection_security"] == "mtls"
    [server] = client["servers"]
    assert (server["identity"], server["service"]["target"]) == (
        "fl.coord.org",
        "fl.coord.org:8002",
    )


def test_nobody_may_push_code_or_look_around(own, tmp_path):
    site, _ = own
    server = server_kit(ADDRESS, FEDERATION, SHOWN, tmp_path)
    for kit in (site, server):
        permissions = told(kit, "local/authorization.json")["permissions"]
        assert set(permissions) == {"project_admin", "org_admin", "lead", "member"}
        assert {role["byoc"] for role in permissions.values()} == {"none"}
        submit = {name for name, role in permissions.items() if role["submit_job"] != "none"}
        assert submit == {"lead"}
        assert permissions["lead"]["shell_commands"] == "none"
        assert permissions["lead"]["download_job"] == "none"
    at_site = told(site, "local/authorization.json")["permissions"]["lead"]
    assert {right for right, how in at_site.items() if how != "none"} == {
        "submit_job",
        "manage_job",
    }


def test_a_server_keeps_its_jobs_to_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kit = server_kit(ADDRESS, FEDERATION, SHOWN, Path("own"))
    resources = told(kit, "local/resources.json")
    assert resources["class_allow_list"] == [SERVER_CLASS]
    [manager] = [part for part in resources["components"] if part["id"] == "job_manager"]
    assert manager["args"]["uri_root"] == f"{tmp_path}/own/jobs", "an absolute path"
    storage = resources["snapshot_persistor"]["args"]["storage"]["args"]
    assert storage["root_dir"] == f"{tmp_path}/own/snapshots"
    assert "/tmp/nvflare" not in json.dumps(resources)


def test_a_coordinators_kit_is_known_by_the_name_in_its_certificate():
    admin = told(lead_kit(ADDRESS, FEDERATION, SHOWN), "startup/fed_admin.json")["admin"]
    assert (admin["username"], admin["uid_source"]) == (LEAD, "cert")
    assert (admin["host"], admin["port"]) == ("fl.coord.org", 8002)


def test_a_kit_is_for_its_owners_eyes_and_written_once(own):
    kit, folder = own
    for file in folder.rglob("*"):
        assert not stat.S_IMODE(file.stat().st_mode) & 0o077
    (folder / "job").mkdir()
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    assert placed(folder, kit) == folder
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before
    (folder / "local" / "old.json").touch()
    write_kit(folder, kit)
    check_kit(folder, kit)
    assert (folder / "job").is_dir(), "what a job left stays"


def edited(place: str):
    def edit(folder):
        (folder / place).write_text((folder / place).read_text().replace("none", "any") + " ")

    return edit


FAULTS = {
    edited("local/authorization.json"): r"local/authorization\.json: is not as it was written",
    edited("local/resources.json"): r"local/resources\.json: is not as",
    edited("startup/rootCA.pem"): r"startup/rootCA\.pem: is not as",
    edited("startup/fed_client.json"): r"startup/fed_client\.json: is not as",
    lambda kit: (kit / "local" / "authorization.json").unlink(): r"authorization\.json: is not as",
    lambda kit: (kit / "local" / "custom").mkdir(): r"custom: does not belong to the kit",
    lambda kit: (kit / "local" / "privacy.json").touch(): r"privacy\.json: does not belong",
    lambda kit: (kit / "startup" / "signature.json").touch(): r"signature\.json: does not belong",
    lambda kit: (kit / "local").chmod(0o777): "local: others may read or change it; chmod go=",
    lambda kit: (kit / "startup" / "client.key").chmod(0o640): r"client\.key: others may read",
    lambda kit: shutil.rmtree(kit / "local"): "is not as it was written",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_as_it_was_written_is_refused_in_words(own, fault):
    kit, folder = own
    fault(folder)
    with pytest.raises(RecordError, match=FAULTS[fault]):
        placed(folder, kit)
    shutil.rmtree(folder)
    check_kit(placed(folder, kit), kit)


def test_a_kit_of_other_credentials_is_not_this_one(own, tmp_path):
    _, folder = own
    other = site_kit(ADDRESS, "e" * 32, "hosp-1", SHOWN, tmp_path / "site.sock")
    with pytest.raises(RecordError, match=r"fed_client\.json: is not as it was written"):
        placed(folder, other)


@pytest.mark.parametrize("odd", ["a b", "it's", 'so "said"', "back\\slash"])
def test_a_folder_that_flare_cannot_start_from_is_refused_before_it_is_made(own, tmp_path, odd):
    kit, _ = own
    with pytest.raises(RecordError, match="takes no path with"):
        placed(tmp_path / odd / "flare", kit)
    assert not (tmp_path / odd).exists()


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("fl.coord.org", "fl.coord.org", 8002),
        ("localhost:9", "localhost", 9),
        ("10.0.0.1", "10.0.0.1", 8002),
    ],
)
def test_an_address(text, host, port):
    assert Address.parse(text) == Address(host, port) == Address.parse(str(Address(host, port)))


@pytest.mark.parametrize(
    "text",
    [
        *("", ":8002", "a:", "a:0", "a:65536", "a:x", "a:-1", "a:1:2", "::1", "a b", "a..b"),
        *("-a", "a/b", "300.1.1.1", "http://a", "Straße", "a" * 65, "a:²", "a\n"),
    ],
)
def test_what_is_no_address(text):
    with pytest.raises(ValueError, match="is no HOST or HOST:PORT"):
        Address.parse(text)


def test_flare_knows_a_site_by_its_name_and_key():
    name = flare_name("Straße 9", "0f" * 32)
    assert name == "Stra_e_9-" + "0f" * 12
    assert len(flare_name("x" * 100, "0f" * 32)) <= 64
    assert flare_name("a", "0" * 64) != flare_name("a", "1" * 64)


def test_a_kit_says_what_starts_it(own, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    _, folder = own
    assert command(folder)[:3] == [sys.executable, "-u", "-m"]
    assert "uid=hosp-1" in command(folder)
    server = placed(tmp_path / "server", server_kit(ADDRESS, FEDERATION, SHOWN, tmp_path))
    assert "nvflare.private.fed.app.server.server_train" in command(server)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'silotune\[nvflare\]'"):
        command(folder)


def test_a_job_names_two_classes_and_brings_no_code(tmp_path):
    (tmp_path / "job" / "app" / "custom").mkdir(parents=True)
    (tmp_path / "job" / "app" / "custom" / "old.py").touch()
    place = write_job(tmp_path / "job", "run", ["hosp-1"], "/run/x.sock", 1.0)
    files = sorted(str(f.relative_to(place)) for f in place.rglob("*") if f.is_file())
    assert files == [
        "app/config/config_fed_client.json",
        "app/config/config_fed_server.json",
        "meta.json",
    ]
    meta, client, server = (json.loads((place / f).read_text()) for f in (files[2], *files[:2]))
    assert meta["deploy_map"] == {"app": ["server", "hosp-1"]}, "sites that were not asked run none"
    assert client["executors"][0]["executor"] == {"path": SITE_CLASS, "args": {}}
    (workflow,) = server["workflows"]
    assert (workflow["path"], workflow["args"]) == (SERVER_CLASS, {"socket_path": "/run/x.sock"})


def test_the_classes_that_a_job_names_are_there():
    sources = Path(__file__).parents[2] / "src"
    for path in (SERVER_CLASS, SITE_CLASS):
        module, _, name = path.rpartition(".")
        text = (sources / f"{module.replace('.', '/')}.py").read_text()
        assert f"class {name}(" in text
