/* SPDX-License-Identifier: Apache-2.0 */
#include "sow_core_private.h"

/* The download area: freeze records, one slot per uncoded fragment, spares. Rows and their spares lie
 * behind them if there is room for as many as there are fragments, from a page boundary on; else in slot B.
 *
 * A slot is a body padded to whole granules and a marker that is programmed after it: the checksum of the body
 * and the marker's second word, which is the slot id and a tag. Tags tell sessions apart, and the rows of
 * different frozen columns. A slot that is torn, or whose granules refuse, is replaced by a spare; when there is
 * none left, the pages under it are made anew: what else a page holds goes to scratch, the journal says so, the
 * page is erased and filled again. A cut in between leaves the copy, and sow_core_open goes on from there. */

#define MARKER 8u
#define CHUNK 32u   /* bytes read at a time */
#define NONE 0xffffu
#define REPAIRS 64u /* pages made anew between two resets: more of them is broken flash */

static uint32_t marker_size(const struct sow_core *c)
{
    return sow_align(MARKER, c->log.cfg->port->granule);
}

/* To granules, and words. */
static __attribute__((noinline)) uint32_t pad(const struct sow_core *c, uint32_t n)
{
    uint32_t granule = c->log.cfg->port->granule;

    return sow_align(n, granule < 4 ? 4 : granule);
}

void sow_store_layout(struct sow_core *c)
{
    const struct sow_map *map = c->log.cfg->map;
    uint32_t m = c->at.session.nb_frag;

    c->count[SOW_DATA] = c->count[SOW_ROWS] = (uint16_t)m;
    c->bitmap = (uint16_t)sow_bitmap_size(m);
    c->stride[SOW_FREEZE] = (uint16_t)(c->bitmap + marker_size(c));
    c->stride[SOW_DATA] = (uint16_t)(pad(c, c->at.session.frag_size) + marker_size(c));
    c->place[SOW_FREEZE] = map->download.addr;
    c->place[SOW_DATA] = map->download.addr + SOW_FREEZES * c->stride[SOW_FREEZE];
    /* Room for any loss whatever, so that where rows lie never depends on how many fragments were lost. */
    c->place[SOW_ROWS] = map->download.addr + sow_align(sow_store_size(c), c->log.cfg->port->page);
    if (!sow_store_fit_rows(c))
        c->place[SOW_ROWS] = map->slot_b.addr;
}

uint32_t sow_store_size(const struct sow_core *c)
{
    return SOW_FREEZES * c->stride[SOW_FREEZE] + (c->count[SOW_DATA] + SOW_CORE_SPARES) * c->stride[SOW_DATA];
}

const struct sow_region *sow_store_rows(const struct sow_core *c)
{
    const struct sow_map *map = c->log.cfg->map;

    return c->place[SOW_ROWS] == map->slot_b.addr ? &map->slot_b : &map->download;
}

int sow_store_fit_rows(struct sow_core *c)
{
    const struct sow_region *r = sow_store_rows(c);
    uint32_t rows = c->count[SOW_ROWS];

    c->stride[SOW_ROWS] = (uint16_t)(pad(c, (rows + 7u) / 8u) + c->stride[SOW_DATA]);
    return c->place[SOW_ROWS] + (rows + SOW_CORE_SPARES) * c->stride[SOW_ROWS] <= r->addr + r->size;
}

static __attribute__((noinline)) uint32_t place(const struct sow_core *c, uint32_t kind, uint32_t n)
{
    return c->place[kind] + n * c->stride[kind];
}

/* The spares follow the other slots of their kind. */
static uint32_t spares(const struct sow_core *c, uint32_t kind)
{
    return place(c, kind, c->count[kind]);
}

static uint32_t slot_addr(const struct sow_core *c, uint16_t id)
{
    uint32_t kind = id >> 14;

    for (uint32_t i = 0; i < SOW_CORE_SPARES; i++)
        if (c->spare[i] == id)
            return place(c, kind, c->count[kind] + i);
    return place(c, kind, id & 0x3fffu);
}

uint32_t sow_slot_body(const struct sow_core *c, uint32_t kind)
{
    return c->stride[kind] - marker_size(c);
}

uint8_t *sow_row(const struct sow_core *c)
{
    return sow_payload(c) + sow_slot_body(c, SOW_DATA);
}

/* The second word of a marker, but for the number of the slot. */
static uint32_t marker_word(const struct sow_core *c, uint32_t kind)
{
    uint32_t tag = c->at.tag;

    if (kind == SOW_ROWS)
        tag += 1u + c->at.freeze;
    return tag << 16 | kind << 14;
}

/* Add what lies there to dst (may be NULL): the id of that slot, or -SOW_CAUSE_FLASH_DECAY when it is none of ours. */
static int xor_at(const struct sow_core *c, uint32_t addr, uint32_t kind, uint8_t *dst)
{
    const struct sow_config *cfg = c->log.cfg;
    uint32_t end = addr + sow_slot_body(c, kind), marker[2], check, buf[CHUNK / 4];
    sow_word *to = (sow_word *)(void *)dst;

    if (sow_flash_read(cfg, end, marker, MARKER) < 0 || (marker[1] ^ marker_word(c, kind)) >> 14 != 0)
        return -SOW_CAUSE_FLASH_DECAY;
    check = marker[1];
    while (addr != end) {
        uint32_t n = end - addr < CHUNK ? end - addr : CHUNK;

        if (sow_flash_read(cfg, addr, buf, n) < 0)
            return -SOW_CAUSE_FLASH_DECAY;
        check = sow_check(check, buf, n);
        for (const uint32_t *p = buf; to != 0 && p != buf + n / 4; p++)
            *to++ ^= *p;
        addr += n;
    }
    return check == marker[0] ? (int)(uint16_t)marker[1] : -SOW_CAUSE_FLASH_DECAY;
}

int sow_slot_xor(const struct sow_core *c, uint16_t id, uint8_t *dst)
{
    return xor_at(c, slot_addr(c, id), id >> 14, dst) == id ? SOW_OK : -SOW_CAUSE_FLASH_DECAY;
}

static int put_at(const struct sow_core *c, uint32_t addr, uint16_t id, const uint8_t *body)
{
    const struct sow_config *cfg = c->log.cfg;
    uint32_t kind = id >> 14, n = sow_slot_body(c, kind), marker[4] = {0, marker_word(c, kind) | id, 0, 0};

    marker[0] = sow_check(marker[1], body, n);
    return sow_flash_prog(cfg, addr, body, n) < 0 ? -SOW_CAUSE_FLASH_IO
                                                  : sow_flash_prog(cfg, addr + n, marker, marker_size(c));
}

int sow_store_put_back(struct sow_core *c)
{
    const struct sow_config *cfg = c->log.cfg;
    int err;

    if (c->at.repair == 0)
        return SOW_OK;
    if ((err = sow_flash_copy(cfg, c->at.repair - 1u, cfg->map->scratch.addr)) < 0)
        return err;
    c->at.repair = 0;
    return sow_core_save(c);
}

/* Make the pages under a slot anew, without that slot. */
static int repair(struct sow_core *c, uint32_t slot, uint32_t size)
{
    const struct sow_config *cfg = c->log.cfg;
    uint32_t page = cfg->port->page, granule = cfg->port->granule, scratch = cfg->map->scratch.addr;
    uint8_t buf[16];

    for (uint32_t at = slot & (0u - page); at < slot + size;) {
        if (c->repairs++ >= REPAIRS || sow_flash_erase(cfg, scratch, page) < 0)
            return -SOW_CAUSE_FLASH_IO;
        for (uint32_t off = 0; off < page; off += granule, at += granule) /* what cannot be read is lost already */
            if (at - slot >= size && sow_flash_read(cfg, at, buf, granule) == SOW_OK &&
                sow_flash_prog(cfg, scratch + off, buf, granule) < 0)
                return -SOW_CAUSE_FLASH_IO;
        c->at.repair = at - page + 1u;
        if (sow_core_save(c) < 0) {
            c->at.repair = 0;
            return -SOW_CAUSE_FLASH_IO;
        }
        if (sow_store_put_back(c) < 0)
            return -SOW_CAUSE_FLASH_IO;
    }
    return SOW_OK;
}

static int is_free(const struct sow_core *c, uint32_t spare)
{
    return c->spare[spare] >> 14 == 3; /* no kind of slot */
}

int sow_slot_put(struct sow_core *c, uint16_t id, const uint8_t *body)
{
    uint32_t kind = id >> 14, addr;
    int err = put_at(c, slot_addr(c, id), id, body);

    if (err == SOW_OK || kind == SOW_FREEZE)
        return err;
    addr = spares(c, kind);
    for (uint32_t i = 0; i < SOW_CORE_SPARES; i++, addr += c->stride[kind]) {
        if (c->spare[i] == id)
            c->spare[i] = NONE;
        if (is_free(c, i) && put_at(c, addr, id, body) == SOW_OK) {
            c->spare[i] = id;
            return SOW_OK;
        }
    }
    addr = slot_addr(c, id);
    err = repair(c, addr, c->stride[kind]);
    return err < 0 ? err : put_at(c, addr, id, body);
}

void sow_store_find_spares(struct sow_core *c, enum sow_kind kind)
{
    uint32_t addr = spares(c, kind);

    for (uint32_t i = 0; i < SOW_CORE_SPARES; i++, addr += c->stride[kind])
        if (kind == SOW_DATA || is_free(c, i))
            c->spare[i] = (uint16_t)xor_at(c, addr, kind, 0); /* an error is no kind of slot */
}

uint32_t sow_block_size(const struct sow_core *c)
{
    const struct sow_session *s = &c->at.session;

    return (uint32_t)s->nb_frag * s->frag_size - s->padding;
}

int sow_block_read(const struct sow_core *c, uint32_t off, void *buf, uint32_t n)
{
    uint32_t size = c->at.session.frag_size, i = off / size, at = off % size;
    uint8_t *p = buf;

    for (; n != 0; i++) {
        uint32_t part = size - at < n ? size - at : n;

        if (sow_flash_read(c->log.cfg, slot_addr(c, (uint16_t)i) + at, p, part) < 0)
            return -SOW_CAUSE_FLASH_DECAY;
        p += part;
        n -= part;
        at = 0;
    }
    return SOW_OK;
}
