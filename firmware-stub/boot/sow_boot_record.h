/* What the boot region remembers: the manifest of the last request, and this record. */
#ifndef SOW_BOOT_RECORD_H
#define SOW_BOOT_RECORD_H

#include "sow_log.h"

#define SOW_BOOT_BACK 6u /* enum sow_boot_state: slot A and B are being swapped back */

struct sow_boot_record {
    uint8_t state;
    uint8_t step;  /* of the page being swapped: 1 B is in scratch, 2 A is in B; 3 would be the next page */
    uint8_t cause;
    uint8_t count; /* trial boots; while swapping, the scratch page in use */
    uint16_t page; /* pages swapped */
    uint16_t pages; /* pages to swap */
    uint32_t sequence; /* of the last confirmed image */
};

/* Zeros when nothing was ever requested. */
void sow_boot_load(const struct sow_config *cfg, struct sow_log *log, struct sow_boot_record *r);
int sow_boot_store(struct sow_log *log, const struct sow_boot_record *r);

/* The same with a manifest. */
int sow_boot_renew(struct sow_log *log, const struct sow_boot_record *r, const uint8_t raw[SOW_MANIFEST_SIZE]);

#endif
