// The CUDA operators for ctypes, on the emulator or, where nvcc compiles this file, on a GPU.
#include "dense_block.cu"
#include "session.h"
#include "strided_conv.cu"

using starlight::emulator::attempt;
using starlight::emulator::Session;
using starlight::emulator::stream_of;
using namespace starlight::cuda;

// As tests/cuda_operators.py lays them out.
struct BlockCall {
    int64_t images, height, width, channels, growth, element;
    ConstImage x, grad_out;
    Image out;
    const void *weight[4], *bias[4];
    const int32_t *shift[4], *join_shift;
    void *grad_weight[4], *grad_bias[4];
    void *workspace;

    DenseBlock block() const
    {
        return {images,
                height,
                width,
                static_cast<int>(channels),
                static_cast<int>(growth),
                static_cast<Element>(element)};
    }

    DenseBlockParameters parameters() const
    {
        DenseBlockParameters all{};
        for (int k = 0; k < 4; k++) {
            all.weight[k] = weight[k];
            all.bias[k] = bias[k];
            all.shift[k] = shift[k];
        }
        all.join_shift = join_shift;
        return all;
    }

    DenseBlockGradients gradients() const
    {
        DenseBlockGradients all{};
        for (int k = 0; k < 4; k++) {
            all.weight[k] = grad_weight[k];
            all.bias[k] = grad_bias[k];
        }
        return all;
    }
};

struct StridedCall {
    int64_t images, height, width, inputs, outputs, relu, element;
    ConstImage x, result, grad_out;
    Image out;
    const void *weight, *bias;
    const int32_t *shift;
    void *grad_weight, *grad_bias, *workspace;

    StridedConv conv() const
    {
        return {images,
                height,
                width,
                static_cast<int>(inputs),
                static_cast<int>(outputs),
                relu != 0,
                static_cast<Element>(element)};
    }
};

extern "C" {

int dense_fits(Session *session, const BlockCall *call, int64_t *fits)
{
    return attempt(session, [&] { *fits = dense_block_fits(call->block(), stream_of(session)); });
}

int dense_workspace(Session *session, const BlockCall *call, int64_t backward, int64_t *bytes)
{
    return attempt(session, [&] {
        const auto query = backward != 0 ? dense_block_backward_workspace_bytes
                                         : dense_block_forward_workspace_bytes;
        *bytes = static_cast<int64_t>(query(call->block(), stream_of(session)));
    });
}

int dense_forward(Session *session, const BlockCall *call)
{
    return attempt(session, [&] {
        dense_block_forward(call->block(), call->x, call->parameters(), call->out, call->workspace,
                            stream_of(session));
    });
}

int dense_backward(Session *session, const BlockCall *call)
{
    return attempt(session, [&] {
        dense_block_backward(call->block(), call->x, call->parameters(), call->grad_out, call->out,
                             call->gradients(), call->workspace, stream_of(session));
    });
}

int strided_workspace(Session *session, const StridedCall *call, int64_t backward, int64_t *bytes)
{
    return attempt(session, [&] {
        *bytes = static_cast<int64_t>(
            backward != 0 ? strided_conv_backward_workspace_bytes(call->conv(), stream_of(session))
                          : strided_conv_forward_workspace_bytes(call->conv()));
    });
}

int strided_forward(Session *session, const StridedCall *call)
{
    return attempt(session, [&] {
        strided_conv_forward(call->conv(), call->x, {call->weight, call->bias, call->shift},
                             call->out, call->workspace, stream_of(session));
    });
}

int strided_backward(Session *session, const StridedCall *call)
{
    return attempt(session, [&] {
        strided_conv_backward(call->conv(), call->x, {call->weight, call->bias, call->shift},
                              call->result, call->grad_out, call->out, call->grad_weight,
                              call->grad_bias, call->workspace, stream_of(session));
    });
}

} // extern "C"
