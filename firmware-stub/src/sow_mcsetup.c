/* TS005 remote multicast setup, versions 1.0.0 and 2.0.0 (one layout; version 2 adds StartMissed, which version 1
 * devices send too).
 *
 *  CID  request                                                      answer
 *   1   McGroupStatus: ReqGroupMask 1                                Status 1, { McGroupID 1, McAddr 4 }
 *   2   McGroupSetup: id 1, McAddr 4, McKey_encrypted 16, min 4, max 4  id and IDerror 1
 *   3   McGroupDelete: id 1                                          id and McGroupUndefined 1
 *   4   McClassCSession: id 1, SessionTime 4, TimeOut 1, DLFreq 3, DR 1  Status 1 [, TimeToStart 3]
 *   5   McClassBSession: the same, TimeOut with periodicity            as class C
 *
 * Groups and windows live in RAM: after a reset the server sets them up again.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "sow_aes.h"
#include "sow_packages.h"

#define DR_ERROR 0x04u
#define FREQ_ERROR 0x08u
#define UNDEFINED 0x10u
#define START_MISSED 0x20u
#define NOT_SYNCED 0xffffffu

static uint32_t window_end(const struct sow_window *w)
{
    return w->start + ((w->device_class == 'B' ? 128u : 1u) << w->timeout);
}

/* start == end cancels. */
static void hand_over(const struct sow *s, uint8_t id, int open)
{
    const struct sow_window *w = &s->window[id];
    struct sow_mc_session ms;

    ms.id = id;
    ms.device_class = (char)w->device_class;
    ms.dr = w->dr;
    ms.periodicity = w->periodicity;
    ms.frequency = w->frequency;
    ms.start = w->start - s->offset;
    ms.end = open ? window_end(w) - s->offset : ms.start;
    if (s->cfg.port->mc_session) s->cfg.port->mc_session(s->cfg.port->user, &ms);
}

void sow_mcsetup_clock(struct sow *s, uint32_t now)
{
    for (uint8_t i = 0; i < SOW_GROUPS; i++)
        if (s->window[i].device_class && sow_diff(now + s->offset, window_end(&s->window[i])) > 0)
            hand_over(s, i, 1);
}

void sow_mcsetup_cancel(struct sow *s, uint32_t now, uint8_t mask)
{
    for (uint8_t i = 0; i < SOW_GROUPS; i++) {
        struct sow_window *w = &s->window[i];

        if (!(mask & 1u << i) || !w->device_class) continue;
        if (s->synced && sow_diff(now + s->offset, window_end(w)) > 0) hand_over(s, i, 0);
        w->device_class = 0;
    }
}

uint32_t sow_quiet_until(const struct sow *s, uint32_t now)
{
    uint32_t until = now, gps = now + s->offset;

    if (!s->synced) return now;
    for (uint8_t i = 0; i < SOW_GROUPS; i++) {
        const struct sow_window *w = &s->window[i];
        uint32_t end = window_end(w) - s->offset;

        if (w->device_class == 'C' && sow_diff(w->start, gps) >= 0 && sow_diff(until, end) > 0) until = end;
    }
    return until;
}

static int aes(const struct sow *s, const uint8_t *key, const uint8_t in[16], uint8_t out[16])
{
    const struct sow_port *port = s->cfg.port;

    if (port->aes) return port->aes(port->user, key, in, out);
    sow_aes128_encrypt(key ? key : s->cfg.identity->root_key, in, out);
    return 0;
}

/* Unwrap McKey and derive the two session keys of the group. */
static int derive(const struct sow *s, const uint8_t *addr, const uint8_t *wrapped, struct sow_mc_group *g)
{
    uint8_t block[16], key[16];
    int r;

    memset(block, 0, sizeof block);
    if (s->cfg.identity->lorawan_11) block[0] = 0x20;
    r = aes(s, NULL, block, key); /* McRootKey */
    block[0] = 0;
    r |= aes(s, key, block, key); /* McKEKey */
    r |= aes(s, key, wrapped, key); /* McKey */
    memcpy(block + 1, addr, 4);
    block[0] = 1;
    r |= aes(s, key, block, g->app_s_key);
    block[0] = 2;
    r |= aes(s, key, block, g->nwk_s_key);
    return r;
}

static int setup(struct sow *s, uint8_t id, const uint8_t *arg)
{
    const struct sow_port *port = s->cfg.port;
    struct sow_mc_group g;

    if (!port->mc_group || derive(s, arg + 1, arg + 5, &g) != 0) return -1;
    g.id = id;
    g.defined = 1;
    g.addr = sow_u32(arg + 1);
    g.min_fcnt = sow_u32(arg + 21);
    g.max_fcnt = sow_u32(arg + 25);
    s->group_addr[id] = g.addr;
    s->groups = (uint8_t)(s->groups | 1u << id);
    port->mc_group(port->user, &g);
    return 0;
}

static void forget(struct sow *s, uint32_t now, uint8_t id)
{
    struct sow_mc_group g;

    sow_mcsetup_cancel(s, now, (uint8_t)(1u << id));
    memset(&g, 0, sizeof g);
    g.id = id;
    s->groups = (uint8_t)(s->groups & ~(1u << id));
    s->cfg.port->mc_group(s->cfg.port->user, &g);
}

static void status(const struct sow *s, struct sow_command *c)
{
    uint8_t total = 0, mask = 0;

    c->len = 2;
    for (uint8_t i = 0; i < SOW_GROUPS; i++) {
        if (!(s->groups & 1u << i)) continue;
        total++;
        /* When they do not all fit, the highest are left out and the server asks again for them. */
        if (!(c->arg[0] & 1u << i) || c->len + 5u > c->room) continue;
        mask = (uint8_t)(mask | 1u << i);
        c->ans[c->len] = i;
        sow_put32(c->ans + c->len + 1, s->group_addr[i]);
        c->len = (uint8_t)(c->len + 5u);
    }
    c->ans[1] = (uint8_t)(total << 4 | mask);
}

static void session(struct sow *s, struct sow_command *c)
{
    const uint8_t *arg = c->arg;
    uint8_t id = arg[0] & 3u, bits = id;
    uint32_t to_start = NOT_SYNCED;
    struct sow_window w;

    w.device_class = c->cid == 4 ? 'C' : 'B';
    w.start = sow_u32(arg + 1);
    w.timeout = arg[5] & 15u;
    w.periodicity = w.device_class == 'B' ? (arg[5] >> 4) & 7u : 0;
    w.frequency = (sow_u16(arg + 6) | (uint32_t)arg[8] << 16) * 100u;
    w.dr = arg[9];

    if (!(s->groups & 1u << id)) bits |= UNDEFINED;
    /* Class B knows 0: the default ping-slot channels of the region. */
    if (w.frequency < 100000000u && (w.frequency || w.device_class == 'C')) bits |= FREQ_ERROR;
    if (w.dr > 15) bits |= DR_ERROR;
    if (bits == id && s->synced) {
        int32_t left = sow_diff(c->now + s->offset, w.start);

        if (left < 0) bits |= START_MISSED;
        else if ((uint32_t)left < NOT_SYNCED) to_start = (uint32_t)left;
    }
    c->ans[1] = bits;
    c->len = 2;
    if (bits != id) return;
    s->window[id] = w;
    /* Without the time the window cannot be placed yet; the next AppTimeAns hands it over. */
    if (s->synced) hand_over(s, id, 1);
    else sow_arm(s, SOW_TIMER_CLOCK, c->now);
    sow_put16(c->ans + 2, to_start);
    c->ans[4] = (uint8_t)(to_start >> 16);
    c->len = 5;
}

void sow_mcsetup_command(struct sow *s, struct sow_command *c)
{
    uint8_t id = c->arg[0] & 3u;

    c->ans[1] = id;
    c->len = 2;
    switch (c->cid) {
    case 1: status(s, c); break;
    case 2:
        if (setup(s, id, c->arg) < 0) c->ans[1] |= 4u;
        break;
    case 3:
        if (s->groups & 1u << id) forget(s, c->now, id);
        else c->ans[1] |= 4u;
        break;
    default: session(s, c); break;
    }
}
