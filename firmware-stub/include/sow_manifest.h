/* The signed manifest that opens every bundle: 160 bytes, fixed layout, little endian (docs/spec/bundle.md).
 *
 *  off len field          meaning
 *    0   1 magic          0x53 'S'
 *    1   1 format         1
 *    2   1 codec          payload codec: 0 full image, 1 patch, 2 zstd (Linux-class devices only)
 *    3   1 flags          0
 *    4   4 class id       device class
 *    8   2 hardware id
 *   10   1 key id         1..255
 *   11   1 ram            RAM the payload codec needs, in units of 256 bytes
 *   12   4 version        TS006 FWversion = major<<24 | minor<<16 | revision, from MCUboot's ih_ver
 *   16   4 sequence       anti-rollback: must exceed the last one confirmed
 *   20   4 expiry         GPS seconds; 0: none
 *   24   3 new size       bytes of the new image, header and TLVs included
 *   27   3 base size      bytes of the base image; 0 when the payload needs no base
 *   30   3 payload size   bytes after the manifest
 *   33   3 link base      address the image is linked at, in units of 256 bytes (patch codec)
 *   36   2 scratch        flash scratch the codec needs, in units of 64 bytes
 *   38   1 profile        profile of the patch codec
 *   39   1 options        options of the patch codec
 *   40   8 base digest    first bytes of SHA-256 of the base image
 *   48  16 payload digest first bytes of SHA-256 of the payload
 *   64  32 new digest     SHA-256 of the new image
 *   96  64 signature      ECDSA P-256 r|s, big endian, over SHA-256 of bytes 0..95
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SOW_MANIFEST_H
#define SOW_MANIFEST_H

#include <stdint.h>

#include "sow_port.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SOW_MANIFEST_SIZE 160u
#define SOW_MANIFEST_SIGNED 96u /* the bytes that the signature covers */

enum sow_codec { SOW_CODEC_FULL = 0, SOW_CODEC_PATCH = 1, SOW_CODEC_ZSTD = 2 };

struct sow_manifest { /* in the order of the bytes; sizes and addresses in bytes */
    uint32_t codec, flags, class_id, hardware_id, key_id, ram, version, sequence, expiry;
    uint32_t new_size, base_size, payload_size, link_base, scratch, profile, options;
    uint8_t base_digest[8], payload_digest[16], new_digest[32];
};

/* Decode the fields; judges nothing but magic and format version.
 * Returns SOW_OK or -SOW_CAUSE_MANIFEST_FORMAT. */
int sow_manifest_parse(struct sow_manifest *m, const uint8_t raw[SOW_MANIFEST_SIZE]);

/* For this class and hardware, newer than the last sequence confirmed, not too large for the slot?
 * Returns SOW_OK, -SOW_CAUSE_CLASS_MISMATCH, _HARDWARE_MISMATCH, _ROLLBACK_BLOCKED or _IMAGE_TOO_LARGE. */
int sow_manifest_for_us(const struct sow_config *cfg, const struct sow_manifest *m, uint32_t floor);

/* Check the signature of raw against the trust slots (or port->verify).
 * Returns SOW_OK, -SOW_CAUSE_KEY_UNKNOWN or -SOW_CAUSE_SIGNATURE_BAD. Stack: about 1 KiB. */
int sow_manifest_verify(const struct sow_config *cfg, const uint8_t raw[SOW_MANIFEST_SIZE]);

#ifdef __cplusplus
}
#endif
#endif
