/* SPDX-License-Identifier: Apache-2.0 */
#include "sow_flash.h"

#include "sow_services.h"

#define GRANULE_MAX 16u

int sow_flash_read(const struct sow_config *cfg, uint32_t addr, void *buf, uint32_t len)
{
    const struct sow_port *port = cfg->port;

    if (port->idle != 0)
        port->idle(port->user);
    return port->read(port->user, addr, buf, len) < 0 ? -SOW_CAUSE_FLASH_IO : SOW_OK;
}

int sow_flash_is(const struct sow_config *cfg, uint32_t addr, const void *want, uint32_t len)
{
    const uint8_t *p = want;
    uint8_t buf[GRANULE_MAX];

    while (len != 0) {
        uint32_t n = len < sizeof buf ? len : sizeof buf;

        if (sow_flash_read(cfg, addr, buf, n) < 0)
            return 0;
        addr += n;
        len -= n;
        for (const uint8_t *is = buf; n != 0; n--)
            if (*is++ != (p != 0 ? *p++ : cfg->port->erase_value))
                return 0;
    }
    return 1;
}

int sow_flash_prog(const struct sow_config *cfg, uint32_t addr, const void *buf, uint32_t len)
{
    const struct sow_port *port = cfg->port;
    const uint8_t *p = buf, *end = p + len;
    uint32_t g = port->granule;

    /* A granule that is to read as erased stays so: programmed, it would be refused a second time unseen. */
    for (; p != end; p += g, addr += g)
        for (int done = 0; !sow_flash_is(cfg, addr, p, g); done = 1)
            if (done || !sow_flash_is(cfg, addr, 0, g) || port->prog(port->user, addr, p, g) < 0)
                return -SOW_CAUSE_FLASH_IO;
    return SOW_OK;
}

int sow_flash_erase(const struct sow_config *cfg, uint32_t addr, uint32_t len)
{
    const struct sow_port *port = cfg->port;
    uint32_t page = port->page, end = addr + len;

    for (; addr != end; addr += page)
        if (port->erase(port->user, addr, page) < 0 || !sow_flash_is(cfg, addr, 0, page))
            return -SOW_CAUSE_FLASH_IO;
    return SOW_OK;
}

int sow_flash_copy(const struct sow_config *cfg, uint32_t to, uint32_t from)
{
    uint32_t page = cfg->port->page, end = to + page;
    uint8_t buf[GRANULE_MAX];
    int err = sow_flash_erase(cfg, to, page);

    for (; err == SOW_OK && to != end; to += sizeof buf, from += sizeof buf)
        if ((err = sow_flash_read(cfg, from, buf, sizeof buf)) == SOW_OK)
            err = sow_flash_prog(cfg, to, buf, sizeof buf);
    return err;
}

uint32_t sow_check(uint32_t c, const void *data, uint32_t n)
{
    const sow_word *p = data, *end = p + n / 4;

    while (p != end) {
        c = (c ^ *p++) * 0x9e3779b1u;
        c ^= c >> 15;
    }
    return c;
}

/* These are the library's own functions: it needs none of the boot stub. */
int sow_services_check(void)
{
    return SOW_OK;
}
