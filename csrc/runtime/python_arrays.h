// What the Python modules that run a bundle share: refusals, images, arrays for a trace.
#ifndef STARLIGHT_PYTHON_ARRAYS_H
#define STARLIGHT_PYTHON_ARRAYS_H

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

#include "contract_constants.h"
#include "starlight_runtime.h"

namespace starlight::python
{

namespace py = pybind11;

using Pixels = py::array_t<std::uint8_t, py::array::c_style>;

inline void check(sl_status status, const std::string &what)
{
    if (status != SL_OK) throw py::value_error(what + ": " + sl_status_text(status));
}

// uint8 [H, W, 3] of any strides, as contiguous memory.
inline Pixels to_pixels(const py::object &image)
{
    const bool is_array = py::isinstance<py::array>(image);
    if (!is_array || !py::isinstance<py::array_t<std::uint8_t>>(image)) {
        const py::object got =
            is_array ? image.attr("dtype") : py::type::of(image).attr("__name__");
        throw py::type_error("image: array must be uint8, got " + std::string(py::str(got)));
    }
    Pixels pixels(image); // a copy when the strides ask for one
    if (pixels.ndim() != 3 || pixels.shape(2) != SL_IMAGE_CHANNELS || pixels.size() == 0 ||
        pixels.shape(0) > SL_FRAME_MAX || pixels.shape(1) > SL_FRAME_MAX)
        throw py::value_error("image: shape must be (H, W, 3) with H and W in 1.." +
                              std::to_string(SL_FRAME_MAX) + ", got " +
                              std::string(py::str(image.attr("shape"))));
    return pixels;
}

inline std::string layer_name(const sl_model &model, std::uint32_t index)
{
    return sl_name(&model, sl_layer(&model, index).name);
}

// An array for a layer's output, padded to the grid.
inline py::array layer_array(const sl_model &model, std::uint32_t index, std::uint32_t height,
                             std::uint32_t width)
{
    const py::ssize_t grid = py::ssize_t{1} << model.model.levels;
    const py::ssize_t rows = (height + grid - 1) / grid * grid;
    const py::ssize_t columns = (width + grid - 1) / grid * grid;
    const sl_view_record view = sl_layer(&model, index).output;
    const bool tail = index + 1 == model.model.layer_count;
    const std::vector<py::ssize_t> shape{rows >> view.level, columns >> view.level,
                                         tail ? SL_IMAGE_CHANNELS : view.channels};
    const bool wide = !tail && sl_buffer(&model, view.buffer).bits == 16;
    return py::array(py::dtype(tail ? "uint8" : wide ? "<i2" : "int8"), shape);
}

// {layer name: array} for every layer's output, and in `places` where the arrays lie.
inline py::dict layer_arrays(const sl_model &model, std::uint32_t height, std::uint32_t width,
                             std::vector<std::uint8_t *> &places)
{
    py::dict found;
    for (std::uint32_t i = 0; i < model.model.layer_count; i++) {
        py::array array = layer_array(model, i, height, width);
        places.push_back(static_cast<std::uint8_t *>(array.mutable_data()));
        found[py::str(layer_name(model, i))] = array;
    }
    return found;
}

} // namespace starlight::python

#endif
