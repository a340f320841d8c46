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
        ("drop-last-in-no-key", '            "drop_last": config.loader.drop_last,\n', ""),
        (
            "optimizer-is-not-consumed",
            '("model", "optimizer", "state", "ema", *COMPANIONS)',
            '("model", "ema", *COMPANIONS)',
        ),
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
        "tasks/goodput/stopwatch.py",
        "test_stopwatch.py",
        ("outer-phase-is-forgotten", "self._watch.switch(self._outer)", "pass"),
        ("time-counts-for-what-comes", "self._spent[self._now] +=", "self._spent[cause] +="),
        (
            "a-restart-counts-on",
            "        self._spent = dict.fromkeys(CAUSES, 0)\n        return spent",
            "        return spent",
        ),
    ),
    *of(
        "tasks/goodput/totals.py",
        "test_totals.py",
        ("lost-is-forgotten-before", "round(spent.get(cause, 0.0) + max", "round(max"),
        ("losses-below-nothing", "max(0.0, added)", "added"),
        ("foreign-causes-vanish", "    if foreign:\n", "    if False:\n"),
        ("negative-seconds", "and 0 <= value <= most", "and value <= most"),
    ),
    *of(
        "tasks/goodput/stage.py",
        "test_stage.py",
        (
            "lost-by-any-commit",
            "known = self._last is not None and name in self._last.commits",
            "known = self._last is not None",
        ),
        ("sign-of-another-stage", "self._last.key != key:", "False:"),
        (
            "samples-without-seconds",
            "samples=self._rows - self._rows_before,",
            "samples=self._rows,",
        ),
        (
            "tries-without-a-commit-uncounted",
            "before, resumed=last.resumed, unknown_losses",
            "before, unknown_losses",
        ),
        (
            "a-failed-try-is-no-loss",
            "self._last = None if self._handed_over else self._sign()",
            "self._sign()",
        ),
        (
            "a-commit-on-the-way-out-is-lost",
            "with_lost(before, lost, commit_seconds=committed)",
            "with_lost(before, lost + committed)",
        ),
    ),
    *of(
        "tasks/goodput/run.py",
        "test_run.py",
        ("unknown-stages-uncounted", "len(done) - len(known)", "0"),
        (
            "stages-share-a-name",
            'f"goodput/{record.stage}_stage_seconds"',
            '"goodput/stage_seconds"',
        ),
    ),
    *of(
        "tasks/tracking/exporter.py",
        "test_background.py",
        ("points-sent-twice", "if not self._run.holds(row)]", "if True]"),
    ),
    *of(
        "tasks/tracking/exporter.py",
        "test_exporter.py",
        (
            "last-update-thinned-out",
            "        wanted_N |= step_N == updates_done\n",
            "        pass\n",
        ),
        (
            "steps-of-another-epoch",
            "if len(step_N) and not done - updates <",
            "if len(step_N) and not done - updates - 1 <",
        ),
        (
            "marker-for-any-frequency",
            'suffix = self._log_every.suffix if "updates" in record.artifacts else "all"',
            'suffix = "all"',
        ),
        ("times-step-at-anchors", "* gone_U // whole_U", "* (gone_U // whole_U)"),
    ),
    *of(
        "tasks/tracking/background.py",
        "test_background.py",
        ("pictures-that-failed-are-left-to-others-again", "here=owed", "here=False"),
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
        "tasks/runs/run_plans.py",
        "test_run_plans.py",
        (
            "agrees-with-some-plan",
            "if all(_agree(keys, plan) for plan in plans)]",
            "if any(_agree(keys, plan) for plan in plans)]",
        ),
        (
            "branch-keeps-its-number",
            "max(plan.generation for plan in known) + 1",
            "max(plan.generation for plan in known)",
        ),
        ("average-makes-a-generation", '.when != "end"', '.when != "epoch"'),
        ("source-outside-the-folder", 'or {"", ".", ".."} & {*name.split("/")}', ""),
    ),
    *of(
        "tasks/runs/survey.py",
        "test_survey.py",
        (
            "leftovers-stay",
            "                stage_store.store.delete(path)\n",
            "                pass\n",
        ),
        (
            "pruned-and-needed-is-done",
            "        if parent.known_key in records\n",
            "        if False\n",
        ),
    ),
    *of(
        "tasks/runs/warm_start.py",
        "test_warm_start.py",
        ("pruned-weights-are-found", 'if "model" in statuses[record.key].pruned:', "if False:"),
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
    *of(
        "tasks/report/figures.py",
        "test_figures.py",
        ("data-map-upside-down", "ylim=(-0.02, 1.02))", "ylim=(1.02, -0.02))"),
        (
            "shares-of-the-largest-state",
            "{count / sum(count_S):.1%}",
            "{count / max(count_S):.1%}",
        ),
        (
            "class-named-by-its-place",
            'label=f"class {shares.labels_C[place]}"',
            'label=f"class {number}"',
        ),
        (
            "left-out-instead-of-kept",
            "shares.share_KC[:, place], color",
            "1 - shares.share_KC[:, place], color",
        ),
        (
            "least-kept-at-the-top",
            "np.argsort(-_mean_of_known(share_CK",
            "np.argsort(_mean_of_known(share_CK",
        ),
        (
            "lacking-class-counts-as-zero",
            ".sum(axis=axis) / np.maximum(count, 1)",
            ".mean(axis=axis)",
        ),
    ),
    *of(
        "tasks/report/tables.py",
        "test_tables.py",
        ("epoch-that-planned", "epochs_E=[epoch + 1 for", "epochs_E=[epoch for"),
        ("share-of-all-samples", "/ count[has_samples]", "/ count.sum()"),
    ),
    *of(
        "tasks/report/contact_sheet.py",
        "test_contact_sheet.py",
        (
            "images-upside-down",
            "extent=(x - wide, x + wide, y - high, y + high)",
            "extent=(x - wide, x + wide, y + high, y - high)",
        ),
        (
            "texts-of-other-images",
            "enumerate(zip(images, texts, strict=True))",
            "enumerate(zip(images, texts[::-1], strict=True))",
        ),
    ),
    *of(
        "tasks/report/landscape_figure.py",
        "test_landscape_figure.py",
        (
            "directions-swapped",
            "contourf(axis_P, axis_P, heights_PP,",
            "contourf(axis_P, axis_P, heights_PP.T,",
        ),
        (
            "ticks-say-logarithms",
            'return f"{10**height if self.logarithmic else height:.3g}"',
            'return f"{height:.3g}"',
        ),
    ),
    *of(
        "tasks/report/svg_chart.py",
        "test_svg_chart.py",
        (
            "chart-upside-down",
            "return BOTTOM - share * (BOTTOM - TOP)",
            "return TOP + share * (BOTTOM - TOP)",
        ),
        ("band-crosses-itself", "*reversed(low)", "*low"),
        (
            "line-of-the-highest-values",
            "mean = _places(frame, curve.x, curve.mean)",
            "mean = _places(frame, curve.x, curve.high)",
        ),
    ),
    *of(
        "tasks/report/curves.py",
        "test_curves.py",
        (
            "curve-an-epoch-late",
            "curve.x.append(float(row.epoch))",
            "curve.x.append(float(row.epoch + 1))",
        ),
    ),
    *of(
        "tasks/report/page.py",
        "test_page.py",
        ("dark-where-it-is-light", "for png in (light, dark)", "for png in (dark, light)"),
        ("nothing-escaped", "autoescape=True", "autoescape=False"),
    ),
    *of(
        "tasks/upkeep.py",
        "test_upkeep.py",
        (
            "last-checkpoint-is-pruned",
            "trained[-checkpoint.keep_last :]",
            "trained[-checkpoint.keep_last : -1]",
        ),
        ("best-checkpoint-is-pruned", "kept |= {best.epoch for best in ranked}", "pass"),
        (
            "record-is-removed-last",
            'not name.endswith("/record.json")',
            'name.endswith("/record.json")',
        ),
        ("anothers-upload-is-aborted", 'one.path.split("/")[0] in _FOLDERS', "True"),
        ("running-upload-is-aborted", "24 * 3600.0", "0.0 * 3600.0"),
        (
            "lost-plan-loses-stages",
            "(parts[1] not in needed and not lost)",
            "(parts[1] not in needed)",
        ),
    ),
)
