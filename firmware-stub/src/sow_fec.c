/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "sow_core_private.h"

/* Elimination over the missing fragments ("columns"), in the order of their numbers.
 *
 * Until the first parity fragment arrives uncoded fragments simply go to their slots. Then the set of missing
 * ones is frozen in a record, and what arrives becomes a row over those columns: the fragments already held
 * are added away, then the rows already held, and the row is stored under the first column left. With a row
 * for every column the block is solved from the last column to the first, each into its own slot.
 *
 * Every slot is checked in the pass that adds it. A rotten one spoils the fragment being reduced, never a row. */

static void clear_payload_and_row(const struct sow_core *c)
{
    memset(sow_payload(c), 0, sow_align(c->at.session.frag_size, 16) + c->bitmap);
}

static int frozen(const struct sow_core *c)
{
    return (c->at.flags & SOW_FLAG_FROZEN) != 0;
}

int sow_fec_thaw(struct sow_core *c)
{
    c->at.freeze++;
    if ((c->at.flags & SOW_FLAG_DELETED) != 0 || c->at.freeze >= SOW_FREEZES)
        return sow_core_stop(c, SOW_STEP_RECEIVE, -SOW_CAUSE_FLASH_DECAY);
    sow_core_event(c, SOW_STEP_RECEIVE, SOW_CAUSE_FLASH_DECAY, c->at.freeze);
    return sow_core_enter(c, SOW_CORE_THAW);
}

static int solve_next(struct sow_core *c)
{
    int err = sow_core_enter(c, SOW_CORE_SOLVE);

    c->pos = c->count[SOW_ROWS];
    return err;
}

/* The missing fragments of the freeze record in force, or none. */
static void load_frozen(struct sow_core *c)
{
    c->at.flags &= (uint8_t)~(SOW_FLAG_FROZEN | SOW_FLAG_NO_ROWS);
    for (uint8_t n = c->at.freeze; n < SOW_FREEZES; n++) {
        memset(sow_missing(c), 0, 2 * c->bitmap); /* the pivots, too */
        if (sow_slot_xor(c, SOW_SLOT(SOW_FREEZE, n), sow_missing(c)) == SOW_OK) {
            c->at.flags |= SOW_FLAG_FROZEN;
            c->at.freeze = n;
            return;
        }
    }
    memset(sow_missing(c), 0, c->bitmap);
}

int sow_fec_resume(struct sow_core *c)
{
    uint32_t m = c->count[SOW_DATA], unsound = 0;

    load_frozen(c);
    c->count[SOW_ROWS] = 0;
    c->rank = 0;
    c->at.recheck = 0;
    sow_store_find_spares(c, SOW_DATA);
    for (uint32_t i = 0; i < m; i++) {
        if (sow_slot_xor(c, SOW_SLOT(SOW_DATA, i), 0) < 0) {
            unsound++;
            if (!frozen(c))
                sow_bit_flip(sow_missing(c), i);
        }
        if (sow_bit(sow_missing(c), i))
            c->count[SOW_ROWS]++;
    }
    if (frozen(c)) {
        (void)sow_store_fit_rows(c);
        sow_store_find_spares(c, SOW_ROWS);
        for (uint32_t k = 0; k < c->count[SOW_ROWS]; k++)
            if (sow_slot_xor(c, SOW_SLOT(SOW_ROWS, k), 0) == SOW_OK) {
                sow_bit_flip(sow_pivots(c), k);
                c->rank++;
            }
    }
    c->received = (uint16_t)(m - c->count[SOW_ROWS] + c->rank);
    if (unsound == 0)
        return sow_core_enter(c, SOW_CORE_CHECK);
    return c->rank < c->count[SOW_ROWS] ? sow_core_enter(c, SOW_CORE_COLLECT) : solve_next(c);
}

static int freeze(struct sow_core *c)
{
    if (!sow_store_fit_rows(c)) {
        c->at.flags |= SOW_FLAG_NO_ROWS;
        return SOW_MORE;
    }
    for (; c->at.freeze < SOW_FREEZES; c->at.freeze++)
        if (sow_slot_put(c, SOW_SLOT(SOW_FREEZE, c->at.freeze), sow_missing(c)) == SOW_OK) {
            c->at.flags = (uint8_t)((c->at.flags | SOW_FLAG_FROZEN) & ~SOW_FLAG_NO_ROWS);
            return SOW_OK;
        }
    return sow_core_stop(c, SOW_STEP_RECEIVE, -SOW_CAUSE_FLASH_IO);
}

/* Turn a row over all fragments into coefficients over the columns, adding the fragments held to the payload. */
static int compress(struct sow_core *c, uint8_t *row)
{
    uint32_t k = 0;

    for (uint32_t i = 0; i < c->count[SOW_DATA]; i++) {
        int bit = sow_bit(row, i), missing = sow_bit(sow_missing(c), i);

        if (bit) {
            sow_bit_flip(row, i);
            if (missing)
                sow_bit_flip(row, k);
            else if (sow_slot_xor(c, SOW_SLOT(SOW_DATA, i), sow_payload(c)) < 0)
                return -SOW_CAUSE_FLASH_DECAY;
        }
        k += (uint32_t)missing;
    }
    return SOW_OK;
}

static int eliminate(struct sow_core *c, const uint8_t *row)
{
    uint8_t *pivots = sow_pivots(c);

    for (uint32_t k = 0; k < c->count[SOW_ROWS]; k++) {
        uint16_t id = SOW_SLOT(SOW_ROWS, k);

        if (!sow_bit(row, k))
            continue;
        if (sow_bit(pivots, k)) {
            if (sow_slot_xor(c, id, sow_payload(c)) == SOW_OK)
                continue;
            c->rank--; /* the next row that starts here takes a spare */
        } else {
            int err = sow_slot_put(c, id, sow_payload(c));

            if (err < 0)
                return err;
            c->rank++;
        }
        sow_bit_flip(pivots, k);
        break;
    }
    if (c->rank < c->count[SOW_ROWS])
        return SOW_MORE;
    (void)solve_next(c);
    return SOW_DONE;
}

int sow_fec_fragment(struct sow_core *c, uint16_t n, const uint8_t *data)
{
    const struct sow_session *s = &c->at.session;
    uint32_t i = n - 1u, m = s->nb_frag;
    uint8_t *row = sow_row(c);
    int err;

    if (i < m && !sow_bit(sow_missing(c), i))
        return SOW_MORE; /* a repetition */
    if (i >= m && !frozen(c) && (err = freeze(c)) != SOW_OK)
        return err;
    clear_payload_and_row(c);
    memcpy(sow_payload(c), data, s->frag_size);
    if (!frozen(c)) {
        if ((err = sow_slot_put(c, SOW_SLOT(SOW_DATA, i), sow_payload(c))) < 0)
            return err;
        sow_bit_flip(sow_missing(c), i);
        if (--c->count[SOW_ROWS] != 0)
            return SOW_MORE;
        (void)sow_core_enter(c, SOW_CORE_CHECK);
        return SOW_DONE;
    }
    if (i < m)
        sow_bit_flip(row, i);
    else
        sow_parity_row(row, s->matrix, s->nb_frag, n);
    if (compress(c, row) == SOW_OK)
        return eliminate(c, row);
    /* A slot that was held is rotten: drop the rows while they are few, else solve with the rows that avoid it and
     * let the check that follows the solving find it. */
    return 2u * c->rank <= c->count[SOW_ROWS] ? sow_fec_thaw(c) : SOW_MORE;
}

/* One column, from the last to the first. */
int sow_fec_solve(struct sow_core *c)
{
    uint32_t k = --c->pos, left = k + 1u, i = 0;
    uint8_t *payload = sow_payload(c), *missing = sow_missing(c);

    for (;; i++) /* the fragment of that column */
        if (sow_bit(missing, i) && --left == 0)
            break;
    if (sow_slot_xor(c, SOW_SLOT(SOW_DATA, i), 0) < 0) { /* not solved before a reset */
        clear_payload_and_row(c);
        if (sow_slot_xor(c, SOW_SLOT(SOW_ROWS, k), payload) < 0) {
            sow_bit_flip(sow_pivots(c), k);
            c->rank--;
            return sow_core_enter(c, SOW_CORE_COLLECT);
        }
        for (uint32_t j = k, q = i + 1; q < c->count[SOW_DATA]; q++)
            if (sow_bit(missing, q) && sow_bit(sow_row(c), ++j) && sow_slot_xor(c, SOW_SLOT(SOW_DATA, q), payload) < 0)
                return solve_next(c); /* solve that one again */
        if (sow_slot_put(c, SOW_SLOT(SOW_DATA, i), payload) < 0)
            return sow_core_stop(c, SOW_STEP_VERIFY, -SOW_CAUSE_FLASH_IO);
        (void)sow_core_progress(c, 0);
    }
    return k == 0 ? SOW_DONE : SOW_MORE;
}

int sow_fec_check(struct sow_core *c)
{
    uint32_t m = c->count[SOW_DATA];

    if (c->pos == 0) {
        memset(sow_missing(c), 0, c->bitmap);
        c->count[SOW_ROWS] = 0;
        c->at.flags &= (uint8_t)~SOW_FLAG_FROZEN;
    }
    for (uint32_t n = 0; n < 16; n++) {
        if (c->pos == m) {
            if (c->count[SOW_ROWS] != 0)
                return sow_fec_thaw(c);
            return c->at.recheck != 0 ? sow_core_stop(c, c->at.step, -(int)c->at.recheck) : SOW_DONE;
        }
        if (sow_slot_xor(c, SOW_SLOT(SOW_DATA, c->pos), 0) < 0) {
            sow_bit_flip(sow_missing(c), c->pos);
            c->count[SOW_ROWS]++;
        }
        c->pos++;
    }
    return SOW_MORE;
}

int sow_fec_head_known(const struct sow_core *c, uint32_t bytes)
{
    for (uint32_t i = 0, at = 0; at < bytes; i++, at += c->at.session.frag_size)
        if (sow_bit(sow_missing(c), i))
            return 0;
    return 1;
}
