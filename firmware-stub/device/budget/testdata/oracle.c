/* Asks the library itself: arena, and the smallest download region that it accepts, in pages of 128 bytes.
 * Reads lines "M S granule", answers "arena pages". */
#include <stdio.h>
#include <string.h>

#include "sow_core.h"

#define PAGE 128u
#define DOWNLOAD 0x10000u

static uint8_t flash[DOWNLOAD]; /* all but the download region, which a session only erases later */
static uint8_t arena[65536] __attribute__((aligned(8)));

static int rd(void *user, uint32_t addr, void *buf, uint32_t n)
{
    (void)user;
    if (addr >= DOWNLOAD)
        memset(buf, 0xff, n);
    else
        memcpy(buf, flash + addr, n);
    return 0;
}

static int wr(void *user, uint32_t addr, const void *buf, uint32_t n)
{
    (void)user;
    if (addr < DOWNLOAD)
        memcpy(flash + addr, buf, n);
    return 0;
}

static int er(void *user, uint32_t addr, uint32_t n)
{
    (void)user;
    if (addr < DOWNLOAD)
        memset(flash + addr, 0xff, n);
    return 0;
}

static int accepts(unsigned m, unsigned s, unsigned granule, uint32_t pages)
{
    struct sow_port port;
    struct sow_map map = {{0, 0x4000}, {0x4000, 0x4000}, {DOWNLOAD, 0}, {0x8000, 0x1000}, {0x9000, 0x1000}, {0xa000, 0x1000}};
    struct sow_identity identity;
    struct sow_config cfg = {&port, &map, &identity};
    struct sow_core core;
    struct sow_session session;

    memset(&port, 0, sizeof port);
    memset(&identity, 0, sizeof identity);
    memset(&session, 0, sizeof session);
    memset(flash, 0xff, sizeof flash);
    port.read = rd;
    port.prog = wr;
    port.erase = er;
    port.granule = granule;
    port.page = PAGE;
    port.erase_value = 0xff;
    map.download.size = pages * PAGE;
    session.matrix = SOW_MATRIX_V1;
    session.nb_frag = (uint16_t)m;
    session.frag_size = (uint8_t)s;
    if (sow_core_open(&core, &cfg, arena, sizeof arena) < 0)
        return 0;
    return sow_core_session(&core, &session) >= 0;
}

int main(void)
{
    unsigned m, s, granule;

    while (scanf("%u %u %u", &m, &s, &granule) == 3) {
        uint32_t low = 1, high = 100000; /* accepted from high on */

        while (low < high) {
            uint32_t mid = (low + high) / 2;

            if (accepts(m, s, granule, mid))
                high = mid;
            else
                low = mid + 1;
        }
        printf("%u %u\n", (unsigned)sow_core_arena_size((uint16_t)m, (uint8_t)s, 0), (unsigned)low);
    }
    return 0;
}
