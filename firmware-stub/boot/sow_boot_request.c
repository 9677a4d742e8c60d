/* The application's side of the boot region.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SOW_MCUBOOT

#include <stddef.h>
#include <string.h>

#include "sow_boot_record.h"

void sow_boot_load(const struct sow_config *cfg, struct sow_log *log, struct sow_boot_record *r)
{
    (void)sizeof(char[offsetof(struct sow_boot_record, count) + 1 == SOW_LOG_DATA ? 1 : -1]);
    memset(r, 0, sizeof *r);
    sow_log_open(log, cfg, &cfg->map->boot, SOW_MANIFEST_SIZE);
    (void)sow_log_get(log, 0, r);
}

int sow_boot_store(struct sow_log *log, const struct sow_boot_record *r)
{
    return sow_log_put(log, 0, r);
}

int sow_boot_request(const struct sow_config *cfg, const uint8_t raw[SOW_MANIFEST_SIZE])
{
    struct sow_boot_record r;
    struct sow_log log;
    uint8_t old[SOW_MANIFEST_SIZE];

    sow_boot_load(cfg, &log, &r);
    if (r.state == SOW_BOOT_TRIAL || r.state >= SOW_BOOT_BACK)
        return -SOW_CAUSE_NOT_CONFIRMED;
    if (r.state == SOW_BOOT_PENDING && sow_log_blob(&log, old) == SOW_OK && memcmp(old, raw, sizeof old) == 0)
        return SOW_OK;
    r.state = SOW_BOOT_PENDING;
    r.cause = SOW_CAUSE_OK;
    r.count = 0;
    r.progress = 0;
    return sow_log_replace(&log, raw, 0, &r);
}

int sow_boot_read(const struct sow_config *cfg, struct sow_boot_status *out)
{
    struct sow_boot_record r;
    struct sow_manifest m;
    struct sow_log log;
    uint8_t raw[SOW_MANIFEST_SIZE];

    sow_boot_load(cfg, &log, &r);
    out->state = r.state >= SOW_BOOT_BACK ? (uint8_t)SOW_BOOT_TRIAL : r.state;
    out->cause = r.cause;
    out->attempts = r.state == SOW_BOOT_TRIAL ? r.count : 0;
    out->sequence = r.sequence;
    out->version = 0;
    if (r.state != SOW_BOOT_NONE && sow_log_blob(&log, raw) == SOW_OK && sow_manifest_parse(&m, raw) == SOW_OK)
        out->version = m.version;
    return SOW_OK;
}

int sow_boot_confirm(const struct sow_config *cfg)
{
    struct sow_boot_record r;
    struct sow_manifest m;
    struct sow_log log;
    uint8_t raw[SOW_MANIFEST_SIZE];

    sow_boot_load(cfg, &log, &r);
    if (r.state != SOW_BOOT_TRIAL)
        return SOW_OK;
    r.state = SOW_BOOT_CONFIRMED;
    if (sow_log_blob(&log, raw) == SOW_OK && sow_manifest_parse(&m, raw) == SOW_OK && m.sequence > r.sequence)
        r.sequence = m.sequence;
    return sow_boot_store(&log, &r);
}

int sow_boot_reject(const struct sow_config *cfg, uint8_t cause)
{
    struct sow_boot_record r;
    struct sow_log log;

    sow_boot_load(cfg, &log, &r);
    if (r.state != SOW_BOOT_TRIAL)
        return SOW_OK;
    r.state = SOW_BOOT_BACK;
    r.cause = cause;
    r.progress = 0;
    return sow_boot_store(&log, &r);
}

#endif
