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

#include "sow_cipher.h"
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

void sow_mcsetup_windows(struct sow *s, uint32_t mask, uint32_t correction, int cancel)
{
    const struct sow_port *port = s->cfg.port;

    mask &= (1u << SOW_GROUPS) - 1u;
    for (struct sow_mc_session *w = s->window; mask; w++, mask >>= 1) {
        if (!(mask & 1u)) continue;
        w->start -= correction;
        w->end -= correction;
        /* One that is over, or that the MAC was never given, is not handed over. */
        if (port->mc_session && s->synced && w->device_class && sow_diff(s->now, w->end) > 0) {
            if (cancel) w->end = w->start;
            port->mc_session(port->user, w);
        }
        if (cancel) w->device_class = 0;
    }
}

uint32_t sow_quiet_until(const struct sow *s, uint32_t now)
{
    uint32_t until = now;

    for (const struct sow_mc_session *w = s->window; s->synced && w < s->window + SOW_GROUPS; w++)
        if (w->device_class == 'C' && sow_diff(w->start, now) >= 0 && sow_diff(until, w->end) > 0) until = w->end;
    return until;
}

/* Unwrap McKey and derive the two session keys of the group, each by one encryption with the key before it:
 * McRootKey, McKEKey, McKey, McNwkSKey, and under McKey again McAppSKey. arg: McAddr and McKey_encrypted */
static int derive(const struct sow *s, const uint8_t *arg, struct sow_mc_group *g)
{
    uint8_t block[16] = {0};
    const uint8_t *key = NULL;

    if (s->cfg.identity->lorawan_11) block[0] = 0x20;
    for (uint32_t i = 1; i <= 5; i++) {
        const uint8_t *in = i == 3 ? arg + 4 : block;
        uint8_t *out = i == 4 ? g->nwk_s_key : g->app_s_key;

        if (i > 3) {
            block[0] = (uint8_t)(6u - i);
            memcpy(block + 1, arg, 4);
        }
        if (sow_cipher(&s->cfg, key, in, out) != 0) return -1;
        block[0] = 0;
        key = g->app_s_key;
    }
    return 0;
}

/* McGroupSetup, McGroupDelete */
static int group(struct sow *s, uint8_t id)
{
    const struct sow_port *port = s->cfg.port;
    const uint8_t *arg = s->arg + 1;
    uint32_t bit = 1u << id;
    struct sow_mc_group g;

    memset(&g, 0, sizeof g);
    g.id = id;
    if (s->cid == SETUP) {
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
        sow_mcsetup_windows(s, bit, 0, 1);
    }
    port->mc_group(port->user, &g);
    return 0;
}

static void status(const struct sow *s, struct sow_uplink *up)
{
    uint32_t bits = 0; /* NbTotalGroups, AnsGroupMask */

    for (uint8_t i = 0; i < SOW_GROUPS; i++) {
        if (!(s->groups >> i & 1)) continue;
        bits += 1u << 4;
        /* When they do not all fit, the highest are left out and the server asks again for them. */
        if (!(s->arg[0] >> i & 1) || (up->len + 5u > s->max_payload && !s->at_once)) continue;
        bits |= 1u << i;
        up->data[up->len++] = i;
        sow_ans32(up, s->group_addr[i]);
    }
    up->data[1] = (uint8_t)bits;
}

static void session(struct sow *s, struct sow_uplink *up, uint8_t id)
{
    const uint8_t *arg = s->arg;
    uint32_t bits = id, left = sow_u32(arg + 1) - sow_gps(s), frequency = sow_u32(arg + 6), class_b = s->cid == CLASS_B;
    struct sow_mc_session *w = &s->window[id];
    uint8_t dr = (uint8_t)(frequency >> 24);

    frequency &= 0xffffffu; /* 100 Hz */
    if (frequency < 1000000u && !(class_b && !frequency)) bits |= FREQ_ERROR; /* class B, 0: the default channels */
    if (!(s->groups >> id & 1)) bits |= UNDEFINED;
    if (dr > 15) bits |= DR_ERROR;
    if (s->synced && left >> 31 && bits == id) bits |= START_MISSED;
    up->data[1] = (uint8_t)bits;
    if (bits != id) return;
    w->id = id;
    w->device_class = class_b ? 'B' : 'C';
    w->dr = dr;
    w->periodicity = class_b ? (arg[5] >> 4) & 7u : 0;
    w->frequency = frequency * 100u;
    w->start = s->now + left;
    w->end = w->start + (class_b ? 128u : 1u) * (1u << (arg[5] & 15u));
    sow_mcsetup_windows(s, 1u << id, 0, 0);
    if (!s->synced) {
        /* Without the time the window cannot be placed yet; the next AppTimeAns hands it over. */
        sow_arm(s, SOW_TIMER_CLOCK, 0);
        left = NOT_SYNCED;
    }
    sow_ans32(up, left < NOT_SYNCED ? left : NOT_SYNCED);
    up->len = 5;
}

void sow_mcsetup_command(struct sow *s, struct sow_uplink *up)
{
    uint8_t id = s->arg[0] & 3u;

    up->data[1] = id;
    if (s->cid == STATUS) status(s, up);
    else if (s->cid > DELETE) session(s, up, id);
    else if (group(s, id) < 0) up->data[1] |= 4u; /* IDerror, McGroupUndefined */
}
