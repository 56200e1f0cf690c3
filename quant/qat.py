"""The main job, `python -m quant.qat`: what does quality cost on this chip?

Float weights in; a run folder out that holds the quantised network as graph and bundle, the PSNR of
float, post-training and quantisation-aware integers, the bit check, and a report. This is the one
file of `quant` that may import `hls_export` and `starlight.training`.
"""

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, get_args

import click
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from hls_export.bundle import Bundle, pack_bundle
from hls_export.costs import frame_costs
from hls_export.cycles import summary
from hls_export.document import bundle_document
from hls_export.executors import Engine, Result
from hls_export.export import BUNDLE, FRAME, export, layer_rows
from hls_export.memory import cells
from hls_export.npu import Chip, check_fits, load_chip
from hls_export.planner import plan_stripes
from hls_export.verify import Verdict, compare_results, verify
from quant import contract
from quant.accumulators import limit_accumulators
from quant.calibration import DECIBELS, Batch, Ranges
from quant.convert import calibrate, project
from quant.graph_files import save_graph
from quant.integer_graph import IntegerGraph
from quant.interpret import run as interpret
from quant.interpret import run_traced
from quant.lower import lower, run_quantised
from quant.modules import QuantDenoisingNetwork, check_lowerable
from quant.objective import Measure, Objective
from quant.precision import Precision, load_precision
from quant.quality import Quality, cost_lines, mean_psnr, psnr_table, worst_loss
from quant.ranges import buffer_ranges, sum_bits
from quant.report import Run, write_report
from starlight.denoise.denoiser import Denoiser
from starlight.distributed import World, join, processes_option
from starlight.errors import OneLineErrors
from starlight.evaluation.photographs import held_out
from starlight.files import write_json
from starlight.models.checkpoint import load_network
from starlight.models.cost import macs_per_pixel, parameter_count, receptive_radius
from starlight.models.denoiser import DenoisingNetwork
from starlight.noise import NoiseCondition
from starlight.noise.training import TrainingNoise
from starlight.training.command import make_mix
from starlight.training.config import load_config
from starlight.training.data import load_photographs, to_network, to_pixels
from starlight.training.loop import Trainer, TrainingSettings
from starlight.training.mix import CHECK_STEPS, CleanSource, Mix

UInt8Image = npt.NDArray[np.uint8]

BIT_CHECK_CONDITION: Final = NoiseCondition.parse("iso_6400")
CALIBRATION_BATCHES: Final = 8  # of each kind
EXPONENT_LEARNING_RATE_RATIO: Final = 20.0  # exponents move in whole steps, weights in hundredths
EXPONENTS: Final = 1  # their place among the parameter groups


def parameter_groups(network: QuantDenoisingNetwork, options: "Options") -> list[dict[str, Any]]:
    """Weights at the learning rate; exponents faster, or not at all."""
    exponents: list[nn.Parameter] = []
    weights: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        (exponents if name.endswith("exponent") else weights).append(parameter)
    ratio = EXPONENT_LEARNING_RATE_RATIO if options.learned_exponents else 0.0
    return [
        {"params": weights, "lr": options.learning_rate},
        {"params": exponents, "lr": options.learning_rate * ratio},
    ]


def whole_pixels(batch: Batch) -> Batch:
    """The noisy images as the chip sees them: clip(floor(pixel + 1/2), 0, 255)."""
    noisy, clean = batch
    return to_network((to_pixels(noisy) + 0.5).floor().clamp(0, contract.PIXEL_MAX)), clean


def first_images(batches: Iterable[Batch]) -> Iterator[UInt8Image]:
    """The first noisy image of each batch of whole pixels, uint8 [H, W, 3]."""
    for noisy, _ in batches:
        yield to_pixels(noisy[0]).permute(1, 2, 0).to(torch.uint8).numpy()


def bit_check(
    network: QuantDenoisingNetwork, graph: IntegerGraph, bundle: Path, photograph: UInt8Image
) -> list[Verdict]:
    """QAT model in float64 against the golden model, then every executor of the bundle, by ==.

    photograph: clean uint8 [H, W, 3]; camera noise is added.
    """
    noisy = BIT_CHECK_CONDITION.apply(photograph, seed=0, output="u8_clipped")
    reference = Result(*run_traced(graph, noisy))
    difference = compare_results(Result(*run_quantised(network, noisy)), reference)
    height, width = noisy.shape[:2]
    first = Verdict(
        "QAT model in float64",
        "image",
        "numpy",
        "PASS" if difference is None else "FAIL",
        difference or f"{len(reference.layers)} layers and output, {width}x{height} equal",
    )
    return [first, *verify(bundle.read_bytes(), noisy)]


def write_run(
    folder: Path,
    run: Run,
    seconds: Mapping[str, float],
    json_file: Path | None,
) -> None:
    """metrics.json and report.html, and the figures once more where `--json` wants them."""
    metrics = {
        "name": run.name,
        "chip": run.chip["name"],
        "psnr": run.psnr,
        "costs": run.costs,
        "bit_check": list(run.verdicts),
        "bundle": {name: value for name, value in run.bundle.items() if name != "buffers"},
        "model": run.model,
        "settings": run.settings,
        "ranges": [asdict(buffer) for buffer in run.ranges],
        "sensitivity": dict(run.sensitivity),
        "worst": None if run.worst is None else run.worst.figures(),
        "accumulator_bits": max(run.accumulator_bits.values()),
        "sum_bits": max(run.sum_bits.values()),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
    }
    write_json(folder / "metrics.json", metrics)
    if json_file is not None:
        write_json(json_file, metrics)
    write_report(run, folder / "report.html")


@dataclass(frozen=True)
class Options:
    """What a run depends on; also what its report and metrics name."""

    weights: str
    chip: str
    arithmetic: str | None
    precision: str | None
    data: tuple[str, ...]
    evaluation: str | None
    mix: str | None
    steps: int
    minutes: float | None
    batch: int
    patch: int
    learning_rate: float
    ranges: Ranges
    equalise: bool
    learned_exponents: float
    accumulator_bits: int | None
    objective: Measure
    distillation: float
    crop: int
    seed: int


def chosen_precision(options: Options, chip: Chip) -> Precision:
    """What the command line says, else the precision file, else the chip's first arithmetic."""
    precision = load_precision(options.precision) if options.precision else Precision()
    told = "arithmetic" in precision.model_fields_set
    default = precision.arithmetic if told else chip.capability.arithmetic[0]
    return precision.model_copy(update={"arithmetic": options.arithmetic or default})


def run_qat(
    folder: Path,
    options: Options,
    *,
    limit: int | None = None,
    resume: bool = False,
    json_file: Path | None = None,
    world: World | None = None,
) -> bool:
    """The whole job. Returns whether the bit check passed.

    Of several processes (`starlight.distributed`) all train; the writer does the rest.
    Raises ValueError or FileNotFoundError before any work when an input is unusable.
    """
    started = time.monotonic()
    world = world or World()
    chip = load_chip(options.chip)
    float_model = load_network(options.weights)
    check_lowerable(float_model.config)
    name = Path(options.weights).stem
    mix = _mix(options, world)
    evaluation = Path(options.evaluation) if options.evaluation else None
    quality = Quality(held_out(evaluation, limit, options.crop), options.seed)
    calibration = calibration_batches(mix)
    network, calibrated = calibrate(
        float_model,
        calibration,
        chosen_precision(options, chip),
        ranges=options.ranges,
        equalise=options.equalise,
    )
    accumulator_bits = options.accumulator_bits or chip.capability.accumulator_bits
    limit_accumulators(network, accumulator_bits)
    ptq_graph = lower(network, name)
    check_fits(ptq_graph, chip)
    plan_stripes(ptq_graph, chip)  # refuses now what the chip's SRAM cannot hold
    trainer = _trainer(folder, options, network, float_model, mix, accumulator_bits, world)
    if resume:
        trainer.resume()
    if not world.is_writer:
        trainer.run()
        return True
    folder.mkdir(parents=True, exist_ok=True)

    float_denoise = Denoiser(float_model).denoise
    ptq_denoise = _integers(ptq_graph, chip)
    scores = {
        "float": quality.scores(float_denoise, "the float model"),
        "ptq": quality.scores(ptq_denoise, "post-training quantisation, integers"),
    }
    if not trainer.run():
        click.echo(f"stopped; --resume goes on from {trainer.checkpoint}", err=True)
        raise SystemExit(130)
    trainer.load_average()
    project(network)
    limit_accumulators(network, accumulator_bits)

    graph = lower(network, name)
    qat_denoise = _integers(graph, chip)
    scores["qat"] = quality.scores(qat_denoise, "quantisation-aware training, integers")
    psnr = mean_psnr(scores)
    save_graph(graph, folder / "graph.json")
    bundle = export(graph, folder, chip)
    costs = frame_costs(graph, chip, *FRAME, bundle.stripes)
    denoisers = (float_denoise, ptq_denoise, qat_denoise)
    photograph_name, condition, _ = worst_loss(scores["float"], scores["qat"])
    click.echo("checking bits")
    photograph = next(iter(held_out(evaluation, 1).values()))
    verdicts = bit_check(network, graph, folder / BUNDLE, photograph)
    run = Run(
        name=name,
        chip=chip.model_dump(),
        model=_model_facts(float_model),
        settings=_settings(options, trainer),
        psnr=psnr,
        loss=trainer.history,
        layers=layer_rows(bundle),
        ranges=buffer_ranges(graph, first_images(calibration)),
        sum_bits=sum_bits(graph, first_images(calibration)),
        sensitivity=(
            {name: DECIBELS * error for name, error in calibrated.errors.items()}
            if options.ranges == "output"  # else errors are not the output's
            else {}
        ),
        accumulator_bits={layer.name: graph.accumulator_bits(layer) for layer in graph.layers},
        verdicts=[
            {
                "check": f"{verdict.machine} on {verdict.image} = {verdict.against}",
                "verdict": verdict.status,
                "detail": verdict.detail,
            }
            for verdict in verdicts
        ],
        costs={title: summary(cost) for title, cost in costs.items()},
        bundle={"arithmetic": graph.arithmetic, **_bundle_facts(folder / BUNDLE, bundle)},
        pictures=quality.pictures(*denoisers),
        worst=quality.picture(photograph_name, condition, *denoisers),
        files=FILES,
    )
    seconds = {"training": trainer.seconds, "total": time.monotonic() - started}
    write_run(folder, run, seconds, json_file)

    click.echo(psnr_table(psnr))
    for line in cost_lines(run.costs):
        click.echo(line)
    for verdict in verdicts:
        click.echo(verdict)
    passed = all(verdict.status != "FAIL" for verdict in verdicts)
    click.echo(f"report:    {folder / 'report.html'}")
    click.echo(f"bundle:    {folder / BUNDLE} ({run.bundle['bytes']} bytes)")
    click.echo(f"bit check: {'PASS' if passed else 'FAIL'}")
    return passed


FILES: Final = {
    "model.slb": "the bundle that the chip's runtime reads",
    "graph.json": "the IntegerGraph's structure",
    "graph.npz": "its weights, exponents and biases",
    "weights.bin": "weights in streaming order",
    "layers.json": "layer table, complete",
    "layers.csv": "layer table for a spreadsheet",
    "model.h": "layer table as C",
    "metrics.json": "every figure of this report",
    "checkpoint.pt": "training state; --resume goes on from it",
}


def _integers(graph: IntegerGraph, chip: Chip) -> Any:
    """uint8 [H, W, 3] -> uint8, by the engine where it is built, else by the golden model.

    Which one is the same to the bit; the run's bit check compares them.
    """
    if Engine().available() is not None:
        return lambda image: interpret(graph, image)
    model = Engine.native().Model(pack_bundle(graph, chip))
    return lambda image: model.run(image)[0]


def calibration_batches(mix: Mix) -> list[Batch]:
    """Batches that training does not draw; half of them have noise of every strength.

    A mix in which strong noise is rare leaves few values at the ends of ranges, and images of it
    then saturate. So the mix's clean photographs come a second time, with Gaussian and camera
    noise half and half, all sigmas and gains alike.
    """
    noise = TrainingNoise(u8_fraction=1.0)
    every = [
        (CleanSource(source.photographs, noise), weight)
        for source, weight in mix.sources
        if isinstance(source, CleanSource)
    ]
    mixes = [mix, replace(mix, sources=every)] if every else [mix]
    batches = (
        one.batch(CHECK_STEPS + kind * CALIBRATION_BATCHES + index)
        for kind, one in enumerate(mixes)
        for index in range(CALIBRATION_BATCHES)
    )
    return [whole_pixels(batch) for batch in batches]


def _mix(options: Options, world: World) -> Mix:
    """What is trained on: the [[data]] of `mix`, or photographs with drawn noise."""
    if options.mix is not None:
        config = load_config(options.mix)
        own = {"batch": options.batch, "patch": options.patch}
        training = config.training.model_copy(update=own)
        config = config.model_copy(update={"seed": options.seed, "training": training})
        return make_mix(config, config.data, int(config.memory_gb * (1 << 30)), world)
    photographs = load_photographs([Path(path) for path in options.data])
    source = CleanSource(photographs, TrainingNoise(u8_fraction=1.0))
    return Mix([(source, 1.0)], options.batch, options.patch, options.seed, world)


def _trainer(
    folder: Path,
    options: Options,
    network: QuantDenoisingNetwork,
    teacher: DenoisingNetwork,
    mix: Mix,
    accumulator_bits: int,
    world: World,
) -> Trainer:
    settings = TrainingSettings(
        steps=options.steps,
        minutes=options.minutes,
        learning_rate=options.learning_rate,
        warmup=20,
        ema=0.98,
        precision="float32",  # bfloat16 would round accumulators before the quantiser does
        checkpoint_seconds=20.0,
    )
    identity = (
        f"qat of {network.config.to_json()} from {options.weights}, data {options.data}, "
        f"precision {network.precision.model_dump_json()}, "
        f"mix {options.mix}, batch {options.batch}, patch {options.patch}, seed {options.seed}, "
        f"ranges {options.ranges}, equalise {options.equalise}, objective {options.objective}, "
        f"distillation {options.distillation}, accumulator {accumulator_bits} bits, "
        f"learned exponents {options.learned_exponents}"
    )

    def after_step() -> None:
        project(network)
        if accumulator_bits < contract.ACCUMULATOR_BITS:
            limit_accumulators(network, accumulator_bits)
        if trainer.progress >= options.learned_exponents:
            trainer.optimiser.param_groups[EXPONENTS]["peak"] = 0.0

    trainer = Trainer(
        network,
        lambda step: whole_pixels(mix.part(step)),
        settings,
        folder,
        loss=Objective(teacher, options.objective, options.distillation),
        after_step=after_step,
        identity=identity,
        parameters=parameter_groups(network, options),
        world=world,
    )
    return trainer


def _model_facts(network: DenoisingNetwork) -> dict[str, Any]:
    config = network.config
    return {
        **config.model_dump(),
        "parameters": parameter_count(config),
        "macs_per_pixel": macs_per_pixel(config),
        "receptive_radius": receptive_radius(config),
    }


def _settings(options: Options, trainer: Trainer) -> dict[str, Any]:
    packages = ("torch", "brevitas", "numpy")
    return {
        **asdict(options),
        "steps_done": trainer.step,
        "training_seconds": round(trainer.seconds, 1),
        "threads": torch.get_num_threads(),
        **{package: version(package) for package in packages},
    }


def _bundle_facts(file: Path, bundle: Bundle) -> dict[str, Any]:
    height, width = FRAME
    data = file.read_bytes()
    frame_cells = cells(bundle.model.levels, height, width)
    return {
        "file": file.name,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "frame": f"{width}x{height}",
        "arena_bytes": bundle.model.arena_bytes_per_cell * frame_cells,
        "buffers": bundle_document(bundle)["buffers"],
    }


_path = click.Path(path_type=Path)


@click.command(cls=OneLineErrors)
@click.option("--weights", default="edge", show_default=True, help="Shipped preset or a file.")
@click.option("--chip", default="reference", show_default=True, help="Known chip or a TOML file.")
@click.option(
    "--arithmetic",
    type=click.Choice(contract.ARITHMETICS),
    help="Of the requantisation.  [default: the precision file's, else the chip's first]",
)
@click.option("--precision", help="TOML or JSON: bits of buffers and weights (quant/precision.py).")
@click.option("--out", type=_path, help="Run folder.  [default: runs/qat-<weights>]")
@click.option(
    "--data",
    multiple=True,
    help="Folder of clean training photographs (repeatable).  [default: scikit-image's]",
)
@click.option("--mix", help="Training file whose [[data]] serves in place of --data.")
@click.option("--evaluation", help="Folder of evaluation images.  [default: scikit-image's]")
@click.option("--limit", type=click.IntRange(1), help="Use that many evaluation images.")
@click.option(
    "--crop",
    type=click.IntRange(0),
    default=256,
    show_default=True,
    help="Evaluate the middle of each image; 0: all of it.",
)
@click.option("--steps", type=click.IntRange(1), default=800, show_default=True)
@click.option(
    "--minutes",
    type=float,
    default=4.5,
    show_default=True,
    help="Cap on training time; when it binds, the result depends on the machine's speed.",
)
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True)
@click.option("--patch", type=click.IntRange(1), default=64, show_default=True)
@click.option("--learning-rate", type=float, default=3e-4, show_default=True)
@click.option(
    "--ranges",
    type=click.Choice(get_args(Ranges)),
    default="output",
    show_default=True,
    help="Calibrate for the least error at the output, or of each channel by itself.",
)
@click.option(
    "--equalise/--no-equalise",
    default=True,
    show_default=True,
    help="Give channels gains that bring their ranges together.",
)
@click.option(
    "--learned-exponents",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of the steps, from the first, in which exponents are learned too.",
)
@click.option(
    "--accumulator-bits",
    type=click.IntRange(12, contract.ACCUMULATOR_BITS),
    help="Train weights whose sums are proven to fit.  [default: the chip's]",
)
@click.option("--objective", type=click.Choice(get_args(Measure)), default="log", show_default=True)
@click.option(
    "--distillation",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of the error that follows the float model instead of the clean image.",
)
@click.option("--seed", default=0, show_default=True)
@click.option("--threads", type=click.IntRange(1), help="Threads of PyTorch.")
@click.option("--resume", is_flag=True, help="Go on from the run folder's checkpoint.")
@processes_option("quant.qat")
@click.option("--json", "json_file", type=_path, help="Write the figures there too.")
def main(
    out: Path | None,
    limit: int | None,
    threads: int | None,
    resume: bool,
    json_file: Path | None,
    **options: Any,
) -> None:
    """Quantise a denoiser for a chip: calibrate, train, evaluate, export, check the bits."""
    if threads is not None:
        torch.set_num_threads(threads)
    torch.manual_seed(options["seed"])
    folder = out or Path("runs") / f"qat-{Path(options['weights']).stem}"
    with join("cpu") as world:
        passed = run_qat(
            folder, Options(**options), limit=limit, resume=resume, json_file=json_file, world=world
        )
        raise SystemExit(0 if passed else 1)


if __name__ == "__main__":
    main()
