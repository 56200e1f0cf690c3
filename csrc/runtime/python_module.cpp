// hls_export.executors._runtime: the firmware runtime, numpy in and out. The GIL is released while
// a model runs; the model itself is read-only, so threads may share it.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "python_arrays.h"

extern "C" {
#include "plan.h"
}

namespace py = pybind11;

namespace
{

using namespace starlight::python;

// The arena of one run, at the alignment that the chip asks (at most 64).
class Arena
{
public:
    explicit Arena(std::size_t bytes)
        : bytes_(bytes),
          storage_(bytes > PTRDIFF_MAX - SL_SECTION_ALIGNMENT
                       ? nullptr
                       : new (std::nothrow) std::uint8_t[bytes + SL_SECTION_ALIGNMENT])
    {
        if (storage_ == nullptr)
            throw py::value_error("arena: it must fit the memory, got " + std::to_string(bytes) +
                                  " bytes");
        const auto place = reinterpret_cast<std::uintptr_t>(storage_.get());
        begin_ = storage_.get() + (SL_SECTION_ALIGNMENT - place % SL_SECTION_ALIGNMENT);
    }
    void *begin() const { return begin_; }
    std::size_t bytes() const { return bytes_; }

private:
    std::size_t bytes_;
    std::unique_ptr<std::uint8_t[]> storage_;
    std::uint8_t *begin_;
};

// Where each layer's output goes while it is traced, packed [h][w][C]; by a plan also where it goes
// in every later group that the layer stands in. Nothing here may throw: the callback is called
// from C.
struct Recording {
    std::vector<std::uint8_t *> layers;
    std::vector<std::vector<std::uint8_t *>> again; // by layer; empty unless by a plan
    std::vector<std::size_t> pixels;                // reported so far, by layer; likewise

    // Groups run one after the other, and each reports every pixel once.
    std::uint8_t *place(const sl_trace &piece)
    {
        if (again.empty()) return layers[piece.layer];
        const std::size_t map = std::size_t{piece.height} * piece.width;
        const std::size_t standing = pixels[piece.layer] / map;
        pixels[piece.layer] += piece.pixels;
        return standing == 0 ? layers[piece.layer] : again[piece.layer][standing - 1];
    }

    static void record(void *context, const sl_trace *piece) noexcept
    {
        const std::size_t place = std::size_t{piece->y} * piece->width + piece->x;
        const std::size_t bytes = std::size_t{piece->channels} * piece->value_bytes;
        std::uint8_t *to = static_cast<Recording *>(context)->place(*piece) + place * bytes;
        for (std::uint32_t p = 0; p < piece->pixels; p++, to += bytes)
            std::memcpy(to, piece->values + p * piece->pixel_stride * piece->value_bytes, bytes);
    }
};

class Model
{
public:
    explicit Model(py::bytes bundle) : bundle_(std::move(bundle))
    {
        const std::string_view view = bundle_;
        const sl_status status = sl_open(&model_, view.data(), view.size());
        check(status, "bundle: record " + std::to_string(model_.fault));
    }

    std::size_t arena_bytes(std::uint32_t width, std::uint32_t height) const
    {
        std::size_t bytes = 0;
        check(sl_arena_bytes(&model_, width, height, &bytes), "image");
        return bytes;
    }

    // (output, {layer name: array}); the dict is empty unless `trace`.
    py::tuple run(const py::object &given, bool trace) const
    {
        const Pixels image = to_pixels(given);
        const auto height = static_cast<std::uint32_t>(image.shape(0));
        const auto width = static_cast<std::uint32_t>(image.shape(1));
        const std::size_t stride = std::size_t{width} * SL_IMAGE_CHANNELS;
        const Arena arena(arena_bytes(width, height));
        Recording recording;
        const py::dict layers =
            trace ? layer_arrays(model_, height, width, recording.layers) : py::dict();
        py::array_t<std::uint8_t> output({image.shape(0), image.shape(1), image.shape(2)});
        const std::uint8_t *in = image.data();
        std::uint8_t *out = output.mutable_data();
        {
            py::gil_scoped_release released;
            check(sl_run(&model_, in, stride, out, stride, width, height, arena.begin(),
                         arena.bytes(), trace ? Recording::record : nullptr, &recording),
                  "run");
        }
        return py::make_tuple(output, layers);
    }

    bool planned() const { return model_.plan.data != nullptr; }

    // (SRAM, DRAM) bytes of the stripe plan.
    py::tuple plan_bytes(std::uint32_t width, std::uint32_t height) const
    {
        std::size_t sram = 0;
        std::size_t dram = 0;
        check(sl_plan_bytes(&model_, width, height, &sram, &dram), "plan");
        return py::make_tuple(sram, dram);
    }

    // `run` by the bundle's stripe plan, and {layer name: [array of each later group]} of the
    // layers that stand in several.
    py::tuple run_planned(const py::object &given, bool trace) const
    {
        const Pixels image = to_pixels(given);
        const auto height = static_cast<std::uint32_t>(image.shape(0));
        const auto width = static_cast<std::uint32_t>(image.shape(1));
        const std::size_t stride = std::size_t{width} * SL_IMAGE_CHANNELS;
        std::size_t sram_bytes = 0;
        std::size_t dram_bytes = 0;
        check(sl_plan_bytes(&model_, width, height, &sram_bytes, &dram_bytes), "plan");
        const Arena sram(sram_bytes);
        const Arena dram(dram_bytes);
        Recording recording;
        const py::dict layers =
            trace ? layer_arrays(model_, height, width, recording.layers) : py::dict();
        const py::dict again = trace ? later_arrays(height, width, recording) : py::dict();
        py::array_t<std::uint8_t> output({image.shape(0), image.shape(1), image.shape(2)});
        const std::uint8_t *in = image.data();
        std::uint8_t *out = output.mutable_data();
        {
            py::gil_scoped_release released;
            check(sl_run_planned(&model_, in, stride, out, stride, width, height, sram.begin(),
                                 sram.bytes(), dram.begin(), dram.bytes(),
                                 trace ? Recording::record : nullptr, &recording),
                  "run");
        }
        return py::make_tuple(output, layers, again);
    }

    // The name of the first layer that does not reproduce the bundle's vectors, or None.
    py::object self_test() const
    {
        const sl_vectors_record vectors = sl_vectors(&model_);
        const Arena arena(arena_bytes(vectors.width, vectors.height));
        std::uint32_t layer = 0;
        const sl_status status = sl_self_test(&model_, arena.begin(), arena.bytes(), &layer);
        if (status == SL_SELF_TEST_FAILED) return py::str(layer_name(model_, layer));
        check(status, "self-test");
        return py::none();
    }

private:
    // {layer name: [array]} with an array for each group that a layer stands in beyond its first.
    py::dict later_arrays(std::uint32_t height, std::uint32_t width, Recording &recording) const
    {
        std::vector<bool> stands(model_.model.layer_count);
        py::dict found;
        recording.pixels.resize(model_.model.layer_count);
        recording.again.resize(model_.model.layer_count);
        for (std::uint32_t i = 0; i < sl_plan(&model_).item_count; i++) {
            const std::uint32_t layer = sl_plan_item(&model_, i).layer;
            if (layer == SL_PLAN_NONE) continue;
            if (stands[layer]) {
                const py::str name(layer_name(model_, layer));
                py::array array = layer_array(model_, layer, height, width);
                recording.again[layer].push_back(static_cast<std::uint8_t *>(array.mutable_data()));
                if (!found.contains(name)) found[name] = py::list();
                found[name].cast<py::list>().append(array);
            }
            stands[layer] = true;
        }
        return found;
    }

    py::bytes bundle_; // keeps alive what model_ points into
    sl_model model_;
};

} // namespace

PYBIND11_MODULE(_runtime, module)
{
    module.doc() = "The C99 firmware runtime of csrc/runtime.";
    py::class_<Model>(module, "Model")
        .def(py::init<py::bytes>(), py::arg("bundle"),
             "Open a bundle's bytes; raises ValueError with the runtime's refusal.")
        .def("arena_bytes", &Model::arena_bytes, py::arg("width"), py::arg("height"),
             "Bytes of arena for an image of this size.")
        .def("run", &Model::run, py::arg("image"), py::arg("trace") = false,
             "uint8 [H, W, 3] -> (uint8 [H, W, 3], {layer: int8 or int16 [h, w, C]}).")
        .def_property_readonly("planned", &Model::planned,
                               "Whether the bundle holds a stripe plan.")
        .def("plan_bytes", &Model::plan_bytes, py::arg("width"), py::arg("height"),
             "(SRAM, DRAM) bytes that the stripe plan asks for an image of this size.")
        .def("run_planned", &Model::run_planned, py::arg("image"), py::arg("trace") = false,
             "`run` by the bundle's stripe plan, and {layer: [array of each later group]} of the "
             "layers that stand in several groups.")
        .def("self_test", &Model::self_test,
             "None, or the name of the first layer that differs from the bundle's vectors.");
}
