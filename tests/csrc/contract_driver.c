/* Puts functions of csrc/contract/intmath.h through cases from standard input.
 *
 * `contract_driver FUNCTION` reads records of five int64 (value, operand, shift, multiplier, join
 * multiplier) in host byte order and writes one int64 per record. What a function does not take is
 * ignored.
 */
#include <stdio.h>
#include <string.h>

#include "intmath.h"

typedef struct {
    int64_t value;
    int64_t operand;
    int64_t shift;
    int64_t multiplier;
    int64_t join_multiplier;
} record;

typedef int64_t (*function)(const record *r);

static unsigned shift_of(const record *r)
{
    return (unsigned)r->shift;
}

static int64_t floor_shift64(const record *r)
{
    return sl_floor_shift64(r->value, shift_of(r));
}

static int64_t floor_shift32(const record *r)
{
    return sl_floor_shift32((int32_t)r->value, shift_of(r));
}

static int64_t rounded_shift(const record *r)
{
    return sl_rounded_shift((int32_t)r->value, shift_of(r));
}

static int64_t requantise(const record *r)
{
    return sl_requantise((int32_t)r->value, shift_of(r));
}

static int64_t requantise_relu(const record *r)
{
    return sl_requantise_relu((int32_t)r->value, shift_of(r));
}

static int64_t tail_pixel(const record *r)
{
    return sl_tail_pixel((uint8_t)r->operand, (int32_t)r->value, shift_of(r));
}

static int64_t join(const record *r)
{
    return sl_join((int32_t)r->value, (int32_t)r->operand, shift_of(r));
}

static int64_t multiply_2k(const record *r)
{
    return sl_multiply_2k((int32_t)r->value, shift_of(r));
}

static int64_t saturate_i8(const record *r)
{
    return sl_saturate_i8((int32_t)r->value);
}

static int64_t saturate_relu_i8(const record *r)
{
    return sl_saturate_relu_i8((int32_t)r->value);
}

static int64_t saturate_u8(const record *r)
{
    return sl_saturate_u8((int32_t)r->value);
}

static int64_t rounded_product(const record *r)
{
    return sl_rounded_product((int32_t)r->value, (uint32_t)r->multiplier, (int32_t)r->operand,
                              (uint32_t)r->join_multiplier, shift_of(r));
}

static int64_t multiplier_tail_pixel(const record *r)
{
    return sl_multiplier_tail_pixel((uint8_t)r->operand, (int32_t)r->value, (uint32_t)r->multiplier,
                                    shift_of(r));
}

static int64_t clamp64(const record *r)
{
    return sl_clamp64(r->value, r->operand, r->shift);
}

static int64_t quantise_pixel(const record *r)
{
    return sl_quantise_pixel((uint8_t)r->value);
}

static const struct {
    const char *name;
    function call;
} functions[] = {
    {"floor_shift32", floor_shift32},
    {"floor_shift64", floor_shift64},
    {"rounded_shift", rounded_shift},
    {"requantise", requantise},
    {"requantise_relu", requantise_relu},
    {"tail_pixel", tail_pixel},
    {"join", join},
    {"multiply_2k", multiply_2k},
    {"saturate_i8", saturate_i8},
    {"saturate_relu_i8", saturate_relu_i8},
    {"saturate_u8", saturate_u8},
    {"rounded_product", rounded_product},
    {"multiplier_tail_pixel", multiplier_tail_pixel},
    {"clamp64", clamp64},
    {"quantise_pixel", quantise_pixel},
};

int main(int argc, char **argv)
{
    function call = NULL;
    for (size_t i = 0; argc == 2 && i < sizeof functions / sizeof functions[0]; i++) {
        if (strcmp(argv[1], functions[i].name) == 0) {
            call = functions[i].call;
        }
    }
    if (call == NULL) {
        fputs("contract_driver: FUNCTION must be a known name\n", stderr);
        return 2;
    }
    record r;
    while (fread(&r, sizeof r, 1, stdin) == 1) {
        const int64_t result = call(&r);
        if (fwrite(&result, sizeof result, 1, stdout) != 1) {
            return 1;
        }
    }
    return 0;
}
