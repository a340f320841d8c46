"""`epochal doctor`: what may fail on this machine, looked at before it does."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from epochal.data.errors import EpochalError, InputError, StoreUnavailable
from epochal.data.traces import in_one_line
from epochal.flows import console
from epochal.flows.commands.options import AsJson, Debug, Overrides
from epochal.flows.environment import check_environment, importing
from epochal.flows.terminal.style import BAD, GOOD, NOTE

Level = Literal["ok", "warning", "problem"]
_MARK = {"ok": ("✓", GOOD), "warning": ("!", NOTE), "problem": ("✗", BAD)}
LITTLE_DISK, LITTLE_MEMORY, LITTLE_SHARED = 2 << 30, 1 << 30, 256 << 20
SHARED = Path("/dev/shm")  # noqa: S108 - the kernel's, where worker processes pass batches
WHY = {
    "fastapi": "with a newer one the server of prefect 3.8 does not import",
    "sqlalchemy": "with 2.1 schedules of prefect 3.8 never fire, without a word",
}
ANSWER_S = 5.0

ConfigOrNone = Annotated[
    Path | None,
    typer.Argument(
        metavar="CONFIG",
        show_default=False,
        help="A run's config: its data, code and store are tried too, as its start would.",
    ),
]
StoreGiven = Annotated[
    str | None,
    typer.Option(
        "--store", metavar="STORE", show_default=False, help="A store to try; else that of CONFIG."
    ),
]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. remedy: what to do, empty where all is well."""

    name: str
    level: Level
    found: str
    remedy: str = ""


def doctor(
    config: ConfigOrNone = None,
    overrides: Overrides = None,
    store: StoreGiven = None,
    as_json: AsJson = False,  # noqa: FBT002 - typer's way of a flag
    _debug: Debug = False,  # noqa: FBT002 - likewise
) -> None:
    """Look at versions, servers, store, device, memory, disk: what may fail here, and what to do.

    Starts no server and trains nothing. Exit code 2 where something is a problem.
    """
    found = []
    for check in _checks(config, overrides or (), store):
        found.append(check)
        if not as_json:
            mark, style = _MARK[check.level]
            console.out.print(console.line((mark, style), f" {check.name:<12} {check.found}"))
            if check.remedy:
                console.out.print(f"  {'':<12} → {check.remedy}")
    problems = sum(check.level == "problem" for check in found)
    warnings = sum(check.level == "warning" for check in found)
    if as_json:
        console.print_json(
            {"problems": problems, "warnings": warnings, "checks": [asdict(one) for one in found]}
        )
    else:
        console.out.print()
        console.out.print(
            f"{len(found)} looked at: {problems or 'no'} problem{'' if problems == 1 else 's'}, "
            f"{warnings or 'no'} warning{'' if warnings == 1 else 's'}"
        )
    if problems:
        raise typer.Exit(InputError.exit_code)


def _checks(config: Path | None, overrides: Any, store: str | None) -> Iterator[Check]:
    yield from _versions()
    yield from _environment()
    yield from _machine()
    with importing():
        yield from _device()
    yield from _servers()
    loaded = None
    if config is not None:
        from epochal.tasks.config.load import load_config

        try:
            loaded = load_config(config, overrides=overrides)
        except EpochalError as error:
            yield Check("config", "problem", str(error))
        else:
            yield Check("config", "ok", f"{config} is well formed: run {loaded.name}")
    if store is not None or loaded is not None:
        place = store or (loaded.store if loaded is not None else "")
        folder = Path.cwd() if store is not None or loaded is None else Path(loaded.folder)
        yield from _store(place, folder)
    if loaded is not None:
        yield from _run(loaded)


def _versions() -> Iterator[Check]:
    """What is installed against what this version of Epochal asks for."""
    from packaging.requirements import Requirement

    yield Check("python", "ok", sys.version.split()[0])
    wrong = []
    for line in metadata.requires("epochal") or ():
        needed = Requirement(line)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(needed.name)
        except metadata.PackageNotFoundError:
            wrong.append(Check(needed.name, "problem", "is not installed", _install(needed)))
            continue
        if not needed.specifier.contains(version, prereleases=True):
            why = WHY.get(needed.name.lower(), "this version of Epochal was not tried with it")
            text = f"{version} is installed, {needed.specifier} is needed: {why}"
            wrong.append(Check(needed.name, "problem", text, _install(needed)))
    yield from wrong
    if not wrong:
        shown = ("epochal", "torch", "prefect", "mlflow")
        yield Check("versions", "ok", ", ".join(f"{one} {metadata.version(one)}" for one in shown))


def _install(needed: Any) -> str:
    return f'pip install "{needed.name}{needed.specifier}"'


def _environment() -> Iterator[Check]:
    try:
        check_environment()
    except EpochalError as error:
        yield Check("environment", "problem", str(error))
    try:
        home = Path.home()
    except RuntimeError:
        return  # told above
    cache = Path(os.environ.get("EPOCHAL_CACHE") or home / ".cache" / "epochal")
    for name, folder in (("home", home), ("cache", cache)):
        trouble = _unwritable(folder)
        if trouble is not None:
            yield Check(
                name, "problem", f"{folder} cannot be written: {trouble}", _own_folder(name)
            )
            continue
        free = shutil.disk_usage(_there(folder)).free
        level: Level = "warning" if free < LITTLE_DISK else "ok"
        remedy = "free some: logs, remembered data and MLflow's file lie there"
        text = f"{folder}, {console.size(free)} free"
        yield Check(name, level, text, remedy if level == "warning" else "")


def _own_folder(name: str) -> str:
    return f"set {'HOME' if name == 'home' else 'EPOCHAL_CACHE'} to a folder of yours"


def _there(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(one for one in (folder, *folder.parents) if one.exists())


def _unwritable(folder: Path) -> str | None:
    try:
        with tempfile.TemporaryFile(dir=_there(folder)):
            return None
    except OSError as error:
        return error.strerror or str(error)


def _machine() -> Iterator[Check]:
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _quota()
    text = f"{cores} for this process of {os.cpu_count()}"
    if quota is not None and cores is not None and quota < cores:
        remedy = f"set `threads: {max(1, round(quota))}` in the config: more wait for each other"
        yield Check("cores", "warning", f"{text}, limited to {quota:g} by the container", remedy)
    else:
        yield Check("cores", "ok", text)
    memory = psutil.virtual_memory()
    level: Level = "warning" if memory.available < LITTLE_MEMORY else "ok"
    text = f"{console.size(memory.available)} free of {console.size(memory.total)}"
    yield Check(
        "memory", level, text, "end something, or take fewer workers" if level != "ok" else ""
    )
    if SHARED.is_dir():
        size = shutil.disk_usage(SHARED).total
        little = size < LITTLE_SHARED
        remedy = f"docker run --shm-size=2g, or loader.workers: 0: workers pass batches by {SHARED}"
        yield Check(
            "shared", "warning" if little else "ok", f"{SHARED}, {console.size(size)}",
            remedy if little else "",
        )  # fmt: skip


def _quota() -> float | None:
    """Processors that the container may use, by its control group."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _device() -> Iterator[Check]:
    import torch

    yield Check("threads", "ok", f"torch takes {torch.get_num_threads()} for a computation")
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            try:
                free, total = torch.cuda.mem_get_info(number)
            except RuntimeError as error:
                yield Check("device", "problem", f"cuda:{number}: {in_one_line(error)}")
                continue
            name = torch.cuda.get_device_name(number)
            text = f"cuda:{number} {name}, {console.size(free)} free of {console.size(total)}"
            little = free < total // 10
            yield Check(
                "device", "warning" if little else "ok", text,
                "another process fills it: nvidia-smi names it" if little else "",
            )  # fmt: skip
    elif torch.backends.mps.is_available():
        yield Check("device", "ok", "mps; runs on it are not byte for byte repeatable")
    elif shutil.which("nvidia-smi") is not None:
        build = torch.version.cuda or "a CPU build"
        yield Check(
            "device", "warning", f"there is an NVIDIA driver, but torch ({build}) finds no device",
            "install the build of torch for your driver: https://pytorch.org/get-started/locally",
        )  # fmt: skip
    else:
        yield Check("device", "ok", "cpu: there is no GPU here")


def _servers() -> Iterator[Check]:
    from epochal.flows.servers import (
        ServerHome,
        check_answers,
        configured_api_url,
        is_alive,
        local_mlflow_uri,
        read_note,
    )

    def prefect() -> Check:
        url = configured_api_url()
        if url is not None:
            check_answers(url, timeout_s=ANSWER_S)
            return Check("prefect", "ok", f"{url} answers")
        known = {
            name: one for name, one in read_note(ServerHome.current()).items() if is_alive(one)
        }
        if "prefect" in known:
            url = f"{known['prefect'].url}/api"
            check_answers(url, timeout_s=ANSWER_S)
            return Check("prefect", "ok", f"{url} answers: started by Epochal")
        return Check("prefect", "ok", "no server runs; `epochal train` starts one")

    yield _told("prefect", prefect, "start it, or unset PREFECT_API_URL: then a local one is used")
    yield _told(
        "mlflow",
        lambda: _mlflow(local_mlflow_uri()),
        "training does not need it: what is missing there `epochal sync RUN` delivers later",
    )


def _mlflow(local: str | None) -> Check:
    from urllib.error import URLError
    from urllib.parse import urlsplit

    from epochal.data.secrets import masked
    from epochal.tasks.config.parts import TrackingConfig
    from epochal.tasks.http import ask
    from epochal.tasks.tracking.connection import tracking_uri

    uri = tracking_uri(TrackingConfig(), local_server=local)
    parts = urlsplit(uri)
    if parts.scheme not in {"http", "https"}:
        return Check("mlflow", "ok", f"{masked(uri)}; `epochal up` shows it in a browser")
    try:
        answer = ask(f"{uri.rstrip('/')}/health", timeout_s=ANSWER_S)
    except (OSError, URLError) as error:
        raise InputError(f"{masked(uri)} does not answer: {in_one_line(error)}") from error
    level: Level = "ok" if answer.status < 400 else "warning"  # noqa: PLR2004 - HTTP's
    return Check("mlflow", level, f"{masked(uri)} answers with {answer.status}")


def _told(name: str, look: Callable[[], Check], remedy: str) -> Check:
    try:
        return look()
    except EpochalError as error:
        return Check(name, "problem" if name == "prefect" else "warning", str(error), remedy)


def _store(place: str, folder: Path) -> Iterator[Check]:
    from epochal.data.store import open_store

    try:
        opened = open_store(place, folder=folder)
        opened.preflight()
    except StoreUnavailable as error:
        remedy = (
            "credentials come from the environment or the file system's own configuration, never "
            "from the config: docs/deployment.md"
        )
        yield Check("store", "problem", str(error), remedy if "://" in place else "")
        return
    except EpochalError as error:
        yield Check("store", "problem", str(error))
        return
    yield Check("store", "ok", f"{opened.url}: writes, reads, and never overwrites")
    if opened.url.startswith("file://"):
        local = _there(Path(opened.url.removeprefix("file://")))
        free = shutil.disk_usage(local).free
        little = free < LITTLE_DISK
        remedy = f"free some, or `epochal gc {place}`"
        yield Check(
            "disk", "warning" if little else "ok", f"{console.size(free)} free at the store",
            remedy if little else "",
        )  # fmt: skip


def _run(config: Any) -> Iterator[Check]:
    from epochal.flows.progress import ProgressReporter
    from epochal.tasks.preflight.data_check import check_data

    try:
        with ProgressReporter() as progress:
            found = check_data(config, progress=progress.reading)
    except EpochalError as error:
        yield Check("run", "problem", str(error))
        return
    for field, one in found.data.items():
        bad = len(one["bad"])
        text = f"{field}: {one['samples']:,} samples" + (f", {bad:,} of them bad" if bad else "")
        yield Check(
            "data", "warning" if bad else "ok", text,
            "`epochal data check` lists them; loader.on_bad_sample: quarantine leaves them out"
            if bad else "",
        )  # fmt: skip
    for text in found.refused:
        yield Check("run", "problem", text)
    for text in found.notes:
        yield Check("run", "warning", text)
    if not found.refused:
        yield Check("run", "ok", "model, loss and step take the first samples")
