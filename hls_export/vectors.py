"""The test vectors of a bundle: a small frame, the golden model's output, a CRC per layer."""

import struct
import zlib
from dataclasses import dataclass

import numpy as np

from hls_export.layer_table import VectorsRecord
from quant import contract, interpret
from quant.integer_graph import IntegerGraph
from quant.intmath import UInt8Array

FRAME_HEIGHT, FRAME_WIDTH = 21, 37  # off every grid, so padding is exercised


@dataclass(frozen=True, eq=False)
class Vectors:
    """input, output: uint8 [H, W, 3]; layer_crc32: CRC-32 of what each layer wrote, padded.

    A layer's bytes are int8 or little-endian int16 [h, w, C] of its output view; the tail's uint8
    [Hp, Wp, 3].
    """

    input: UInt8Array
    output: UInt8Array
    layer_crc32: tuple[int, ...]


def vector_frame() -> UInt8Array:
    """uint8 [21, 37, 3], the same on every machine: shading and noise, clipped patches, a line.

    Integers alone, and the noise is a hash of the place, so no generator's version matters.
    """
    y, x, c = np.ogrid[0:FRAME_HEIGHT, 0:FRAME_WIDTH, 0 : contract.IMAGE_CHANNELS]
    shading = 40 + 4 * x + 3 * y * (1 + c) // 2 - 20 * c
    place = ((y * FRAME_WIDTH + x) * contract.IMAGE_CHANNELS + c).astype(np.uint64)
    mixed = (place * 0x9E3779B1 + 0x7F4A7C15) & 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> np.uint64(15))) * 0x85EBCA6B) & 0xFFFFFFFF
    mixed ^= mixed >> np.uint64(13)
    # The sum of two uniform numbers: -31..31, densest at 0.
    noise = (mixed & 31).astype(np.int64) + (mixed >> np.uint64(8) & 31).astype(np.int64) - 31
    frame = np.clip(shading + noise, 0, contract.PIXEL_MAX)
    frame[2:7, 3:10] = 0
    frame[11:17, 22:31] = contract.PIXEL_MAX
    frame[:, 34] = [0, contract.PIXEL_MAX, 0]
    return frame.astype(np.uint8)


def make_vectors(graph: IntegerGraph, max_height: int, max_width: int) -> Vectors:
    """Run the golden model on `vector_frame`, cropped to the chip's largest frame."""
    return vectors_of(graph, vector_frame()[:max_height, :max_width])


def vectors_of(graph: IntegerGraph, frame: UInt8Array) -> Vectors:
    """Run the golden model on a frame, uint8 [H, W, 3]."""
    output, trace = interpret.run_traced(graph, frame)
    maps = (trace[layer.name] for layer in graph.layers)
    crcs = (zlib.crc32(q.astype(q.dtype.newbyteorder("<")).tobytes()) for q in maps)
    return Vectors(frame, output, tuple(crcs))


def pack_vectors(vectors: Vectors) -> bytes:
    """The bytes of section VECT."""
    height, width, _ = vectors.input.shape
    head = VectorsRecord(width, height, len(vectors.layer_crc32)).pack()
    crcs = struct.pack(f"<{len(vectors.layer_crc32)}I", *vectors.layer_crc32)
    return head + crcs + vectors.input.tobytes() + vectors.output.tobytes()


def unpack_vectors(data: bytes, layer_count: int) -> Vectors:
    """Read section VECT; raises ValueError when its sizes do not agree with each other."""
    if len(data) < VectorsRecord.SIZE:
        raise ValueError(
            f"bundle: VECT size must be at least {VectorsRecord.SIZE}, got {len(data)}"
        )
    head = VectorsRecord.unpack(data[: VectorsRecord.SIZE], "VECT")
    if head.layer_count != layer_count:
        raise ValueError(f"bundle: VECT layer_count must be {layer_count}, got {head.layer_count}")
    frame = head.height * head.width * contract.IMAGE_CHANNELS
    start = VectorsRecord.SIZE + 4 * layer_count
    if frame == 0 or len(data) != start + 2 * frame:
        raise ValueError(
            f"bundle: VECT size must be {start} + 2 frames of {frame} bytes, got {len(data)}"
        )
    crcs = struct.unpack_from(f"<{layer_count}I", data, VectorsRecord.SIZE)
    shape = (head.height, head.width, contract.IMAGE_CHANNELS)
    pixels = np.frombuffer(data, np.uint8, offset=start)
    return Vectors(pixels[:frame].reshape(shape), pixels[frame:].reshape(shape), crcs)
