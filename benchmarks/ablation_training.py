"""What a job of `benchmarks.choices` does in its process: train, measure, leave a result."""

import json
from collections.abc import Callable

import torch

from benchmarks.ablation import CONDITIONS, Job
from starlight.denoise.denoiser import Denoiser
from starlight.evaluation.photographs import held_out
from starlight.evaluation.suites import evaluate, mean_scores
from starlight.files import write_json
from starlight.models.config import DenoiserConfig
from starlight.models.cost import macs_per_pixel, parameter_count
from starlight.models.denoiser import DenoisingNetwork
from starlight.noise import NoiseCondition
from starlight.noise.training import TrainingNoise
from starlight.training.data import PatchSampler, load_photographs
from starlight.training.loop import Trainer, TrainingSettings


def run(job: Job, report: Callable[[int], None]) -> None:
    """Run the job from its checkpoint, or from the beginning when there is none.

    report: called with the number of steps that it went on. Exits with 130 when a signal stopped
    the training; its checkpoint is then in the job's folder.
    """
    torch.set_num_threads(1)
    settings = job.settings
    config = DenoiserConfig.from_json(json.dumps(job.config))
    sampler = PatchSampler(
        load_photographs(settings.data),
        TrainingNoise(),
        batch_size=settings.batch,
        patch=settings.patch,
        seed=job.seed,
    )
    photographs = held_out(settings.evaluation, settings.limit, settings.crop)
    torch.manual_seed(job.seed)
    network = DenoisingNetwork(config)
    job.folder.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(
        network,
        sampler.batch,
        TrainingSettings(
            steps=settings.steps,
            learning_rate=settings.learning_rate,
            warmup=min(200, settings.steps // 10),
            precision="float32",
        ),
        job.folder,
        after_step=lambda: report(1),
        identity=json.dumps([job.case, job.seed, settings.record()]),
    )
    if trainer.checkpoint.is_file():
        trainer.resume()
        report(trainer.step)
    if not trainer.run():
        raise SystemExit(130)
    trainer.load_average()
    conditions = [NoiseCondition.parse(name) for name in CONDITIONS]
    scores = evaluate(Denoiser(network.eval()).denoise, photographs, conditions)
    means = mean_scores(scores)
    write_json(
        job.result_file,
        {
            "case": job.case,
            "seed": job.seed,
            "settings": settings.record(),
            "config": config.model_dump(),
            "parameters": parameter_count(config),
            "macs_per_pixel": macs_per_pixel(config),
            "photographs": {"training": len(sampler.photographs), "evaluation": len(photographs)},
            "psnr": {name: row["psnr"] for name, row in means.items()},
            "psnr_noisy": {name: row["psnr_noisy"] for name, row in means.items()},
            "seconds": trainer.seconds,
        },
    )
    trainer.checkpoint.unlink()
