/* Private state of the core: included by sow_core.h so that callers can place a struct sow_core, not for
 * them to read. Nothing here is authoritative: after a reset all of it is rebuilt from flash.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SOW_CORE_STATE_H
#define SOW_CORE_STATE_H

#include <stdint.h>

#define SOW_CORE_SPARES 8u /* slots that stand in for torn or refusing ones, per session */

/* A journal in two alternating flash areas (src/sow_log.h). */
struct sow_log {
    const struct sow_config *cfg;
    const struct sow_region *region;
    uint32_t gen;   /* generation of the area in force; 0: none yet */
    uint32_t next;  /* offset in that area of the next record */
    uint16_t blob;  /* bytes of the blob at the head of an area */
    uint8_t area;   /* 0 or 1 */
};

/* Small fields come first: a Cortex-M0+ reaches a byte within 32 bytes of its base, a halfword within 64. */
struct sow_core {
    struct sow_core_record { /* the data of a journal record, byte for byte */
        uint8_t phase;   /* enum sow_core_phase */
        uint8_t step;    /* of a stop */
        uint8_t cause;
        uint8_t flags;
        uint16_t detail; /* of a stop; of an install, what requests() said before */
        uint16_t tag;    /* marks the slots of this session; no two sessions in a row share one */
        uint8_t freeze;  /* freeze record in force, or the next one to use */
        uint8_t repair[2]; /* the page that is being made anew from its copy in scratch, 0: none */
    } at;
    uint8_t judge;     /* progress of the judgement of the manifest */
    uint8_t recheck;   /* cause to stop with unless a rotten slot explains it */
    uint8_t unit;      /* granule, at least a word */
    uint8_t repairs;   /* pages made anew since the last reset */
    struct sow_session session;
    uint16_t lost;     /* columns: missing when the columns were frozen, or now while they are not */
    uint16_t rank;     /* rows held */
    uint16_t received; /* fragments seen */
    uint16_t bitmap;   /* bytes of a bitmap over the fragments */
    uint16_t fstride;  /* bytes from one freeze record to the next, */
    uint16_t stride;   /* one data slot to the next, */
    uint16_t rstride;  /* one row slot to the next, while frozen */
    uint16_t spare[SOW_CORE_SPARES]; /* slot id that lives in each spare, 0xffff: free, 0xfffe: used up */
    struct sow_core_progress { /* a journal record, too */
        uint16_t pages;  /* of the new image that are complete in slot B */
        uint8_t tries;   /* starts of long work since it last got further */
        uint8_t unused[8];
    } progress;
    const struct sow_config *cfg;
    uint8_t *arena;
    uint32_t arena_size;
    uint32_t pos;      /* cursor of the work under way: page, slot, row or byte */
    uint32_t gps;      /* GPS seconds, 0 unknown */
    uint32_t version;  /* of the image in slot B, once its manifest is judged */
    struct sow_region rows; /* where rows are held: behind the data slots, or slot B */
    struct sow_log log;
};

#endif
