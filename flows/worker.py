"""Prefect's command line with a worker that reports a crash once: `… worker start --pool epochal`.

Prefect's worker reports it twice, the second time after a process of a few seconds that looks for
hooks. A Retry that somebody pressed in between would be overwritten and lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun


def main() -> None:
    """Runs Prefect's command line."""
    import httpx
    from prefect.cli import app
    from prefect.exceptions import ObjectNotFound
    from prefect.workers.process import ProcessWorker

    report = ProcessWorker._propose_crashed_state  # noqa: SLF001 - no public way

    async def report_once(
        self: Any, flow_run: FlowRun, message: str, client: PrefectClient | None = None
    ) -> None:
        try:
            now = await (client or self.client).read_flow_run(flow_run.id)
        except (httpx.HTTPError, ObjectNotFound):  # `report` says so in its own way
            now = flow_run
        if is_news(flow_run, now):
            await report(self, flow_run, message, client)

    ProcessWorker._propose_crashed_state = report_once  # type: ignore[method-assign] # noqa: SLF001
    app()


def is_news(submitted: FlowRun, now: FlowRun) -> bool:
    """Whether the crash of the try that began as `submitted` is still to be reported.

    False if it was reported, or the run was retried since. A try counts from when it runs.
    """
    if now.state is None or now.state.is_final() or now.state.is_scheduled():
        return False
    tries = now.run_count if now.state.is_pending() else now.run_count - 1
    return tries <= submitted.run_count


if __name__ == "__main__":
    main()
