/* SPDX-License-Identifier: Apache-2.0 */
#include "sow_log.h"

#include <string.h>

#include "sow_flash.h"

static uint32_t area_size(const struct sow_log *l)
{
    return l->region->size / 2u & (0u - l->cfg->port->page);
}

static sow_word *number(void *record, uint32_t size)
{
    return (sow_word *)record + size / 4u - 2u;
}

static uint32_t checksum(const void *record, uint32_t size)
{
    return sow_check(size, record, size - 4u);
}

void sow_log_load(struct sow_log *l, void *record, uint32_t size)
{
    uint32_t at = l->region->addr, end = at + 2u * area_size(l), buf[SOW_LOG_RECORD / 4];
    const sow_word *found = number(buf, size), *newest = number(record, size);

    memset(record, 0, size);
    l->at = end - size; /* with none, the first follows at the head of the other area */
    for (; at != end; at += size)
        if (sow_flash_read(l->cfg, at, buf, size) == SOW_OK && found[1] == checksum(buf, size) && *found > *newest) {
            memcpy(record, buf, size);
            l->at = at;
        }
}

int sow_log_put(struct sow_log *l, void *record, uint32_t size, const void *blob)
{
    uint32_t first = l->region->addr, area = area_size(l), base = l->at < first + area ? first : first + area;
    uint32_t at = l->at + size, head = blob != 0 ? SOW_LOG_BLOB : 0;
    sow_word *word = number(record, size);

    ++*word;
    word[1] = checksum(record, size);
    for (;; at += size) {
        if (at + head + size > base + area) {
            if (l->at - base >= area) /* this is the other one */
                return -SOW_CAUSE_FLASH_IO;
            at = base = first + first + area - base;
            if (sow_flash_erase(l->cfg, base, area) < 0)
                return -SOW_CAUSE_FLASH_IO;
        }
        if (sow_flash_prog(l->cfg, at, blob, head) == SOW_OK && sow_flash_prog(l->cfg, at + head, record, size) == SOW_OK)
            break;
    }
    l->at = at + head;
    return SOW_OK;
}

void sow_log_turn(struct sow_log *l, uint32_t size)
{
    uint32_t end = l->region->addr + area_size(l);

    l->at = (l->at < end ? end : end + area_size(l)) - size;
}
