/* What the boot region remembers: the manifest of the last request, and this record.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SOW_BOOT_RECORD_H
#define SOW_BOOT_RECORD_H

#include "sow_log.h"

/* More of enum sow_boot_state, for the stub. */
#define SOW_BOOT_BACK 6u /* slot A and B are being swapped back */
#define SOW_BOOT_UNDO 7u /* a swap could not go on: back to the old image */
#define SOW_BOOT_REDO 8u /* a roll-back could not go on: back to the new image */

/* The data of a journal record, byte for byte. */
struct sow_boot_record {
    uint32_t sequence; /* of the last confirmed image */
    uint16_t progress; /* of a swap: page << 2 | copies made of that page */
    uint16_t pages;    /* to swap */
    uint8_t state;
    uint8_t cause;
    uint8_t count;     /* trial boots; while swapping, the scratch page in use */
};

/* Zeros when nothing was ever requested. */
void sow_boot_load(const struct sow_config *cfg, struct sow_log *log, struct sow_boot_record *r);
int sow_boot_store(struct sow_log *log, const struct sow_boot_record *r);

#endif
