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

uint32_t sow_datablock_spread(const struct sow *s, const struct sow_status *st)
{
    return sow_random(s, 16u << st->session.ack_delay); /* 16 s without a session */
}

/* Returns the cause for which the core need not be asked, or SOW_CAUSE_OK. */
static __attribute__((noinline)) uint32_t read_setup(struct sow_session *n, const uint8_t *arg, uint8_t version)
{
    uint8_t control = arg[4];

    memset(n, 0, sizeof *n);
    n->index = (arg[0] >> 4) & 3u;
    n->mc_mask = arg[0] & 15u;
    n->nb_frag = sow_u16(arg + 1);
    n->frag_size = arg[3];
    n->ack_delay = control & 7u;
    n->padding = arg[5];
    memcpy(n->descriptor, arg + 6, 4);
    n->matrix = version; /* SOW_MATRIX_V1 or SOW_MATRIX_V2 */
    if (version != 1) {
        n->ack_wanted = (control >> 6) & 1u;
        n->has_mic = 1;
        n->session_cnt = sow_u16(arg + 10);
        memcpy(n->mic, arg + 12, 4);
    }
    if ((control >> 3) & 7u) return SOW_CAUSE_ALGO_UNSUPPORTED;
    return n->nb_frag > MAX_FRAGMENTS ? SOW_CAUSE_NO_FLASH : SOW_CAUSE_OK;
}

static void setup(struct sow *s, struct sow_uplink *up)
{
    /* A cause in the bits of FragSessionSetupAns. The causes that have no bit are told as WrongDescriptor, and
     * in full by the diagnostic report that follows. */
    static const uint8_t bit[] = {
        [SOW_CAUSE_NO_RAM] = NOT_ENOUGH_MEMORY,
        [SOW_CAUSE_NO_FLASH] = NOT_ENOUGH_MEMORY,
        [SOW_CAUSE_FLASH_IO] = NOT_ENOUGH_MEMORY,
        [SOW_CAUSE_FLASH_DECAY] = WRONG_DESCRIPTOR,
        [SOW_CAUSE_ALGO_UNSUPPORTED] = ALGO_UNSUPPORTED,
        [SOW_CAUSE_INDEX_UNSUPPORTED] = INDEX_UNSUPPORTED,
        [SOW_CAUSE_DESCRIPTOR_WRONG] = WRONG_DESCRIPTOR,
        [SOW_CAUSE_SESSION_REPLAY] = SESSION_REPLAY,
    };
    struct sow_session n;
    uint32_t cause = read_setup(&n, s->arg, s->package_version), bits = 0;
    uint8_t step = SOW_STEP_NONE;

    if (cause == SOW_CAUSE_OK) {
        int r = sow_core_session(&s->core, &n);

        if (r < 0) cause = (uint32_t)-r;
    }
    if (cause != SOW_CAUSE_OK) {
        bits = cause < sizeof bit ? bit[cause] : WRONG_DESCRIPTOR;
        step = SOW_STEP_SETUP;
    } else {
        s->index = n.index;
        s->over = 0;
        s->acks = 0;
        sow_arm(s, SOW_TIMER_WORK, 0);
    }
    up->data[1] = (uint8_t)((uint32_t)n.index << 6 | bits);
    sow_diag_note(s, step, (uint8_t)cause);
}

/* FragSessionStatusAns. */
static void tell(const struct sow *s, const struct sow_status *st, uint32_t index, struct sow_uplink *up)
{
    uint32_t missing = st->missing > 255u ? 255u : st->missing, bits = st->memory_error;
    uint32_t fields = (st->received & 0x3fffu) | index << 14 | missing << 16;

    if (s->package_version == 1) {
        if (!st->exists) return; /* version 1 cannot say so */
        fields |= bits << 24;
    } else {
        if (!st->exists) {
            up->data[1] = 4; /* SessionDoesNotExist */
            up->len = 2;
            return;
        }
        if (st->missing == 0) bits |= st->mic_error * 2u;
        fields = fields << 8 | bits;
    }
    up->len = 1;
    sow_ans32(up, fields);
}

static void status(struct sow *s, struct sow_uplink *up)
{
    uint32_t index = (s->arg[0] >> 1) & 3u, delay = 0;
    struct sow_status buf, *st = sow_status(s, index, &buf);
    int alone = !st->exists && s->group == SOW_UNICAST;

    up->len = 0;
    /* Who misses nothing need not answer, unless all are asked. A group may well be asked about a session that this
     * device was never given. */
    if (!(s->arg[0] & 1u) && !alone && st->missing * st->exists == 0) return;
    if (s->at_once) {
        tell(s, st, index, up);
        return;
    }
    if (!alone) delay = sow_datablock_spread(s, st);
    /* A question repeated while its answer waits does not put the answer off. */
    if (!s->at[index] || sow_diff(s->at[index], s->now + delay) < 0) sow_arm(s, index, delay);
    /* The status has no word for a refusal: without its cause it would look like loss, and be sent parity. */
    if (st->exists && st->cause != SOW_CAUSE_OK) s->at[SOW_TIMER_DIAG] = s->at[index];
}

/* FragDataBlockReceivedReq. */
static void acknowledge(struct sow *s, struct sow_uplink *up)
{
    struct sow_status buf, *st = sow_status(s, s->index, &buf);

    up->len = 0;
    if (!s->acks || !st->exists) return;
    up->len = 2;
    up->data[0] = 4;
    up->data[1] = (uint8_t)(s->index | st->mic_error * 4u);
    if (--s->acks) sow_arm(s, SOW_TIMER_ACK, 60u + sow_datablock_spread(s, st));
}

void sow_datablock_command(struct sow *s, struct sow_uplink *up)
{
    uint8_t index = s->arg[0] & 3u;

    if (s->cid == 1) {
        status(s, up);
    } else if (s->cid == 2) {
        setup(s, up);
    } else if (s->cid == 3) {
        if (sow_core_delete(&s->core, index) < 0) index |= 4u;
        up->data[1] = index;
    } else if (s->cid == 4) { /* FragDataBlockReceivedAns */
        up->len = 0;
        if (index == s->index) s->acks = 0;
    } else {
        acknowledge(s, up);
    }
}

void sow_datablock_fragment(struct sow *s)
{
    const uint8_t *data = s->arg;
    struct sow_status buf, *st;
    uint32_t n;
    uint8_t index;

    if (s->left < 4) return;
    n = sow_u16(data + 1);
    index = (uint8_t)(n >> 14);
    n &= 0x3fffu;
    st = sow_status(s, index, &buf);
    if (!n || !st->exists) return;
    if (s->group != SOW_UNICAST && !(st->session.mc_mask >> s->group & 1)) return;
    /* A fragment that cannot be kept is a lost one; what stopped the session is in its status. */
    if (sow_core_fragment(&s->core, index, (uint16_t)n, data + 3, s->left - 3u) >= 0) sow_arm(s, SOW_TIMER_WORK, 0);
}

void sow_datablock_settle(struct sow *s, const struct sow_status *st)
{
    int whole = st->missing == 0;

    if (s->over || !st->exists) return;
    if ((st->cause == SOW_CAUSE_OK || st->cause == SOW_CAUSE_FLASH_DECAY || sow_deferred(st->cause)) &&
        !(whole && st->step > SOW_STEP_VERIFY))
        return;
    s->over = 1;
    sow_mcsetup_windows(s, st->session.mc_mask, 0, 1);
    /* Not after the install: the session is still there then, and has been acknowledged. */
    if (whole && st->session.ack_wanted && st->step <= SOW_STEP_READY) {
        s->acks = ACK_TRIES;
        sow_arm(s, SOW_TIMER_ACK, sow_datablock_spread(s, st));
    }
}
