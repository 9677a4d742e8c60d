/* SPDX-License-Identifier: Apache-2.0 */
#include "sow_image.h"

#include <string.h>

#include "sow_flash.h"
#include "sow_sha256.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the structs below are read from flash as they are"
#endif

#define IMAGE_MAGIC 0x96f3b83du
#define TLV_MAGIC 0x6907u
#define PROTECTED_MAGIC 0x6908u
#define TLV_SHA256 0x10u

/* As in flash: MCUboot's structs are those of a little-endian processor, like this one. */
struct header {
    uint32_t magic, load_addr;
    uint16_t size, protected_size;
    uint32_t body_size, flags;
    uint8_t major, minor;
    uint16_t revision;
    uint32_t build, pad;
};

struct tlv {
    uint16_t type, len; /* of an area: magic, and length with this struct */
};

/* Bytes of the TLV area at off, or 0 when it is none or runs past the slot. */
static uint32_t tlv_area(const struct sow_config *cfg, const struct sow_region *slot, uint32_t off, uint32_t magic)
{
    struct tlv t;

    if (off + sizeof t > slot->size || sow_flash_read(cfg, slot->addr + off, &t, sizeof t) < 0 || t.type != magic ||
        t.len < sizeof t || t.len > slot->size - off)
        return 0;
    return t.len;
}

int sow_image_info(const struct sow_config *cfg, const struct sow_region *slot, struct sow_image_info *info)
{
    struct header h;
    struct tlv t;
    uint32_t at, len;

    if (sow_flash_read(cfg, slot->addr, &h, sizeof h) < 0 || h.magic != IMAGE_MAGIC || h.size < sizeof h ||
        h.size > slot->size || h.body_size > slot->size - h.size)
        return -SOW_CAUSE_IMAGE_INVALID;
    at = h.size + h.body_size;
    if (h.protected_size != 0 && tlv_area(cfg, slot, at, PROTECTED_MAGIC) != h.protected_size)
        return -SOW_CAUSE_IMAGE_INVALID;
    at += h.protected_size;
    if ((len = tlv_area(cfg, slot, at, TLV_MAGIC)) == 0)
        return -SOW_CAUSE_IMAGE_INVALID;
    info->version = (uint32_t)h.major << 24 | (uint32_t)h.minor << 16 | h.revision;
    info->entry = slot->addr + h.size;
    info->hashed = at;
    info->size = at + len;
    for (at += sizeof t; at + sizeof t <= info->size; at += t.len) {
        if (sow_flash_read(cfg, slot->addr + at, &t, sizeof t) < 0)
            break;
        at += sizeof t;
        if (t.len > info->size - at)
            break;
        if (t.type == TLV_SHA256 && t.len == sizeof info->hash)
            return sow_flash_read(cfg, slot->addr + at, info->hash, t.len) < 0 ? -SOW_CAUSE_IMAGE_INVALID : SOW_OK;
    }
    return -SOW_CAUSE_IMAGE_INVALID;
}

int sow_flash_hash(const struct sow_config *cfg, struct sow_sha256 *sha, uint32_t addr, uint32_t n)
{
    uint8_t buf[64];

    while (n != 0) {
        uint32_t part = n < sizeof buf ? n : sizeof buf;

        if (sow_flash_read(cfg, addr, buf, part) < 0)
            return -SOW_CAUSE_FLASH_IO;
        sow_sha256_update(sha, buf, part);
        addr += part;
        n -= part;
    }
    return SOW_OK;
}

int sow_flash_digest(const struct sow_config *cfg, uint32_t addr, uint32_t n, uint8_t digest[32])
{
    struct sow_sha256 sha;
    int err;

    sow_sha256_init(&sha);
    err = sow_flash_hash(cfg, &sha, addr, n);
    sow_sha256_final(&sha, digest);
    return err;
}

static int check(const struct sow_config *cfg, const struct sow_region *slot, uint32_t *version, uint32_t *size,
                 uint32_t *entry, int hash)
{
    struct sow_image_info info;
    uint8_t digest[SOW_SHA256_SIZE];

    if (sow_image_info(cfg, slot, &info) < 0)
        return -SOW_CAUSE_IMAGE_INVALID;
    if (hash && (sow_flash_digest(cfg, slot->addr, info.hashed, digest) < 0 ||
                 memcmp(digest, info.hash, sizeof digest) != 0))
        return -SOW_CAUSE_IMAGE_INVALID;
    if (version != 0)
        *version = info.version;
    if (size != 0)
        *size = info.size;
    if (entry != 0)
        *entry = info.entry;
    return SOW_OK;
}

int sow_image_header(const struct sow_config *cfg, const struct sow_region *slot, uint32_t *version, uint32_t *size,
                     uint32_t *entry)
{
    return check(cfg, slot, version, size, entry, 0);
}

int sow_image_check(const struct sow_config *cfg, const struct sow_region *slot, uint32_t *version, uint32_t *size,
                    uint32_t *entry)
{
    return check(cfg, slot, version, size, entry, 1);
}
