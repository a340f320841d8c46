"""Run or reuse, life of a run, Prefect tasks, assembly of the tracker."""
