"""A stage in the store: record, status, commit, mid-epoch commits."""
