"""What can be known to fail before epoch 0."""
