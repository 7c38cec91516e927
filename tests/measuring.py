"""A plugin of pytest that measures what tests cost and renews the record: ``make test-costs``."""

from collections.abc import Generator
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage

import pytest

import costs

BEGUN = pytest.StashKey[float]()
MEASURED: dict[str, float] = {}
"""CPU seconds by case."""


def spent() -> float:
    """CPU seconds of this process, and of those that it started and that have ended."""
    usages = getrusage(RUSAGE_SELF), getrusage(RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    item.stash[BEGUN] = spent()
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    done = yield
    item.user_properties.append(("cpu", spent() - item.stash[BEGUN]))
    return done


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "teardown":
        MEASURED[report.nodeid] = dict(report.user_properties)["cpu"]


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):  # these tell the one that gave out the tests
        costs.write(costs.renewed(costs.read(), MEASURED))
