// hls_export.executors._engine: the engine, numpy in and out. The GIL is released while a model
// runs.
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string_view>
#include <thread>

#include "engine.h"
#include "python_arrays.h"

namespace
{

namespace py = pybind11;
using namespace starlight::python;
using starlight::engine::Engine;
using starlight::engine::Kernels;
using starlight::engine::Size;

constexpr int THREADS_MAX = 1024;

std::vector<const Kernels *> all_kernels()
{
    const Kernels *found[starlight::engine::KERNELS_MAX];
    return {found, found + starlight::engine::runnable_kernels(found)};
}

std::vector<std::string> instruction_sets()
{
    std::vector<std::string> names;
    for (const Kernels *kernels : all_kernels())
        names.emplace_back(kernels->name);
    return names;
}

const Kernels &kernels_of(const std::optional<std::string> &name)
{
    std::string known;
    for (const Kernels *kernels : all_kernels()) {
        if (!name.has_value() || *name == kernels->name) return *kernels;
        known += (known.empty() ? "" : ", ") + std::string(kernels->name);
    }
    throw py::value_error("engine: instruction_set must be one of " + known + ", got '" + *name +
                          "'");
}

class Model
{
public:
    Model(py::bytes bundle, const std::optional<std::string> &instruction_set)
        : bundle_(std::move(bundle))
    {
        const std::string_view view = bundle_;
        const sl_status status = sl_open(&model_, view.data(), view.size());
        check(status, "bundle: record " + std::to_string(model_.fault));
        engine_ = std::make_unique<Engine>(model_, kernels_of(instruction_set));
    }

    const char *instruction_set() const { return engine_->plan().kernels->name; }

    // Stride-2 steps: images are padded to multiples of 2^levels.
    std::uint32_t levels() const { return model_.model.levels; }

    std::size_t frame_bytes(std::uint32_t width, std::uint32_t height, int threads) const
    {
        return engine_->bytes(size_of(width, height, threads));
    }

    // (output, {layer name: array}); the dict is empty unless `trace`.
    py::tuple run(const py::object &given, bool trace, int threads, const py::object &out) const
    {
        const Pixels image = to_pixels(given);
        const Size size = size_of(image, threads);
        Pixels output = out.is_none() ? output_for(image) : place_of(out, image);
        starlight::engine::Trace places;
        const auto height = static_cast<std::uint32_t>(size.height);
        const auto width = static_cast<std::uint32_t>(size.width);
        const py::dict layers = trace ? layer_arrays(model_, height, width, places) : py::dict();
        const starlight::engine::Image images = pixels(image, output);
        {
            py::gil_scoped_release released;
            engine_->run(images, size, trace ? &places : nullptr);
        }
        return py::make_tuple(output, layers);
    }

    const Engine &engine() const { return *engine_; }

    static Pixels output_for(const Pixels &image)
    {
        return Pixels({image.shape(0), image.shape(1), image.shape(2)});
    }
    static starlight::engine::Image pixels(const Pixels &image, Pixels &output)
    {
        const auto stride = static_cast<std::size_t>(image.shape(1)) * SL_IMAGE_CHANNELS;
        return {image.data(), output.mutable_data(), stride, stride};
    }
    Size size_of(const Pixels &image, int threads) const
    {
        return size_of(static_cast<std::uint32_t>(image.shape(1)),
                       static_cast<std::uint32_t>(image.shape(0)), threads);
    }

private:
    Size size_of(std::uint32_t width, std::uint32_t height, int threads) const
    {
        std::size_t bytes = 0;
        check(sl_arena_bytes(&model_, width, height, &bytes), "image");
        if (threads < 0 || threads > THREADS_MAX)
            throw py::value_error("engine: threads must be in 0.." + std::to_string(THREADS_MAX) +
                                  ", 0 for one per core, got " + std::to_string(threads));
        if (threads == 0)
            threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
        return {static_cast<int>(width), static_cast<int>(height), threads};
    }

    // The caller's own array: no copy may stand in for it, and the image may not lie in it.
    static Pixels place_of(const py::object &out, const Pixels &image)
    {
        const bool fits = py::isinstance<Pixels>(out) && [&] {
            const auto array = py::reinterpret_borrow<py::array>(out);
            return array.writeable() && array.ndim() == 3 && array.shape(0) == image.shape(0) &&
                   array.shape(1) == image.shape(1) && array.shape(2) == image.shape(2);
        }();
        if (!fits)
            throw py::value_error("out: array must be uint8, writeable, in C order and of the "
                                  "image's shape, got " +
                                  std::string(py::str(py::type::of(out).attr("__name__"))));
        const auto place = py::reinterpret_borrow<Pixels>(out);
        const std::uint8_t *from = image.data(), *to = place.data();
        if (from < to + place.size() && to < from + image.size())
            throw py::value_error("out: array must share no memory with the image, got overlap");
        return place;
    }

    py::bytes bundle_; // keeps alive what model_ points into
    sl_model model_;
    std::unique_ptr<Engine> engine_;
};

// One image in a frame of its own, whose steps can be run one by one: for profiles.
class Replay
{
public:
    Replay(const Model &model, const py::object &image, int threads)
        : model_(model), image_(to_pixels(image)), output_(model.output_for(image_)),
          frame_(model.engine().plan(), model.size_of(image_, threads)),
          pixels_(model.pixels(image_, output_))
    {
        run_frame(plan(), frame_, pixels_, nullptr);
    }

    std::vector<std::string> steps() const
    {
        std::vector<std::string> names;
        for (const starlight::engine::Step &step : plan().steps) {
            const auto first = static_cast<std::size_t>(step.first_layer);
            names.push_back(plan().layers[first].name);
            if (step.layers > 1) names.back() += ".." + plan().layers[first + 3].name;
        }
        return names;
    }

    void run(std::size_t step, int times)
    {
        const auto &chosen = plan().steps.at(step);
        const py::gil_scoped_release released;
        for (int i = 0; i < times; i++)
            run_step(plan(), frame_, pixels_, nullptr, chosen);
    }

private:
    const starlight::engine::Plan &plan() const { return model_.engine().plan(); }

    const Model &model_;
    Pixels image_, output_;
    starlight::engine::Frame frame_;
    starlight::engine::Image pixels_;
};

} // namespace

PYBIND11_MODULE(_engine, module)
{
    module.doc() = "The engine of csrc/engine: a bundle's network, bit for bit, fast.";
    module.def("instruction_sets", instruction_sets,
               "Those that this build and this processor have, the fastest first.");
    py::class_<Model>(module, "Model")
        .def(py::init<py::bytes, std::optional<std::string>>(), py::arg("bundle"),
             py::arg("instruction_set") = py::none(),
             "Open a bundle's bytes; raises ValueError with the runtime's refusal.")
        .def_property_readonly("instruction_set", &Model::instruction_set)
        .def_property_readonly("levels", &Model::levels)
        .def("frame_bytes", &Model::frame_bytes, py::arg("width"), py::arg("height"),
             py::arg("threads") = 0, "Bytes that a run on an image of this size works in.")
        .def("run", &Model::run, py::arg("image"), py::arg("trace") = false, py::arg("threads") = 0,
             py::arg("out") = py::none(),
             "uint8 [H, W, 3] -> (uint8 [H, W, 3], {layer: int8 or int16 [h, w, C]}). threads: 0 "
             "for one "
             "per core. out: where the result goes, without new memory.");
    py::class_<Replay>(module, "Replay")
        .def(py::init<const Model &, const py::object &, int>(), py::arg("model"), py::arg("image"),
             py::arg("threads") = 0, py::keep_alive<1, 2>(),
             "One image's steps to be run one by one, for profiles; not for several threads at "
             "once.")
        .def_property_readonly("steps", &Replay::steps,
                               "The layer of each step, a dense block's first and last.")
        .def("run", &Replay::run, py::arg("step"), py::arg("times") = 1,
             "Run a step again, by its index; what it reads may be another step's by now.");
}
