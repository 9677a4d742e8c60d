/* TS004 fragmented data block transport, versions 1.0.0 and 2.0.0: the command layer over sow_core.
 *
 *  CID  request                              answer
 *   1   FragSessionStatus 1                  v1: Received&index 2, MissingFrag 1, Status 1
 *                                            v2: Status 1 [, Received&index 2, MissingFrag 1]
 *   2   FragSessionSetup v1 10, v2 16        FragIndex and status 1
 *   3   FragSessionDelete 1                  FragIndex and SessionDoesNotExist 1
 *   4   FragDataBlockReceivedAns 1 (v2)      (uplink, unasked: FragDataBlockReceivedReq 1)
 *   8   DataFragment Index&N 2, data         -
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "sow_packages.h"

#define ALGO_UNSUPPORTED 0x01u
#define NOT_ENOUGH_MEMORY 0x02u
#define INDEX_UNSUPPORTED 0x04u
#define WRONG_DESCRIPTOR 0x08u
#define SESSION_REPLAY 0x10u
#define MAX_FRAGMENTS 16383u
#define ACK_TRIES 3u

static int find(const struct sow *s, uint8_t index, struct sow_status *st)
{
    return sow_core_status(&s->core, index, st) >= 0 && st->exists;
}

uint32_t sow_datablock_spread(const struct sow *s, const struct sow_status *st)
{
    return sow_random(s, 16u << st->session.ack_delay); /* 16 s without a session */
}

/* A cause in the bits of FragSessionSetupAns. The causes that have no bit are told as WrongDescriptor, and in
 * full by the diagnostic report that follows. */
static uint8_t setup_bit(uint8_t cause)
{
    switch (cause) {
    case SOW_CAUSE_ALGO_UNSUPPORTED: return ALGO_UNSUPPORTED;
    case SOW_CAUSE_NO_RAM:
    case SOW_CAUSE_NO_FLASH:
    case SOW_CAUSE_FLASH_IO: return NOT_ENOUGH_MEMORY;
    case SOW_CAUSE_INDEX_UNSUPPORTED: return INDEX_UNSUPPORTED;
    case SOW_CAUSE_SESSION_REPLAY: return SESSION_REPLAY;
    default: return WRONG_DESCRIPTOR;
    }
}

static void setup(struct sow *s, struct sow_command *c)
{
    const uint8_t *arg = c->arg;
    struct sow_session n;
    int r;

    memset(&n, 0, sizeof n);
    n.index = (arg[0] >> 4) & 3u;
    n.mc_mask = arg[0] & 15u;
    n.nb_frag = sow_u16(arg + 1);
    n.frag_size = arg[3];
    n.ack_delay = arg[4] & 7u;
    n.padding = arg[5];
    memcpy(n.descriptor, arg + 6, 4);
    n.matrix = SOW_MATRIX_V1;
    if (s->package_version != 1) {
        n.matrix = SOW_MATRIX_V2;
        n.ack_wanted = (arg[4] >> 6) & 1u;
        n.has_mic = 1;
        n.session_cnt = sow_u16(arg + 10);
        memcpy(n.mic, arg + 12, 4);
    }
    if ((arg[4] >> 3) & 7u || !n.nb_frag || !n.frag_size || n.padding >= n.frag_size) {
        r = -SOW_CAUSE_ALGO_UNSUPPORTED;
    } else if (n.nb_frag > MAX_FRAGMENTS) {
        r = -SOW_CAUSE_NO_FLASH;
    } else {
        r = sow_core_session(&s->core, &n);
    }
    c->ans[1] = (uint8_t)(n.index << 6);
    if (r < 0) {
        c->ans[1] = (uint8_t)(c->ans[1] | setup_bit((uint8_t)-r));
        sow_diag_note(s, SOW_STEP_SETUP, (uint8_t)-r);
        return;
    }
    sow_diag_note(s, SOW_STEP_NONE, SOW_CAUSE_OK);
    s->index = n.index;
    s->over = 0;
    s->acks = 0;
    sow_arm(s, SOW_TIMER_WORK, c->now);
}

uint32_t sow_datablock_status(struct sow *s, uint8_t index, uint8_t *ans)
{
    struct sow_status st;
    uint8_t *fields = ans + 2;

    ans[0] = 1;
    if (!find(s, index, &st)) {
        ans[1] = 4; /* SessionDoesNotExist; version 1 cannot say so */
        return s->package_version == 1 ? 0 : 2;
    }
    if (s->package_version == 1) {
        fields = ans + 1;
        ans[4] = st.memory_error != 0;
    } else {
        ans[1] = (uint8_t)((st.memory_error != 0) | (st.missing == 0 && st.mic_error) << 1);
    }
    sow_put16(fields, (uint32_t)index << 14 | (st.received & 0x3fffu));
    fields[2] = (uint8_t)(st.missing > 255u ? 255u : st.missing);
    return 5;
}

static void status(struct sow *s, struct sow_command *c)
{
    uint8_t index = (c->arg[0] >> 1) & 3u, all = c->arg[0] & 1u;
    struct sow_status st;
    uint32_t due;
    int exists = find(s, index, &st);

    c->len = 0;
    if (!all && exists && st.missing == 0) return;
    /* A group may well be asked about a session that this device was never given. */
    if (!all && !exists && c->group != SOW_UNICAST) return;
    if (c->at_once) {
        c->len = (uint8_t)sow_datablock_status(s, index, c->ans);
        return;
    }
    due = c->now;
    if (exists || c->group != SOW_UNICAST) due += sow_datablock_spread(s, &st);
    /* A question repeated while its answer waits does not put the answer off. */
    if (!sow_armed(s, index) || sow_diff(s->at[index], due) < 0) sow_arm(s, index, due);
    /* The status has no word for a refusal: without its cause it would look like loss, and be sent parity. */
    if (exists && st.cause != SOW_CAUSE_OK) sow_arm(s, SOW_TIMER_DIAG, s->at[index]);
}

void sow_datablock_command(struct sow *s, struct sow_command *c)
{
    uint8_t index = c->arg[0] & 3u;

    switch (c->cid) {
    case 1: status(s, c); break;
    case 2: setup(s, c); break;
    case 3:
        c->ans[1] = index;
        if (sow_core_delete(&s->core, index) < 0) c->ans[1] |= 4u;
        break;
    default: /* FragDataBlockReceivedAns */
        c->len = 0;
        if (index == s->index) s->acks = 0;
        break;
    }
}

void sow_datablock_fragment(struct sow *s, uint32_t now, uint8_t group, const uint8_t *data, uint32_t len)
{
    struct sow_status st;
    uint16_t index_n;
    uint8_t index;

    if (len < 4) return;
    index_n = sow_u16(data + 1);
    index = (uint8_t)(index_n >> 14);
    index_n &= 0x3fffu;
    if (!index_n || !find(s, index, &st)) return;
    if (group != SOW_UNICAST && !(st.session.mc_mask & 1u << group)) return;
    /* A fragment that cannot be kept is a lost one; what stopped the session is in its status. */
    if (sow_core_fragment(&s->core, index, index_n, data + 3, len - 3) >= 0)
        sow_arm(s, SOW_TIMER_WORK, now);
}

void sow_datablock_settle(struct sow *s, uint32_t now, const struct sow_status *st)
{
    int stopped = st->cause != SOW_CAUSE_OK && st->cause != SOW_CAUSE_FLASH_DECAY && !sow_deferred(st->cause);
    int whole = st->missing == 0 && (stopped || st->step > SOW_STEP_VERIFY);

    if (s->over || !st->exists || (!stopped && !whole)) return;
    s->over = 1;
    sow_mcsetup_cancel(s, now, st->session.mc_mask);
    /* Not after the install: the session is still there then, and has been acknowledged. */
    if (whole && st->session.ack_wanted && st->step <= SOW_STEP_READY) {
        s->acks = ACK_TRIES;
        sow_arm(s, SOW_TIMER_ACK, now + sow_datablock_spread(s, st));
    }
}

void sow_datablock_received(struct sow *s, uint32_t now, struct sow_uplink *up)
{
    struct sow_status st;

    up->len = 0;
    if (!s->acks || !find(s, s->index, &st)) return;
    up->port = SOW_PORT_DATABLOCK;
    up->len = 2;
    up->data[0] = 4;
    up->data[1] = (uint8_t)(s->index | (st.mic_error ? 4u : 0u));
    if (--s->acks) sow_arm(s, SOW_TIMER_ACK, now + 60u + sow_datablock_spread(s, &st));
}
