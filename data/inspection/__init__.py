"""What must be known of a data set before epoch 0: ids, labels, fingerprint."""
