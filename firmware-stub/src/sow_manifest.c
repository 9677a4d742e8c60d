/* SPDX-License-Identifier: Apache-2.0 */
#include "sow_manifest.h"

#include <stddef.h>
#include <string.h>

#include "sow_p256.h"
#include "sow_sha256.h"

/* Bytes of the fields in struct sow_manifest, little endian, which follow one another from byte 2 on. */
static const uint8_t widths[] = {1, 1, 4, 2, 1, 1, 4, 4, 4, 3, 3, 3, 3, 2, 1, 1};

int sow_manifest_parse(struct sow_manifest *m, const uint8_t raw[SOW_MANIFEST_SIZE])
{
    const uint8_t *from = raw + 2;
    uint8_t *to = (uint8_t *)m;

    (void)sizeof(char[offsetof(struct sow_manifest, base_digest) == 4 * sizeof widths ? 1 : -1]);
    if (raw[0] != 0x53 || raw[1] != 1)
        return -SOW_CAUSE_MANIFEST_FORMAT;
    memset(m, 0, sizeof *m);
    for (uint32_t i = 0; i < sizeof widths; i++) {
        memcpy(to, from, widths[i]);
        to += 4;
        from += widths[i];
    }
    memcpy(to, from, SOW_MANIFEST_SIGNED - 40); /* three digests */
    m->ram <<= 8;
    m->link_base <<= 8;
    m->scratch <<= 6;
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
