"""A camera's colours: what makes its ISP's linear sRGB of the raw samples behind colour filters."""

Matrix = tuple[tuple[float, float, float], ...]

# libcamera's Raspberry Pi tuning (BSD-2-Clause): colour matrix of the IMX290 at 3900 K; white
# balance of the IMX219 at 4600 K, since the IMX290's tuning holds none.
COLOUR_MATRIX: Matrix = (
    (1.54659, -0.17707, -0.36953),
    (-0.51471, 1.72733, -0.21262),
    (0.06667, -0.92279, 1.85612),
)
WHITE_BALANCE = (1.645, 1.0, 1.488)
