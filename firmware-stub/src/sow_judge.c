/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "sow_aes.h"
#include "sow_core_private.h"
#include "sow_image.h"
#include "sow_sha256.h"

#define SLICE 1024u /* bytes digested in one slice of work */

static uint32_t slice(const struct sow_core *c, uint32_t size)
{
    return size - c->pos < SLICE ? size - c->pos : SLICE;
}

int sow_manifest_read(const struct sow_core *c, struct sow_manifest *m)
{
    uint8_t raw[SOW_MANIFEST_SIZE];
    int err = sow_block_read(c, 0, raw, sizeof raw);

    return err < 0 ? err : sow_manifest_parse(m, raw);
}

/* The running image is the base of the patch? One slice; pos counts bytes of slot A. */
static __attribute__((noinline)) int judge_base(struct sow_core *c)
{
    const struct sow_region *slot = &c->cfg->map->slot_a;
    struct sow_sha256 *sha = sow_scratch(c);
    uint8_t digest[SOW_SHA256_SIZE];
    struct sow_manifest manifest, *m = &manifest;
    uint32_t size, n;
    int err = sow_manifest_read(c, m);

    if (err < 0)
        return err;
    if (m->base_size == 0)
        return SOW_DONE;
    n = slice(c, m->base_size);
    if (c->pos == 0) {
        if (sow_image_header(c->cfg, slot, 0, &size, 0) < 0 || size != m->base_size)
            return -SOW_CAUSE_BASE_MISMATCH;
        sow_sha256_init(sha);
    }
    if (sow_flash_hash(c->cfg, sha, slot->addr + c->pos, n) < 0)
        return -SOW_CAUSE_FLASH_IO;
    c->pos += n;
    if (c->pos < m->base_size)
        return SOW_MORE;
    sow_sha256_final(sha, digest);
    return memcmp(digest, m->base_digest, sizeof m->base_digest) != 0 ? -SOW_CAUSE_BASE_MISMATCH : SOW_DONE;
}

/* Apart, so that all this is off the stack when the signature is verified. */
static __attribute__((noinline)) int judge_fields(struct sow_core *c, const uint8_t *raw)
{
    struct sow_boot_status boot;
    struct sow_manifest manifest, *m = &manifest;
    int err = sow_manifest_parse(m, raw);

    if (err < 0)
        return err;
    c->version = m->version;
    if (m->flags != 0 || SOW_MANIFEST_SIZE + m->payload_size > sow_block_size(&c->session))
        return -SOW_CAUSE_MANIFEST_FORMAT;
    if ((err = sow_boot_read(c->cfg, &boot)) < 0 || (err = sow_manifest_for_us(c->cfg, m, boot.sequence)) < 0)
        return err;
    if (m->expiry != 0 && c->gps != 0 && c->gps > m->expiry)
        return -SOW_CAUSE_EXPIRED;
    return sow_write_fits(c, m);
}

int sow_judge(struct sow_core *c)
{
    uint8_t *raw = sow_scratch(c);
    int err;

    if (c->judge != 0)
        return judge_base(c);
    c->pos = 0;
    if (sow_block_size(&c->session) < SOW_MANIFEST_SIZE)
        return -SOW_CAUSE_MANIFEST_FORMAT;
    if ((err = sow_block_read(c, 0, raw, SOW_MANIFEST_SIZE)) < 0 || (err = judge_fields(c, raw)) < 0 ||
        (err = sow_manifest_verify(c->cfg, raw)) < 0)
        return err;
    c->judge = 1;
    return SOW_MORE;
}

/* One slice of the payload digest; pos counts bytes of the payload. */
int sow_digest(struct sow_core *c)
{
    struct sow_sha256 *sha = sow_scratch(c);
    struct sow_manifest m;
    uint8_t buf[64], digest[SOW_SHA256_SIZE];
    uint32_t end;
    int err = sow_manifest_read(c, &m);

    if (err < 0)
        return err;
    if (c->pos == 0)
        sow_sha256_init(sha);
    end = c->pos + slice(c, m.payload_size);
    while (c->pos < end) {
        uint32_t n = end - c->pos < sizeof buf ? end - c->pos : sizeof buf;

        if ((err = sow_block_read(c, SOW_MANIFEST_SIZE + c->pos, buf, n)) < 0)
            return err;
        sow_sha256_update(sha, buf, n);
        c->pos += n;
    }
    if (c->pos < m.payload_size)
        return SOW_MORE;
    sow_sha256_final(sha, digest);
    return memcmp(digest, m.payload_digest, sizeof m.payload_digest) != 0 ? -SOW_CAUSE_DIGEST_BAD : SOW_DONE;
}

static int encrypt_with_root(const struct sow_core *c, const uint8_t in[16], uint8_t out[16])
{
    const struct sow_port *port = c->cfg->port;

    if (port->aes != 0)
        return port->aes(port->user, 0, in, out) < 0 ? -SOW_CAUSE_SESSION_MIC_BAD : SOW_OK;
    sow_aes128_encrypt(c->cfg->identity->root_key, in, out);
    return SOW_OK;
}

/* B0 of TS004-2.0.0 2.6, the first block under the MIC. */
static void mic_start(const struct sow_core *c, struct sow_cmac *mac)
{
    const struct sow_session *s = &c->session;
    uint32_t size = sow_block_size(s);
    uint8_t b0[16] = {0x49, (uint8_t)s->session_cnt, (uint8_t)(s->session_cnt >> 8), s->index};

    memcpy(b0 + 4, s->descriptor, 4);
    for (uint32_t i = 0; i < 4; i++)
        b0[12 + i] = (uint8_t)(size >> 8 * i);
    sow_cmac_update(mac, b0, sizeof b0);
}

/* One slice of the session MIC; pos counts bytes of the block. */
int sow_mic(struct sow_core *c)
{
    static const uint8_t label[16] = {0x30}; /* DataBlockIntKey */
    struct sow_cmac *mac = sow_scratch(c);
    uint32_t size = sow_block_size(&c->session), end = c->pos + slice(c, size);
    uint8_t buf[64], key[16];
    int err;

    if (!c->session.has_mic)
        return SOW_DONE;
    if (c->pos == 0) {
        if ((err = encrypt_with_root(c, label, key)) < 0)
            return err;
        sow_cmac_init(mac, key);
        mic_start(c, mac);
    }
    while (c->pos < end) {
        uint32_t n = end - c->pos < sizeof buf ? end - c->pos : sizeof buf;

        if ((err = sow_block_read(c, c->pos, buf, n)) < 0)
            return err;
        sow_cmac_update(mac, buf, n);
        c->pos += n;
    }
    if (c->pos < size)
        return SOW_MORE;
    sow_cmac_final(mac, key);
    memset(mac, 0, sizeof *mac);
    return memcmp(key, c->session.mic, 4) != 0 ? -SOW_CAUSE_SESSION_MIC_BAD : SOW_DONE;
}
