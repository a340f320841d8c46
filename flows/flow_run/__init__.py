"""What a flow run needs inside: client, log, liveness, cancellation, dead runs."""
