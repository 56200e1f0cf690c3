// engine_driver SET THREADS BUNDLE WIDTH HEIGHT IN OUT: one frame of raw rgb through the engine,
// twice; writes the output and prints the CRC-32 of every layer. SET: an instruction set.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include "engine.h"

namespace
{

using Bytes = std::vector<char>;

Bytes read(const char *path)
{
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

const std::uint8_t *bytes(const Bytes &data)
{
    return reinterpret_cast<const std::uint8_t *>(data.data());
}

int run(char **arguments)
{
    using namespace starlight::engine;
    const Kernels *found[KERNELS_MAX], *chosen = nullptr;
    const int count = runnable_kernels(found);
    for (int i = 0; i < count; i++)
        if (std::strcmp(found[i]->name, arguments[1]) == 0) chosen = found[i];
    if (chosen == nullptr) throw std::runtime_error("no such instruction set here");

    const Bytes bundle = read(arguments[3]), image = read(arguments[6]);
    const int width = std::atoi(arguments[4]), height = std::atoi(arguments[5]);
    sl_model model;
    if (sl_open(&model, bundle.data(), bundle.size()) != SL_OK)
        throw std::runtime_error("bundle refused");
    Engine engine(model, *chosen);
    const int grid = engine.plan().grid;
    std::vector<Bytes> layers;
    Trace trace;
    for (const Layer &layer : engine.plan().layers) {
        const auto padded = [&](int side) {
            return static_cast<std::size_t>((side + grid - 1) / grid * grid >> layer.output.level);
        };
        const auto channels = static_cast<std::size_t>(layer.output.end - layer.output.first);
        const auto bytes = static_cast<std::size_t>(layer.out_bytes);
        layers.emplace_back(padded(width) * padded(height) * channels * bytes);
    }
    for (Bytes &layer : layers)
        trace.push_back(reinterpret_cast<std::uint8_t *>(layer.data()));
    Bytes traced(image.size()), plain(image.size());
    const std::size_t stride = static_cast<std::size_t>(width) * SL_IMAGE_CHANNELS;
    const Size size{width, height, std::atoi(arguments[2])};
    for (Bytes *out : {&traced, &plain})
        engine.run({bytes(image), reinterpret_cast<std::uint8_t *>(out->data()), stride, stride},
                   size, out == &traced ? &trace : nullptr);
    if (traced != plain) throw std::runtime_error("outputs with and without a trace differ");
    std::ofstream(arguments[7], std::ios::binary)
        .write(plain.data(), static_cast<std::streamsize>(plain.size()));
    for (const Bytes &layer : layers)
        std::printf("%08x\n", static_cast<unsigned>(sl_crc32(0, layer.data(), layer.size())));
    return 0;
}

} // namespace

int main(int count, char **arguments)
{
    if (count != 8) return 2;
    try {
        return run(arguments);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
