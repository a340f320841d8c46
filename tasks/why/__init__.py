"""From a point in a run's curves to its update: samples, gradients, what came before; replay."""
