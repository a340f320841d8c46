"""A trainer as the flow's process sees it: what is asked, what is answered, what a signal means."""
