"""Train an epoch, evaluate; gradients, loss weights, recorder, progress, mixing, resize."""
