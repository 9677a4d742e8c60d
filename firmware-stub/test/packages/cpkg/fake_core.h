/* A sow_core and a boot stub without flash, whose answers a test sets and whose calls it counts.
 * There is one of them. */
#ifndef FAKE_CORE_H
#define FAKE_CORE_H

#include "sow.h"

struct fake_core {
    struct sow_status st[4];
    struct sow_image image;
    struct sow_boot_status boot;
    uint32_t version;      /* of slot A */
    uint32_t next_version; /* of the image that a complete block becomes */
    uint32_t kv[16];
    uint8_t kv_set[16];
    uint32_t gps;
    int open_result, session_result, install_result, services_result;
    uint8_t stop_cause;   /* sow_core_work stops with it */
    uint8_t stop_at_once; /* ... before the block is complete */
    int asked; /* of slot A and the boot region */
    int sessions, fragments, works, installs, confirms, rejects;
    uint8_t reject_cause;
    uint16_t last_n;
};

extern struct fake_core fake;

#endif
