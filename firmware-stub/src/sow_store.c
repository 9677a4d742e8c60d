/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "sow_core_private.h"

/* The download area: freeze records, one slot per uncoded fragment, spares. Rows and their spares lie
 * behind them if there is room for as many as there are fragments, from a page boundary on; else in slot B.
 *
 * A slot is a body padded to whole granules and a marker that is programmed after it: the checksum of the body
 * and the marker's second word, which is the slot id and a tag. Tags tell sessions apart, and the rows of
 * different frozen columns. A slot that is torn, or whose granules refuse, is replaced by a spare; when there is
 * none left, the pages under it are made anew: what is sound in a page goes to scratch, the journal says so, the
 * page is erased and filled again. A cut in between leaves the copy, and sow_core_open goes on from there. */

#define MARKER 8u
#define FREE 0xffffu
#define USED 0xfffeu
#define REPAIRS 64u       /* pages made anew between two resets: more of them is broken flash */
#define IN_SLOT_B 0x8000u /* of a page under repair */

static uint32_t pad(const struct sow_core *c, uint32_t n)
{
    return sow_align(n, c->unit);
}

static uint32_t marker_size(const struct sow_core *c)
{
    return pad(c, MARKER);
}

void sow_store_layout(struct sow_core *c)
{
    uint32_t m = c->session.nb_frag, marker, used;

    c->unit = (uint8_t)(c->cfg->port->granule < 4 ? 4 : c->cfg->port->granule);
    marker = marker_size(c);
    c->bitmap = (uint16_t)sow_bitmap_size(m);
    c->fstride = (uint16_t)(c->bitmap + marker);
    c->stride = (uint16_t)(pad(c, c->session.frag_size) + marker);
    /* For any loss whatever, so that where rows lie never depends on how many fragments were lost. */
    used = sow_align(sow_store_size(c), c->cfg->port->page);
    c->rows = c->cfg->map->download;
    if (used + (m + SOW_CORE_SPARES) * (pad(c, (m + 7u) / 8u) + c->stride) <= c->rows.size) {
        c->rows.addr += used;
        c->rows.size -= used;
    } else {
        c->rows = c->cfg->map->slot_b;
    }
}

uint32_t sow_store_size(const struct sow_core *c)
{
    return SOW_FREEZES * c->fstride + (c->session.nb_frag + SOW_CORE_SPARES) * c->stride;
}

int sow_store_rows(struct sow_core *c)
{
    c->rstride = (uint16_t)(pad(c, (c->lost + 7u) / 8u) + c->stride);
    return (c->lost + SOW_CORE_SPARES) * c->rstride <= c->rows.size;
}

static uint32_t data_addr(const struct sow_core *c, uint32_t i)
{
    return c->cfg->map->download.addr + SOW_FREEZES * c->fstride + i * c->stride;
}

static uint32_t row_addr(const struct sow_core *c, uint32_t k)
{
    return c->rows.addr + k * c->rstride;
}

static uint32_t spare_addr(const struct sow_core *c, uint32_t i, int row)
{
    return row ? row_addr(c, c->lost + i) : data_addr(c, c->session.nb_frag + i);
}

static uint32_t slot_addr(const struct sow_core *c, uint16_t id)
{
    uint32_t n = id & (SOW_SLOT_ROW - 1u);

    if ((id & SOW_SLOT_FREEZE) != 0)
        return c->cfg->map->download.addr + n * c->fstride;
    for (uint32_t i = 0; i < SOW_CORE_SPARES; i++)
        if (c->spare[i] == id)
            return spare_addr(c, i, (id & SOW_SLOT_ROW) != 0);
    return (id & SOW_SLOT_ROW) != 0 ? row_addr(c, n) : data_addr(c, n);
}

static uint32_t body_size(const struct sow_core *c, uint16_t id)
{
    uint32_t all;

    if ((id & SOW_SLOT_FREEZE) != 0)
        all = c->fstride;
    else
        all = (id & SOW_SLOT_ROW) != 0 ? c->rstride : c->stride;
    return all - marker_size(c);
}

static uint32_t marker_word(const struct sow_core *c, uint16_t id)
{
    uint32_t tag = c->at.tag + ((id & SOW_SLOT_ROW) != 0 ? 1u + c->at.freeze : 0u);

    return id | tag << 16;
}

static int xor_at(const struct sow_core *c, uint32_t addr, uint16_t id, uint8_t *dst)
{
    uint32_t word = marker_word(c, id), check = 0, buf[SOW_FLASH_CHUNK / 4];

    sow_flash_idle(c->cfg);
    for (uint32_t left = body_size(c, id); left != 0;) {
        uint32_t n = left < sizeof buf ? left : sizeof buf;

        if (sow_flash_read(c->cfg, addr, buf, n) < 0)
            return -SOW_CAUSE_FLASH_DECAY;
        for (uint32_t i = 0; i < n / 4; i++) {
            check = sow_check_word(check, buf[i]);
            if (dst != 0) {
                sow_store(dst, sow_load(dst) ^ buf[i]);
                dst += 4;
            }
        }
        addr += n;
        left -= n;
    }
    if (sow_flash_read(c->cfg, addr, buf, MARKER) < 0 || buf[1] != word || buf[0] != sow_check_word(check, word))
        return -SOW_CAUSE_FLASH_DECAY;
    return SOW_OK;
}

int sow_slot_xor(const struct sow_core *c, uint16_t id, uint8_t *dst)
{
    return xor_at(c, slot_addr(c, id), id, dst);
}

static int put_at(const struct sow_core *c, uint32_t addr, uint16_t id, const uint8_t *body)
{
    uint32_t n = body_size(c, id), m = marker_size(c), word = marker_word(c, id);
    uint32_t marker[4] = {0, word, 0, 0};

    marker[0] = sow_check_word(sow_check(0, body, n), word);
    if (!sow_flash_blank(c->cfg, addr, n + m) || sow_flash_prog(c->cfg, addr, body, n) < 0)
        return -SOW_CAUSE_FLASH_IO;
    return sow_flash_prog(c->cfg, addr + n, marker, m);
}

/* The pages under repair are counted from 1, in the download area or in slot B. */
static uint32_t under_repair(const struct sow_core *c)
{
    return c->at.repair[0] | (uint32_t)c->at.repair[1] << 8;
}

static int set_under_repair(struct sow_core *c, uint32_t page)
{
    c->at.repair[0] = (uint8_t)page;
    c->at.repair[1] = (uint8_t)(page >> 8);
    return sow_core_save(c);
}

static uint32_t scratch_page(const struct sow_core *c, uint32_t page)
{
    const struct sow_region *scratch = &c->cfg->map->scratch;

    return scratch->addr + page * c->cfg->port->page % scratch->size;
}

int sow_store_put_back(struct sow_core *c)
{
    const struct sow_map *map = c->cfg->map;
    uint32_t page = under_repair(c), size = c->cfg->port->page, addr;

    if (page == 0)
        return SOW_OK;
    addr = (page & IN_SLOT_B) != 0 ? map->slot_b.addr : map->download.addr;
    addr += ((page & ~IN_SLOT_B) - 1u) * size;
    if (sow_flash_erase(c->cfg, addr) < 0 || sow_flash_copy(c->cfg, addr, scratch_page(c, page), size) < 0)
        return -SOW_CAUSE_FLASH_IO;
    return set_under_repair(c, 0);
}

/* Copy the part of that slot which lies in the page, if the slot is sound. */
static int keep(const struct sow_core *c, uint16_t id, uint32_t page, uint32_t copy)
{
    uint32_t addr = slot_addr(c, id), from = addr, end = addr + body_size(c, id) + marker_size(c);

    if (from < page)
        from = page;
    if (end > page + c->cfg->port->page)
        end = page + c->cfg->port->page;
    if (from >= end || xor_at(c, addr, id, 0) < 0)
        return SOW_OK;
    return sow_flash_copy(c->cfg, copy + (from - page), from, end - from);
}

/* Make the pages under a slot anew, without what is not sound in them. */
static int repair(struct sow_core *c, uint16_t id)
{
    const struct sow_map *map = c->cfg->map;
    uint32_t row = id & SOW_SLOT_ROW, size = c->cfg->port->page, count = row ? c->lost : c->session.nb_frag;
    uint32_t in_b = row && c->rows.addr == map->slot_b.addr ? IN_SLOT_B : 0;
    uint32_t base = in_b ? map->slot_b.addr : map->download.addr, at = slot_addr(c, id) - base;
    uint32_t end = at + body_size(c, id) + marker_size(c);

    for (at &= 0u - size; at < end; at += size) {
        uint32_t page = (at / size + 1u) | in_b, copy = scratch_page(c, page);
        int err = c->repairs++ < REPAIRS ? sow_flash_erase(c->cfg, copy) : -SOW_CAUSE_FLASH_IO;

        for (uint32_t i = 0; i < count && err == SOW_OK; i++)
            err = keep(c, (uint16_t)(row | i), base + at, copy);
        for (uint32_t i = 0; i < SOW_FREEZES && err == SOW_OK && !row; i++)
            err = keep(c, (uint16_t)(SOW_SLOT_FREEZE | i), base + at, copy);
        if (err < 0 || set_under_repair(c, page) < 0 || sow_store_put_back(c) < 0)
            return -SOW_CAUSE_FLASH_IO;
    }
    return SOW_OK;
}

int sow_slot_put(struct sow_core *c, uint16_t id, const uint8_t *body)
{
    uint32_t i = 0;

    if (put_at(c, slot_addr(c, id), id, body) == SOW_OK)
        return SOW_OK;
    if ((id & SOW_SLOT_FREEZE) != 0)
        return -SOW_CAUSE_FLASH_IO;
    for (uint32_t k = 0; k < SOW_CORE_SPARES; k++)
        if (c->spare[k] == id)
            c->spare[k] = USED;
    for (; i < SOW_CORE_SPARES; i++) {
        if (c->spare[i] != FREE)
            continue;
        if (put_at(c, spare_addr(c, i, (id & SOW_SLOT_ROW) != 0), id, body) == SOW_OK) {
            c->spare[i] = id;
            return SOW_OK;
        }
    }
    return repair(c, id) < 0 ? -SOW_CAUSE_FLASH_IO : put_at(c, slot_addr(c, id), id, body);
}

/* What a spare place holds: an id, FREE or USED. */
static uint16_t spare_holds(struct sow_core *c, uint32_t i, int row)
{
    uint32_t addr = spare_addr(c, i, row), all = row ? c->rstride : c->stride, marker[2];

    if (sow_flash_blank(c->cfg, addr, all))
        return FREE;
    if (sow_flash_read(c->cfg, addr + all - marker_size(c), marker, MARKER) < 0)
        return USED;
    marker[1] &= 0xffffu;
    if (row ? marker[1] - SOW_SLOT_ROW >= c->lost : marker[1] >= c->session.nb_frag)
        return USED;
    return xor_at(c, addr, (uint16_t)marker[1], 0) == SOW_OK ? (uint16_t)marker[1] : USED;
}

void sow_store_find_spares(struct sow_core *c)
{
    for (uint32_t i = 0; i < SOW_CORE_SPARES; i++) {
        uint16_t in_rows = FREE;

        c->spare[i] = spare_holds(c, i, 0);
        if ((c->at.flags & SOW_FLAG_FROZEN) != 0)
            in_rows = spare_holds(c, i, 1);
        if (c->spare[i] == FREE)
            c->spare[i] = in_rows;
    }
}

int sow_block_read(const struct sow_core *c, uint32_t off, void *buf, uint32_t n)
{
    uint8_t *p = buf;

    while (n != 0) {
        uint32_t i = off / c->session.frag_size, at = off % c->session.frag_size;
        uint32_t part = c->session.frag_size - at;

        if (part > n)
            part = n;
        if (sow_flash_read(c->cfg, slot_addr(c, (uint16_t)i) + at, p, part) < 0)
            return -SOW_CAUSE_FLASH_DECAY;
        p += part;
        off += part;
        n -= part;
    }
    return SOW_OK;
}
