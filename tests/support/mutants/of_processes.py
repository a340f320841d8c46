"""Faults of processes that share a run: engine/shards, engine/loop, tasks/launch, tasks/joining."""

from support.mutants.mutant import Mutant, of

MUTANTS: tuple[Mutant, ...] = (
    *of(
        "engine/shards/deal.py",
        "test_deal.py",
        ("shards-end-too-early", "(shard + 1) * count // shards", "shard * count // shards"),
        ("the-rest-goes-to-the-last", "(rank < more)", "(rank >= processes - more)"),
    ),
    *of(
        "engine/shards/tree.py",
        "test_tree.py",
        ("sums-from-left-to-right", "self._sums[-1][0] == self._sums[-2][0]", "True"),
        ("what-is-missing-is-lost", "other if one is None else one)", "one)"),
    ),
    *of(
        "engine/shards/group.py",
        "test_group.py",
        ("a-subtree-of-another-shard", "leaves = first & -first if first", "leaves = 1 if first"),
        ("what-is-missing-adds-zero", "(parameter, -0.0)", "(parameter, 0.0)"),
        ("the-own-part-is-not-summed", "            own.copy_(total)\n", "            pass\n"),
    ),
    *of(
        "engine/shards/model_shards.py",
        "test_model_shards.py",
        (
            "slices-in-order-of-ranks",
            "for one in active:\n            pos",
            "for one in active[::-1]:\n            pos",
        ),
        (
            "a-turn-is-another",
            "self._turn, self._count = turn, count",
            "self._turn, self._count = 0, count",
        ),
        (
            "norms-of-slices",
            "len(rows_of(parameter.shape[0], 0, size))",
            "len(rows_of(parameter.shape[0], 1, size))",
        ),
        ("half-a-block-is-sent", "if gradients.numel() != expected:", "if False:"),
        ("two-names-of-one", "dict.fromkeys(names_of[name], parameter)", "{name: parameter}"),
    ),
    *of(
        "engine/shards/shard_state.py",
        "test_model_shards.py",
        ("what-is-kept-goes-on", "    if kept:\n", "    if False:\n"),
        ("fused-is-allowed", "in EACH_BY_ITSELF or fused:", "in EACH_BY_ITSELF:"),
    ),
    *of(
        "engine/shards/blocks.py",
        "test_blocks.py",
        ("tied-weights-in-two-blocks", "if count > 1}", "if count > 2}"),
        ("own-before-children", "        if id(child) not in blocks:", "        if False:"),
    ),
    *of(
        "engine/checkpoint/slices.py",
        "test_slices.py",
        ("another-shape-is-read", "elif shape != wanted.shape:", "elif False:"),
        ("slots-are-whole", "if name.startswith(_SLOT):", "if False:"),
    ),
    *of(
        "tasks/computing/shared_pack.py",
        "test_shared_pack.py",
        ("slices-lie-at-the-start", "slice_.first * slice_.row", "0 * slice_.row"),
    ),
    *of(
        "engine/loop/evaluate.py",
        "../shards/test_model_shards.py",
        ("gathered-for-reading-alone", "torch.no_grad() if in_slices else", ""),
    ),
    *of(
        "engine/shards/running_statistics.py",
        "test_deal_in_epochs.py",
        ("statistics-are-not-applied", "found[factor], alpha=factor)", "found[factor], alpha=0)"),
        ("calls-are-not-counted", "                layer.counted += 1\n", ""),
    ),
    *of(
        "engine/shards/rounds.py",
        "test_rounds.py",
        ("drawing-models-are-shared", "if not torch.equal(before,", "if False and (before,"),
        ("tuples-become-lists", 'tuple(parts) if kind == "tuple" else parts', "parts"),
    ),
    *of(
        "engine/measure/observe.py",
        "../loop/test_shared_update.py",
        (
            "rows-in-order-of-ranks",
            "np.argsort(np.repeat(index_M, size_M)",
            "np.argsort(0 * size_M",
        ),
    ),
    *of(
        "engine/loop/shared_update.py",
        "../../tasks/preflight/test_shared_state.py",
        ("changed-buffers-are-shared", "        if now != self._versions:", "        if False:"),
    ),
    *of(
        "tasks/stages/commit.py",
        "../launch/test_local_processes.py",
        ("new-processes-hold-the-old-state", "session.trainer.starts == starts:", "True:"),
    ),
    *of(
        "tasks/launch/local.py",
        "test_local_processes.py",
        ("new-processes-are-live", '"live": False}}', '"live": body["order"]["live"]}}'),
        ("another-run-is-gone-on-with", "if (reply, data) != before.reply:", "if False:"),
        ("consequences-are-told-first", "except PeerLost:  # the", "except MemoryError:  # the"),
    ),
    *of(
        "tasks/computing/watch.py",
        "../launch/test_local_processes.py",
        ("ranks-decide-for-themselves", "decided = group.exchange.told(decided)", "pass"),
    ),
    *of(
        "tasks/launch/opening.py",
        "test_opening.py",
        (
            "any-environment-will-do",
            "pairs = {name: (here.get(name), value)",
            "pairs = {name: (0, 0)",
        ),
        (
            "files-of-code-may-differ",
            'for kind in ("sources", "files"):',
            'for kind in ("sources",):',
        ),
    ),
    *of(
        "tasks/joining/connection.py",
        "test_connection.py",
        (
            "only-one-side-proves-itself",
            "for one in prove if asks_first",
            "for one in prove[1:] if asks_first",
        ),
        (
            "who-is-mute-is-waited-for",
            'struct.pack("ll", _PROVE_WITHIN_S, 0)',
            'struct.pack("ll", 0, 0)',
        ),
    ),
    *of(
        "tasks/joining/place.py",
        "test_connection.py",
        (
            "every-machine-is-this-one",
            'if _BOOT.read_text().strip() != place["boot"]:',
            "if False:",
        ),
    ),
    *of(
        "tasks/joining/listener.py",
        "test_connection.py",
        ("any-version-will-do", 'if hello["version"] != version():', "if False:"),
        ("nobody-is-told-of-the-end", 'seat.tell({"type": "end"})', "pass"),
        ("who-is-gone-keeps-the-seat", "if not seat.gone.is_set()]", "]"),
    ),
    *of(
        "tasks/joining/trainer.py",
        "test_trainer.py",
        ("any-file-is-read", 'if question in {"file", "piece"} and', "if False and"),
        ("the-first-process-is-anywhere", "(seat.joined.here or not here)", "True"),
    ),
    *of(
        "tasks/joining/relay.py",
        "test_trainer.py",
        ("a-copy-is-empty", "file.write(data)", "file.write(bytes(len(data)))"),
        (
            "a-signal-ends-the-relay-at-once",
            "if self._leaving and self._trainer is None:",
            "if self._leaving:",
        ),
    ),
)
