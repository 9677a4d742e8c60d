#include "sow_image.h"

#include <string.h>

#include "sow_flash.h"
#include "sow_sha256.h"

#define IMAGE_MAGIC 0x96f3b83du
#define TLV_MAGIC 0x6907u
#define PROTECTED_MAGIC 0x6908u
#define TLV_SHA256 0x10u
#define HEADER 32u

static uint32_t u16(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static uint32_t u32(const uint8_t *p)
{
    return u16(p) | u16(p + 2) << 16;
}

/* Bytes of the TLV area at off, or 0 when it is none or runs past the slot. */
static uint32_t tlv_area(const struct sow_config *cfg, const struct sow_region *slot, uint32_t off, uint32_t magic)
{
    uint8_t h[4];

    if (off + 4 > slot->size || sow_flash_read(cfg, slot->addr + off, h, 4) < 0 || u16(h) != magic || u16(h + 2) < 4 ||
        u16(h + 2) > slot->size - off)
        return 0;
    return u16(h + 2);
}

int sow_image_info(const struct sow_config *cfg, const struct sow_region *slot, struct sow_image_info *info)
{
    uint8_t h[HEADER];
    uint32_t header, body, protect, tlvs;

    if (sow_flash_read(cfg, slot->addr, h, sizeof h) < 0 || u32(h) != IMAGE_MAGIC)
        return -SOW_CAUSE_IMAGE_INVALID;
    header = u16(h + 8);
    protect = u16(h + 10);
    body = u32(h + 12);
    if (header < HEADER || header > slot->size || body > slot->size - header)
        return -SOW_CAUSE_IMAGE_INVALID;
    if (protect != 0 && tlv_area(cfg, slot, header + body, PROTECTED_MAGIC) != protect)
        return -SOW_CAUSE_IMAGE_INVALID;
    info->version = (uint32_t)h[20] << 24 | (uint32_t)h[21] << 16 | u16(h + 22);
    info->entry = slot->addr + header;
    info->hashed = header + body + protect;
    if ((tlvs = tlv_area(cfg, slot, info->hashed, TLV_MAGIC)) == 0)
        return -SOW_CAUSE_IMAGE_INVALID;
    info->size = info->hashed + tlvs;
    for (uint32_t at = info->hashed + 4; at + 4 <= info->size;) {
        uint32_t type, len;

        if (sow_flash_read(cfg, slot->addr + at, h, 4) < 0)
            break;
        type = u16(h);
        len = u16(h + 2);
        at += 4;
        if (len > info->size - at)
            break;
        if (type == TLV_SHA256 && len == sizeof info->hash)
            return sow_flash_read(cfg, slot->addr + at, info->hash, len) < 0 ? -SOW_CAUSE_IMAGE_INVALID : SOW_OK;
        at += len;
    }
    return -SOW_CAUSE_IMAGE_INVALID;
}

int sow_flash_hash(const struct sow_config *cfg, struct sow_sha256 *sha, uint32_t addr, uint32_t n)
{
    uint8_t buf[64];

    while (n != 0) {
        uint32_t part = n < sizeof buf ? n : sizeof buf;

        if (cfg->port->idle != 0)
            cfg->port->idle(cfg->port->user);
        if (sow_flash_read(cfg, addr, buf, part) < 0)
            return -SOW_CAUSE_FLASH_IO;
        sow_sha256_update(sha, buf, part);
        addr += part;
        n -= part;
    }
    return SOW_OK;
}

static int check(const struct sow_config *cfg, const struct sow_region *slot, uint32_t *version, uint32_t *size,
                 uint32_t *entry, int hash)
{
    struct sow_image_info info;
    struct sow_sha256 sha;
    uint8_t digest[SOW_SHA256_SIZE];

    if (sow_image_info(cfg, slot, &info) < 0)
        return -SOW_CAUSE_IMAGE_INVALID;
    if (hash) {
        sow_sha256_init(&sha);
        if (sow_flash_hash(cfg, &sha, slot->addr, info.hashed) < 0)
            return -SOW_CAUSE_IMAGE_INVALID;
        sow_sha256_final(&sha, digest);
        if (memcmp(digest, info.hash, sizeof digest) != 0)
            return -SOW_CAUSE_IMAGE_INVALID;
    }
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
