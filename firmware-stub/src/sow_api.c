/* The LoRaWAN layer: one message in, commands to their packages, answers and timed uplinks out.
 *
 * Answers to commands wait in a small queue of bytes, already packed into messages. What depends on the moment
 * it is sent (a clock request, a status after its random delay, a report) is only a timer until sow_uplink
 * has the package build it.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <stddef.h>
#include <string.h>

#include "sow_packages.h"
#include "sow_services.h"

#define MAX_PAYLOAD 64u /* of struct sow_uplink */
#define MIN_PAYLOAD 11u /* smallest of any LoRaWAN region; a report needs 10 */
#define COMMANDS 6u
#define UNKNOWN 0xffu
#define CID_DATA_FRAGMENT 8u
#define PREFIX 0x80u

const struct sow_package sow_packages[] = {
    {SOW_PACKAGE_MULTIPACKAGE, SOW_PORT_MULTIPACKAGE, {0, 0, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN},
     .command = sow_multipackage_command}, /* its CID 2 is a message of its own */
    {SOW_PACKAGE_CLOCKSYNC, SOW_PORT_CLOCKSYNC, {0, 5, 1, 1, UNKNOWN, UNKNOWN}, .command = sow_clocksync_command},
    {SOW_PACKAGE_MCSETUP, SOW_PORT_MCSETUP, {0, 1, 29, 1, 10, 10}, .command = sow_mcsetup_command},
    {SOW_PACKAGE_DATABLOCK, SOW_PORT_DATABLOCK, {0, 1, 16, 1, 1, UNKNOWN},
     .command = sow_datablock_command}, /* version 2; CID 8 is a message of its own */
    {SOW_PACKAGE_FWMGMT, SOW_PORT_FWMGMT, {0, 0, 4, 3, 0, 4}, .command = sow_fwmgmt_command},
    {SOW_PACKAGE_DIAG, SOW_PORT_DIAG, {UNKNOWN, 0, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN}, .command = sow_diag_command},
};

/* The uplink that each of the first timers stands for: a command that the device gives itself. */
static const struct {
    uint8_t package, cid, arg;
} unasked[] = {
    {SOW_PACKAGE_DATABLOCK, 1, 1}, /* FragSessionStatus: FragIndex, all devices answer */
    {SOW_PACKAGE_DATABLOCK, 1, 3},
    {SOW_PACKAGE_DATABLOCK, 1, 5},
    {SOW_PACKAGE_DATABLOCK, 1, 7},
    [SOW_TIMER_ACK] = {SOW_PACKAGE_DATABLOCK, SOW_UNASKED, 0},
    [SOW_TIMER_CLOCK] = {SOW_PACKAGE_CLOCKSYNC, SOW_UNASKED, 0},
    [SOW_TIMER_DIAG] = {SOW_PACKAGE_DIAG, 1, 0},
};

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

void sow_ans32(struct sow_uplink *up, uint32_t v)
{
    sow_put32(up->data + up->len, v);
    up->len = (uint8_t)(up->len + 4u);
}

uint32_t sow_random(const struct sow *s, uint32_t bound)
{
    return ((s->cfg.port->random(s->cfg.port->user) & 0xffffu) * bound) >> 16;
}

__attribute__((noinline)) void sow_arm(struct sow *s, uint32_t timer, uint32_t delay)
{
    uint32_t at = s->now + delay;

    s->at[timer] = at - !at; /* 0 is for a timer that is not armed */
}

int sow_due(const struct sow *s, uint32_t timer) { return s->at[timer] && sow_diff(s->at[timer], s->now) >= 0; }

int sow_answers_wait(const struct sow *s) { return s->joined ? s->queue_len | s->ans_form : 0; }

struct sow_status *sow_status(const struct sow *s, uint32_t index, struct sow_status *st)
{
    (void)sow_core_status(&s->core, (uint8_t)index, st);
    return st;
}

uint8_t sow_package_version(const struct sow *s, uint32_t id)
{
    return id == SOW_PACKAGE_MULTIPACKAGE || id == SOW_PACKAGE_FWMGMT ? 1 : s->package_version;
}

__attribute__((noinline)) void sow_max_payload(struct sow *s, uint8_t bytes)
{
    s->max_payload = (uint8_t)(bytes < MIN_PAYLOAD ? MIN_PAYLOAD : bytes > MAX_PAYLOAD ? MAX_PAYLOAD : bytes);
}

int sow_open(struct sow *s, const struct sow_config *cfg, const struct sow_options *opt, void *arena,
             uint32_t arena_size, uint32_t now)
{
    uint32_t period = 9; /* 18 h: 20 ppm are 1.3 s */
    struct sow_boot_status boot;
    int r;

    memset(s, 0, sizeof *s);
    s->cfg = *cfg;
    s->now = now;
    s->package_version = opt->package_version == 1 ? 1 : 2;
    s->confirm = opt->confirm;
    sow_max_payload(s, opt->max_payload ? opt->max_payload : 51);

    if ((r = sow_services_check()) < 0) return r;
    (void)sow_image_header(cfg, &cfg->map->slot_a, &s->version, NULL, NULL);
    if (sow_boot_read(cfg, &boot) == SOW_OK) s->boot.state = boot.state;
    if (s->boot.state == SOW_BOOT_TRIAL) sow_arm(s, SOW_TIMER_TRIAL, opt->confirm_within ? opt->confirm_within : 86400u);
    r = sow_core_open(&s->core, &s->cfg, arena, arena_size);
    if (r < 0) {
        /* An image that could not be replaced again must not be kept. */
        if (s->at[SOW_TIMER_TRIAL]) (void)sow_boot_reject(cfg, (uint8_t)-r);
        return r;
    }
    s->opened = 1;
    sow_arm(s, SOW_TIMER_WORK, 0);
    (void)sow_core_kv_get(&s->core, SOW_KV_CLOCK_PERIOD, &period);
    s->period = period & 15u;
    s->index = s->core.at.session.index; /* of the session that was resumed, or 0 */
    return r;
}

void sow_joined(struct sow *s, uint32_t now)
{
    s->now = now;
    s->joined = 1;
    if (!s->synced) {
        s->backoff = 0;
        sow_arm(s, SOW_TIMER_CLOCK, sow_random(s, 8));
    }
}

uint32_t sow_gps_time(const struct sow *s, uint32_t now) { return s->synced ? now + s->offset : 0; }

static __attribute__((noinline)) void run(struct sow *s, const struct sow_package *p, uint32_t cid, struct sow_uplink *up)
{
    s->cid = (uint8_t)cid;
    up->port = p->port;
    up->len = 3;
    up->data[0] = (uint8_t)cid;
    up->data[1] = p->id;
    up->data[2] = sow_package_version(s, p->id);
    if (cid == 0) return; /* PackageVersionAns */
    up->len = 2;
    p->command(s, up);
}

/* Run the first command that is left of the message. Returns whether the next one can be read. */
static int command(struct sow *s, const struct sow_package *p, struct sow_uplink *up)
{
    uint32_t cid = s->arg[0], want = cid < COMMANDS ? p->request_len[cid] : UNKNOWN;

    if (p->id == SOW_PACKAGE_DATABLOCK && s->package_version == 1) {
        if (cid == 2) want = 10;
        if (cid == 4) want = UNKNOWN;
    }
    if (want == UNKNOWN || s->left <= want) return 0;
    s->arg++;
    up->len = 0;
    /* All others are for one device; a multicast one is dropped without an answer. */
    if (s->group == SOW_UNICAST || (p->id == SOW_PACKAGE_DATABLOCK && cid == 1)) run(s, p, cid, up);
    s->arg += want;
    s->left = (uint16_t)(s->left - 1u - want);
    return 1;
}

/* Append an answer to a message in the queue, or without one to a new one. Returns the message. Without room for
 * it the answer is lost: the server, who has sent several messages without waiting for an uplink, asks again. */
static __attribute__((noinline)) uint8_t *enqueue(struct sow *s, uint8_t *message, const struct sow_uplink *up)
{
    uint8_t *end = s->queue + s->queue_len;
    uint32_t head = 0, n = up->len;

    if (!message || message[1] + n > s->max_payload) {
        message = end;
        head = offsetof(struct sow_uplink, data); /* port and length */
    }
    if (s->queue_len + head + n > SOW_QUEUE) return NULL;
    memcpy(end, (const uint8_t *)up + offsetof(struct sow_uplink, data) - head, head + n);
    s->queue_len = (uint8_t)(s->queue_len + head + n);
    if (!head) message[1] = (uint8_t)(message[1] + n);
    return message;
}

/* The commands of a message, those of TS007 for several packages: there a byte 0x80 | PackageIdentifier selects the
 * package of the commands after it and is copied to the answers, which gather in the ANS buffer. */
static void run_message(struct sow *s, const struct sow_package *p)
{
    uint8_t *message = NULL, answered = 0;
    struct sow_uplink up;

    while (s->left) {
        uint32_t id = s->arg[0] ^ PREFIX;

        if (s->at_once && id < PREFIX) {
            if (id > SOW_PACKAGE_FWMGMT || s->ans_len >= SOW_ANS_BUFFER) break;
            p = &sow_packages[id];
            up.len = 1;
            up.data[0] = *s->arg++;
            s->left--;
        } else {
            /* What might not be answered is not done. */
            if (s->at_once && s->ans_len > SOW_ANS_BUFFER - SOW_ANS_MAX) break;
            if (!command(s, p, &up)) break;
            answered |= up.len;
        }
        if (s->at_once) {
            memcpy(s->ans + s->ans_len, up.data, up.len);
            s->ans_len = (uint8_t)(s->ans_len + up.len);
        } else if (up.len) {
            message = enqueue(s, message, &up);
        }
    }
    if (s->at_once) sow_multipackage_send(s, 0, s->ans_len, answered ? SOW_ANS_AUTO : SOW_ANS_NONE);
}

void sow_downlink(struct sow *s, uint32_t now, uint8_t port, uint8_t group, const uint8_t *data, uint32_t len)
{
    const struct sow_package *p = sow_packages;

    s->now = now;
    if (!s->opened) return;
    s->heard = 1;
    if (!s->joined) sow_joined(s, now);
    if (group != SOW_UNICAST && group >= SOW_GROUPS) return;
    while (p->port != port)
        if (p++->id == SOW_PACKAGE_DIAG) return;
    s->group = group;
    s->arg = data;
    s->left = (uint16_t)len;
    s->at_once = 0;
    if (p->id == SOW_PACKAGE_MULTIPACKAGE) {
        if (group == SOW_UNICAST) sow_multipackage_begin(s);
        if (!s->at_once) return;
    }
    if (p->id == SOW_PACKAGE_DATABLOCK && len && data[0] == CID_DATA_FRAGMENT) sow_datablock_fragment(s);
    else run_message(s, p);
}

int sow_poll(struct sow *s, uint32_t now, uint32_t *wake)
{
    uint32_t quiet, wait = SOW_NEVER, i;
    struct sow_status buf, *st;
    int r = SOW_OK;

    s->now = now;
    *wake = SOW_NEVER;
    if (!s->opened) return SOW_OK;
    if (s->synced) sow_core_time(&s->core, sow_gps(s));
    if (sow_due(s, SOW_TIMER_WORK)) {
        r = sow_core_work(&s->core);
        if (r <= SOW_OK) s->at[SOW_TIMER_WORK] = 0;
    }
    sow_fwmgmt_poll(s);
    if (!s->opened) return SOW_OK;
    st = sow_status(s, s->index, &buf);
    if (st->step < SOW_STEP_READY && sow_deferred(st->cause) && !s->at[SOW_TIMER_WORK])
        sow_arm(s, SOW_TIMER_WORK, SOW_DEFERRAL);
    sow_datablock_settle(s, st);
    sow_diag_watch(s, st);

    /* In a class C window an uplink costs a fragment: those that nobody asked for wait for its end. */
    quiet = sow_quiet_until(s, now);
    for (i = SOW_TIMER_CLOCK; i <= SOW_TIMER_DIAG; i++)
        if (s->at[i] && sow_diff(s->at[i], quiet) > 0 && quiet != now) s->at[i] = quiet;
    if (sow_answers_wait(s)) wait = 0;
    for (i = s->joined ? 0 : SOW_TIMER_DIAG + 1; i < SOW_TIMERS; i++) {
        int32_t left = sow_diff(now, s->at[i]);

        if (!s->at[i]) continue;
        if (left < 0) left = 0;
        if ((uint32_t)left < wait) wait = (uint32_t)left;
    }
    if (wait != SOW_NEVER) *wake = now + wait;
    return r;
}

int sow_uplink(struct sow *s, uint32_t now, struct sow_uplink *up)
{
    s->now = now;
    if (!s->opened || !s->joined) return SOW_OK;
    if (s->queue_len) {
        const uint8_t *message = s->queue + s->queue_head;
        uint32_t n = offsetof(struct sow_uplink, data) + message[1];

        memcpy(up, message, n);
        s->queue_head = (uint8_t)(s->queue_head + n);
        if (s->queue_head == s->queue_len) s->queue_head = s->queue_len = 0;
        return SOW_DONE;
    }
    if (s->ans_form != SOW_ANS_NONE) return sow_multipackage_answer(s, up);
    for (uint32_t i = 0; i <= SOW_TIMER_DIAG; i++) {
        if (!sow_due(s, i)) continue;
        s->at[i] = 0;
        s->group = SOW_UNICAST;
        s->at_once = 1;
        s->arg = &unasked[i].arg;
        run(s, &sow_packages[unasked[i].package], unasked[i].cid, up);
        if (up->len) return SOW_DONE; /* a session deleted meanwhile leaves a v1 device nothing to say */
    }
    return SOW_OK;
}
