/* The stub's side of sow_services.h: the table, in a section that the stub's linker script puts in its place and keeps.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "sow_services_layout.h"

extern const struct sow_services sow_services_table;

__attribute__((section(".services"), used)) const struct sow_services sow_services_table = {
    .magic = SOW_SERVICES_MAGIC,
    .version = SOW_SERVICES_VERSION,
    .count = SOW_SERVICES_COUNT,
    .sha256_init = sow_sha256_init,
    .sha256_update = sow_sha256_update,
    .sha256_final = sow_sha256_final,
    .p256_verify_idle = sow_p256_verify_idle,
    .aes128_encrypt = sow_aes128_encrypt,
    .cmac_init = sow_cmac_init,
    .cmac_update = sow_cmac_update,
    .cmac_final = sow_cmac_final,
    .flash_read = sow_flash_read,
    .flash_is = sow_flash_is,
    .flash_prog = sow_flash_prog,
    .flash_erase = sow_flash_erase,
    .flash_copy = sow_flash_copy,
    .check = sow_check,
    .log_load = sow_log_load,
    .log_put = sow_log_put,
    .log_turn = sow_log_turn,
};
