"""The firmware runtime through its C functions: what it computes and what it touches."""

import numpy as np
import pytest
import runtime_library
from hypothesis import example, given
from runtime_library import Model, aligned
from strategies import EDGE, TINY, graphs, images, random_graph, random_image

from hls_export.bundle import pack_bundle
from hls_export.npu import Chip, load_chip
from quant import interpret
from quant.contract import Op
from quant.integer_graph import IMAGE, Buffer, IntegerGraph, Layer, View
from quant.intmath import UInt8Array

REFERENCE = load_chip("reference")
TINY_BUNDLE = pack_bundle(random_graph(1, TINY), REFERENCE)
GUARD = 0xA5


def with_capability(**changes: int) -> Chip:
    capability = REFERENCE.capability.model_copy(update=changes)
    return REFERENCE.model_copy(update={"capability": capability})


def opened(bundle: bytes) -> Model:
    model = Model(bundle)
    assert model.status == "SL_OK"
    return model


def arena_for(model: Model, image: UInt8Array, fill: int = GUARD) -> UInt8Array:
    status, size = model.arena_bytes(image.shape[1], image.shape[0])
    assert status == "SL_OK"
    arena = aligned(size)
    arena[:] = fill
    return arena


def denoise(model: Model, image: UInt8Array) -> UInt8Array:
    output = np.full_like(image, GUARD)
    assert model.run(image, output, arena_for(model, image)) == "SL_OK"
    return output


@given(graphs(), images())
@example(random_graph(0, TINY, "edges"), random_image(0, 1, 1))
def test_output_is_the_golden_models(graph: IntegerGraph, image: UInt8Array) -> None:
    model = opened(pack_bundle(graph, REFERENCE))
    assert np.array_equal(denoise(model, image), interpret.run(graph, image))
    assert model.self_test(arena_for(model, random_image(0, 21, 37)))[0] == "SL_OK"


def test_a_whole_photograph_through_the_edge_network() -> None:
    graph, image = random_graph(2, EDGE), random_image(2, 300, 451)
    model = opened(pack_bundle(graph, REFERENCE))
    assert np.array_equal(denoise(model, image), interpret.run(graph, image))


@pytest.mark.parametrize("block", [1, 2, 4, 16, 32, 64])
def test_every_channel_block(block: int) -> None:
    for style in ("natural", "edges"):
        graph, image = random_graph(3, TINY, style), random_image(3, 9, 14)
        model = opened(pack_bundle(graph, with_capability(channel_block=block)))
        assert np.array_equal(denoise(model, image), interpret.run(graph, image))
        assert model.self_test(arena_for(model, random_image(0, 21, 37)))[0] == "SL_OK"


def image_readers(tail_input: View) -> IntegerGraph:
    """Every operation reads and joins the image itself, by slices of its channels."""
    rng = np.random.default_rng(4)

    def layer(name: str, op: Op, source: View, output: View | None, join: View | None) -> Layer:
        outputs = 3 if output is None else output.channels * (4 if op is Op.UP else 1)
        shape = (outputs, source.channels, op.kernel, op.kernel)
        return Layer(
            name,
            op,
            source,
            output,
            join,
            relu=name == "same",
            weight=rng.integers(-127, 128, shape).astype(np.int8),
            weight_exponent=rng.integers(4, 9, outputs),
            bias=rng.integers(-9000, 9000, outputs),
        )

    return IntegerGraph(
        "image-readers",
        1,
        (
            Buffer(IMAGE, 3, 0, 7),
            Buffer("full", 6, 0, 4),
            Buffer("half", 5, 1, 3),
        ),
        (
            layer("down", Op.CONV3X3_STRIDE2, View(IMAGE, 1, 2), View("half", 0, 5), None),
            layer("up", Op.UP, View("half", 1, 4), View("full", 3, 3), View(IMAGE, 0, 3)),
            layer("point", Op.CONV1X1, View(IMAGE, 2, 1), View("full", 1, 2), View(IMAGE, 1, 2)),
            layer("same", Op.CONV3X3, View(IMAGE, 0, 3), View("full", 0, 1), View("full", 5, 1)),
            layer("tail", Op.TAIL, tail_input, None, None),
        ),
    )


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 2), (7, 10), (8, 9)])
def test_every_operation_may_read_the_image(size: tuple[int, int]) -> None:
    image = random_image(5, *size)
    for tail_input in (View("full", 0, 6), View(IMAGE, 0, 3), View(IMAGE, 1, 1)):
        graph = image_readers(tail_input)
        model = opened(pack_bundle(graph, REFERENCE))
        assert np.array_equal(denoise(model, image), interpret.run(graph, image))
        assert model.self_test(arena_for(model, random_image(0, 21, 37)))[0] == "SL_OK"


def test_only_the_pixels_of_the_output_are_written() -> None:
    """Rows apart on both sides, guards around everything, whatever lies in the arena."""
    graph, image = random_graph(6), random_image(6, 7, 11)
    model = opened(pack_bundle(graph, REFERENCE))
    expected = interpret.run(graph, image)
    wide_in = np.full((7, 60), 77, np.uint8)
    wide_in[:, :33] = image.reshape(7, 33)
    for fill in (0, GUARD, 255):
        wide_out = np.full((9, 50), GUARD, np.uint8)
        size = model.arena_bytes(11, 7)[1]
        guarded = aligned(size + 128)
        guarded[:] = fill
        arena = guarded[64 : 64 + size]
        status = model.run(wide_in, wide_out[1], arena, size=(7, 11), strides=(60, 50))
        assert status == "SL_OK"
        assert np.array_equal(wide_out[1:8, :33].reshape(7, 11, 3), expected)
        assert (wide_out[:, 33:] == GUARD).all()
        assert (wide_out[[0, 8]] == GUARD).all()
        assert (guarded[:64] == fill).all()
        assert (guarded[64 + size :] == fill).all()
        assert np.array_equal(wide_in[:, :33].reshape(7, 11, 3), image)


def test_in_place_gives_the_same() -> None:
    graph, image = random_graph(7), random_image(7, 10, 13)
    model = opened(pack_bundle(graph, REFERENCE))
    frame = image.copy()
    assert model.run(frame, frame, arena_for(model, image)) == "SL_OK"
    assert np.array_equal(frame, interpret.run(graph, image))


def test_memory_that_overlaps_is_refused() -> None:
    model, image = opened(TINY_BUNDLE), random_image(8, 6, 8)
    arena = arena_for(model, image)
    block = np.zeros(2 * image.size, np.uint8)
    frame = block[: image.size].reshape(image.shape)
    shifted = block[24 : 24 + image.size].reshape(image.shape)
    assert model.run(frame, shifted, arena) == "SL_MEMORY_OVERLAPS"
    assert model.run(shifted, frame, arena) == "SL_MEMORY_OVERLAPS"
    behind = block[image.size :].reshape(image.shape)
    assert model.run(frame, behind, arena) == "SL_OK"
    assert model.run(frame, frame, arena, strides=(24, 25)) == "SL_MEMORY_OVERLAPS"
    within = arena[: image.size].reshape(image.shape)
    assert model.run(within, image, arena) == "SL_MEMORY_OVERLAPS"
    assert model.run(image, within, arena) == "SL_MEMORY_OVERLAPS"
    reader = opened(pack_bundle(image_readers(View(IMAGE, 0, 3)), REFERENCE))
    assert reader.run(image, image, arena_for(reader, image)) == "SL_MEMORY_OVERLAPS"


def test_arena_size_and_place() -> None:
    model, image = opened(TINY_BUNDLE), random_image(9, 5, 6)
    output = np.empty_like(image)
    size = arena_for(model, image).size
    assert model.run(image, output, aligned(size)) == "SL_OK"
    assert model.run(image, output, aligned(size - 1)) == "SL_ARENA_TOO_SMALL"
    for misalignment in range(1, 64):
        expected = "SL_OK" if misalignment % 16 == 0 else "SL_ARENA_MISALIGNED"
        assert model.run(image, output, aligned(size, misalignment)) == expected
    vectors = arena_for(model, random_image(0, 21, 37))
    assert model.self_test(vectors)[0] == "SL_OK"
    assert model.self_test(vectors[:-1])[0] == "SL_ARENA_TOO_SMALL"


def test_arena_grows_with_cells_alone() -> None:
    model = opened(TINY_BUNDLE)
    cell = model.arena_bytes(1, 1)[1]
    for width, height in [(2, 2), (3, 2), (37, 21), (3840, 2160)]:
        cells = -(-width // 2) * -(-height // 2)
        assert model.arena_bytes(width, height) == ("SL_OK", cells * cell)


@pytest.mark.parametrize(
    ("width", "height", "status"),
    [
        (0, 5, "SL_IMAGE_EMPTY"),
        (5, 0, "SL_IMAGE_EMPTY"),
        (3841, 1, "SL_IMAGE_TOO_LARGE"),
        (1, 2161, "SL_IMAGE_TOO_LARGE"),
        (2**32 - 1, 2**32 - 1, "SL_IMAGE_TOO_LARGE"),
    ],
)
def test_image_size(width: int, height: int, status: str) -> None:
    model, image = opened(TINY_BUNDLE), random_image(10, 4, 4)
    assert model.arena_bytes(width, height)[0] == status
    assert model.run(image, image, aligned(4096), size=(height, width)) == status


def test_the_largest_side_does_not_overflow() -> None:
    chip = with_capability(max_width=2**32 - 1, max_height=2**32 - 1)
    model = opened(pack_bundle(random_graph(1, TINY), chip))
    status, size = model.arena_bytes(65535, 65535)
    assert status == "SL_OK"
    assert size == 32768 * 32768 * model.arena_bytes(1, 1)[1] > 2**32
    assert model.arena_bytes(65536, 1)[0] == "SL_IMAGE_TOO_LARGE"
    assert model.arena_bytes(2**32 - 1, 2**32 - 1)[0] == "SL_IMAGE_TOO_LARGE"


def test_strides() -> None:
    model, image = opened(TINY_BUNDLE), random_image(11, 4, 4)
    output, arena = np.empty_like(image), arena_for(model, image)
    for strides in [(11, 12), (12, 11), (0, 12), (2**63, 12), (12, 2**64 - 1)]:
        assert model.run(image, output, arena, strides=strides) == "SL_BAD_STRIDE"


def test_null_arguments() -> None:
    model, image = opened(TINY_BUNDLE), random_image(12, 2, 2)
    arena = arena_for(model, image)
    size = (2, 2)
    nothing: list[object] = [(None, image, arena), (image, None, arena), (image, image, None)]
    for source, target, memory in nothing:  # type: ignore[misc]
        arguments = [source, 6, target, 6, *size, memory, arena.size, None, None]
        assert model.call("sl_run", *arguments) == "SL_NULL_ARGUMENT"
    assert model.call("sl_open", None, 0) == "SL_NULL_ARGUMENT"
    library = runtime_library.library()
    null = runtime_library.statuses().index("SL_NULL_ARGUMENT")
    assert library.sl_open(None, None, 0) == null
    assert library.sl_arena_bytes(None, 1, 1, None) == null
    assert library.sl_self_test(None, None, 0, None) == null


def test_a_bundle_may_lie_at_any_address() -> None:
    graph, image = random_graph(13), random_image(13, 5, 9)
    data = np.frombuffer(pack_bundle(graph, REFERENCE), np.uint8)
    for misalignment in range(1, 9):
        model = opened(TINY_BUNDLE)
        model.bundle = aligned(data.size, misalignment)
        model.bundle[:] = data
        assert model.call("sl_open", model.bundle, data.size) == "SL_OK"
        assert np.array_equal(denoise(model, image), interpret.run(graph, image))


def test_every_status_has_its_words() -> None:
    names = runtime_library.statuses()
    library = runtime_library.library()
    texts = [library.sl_status_text(value).decode() for value in range(len(names))]
    assert names[-1] == "SL_STATUS_COUNT"
    assert texts[-1] == library.sl_status_text(-1).decode() == "unknown status"
    assert len(set(texts)) == len(texts)


def test_crc_is_zlibs() -> None:
    library = runtime_library.library()
    library.sl_crc32.restype = runtime_library.ctypes.c_uint32
    assert library.sl_crc32(0, b"123456789", 9) == 0xCBF43926
    assert library.sl_crc32(library.sl_crc32(0, b"1234", 4), b"56789", 5) == 0xCBF43926
    assert library.sl_crc32(0, b"", 0) == 0
