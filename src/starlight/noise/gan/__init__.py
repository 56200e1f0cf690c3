"""The noise GAN: a generator of camera noise, learnt from truth and noise images.

    config <- networks;  condition, data <- generate <- sheet <- fit

`fit.NoiseFit` trains, `generate.NoiseGenerator` is what remains. docs/NOISE.md has the Choices and
the figures.
"""
