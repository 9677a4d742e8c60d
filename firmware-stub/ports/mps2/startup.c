/* Vector table and C start-up, for boot stub and application alike.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>

#include "mps2.h"

extern uint32_t ld_stack, ld_stack_bottom, ld_data, ld_data_end, ld_data_load, ld_bss, ld_bss_end;

int main(void);
void startup_reset(void);
void startup_fault(void);

__attribute__((section(".vectors"), used)) static const void *const vectors[48] = {
    &ld_stack,
    (const void *)startup_reset,
    (const void *)startup_fault, /* NMI */
    (const void *)startup_fault, /* hard fault */
    (const void *)startup_fault, (const void *)startup_fault, (const void *)startup_fault,
};

#define PAINT 0x7461696eu

uint32_t mps2_stack_used(void)
{
    const uint32_t *p = &ld_stack_bottom;

    while (p < &ld_stack && *p == PAINT) {
        p++;
    }
    return (uint32_t)((const char *)&ld_stack - (const char *)p);
}

uint32_t mps2_stack_size(void)
{
    return (uint32_t)((const char *)&ld_stack - (const char *)&ld_stack_bottom);
}

void startup_reset(void)
{
    uint32_t *top = (uint32_t *)__builtin_frame_address(0) - 16; /* this function's frame stays as it is */
    for (uint32_t *p = &ld_stack_bottom; p < top;) {
        *p++ = PAINT;
    }
    uint32_t *src = &ld_data_load;
    for (uint32_t *dst = &ld_data; dst < &ld_data_end;) {
        *dst++ = *src++;
    }
    for (uint32_t *dst = &ld_bss; dst < &ld_bss_end;) {
        *dst++ = 0u;
    }
    (void)main();
    mps2_reset();
}

void startup_fault(void)
{
    mps2_reset();
}
