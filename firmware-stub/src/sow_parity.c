/* SPDX-License-Identifier: Apache-2.0 */
#include "sow_parity.h"

#include "sow_core.h"

/* PRBS23 of TS004-1.0.0 appendix A: x^23 + x^5 + 1, run to the right. The seed may exceed 23 bits. */
static uint32_t prbs23(uint32_t x)
{
    return x >> 1 ^ ((x ^ x >> 5) & 1u) << 22;
}

void sow_parity_row(uint8_t *row, uint8_t matrix, uint16_t m, uint16_t n)
{
    uint32_t mod = (m & (m - 1u)) == 0 ? m + 1u : m; /* a power of two would show the low bits of the register */
    uint32_t x = 1u + 1001u * (uint32_t)(matrix == SOW_MATRIX_V2_ABSOLUTE ? n : n - m);
    uint32_t left = m / 2u;

    while (left != 0) {
        uint32_t r;

        x = prbs23(x);
        r = x % mod;
        if (r >= m)
            continue;
        if (!sow_bit(row, r))
            sow_bit_flip(row, r);
        else if (matrix != SOW_MATRIX_V1)
            continue; /* version 1 counts a column drawn twice */
        left--;
    }
}
