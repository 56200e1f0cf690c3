"""What users call: `starlight.Denoiser`, and image files and folders through it.

images <- denoiser <- files         (only denoiser imports torch)
"""
