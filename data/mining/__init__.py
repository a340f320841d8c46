"""Mining: from the sample table and an epoch's observations to the next table and plan."""
