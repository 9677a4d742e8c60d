/* What the application packages share: how a command is handed to its package and how its answer comes back.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SOW_PACKAGES_H
#define SOW_PACKAGES_H

#include "sow.h"

/* PackageIdentifier; SOW_PACKAGE_DIAG has none on the air and is not reachable through TS007. */
enum sow_package_id {
    SOW_PACKAGE_MULTIPACKAGE = 0,
    SOW_PACKAGE_CLOCKSYNC = 1,
    SOW_PACKAGE_MCSETUP = 2,
    SOW_PACKAGE_DATABLOCK = 3,
    SOW_PACKAGE_FWMGMT = 4,
    SOW_PACKAGE_DIAG = 5
};

enum sow_ans_form { SOW_ANS_NONE = 0, SOW_ANS_AUTO = 1, SOW_ANS_FRAGMENT = 2 }; /* of what is still to send of ans */

#define SOW_DEFERRAL 900u /* seconds before a deferred phase is proposed again */

#define SOW_ANS_MAX 22u /* longest answer to one command: McGroupStatusAns with four groups */

/* Keys of sow_core_kv_get and sow_core_kv_put. */
#define SOW_KV_CLOCK_PERIOD 0u
#define SOW_KV_RESETS 1u /* of the modem shell */

#define SOW_UNASKED 0x80u /* cid: not a command, but the time for the uplink that the package sends by itself */

struct sow_package {
    uint8_t id, port;
    uint8_t request_len[6]; /* bytes that follow the CID of a request, by CID */
    /* Carry out the command s->cid with its s->arg, whose length has been checked, and answer it. *up has the port and
     * a len of 2, the CID and a byte to be filled in; a len of 0 is no answer. */
    void (*command)(struct sow *s, struct sow_uplink *up);
};

/* Little endian */
uint16_t sow_u16(const uint8_t *p);
uint32_t sow_u32(const uint8_t *p);
void sow_put16(uint8_t *p, uint32_t v);
void sow_put32(uint8_t *p, uint32_t v);

/* Append to an answer. */
void sow_ans32(struct sow_uplink *up, uint32_t v);

/* Seconds from a to b; negative when b is earlier. Good across a wrap of the clock. */
static inline int32_t sow_diff(uint32_t a, uint32_t b) { return (int32_t)(b - a); }

/* GPS time, if the clock is right. */
static inline uint32_t sow_gps(const struct sow *s) { return s->now + s->offset; }

/* sow_api.c */
extern const struct sow_package sow_packages[SOW_PACKAGE_DIAG + 1]; /* by enum sow_package_id */
uint32_t sow_random(const struct sow *s, uint32_t bound); /* 0 .. bound-1; bound <= 65536 */
void sow_arm(struct sow *s, uint32_t timer, uint32_t delay); /* s->at[timer] = 0 disarms it */
int sow_due(const struct sow *s, uint32_t timer); /* armed, and its time has come */
int sow_answers_wait(const struct sow *s); /* 0: no answer is ready to be taken */
uint8_t sow_package_version(const struct sow *s, uint32_t id);
struct sow_status *sow_status(const struct sow *s, uint32_t index, struct sow_status *st); /* of the core; returns st */

void sow_clocksync_command(struct sow *s, struct sow_uplink *up);

void sow_mcsetup_command(struct sow *s, struct sow_uplink *up);
/* Move the windows of these groups by a correction of the clock, and tell the MAC of those that are not over yet: where
 * they are now, or that they are cancelled. mask: a bit per group */
void sow_mcsetup_windows(struct sow *s, uint32_t mask, uint32_t correction, int cancel);

void sow_datablock_command(struct sow *s, struct sow_uplink *up);
void sow_datablock_fragment(struct sow *s);
/* After the core worked: close the windows of a block that is complete or refused, acknowledge it. */
void sow_datablock_settle(struct sow *s, const struct sow_status *st);
uint32_t sow_datablock_spread(const struct sow *s, const struct sow_status *st); /* random delay, seconds */

void sow_fwmgmt_command(struct sow *s, struct sow_uplink *up);
void sow_fwmgmt_poll(struct sow *s); /* trial and reboot */

void sow_multipackage_command(struct sow *s, struct sow_uplink *up);
void sow_multipackage_begin(struct sow *s); /* a message: leaves its commands, if there are any */
/* Send bytes start .. stop-1 of the ANS buffer. */
void sow_multipackage_send(struct sow *s, uint32_t start, uint32_t stop, uint32_t form);
int sow_multipackage_answer(struct sow *s, struct sow_uplink *up); /* SOW_DONE: *up is filled */

void sow_diag_command(struct sow *s, struct sow_uplink *up);
/* Log what has changed, and arm a report when it is worth one. *st is the status now, and void afterwards. */
void sow_diag_watch(struct sow *s, struct sow_status *st);

/* Remember a refusal that the core does not; SOW_CAUSE_OK: forget it. */
static inline void sow_diag_note(struct sow *s, uint8_t step, uint8_t cause)
{
    s->note_step = step;
    s->note_cause = cause;
}

static inline int sow_deferred(int cause)
{
    return cause == SOW_CAUSE_DEFERRED_USER || cause == SOW_CAUSE_DEFERRED_BATTERY;
}

#endif
