/* From reset to main on a bare Cortex-M, and what came of it through semihosting: the bytes of
 * stack that were touched as one line of text, main's value as the exit code. */
#include <stdint.h>

extern uint32_t data_load[], data_begin[], data_end[], bss_begin[], bss_end[];
extern uint32_t stack_low[], stack_painted[], stack_high[];

int main(void);
void reset(void);

#define PAINT 0xDEADBEEFu
enum { SYS_WRITE0 = 0x04, SYS_EXIT_EXTENDED = 0x20, APPLICATION_EXIT = 0x20026 };

static void semihosting(uint32_t operation, const void *argument)
{
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
}

static void print_number(uint32_t value)
{
    char text[12];
    char *digit = text + sizeof text;

    *--digit = '\0';
    *--digit = '\n';
    do {
        *--digit = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    semihosting(SYS_WRITE0, digit);
}

static void stop(uint32_t code)
{
    uint32_t block[2];
    block[0] = APPLICATION_EXIT;
    block[1] = code;
    semihosting(SYS_EXIT_EXTENDED, block);
}

static void fault(void)
{
    stop(255);
}

void reset(void)
{
    uint32_t *from = data_load, *to;
    uint32_t used = 0;
    int code;

    for (to = data_begin; to < data_end; to++)
        *to = *from++;
    for (to = bss_begin; to < bss_end; to++)
        *to = 0;
    for (to = stack_low; to < stack_painted; to++)
        *to = PAINT;
    code = main();
    for (to = stack_low; to < stack_high && *to == PAINT; to++)
        used++;
    print_number((uint32_t)(stack_high - stack_low - (long)used) * 4);
    stop((uint32_t)code);
}

__attribute__((section(".vectors"), used)) static const void *const VECTORS[16] = {
    stack_high,          (const void *)reset, (const void *)fault, (const void *)fault,
    (const void *)fault, (const void *)fault, (const void *)fault,
};
