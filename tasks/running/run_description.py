"""What MLflow shows of a run beside its numbers: parameters, differences, origin, data sets.

A run is to be told from others at a glance: by its name, by the parameters that somebody has set,
and by a description that says what it branched from and where it came from.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from epochal.data.config.loader import DataConfig
from epochal.data.hashing import bytes_sha256
from epochal.data.secrets import masked
from epochal.data.store.store import Store
from epochal.data.types import in_json
from epochal.tasks.config.run import RunConfig, flatten
from epochal.tasks.planning.stage import DatasetFacts, RunInputs
from epochal.tasks.runs.explain import change
from epochal.tasks.runs.run_plans import RunPlan, newest_plan
from epochal.tasks.tracking.mlflow_run import About, DataEntry
from epochal.tasks.tracking.model_example import NUMPY_TYPES
from epochal.tasks.user_code.loaded_modules import code_files
from epochal.tasks.user_code.source_digests import UserSource, source_sha256

if TYPE_CHECKING:
    from epochal.data.inspection.dataset import OpenDataset

NOT_PARAMETERS = (
    "name", "epochs", "max_updates", "early_stopping", "averaging", "store", "checkpoint",
    "tracking", "launch", "device", "threads", "reproducibility",
    "folder", "targets_allowed", "loader.workers", "loader.threads", "loader.prefetch",
    "gradients.per_group", "metrics.best", "sampling.final_full",
)  # fmt: skip
"""Fields that may change within a generation: MLflow refuses a parameter that changes."""
ALWAYS = frozenset({"seed", "loader.batch_size", "sampling.policy"})
"""Shown whether set or not: what runs are compared by."""
TITLE_CHANGES = 2
MAX_TITLE_VALUE = 24
MAX_CLASS_NAMES = 50
GIT_S = 3.0
"""How long git may take, in a thread that nobody waits for."""


def parameters(config: RunConfig) -> dict[str, str]:
    """The fields that act on numbers and that somebody has set, flat, as MLflow's parameters."""
    return {
        path: value if isinstance(value, str) else str(value)
        for path, value in flatten(_set_fields(config))
        if not _changes(path)
    }


def _changes(path: str) -> bool:
    return any(path == name or path.startswith(f"{name}.") for name in NOT_PARAMETERS)


def _set_fields(config: RunConfig) -> dict[str, Any]:
    """The config without what is as usual; what a file has set stands in it in any case.

    A config that came from a form or a plan has every field set: then only other values count.
    """
    whole = config.model_dump(mode="json")
    wanted = {path for path, _ in flatten(config.model_dump(mode="json", exclude_defaults=True))}
    written = config.model_fields_set != set(type(config).model_fields)
    if written:
        wanted |= {path for path, _ in flatten(config.model_dump(mode="json", exclude_unset=True))}
    sections = {path.rpartition(".")[0] for path in wanted} - {""}
    wanted |= {f"{section}.kind" for section in sections} | ALWAYS
    return _only(whole, wanted, "")


def _only(value: dict[str, Any], wanted: set[str], prefix: str) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, item in value.items():
        leaves = [path for path, _ in flatten({name: item}, prefix)]
        below = f"{prefix}.{name}" if prefix else name
        if isinstance(item, dict) and item and leaves != [below]:
            inside = _only(item, wanted, below)
            if inside:
                kept[name] = inside
        elif set(leaves) & wanted:
            kept[name] = item
    return kept


def config_files(config: RunConfig) -> dict[str, bytes]:
    """`config.yaml` with what is set, which `epochal train` takes, and `config_all.yaml`."""
    given = {name: value for name, value in _set_fields(config).items() if name != "folder"}
    return {
        "config.yaml": _yaml(given),
        "config_all.yaml": _yaml(config.model_dump(mode="json")),
    }


def _yaml(value: Any) -> bytes:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).encode()


def source_files(config: RunConfig, run_inputs: RunInputs) -> dict[str, bytes]:
    """`sources/…`: the user's files that the run's targets run, as far as they are as they were."""
    folder = Path(config.folder)
    wanted = {name: sha256 for of in run_inputs.sources.values() for name, sha256 in of.items()}
    files: dict[str, bytes] = {}
    for name, path in code_files(UserSource(), wanted, folder=folder).items():
        data = read_as_it_was(path, name, wanted[name])
        if data is not None:
            files[f"sources/{name}"] = data
    return files


def read_as_it_was(path: Path, name: str, sha256: str) -> bytes | None:
    """The file's bytes, or None where it is not the one of that digest any more."""
    try:
        data = path.read_bytes()
        # Versions before this one took the digest of the text.
        return data if sha256 in {bytes_sha256(data), source_sha256(name, data)} else None
    except (OSError, SyntaxError, ValueError):
        return None


@dataclass(frozen=True)
class Change:
    """A field that differs from the run that this one branched from. None: not set, or code."""

    field: str
    old: Any
    new: Any

    @property
    def line(self) -> str:
        """`optimizer.args.lr: 0.002 → 0.004`."""
        if self.old is None and self.new is None:
            return f"{self.field}: changed"
        return change(self.field, self.old, self.new)

    @property
    def short(self) -> str:
        """`lr=0.004`, as a run's name has room for it."""
        name = self.field.rpartition("/" if "/" in self.field else ".")[2] or self.field
        if self.old is None and self.new is None:
            return self.field
        text = masked(self.new if isinstance(self.new, str) else json.dumps(self.new))
        return (
            f"{name}={text if len(text) <= MAX_TITLE_VALUE else text[: MAX_TITLE_VALUE - 1] + '…'}"
        )


def changes(store: Store, plan: RunPlan) -> tuple[Change, ...]:
    """What differs from the generation that the plan's branched from; empty if it is the first."""
    name, _, generation = (plan.branched_from or "").partition("@")
    if not generation.isdecimal():
        return ()
    parent = newest_plan(store, name, generation=int(generation))
    if parent is None:
        return ()
    old, new = _acting(parent), _acting(plan)
    fields = [
        Change(path, old.get(path), new.get(path))
        for path in dict.fromkeys([*new, *old])
        if old.get(path) != new.get(path)
    ]
    before, now = _sources(parent), _sources(plan)
    code = [name for name in sorted(before.keys() | now) if before.get(name) != now.get(name)]
    data = [
        name
        for name in ("train_data", "validation_data")
        if getattr(parent, name) != getattr(plan, name)
        and not any(change.field.startswith(f"{name}.") for change in fields)
    ]
    return (*fields, *(Change(name, None, None) for name in (*code, *data)))


def _acting(plan: RunPlan) -> dict[str, Any]:
    config = plan.run_config()
    body = plan.config if config is None else config.model_dump(mode="json")
    return {path: value for path, value in flatten(body) if not _changes(path)}


def _sources(plan: RunPlan) -> dict[str, str]:
    return {name: sha256 for of in plan.sources.values() for name, sha256 in of.items()}


def title(plan: RunPlan, differing: Sequence[Change]) -> str:
    """`digits`, and of a later generation `digits@2 · lr=0.004`."""
    if plan.generation == 1:
        return plan.run
    named = [one.short for one in differing[:TITLE_CHANGES]]
    more = len(differing) - TITLE_CHANGES
    return " · ".join([plan.reference, *named, *([f"+{more}"] if more > 0 else [])])


def git_tags(folder: Path) -> dict[str, str]:
    """MLflow's tags of the commit that `folder` is at; empty where it is in no git repository."""
    commit = git_answer(folder, "rev-parse", "HEAD")
    if not commit:
        return {}
    branch = git_answer(folder, "rev-parse", "--abbrev-ref", "HEAD")
    address = git_answer(folder, "config", "--get", "remote.origin.url")
    # Of the folder alone: a repository may hold a hundred thousand other files.
    changed = git_answer(folder, "status", "--porcelain", "--untracked-files=no", "--", ".")
    return {
        "mlflow.source.git.commit": commit,
        **({"mlflow.source.git.branch": branch} if branch and branch != "HEAD" else {}),
        **({"mlflow.source.git.repoURL": masked(address)} if address else {}),
        **({} if changed is None else {"epochal.git_changes": "yes" if changed else "no"}),
    }


def git_answer(folder: Path, *arguments: str) -> str | None:
    """What git says of a folder; None if it is in no repository, or git is not there or slow."""
    try:
        done = subprocess.run(  # noqa: S603 - words of ours, and the folder whose code runs anyway
            ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
            timeout=GIT_S,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):  # not there, a slow disk
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def note(
    config: RunConfig, plan: RunPlan, differing: Sequence[Change], *, origin: Mapping[str, str]
) -> str:
    """The run's description, as Markdown. origin: tags of git."""
    lines = [f"**{plan.reference}** of Epochal, in `{masked(config.store)}`"]
    if plan.branched_from is not None:
        lines.append(
            f"Branched from `{plan.branched_from}`: {plan.shared_epochs or 0} epochs shared."
        )
    if differing:
        lines += ["What differs from it:", "\n".join(f"- `{one.line}`" for one in differing[:20])]
    commit = origin.get("mlflow.source.git.commit")
    if commit is not None:
        changed = origin.get("epochal.git_changes") == "yes"
        lines.append(f"Commit `{commit[:12]}`{' with changes' if changed else ''}.")
    lines.append(
        f"Again, or further: `epochal train` with `config.yaml` (under Artifacts) in "
        f"`{config.folder}`; every point of every curve: `epochal report {plan.reference}`."
    )
    return "\n\n".join(lines)


def about_run(
    config: RunConfig, plan: RunPlan, run_inputs: RunInputs, store: Store, *, own_folder: bool
) -> About:
    """All of it. own_folder: whether `config.folder` is the user's own, so that it may be read."""
    differing = changes(store, plan)
    origin = git_tags(Path(config.folder)) if own_folder else {}
    files = config_files(config)
    return About(
        title=title(plan, differing),
        tags=origin,
        note=note(config, plan, differing, origin=origin),
        files={**files, **(source_files(config, run_inputs) if own_folder else {})},
    )


def data_entry(
    data: DataConfig, context: str, facts: DatasetFacts, *, opened: OpenDataset | None, form: Any
) -> DataEntry:
    """A data set as MLflow shows it. context: `train` or `validation`.

    opened: what is known of it, None where nobody has read it here. form: of its first item, as
    `data.inspection.item_form.form` has it, in JSON; None where it is not known.
    """
    return DataEntry(
        context=context,
        name=data.target,
        fingerprint=facts.fingerprint or "unknown",
        source={"target": data.target, "args": in_json(data.args)},
        profile=_profile(facts, opened),
        schema=_schema(form),
    )


def _profile(facts: DatasetFacts, opened: OpenDataset | None) -> dict[str, Any]:
    if opened is None:
        return {} if facts.num_samples is None else {"num_rows": facts.num_samples}
    info = opened.info
    profile: dict[str, Any] = {"num_rows": info.num_samples}
    if info.label_min is not None and info.label_max is not None:
        profile |= {"label_min": info.label_min, "label_max": info.label_max}
    if info.class_names is not None:
        profile |= {
            "num_classes": len(info.class_names),
            "class_names": info.class_names[:MAX_CLASS_NAMES],
        }
    if info.num_bad:
        profile["num_left_out"] = info.num_bad
    return profile


def _schema(form: Any) -> dict[str, Any]:
    """MLflow's form of what an item is made of; empty where it has none for it."""
    features, targets = form, None
    if isinstance(form, list) and len(form) == 2 and not _is_array(form):  # noqa: PLR2004 - a pair
        features, targets = form
    specs = _specs(features)
    if not specs:
        return {}
    wanted = _specs(targets)
    return {
        "mlflow_tensorspec": {
            "features": json.dumps(specs),
            "targets": json.dumps(wanted) if wanted else None,
        }
    }


def _specs(form: Any) -> list[dict[str, Any]]:
    """A tensor's, or those of a mapping of tensors; none of anything else."""
    if isinstance(form, dict):
        found = [(name, _specs(part)) for name, part in form.items()]
        if any(len(specs) != 1 or "name" in specs[0] for _, specs in found):
            return []
        return [{**specs[0], "name": str(name)} for name, specs in found]
    if form == "a number":
        return [_spec("int64", [])]
    if _is_array(form) and form[1] in NUMPY_TYPES:
        return [_spec(form[1], form[0])]
    return []


def _is_array(form: Any) -> bool:
    """Whether it is a shape and a type, as JSON has an `ArrayForm`."""
    return (
        isinstance(form, list | tuple)
        and len(form) == 2  # noqa: PLR2004 - a shape and a type
        and isinstance(form[1], str)
        and isinstance(form[0], list | tuple)
        and all(isinstance(length, int) for length in form[0])
    )


def _spec(dtype: str, shape: Any) -> dict[str, Any]:
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": [-1, *shape]}}
