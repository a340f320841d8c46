"""Which run a person means: a config's path, a name in a store, or `STORE/NAME`.

Names are looked up in the store that is given, else in `EPOCHAL_STORE`, else in the stores that
runs on this machine have used, newest first (`~/.epochal/stores.json`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from epochal.data.errors import CorruptObject, EpochalError, InputError, NotFound
from epochal.data.stage_store.stages import StageRecord, StageStore
from epochal.data.store.open import open_store
from epochal.data.store.store import Store
from epochal.tasks.config.load import load_config
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.run_view import RunView
from epochal.tasks.private_files import private_file, private_folder
from epochal.tasks.runs.lookup import look_up, records_of
from epochal.tasks.runs.run_plans import RunPlan, find_plan, generations, run_names

MAX_STORES = 50
MAX_NAMED_STORES = 3


@dataclass(frozen=True)
class FoundRun(RunView):
    """A run in a store: its newest plan, and the stages up to where early stopping ended it.

    own: the config file that the user named, else None. `config` is only what the store says: code
    that a store names is never run, so what needs code (images, losses) needs `own`.
    """

    store: Store
    stage_store: StageStore
    plan: RunPlan
    own: RunConfig | None = None


def found_run(
    plan: RunPlan, config: RunConfig, stage_store: StageStore, records: dict[str, StageRecord]
) -> FoundRun:
    """The run of that plan. config: that of the plan."""
    run = RunView(config, plan.listed_stages(config), records)
    return FoundRun(
        config, run.needed, records, store=stage_store.store, stage_store=stage_store, plan=plan
    )


def stores_file() -> Path:
    """Where the stores that were used are remembered."""
    return Path.home() / ".epochal" / "stores.json"


def known_stores() -> list[str]:
    """Stores that runs on this machine have used, newest first."""
    try:
        urls = json.loads(stores_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []  # the list is a convenience: `--store` names a store too
    return [url for url in urls if isinstance(url, str)] if isinstance(urls, list) else []


def remember_store(url: str) -> None:
    """Puts `url` first among the stores that names are looked up in."""
    known = known_stores()
    if known[:1] == [url]:
        return
    urls = [url, *(other for other in known if other != url)][:MAX_STORES]
    path = stores_file()
    private_folder(path.parent)
    temporary = private_file(path.with_name(f"{path.name}.{os.getpid()}"))
    temporary.write_text(json.dumps(urls, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def find_run(reference: str, *, store: str | None = None) -> FoundRun:
    """The run that `reference` names: `config.yaml`, `name`, `name@2` or `STORE/name`.

    store: where it is; else where the config says, or where names are looked up.

    Raises NotFound, saying where it was looked for.
    """
    here = Path.cwd()
    path = Path(reference)
    if path.suffix in {".yaml", ".yml"}:
        config = load_config(path)
        opened = (
            open_store(config.store, folder=Path(config.folder))
            if store is None
            else open_store(store, folder=here)
        )
        return replace(_found(opened, find_plan(opened, config.name)), own=config)
    if store is not None or "EPOCHAL_STORE" in os.environ:
        opened = open_store(store or os.environ["EPOCHAL_STORE"], folder=here)
        return _found(opened, find_plan(opened, reference))
    if "/" in reference:
        place, _, name = reference.rstrip("/").rpartition("/")
        opened = open_store(place, folder=here)
        return _found(opened, find_plan(opened, name))
    return _search(reference)


def stored_runs(store: Store, *, notice: Callable[[str], None]) -> list[FoundRun]:
    """Each generation of each run of the store; `notice` is told of those that cannot be read."""
    runs = []
    for name in run_names(store.listing("runs")):
        try:
            references = generations(store, name)
            if not references:
                notice(f"run {name} is passed over: it has no plan that can be read")
        except CorruptObject as error:
            notice(f"run {name} is passed over: {error}")
            continue
        for reference in references:
            try:
                runs.append(_found(store, find_plan(store, reference)))
            except (InputError, CorruptObject) as error:
                notice(f"run {reference} is passed over: {error}")
    return runs


def _search(reference: str) -> FoundRun:
    tried = []
    beside = Path.cwd() / "store"
    urls = ([beside.as_uri()] if beside.is_dir() else []) + known_stores()
    for url in dict.fromkeys(urls):
        try:
            opened = open_store(url, folder=Path.cwd())
            return _found(opened, find_plan(opened, reference))
        except EpochalError:
            tried.append(url)  # another store may have it; the first that were tried are named
    more = f" and {len(tried) - MAX_NAMED_STORES} more" * (len(tried) > MAX_NAMED_STORES)
    looked = (
        f"looked in {', '.join(tried[:MAX_NAMED_STORES])}{more}"
        if tried
        else "no run has used a store here yet"
    )
    raise NotFound(
        f"there is no run {reference!r} ({looked}); name its store: --store STORE, or give the "
        "path of its config"
    )


def _found(store: Store, plan: RunPlan) -> FoundRun:
    config = plan.run_config()
    if config is None:
        raise NotFound(
            f"{plan.reference} was planned by another version of epochal, whose config this one "
            "does not read; use that version"
        )
    stage_store = StageStore(store)
    stages = plan.listed_stages(config)
    statuses = look_up(stage_store, [stage.known_key for stage in stages], stages=stages)
    return found_run(plan, config, stage_store, records_of(statuses))
