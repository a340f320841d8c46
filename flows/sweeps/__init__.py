"""The flow of a sweep: which run works when, in which process, and what a person sees of it."""
