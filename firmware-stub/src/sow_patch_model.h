// Private to sow_patch.c: the decoder's state and the arithmetic of its model.
#ifndef SOW_PATCH_MODEL_H
#define SOW_PATCH_MODEL_H

#include "sow_patch.h"

#include <string.h>

// Read docs/spec/patch.md first: names and order of things follow it.

#define PROFILE_STORED 0u
#define OPTION_WINDOW 0x07u
#define OPTION_THUMB 0x08u
#define OPTION_CAPACITY 0x70u

#define STREAM_BUF 64u
#define BASE_BUF 64u
#define SCAN_BLOCK 128u
#define MATCH_MAX 8u
#define SCAN_MARGIN (2u * MATCH_MAX) // bytes before a candidate that may be compared
#define LIKE_LIMIT 32u
#define NO_GUESS 0xffffu
#define LIST_SIZE(t) ((t)->candidates + FOLLOWERS + 2u * LIKE_LIMIT)
#define INPUTS 9u
#define FLAG_INPUTS 5u // the others are 0
#define FLAG_SETS 8u
#define LIT_SETS 32u
#define FOLLOWERS 32u
#define EXPECT (MATCH_MAX + 1)

// Counters of the flags.
#define BY_CLASS 0u
#define BY_RUN 128u
#define BY_RECENT 256u
#define BY_OPCODE 320u
#define FLAG_TOTAL 384u

#define MAP_BLOCK 64u // bytes of the segment map read or programmed at once
#define MAP_ENTRY 8u

enum { GAP, PLAIN, SECOND, BL1, BL2, LDR, BR, PTR0, PTR1, POOL0, POOL1, FIRST, ODD, DATA, CLASSES };
#define IN_SET(cls, set) ((set) >> (cls) & 1u)
#define SECOND_HALVES (1u << SECOND | 1u << BL2 | 1u << PTR1 | 1u << POOL1)
#define WORD_STARTS (1u << PTR0 | 1u << POOL0 | 1u << DATA)
#define DATA_CLASSES (WORD_STARTS | 1u << PTR1 | 1u << POOL1)
enum { FROM_GAP, FROM_SEGMENT, FROM_LEARNED };
enum { IN_BYTE, IN_HALF, IN_FOLLOWER, IN_JOURNAL, IN_ORDER0, HISTORIES, IN_MATCH = HISTORIES, IN_DELTA, IN_NEAR, IN_BIAS };
enum { NUM_COUNT, NUM_GAP, NUM_SHIFT_GAP, NUM_SHIFT, NUM_LENGTH, NUM_LAST, NUM_KINDS };
#define NUM_CONTEXTS 50u
#define NUM_TOTAL (NUM_KINDS * NUM_CONTEXTS)
#define ODD_SHIFT NUM_TOTAL // counter after those of the numbers

struct tables {
    uint16_t candidates, order0, journal; // multiples of 4
    uint16_t learned;
};

static const struct tables profiles[] = {
    {64, 512, 64, 16},
    {128, 1024, 256, 64},
    {128, 2048, 512, 128},
};

static const uint16_t capacity[8] = {0, 64, 128, 256, 384, 512, 768, 1024};

// -256 ln((i+4)/64)
static const uint16_t ln_table[61] = {
    710, 653, 606, 567, 532, 502, 475, 451, 429, 408, 389, 371, 355, 339, 325, 311,
    298, 285, 273, 262, 251, 241, 231, 221, 212, 203, 194, 186, 177, 170, 162, 155,
    147, 140, 133, 127, 120, 114, 108, 102, 96, 90, 85, 79, 74, 68, 63, 58,
    53, 48, 43, 39, 34, 30, 25, 21, 17, 12, 8, 4, 0};

// 65536/(1+exp(-i/4))
static const uint16_t squash_table[49] = {
    32768, 36843, 40793, 44511, 47911, 50941, 53581, 55834, 57724, 59287, 60565, 61598, 62428, 63090,
    63615, 64030, 64357, 64614, 64816, 64974, 65097, 65194, 65269, 65328, 65374, 65410, 65438, 65459,
    65476, 65489, 65500, 65508, 65514, 65519, 65523, 65526, 65528, 65530, 65531, 65532, 65533, 65534,
    65534, 65535, 65535, 65535, 65535, 65535, 65535};

static const uint8_t level[16] = {0, 1, 2, 3, 4, 4, 5, 5, 5, 6, 6, 6, 6, 7, 7, 7};
static const uint8_t level_count[8] = {0, 10, 20, 30, 45, 70, 110, 150};

static const int16_t initial_weights[INPUTS] = {4800, 4800, 4000, 4000, 4000, 5734, 2458, 2458, 2458};

struct segment {
    uint32_t start, length, from;
};

// A halfword that votes on the one being decoded.
struct candidate {
    uint8_t byte[2]; // the one coded second, the one coded first
    uint8_t kinds;   // bits by input: the votes it has
    uint8_t match;   // halfwords that match before it
};

struct misprediction {
    uint16_t pred, value; // first byte coded in the high byte
    uint8_t cls, zero;
};

// Small members first: the Thumb instruction set reaches them with short offsets.
struct state {
    uint8_t thumb;
    uint8_t tail;   // the byte produced but not asked for yet
    uint8_t second; // the halfword to come is the second of an instruction
    uint8_t pool;   // it is literal pool
    uint8_t have;   // it is covered by a segment
    uint8_t cls, changed, how; // its prediction
    uint8_t pending_class, pending_changed, pending_how;
    uint8_t lesson_kind; // branch or pointer
    uint16_t pred;
    uint16_t pending;
    uint16_t learned, learn_next;
    uint16_t list_n, journal_n, journal_next;
    uint16_t guess[2]; // what the halfword may be, by earlier mispredictions

    struct sow_patch *p;
    const struct tables *t;
    uint32_t lo, hi, code;   // range coder
    uint32_t stream_at;      // bytes read, those beyond the end included
    uint32_t base, base_size;
    struct segment seg;      // the segment at or after the halfword
    uint32_t source;         // offset the halfword is copied from, or would be
    uint32_t count, next;    // segments, index of seg
    uint32_t pending_at;     // halfword it applies to; 1 is none
    uint32_t lesson_key;     // address whose fate is known then
    uint32_t recent, hits;   // flags
    uint32_t call_start;     // where this call began in the new image, and its buffer
    const uint8_t *call_out;
    uint32_t base_pos, base_n; // what is in base_buf
    uint32_t map_block;      // what is in map_buf
    uint8_t *map;            // in memory, or NULL

    // Arrays whose size depends on the profile.
    uint32_t *keys, *values; // addresses learned, a ring
    struct misprediction *journal; // a ring
    struct candidate *list;  // nearest first
    uint8_t *order0;

    uint16_t last[MATCH_MAX];
    uint8_t pools[128];
    int32_t in[INPUTS]; // of the mixer, its weight vector and answer
    int16_t *set;
    uint32_t mixed;
    int16_t weights[(FLAG_SETS + LIT_SETS) * INPUTS];
    uint16_t flag_p[FLAG_TOTAL];
    uint8_t flag_n[FLAG_TOTAL];
    uint16_t cells[HISTORIES * 64];
    uint16_t expect[6 * EXPECT]; // by byte, kind, match length or successes
    uint16_t delta[CLASSES];
    uint8_t success[2][CLASSES];
    uint8_t base_buf[BASE_BUF];
    uint8_t map_buf[MAP_BLOCK];
    uint8_t stream_buf[STREAM_BUF];
    uint32_t scan_buf[(SCAN_MARGIN + SCAN_BLOCK + 8) / 4];
};

// ---- arithmetic of the model

static int32_t log_of(uint32_t q)
{
    int32_t v = 0;
    uint32_t i;

    while (q < 4096) {
        q <<= 4;
        v -= 710;
    }
    i = (q >> 10) - 4;
    return v - ln_table[i] + (int32_t)((ln_table[i] - (uint32_t)ln_table[i + 1]) * (q & 1023) >> 10);
}

static int32_t stretch(uint32_t p)
{
    return log_of(p) - log_of(65536 - p);
}

static uint32_t squash(int32_t x)
{
    uint32_t a = (uint32_t)(x < 0 ? -x : x), v;

    if (a > 3071)
        a = 3071;
    v = squash_table[a >> 6];
    v += (squash_table[(a >> 6) + 1] - v) * (a & 63) >> 6;
    return x < 0 ? 65536 - v : v;
}

// Count a bit in a probability that was used *used times.
static void count(uint16_t *prob, uint8_t *used, uint32_t bit, uint32_t limit)
{
    uint32_t p = *prob, r = 655360 / (10u * *used + 16);

    if (bit)
        p += ((65535 - p) * r + 65535) >> 16;
    else
        p -= p * r >> 16;
    *prob = (uint16_t)p;
    if (*used < limit)
        ++*used;
}

static void adapt(uint16_t *cell, uint32_t bit)
{
    uint32_t p = *cell;

    *cell = (uint16_t)(bit ? p + ((65535 - p) >> 6) : p - (p >> 6));
}

// A pair of counts, of zeros in the high nibble and of ones, after one more bit.
static uint32_t history(uint32_t h, uint32_t bit)
{
    uint32_t seen = h, other = h >> 4;

    if (!bit) {
        seen = other;
        other = h;
    }
    seen &= 15;
    other &= 15;
    if (seen < 15)
        seen++;
    if (other > 2)
        other = other / 2 + 1;
    return bit ? other << 4 | seen : seen << 4 | other;
}

static uint32_t mix(struct state *s, uint32_t set)
{
    int32_t dot = 0;
    uint32_t i;

    s->set = s->weights + set * INPUTS;
    for (i = 0; i < INPUTS; i++)
        dot += s->set[i] * s->in[i];
    s->mixed = squash(dot >> 14);
    return s->mixed;
}

static void learn_weights(struct state *s, uint32_t bit)
{
    int32_t e = ((bit ? 65535 : 0) - (int32_t)s->mixed) * 14 >> 4;
    uint32_t i;

    for (i = 0; i < INPUTS; i++) {
        int32_t w = s->set[i] + ((s->in[i] * e + (1 << 15)) >> 16);

        s->set[i] = (int16_t)(w > 32767 ? 32767 : w < -32767 ? -32767 : w);
    }
}

#endif
