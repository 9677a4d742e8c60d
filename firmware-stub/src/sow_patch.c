#include "sow_patch_literal.h"

uint32_t sow_patch_work_size(const struct sow_patch_params *prm)
{
    if (prm->base_size > SOW_PATCH_MAX_IMAGE || prm->new_size > SOW_PATCH_MAX_IMAGE ||
        prm->link_base % 256 != 0 || prm->scratch_size % 64 != 0 || prm->profile > PROFILES)
        return 0;
    if (prm->profile == PROFILE_STORED)
        return prm->options == 0 ? 4 : 0;
    if ((prm->options & ~(OPTION_WINDOW | OPTION_THUMB | OPTION_CAPACITY)) != 0 ||
        (map_in_memory(prm) != 0 && prm->scratch_size != 0))
        return 0;
    return (uint32_t)sizeof(struct state) + map_in_memory(prm) +
           JOURNAL(prm->profile) * ((uint32_t)sizeof(struct misprediction) + ORDER0_RATIO);
}

static void set_up_model(struct state *s)
{
    uint32_t i;

    for (i = 0; i < FLAG_TOTAL; i++)
        s->flag_p[i] = 63569; // 0.97
    memset(s->flag_n, 0, FLAG_TOTAL);
    for (i = 0; i < (FLAG_SETS + LIT_SETS) * INPUTS; i++)
        s->weights[i] = 4500;
    for (i = 0; i < VOTES * 64; i++) {
        uint32_t n0 = 10u << (i >> 3 & 7) >> 1, n1 = 10u << (i & 7) >> 1;

        s->cells[i] = (uint16_t)((n1 + 4) * 65535 / (n0 + n1 + 8));
    }
    for (i = 0; i < 4; i++)
        s->guess_right[i] = 40960;
}

// ---- the image

// Draw conclusions from halfword v at offset n.
static void follow_code(struct state *s, uint32_t n, uint32_t v)
{
    uint32_t w = s->last[0] | v << 16;

    if (s->lesson_at == n && branch_kind(w) == BRANCH) {
        w = s->base + n + 2 + branch_offset(w);
        if (w != s->lesson)
            learn_address(s, s->lesson_key, w);
    }
    if (s->pool) {
        s->second = 0;
        if (n & 2)
            s->pools[n >> 5 & 127] &= (uint8_t)~(1u << (n >> 2 & 7));
    } else if (s->second) {
        s->second = 0;
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
    memset(&s->pred, 0, sizeof s->pred);
    if (s->have) {
        s->source = s->seg.from + (n - s->seg.start);
        predict(s, n);
    } else {
        s->pred.cls = s->pool ? (n & 2 ? POOL1 : POOL0) : GAP;
    }
    if (s->have && decode_hit(s))
        v = s->pred.value;
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
    s->pending_at = s->lesson_at = 1;
    s->source = 0u - 2;
    s->map_block = 0xffffffff;
    s->source_n = 1;
    s->thumb = (prm->options & OPTION_THUMB) != 0;
    s->base = prm->link_base;
    s->base_size = prm->base_size;

    s->journal_size = JOURNAL(prm->profile);
    s->journal = (struct misprediction *)(s + 1);
    s->order0 = (uint8_t *)(s->journal + s->journal_size);
    memset(s->order0, 128, s->journal_size * ORDER0_RATIO);
    if (map_in_memory(prm) != 0)
        s->map = (uint32_t *)(void *)(s->order0 + s->journal_size * ORDER0_RATIO);
    else if (prm->scratch_size != 0 && io->scratch_erase(io->user, 0, prm->scratch_size) != 0)
        fail(s, SOW_PATCH_E_IO);

    s->hi = 0xffffffff;
    for (i = 0; i < 4; i++)
        s->code = s->code << 8 | next_byte(s);

    decode_map(s);
    set_up_model(s);
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
