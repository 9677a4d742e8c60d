#include "sow_flash.h"

#include <string.h>

int sow_flash_prog(const struct sow_config *cfg, uint32_t addr, const void *buf, uint32_t len)
{
    const struct sow_port *port = cfg->port;
    const uint8_t *p = buf;
    uint8_t back[SOW_FLASH_CHUNK];

    if (port->prog(port->user, addr, buf, len) < 0)
        return -SOW_CAUSE_FLASH_IO;
    while (len != 0) {
        uint32_t n = len < sizeof back ? len : sizeof back;

        if (port->read(port->user, addr, back, n) < 0 || memcmp(back, p, n) != 0)
            return -SOW_CAUSE_FLASH_IO;
        addr += n;
        p += n;
        len -= n;
    }
    return SOW_OK;
}

int sow_flash_erase(const struct sow_config *cfg, uint32_t addr, uint32_t len)
{
    const struct sow_port *port = cfg->port;

    if (port->idle != 0)
        port->idle(port->user);
    return port->erase(port->user, addr, len) < 0 ? -SOW_CAUSE_FLASH_IO : SOW_OK;
}

static int all_erased(const struct sow_config *cfg, const uint8_t *p, uint32_t n)
{
    while (n-- != 0)
        if (p[n] != cfg->port->erase_value)
            return 0;
    return 1;
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

    for (uint32_t at = 0; at < len; at += sizeof buf) {
        if (sow_flash_read(cfg, from + at, buf, sizeof buf) < 0)
            return -SOW_CAUSE_FLASH_IO;
        if (!all_erased(cfg, buf, sizeof buf) && sow_flash_prog(cfg, to + at, buf, sizeof buf) < 0)
            return -SOW_CAUSE_FLASH_IO;
    }
    return SOW_OK;
}

uint32_t sow_check(uint32_t c, const void *data, uint32_t n)
{
    const uint8_t *p = data;

    for (; n >= 4; n -= 4, p += 4) {
        uint32_t w;

        memcpy(&w, p, 4);
        c = sow_check_word(c, w);
    }
    return c;
}
