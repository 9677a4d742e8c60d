/* See sow_modem.h and docs/spec/modem.md.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "sow_modem.h"

#include <string.h>

#include "sow_packages.h"
#include "sow_services.h"

#define HEARTBEAT_PORT 2u
#define HEADER 4u
#define UNTIL_DOWNLINK 0xffffffffffffffffu

uint16_t sow_modem_crc(uint16_t crc, const uint8_t *p, uint32_t n)
{
    while (n--) {
        crc = (uint16_t)(crc ^ (uint32_t)*p++ << 8);
        for (int i = 0; i < 8; i++) crc = (uint16_t)(crc & 0x8000u ? (uint32_t)crc << 1 ^ 0x1021u : (uint32_t)crc << 1);
    }
    return crc;
}

/* A frame whose payload is two pieces: no buffer for it on the stack under the library's work. */
static void send(struct sow_modem *m, uint8_t type, const uint8_t *a, uint32_t na, const uint8_t *b, uint32_t nb)
{
    uint8_t head[HEADER], tail[2];

    head[0] = SOW_MODEM_SYNC;
    head[1] = type;
    sow_put16(head + 2, na + nb);
    sow_put16(tail, sow_modem_crc(sow_modem_crc(sow_modem_crc(0xffff, head + 1, 3), a, na), b, nb));
    m->write(m->write_user, head, sizeof head);
    if (na) m->write(m->write_user, a, na);
    if (nb) m->write(m->write_user, b, nb);
    m->write(m->write_user, tail, sizeof tail);
}

void sow_modem_send(struct sow_modem *m, uint8_t type, const void *payload, uint32_t n)
{
    send(m, type, payload, n, NULL, 0);
}

static void put64(uint8_t *p, uint64_t v)
{
    sow_put32(p, (uint32_t)v);
    sow_put32(p + 4, (uint32_t)(v >> 32));
}

/* Milliseconds and seconds, without the long products and divisions that a small processor has to call for. */
static uint64_t to_ms(uint32_t s)
{
    return ((uint64_t)((s >> 16) * 1000u) << 16) + (uint64_t)((s & 0xffffu) * 1000u);
}

static uint32_t to_seconds(uint64_t ms) /* of less than 2^32 seconds */
{
    uint32_t high = (uint32_t)(ms >> 32), low = (uint32_t)ms;

    return high * 4294967u + low / 1000u + (high * 296u + low % 1000u) / 1000u; /* 2^32 = 4294967 * 1000 + 296 */
}

static void idle_until(struct sow_modem *m, uint64_t ms)
{
    uint8_t p[8];

    put64(p, ms);
    sow_modem_send(m, SOW_MODEM_IDLE_UNTIL, p, sizeof p);
}

void sow_modem_console(struct sow_modem *m, const char *text)
{
    uint32_t n = 0;

    while (text[n] && n < SOW_MODEM_MAX_PAYLOAD) n++;
    sow_modem_send(m, SOW_MODEM_CONSOLE, text, n);
}

/* Append text, or a number in decimal, to a line that ends before cap. */
static uint32_t put_text(char *line, uint32_t at, uint32_t cap, const char *text)
{
    while (*text && at < cap) line[at++] = *text++;
    return at;
}

static uint32_t put_number(char *line, uint32_t at, uint32_t cap, uint32_t number)
{
    char digits[11];
    uint32_t d = sizeof digits - 1;

    digits[d] = 0;
    do {
        digits[--d] = (char)('0' + number % 10u);
        number /= 10u;
    } while (number);
    return put_text(line, at, cap, digits + d);
}

/* "text" followed by the number. */
static void say(struct sow_modem *m, const char *text, uint32_t number)
{
    char line[64];
    uint32_t n = put_text(line, 0, sizeof line - 1, text);

    line[put_number(line, n, sizeof line - 1, number)] = 0;
    sow_modem_console(m, line);
}

/* The version as people write it: TS006 FWversion is major, minor and a revision of 16 bits. */
static void say_version(struct sow_modem *m, uint32_t version)
{
    char line[32];
    uint32_t n = put_text(line, 0, sizeof line - 1, "firmware ");

    n = put_number(line, n, sizeof line - 1, version >> 24);
    n = put_text(line, n, sizeof line - 1, ".");
    n = put_number(line, n, sizeof line - 1, version >> 16 & 0xffu);
    n = put_text(line, n, sizeof line - 1, ".");
    line[put_number(line, n, sizeof line - 1, version & 0xffffu)] = 0;
    sow_modem_console(m, line);
}

void sow_modem_uplink(struct sow_modem *m, uint8_t port, const uint8_t *data, uint32_t len)
{
    if (len < SOW_MODEM_MAX_PAYLOAD) send(m, SOW_MODEM_UP, &port, 1, data, len);
}

/* The calls of the port that stay with the integrator. */

static int inner_read(void *user, uint32_t addr, void *buf, uint32_t len)
{
    const struct sow_port *p = ((struct sow_modem *)user)->inner;

    return p->read(p->user, addr, buf, len);
}

static int inner_prog(void *user, uint32_t addr, const void *buf, uint32_t len)
{
    const struct sow_port *p = ((struct sow_modem *)user)->inner;

    return p->prog(p->user, addr, buf, len);
}

static int inner_erase(void *user, uint32_t addr, uint32_t len)
{
    const struct sow_port *p = ((struct sow_modem *)user)->inner;

    return p->erase(p->user, addr, len);
}

static int inner_verify(void *user, uint8_t key_id, const uint8_t hash[32], const uint8_t sig[64])
{
    const struct sow_port *p = ((struct sow_modem *)user)->inner;

    return p->verify(p->user, key_id, hash, sig);
}

static int inner_aes(void *user, const uint8_t *key, const uint8_t in[16], uint8_t out[16])
{
    const struct sow_port *p = ((struct sow_modem *)user)->inner;

    return p->aes(p->user, key, in, out);
}

static int inner_consent(void *user, uint8_t phase, uint32_t seconds, uint8_t *cause)
{
    const struct sow_port *p = ((struct sow_modem *)user)->inner;

    return p->consent(p->user, phase, seconds, cause);
}

static uint32_t inner_random(void *user)
{
    const struct sow_port *p = ((struct sow_modem *)user)->inner;

    return p->random(p->user);
}

static void inner_idle(void *user)
{
    const struct sow_port *p = ((struct sow_modem *)user)->inner;

    p->idle(p->user);
}

/* The calls that become frames. */

static void frame_mc_group(void *user, const struct sow_mc_group *g)
{
    uint8_t p[46];

    memset(p, 0, sizeof p);
    p[0] = g->id;
    p[1] = g->defined;
    if (g->defined) {
        sow_put32(p + 2, g->addr);
        memcpy(p + 6, g->app_s_key, 16);
        memcpy(p + 22, g->nwk_s_key, 16);
        sow_put32(p + 38, g->min_fcnt);
        sow_put32(p + 42, g->max_fcnt);
    }
    sow_modem_send(user, SOW_MODEM_SET_MC_GROUP, p, sizeof p);
}

static void frame_mc_session(void *user, const struct sow_mc_session *w)
{
    uint8_t p[24];

    p[0] = w->id;
    p[1] = (uint8_t)w->device_class;
    p[2] = w->dr;
    p[3] = w->periodicity;
    sow_put32(p + 4, w->frequency);
    put64(p + 8, to_ms(w->start));
    put64(p + 16, to_ms(w->end));
    sow_modem_send(user, SOW_MODEM_SESSION, p, sizeof p);
}

static void frame_event(void *user, uint8_t step, uint8_t cause, uint16_t detail)
{
    uint8_t p[4];

    p[0] = step;
    p[1] = cause;
    sow_put16(p + 2, detail);
    sow_modem_send(user, SOW_MODEM_EVENT, p, sizeof p);
}

static void reset(struct sow_modem *m, uint8_t reason)
{
    m->reset_wanted = 1;
    sow_modem_send(m, SOW_MODEM_RESET, &reason, 1);
}

static void frame_reboot(void *user)
{
    struct sow_modem *m = user;

    reset(m, m->s.installing ? SOW_MODEM_RESET_INSTALL : SOW_MODEM_RESET_ASKED);
}

void sow_modem_init(struct sow_modem *m, const struct sow_config *cfg, const struct sow_options *opt,
                    const struct sow_modem_app *app, void *arena, uint32_t arena_size,
                    void (*write)(void *user, const uint8_t *bytes, uint32_t n), void *user)
{
    struct sow_boot_status boot;
    uint32_t version;

    memset(m, 0, sizeof *m);
    m->inner = cfg->port;
    m->port = *cfg->port;
    m->port.user = m;
    m->port.read = inner_read;
    m->port.prog = inner_prog;
    m->port.erase = inner_erase;
    m->port.random = inner_random;
    if (m->port.verify) m->port.verify = inner_verify;
    if (m->port.aes) m->port.aes = inner_aes;
    if (m->port.consent) m->port.consent = inner_consent;
    if (m->port.idle) m->port.idle = inner_idle;
    m->port.mc_group = frame_mc_group;
    m->port.mc_session = frame_mc_session;
    m->port.reboot = frame_reboot;
    m->port.event = frame_event;
    m->cfg = *cfg;
    m->cfg.port = &m->port;
    m->opt = *opt;
    m->app = *app;
    m->arena = arena;
    m->arena_size = arena_size;
    m->write = write;
    m->write_user = user;

    if (sow_services_check() == SOW_OK) {
        if (sow_image_header(&m->cfg, &cfg->map->slot_a, &version, NULL, NULL) == SOW_OK)
            say_version(m, version);
        if (sow_boot_read(&m->cfg, &boot) == SOW_OK && boot.state >= SOW_BOOT_REVERTED)
            say(m, "the last update was undone, cause ", boot.cause);
    }
    idle_until(m, 0);
}

static void open_library(struct sow_modem *m, uint32_t now)
{
    uint32_t resets = 0;
    int r = sow_open(&m->s, &m->cfg, &m->opt, m->arena, m->arena_size, now);

    m->opened = 1;
    if (r < 0) {
        m->open_failed = (uint8_t)-r;
        say(m, "no update possible, cause ", m->open_failed);
        /* sow_open has rejected the image, or without the stub's services could not: then its boots run out. */
        if (m->s.boot.state == SOW_BOOT_TRIAL || r == -SOW_CAUSE_NO_SERVICES) {
            reset(m, SOW_MODEM_RESET_FAULT);
            return;
        }
    } else {
        (void)sow_core_kv_get(&m->s.core, SOW_KV_RESETS, &resets);
        m->resets = resets + 1;
        (void)sow_core_kv_put(&m->s.core, SOW_KV_RESETS, m->resets);
    }
    if (m->app.boot) m->app.boot(m->app.user, m, now);
    else sow_self_test(&m->s, now, SOW_CAUSE_OK);
}

static void link_changed(struct sow_modem *m, uint32_t now, uint8_t joined, uint8_t max_payload)
{
    sow_max_payload(&m->s, max_payload);
    if (!joined) {
        m->s.joined = 0; /* uplinks wait */
        m->beating = 0;
        return;
    }
    if (!m->s.joined) sow_joined(&m->s, now);
    if (m->app.heartbeat && !m->beating) {
        m->beating = 1;
        m->next_heartbeat = now + 2u + (m->inner->random(m->inner->user) & 31u);
    }
}

/* Returns the second of the next heartbeat. A heartbeat inside a class C window would cost a fragment. */
static uint32_t heartbeat(struct sow_modem *m, uint32_t now)
{
    uint32_t quiet, jitter = m->app.heartbeat / 8u;
    uint8_t p[6];

    if (!m->beating) return SOW_NEVER;
    quiet = sow_quiet_until(&m->s, now);
    if (quiet != now && sow_diff(m->next_heartbeat, quiet) > 0)
        m->next_heartbeat = quiet + (m->inner->random(m->inner->user) & 31u);
    if (sow_diff(m->next_heartbeat, now) < 0) return m->next_heartbeat;
    sow_put32(p, m->s.version);
    sow_put16(p + 4, m->resets);
    sow_modem_uplink(m, HEARTBEAT_PORT, p, sizeof p);
    /* Devices that started together drift apart. */
    m->next_heartbeat = now + m->app.heartbeat - jitter / 2u;
    if (jitter) m->next_heartbeat += m->inner->random(m->inner->user) % jitter;
    return m->next_heartbeat;
}

/* Earlier of two seconds, either of them SOW_NEVER. */
static uint32_t earlier(uint32_t a, uint32_t b)
{
    if (a == SOW_NEVER) return b;
    return b == SOW_NEVER || sow_diff(a, b) > 0 ? a : b;
}

/* Run until nothing is due. */
static void run(struct sow_modem *m, uint32_t now)
{
    struct sow_uplink up;
    uint32_t wake, app = SOW_NEVER;
    int again;

    do {
        again = 0;
        (void)sow_poll(&m->s, now, &wake);
        if (m->reset_wanted) return;
        while (sow_uplink(&m->s, now, &up) == SOW_DONE) {
            sow_modem_uplink(m, up.port, up.data, up.len);
            again = 1;
        }
        if (wake == now) again = 1;
    } while (again);
    wake = earlier(wake, heartbeat(m, now));
    if (m->app.poll) app = m->app.poll(m->app.user, m, now);
    if (m->reset_wanted) return;
    if (app != SOW_NEVER && sow_diff(now, app) <= 0) app = now + 1; /* one call a turn, one turn a second */
    wake = earlier(wake, app);
    idle_until(m, wake == SOW_NEVER ? UNTIL_DOWNLINK : to_ms(wake));
}

static void turn(struct sow_modem *m, uint8_t type, const uint8_t *p, uint32_t n)
{
    uint32_t now;

    if (type == SOW_MODEM_RESET_REQ) {
        reset(m, SOW_MODEM_RESET_ASKED);
        return;
    }
    if (n < (type == SOW_MODEM_TICK ? 8u : 10u) || type > SOW_MODEM_LINK || type == 0) {
        say(m, "frame not understood, type ", type);
        idle_until(m, 0);
        return;
    }
    m->now_ms = sow_u32(p) | (uint64_t)sow_u32(p + 4) << 32;
    now = to_seconds(m->now_ms);
    if (!m->opened) {
        open_library(m, now);
        if (m->reset_wanted) return;
    }
    if (type == SOW_MODEM_DOWN) sow_downlink(&m->s, now, p[8], p[9], p + 10, n - 10);
    if (type == SOW_MODEM_LINK) link_changed(m, now, p[8], p[9]);
    if (m->reset_wanted) return;
    run(m, now);
}

/* Bytes of m->frame up to the end of the first frame in it, if its length is known and all are there;
 * 0: more are needed; -1: no frame begins here. */
static int32_t complete(const struct sow_modem *m)
{
    uint32_t n;

    if (m->frame[0] != SOW_MODEM_SYNC) return -1;
    if (m->fill < HEADER) return 0;
    n = sow_u16(m->frame + 2);
    if (n > SOW_MODEM_MAX_PAYLOAD) return -1;
    if (m->fill < n + SOW_MODEM_OVERHEAD) return 0;
    if (sow_modem_crc(0xffff, m->frame + 1, 3 + n) != sow_u16(m->frame + HEADER + n)) return -1;
    return (int32_t)(n + SOW_MODEM_OVERHEAD);
}

static void drop(struct sow_modem *m, uint32_t n)
{
    m->fill = (uint16_t)(m->fill - n);
    for (uint32_t i = 0; i < m->fill; i++) m->frame[i] = m->frame[i + n];
}

void sow_modem_input(struct sow_modem *m, const uint8_t *bytes, uint32_t n)
{
    while (n-- && !m->reset_wanted) {
        m->frame[m->fill++] = *bytes++;
        while (m->fill && !m->reset_wanted) {
            int32_t size = complete(m);
            uint32_t skip = 1;

            if (size == 0) break;
            if (size > 0) {
                turn(m, m->frame[1], m->frame + HEADER, (uint32_t)size - SOW_MODEM_OVERHEAD);
                skip = (uint32_t)size;
            } else { /* the next byte that may begin one */
                while (skip < m->fill && m->frame[skip] != SOW_MODEM_SYNC) skip++;
            }
            drop(m, skip);
        }
    }
}
