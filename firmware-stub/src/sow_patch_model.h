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
#define SOURCE_BUF 64u
#define SCAN_BLOCK 128
#define MATCH_MAX 3
#define SCAN_MARGIN (2 * MATCH_MAX) // bytes before a candidate that may be compared
#define CANDIDATES 64u
#define LIKE_LIMIT 32u
#define FOLLOWERS 32u
#define LEARNED 32u
#define LIST_SIZE (CANDIDATES + LIKE_LIMIT + FOLLOWERS)
#define INPUTS 8u
#define FLAG_INPUTS 5u // the others are 0
#define FLAG_SETS 8u
#define LIT_SETS 32u

// Counters of the flags.
#define BY_RUN 0u
#define BY_RECENT 256u
#define BY_OPCODE 320u
#define BY_CLASS 384u
#define FLAG_TOTAL (BY_CLASS + CLASSES * 8u)

#define MAP_BLOCK 64u // bytes of the segment map read or programmed at once
#define MAP_ENTRY 8u
#define MAP_STEP 1024u // bytes of a map in memory, by OPTION_CAPACITY

enum { GAP, PLAIN, BL1, BL2, LDR, BR, PTR0, PTR1, POOL0, POOL1, DATA, CLASSES };
#define DATA_CLASSES (1u << PTR0 | 1u << PTR1 | 1u << POOL0 | 1u << POOL1 | 1u << DATA)
enum { FROM_GAP, FROM_SEGMENT, FROM_LEARNED, ADJUSTED = 4 };
enum { IN_BYTE, IN_HALF, IN_FOLLOWER, IN_JOURNAL, VOTES, IN_GUESS = VOTES, IN_ORDER0 = IN_GUESS + 2, IN_BIAS };
enum { NUM_COUNT, NUM_GAP, NUM_SHIFT, NUM_LENGTH, NUM_LAST, NUM_KINDS };
#define NUM_MAX 23u                      // bits of a number plus one, less one
#define ODD_SHIFT (NUM_KINDS * NUM_MAX)  // counter after those of the numbers

// Entries of the journal by profile, and of order0 for each of them.
#define PROFILES 3u
#define JOURNAL(profile) (32u << (profile))
#define ORDER0_RATIO 8u

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

struct segment {
    uint32_t start, length, from;
};

// A halfword that votes on the one being decoded: the halfword, first byte coded in the high
// byte, below a one; 8 times the input from bit 20; the halfwords that match before it.
#define CANDIDATE(v, input) (1u << 16 | (uint32_t)(input) << 23 | (v))
#define MATCH_SHIFT 25u

// What a halfword should be.
struct prediction {
    uint16_t value;
    uint8_t cls, how; // how the address in it was found, and whether it was adjusted
};

struct misprediction {
    uint16_t pred, value; // first byte coded in the high byte
    uint8_t cls, zero;
};

// Small members first: the Thumb instruction set reaches them with short offsets.
struct state {
    struct prediction pred, pending; // of the halfword to come, of the one after it
    uint8_t thumb;
    uint8_t tail;   // the byte produced but not asked for yet
    uint8_t second; // the halfword to come is the second of an instruction
    uint8_t pool;   // it is literal pool
    uint8_t have;   // it is covered by a segment
    uint16_t learned, learn_next;
    uint16_t list_n, journal_n, journal_next;

    struct sow_patch *p;
    uint32_t journal_size;
    uint32_t lo, hi, code;   // range coder
    uint32_t stream_at;      // bytes read, those beyond the end included
    uint32_t base, base_size;
    struct segment seg;      // the segment at or after the halfword
    struct segment found;    // the one that contained the address mapped last
    uint32_t source;         // offset the halfword is copied from, or would be
    uint32_t count, next;    // segments, index of seg
    uint32_t pending_at, lesson_at; // halfwords they apply to; 1 is none
    uint32_t lesson_key, lesson; // address whose fate is known then, and its prediction
    uint32_t node;           // of the literal: a one and the bits decoded
    uint32_t guess[2];       // what it may be, by earlier mispredictions, below a one; or 0
    uint32_t recent, hits;   // flags, a miss is 1; predicted since the last miss
    uint32_t call_start;     // where this call began in the new image, and its buffer
    const uint8_t *call_out;
    uint32_t source_at, source_n; // what is in source_buf
    uint32_t map_block;      // what is in map_buf
    uint32_t *map;           // in memory, or NULL

    // Arrays whose size depends on the profile.
    struct misprediction *journal; // a ring
    uint8_t *order0;         // probabilities of a one, in 1/256

    uint16_t last[MATCH_MAX];
    uint8_t pools[128];
    uint32_t keys[LEARNED], values[LEARNED]; // addresses, a ring
    uint32_t list[LIST_SIZE]; // candidates, nearest first
    int32_t in[INPUTS]; // of the mixer, its weight vector and answer
    int16_t *set;
    uint32_t mixed;
    int16_t weights[(FLAG_SETS + LIT_SETS) * INPUTS];
    uint16_t flag_p[FLAG_TOTAL];
    uint8_t flag_n[FLAG_TOTAL];
    uint16_t cells[VOTES * 64];
    uint16_t guess_right[2 * 2]; // by byte, guess
    uint16_t delta[CLASSES];
    uint8_t source_buf[SOURCE_BUF];
    uint32_t map_buf[MAP_BLOCK / 4];
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
static void tally(uint16_t *prob, uint8_t *used, uint32_t bit, uint32_t limit)
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

// The level of a number of votes: 0, 1, 2, 3 to 4, 5 to 8, ..., 33 and more.
static uint32_t level(uint32_t votes)
{
    uint32_t l = 0;

    while (l < 7 && votes > (1u << l) / 2)
        l++;
    return l;
}

// The answer is p to 65536 - p.
static uint32_t mix(struct state *s, uint32_t set, uint32_t p)
{
    int32_t dot = 0;
    uint32_t i;

    s->set = s->weights + set * INPUTS;
    for (i = 0; i < INPUTS; i++)
        dot += s->set[i] * s->in[i];
    s->mixed = squash(dot >> 14);
    return s->mixed < p ? p : s->mixed > 65536 - p ? 65536 - p : s->mixed;
}

static void learn_weights(struct state *s, uint32_t bit)
{
    int32_t e = (bit ? 65535 : 0) - (int32_t)s->mixed;
    uint32_t i;

    for (i = 0; i < INPUTS; i++) {
        if (s->in[i] != 0) {
            int32_t w = s->set[i] + ((s->in[i] * e + (1 << 15)) >> 16);

            s->set[i] = (int16_t)(w > 32767 ? 32767 : w < -32767 ? -32767 : w);
        }
    }
}

#endif
