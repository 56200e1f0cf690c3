"""Training: photographs in, weights out. Knows models, noise and evaluation; not quantisation."""
