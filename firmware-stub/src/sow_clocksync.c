/* TS003 application layer clock synchronisation, versions 1.0.0 and 2.0.0 (their bytes are the same).
 *
 *  CID  downlink                      uplink
 *   1   AppTimeAns TimeCorrection 4,  AppTimeReq DeviceTime 4, Param 1 (bit 4 AnsRequired, 3:0 TokenReq)
 *       Param 1 (3:0 TokenAns)
 *   2   DeviceAppTimePeriodicityReq 1 DeviceAppTimePeriodicityAns Status 1, DeviceTime 4
 *   3   ForceDeviceResync 1           -
 *
 * DeviceAppTimePeriodicity survives a reset; the clock itself does not.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "sow_packages.h"

#define FIRST_RETRY 64u /* seconds; doubles while nobody answers ... */
#define RETRY_DOUBLINGS 8u /* ... up to 4.5 h */
#define RESYNC_GAP 16u  /* seconds between forced requests, at least */

/* 128 * 2^Period seconds, give or take 30 */
static uint32_t resync_period(const struct sow *s) { return (128u << s->period) - 30u + sow_random(s, 61); }

static void correct(struct sow *s, uint32_t now, const uint8_t *arg)
{
    uint32_t correction = sow_u32(arg);

    if ((arg[4] & 15u) != s->token) return; /* the answer to another request */
    s->token = (s->token + 1u) & 15u;
    s->offset += correction;
    s->resync = 0;
    if (s->reboot_gps) s->at[SOW_TIMER_REBOOT] -= correction;
    /* A correction at the end of its range is only the first part of it (TS003-2.0.0). */
    s->synced = correction != 0x7fffffffu && correction != 0x80000000u;
    if (s->synced) {
        sow_mcsetup_clock(s, now);
        sow_arm(s, SOW_TIMER_CLOCK, now + resync_period(s));
    } else {
        sow_arm(s, SOW_TIMER_CLOCK, now);
    }
}

void sow_clocksync_command(struct sow *s, struct sow_command *c)
{
    uint8_t param = c->arg[0];

    c->len = 0;
    switch (c->cid) {
    case 1: correct(s, c->now, c->arg); break;
    case 2:
        param &= 15u;
        /* A value that could not be kept still holds until the next reset. */
        if (param != s->period) (void)sow_core_kv_put(&s->core, SOW_KV_CLOCK_PERIOD, param);
        s->period = param;
        if (s->synced && !s->resync) sow_arm(s, SOW_TIMER_CLOCK, c->now + resync_period(s));
        c->ans[1] = 0;
        sow_put32(c->ans + 2, c->now + s->offset);
        c->len = 6;
        break;
    default:
        s->resync = param & 7u;
        if (s->resync) sow_arm(s, SOW_TIMER_CLOCK, c->now);
        break;
    }
}

void sow_clocksync_request(struct sow *s, uint32_t now, struct sow_uplink *up)
{
    uint32_t next;

    up->port = SOW_PORT_CLOCKSYNC;
    up->len = 6;
    up->data[0] = 1;
    sow_put32(up->data + 1, now + s->offset);
    up->data[5] = s->token;
    if (s->resync) s->resync--;
    else if (!s->synced) up->data[5] |= 0x10u;

    if (s->resync) {
        next = RESYNC_GAP + sow_random(s, RESYNC_GAP);
    } else if (s->synced) {
        next = resync_period(s);
    } else {
        next = (FIRST_RETRY << s->backoff) + sow_random(s, FIRST_RETRY);
        if (s->backoff < RETRY_DOUBLINGS) s->backoff++;
    }
    sow_arm(s, SOW_TIMER_CLOCK, now + next);
}
