#include "sow_manifest.h"

#include <string.h>

#include "sow_p256.h"
#include "sow_sha256.h"

static uint32_t le(const uint8_t *p, uint32_t n)
{
    uint32_t v = 0;

    while (n-- != 0)
        v = v << 8 | p[n];
    return v;
}

int sow_manifest_parse(struct sow_manifest *m, const uint8_t raw[SOW_MANIFEST_SIZE])
{
    if (raw[0] != 0x53 || raw[1] != 1)
        return -SOW_CAUSE_MANIFEST_FORMAT;
    m->codec = raw[2];
    m->flags = raw[3];
    m->class_id = le(raw + 4, 4);
    m->hardware_id = (uint16_t)le(raw + 8, 2);
    m->key_id = raw[10];
    m->ram = raw[11] * 256u;
    m->version = le(raw + 12, 4);
    m->sequence = le(raw + 16, 4);
    m->expiry = le(raw + 20, 4);
    m->new_size = le(raw + 24, 3);
    m->base_size = le(raw + 27, 3);
    m->payload_size = le(raw + 30, 3);
    m->link_base = le(raw + 33, 3) << 8;
    m->scratch = le(raw + 36, 2) * 64u;
    m->profile = raw[38];
    m->options = raw[39];
    memcpy(m->base_digest, raw + 40, sizeof m->base_digest);
    memcpy(m->payload_digest, raw + 48, sizeof m->payload_digest);
    memcpy(m->new_digest, raw + 64, sizeof m->new_digest);
    return SOW_OK;
}

int sow_manifest_verify(const struct sow_config *cfg, const uint8_t raw[SOW_MANIFEST_SIZE])
{
    const struct sow_key *keys = cfg->identity->keys;
    const uint8_t *sig = raw + SOW_MANIFEST_SIGNED;
    uint8_t id = raw[10], hash[SOW_SHA256_SIZE];
    struct sow_sha256 sha;

    sow_sha256_init(&sha);
    sow_sha256_update(&sha, raw, SOW_MANIFEST_SIGNED);
    sow_sha256_final(&sha, hash);
    if (cfg->port->verify != 0)
        return cfg->port->verify(cfg->port->user, id, hash, sig) < 0 ? -SOW_CAUSE_SIGNATURE_BAD : SOW_OK;
    for (uint32_t i = 0; i < sizeof cfg->identity->keys / sizeof *keys; i++)
        if (id != 0 && keys[i].id == id)
            return sow_p256_verify(keys[i].pub, hash, sig) == 0 ? SOW_OK : -SOW_CAUSE_SIGNATURE_BAD;
    return -SOW_CAUSE_KEY_UNKNOWN;
}
