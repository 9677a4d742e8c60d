/* SHA-256, FIPS 180-4. Written for a small Cortex-M0+: eight low registers, one data pointer.
 *
 * SPDX-License-Identifier: Apache-2.0 */

#include "sow_sha256.h"

#include <string.h>

static const uint32_t round_constant[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static const uint32_t initial_hash[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};

static uint32_t ror(uint32_t x, unsigned n)
{
    return x >> n | x << (32u - n);
}

/* The eight working variables are two histories of four: b, c, d are the last values of a, and f, g, h those of e.
 * A round appends a value to each history and shifts nothing; every 16 rounds the histories are moved back to the
 * start of their array. */
struct past {
    uint32_t a, e;
};

static void compress(struct sow_sha256 *s)
{
    struct past v[4 + 16];
    uint32_t *w = s->w;
    const uint32_t *k = round_constant;

    for (unsigned i = 0; i < 4; i++) {
        v[i].a = s->h[3 - i];
        v[i].e = s->h[7 - i];
    }
    for (;;) {
        struct past *p = v; /* p[0] to p[3] are d, h; c, g; b, f; a, e */

        for (unsigned i = 0; i < 16; i++, p++) {
            uint32_t x = p[3].e;
            uint32_t t = p[0].e + (((p[2].e ^ p[1].e) & x) ^ p[1].e);
            t += ror(ror(ror(x, 14) ^ x, 5) ^ x, 6); /* ror 6, 11, 25 */
            t += *k++ + w[i];
            p[4].e = p[0].a + t;
            x = p[3].a;
            t += ((x ^ p[2].a) & (p[2].a ^ p[1].a)) ^ p[2].a;
            t += ror(ror(ror(x, 9) ^ x, 11) ^ x, 2); /* ror 2, 13, 22 */
            p[4].a = t;
        }
        memcpy(v, v + 16, 4 * sizeof v[0]);
        if (k == round_constant + 64) {
            break;
        }
        for (unsigned i = 0; i < 16; i++) {
            uint32_t x = w[(i + 1) & 15];
            uint32_t y = w[(i + 14) & 15];
            w[i] += w[(i + 9) & 15] + (ror(ror(x, 11) ^ x, 7) ^ x >> 3) + (ror(ror(y, 2) ^ y, 17) ^ y >> 10);
        }
    }
    for (unsigned i = 0; i < 4; i++) {
        s->h[3 - i] += v[i].a;
        s->h[7 - i] += v[i].e;
    }
}

void sow_sha256_init(struct sow_sha256 *s)
{
    memset(s, 0, sizeof *s);
    memcpy(s->h, initial_hash, sizeof s->h);
}

void sow_sha256_update(struct sow_sha256 *s, const void *data, size_t n)
{
    for (const uint8_t *p = data; n > 0; n--) {
        /* A word fills from its low end; its fourth byte pushes out what the last block left. */
        uint32_t *w = &s->w[s->count / 4 % 16];
        *w = *w << 8 | *p++;
        if (++s->count % 64 == 0) {
            compress(s);
        }
    }
}

void sow_sha256_final(struct sow_sha256 *s, uint8_t digest[SOW_SHA256_SIZE])
{
    uint32_t count = s->count;
    uint8_t pad = 0x80;

    do {
        sow_sha256_update(s, &pad, 1);
        pad = 0;
    } while (s->count % 64 != 56);
    s->w[14] = count >> 29;
    s->w[15] = count << 3;
    compress(s);
    for (unsigned i = 0; i < SOW_SHA256_SIZE; i++) {
        digest[i] = ((uint8_t *)s->h)[i ^ 3]; /* of little-endian words */
    }
}
