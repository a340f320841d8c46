"""Which run a person means: a config's path, a name in a store, or `STORE/NAME`.

Names are looked up in the store that is given, else in `EPOCHAL_STORE`, else in the stores that
runs on this machine have used, newest first (`~/.epochal/stores.json`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from epochal.data.errors import CorruptObject, EpochalError, InputError, NotFound
from epochal.data.stage_store.stages import StageRecord, StageStore
from epochal.data.store.addresses import local_folder, scheme_of
from epochal.data.store.open import open_store
from epochal.data.store.store import Store
from epochal.tasks.config.load import load_config
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.run_view import RunView
from epochal.tasks.planning.stage import Stage
from epochal.tasks.private_files import private_file, private_folder
from epochal.tasks.runs.described import described_plan, unreadable
from epochal.tasks.runs.lookup import look_up, records_of
from epochal.tasks.runs.run_plans import RunPlan, find_plan, generations, run_names

MAX_STORES = 50
MAX_NAMED_STORES = 3
CONFIG_SUFFIXES = frozenset({".yaml", ".yml", ".json"})


@dataclass(frozen=True)
class FoundRun(RunView):
    """A run in a store: its newest plan, and the stages up to where early stopping ended it.

    own: the config file that the user named, else None. Without it `config` is only what the store
    says: code that a store names is never run, so what needs code (images, losses) needs `own`.
    """

    store: Store
    stage_store: StageStore
    plan: RunPlan
    own: RunConfig | None = None


def found_run(
    plan: RunPlan,
    config: RunConfig,
    stage_store: StageStore,
    records: dict[str, StageRecord],
    *,
    own: RunConfig | None = None,
) -> FoundRun:
    """The run of that plan. config: one with the stages of the plan."""
    run = RunView(config, plan.listed_stages(config), records)
    return FoundRun(
        config,
        run.needed,
        records,
        store=stage_store.store,
        stage_store=stage_store,
        plan=plan,
        own=own,
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


def find_run(
    reference: str,
    *,
    store: str | None = None,
    overrides: Sequence[str] = (),
    notice: Callable[[str], None] = lambda _: None,
) -> FoundRun:
    """The run that `reference` names: `config.yaml`, `name`, `name@2` or `STORE/name`.

    A config's path names the generation that the config describes, with `overrides` applied; a name
    alone the one that was planned last. store: to look in, whatever the reference says. notice: is
    told where code or data of a config have changed since.

    Raises NotFound, saying where it was looked for and what is there.
    """
    if is_config(reference):
        config = load_config(reference, overrides=overrides)
        opened = (
            open_store(config.store, folder=Path(config.folder))
            if store is None
            else _store_at(store)
        )
        return _as_described(opened, config, notice)
    if overrides:
        raise InputError(
            f"--set {overrides[0]}: it changes a config, and {reference!r} names a run; name the "
            "run by its config's path, or give NAME@GENERATION"
        )
    if "/" in reference:
        if store is not None:
            raise InputError(
                f"--store {store}: {reference!r} names a store too; leave one of the two out"
            )
        place, _, name = reference.rstrip("/").rpartition("/")
        opened = _store_at(place)
        return _found(opened, find_plan(opened, name))
    if store is not None or "EPOCHAL_STORE" in os.environ:
        opened = _store_at(store or os.environ["EPOCHAL_STORE"])
        return _found(opened, find_plan(opened, reference))
    return _search(reference)


def stored_runs(store: Store, *, notice: Callable[[str], None]) -> list[FoundRun]:
    """Each generation of each run of the store; `notice` is told of those that cannot be read.

    A stage that several share is looked up once.
    """
    planned: list[tuple[RunPlan, RunConfig, list[Stage]]] = []
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
                plan = find_plan(store, reference)
                config = _config_of(plan)
                planned.append((plan, config, plan.listed_stages(config)))
            except (InputError, CorruptObject) as error:
                notice(f"run {reference} is passed over: {error}")
    stage_store = StageStore(store)
    stages = {stage.known_key: stage for _, _, listed in planned for stage in listed}
    records = records_of(look_up(stage_store, stages, stages=stages.values()))
    return [
        found_run(
            plan,
            config,
            stage_store,
            {stage.known_key: records[stage.known_key] for stage in listed if stage.key in records},
        )
        for plan, config, listed in planned
    ]


def _config_of(plan: RunPlan) -> RunConfig:
    config = plan.run_config()
    if config is None:
        raise NotFound(unreadable(plan))
    return config


def is_config(reference: str) -> bool:
    """Whether a person means a config's path by it, and not the name of a run."""
    return Path(reference).suffix.lower() in CONFIG_SUFFIXES


def named_store(reference: str) -> Store:
    """The store at that address, or the one that the config at that path names.

    Raises NotFound where a store on this machine is not there. An object store knows no folders:
    there a store that is not there is an empty one.
    """
    if is_config(reference):
        config = load_config(reference)
        store = open_store(config.store, folder=Path(config.folder))
        cure = f"`epochal train {reference}` makes it"
    else:
        store = _store_at(reference)
        cure = "expected the address of a store, or the path of a config"
    if scheme_of(store.url) == "file" and not (folder := local_folder(store.url)).is_dir():
        raise NotFound(f"{reference}: there is no store at {folder}; {cure}")
    return store


def _store_at(reference: str) -> Store:
    """The store that a person types: an address, or a folder that there is, `runs/store` too.

    A config says `./runs/store`: what it names need not be there yet.
    """
    here = Path.cwd()
    is_folder = not reference.startswith("~") and (here / reference).is_dir()
    return open_store(f"file://{here / reference}" if is_folder else reference, folder=here)


def _as_described(store: Store, config: RunConfig, notice: Callable[[str], None]) -> FoundRun:
    described = described_plan(store, config)
    plan = described.plan
    if described.changed:
        notice(
            f"{plan.reference} is what this config describes, but for what has changed since it "
            f"was planned: {'; '.join(described.changed)}"
        )
    # What is in no key, such as the metric that is best by, is as the config says it now.
    view = described.config if described.exact else None
    return _found(store, plan, config=view, own=config)


def _search(reference: str) -> FoundRun:
    tried = []
    beside = Path.cwd() / "store"
    urls = ([f"file://{beside}"] if beside.is_dir() else []) + known_stores()
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


def _found(
    store: Store, plan: RunPlan, *, config: RunConfig | None = None, own: RunConfig | None = None
) -> FoundRun:
    config = _config_of(plan) if config is None else config
    stage_store = StageStore(store)
    stages = plan.listed_stages(config)
    statuses = look_up(stage_store, [stage.known_key for stage in stages], stages=stages)
    return found_run(plan, config, stage_store, records_of(statuses), own=own)
