// The emulator from another language: a device whose last fault and report can be read as text, and
// the frame of a function that launches kernels, on it or, where nvcc compiles the same file, on a
// GPU:
//
//   extern "C" int scale(Session *session, const float *x, float *out, int64_t count)
//   {
//       return attempt(session, [&] { launch({.., .stream = stream_of(session)}, scale_kernel, x,
//       out, count); });
//   }
#pragma once

#include <exception>
#include <string>

#if defined(__CUDACC__)

#include "launch.h"

namespace starlight::emulator
{

struct Session; // a stream, by another name

inline cuda::Stream stream_of(Session *session)
{
    return reinterpret_cast<cuda::Stream>(session);
}

inline std::string last_error;

// 0, or 1 with the error told.
template <class Function> int attempt(Session *, Function launches)
{
    try {
        launches();
        return 0;
    } catch (const std::exception &error) {
        last_error = error.what();
        return 1;
    }
}

} // namespace starlight::emulator

extern "C" [[gnu::used]] inline const char *session_error()
{
    return starlight::emulator::last_error.c_str();
}

#else

#include "machine.h"

namespace starlight::emulator
{

struct Session : Device {
    std::string fault_kind, fault_message, text;
};

inline Device *stream_of(Session *session)
{
    return session;
}

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

#endif
