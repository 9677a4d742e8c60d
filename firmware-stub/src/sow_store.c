/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "sow_core_private.h"

/* The download area: freeze records, one slot per uncoded fragment, spares. Rows and their spares lie in slot B.
 *
 * A slot is a body padded to whole granules and a marker that is programmed after it: the checksum of the body
 * and the marker's second word, which is the slot id and a tag. Tags tell sessions apart, and the rows of
 * different frozen columns. A slot that is torn, or whose granules refuse, is replaced by a spare. */

#define MARKER 8u
#define FREE 0xffffu
#define USED 0xfffeu

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
    uint32_t m = c->session.nb_frag, marker;

    c->unit = (uint8_t)(c->cfg->port->granule < 4 ? 4 : c->cfg->port->granule);
    marker = marker_size(c);
    c->bitmap = (uint16_t)sow_bitmap_size(m);
    c->fstride = (uint16_t)(c->bitmap + marker);
    c->stride = (uint16_t)(pad(c, c->session.frag_size) + marker);
}

uint32_t sow_store_size(const struct sow_core *c)
{
    return SOW_FREEZES * c->fstride + (c->session.nb_frag + SOW_CORE_SPARES) * c->stride;
}

int sow_store_rows(struct sow_core *c)
{
    c->rstride = (uint16_t)(pad(c, (c->lost + 7u) / 8u) + c->stride);
    return (c->lost + SOW_CORE_SPARES) * c->rstride <= c->cfg->map->slot_b.size;
}

static uint32_t data_addr(const struct sow_core *c, uint32_t i)
{
    return c->cfg->map->download.addr + SOW_FREEZES * c->fstride + i * c->stride;
}

static uint32_t row_addr(const struct sow_core *c, uint32_t k)
{
    return c->cfg->map->slot_b.addr + k * c->rstride;
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
    return -SOW_CAUSE_FLASH_IO;
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
