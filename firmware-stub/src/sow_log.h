/* A small journal: one record of fixed size, written anew with every change; the newest that is sound counts.
 *
 * Two areas of whole pages take turns: the one is erased when the other is full, so that the newest record always
 * stands. A torn record is passed over.
 *
 *   record  0 data[size - 8], size - 8 number, size - 4 checksum of all before
 *
 * A record may have a blob directly before it, which is written first and has no checksum of its own.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SOW_LOG_H
#define SOW_LOG_H

#include <stdint.h>

#include "sow_core.h"

#define SOW_LOG_BLOB SOW_MANIFEST_SIZE /* bytes: a multiple of every record */
#define SOW_LOG_RECORD 64u             /* the largest, bytes; all are powers of two, 16 at least */

/* Find the newest record and its place; zeros when there is none. l->cfg and region are set. */
void sow_log_load(struct sow_log *l, void *record, uint32_t size);

/* Write a record behind that one; its number and checksum are put in. blob may be NULL.
 * SOW_OK, or -SOW_CAUSE_FLASH_IO: the old record stands. */
int sow_log_put(struct sow_log *l, void *record, uint32_t size, const void *blob);

/* The next record goes to the other area. */
void sow_log_turn(struct sow_log *l, uint32_t size);

#endif
