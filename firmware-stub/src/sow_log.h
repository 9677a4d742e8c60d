/* A small journal: records of 11 bytes under an id 0..23, the newest of an id counts.
 *
 * Two areas of whole pages alternate. An area is a header (generation, checksum of the blob) and its copy, a
 * blob of fixed size, then records of 16 bytes, all written once. The header is written last: an area without a
 * valid one does not exist, so that a full area is replaced, and the blob changed, in one instant.
 *
 *   header  0 magic, 4 generation, 8 checksum of the blob, 12 checksum of bytes 0..11
 *   record  0 id, 1 data[11], 12 checksum of bytes 0..11, seeded with the generation
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SOW_LOG_H
#define SOW_LOG_H

#include <stdint.h>

#include "sow_core.h"

#define SOW_LOG_DATA 11u
#define SOW_LOG_IDS 24u

/* Find the area in force. Having none is no error: gets find nothing, the first put makes one. */
void sow_log_open(struct sow_log *l, const struct sow_config *cfg, const struct sow_region *region, uint16_t blob);

/* 1 and the newest data of that id, SOW_LOG_DATA bytes, or 0. */
int sow_log_get(const struct sow_log *l, uint8_t id, void *data);

/* Append; nothing is written when the newest data is the same. SOW_OK or -SOW_CAUSE_FLASH_IO. */
int sow_log_put(struct sow_log *l, uint8_t id, const void *data);

/* Put a record and a new blob at once. */
int sow_log_replace(struct sow_log *l, const uint8_t *blob, uint8_t id, const void *data);

/* SOW_OK when the blob has its checksum, else -SOW_CAUSE_FLASH_IO. */
int sow_log_blob(const struct sow_log *l, uint8_t *blob);

#endif
