/* What the application packages share: how a command is handed to its package and how its answer comes back.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SOW_PACKAGES_H
#define SOW_PACKAGES_H

#include "sow.h"

/* PackageIdentifier; SOW_PACKAGE_DIAG has none on the air and is not reachable through TS007. */
enum sow_package {
    SOW_PACKAGE_MULTIPACKAGE = 0,
    SOW_PACKAGE_CLOCKSYNC = 1,
    SOW_PACKAGE_MCSETUP = 2,
    SOW_PACKAGE_DATABLOCK = 3,
    SOW_PACKAGE_FWMGMT = 4,
    SOW_PACKAGE_DIAG = 5
};

enum sow_ans_form { SOW_ANS_AUTO = 0, SOW_ANS_FRAGMENT = 1, SOW_ANS_ERROR = 2 };

#define SOW_DEFERRAL 900u /* seconds before a deferred phase is proposed again */

#define SOW_ANS_MAX 22u /* longest answer to one command: McGroupStatusAns with four groups */

/* Keys of sow_core_kv_get and sow_core_kv_put. */
#define SOW_KV_CLOCK_PERIOD 0u
#define SOW_KV_RESETS 15u /* of the modem shell */

struct sow_command {
    const uint8_t *arg; /* after the CID; the length has been checked */
    uint32_t now;
    uint8_t cid;
    uint8_t group;   /* McGroupID or SOW_UNICAST */
    uint8_t at_once; /* the answer cannot wait: it is part of a TS007 answer */
    uint8_t room;    /* bytes an answer may have, <= SOW_ANS_MAX; only McGroupStatusAns can be too long */
    uint8_t len;     /* out: bytes of ans; 0: no answer. 2 at first */
    uint8_t ans[SOW_ANS_MAX]; /* ans[0] is the CID */
};

/* Little endian */
uint16_t sow_u16(const uint8_t *p);
uint32_t sow_u32(const uint8_t *p);
void sow_put16(uint8_t *p, uint32_t v);
void sow_put32(uint8_t *p, uint32_t v);

/* Append to an answer. */
void sow_ans32(struct sow_command *c, uint32_t v);

/* Seconds from a to b; negative when b is earlier. Good across a wrap of the clock. */
static inline int32_t sow_diff(uint32_t a, uint32_t b) { return (int32_t)(b - a); }

/* sow_api.c */
uint32_t sow_random(const struct sow *s, uint32_t bound); /* 0 .. bound-1; bound <= 65536 */
void sow_arm(struct sow *s, uint32_t timer, uint32_t at);
void sow_disarm(struct sow *s, uint32_t timer);
int sow_armed(const struct sow *s, uint32_t timer);
int sow_due(const struct sow *s, uint32_t timer, uint32_t now); /* armed, and its time has come */
/* Run the first command of a message: bytes consumed, or 0 when the rest of the message cannot be read. */
uint32_t sow_command(struct sow *s, struct sow_command *c, uint8_t package, const uint8_t *data, uint32_t len);
void sow_reboot(struct sow *s);

void sow_clocksync_command(struct sow *s, struct sow_command *c);
void sow_clocksync_request(struct sow *s, uint32_t now, struct sow_uplink *up);

void sow_mcsetup_command(struct sow *s, struct sow_command *c);
/* Tell the MAC anew of the windows of these groups that are not over yet, where the clock now places them, or
 * that they are cancelled. mask: a bit per group */
void sow_mcsetup_windows(struct sow *s, uint32_t now, uint32_t mask, int cancel);

void sow_datablock_command(struct sow *s, struct sow_command *c);
void sow_datablock_fragment(struct sow *s, uint32_t now, uint8_t group, const uint8_t *data, uint32_t len);
uint32_t sow_datablock_status(struct sow *s, uint8_t index, uint8_t *ans); /* returns its length */
void sow_datablock_received(struct sow *s, uint32_t now, struct sow_uplink *up);
/* After the core worked: close the windows of a block that is complete or refused, acknowledge it. */
void sow_datablock_settle(struct sow *s, uint32_t now, const struct sow_status *st);
uint32_t sow_datablock_spread(const struct sow *s, const struct sow_status *st); /* random delay, seconds */

void sow_fwmgmt_command(struct sow *s, struct sow_command *c);
void sow_fwmgmt_poll(struct sow *s, uint32_t now); /* trial and reboot */

void sow_multipackage_message(struct sow *s, uint32_t now, const uint8_t *data, uint32_t len);
void sow_multipackage_command(struct sow *s, struct sow_command *c);
int sow_multipackage_answer(struct sow *s, struct sow_uplink *up); /* SOW_DONE: *up is filled */

/* Remember a refusal that the core does not; SOW_CAUSE_OK: forget it. */
void sow_diag_note(struct sow *s, uint8_t step, uint8_t cause);
uint8_t sow_diag_report(struct sow *s, uint8_t ans[10]); /* returns its length */
/* Log what has changed, and arm a report when it is worth one. *st is the status now, and void afterwards. */
void sow_diag_watch(struct sow *s, uint32_t now, struct sow_status *st);

static inline int sow_deferred(uint8_t cause)
{
    return cause == SOW_CAUSE_DEFERRED_USER || cause == SOW_CAUSE_DEFERRED_BATTERY;
}

#endif
