/* What the boot region remembers: this record, and before that of a request the manifest that it is for.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SOW_BOOT_RECORD_H
#define SOW_BOOT_RECORD_H

#include "sow_log.h"

/* More of enum sow_boot_state, for the stub. */
#define SOW_BOOT_BACK 6u /* slot A and B are being swapped back */
#define SOW_BOOT_UNDO 7u /* a swap could not go on: back to the old image */
#define SOW_BOOT_REDO 8u /* a roll-back could not go on: back to the new image */

/* The journal's record, byte for byte. */
struct sow_boot_record {
    uint8_t state;
    uint8_t cause;
    uint8_t count;     /* trial boots; while swapping, the scratch page in use */
    uint8_t requests;  /* made so far, modulo 256 */
    uint16_t progress; /* of a swap: page << 2 | copies made of that page */
    uint16_t pages;    /* to swap */
    uint32_t sequence; /* of the last confirmed image */
    uint32_t version;  /* of the image requested */
    uint32_t next;     /* its sequence */
    uint32_t manifest; /* checksum of its manifest */
    uint32_t log[2];
};

/* Zeros when nothing was ever requested. */
void sow_boot_load(const struct sow_config *cfg, struct sow_log *log, struct sow_boot_record *r);

/* The manifest that was written with the record in force: SOW_OK or -SOW_CAUSE_FLASH_DECAY. */
int sow_boot_manifest(const struct sow_log *log, const struct sow_boot_record *r, uint32_t raw[SOW_MANIFEST_SIZE / 4]);

/* Make a record for that manifest, in state PENDING, and write both. */
int sow_boot_ask(struct sow_log *log, struct sow_boot_record *r, const uint8_t *raw);

#endif
