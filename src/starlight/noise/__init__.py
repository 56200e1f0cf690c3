"""Camera noise: calibrated profiles and reproducible noise conditions, without torch.

    portable <- tone, sampling, profiles <- conditions
    tone, profiles <- training            (the only file here that imports torch)

`NoiseCondition.parse("iso_6400").apply(image, seed=0)` is the entry point for measuring;
`starlight.noise.training.TrainingNoise` is the fast batched sampler for training.
"""

from starlight.noise.conditions import (
    NAMED_CONDITIONS,
    OUTPUT_RANGES,
    CameraNoise,
    GaussianNoise,
    NoiseCondition,
    round_to_u8,
)
from starlight.noise.profiles import CameraProfile
from starlight.noise.tone import TONE_CURVES, TabulatedCurve, ToneCurve

__all__ = [
    "NAMED_CONDITIONS",
    "OUTPUT_RANGES",
    "TONE_CURVES",
    "CameraNoise",
    "CameraProfile",
    "GaussianNoise",
    "NoiseCondition",
    "TabulatedCurve",
    "ToneCurve",
    "round_to_u8",
]
