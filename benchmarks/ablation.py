"""Jobs and results of `benchmarks.choices`; loads no torch."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from starlight.denoise.images import list_images

BASE: Final = "base"
CONDITIONS: Final = ("sigma_25", "iso_6400")

# Case -> the one Choice that it makes otherwise than the base.
CASES: Final[dict[str, dict[str, Any]]] = {
    BASE: {},
    **{
        f"{name}={value}".lower(): {name: value}
        for name, value in (
            ("skip", "module"),
            ("skip", "literal"),
            ("growth", "full"),
            ("upsampling", "transposed"),
            ("upsampling", "nearest"),
            ("subtraction", False),
            ("widening", "constant"),
        )
    },
}


@dataclass(frozen=True)
class Settings:
    """What all jobs of a table share.

    data, evaluation: folders of photographs; none: those inside scikit-image.
    limit, crop: that many evaluation photographs, the middle crop x crop of each.
    """

    width: int
    levels: int
    steps: int
    batch: int
    patch: int
    learning_rate: float
    data: tuple[Path, ...]
    evaluation: Path | None
    limit: int
    crop: int

    def check_folders(self) -> None:
        """Raise FileNotFoundError or ValueError for a folder without photographs."""
        for folder in (*self.data, *filter(None, [self.evaluation])):
            list_images(folder)

    def record(self) -> dict[str, Any]:
        """JSON types; of a folder its name, so that a result says nothing of a machine."""
        own = "scikit-image"
        return {
            **asdict(self),
            "data": [folder.resolve().name for folder in self.data] or [own],
            "evaluation": own if self.evaluation is None else self.evaluation.resolve().name,
        }


@dataclass(frozen=True)
class Job:
    """One training: a case and a seed, with its files in a folder of its own under `out`."""

    case: str
    seed: int
    settings: Settings
    out: Path

    def __str__(self) -> str:
        return f"choices: {self.case}, seed {self.seed}"

    @property
    def folder(self) -> Path:
        return self.out / self.case / f"seed-{self.seed}"

    @property
    def result_file(self) -> Path:
        return self.folder / "result.json"

    @property
    def config(self) -> dict[str, Any]:
        """The fields of the `DenoiserConfig`."""
        shape = {"width": self.settings.width, "levels": self.settings.levels}
        return {**shape, **CASES[self.case]}

    def result(self) -> dict[str, Any] | None:
        """What the job left, None before it has finished.

        Raises ValueError when it is damaged, or was left under other settings.
        """
        if not self.result_file.is_file():
            return None
        try:
            result = json.loads(self.result_file.read_text(encoding="utf-8"))
            settings = result["settings"]
        except (ValueError, LookupError, TypeError) as error:
            raise ValueError(
                f"{self}: result must be intact, got {error!r}; delete {self.result_file}"
            ) from error
        for name, value in self.settings.record().items():
            if settings.get(name) != value:
                raise ValueError(
                    f"{self}: {name} must be {settings.get(name)} as in {self.result_file}, "
                    f"got {value}; choose another --out"
                )
        return result


def summarise(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row per case out of one result per case and seed, the base among them.

    psnr         condition -> mean over seeds, dB
    spread       largest - smallest over seeds, of the mean over conditions, dB
    differences  to the base of the same seed, of the mean over conditions, dB; in order of seeds
    difference   their mean
    """
    rows = []
    base = {result["seed"]: _mean(result) for result in results if result["case"] == BASE}
    for case in dict.fromkeys(result["case"] for result in results):
        members = [result for result in results if result["case"] == case]
        means = [_mean(member) for member in members]
        differences = [
            mean - base[member["seed"]] for member, mean in zip(members, means, strict=True)
        ]
        rows.append(
            {
                "case": case,
                "seeds": [member["seed"] for member in members],
                "psnr": {
                    condition: sum(member["psnr"][condition] for member in members) / len(members)
                    for condition in CONDITIONS
                },
                "spread": max(means) - min(means),
                "differences": differences,
                "difference": sum(differences) / len(differences),
                "macs_per_pixel": members[0]["macs_per_pixel"],
                "parameters": members[0]["parameters"],
            }
        )
    return rows


def _mean(result: dict[str, Any]) -> float:
    return sum(result["psnr"][condition] for condition in CONDITIONS) / len(CONDITIONS)
