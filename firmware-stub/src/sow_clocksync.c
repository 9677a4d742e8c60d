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

/* The next AppTimeReq: after that delay, or if the clock is right and nobody forces it 128 * 2^Period seconds later,
 * give or take 30. */
static void arm(struct sow *s, uint32_t delay)
{
    if (s->synced && !s->resync) delay += (128u << s->period) - 30u + sow_random(s, 61);
    sow_arm(s, SOW_TIMER_CLOCK, delay);
}

static void correct(struct sow *s)
{
    uint32_t correction = sow_u32(s->arg);

    if ((s->arg[4] & 15u) != s->token) return; /* the answer to another request */
    s->token = (s->token + 1u) & 15u;
    s->offset += correction;
    s->resync = 0;
    if (s->reboot_gps) s->at[SOW_TIMER_REBOOT] -= correction;
    /* A correction at the end of its range is only the first part of it (TS003-2.0.0). */
    s->synced = correction != 0x7fffffffu && correction != 0x80000000u;
    sow_mcsetup_windows(s, 15, correction, 0);
    arm(s, 0);
}

static void request(struct sow *s, struct sow_uplink *up)
{
    uint32_t delay = 0;

    up->data[0] = 1;
    up->len = 1;
    sow_ans32(up, sow_gps(s));
    up->data[5] = s->token;
    up->len = 6;
    if (s->resync) s->resync--;
    else if (!s->synced) up->data[5] |= 0x10u;

    if (s->resync) {
        delay = RESYNC_GAP + sow_random(s, RESYNC_GAP);
    } else if (!s->synced) {
        delay = (FIRST_RETRY << s->backoff) + sow_random(s, FIRST_RETRY);
        if (s->backoff < RETRY_DOUBLINGS) s->backoff++;
    }
    arm(s, delay);
}

void sow_clocksync_command(struct sow *s, struct sow_uplink *up)
{
    uint8_t param = s->arg[0] & 15u;

    if (s->cid == 2) {
        /* A value that could not be kept still holds until the next reset. */
        if (param != s->period) (void)sow_core_kv_put(&s->core, SOW_KV_CLOCK_PERIOD, param);
        s->period = param;
        if (s->synced && !s->resync) arm(s, 0);
        up->data[1] = 0;
        sow_ans32(up, sow_gps(s));
        return;
    }
    up->len = 0;
    if (s->cid == 1) {
        correct(s);
    } else if (s->cid == 3) {
        s->resync = param & 7u;
        if (s->resync) arm(s, 0);
    } else {
        request(s, up);
    }
}
