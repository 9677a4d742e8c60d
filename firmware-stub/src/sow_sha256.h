/* SHA-256 (FIPS 180-4), streaming. No HMAC, no SHA-224.
 *
 * SPDX-License-Identifier: Apache-2.0 */

#ifndef SOW_SHA256_H
#define SOW_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define SOW_SHA256_SIZE 32u

/* A digest in progress: 100 bytes, all of its state. Copy the struct to fork a digest. */
struct sow_sha256 {
    uint32_t h[8];
    uint32_t w[16]; /* the block being filled, as big-endian words */
    uint32_t count; /* bytes so far; a message is at most 2^32 - 1 bytes */
};

void sow_sha256_init(struct sow_sha256 *s);

/* Append n bytes. Any split of a message into calls gives the same digest. */
void sow_sha256_update(struct sow_sha256 *s, const void *data, size_t n);

/* Write the digest. The struct is spent afterwards: init it before it is used again. */
void sow_sha256_final(struct sow_sha256 *s, uint8_t digest[SOW_SHA256_SIZE]);

#endif
