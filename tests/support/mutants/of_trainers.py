"""Faults of trainer processes: tasks/launch, and what lies under it."""

from support.mutants.mutant import Mutant, of

MUTANTS: tuple[Mutant, ...] = (
    *of(
        "tasks/launch/thread_randomness.py",
        "test_thread_randomness.py",
        ("threads-share-a-generator", "if this_thread() == main[0]:", "if True:"),
        ("waiting-clients-draw-from-items", "caller is None or not _is_clients(", "True or ("),
        ("forked-processes-wait-equally-long", "vars(_own).clear()", "pass"),
        ("imports-draw-from-items", "            random.setstate(state)", "            pass"),
        ("forked-processes-have-no-main-thread", "_main[:] = [threading.get_ident()]", "pass"),
    ),
    *of(
        "tasks/launch/trainer_process.py",
        "test_local.py",
        (
            "variables-of-trackers-are-inherited",
            "if not name.startswith(FOREIGN)",
            "if True",
        ),
        ("folders-of-other-configs-stand-first", "path_without_folders()", "sys.path"),
    ),
    *of(
        "tasks/launch/output.py",
        "test_local.py",
        ("output-is-lost", "stream.buffer.write(chunk)", "pass"),
    ),
    *of(
        "tasks/launch/trainer_process.py",
        "test_local_misbehaving.py",
        (
            "exit-code-is-unknown",
            "ended the trainer process with exit code {code}",
            "ended the trainer process",
        ),
        ("stays-in-the-commands-group", "process_group=0", "process_group=None"),
    ),
    *of(
        "tasks/launch/trainer_main.py",
        "test_local.py",
        ("outlives-the-flow", "prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)", "prctl(0, 0)"),
    ),
    *of(
        "tasks/launch/trainer_main.py",
        "test_local_misbehaving.py",
        ("ends-by-any-signal", "        signal.signal(number, _nothing)\n", "        pass\n"),
        ("exits-leave-no-trace", "    os._exit = noted\n", ""),
    ),
    *of(
        "tasks/launch/local.py",
        "test_local_hangs.py",
        ("silence-is-not-told", "            trainer.tell_silence()\n", "            pass\n"),
        (
            "waits-for-ever-on-the-way-out",
            "            if left_s <= 0:\n",
            "            if False:\n",
        ),
    ),
    *of(
        "tasks/launch/process_link.py",
        "test_local_misbehaving.py",
        (
            "a-fork-talks-to-the-flow",
            "        end_if_forked(self._pid)\n        try:",
            "        try:",
        ),
    ),
)
