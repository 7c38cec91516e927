"""The coordinator's session with a server of NVIDIA FLARE: who is connected, and its jobs."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_CONNECT = 5.0
"""Seconds to reach the server."""


class Engine:
    """A session that is opened again after it was lost.

    Args:
        kit: folder of the coordinator's credentials.
    """

    def __init__(self, kit: Path) -> None:
        self._kit = kit.resolve()
        self._session: Any = None

    def connect(self) -> None:
        """Reach the server.

        Raises:
            ValueError: if NVIDIA FLARE is not installed, or this is no coordinator's kit.
            ConnectionError: if no server answers, or it refuses.
        """
        if self._session is not None:
            return
        user = self._user()
        try:
            from nvflare.fuel.flare_api.flare_api import new_secure_session
        except ImportError as error:
            raise ValueError(
                "runtime: nvflare needs NVIDIA FLARE; pip install 'silotune[nvflare]'"
            ) from error
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # FLARE talks
                self._session = new_secure_session(user, str(self._kit), timeout=_CONNECT)
        except Exception as error:  # FLARE's errors have no base of their own
            raise ConnectionError(
                f"the FLARE server cannot be reached, or refuses {user}: {error}"
            ) from error

    def _user(self) -> str:
        """The name in the certificate, whatever the folder is called."""
        try:
            admin = json.loads((self._kit / "startup" / "fed_admin.json").read_text())["admin"]
            return str(admin["username"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self._kit} is no coordinator's kit of NVIDIA FLARE") from error

    def forget(self) -> None:
        """The session may be dead; the next call opens another."""
        session, self._session = self._session, None
        if session is not None:
            with contextlib.suppress(Exception):
                session.close()

    close = forget

    def last_heard(self) -> Mapping[str, float]:
        """Connected sites, and when the server heard of each last (seconds since the epoch).

        Raises:
            OSError: if the server cannot be reached.
            RuntimeError: if it refuses.
        """
        with self._call() as session:
            clients = session.get_system_info().client_info
        return {str(client.name): float(client.last_connect_time) for client in clients}

    def submit(self, job: Path) -> str:
        """A job's identity.

        Raises:
            OSError: if the server cannot be reached.
            RuntimeError: if it refuses.
        """
        with self._call() as session:
            return str(session.submit_job(str(job.resolve())))  # else FLARE looks in its kit

    def abort_all(self, name: str) -> None:
        """End the jobs of that name that are not finished: a killed server left them running.

        Raises:
            OSError: if the server cannot be reached.
            RuntimeError: if it refuses.
        """
        with self._call() as session:
            jobs = session.list_jobs(name_prefix=name, limit=20, reverse=True)
        for job in jobs:
            if not str(job.get("status", "")).startswith("FINISHED"):
                self.abort(str(job["job_id"]))

    def abort(self, job: str) -> None:
        """End a job, if it is there and runs."""
        with contextlib.suppress(OSError, RuntimeError), self._call() as session:
            session.abort_job(job)

    @contextlib.contextmanager
    def _call(self) -> Iterator[Any]:
        self.connect()
        try:
            yield self._session
        except OSError:
            raise
        except Exception as error:  # FLARE's errors have no base of their own
            raise RuntimeError(f"the FLARE server said: {type(error).__name__}: {error}") from error
