"""A real PostgreSQL server for tests and benchmarks: in a folder of its own on a free port, ended by its own pid."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from deploy.local.spec import free_ports

_USER = "postgres"
"""The Debian package makes it. A server will not run as root."""
_START_S = 30.0
_POLL_S = 0.05


def bin_folder() -> Path | None:
    """Where the server's programs are: the newest version that is installed, `None` without one."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path is not None else None


class PostgresServer:
    """One server over one folder; can be killed and started again. `settings` are lines of postgresql.conf."""

    def __init__(self, settings: Sequence[str] = ()) -> None:
        programs = bin_folder()
        assert programs is not None, "PostgreSQL is not installed"
        self._bin = programs
        (self.port,) = free_ports(1)
        # Not in the test run's own folder, which is closed to other users.
        self._folder = Path(tempfile.mkdtemp(prefix="aisle-postgres-"))
        self._data = self._folder / "data"
        as_other = [] if os.geteuid() else [f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups"]
        # Ends with whoever started it, however that ends.
        self._as = ["setpriv", "--pdeathsig=QUIT", *as_other]
        self._process: subprocess.Popen[bytes] | None = None
        if not os.geteuid():
            os.chown(self._folder, pwd.getpwnam(_USER).pw_uid, pwd.getpwnam(_USER).pw_gid)
        self._run("initdb", "-D", self._data, "-U", "aisle", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8")
        lines = (f"port = {self.port}", "listen_addresses = '127.0.0.1'", f"unix_socket_directories = '{self._folder}'")
        with (self._data / "postgresql.conf").open("a") as config:
            config.writelines(f"{line}\n" for line in (*lines, *settings))

    def start(self) -> None:
        """Returns when it answers."""
        until = time.monotonic() + _START_S
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                [*self._as, self._bin / "postgres", "-D", self._data],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        while not self._answers():
            # After a kill -9 its children may hold on to what the next server needs, for a moment.
            if self._process.poll() is not None:
                time.sleep(_POLL_S)
                assert time.monotonic() < until, self.log.read_text()
                return self.start()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(_POLL_S)
        return None

    def kill(self) -> None:
        """As a power cut would, but for the disk's own cache."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """It is there, and does not answer."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """It goes on."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Ends it, and removes all that it kept."""
        self._signal(signal.SIGCONT)
        self._end(signal.SIGQUIT)
        shutil.rmtree(self._folder, ignore_errors=True)

    def new_database(self) -> str:
        """The address of an empty database."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self.sql(f"CREATE DATABASE {name}")
        return f"postgresql://aisle@127.0.0.1:{self.port}/{name}"

    def sql(self, statement: str, database: str = "postgres") -> str:
        """What `psql` answers, without headings."""
        return self._run(
            "psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "aisle", "-d", database, "-tAqc", statement
        )

    def dump(self, database: str) -> bytes:
        """All that a database holds, as text."""
        return self._run("pg_dump", "-h", "127.0.0.1", "-p", str(self.port), "-U", "aisle", database).encode()

    @property
    def log(self) -> Path:
        """What the server writes."""
        return self._folder / "log"

    def _answers(self) -> bool:
        told = subprocess.run(
            [self._bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False, timeout=10
        )
        return told.returncode == 0

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        # Its children are in groups of their own. The postmaster first, or it would start new ones.
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for pid in (self._process.pid, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._signal(how)
            self._process.wait(timeout=20)
            self._process = None

    def _run(self, program: str, *arguments: str | Path) -> str:
        done = subprocess.run(
            [*self._as, self._bin / program, *arguments],
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, f"{program}: {done.stderr}"
        return done.stdout.strip()


@contextlib.contextmanager
def running_server() -> Iterator[PostgresServer]:
    """A server that runs, ended on the way out; the test is skipped where PostgreSQL is not installed."""
    if bin_folder() is None:
        pytest.skip("no PostgreSQL on this machine: apt-get install postgresql")
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.close()
