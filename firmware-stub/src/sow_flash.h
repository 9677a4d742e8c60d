/* Flash through the port: programming that is read back, blank checks, and the checksum of everything stored.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SOW_FLASH_H
#define SOW_FLASH_H

#include <stdint.h>
#include <string.h>

#include "sow_port.h"

#define SOW_FLASH_CHUNK 32u /* bytes moved at a time; a multiple of every granule */

/* Round n up to a multiple of a power of two. */
static inline uint32_t sow_align(uint32_t n, uint32_t to) { return (n + to - 1u) & (0u - to); }

/* SOW_OK or -SOW_CAUSE_FLASH_IO. */
int sow_flash_read(const struct sow_config *cfg, uint32_t addr, void *buf, uint32_t len);

/* Give the watchdog its due. */
void sow_flash_idle(const struct sow_config *cfg);

/* Program blank granules, but those that are to read as erased, and compare what they then read.
 * -SOW_CAUSE_FLASH_IO: they are unusable until erased. */
int sow_flash_prog(const struct sow_config *cfg, uint32_t addr, const void *buf, uint32_t len);

/* Erase a page and see that it is blank. */
int sow_flash_erase(const struct sow_config *cfg, uint32_t addr);

/* 1 when every byte reads as erased. Says nothing about granules that an interrupted program left refusing. */
int sow_flash_blank(const struct sow_config *cfg, uint32_t addr, uint32_t len);

/* Copy whole granules to where it has been erased. */
int sow_flash_copy(const struct sow_config *cfg, uint32_t to, uint32_t from, uint32_t len);

/* The word at p, which is aligned to 4. */
static inline uint32_t sow_load(const void *p)
{
    uint32_t w;

    memcpy(&w, __builtin_assume_aligned(p, 4), 4);
    return w;
}

static inline void sow_store(void *p, uint32_t w) { memcpy(__builtin_assume_aligned(p, 4), &w, 4); }

/* Continue a 32-bit checksum over n bytes, a multiple of 4, at an address that is one too. Each step is a bijection of the state, so a change
 * confined to one word is always seen and any other goes unseen once in 2^32; it costs a tenth of a table-less
 * CRC-32 on a Cortex-M0+. Not for data that someone might forge. */
uint32_t sow_check(uint32_t c, const void *data, uint32_t n);

static inline uint32_t sow_check_word(uint32_t c, uint32_t w)
{
    c = (c ^ w) * 0x9e3779b1u;
    return c ^ c >> 15;
}

#endif
