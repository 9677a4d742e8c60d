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

#define IMAGE_VALID 3u

static void cancel_reboot(struct sow *s)
{
    s->reboot_gps = 0;
    sow_disarm(s, SOW_TIMER_REBOOT);
}

/* DevRebootTime, DevRebootCountdown */
static void reboot_in(struct sow *s, struct sow_command *c)
{
    uint32_t left = sow_u32(c->arg - 1) >> 8; /* Countdown: the three bytes after the CID */
    uint32_t never = 0xffffffu;
    uint8_t gps = 0;

    c->len = 0;
    if (c->cid == REBOOT_TIME) {
        left = sow_u32(c->arg);
        never = 0xffffffffu;
        if (left != 0 && left != never) {
            gps = 1;
            left -= c->now + s->offset;
        }
    }
    if (left == never && !gps) {
        cancel_reboot(s);
    } else if (!gps || (s->synced && (int32_t)left > 0)) {
        sow_diag_note(s, SOW_STEP_NONE, SOW_CAUSE_OK); /* of the last attempt */
        s->reboot_gps = gps;
        sow_arm(s, SOW_TIMER_REBOOT, c->now + left);
        if (left == 0) return; /* as soon as the answers to the other commands are out */
    } else {
        left = 0;
    }
    c->len = 1;
    sow_ans32(c, left);
    if (c->cid == REBOOT_COUNTDOWN) c->len = 4;
}

/* The image in slot B. While the new image is on trial that is the old one, which nobody asks for. */
static __attribute__((noinline)) uint8_t waiting(const struct sow *s, struct sow_image *image)
{
    (void)sow_core_image(&s->core, image);
    return s->boot.state == SOW_BOOT_TRIAL ? 0 : image->state;
}

void sow_fwmgmt_command(struct sow *s, struct sow_command *c)
{
    struct sow_image image;
    int r;

    switch (c->cid) {
    case VERSION:
        c->len = 1;
        sow_ans32(c, s->version);
        sow_ans32(c, s->cfg.identity->hw_version);
        break;
    case REBOOT_TIME:
    case REBOOT_COUNTDOWN: reboot_in(s, c); break;
    case UPGRADE_IMAGE:
        c->ans[1] = waiting(s, &image);
        if (c->ans[1] == IMAGE_VALID) sow_ans32(c, image.version);
        break;
    default:
        r = sow_core_image_delete(&s->core, sow_u32(c->arg));
        c->ans[1] = (uint8_t)(r >= 0 ? 0u : r == -SOW_CAUSE_IMAGE_INVALID ? 2u : 1u);
        break;
    }
}

void sow_reboot(struct sow *s)
{
    s->halted = 1;
    s->cfg.port->reboot(s->cfg.port->user);
}

/* The reboot is due: install the image that waits, if one does. */
static void reboot(struct sow *s, uint32_t now)
{
    struct sow_image image;

    if (waiting(s, &image) == IMAGE_VALID) {
        int r = sow_core_install(&s->core);

        if (r < 0) {
            cancel_reboot(s);
            if (sow_deferred((uint8_t)-r)) {
                sow_arm(s, SOW_TIMER_REBOOT, now + SOW_DEFERRAL);
            } else {
                sow_diag_note(s, SOW_STEP_INSTALL, (uint8_t)-r);
                sow_arm(s, SOW_TIMER_WORK, now); /* the core may want to look at the block again */
            }
            return;
        }
        s->installing = 1;
    }
    sow_reboot(s);
}

static int proved(const struct sow *s)
{
    if (!s->tested) return 0;
    if (s->confirm == SOW_CONFIRM_JOINED) return s->joined;
    return s->confirm != SOW_CONFIRM_DOWNLINK || s->heard;
}

void sow_fwmgmt_poll(struct sow *s, uint32_t now)
{
    if (s->boot.state == SOW_BOOT_TRIAL) {
        if (proved(s) && sow_boot_confirm(&s->cfg) == SOW_OK) {
            s->boot.state = SOW_BOOT_CONFIRMED;
            sow_disarm(s, SOW_TIMER_TRIAL);
        }
        if (sow_due(s, SOW_TIMER_TRIAL, now)) {
            /* If even this cannot be written, the boot attempts run out instead. */
            (void)sow_boot_reject(&s->cfg, SOW_CAUSE_NOT_CONFIRMED);
            sow_reboot(s);
            return;
        }
    }
    if (!sow_due(s, SOW_TIMER_REBOOT, now)) return;
    if (s->joined && (s->queue_len || s->ans_next < s->ans_stop)) return;
    reboot(s, now);
}

void sow_self_test(struct sow *s, uint32_t now, uint8_t verdict)
{
    (void)now;
    if (!s->opened || s->halted || s->boot.state != SOW_BOOT_TRIAL) return;
    if (verdict == SOW_CAUSE_OK) {
        s->tested = 1;
        return;
    }
    (void)sow_boot_reject(&s->cfg, verdict);
    sow_reboot(s);
}
