/* Flash through the port: programming that is read back, blank checks, and the checksum of everything stored.
 *
 * Lengths are whole granules but for reading; all results are SOW_OK or -SOW_CAUSE_FLASH_IO.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SOW_FLASH_H
#define SOW_FLASH_H

#include <stdint.h>

#include "sow_port.h"

/* A word of a buffer that holds other things, too. */
typedef uint32_t sow_word __attribute__((may_alias));

/* Round n up to a multiple of a power of two. */
static inline uint32_t sow_align(uint32_t n, uint32_t to) { return (n + to - 1u) & (0u - to); }

/* Gives the watchdog its due, too: nothing in the library takes long that does not read flash all the time. */
int sow_flash_read(const struct sow_config *cfg, uint32_t addr, void *buf, uint32_t len);

/* 1 when flash reads as want, or as erased if that is NULL. Says nothing about granules that an interrupted program
 * left refusing. */
int sow_flash_is(const struct sow_config *cfg, uint32_t addr, const void *want, uint32_t len);

/* Program granules and compare what they then read. What reads as it is to stays so; an error: a granule is not
 * blank, or unusable until erased. */
int sow_flash_prog(const struct sow_config *cfg, uint32_t addr, const void *buf, uint32_t len);

/* Erase whole pages and see that they are blank. */
int sow_flash_erase(const struct sow_config *cfg, uint32_t addr, uint32_t len);

/* Erase a page and copy another one to it. */
int sow_flash_copy(const struct sow_config *cfg, uint32_t to, uint32_t from);

/* Continue a 32-bit checksum over n bytes, a multiple of 4, at an address that is one too. Each step is a bijection
 * of the state, so a change confined to one word is always seen and any other goes unseen once in 2^32; it costs a
 * tenth of a table-less CRC-32 on a Cortex-M0+. Not for data that someone might forge. */
uint32_t sow_check(uint32_t c, const void *data, uint32_t n);

#endif
