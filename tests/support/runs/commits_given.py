"""Something done at a commit of a run at work: a kill, a signal, a change of its files."""


def at_commit(run, action, *, number=1):
    """Has it done as soon as the run's trainer has given its so many-th commit inside an epoch."""
    trainer, given = run.session.trainer, []
    begin = trainer.begin_commit

    def begin_commit(commit):
        begin(commit)
        given.append(commit["micro_steps"])
        if len(given) == number:
            action()

    trainer.begin_commit = begin_commit


def once_stored(run, action, *, number=1):
    """As `at_commit`, once that commit is stored."""

    def act():
        run.session.trainer._writer.end()
        action()

    at_commit(run, act, number=number)


def each_stored(run):
    """Has training wait for each commit: what fails right after one can go on from it."""
    trainer = run.session.trainer
    begin = trainer.begin_commit

    def begin_commit(commit):
        begin(commit)
        trainer._writer._thread.join()

    trainer.begin_commit = begin_commit
