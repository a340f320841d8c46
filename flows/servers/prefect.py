"""The Prefect server of this machine: use the one that is set or runs, or start one, once.

Imports no Prefect: whoever waits for the server can import it meanwhile.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from epochal.data.errors import ConfigError
from epochal.flows.environment import DEFAULTS
from epochal.flows.servers.configured import check_answers, configured_api_url, ui_url_of
from epochal.flows.servers.home import ServerHome, ServerRecord
from epochal.flows.servers.processes import (
    answers,
    find_or_start,
    port_of,
    read_note,
    reserve_port,
    start_detached,
    wait_until_answers,
)
from epochal.tasks.private_files import close_to_others

PREFERRED_PORT = 4200
IDLE_S = 3600.0
# A first start migrates an empty database: 9-12 s on two idle cores, several times that on busy
# ones.
START_TIMEOUT_S = 240.0
HEALTH = "/api/health"
_PAGES = {
    # Relative to the page, which a tunnel may show at another port.
    "PREFECT_UI_API_URL": "/api",
    # The newer UI refuses to save a schedule, and to run at once, where a parameter is required.
    "PREFECT_SERVER_UI_V2_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
}


@dataclass(frozen=True)
class PrefectServer:
    """A server that answers. started: by this call, not before it."""

    api_url: str
    ui_url: str
    started: bool


@dataclass(frozen=True)
class StartingServer:
    """A server that may still be starting; its URLs are final. record: None if it is not ours."""

    api_url: str
    ui_url: str
    started: bool
    record: ServerRecord | None

    def wait(self, *, timeout_s: float = START_TIMEOUT_S) -> PrefectServer:
        """The server, as soon as it answers.

        Raises ServerUnavailable if it ends before, with the end of its log, or does not in time.
        """
        if self.record is None:
            check_answers(self.api_url)
        else:
            wait_until_answers(self.record, HEALTH, timeout_s=timeout_s)
        return PrefectServer(self.api_url, self.ui_url, self.started)


def ensure_prefect_server() -> PrefectServer:
    """The Prefect server to use; starts one in the background if there is none."""
    return begin_prefect_server().wait()


def begin_prefect_server() -> StartingServer:
    """Finds the server to use, or starts one; does not wait for it.

    Raises ConfigError for settings that cannot be read, ServerUnavailable if PREFECT_HOME cannot
    be written.
    """
    configured = configured_api_url()
    if configured is not None:
        return StartingServer(configured, ui_url_of(configured), started=False, record=None)
    return begin_local_server(stops_when_idle=True)


def begin_local_server(*, stops_when_idle: bool, port: int | None = None) -> StartingServer:
    """The background server of this PREFECT_HOME, whatever else is set.

    port: where it must be; None for 4200 or, if that is taken, a free one. A server that runs
    keeps its port, and stays once anybody has asked for one that does.
    Raises InputError if the port cannot be had.
    """
    idle_s = _idle_seconds()
    home = ServerHome.current()
    with home.lock():
        home.touch()
        record, started = find_or_start(
            "prefect",
            home=home,
            port=port,
            start=lambda: _start(home, stops_when_idle=stops_when_idle, port=port, idle_s=idle_s),
        )
        if not stops_when_idle:
            record = record.model_copy(update={"stops_when_idle": False})
        home.write({**read_note(home), "prefect": record})
    return StartingServer(f"{record.url}/api", record.url, started=started, record=record)


def prefect_answers(port: int, *, timeout_s: float) -> bool:
    """Whether a Prefect server at this port of this machine answers within the time."""
    return answers(port, HEALTH, timeout_s=timeout_s)


def touch_servers() -> None:
    """Notes that a command is at work, which keeps background servers up for another idle time."""
    home = ServerHome.current()
    if home.note.exists():
        home.touch()


def server_environment() -> dict[str, str]:
    """Our environment without what concerns only this process and its own flow runs."""
    kept = {n: value for n, value in os.environ.items() if not n.startswith("PREFECT__")}
    return {**DEFAULTS, **kept, "PYTHONUNBUFFERED": "1"}


def _start(
    home: ServerHome, *, stops_when_idle: bool, port: int | None, idle_s: float
) -> ServerRecord:
    for database in home.folder.glob("prefect.db*"):  # made before, by whatever umask
        close_to_others(database)
    with reserve_port(port or PREFERRED_PORT, required=port is not None) as reserved:
        bound = port_of(reserved)
        url = f"http://127.0.0.1:{bound}/api"
        return start_detached(
            # -P: a folder of the user's named like a package of ours must not be imported
            [
                *(sys.executable, "-P", "-m", "epochal.flows.supervise"),
                *("--descriptor", "{fd}", "--idle-seconds", str(idle_s)),
            ],
            name="prefect",
            home=home,
            port=bound,
            stops_when_idle=stops_when_idle,
            listening=reserved,
            owner_only=True,
            environment={
                **server_environment(),
                "PREFECT_HOME": str(home.folder),
                "PREFECT_API_URL": url,
                "PREFECT_SERVER_API_HOST": "127.0.0.1",
                "PREFECT_SERVER_API_PORT": str(bound),
                **_PAGES,
            },
        )


def _idle_seconds() -> float:
    text = os.environ.get("EPOCHAL_IDLE_SECONDS")
    if text is None:
        return IDLE_S
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"EPOCHAL_IDLE_SECONDS: {text!r} is not a number of seconds above 0")
    return seconds
