/* The diagnostic package of sower, FPort 204 (applayer/diag): CID 1 asks for a report, and
 *
 *  off len field    meaning
 *    0   1 CID      1
 *    1   1 step     enum sow_step
 *    2   1 cause    enum sow_cause
 *    3   2 detail   depends on the cause
 *    5   4 version  FWversion now running
 *    9   1 session  bits 1:0 FragIndex, bits 7:2 low six bits of SessionCnt
 *
 * is the report. It is sent unasked when an update stops, when an image is ready, on trial or confirmed, and after
 * a boot that follows an update; the steps before that are passed in silence, because a whole group takes them at
 * once and in the middle of its receive window. An unasked report waits a random time, up to the 2^(BlockAckDelay+4)
 * seconds of the session.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "sow_packages.h"

static void look(const struct sow *s, struct sow_status *st)
{
    if (s->note_cause == SOW_CAUSE_OK) return;
    st->step = s->note_step;
    st->cause = s->note_cause;
    st->detail = 0;
}

void sow_diag_command(struct sow *s, struct sow_uplink *up)
{
    struct sow_status buf, *st = sow_status(s, s->index, &buf);

    look(s, st);
    up->len = 1;
    sow_ans32(up, st->step | (uint32_t)st->cause << 8 | (uint32_t)st->detail << 16);
    sow_ans32(up, s->version);
    up->data[up->len++] = (uint8_t)(st->session.session_cnt << 2 | st->session.index);
}

void sow_diag_watch(struct sow *s, struct sow_status *st)
{
    const struct sow_port *port = s->cfg.port;

    look(s, st);
    if (st->step == s->last_step && st->cause == s->last_cause) return;
    s->last_step = st->step;
    s->last_cause = st->cause;
    if (port->event) port->event(port->user, st->step, st->cause, st->detail);
    if (st->cause != SOW_CAUSE_OK || st->step >= SOW_STEP_READY)
        sow_arm(s, SOW_TIMER_DIAG, sow_datablock_spread(s, st));
}
