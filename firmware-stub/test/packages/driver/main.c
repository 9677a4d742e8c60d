/* Random messages and random frames into the packages and the modem shell, for the sanitizers.
 *
 *     driver SEED RUNS
 *
 * Half of the messages are real requests with a few bytes changed. Every buffer has exactly the size of its
 * contents. Prints how many messages and frames that were. Exit status 1: the device did not come to rest or said
 * something too long. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"

static struct harness h;
static uint32_t state, messages, frames;

static uint32_t rnd(uint32_t bound)
{
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state % bound;
}

static const char *const requests[] = {
    "\312\001\001\002\003\004\000", "\312\002\002\012", "\312\002\003\007",
    "\310\001\000", "\310\002\001\017",
    "\310\036\002\000\001\002\003\004\001\002\003\004\005\006\007\010\011\012\013\014\015\016\017\020\000\000\000\000\377\377\000\000",
    "\310\002\003\000", "\310\013\004\000\000\020\000\000\010\322\255\204\005", "\310\013\005\000\000\020\000\000\010\322\255\204\005",
    "\311\002\001\001", "\311\021\002\001\004\000\004\100\000\001\002\003\004\001\000\001\002\003\004", "\311\002\003\000",
    "\311\002\004\000", "\311\007\010\001\000\001\002\003\004", "\313\001\001", "\313\005\002\000\020\000\000",
    "\313\004\003\010\000\000", "\313\001\004", "\313\005\005\001\000\000\000", "\314\001\001", "\341\003\000\001\002",
    "\341\011\202\001\001\203\001\001\204\001\001", "\341\003\002\000\040",
};

/* A message in a block of its own size; *port is chosen. */
static uint8_t *message(uint8_t *port, uint32_t *len)
{
    uint8_t buf[96], *p;
    uint32_t n = rnd(64);

    *port = (uint8_t)(200 + rnd(6));
    if (*port == 205) *port = 225;
    for (uint32_t i = 0; i < n; i++) buf[i] = (uint8_t)rnd(256);
    if (rnd(4)) {
        const uint8_t *r = (const uint8_t *)requests[rnd(sizeof requests / sizeof *requests)];

        *port = r[0];
        n = r[1];
        memcpy(buf, r + 2, n);
        if (rnd(2)) buf[rnd(n)] = (uint8_t)rnd(256);
        if (rnd(8) == 0) n = rnd(n + 1);
    }
    if (n) {
        p = malloc(n);
        memcpy(p, buf, n);
    } else {
        p = malloc(1);
    }
    *len = n;
    return p;
}

static void fail(const char *what)
{
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static void packages(void)
{
    uint32_t now = rnd(0x7fffffff) * 2u, limit = 11 + rnd(54), wake;
    struct sow_uplink up;

    h.opt.package_version = (uint8_t)rnd(3);
    h.opt.max_payload = (uint8_t)limit;
    fake.boot.state = (uint8_t)rnd(6);
    fake.open_result = rnd(16) ? 0 : SOW_MORE;
    sow_open(&h.s, &h.cfg, &h.opt, h.arena, sizeof h.arena, now);
    for (int i = 0; i < 40; i++) {
        uint8_t port;
        uint32_t len, group = rnd(3);
        uint8_t *p = message(&port, &len);
        int rounds = 0;

        if (rnd(64) == 0) fake.stop_cause = (uint8_t)rnd(43);
        if (rnd(64) == 0) fake.session_result = -(int)rnd(43);
        if (rnd(8) == 0) fake.image.state = (uint8_t)rnd(4);
        sow_downlink(&h.s, now, port, (uint8_t)(group ? SOW_UNICAST : rnd(256)), p, len);
        free(p);
        messages++;
        do {
            int taken = 0;

            sow_poll(&h.s, now, &wake);
            while (sow_uplink(&h.s, now, &up) == SOW_DONE) {
                if (up.len > limit) fail("uplink too long");
                taken = 1;
            }
            if (!taken && wake != now) break;
        } while (++rounds < 1000);
        if (rounds == 1000) fail("never idle");
        if (rnd(16) == 0) sow_self_test(&h.s, now, (uint8_t)rnd(43));
        now += rnd(4) ? rnd(100) : rnd(100000);
    }
}

static void modem(void)
{
    h.app.heartbeat = rnd(3000);
    h.self_test = (uint8_t)(rnd(2) ? 0 : 0xff);
    harness_modem(&h);
    for (int i = 0; i < 40; i++) {
        uint8_t port, frame[400];
        uint32_t len, n;
        uint16_t crc;
        uint8_t *p = message(&port, &len);

        memset(frame, 0, sizeof frame);
        frame[0] = SOW_MODEM_SYNC;
        frame[1] = (uint8_t)(rnd(16) ? 1 + rnd(4) - rnd(2) : rnd(256));
        n = frame[1] == SOW_MODEM_DOWN ? 10 + len : rnd(12);
        frame[2] = (uint8_t)n;
        for (uint32_t k = 4; k < 10; k++) frame[k] = (uint8_t)rnd(256);
        frame[12] = port;
        frame[13] = SOW_UNICAST;
        if (frame[1] == SOW_MODEM_DOWN) memcpy(frame + 14, p, len);
        free(p);
        crc = sow_modem_crc(0xffff, frame + 1, 3 + n);
        frame[4 + n] = (uint8_t)crc;
        frame[5 + n] = (uint8_t)(crc >> 8);
        if (rnd(8) == 0) frame[rnd(6 + n)] ^= (uint8_t)(1 + rnd(255));
        p = malloc(6 + n);
        memcpy(p, frame, 6 + n);
        sow_modem_input(&h.m, p, 6 + n);
        frames++;
        free(p);
        if (h.m.reset_wanted) harness_modem(&h);
    }
}

int main(int argc, char **argv)
{
    if (argc != 3) return 2;
    state = (uint32_t)strtoul(argv[1], 0, 0) | 1u;
    for (unsigned long runs = strtoul(argv[2], 0, 0); runs; runs--) {
        harness_init(&h);
        h.id.lorawan_11 = (uint8_t)rnd(2);
        if (rnd(8) == 0) {
            h.port.mc_group = 0;
            h.port.mc_session = 0;
        }
        if (rnd(2)) packages();
        else modem();
    }
    printf("%u messages, %u frames\n", (unsigned)messages, (unsigned)frames);
    return 0;
}
