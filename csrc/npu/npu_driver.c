#include "npu_driver.h"

#include <string.h>

#include "npu_registers.h"

#define MAJOR(version) (((version) & NPU_VERSION_MAJOR_MASK) >> NPU_VERSION_MAJOR_SHIFT)

static uint32_t get(const npu_driver *driver, uint32_t offset)
{
    return driver->bus->read(driver->bus->context, offset);
}

static void put(const npu_driver *driver, uint32_t offset, uint32_t value)
{
    driver->bus->write(driver->bus->context, offset, value);
}

/* The high word of an address is the register behind the low one. */
static void put_address(const npu_driver *driver, uint32_t offset, const void *memory)
{
    const npu_bus *bus = driver->bus;
    const uint64_t address =
        bus->address != NULL ? bus->address(bus->context, memory) : (uint64_t)(uintptr_t)memory;

    put(driver, offset, (uint32_t)(address & UINT32_MAX));
    put(driver, offset + 4, (uint32_t)(address >> 32));
}

static int is_image(const sl_tensor *tensor)
{
    return tensor->data == NULL && tensor->height != 0;
}

/* The maps' registers lie alike: `base` is that of the low word of the address. */
static void put_tensor(const npu_driver *driver, uint32_t base, const sl_tensor *tensor)
{
    if (tensor->data != NULL) put_address(driver, base, tensor->data);
    put(driver, base + (NPU_INPUT_HEIGHT - NPU_INPUT_ADDRESS_LO), tensor->height);
    put(driver, base + (NPU_INPUT_WIDTH - NPU_INPUT_ADDRESS_LO), tensor->width);
    put(driver, base + (NPU_INPUT_CHANNELS - NPU_INPUT_ADDRESS_LO), tensor->channels);
    put(driver, base + (NPU_INPUT_PIXEL_STRIDE - NPU_INPUT_ADDRESS_LO),
        (uint32_t)tensor->pixel_stride);
}

static uint32_t layer_word(const sl_hook_job *job)
{
    uint32_t word = (uint32_t)job->layer.op << NPU_LAYER_OP_SHIFT;

    if ((job->layer.flags & SL_LAYER_RELU) != 0) word |= NPU_LAYER_RELU_MASK;
    if ((job->layer.flags & SL_LAYER_JOIN) != 0) word |= NPU_LAYER_JOIN_MASK;
    if (is_image(&job->input))
        word |= NPU_LAYER_IMAGE_INPUT_MASK |
                (job->input.channel_offset << NPU_LAYER_INPUT_OFFSET_SHIFT);
    if (is_image(&job->join))
        word |=
            NPU_LAYER_IMAGE_JOIN_MASK | (job->join.channel_offset << NPU_LAYER_JOIN_OFFSET_SHIFT);
    return word;
}

static void program(const npu_driver *driver, const sl_hook_job *job)
{
    put(driver, NPU_LAYER, layer_word(job));
    put(driver, NPU_OUT_CHANNELS, job->layer.out_channels);
    put(driver, NPU_CHANNEL_BLOCK, job->model->model.channel_block);
    put_tensor(driver, NPU_INPUT_ADDRESS_LO, &job->input);
    put_tensor(driver, NPU_JOIN_ADDRESS_LO, &job->join);
    put_tensor(driver, NPU_OUTPUT_ADDRESS_LO, &job->output);
    put_address(driver, NPU_WEIGHTS_LO, job->weights);
    put_address(driver, NPU_CHANNELS_LO, job->channels);
    put_address(driver, NPU_IMAGE_LO, job->image);
    put(driver, NPU_IMAGE_STRIDE, (uint32_t)job->image_stride);
    put(driver, NPU_IMAGE_HEIGHT, job->image_height);
    put(driver, NPU_IMAGE_WIDTH, job->image_width);
    if (job->result != NULL) {
        put_address(driver, NPU_RESULT_LO, job->result);
        put(driver, NPU_RESULT_STRIDE, (uint32_t)job->result_stride);
    }
}

/* Poll until the engine is through; its STATUS, in which nothing is set when patience ran out. */
static uint32_t wait(const npu_driver *driver)
{
    uint32_t left;

    for (left = driver->patience; left > 0; left--) {
        const uint32_t status = get(driver, NPU_STATUS);
        if ((status & (NPU_STATUS_DONE_MASK | NPU_STATUS_ERROR_MASK)) != 0) return status;
    }
    return 0;
}

static sl_hook_answer run_layer(void *context, const sl_hook_job *job)
{
    npu_driver *driver = (npu_driver *)context;
    uint32_t status = 0;

    /* Strides are 32 bits wide in the map. */
    if (!driver->dead && job->image_stride <= UINT32_MAX && job->result_stride <= UINT32_MAX) {
        program(driver, job);
        put(driver, NPU_CONTROL, NPU_CONTROL_START_MASK);
        status = wait(driver);
        if (status == 0) driver->dead = 1;
        /* Abandoned or through: after the STATUS that follows, the arena is the runtime's again. */
        put(driver, NPU_CONTROL, status == 0 ? NPU_CONTROL_RESET_MASK : NPU_CONTROL_CLEAR_MASK);
        (void)get(driver, NPU_STATUS);
    }
    if ((status & NPU_STATUS_DONE_MASK) == 0) {
        driver->declined++;
        return SL_HOOK_DECLINED;
    }
    driver->done++;
    return SL_HOOK_DONE;
}

int npu_open(npu_driver *driver, const npu_bus *bus, uint32_t patience)
{
    memset(driver, 0, sizeof *driver);
    driver->bus = bus;
    driver->patience = patience;
    if (get(driver, NPU_ID) != NPU_ID_RESET) return 1;
    return MAJOR(get(driver, NPU_VERSION)) != MAJOR(NPU_VERSION_RESET);
}

const sl_hooks *npu_hooks(npu_driver *driver, sl_hooks *hooks)
{
    size_t op;

    memset(hooks, 0, sizeof *hooks);
    for (op = SL_OP_CONV3X3; op <= SL_OP_TAIL; op++)
        hooks->ops[op] = run_layer;
    hooks->context = driver;
    return hooks;
}
