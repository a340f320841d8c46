"""What Prefect's page shows of a run under Artifacts: progress, epochs, curves, links, config.

Each is one artifact that is kept fresh, in a thread of its own: training waits for no request, and
a server that is away or slow loses some pictures in between. At most one round of requests in two
seconds, each with what has changed since the one before.
"""

from __future__ import annotations

import base64
import contextvars
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from epochal.data.secrets import masked
from epochal.flows.flow_run.client import current_flow_run
from epochal.flows.flow_run.curves import curves_svg
from epochal.flows.flow_run.log import FlowLog
from epochal.flows.servers import mlflow_ui_of
from epochal.tasks.printable import printable
from epochal.tasks.reporting import Live, Outcome
from epochal.tasks.running.run import Run
from epochal.tasks.running.run_description import config_files
from epochal.tasks.runs.summary import EpochRow, epoch_rows

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

EVERY_S = 2.0
"""Between two rounds of requests."""
LIVE_EVERY_S = 30.0
"""Between two of them inside an epoch, where only the progress has changed."""
LAST_S = 10.0
"""How long the end of a run waits for the last round."""
MAX_ROWS = 500
"""Epochs in the table, the newest: each round sends all of them."""
LINK_EVERY_S = 0.2
"""Between two looks for MLflow's run, until it is there."""
PREFECT, MLFLOW = "Prefect", "MLflow"
_REFUSED_IN_KEYS = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True)
class _Shown:
    """An artifact as it is to be. kind: progress, table or markdown."""

    kind: str
    data: Any
    description: str


class RunPage:
    """The artifacts of a run at work. Told from any thread; sends in its own."""

    def __init__(self, run: Run, flow_run_id: UUID) -> None:
        self._run = run
        self._flow_run_id = flow_run_id
        self._links: dict[str, str] = {}
        self._live: Live | None = None
        self._live_s = -LIVE_EVERY_S
        self._ended_as: str | None = None
        self._changed, self._over = threading.Event(), threading.Event()
        context = contextvars.copy_context()  # which server is talked to
        self._thread = threading.Thread(
            target=context.run, args=(self._work,), name="epochal-artifacts", daemon=True
        )
        # The attributes below belong to the thread.
        self._sent: dict[str, _Shown] = {}
        self._ids: dict[str, UUID] | None = None

    def start(self) -> None:
        """Starts the thread, which sends what is known by now."""
        self._changed.set()
        self._thread.start()

    def linked(self, title: str, url: str) -> None:
        """Where else a person can look at the run."""
        if title != PREFECT:  # which is where this stands
            self._links[title] = url
            self._changed.set()

    def ended(self, _outcome: Outcome) -> None:
        """A stage is done."""
        self._live = None
        self._changed.set()

    def live(self, live: Live) -> None:
        """An epoch has moved on."""
        self._live = live
        now = time.monotonic()
        if now - self._live_s >= LIVE_EVERY_S:
            self._live_s = now
            self._changed.set()

    def close(self, ended_as: str) -> None:
        """Sends the last of it; waits for a server that answers, not for another."""
        self._ended_as = ended_as
        self._over.set()
        self._changed.set()
        self._thread.join(timeout=LAST_S)

    def _work(self) -> None:
        from prefect.client.orchestration import get_client

        while True:
            while not self._changed.wait(None if self._has_mlflow() else LINK_EVERY_S):
                pass
            self._changed.clear()
            over = self._over.is_set()
            try:
                with get_client(sync_client=True) as client:
                    self._send(client)
            except Exception:  # noqa: BLE001, S110  # Prefect's client raises anything, and this is
                pass  # the edge of a thread that only shows: the next round sends what is owed
            if over:
                return
            self._over.wait(EVERY_S)

    def _has_mlflow(self) -> bool:
        """Whether nothing is left to be told of MLflow, which is known once it has answered."""
        tracker = self._run.tracker
        if MLFLOW in self._links or tracker is None:
            return True
        if tracker.page is None:
            return False
        pages = mlflow_ui_of(tracker.uri)
        if pages is None:  # a database that no server shows
            self._links[MLFLOW] = ""
            return True
        self._run.session.reporter.linked(MLFLOW, f"{pages}/{tracker.page}")
        return True

    def _send(self, client: SyncPrefectClient) -> None:
        from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate

        if self._ids is None:
            self._ids = self._of_earlier_tries(client)
        for key, shown in self._artifacts():
            if self._sent.get(key) == shown:
                continue
            if key in self._ids:
                update = ArtifactUpdate(data=shown.data, description=shown.description)
                client.update_artifact(self._ids[key], update)
            else:
                made = client.create_artifact(
                    ArtifactCreate(
                        key=key,
                        type=shown.kind,
                        data=shown.data,
                        description=shown.description,
                        flow_run_id=self._flow_run_id,
                    )
                )
                self._ids[key] = made.id
            self._sent[key] = shown

    def _of_earlier_tries(self, client: SyncPrefectClient) -> dict[str, UUID]:
        from prefect.client.schemas.filters import FlowRunFilter

        wanted = FlowRunFilter.model_validate({"id": {"any_": [self._flow_run_id]}})
        held = client.read_artifacts(flow_run_filter=wanted)
        return {artifact.key: artifact.id for artifact in held if artifact.key is not None}

    def _artifacts(self) -> Iterator[tuple[str, _Shown]]:
        view = self._run.view
        name = _REFUSED_IN_KEYS.sub("-", view.config.name.lower()).strip("-") or "run"
        rows = epoch_rows(view, list(self._run.outcomes))
        yield f"{name}-progress", self._progress(rows)
        if rows:
            yield f"{name}-epochs", _table(rows)
            yield f"{name}-curves", _curves(rows)
        yield f"{name}-links", self._where_to_look()
        yield f"{name}-config", self._config()

    def _progress(self, rows: list[EpochRow]) -> _Shown:
        view, live = self._run.view, self._live
        last = view.stopped_after
        wanted = view.config.epochs if last is None else last + 1
        if view.config.max_updates is not None:
            wanted = sum(stage.kind == "train" for stage in view.stages)
        part = live.update / max(live.num_updates, 1) if live is not None else 0.0
        share = min(1.0, (len(rows) + part) / max(wanted, 1))
        parts = [f"**{len(rows)} of {wanted} epochs**"]
        if live is not None and self._ended_as is None:
            parts.append(f"epoch {live.epoch} at update {live.update} of {live.num_updates}")
        parts += _numbers(rows[-1]) if rows else []
        best = view.best
        if best is not None:
            parts.append(f"best {best.metric} {_short(best.value)} in epoch {best.epoch}")
        if self._ended_as is not None:
            parts.append(self._ended_as)
        return _Shown("progress", round(100 * share, 1), " · ".join(parts))

    def _where_to_look(self) -> _Shown:
        plan, store = self._run.plan, masked(self._run.session.store.url)
        shown = {title: url for title, url in self._links.items() if url}
        if MLFLOW in shown:
            shown["report"] = f"{shown[MLFLOW]}/artifacts/report.html"
        links = [f"[{title}]({url})" for title, url in shown.items()]
        commands = "\n".join(
            f"epochal {command}"
            for command in (
                f"show {plan.reference} --store {store}",
                f"report {plan.reference} --store {store}",
            )
        )
        text = "\n".join(
            [
                *(f"- {link}" for link in links),
                f"- store `{store}`",
                *(
                    [f"- branched from `{plan.branched_from}`, {plan.shared_epochs} epochs shared"]
                    if plan.branched_from is not None
                    else []
                ),
                f"\nIn a terminal:\n\n```text\n{commands}\n```",
            ]
        )
        return _Shown("markdown", text, " · ".join([*links, plan.reference]))

    def _config(self) -> _Shown:
        config = self._run.view.config
        text = masked(config_files(config)["config.yaml"].decode())
        return _Shown(
            "markdown",
            f"As `epochal train` takes it, in `{printable(config.folder)}`:\n\n```yaml\n{text}```",
            "the config",
        )


def _table(rows: list[EpochRow]) -> _Shown:
    newest = rows[::-1][:MAX_ROWS]
    more = "" if len(rows) <= MAX_ROWS else f", the newest {MAX_ROWS} of {len(rows)}"
    columns = [
        {
            "epoch": row.epoch,
            "train loss": _short(row.loss),
            **{f"validation {name}": _short(value) for name, value in row.metrics.items()},
            "gradient norm": _short(row.gradient_norm),
            "samples": row.trained,
            "seconds": "" if row.seconds is None else round(row.seconds, 1),
            "cached": {True: "yes", False: "no", None: ""}[row.cached],
        }
        for row in newest
    ]
    return _Shown("table", columns, f"epochs and their metrics, newest first{more}")


def _curves(rows: list[EpochRow]) -> _Shown:
    image = base64.b64encode(curves_svg(rows).encode()).decode()
    text = f"![loss and gradient norm by epoch](data:image/svg+xml;base64,{image})"
    return _Shown("markdown", text, "loss and gradient norm by epoch")


def _numbers(row: EpochRow) -> list[str]:
    metrics = [f"{name} {_short(value)}" for name, value in row.metrics.items() if name != "loss"]
    return [f"loss {_short(row.loss)}", *metrics[:1]]


def _short(value: float | None) -> float | str:
    return "–" if value is None else float(f"{value:.4g}")


@contextmanager
def shown_in_prefect(run: Run, log: FlowLog) -> Iterator[RunPage]:
    """Inside a flow: its run's artifacts are kept fresh in the block, by what `log` is told."""
    from prefect.utilities.urls import url_for

    flow_run = current_flow_run()
    assert flow_run is not None
    page = RunPage(run, flow_run.id)
    log.listeners.append(page)
    address = url_for("flow-run", obj_id=flow_run.id)
    if address is not None:
        run.session.reporter.linked(PREFECT, address)
    page.start()
    ended_as = "ended before its last epoch; Retry, or the same command, goes on"
    try:
        yield page
        ended_as = "done"
    finally:
        page.close(ended_as)
