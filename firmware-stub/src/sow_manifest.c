/* SPDX-License-Identifier: Apache-2.0 */
#include "sow_manifest.h"

#include <stddef.h>
#include <string.h>

#include "sow_p256.h"
#include "sow_sha256.h"

#define FIELD(name, off, bytes, shift) {offsetof(struct sow_manifest, name), off, bytes, shift}

/* The fields wider than a byte; value = little-endian bytes << shift. */
static const struct {
    uint8_t to, off, bytes, shift;
} fields[] = {
    FIELD(class_id, 4, 4, 0),  FIELD(hardware_id, 8, 2, 0), FIELD(ram, 11, 1, 8),       FIELD(version, 12, 4, 0),
    FIELD(sequence, 16, 4, 0), FIELD(expiry, 20, 4, 0),     FIELD(new_size, 24, 3, 0),  FIELD(base_size, 27, 3, 0),
    FIELD(payload_size, 30, 3, 0), FIELD(link_base, 33, 3, 8), FIELD(scratch, 36, 2, 6),
};

int sow_manifest_parse(struct sow_manifest *m, const uint8_t raw[SOW_MANIFEST_SIZE])
{
    if (raw[0] != 0x53 || raw[1] != 1)
        return -SOW_CAUSE_MANIFEST_FORMAT;
    for (uint32_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        uint32_t v = 0;

        for (uint32_t n = fields[i].bytes; n-- != 0;)
            v = v << 8 | raw[fields[i].off + n];
        v <<= fields[i].shift;
        memcpy((uint8_t *)m + fields[i].to, &v, sizeof v);
    }
    m->codec = raw[2];
    m->flags = raw[3];
    m->key_id = raw[10];
    m->profile = raw[38];
    m->options = raw[39];
    /* The three digests, one after the other here as there. */
    memcpy((uint8_t *)m + offsetof(struct sow_manifest, base_digest), raw + 40, SOW_MANIFEST_SIGNED - 40);
    return SOW_OK;
}

int sow_manifest_for_us(const struct sow_config *cfg, const struct sow_manifest *m, uint32_t floor)
{
    if (m->class_id != cfg->identity->class_id)
        return -SOW_CAUSE_CLASS_MISMATCH;
    if (m->hardware_id != cfg->identity->hardware_id)
        return -SOW_CAUSE_HARDWARE_MISMATCH;
    if (m->sequence <= floor)
        return -SOW_CAUSE_ROLLBACK_BLOCKED;
    return m->new_size > cfg->map->slot_b.size ? -SOW_CAUSE_IMAGE_TOO_LARGE : SOW_OK;
}

/* Apart, so that its state is off the stack when the signature is verified. */
static __attribute__((noinline)) void signed_hash(const uint8_t *raw, uint8_t hash[SOW_SHA256_SIZE])
{
    struct sow_sha256 sha;

    sow_sha256_init(&sha);
    sow_sha256_update(&sha, raw, SOW_MANIFEST_SIGNED);
    sow_sha256_final(&sha, hash);
}

int sow_manifest_verify(const struct sow_config *cfg, const uint8_t raw[SOW_MANIFEST_SIZE])
{
    const struct sow_key *key = cfg->identity->keys, *end = key + sizeof cfg->identity->keys / sizeof *key;
    const struct sow_port *port = cfg->port;
    const struct sow_p256_idle watchdog = {port->idle, port->user};
    const uint8_t *sig = raw + SOW_MANIFEST_SIGNED;
    uint8_t id = raw[10], hash[SOW_SHA256_SIZE];
    int err;

    signed_hash(raw, hash);
    if (port->verify != 0) {
        err = port->verify(port->user, id, hash, sig);
    } else {
        while (key->id != id || id == 0)
            if (++key == end)
                return -SOW_CAUSE_KEY_UNKNOWN;
        err = sow_p256_verify_idle(key->pub, hash, sig, &watchdog);
    }
    return err < 0 ? -SOW_CAUSE_SIGNATURE_BAD : SOW_OK;
}
