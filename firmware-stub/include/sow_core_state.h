/* Private state of the core: included by sow_core.h so that callers can place a struct sow_core, not for
 * them to read. Nothing here is authoritative: after a reset all of it is rebuilt from flash.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SOW_CORE_STATE_H
#define SOW_CORE_STATE_H

#include <stdint.h>

#define SOW_CORE_SPARES 8u /* slots that stand in for torn or refusing ones, per session */
#define SOW_CORE_VALUES 2u /* keys of sow_core_kv_get */

/* A journal (src/sow_log.h). */
struct sow_log {
    const struct sow_config *cfg;
    const struct sow_region *region;
    uint32_t at; /* address of the record in force */
};

/* Small fields come first: a Cortex-M0+ reaches a byte within 32 bytes of its base, a halfword within 64. */
struct sow_core {
    uint16_t count[2];  /* fragments; columns: those missing when they were frozen, or now while they are not */
    uint16_t rank;      /* rows held */
    uint16_t received;  /* fragments seen */
    uint16_t bitmap;    /* bytes of a bitmap over the fragments */
    uint16_t stride[3]; /* bytes from one slot to the next: of data, rows, freeze records */
    struct sow_core_record { /* the journal's record, byte for byte */
        uint8_t phase;    /* enum sow_core_phase */
        uint8_t step;     /* of a stop */
        uint8_t cause;
        uint8_t flags;
        uint8_t freeze;   /* freeze record in force, or the next one to use */
        uint8_t tries;    /* starts of long work since it last got further */
        uint8_t judge;    /* how far the judgement has got that the phase makes; void after a reset */
        uint8_t known;    /* bit per number below: it was put */
        struct sow_session session;
        uint8_t requests; /* of an install: those made before it */
        uint8_t recheck;  /* cause to stop with unless a rotten slot explains it; void after a reset */
        uint16_t tag;     /* marks the slots of this session; no two sessions in a row share one */
        uint32_t repair;  /* address of the page that is being made anew from its copy in scratch, plus 1; or 0 */
        uint32_t done;    /* bytes of the new image that are complete in slot B: whole pages, or all */
        uint32_t value[SOW_CORE_VALUES];
        uint16_t count[4]; /* SessionCnt last used, by FragIndex */
        uint32_t log[2];
    } at;
    uint16_t spare[SOW_CORE_SPARES]; /* slot id that lives in each spare, or none */
    uint32_t place[3]; /* addresses of the first slots: of data, rows, freeze records */
    uint8_t *arena;
    uint32_t pos;      /* cursor of the work under way: page, slot, row or byte */
    uint32_t gps;      /* GPS seconds, 0 unknown */
    struct sow_log log;
    uint16_t arena_size; /* of more than that no use is made */
    uint8_t repairs;     /* pages made anew since the last reset */
};

#endif
