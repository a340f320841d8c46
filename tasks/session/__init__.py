"""What the stages of a run share while they are computed: live state, signals, progress."""
