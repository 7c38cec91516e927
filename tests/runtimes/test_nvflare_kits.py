"""Kits of NVIDIA FLARE, made by hand: FLARE itself is not needed to harden and to compare them."""

import json
import shutil
import stat
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from runtimes.certificates import DAY, certificate
from silotune.runtimes.nvflare_job import SERVER_CLASS, SITE_CLASS, write_job
from silotune.runtimes.nvflare_kits import check, command, harden_server, harden_site, valid_until

STREAMER = {"id": "site_log_streamer", "path": "nvflare.SiteLogStreamer", "args": {}}
LAUNCHER = {"id": "process_launcher", "path": "nvflare.Launcher", "args": {}}


def kit(folder: Path, startup: str, content, resources) -> Path:
    (folder / "startup").mkdir(parents=True, mode=0o755)
    (folder / "local").mkdir(mode=0o755)
    (folder / "startup" / startup).write_text(json.dumps(content))
    certificate(folder / "startup" / "rootCA.pem", -DAY, 900 * DAY)
    certificate(folder / "startup" / "client.crt", -DAY, 300 * DAY)
    (folder / "startup" / "client.key").write_text("secret")
    (folder / "startup" / "client.key").chmod(0o600)
    local = {"resources.json.default": resources, "authorization.json.default": {}}
    for name, what in local.items():
        (folder / "local" / name).write_text(json.dumps(what))
    return folder


@pytest.fixture
def site(tmp_path) -> Path:
    return kit(
        tmp_path / "hosp-1",
        "fed_client.json",
        {"client": {"fqsn": "hosp-1"}},
        {
            "class_allow_list": ["nvflare.Everything"],
            "class_list_enforcement_mode": "warn",
            "allow_log_streaming": True,
            "components": [LAUNCHER, STREAMER],
        },
    )


@pytest.fixture
def server(tmp_path) -> Path:
    shared = {"root_dir": "/tmp/nvflare/snapshot-storage"}
    return kit(
        tmp_path / "localhost",
        "fed_server.json",
        {},
        {
            "class_allow_list": ["nvflare.Everything"],
            "servers": [{"heart_beat_timeout": 600}],
            "snapshot_persistor": {"args": {"storage": {"args": shared}}},
            "components": [
                {"id": "job_manager", "args": {"uri_root": "/tmp/nvflare/jobs-storage"}},
                {"id": "log_receiver"},
            ],
        },
    )


def local(kit: Path, name: str):
    return json.loads((kit / "local" / name).read_text())


def test_a_site_lets_jobs_name_one_class_and_streams_nothing(site, tmp_path):
    harden_site(site, tmp_path / "site.sock")
    resources = local(site, "resources.json")
    assert resources["class_allow_list"] == [SITE_CLASS]
    assert resources["class_list_enforcement_mode"] == "enforce"
    assert resources["allow_log_streaming"] is False
    assert resources["components"] == [LAUNCHER]
    assert local(site, "silotune.json") == {"socket": str(tmp_path / "site.sock")}


def test_nobody_may_push_code_or_look_around(site, server, tmp_path):
    harden_site(site, tmp_path / "site.sock")
    harden_server(server, tmp_path / "own")
    for one in (site, server):
        permissions = local(one, "authorization.json")["permissions"]
        assert set(permissions) == {"project_admin", "org_admin", "lead", "member"}
        assert {role["byoc"] for role in permissions.values()} == {"none"}
        submit = {name for name, role in permissions.items() if role["submit_job"] != "none"}
        assert submit == {"lead"}
        assert permissions["lead"]["shell_commands"] == "none"
        assert permissions["lead"]["download_job"] == "none"
    at_site = local(site, "authorization.json")["permissions"]["lead"]
    assert {right for right, how in at_site.items() if how != "none"} == {
        "submit_job",
        "manage_job",
    }


def test_a_server_keeps_its_jobs_to_itself(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    harden_server(server, Path("own"))
    resources = local(server, "resources.json")
    assert resources["class_allow_list"] == [SERVER_CLASS]
    own = str(tmp_path / "own")
    assert resources["components"][0]["args"]["uri_root"] == f"{own}/jobs", "an absolute path"
    storage = resources["snapshot_persistor"]["args"]["storage"]["args"]
    assert storage["root_dir"] == f"{own}/snapshots"
    assert stat.S_IMODE((tmp_path / "own").stat().st_mode) == 0o700
    assert "/tmp/nvflare" not in (server / "local" / "resources.json").read_text()


def test_hardening_twice_gives_the_same(site, tmp_path):
    first = harden_site(site, tmp_path / "site.sock")
    assert harden_site(site, tmp_path / "site.sock") == first
    check(site, first)


def loosened(site):
    resources = local(site, "resources.json") | {"class_allow_list": ["*"]}
    (site / "local" / "resources.json").write_text(json.dumps(resources))


def another_root(site):
    (site / "startup" / "rootCA.pem").write_text("another")


def another_server(site):
    (site / "startup" / "fed_client.json").write_text(json.dumps({"client": {"fqsn": "x"}}))


FAULTS = {
    loosened: r"local/resources\.json is not what hardening the kit wrote",
    another_root: r"startup/rootCA\.pem is not what",
    another_server: r"startup/fed_client\.json is not what",
    lambda kit: (kit / "local" / "authorization.json").unlink(): r"authorization\.json is gone",
    lambda kit: (kit / "local" / "custom").mkdir(): r"custom does not belong to a hardened kit",
    lambda kit: (kit / "local" / "privacy.json").touch(): r"privacy\.json does not belong",
    lambda kit: (kit / "local").chmod(0o777): r"local can be written by others; chmod go-w",
    lambda kit: (kit / "startup" / "rootCA.pem").chmod(0o666): r"rootCA\.pem can be written by",
    lambda kit: (kit / "startup" / "client.key").chmod(0o640): r"client\.key can be read by others",
    lambda kit: shutil.rmtree(kit / "startup"): r"startup/.* is gone",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_as_it_was_hardened_is_refused_in_words(site, tmp_path, fault):
    digests = harden_site(site, tmp_path / "site.sock")
    check(site, digests)
    fault(site)
    with pytest.raises(ValueError, match=FAULTS[fault]):
        check(site, digests)


@pytest.mark.parametrize(
    ("begins", "ends", "words"),
    [(-9 * DAY, -DAY, r"was valid until .* UTC; ask"), (DAY, 9 * DAY, "by this machine's clock")],
)
def test_a_certificate_whose_time_is_over_or_to_come_is_refused(
    site, tmp_path, begins, ends, words
):
    certificate(site / "startup" / "client.crt", begins, ends)
    with pytest.raises(ValueError, match=words):
        check(site, harden_site(site, tmp_path / "site.sock"))


def test_a_kit_says_when_its_time_is_over(site):
    assert valid_until(site) - datetime.now(UTC) == pytest.approx(300 * DAY, abs=DAY)
    (site / "startup" / "client.crt").write_text("none")
    with pytest.raises(ValueError, match=r"client\.crt is no certificate"):
        valid_until(site)
    for file in (site / "startup").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match="has no certificate"):
        valid_until(site)


def test_a_kit_that_was_never_hardened_is_refused(site):
    with pytest.raises(ValueError, match="others run code here"):
        check(site, {})


def test_another_kind_of_kit_is_refused(site, server, tmp_path):
    with pytest.raises(ValueError, match="no site's kit"):
        harden_site(server, tmp_path / "site.sock")
    with pytest.raises(ValueError, match="no server's kit"):
        harden_server(site, tmp_path / "own")
    with pytest.raises(ValueError, match="no kit of a site or a server"):
        command(tmp_path)


def test_a_kit_says_what_starts_it(site, server):
    assert command(site)[:3] == [sys.executable, "-u", "-m"]
    assert "uid=hosp-1" in command(site)
    assert "nvflare.private.fed.app.server.server_train" in command(server)


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
