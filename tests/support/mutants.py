"""The faults of `make mutants`: small changes of the source that its tests must find."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARTS = ("data", "engine", "tasks", "flows")


@dataclass(frozen=True)
class Mutant:
    """One fault: in `file`, `old` becomes `new`.

    first: the test files that are likeliest to find it, in the folder of the file's tests, which
    runs whole after them. A file of a floor itself, such as data/hashing.py, has these alone.
    """

    name: str
    file: str
    old: str
    new: str
    first: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where the tests of the file lie: the folder of its name, or else the one above."""
        folder = Path("tests") / Path(self.file).parent
        return folder if (ROOT / folder).is_dir() else folder.parent

    @property
    def selections(self) -> tuple[tuple[str, ...], ...]:
        """The arguments of pytest, one try after the other."""
        first = tuple(str(self.folder / name) for name in self.first)
        return (first,) if self.folder.name in PARTS else (first, (str(self.folder),))

    def problem(self, root: Path) -> str | None:
        """Why it cannot be planted in the source below `root`, or None."""
        try:
            count = (root / self.file).read_text().count(self.old)
        except FileNotFoundError:
            return f"{self.file} is not there"
        if count != 1:
            return f"its text occurs {count} times in {self.file}, expected once"
        missing = [name for name in self.first if not (root / self.folder / name).is_file()]
        return f"{self.folder / missing[0]} is not there" if missing else None


def _of(file: str, first: str, *faults: tuple[str, str, str]) -> list[Mutant]:
    """The mutants of one file: (name, old text, new text)."""
    return [Mutant(name, file, old, new, tuple(first.split())) for name, old, new in faults]


MUTANTS: tuple[Mutant, ...] = (
    # data
    *_of(
        "data/hashing.py",
        "test_hashing.py",
        ("digest-without-its-kind", '["epochal", kind, value]', '["epochal", value]'),
        ("digest-of-one-digit-more", "SIGNIFICANT_DIGITS = 12", "SIGNIFICANT_DIGITS = 13"),
        ("content-parts-not-framed", "{len(tag)}:{tag}:{view.nbytes}:", "{tag}:"),
        ("second-draw-like-the-first", "again = repeats_N > 0", "again = repeats_N > 1"),
    ),
    *_of(
        "data/store/retry.py",
        "test_retry.py",
        ("pause-never-grows", "min(2 * pause_s, MAX_PAUSE_S)", "min(pause_s, MAX_PAUSE_S)"),
        (
            "hurry-waits-as-long",
            "if self.hurried() else self.seconds",
            "if False else self.seconds",
        ),
        ("lost-answer-of-a-file", "and not source.exists():", "and source.exists():"),
    ),
    *_of(
        "data/store/store.py",
        "test_store.py test_store_intact_reads.py test_store_contract.py",
        (
            "wrong-at-the-first-read",
            "if self._read_before(path, bytes_sha256(data), wrong):",
            "if True:",
        ),
        ("other-wrong-bytes-are-damage-too", "if digest in wrong:", "if wrong:"),
        (
            "read-again-from-memory",
            "            self._backend.forget(path)\n",
            "            pass\n",
        ),
        ("reads-without-end", "if len(wrong) == MAX_READS:", "if False:"),
        ("overlong-object-is-read", "if len(data) > max_bytes:", "if len(data) > max_bytes + 1:"),
        (
            "old-probes-stay",
            "time.time() - int(left[1]) > PROBE_S",
            "time.time() - int(left[1]) < -PROBE_S",
        ),
        (
            "store-without-exclusive-puts",
            "            pass\n        else:\n            raise BadStore(",
            "            pass\n        if False:\n            raise BadStore(",
        ),
    ),
    *_of(
        "data/store/local.py",
        "test_local.py test_store_contract.py",
        ("put-replaces", "disk().link(source, target)\n", "os.replace(source, target)\n"),
        (
            "name-not-synced",
            "            raise\n        disk().sync(target.parent)",
            "            raise",
        ),
        (
            "bytes-not-synced",
            "            disk().sync(temporary)\n            self._link",
            "            self._link",
        ),
        (
            "handed-over-file-stays",
            "            disk().unlink(source)  # a second",
            "            # a",
        ),
    ),
    *_of(
        "data/store/remote.py",
        "test_remote.py test_store_contract.py",
        (
            "s3-put-replaces",
            'self._files.pipe_file(key, source, mode="create", **self._upload)',
            "self._files.pipe_file(key, source, **self._upload)",
        ),
        ("s3-conflict-is-an-error", "not in _CONFLICT or not left:", "not in _CONFLICT or left:"),
        ("s3-move-replaces", "if self.size(target) is not None:", "if False:"),
    ),
    *_of(
        "data/documents.py",
        "test_documents.py",
        ("document-digest-unchecked", "if expected != data:", "if len(expected) != len(data):"),
        ("document-of-too-many-levels", "if depth > MAX_DEPTH:", "if depth > MAX_DEPTH + 1:"),
    ),
    *_of(
        "data/store/hashed_files.py",
        "test_hashed_files.py",
        (
            "small-pieces-at-the-end-lost",
            "    if gathered:\n        yield memoryview(gathered)\n\n\ndef _write",
            "\n\ndef _write",
        ),
        ("checksum-without-the-end", "checksum.update(view[:filled])", "pass"),
        ("short-write-goes-on-at-its-start", "block = block[count:]", "block = block[:0]"),
    ),
    *_of(
        "data/stage_store/stages.py",
        "test_stages.py",
        (
            "artifact-digest-unchecked",
            "if bytes_sha256(data) != artifact.sha256:",
            "if len(data) != artifact.size:",
        ),
        (
            "record-of-other-parents-stands",
            "if standing.consumed != record.consumed:",
            "if len(standing.consumed) != len(record.consumed):",
        ),
        (
            "other-result-stands",
            "if dump_record(standing) == dump_record(record):",
            "if standing.artifacts == record.artifacts:",
        ),
        (
            "rejected-record-stays",
            'for damaged_path in (f"{stage_folder(record.key)}/{RECORD}", path):',
            "for damaged_path in (path,):",
        ),
    ),
    *_of(
        "data/stage_store/status.py",
        "test_stages.py",
        ("short-artifact-is-done", "elif size != artifact.size:", "elif size > artifact.size:"),
        (
            "missing-artifact-is-pruned",
            "for name in absent if name not in pruned]",
            "for name in absent if not pruned]",
        ),
    ),
    *_of(
        "data/stage_store/records.py",
        "test_stages.py",
        (
            "record-of-another-stage",
            "stored_format != FORMAT or record.key != key",
            "stored_format != FORMAT",
        ),
    ),
    *_of(
        "data/stage_store/mid_epoch.py",
        "test_mid_epoch.py",
        ("one-commit-to-fall-back-to", "KEEP = 2 ", "KEEP = 1 "),
        ("later-commits-are-deleted", "if path < written and path", "if path"),
        ("damaged-tensors-stand", "if not self._is_intact(tensors.checksum):", "if False:"),
        (
            "commit-under-another-number",
            "and f\"{manifest['micro_steps']:012d}.json\" == path",
            "and f\"{manifest['micro_steps']:012d}.json\" >= path",
        ),
    ),
    *_of(
        "data/tables/writing.py",
        "test_writing.py",
        ("pages-without-checksums", "write_page_checksum=True", "write_page_checksum=False"),
        ("last-of-each-row", "is_first[1:] = sorted_N", "is_first[:-1] = sorted_N"),
        ("numbers-wrap-around", 'if wanted.kind in "iu" and not', 'if wanted.kind in "u" and not'),
        (
            "rows-of-full-groups-only",
            "whole = rows if all_rows else",
            "whole = 0 * rows if all_rows else",
        ),
    ),
    *_of(
        "data/tables/reading.py",
        "test_reading.py test_writing.py",
        ("unsorted-pieces", "self._last is None or ids_N[0] > self._last", "True"),
        ("take-through-stops-before", 'side="right")) for ids_B', 'side="left")) for ids_B'),
    ),
    *_of(
        "data/tables/checks.py",
        "test_writing.py",
        ("newer-table-is-read", "if int(version) > schema.version:", "if False:"),
        (
            "wrong-column-type",
            "if kind != arrow_type(column):",
            "if str(kind) < str(arrow_type(column)):",
        ),
    ),
    *_of(
        "data/samples/table.py",
        "test_table.py",
        ("streak-survives-a-mistake", "np.where(easy_S, streak_S, 0)", "streak_S"),
        (
            "learning-counts-as-forgetting",
            "was_correct_S & ~correct_S",
            "was_correct_S ^ correct_S",
        ),
        ("scored-samples-count-as-trained", 'table["epoch_seen"] = epoch_seen_N', "pass"),
        (
            "label-of-the-data-set-wins",
            'np.where(table["label"] < 0, stated_N',
            "np.where(stated_N >= 0, stated_N",
        ),
    ),
    *_of(
        "data/samples/scores.py",
        "test_scores.py",
        ("variability-of-the-mean", "- mean_N**2", "- mean_N"),
        ("forgotten-are-never-right", '& (columns["forget_count"] == 0)', ""),
    ),
    *_of(
        "data/loading/order.py",
        "test_order.py",
        (
            "small-epoch-is-dropped",
            "end = whole if drop_last and whole else",
            "end = whole if drop_last else",
        ),
        (
            "tail-counts-as-a-whole-update",
            "num_samples=self._offsets[end] - self._offsets[first]",
            "num_samples=self.accumulate * self._offsets[1]",
        ),
        (
            "ties-in-buckets-as-they-stand",
            "if len(equal_B):  # runs",
            "if len(equal_B) > len(rows_B):  # runs",
        ),
        (
            "last-update-not-counted",
            "-(-self.num_micro_steps // self.accumulate)",
            "self.num_micro_steps // self.accumulate",
        ),
    ),
    *_of(
        "data/loading/batch_sampler.py",
        "test_batch_sampler.py",
        ("first-classes-have-the-rest", "count_C[luck_C[:rest]] += 1", "count_C[:rest] += 1"),
        ("resolutions-alike-in-all-epochs", '"sampler", seed, epoch)', '"sampler", seed)'),
        (
            "unlabelled-are-a-class",
            "order_K[labels_N[order_K] >= 0]",
            "order_K[labels_N[order_K] >= -1]",
        ),
    ),
    *_of(
        "data/loading/items.py",
        "test_loader.py",
        (
            "repeats-draw-alike",
            'hash_repeated(ids_B, repeats_B, "item"',
            'hash_repeated(ids_B, None, "item"',
        ),
        ("generators-left-seeded", "        np.random.set_state(numpy_state)", "        pass"),
        (
            "subset-as-its-data-set",
            "np.asarray(dataset.indices, dtype=np.int64)[order_K]",
            "order_K",
        ),
    ),
    *_of(
        "data/loading/loader.py",
        "test_loader.py",
        (
            "weights-left-out",
            "np.all(weights_N[plan.order_K] == 1)",
            "np.any(weights_N[plan.order_K] == 1)",
        ),
    ),
    *_of(
        "data/loading/workers.py",
        "test_workers.py",
        ("global-generator-is-drawn-from", "torch.Generator().manual_seed(0)", "None"),
        (
            "workers-end-at-sigterm",
            "for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):",
            "for number in (signal.SIGINT, signal.SIGHUP):",
        ),
    ),
    *_of(
        "data/policies/shared/pool.py",
        "test_pool.py",
        ("hidden-samples-without-a-loss", '& np.isfinite(columns["loss"]) & ~due_N', "& ~due_N"),
        ("ties-by-the-order-of-rows", "chosen_R[equal_T[lot_T < last]] = True", "pass"),
    ),
    *_of(
        "data/policies/shared/floor.py",
        "test_floor.py",
        (
            "floor-rounds-down",
            "np.ceil(self._total_C * self._floor - 1e-9)",
            "np.floor(self._total_C * self._floor + 1e-9)",
        ),
        ("easiest-come-back-first", '-resting["loss"]', 'resting["loss"]'),
        ("suspects-come-back-like-others", '                resting["last"],\n', ""),
    ),
    *_of(
        "data/policies/shared/revisit.py",
        "test_revisit.py",
        (
            "absent-for-an-epoch-more",
            "epoch_seen_E.astype(np.int64) < revisit",
            "epoch_seen_E.astype(np.int64) <= revisit",
        ),
        ("no-phases", '"revisit", seed) % period != due', '"revisit", seed) % period != period'),
    ),
    *_of(
        "data/policies/shared/label_noise.py",
        "test_label_noise.py",
        (
            "noise-of-the-unsure",
            "chosen_S = confidence_S >= limit",
            "chosen_S = confidence_S <= limit",
        ),
        ("suspects-of-highest-margin", "highest(-mean_S, lot_S", "highest(mean_S, lot_S"),
    ),
    *_of(
        "data/policies/shared/difficulty.py",
        "test_difficulty.py",
        ("weights-above-one-on-average", "raw_K / stable_mean(raw_K)", "raw_K"),
    ),
    *_of(
        "data/policies/importance.py",
        "test_importance.py",
        (
            "credit-is-not-spent",
            'grown_N - previous["keep"], 0.0',
            "grown_N, 0.0",
        ),
    ),
    *_of(
        "data/policies/infobatch.py",
        "test_published_defects.py test_declarations.py",
        ("hard-ones-are-left-out", "~learned_R | (coin_R <", "learned_R | (coin_R <"),
        ("lots-and-returns-in-turn", "by_lot=True", "by_lot=False"),
    ),
    *_of(
        "data/policies/shared/policy.py",
        "../test_declarations.py",
        (
            "confidence-of-no-policy-in-particular",
            "self.confidence or self.declaration.confidence",
            "self.confidence or 0.9",
        ),
        (
            "revisit-of-no-policy-in-particular",
            "return own if isinstance(own, int) else own(self)",
            "return own if isinstance(own, int) else 4",
        ),
    ),
    *_of(
        "data/mining/plan.py",
        "test_plan.py",
        (
            "weight-of-who-came-back",
            "probability_N[choice.rest_Q[keep_N[choice.rest_Q]]] = 1",
            "probability_N[choice.rest_Q[keep_N[choice.rest_Q]]] *= 1",
        ),
    ),
    # engine
    *_of(
        "engine/schedule/kinds.py",
        "test_schedule.py test_kinds.py",
        ("warm-up-to-the-start", "epochs=epochs)(self.warmup)", "epochs=epochs)(0.0)"),
        (
            "milestone-an-epoch-late",
            "for start, end, value in zip(starts, ends",
            "for start, end, value in zip(starts, ends[::-1]",
        ),
        (
            "decay-begins-late",
            "turn = float(epochs) - self.decay",
            "turn = float(epochs) - self.decay / 2",
        ),
    ),
    *_of(
        "engine/schedule/pieces.py",
        "test_kinds.py test_schedule.py",
        (
            "power-above-its-floor",
            "self.floor + (1 - self.floor) * math.pow",
            "self.floor + math.pow",
        ),
        (
            "levels-kept-apart",
            "merged[-1] = level(last.start, piece.end, last.first)",
            "merged.append(piece)",
        ),
    ),
    *_of(
        "engine/schedule/schedule.py",
        "test_kinds.py",
        ("own-function-in-the-warm-up", "moment = max(t, warmup)", "moment = t"),
    ),
    *_of(
        "engine/loop/gradients.py",
        "test_gradients.py test_epoch.py",
        (
            "only-large-values-are-clipped",
            "            torch._foreach_clamp_min_(dense, -value)\n",
            "",
        ),
        (
            "clip-of-unscaled-norm",
            "clipped if norm is None else self._scale(dense, clipped",
            "clipped if norm is None else self._scale(dense, total",
        ),
        (
            "skips-add-up-for-ever",
            "updates_done += 1\n            self._skipped_in_a_row = 0",
            "updates_done += 1",
        ),
        (
            "others-gradients-stay",
            "[parameter for parameter in state.model.parameters() if parameter.requires_grad]",
            "self._parameters",
        ),
        (
            "average-counts-an-update-more",
            "self._state.ema.update(self._state.updates_done)",
            "self._state.ema.update(self._state.updates_done + 1)",
        ),
    ),
    *_of(
        "engine/loop/loss_weights.py",
        "test_gradients.py test_epoch.py",
        (
            "batch-loss-counts-once",
            "counts = batch.num_samples if value.ndim == 0 else 1",
            "counts = 1",
        ),
        (
            "tail-weighs-as-a-whole-update",
            "batch.num_samples, batch.window.num_samples, value.dtype)",
            "batch.num_samples, 0, value.dtype)",
        ),
    ),
    *_of(
        "engine/loop/mixing.py",
        "test_mixing.py",
        (
            "roles-change-without-shares",
            "share_B = np.where(swapped_B, 1.0 - share_B, share_B)",
            "pass",
        ),
        ("mixed-with-itself", "np.roll(order_B, -1)", "order_B"),
        (
            "smoothing-of-one-class-less",
            "smoothing / num_classes)",
            "smoothing / (num_classes - 1))",
        ),
        (
            "targets-are-not-mixed",
            "return own * share_B + partner * (1 - share_B), None",
            "return own, None",
        ),
    ),
    *_of(
        "engine/loop/recorder.py",
        "test_recorder.py",
        (
            "groups-of-other-tensors",
            "for update in self._updates])[:, self._by_group_P] ** 2",
            "for update in self._updates]) ** 2",
        ),
        (
            "bad-update-since-the-last-read",
            "self._num_read + int(np.argmax(bad_K))",
            "int(np.argmax(bad_K))",
        ),
        (
            "loss-of-the-last-micro-batch",
            "shares if before is None else",
            "shares if before is None or True else",
        ),
    ),
    *_of(
        "engine/loop/epoch.py",
        "test_epoch.py test_gradients.py",
        (
            "rate-at-the-start-of-an-update",
            "factor = recipe.rate(epoch + (progress.updates + 0.5)",
            "factor = recipe.rate(epoch + (progress.updates + 0.0)",
        ),
        (
            "mean-of-unequal-updates",
            "np.average(updates[LOSS], weights=sizes_U)",
            "np.average(updates[LOSS])",
        ),
        (
            "resumed-without-gradients",
            "named[name].grad = gradient.to(named[name].device, copy=True)",
            "pass",
        ),
        (
            "spike-after-few-updates",
            "SPIKE_LEAST, SPIKE_FACTOR = 64, 16",
            "SPIKE_LEAST, SPIKE_FACTOR = 64, 15",
        ),
    ),
    *_of(
        "engine/loop/evaluate.py",
        "test_evaluate.py",
        ("training-mode-afterwards", "model.train(was_training)", "model.train()"),
        (
            "mean-of-unequal-batches",
            "float(loss.double().mean()) * size for",
            "float(loss.double().mean()) * total / len(sizes) for",
        ),
    ),
    *_of(
        "engine/loop/progress.py",
        "test_progress.py",
        ("validated-within-an-update", "and progress.recorder.partial_loss() is None", ""),
    ),
    *_of(
        "engine/model/ema.py",
        "test_ema.py",
        (
            "warm-up-of-the-average",
            "(1 + updates_done) / (10 + updates_done)",
            "updates_done / (10 + updates_done)",
        ),
        ("counts-are-not-copied", "average.copy_(tensor)", "pass"),
        ("average-stays-in-the-model", "tensor.copy_(own[name])", "pass"),
    ),
    *_of(
        "engine/model/batch_norm.py",
        "test_batch_norm.py",
        ("momentum-stays-changed", "            layer.momentum = own\n", "            pass\n"),
    ),
    *_of(
        "engine/model/freezing.py",
        "test_freezing.py",
        ("frozen-with-an-old-gradient", "named[name].grad = None", "pass"),
        (
            "half-frozen-modules-rest",
            "any(id(parameter) in frozen for parameter in parameters) and not any(",
            "any(id(parameter) in frozen for parameter in parameters) or not any(",
        ),
    ),
    *_of(
        "engine/model/parameter_groups.py",
        "test_parameter_groups.py",
        ("first-layers-learn-fastest", "(len(depth) - 1 - depth[layer])", "depth[layer]"),
        (
            "later-groups-win",
            "left = [name for name in matched if name not in taken]",
            "left = matched",
        ),
        ("attention-bias-decays", 'or name.endswith("bias")', ""),
    ),
    *_of(
        "engine/model/step.py",
        "test_build.py",
        ("ignored-targets-count", "flat.sum(1) / counted.clamp(min=1)", "flat.mean(1)"),
    ),
    *_of(
        "engine/measure/observe.py",
        "test_observe.py",
        ("margin-to-itself", "logits.scatter(dim, index, -torch.inf)", "logits"),
        (
            "ignored-label-is-a-class",
            '"label": torch.where(known_R, label_R, torch.full_like(label_R, -1))',
            '"label": label_R',
        ),
        (
            "padding-is-observed",
            '"confidence": confidence[:rows]',
            '"confidence": confidence.sort().values[:rows]',
        ),
    ),
    *_of(
        "engine/measure/metrics.py",
        "test_metrics.py",
        ("first-class-does-not-count", "counted = target >= 0", "counted = target > 0"),
    ),
    *_of(
        "engine/measure/built_in.py",
        "test_built_in.py",
        ("predicted-classes-do-not-occur", "occurs_C |= predicted_C > 0", "pass"),
        ("spread-around-zero", '- sums["target"] ** 2 / self._rows', ""),
        (
            "batches-of-one-mean",
            "return float((self._sum / self._count).exp())",
            "return float(self._sum.exp() / self._count)",
        ),
    ),
    *_of(
        "engine/checkpoint/averaging.py",
        "test_averaging.py",
        ("averaged-in-float32", "else torch.float64", "else torch.float32"),
        (
            "counts-of-the-oldest",
            "newest, count = checkpoint, count + 1",
            "newest, count = newest or checkpoint, count + 1",
        ),
    ),
    *_of(
        "engine/checkpoint/serialize.py",
        "test_serialize.py",
        (
            "skipped-updates-forgotten",
            '"updates_skipped": state.updates_skipped',
            '"updates_skipped": 0',
        ),
        ("group-options-forgotten", "        group.update(values)\n", "        pass\n"),
        ("moments-of-another-model", "if stored != wanted:", "if len(stored) != len(wanted):"),
    ),
    *_of(
        "engine/checkpoint/warm_start.py",
        "test_warm_start.py",
        (
            "any-shape-may-differ",
            "elif not _matches(name, allow_missing):",
            "elif not _matches(name, allowed):",
        ),
        ("nothing-fits-and-it-starts", "if not taken:", "if not tensors:"),
    ),
    *_of(
        "engine/checkpoint/safetensors_file.py",
        "test_safetensors_file.py",
        ("header-not-aligned", '    text += b" " * (-len(text) % _ALIGNMENT)\n', ""),
        (
            "narrow-numbers-first",
            "key=lambda item: (_RANK[item[1].dtype], item[0])",
            "reverse=True",
        ),
    ),
    # tasks
    *_of(
        "tasks/planning/early_stopping.py",
        "test_early_stopping.py",
        ("standing-still-improves", "> best + config.min_delta", ">= best + config.min_delta"),
        ("waits-from-the-first-epoch", "if epoch < config.start:", "if epoch <= config.start - 2:"),
    ),
    *_of(
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
    *_of(
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
            'loads=lambda stage, role, records: ("model",)',
            "loads=lambda stage, role, records: ()",
        ),
    ),
    *_of(
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
    *_of(
        "tasks/planning/inputs.py",
        "../stages/test_registry.py",
        ("metrics-source-in-no-key", 'if name.startswith("metrics.") and files:', "if False:"),
    ),
    *_of(
        "tasks/stages/train.py",
        "test_registry.py",
        ("drop-last-in-no-key", '            "drop_last": config.loader.drop_last,\n', ""),
        ("optimizer-is-not-consumed", '("model", "optimizer", "state", "ema")', '("model", "ema")'),
        ("batch-rule-in-no-key", 'inputs["sampling.batch"] = rule', "pass"),
    ),
    *_of(
        "tasks/stages/validate.py",
        "test_registry.py",
        ("average-is-not-consumed", 'records: ("model", "ema")', 'records: ("model",)'),
    ),
    *_of(
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
    *_of(
        "tasks/stages/kind.py",
        "test_registry.py",
        (
            "parents-in-no-key",
            "[kind.version, epoch, inputs, keys]",
            "[kind.version, epoch, inputs]",
        ),
        ("key-of-unread-data", "if not unread and all(", "if all("),
    ),
    *_of(
        "tasks/checkpoints/end_of_epoch.py",
        "test_end_of_epoch.py",
        ("average-is-not-stored", "    if parts.ema:\n", "    if False:\n"),
    ),
    *_of(
        "tasks/checkpoints/mid_epoch_saver.py",
        "test_mid_epoch_saver.py",
        ("average-in-no-mid-epoch-commit", "        _EMA: parts.ema,\n", "        _EMA: {},\n"),
        (
            "nothing-new-is-committed",
            "if progress.micro_steps > self._last_micro_steps:",
            "if True:",
        ),
        (
            "error-of-the-thread-is-lost",
            "                self._error = error\n",
            "                pass\n",
        ),
    ),
    *_of(
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
    *_of(
        "tasks/checkpoints/host_buffers.py",
        "test_host_buffers.py",
        ("live-tensors-instead-of-copies", "copies[name] = kept\n", "copies[name] = tensor\n"),
        ("end-of-large-tensors-not-copied", "while start < len(to):", "while start + 1 < len(to):"),
    ),
    *_of(
        "tasks/tracking/exporter.py",
        "test_background.py",
        ("points-sent-twice", "if not self._run.holds(row)]", "if True]"),
    ),
    *_of(
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
    *_of(
        "tasks/running/lifecycle.py",
        "test_lifecycle.py",
        ("prepared-run-is-used-twice", "run is None or run.tracker is not None:", "run is None:"),
    ),
    *_of(
        "tasks/running/run.py",
        "../../robustness/test_damaged_artifacts.py",
        (
            "repaired-without-end",
            "if not lost or any(parent.known_key in repaired for parent in lost):",
            "if not lost:",
        ),
        ("lost-stage-counts-twice", "self.outcomes[:] = [told", "_ = [told"),
        ("repaired-from-a-used-model", "        self.session.components = None  #", "        #"),
    ),
    *_of(
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
    *_of(
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
    *_of(
        "tasks/runs/warm_start.py",
        "test_warm_start.py",
        ("pruned-weights-are-found", 'if "model" in statuses[record.key].pruned:', "if False:"),
    ),
    *_of(
        "tasks/checkpoints/warm_start.py",
        "../runs/test_warm_start.py",
        (
            "weights-changed-meanwhile",
            "if sha256 is not None and file_sha256(path) != sha256:",
            "if False:",
        ),
    ),
    *_of(
        "tasks/config/run.py",
        "test_run.py",
        (
            "updates-with-a-changing-number",
            "elif gradients.accumulate > 1 and gradients.accumulate_from > 0:",
            "elif False:",
        ),
        ("stopping-by-no-metric", "if metric not in measured:", "if not measured:"),
    ),
    *_of(
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
    *_of(
        "tasks/config/yaml_reader.py",
        "test_yaml_reader.py",
        ("last-of-two-keys-wins", "        if key in data:\n", "        if False:\n"),
    ),
    *_of(
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
    *_of(
        "tasks/report/tables.py",
        "test_tables.py",
        ("epoch-that-planned", "epochs_E=[epoch + 1 for", "epochs_E=[epoch for"),
        ("share-of-all-samples", "/ count[has_samples]", "/ count.sum()"),
    ),
    *_of(
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
    *_of(
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
    *_of(
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
    *_of(
        "tasks/report/curves.py",
        "test_curves.py",
        (
            "curve-an-epoch-late",
            "curve.x.append(float(row.epoch))",
            "curve.x.append(float(row.epoch + 1))",
        ),
    ),
    *_of(
        "tasks/report/page.py",
        "test_page.py",
        ("dark-where-it-is-light", "for png in (light, dark)", "for png in (dark, light)"),
        ("nothing-escaped", "autoescape=True", "autoescape=False"),
    ),
    *_of(
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
        (
            "lost-plan-loses-stages",
            "(parts[1] not in needed and not lost)",
            "(parts[1] not in needed)",
        ),
    ),
)
