/* Services of the boot stub: an application may call the stub's SHA-256, P-256, AES, flash and journal functions
 * instead of carrying its own, 2.9 KiB that then neither lie in both slots nor go over the air.
 *
 * Chosen by what is linked. The stub links services/sow_services_stub.c, whose table its linker script puts (section
 * .services) at an address that never changes. The application links services/sow_services_app.c in place of
 * sow_aes.c, sow_sha256.c, sow_p256.c, sow_flash.c and sow_log.c, and its linker script has that address as the
 * symbol sow_services. Code and headers are the same either way.
 *
 * The table is an interface between two programs that are never built together again:
 *
 *   - Functions are only ever appended. None moves, goes, or gets another meaning; the structs below keep their layout.
 *     A stub that cannot keep this has another version, and needs another application.
 *   - An application runs over every stub of its version with at least as many functions as it was built for. It must
 *     not go to others: give devices whose stub offers less another hardware id. If one does get there,
 *     sow_services_check and with it sow_open refuse; nothing is called through a table that has not been checked.
 *   - The functions use the stack of their caller and no static data, and nothing that the stub set up before: the RAM
 *     is the application's. They call back what the application's own struct sow_port and struct sow_p256_idle name, in
 *     the application's context. They run from flash; a stub that copies code to RAM cannot offer them.
 *   - 32 bits, little endian, AAPCS without floating point. Code for a Cortex-M0+ serves any Cortex-M.
 *
 * What passes through it is laid out as sow_port.h, sow_core_state.h, sow_sha256.h, sow_aes.h and sow_p256.h have it;
 * services/sow_services_layout.h holds both sides to the numbers:
 *
 *   struct sow_sha256  100 bytes     struct sow_config     port at 0
 *   struct sow_cmac     36           struct sow_log        config at 0, region at 4, address at 8
 *   struct sow_p256_idle 8           struct sow_region     addr at 0, size at 4
 *   struct sow_port    user 0, read 4, prog 8, erase 12, idle 48, granule 52, page 56, erase_value 60
 *
 * The stub is not updated over the air, and neither is what it offers. A defect in one of these functions is got
 * round by an application that brings its own again: it links the five sources. No secret lies in the stub; whoever can
 * write the pages of the table has replaced the stub already: write-protect them all.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SOW_SERVICES_H
#define SOW_SERVICES_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SOW_SERVICES_MAGIC 0x76727353u /* "Ssrv" */
#define SOW_SERVICES_VERSION 1u
#define SOW_SERVICES_COUNT 17u /* functions that this release knows */

struct sow_config;
struct sow_sha256;
struct sow_cmac;
struct sow_log;
struct sow_p256_idle;

/* Each as the function sow_NAME; the numbers count from 1. */
struct sow_services {
    uint32_t magic;
    uint16_t version;
    uint16_t count; /* of the functions that follow */

    void (*sha256_init)(struct sow_sha256 *s); /* 1 */
    void (*sha256_update)(struct sow_sha256 *s, const void *data, size_t n);
    void (*sha256_final)(struct sow_sha256 *s, uint8_t digest[32]);
    int (*p256_verify_idle)(const uint8_t pub[64], const uint8_t hash[32], const uint8_t sig[64],
                            const struct sow_p256_idle *watchdog);
    void (*aes128_encrypt)(const uint8_t key[16], const uint8_t in[16], uint8_t out[16]); /* 5 */
    void (*cmac_init)(struct sow_cmac *c, const uint8_t key[16]);
    void (*cmac_update)(struct sow_cmac *c, const void *data, size_t n);
    void (*cmac_final)(struct sow_cmac *c, uint8_t mac[16]);
    int (*flash_read)(const struct sow_config *cfg, uint32_t addr, void *buf, uint32_t len);
    int (*flash_is)(const struct sow_config *cfg, uint32_t addr, const void *want, uint32_t len); /* 10 */
    int (*flash_prog)(const struct sow_config *cfg, uint32_t addr, const void *buf, uint32_t len);
    int (*flash_erase)(const struct sow_config *cfg, uint32_t addr, uint32_t len);
    int (*flash_copy)(const struct sow_config *cfg, uint32_t to, uint32_t from);
    uint32_t (*check)(uint32_t c, const void *data, uint32_t n);
    void (*log_load)(struct sow_log *l, void *record, uint32_t size); /* 15 */
    int (*log_put)(struct sow_log *l, void *record, uint32_t size, const void *blob);
    void (*log_turn)(struct sow_log *l, uint32_t size);
};

/* May the library be called? SOW_OK, always so when it has these functions itself, or -SOW_CAUSE_NO_SERVICES: the stub has
 * no table at that address, one of another version, or one that is too short. sow_open and sow_core_open ask first; an
 * application that calls anything of the library before them asks itself. Upon a refusal reset the device, for nothing of
 * the library runs: an image on trial uses up its boots and is rolled back. */
int sow_services_check(void);

#ifdef __cplusplus
}
#endif
#endif
