/* AES-128 encryption of one block (FIPS 197) and AES-CMAC (RFC 4493), streaming.
 *
 * There is no decryption: LoRaWAN derives and unwraps its keys by encrypting. Table look-ups
 * depend on the key, so other code that shares a data cache could time them: meant for a
 * microcontroller that runs one program, not for a host with strangers on it.
 *
 * SPDX-License-Identifier: Apache-2.0 */

#ifndef SOW_AES_H
#define SOW_AES_H

#include <stddef.h>
#include <stdint.h>

/* out = AES-128(key, in). out may be in. Uses 360 bytes of stack on a Cortex-M0+ and 12 thousand instructions. */
void sow_aes128_encrypt(const uint8_t key[16], const uint8_t in[16], uint8_t out[16]);

/* A CMAC in progress: 36 bytes, all of its state, the key included. Wipe it after use. */
struct sow_cmac {
    uint8_t key[16];
    uint8_t x[16]; /* the chaining value, with the bytes of the current block added */
    uint32_t fill; /* how many bytes that is, 0..16; 0 before the first byte only */
};

void sow_cmac_init(struct sow_cmac *c, const uint8_t key[16]);

/* Append n bytes. Any split of a message into calls gives the same MAC; short pieces are slow, each call costs 6
 * thousand instructions of a Cortex-M0+ before the first block. */
void sow_cmac_update(struct sow_cmac *c, const void *data, size_t n);

/* Write the MAC. LoRaWAN uses its first four bytes. The struct is spent afterwards. */
void sow_cmac_final(struct sow_cmac *c, uint8_t mac[16]);

#endif
