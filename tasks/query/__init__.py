"""SQL over all runs' records and tables of a store, by DuckDB, which sees nothing else."""
