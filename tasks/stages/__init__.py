"""One file per kind of stage: all that others ask of the kind, and what computes it."""
