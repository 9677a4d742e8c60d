/* SPDX-License-Identifier: Apache-2.0 */
#include "sow_log.h"

#include <string.h>

#include "sow_flash.h"

#define RECORD 16u
#define MAGIC 0x4c574f53u /* "SOWL" */
#define BLOB (2u * RECORD) /* offset of the blob, after the header and its copy */

struct header {
    uint32_t magic, gen, blob_check, check;
};

struct record {
    uint8_t id;
    uint8_t data[SOW_LOG_DATA];
    uint32_t check; /* aligns the struct, too */
};

static uint32_t area_size(const struct sow_log *l)
{
    return l->region->size / 2u & (0u - l->cfg->port->page);
}

static uint32_t area_addr(const struct sow_log *l, uint8_t area)
{
    return l->region->addr + area * area_size(l);
}

static uint32_t first_record(const struct sow_log *l)
{
    return BLOB + sow_align(l->blob, RECORD);
}

static int read_header(const struct sow_log *l, uint8_t area, struct header *h)
{
    for (uint32_t at = 0; at < BLOB; at += RECORD)
        if (sow_flash_read(l->cfg, area_addr(l, area) + at, h, sizeof *h) == SOW_OK && h->magic == MAGIC &&
            h->check == sow_check(0, h, 12) && h->gen != 0)
            return 1;
    return 0;
}

static int read_record(const struct sow_log *l, uint32_t at, struct record *r)
{
    return sow_flash_read(l->cfg, area_addr(l, l->area) + at, r, sizeof *r) == SOW_OK &&
           r->check == sow_check(l->gen, r, 12);
}

void sow_log_open(struct sow_log *l, const struct sow_config *cfg, const struct sow_region *region, uint16_t blob)
{
    struct header h;

    l->cfg = cfg;
    l->region = region;
    l->blob = blob;
    l->gen = 0;
    l->area = 0;
    for (uint8_t area = 0; area < 2; area++)
        if (read_header(l, area, &h) && (l->gen == 0 || (int32_t)(h.gen - l->gen) > 0)) {
            l->gen = h.gen;
            l->area = area;
        }
    /* After the last record that is not blank; a torn one in between is skipped by readers. */
    l->next = area_size(l);
    while (l->next > first_record(l) && sow_flash_blank(cfg, area_addr(l, l->area) + l->next - RECORD, RECORD))
        l->next -= RECORD;
}

int sow_log_get(const struct sow_log *l, uint8_t id, void *data)
{
    struct record r;

    if (l->gen == 0)
        return 0;
    for (uint32_t at = l->next; at > first_record(l); at -= RECORD)
        if (read_record(l, at - RECORD, &r) && r.id == id) {
            memcpy(data, r.data, SOW_LOG_DATA);
            return 1;
        }
    return 0;
}

static int append(struct sow_log *l, struct record *r)
{
    r->check = sow_check(l->gen, r, 12);
    while (l->next + RECORD <= area_size(l)) {
        uint32_t addr = area_addr(l, l->area) + l->next;

        l->next += RECORD;
        if (sow_flash_prog(l->cfg, addr, r, RECORD) == SOW_OK)
            return SOW_OK;
    }
    return -SOW_CAUSE_FLASH_IO;
}

/* Start the other area with that record, that blob (NULL: the present one) and what is live in this area. */
static int turn(struct sow_log *l, const uint8_t *blob, struct record *r)
{
    struct sow_log new = *l;
    struct header h;
    uint32_t base;

    new.area = l->gen != 0 ? l->area ^ 1u : 0;
    new.gen = l->gen + 1u;
    new.next = first_record(l);
    base = area_addr(&new, new.area);
    if (new.next + 2u * RECORD > area_size(l))
        return -SOW_CAUSE_FLASH_IO;
    for (uint32_t at = 0; at < area_size(l); at += l->cfg->port->page)
        if (sow_flash_erase(l->cfg, base + at) < 0)
            return -SOW_CAUSE_FLASH_IO;
    h.magic = MAGIC;
    h.gen = new.gen;
    h.blob_check = 0;
    for (uint32_t at = 0; at < l->blob; at += RECORD) {
        uint32_t part[RECORD / 4];

        if (blob != 0)
            memcpy(part, blob + at, RECORD);
        else if (sow_flash_read(l->cfg, area_addr(l, l->area) + BLOB + at, part, RECORD) < 0)
            return -SOW_CAUSE_FLASH_IO;
        h.blob_check = sow_check(h.blob_check, part, RECORD);
        if (sow_flash_prog(l->cfg, base + BLOB + at, part, RECORD) < 0)
            return -SOW_CAUSE_FLASH_IO;
    }
    if (append(&new, r) < 0)
        return -SOW_CAUSE_FLASH_IO;
    for (uint8_t id = 0; id < SOW_LOG_IDS; id++) {
        struct record live;

        live.id = id;
        if (id != r->id && sow_log_get(l, id, live.data) && append(&new, &live) < 0)
            return -SOW_CAUSE_FLASH_IO;
    }
    h.check = sow_check(0, &h, 12);
    /* One header suffices, until it rots. */
    if ((sow_flash_prog(l->cfg, base, &h, sizeof h) < 0) + (sow_flash_prog(l->cfg, base + RECORD, &h, sizeof h) < 0) == 2)
        return -SOW_CAUSE_FLASH_IO;
    *l = new;
    return SOW_OK;
}

int sow_log_put(struct sow_log *l, uint8_t id, const void *data)
{
    struct record r;

    if (sow_log_get(l, id, r.data) && memcmp(r.data, data, SOW_LOG_DATA) == 0)
        return SOW_OK;
    r.id = id;
    memcpy(r.data, data, SOW_LOG_DATA);
    if (l->gen != 0 && append(l, &r) == SOW_OK)
        return SOW_OK;
    return turn(l, 0, &r);
}

int sow_log_replace(struct sow_log *l, const uint8_t *blob, uint8_t id, const void *data)
{
    struct record r;

    r.id = id;
    memcpy(r.data, data, SOW_LOG_DATA);
    return turn(l, blob, &r);
}

int sow_log_blob(const struct sow_log *l, uint8_t *blob)
{
    uint32_t addr = area_addr(l, l->area) + BLOB, check = 0;
    struct header h;

    for (uint32_t at = 0; at < l->blob; at += RECORD) {
        uint32_t part[RECORD / 4];

        if (sow_flash_read(l->cfg, addr + at, part, RECORD) < 0)
            return -SOW_CAUSE_FLASH_IO;
        check = sow_check(check, part, RECORD);
        memcpy(blob + at, part, RECORD);
    }
    return l->gen != 0 && read_header(l, l->area, &h) && check == h.blob_check ? SOW_OK : -SOW_CAUSE_FLASH_IO;
}
