/* MCUboot instead of our own stub: the same calls of the application, through MCUboot's image trailer.
 *
 * Compiled with SOW_MCUBOOT defined, which leaves sow_boot.c empty and sow_boot_request.c without these calls. For MCUboot in its modes
 * swap-move and swap-scratch, built with BOOT_MAX_ALIGN 8, or 16 for flash with granules of 16 bytes. Not for
 * swap-offset, which wants the image a sector further on and that sector erased before, nor for overwrite and
 * direct-XIP. MCUboot verifies the image by its own TLVs; the manifest and its sequence stay in map->boot, so that
 * anti-rollback holds across both.
 *
 *   offset from the end of the slot   -40 swap_info   -32 copy_done   -24 image_ok   -16 magic   BOOT_MAX_ALIGN 8
 *                                     -64             -48             -32            -16         BOOT_MAX_ALIGN 16
 *
 * Of each of the first three the first byte counts; the rest reads as erased.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifdef SOW_MCUBOOT

#include <string.h>

#include "sow_boot_record.h"
#include "sow_flash.h"
#include "sow_image.h"

enum field { MAGIC, IMAGE_OK, COPY_DONE, SWAP_INFO }; /* from the end of the slot */

#define MAGIC_SIZE 16u
#define SET 1u
#define SWAP_TEST 2u /* in swap_info: image 0, test and revert unless confirmed */

static uint32_t align(const struct sow_config *cfg)
{
    return cfg->port->granule > 8 ? 16 : 8;
}

static const uint8_t *magic(const struct sow_config *cfg)
{
    static const uint8_t of_8[MAGIC_SIZE] = {0x77, 0xc2, 0x95, 0xf3, 0x60, 0xd2, 0xef, 0x7f,
                                             0x35, 0x52, 0x50, 0x0f, 0x2c, 0xb6, 0x79, 0x80};
    static const uint8_t of_16[MAGIC_SIZE] = {0x10, 0x00, 0x2d, 0xe1, 0x5d, 0x29, 0x41, 0x0b,
                                              0x8d, 0x77, 0x67, 0x9c, 0x11, 0x0f, 0x1f, 0x8a};

    return align(cfg) == 8 ? of_8 : of_16;
}

static uint32_t field_addr(const struct sow_config *cfg, const struct sow_region *slot, enum field field)
{
    return slot->addr + slot->size - MAGIC_SIZE - field * align(cfg);
}

static int write_field(const struct sow_config *cfg, const struct sow_region *slot, enum field field, uint8_t value)
{
    uint8_t buf[16];

    memset(buf, cfg->port->erase_value, sizeof buf);
    buf[0] = value;
    return sow_flash_prog(cfg, field_addr(cfg, slot, field), buf, align(cfg));
}

static int is_set(const struct sow_config *cfg, const struct sow_region *slot, enum field field)
{
    uint8_t v;

    return sow_flash_read(cfg, field_addr(cfg, slot, field), &v, 1) == SOW_OK && v == SET;
}

static int has_magic(const struct sow_config *cfg, const struct sow_region *slot)
{
    uint8_t buf[MAGIC_SIZE];

    return sow_flash_read(cfg, field_addr(cfg, slot, MAGIC), buf, sizeof buf) == SOW_OK &&
           memcmp(buf, magic(cfg), sizeof buf) == 0;
}

/* The record, and the manifest that lies before every one here; zeros when nothing was ever requested. */
static void load(const struct sow_config *cfg, struct sow_log *log, struct sow_boot_record *r, uint32_t *raw)
{
    sow_boot_load(cfg, log, r);
    if (r->state == SOW_BOOT_NONE || sow_boot_manifest(log, r, raw) < 0)
        memset(raw, 0, SOW_MANIFEST_SIZE);
}

/* What MCUboot has made of the last request. */
static uint8_t state(const struct sow_config *cfg, const struct sow_boot_record *r, const struct sow_manifest *m)
{
    const struct sow_region *a = &cfg->map->slot_a;
    uint32_t version, size;

    if (r->state != SOW_BOOT_PENDING)
        return r->state;
    if (has_magic(cfg, &cfg->map->slot_b))
        return SOW_BOOT_PENDING;
    if (sow_image_header(cfg, a, &version, &size, 0) < 0 || version != m->version || size != m->new_size)
        return SOW_BOOT_REVERTED;
    return has_magic(cfg, a) && is_set(cfg, a, COPY_DONE) && !is_set(cfg, a, IMAGE_OK) ? SOW_BOOT_TRIAL
                                                                                     : SOW_BOOT_CONFIRMED;
}

int sow_boot_request(const struct sow_config *cfg, const uint8_t raw[SOW_MANIFEST_SIZE])
{
    const struct sow_region *b = &cfg->map->slot_b;
    uint32_t page = cfg->port->page;
    struct sow_boot_status now;
    struct sow_boot_record r;
    struct sow_manifest m;
    struct sow_log log;
    int err;

    (void)sow_boot_read(cfg, &now);
    if ((err = sow_manifest_parse(&m, raw)) < 0)
        return err;
    if (now.state == SOW_BOOT_TRIAL)
        return -SOW_CAUSE_NOT_CONFIRMED;
    if (m.new_size > b->size - page)
        return -SOW_CAUSE_IMAGE_TOO_LARGE;
    if (now.state == SOW_BOOT_PENDING && now.version == m.version)
        return SOW_OK;
    sow_boot_load(cfg, &log, &r);
    r.sequence = now.sequence;
    /* The magic comes last of all but one, and MCUboot takes a request without swap_info for a test, too. */
    if (sow_flash_erase(cfg, b->addr + b->size - page, page) < 0 || sow_boot_ask(&log, &r, raw) < 0 ||
        sow_flash_prog(cfg, field_addr(cfg, b, MAGIC), magic(cfg), MAGIC_SIZE) < 0)
        return -SOW_CAUSE_FLASH_IO;
    return write_field(cfg, b, SWAP_INFO, SWAP_TEST);
}

int sow_boot_read(const struct sow_config *cfg, struct sow_boot_status *out)
{
    uint32_t raw[SOW_MANIFEST_SIZE / 4];
    struct sow_boot_record r;
    struct sow_manifest m;
    struct sow_log log;

    load(cfg, &log, &r, raw);
    memset(&m, 0, sizeof m);
    (void)sow_manifest_parse(&m, (const uint8_t *)raw);
    out->state = state(cfg, &r, &m);
    out->cause = r.cause;
    if (out->state == SOW_BOOT_REVERTED && r.cause == SOW_CAUSE_OK)
        out->cause = SOW_CAUSE_NOT_CONFIRMED;
    out->attempts = out->state == SOW_BOOT_TRIAL;
    out->requests = r.requests;
    out->version = m.version;
    out->sequence = out->state == SOW_BOOT_CONFIRMED && m.sequence > r.sequence ? m.sequence : r.sequence;
    return SOW_OK;
}

int sow_boot_confirm(const struct sow_config *cfg)
{
    uint32_t raw[SOW_MANIFEST_SIZE / 4];
    struct sow_boot_status now;
    struct sow_boot_record r;
    struct sow_log log;

    (void)sow_boot_read(cfg, &now);
    if (now.state != SOW_BOOT_TRIAL)
        return SOW_OK;
    if (write_field(cfg, &cfg->map->slot_a, IMAGE_OK, SET) < 0)
        return -SOW_CAUSE_FLASH_IO;
    (void)sow_boot_read(cfg, &now); /* confirmed: with the new sequence */
    load(cfg, &log, &r, raw);
    r.state = now.state;
    r.sequence = now.sequence;
    return sow_log_put(&log, &r, sizeof r, raw);
}

/* MCUboot rolls back by itself what nobody confirms; only the cause is kept. */
int sow_boot_reject(const struct sow_config *cfg, uint8_t cause)
{
    uint32_t raw[SOW_MANIFEST_SIZE / 4];
    struct sow_boot_status now;
    struct sow_boot_record r;
    struct sow_log log;

    (void)sow_boot_read(cfg, &now);
    if (now.state != SOW_BOOT_TRIAL)
        return SOW_OK;
    load(cfg, &log, &r, raw);
    r.cause = cause;
    return sow_log_put(&log, &r, sizeof r, raw);
}

#endif
