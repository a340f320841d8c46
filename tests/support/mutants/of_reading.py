"""Faults of what reads runs and tells of them: pages, pictures, MLflow, goodput."""

from support.mutants.mutant import Mutant, of

MUTANTS: tuple[Mutant, ...] = (
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
            "marker-for-any-frequency",
            'suffixes = self._log_every.suffixes if "updates" in record.artifacts else ("all",)',
            'suffixes = ("all",)',
        ),
    ),
    *of(
        "tasks/tracking/points.py",
        "test_points.py",
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
        ("times-step-at-anchors", "* gone_U // whole_U", "* (gone_U // whole_U)"),
        ("half-a-bucket-is-sent", "[1] <= updates_done]", "[1] > 0]"),
        ("greatest-left-out", "first_N | last_N |", "first_N |"),
        ("zeros-sent", "wanted_N &= ~(rare_N & (value_N == 0))", "pass"),
    ),
    *of(
        "tasks/tracking/background.py",
        "test_background.py",
        ("pictures-that-failed-are-left-to-others-again", "here=owed", "here=False"),
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
        "tasks/report/page/charts/lines.py",
        "test_lines.py",
        (
            "band-of-the-lowest-values-twice",
            "source.add(compact(curve.high), high)",
            "source.add(compact(curve.low), high)",
        ),
        (
            "line-of-the-highest-values",
            "source.add(compact(curve.mean), mean)",
            "source.add(compact(curve.high), mean)",
        ),
    ),
    *of(
        "tasks/report/page/charts/plot.py",
        "test_plot.py",
        (
            "models-numbered-on-from-page-to-page",
            'numbers.setdefault(own, f"p{len(numbers)}")',
            "numbers.setdefault(own, own)",
        ),
    ),
    *of(
        "tasks/report/page/curves.py",
        "test_curves.py",
        (
            "curve-an-epoch-early",
            "curve.add(float(ends[row.epoch]), value)",
            "curve.add(float(row.epoch), value)",
        ),
        ("epoch-at-work-does-not-move", "open_.epoch + done / whole", "open_.epoch"),
    ),
    *of(
        "tasks/runs/open_epoch.py",
        "test_open_epoch.py",
        (
            "commit-on-another-checkpoint",
            "if consumed_others(stage, consumed, run.records):",
            "if consumed is None:",
        ),
        ("commit-made-first-counts", "last = max(listed", "last = min(listed"),
        ("deleted-commit-ends-the-search", "for _ in range(TRIES):", "for _ in range(1):"),
    ),
    *of(
        "tasks/why/batch.py",
        "test_view.py",
        (
            "samples-since-the-epochs-start",
            "start, end = (int(ends_U[row - 1]) if row else 0), int(ends_U[row])",
            "start, end = 0, int(ends_U[row])",
        ),
        ("repeats-are-all-first", "np.arange(len(ids_N)) - begin_N", "begin_N * 0"),
    ),
    *of(
        "tasks/report/page/charts/curve.py",
        "test_curve.py",
        (
            "thinned-without-the-lowest",
            "np.minimum.reduceat(self.low, starts_B)",
            "np.maximum.reduceat(self.low, starts_B)",
        ),
    ),
    *of(
        "tasks/report/page/lineage.py",
        "test_lineage.py",
        (
            "an-epoch-of-each-run",
            "if place == number and epoch in drawn:",
            "if epoch in drawn:",
        ),
    ),
    *of(
        "tasks/report/page/html.py",
        "test_html.py",
        ("nothing-escaped", "autoescape=True", "autoescape=False"),
        ("a-script-that-ends-early", '.replace("<", "\\\\u003c")', ""),
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
