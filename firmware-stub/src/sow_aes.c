/* AES-128 (FIPS 197) and AES-CMAC (RFC 4493). The round keys are computed as they are used, and so is the S-box: its
 * 256 bytes are on the stack, which costs 6 thousand instructions, once for a block or for all that go into an
 * update of a CMAC.
 *
 * SPDX-License-Identifier: Apache-2.0 */

#include "sow_aes.h"

#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "row 0 of a column is the low byte of its word"
#endif

struct sbox {
    uint8_t of[256];
};

/* The affine image of the inverse in GF(2^8). Two walks through all that have one, p = 3^i and q = 3^-i, meet every
 * number with its inverse. */
static void make_sbox(struct sbox *sbox)
{
    uint32_t p = 1, q = 1;

    sbox->of[0] = 0x63;
    do {
        uint32_t x;

        p ^= p << 1; /* times 3 */
        if (p > 0xff) {
            p ^= 0x11b;
        }
        q ^= q << 1; /* through 3: 1 + x + x^2 + ..., the bits above x^7 being of no account */
        q ^= q << 2;
        q ^= q << 4;
        q &= 0xff;
        if (q > 0x7f) {
            q ^= 9;
        }
        q |= q << 8; /* rotated, q is a byte of it */
        x = q ^ q << 1;
        x ^= x << 2 ^ q << 4;
        sbox->of[p] = (uint8_t)(x >> 8 ^ 0x63);
    } while (p != 1);
}

static uint32_t ror(uint32_t x, unsigned n)
{
    return x >> n | x << (32u - n);
}

/* MixColumns: row i becomes 2 s(i) + 3 s(i+1) + s(i+2) + s(i+3) over GF(2^8). */
static uint32_t mix(uint32_t s)
{
    uint32_t next = ror(s, 8), t = s ^ next, high = t >> 7 & 0x01010101;

    /* Twice t: the bit that leaves a byte is taken from the next one, and brings in the polynomial. */
    return t << 1 ^ high << 8 ^ high * 0x1b ^ next ^ ror(t, 16);
}

union columns {
    uint32_t word[4];
    uint8_t byte[16];
};

static void encrypt_block(const struct sbox *sbox, const uint8_t *key, const uint8_t *in, uint8_t *out)
{
    union columns k, s, t;
    unsigned i;

    for (i = 0; i < 16; i++) {
        k.byte[i] = key[i];
        s.byte[i] = key[i] ^ in[i];
    }
    for (unsigned rcon = 0x01; rcon != 0x6c; rcon = rcon == 0x80 ? 0x1b : rcon << 1) {
        k.byte[0] ^= (uint8_t)rcon;
        for (i = 0; i < 16; i++) { /* SubBytes and ShiftRows; the next round key */
            t.byte[i] = sbox->of[s.byte[i * 5 % 16]];
            k.byte[i] ^= i < 4 ? sbox->of[k.byte[12 + (i + 1) % 4]] : k.byte[i - 4];
        }
        for (i = 0; i < 4; i++) {
            s.word[i] = k.word[i] ^ (rcon == 0x36 ? t.word[i] : mix(t.word[i])); /* not in the last round */
        }
    }
    memcpy(out, s.byte, sizeof s.byte);
}

void sow_aes128_encrypt(const uint8_t key[16], const uint8_t in[16], uint8_t out[16])
{
    struct sbox sbox;

    make_sbox(&sbox);
    encrypt_block(&sbox, key, in, out);
}

void sow_cmac_init(struct sow_cmac *c, const uint8_t key[16])
{
    memset(c, 0, sizeof *c);
    memcpy(c->key, key, sizeof c->key);
}

void sow_cmac_update(struct sow_cmac *c, const void *data, size_t n)
{
    struct sbox sbox;

    make_sbox(&sbox);
    for (const uint8_t *p = data; n > 0; n--) {
        /* A full block waits for the next byte: the last block is masked before it is encrypted. */
        if (c->fill == 16) {
            encrypt_block(&sbox, c->key, c->x, c->x);
            c->fill = 0;
        }
        c->x[c->fill++] ^= *p++;
    }
}

void sow_cmac_final(struct sow_cmac *c, uint8_t mac[16])
{
    uint8_t subkey[16] = {0};
    unsigned doublings = c->fill / 16;

    if (doublings == 0) {
        c->x[c->fill] ^= 0x80;
    }
    sow_aes128_encrypt(c->key, subkey, subkey);
    do { /* times x in GF(2^128), big endian: once for a whole block, twice for a padded one */
        unsigned carry = (subkey[0] >> 7) * 0x87u;

        for (unsigned i = 16; i-- > 0;) {
            carry ^= (unsigned)subkey[i] << 1;
            subkey[i] = (uint8_t)carry;
            carry >>= 8;
        }
    } while (doublings-- == 0);
    c->fill = 0; /* and so the sub-key is only added to the block */
    sow_cmac_update(c, subkey, sizeof subkey);
    sow_aes128_encrypt(c->key, c->x, mac);
}
