// Private to sow_patch.c: halfwords that were not, or not correctly, predicted.
#ifndef SOW_PATCH_LITERAL_H
#define SOW_PATCH_LITERAL_H

#include "sow_patch_predict.h"

// The byte that is coded first in the high byte.
static uint32_t swap(const struct state *s, uint32_t v)
{
    return s->thumb ? v : (v >> 8 | (v & 0xff) << 8);
}

static void add(struct state *s, uint32_t candidate)
{
    s->list[s->list_n++] = candidate;
}

// Make a candidate of the halfword at b, at offset j of its image.
static void note(struct state *s, const uint8_t *b, int32_t j, int first)
{
    int32_t m = 0;

    while (first && m < MATCH_MAX && j >= 2 * m + 2 && pair(b - 2 * m - 2) == s->last[m])
        m++;
    add(s, CANDIDATE(swap(s, pair(b)), first ? IN_BYTE : IN_FOLLOWER) | (uint32_t)m << MATCH_SHIFT);
}

// Make candidates of halfwords near new offset n and the source: with first, of those that follow
// a byte equal to key, otherwise of those whose first byte is key.
static void scan(struct state *s, uint32_t n, int first, uint32_t key)
{
    uint32_t w = s->p->prm.options & OPTION_WINDOW, full;
    int32_t window = w ? (int32_t)(128u << w) : 0, step = 2 - !s->thumb, block, turn;

    if (first)
        s->list_n = 0;
    full = s->list_n + (first ? CANDIDATES : FOLLOWERS);
    for (block = 0; block < window; block += SCAN_BLOCK) {
        // Back from n in the new image, then on from the source and back from it in the old one.
        for (turn = 0; turn < 3; turn++) {
            int32_t start = 0, size = (int32_t)s->base_size, low = (int32_t)(s->source & (0u - (uint32_t)step)), high;
            int32_t by = step, from, left;
            uint8_t *b = (uint8_t *)s->scan_buf;

            if (turn == 0) {
                start = size;
                low = size = (int32_t)n;
            }
            low += block;
            if (turn != 1) {
                low -= 2 * block + SCAN_BLOCK;
                by = -step;
            }
            high = low + SCAN_BLOCK - step;
            if (low < 2)
                low = 2;
            if (high > ((size - 2) & -step))
                high = (size - 2) & -step;
            left = high - low;
            if (left < 0)
                continue;
            from = low < SCAN_MARGIN ? 0 : low - SCAN_MARGIN;
            b += from & 3; // as in memory, so that it can be copied by words
            read_image(s, (uint32_t)(start + from), b, (uint32_t)(high + 2 - from));
            b += (by < 0 ? high : low) - from + (first ? -1 : (int32_t)s->thumb);
            for (; left >= 0; left -= step, b += by) {
                // Most of the decoder's time goes here: four at once.
                while (left >= 4 * step && b[0] != key && b[by] != key && b[2 * by] != key && b[3 * by] != key) {
                    b += 4 * by;
                    left -= 4 * step;
                }
                if (*b == key) {
                    note(s, b - (first ? -1 : (int32_t)s->thumb), by < 0 ? low + left : high - left, first);
                    if (s->list_n == full)
                        return;
                }
            }
        }
    }
}

// Look through the journal, latest first: mispredictions of the class whose prediction has the
// same first byte become candidates; the deviations of the latest one and of the nearest other
// prediction become guesses.
static void remember(struct state *s, uint32_t pred)
{
    uint32_t best = 65536, full = s->list_n + LIKE_LIMIT, k = s->journal_next, i;

    s->guess[0] = s->guess[1] = 0;
    if (!s->have)
        return;
    s->guess[0] = s->guess[1] = 1u << 16 | ((pred + s->delta[s->pred.cls]) & 0xffff);
    for (i = s->journal_n; i > 0; i--) {
        const struct misprediction *e;
        uint32_t p, v, d, a;

        if (k == 0)
            k = s->journal_n;
        e = &s->journal[--k];
        p = e->pred;
        v = e->value;
        if (e->cls != s->pred.cls)
            continue;
        d = p > pred ? p - pred : pred - p;
        a = 1u << 16 | ((pred + v - p) & 0xffff);
        if (d < best && a != s->guess[0]) {
            best = d;
            s->guess[1] = a;
        }
        if ((p ^ pred) >> 8 == 0 && s->list_n < full)
            add(s, CANDIDATE(v, IN_JOURNAL));
    }
}

// Decode a byte: pos is 1 for the one coded first.
static void decode_byte(struct state *s, uint32_t pos, uint32_t second)
{
    uint32_t ctx = ((DATA_CLASSES >> s->pred.cls & 1) * 2 + second) * 2 + pos, node = 1, i, k;
    uint8_t *order0 = s->order0 + (ctx << 8 & (s->journal_size * ORDER0_RATIO - 1));
    uint16_t *used[IN_ORDER0];

    for (i = 8 * pos + 8; i-- > 8 * pos;) {
        uint32_t votes[2] = {0, 0}, n = 0, flip = 0, bit, p;

        // Candidates that disagree with the bits so far leave; the nearer of the others count more.
        for (k = 0; k < s->list_n; k++) {
            uint32_t c = s->list[k];

            if (c << 15 >> (i + 16) == s->node) {
                votes[c >> i & 1] += ((1u << (c >> 20 & 31)) + (c >> MATCH_SHIFT << 8))
                                     << (n < 2 ? 2 : n < 8);
                s->list[n++] = c;
            }
        }
        s->list_n = (uint16_t)n;
        for (k = 0; k < IN_ORDER0; k++) {
            uint16_t *cell = NULL;
            int32_t x = 0;

            if (k < VOTES) {
                uint32_t v = level(votes[0] & 255) * 8 + level(votes[1] & 255);

                votes[0] >>= 8;
                votes[1] >>= 8;
                if (v != 0)
                    cell = &s->cells[k * 64 + v];
            } else if (s->guess[k - IN_GUESS] >> (i + 1) == s->node) {
                cell = &s->guess_right[pos * 2 + k - IN_GUESS];
                flip |= (~s->guess[k - IN_GUESS] >> i & 1) << k;
            }
            used[k] = cell;
            if (cell != NULL)
                x = stretch(*cell);
            s->in[k] = flip >> k & 1 ? -x : x;
        }
        p = order0[node];
        s->in[IN_ORDER0] = stretch(p << 8 | 128);
        s->in[IN_BIAS] = 64;
        k = FLAG_SETS + ctx * 4 + s->have * 2u + (used[IN_HALF] != NULL);
        bit = decode(s, mix(s, k, 16));
        learn_weights(s, bit);
        for (k = 0; k < IN_ORDER0; k++)
            if (used[k] != NULL)
                adapt(used[k], bit ^ (flip >> k & 1));
        order0[node] = (uint8_t)(bit ? p + ((255 - p) >> 3) : p - (p >> 3));
        node = node << 1 | bit;
        s->node = s->node << 1 | bit;
    }
}

static uint32_t decode_literal(struct state *s, uint32_t n)
{
    uint32_t pred = swap(s, s->pred.value), second = s->second && !s->pool, v, k;

    s->node = 1;
    scan(s, n, 1, s->last[0] >> 8);
    remember(s, pred);
    decode_byte(s, 1, second);
    scan(s, n, 0, s->node & 0xff);
    decode_byte(s, 0, second);
    v = s->node & 0xffff;

    if (s->have) {
        s->delta[s->pred.cls] = (uint16_t)(v - pred);
        if (s->journal_n < s->journal_size)
            s->journal_n++;
        k = s->journal_next;
        if (k == s->journal_size)
            k = 0;
        s->journal_next = (uint16_t)(k + 1);
        s->journal[k].pred = (uint16_t)pred;
        s->journal[k].value = (uint16_t)v;
        s->journal[k].cls = s->pred.cls;
    }
    return swap(s, v);
}

#endif
