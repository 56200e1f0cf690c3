"""ZigZag's estimate of a layer: our chips and layers in its terms, its cost model's figures back.

ZigZag (KU Leuven, MIT licence) searches the order of loops over a hierarchy of memories; it shares
no code and no formula with `hls_export.cycles`. A chip becomes an array of input channels x output
channels x pixels with a weight per multiplier, shared by the pixels, an accumulator per output,
a weight buffer, an SRAM for activations and one DRAM port for both directions.
"""

import importlib.util
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hls_export.npu import Chip
from quant.contract import ACCUMULATOR_BITS, ACTIVATION_BITS, WEIGHT_BITS

INSTALL: Final = 'pip install -e ".[estimators]"'
# Loop orders tried per layer: the permutations of so many factors.
LOOP_FACTORS: Final = 6


@dataclass(frozen=True)
class Convolution:
    """A layer in the terms of both models; rows, columns: of its output."""

    name: str
    inputs: int
    outputs: int
    rows: int
    columns: int
    kernel: int
    stride: int


@dataclass(frozen=True)
class Estimate:
    """ZigZag's figures: cycles of the array, cycles with every memory, bytes through DRAM."""

    compute_cycles: float
    cycles: float
    dram_bytes: float


def missing() -> str | None:
    """None when ZigZag can be imported, else what would install it."""
    if importlib.util.find_spec("zigzag") is None:
        return f"ZigZag must be installed: {INSTALL}"
    return None


def estimate(chip: Chip, layers: Sequence[Convolution]) -> list[Estimate]:
    """ZigZag's least latency of each layer, alone on the chip, operands in DRAM.

    Raises ImportError when ZigZag is missing.
    """
    if (reason := missing()) is not None:
        raise ImportError(reason)
    from zigzag.mapping.temporal_mapping import TemporalMappingType
    from zigzag.stages.evaluation.cost_model_evaluation import CostModelStage
    from zigzag.stages.main import MainStage
    from zigzag.stages.mapping.spatial_mapping_generation import SpatialMappingGeneratorStage
    from zigzag.stages.mapping.temporal_mapping_generator_stage import (
        TemporalMappingGeneratorStage,
    )
    from zigzag.stages.parser.accelerator_parser import AcceleratorParserStage
    from zigzag.stages.parser.workload_parser import WorkloadParserStage
    from zigzag.stages.results.reduce_stages import MinimalLatencyStage
    from zigzag.stages.workload_iterator import WorkloadStage

    logging.getLogger("zigzag").setLevel(logging.ERROR)
    stages = [
        WorkloadParserStage,
        AcceleratorParserStage,
        WorkloadStage,
        MinimalLatencyStage,
        SpatialMappingGeneratorStage,
        MinimalLatencyStage,
        TemporalMappingGeneratorStage,
        CostModelStage,
    ]
    with tempfile.TemporaryDirectory(prefix="zigzag-") as folder:
        files = {"accelerator": accelerator(chip), "mapping": mapping(chip)}
        paths = {name: os.fspath(Path(folder) / f"{name}.yaml") for name in files}
        for name, document in files.items():  # JSON is YAML
            Path(paths[name]).write_text(json.dumps(document), encoding="utf-8")
        found = MainStage(
            stages,
            **paths,
            workload=[workload(index, layer) for index, layer in enumerate(layers)],
            loma_lpf_limit=LOOP_FACTORS,
            loma_show_progress_bar=False,
            nb_mappings_generated=1,
            enable_mix_spatial_mapping_generation=False,
            access_same_data_considered_as_no_access=True,
            temporal_mapping_type=TemporalMappingType.UNEVEN,
        ).run()
    return [
        Estimate(
            compute_cycles=float(cost.ideal_temporal_cycle),
            cycles=float(cost.latency_total2),
            dram_bytes=sum(
                _moved_bytes(levels[-1]) for levels in cost.mapping.unit_mem_data_movement.values()
            ),
        )
        for cost, _ in found
    ]


def _moved_bytes(pattern: Any) -> float:
    """Bytes that an operand moves into and out of a memory."""
    from zigzag.mapping.data_movement import DataMoveAttr

    counts = pattern.get_attribute(DataMoveAttr.DATA_ELEM_MOVE_COUNT).data
    bits = pattern.get_attribute(DataMoveAttr.DATA_PRECISION).data
    return sum(counts[way] * bits[way] for way in counts) / 8


def _dram_bits(chip: Chip) -> int:
    """Bits of DRAM per cycle of the array; ZigZag wants whole ones."""
    performance = chip.performance
    return max(1, round(8 * performance.dram_bytes_per_second / performance.clock_hz))


def accelerator(chip: Chip) -> dict[str, Any]:
    """A chip as ZigZag's accelerator; on-chip memories as wide as the array, energies left out."""
    performance = chip.performance
    lanes = (performance.input_lanes, performance.output_lanes, performance.pixel_lanes)
    inputs, outputs, pixels = lanes
    wide = 8 * ACCUMULATOR_BITS * max(inputs * outputs, inputs * pixels, outputs * pixels)
    everywhere = ["D1", "D2", "D3"]
    dram = _dram_bits(chip)
    activations = [f"{operand}, {way}" for operand in ("I1", "O") for way in ("fh", "tl")]
    partial = ["O, fl", "O, th"]
    return {
        "name": chip.name,
        "operational_array": {
            "unit_energy": 0.0,
            "unit_area": 0.0,
            "dimensions": everywhere,
            "sizes": list(lanes),
        },
        # From the array outwards: ZigZag reads the hierarchy from the order.
        "memories": {
            "weight": _memory(
                WEIGHT_BITS,
                ["I2"],
                ["D3"],
                [("read", WEIGHT_BITS, ["I2, tl"]), ("write", WEIGHT_BITS, ["I2, fh"])],
            ),
            "accumulator": _memory(
                ACCUMULATOR_BITS,
                ["O"],
                ["D1"],
                [
                    ("read", ACCUMULATOR_BITS, ["O, tl"]),
                    ("read", ACCUMULATOR_BITS, ["O, th"]),
                    ("write", ACCUMULATOR_BITS, ["O, fh"]),
                    ("write", ACCUMULATOR_BITS, ["O, fl"]),
                ],
            ),
            "weight_buffer": _memory(
                8 * performance.weight_buffer_bytes,
                ["I2"],
                everywhere,
                [("read", wide, ["I2, tl"]), ("write", wide, ["I2, fh"])],
            ),
            "sram": _memory(
                8 * performance.sram_bytes,
                ["I1", "O"],
                everywhere,
                [
                    ("read", wide, ["I1, tl", "O, tl", "O, th"]),
                    ("write", wide, ["I1, fh", "O, fh", "O, fl"]),
                ],
            ),
            "dram": _memory(
                1 << 43,
                ["I1", "I2", "O"],
                everywhere,
                [("read_write", dram, [*activations, *partial, "I2, fh", "I2, tl"])],
            ),
        },
    }


def _memory(
    bits: int, operands: list[str], served: list[str], ports: list[tuple[str, int, list[str]]]
) -> dict[str, Any]:
    names = {"read": "r_port", "write": "w_port", "read_write": "rw_port"}
    return {
        "size": bits,
        "r_cost": 0.0,
        "w_cost": 0.0,
        "area": 0.0,
        "latency": 1,
        "operands": operands,
        "served_dimensions": served,
        "ports": [
            {
                "name": f"{names[kind]}_{index + 1}",
                "type": kind,
                "bandwidth_min": min(width, ACTIVATION_BITS),
                "bandwidth_max": width,
                "allocation": uses,
            }
            for index, (kind, width, uses) in enumerate(ports)
        ],
    }


def mapping(chip: Chip) -> list[dict[str, Any]]:
    """Input channels, output channels and columns across the three sides of the array."""
    performance = chip.performance
    return [
        {
            "name": "default",
            "spatial_mapping": {
                "D1": [f"C, {performance.input_lanes}"],
                "D2": [f"K, {performance.output_lanes}"],
                "D3": [f"OX, {performance.pixel_lanes}"],
            },
            "memory_operand_links": {"O": "O", "W": "I2", "I": "I1"},
        }
    ]


def workload(index: int, layer: Convolution) -> dict[str, Any]:
    """A layer as ZigZag's convolution; zero padding is made on the chip."""
    padding = [layer.kernel // 2, layer.kernel // 2]
    return {
        "id": index,
        "name": layer.name,
        "operator_type": "Conv",
        "equation": "O[b][k][oy][ox]+=W[k][c][fy][fx]*I[b][c][iy][ix]",
        "dimension_relations": [f"ix={layer.stride}*ox+1*fx", f"iy={layer.stride}*oy+1*fy"],
        "loop_dims": ["B", "K", "C", "OY", "OX", "FY", "FX"],
        "loop_sizes": [
            1,
            layer.outputs,
            layer.inputs,
            layer.rows,
            layer.columns,
            layer.kernel,
            layer.kernel,
        ],
        "operand_precision": {
            "O": ACCUMULATOR_BITS,
            "O_final": ACTIVATION_BITS,
            "W": WEIGHT_BITS,
            "I": ACTIVATION_BITS,
        },
        "operand_source": {"I": index},
        "pr_loop_dims": ["IX", "IY"],
        "pr_loop_sizes": [layer.columns * layer.stride, layer.rows * layer.stride],
        "padding": [padding, padding],
    }
