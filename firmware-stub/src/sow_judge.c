/* SPDX-License-Identifier: Apache-2.0 */
#include <stddef.h>
#include <string.h>

#include "sow_aes.h"
#include "sow_cipher.h"
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

/* Append one slice of the block from that byte on, or of flash from that address on; pos counts. SOW_MORE, SOW_DONE
 * after the last, or a negated cause. */
static int append(struct sow_core *c, uint32_t from, int block, uint32_t size)
{
    uint32_t end = size - c->pos < SLICE ? size : c->pos + SLICE;
    uint8_t buf[64];

    while (c->pos < end) {
        uint32_t n = end - c->pos < sizeof buf ? end - c->pos : sizeof buf;
        int err;

        err = block ? sow_block_read(c, from + c->pos, buf, n) : sow_flash_read(c->log.cfg, from + c->pos, buf, n);
        if (err < 0)
            return err;
        if (c->at.phase == SOW_CORE_MIC)
            sow_cmac_update(sow_scratch(c), buf, n);
        else
            sow_sha256_update(sow_scratch(c), buf, n);
        c->pos += n;
    }
    return end < size ? SOW_MORE : SOW_DONE;
}

/* One slice of a digest that the manifest has: of the payload, of the new image, else of the base. */
int sow_judge_digest(struct sow_core *c)
{
    const struct sow_config *cfg = c->log.cfg;
    const struct sow_region *slot = &cfg->map->slot_b;
    struct sow_sha256 *sha = sow_scratch(c);
    uint8_t is[SOW_SHA256_SIZE], cause = SOW_CAUSE_IMAGE_DIGEST_BAD;
    struct sow_image_info info;
    struct sow_manifest m;
    const uint8_t *want = m.new_digest;
    uint32_t size, n = sizeof is, from = slot->addr;
    int err = sow_manifest_read(c, &m);

    if (err < 0)
        return err;
    size = m.new_size;
    if (c->at.phase == SOW_CORE_DIGEST) {
        from = SOW_MANIFEST_SIZE;
        size = m.payload_size;
        want = m.payload_digest;
        n = sizeof m.payload_digest;
        cause = SOW_CAUSE_DIGEST_BAD;
    } else if (c->at.phase != SOW_CORE_HASH) {
        from = cfg->map->slot_a.addr;
        size = m.base_size;
        want = m.base_digest;
        n = sizeof m.base_digest;
        cause = SOW_CAUSE_BASE_MISMATCH;
        if (size == 0)
            return SOW_DONE;
        if (size > slot->size)
            return -SOW_CAUSE_BASE_MISMATCH;
    } else if (c->at.judge != 0) {
        if (sow_image_info(cfg, slot, &info) < 0 || info.size != m.new_size || info.version != m.version)
            return -SOW_CAUSE_IMAGE_INVALID;
        size = info.hashed;
        want = info.hash;
        cause = SOW_CAUSE_IMAGE_INVALID;
    }
    if (c->pos == 0)
        sow_sha256_init(sha);
    if ((err = append(c, from, c->at.phase == SOW_CORE_DIGEST, size)) != SOW_DONE)
        return err;
    sow_sha256_final(sha, is);
    if (memcmp(is, want, n) != 0)
        return -(int)cause;
    if (c->at.phase != SOW_CORE_HASH || c->at.judge++ != 0)
        return SOW_DONE;
    c->pos = 0; /* then the hash in its TLVs */
    return SOW_MORE;
}

/* Apart, so that all this is off the stack when the signature is verified. */
static __attribute__((noinline)) int judge_fields(const struct sow_core *c, const uint8_t *raw)
{
    struct sow_boot_status boot;
    struct sow_manifest manifest, *m = &manifest;
    int err = sow_manifest_parse(m, raw);

    if (err < 0)
        return err;
    if (m->flags != 0 || SOW_MANIFEST_SIZE + m->payload_size > sow_block_size(c))
        return -SOW_CAUSE_MANIFEST_FORMAT;
    (void)sow_boot_read(c->log.cfg, &boot); /* which cannot fail */
    if ((err = sow_manifest_for_us(c->log.cfg, m, boot.sequence)) < 0)
        return err;
    if (m->expiry != 0 && c->gps != 0 && c->gps > m->expiry)
        return -SOW_CAUSE_EXPIRED;
    return sow_write_fits(c, m);
}

int sow_judge(struct sow_core *c)
{
    uint8_t *raw = sow_scratch(c);
    int err;

    if (c->at.judge != 0)
        return sow_judge_digest(c);
    if (sow_block_size(c) < SOW_MANIFEST_SIZE)
        return -SOW_CAUSE_MANIFEST_FORMAT;
    if ((err = sow_block_read(c, 0, raw, SOW_MANIFEST_SIZE)) < 0 || (err = judge_fields(c, raw)) < 0 ||
        (err = sow_manifest_verify(c->log.cfg, raw)) < 0)
        return err;
    c->at.judge = 1;
    c->pos = 0;
    return SOW_MORE;
}

/* Under the key for data blocks; B0 of TS004-2.0.0 2.6 is the first block under the MIC. */
static int mic_start(const struct sow_core *c, struct sow_cmac *mac)
{
    const struct sow_session *s = &c->at.session;
    uint32_t b[4] = {0x30, 0, 0, 0}; /* DataBlockIntKey */
    uint8_t key[16];

    if (sow_cipher(c->log.cfg, 0, (const uint8_t *)b, key) < 0)
        return -SOW_CAUSE_SESSION_MIC_BAD;
    sow_cmac_init(mac, key);
    /* Little endian, like this processor. */
    b[0] = 0x49u | (uint32_t)s->session_cnt << 8 | (uint32_t)s->index << 24;
    memcpy(b + 1, s->descriptor, 4);
    b[3] = sow_block_size(c);
    sow_cmac_update(mac, b, sizeof b);
    return SOW_OK;
}

int sow_mic(struct sow_core *c)
{
    struct sow_cmac *mac = sow_scratch(c);
    uint8_t tag[16];
    int err;

    if (!c->at.session.has_mic)
        return SOW_DONE;
    if ((c->pos == 0 && (err = mic_start(c, mac)) < 0) ||
        (err = append(c, 0, 1, sow_block_size(c))) != SOW_DONE)
        return err;
    sow_cmac_final(mac, tag);
    memset(mac, 0, sizeof *mac);
    return memcmp(tag, c->at.session.mic, 4) != 0 ? -SOW_CAUSE_SESSION_MIC_BAD : SOW_DONE;
}
