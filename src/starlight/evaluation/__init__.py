"""How good a denoiser is: metrics, suites of noisy photographs, peers to stand beside.

metrics <- suites; ffdnet, peers and photographs stand alone. A denoiser is any callable on arrays.
suite_config <- columns <- contenders <- suite_run <- suite_report <- command: `starlight evaluate`.
"""

from starlight.evaluation.metrics import psnr, ssim
from starlight.evaluation.photographs import evaluation_photographs, training_photographs
from starlight.evaluation.suites import (
    ImageScore,
    evaluate,
    folder_photographs,
    image_seed,
    mean_scores,
)

__all__ = [
    "ImageScore",
    "evaluate",
    "evaluation_photographs",
    "folder_photographs",
    "image_seed",
    "mean_scores",
    "psnr",
    "ssim",
    "training_photographs",
]
