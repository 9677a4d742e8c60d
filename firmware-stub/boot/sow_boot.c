/* The swap engine of the boot stub.
 *
 * A page is swapped in three copies: slot B to scratch, slot A to slot B, scratch to slot A. Each erases its
 * target first and is followed by a record, so that a copy cut short is simply made again: its source is still
 * there. Rolling back is the same swap once more.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SOW_MCUBOOT

#include "sow_boot.h"

#include <string.h>

#include "sow_boot_record.h"
#include "sow_flash.h"
#include "sow_image.h"
#include "sow_sha256.h"

/* The next copy of the swap. */
static int swap_step(const struct sow_config *cfg, struct sow_log *log, struct sow_boot_record *r)
{
    uint32_t page = cfg->port->page, off = (r->progress >> 2) * page, step = r->progress & 3u;
    uint32_t a = cfg->map->slot_a.addr + off, b = cfg->map->slot_b.addr + off;
    const struct sow_region *scratch = &cfg->map->scratch;
    int err = -SOW_CAUSE_FLASH_IO;

    /* Scratch pages take turns; one that fails is passed over. */
    for (uint32_t tried = 0; step == 0 && err < 0 && tried < scratch->size; tried += page) {
        if (++r->count * page >= scratch->size)
            r->count = 0;
        err = sow_flash_copy(cfg, scratch->addr + r->count * page, b);
    }
    if (step == 1)
        err = sow_flash_copy(cfg, b, a);
    if (step == 2)
        err = sow_flash_copy(cfg, a, scratch->addr + r->count * page);
    if (err < 0)
        return err;
    r->progress = (uint16_t)(r->progress + (step == 2 ? 2u : 1u));
    return sow_log_put(log, r, sizeof *r, 0);
}

static int swap(const struct sow_config *cfg, struct sow_log *log, struct sow_boot_record *r)
{
    static const uint8_t end[] = {[SOW_BOOT_PENDING] = SOW_BOOT_TRIAL,
                                  [SOW_BOOT_BACK] = SOW_BOOT_REVERTED,
                                  [SOW_BOOT_UNDO] = SOW_BOOT_REFUSED,
                                  [SOW_BOOT_REDO] = SOW_BOOT_TRIAL};

    while (r->progress >> 2 < r->pages) {
        int err = swap_step(cfg, log, r);

        if (err == SOW_OK)
            continue;
        if ((r->progress & 3u) == 2 || r->state == SOW_BOOT_UNDO || r->state == SOW_BOOT_REDO)
            return err;
        /* Scratch or slot B is broken, and this page of slot A still whole: swap those before it once more. */
        r->state = r->state == SOW_BOOT_PENDING ? SOW_BOOT_UNDO : SOW_BOOT_REDO;
        r->cause = (uint8_t)-err;
        r->pages = r->progress >> 2;
        r->progress = 0;
    }
    r->state = end[r->state];
    r->progress = 0;
    r->count = 0;
    return sow_log_put(log, r, sizeof *r, 0);
}

/* Both images count: what a swap leaves out, a roll-back would miss. */
static void set_pages(const struct sow_config *cfg, struct sow_boot_record *r, uint32_t size_b)
{
    uint32_t size = 0;

    (void)sow_image_header(cfg, &cfg->map->slot_a, 0, &size, 0);
    r->pages = 0;
    while (r->pages * cfg->port->page < size || r->pages * cfg->port->page < size_b)
        r->pages++;
    r->progress = 0;
}

/* The image in slot B is the one that this manifest describes, and may replace the present one? */
static int verify_b(const struct sow_config *cfg, const uint8_t *raw, uint32_t floor, uint32_t *new_size)
{
    uint8_t digest[SOW_SHA256_SIZE];
    struct sow_manifest m;
    int err;

    if ((err = sow_manifest_parse(&m, raw)) < 0 || (err = sow_manifest_verify(cfg, raw)) < 0 ||
        (err = sow_manifest_for_us(cfg, &m, floor)) < 0)
        return err;
    if (sow_flash_digest(cfg, cfg->map->slot_b.addr, m.new_size, digest) < 0 ||
        memcmp(digest, m.new_digest, sizeof digest) != 0)
        return -SOW_CAUSE_IMAGE_DIGEST_BAD;
    *new_size = m.new_size;
    return SOW_OK; /* the hash in its TLVs is checked in slot A */
}

/* A swap that cannot be recorded must not begin: the request is written again, to the other area, to this one, and to
 * the other once more, which was blank perhaps when it was erased first. */
static int try_record(struct sow_log *log, struct sow_boot_record *r, const uint32_t *raw)
{
    int err = SOW_OK;

    for (uint32_t turn = 0; turn < 3 && err == SOW_OK; turn++) {
        uint32_t at = log->at;

        sow_log_turn(log, sizeof *r);
        if ((err = sow_log_put(log, r, sizeof *r, raw)) < 0)
            log->at = at;
    }
    return err;
}

static int begin(const struct sow_config *cfg, struct sow_log *log, struct sow_boot_record *r)
{
    uint32_t raw[SOW_MANIFEST_SIZE / 4], new_size;
    int err = sow_boot_manifest(log, r, raw);

    if (err < 0 || (err = verify_b(cfg, (const uint8_t *)raw, r->sequence, &new_size)) < 0 ||
        (err = try_record(log, r, raw)) < 0) {
        r->state = SOW_BOOT_REFUSED;
        r->cause = (uint8_t)-err;
        return sow_log_put(log, r, sizeof *r, 0);
    }
    set_pages(cfg, r, new_size);
    return SOW_OK;
}

/* Roll back, if slot B still holds something to go back to. */
static int begin_back(const struct sow_config *cfg, struct sow_boot_record *r, uint8_t cause)
{
    uint32_t size;

    if (sow_image_check(cfg, &cfg->map->slot_b, 0, &size, 0) < 0)
        return 0;
    set_pages(cfg, r, size);
    r->state = SOW_BOOT_BACK;
    r->cause = cause;
    return 1;
}

/* Do what the record asks for. An error leaves it to be done again at the next reset. */
static int advance(const struct sow_config *cfg, struct sow_log *log, struct sow_boot_record *r)
{
    int fresh = r->progress == 0, err = SOW_OK;

    if (r->state == SOW_BOOT_PENDING && fresh) {
        err = begin(cfg, log, r);
    } else if (r->state == SOW_BOOT_BACK && fresh && !begin_back(cfg, r, r->cause)) {
        r->state = SOW_BOOT_TRIAL;
        r->count = 0;
    } else if (r->state == SOW_BOOT_TRIAL && r->count >= SOW_BOOT_ATTEMPTS) {
        (void)begin_back(cfg, r, SOW_CAUSE_BOOT_HANG);
    }
    if (err == SOW_OK && (r->state == SOW_BOOT_PENDING || r->state >= SOW_BOOT_BACK))
        err = swap(cfg, log, r);
    if (err == SOW_OK && r->state == SOW_BOOT_TRIAL && r->count < SOW_BOOT_ATTEMPTS) {
        r->count++;
        err = sow_log_put(log, r, sizeof *r, 0);
    }
    return err;
}

int sow_boot(const struct sow_config *cfg, uint32_t *entry)
{
    const struct sow_region *a = &cfg->map->slot_a;
    struct sow_boot_record r;
    struct sow_log log;
    int err, valid;

    sow_boot_load(cfg, &log, &r);
    err = advance(cfg, &log, &r);
    valid = sow_image_check(cfg, a, 0, 0, entry);
    if (valid == SOW_OK)
        return SOW_OK; /* even when the flash failed us: the device stays within reach */
    if (err == SOW_OK && r.state == SOW_BOOT_TRIAL && begin_back(cfg, &r, SOW_CAUSE_IMAGE_INVALID)) {
        err = swap(cfg, &log, &r);
        valid = sow_image_check(cfg, a, 0, 0, entry);
    }
    return err < 0 ? err : valid;
}

#endif
