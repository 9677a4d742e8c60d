#include "harness.h"

#include <string.h>

static int flash_read(void *user, uint32_t addr, void *buf, uint32_t len)
{
    (void)user, (void)addr;
    memset(buf, 0xff, len);
    return 0;
}

static int flash_prog(void *user, uint32_t addr, const void *buf, uint32_t len)
{
    (void)user, (void)addr, (void)buf, (void)len;
    return 0;
}

static int flash_erase(void *user, uint32_t addr, uint32_t len)
{
    (void)user, (void)addr, (void)len;
    return 0;
}

static void mc_group(void *user, const struct sow_mc_group *g)
{
    struct harness *h = user;

    h->group[h->groups++ & 63] = *g;
}

static void mc_session(void *user, const struct sow_mc_session *w)
{
    struct harness *h = user;

    h->session[h->sessions++ & 63] = *w;
}

static void reboot(void *user) { ((struct harness *)user)->reboots++; }

static void event(void *user, uint8_t step, uint8_t cause, uint16_t detail)
{
    struct harness *h = user;

    (void)detail;
    h->event[h->events & 63][0] = step;
    h->event[h->events++ & 63][1] = cause;
}

static uint32_t rnd(void *user)
{
    struct harness *h = user;

    if (h->fixed_random) return h->fixed_random;
    h->seed = h->seed * 1664525u + 1013904223u;
    return h->seed >> 8;
}

static void app_boot(void *user, struct sow_modem *m, uint32_t now)
{
    struct harness *h = user;

    if (h->self_test != 0xff) sow_self_test(&m->s, now, h->self_test);
}

static void out(void *user, const uint8_t *bytes, uint32_t n)
{
    struct harness *h = user;

    if (h->out_len + n > sizeof h->out) h->out_len = 0;
    memcpy(h->out + h->out_len, bytes, n);
    h->out_len += n;
}

void harness_init(struct harness *h)
{
    memset(h, 0, sizeof *h);
    memset(&fake, 0, sizeof fake);
    h->port.user = h;
    h->port.read = flash_read;
    h->port.prog = flash_prog;
    h->port.erase = flash_erase;
    h->port.mc_group = mc_group;
    h->port.mc_session = mc_session;
    h->port.random = rnd;
    h->port.reboot = reboot;
    h->port.event = event;
    h->port.granule = 8;
    h->port.page = 2048;
    h->port.erase_value = 0xff;
    h->cfg.port = &h->port;
    h->cfg.map = &h->map;
    h->cfg.identity = &h->id;
    h->app.user = h;
    h->app.boot = app_boot;
}

void harness_modem(struct harness *h)
{
    sow_modem_init(&h->m, &h->cfg, &h->opt, &h->app, h->arena, sizeof h->arena, out, h);
}
