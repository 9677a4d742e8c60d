#include "sow_patch.h"

#include <string.h>

// Profile 0, plain copy/add. See docs/spec/patch.md.
#define PROFILE_COPY 0u
#define BUF 64u

enum state { RECORD, EQUAL, CHANGED, LITERAL };

struct copy {
    uint32_t stream_pos; // of the byte after the stream buffer
    uint32_t stream_at, stream_len;
    uint32_t base_pos; // of the first byte in the base buffer
    uint32_t base_len;
    uint32_t cursor; // next byte of the old image
    uint32_t left;   // bytes of the current copy, equal runs and changed bytes together
    uint32_t run;    // bytes of the current run
    uint32_t state;
    uint32_t start; // value of pos when the record began
    uint8_t stream[BUF];
    uint8_t base[BUF];
};

uint32_t sow_patch_work_size(const struct sow_patch_params *prm)
{
    if (prm->profile != PROFILE_COPY || prm->options != 0)
        return 0;
    return sizeof(struct copy);
}

int sow_patch_init(struct sow_patch *p, const struct sow_patch_params *prm,
                   const struct sow_patch_io *io, uint32_t stream_size,
                   void *work, uint32_t work_size)
{
    uint32_t need = sow_patch_work_size(prm);

    memset(p, 0, sizeof *p);
    p->err = SOW_PATCH_E_PARAMS;
    if (need == 0 || prm->base_size > SOW_PATCH_MAX_IMAGE ||
        prm->new_size > SOW_PATCH_MAX_IMAGE || prm->link_base % 256 != 0 ||
        prm->scratch_size % 64 != 0)
        return p->err;
    if (work_size < need || (uintptr_t)work % 4 != 0) {
        p->err = SOW_PATCH_E_WORK;
        return p->err;
    }
    p->prm = *prm;
    p->io = *io;
    p->stream_size = stream_size;
    p->work = work;
    memset(work, 0, need);
    p->err = SOW_PATCH_OK;
    if (prm->new_size == 0 && stream_size != 0)
        p->err = SOW_PATCH_E_STREAM;
    return p->err;
}

// The next byte of the stream, or a negative code.
static int next_byte(struct sow_patch *p, struct copy *c)
{
    if (c->stream_at == c->stream_len) {
        uint32_t n = p->stream_size - c->stream_pos;

        if (n == 0)
            return SOW_PATCH_E_STREAM;
        if (n > BUF)
            n = BUF;
        if (p->io.read_stream(p->io.user, c->stream_pos, c->stream, n) != 0)
            return SOW_PATCH_E_IO;
        c->stream_pos += n;
        c->stream_len = n;
        c->stream_at = 0;
    }
    return c->stream[c->stream_at++];
}

// The next byte of the old image; the caller has checked the cursor.
static int base_byte(struct sow_patch *p, struct copy *c)
{
    if (c->cursor - c->base_pos >= c->base_len) {
        uint32_t n = p->prm.base_size - c->cursor;

        if (n > BUF)
            n = BUF;
        if (p->io.read_base(p->io.user, c->cursor, c->base, n) != 0)
            return SOW_PATCH_E_IO;
        c->base_pos = c->cursor;
        c->base_len = n;
    }
    return c->base[c->cursor++ - c->base_pos];
}

// An unsigned LEB128 number of at most 32 bits.
static int number(struct sow_patch *p, struct copy *c, uint32_t *v)
{
    uint32_t shift;

    *v = 0;
    for (shift = 0; shift < 35; shift += 7) {
        int b = next_byte(p, c);

        if (b < 0)
            return b;
        if (shift == 28 && b > 15)
            break;
        *v |= (uint32_t)(b & 127) << shift;
        if (b < 128)
            return 0;
    }
    return SOW_PATCH_E_STREAM;
}

// Read numbers until at least one byte of the new image is due.
static int advance(struct sow_patch *p, struct copy *c)
{
    int r;

    while (c->run == 0) {
        switch (c->state) {
        case RECORD:
            c->start = p->pos;
            r = number(p, c, &c->left);
            if (r != 0)
                return r;
            if (c->left > p->prm.new_size - p->pos)
                return SOW_PATCH_E_STREAM;
            if (c->left > 0) {
                uint32_t z;

                r = number(p, c, &z);
                if (r != 0)
                    return r;
                c->cursor += (z >> 1) ^ (0u - (z & 1));
                if (c->cursor > p->prm.base_size || c->left > p->prm.base_size - c->cursor)
                    return SOW_PATCH_E_STREAM;
                r = number(p, c, &c->run);
                if (r != 0)
                    return r;
                if (c->run > c->left)
                    return SOW_PATCH_E_STREAM;
                c->left -= c->run;
                c->state = EQUAL;
                break;
            }
            r = number(p, c, &c->run);
            if (r != 0)
                return r;
            if (c->run == 0 || c->run > p->prm.new_size - p->pos)
                return SOW_PATCH_E_STREAM;
            c->state = LITERAL;
            break;
        case EQUAL:
        case CHANGED:
            r = number(p, c, &c->run);
            if (r != 0)
                return r;
            if (c->left > 0) {
                if (c->run > c->left || (c->state == EQUAL && c->run == 0))
                    return SOW_PATCH_E_STREAM;
                c->left -= c->run;
                c->state = c->state == EQUAL ? CHANGED : EQUAL;
            } else {
                if (c->run > p->prm.new_size - p->pos)
                    return SOW_PATCH_E_STREAM;
                c->state = c->run > 0 ? LITERAL : RECORD;
            }
            break;
        default:
            c->state = RECORD;
            break;
        }
    }
    return 0;
}

static int produce(struct sow_patch *p, struct copy *c, uint8_t *out, uint32_t n)
{
    while (n > 0) {
        int b = 0, d = 0;

        if (c->run == 0) {
            int r = advance(p, c);

            if (r != 0)
                return r;
        }
        if (c->state != LITERAL) {
            b = base_byte(p, c);
            if (b < 0)
                return b;
        }
        if (c->state != EQUAL) {
            d = next_byte(p, c);
            if (d < 0)
                return d;
        }
        *out++ = (uint8_t)(b + d);
        n--;
        c->run--;
        p->pos++;
    }
    return 0;
}

// The literal count that closes the last record, then nothing.
static int finish(struct sow_patch *p, struct copy *c)
{
    if (c->run != 0 || c->left != 0)
        return SOW_PATCH_E_STREAM;
    if (c->state == EQUAL || c->state == CHANGED) {
        int r = number(p, c, &c->run);

        if (r != 0)
            return r;
    }
    if (c->run != 0 || c->stream_at != c->stream_len || c->stream_pos != p->stream_size)
        return SOW_PATCH_E_STREAM;
    return 0;
}

int sow_patch_read(struct sow_patch *p, uint8_t *out, uint32_t n)
{
    struct copy *c = p->work;

    if (p->err != 0)
        return p->err;
    if (n > p->prm.new_size - p->pos)
        return SOW_PATCH_E_END;
    p->err = produce(p, c, out, n);
    if (p->err == 0 && n > 0 && p->pos == p->prm.new_size)
        p->err = finish(p, c);
    return p->err;
}
