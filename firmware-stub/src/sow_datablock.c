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
    (void)sow_core_status(&s->core, index, st);
    return st->exists;
}

uint32_t sow_datablock_spread(const struct sow *s, const struct sow_status *st)
{
    return sow_random(s, 16u << st->session.ack_delay); /* 16 s without a session */
}

/* The cause for which the core need not be asked, or SOW_CAUSE_OK. */
static __attribute__((noinline)) int read_setup(struct sow_session *n, const uint8_t *arg, uint8_t version)
{
    memset(n, 0, sizeof *n);
    n->index = (arg[0] >> 4) & 3u;
    n->mc_mask = arg[0] & 15u;
    n->nb_frag = sow_u16(arg + 1);
    n->frag_size = arg[3];
    n->ack_delay = arg[4] & 7u;
    n->padding = arg[5];
    memcpy(n->descriptor, arg + 6, 4);
    n->matrix = version; /* SOW_MATRIX_V1 or SOW_MATRIX_V2 */
    if (version != 1) {
        n->ack_wanted = (arg[4] >> 6) & 1u;
        n->has_mic = 1;
        n->session_cnt = sow_u16(arg + 10);
        memcpy(n->mic, arg + 12, 4);
    }
    if ((arg[4] >> 3) & 7u || !n->nb_frag || n->padding >= n->frag_size) return SOW_CAUSE_ALGO_UNSUPPORTED;
    return n->nb_frag > MAX_FRAGMENTS ? SOW_CAUSE_NO_FLASH : SOW_CAUSE_OK;
}

static void setup(struct sow *s, struct sow_command *c)
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
    uint32_t cause = (uint32_t)read_setup(&n, c->arg, s->package_version), bits = 0;
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
        sow_arm(s, SOW_TIMER_WORK, c->now);
    }
    c->ans[1] = (uint8_t)((uint32_t)n.index << 6 | bits);
    sow_diag_note(s, step, (uint8_t)cause);
}

uint32_t sow_datablock_status(struct sow *s, uint8_t index, uint8_t *ans)
{
    struct sow_status st;
    uint32_t v1 = 2u - s->package_version, bits = 4; /* SessionDoesNotExist; version 1 cannot say so */
    uint32_t len = 2u - 2u * v1;

    ans[0] = 1;
    if (find(s, index, &st)) {
        uint8_t *fields = ans + 2 - v1;

        bits = st.memory_error;
        if (!v1 && st.missing == 0) bits |= st.mic_error * 2u;
        sow_put16(fields, (uint32_t)index << 14 | (st.received & 0x3fffu));
        fields[2] = (uint8_t)(st.missing > 255u ? 255u : st.missing);
        len = 5;
    }
    ans[1 + 3 * v1] = (uint8_t)bits;
    return len;
}

static void status(struct sow *s, struct sow_command *c)
{
    uint32_t index = (c->arg[0] >> 1) & 3u, due = c->now;
    struct sow_status st;
    int known = find(s, (uint8_t)index, &st), alone = !known && c->group == SOW_UNICAST;

    c->len = 0;
    /* Who misses nothing need not answer, unless all are asked. A group may well be asked about a session that this
     * device was never given. */
    if (!(c->arg[0] & 1u) && !alone && st.missing * (unsigned)known == 0) return;
    if (c->at_once) {
        c->len = (uint8_t)sow_datablock_status(s, (uint8_t)index, c->ans);
        return;
    }
    if (!alone) due += sow_datablock_spread(s, &st);
    /* A question repeated while its answer waits does not put the answer off. */
    if (!sow_armed(s, index) || sow_diff(s->at[index], due) < 0) sow_arm(s, index, due);
    /* The status has no word for a refusal: without its cause it would look like loss, and be sent parity. */
    if (known && st.cause != SOW_CAUSE_OK) sow_arm(s, SOW_TIMER_DIAG, s->at[index]);
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
    int whole = st->missing == 0;

    if (s->over || !st->exists) return;
    if ((st->cause == SOW_CAUSE_OK || st->cause == SOW_CAUSE_FLASH_DECAY || sow_deferred(st->cause)) &&
        !(whole && st->step > SOW_STEP_VERIFY))
        return;
    s->over = 1;
    sow_mcsetup_windows(s, now, st->session.mc_mask, 1);
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
    up->data[1] = (uint8_t)(s->index | st.mic_error * 4u);
    if (--s->acks) sow_arm(s, SOW_TIMER_ACK, now + 60u + sow_datablock_spread(s, &st));
}
