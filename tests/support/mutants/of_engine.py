"""Faults of engine/."""

from support.mutants.mutant import Mutant, of

MUTANTS: tuple[Mutant, ...] = (
    *of(
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
    *of(
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
    *of(
        "engine/schedule/plateau.py",
        "test_plateau.py",
        ("patience-one-shorter", "if waited > config.patience:", "if waited >= config.patience:"),
        ("cooldown-counts-on", "cooling, waited = cooling - 1, 0", "cooling = cooling - 1"),
        (
            "falls-below-its-floor",
            "max(factor * config.factor, config.floor)",
            "factor * config.factor",
        ),
    ),
    *of(
        "engine/schedule/names_of_torch.py",
        "test_names_of_torch.py",
        (
            "own-function-named-as-torchs",
            'if colon and not module.startswith("torch.optim"):',
            "if False:",
        ),
    ),
    *of(
        "engine/schedule/schedule.py",
        "test_kinds.py",
        ("own-function-in-the-warm-up", "moment = max(t, warmup)", "moment = t"),
    ),
    *of(
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
            "(*state.model.parameters(), *self._parameters)",
            "self._parameters",
        ),
        (
            "average-counts-an-update-more",
            "self._state.ema.update(self._state.updates_done)",
            "self._state.ema.update(self._state.updates_done + 1)",
        ),
    ),
    *of(
        "engine/loop/loss_weights.py",
        "test_gradients.py test_epoch.py test_loss_weights.py",
        (
            "batch-loss-counts-once",
            "  counts = batch.num_samples\n",
            "  counts = 1\n",
        ),
        (
            "tail-weighs-as-a-whole-update",
            "counts, batch.window.num_samples, value.dtype)",
            "counts, 0, value.dtype)",
        ),
        ("estimate-never-corrected", "else estimate / total", "else None"),
        ("correction-upside-down", "else estimate / total", "else total / estimate"),
        (
            "estimate-forgotten-by-a-resume",
            "self._estimate, self._sum = state",
            "self._estimate, self._sum = state[1], state[1]",
        ),
        (
            "policy-weights-in-the-denominator",
            "denominator_B.detach().sum(dtype=self._wide)",
            "(denominator_B.detach() * (1 if batch.weights_B is None else batch.weights_B)).sum()",
        ),
    ),
    *of(
        "engine/model/denominators.py",
        "../loop/test_loss_weights.py",
        ("classes-count-one", "return lambda: loss.weight", "return None"),
        ("ignored-count", "weight = weight * counted", "pass"),
        ("elements-count-one", "return None if like.ndim == 1 else", "return None if True else"),
    ),
    *of(
        "engine/model/optimizer_modes.py",
        "test_optimizer_modes.py",
        ("trained-weights-rounded", "torch._foreach_copy_(parameters, trained)", "pass"),
        ("never-evaluated", "_modes(optimizer).eval()", "pass"),
    ),
    *of(
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
            "_each(own.loss_B) * share_B + _each(partner.loss_B) * (1 - share_B),",
            "_each(own.loss_B),",
        ),
    ),
    *of(
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
    *of(
        "engine/loop/phases.py",
        "test_phases.py",
        (
            "data-is-not-called-out",
            "        yield batch\n        on_phase(DATA)\n",
            "        yield batch\n",
        ),
    ),
    *of(
        "engine/measure/cost.py",
        "test_cost.py",
        (
            "counting-runs-the-model-itself",
            "copy.deepcopy((model, step), copies)",
            "(model, step)",
        ),
    ),
    *of(
        "engine/loop/epoch.py",
        "test_epoch.py test_gradients.py",
        (
            "rate-at-the-start-of-an-update",
            "at = epoch + (progress.updates + 0.5)",
            "at = epoch + (progress.updates + 0.0)",
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
    *of(
        "engine/loop/evaluate.py",
        "test_evaluate.py test_loss_weights.py",
        ("training-mode-afterwards", "model.train(was_training)", "model.train()"),
        (
            "mean-of-unequal-batches",
            "float(loss.double().mean()) * count)",
            "float(loss.double().mean()))",
        ),
    ),
    *of(
        "engine/loop/progress.py",
        "test_progress.py",
        ("validated-within-an-update", "and progress.recorder.partial_loss() is None", ""),
    ),
    *of(
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
    *of(
        "engine/model/batch_norm.py",
        "test_batch_norm.py",
        ("momentum-stays-changed", "            layer.momentum = own\n", "  counts = 1\n"),
    ),
    *of(
        "engine/model/freezing.py",
        "test_freezing.py",
        ("frozen-with-an-old-gradient", "named[name].grad = None", "pass"),
        (
            "half-frozen-modules-rest",
            "any(id(parameter) in frozen for parameter in parameters) and not any(",
            "any(id(parameter) in frozen for parameter in parameters) or not any(",
        ),
    ),
    *of(
        "engine/model/parameter_groups.py",
        "test_parameter_groups.py",
        ("first-layers-learn-fastest", "(last - layer.place)", "layer.place"),
        (
            "later-groups-win",
            "left = [name for name in matched if name not in taken]",
            "left = matched",
        ),
        ("attention-bias-decays", 'or name.endswith("bias")', ""),
    ),
    *of(
        "engine/model/step.py",
        "test_build.py ../loop/test_loss_weights.py",
        (
            "one-mean-counts-by-samples",
            "return Losses(loss * denominator, denominator, parts)",
            "return Losses(loss, None, parts)",
        ),
    ),
    *of(
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
    *of(
        "engine/measure/metrics.py",
        "test_metrics.py",
        ("first-class-does-not-count", "counted = target >= 0", "counted = target > 0"),
    ),
    *of(
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
    *of(
        "engine/checkpoint/averaging.py",
        "test_averaging.py",
        ("averaged-in-float32", "else torch.float64", "else torch.float32"),
        (
            "counts-of-the-oldest",
            "newest, count = checkpoint, count + 1",
            "newest, count = newest or checkpoint, count + 1",
        ),
    ),
    *of(
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
    *of(
        "engine/checkpoint/warm_start.py",
        "test_warm_start.py",
        (
            "any-shape-may-differ",
            "elif not _matches(name, allow_missing):",
            "elif not _matches(name, allowed):",
        ),
        ("nothing-fits-and-it-starts", "if not taken:", "if not tensors:"),
    ),
    *of(
        "engine/checkpoint/safetensors_file.py",
        "test_safetensors_file.py",
        ("header-not-aligned", '    text += b" " * (-len(text) % _ALIGNMENT)\n', ""),
        (
            "narrow-numbers-first",
            "key=lambda item: (_RANK[item[1].dtype], item[0])",
            "reverse=True",
        ),
    ),
)
