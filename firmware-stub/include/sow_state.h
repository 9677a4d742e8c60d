/* State of the LoRaWAN layer. Private: only its size concerns the caller.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SOW_STATE_H
#define SOW_STATE_H

#include "sow_core.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SOW_GROUPS 4u      /* multicast groups, McGroupID 0..3 */
#define SOW_QUEUE 160u     /* answers waiting for sow_uplink, bytes */
#define SOW_ANS_BUFFER 128u /* TS007 ANS buffer, bytes */

enum sow_timer {
    SOW_TIMER_STATUS = 0, /* FragSessionStatusAns, one timer per FragIndex: 0..3 */
    SOW_TIMER_ACK = 4,    /* FragDataBlockReceivedReq */
    SOW_TIMER_CLOCK = 5,  /* AppTimeReq */
    SOW_TIMER_DIAG = 6,   /* unsolicited diagnostic report */
    SOW_TIMER_REBOOT = 7, /* TS006 reboot */
    SOW_TIMER_TRIAL = 8,  /* the image on trial is rejected */
    SOW_TIMER_WORK = 9,   /* sow_core_work has more to do, or is to propose again what was put off */
    SOW_TIMERS = 10
};

/* Small fields come first, the rarely used ones last: a Cortex-M0+ reaches a byte within 32 bytes of its base, a word
 * within 128. */
struct sow {
    uint8_t opened; /* until port->reboot is called */
    uint8_t joined, max_payload, package_version;

    /* The command under way. */
    uint8_t cid;
    uint8_t group;   /* McGroupID or SOW_UNICAST */
    uint8_t at_once; /* the answer cannot wait: it is part of a TS007 answer, or its time has come */

    uint8_t synced;  /* offset is valid */
    uint8_t token;   /* TS003 TokenReq */
    uint8_t resync;  /* forced AppTimeReq still to send */
    uint8_t period;  /* resynchronise every 128 * 2^period seconds */
    uint8_t backoff; /* of AppTimeReq while not synced */

    uint8_t groups;     /* bit per defined group */
    uint8_t index;      /* FragIndex set up last */
    uint8_t over;       /* its block is complete or refused, and the windows that fed it are cancelled */
    uint8_t acks;       /* FragDataBlockReceivedReq still to send */
    uint8_t reboot_gps; /* the reboot was asked for at a GPS time */

    uint8_t note_step, note_cause; /* a refusal that the core does not remember: of a set-up, of an install */
    uint8_t last_step, last_cause; /* of the report sent last, or passed in silence */

    uint8_t mpa_token;             /* TS007 CommandToken */
    uint8_t ans_len;               /* bytes in ans */
    uint8_t ans_next, ans_stop;    /* ans[next..stop) is still to send */
    uint8_t ans_form;              /* enum sow_ans_form */
    uint8_t queue_head, queue_len; /* queue[head..len) is still to send */

    uint8_t tested, heard, confirm; /* of the image on trial; confirm: enum sow_confirm_policy */
    uint8_t installing;             /* the reset is to install an image */
    struct {
        uint8_t state; /* enum sow_boot_state at the last reset */
    } boot;
    uint16_t left;      /* bytes of the message under way, */
    const uint8_t *arg; /* they, or what follows the CID of its command */
    uint32_t now;       /* device seconds of the call under way */

    struct sow_config cfg;
    uint32_t offset;  /* GPS seconds = device seconds + offset */
    uint32_t version; /* FWversion of the running image */
    uint32_t at[SOW_TIMERS]; /* device seconds; 0: not armed */
    uint32_t group_addr[SOW_GROUPS];
    struct sow_core core;
    /* Receive windows of TS005, which a correction of the clock moves; device_class 0: none. */
    struct sow_mc_session window[SOW_GROUPS];
    uint8_t ans[SOW_ANS_BUFFER];
    uint8_t queue[SOW_QUEUE]; /* messages: port, length, bytes */
};

#ifdef __cplusplus
}
#endif
#endif
