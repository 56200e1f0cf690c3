/* Forging: what a damaged bundle must have so that only the rules behind its CRCs can refuse it. */
#ifndef BUNDLE_FORGE_H
#define BUNDLE_FORGE_H

#include <stddef.h>
#include <stdint.h>

/* Change one byte, at a place drawn so that short tables are met as often as long ones. */
void change_byte(uint8_t *data, const uint8_t *original, size_t size);

/* Make CRCs right again as far as the damaged places allow: weights, sections, table, header,
 * trailer; half of the time views are made to agree with their buffers, so that the lie goes
 * deeper. At least 128 bytes. */
void seal(uint8_t *data, size_t size);

/* The sections of `data` changed as a whole: one taken out, doubled, moved, or with `resize` given
 * other bytes; then packed again, sealed. Returns the new size, at most `room`; 0 when `data` is no
 * container or the result does not fit. `resize(content, bytes, room)` returns the new bytes. */
size_t change_sections(uint8_t *data, size_t size, size_t room,
                       size_t (*resize)(uint8_t *content, size_t bytes, size_t room));

#endif
