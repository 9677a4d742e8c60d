/* MCUboot images: 32-byte header, body, protected TLVs, TLVs. Signatures in TLVs are not looked at.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SOW_IMAGE_H
#define SOW_IMAGE_H

#include "sow_boot.h"

struct sow_image_info {
    uint32_t version; /* major << 24 | minor << 16 | revision */
    uint32_t size;    /* header, body and all TLVs */
    uint32_t entry;   /* address of the body */
    uint32_t hashed;  /* bytes that the hash covers: header, body, protected TLVs */
    uint8_t hash[32];
};

/* SOW_OK or -SOW_CAUSE_IMAGE_INVALID. Reads header and TLVs only. */
int sow_image_info(const struct sow_config *cfg, const struct sow_region *slot, struct sow_image_info *info);

struct sow_sha256;

/* Append n bytes of flash to a digest. SOW_OK or -SOW_CAUSE_FLASH_IO. */
int sow_flash_hash(const struct sow_config *cfg, struct sow_sha256 *sha, uint32_t addr, uint32_t n);

/* SHA-256 of n bytes of flash. */
int sow_flash_digest(const struct sow_config *cfg, uint32_t addr, uint32_t n, uint8_t digest[32]);

#endif
