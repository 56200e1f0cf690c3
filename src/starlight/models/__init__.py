"""The denoiser (U-shaped, residual, dense) and its presets.

Nothing here knows training, quantisation or file formats other than its own weights.
"""

from starlight.models.config import PRESETS, DenoiserConfig
from starlight.models.denoiser import DenoisingNetwork

__all__ = ["PRESETS", "DenoiserConfig", "DenoisingNetwork"]
