/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "sow_core_private.h"
#include "sow_patch.h"

/* The new image goes to slot B page by page; the journal counts the bytes in pages that are complete. After a reset
 * the decoder, which is deterministic, starts over, and what it yields for complete pages is not programmed. */

#define STEP 64u /* bytes decoded and programmed in one slice of work; a multiple of every granule */

static struct sow_patch *decoder(const struct sow_core *c)
{
    return (struct sow_patch *)(void *)c->arena;
}

static uint32_t work_at(void)
{
    return sow_align(sizeof(struct sow_patch), 8);
}

static __attribute__((noinline)) void params(const struct sow_manifest *m, struct sow_patch_params *p)
{
    p->profile = (uint8_t)m->profile;
    p->options = (uint8_t)m->options;
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
    params(m, &p);
    if (m->codec != SOW_CODEC_PATCH || (work = sow_patch_work_size(&p)) == 0)
        return -SOW_CAUSE_CODEC_UNSUPPORTED;
    if (work_at() + work > c->arena_size)
        return -SOW_CAUSE_NO_RAM;
    return m->scratch > c->log.cfg->map->scratch.size ? -SOW_CAUSE_NO_SCRATCH : SOW_OK;
}

static int read_base(void *user, uint32_t off, void *buf, uint32_t n)
{
    const struct sow_config *cfg = ((const struct sow_core *)user)->log.cfg;

    return sow_flash_read(cfg, cfg->map->slot_a.addr + off, buf, n);
}

static int read_stream(void *user, uint32_t off, void *buf, uint32_t n)
{
    return sow_block_read(user, SOW_MANIFEST_SIZE + off, buf, n);
}

static int read_new(void *user, uint32_t off, void *buf, uint32_t n)
{
    const struct sow_config *cfg = ((const struct sow_core *)user)->log.cfg;

    return sow_flash_read(cfg, cfg->map->slot_b.addr + off, buf, n);
}

static int scratch_erase(void *user, uint32_t off, uint32_t n)
{
    const struct sow_config *cfg = ((const struct sow_core *)user)->log.cfg;

    return sow_flash_erase(cfg, cfg->map->scratch.addr + off, sow_align(n, cfg->port->page));
}

static int scratch_prog(void *user, uint32_t off, const void *buf, uint32_t n)
{
    const struct sow_config *cfg = ((const struct sow_core *)user)->log.cfg;

    return sow_flash_prog(cfg, cfg->map->scratch.addr + off, buf, n);
}

static int scratch_read(void *user, uint32_t off, void *buf, uint32_t n)
{
    const struct sow_config *cfg = ((const struct sow_core *)user)->log.cfg;

    return sow_flash_read(cfg, cfg->map->scratch.addr + off, buf, n);
}

static int patch_error(int err)
{
    return err == SOW_PATCH_OK ? SOW_OK : err == SOW_PATCH_E_IO ? -SOW_CAUSE_FLASH_IO : -SOW_CAUSE_PATCH_CORRUPT;
}

/* Start where pages are missing, or at the start for the decoder. */
static __attribute__((noinline)) int start(struct sow_core *c, const struct sow_manifest *m)
{
    static const struct sow_patch_io callbacks = {0,        read_base,     read_stream,  read_new,
                                                  scratch_erase, scratch_prog, scratch_read};
    struct sow_patch_io io = callbacks;
    struct sow_patch_params p;

    io.user = c;
    c->at.flags |= SOW_FLAG_RUNNING;
    if (m->codec == SOW_CODEC_FULL) {
        c->pos = c->at.done;
        return SOW_OK;
    }
    params(m, &p);
    return patch_error(sow_patch_init(decoder(c), &p, &io, m->payload_size, c->arena + work_at(),
                                      c->arena_size - work_at()));
}

static int step(struct sow_core *c, const struct sow_manifest *m)
{
    const struct sow_config *cfg = c->log.cfg;
    uint32_t page = cfg->port->page, addr = cfg->map->slot_b.addr + c->pos;
    uint32_t n = m->new_size - c->pos < STEP ? m->new_size - c->pos : STEP;
    int fresh = c->pos >= c->at.done, err;
    uint8_t buf[STEP];

    if (c->pos == c->at.done && sow_flash_erase(cfg, addr, page) < 0) /* the first of its page */
        return -SOW_CAUSE_FLASH_IO;
    memset(buf, cfg->port->erase_value, sizeof buf);
    if (m->codec == SOW_CODEC_FULL)
        err = sow_block_read(c, SOW_MANIFEST_SIZE + c->pos, buf, n);
    else
        err = patch_error(sow_patch_read(decoder(c), buf, n));
    if (err < 0)
        return err;
    c->pos += n;
    if (!fresh)
        return SOW_OK;
    if (sow_flash_prog(cfg, addr, buf, sizeof buf) < 0)
        return -SOW_CAUSE_FLASH_IO;
    return (c->pos & (page - 1u)) == 0 || c->pos == m->new_size ? sow_core_progress(c, c->pos) : SOW_OK;
}

int sow_write(struct sow_core *c)
{
    struct sow_manifest m;
    int err = sow_manifest_read(c, &m);

    if (err < 0)
        return err;
    if (c->at.done == m.new_size)
        return SOW_DONE;
    if ((c->at.flags & SOW_FLAG_RUNNING) == 0) {
        err = start(c, &m);
        return err < 0 ? err : SOW_MORE;
    }
    err = step(c, &m);
    return err < 0 ? err : c->at.done == m.new_size ? SOW_DONE : SOW_MORE;
}
