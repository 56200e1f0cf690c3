"""A folder of photographs, half as strongly denoised, two at a time: an example of the library.

python docs/examples/denoise_folder.py photos/ denoised/
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import starlight
from starlight.denoise.pictures import open_picture, write_picture


def main(source: Path, target: Path) -> None:
    """Every PNG of a folder, of 8 or 16 bits, grey or colour, into another."""
    denoiser = starlight.Denoiser("edge", threads=1, strength=0.5)
    target.mkdir(parents=True, exist_ok=True)

    def denoise(path: Path) -> str:
        with open_picture(path) as picture:
            rows = denoiser.bands(picture.rows(), *picture.shape[:2])
            write_picture(target / path.name, rows, like=picture)
        return path.name

    with ThreadPoolExecutor(2) as pool:  # threads may share a denoiser
        for name in pool.map(denoise, sorted(source.glob("*.png"))):
            print(name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
