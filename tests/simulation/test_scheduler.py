"""Only one thread at a time goes on, chosen by the seed; a kill ends all of a process's threads."""

from support.simulator.clock import Here, VirtualEvent, VirtualLock, VirtualThread
from support.simulator.scheduler import Process, Scheduler


def _written(seed, letters="ab", times=20):
    """What as many threads write that take turns, and the digest of it."""
    scheduler, text = Scheduler(seed), []
    processes = [Process(letter) for letter in letters]

    def write(letter):
        for _ in range(times):
            text.append(letter)
            scheduler.switch(letter)

    for process in processes:
        scheduler.spawn(process, process.name, lambda letter=process.name: write(letter))
    scheduler.wait(lambda: all(map(scheduler.is_over, processes)), "the end")
    return "".join(text), scheduler.trace


def test_one_seed_gives_one_order_and_another_seed_another():
    assert _written(1) == _written(1)
    assert _written(1) != _written(2)
    assert sorted(_written(1)[0]) == ["a"] * 20 + ["b"] * 20


def test_a_killed_process_does_nothing_any_more_whatever_it_catches():
    scheduler, done = Scheduler(1), []
    process = Process("victim")

    def work():
        try:
            scheduler.sleep(10.0)
        except Exception:  # noqa: BLE001 - what nobody may catch
            done.append("an error")
        finally:
            scheduler.switch("its cleanup")
            done.append("cleaned up")

    scheduler.spawn(process, "victim", work)
    scheduler.sleep(1.0)
    scheduler.kill(process)
    scheduler.wait(lambda: scheduler.is_over(process), "its end")
    assert done == []


def test_children_end_with_their_parent():
    scheduler = Scheduler(1)
    parent = Process("parent")
    child = Process("child", parent=parent)
    scheduler.spawn(child, "child", lambda: scheduler.sleep(100.0))
    scheduler.kill(parent)
    scheduler.wait(lambda: scheduler.is_over(child), "its end")
    assert not child.alive
    assert scheduler.now_s < 1001.0


def test_nobody_who_can_go_on_is_a_deadlock_and_no_hang():
    scheduler = Here.scheduler = Scheduler(1)
    process, first, second = Process("two"), VirtualLock(), VirtualLock()

    def take(one, other):
        with one:
            scheduler.sleep(1.0)
            with other:
                pass

    try:
        scheduler.spawn(process, "one", lambda: take(first, second))
        scheduler.spawn(process, "other", lambda: take(second, first))
        scheduler.wait(lambda: scheduler.is_over(process), "the end")
    finally:
        Here.scheduler = None
    assert "a lock" in scheduler.deadlock


def test_time_passes_only_where_all_wait():
    scheduler = Here.scheduler = Scheduler(1)
    process, event, seen = Process("one"), VirtualEvent(), []

    def work():
        thread = VirtualThread(target=lambda: (scheduler.sleep(3600.0), event.set()))
        thread.start()
        seen.append(event.wait(60.0))
        seen.append(event.wait())
        thread.join()

    try:
        scheduler.spawn(process, "one", work)
        scheduler.wait(lambda: scheduler.is_over(process), "the end")
    finally:
        Here.scheduler = None
    assert seen == [False, True]
    assert 3600.0 <= scheduler.now_s - 1000.0 < 3601.0
