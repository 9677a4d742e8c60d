// Private to sow_patch.c: what a halfword should be, and whether it is.
#ifndef SOW_PATCH_PREDICT_H
#define SOW_PATCH_PREDICT_H

#include "sow_patch_map.h"

// ---- images

static uint32_t pair(const uint8_t *b)
{
    return b[0] | (uint32_t)b[1] << 8;
}

// Read from the old image, or, beyond it, from what is decoded of the new one.
static void read_image(struct state *s, uint32_t off, uint8_t *buf, uint32_t n)
{
    const struct sow_patch_io *io = &s->p->io;
    uint32_t now = s->base_size + s->call_start, before = n;
    int r = 0;

    if (off < s->base_size) {
        r = io->read_base(io->user, off, buf, n);
    } else {
        if (off + n > now)
            before = off < now ? now - off : 0;
        if (before > 0)
            r = io->read_new(io->user, off - s->base_size, buf, before);
        if (before < n)
            memcpy(buf + before, s->call_out + (off + before - now), n - before);
    }
    if (r != 0)
        fail(s, SOW_PATCH_E_IO);
}

// The halfword at an offset of the old image followed by the new one.
static uint32_t source(struct state *s, uint32_t off)
{
    if (off - s->source_at >= s->source_n - 1) {
        uint32_t size = s->base_size, n;

        if (off >= size)
            size += s->p->pos;
        n = size - off;
        if (n > SOURCE_BUF)
            n = SOURCE_BUF;
        read_image(s, off, s->source_buf, n);
        s->source_at = off;
        s->source_n = n;
    }
    return pair(s->source_buf + (off - s->source_at));
}

// ---- prediction

enum { NO_BRANCH, BRANCH, BRANCH_COND };

// Whether a 32-bit instruction, first halfword low, is BL or B.W, or B<c>.W.
static uint32_t branch_kind(uint32_t w)
{
    if ((w & 0xf800) == 0xf000) {
        if ((w >> 28 & 9) == 9)
            return BRANCH;
        if ((w >> 28 & 13) == 8 && (w >> 6 & 15) < 14)
            return BRANCH_COND;
    }
    return NO_BRANCH;
}

static uint32_t sign_extend(uint32_t v, uint32_t bits)
{
    uint32_t top = 1u << (bits - 1);

    return (v ^ top) - top;
}

// Where the offset of a branch lies: sign bit, two bits, so many bits, eleven.
static uint32_t branch_bits(uint32_t w)
{
    return branch_kind(w) == BRANCH_COND ? 6 : 10;
}

static uint32_t branch_offset(uint32_t w)
{
    uint32_t bits = branch_bits(w), s = w >> 10 & 1, x = w >> 29 & 1, y = w >> 27 & 1, v;

    v = bits == 6 ? s << 2 | y << 1 | x : s << 2 | (x ^ s ^ 1) << 1 | (y ^ s ^ 1);
    v = (v << bits | (w & ((1u << bits) - 1))) << 11 | (w >> 16 & 0x7ff);
    return sign_extend(v << 1, bits + 15);
}

static uint32_t set_branch(uint32_t w, uint32_t v)
{
    uint32_t bits = branch_bits(w), top = v >> (bits + 12), s = top >> 2 & 1, x = top >> 1 & 1, y = top & 1;

    if (bits == 6) {
        x = y;
        y = top >> 1 & 1;
    } else {
        x ^= s ^ 1;
        y ^= s ^ 1;
    }
    bits = (1u << bits) - 1;
    return (w & (0xd000fbff & ~bits)) | s << 10 | x << 29 | y << 27 | (v >> 1 & 0x7ff) << 16 | (v >> 12 & bits);
}

static int pool_word(const struct state *s, uint32_t n)
{
    return s->pools[n >> 5 & 127] >> (n >> 2 & 7) & 1;
}

static void mark_pool(struct state *s, uint32_t n, uint32_t t)
{
    uint32_t d = (t >> 2) - (n >> 2);

    if (d - 1 < 1023)
        s->pools[t >> 5 & 127] |= (uint8_t)(1u << (t >> 2 & 7));
}

// Predict the word v where the source has w; the second half has class second.
static void expect_word(struct state *s, uint32_t n, uint32_t w, uint32_t v, uint8_t second)
{
    if (v != w)
        s->pred.how |= ADJUSTED;
    s->pending_at = n + 2;
    s->pending = s->pred;
    s->pending.value = (uint16_t)(v >> 16);
    s->pending.cls = second;
    s->pred.value = (uint16_t)v;
}

// Predict a 16-bit instruction whose operand, counted from the aligned PC, is old: in words with
// align 3, in halfwords with align 0, of so many bits, the one or two zero bits included. It
// reaches low bytes back.
static void refer(struct state *s, uint32_t n, uint32_t old, uint32_t align, uint32_t bits, uint32_t low)
{
    uint32_t d, m, raw = s->pred.value;

    d = map_offset(s, ((s->source + 4) & ~align) + old, &s->pred.how) - ((n + 4) & ~align);
    if (d + low < 1u << bits && (d & align) == 0) {
        m = (1u << (bits - 1 - align / 3)) - 1;
        raw = (raw & ~m) | (d >> (1 + align / 3) & m);
    }
    if (raw != s->pred.value)
        s->pred.how |= ADJUSTED;
    s->pred.value = (uint16_t)raw;
}

// Predict the halfword at new offset n from its source.
static void predict(struct state *s, uint32_t n)
{
    uint32_t base = s->base, o = s->source, raw = source(s, o), raw2 = 0, w, kind;
    int two;

    s->pred.value = (uint16_t)raw;
    s->pred.cls = PLAIN;
    if (!s->thumb || o >= s->base_size || (o & 1) != 0)
        return;
    if (s->pending_at == n) {
        s->pred = s->pending;
        return;
    }
    if (s->second && !s->pool)
        return;
    two = n + 4 <= s->seg.start + s->seg.length;
    if (two)
        raw2 = source(s, o + 2);
    w = raw | raw2 << 16;
    kind = branch_kind(w);

    if (two && ((n | o) & 3) == 0 && w - base < s->base_size) {
        s->pred.cls = s->pool ? PTR0 : DATA;
        expect_word(s, n, w, map_address(s, w), PTR1);
    } else if (s->pool) {
        s->pred.cls = n & 2 ? POOL1 : POOL0;
    } else if (two && kind != NO_BRANCH) {
        s->lesson_key = base + o + 4 + branch_offset(w);
        s->lesson = map_address(s, s->lesson_key);
        s->lesson_at = kind == BRANCH ? n + 2 : 1;
        s->pred.cls = BL1;
        expect_word(s, n, w, set_branch(w, s->lesson - base - (n + 4)), BL2);
    } else if (raw >> 11 == 0x09) { // LDR literal
        s->pred.cls = LDR;
        refer(s, n, (raw & 255) << 2, 3, 10, 0);
    } else if (raw >> 12 == 0x0d && (raw >> 8 & 15) < 14) { // B<c>
        s->pred.cls = BR;
        refer(s, n, sign_extend((raw & 255) << 1, 9), 0, 9, 256);
    } else if (raw >> 11 == 0x1c) { // B
        s->pred.cls = BR;
        refer(s, n, sign_extend((raw & 0x7ff) << 1, 12), 0, 12, 2048);
    }
}

// Decode whether the halfword is as predicted.
static uint32_t decode_hit(struct state *s)
{
    uint32_t ctx = s->pred.how, run = 0, bit, i;
    uint32_t at[FLAG_INPUTS - 1];

    while (run < 15 && s->hits >> run != 0)
        run++;
    at[0] = BY_RUN + run * 16 + s->pred.cls;
    at[1] = BY_RECENT + (s->recent & 63);
    at[2] = BY_OPCODE + (uint32_t)(s->pred.value >> 10);
    at[3] = BY_CLASS + s->pred.cls * 8u + ctx;
    for (i = 0; i < FLAG_INPUTS - 1; i++)
        s->in[i] = stretch(s->flag_p[at[i]]);
    s->in[i++] = 256;
    while (i < INPUTS)
        s->in[i++] = 0;
    bit = decode(s, mix(s, ctx, 1));
    learn_weights(s, bit);
    for (i = 0; i < FLAG_INPUTS - 1; i++)
        tally(&s->flag_p[at[i]], &s->flag_n[at[i]], bit, 255);
    s->recent = s->recent << 1 | (1 - bit);
    s->hits = bit ? s->hits + 1 : 0;
    return bit;
}

#endif
