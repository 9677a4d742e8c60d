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

/* CIDs */
#define STATUS 1u
#define SETUP 2u
#define DELETE 3u
#define CLASS_B 5u

void sow_mcsetup_windows(struct sow *s, uint32_t now, uint32_t mask, int cancel)
{
    const struct sow_port *port = s->cfg.port;

    mask &= (1u << SOW_GROUPS) - 1u;
    for (struct sow_mc_session *w = s->window; mask; w++, mask >>= 1) {
        struct sow_mc_session device = *w;

        if (!(mask & 1u)) continue;
        if (cancel) {
            w->device_class = 0;
            device.end = device.start;
        }
        /* One that is over, or that the MAC was never given, is not handed over. */
        if (!port->mc_session || !s->synced || !device.device_class || sow_diff(now + s->offset, w->end) <= 0) continue;
        device.start -= s->offset;
        device.end -= s->offset;
        port->mc_session(port->user, &device);
    }
}

uint32_t sow_quiet_until(const struct sow *s, uint32_t now)
{
    uint32_t gps = now + s->offset, until = gps;

    for (const struct sow_mc_session *w = s->window; s->synced && w < s->window + SOW_GROUPS; w++)
        if (w->device_class == 'C' && sow_diff(w->start, gps) >= 0 && sow_diff(until, w->end) > 0) until = w->end;
    return until - s->offset;
}

static int aes(const struct sow *s, const uint8_t *key, const uint8_t in[16], uint8_t out[16])
{
    const struct sow_port *port = s->cfg.port;

    if (port->aes) return port->aes(port->user, key, in, out);
    sow_aes128_encrypt(key ? key : s->cfg.identity->root_key, in, out);
    return 0;
}

/* Unwrap McKey and derive the two session keys of the group. arg: McAddr and McKey_encrypted */
static __attribute__((noinline)) int derive(const struct sow *s, const uint8_t *arg, struct sow_mc_group *g)
{
    uint8_t block[16], *key = g->app_s_key;
    int r;

    memset(block, 0, sizeof block);
    if (s->cfg.identity->lorawan_11) block[0] = 0x20;
    r = aes(s, NULL, block, key); /* McRootKey */
    block[0] = 0;
    r |= aes(s, key, block, key); /* McKEKey */
    r |= aes(s, key, arg + 4, key); /* McKey */
    memcpy(block + 1, arg, 4);
    block[0] = 2;
    r |= aes(s, key, block, g->nwk_s_key);
    block[0] = 1;
    return r | aes(s, key, block, key);
}

/* McGroupSetup, McGroupDelete */
static int group(struct sow *s, const struct sow_command *c, uint8_t id)
{
    const struct sow_port *port = s->cfg.port;
    const uint8_t *arg = c->arg + 1;
    uint32_t bit = 1u << id;
    struct sow_mc_group g;

    memset(&g, 0, sizeof g);
    g.id = id;
    if (c->cid == SETUP) {
        if (!port->mc_group || derive(s, arg, &g) != 0) return -1;
        g.defined = 1;
        g.addr = sow_u32(arg);
        g.min_fcnt = sow_u32(arg + 20);
        g.max_fcnt = sow_u32(arg + 24);
        s->group_addr[id] = g.addr;
        s->groups = (uint8_t)(s->groups | bit);
    } else {
        if (!(s->groups & bit)) return -1;
        s->groups = (uint8_t)(s->groups & ~bit);
        sow_mcsetup_windows(s, c->now, bit, 1);
    }
    port->mc_group(port->user, &g);
    return 0;
}

static void status(const struct sow *s, struct sow_command *c)
{
    uint32_t bits = 0; /* NbTotalGroups, AnsGroupMask */

    for (uint8_t i = 0; i < SOW_GROUPS; i++) {
        if (!(s->groups >> i & 1)) continue;
        bits += 1u << 4;
        /* When they do not all fit, the highest are left out and the server asks again for them. */
        if (!(c->arg[0] >> i & 1) || c->len + 5u > c->room) continue;
        bits |= 1u << i;
        c->ans[c->len++] = i;
        sow_ans32(c, s->group_addr[i]);
    }
    c->ans[1] = (uint8_t)bits;
}

static void session(struct sow *s, struct sow_command *c, uint8_t id)
{
    const uint8_t *arg = c->arg;
    uint32_t bits = id, to_start = NOT_SYNCED, start = sow_u32(arg + 1), length = 1u << (arg[5] & 15u),
             frequency = sow_u32(arg + 6), lowest = 100000000u;
    struct sow_mc_session *w = &s->window[id];
    char device_class = 'C';
    uint8_t dr = (uint8_t)(frequency >> 24), periodicity = 0;

    frequency = (frequency & 0xffffffu) * 100u;
    if (c->cid == CLASS_B) {
        device_class = 'B';
        periodicity = (arg[5] >> 4) & 7u;
        length *= 128u;
        if (!frequency) lowest = 0; /* the default ping-slot channels of the region */
    }
    if (frequency < lowest) bits |= FREQ_ERROR;
    if (!(s->groups >> id & 1)) bits |= UNDEFINED;
    if (dr > 15) bits |= DR_ERROR;
    if (s->synced && bits == id) {
        uint32_t left = start - (c->now + s->offset);

        if (left >> 31) bits |= START_MISSED;
        if (left < to_start) to_start = left;
    }
    c->ans[1] = (uint8_t)bits;
    if (bits != id) return;
    w->id = id;
    w->device_class = device_class;
    w->dr = dr;
    w->periodicity = periodicity;
    w->frequency = frequency;
    w->start = start;
    w->end = start + length;
    /* Without the time the window cannot be placed yet; the next AppTimeAns hands it over. */
    if (!s->synced) sow_arm(s, SOW_TIMER_CLOCK, c->now);
    sow_mcsetup_windows(s, c->now, 1u << id, 0);
    sow_ans32(c, to_start);
    c->len = 5;
}

void sow_mcsetup_command(struct sow *s, struct sow_command *c)
{
    uint8_t id = c->arg[0] & 3u;

    c->ans[1] = id;
    if (c->cid == STATUS) status(s, c);
    else if (c->cid > DELETE) session(s, c, id);
    else if (group(s, c, id) < 0) c->ans[1] |= 4u; /* IDerror, McGroupUndefined */
}
