"""Commands that ask what a run or a store holds: why, compare, query. They change nothing."""
