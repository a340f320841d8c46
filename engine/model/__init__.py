"""What is trained: build, step, state, precision, groups, freezing, EMA, BatchNorm momentum."""
