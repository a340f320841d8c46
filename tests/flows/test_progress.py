"""What is drawn while a run is at work."""

import io
import os
import pty
import re
import select
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import pytest
from support.runs.project import Project
from support.screen import Screen

from epochal.flows import console, progress
from epochal.flows.commands import train
from epochal.flows.progress import Counting, ProgressReporter
from epochal.tasks.launch import output
from epochal.tasks.planning.stage import Stage
from epochal.tasks.reporting import Live, Outcome


class Terminal(io.StringIO):
    """Standard error of a person."""

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    made = console.PlainConsole(file=Terminal(), width=80, force_terminal=True)
    monkeypatch.setattr(console, "err", made)
    return made


@pytest.fixture
def file(monkeypatch):
    """Standard error as a file."""
    made = console.PlainConsole(file=io.StringIO(), width=80)
    monkeypatch.setattr(console, "err", made)
    return made.file


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the test counts."""
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now.seconds)
    return now


STAGES = [
    Stage(kind, epoch, f"{kind}{epoch}".ljust(64, "0"), {})
    for epoch in range(4)
    for kind in ("train", "validate", "mine")
]


def stage(kind, epoch=0):
    return next(one for one in STAGES if (one.kind, one.epoch) == (kind, epoch))


def live(update, *, epoch=0, num_updates=400):
    return Live(epoch, update, num_updates, 0.4123, 2.9e-3, 0.812, samples=64 * update)


def ended(one, *, seconds=2.0, cached=False):
    values = {"loss": 0.5, "gradient_norm": 0.7, "samples": 320, "metrics": {"accuracy": 0.9}}
    given = Stage(one.kind, one.epoch, one.key, {"metrics": ["accuracy"]})
    return Outcome(given, SimpleNamespace(values=values), cached, None, seconds)


def screen_of(terminal):
    screen = Screen(80)
    screen.write(terminal.file.getvalue())
    return screen.shown


def test_an_epoch_shows_its_numbers_and_what_is_left_of_it_and_of_the_run(terminal, clock):
    with ProgressReporter() as reporter:
        reporter.planned(STAGES, {stage("train").key})
        reporter.started(stage("train", 1))
        reporter.live(live(0, epoch=1))
        clock.seconds += 10
        reporter.live(live(100, epoch=1))
        reporter._region.refresh()
        epoch, numbers, run = screen_of(terminal)
    assert re.search(r"train · epoch 1  ━+╸?╺?━+  100 of 400 · ETA 0:30$", epoch)
    assert numbers.strip() == "loss 0.4123 · rate 2.90e-03 · norm 0.812 · 640 samples/s"
    assert re.search(r"run .* 1 of 4 epochs · ETA 1:50", run)


def test_a_validation_has_a_bar_of_its_batches(terminal, clock):
    with ProgressReporter() as reporter:
        reporter.started(stage("validate"))
        reporter.counted("batches of validation", 10, 90)
        clock.seconds += 4
        reporter.counted("batches of validation", 50, 90)
        reporter._region.refresh()
        (line,) = screen_of(terminal)
    assert re.search(r"validate · epoch 0  ━.*  50 of 90 · ETA 0:04$", line)


def test_a_validation_inside_an_epoch_stands_beside_its_numbers(terminal, clock):
    with ProgressReporter() as reporter:
        reporter.started(stage("train"))
        reporter.live(live(120))
        reporter.counted("batches of validation", 10, 90)
        reporter._region.refresh()
        epoch, numbers = screen_of(terminal)
        assert "120 of 400" in epoch
        assert "10 of 90 batches of validation · loss" in numbers
        reporter.live(live(121))
        terminal.file.truncate(0)
        reporter._region.refresh()
        assert "validation" not in terminal.file.getvalue()


def test_what_comes_before_and_behind_the_stages_has_its_seconds(terminal, clock):
    with ProgressReporter() as reporter:
        reporter.doing("waiting for Prefect's server")
        clock.seconds += 3
        reporter._region.refresh()
        (line,) = screen_of(terminal)
        assert line.endswith("waiting for Prefect's server · 3 s")
        reporter.reading("train_data", 20, 80)
        reporter._region.refresh()
        assert re.search(r"reading train_data .* 20 of 80", terminal.file.getvalue())


def test_an_epoch_that_is_put_down_says_so_and_not_how_far_it_is(terminal):
    with ProgressReporter() as reporter:
        reporter.started(stage("train"))
        reporter.live(live(120))
        reporter.doing("committing what is done")
        reporter.live(live(121))
        terminal.file.truncate(0)
        reporter._region.refresh()
        shown = terminal.file.getvalue()
    assert "committing what is done" in shown
    assert "121" not in shown


def test_where_an_epoch_goes_on_is_said(file):
    with ProgressReporter() as reporter:
        reporter.resumed(3, 120, 400)
    assert file.getvalue() == "↪ epoch 3 goes on at update 120 of 400\n"


def test_a_link_is_one_line_and_whole(file):
    url = f"http://127.0.0.1:5000/#/experiments/{'1' * 18}/runs/{'a' * 32}"
    with ProgressReporter() as reporter:
        reporter.linked("MLflow", url)
    assert file.getvalue() == f"MLflow   {url}\n"


def test_a_file_has_a_line_for_each_stage_and_one_now_and_then(file, clock):
    with ProgressReporter() as reporter:
        reporter.planned(STAGES, set())
        reporter.started(stage("train"))
        for _ in range(65):
            clock.seconds += 1
            reporter.live(live(int(clock.seconds) - 100))
        reporter.ended(ended(stage("train"), seconds=65.0))
        reporter.started(stage("validate"))
        reporter.counted("batches of validation", 50, 90)
        reporter.ended(ended(stage("validate")))
    lines = file.getvalue().splitlines()
    assert [line.partition(" · loss")[0] for line in lines[:2]] == [
        "… train · epoch 0: update 30 of 400",
        "… train · epoch 0: update 60 of 400",
    ]
    assert "samples/s · ETA 5:40 · run: 0 of 4 epochs · ETA 25:40" in lines[1]
    assert lines[2:] == [
        "✓ train · epoch 0      loss 0.5 · norm 0.7 · 320 samples · 65.0 s",
        "✓ validate · epoch 0   accuracy 0.9 · 2.0 s",
    ]


def test_stages_that_are_there_already_are_counted(file):
    with ProgressReporter() as reporter:
        for one in STAGES[:3]:
            reporter.ended(ended(one, cached=True))
        reporter.started(STAGES[3])
        reporter.ended(ended(STAGES[3]))
        reporter.done()
    assert file.getvalue().splitlines()[0] == "= 3 stages cached"


def test_a_terminal_has_a_bar_unless_none_is_asked_for(terminal):
    with ProgressReporter() as reporter:
        reporter.started(stage("train"))
        reporter._region.refresh()
    assert "train · epoch 0" in terminal.file.getvalue()
    terminal.file.truncate(0)
    with ProgressReporter(bar=False) as reporter:
        reporter.started(stage("train"))
        reporter.notice("a note")
    assert "train · epoch 0" not in terminal.file.getvalue()
    assert "a note" in terminal.file.getvalue()


def test_what_is_counted_without_an_end_is_told_as_a_number(terminal):
    with Counting("reading") as counting:
        counting.told(1200, None, "items")
        counting._region.refresh()
        assert "reading items: 1,200 ·" in terminal.file.getvalue()
        counting.told(50, 200, "shards")
        counting._region.refresh()
        assert "50 of 200" in terminal.file.getvalue()


def test_what_the_users_code_writes_over_itself_is_one_line_above_the_bar(terminal, monkeypatch):
    monkeypatch.setattr(output, "_CHUNK_BYTES", 12)
    read, write = os.pipe()
    os.write(write, b"\ritems 1 of 2\ritems 2 of 2\nmore")
    os.close(write)
    with ProgressReporter():
        output.print_all(os.fdopen(read, "rb"), "stderr")
    lines = screen_of(terminal)
    assert [one for one in lines if "items" in one or "more" in one] == ["items 2 of 2", "more"]


def test_long_notes_end_their_lines_between_words_and_keep_paths_whole(terminal, file, monkeypatch):
    path = f"/{'a' * 90}/b"
    console.say_note(f"{'word ' * 20}{path} and more")
    assert file.getvalue().count("\n") == 1  # in a file it is one line
    forced = console.PlainConsole(file=io.StringIO(), width=80, force_terminal=True)
    monkeypatch.setattr(console, "err", forced)
    console.say_note(f"{'word ' * 20}{path} and more")
    assert forced.file.getvalue().count("\n") == 1  # a file with colours is one too
    monkeypatch.setattr(console, "err", terminal)
    console.say_note(f"{'word ' * 20}{path} and more")
    text = re.sub(r"\x1b\[[^m]*m", "", terminal.file.getvalue())
    assert path in text
    assert all(len(line) < 80 for line in text.splitlines() if path not in line)
    assert not re.search(r"wor$|wo$|\bw$", text, re.MULTILINE)


@pytest.mark.parametrize(("kind", "bar"), [("local", True), ("inline", False)])
def test_where_a_debugger_may_ask_there_is_no_bar(kind, bar, tmp_path, monkeypatch):
    class Seen(Exception):
        pass

    def seen(*, bar):
        raise Seen(bar)

    config = Project(tmp_path / "project").config
    monkeypatch.setattr(train, "ProgressReporter", seen)
    with pytest.raises(Seen) as found:
        train.train(config, [f"launch.kind={kind}"])
    assert found.value.args == (bar,)


AT_WORK = """
    import fcntl, signal, sys, termios
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # as a stage notes it
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that ^C comes here
    from epochal.flows.progress import ProgressReporter
    from epochal.tasks.planning.stage import Stage
    from epochal.tasks.reporting import Live

    print("on standard output")
    stage = Stage("train", 3, "a" * 64, {})
    with ProgressReporter() as reporter:
        reporter.planned([stage], set())
        reporter.opening("1 epoch: 0 used as they are, 1 to run")
        reporter.started(stage)
        for update in range(100):
            reporter.live(Live(3, update, 100, 0.5, 1e-3, 0.7, samples=update))
        print("of the user's code")
        signal.sigwait({signal.SIGINT})
        reporter.doing("committing what is done")
    sys.exit("interrupted")
"""


def in_a_terminal(code, *, width, until, **environment):
    """What a program writes to a terminal of that width; ^C is typed once `until` is there."""
    main, side = pty.openpty()
    subprocess.run(["stty", "cols", str(width), "rows", "24"], stdin=side, check=True)
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=side, stdout=side, stderr=side, start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color", "CI": "", **environment},
    )  # fmt: skip
    os.close(side)
    written, typed = "", False
    while select.select([main], [], [], 60)[0]:
        try:
            written += os.read(main, 1 << 16).decode()
        except OSError:  # the program has ended
            break
        if until in written and not typed:
            os.write(main, b"\x03")
            typed = True
    os.close(main)
    return written, process.wait()


@pytest.mark.parametrize("width", [60, 80])
def test_in_a_real_terminal_ctrl_c_leaves_no_line_of_it(width):
    written, code = in_a_terminal(AT_WORK, width=width, until="99 of 100")
    assert code == 1
    assert re.search(r"loss 0\.5000 .*99 of 100|99 of 100.*loss 0\.5000", written, re.DOTALL)
    screen = Screen(width)
    screen.write(written.replace("\r\n", "\n"))
    assert screen.shown == [
        "on standard output",
        "1 epoch: 0 used as they are, 1 to run",
        "of the user's code",
        "interrupted",
    ]
