"""What became of a burst: figures for JSON, the map of mended pixels, a picture."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from starlight.bayer import Float64, demosaic
from starlight.capture.publish import ScenePairs
from starlight.capture.session import FrameFormat, KnownTruth, Scene
from starlight.capture.truth import SceneTruth
from starlight.files import write_atomically
from starlight.images import write_pixels
from starlight.noise.tone import tone_curve

_CLAIMED_SIGMA = 6.0
_SHOWN_PIXELS = 1000  # along a side of the picture, about


def psnr_db(truth: Float64, image: Float64, format: FrameFormat) -> float | None:
    """PSNR in dB of readings, the peak being white minus black; None where they are equal."""
    error = float(np.mean((image - truth) ** 2))
    return None if error == 0.0 else 10.0 * math.log10(format.range**2 / error)


def scene_figures(
    scene: Scene, found: SceneTruth, format: FrameFormat, pairs: ScenePairs | None = None
) -> dict[str, Any]:
    """The report of one scene, ready for JSON; psnr_db and the like where the truth is known."""
    statistics = found.statistics
    sound = ~found.flawed
    noise = math.sqrt(float(np.mean(found.noise_left[sound] ** 2))) if sound.any() else None
    figures: dict[str, Any] = {
        "scene": scene.name,
        "target_frames": len(scene.target),
        "dark_frames": len(scene.dark),
        "frames_kept": found.kept,
        "frames_dropped": [
            {"file": frame.path.relative_to(scene.folder).as_posix(), "reason": reason}
            for frame, reason in zip(scene.target, found.reasons, strict=True)
            if reason
        ],
        "largest_shift_pixels": found.largest_shift,
        "frames_too_noisy_for_shift": found.unknown_shifts,
        "pixels": int(found.flawed.size),
        "pixels_mended": int(found.flawed.sum()),
        "samples_clipped": int((statistics.below + statistics.above).sum()),
        "samples_replaced": found.samples_replaced,
        "noise_left": noise,
        "noise_left_db": 20.0 * math.log10(format.range / noise) if noise else None,
    }
    if pairs is not None and scene.noisy:
        ratios = [pair.exposure_ratio for pair in pairs.pairs]
        figures["noise_frames"] = {
            "count": len(ratios),
            "left_out": [
                {"file": file, "reason": reason} for file, reason in pairs.left_out.items()
            ],
            "exposure_ratio_least": min(ratios, default=None),
            "exposure_ratio_most": max(ratios, default=None),
            "samples_cut_off": pairs.clipped,
            "frames_too_noisy_for_shift": pairs.unknown_shifts,
        }
    known = KnownTruth.load(scene.folder)
    if known is not None:
        figures |= _against(known, found, format)
    return figures


def _against(known: KnownTruth, found: SceneTruth, format: FrameFormat) -> dict[str, Any]:
    if known.truth.shape != found.truth.shape:
        raise ValueError(
            f"known truth must have the frames' shape {list(found.truth.shape)}, "
            f"got {list(known.truth.shape)}"
        )
    values = {name: psnr_db(known.truth, image, format) for name, image in found.steps.items()}
    steps: list[dict[str, Any]] = []
    former: float | None = None
    for name, value in values.items():
        gain = None if value is None or former is None else value - former
        steps.append({"step": name, "psnr_db": value, "gain_db": gain})
        former = value
    figures: dict[str, Any] = {
        "psnr_db": psnr_db(known.truth, found.truth, format),
        "psnr_plain_mean_db": values["plain_mean"],
        "steps": steps,
    }
    if known.kind.shape == found.flawed.shape:
        figures["dead_pixels"] = defect_scores(known, found.flawed, len(found.levels))
    return figures


def defect_scores(known: KnownTruth, flawed: NDArray[np.bool_], frames: int) -> dict[str, Any]:
    """Precision over all that was flagged, recall over flaws above 6 sigma of the mean of frames.

    None where there was nothing to flag or to find.
    """
    real = known.kind > 0
    wanted = np.abs(known.amplitude) > _CLAIMED_SIGMA * known.deviation / math.sqrt(frames)
    flagged, found = int(flawed.sum()), int((flawed & real).sum())
    return {
        "flagged": flagged,
        "real": int(real.sum()),
        "above_6_sigma": int(wanted.sum()),
        "false": flagged - found,
        "missed_above_6_sigma": int((wanted & ~flawed).sum()),
        "precision": found / flagged if flagged else None,
        "recall_above_6_sigma": float(flawed[wanted].mean()) if wanted.any() else None,
    }


def summary(scenes: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the scenes whose truth is known; empty without one."""
    known = [figures for figures in scenes if figures.get("psnr_db") is not None]
    if not known:
        return {}
    found: dict[str, Any] = {
        name: sum(figures[name] for figures in known) / len(known)
        for name in ("psnr_db", "psnr_plain_mean_db")
    }
    scores = [figures["dead_pixels"] for figures in known if "dead_pixels" in figures]
    flagged, wanted = (sum(s[name] for s in scores) for name in ("flagged", "above_6_sigma"))
    if flagged and wanted:
        found["dead_pixel_precision"] = 1.0 - sum(s["false"] for s in scores) / flagged
        missed = sum(s["missed_above_6_sigma"] for s in scores)
        found["dead_pixel_recall_above_6_sigma"] = 1.0 - missed / wanted
    return found


def write_pictures(folder: Path, scene: Scene, found: SceneTruth, format: FrameFormat) -> None:
    """Write SCENE_mended.png, the map of mended pixels (white), and SCENE.png, the picture."""
    mended = found.flawed if found.flawed.ndim == 2 else found.flawed.any(-1)
    write_pixels(folder / f"{scene.name}_mended.png", np.where(mended, 255, 0).astype(np.uint8))
    write_atomically(folder / f"{scene.name}.png", _picture(scene, found, format))


def preview(readings: Float64, format: FrameFormat) -> NDArray[np.float64]:
    """An image for the screen, float64 [H, W, 3] in 0..1: demosaiced, grey balanced, encoded."""
    light = format.to_linear(readings)
    if format.pattern is not None:
        light = demosaic(light, format.pattern)
    elif light.ndim == 2:
        light = np.repeat(light[..., None], 3, axis=2)
    if format.tone is None:
        means = light.mean((0, 1))
        light = light * (means.max() / np.maximum(means, 1e-9))
    return tone_curve(format.tone or "srgb").to_encoded(np.clip(light, 0.0, 1.0))


def _picture(scene: Scene, found: SceneTruth, format: FrameFormat) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # An odd step keeps the order of a mosaic's colours.
    step = 2 * (max(found.truth.shape[:2]) // _SHOWN_PIXELS // 2) + 1
    figure = Figure(figsize=(11, 8), layout="constrained")
    ((truth, flaws), (light, noise)) = figure.subplots(2, 2)
    truth.imshow(preview(found.truth[::step, ::step], format))
    truth.set_title(f"truth of {found.kept} frames")
    mended = found.flawed if found.flawed.ndim == 2 else found.flawed.any(-1)
    rows, columns = np.nonzero(mended)
    flaws.scatter(columns, rows, s=3, color="tab:red", linewidths=0)
    height, width = mended.shape
    flaws.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), aspect="equal")
    flaws.set_title(f"{int(found.flawed.sum())} pixels mended")
    level = found.levels / found.levels.mean() - 1.0
    kept = np.array([reason is None for reason in found.reasons])
    numbers = np.arange(len(level))
    light.plot(numbers[kept], 100.0 * level[kept], ".", color="tab:blue", label="kept")
    if not kept.all():
        light.plot(numbers[~kept], 100.0 * level[~kept], "x", color="tab:red", label="dropped")
    light.set(xlabel="frame", ylabel="light off the mean, %")
    light.legend()
    light.set_title(f"{int((~kept).sum())} frames dropped")
    left = found.noise_left[::step, ::step]
    left = left if left.ndim == 2 else left.mean(-1)
    shown = noise.imshow(left, vmax=float(np.quantile(left, 0.995)) or None)
    figure.colorbar(shown, ax=noise, label="standard deviation, readings")
    noise.set_title("noise left in the truth")
    for axes in (truth, flaws, noise):
        axes.set(xticks=[], yticks=[])
    figure.suptitle(scene.name)
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream)
    return stream.getvalue()
