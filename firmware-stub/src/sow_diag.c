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

void sow_diag_note(struct sow *s, uint8_t step, uint8_t cause)
{
    s->note_step = step;
    s->note_cause = cause;
}

static void look(const struct sow *s, struct sow_status *st)
{
    if (s->note_cause == SOW_CAUSE_OK) return;
    st->step = s->note_step;
    st->cause = s->note_cause;
    st->detail = 0;
}

uint8_t sow_diag_report(struct sow *s, uint8_t ans[10])
{
    struct sow_status st;

    (void)sow_core_status(&s->core, s->index, &st);
    look(s, &st);
    ans[0] = 1;
    ans[1] = st.step;
    ans[2] = st.cause;
    sow_put16(ans + 3, st.detail);
    sow_put32(ans + 5, s->version);
    ans[9] = (uint8_t)(st.session.session_cnt << 2 | st.session.index);
    return 10;
}

void sow_diag_watch(struct sow *s, uint32_t now, struct sow_status *st)
{
    const struct sow_port *port = s->cfg.port;

    look(s, st);
    if (st->step == s->last_step && st->cause == s->last_cause) return;
    s->last_step = st->step;
    s->last_cause = st->cause;
    if (port->event) port->event(port->user, st->step, st->cause, st->detail);
    if (st->cause != SOW_CAUSE_OK || st->step >= SOW_STEP_READY)
        sow_arm(s, SOW_TIMER_DIAG, now + sow_datablock_spread(s, st));
}
