/* Inside the core: phases, journal, arena and what its files call of each other.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SOW_CORE_PRIVATE_H
#define SOW_CORE_PRIVATE_H

#include "sow_core.h"
#include "sow_flash.h"
#include "sow_log.h"
#include "sow_parity.h"

enum sow_core_phase {
    SOW_CORE_NONE = 0,
    SOW_CORE_ERASE = 1,   /* session known, its flash not yet erased */
    SOW_CORE_STOP = 2,
    SOW_CORE_THAW = 3,    /* rows are being erased, then COLLECT without frozen columns */
    SOW_CORE_COLLECT = 4, /* fragments are taken; everything else follows from the slots */
    /* In order. Up to ASK it is COLLECT in the journal: reached again from the slots after a reset. */
    SOW_CORE_SOLVE = 5,
    SOW_CORE_CHECK = 6,
    SOW_CORE_MIC = 7,
    SOW_CORE_JUDGE = 8,
    SOW_CORE_DIGEST = 9,
    SOW_CORE_ASK = 10, /* the block is verified */
    SOW_CORE_WRITE = 11,
    SOW_CORE_HASH = 12,
    SOW_CORE_READY = 13,
    SOW_CORE_INSTALL = 14
};

enum sow_core_flag {
    SOW_FLAG_FROZEN = 1,    /* columns are fixed, rows are collected */
    SOW_FLAG_JUDGED = 2,    /* the manifest was found good while fragments still came in */
    SOW_FLAG_DELETED = 4,   /* the session is gone, its block is still in use */
    SOW_FLAG_NO_ROWS = 8,   /* a parity fragment found no room for rows */
    SOW_FLAG_RUNNING = 16,  /* the decoder in the arena is set up */
    SOW_FLAG_TRIED = 32     /* this start of long work is counted */
};

#define SOW_FLAGS_KEPT (SOW_FLAG_JUDGED | SOW_FLAG_DELETED) /* over a reset */

/* Resets in the middle of solving, verifying or patching that get the update nowhere: after so many it is given
 * up, or a patch that no watchdog survives would reset the device for ever. */
#define SOW_CORE_TRIES 8u

#define SOW_CORE_JOURNAL 512u /* bytes an area of the journal must have */
#define SOW_CORE_BOOT 256u    /* bytes an area of the boot region must have */

/* Slot ids: the kind of slot in the upper two bits, its number in the others. */
enum sow_kind { SOW_DATA = 0, SOW_ROWS = 1, SOW_FREEZE = 2 };

#define SOW_SLOT(kind, n) ((uint16_t)((unsigned)(kind) << 14 | (n)))
#define SOW_FREEZES 6u /* records of frozen columns per session, torn ones included */

/* The arena while fragments are collected: two bitmaps over the fragments, then a payload and directly behind it a
 * row of the matrix, so that payload and coefficients of a reduced row are the body of its slot. */
static inline uint32_t sow_bitmap_size(uint32_t bits) { return sow_align((bits + 7u) / 8u, 16); }

static inline uint8_t *sow_missing(const struct sow_core *c) { return c->arena; }

static inline uint8_t *sow_pivots(const struct sow_core *c) { return c->arena + c->bitmap; }

static inline uint8_t *sow_payload(const struct sow_core *c) { return c->arena + 2 * c->bitmap; }

/* Digests in progress and a manifest being judged share the place of the payload and the row. */
#define SOW_SCRATCH SOW_MANIFEST_SIZE
static inline void *sow_scratch(const struct sow_core *c) { return sow_payload(c); }

/* sow_store.c: fragments, rows and freeze records in write-once slots. */
void sow_store_layout(struct sow_core *c);
uint32_t sow_store_size(const struct sow_core *c); /* of the download area, without rows */
const struct sow_region *sow_store_rows(const struct sow_core *c); /* the region in which rows lie, last */
int sow_store_fit_rows(struct sow_core *c); /* lay out rows for the columns lost; 0: there is no room */
void sow_store_find_spares(struct sow_core *c, enum sow_kind kind); /* data first */
int sow_store_put_back(struct sow_core *c); /* finish the repair of a page that a reset has interrupted */
uint32_t sow_slot_body(const struct sow_core *c, uint32_t kind); /* bytes */
uint8_t *sow_row(const struct sow_core *c); /* in the arena, behind the payload */
int sow_slot_put(struct sow_core *c, uint16_t id, const uint8_t *body);
/* Add the body of a slot to dst (may be NULL) and check it on the way. -SOW_CAUSE_FLASH_DECAY: it is not what
 * was written; dst is void then. */
int sow_slot_xor(const struct sow_core *c, uint16_t id, uint8_t *dst);
uint32_t sow_block_size(const struct sow_core *c);
int sow_block_read(const struct sow_core *c, uint32_t off, void *buf, uint32_t n);

/* sow_fec.c: elimination over GF(2). */
int sow_fec_resume(struct sow_core *c);
int sow_fec_fragment(struct sow_core *c, uint16_t n, const uint8_t *data);
int sow_fec_solve(struct sow_core *c); /* SOW_MORE, SOW_DONE: every column is solved, or a negated cause */
/* SOW_MORE, SOW_DONE: every slot is sound, and there is no cause to stop for; or the negated cause. */
int sow_fec_check(struct sow_core *c);
/* What slot B holds is of no use any more: erase it and collect again from what the slots hold. */
int sow_fec_thaw(struct sow_core *c);
int sow_fec_head_known(const struct sow_core *c, uint32_t bytes); /* while a fragment is missing */

/* sow_judge.c: one slice each. SOW_MORE, SOW_DONE, or the negated cause to refuse the update. */
int sow_mic(struct sow_core *c);
int sow_judge(struct sow_core *c); /* the manifest, and the base that it wants */
int sow_judge_digest(struct sow_core *c); /* of what the phase is about */
int sow_manifest_read(const struct sow_core *c, struct sow_manifest *m);

/* sow_write.c */
int sow_write(struct sow_core *c);
int sow_write_fits(const struct sow_core *c, const struct sow_manifest *m);

/* sow_core.c */
int sow_core_stop(struct sow_core *c, uint8_t step, int err); /* for that negated cause, which it returns */
int sow_core_enter(struct sow_core *c, uint8_t phase); /* from its start; SOW_MORE or -SOW_CAUSE_FLASH_IO */
int sow_core_save(struct sow_core *c); /* the journal's record */
int sow_core_progress(struct sow_core *c, uint32_t done); /* long work got further */
void sow_core_event(const struct sow_core *c, uint8_t step, uint8_t cause, uint16_t detail);

#endif
