// The emulator from another language: a device whose last fault and report can be read as text, and
// the frame of a function that launches kernels on it:
//
//   extern "C" int scale(Session *session, const float *x, float *out, int64_t count)
//   {
//       return attempt(session, [&] { launch({..., .stream = session}, scale_kernel, x, out,
//       count); });
//   }
#pragma once

#include <exception>
#include <string>

#include "machine.h"

namespace starlight::emulator
{

struct Session : Device {
    std::string fault_kind, fault_message, text;
};

// 0, or 1 with the session's fault told.
template <class Function> int attempt(Session *session, Function launches)
{
    try {
        launches();
        return 0;
    } catch (const Fault &fault) {
        session->fault_kind = fault.kind;
        session->fault_message = fault.what();
    } catch (const std::exception &error) {
        session->fault_kind = "host";
        session->fault_message = error.what();
    }
    return 1;
}

} // namespace starlight::emulator
