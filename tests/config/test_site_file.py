"""A site's file is closed: what it does not say is not allowed, and what is wrong makes no site."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from silotune.config import ConfigError
from silotune.config.site_file import read_site
from silotune.config.site_sections import PolicyConfig
from silotune.privacy.lifetime.budget import Ceiling
from silotune.site import OwnSite, Policy

DIGEST = "f" * 64

GOOD = f"""\
name: hosp-1
data: {{path: /data/notes, splits: {{train: a.parquet, valid: b.parquet}}, num_examples: 3900}}
home: home
models: {{{DIGEST}: /models/mini}}
device: cpu
threads: 2
prefix_cache: disk
policy:
  coordinator: lead@coord.org
  privacy:
    max_epsilon: 6
    max_delta: 1e-5
    lifetime: {{epsilon: 20, delta: 1e-5}}
    relations: [add-remove]
    noise: [gaussian, discrete]
  methods: [ffa-lora, head-only]
  max_rounds: 100
  max_local_steps: 50
"""

SMALL = """\
name: hosp-1
data: {path: notes.csv, num_examples: 100}
home: home
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path / "site.yaml"


Read = Callable[[str], OwnSite]
Wrong = Callable[[str], list[str]]


@pytest.fixture
def read(file: Path) -> Read:
    def read_text(text: str) -> OwnSite:
        file.write_text(text)
        file.chmod(0o600)
        return read_site(file)

    return read_text


@pytest.fixture
def wrong(read: Read, file: Path) -> Wrong:
    def problems(text: str) -> list[str]:
        with pytest.raises(ConfigError) as error:
            read(text)
        return [line.replace(f"{file.parent}/", "") for line in error.value.problems]

    return problems


def test_everything_is_read(read: Read, file: Path) -> None:
    own = read(GOOD)
    assert own.name == "hosp-1"
    assert own.records.clients == {
        "hosp-1": {"train": Path("/data/notes/a.parquet"), "valid": Path("/data/notes/b.parquet")}
    }
    assert own.num_examples == 3900
    assert own.num_held_out is None
    assert own.home == file.parent / "home"
    assert own.models == {DIGEST: Path("/models/mini")}
    assert (own.machine.device, own.machine.threads) == ("cpu", 2)
    assert own.machine.prefix_cache == "disk"
    assert own.policy.privacy.lifetime == Ceiling(epsilon=20.0, delta=1e-5)
    assert own.policy.privacy.max_delta == 1e-5
    assert own.policy.methods == ("ffa-lora", "head-only")
    assert own.lifetime.max_epsilon == 20.0
    assert own.lifetime.place == own.home / "life"


def test_what_is_not_said_is_not_allowed(read: Read, file: Path) -> None:
    own = read(SMALL)
    assert own.policy == Policy() == PolicyConfig().build()
    assert own.records.clients == {"hosp-1": file.parent / "notes.csv"}
    assert own.models == {}
    assert own.machine.prefix_cache == "off"
    assert own.lifetime.max_epsilon is None


def test_a_change_counts_at_once(read: Read, file: Path) -> None:
    before = read(GOOD)
    file.write_text(GOOD.replace("max_rounds: 100", "max_rounds: 3"))
    after = read_site(file)
    assert after.policy.max_rounds == 3
    assert after.policy.digest != before.policy.digest


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("max_rounds: 100", "max_rounds: 100\n  max_round: 3"),
        ("policy:", "polisy:"),
        ("device: cpu", "device: cpu\nsite: other"),
    ],
)
def test_unknown_keys(wrong: Wrong, text: str, problem: str) -> None:
    (line,) = wrong(GOOD.replace(text, problem))
    assert "unknown key; " in line
    assert line.startswith("site.yaml:")


def test_an_unknown_key_is_told_with_its_line_and_what_was_meant(wrong: Wrong) -> None:
    assert wrong(GOOD.replace("max_epsilon: 6", "max_epsilon: 6\n    max_epsilom: 60")) == [
        "site.yaml:12: policy.privacy.max_epsilom: unknown key; did you mean max_epsilon?"
    ]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("name: hosp-1", "name: a/b", "name: 'a/b' cannot be the name of a folder"),
        ("name: hosp-1", "name: ''", "name: must not be empty"),
        ("home: home", "", "home: is missing; set it; for example /var/lib/silotune"),
        ("num_examples: 3900", "num_examples: 0", "data.num_examples: must be at least 1, not 0"),
        (", num_examples: 3900", "", "data.num_examples: is missing; set it"),
        ("num_examples: 3900", "num_examples: true", "data.num_examples: must be a whole number"),
        ("train: a.parquet, ", "", "data.splits: name the file to train on too"),
        ("data: {", "data: 3 #", "data: takes `key: value` pairs, not 3"),
        (DIGEST, "abc", "models: must be a SHA-256"),
        ("device: cpu", "device: tpu", "device: must be one of auto, cpu, cuda"),
        ("threads: 2", "threads: 0", "threads: must be at least 1"),
        ("max_epsilon: 6", "max_epsilon: .nan", "policy.privacy.max_epsilon: must be"),
        ("max_epsilon: 6", "max_epsilon: .inf", "policy.privacy.max_epsilon: must be a finite"),
        ("max_epsilon: 6", "max_epsilon: -1", "policy.privacy.max_epsilon: must be at least 0"),
        ("max_epsilon: 6", "max_epsilon: '6'", "policy.privacy.max_epsilon: must be a number"),
        ("max_epsilon: 6", "max_epsilon: 60", "policy.privacy.max_epsilon: one run may not cost"),
        ("max_delta: 1e-5", "max_delta: 1", "policy.privacy.max_delta: must be below 1"),
        ("epsilon: 20,", "", "policy.privacy.lifetime.epsilon: is missing"),
        ("[add-remove]", "add-remove", "policy.privacy.relations: must be a list of one of"),
        ("[add-remove]", "[any]", "policy.privacy.relations: must be a list of one of"),
        ("discrete]", "laplace]", "policy.privacy.noise: must be a list of one of"),
        ("head-only]", "my.module:Mine]", "policy.methods: must be a list of one of"),
        ("    max_delta", "    units: [none]\n    max_delta", "lifetime: is counted for unit"),
        ("  methods", "  approve: listed\n  methods", "policy.approved: approve: listed needs"),
        ("  methods", "  approved: [abc]\n  methods", "policy.approved: must be a SHA-256"),
        ("  methods", "  releases: [metric]\n  methods", "data.num_held_out: a noisy score is"),
        ("  methods", "  accept_result: yes\n  methods", "policy.accept_result: must be true or"),
        ("name: hosp-1", "name: [", "not valid YAML"),
        ("home: home", "home: home\nhome: away", "the key home stands there twice"),
    ],
)
def test_what_is_wrong_is_named_by_its_key(wrong: Wrong, old: str, new: str, problem: str) -> None:
    assert old in GOOD
    lines = wrong(GOOD.replace(old, new, 1))
    assert any(problem in line for line in lines), lines
    assert all(line.startswith("site.yaml") for line in lines)


@pytest.mark.parametrize("text", ["", "[]", "3", "policy"])
def test_a_file_that_is_no_mapping(wrong: Wrong, text: str) -> None:
    (line,) = wrong(text)
    assert "`silotune site join` writes some" in line


def test_every_problem_is_told_at_once(wrong: Wrong) -> None:
    text = GOOD.replace("threads: 2", "threads: 0").replace("cpu", "tpu").replace("disk", "tape")
    found = [line.split(": ")[1] for line in wrong(text)]
    assert found == ["device", "threads", "prefix_cache"]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file; `silotune site join` writes"):
        read_site(tmp_path / "site.yaml")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read(read: Read, file: Path) -> None:
    read(GOOD)
    file.chmod(0)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_site(file)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write(read: Read, file: Path, mode: int) -> None:
    read(GOOD)
    file.chmod(mode)
    with pytest.raises(ConfigError, match=r"site\.yaml: can be written by other users.*chmod go-w"):
        read_site(file)


def test_a_folder_in_which_others_could_put_another_file(read: Read, file: Path) -> None:
    read(GOOD)
    file.parent.chmod(0o770)
    with pytest.raises(ConfigError, match="can be written by other users"):
        read_site(file)
    file.parent.chmod(0o1777)  # as the folder for temporary files
    read_site(file)


def test_a_home_that_others_can_write(read: Read, file: Path) -> None:
    home = file.parent / "home"
    home.mkdir(0o700)
    read(GOOD)
    home.chmod(0o770)
    with pytest.raises(ConfigError, match=r"home: can be written by other users"):
        read_site(file)


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o704])
def test_a_home_that_others_can_read(read: Read, file: Path, mode: int) -> None:
    home = file.parent / "home"
    home.mkdir(0o700)
    read(GOOD)
    home.chmod(mode)
    with pytest.raises(ConfigError, match=r"home: can be read by other users.*chmod 700"):
        read_site(file)
    home.chmod(0o710)  # a group may reach the socket
    read_site(file)


def test_a_link_is_looked_at_where_it_leads(read: Read, file: Path, tmp_path: Path) -> None:
    read(GOOD)
    loose = tmp_path / "loose"
    loose.mkdir()
    loose.chmod(0o777)
    file.rename(loose / "site.yaml")
    file.symlink_to(loose / "site.yaml")
    with pytest.raises(ConfigError, match="can be written by other users"):
        read_site(file)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_somebody_else(read: Read, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read(GOOD)
    os.chown(file, 12345, -1)
    with pytest.raises(ConfigError, match="belongs to another user"):
        read_site(file)
