"""Truth images from bursts of a still camera, and the camera simulator that proves them.

    bayer <- camera <- simulate                                     scenes in, sessions out
    session, stillness, clipping <- burst <- dead_pixels, alignment <- truth
    truth, exposure <- publish <- report <- command                 sessions in, pair sets out
    burst, dead_pixels <- estimate                                  noise parameters of a session

Without torch. The steps and their Choices are in docs/CAPTURE.md.
"""
