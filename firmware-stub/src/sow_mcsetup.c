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

/* An end equal to the start cancels. */
static void hand_over(const struct sow *s, const struct sow_mc_session *w, uint32_t end)
{
    const struct sow_port *port = s->cfg.port;
    struct sow_mc_session device = *w;

    device.start -= s->offset;
    device.end = end - s->offset;
    if (port->mc_session) port->mc_session(port->user, &device);
}

/* Is there a window that is not over yet? */
static int pending(const struct sow *s, const struct sow_mc_session *w, uint32_t now)
{
    return s->synced && w->device_class && sow_diff(now + s->offset, w->end) > 0;
}

void sow_mcsetup_clock(struct sow *s, uint32_t now)
{
    for (uint32_t i = 0; i < SOW_GROUPS; i++)
        if (pending(s, &s->window[i], now)) hand_over(s, &s->window[i], s->window[i].end);
}

void sow_mcsetup_cancel(struct sow *s, uint32_t now, uint32_t mask)
{
    for (uint32_t i = 0; i < SOW_GROUPS; i++, mask >>= 1) {
        struct sow_mc_session *w = &s->window[i];

        if (!(mask & 1u)) continue;
        if (pending(s, w, now)) hand_over(s, w, w->start);
        w->device_class = 0;
    }
}

uint32_t sow_quiet_until(const struct sow *s, uint32_t now)
{
    uint32_t until = now + s->offset;

    for (uint32_t i = 0; i < SOW_GROUPS; i++) {
        const struct sow_mc_session *w = &s->window[i];

        if (pending(s, w, now) && w->device_class == 'C' && sow_diff(w->start, now + s->offset) >= 0 &&
            sow_diff(until, w->end) > 0)
            until = w->end;
    }
    return until - s->offset;
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

static int forget(struct sow *s, uint32_t now, uint8_t id)
{
    uint32_t bit = 1u << id;
    struct sow_mc_group g;

    if (!(s->groups & bit)) return -1;
    s->groups = (uint8_t)(s->groups & ~bit);
    sow_mcsetup_cancel(s, now, bit);
    memset(&g, 0, sizeof g);
    g.id = id;
    s->cfg.port->mc_group(s->cfg.port->user, &g);
    return 0;
}

static void status(const struct sow *s, struct sow_command *c)
{
    uint32_t total = 0, mask = 0;

    for (uint8_t i = 0; i < SOW_GROUPS; i++) {
        if (!(s->groups & 1u << i)) continue;
        total++;
        /* When they do not all fit, the highest are left out and the server asks again for them. */
        if (!(c->arg[0] & 1u << i) || c->len + 5u > c->room) continue;
        mask |= 1u << i;
        c->ans[c->len] = i;
        sow_put32(c->ans + c->len + 1, s->group_addr[i]);
        c->len = (uint8_t)(c->len + 5u);
    }
    c->ans[1] = (uint8_t)(total << 4 | mask);
}

static void session(struct sow *s, struct sow_command *c)
{
    const uint8_t *arg = c->arg;
    uint32_t bits = c->ans[1], to_start = NOT_SYNCED, length = 1u << (arg[5] & 15u);
    struct sow_mc_session w;

    w.id = c->ans[1];
    w.device_class = 'C';
    w.periodicity = 0;
    w.start = sow_u32(arg + 1);
    w.frequency = (sow_u16(arg + 6) | (uint32_t)arg[8] << 16) * 100u;
    w.dr = arg[9];
    if (c->cid == 5) {
        w.device_class = 'B';
        w.periodicity = (arg[5] >> 4) & 7u;
        length *= 128u;
    }
    w.end = w.start + length;

    if (!(s->groups & 1u << w.id)) bits |= UNDEFINED;
    /* Class B knows 0: the default ping-slot channels of the region. */
    if (w.frequency < 100000000u && (w.frequency || w.device_class == 'C')) bits |= FREQ_ERROR;
    if (w.dr > 15) bits |= DR_ERROR;
    if (bits == w.id && s->synced) {
        int32_t left = sow_diff(c->now + s->offset, w.start);

        if (left < 0) bits |= START_MISSED;
        else if ((uint32_t)left < NOT_SYNCED) to_start = (uint32_t)left;
    }
    c->ans[1] = (uint8_t)bits;
    if (bits != w.id) return;
    s->window[w.id] = w;
    /* Without the time the window cannot be placed yet; the next AppTimeAns hands it over. */
    if (s->synced) hand_over(s, &w, w.end);
    else sow_arm(s, SOW_TIMER_CLOCK, c->now);
    sow_put32(c->ans + 2, to_start);
    c->len = 5;
}

void sow_mcsetup_command(struct sow *s, struct sow_command *c)
{
    uint8_t id = c->arg[0] & 3u;
    int r = 0;

    c->ans[1] = id;
    switch (c->cid) {
    case 1: status(s, c); break;
    case 2: r = setup(s, id, c->arg); break;
    case 3: r = forget(s, c->now, id); break;
    default: session(s, c); break;
    }
    if (r < 0) c->ans[1] |= 4u; /* IDerror, McGroupUndefined */
}
