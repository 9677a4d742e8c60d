/* SPDX-License-Identifier: Apache-2.0 */
#include "sow_cipher.h"

#include "sow_aes.h"

int sow_cipher(const struct sow_config *cfg, const uint8_t *key, const uint8_t in[16], uint8_t out[16])
{
    const struct sow_port *port = cfg->port;

    if (port->aes != 0)
        return port->aes(port->user, key, in, out);
    sow_aes128_encrypt(key != 0 ? key : cfg->identity->root_key, in, out);
    return SOW_OK;
}
