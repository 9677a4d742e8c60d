/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "sow_aes.h"
#include "sow_core_private.h"
#include "sow_image.h"
#include "sow_sha256.h"

#define SLICE 1024u /* bytes digested in one slice of work */

int sow_manifest_read(const struct sow_core *c, struct sow_manifest *m)
{
    uint8_t raw[SOW_MANIFEST_SIZE];
    int err = sow_block_read(c, 0, raw, sizeof raw);

    return err < 0 ? err : sow_manifest_parse(m, raw);
}

/* What is digested: the block for its MIC, the payload in it, or an image in a slot. */
enum source { BLOCK, PAYLOAD, SLOT };

/* Append one slice; pos counts bytes of that source. SOW_MORE, SOW_DONE after the last, or a negated cause. */
static int append(struct sow_core *c, enum source source, const struct sow_region *slot, uint32_t size)
{
    uint32_t end = size - c->pos < SLICE ? size : c->pos + SLICE;
    uint8_t buf[64];

    while (c->pos < end) {
        uint32_t n = end - c->pos < sizeof buf ? end - c->pos : sizeof buf;
        int err;

        sow_flash_idle(c->cfg);
        if (source == SLOT)
            err = sow_flash_read(c->cfg, slot->addr + c->pos, buf, n);
        else
            err = sow_block_read(c, source == PAYLOAD ? SOW_MANIFEST_SIZE + c->pos : c->pos, buf, n);
        if (err < 0)
            return err;
        if (source == BLOCK)
            sow_cmac_update(sow_scratch(c), buf, n);
        else
            sow_sha256_update(sow_scratch(c), buf, n);
        c->pos += n;
    }
    return end < size ? SOW_MORE : SOW_DONE;
}

int sow_digest(struct sow_core *c, const struct sow_region *slot, uint32_t size, const uint8_t *want, uint32_t n)
{
    struct sow_sha256 *sha = sow_scratch(c);
    uint8_t digest[SOW_SHA256_SIZE];
    int err;

    if (c->pos == 0)
        sow_sha256_init(sha);
    if ((err = append(c, slot != 0 ? SLOT : PAYLOAD, slot, size)) != SOW_DONE)
        return err;
    sow_sha256_final(sha, digest);
    return memcmp(digest, want, n) != 0 ? -SOW_CAUSE_DIGEST_BAD : SOW_DONE;
}

int sow_digest_payload(struct sow_core *c)
{
    struct sow_manifest m;
    int err = sow_manifest_read(c, &m);

    return err < 0 ? err : sow_digest(c, 0, m.payload_size, m.payload_digest, sizeof m.payload_digest);
}

/* The running image is the base of the patch? One slice. */
static __attribute__((noinline)) int judge_base(struct sow_core *c)
{
    const struct sow_region *slot = &c->cfg->map->slot_a;
    struct sow_manifest m;
    uint32_t size;
    int err = sow_manifest_read(c, &m);

    if (err < 0)
        return err;
    if (m.base_size == 0)
        return SOW_DONE;
    if (sow_image_header(c->cfg, slot, 0, &size, 0) < 0 || size != m.base_size)
        return -SOW_CAUSE_BASE_MISMATCH;
    err = sow_digest(c, slot, size, m.base_digest, sizeof m.base_digest);
    return err == -SOW_CAUSE_DIGEST_BAD ? -SOW_CAUSE_BASE_MISMATCH : err;
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

static int encrypt_with_root(const struct sow_core *c, const uint8_t in[16], uint8_t out[16])
{
    const struct sow_port *port = c->cfg->port;

    if (port->aes != 0)
        return port->aes(port->user, 0, in, out) < 0 ? -SOW_CAUSE_SESSION_MIC_BAD : SOW_OK;
    sow_aes128_encrypt(c->cfg->identity->root_key, in, out);
    return SOW_OK;
}

/* Under the key for data blocks; B0 of TS004-2.0.0 2.6 is the first block under the MIC. */
static int mic_start(const struct sow_core *c, struct sow_cmac *mac)
{
    static const uint8_t label[16] = {0x30}; /* DataBlockIntKey */
    const struct sow_session *s = &c->session;
    uint32_t size = sow_block_size(s);
    uint8_t b[16];
    int err = encrypt_with_root(c, label, b);

    if (err < 0)
        return err;
    sow_cmac_init(mac, b);
    memset(b, 0, sizeof b);
    b[0] = 0x49;
    b[1] = (uint8_t)s->session_cnt;
    b[2] = (uint8_t)(s->session_cnt >> 8);
    b[3] = s->index;
    memcpy(b + 4, s->descriptor, 4);
    memcpy(b + 12, &size, 4); /* little endian, like this processor */
    sow_cmac_update(mac, b, sizeof b);
    return SOW_OK;
}

/* One slice of the session MIC. */
int sow_mic(struct sow_core *c)
{
    struct sow_cmac *mac = sow_scratch(c);
    uint8_t tag[16];
    int err;

    if (!c->session.has_mic)
        return SOW_DONE;
    if ((c->pos == 0 && (err = mic_start(c, mac)) < 0) ||
        (err = append(c, BLOCK, 0, sow_block_size(&c->session))) != SOW_DONE)
        return err;
    sow_cmac_final(mac, tag);
    memset(mac, 0, sizeof *mac);
    return memcmp(tag, c->session.mic, 4) != 0 ? -SOW_CAUSE_SESSION_MIC_BAD : SOW_DONE;
}
