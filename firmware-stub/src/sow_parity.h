/* Rows of the TS004 parity matrix, versions 1.0.0 and 2.0.0 (algorithm 0).
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SOW_PARITY_H
#define SOW_PARITY_H

#include <stdint.h>

/* Write the row of fragment n > m over m columns into zeros, least significant bit of row[0] first; row holds
 * (m+7)/8 bytes. matrix is an enum sow_matrix. */
void sow_parity_row(uint8_t *row, uint8_t matrix, uint16_t m, uint16_t n);

static inline int sow_bit(const uint8_t *b, uint32_t i) { return b[i >> 3] >> (i & 7u) & 1; }

static inline void sow_bit_flip(uint8_t *b, uint32_t i) { b[i >> 3] = (uint8_t)(b[i >> 3] ^ 1u << (i & 7u)); }

#endif
