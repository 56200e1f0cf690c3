"""Truth images from bursts of a still camera, and the camera simulator that proves them.

    bayer <- isp <- camera <- simulate                    (scenes in, capture sessions out)
    bayer <- session, burst, dead_pixels, ... <- truth    (capture sessions in, pair sets out)

Without torch. The steps and their Choices are in docs/CAPTURE.md.
"""
