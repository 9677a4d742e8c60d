// Private to sow_patch.c: the range coder, the segment map and the address map.
#ifndef SOW_PATCH_MAP_H
#define SOW_PATCH_MAP_H

#include "sow_patch_model.h"

static uint32_t map_in_memory(const struct sow_patch_params *prm)
{
    return (prm->options & OPTION_CAPACITY) * (MAP_STEP / 16);
}

static void fail(struct state *s, int code)
{
    if (s->p->err == SOW_PATCH_OK)
        s->p->err = code;
}

// ---- range coder

static uint32_t next_byte(struct state *s)
{
    uint32_t at = s->stream_at++;
    uint32_t size = s->p->stream_size;

    if (at >= size) {
        if (at >= size + 4)
            fail(s, SOW_PATCH_E_STREAM);
        return 0;
    }
    if (at % STREAM_BUF == 0) {
        uint32_t n = size - at < STREAM_BUF ? size - at : STREAM_BUF;

        if (s->p->io.read_stream(s->p->io.user, at, s->stream_buf, n) != 0)
            fail(s, SOW_PATCH_E_IO);
    }
    return s->stream_buf[at % STREAM_BUF];
}

// Decode a bit that is 1 with probability p/65536.
static uint32_t decode(struct state *s, uint32_t p)
{
    uint32_t r = s->hi - s->lo;
    uint32_t mid = s->lo + (r >> 16) * p + ((r & 0xffff) * p >> 16);
    uint32_t bit = s->code <= mid;

    if (bit)
        s->hi = mid;
    else
        s->lo = mid + 1;
    while (((s->lo ^ s->hi) >> 24) == 0) {
        s->code = s->code << 8 | next_byte(s);
        s->lo <<= 8;
        s->hi = s->hi << 8 | 0xff;
    }
    return bit;
}

// ---- segment map

// The counters of the control stream lie where the flags' will be.
static uint32_t control_bit(struct state *s, uint32_t i)
{
    uint32_t p = s->flag_p[i], bit;

    bit = decode(s, p < 32 ? 32 : p > 65503 ? 65503 : p);
    tally(&s->flag_p[i], &s->flag_n[i], bit, 30);
    return bit;
}

static uint32_t number(struct state *s, uint32_t kind)
{
    uint32_t k = 0, x = 1;

    while (k < NUM_MAX && control_bit(s, kind * NUM_MAX + k))
        k++;
    while (k-- > 0)
        x = x << 1 | decode(s, 32768);
    return x - 1;
}

// Where entry i of the map lies in memory, read from the scratch if need be.
static uint32_t *map_entry(struct state *s, uint32_t i)
{
    uint32_t at = i * MAP_ENTRY / MAP_BLOCK * MAP_BLOCK;

    if (s->map != NULL)
        return s->map + i * (MAP_ENTRY / 4);
    if (s->map_block != at) {
        s->map_block = at;
        if (s->p->io.scratch_read(s->p->io.user, at, s->map_buf, MAP_BLOCK) != 0)
            fail(s, SOW_PATCH_E_IO);
    }
    return s->map_buf + (i * MAP_ENTRY - at) / 4;
}

// An entry is from and the low 8 bits of length / 2; start / 2 and the rest.
static void unpack(const uint32_t *e, struct segment *g)
{
    g->from = e[0] & 0xffffff;
    g->length = (e[1] >> 22 << 8 | e[0] >> 24) << 1;
    g->start = e[1] << 10 >> 9;
}

static void get_segment(struct state *s, uint32_t i, struct segment *g)
{
    unpack(map_entry(s, i), g);
}

// Append entry i, the entries before it having been put.
static void put_segment(struct state *s, uint32_t i, const struct segment *g)
{
    uint32_t *e, at = i * MAP_ENTRY;

    if (at % MAP_BLOCK == 0)
        s->map_block = at;
    e = map_entry(s, i);
    e[0] = g->from | g->length << 23;
    e[1] = g->start >> 1 | g->length >> 9 << 22;
    if (s->map == NULL && (i + 1 == s->count || (at + MAP_ENTRY) % MAP_BLOCK == 0) &&
        s->p->io.scratch_prog(s->p->io.user, s->map_block, s->map_buf, MAP_BLOCK) != 0)
        fail(s, SOW_PATCH_E_IO);
}

static void decode_map(struct state *s)
{
    const struct sow_patch_params *prm = &s->p->prm;
    uint32_t size = (prm->new_size + 1) & ~1u, end = 0, shift = 0, i;
    struct segment g;

    for (i = 0; i <= ODD_SHIFT; i++)
        s->flag_p[i] = 32768;
    s->count = number(s, NUM_COUNT);
    if (s->count > (s->map != NULL ? map_in_memory(prm) : prm->scratch_size) / MAP_ENTRY)
        fail(s, SOW_PATCH_E_STREAM);
    for (i = 0; i < s->count && s->p->err == 0; i++) {
        uint32_t odd, z;

        g.start = end + 2 * number(s, NUM_GAP);
        odd = control_bit(s, ODD_SHIFT);
        z = number(s, NUM_SHIFT);
        g.from = g.start + shift + odd + (z & 1 ? z + 1 : 0u - z);
        if (i + 1 == s->count)
            g.length = size - g.start - 2 * number(s, NUM_LAST);
        else
            g.length = 2 * number(s, NUM_LENGTH);
        if (g.start >= size || g.length == 0 || g.length > size - g.start || g.length >= 1u << 19 ||
            g.from >= s->base_size + g.start ||
            (g.from < s->base_size ? g.length > s->base_size - g.from
                                     : g.from + 2 > s->base_size + g.start)) {
            fail(s, SOW_PATCH_E_STREAM);
            break;
        }
        put_segment(s, i, &g);
        end = g.start + g.length;
        shift = g.from - g.start;
    }
    if (s->count > 0 && s->p->err == 0) {
        get_segment(s, 0, &s->seg);
        s->found = s->seg;
    }
}

// ---- address map

static int contains(const struct segment *g, uint32_t t)
{
    return t - g->from < g->length;
}

// Map an offset in the old image to the new one by the segment being copied, the one found last,
// the first one that contains it, or else the nearest; inside tells whether one contains it.
static uint32_t map_offset(struct state *s, uint32_t t, uint8_t *inside)
{
    uint32_t shift = 0, i;
    int32_t best = 0x7fffffff;
    const uint32_t *e = NULL;
    int old = t < s->base_size;

    *inside = 1;
    if (old && s->have && contains(&s->seg, t))
        return t - s->seg.from + s->seg.start;
    if (old && contains(&s->found, t))
        return t - s->found.from + s->found.start;
    for (i = 0; i < s->count; i++, e += MAP_ENTRY / 4) {
        uint32_t from, length;
        int32_t d;

        if (i % (MAP_BLOCK / MAP_ENTRY) == 0)
            e = map_entry(s, i);
        from = e[0] & 0xffffff; // as in unpack(), which takes longer
        length = (e[1] >> 22 << 8 | e[0] >> 24) << 1;
        d = (int32_t)(t - from);
        if (old && (uint32_t)d < length) {
            unpack(e, &s->found);
            return (uint32_t)d + s->found.start;
        }
        d = d < 0 ? -d : d - (int32_t)length + 1;
        if (d < best && from < s->base_size) {
            best = d;
            shift = from - (e[1] << 10 >> 9);
        }
    }
    *inside = 0;
    return t - shift;
}

// Index of the learned address a, or s->learned.
static uint32_t find(const struct state *s, uint32_t a)
{
    uint32_t i = 0;

    while (i < s->learned && s->keys[i] != a)
        i++;
    return i;
}

static uint32_t map_address(struct state *s, uint32_t a)
{
    uint32_t base = s->base, i = find(s, a);

    s->pred.how = FROM_LEARNED;
    if (i < s->learned)
        return s->values[i];
    s->pred.how = FROM_GAP;
    if (a - base < s->base_size)
        a = base + map_offset(s, (a - base) & ~1u, &s->pred.how) + (a & 1);
    return a;
}

static void learn_address(struct state *s, uint32_t key, uint32_t value)
{
    uint32_t i = find(s, key);

    if (i == s->learned) {
        i = s->learn_next++;
        if (s->learn_next == LEARNED)
            s->learn_next = 0;
        if (s->learned < LEARNED)
            s->learned++;
        s->keys[i] = key;
    }
    s->values[i] = value;
}

#endif
