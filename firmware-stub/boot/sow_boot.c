/* The swap engine of the boot stub.
 *
 * A page is swapped in three copies: slot B to scratch, slot A to slot B, scratch to slot A. Each erases its
 * target first and is followed by a record, so that a copy cut short is simply made again: its source is still
 * there. Rolling back is the same swap once more. */
#include "sow_boot.h"

#include <string.h>

#include "sow_boot_record.h"
#include "sow_flash.h"
#include "sow_image.h"
#include "sow_sha256.h"

static int copy_page(const struct sow_config *cfg, uint32_t to, uint32_t from)
{
    uint32_t page = cfg->port->page;

    if (sow_flash_erase(cfg, to, page) < 0)
        return -SOW_CAUSE_FLASH_IO;
    return sow_flash_copy(cfg, to, from, page);
}

static int swap_page(const struct sow_config *cfg, struct sow_log *log, struct sow_boot_record *r)
{
    uint32_t page = cfg->port->page, n = cfg->map->scratch.size / page;
    uint32_t a = cfg->map->slot_a.addr + r->page * page, b = cfg->map->slot_b.addr + r->page * page;
    uint32_t scratch = cfg->map->scratch.addr;
    int err = -SOW_CAUSE_FLASH_IO;

    if (r->step == 0) {
        /* Scratch pages take turns; one that fails is passed over. */
        for (uint32_t k = 0; k < n && err < 0; k++) {
            r->count = (uint8_t)((r->page + k) % n);
            err = copy_page(cfg, scratch + r->count * page, b);
        }
    } else if (r->step == 1) {
        err = copy_page(cfg, b, a);
    } else {
        err = copy_page(cfg, a, scratch + r->count * page);
    }
    if (err < 0)
        return err;
    if (++r->step == 3) {
        r->step = 0;
        r->page++;
    }
    return sow_boot_store(log, r);
}

static int swap(const struct sow_config *cfg, struct sow_log *log, struct sow_boot_record *r)
{
    while (r->page < r->pages) {
        int err = swap_page(cfg, log, r);

        if (err < 0)
            return err;
    }
    r->state = r->state == SOW_BOOT_PENDING ? SOW_BOOT_TRIAL : SOW_BOOT_REVERTED;
    r->page = 0;
    r->count = 0;
    return sow_boot_store(log, r);
}

/* The image in slot B is the one that the manifest of the request describes, and may replace the present one? */
static int verify_b(const struct sow_config *cfg, const struct sow_log *log, uint32_t floor, uint32_t *new_size)
{
    const struct sow_region *slot = &cfg->map->slot_b;
    uint8_t raw[SOW_MANIFEST_SIZE], digest[SOW_SHA256_SIZE];
    struct sow_manifest m;
    struct sow_sha256 sha;
    uint32_t size;
    int err;

    if (sow_log_blob(log, raw) < 0)
        return -SOW_CAUSE_FLASH_DECAY;
    if ((err = sow_manifest_parse(&m, raw)) < 0 || (err = sow_manifest_verify(cfg, raw)) < 0)
        return err;
    if (m.class_id != cfg->identity->class_id)
        return -SOW_CAUSE_CLASS_MISMATCH;
    if (m.hardware_id != cfg->identity->hardware_id)
        return -SOW_CAUSE_HARDWARE_MISMATCH;
    if (m.sequence <= floor)
        return -SOW_CAUSE_ROLLBACK_BLOCKED;
    if (m.new_size > slot->size)
        return -SOW_CAUSE_IMAGE_TOO_LARGE;
    sow_sha256_init(&sha);
    if (sow_flash_hash(cfg, &sha, slot->addr, m.new_size) < 0)
        return -SOW_CAUSE_IMAGE_DIGEST_BAD;
    sow_sha256_final(&sha, digest);
    if (memcmp(digest, m.new_digest, sizeof digest) != 0)
        return -SOW_CAUSE_IMAGE_DIGEST_BAD;
    if (sow_image_check(cfg, slot, 0, &size, 0) < 0 || size != m.new_size)
        return -SOW_CAUSE_IMAGE_INVALID;
    *new_size = size;
    return SOW_OK;
}

static int begin(const struct sow_config *cfg, struct sow_log *log, struct sow_boot_record *r)
{
    uint32_t page = cfg->port->page, new_size = 0, old_size = 0;
    int err = verify_b(cfg, log, r->sequence, &new_size);

    if (err < 0) {
        r->state = SOW_BOOT_REFUSED;
        r->cause = (uint8_t)-err;
        return sow_boot_store(log, r);
    }
    (void)sow_image_header(cfg, &cfg->map->slot_a, 0, &old_size, 0);
    r->pages = (uint16_t)(((new_size > old_size ? new_size : old_size) + page - 1) / page);
    return SOW_OK;
}

/* Roll back, if slot B still holds something to go back to. */
static int begin_back(const struct sow_config *cfg, struct sow_boot_record *r, uint8_t cause)
{
    if (sow_image_check(cfg, &cfg->map->slot_b, 0, 0, 0) < 0)
        return 0;
    r->state = SOW_BOOT_BACK;
    r->cause = cause;
    r->step = 0;
    r->page = 0;
    return 1;
}

/* Do what the record asks for. An error leaves it to be done again at the next reset. */
static int advance(const struct sow_config *cfg, struct sow_log *log, struct sow_boot_record *r)
{
    int fresh = r->page == 0 && r->step == 0, err = SOW_OK;

    if (r->state == SOW_BOOT_PENDING && fresh) {
        err = begin(cfg, log, r);
    } else if (r->state == SOW_BOOT_BACK && fresh && !begin_back(cfg, r, r->cause)) {
        r->state = SOW_BOOT_TRIAL;
        r->count = 0;
    } else if (r->state == SOW_BOOT_TRIAL && r->count >= SOW_BOOT_ATTEMPTS) {
        (void)begin_back(cfg, r, SOW_CAUSE_BOOT_HANG);
    }
    if (err == SOW_OK && (r->state == SOW_BOOT_PENDING || r->state == SOW_BOOT_BACK))
        err = swap(cfg, log, r);
    if (err == SOW_OK && r->state == SOW_BOOT_TRIAL && r->count < SOW_BOOT_ATTEMPTS) {
        r->count++;
        err = sow_boot_store(log, r);
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
