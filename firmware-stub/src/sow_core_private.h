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
    /* Written to the journal. */
    SOW_CORE_NONE = 0,
    SOW_CORE_ERASE = 1,   /* session known, its flash not yet erased */
    SOW_CORE_COLLECT = 2, /* fragments are taken; everything else follows from the slots */
    SOW_CORE_THAW = 3,    /* rows are being erased, then COLLECT without frozen columns */
    SOW_CORE_WRITE = 4,   /* block verified; the new image is being written */
    SOW_CORE_READY = 5,
    SOW_CORE_INSTALL = 6,
    SOW_CORE_STOP = 7,
    /* COLLECT in the journal: reached again from the slots after a reset. */
    SOW_CORE_SOLVE = 8,
    SOW_CORE_CHECK = 9,
    SOW_CORE_MIC = 10,
    SOW_CORE_JUDGE = 11,
    SOW_CORE_DIGEST = 12,
    SOW_CORE_ASK = 13,
    /* WRITE in the journal. */
    SOW_CORE_HASH = 14
};

enum sow_core_flag {
    SOW_FLAG_FROZEN = 1,    /* columns are fixed, rows are collected */
    SOW_FLAG_JUDGED = 2,    /* the manifest was found good while fragments still came in */
    SOW_FLAG_DELETED = 4,   /* the session is gone, its block is still in use */
    SOW_FLAG_MIC_BAD = 8,
    SOW_FLAG_COUNTED = 16,  /* SessionCnt is in the journal; RAM only */
    SOW_FLAG_NO_ROWS = 32,  /* a parity fragment found no room for rows; RAM only */
    SOW_FLAG_RUNNING = 64,  /* the decoder in the arena is set up; RAM only */
    SOW_FLAG_TRIED = 128    /* this start of long work is counted; RAM only */
};

#define SOW_FLAGS_KEPT (SOW_FLAG_JUDGED | SOW_FLAG_DELETED | SOW_FLAG_MIC_BAD)

/* Ids in the journal; 0..15 are the keys of sow_core_kv_get. */
enum sow_core_id { SOW_ID_SESSION = 16, SOW_ID_SESSION_2 = 17, SOW_ID_PHASE = 18, SOW_ID_PROGRESS = 19, SOW_ID_COUNT = 20 };

/* Resets in the middle of solving, verifying or patching that get the update nowhere: after so many it is given
 * up, or a patch that no watchdog survives would reset the device for ever. */
#define SOW_CORE_TRIES 8u

#define SOW_CORE_JOURNAL 512u /* bytes an area of the journal must have */
#define SOW_CORE_BOOT 256u    /* bytes an area of the boot region must have */

/* Slot ids. */
#define SOW_SLOT_ROW 0x4000u
#define SOW_SLOT_FREEZE 0x8000u
#define SOW_FREEZES 6u /* records of frozen columns per session, torn ones included */

/* The arena while fragments are collected: two bitmaps over the fragments, then a row of the matrix directly
 * before a payload, so that the coefficients of a reduced row and its payload lie together. */
static inline uint32_t sow_bitmap_size(uint32_t bits) { return sow_align((bits + 7u) / 8u, 16); }

static inline uint8_t *sow_missing(const struct sow_core *c) { return c->arena; }

static inline uint8_t *sow_pivots(const struct sow_core *c) { return c->arena + c->bitmap; }

static inline uint8_t *sow_row(const struct sow_core *c) { return c->arena + 2 * c->bitmap; }

static inline uint8_t *sow_payload(const struct sow_core *c) { return c->arena + 3 * c->bitmap; }

/* Digests in progress and a manifest being judged share the place of the row. */
#define SOW_SCRATCH SOW_MANIFEST_SIZE
static inline void *sow_scratch(const struct sow_core *c) { return sow_row(c); }

static inline uint32_t sow_block_size(const struct sow_session *s)
{
    return (uint32_t)s->nb_frag * s->frag_size - s->padding;
}

/* sow_store.c: fragments, rows and freeze records in write-once slots. */
void sow_store_layout(struct sow_core *c);
uint32_t sow_store_size(const struct sow_core *c); /* of the download area */
int sow_store_rows(struct sow_core *c); /* lay out rows for the columns lost; 0: they do not fit slot B */
void sow_store_find_spares(struct sow_core *c);
int sow_store_put_back(struct sow_core *c); /* finish the repair of a page that a reset has interrupted */
int sow_slot_put(struct sow_core *c, uint16_t id, const uint8_t *body);
/* Add the body of a slot to dst (may be NULL) and check it on the way. -SOW_CAUSE_FLASH_DECAY: it is not what
 * was written; dst is void then. */
int sow_slot_xor(const struct sow_core *c, uint16_t id, uint8_t *dst);
int sow_block_read(const struct sow_core *c, uint32_t off, void *buf, uint32_t n);

/* sow_fec.c: elimination over GF(2). */
int sow_fec_resume(struct sow_core *c);
int sow_fec_fragment(struct sow_core *c, uint16_t n, const uint8_t *data);
int sow_fec_solve(struct sow_core *c);
int sow_fec_check(struct sow_core *c); /* SOW_MORE, SOW_DONE: every slot is sound, or a negated cause */
/* What slot B holds is of no use any more: erase it and collect again from what the slots hold. */
int sow_fec_thaw(struct sow_core *c);
int sow_fec_head_known(const struct sow_core *c, uint32_t bytes);

/* sow_judge.c */
int sow_judge(struct sow_core *c); /* SOW_MORE, SOW_DONE: the manifest is good, or the cause to refuse it */
int sow_digest_payload(struct sow_core *c);
/* One slice of the digest of an image in a slot, of the payload if that is NULL; pos counts its bytes.
 * SOW_MORE, SOW_DONE: its first n bytes are those wanted, -SOW_CAUSE_DIGEST_BAD, or another negated cause. */
int sow_digest(struct sow_core *c, const struct sow_region *slot, uint32_t size, const uint8_t *want, uint32_t n);
int sow_mic(struct sow_core *c);
int sow_manifest_read(const struct sow_core *c, struct sow_manifest *m);

/* sow_write.c */
int sow_write(struct sow_core *c);
int sow_write_hash(struct sow_core *c);
int sow_write_begin(struct sow_core *c);
int sow_write_fits(const struct sow_core *c, const struct sow_manifest *m);

/* sow_core.c */
int sow_core_stop(struct sow_core *c, uint8_t step, uint8_t cause);
int sow_core_enter(struct sow_core *c, uint8_t phase); /* with a journal record where the phase has one */
int sow_core_save(struct sow_core *c); /* the record of the phase */
int sow_core_progress(struct sow_core *c, uint32_t pages); /* long work got further */
int sow_core_consent(struct sow_core *c, uint8_t phase, uint32_t seconds);
void sow_core_event(const struct sow_core *c, uint8_t step, uint8_t cause, uint16_t detail);

#endif
