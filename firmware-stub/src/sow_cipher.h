/* The cipher of the device: port->aes, or AES-128 in software with the root key of sow_identity.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SOW_CIPHER_H
#define SOW_CIPHER_H

#include "sow_port.h"

/* Encrypt one block. key NULL means the root key. SOW_OK, or what port->aes returned. */
int sow_cipher(const struct sow_config *cfg, const uint8_t *key, const uint8_t in[16], uint8_t out[16]);

#endif
