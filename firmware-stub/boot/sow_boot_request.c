/* The application's side of the boot region. */
#include <string.h>

#include "sow_boot_record.h"

static void pack(uint8_t d[SOW_LOG_DATA], const struct sow_boot_record *r)
{
    d[0] = (uint8_t)(r->state | r->step << 4);
    d[1] = r->cause;
    d[2] = r->count;
    memcpy(d + 3, &r->page, 2);
    memcpy(d + 5, &r->pages, 2);
    memcpy(d + 7, &r->sequence, 4);
}

void sow_boot_load(const struct sow_config *cfg, struct sow_log *log, struct sow_boot_record *r)
{
    uint8_t d[SOW_LOG_DATA];

    memset(r, 0, sizeof *r);
    sow_log_open(log, cfg, &cfg->map->boot, SOW_MANIFEST_SIZE);
    if (!sow_log_get(log, 0, d))
        return;
    r->state = d[0] & 15u;
    r->step = d[0] >> 4;
    r->cause = d[1];
    r->count = d[2];
    memcpy(&r->page, d + 3, 2);
    memcpy(&r->pages, d + 5, 2);
    memcpy(&r->sequence, d + 7, 4);
}

int sow_boot_store(struct sow_log *log, const struct sow_boot_record *r)
{
    uint8_t d[SOW_LOG_DATA];

    pack(d, r);
    return sow_log_put(log, 0, d);
}

int sow_boot_renew(struct sow_log *log, const struct sow_boot_record *r, const uint8_t raw[SOW_MANIFEST_SIZE])
{
    uint8_t d[SOW_LOG_DATA];

    pack(d, r);
    return sow_log_replace(log, raw, 0, d);
}

int sow_boot_request(const struct sow_config *cfg, const uint8_t raw[SOW_MANIFEST_SIZE])
{
    struct sow_boot_record r;
    struct sow_log log;
    uint8_t old[SOW_MANIFEST_SIZE];

    sow_boot_load(cfg, &log, &r);
    if (r.state == SOW_BOOT_TRIAL || r.state == SOW_BOOT_BACK)
        return -SOW_CAUSE_NOT_CONFIRMED;
    if (r.state == SOW_BOOT_PENDING && sow_log_blob(&log, old) == SOW_OK && memcmp(old, raw, sizeof old) == 0)
        return SOW_OK;
    r.state = SOW_BOOT_PENDING;
    r.step = 0;
    r.cause = SOW_CAUSE_OK;
    r.count = 0;
    r.page = 0;
    r.pages = 0;
    return sow_boot_renew(&log, &r, raw);
}

int sow_boot_read(const struct sow_config *cfg, struct sow_boot_status *out)
{
    struct sow_boot_record r;
    struct sow_manifest m;
    struct sow_log log;
    uint8_t raw[SOW_MANIFEST_SIZE];

    sow_boot_load(cfg, &log, &r);
    out->state = r.state == SOW_BOOT_BACK ? (uint8_t)SOW_BOOT_TRIAL : r.state;
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
    r.step = 0;
    r.page = 0;
    return sow_boot_store(&log, &r);
}
