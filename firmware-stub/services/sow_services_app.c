/* The application's side of sow_services.h: the functions of sow_aes.c, sow_sha256.c, sow_p256.c, sow_flash.c and
 * sow_log.c, each a call of the stub's.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "sow_services_layout.h"

/* The stub's table; its address comes from the linker script. */
extern const struct sow_services sow_services;

int sow_services_check(void)
{
    const struct sow_services *t = &sow_services;

    if (t->magic != SOW_SERVICES_MAGIC || t->version != SOW_SERVICES_VERSION || t->count < SOW_SERVICES_COUNT)
        return -SOW_CAUSE_NO_SERVICES;
    return SOW_OK;
}

void sow_sha256_init(struct sow_sha256 *s) { sow_services.sha256_init(s); }

void sow_sha256_update(struct sow_sha256 *s, const void *data, size_t n) { sow_services.sha256_update(s, data, n); }

void sow_sha256_final(struct sow_sha256 *s, uint8_t digest[SOW_SHA256_SIZE]) { sow_services.sha256_final(s, digest); }

int sow_p256_verify_idle(const uint8_t pub[64], const uint8_t hash[32], const uint8_t sig[64],
                         const struct sow_p256_idle *watchdog)
{
    return sow_services.p256_verify_idle(pub, hash, sig, watchdog);
}

int sow_p256_verify(const uint8_t pub[64], const uint8_t hash[32], const uint8_t sig[64])
{
    static const struct sow_p256_idle none = {0, 0};

    return sow_p256_verify_idle(pub, hash, sig, &none);
}

void sow_aes128_encrypt(const uint8_t key[16], const uint8_t in[16], uint8_t out[16])
{
    sow_services.aes128_encrypt(key, in, out);
}

void sow_cmac_init(struct sow_cmac *c, const uint8_t key[16]) { sow_services.cmac_init(c, key); }

void sow_cmac_update(struct sow_cmac *c, const void *data, size_t n) { sow_services.cmac_update(c, data, n); }

void sow_cmac_final(struct sow_cmac *c, uint8_t mac[16]) { sow_services.cmac_final(c, mac); }

int sow_flash_read(const struct sow_config *cfg, uint32_t addr, void *buf, uint32_t len)
{
    return sow_services.flash_read(cfg, addr, buf, len);
}

int sow_flash_is(const struct sow_config *cfg, uint32_t addr, const void *want, uint32_t len)
{
    return sow_services.flash_is(cfg, addr, want, len);
}

int sow_flash_prog(const struct sow_config *cfg, uint32_t addr, const void *buf, uint32_t len)
{
    return sow_services.flash_prog(cfg, addr, buf, len);
}

int sow_flash_erase(const struct sow_config *cfg, uint32_t addr, uint32_t len)
{
    return sow_services.flash_erase(cfg, addr, len);
}

int sow_flash_copy(const struct sow_config *cfg, uint32_t to, uint32_t from)
{
    return sow_services.flash_copy(cfg, to, from);
}

uint32_t sow_check(uint32_t c, const void *data, uint32_t n) { return sow_services.check(c, data, n); }

void sow_log_load(struct sow_log *l, void *record, uint32_t size) { sow_services.log_load(l, record, size); }

int sow_log_put(struct sow_log *l, void *record, uint32_t size, const void *blob)
{
    return sow_services.log_put(l, record, size, blob);
}

void sow_log_turn(struct sow_log *l, uint32_t size) { sow_services.log_turn(l, size); }
