/* Every byte that comes from the air, and every answer, under the sanitizers: downlinks on all ports, well formed,
 * damaged and random, while the device works, sleeps, is reset and has its radio stolen. The flash refuses what
 * real flash refuses; slot A never changes, because nothing that is made here carries a valid signature.
 *
 *   air_fuzz SECONDS SEED
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <time.h>

#include "kit.h"
#include "sow.h"

static struct kit k;
static struct sow s;
static struct bundle b;
static uint32_t seed, now, resets, downlinks, uplinks, sessions;
static int reboot_wanted;

static void reboot(void *user)
{
    (void)user;
    reboot_wanted = 1;
}

static uint32_t random_bits(void *user)
{
    (void)user;
    return rnd(&seed);
}

static void group(void *user, const struct sow_mc_group *g)
{
    (void)user;
    CHECK(g->id < 4);
}

static void window(void *user, const struct sow_mc_session *w)
{
    (void)user;
    CHECK(w->id < 4);
}

static void start(void)
{
    struct sow_options opt = {.package_version = (uint8_t)(1 + rnd(&seed) % 2), .confirm = (uint8_t)(rnd(&seed) % 3)};
    uint32_t entry;

    reboot_wanted = 0;
    resets++;
    CHECK(sow_boot(&k.config, &entry) == SOW_OK);
    CHECK(sow_open(&s, &k.config, &opt, k.arena, k.arena_size, now) >= 0);
    sow_joined(&s, now);
}

static uint32_t noise(uint8_t *p, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        p[i] = (uint8_t)rnd(&seed);
    return n;
}

/* One message that might be meant. */
static uint32_t message(uint8_t *p, uint8_t *port)
{
    uint32_t r = rnd(&seed), n;

    *port = (uint8_t)(r % 16 == 0 ? SOW_PORT_MULTIPACKAGE : SOW_PORT_MCSETUP + r % 5);
    switch (r >> 8 & 15u) {
    case 0: case 1: { /* FragSessionSetupReq, mostly sane */
        uint16_t m = (uint16_t)(rnd(&seed) % 60);

        *port = SOW_PORT_DATABLOCK;
        p[0] = 2;
        noise(p + 1, 16);
        p[1] &= 0x3f;
        p[2] = (uint8_t)m;
        p[3] = (uint8_t)(rnd(&seed) % 64 == 0);
        p[4] = (uint8_t)(1 + rnd(&seed) % 60);
        p[5] &= 0x47;
        p[6] = (uint8_t)(rnd(&seed) % 4);
        sessions++;
        return s.package_version == 1 ? 11 : 17;
    }
    case 2: case 3: case 4: case 5: case 6: case 7: case 8: { /* DataFragment of the session there is, or nearly */
        uint16_t at = (uint16_t)(rnd(&seed) % (2u * s.core.at.session.nb_frag + 3u));

        *port = SOW_PORT_DATABLOCK;
        p[0] = 8;
        p[1] = (uint8_t)at;
        p[2] = (uint8_t)(at >> 8 | (uint32_t)s.core.at.session.index << 6);
        n = s.core.at.session.frag_size;
        noise(p + 3, n);
        if (at != 0 && at <= s.core.at.session.nb_frag && (at - 1u) * n + n < sizeof b.block)
            memcpy(p + 3, b.block + (at - 1u) * n, n); /* a manifest that parses */
        return 3 + n - (rnd(&seed) % 32 == 0);
    }
    case 9: /* a command with its length */
        noise(p, 30);
        p[0] = (uint8_t)(rnd(&seed) % 6);
        return 1 + rnd(&seed) % 30;
    case 10: /* AppTimeAns that may match */
        *port = SOW_PORT_CLOCKSYNC;
        noise(p, 6);
        p[0] = 1;
        p[5] = s.token;
        return 6;
    case 11: /* several packages in one */
        *port = SOW_PORT_MULTIPACKAGE;
        n = noise(p, 2 + rnd(&seed) % 60);
        for (uint32_t i = 0; i < n; i += 1 + rnd(&seed) % 8)
            p[i] = (uint8_t)(rnd(&seed) % 2 ? 0x80u | rnd(&seed) % 6 : rnd(&seed) % 6);
        return n;
    default:
        return noise(p, rnd(&seed) % 256);
    }
}

int main(int argc, char **argv)
{
    static const struct layout l = {256, 8, 4096, 8192, 2048, 1024, 1024, 0xff};
    time_t end = time(0) + (argc > 1 ? atoi(argv[1]) : 2);

    seed = argc > 2 ? (uint32_t)atoi(argv[2]) : 20260101;
    kit_open(&k, &l, 2000, 4);
    k.arena_size = 1024;
    k.port.mc_group = group;
    k.port.mc_session = window;
    k.port.reboot = reboot;
    k.port.random = random_bits;
    make_bundle(&b, &k, SOW_CODEC_FULL, 1500, 5, 40, SOW_MATRIX_V1);
    b.block[SOW_MANIFEST_SIGNED]++; /* the signature */
    snprintf(context, sizeof context, "fuzz, seed %u", (unsigned)seed);
    start();
    for (; downlinks % 256 != 0 || time(0) < end; downlinks++) {
        /* Exactly as large as the message, so that the sanitizer sees a byte too far. */
        uint8_t p[300], port, *copy;
        uint32_t n = message(p, &port), wake;
        struct sow_uplink up;

        copy = malloc(n + (n == 0));
        memcpy(copy, p, n);
        sow_downlink(&s, now, port, rnd(&seed) % 4 ? SOW_UNICAST : (uint8_t)rnd(&seed), copy, n);
        free(copy);
        for (uint32_t i = rnd(&seed) % 40; i != 0 && !reboot_wanted; i--) {
            (void)sow_poll(&s, now, &wake);
            while (sow_uplink(&s, now, &up) == SOW_DONE) {
                CHECK(up.len > 0 && up.len <= sizeof up.data);
                uplinks++;
            }
        }
        now += rnd(&seed) % 16 == 0 ? rnd(&seed) % 100000 : rnd(&seed) % 3;
        if (reboot_wanted || rnd(&seed) % 200 == 0)
            start();
        CHECK(k.flash.violations == 0);
        if (downlinks % 64 == 0)
            CHECK(memcmp(sow_flash_emu_peek(&k.flash, k.map.slot_a.addr), k.old, k.old_size) == 0);
    }
    CHECK(uplinks > 0 && sessions > 0 && resets > 1);
    printf("from the air       %u downlinks, %u uplinks, %u session set-ups, %u resets, seed %s\n", (unsigned)downlinks,
           (unsigned)uplinks, (unsigned)sessions, (unsigned)resets, argc > 2 ? argv[2] : "20260101");
    kit_close(&k);
    return 0;
}
