#include "sow_patch_model.h"

static const struct tables *tables_of(const struct sow_patch_params *prm)
{
    uint32_t k = prm->profile;

    if (k == PROFILE_STORED || k > sizeof profiles / sizeof profiles[0])
        return NULL;
    return &profiles[k - 1];
}

static uint32_t map_in_memory(const struct sow_patch_params *prm)
{
    return MAP_ENTRY * capacity[(prm->options & OPTION_CAPACITY) >> 4];
}

uint32_t sow_patch_work_size(const struct sow_patch_params *prm)
{
    const struct tables *t = tables_of(prm);

    if (prm->base_size > SOW_PATCH_MAX_IMAGE || prm->new_size > SOW_PATCH_MAX_IMAGE ||
        prm->link_base % 256 != 0 || prm->scratch_size % 64 != 0)
        return 0;
    if (t == NULL)
        return prm->profile == PROFILE_STORED && prm->options == 0 ? 4 : 0;
    if ((prm->options & ~(OPTION_WINDOW | OPTION_THUMB | OPTION_CAPACITY)) != 0 ||
        (map_in_memory(prm) != 0 && prm->scratch_size != 0))
        return 0;
    return (uint32_t)sizeof(struct state) + map_in_memory(prm) + 8u * t->learned +
           4u * LIST_SIZE(t) + 6u * t->journal + t->order0;
}

static void set_up_model(struct state *s)
{
    uint32_t i;

    for (i = 0; i < FLAG_TOTAL; i++)
        s->flag_p[i] = 63569; // 0.97
    memset(s->flag_n, 0, FLAG_TOTAL);
    for (i = 0; i < (FLAG_SETS + LIT_SETS) * INPUTS; i++)
        s->weights[i] = initial_weights[i % INPUTS];
    for (i = 0; i < HISTORIES * 64; i++) {
        uint32_t n0 = level_count[i >> 3 & 7], n1 = level_count[i & 7];

        s->cells[i] = (uint16_t)((n1 + 4) * 65535 / (n0 + n1 + 8));
    }
    for (i = 0; i < 6 * EXPECT; i++)
        s->expect[i] = (uint16_t)(40960 + i % EXPECT * 2600);
}

static void fail(struct state *s, int code)
{
    if (s->p->err == SOW_PATCH_OK)
        s->p->err = code;
}

// ---- range coder

static void read_base(struct state *s, uint32_t off, uint8_t *buf, uint32_t n)
{
    if (s->p->io.read_base(s->p->io.user, off, buf, n) != 0)
        fail(s, SOW_PATCH_E_IO);
}

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
    count(&s->flag_p[i], &s->flag_n[i], bit, 30);
    return bit;
}

static uint32_t number(struct state *s, uint32_t kind)
{
    uint32_t base = kind * NUM_CONTEXTS, k = 0, x = 1, i;

    while (k < 23 && control_bit(s, base + k))
        k++;
    for (i = k; i-- > 0;) {
        uint32_t bit;

        if (i < 2)
            bit = control_bit(s, base + 48 + i);
        else if (i == k - 1)
            bit = control_bit(s, base + 24 + k);
        else
            bit = decode(s, 32768);
        x = x << 1 | bit;
    }
    return x - 1;
}

static uint32_t pair(const uint8_t *b)
{
    return b[0] | (uint32_t)b[1] << 8;
}

// Where entry i of the map lies in memory, read from the scratch if need be.
static uint8_t *map_entry(struct state *s, uint32_t i)
{
    uint32_t at = i * MAP_ENTRY / MAP_BLOCK * MAP_BLOCK;

    if (s->map != NULL)
        return s->map + i * MAP_ENTRY;
    if (s->map_block != at) {
        s->map_block = at;
        if (s->p->io.scratch_read(s->p->io.user, at, s->map_buf, MAP_BLOCK) != 0)
            fail(s, SOW_PATCH_E_IO);
    }
    return s->map_buf + (i * MAP_ENTRY - at);
}

static void unpack(const uint8_t *entry, struct segment *g)
{
    uint32_t ab[2];

    memcpy(ab, entry, MAP_ENTRY);
    g->start = (ab[0] & 0x3fffff) << 1;
    g->length = (ab[0] >> 22 | (ab[1] >> 24) << 10) << 1;
    g->from = ab[1] & 0xffffff;
}

static void get_segment(struct state *s, uint32_t i, struct segment *g)
{
    unpack(map_entry(s, i), g);
}

// Append entry i, the entries before it having been put.
static void put_segment(struct state *s, uint32_t i, const struct segment *g)
{
    uint32_t ab[2], at = i * MAP_ENTRY;

    if (at % MAP_BLOCK == 0)
        s->map_block = at;
    ab[0] = g->start >> 1 | g->length << 21;
    ab[1] = g->from | (g->length >> 11) << 24;
    memcpy(map_entry(s, i), ab, MAP_ENTRY);
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
        uint32_t gap = number(s, NUM_GAP), odd = control_bit(s, ODD_SHIFT);
        uint32_t z = number(s, gap != 0 ? NUM_SHIFT_GAP : NUM_SHIFT);

        g.start = end + 2 * gap;
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
}

// ---- address map

// Map an offset in the old image to the new one by the segment being copied, the first one that
// contains it, or else the nearest; inside tells whether one contains it.
static uint32_t map_offset(struct state *s, uint32_t t, uint8_t *inside)
{
    uint32_t best = 0xffffffff, shift = 0, i;
    struct segment g = s->seg;
    const uint8_t *e = NULL;

    *inside = 1;
    if (s->have && g.from < s->base_size && t - g.from < g.length)
        return t - g.from + g.start;
    for (i = 0; i < s->count; i++) {
        uint32_t d;

        if (i % (MAP_BLOCK / MAP_ENTRY) == 0)
            e = map_entry(s, i);
        unpack(e, &g);
        e += MAP_ENTRY;
        d = g.from - t;
        if ((int32_t)d <= 0)
            d = t - g.from < g.length ? 0 : t - g.from - g.length + 1;
        if (d < best && g.from < s->base_size) {
            best = d;
            shift = g.from - g.start;
            if (d == 0)
                return t - shift;
        }
    }
    *inside = 0;
    return t - shift;
}

static uint32_t map_in_image(struct state *s, uint32_t a, uint8_t *inside)
{
    uint32_t base = s->base;

    return base + map_offset(s, (a - base) & ~1u, inside) + (a & 1);
}

static int in_image(const struct state *s, uint32_t a)
{
    return a - s->base < s->base_size + 64;
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
    uint32_t i = find(s, a);

    s->how = FROM_LEARNED;
    if (i < s->learned)
        return s->values[i];
    s->how = FROM_GAP;
    if (in_image(s, a))
        a = map_in_image(s, a, &s->how);
    return a;
}

static void learn_address(struct state *s, uint32_t key, uint32_t value)
{
    uint32_t i = find(s, key);
    uint8_t inside;

    if (i == s->learned) {
        if (in_image(s, key) && map_in_image(s, key, &inside) == value)
            return;
        i = s->learn_next++;
        if (s->learn_next == s->t->learned)
            s->learn_next = 0;
        if (s->learned < s->t->learned)
            s->learned++;
        s->keys[i] = key;
    }
    s->values[i] = value;
}

// ---- images

// Read n bytes of the new image, all decoded already.
static void read_new(struct state *s, uint32_t off, uint8_t *buf, uint32_t n)
{
    uint32_t before = 0;

    if (off < s->call_start) {
        before = s->call_start - off < n ? s->call_start - off : n;
        if (s->p->io.read_new(s->p->io.user, off, buf, before) != 0)
            fail(s, SOW_PATCH_E_IO);
    }
    if (before < n)
        memcpy(buf + before, s->call_out + (off + before - s->call_start), n - before);
}

// The halfword at an offset of the old image followed by the new one.
static uint32_t source(struct state *s, uint32_t off)
{
    uint32_t size = s->base_size;

    if (off >= size) {
        uint8_t b[2];

        read_new(s, off - size, b, 2);
        return pair(b);
    }
    if (off - s->base_pos + 2 > s->base_n || off < s->base_pos) {
        uint32_t n = size - off;

        if (n > BASE_BUF)
            n = BASE_BUF;
        read_base(s, off, s->base_buf, n);
        s->base_pos = off;
        s->base_n = n;
    }
    return pair(s->base_buf + (off - s->base_pos));
}

// ---- prediction

static int is_wide(uint32_t a)
{
    return a >= 0xe800;
}

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

static uint32_t branch_offset(uint32_t w)
{
    uint32_t s = w >> 10 & 1, j1 = w >> 29 & 1, j2 = w >> 27 & 1, low = (w >> 16 & 0x7ff) << 1;

    if (branch_kind(w) == BRANCH_COND)
        return sign_extend(s << 20 | j2 << 19 | j1 << 18 | (w & 0x3f) << 12 | low, 21);
    return sign_extend(s << 24 | (j1 ^ s ^ 1) << 23 | (j2 ^ s ^ 1) << 22 | (w & 0x3ff) << 12 | low, 25);
}

static uint32_t set_branch(uint32_t w, uint32_t v)
{
    uint32_t s = v >> 24 & 1, low = (v >> 1 & 0x7ff) << 16;

    if (branch_kind(w) == BRANCH_COND)
        return (w & 0xd000fbc0) | low | (v >> 20 & 1) << 10 | (v >> 12 & 0x3f) |
               (v >> 18 & 1) << 29 | (v >> 19 & 1) << 27;
    return (w & 0xd000f800) | low | s << 10 | (v >> 12 & 0x3ff) |
           ((v >> 23 & 1) ^ s ^ 1) << 29 | ((v >> 22 & 1) ^ s ^ 1) << 27;
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

// Predict the word v where the source has w; the second half has class second. Once it is known
// it tells what became of address key.
static void expect_word(struct state *s, uint32_t n, uint32_t w, uint32_t v, uint8_t second,
                        uint32_t key, uint32_t kind)
{
    s->pred = (uint16_t)v;
    s->changed = v != w;
    s->pending_at = n + 2;
    s->pending = (uint16_t)(v >> 16);
    s->pending_class = second;
    s->pending_changed = s->changed;
    s->pending_how = s->how;
    s->lesson_key = key;
    s->lesson_kind = (uint8_t)kind;
}

// Predict a 16-bit instruction whose operand, counted from the aligned PC, is old: in words with
// align 3, in halfwords with align 0, of so many bits, the one or two zero bits included. It
// reaches low bytes back.
static void refer(struct state *s, uint32_t n, uint32_t raw, uint32_t old, uint32_t align,
                  uint32_t bits, uint32_t low)
{
    uint32_t d, m;

    d = map_offset(s, ((s->source + 4) & ~align) + old, &s->how) - ((n + 4) & ~align);
    if (d + low < 1u << bits && (d & align) == 0) {
        if (bits == 7) {
            raw = (raw & ~0x2f8u) | d >> 6 << 9 | (d >> 1 & 31) << 3;
        } else {
            m = (1u << (bits - 1 - align / 3)) - 1;
            raw = (raw & ~m) | (d >> (1 + align / 3) & m);
        }
    }
    s->changed = raw != s->pred;
    s->pred = (uint16_t)raw;
}

// Predict the halfword at new offset n from its source.
static void predict(struct state *s, uint32_t n)
{
    uint32_t base = s->base, o = s->source, raw = source(s, o), raw2 = 0, v, w;
    int two, aligned, pointer, inside;

    s->pred = (uint16_t)raw;
    s->cls = PLAIN;
    s->changed = 0;
    s->how = FROM_GAP;
    if (!s->thumb || o >= s->base_size)
        return;
    if (o & 1) {
        s->cls = ODD;
        return;
    }
    if (s->pending_at == n) {
        s->pred = s->pending;
        s->cls = s->pending_class;
        s->changed = s->pending_changed;
        s->how = s->pending_how;
        return;
    }
    if (s->second && !s->pool) {
        s->cls = SECOND;
        return;
    }
    two = n + 4 <= s->seg.start + s->seg.length;
    if (two)
        raw2 = source(s, o + 2);
    w = raw | raw2 << 16;
    aligned = two && (n & 3) == 0 && (o & 3) == 0;
    inside = w - base < s->base_size;
    pointer = aligned && (inside || w >> 18 == 0x800);

    if (s->pool && !pointer) {
        s->cls = n & 2 ? POOL1 : POOL0;
    } else if (pointer && (s->pool || inside)) {
        v = map_address(s, w);
        s->cls = s->pool ? PTR0 : DATA;
        expect_word(s, n, w, v, PTR1, w, NO_BRANCH);
    } else if (two && branch_kind(w) != NO_BRANCH) {
        uint32_t target = base + o + 4 + branch_offset(w);

        v = set_branch(w, map_address(s, target) - base - (n + 4));
        s->cls = BL1;
        expect_word(s, n, w, v, BL2, target, branch_kind(w));
    } else if (raw >> 11 == 0x09) { // LDR literal
        s->cls = LDR;
        refer(s, n, raw, (raw & 255) << 2, 3, 10, 0);
    } else if (raw >> 12 == 0x0d && (raw >> 8 & 15) < 14) { // B<c>
        s->cls = BR;
        refer(s, n, raw, sign_extend((raw & 255) << 1, 9), 0, 9, 256);
    } else if (raw >> 11 == 0x1c) { // B
        s->cls = BR;
        refer(s, n, raw, sign_extend((raw & 0x7ff) << 1, 12), 0, 12, 2048);
    } else if ((raw & 0xf500) == 0xb100) { // CBZ, CBNZ: i at bit 9, imm5 at bit 3
        s->cls = BR;
        refer(s, n, raw, (raw >> 9 & 1) << 6 | (raw >> 3 & 31) << 1, 0, 7, 0);
    } else if (is_wide(raw)) {
        s->cls = FIRST;
    }
}

// Decode whether the halfword is as predicted.
static uint32_t decode_hit(struct state *s)
{
    uint32_t ctx = s->changed * 4u + s->how, kind = 0, run = 0, bit, p, i;
    uint32_t at[FLAG_INPUTS - 1];

    if (IN_SET(s->cls, SECOND_HALVES))
        kind = 2;
    else if (IN_SET(s->cls, WORD_STARTS))
        kind = 1;
    while (run < 15 && s->hits >> run != 0)
        run++;
    at[0] = BY_CLASS + s->cls * 8u + ctx;
    at[1] = BY_RUN + run * 8 + s->changed * 4u + kind;
    at[2] = BY_RECENT + (s->recent & 63);
    at[3] = BY_OPCODE + (uint32_t)(s->pred >> 10);
    for (i = 0; i < FLAG_INPUTS - 1; i++)
        s->in[i] = stretch(s->flag_p[at[i]]);
    s->in[i++] = 256;
    while (i < INPUTS)
        s->in[i++] = 0;
    p = mix(s, ctx);
    bit = decode(s, p > 65535 ? 65535 : p);
    learn_weights(s, bit);
    for (i = 0; i < FLAG_INPUTS - 1; i++)
        count(&s->flag_p[at[i]], &s->flag_n[at[i]], bit, 255);
    s->recent = s->recent << 1 | (1 - bit);
    s->hits = bit ? s->hits + 1 : 0;
    return bit;
}

// ---- literals

// The byte that is coded first in the high byte.
static uint32_t swap(const struct state *s, uint32_t v)
{
    return s->thumb ? v : (v >> 8 | (v & 0xff) << 8);
}

// Append a candidate.
static void add(struct state *s, uint32_t v, uint32_t kinds, uint32_t match)
{
    struct candidate *c = &s->list[s->list_n++];

    c->byte[0] = (uint8_t)v;
    c->byte[1] = (uint8_t)(v >> 8);
    c->kinds = (uint8_t)kinds;
    c->match = (uint8_t)match;
}

// Make a candidate of the halfword at b, at offset j of its image.
static void note(struct state *s, const uint8_t *b, int32_t j, int first)
{
    uint32_t m = 0;

    while (first && m < MATCH_MAX && j >= (int32_t)(2 * m + 2) && pair(b - 2 * m - 2) == s->last[m])
        m++;
    add(s, swap(s, pair(b)), !first ? 1u << IN_FOLLOWER : 1u << IN_BYTE | (m != 0 ? 1u << IN_HALF : 0), m);
}

// Make candidates of halfwords near new offset n and the source: with first, of those that follow
// a byte equal to key, otherwise of those whose first byte is key.
static void scan(struct state *s, uint32_t n, int first, uint32_t key)
{
    uint32_t w = s->p->prm.options & OPTION_WINDOW, full;
    int32_t window = w ? (int32_t)(512u << w) : 0, step = 2 - !s->thumb, block, turn;

    if (first)
        s->list_n = 0;
    full = s->list_n + (first ? s->t->candidates : FOLLOWERS);
    for (block = 0; block < window; block += (int32_t)SCAN_BLOCK) {
        // Back from n in the new image, then on from the source and back from it in the old one.
        for (turn = 0; turn < 3; turn++) {
            int32_t size = (int32_t)(turn == 0 ? n : s->base_size);
            int32_t at = (int32_t)(turn == 0 ? n : s->thumb ? s->source & ~1u : s->source);
            int32_t low = at + block, high = low + (int32_t)SCAN_BLOCK - step, by = step, from, count;
            const uint8_t *b;

            if (turn != 1) {
                by = -step;
                high = at - block - (turn == 0 ? 2 : step);
                low = high - (int32_t)SCAN_BLOCK + step;
            }
            if (low < 2)
                low = 2;
            if (high > size - 2)
                high -= (high - size + 1 + step) & -step;
            if (low > high)
                continue;
            from = low < (int32_t)SCAN_MARGIN ? 0 : low - (int32_t)SCAN_MARGIN;
            // At the same place of a word as in memory, so that it can be copied by words.
            b = (const uint8_t *)s->scan_buf + (from & 3);
            if (turn == 0)
                read_new(s, (uint32_t)from, (uint8_t *)s->scan_buf + (from & 3), (uint32_t)(high + 2 - from));
            else
                read_base(s, (uint32_t)from, (uint8_t *)s->scan_buf + (from & 3), (uint32_t)(high + 2 - from));
            b += (by < 0 ? high : low) - from + (first ? -1 : (int32_t)s->thumb);
            for (count = (high - low) / step; count >= 0; count--, b += by) {
                // Most of the decoder's time goes here: four at once.
                while (count >= 4 && b[0] != key && b[by] != key && b[2 * by] != key && b[3 * by] != key) {
                    b += 4 * by;
                    count -= 4;
                }
                if (*b == key) {
                    note(s, b - (first ? -1 : (int32_t)s->thumb), (by < 0 ? low : high) - by * count, first);
                    if (s->list_n == full)
                        return;
                }
            }
        }
    }
}

// The i-th latest entry of the journal.
static struct misprediction *journal_at(const struct state *s, uint32_t i)
{
    uint32_t k = s->journal_next;

    return &s->journal[k > i ? k - 1 - i : k + s->journal_n - 1 - i];
}

// Look through the journal, latest first: mispredictions of the class whose prediction has the
// same first (or second) byte become candidates; the deviations of the latest one and of the
// nearest other prediction become guesses.
static void remember(struct state *s, uint32_t pred, int first)
{
    uint32_t best = 65536, full = s->list_n + LIKE_LIMIT, i;

    s->guess[0] = s->guess[1] = (uint16_t)(pred + s->delta[s->cls]);
    for (i = 0; s->have && i < s->journal_n; i++) {
        const struct misprediction *e = journal_at(s, i);
        uint32_t p = e->pred, v = e->value, d, a;

        if (e->cls != s->cls)
            continue;
        d = p > pred ? p - pred : pred - p;
        a = (pred + v - p) & 0xffff;
        if (d < best && a != s->guess[0]) {
            best = d;
            s->guess[1] = (uint16_t)a;
        }
        if (((p ^ pred) >> (first ? 8 : 0) & 0xff) == 0 && s->list_n < full)
            add(s, v, 1u << IN_JOURNAL, 0);
    }
}

// Decode a byte: pos is 1 for the one coded first; otherwise that is known.
static uint32_t decode_byte(struct state *s, uint32_t pos, uint32_t second, uint32_t known)
{
    uint16_t *used[INPUTS - 1], *expect[3];
    uint32_t node = 1, i, k, n, longest = 1, g[3], h[HISTORIES];
    uint8_t *order0 = s->order0 + (((IN_SET(s->cls, DATA_CLASSES) * 2 + second) * 2 + pos) << 8 &
                                   (s->t->order0 - 1u));
    struct candidate *list = s->list;
    int32_t *in = s->in;

    g[0] = NO_GUESS;
    for (k = 0; k < s->list_n; k++) {
        if (list[k].match > longest) {
            longest = list[k].match;
            g[0] = list[k].byte[pos];
        }
    }
    expect[0] = &s->expect[pos * 3 * EXPECT + longest];
    for (k = 0; k < 2; k++) {
        g[k + 1] = NO_GUESS;
        if (s->have && (pos || s->guess[k] >> 8 == (int)known))
            g[k + 1] = (uint32_t)s->guess[k] >> 8 * pos & 0xff;
        expect[k + 1] = &s->expect[(pos * 3 + k + 1) * EXPECT + s->success[k][s->cls]];
    }
    for (i = 8; i-- > 0;) {
        uint32_t flip = 0, bit, p;

        memset(h, 0, sizeof h);
        for (n = s->list_n; n-- > 0;) {
            uint32_t kinds = list[n].kinds;

            for (k = 0; kinds != 0; k++, kinds >>= 1)
                if (kinds & 1)
                    h[k] = history(h[k], (uint32_t)list[n].byte[pos] >> i & 1);
        }
        h[IN_ORDER0] = order0[node];
        for (k = 0; k < INPUTS - 1; k++) {
            uint16_t *cell = NULL;

            in[k] = 0;
            if (k < HISTORIES) {
                if (h[k] != 0)
                    cell = &s->cells[k * 64u + level[h[k] >> 4] * 8u + level[h[k] & 15]];
            } else if ((g[k - HISTORIES] | 256) >> (i + 1) == node) {
                cell = expect[k - HISTORIES];
                flip |= (~g[k - HISTORIES] >> i & 1) << k;
            }
            if (cell != NULL)
                in[k] = flip >> k & 1 ? -stretch(*cell) : stretch(*cell);
            used[k] = cell;
        }
        in[IN_BIAS] = 64;
        p = mix(s, FLAG_SETS + (pos * 2 + second + s->have * 4u) * 4 +
                             (h[IN_HALF] != 0) + 2u * (used[IN_MATCH] != NULL));
        bit = decode(s, p < 16 ? 16 : p > 65520 ? 65520 : p);
        learn_weights(s, bit);
        for (k = 0; k < INPUTS - 1; k++)
            if (used[k] != NULL)
                adapt(used[k], bit ^ (flip >> k & 1));
        order0[node] = (uint8_t)history(order0[node], bit);
        node = node << 1 | bit;
        for (k = n = 0; k < s->list_n; k++)
            if (((uint32_t)list[k].byte[pos] >> i & 1) == bit)
                list[n++] = list[k];
        s->list_n = (uint16_t)n;
    }
    return node & 0xff;
}

static uint32_t decode_literal(struct state *s, uint32_t n)
{
    uint32_t pred = swap(s, s->pred), second = s->second && !s->pool, hi, v, k;

    scan(s, n, 1, s->last[0] >> 8);
    remember(s, pred, 1);
    hi = decode_byte(s, 1, second, 0);
    scan(s, n, 0, hi);
    remember(s, pred, 0);
    v = hi << 8 | decode_byte(s, 0, second, hi);

    if (s->have) {
        for (k = 0; k < 2; k++) {
            uint8_t *c = &s->success[k][s->cls];

            if (s->guess[k] != v)
                *c /= 2;
            else if (*c < 7)
                ++*c;
        }
        s->delta[s->cls] = (uint16_t)(v - pred);
        if (s->journal_n < s->t->journal)
            s->journal_n++;
        k = s->journal_next;
        if (k == s->t->journal)
            k = 0;
        s->journal_next = (uint16_t)(k + 1);
        s->journal[k].pred = (uint16_t)pred;
        s->journal[k].value = (uint16_t)v;
        s->journal[k].cls = s->cls;
    }
    return swap(s, v);
}

// ---- the image

// Draw conclusions from halfword v at offset n.
static void follow_code(struct state *s, uint32_t n, uint32_t v)
{
    uint32_t prev = s->last[0];

    if (s->pending_at == n) {
        uint32_t w = prev | v << 16;

        if (s->lesson_kind == NO_BRANCH)
            learn_address(s, s->lesson_key, w);
        else if (s->lesson_kind == BRANCH && branch_kind(w) == BRANCH)
            learn_address(s, s->lesson_key, s->base + n + 2 + branch_offset(w));
    }
    if (s->pool) {
        s->second = 0;
        if (n & 2)
            s->pools[n >> 5 & 127] &= (uint8_t)~(1u << (n >> 2 & 7));
    } else if (s->second) {
        s->second = 0;
        if (prev == 0xf8df)
            mark_pool(s, n - 2, ((n + 2) & ~3u) + (v & 0xfff));
    } else {
        if (v >> 11 == 0x09)
            mark_pool(s, n, ((n + 4) & ~3u) + (v & 255) * 4);
        s->second = v >= 0xe800;
    }
}

static uint32_t decode_halfword(struct state *s, uint32_t n)
{
    uint32_t v;

    if (s->next < s->count && n >= s->seg.start + s->seg.length && ++s->next < s->count)
        get_segment(s, s->next, &s->seg);
    s->have = s->next < s->count && n >= s->seg.start;
    s->pool = s->thumb && pool_word(s, n);
    s->source += 2; // as if the last segment went on
    if (s->have) {
        s->source = s->seg.from + (n - s->seg.start);
        predict(s, n);
    } else {
        s->pred = 0;
        s->cls = s->pool ? (n & 2 ? POOL1 : POOL0) : GAP;
    }
    if (s->have && decode_hit(s))
        v = s->pred;
    else
        v = decode_literal(s, n);
    if (s->thumb)
        follow_code(s, n, v);
    memmove(s->last + 1, s->last, sizeof s->last - sizeof s->last[0]);
    s->last[0] = (uint16_t)v;
    return v;
}

// When the image is complete the stream must be, too.
static void check_end(struct state *s)
{
    if (s->p->pos == s->p->prm.new_size && s->stream_at < s->p->stream_size)
        fail(s, SOW_PATCH_E_STREAM);
}

int sow_patch_init(struct sow_patch *p, const struct sow_patch_params *prm,
                   const struct sow_patch_io *io, uint32_t stream_size,
                   void *work, uint32_t work_size)
{
    uint32_t need = sow_patch_work_size(prm), i;
    struct state *s = work;
    uint8_t *at;

    memset(p, 0, sizeof *p);
    p->err = SOW_PATCH_E_PARAMS;
    if (need == 0)
        return p->err;
    p->err = SOW_PATCH_E_WORK;
    if (work_size < need || (uintptr_t)work % sizeof(void *) != 0)
        return p->err;
    p->prm = *prm;
    p->io = *io;
    p->stream_size = stream_size;
    p->work = work;
    p->err = SOW_PATCH_OK;
    if (prm->profile == PROFILE_STORED) {
        if (stream_size != prm->new_size)
            p->err = SOW_PATCH_E_STREAM;
        return p->err;
    }
    memset(s, 0, sizeof *s);
    s->p = p;
    s->t = tables_of(prm);
    s->pending_at = 1;
    s->source = 0u - 2;
    s->map_block = 0xffffffff;
    s->thumb = (prm->options & OPTION_THUMB) != 0;
    s->base = prm->link_base;
    s->base_size = prm->base_size;

    at = (uint8_t *)(s + 1);
    s->keys = (uint32_t *)(void *)at;
    s->values = s->keys + s->t->learned;
    s->list = (struct candidate *)(s->values + s->t->learned);
    s->journal = (struct misprediction *)(s->list + LIST_SIZE(s->t));
    s->order0 = (uint8_t *)(s->journal + s->t->journal);
    memset(s->order0, 0, s->t->order0);
    if (map_in_memory(prm) != 0)
        s->map = s->order0 + s->t->order0;
    else if (prm->scratch_size != 0 && io->scratch_erase(io->user, 0, prm->scratch_size) != 0)
        fail(s, SOW_PATCH_E_IO);

    s->hi = 0xffffffff;
    for (i = 0; i < 4; i++)
        s->code = s->code << 8 | next_byte(s);

    decode_map(s);
    set_up_model(s);
    if (s->count > 0 && p->err == 0)
        get_segment(s, 0, &s->seg);
    check_end(s);
    return p->err;
}

static void produce(struct state *s, uint8_t *out, uint32_t n)
{
    struct sow_patch *p = s->p;

    s->call_start = p->pos;
    s->call_out = out;
    while (n-- > 0 && p->err == 0) {
        if (p->pos & 1) {
            *out = s->tail;
        } else {
            uint32_t v = decode_halfword(s, p->pos);

            *out = (uint8_t)v;
            s->tail = (uint8_t)(v >> 8);
        }
        out++;
        p->pos++;
    }
    check_end(s);
}

int sow_patch_read(struct sow_patch *p, uint8_t *out, uint32_t n)
{
    struct state *s = p->work;

    if (p->err != 0)
        return p->err;
    if (n > p->prm.new_size - p->pos)
        return SOW_PATCH_E_END;
    if (n == 0)
        return SOW_PATCH_OK;
    if (p->prm.profile == PROFILE_STORED) {
        if (p->io.read_stream(p->io.user, p->pos, out, n) != 0)
            p->err = SOW_PATCH_E_IO;
        p->pos += n;
        return p->err;
    }
    s->p = p;
    produce(s, out, n);
    return p->err;
}
