"""Faults of tasks/."""

from support.mutants.mutant import Mutant, of

MUTANTS: tuple[Mutant, ...] = (
    *of(
        "tasks/planning/early_stopping.py",
        "test_early_stopping.py",
        ("standing-still-improves", "> best + config.min_delta", ">= best + config.min_delta"),
        ("waits-from-the-first-epoch", "if epoch < config.start:", "if epoch <= config.start - 2:"),
    ),
    *of(
        "tasks/planning/run_view.py",
        "test_run_view.py",
        (
            "whole-run-was-stopped",
            "last >= self.config.epochs - 1 else last",
            "last >= self.config.epochs else last",
        ),
        (
            "later-validations-decide",
            "                if record is None:\n                    break\n",
            "                if record is None:\n                    continue\n",
        ),
        ("worst-epoch-is-the-best", '== "min" else -1', '!= "min" else -1'),
    ),
    *of(
        "tasks/stages/average.py",
        "test_registry.py test_average_rule.py",
        (
            "worst-epochs-are-averaged",
            'sign = 1 if direction == "min" else -1',
            'sign = -1 if direction == "min" else 1',
        ),
        (
            "chosen-before-all-is-validated",
            "_stopped_after(stage, records) is not None or all(",
            "_stopped_after(stage, records) is not None or any(",
        ),
        (
            "averaged-model-is-not-consumed",
            'loads=lambda stage, role, records: ("model", *COMPANIONS)',
            "loads=lambda stage, role, records: ()",
        ),
    ),
    *of(
        "tasks/planning/plateau.py",
        "test_plateau_in_runs.py",
        (
            "early-epochs-know-the-rule",
            "if schedule is None or epoch < schedule.first_lowered:",
            "if schedule is None:",
        ),
        ("warm-up-counts", "        if stage.number >= schedule.first_seen\n", ""),
        (
            "metric-is-keyed-without-its-code",
            'with_source(run_inputs, f"metrics.{own.name}", own',
            'with_source(run_inputs, "", own',
        ),
    ),
    *of(
        "tasks/planning/run_length.py",
        "test_run_length.py",
        (
            "whole-epoch-is-cut",
            "left if 0 < left < per_epoch else None",
            "left if 0 < left <= per_epoch else None",
        ),
        (
            "accumulation-from-the-start",
            "turn = min(config.gradients.accumulate_from, epoch)",
            "turn = 0",
        ),
        (
            "last-epoch-left-out",
            "early = -(-config.max_updates // first)",
            "early = config.max_updates // first",
        ),
    ),
    *of(
        "tasks/planning/inputs.py",
        "../stages/test_registry.py",
        ("metrics-source-in-no-key", 'if name.startswith("metrics."):', "if False:"),
    ),
    *of(
        "tasks/stages/train.py",
        "test_registry.py",
        ("optimizer-is-not-consumed", '"parent": CHECKPOINT,', '"parent": ("model", "ema"),'),
        ("batch-rule-in-no-key", 'inputs["sampling.batch"] = rule', "pass"),
    ),
    *of(
        "tasks/stages/validate.py",
        "test_registry.py",
        ("average-is-not-consumed", 'records: ("model", "ema",', 'records: ("model",'),
    ),
    *of(
        "tasks/stages/mine.py",
        "test_registry.py",
        (
            "mined-for-the-epoch-before",
            "phase = config.sampling.phase(epoch + 1, epochs=config.epochs)",
            "phase = config.sampling.phase(epoch, epochs=config.epochs)",
        ),
        (
            "scores-of-an-older-pass",
            'listing.newest("score", epoch=epoch)',
            'listing.newest("score")',
        ),
        (
            "share-of-suspects-is-a-count",
            'values["suspects"] / values["samples"]',
            'values["suspects"]',
        ),
    ),
    *of(
        "tasks/stages/kind.py",
        "test_registry.py",
        (
            "parents-in-no-key",
            "[kind.version, epoch, inputs, keys]",
            "[kind.version, epoch, inputs]",
        ),
        ("key-of-unread-data", "if not unread and all(", "if all("),
    ),
    *of(
        "tasks/checkpoints/end_of_epoch.py",
        "test_end_of_epoch.py",
        ("average-is-not-stored", "    if parts.ema:\n", "    if False:\n"),
    ),
    *of(
        "tasks/checkpoints/mid_epoch_codec.py",
        "../computing/test_saver.py",
        ("average-in-no-mid-epoch-commit", "        _EMA: parts.ema,\n", "        _EMA: {},\n"),
    ),
    *of(
        "tasks/computing/saver.py",
        "test_saver.py",
        (
            "nothing-new-is-committed",
            "if progress.micro_steps > self._last_micro_steps:",
            "if True:",
        ),
    ),
    *of(
        "tasks/checkpoints/commit_writer.py",
        "test_commit_writer.py",
        (
            "error-of-the-thread-is-lost",
            "            self.error = error\n",
            "            pass\n",
        ),
        (
            "commit-of-a-done-epoch-stays",
            "                commits.clear()\n",
            "                pass\n",
        ),
    ),
    *of(
        "tasks/checkpoints/mid_epoch_restore.py",
        "test_mid_epoch_restore.py",
        ("updates-that-end-elsewhere", "!= (updates, ends):", "!= (updates, epoch.update_ends):"),
        (
            "observations-of-fewer-samples",
            "column_N.shape != (samples,)",
            "column_N.shape > (samples,)",
        ),
        (
            "gradient-of-another-shape",
            "if name not in named or gradient.shape != named[name].shape:",
            "if name not in named:",
        ),
    ),
    *of(
        "tasks/computing/buffer.py",
        "test_buffer.py",
        ("arrays-lie-in-the-last-file", "end = _next_page(end + size)", "end = _next_page(end)"),
    ),
    *of(
        "tasks/running/run_pictures.py",
        "test_pictures_process.py",
        ("pictures-of-a-run-at-work", "and now.info.status == FINISHED", "and True"),
        ("pictures-of-a-superseded-run", "== identity != tags.get", "!= tags.get"),
        (
            "pictures-written-whatever-has-come",
            "            if not _is_due(",
            "            if 0 and not _is_due(",
        ),
    ),
    *of(
        "tasks/running/pictures_process.py",
        "test_pictures_process.py",
        ("drawing-ends-with-the-terminal", "start_new_session=True", "start_new_session=False"),
        ("no-images-for-the-process", "arrays += read", "arrays += read[:0]"),
    ),
    *of(
        "tasks/running/lifecycle.py",
        "test_lifecycle.py",
        ("prepared-run-is-used-twice", "run is None or run.tracker is not None:", "run is None:"),
    ),
    *of(
        "tasks/running/run.py",
        "../../robustness/test_damaged_artifacts.py",
        (
            "repaired-without-end",
            "if not lost or any(parent.known_key in repaired for parent in lost):",
            "if not lost:",
        ),
        ("lost-stage-counts-twice", "self.outcomes[:] = [told", "_ = [told"),
    ),
    *of(
        "tasks/checkpoints/warm_start.py",
        "../runs/test_warm_start.py",
        (
            "weights-changed-meanwhile",
            "if sha256 is not None and file_sha256(path) != sha256:",
            "if False:",
        ),
    ),
    *of(
        "tasks/config/run.py",
        "test_run.py",
        (
            "updates-with-a-changing-number",
            "elif gradients.accumulate > 1 and gradients.accumulate_from > 0:",
            "elif False:",
        ),
        ("stopping-by-no-metric", "if metric not in measured:", "if not measured:"),
    ),
    *of(
        "tasks/config/parts.py",
        "test_run.py",
        (
            "pickle-in-capitals",
            "PurePosixPath(source).suffix.lower()",
            "PurePosixPath(source).suffix",
        ),
        (
            "average-of-more-than-there-are",
            "if self.count > epochs:",
            "if self.count > epochs + 1:",
        ),
    ),
    *of(
        "tasks/config/yaml_reader.py",
        "test_yaml_reader.py",
        ("last-of-two-keys-wins", "        if key in data:\n", "        if False:\n"),
    ),
)
