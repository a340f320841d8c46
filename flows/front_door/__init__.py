"""Epochal: PyTorch training as a Prefect pipeline, every epoch a keyed, cached, resumable stage."""
