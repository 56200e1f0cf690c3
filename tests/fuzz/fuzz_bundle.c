/* libFuzzer's target: the reader and the run, under address and undefined-behaviour sanitizers.
 *
 * The mutator knows the container. Most of its changes lie within a section or make one longer,
 * shorter, doubled or missing, and then every CRC is made right again: what remains for the reader
 * is to look at the content. The rest is libFuzzer's own, unsealed, for the container itself. */
#include <string.h>

#include "bundle_forge.h"
#include "bundle_trial.h"

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    seed_draws(sl_crc32(0, data, size));
    (void)try_bundle(data, size);
    return 0;
}

static int is_container(const uint8_t *data, size_t size)
{
    static const uint8_t MAGIC[] = SL_MAGIC_BYTES;
    sl_header_record header;

    if (size < sizeof header + sizeof(sl_trailer_record)) return 0;
    memcpy(&header, data, sizeof header);
    return memcmp(header.magic, MAGIC, sizeof MAGIC) == 0 && header.section_count > 0 &&
           header.section_count <= 16 &&
           sizeof header + header.section_count * sizeof(sl_section_record) <= size;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
    uint64_t changes;

    seed_draws(seed);
    if (size > max_size || !is_container(data, size) || draw(16) == 0)
        return LLVMFuzzerMutate(data, size, max_size);
    if (draw(4) == 0) {
        const size_t changed = change_sections(data, size, max_size, LLVMFuzzerMutate);
        return changed != 0 ? changed : size;
    }
    for (changes = 1 + draw(3); changes > 0 && is_container(data, size); changes--)
        change_byte(data, data, size);
    if (is_container(data, size)) seal(data, size);
    return size;
}
