/* What passes between stub and application, held to the layout that sow_services.h promises.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SOW_SERVICES_LAYOUT_H
#define SOW_SERVICES_LAYOUT_H

#include <stddef.h>

#include "sow_aes.h"
#include "sow_flash.h"
#include "sow_log.h"
#include "sow_p256.h"
#include "sow_services.h"
#include "sow_sha256.h"

#define SOW_LAYOUT(name, condition) typedef char sow_layout_of_##name[(condition) ? 1 : -1]
#define SOW_AT(type, field, at) (offsetof(struct type, field) == (at))

#define SOW_NUMBER(function, n) SOW_AT(sow_services, function, 4 + 4 * (n)) /* in the table, from 1 */

SOW_LAYOUT(head, sizeof(struct sow_services) == 8 + 4 * SOW_SERVICES_COUNT && SOW_AT(sow_services, magic, 0) &&
           SOW_AT(sow_services, version, 4) && SOW_AT(sow_services, count, 6));
SOW_LAYOUT(crypto, SOW_NUMBER(sha256_init, 1) && SOW_NUMBER(sha256_update, 2) && SOW_NUMBER(sha256_final, 3) &&
           SOW_NUMBER(p256_verify_idle, 4) && SOW_NUMBER(aes128_encrypt, 5) && SOW_NUMBER(cmac_init, 6) &&
           SOW_NUMBER(cmac_update, 7) && SOW_NUMBER(cmac_final, 8));
SOW_LAYOUT(flash, SOW_NUMBER(flash_read, 9) && SOW_NUMBER(flash_is, 10) && SOW_NUMBER(flash_prog, 11) &&
           SOW_NUMBER(flash_erase, 12) && SOW_NUMBER(flash_copy, 13) && SOW_NUMBER(check, 14));
SOW_LAYOUT(logs, SOW_NUMBER(log_load, 15) && SOW_NUMBER(log_put, 16) && SOW_NUMBER(log_turn, 17));
SOW_LAYOUT(sha256, sizeof(struct sow_sha256) == 100 && SOW_AT(sow_sha256, w, 32) && SOW_AT(sow_sha256, count, 96));
SOW_LAYOUT(cmac, sizeof(struct sow_cmac) == 36 && SOW_AT(sow_cmac, x, 16) && SOW_AT(sow_cmac, fill, 32));
SOW_LAYOUT(p256_idle, sizeof(struct sow_p256_idle) == 8 && SOW_AT(sow_p256_idle, user, 4));
SOW_LAYOUT(config, SOW_AT(sow_config, port, 0));
SOW_LAYOUT(region, SOW_AT(sow_region, addr, 0) && SOW_AT(sow_region, size, 4));
SOW_LAYOUT(log, sizeof(struct sow_log) == 12 && SOW_AT(sow_log, region, 4) && SOW_AT(sow_log, at, 8));
SOW_LAYOUT(port, SOW_AT(sow_port, user, 0) && SOW_AT(sow_port, read, 4) && SOW_AT(sow_port, prog, 8) &&
           SOW_AT(sow_port, erase, 12) && SOW_AT(sow_port, idle, 48) && SOW_AT(sow_port, granule, 52) &&
           SOW_AT(sow_port, page, 56) && SOW_AT(sow_port, erase_value, 60));
SOW_LAYOUT(journal, SOW_LOG_BLOB == 160 && SOW_LOG_RECORD == 64);
SOW_LAYOUT(codes, SOW_OK == 0 && SOW_CAUSE_FLASH_IO == 3);

#endif
