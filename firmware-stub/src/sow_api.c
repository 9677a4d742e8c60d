/* The LoRaWAN layer: one message in, commands to their packages, answers and timed uplinks out.
 *
 * Answers to commands wait in a small queue of bytes, already packed into messages. What depends on the moment
 * it is sent (a clock request, a status after its random delay, a report) is only a timer until sow_uplink
 * builds it.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "sow_packages.h"

#define MAX_PAYLOAD 64u /* of struct sow_uplink */
#define MIN_PAYLOAD 11u /* smallest of any LoRaWAN region; a report needs 10 */
#define COMMANDS 6u
#define UNKNOWN 0xffu
#define CID_DATA_FRAGMENT 8u
#define NO_MESSAGE 0xffu

/* Bytes that follow the CID of a request, by package and CID. */
static const uint8_t request_len[][COMMANDS] = {
    {0, 0, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN}, /* TS007; its CID 2 is a message of its own */
    {0, 5, 1, 1, UNKNOWN, UNKNOWN},             /* TS003 */
    {0, 1, 29, 1, 10, 10},                      /* TS005 */
    {0, 1, 16, 1, 1, UNKNOWN},                  /* TS004 v2; CID 8 is a message of its own */
    {0, 0, 4, 3, 0, 4},                         /* TS006 */
    {UNKNOWN, 0, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN},
};

/* Package of ports 200..204. */
static const uint8_t package_of_port[] = {SOW_PACKAGE_MCSETUP, SOW_PACKAGE_DATABLOCK, SOW_PACKAGE_CLOCKSYNC,
                                          SOW_PACKAGE_FWMGMT, SOW_PACKAGE_DIAG};

uint16_t sow_u16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }

uint32_t sow_u32(const uint8_t *p) { return sow_u16(p) | (uint32_t)sow_u16(p + 2) << 16; }

void sow_put16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

void sow_put32(uint8_t *p, uint32_t v)
{
    sow_put16(p, v);
    sow_put16(p + 2, v >> 16);
}

uint32_t sow_random(const struct sow *s, uint32_t bound)
{
    return ((s->cfg.port->random(s->cfg.port->user) & 0xffffu) * bound) >> 16;
}

void sow_arm(struct sow *s, uint32_t timer, uint32_t at)
{
    s->at[timer] = at;
    s->armed = (uint16_t)(s->armed | 1u << timer);
}

void sow_disarm(struct sow *s, uint32_t timer) { s->armed = (uint16_t)(s->armed & ~(1u << timer)); }

int sow_armed(const struct sow *s, uint32_t timer) { return (s->armed >> timer) & 1; }

int sow_due(const struct sow *s, uint32_t timer, uint32_t now)
{
    return sow_armed(s, timer) && sow_diff(s->at[timer], now) >= 0;
}

void sow_max_payload(struct sow *s, uint8_t bytes)
{
    s->max_payload = (uint8_t)(bytes < MIN_PAYLOAD ? MIN_PAYLOAD : bytes > MAX_PAYLOAD ? MAX_PAYLOAD : bytes);
}

int sow_open(struct sow *s, const struct sow_config *cfg, const struct sow_options *opt, void *arena,
             uint32_t arena_size, uint32_t now)
{
    uint32_t value;
    int r;

    memset(s, 0, sizeof *s);
    s->cfg = *cfg;
    s->package_version = opt->package_version == 1 ? 1 : 2;
    s->confirm = opt->confirm;
    s->period = 9; /* 18 h: 20 ppm are 1.3 s */
    sow_max_payload(s, opt->max_payload ? opt->max_payload : 51);

    (void)sow_image_header(cfg, &cfg->map->slot_a, &s->version, NULL, NULL);
    if (sow_boot_read(cfg, &s->boot) != SOW_OK) memset(&s->boot, 0, sizeof s->boot);
    r = sow_core_open(&s->core, &s->cfg, arena, arena_size);
    if (r < 0) {
        /* An image that could not be replaced again must not be kept. */
        if (s->boot.state == SOW_BOOT_TRIAL) (void)sow_boot_reject(cfg, (uint8_t)-r);
        return r;
    }
    s->opened = 1;
    sow_arm(s, SOW_TIMER_WORK, now);

    if (sow_core_kv_get(&s->core, SOW_KV_CLOCK_PERIOD, &value) == SOW_OK) s->period = value & 15u;
    s->index = s->core.session.index; /* of the session that was resumed, or 0 */
    if (s->boot.state == SOW_BOOT_TRIAL)
        sow_arm(s, SOW_TIMER_TRIAL, now + (opt->confirm_within ? opt->confirm_within : 86400u));
    return r;
}

void sow_joined(struct sow *s, uint32_t now)
{
    s->joined = 1;
    if (!s->synced) {
        s->backoff = 0;
        sow_arm(s, SOW_TIMER_CLOCK, now + sow_random(s, 8));
    }
}

uint32_t sow_gps_time(const struct sow *s, uint32_t now) { return s->synced ? now + s->offset : 0; }

static void run_command(struct sow *s, struct sow_command *c, uint8_t package)
{
    if (c->cid == 0) { /* PackageVersionReq */
        c->ans[1] = package;
        c->ans[2] = package == SOW_PACKAGE_MULTIPACKAGE || package == SOW_PACKAGE_FWMGMT ? 1 : s->package_version;
        c->len = 3;
        return;
    }
    switch (package) {
    case SOW_PACKAGE_MULTIPACKAGE: sow_multipackage_command(s, c); break;
    case SOW_PACKAGE_CLOCKSYNC: sow_clocksync_command(s, c); break;
    case SOW_PACKAGE_MCSETUP: sow_mcsetup_command(s, c); break;
    case SOW_PACKAGE_DATABLOCK: sow_datablock_command(s, c); break;
    case SOW_PACKAGE_FWMGMT: sow_fwmgmt_command(s, c); break;
    default: c->len = sow_diag_report(s, c->ans); break;
    }
}

uint32_t sow_command(struct sow *s, struct sow_command *c, uint8_t package, const uint8_t *data, uint32_t len)
{
    uint8_t cid = data[0];
    uint8_t want = cid < COMMANDS ? request_len[package][cid] : UNKNOWN;

    if (package == SOW_PACKAGE_DATABLOCK && s->package_version == 1) {
        if (cid == 2) want = 10;
        if (cid == 4) want = UNKNOWN;
    }
    if (want == UNKNOWN || len < 1u + want) return 0;
    c->len = 0;
    /* All others are for one device; a multicast one is dropped without an answer. */
    if (c->group == SOW_UNICAST || (package == SOW_PACKAGE_DATABLOCK && cid == 1)) {
        c->cid = cid;
        c->arg = data + 1;
        c->ans[0] = cid;
        c->len = 2;
        run_command(s, c, package);
    }
    return 1u + want;
}

/* Append an answer to the message at *open, or to a new one. Without room for it the answer is lost: the
 * server, who has sent several messages without waiting for an uplink, asks again. */
static void enqueue(struct sow *s, uint8_t port, uint8_t *open, const uint8_t *ans, uint8_t len)
{
    if (*open != NO_MESSAGE && s->queue[*open + 1u] + len > s->max_payload) *open = NO_MESSAGE;
    if (s->queue_len + len + (*open == NO_MESSAGE ? 2u : 0u) > SOW_QUEUE) return;
    if (*open == NO_MESSAGE) {
        *open = s->queue_len;
        s->queue[s->queue_len++] = port;
        s->queue[s->queue_len++] = 0;
    }
    memcpy(s->queue + s->queue_len, ans, len);
    s->queue_len = (uint8_t)(s->queue_len + len);
    s->queue[*open + 1u] = (uint8_t)(s->queue[*open + 1u] + len);
}

void sow_downlink(struct sow *s, uint32_t now, uint8_t port, uint8_t group, const uint8_t *data, uint32_t len)
{
    struct sow_command c;
    uint8_t open = NO_MESSAGE, package;

    if (!s->opened || s->halted) return;
    s->heard = 1;
    if (!s->joined) sow_joined(s, now);
    if (group != SOW_UNICAST && group >= SOW_GROUPS) return;
    if (port == SOW_PORT_MULTIPACKAGE) {
        if (group == SOW_UNICAST) sow_multipackage_message(s, now, data, len);
        return;
    }
    if (port < SOW_PORT_MCSETUP || port > SOW_PORT_DIAG) return;
    package = package_of_port[port - SOW_PORT_MCSETUP];
    if (package == SOW_PACKAGE_DATABLOCK && len && data[0] == CID_DATA_FRAGMENT) {
        sow_datablock_fragment(s, now, group, data, len);
        return;
    }
    c.now = now;
    c.group = group;
    c.at_once = 0;
    c.room = s->max_payload < SOW_ANS_MAX ? s->max_payload : SOW_ANS_MAX;
    while (len) {
        uint32_t used = sow_command(s, &c, package, data, len);

        if (!used) return; /* nothing after it can be read */
        if (c.len) enqueue(s, port, &open, c.ans, c.len);
        data += used;
        len -= used;
    }
}

static int is_uplink(uint32_t timer) { return timer <= SOW_TIMER_DIAG; }

int sow_poll(struct sow *s, uint32_t now, uint32_t *wake)
{
    uint32_t quiet, wait = SOW_NEVER;
    struct sow_status st;
    int r = SOW_OK;

    *wake = SOW_NEVER;
    if (!s->opened || s->halted) return SOW_OK;
    if (s->synced) sow_core_time(&s->core, now + s->offset);
    if (sow_due(s, SOW_TIMER_WORK, now)) {
        r = sow_core_work(&s->core);
        if (r <= SOW_OK) sow_disarm(s, SOW_TIMER_WORK);
    }
    sow_fwmgmt_poll(s, now);
    if (s->halted) return SOW_OK;
    (void)sow_core_status(&s->core, s->index, &st);
    if (st.step < SOW_STEP_READY && sow_deferred(st.cause) && !sow_armed(s, SOW_TIMER_WORK))
        sow_arm(s, SOW_TIMER_WORK, now + SOW_DEFERRAL);
    sow_datablock_settle(s, now, &st);
    sow_diag_watch(s, now, &st);

    if (s->joined && (s->queue_len || s->ans_next < s->ans_stop)) wait = 0;
    /* In a class C window an uplink costs a fragment: those that nobody asked for wait for its end. */
    quiet = sow_quiet_until(s, now);
    for (uint32_t i = 0; i < SOW_TIMERS; i++) {
        int32_t left;

        if (!sow_armed(s, i) || (is_uplink(i) && !s->joined)) continue;
        if ((i == SOW_TIMER_CLOCK || i == SOW_TIMER_DIAG) && quiet != now && sow_diff(s->at[i], quiet) > 0) s->at[i] = quiet;
        left = sow_diff(now, s->at[i]);
        if (left < 0) left = 0;
        if ((uint32_t)left < wait) wait = (uint32_t)left;
    }
    if (wait != SOW_NEVER) *wake = now + wait;
    return r;
}

int sow_uplink(struct sow *s, uint32_t now, struct sow_uplink *up)
{
    if (!s->opened || s->halted || !s->joined) return SOW_OK;
    if (s->queue_len) {
        const uint8_t *m = s->queue + s->queue_head;

        up->port = m[0];
        up->len = m[1];
        memcpy(up->data, m + 2, up->len);
        s->queue_head = (uint8_t)(s->queue_head + 2u + up->len);
        if (s->queue_head == s->queue_len) s->queue_head = s->queue_len = 0;
        return SOW_DONE;
    }
    if (s->ans_next < s->ans_stop) return sow_multipackage_answer(s, up);
    for (uint8_t i = 0; is_uplink(i); i++) {
        if (!sow_due(s, i, now)) continue;
        sow_disarm(s, i);
        if (i == SOW_TIMER_CLOCK) {
            sow_clocksync_request(s, now, up);
        } else if (i == SOW_TIMER_DIAG) {
            up->port = SOW_PORT_DIAG;
            up->len = sow_diag_report(s, up->data);
        } else if (i == SOW_TIMER_ACK) {
            sow_datablock_received(s, now, up);
        } else {
            up->port = SOW_PORT_DATABLOCK;
            up->len = (uint8_t)sow_datablock_status(s, i, up->data);
        }
        if (up->len) return SOW_DONE; /* a session deleted meanwhile leaves a v1 device nothing to say */
    }
    return SOW_OK;
}
