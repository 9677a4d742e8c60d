/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "sow_core_private.h"
#include "sow_image.h"
#include "sow_patch.h"

/* The new image goes to slot B page by page; the journal counts the pages that are complete. After a reset the
 * decoder, which is deterministic, starts over, and what it yields for complete pages is not programmed. */

#define STEP 64u   /* bytes decoded and programmed at a time; a multiple of every granule */
#define SLICE 256u /* bytes in one slice of work */

static struct sow_patch *decoder(const struct sow_core *c)
{
    return (struct sow_patch *)(void *)c->arena;
}

static uint32_t work_at(void)
{
    return sow_align(sizeof(struct sow_patch), 8);
}

static void params(const struct sow_manifest *m, struct sow_patch_params *p)
{
    p->profile = m->profile;
    p->options = m->options;
    p->base_size = m->base_size;
    p->new_size = m->new_size;
    p->link_base = m->link_base;
    p->scratch_size = m->scratch;
}

int sow_write_fits(const struct sow_core *c, const struct sow_manifest *m)
{
    struct sow_patch_params p;
    uint32_t work;

    if (m->codec == SOW_CODEC_FULL)
        return m->payload_size == m->new_size ? SOW_OK : -SOW_CAUSE_MANIFEST_FORMAT;
    if (m->codec != SOW_CODEC_PATCH)
        return -SOW_CAUSE_CODEC_UNSUPPORTED;
    params(m, &p);
    if ((work = sow_patch_work_size(&p)) == 0)
        return -SOW_CAUSE_CODEC_UNSUPPORTED;
    if (work_at() + work > c->arena_size)
        return -SOW_CAUSE_NO_RAM;
    return m->scratch > c->cfg->map->scratch.size ? -SOW_CAUSE_NO_SCRATCH : SOW_OK;
}

static int read_base(void *user, uint32_t off, void *buf, uint32_t n)
{
    const struct sow_core *c = user;

    sow_flash_idle(c->cfg); /* the decoder may read the whole base before it has a byte */
    return sow_flash_read(c->cfg, c->cfg->map->slot_a.addr + off, buf, n);
}

static int read_stream(void *user, uint32_t off, void *buf, uint32_t n)
{
    return sow_block_read(user, SOW_MANIFEST_SIZE + off, buf, n);
}

static int read_new(void *user, uint32_t off, void *buf, uint32_t n)
{
    const struct sow_core *c = user;

    return sow_flash_read(c->cfg, c->cfg->map->slot_b.addr + off, buf, n);
}

static int scratch_erase(void *user, uint32_t off, uint32_t n)
{
    const struct sow_core *c = user;
    uint32_t page = c->cfg->port->page;

    for (n = sow_align(n, page); n != 0; n -= page, off += page)
        if (sow_flash_erase(c->cfg, c->cfg->map->scratch.addr + off) < 0)
            return -SOW_CAUSE_FLASH_IO;
    return SOW_OK;
}

static int scratch_prog(void *user, uint32_t off, const void *buf, uint32_t n)
{
    const struct sow_core *c = user;

    return sow_flash_prog(c->cfg, c->cfg->map->scratch.addr + off, buf, n);
}

static int scratch_read(void *user, uint32_t off, void *buf, uint32_t n)
{
    const struct sow_core *c = user;

    return sow_flash_read(c->cfg, c->cfg->map->scratch.addr + off, buf, n);
}

static int patch_error(int err)
{
    return err == SOW_PATCH_OK ? SOW_OK : err == SOW_PATCH_E_IO ? -SOW_CAUSE_FLASH_IO : -SOW_CAUSE_PATCH_CORRUPT;
}

static int start_decoder(struct sow_core *c, const struct sow_manifest *m)
{
    struct sow_patch_io io = {c, read_base, read_stream, read_new, scratch_erase, scratch_prog, scratch_read};
    struct sow_patch_params p;

    params(m, &p);
    return patch_error(sow_patch_init(decoder(c), &p, &io, m->payload_size, c->arena + work_at(),
                                      c->arena_size - work_at()));
}

int sow_write_begin(struct sow_core *c)
{
    int err = sow_core_progress(c, 0);

    c->at.flags &= (uint8_t)~(SOW_FLAG_RUNNING | SOW_FLAG_TRIED);
    return err < 0 ? err : sow_core_enter(c, SOW_CORE_WRITE);
}

static int write_step(struct sow_core *c, const struct sow_manifest *m, uint32_t done)
{
    uint32_t page = c->cfg->port->page, addr = c->cfg->map->slot_b.addr + c->pos;
    uint32_t n = m->new_size - c->pos < STEP ? m->new_size - c->pos : STEP;
    uint8_t buf[STEP];
    int err;

    if (c->pos / page >= done && c->pos % page == 0 && sow_flash_erase(c->cfg, addr) < 0)
        return -SOW_CAUSE_FLASH_IO;
    memset(buf, c->cfg->port->erase_value, sizeof buf);
    if (m->codec == SOW_CODEC_FULL)
        err = sow_block_read(c, SOW_MANIFEST_SIZE + c->pos, buf, n);
    else
        err = patch_error(sow_patch_read(decoder(c), buf, n));
    if (err < 0)
        return err;
    if (c->pos / page >= done &&
        sow_flash_prog(c->cfg, addr, buf, sow_align(n, c->cfg->port->granule)) < 0)
        return -SOW_CAUSE_FLASH_IO;
    c->pos += n;
    return SOW_OK;
}

int sow_write(struct sow_core *c)
{
    uint32_t page = c->cfg->port->page, done = c->progress.pages, end;
    struct sow_manifest m;
    int err = sow_manifest_read(c, &m);

    if (err < 0)
        return err;
    if (done * page >= m.new_size)
        return SOW_DONE;
    if ((c->at.flags & SOW_FLAG_RUNNING) == 0) {
        c->pos = 0;
        if (m.codec == SOW_CODEC_FULL)
            c->pos = done * page;
        else if ((err = start_decoder(c, &m)) < 0)
            return err;
        c->at.flags |= SOW_FLAG_RUNNING;
        return SOW_MORE;
    }
    end = c->pos + SLICE;
    while (c->pos < end && c->pos < m.new_size) {
        if ((err = write_step(c, &m, done)) < 0)
            return err;
        if ((c->pos % page == 0 || c->pos == m.new_size) && c->pos > done * page) {
            done = (c->pos + page - 1) / page;
            if ((err = sow_core_progress(c, done)) < 0)
                return err;
        }
    }
    return c->pos < m.new_size ? SOW_MORE : SOW_DONE;
}

/* One slice of the judgement of the new image: its digest, then the hash in its TLVs. */
int sow_write_hash(struct sow_core *c)
{
    const struct sow_region *slot = &c->cfg->map->slot_b;
    struct sow_image_info info;
    struct sow_manifest m;
    int err = sow_manifest_read(c, &m);

    if (err < 0)
        return err;
    if (sow_image_info(c->cfg, slot, &info) < 0 || info.size != m.new_size || info.version != m.version)
        return -SOW_CAUSE_IMAGE_INVALID;
    if (c->judge != 0) {
        err = sow_digest(c, slot, info.hashed, info.hash, sizeof info.hash);
        return err == -SOW_CAUSE_DIGEST_BAD ? -SOW_CAUSE_IMAGE_INVALID : err;
    }
    err = sow_digest(c, slot, m.new_size, m.new_digest, sizeof m.new_digest);
    if (err == SOW_DONE) {
        c->judge = 1;
        c->pos = 0;
        return SOW_MORE;
    }
    return err == -SOW_CAUSE_DIGEST_BAD ? -SOW_CAUSE_IMAGE_DIGEST_BAD : err;
}
