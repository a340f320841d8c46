"""Faults of what makes batches of data: order, readers, augmentation, policies."""

from support.mutants.mutant import Mutant, of

MUTANTS: tuple[Mutant, ...] = (
    *of(
        "data/augment/geometry.py",
        "test_pipeline.py",
        (
            "boxes-are-not-flipped",
            "        made[rows, ..., low] = side - box[rows, ..., high]\n",
            "        made[rows, ..., low] = box[rows, ..., low]\n",
        ),
        ("masks-are-turned-the-other-way", "-sine / scale))[None", "sine / scale))[None"),
        ("boxes-are-not-scaled", "(box - origin) * factor", "(box - origin)"),
    ),
    *of(
        "data/augment/values.py",
        "test_pipeline.py",
        (
            "contrast-by-the-whole-batch",
            "return total.div_(_FIXED_POINT * whole[0].numel())",
            "return total.mean(0, keepdim=True).div_(_FIXED_POINT * whole[0].numel())",
        ),
    ),
    *of(
        "data/augment/pictures.py",
        "test_pipeline.py",
        (
            "repeats-draw-the-same",
            'self.sample_ids_B, self.repeats_B, "augment"',
            'self.sample_ids_B, None, "augment"',
        ),
        ("the-given-batch-is-written-to", "if not self.own:", "if False:"),
    ),
    *of(
        "data/augment/pipeline.py",
        "test_pipeline.py",
        (
            "chunks-draw-alike",
            "draws.rows(rows))",
            "draws.rows(slice(0, rows.stop - rows.start) if rows.stop else rows))",
        ),
        ("kinds-draw-alike", "(seed, epoch, kind, before[kind])", "(seed, epoch, kind, 0)"),
    ),
    *of(
        "data/augment/wrapper.py",
        "test_wrapper.py",
        (
            "transformed-sets-read-in-threads",
            '("__getitems__", "thread_safe")',
            '("__getitems__",)',
        ),
    ),
    *of(
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
    *of(
        "data/loading/batch_sampler.py",
        "test_batch_sampler.py",
        ("first-classes-have-the-rest", "count_C[luck_C[:rest]] += 1", "count_C[:rest] += 1"),
        ("epochs-begin-anew", "start = epoch * epoch_samples", "start = 0"),
        ("resolutions-alike-in-all-epochs", '"sampler", seed, epoch)', '"sampler", seed)'),
        (
            "unlabelled-are-a-class",
            "order_K[labels_N[order_K] >= 0]",
            "order_K[labels_N[order_K] >= -1]",
        ),
    ),
    *of(
        "data/config/loader.py",
        "../../tasks/stages/test_registry.py",
        ("drop-last-in-no-key", '            "drop_last": self.drop_last,\n', ""),
    ),
    *of(
        "data/loading/lazy_order.py",
        "test_lazy_order.py",
        ("blocks-alike-in-all-epochs", '"blocks", seed, epoch)', '"blocks", seed)'),
        ("kept-rows-as-in-all-blocks", "kept_G[some_G] = ", "kept_G[: some_G.sum()] = "),
    ),
    *of(
        "data/loading/lazy_order.py",
        "test_lazy_order_lengths.py",
        (
            "tail-moves",
            "moved = len(size_M) - (size_M[-1] < self._batch_size)",
            "moved = len(size_M)",
        ),
        ("longest-is-forgotten", "count, longest = 0, length", "count = 0"),
    ),
    *of(
        "data/loading/items.py",
        "test_loader.py",
        ("collates-draw-as-items-left-it", 'seed_64("collate", *self._stream, micro_step)', "0"),
        (
            "repeats-draw-alike",
            'hash_repeated(ids_B, repeats_B, "item"',
            'hash_repeated(ids_B, None, "item"',
        ),
        ("generators-left-seeded", "        np.random.set_state(numpy_state)", "        pass"),
        ("a-set-for-threads-may-draw", "            if before == after:", "            if True:"),
        (
            "subset-as-its-data-set",
            "np.asarray(dataset.indices, dtype=np.int64)[order_K[:]]",
            "order_K[:]",
        ),
    ),
    *of(
        "data/loading/loader.py",
        "test_loader.py",
        (
            "weights-left-out",
            "np.any(weights_N[rows_B] != 1)",
            "np.any(weights_N[rows_B] == 1)",
        ),
    ),
    *of(
        "data/loading/loader.py",
        "test_loader.py",
        (
            "own-micro-steps-miscounted",
            "(len(self._own(rest)) if rest else 0)",
            "0",
        ),
    ),
    *of(
        "data/loading/threads.py",
        "test_loader.py",
        ("batches-of-threads-out-of-order", "waiting.popleft()", "waiting.pop()"),
        (
            "threads-read-ahead-without-end",
            "islice(steps, threads * prefetch)",
            "islice(steps, 10**6)",
        ),
    ),
    *of(
        "data/loading/threads.py",
        "test_threads.py",
        ("threads-left-behind", "            self._work.put(None)", "            pass"),
        (
            "a-collate-draws-in-a-thread",
            "return data if source.has_collate else ready(data)",
            "return source.collated(micro_step, data)",
        ),
        ("waits-for-a-thread-for-ever", "max(0.0, until_s - time.monotonic())", "None"),
    ),
    *of(
        "data/loading/ahead.py",
        "test_ahead.py",
        ("blocks-told-once", "not self._told.issuperset(self._count)", "not self._told"),
    ),
    *of(
        "data/loading/readers.py",
        "test_readers.py",
        ("the-slowest-reads", "rate > least * best_rate", "rate < least * best_rate"),
        ("threads-read-what-does-not-say-so", "if not is_thread_safe(dataset):", "if False:"),
    ),
    *of(
        "data/loading/workers.py",
        "test_workers.py",
        ("global-generator-is-drawn-from", "torch.Generator().manual_seed(0)", "None"),
        (
            "workers-end-at-sigterm",
            "for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):",
            "for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):",
        ),
    ),
    *of(
        "data/policies/shared/pool.py",
        "test_pool.py",
        ("hidden-samples-without-a-loss", '& np.isfinite(columns["loss"]) & ~due_N', "& ~due_N"),
        ("ties-by-the-order-of-rows", "chosen_R[equal_T[lot_T < last]] = True", "pass"),
    ),
    *of(
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
    *of(
        "data/policies/shared/revisit.py",
        "test_revisit.py",
        (
            "absent-for-an-epoch-more",
            "epoch_seen_E.astype(np.int64) < revisit",
            "epoch_seen_E.astype(np.int64) <= revisit",
        ),
        ("no-phases", '"revisit", seed) % period != due', '"revisit", seed) % period != period'),
    ),
    *of(
        "data/policies/shared/label_noise.py",
        "test_label_noise.py",
        (
            "noise-of-the-unsure",
            "chosen_S = confidence_S >= limit",
            "chosen_S = confidence_S <= limit",
        ),
        ("suspects-of-highest-margin", "highest(-mean_S, lot_S", "highest(mean_S, lot_S"),
    ),
    *of(
        "data/policies/shared/difficulty.py",
        "test_difficulty.py",
        ("weights-above-one-on-average", "raw_K / stable_mean(raw_K)", "raw_K"),
    ),
    *of(
        "data/policies/importance.py",
        "test_importance.py",
        (
            "credit-is-not-spent",
            'grown_N - previous["keep"], 0.0',
            "grown_N, 0.0",
        ),
    ),
    *of(
        "data/policies/infobatch.py",
        "test_published_defects.py test_declarations.py",
        ("hard-ones-are-left-out", "~learned_R | (coin_R <", "learned_R | (coin_R <"),
        ("lots-and-returns-in-turn", "by_lot=True", "by_lot=False"),
    ),
    *of(
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
    *of(
        "data/mining/plan.py",
        "test_plan.py",
        (
            "weight-of-who-came-back",
            "probability_N[choice.rest_Q[keep_N[choice.rest_Q]]] = 1",
            "probability_N[choice.rest_Q[keep_N[choice.rest_Q]]] *= 1",
        ),
    ),
)
