/* Counts instructions and stack of the device's cryptography on an emulated Cortex-M: the machine
 * mps2-an385 or an386 of QEMU under -icount shift=0, where an instruction takes 1 ns and timer 0
 * ticks every 40 ns. Instructions are not cycles: a Cortex-M0+ needs about 1.35 cycles for each.
 *
 * SPDX-License-Identifier: Apache-2.0 */

#include "sow_aes.h"
#include "sow_p256.h"
#include "sow_sha256.h"

#include <string.h>

enum { RAM_TOP = 0x20004000, STACK_PAINT = 2048, PAINT = 0xa5 };

static volatile uint32_t *const timer = (volatile uint32_t *)0x40000000; /* control, value, reload */

/* RFC 6979, A.2.5: SHA-256, message "sample". */
static const uint8_t pub[64] = {
    0x60, 0xfe, 0xd4, 0xba, 0x25, 0x5a, 0x9d, 0x31, 0xc9, 0x61, 0xeb, 0x74, 0xc6, 0x35, 0x6d, 0x68,
    0xc0, 0x49, 0xb8, 0x92, 0x3b, 0x61, 0xfa, 0x6c, 0xe6, 0x69, 0x62, 0x2e, 0x60, 0xf2, 0x9f, 0xb6,
    0x79, 0x03, 0xfe, 0x10, 0x08, 0xb8, 0xbc, 0x99, 0xa4, 0x1a, 0xe9, 0xe9, 0x56, 0x28, 0xbc, 0x64,
    0xf2, 0xf1, 0xb2, 0x0c, 0x2d, 0x7e, 0x9f, 0x51, 0x77, 0xa3, 0xc2, 0x94, 0xd4, 0x46, 0x22, 0x99,
};
static const uint8_t hash[32] = {
    0xaf, 0x2b, 0xdb, 0xe1, 0xaa, 0x9b, 0x6e, 0xc1, 0xe2, 0xad, 0xe1, 0xd6, 0x94, 0xf4, 0x1f, 0xc7,
    0x1a, 0x83, 0x1d, 0x02, 0x68, 0xe9, 0x89, 0x15, 0x62, 0x11, 0x3d, 0x8a, 0x62, 0xad, 0xd1, 0xbf,
};
static const uint8_t sig[64] = {
    0xef, 0xd4, 0x8b, 0x2a, 0xac, 0xb6, 0xa8, 0xfd, 0x11, 0x40, 0xdd, 0x9c, 0xd4, 0x5e, 0x81, 0xd6,
    0x9d, 0x2c, 0x87, 0x7b, 0x56, 0xaa, 0xf9, 0x91, 0xc3, 0x4d, 0x0e, 0xa8, 0x4e, 0xaf, 0x37, 0x16,
    0xf7, 0xcb, 0x1c, 0x94, 0x2d, 0x65, 0x7c, 0x41, 0xd4, 0x36, 0xc7, 0xa1, 0xb6, 0xe2, 0x9f, 0x65,
    0xf3, 0xe9, 0x00, 0xdb, 0xb9, 0xaf, 0xf4, 0x06, 0x4d, 0xc4, 0xab, 0x2f, 0x84, 0x3a, 0xcd, 0xa8,
};

static uint8_t data[1024];

/* A semihosting call; 4 writes a string, 0x20 ends the emulation. */
static void host(int op, const void *arg)
{
    register int r0 __asm__("r0") = op;
    register const void *r1 __asm__("r1") = arg;

    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

static void print(const char *what, uint32_t value)
{
    char digits[12];
    int at = sizeof digits - 1;

    digits[at] = '\0';
    digits[--at] = '\n';
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    host(4, what);
    host(4, digits + at);
}

static void sha256(void)
{
    struct sow_sha256 s;
    uint8_t digest[32];

    sow_sha256_init(&s);
    for (int i = 0; i < 64; i++) {
        sow_sha256_update(&s, data, sizeof data);
    }
    sow_sha256_final(&s, digest);
}

static void cmac(void)
{
    struct sow_cmac c;
    uint8_t mac[16];

    sow_cmac_init(&c, data);
    for (int i = 0; i < 64; i++) {
        sow_cmac_update(&c, data, sizeof data);
    }
    sow_cmac_final(&c, mac);
}

static int result;

static void verify(void)
{
    result = sow_p256_verify(pub, hash, sig);
}

/* Instructions that f takes. */
static uint32_t count(void (*f)(void))
{
    uint32_t start = timer[1];

    f();
    return (start - timer[1]) * 40;
}

/* Bytes of stack that f uses, itself and this call included. */
static uint32_t stack(void (*f)(void))
{
    uint8_t *here = __builtin_frame_address(0), *low = here - STACK_PAINT;

    for (volatile uint8_t *p = low; p < here - 64; p++) {
        *p = PAINT;
    }
    f();
    while (*low == PAINT) {
        low++;
    }
    return (uint32_t)(here - low);
}

void reset(void)
{
    const uint32_t stop[2] = {0x20026, 0}; /* application exit, status 0 */

    timer[2] = timer[1] = 0xffffffff;
    timer[0] = 1;
    uint32_t n = count(sha256);
    print("sha256_instructions_per_byte ", (n + (sizeof data * 32)) / (sizeof data * 64));
    print("sha256_stack_bytes ", stack(sha256));
    print("p256_verify_instructions ", count(verify));
    print("p256_verify_stack_bytes ", stack(verify));
    print("p256_verify_result ", (uint32_t)-result);
    n = count(cmac);
    print("cmac_instructions_per_byte ", (n + (sizeof data * 32)) / (sizeof data * 64));
    host(0x20, stop);
}

__attribute__((section(".vectors"), used)) static void (*const vectors[])(void) = {
    (void (*)(void))RAM_TOP,
    reset,
};
