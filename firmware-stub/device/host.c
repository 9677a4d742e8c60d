/* SPDX-License-Identifier: Apache-2.0 */
#include "host.h"

#include <stdlib.h>
#include <string.h>

#include "beacon.h"

#define HEARTBEAT_SECONDS 60u
#define WATCHDOG_BOOTS 16u /* more than any boot-attempt limit */

static void emit(void *user, const uint8_t *bytes, uint32_t n)
{
    struct host *h = user;
    if (h->out_len + n > h->out_cap) {
        uint32_t cap = 2u * (h->out_len + n);
        uint8_t *out = realloc(h->out, cap);
        if (out == NULL) {
            abort(); /* the harness, not the device, is out of memory */
        }
        h->out = out;
        h->out_cap = cap;
    }
    memcpy(h->out + h->out_len, bytes, n);
    h->out_len += n;
}

static int flash_read(void *user, uint32_t addr, void *buf, uint32_t len)
{
    struct host *h = user;
    return sow_flash_emu_read(&h->flash, addr, buf, len);
}

static int flash_prog(void *user, uint32_t addr, const void *buf, uint32_t len)
{
    struct host *h = user;
    return sow_flash_emu_prog(&h->flash, addr, buf, len);
}

static int flash_erase(void *user, uint32_t addr, uint32_t len)
{
    struct host *h = user;
    return sow_flash_emu_erase(&h->flash, addr, len);
}

static uint32_t random_bits(void *user)
{
    struct host *h = user;
    h->random = h->random * 1664525u + 1013904223u;
    return h->random ^ h->random >> 15;
}

static void judge(void *user, struct sow_modem *m, uint32_t now)
{
    struct host *h = user;
    int good = h->verdict == BEACON_PASS;
    sow_modem_console(m, good ? "beacon: self-test passed (modelled)" : "beacon: self-test FAILED (modelled)");
    sow_self_test(&m->s, now, good ? SOW_CAUSE_OK : SOW_CAUSE_SELF_TEST_FAILED);
}

/* What the image in slot A says it would do; an image that says nothing passes. */
static uint32_t read_verdict(struct host *h, uint32_t entry)
{
    uint8_t raw[sizeof(struct beacon_info)];
    uint32_t word[3];
    if (flash_read(h, entry + BEACON_INFO_OFFSET, raw, sizeof raw) != 0) {
        return BEACON_PASS;
    }
    for (int i = 0; i < 3; i++) {
        word[i] = (uint32_t)raw[4 * i] | (uint32_t)raw[4 * i + 1] << 8 | (uint32_t)raw[4 * i + 2] << 16 |
                  (uint32_t)raw[4 * i + 3] << 24;
    }
    return word[0] == BEACON_INFO_MAGIC ? word[2] : (uint32_t)BEACON_PASS;
}

void host_init(struct host *h)
{
    h->port.user = h;
    h->port.read = flash_read;
    h->port.prog = flash_prog;
    h->port.erase = flash_erase;
    h->port.random = random_bits;
}

void host_power_up(struct host *h)
{
    struct sow_config config = {&h->port, &h->map, &h->identity};
    const struct sow_modem_app app = {.user = h, .boot = judge, .heartbeat = HEARTBEAT_SECONDS};
    uint32_t entry = 0;

    h->running = 0;
    memset(&h->modem, 0, sizeof h->modem);
    h->modem.write = emit;
    h->modem.write_user = h;
    for (uint32_t i = 0; i < WATCHDOG_BOOTS && !h->running; i++) {
        h->boots++;
        if (sow_boot(&config, &entry) != SOW_OK) {
            break;
        }
        h->verdict = read_verdict(h, entry);
        if (h->verdict == BEACON_HANG) {
            sow_modem_console(&h->modem, "beacon: hangs, reset by the watchdog (modelled)");
            continue;
        }
        h->running = 1;
    }
    if (!h->running) {
        uint8_t never[8];
        memset(never, 0xff, sizeof never);
        sow_modem_console(&h->modem, "stub: no bootable image");
        sow_modem_send(&h->modem, SOW_MODEM_IDLE_UNTIL, never, sizeof never);
        return;
    }
    memset(h->arena, 0, h->arena_size);
    sow_modem_init(&h->modem, &config, &h->options, &app, h->arena, h->arena_size, emit, h);
}

void host_input(struct host *h, const uint8_t *bytes, uint32_t n)
{
    if (!h->running) {
        uint8_t never[8];
        memset(never, 0xff, sizeof never);
        sow_modem_send(&h->modem, SOW_MODEM_IDLE_UNTIL, never, sizeof never);
        return;
    }
    sow_modem_input(&h->modem, bytes, n);
    if (h->modem.reset_wanted != 0) {
        host_power_up(h);
    }
}
