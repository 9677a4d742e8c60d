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

static uint32_t coefficients(const struct sow_core *c) /* bytes before the payload of a row */
{
    return sow_align((c->lost + 7u) / 8u, c->unit);
}

static uint8_t *reduced(const struct sow_core *c)
{
    return sow_payload(c) - coefficients(c);
}

static uint16_t row_id(uint32_t k)
{
    return (uint16_t)(SOW_SLOT_ROW | k);
}

static uint16_t count_missing(const struct sow_core *c)
{
    uint16_t n = 0;

    for (uint32_t i = 0; i < c->session.nb_frag; i++)
        n = (uint16_t)(n + sow_bit(sow_missing(c), i));
    return n;
}

int sow_fec_thaw(struct sow_core *c)
{
    c->at.freeze++;
    if ((c->at.flags & SOW_FLAG_DELETED) != 0 || c->at.freeze >= SOW_FREEZES)
        return sow_core_stop(c, SOW_STEP_RECEIVE, SOW_CAUSE_FLASH_DECAY);
    sow_core_event(c, SOW_STEP_RECEIVE, SOW_CAUSE_FLASH_DECAY, c->at.freeze);
    c->pos = 0;
    return sow_core_enter(c, SOW_CORE_THAW);
}

static void load_frozen(struct sow_core *c)
{
    for (; c->at.freeze < SOW_FREEZES; c->at.freeze++) {
        memset(sow_missing(c), 0, c->bitmap);
        if (sow_slot_xor(c, (uint16_t)(SOW_SLOT_FREEZE | c->at.freeze), sow_missing(c)) == SOW_OK) {
            c->at.flags |= SOW_FLAG_FROZEN;
            c->lost = count_missing(c);
            (void)sow_store_rows(c);
            return;
        }
    }
}

int sow_fec_resume(struct sow_core *c)
{
    uint16_t m = c->session.nb_frag;
    uint8_t first = c->at.freeze;
    uint16_t unsound = 0;

    sow_store_layout(c);
    c->at.flags &= (uint8_t)~(SOW_FLAG_FROZEN | SOW_FLAG_NO_ROWS);
    c->rank = 0;
    c->pos = 0;
    c->recheck = 0;
    memset(sow_pivots(c), 0, c->bitmap);
    load_frozen(c);
    if ((c->at.flags & SOW_FLAG_FROZEN) == 0) {
        c->at.freeze = first;
        memset(sow_missing(c), 0, c->bitmap);
    }
    sow_store_find_spares(c);
    for (uint32_t i = 0; i < m; i++) {
        if (sow_slot_xor(c, (uint16_t)i, 0) == SOW_OK)
            continue;
        unsound++;
        if ((c->at.flags & SOW_FLAG_FROZEN) == 0)
            sow_bit_set(sow_missing(c), i);
    }
    if ((c->at.flags & SOW_FLAG_FROZEN) == 0)
        c->lost = unsound;
    else
        for (uint32_t k = 0; k < c->lost; k++)
            if (sow_slot_xor(c, row_id(k), 0) == SOW_OK) {
                sow_bit_set(sow_pivots(c), k);
                c->rank++;
            }
    c->received = (uint16_t)(m - c->lost + c->rank);
    if (unsound == 0)
        return sow_core_enter(c, SOW_CORE_CHECK);
    if (c->rank < c->lost)
        return sow_core_enter(c, SOW_CORE_COLLECT);
    c->pos = c->lost;
    return sow_core_enter(c, SOW_CORE_SOLVE);
}

static int freeze(struct sow_core *c)
{
    if (!sow_store_rows(c)) {
        c->at.flags |= SOW_FLAG_NO_ROWS;
        return SOW_MORE;
    }
    for (; c->at.freeze < SOW_FREEZES; c->at.freeze++)
        if (sow_slot_put(c, (uint16_t)(SOW_SLOT_FREEZE | c->at.freeze), sow_missing(c)) == SOW_OK) {
            c->at.flags |= SOW_FLAG_FROZEN;
            c->at.flags &= (uint8_t)~SOW_FLAG_NO_ROWS;
            c->rank = 0;
            return SOW_OK;
        }
    return sow_core_stop(c, SOW_STEP_RECEIVE, SOW_CAUSE_FLASH_IO);
}

/* A slot that was held is rotten: drop the rows while they are few, else solve with the rows that avoid it and
 * let the check that follows the solving find it. */
static int rotten(struct sow_core *c)
{
    return 2u * c->rank <= c->lost ? sow_fec_thaw(c) : SOW_MORE;
}

/* Turn the parity row over all fragments into coefficients over the columns, adding the fragments held. */
static int compress_row(struct sow_core *c)
{
    uint8_t *row = sow_row(c);
    uint32_t k = 0;

    for (uint32_t i = 0; i < c->session.nb_frag; i++) {
        int bit = sow_bit(row, i);

        if (!sow_bit(sow_missing(c), i)) {
            if (bit && sow_slot_xor(c, (uint16_t)i, sow_payload(c)) < 0)
                return -SOW_CAUSE_FLASH_DECAY;
            continue;
        }
        if (bit)
            sow_bit_set(row, k);
        else
            sow_bit_clear(row, k);
        k++;
    }
    while ((k & 7u) != 0)
        sow_bit_clear(row, k++);
    k /= 8u;
    memset(row + k, 0, coefficients(c) - k);
    memmove(reduced(c), row, coefficients(c));
    return SOW_OK;
}

static int eliminate(struct sow_core *c)
{
    uint8_t *row = reduced(c);

    for (uint32_t k = 0; k < c->lost; k++) {
        if (!sow_bit(row, k))
            continue;
        if (sow_bit(sow_pivots(c), k)) {
            if (sow_slot_xor(c, row_id(k), row) == SOW_OK)
                continue;
            sow_bit_clear(sow_pivots(c), k); /* the next row that starts here takes a spare */
            c->rank--;
            return SOW_MORE;
        }
        if (sow_slot_put(c, row_id(k), row) < 0)
            return -SOW_CAUSE_FLASH_IO;
        sow_bit_set(sow_pivots(c), k);
        if (++c->rank < c->lost)
            return SOW_MORE;
        c->pos = c->lost;
        (void)sow_core_enter(c, SOW_CORE_SOLVE);
        return SOW_DONE;
    }
    return SOW_MORE;
}

int sow_fec_fragment(struct sow_core *c, uint16_t n, const uint8_t *data)
{
    uint16_t m = c->session.nb_frag;
    int err;

    if (n <= m && !sow_bit(sow_missing(c), n - 1u))
        return SOW_MORE; /* a repetition */
    if (n > m && (c->at.flags & SOW_FLAG_FROZEN) == 0 && (err = freeze(c)) != SOW_OK)
        return err;
    memset(sow_payload(c), 0, sow_align(c->session.frag_size, 16));
    memcpy(sow_payload(c), data, c->session.frag_size);
    if (n <= m && (c->at.flags & SOW_FLAG_FROZEN) == 0) {
        if ((err = sow_slot_put(c, (uint16_t)(n - 1u), sow_payload(c))) < 0)
            return err;
        sow_bit_clear(sow_missing(c), n - 1u);
        if (--c->lost != 0)
            return SOW_MORE;
        c->pos = 0;
        (void)sow_core_enter(c, SOW_CORE_CHECK);
        return SOW_DONE;
    }
    if (n <= m) {
        memset(sow_row(c), 0, c->bitmap);
        sow_bit_set(sow_row(c), n - 1u);
    } else {
        sow_parity_row(sow_row(c), c->session.matrix, m, n);
    }
    if (compress_row(c) < 0)
        return rotten(c);
    return eliminate(c);
}

static uint32_t column(const struct sow_core *c, uint32_t k) /* fragment of that column */
{
    uint32_t i = 0;

    for (;; i++)
        if (sow_bit(sow_missing(c), i) && k-- == 0)
            return i;
}

int sow_fec_solve(struct sow_core *c)
{
    uint32_t k = --c->pos, i = column(c, k);
    uint8_t *row = reduced(c);
    int err;

    if (k == 0)
        (void)sow_core_enter(c, SOW_CORE_CHECK); /* with pos 0; overruled below when something is wrong */
    if (sow_slot_xor(c, (uint16_t)i, 0) == SOW_OK)
        return SOW_MORE; /* solved before a reset */
    memset(row, 0, coefficients(c) + sow_align(c->session.frag_size, 16));
    if (sow_slot_xor(c, row_id(k), row) < 0) {
        sow_bit_clear(sow_pivots(c), k);
        c->rank--;
        return sow_core_enter(c, SOW_CORE_COLLECT);
    }
    for (uint32_t j = k + 1, q = i + 1; j < c->lost; j++, q++) {
        while (!sow_bit(sow_missing(c), q))
            q++;
        if (sow_bit(row, j) && sow_slot_xor(c, (uint16_t)q, sow_payload(c)) < 0) {
            c->pos = c->lost; /* solve that one again */
            return sow_core_enter(c, SOW_CORE_SOLVE);
        }
    }
    if (sow_slot_put(c, (uint16_t)i, sow_payload(c)) < 0)
        return sow_core_stop(c, SOW_STEP_VERIFY, SOW_CAUSE_FLASH_IO);
    err = sow_core_progress(c, 0);
    return err < 0 ? err : SOW_MORE;
}

int sow_fec_check(struct sow_core *c)
{
    uint16_t m = c->session.nb_frag;

    if (c->pos == 0) {
        memset(sow_missing(c), 0, c->bitmap);
        c->lost = 0;
        c->at.flags &= (uint8_t)~SOW_FLAG_FROZEN;
    }
    for (uint32_t n = 0; n < 16 && c->pos < m; n++, c->pos++)
        if (sow_slot_xor(c, (uint16_t)c->pos, 0) < 0) {
            sow_bit_set(sow_missing(c), c->pos);
            c->lost++;
        }
    if (c->pos < m)
        return SOW_MORE;
    c->pos = 0;
    return c->lost == 0 ? SOW_DONE : sow_fec_thaw(c);
}

int sow_fec_head_known(const struct sow_core *c, uint32_t bytes)
{
    uint32_t n = (bytes + c->session.frag_size - 1u) / c->session.frag_size;

    for (uint32_t i = 0; i < n; i++)
        if (i >= c->session.nb_frag || sow_bit(sow_missing(c), i))
            return 0;
    return 1;
}
