/* SPDX-License-Identifier: Apache-2.0 */
#include "sow_flash.h"

#include <string.h>

static int all_erased(const struct sow_config *cfg, const uint8_t *p, uint32_t n)
{
    while (n-- != 0)
        if (p[n] != cfg->port->erase_value)
            return 0;
    return 1;
}

int sow_flash_read(const struct sow_config *cfg, uint32_t addr, void *buf, uint32_t len)
{
    return cfg->port->read(cfg->port->user, addr, buf, len) < 0 ? -SOW_CAUSE_FLASH_IO : SOW_OK;
}

void sow_flash_idle(const struct sow_config *cfg)
{
    if (cfg->port->idle != 0)
        cfg->port->idle(cfg->port->user);
}

int sow_flash_prog(const struct sow_config *cfg, uint32_t addr, const void *buf, uint32_t len)
{
    const struct sow_port *port = cfg->port;
    const uint8_t *p = buf, *end = p + len;
    uint32_t g = port->granule;
    uint8_t back[16];

    /* A granule that would read as erased stays so: programmed, it would be refused a second time unseen. */
    for (; p < end; p += g, addr += g)
        if ((!all_erased(cfg, p, g) && port->prog(port->user, addr, p, g) < 0) ||
            port->read(port->user, addr, back, g) < 0 || memcmp(back, p, g) != 0)
            return -SOW_CAUSE_FLASH_IO;
    return SOW_OK;
}

int sow_flash_erase(const struct sow_config *cfg, uint32_t addr)
{
    const struct sow_port *port = cfg->port;

    sow_flash_idle(cfg);
    if (port->erase(port->user, addr, port->page) < 0 || !sow_flash_blank(cfg, addr, port->page))
        return -SOW_CAUSE_FLASH_IO;
    return SOW_OK;
}

int sow_flash_blank(const struct sow_config *cfg, uint32_t addr, uint32_t len)
{
    uint8_t buf[SOW_FLASH_CHUNK];

    while (len != 0) {
        uint32_t n = len < sizeof buf ? len : sizeof buf;

        if (sow_flash_read(cfg, addr, buf, n) < 0 || !all_erased(cfg, buf, n))
            return 0;
        addr += n;
        len -= n;
    }
    return 1;
}

int sow_flash_copy(const struct sow_config *cfg, uint32_t to, uint32_t from, uint32_t len)
{
    uint8_t buf[SOW_FLASH_CHUNK];

    while (len != 0) {
        uint32_t n = len < sizeof buf ? len : sizeof buf;

        if (sow_flash_read(cfg, from, buf, n) < 0 || sow_flash_prog(cfg, to, buf, n) < 0)
            return -SOW_CAUSE_FLASH_IO;
        from += n;
        to += n;
        len -= n;
    }
    return SOW_OK;
}

uint32_t sow_check(uint32_t c, const void *data, uint32_t n)
{
    const uint8_t *p = data, *end = p + n;

    for (; p < end; p += 4)
        c = sow_check_word(c, sow_load(p));
    return c;
}
