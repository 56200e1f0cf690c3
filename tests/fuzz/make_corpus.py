"""Write tests/fuzz/corpus: small lawful bundles from which the fuzzer starts.

    PYTHONPATH=src:.:tests python tests/fuzz/make_corpus.py

Every section, operation, join and channel block occurs; frames are a few pixels, so that a trial
takes a fraction of a millisecond.
"""

from pathlib import Path

from strategies import STYLES, random_graph

from hls_export.bundle import pack_bundle
from hls_export.npu import Chip, load_chip
from quant.topology import Topology
from starlight.files import write_atomically

CORPUS = Path(__file__).parent / "corpus"
TOPOLOGIES = {
    "smallest": Topology((1, 1), (1, 1)),
    "uneven": Topology((3, 2), (2, 1)),
    "deep": Topology((1, 2, 1), (1, 1, 2)),
}


def small_chip(block: int = 8, width: int = 7, height: int = 5) -> Chip:
    """The reference chip for tiny frames, so that test vectors are tiny too."""
    chip = load_chip("reference")
    layout = {"channel_block": block, "max_width": width, "max_height": height}
    return chip.model_copy(update={"capability": chip.capability.model_copy(update=layout)})


def seeds() -> dict[str, bytes]:
    """File name -> bundle."""
    return {
        f"{name}-{style}-{block}.slb": pack_bundle(
            random_graph(1, topology, style), small_chip(block)
        )
        for (name, topology), block in zip(TOPOLOGIES.items(), (1, 2, 4), strict=True)
        for style in STYLES
    }


if __name__ == "__main__":
    CORPUS.mkdir(exist_ok=True)
    for name, data in seeds().items():
        write_atomically(CORPUS / name, data)
