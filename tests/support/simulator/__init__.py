"""Lives of a run in one process: real code; simulated threads, clock, storage, ranks, services."""
