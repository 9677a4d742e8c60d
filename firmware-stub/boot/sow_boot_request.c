/* The boot region, and the application's side of it.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "sow_boot_record.h"
#include "sow_flash.h"

void sow_boot_load(const struct sow_config *cfg, struct sow_log *log, struct sow_boot_record *r)
{
    (void)sizeof(char[sizeof *r == 32 ? 1 : -1]);
    log->cfg = cfg;
    log->region = &cfg->map->boot;
    sow_log_load(log, r, sizeof *r);
}

int sow_boot_manifest(const struct sow_log *log, const struct sow_boot_record *r, uint32_t raw[SOW_MANIFEST_SIZE / 4])
{
    if (sow_flash_read(log->cfg, log->at - SOW_LOG_BLOB, raw, SOW_MANIFEST_SIZE) < 0 ||
        sow_check(0, raw, SOW_MANIFEST_SIZE) != r->manifest)
        return -SOW_CAUSE_FLASH_DECAY;
    return SOW_OK;
}

int sow_boot_ask(struct sow_log *log, struct sow_boot_record *r, const uint8_t *raw)
{
    uint32_t words[SOW_MANIFEST_SIZE / 4];

    memcpy(words, raw, sizeof words);
    r->manifest = sow_check(0, words, sizeof words);
    r->version = words[3];
    r->next = words[4];
    r->state = SOW_BOOT_PENDING;
    r->cause = SOW_CAUSE_OK;
    r->count = 0;
    r->requests++;
    r->progress = 0;
    return sow_log_put(log, r, sizeof *r, words);
}

#ifndef SOW_MCUBOOT

int sow_boot_request(const struct sow_config *cfg, const uint8_t raw[SOW_MANIFEST_SIZE])
{
    struct sow_boot_record r;
    struct sow_log log;

    sow_boot_load(cfg, &log, &r);
    if (r.state == SOW_BOOT_TRIAL || r.state >= SOW_BOOT_BACK)
        return -SOW_CAUSE_NOT_CONFIRMED;
    if (r.state == SOW_BOOT_PENDING && sow_flash_is(cfg, log.at - SOW_LOG_BLOB, raw, SOW_MANIFEST_SIZE))
        return SOW_OK;
    return sow_boot_ask(&log, &r, raw);
}

int sow_boot_read(const struct sow_config *cfg, struct sow_boot_status *out)
{
    struct sow_boot_record r;
    struct sow_log log;

    sow_boot_load(cfg, &log, &r);
    out->state = r.state >= SOW_BOOT_BACK ? (uint8_t)SOW_BOOT_TRIAL : r.state;
    out->cause = r.cause;
    out->attempts = r.state == SOW_BOOT_TRIAL ? r.count : 0;
    out->requests = r.requests;
    out->sequence = r.sequence;
    out->version = r.version;
    return SOW_OK;
}

/* An image on trial gets another state; without one nothing happens. */
static __attribute__((noinline)) int leave_trial(const struct sow_config *cfg, uint8_t state, uint8_t cause)
{
    struct sow_boot_record r;
    struct sow_log log;

    sow_boot_load(cfg, &log, &r);
    if (r.state != SOW_BOOT_TRIAL)
        return SOW_OK;
    r.state = state;
    r.progress = 0;
    if (state == SOW_BOOT_BACK)
        r.cause = cause;
    else if (r.next > r.sequence)
        r.sequence = r.next;
    return sow_log_put(&log, &r, sizeof r, 0);
}

int sow_boot_confirm(const struct sow_config *cfg)
{
    return leave_trial(cfg, SOW_BOOT_CONFIRMED, SOW_CAUSE_OK);
}

int sow_boot_reject(const struct sow_config *cfg, uint8_t cause)
{
    return leave_trial(cfg, SOW_BOOT_BACK, cause);
}

#endif
