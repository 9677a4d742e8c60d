/* TS006 firmware management 1.0.0, and the trial of a new image.
 *
 *  CID  request                       answer
 *   1   DevVersion                    FWversion 4, HWversion 4
 *   2   DevRebootTime: GPS seconds 4  seconds until the reboot 4; none when it happens at once
 *   3   DevRebootCountdown: seconds 3 seconds until the reboot 3; none when it happens at once
 *   4   DevUpgradeImage               UpImageStatus 1 [, nextFirmwareVersion 4]
 *   5   DevDeleteImage: version 4     Status 1
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "sow_packages.h"

/* CIDs */
#define VERSION 1u
#define REBOOT_TIME 2u
#define REBOOT_COUNTDOWN 3u
#define UPGRADE_IMAGE 4u

#define NEVER 0xffffffffu
#define IMAGE_VALID 3u

static void cancel_reboot(struct sow *s)
{
    s->reboot_gps = 0;
    s->at[SOW_TIMER_REBOOT] = 0;
}

/* DevRebootTime, DevRebootCountdown */
static void reboot_in(struct sow *s, struct sow_uplink *up)
{
    uint32_t left;
    uint8_t gps = 0;

    up->len = 0;
    if (s->cid == REBOOT_COUNTDOWN) {
        left = sow_u32(s->arg - 1) >> 8; /* the three bytes after the CID */
        if (left == NEVER >> 8) left = NEVER;
    } else {
        left = sow_u32(s->arg);
        if (left != 0 && left != NEVER) {
            gps = 1;
            left -= sow_gps(s);
        }
    }
    if (gps && (!s->synced || (int32_t)left <= 0)) {
        left = 0;
    } else if (left == NEVER) {
        cancel_reboot(s);
    } else {
        sow_diag_note(s, SOW_STEP_NONE, SOW_CAUSE_OK); /* of the last attempt */
        s->reboot_gps = gps;
        sow_arm(s, SOW_TIMER_REBOOT, left);
        if (left == 0) return; /* as soon as the answers to the other commands are out */
    }
    up->len = 1;
    sow_ans32(up, left);
    if (s->cid == REBOOT_COUNTDOWN) up->len = 4;
}

/* The image in slot B. While the new image is on trial that is the old one, which nobody asks for. */
static __attribute__((noinline)) uint8_t waiting(const struct sow *s, struct sow_image *image)
{
    (void)sow_core_image(&s->core, image);
    return s->at[SOW_TIMER_TRIAL] ? 0 : image->state;
}

void sow_fwmgmt_command(struct sow *s, struct sow_uplink *up)
{
    struct sow_image image;
    int r;

    switch (s->cid) {
    case VERSION:
        up->len = 1;
        sow_ans32(up, s->version);
        sow_ans32(up, s->cfg.identity->hw_version);
        break;
    case REBOOT_TIME:
    case REBOOT_COUNTDOWN: reboot_in(s, up); break;
    case UPGRADE_IMAGE:
        up->data[1] = waiting(s, &image);
        if (up->data[1] == IMAGE_VALID) sow_ans32(up, image.version);
        break;
    default:
        r = sow_core_image_delete(&s->core, sow_u32(s->arg));
        up->data[1] = (uint8_t)(r >= 0 ? 0u : r == -SOW_CAUSE_IMAGE_INVALID ? 2u : 1u);
        break;
    }
}

/* Nothing is done any more, even if the reset takes a while. */
static void reset(struct sow *s)
{
    s->opened = 0;
    s->cfg.port->reboot(s->cfg.port->user);
}

/* Roll the image back. If even this cannot be written, the boot attempts run out instead. */
static void reject(struct sow *s, uint8_t cause)
{
    (void)sow_boot_reject(&s->cfg, cause);
    reset(s);
}

/* The reboot is due: install the image that waits, if one does. */
static void reboot(struct sow *s)
{
    struct sow_image image;

    if (waiting(s, &image) == IMAGE_VALID) {
        int r = sow_core_install(&s->core);

        if (r < 0) {
            cancel_reboot(s);
            if (sow_deferred(-r)) {
                sow_arm(s, SOW_TIMER_REBOOT, SOW_DEFERRAL);
            } else {
                sow_diag_note(s, SOW_STEP_INSTALL, (uint8_t)-r);
                sow_arm(s, SOW_TIMER_WORK, 0); /* the core may want to look at the block again */
            }
            return;
        }
        s->installing = 1;
    }
    reset(s);
}

static int proved(const struct sow *s)
{
    uint32_t want = 1u | (uint32_t)s->confirm << 1; /* SOW_CONFIRM_JOINED is 1, SOW_CONFIRM_DOWNLINK is 2 */
    uint32_t have = (uint32_t)(s->tested | s->joined << 1 | s->heard << 2);

    return (want & ~have) == 0;
}

void sow_fwmgmt_poll(struct sow *s)
{
    if (s->at[SOW_TIMER_TRIAL]) {
        if (proved(s) && sow_boot_confirm(&s->cfg) == SOW_OK) s->at[SOW_TIMER_TRIAL] = 0;
        if (sow_due(s, SOW_TIMER_TRIAL)) {
            reject(s, SOW_CAUSE_NOT_CONFIRMED);
            return;
        }
    }
    if (sow_due(s, SOW_TIMER_REBOOT) && !sow_answers_wait(s)) reboot(s);
}

void sow_self_test(struct sow *s, uint32_t now, uint8_t verdict)
{
    (void)now;
    if (!s->opened || !s->at[SOW_TIMER_TRIAL]) return;
    if (verdict == SOW_CAUSE_OK) s->tested = 1;
    else reject(s, verdict);
}
