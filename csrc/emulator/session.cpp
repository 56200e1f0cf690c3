#include "session.h"

using namespace starlight::emulator;

extern "C" {

Session *emulator_new(uint32_t seed, int count, int run, int multiprocessors,
                      size_t shared_bytes_per_block)
{
    auto *session = new Session;
    session->options = {seed, count != 0, run != 0, multiprocessors, shared_bytes_per_block};
    return session;
}

void emulator_delete(Session *session)
{
    delete session;
}

// 0 with the fault told. `role`: 0 input, 1 output, 2 memory.
uint64_t emulator_add(Session *session, const char *name, void *host, uint64_t bytes,
                      int element_bytes, int role, uint64_t misalignment)
{
    uint64_t address = 0;
    attempt(session, [&] {
        address =
            session->add(name, host, bytes, element_bytes, static_cast<Role>(role), misalignment);
    });
    return address;
}

void emulator_remove(Session *session, uint64_t address)
{
    session->remove(address);
}

uint64_t emulator_unwritten_bytes(const Session *session, uint64_t address)
{
    return session->buffer_at(address)->unwritten_bytes();
}

const char *emulator_fault_kind(const Session *session)
{
    return session->fault_kind.c_str();
}

const char *emulator_fault_message(const Session *session)
{
    return session->fault_message.c_str();
}

// JSON: a list of launches, as tests/emulator.py reads it. Valid until the next call.
const char *emulator_report(Session *session)
{
    session->text = report_json(session->launches);
    return session->text.c_str();
}

void emulator_forget_report(Session *session)
{
    session->launches.clear();
}

} // extern "C"
