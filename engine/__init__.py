"""Numbers: state, step, epoch, gradients, schedules. No files, no network, no clock."""
