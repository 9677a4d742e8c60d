/* An application outside the source tree: opens the library on a flash in RAM and says what it needs. */
#include <stdio.h>
#include <string.h>

#include <sow.h>
#include <sow_selftest.h>

static uint8_t flash[64 * 1024];

static int flash_read(void *user, uint32_t addr, void *buf, uint32_t len)
{
    (void)user;
    memcpy(buf, flash + addr, len);
    return 0;
}

static int flash_prog(void *user, uint32_t addr, const void *buf, uint32_t len)
{
    (void)user;
    if ((addr | len) % 8u != 0)
        return -1;
    for (uint32_t i = 0; i < len; i++)
        if (flash[addr + i] != 0xff)
            return -1;
    memcpy(flash + addr, buf, len);
    return 0;
}

static int flash_erase(void *user, uint32_t addr, uint32_t len)
{
    (void)user;
    if ((addr | len) % 1024u != 0)
        return -1;
    memset(flash + addr, 0xff, len);
    return 0;
}

static uint32_t seed = 1;

static uint32_t random_bits(void *user)
{
    (void)user;
    return seed = seed * 1664525u + 1013904223u;
}

int main(void)
{
    static const struct sow_map map = {{0, 0x4000}, {0x4000, 0x4000}, {0x8000, 0x4000},
                                       {0xc000, 0x1000}, {0xd000, 0x1000}, {0xe000, 0x1000}};
    static struct sow_port port;
    static struct sow_identity identity;
    static const struct sow_options options;
    static struct sow s;
    static uint8_t arena[1024] SOW_ALIGNED;
    struct sow_config config = {&port, &map, &identity};
    struct sow_selftest_report report;
    uint32_t entry;
    int r;

    memset(flash, 0xff, sizeof flash);
    memset(&report, 0, sizeof report);
    port.read = flash_read;
    port.prog = flash_prog;
    port.erase = flash_erase;
    port.random = random_bits;
    port.granule = 8;
    port.page = 1024;
    port.erase_value = 0xff;
    r = sow_port_selftest(&port, &map, &report);
    if (r == SOW_MORE)
        r = sow_port_selftest(&port, &map, &report);
    printf("selftest %d %s\n", r, sow_selftest_text(report.clause));
    printf("open %d\n", sow_open(&s, &config, &options, arena, sizeof arena, 0));
    printf("arena %u\n", (unsigned)sow_core_arena_size(300, 48, 0));
    return r != SOW_OK || sow_boot(&config, &entry) != -SOW_CAUSE_IMAGE_INVALID;
}
