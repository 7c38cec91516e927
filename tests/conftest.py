"""What every test stands on: no screen, no model hub, equal seeds, and a book for life of its own
(fixtures of a whole session share one); and `no_network`.

The reports of runs have empty pictures, which take half of a small run's time, but for tests that
ask for `drawn`; in CI those of one test of every folder are drawn, in `make test-all` of every
file. Likewise a model like one that was read and checked before is not again, but for tests that
ask for `checked`; in CI every folder checks its own, in `make test-all` every file. There alone
tests bring files to the disk, which takes a tenth of the time; processes that they start always do.

Torch has one thread, or as many as SILOTUNE_TEST_THREADS says; one that waits leaves its core to
other processes, or two of them with two threads each take ten times as long. The process that only
gives out tests does without torch, and none has its compiler, which PEFT would import (by way of
bitsandbytes) for kernels that no CPU takes. What was imported is not looked at again by the garbage
collector. Hypothesis tries 10 examples of a law, 30 where CI is set, and 100 in `make test-all`,
where it is "all".
"""

import atexit
import gc
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import defaultdict
from collections.abc import Generator, Iterator
from itertools import count
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["OMP_WAIT_POLICY"] = "passive"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["TORCHDYNAMO_DISABLE"] = "1"
os.environ["SILOTUNE_LIFETIME_FOLDER"] = tempfile.mkdtemp(prefix="silotune-lifetime-")

import numpy as np
import pytest
from hypothesis import settings

import costs

atexit.register(shutil.rmtree, os.environ["SILOTUNE_LIFETIME_FOLDER"], ignore_errors=True)
settings.register_profile("at hand", deadline=None, max_examples=10)
settings.register_profile("full", deadline=None, max_examples=30)
settings.register_profile("all", deadline=None, max_examples=100)
CI = os.environ.get("CI", "")
ALL = CI == "all"
settings.load_profile("all" if ALL else "full" if CI else "at hand")

TESTS = count()
DRAWN: set[Path | None] = set()
"""Where a test has drawn the pictures of its reports."""
FOUND: dict[object, object] = {}
"""By what was checked, what came of it."""
CHECKS = (
    ("silotune.terms.build", "check_limits"),
    ("silotune.terms.sites", "_probed"),
    ("silotune.terms.opening", "_checked"),
    ("silotune.federation.opening", "refuse_unloadable"),
    ("silotune.federation.run", "check_learned"),
)
"""Which lengths and linear maps a model has, the gradient check, and PEFT's reading of an adapter
before and after training."""
if not ALL:
    os.fsync = lambda descriptor: None  # a test may be killed, but no power is cut


def place(test: Path) -> Path | None:
    """Where what one test draws and checks is not drawn and checked again; None: anywhere."""
    return test if ALL else test.parent if CI else None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    gc.disable()
    done = yield
    gc.freeze()
    gc.enable()
    return done


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is dear is thinned."""
    elsewhere = ("slow", "engine") if CI else ("slow", "engine", "full")
    there = {i.nodeid: i for i in items if not any(map(i.get_closest_marker, elsewhere))}
    if CI:
        cases = {name: item.get_closest_marker("full") is not None for name, item in there.items()}
        left = costs.too_many_in_ci(cases, costs.read())
    else:
        left = costs.too_many_at_hand(there, costs.read())
    for name in left:
        there[name].add_marker("slow" if CI else "full")


LOCAL_HOSTS = {"", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::"}


@pytest.fixture(scope="session", autouse=True)
def _threads() -> None:
    import torch

    torch.set_num_threads(int(os.environ.get("SILOTUNE_TEST_THREADS", "1")))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    import torch

    torch.default_generator.manual_seed(0)  # no device's but the CPU's, or each test takes 1 ms


@pytest.fixture
def same_secrets(monkeypatch) -> None:
    """What the operating system draws in this process is the same in every run of the test, which
    then passes always or never. For tests that chance decides; secrets of all others are secret.
    """
    drawn, from_seed = random.Random(0), np.random.default_rng

    def default_rng(seed: object = None) -> np.random.Generator:
        return from_seed(drawn.getrandbits(128) if seed is None else seed)

    monkeypatch.setattr(os, "urandom", drawn.randbytes)
    monkeypatch.setattr(np.random, "default_rng", default_rng)


@pytest.fixture(autouse=True)
def book_folder(monkeypatch) -> Path:
    """Where this test's runs keep their book for life, unless it says another place.

    Nothing is made: most tests train nothing.
    """
    folder = Path(os.environ["SILOTUNE_LIFETIME_FOLDER"]) / f"test-{next(TESTS)}" / "book"
    monkeypatch.setenv("SILOTUNE_LIFETIME_FOLDER", str(folder))
    return folder


@pytest.fixture
def double_precision() -> Iterator[None]:
    """Tensors are float64 unless a test says another type."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def hearing() -> Iterator[None]:
    """Signals that end a process do, whatever this one was told to ignore (``nohup``, ``&``)."""
    usual = dict.fromkeys((signal.SIGTERM, signal.SIGHUP), signal.SIG_DFL)
    usual[signal.SIGINT] = signal.default_int_handler
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def drawn() -> None:
    """The reports of this test's runs have their pictures."""


@pytest.fixture(autouse=True)
def _pictures(request, monkeypatch) -> None:
    page = sys.modules.get("silotune.reports.page")  # if nobody has it, nobody writes reports
    if page is None or "drawn" in request.fixturenames:
        return
    draw = page._pictures

    def pictures(*told: object) -> object:
        if drawn or not CI:
            return defaultdict(str)  # each of them empty
        DRAWN.add(here)
        return draw(*told)

    here = place(request.path)
    drawn = here in DRAWN  # by another test: all runs of one are treated alike
    monkeypatch.setattr(page, "_pictures", pictures)


@pytest.fixture
def checked() -> None:
    """The models of this test are read and checked, also those like others before."""


@pytest.fixture(autouse=True)
def _checks(request, monkeypatch) -> None:
    if "checked" in request.fixturenames or CHECKS[-1][0] not in sys.modules:
        return
    from remembered import reading, remembering

    here = place(request.path)
    read = sys.modules["silotune.terms.opening"].read_model
    monkeypatch.setattr("silotune.terms.opening.read_model", reading(read, FOUND, here))
    for module, name in CHECKS:
        check = getattr(sys.modules[module], name)
        monkeypatch.setattr(f"{module}.{name}", remembering(check, FOUND, (name, here)))


class SocketGuard:
    """Refuses, while ``active``, every address outside this machine, and remembers it."""

    def __init__(self) -> None:
        self.active = False
        self.refused: list[str] = []
        sys.addaudithook(self._hear)  # for good: Python has no way to remove one

    def _hear(self, event: str, args: tuple[object, ...]) -> None:
        if not self.active:
            return
        if event in ("socket.connect", "socket.sendto"):
            self._check(args[1])
        elif event == "socket.getaddrinfo":
            self._check((args[0], args[1]))

    def _check(self, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else ""  # a string: a socket in a file
        name = host.decode() if isinstance(host, bytes) else str(host or "")
        if name not in LOCAL_HOSTS:
            self.refused.append(name)
            raise OSError(f"no_network: refused {name}")


GUARD = SocketGuard()


@pytest.fixture
def no_network() -> Iterator[list[str]]:
    """The test fails if this process tries to reach another machine, even if the error is caught.

    Yields the hosts that were refused. Covers sockets opened from Python, in this process.
    """
    GUARD.active, GUARD.refused = True, []
    yield GUARD.refused
    GUARD.active = False
    if GUARD.refused:
        pytest.fail(f"opened a socket outside localhost: {', '.join(GUARD.refused)}")
