/* Boot stub: swap slot A and slot B at a fixed execution address, test, confirm or roll back.
 *
 * The application requests a swap with sow_boot_request; the stub calls sow_boot at every reset, before
 * anything else. All progress is journalled in map->boot with write-once records, so that a power cut at any
 * instant leaves a device that boots one complete, verified image.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SOW_BOOT_H
#define SOW_BOOT_H

#include <stdint.h>

#include "sow_manifest.h"

#ifdef __cplusplus
extern "C" {
#endif

enum sow_boot_state {
    SOW_BOOT_NONE = 0,      /* never updated by this stub */
    SOW_BOOT_PENDING = 1,   /* requested, not yet swapped */
    SOW_BOOT_TRIAL = 2,     /* slot A runs the new image, unconfirmed; slot B holds the old one */
    SOW_BOOT_CONFIRMED = 3, /* slot A runs the new image */
    SOW_BOOT_REVERTED = 4,  /* the new image was tried and rolled back; see cause */
    SOW_BOOT_REFUSED = 5    /* slot B did not verify and was never booted; see cause */
};

struct sow_boot_status {
    uint8_t state;      /* enum sow_boot_state */
    uint8_t cause;      /* of REVERTED and REFUSED */
    uint8_t attempts;   /* trial boots so far */
    uint8_t requests;   /* made so far, modulo 256 */
    uint32_t sequence;  /* anti-rollback floor: sequence of the last confirmed image */
    uint32_t version;   /* version the request was for; 0 without one */
};

#define SOW_BOOT_ATTEMPTS 3u /* trial boots before an unconfirmed image is rolled back */

/* Ask for slot B to be tested at the next boot. raw is the verified manifest of the image in slot B; it is
 * kept in the journal because with this stub it is the image's one signature.
 * Returns SOW_OK or -SOW_CAUSE_FLASH_IO. Idempotent. */
int sow_boot_request(const struct sow_config *cfg, const uint8_t raw[SOW_MANIFEST_SIZE]);

/* Run by the stub at every reset: finish an interrupted swap, start a requested one, roll back an image
 * that used up its attempts or rejected itself. Verifies manifest signature and SHA-256 of slot B before the
 * first byte of slot A changes, and the MCUboot hash of slot A before it returns.
 * Returns SOW_OK when slot A holds a valid image (*entry: address of its vector table), or a negated cause. */
int sow_boot(const struct sow_config *cfg, uint32_t *entry);

/* What the stub did last, for the application to report. */
int sow_boot_read(const struct sow_config *cfg, struct sow_boot_status *out);

/* Called by the application in slot A: keep this image / roll it back at the next reset, for that cause. */
int sow_boot_confirm(const struct sow_config *cfg);
int sow_boot_reject(const struct sow_config *cfg, uint8_t cause);

/* A valid MCUboot image (magic, sizes inside the slot, SHA-256 TLV matches) at region?
 * version is ih_ver as TS006 FWversion, size is header + body + TLVs. Any output may be NULL. */
int sow_image_check(const struct sow_config *cfg, const struct sow_region *slot, uint32_t *version, uint32_t *size,
                    uint32_t *entry);

/* The same without hashing: reads the header and TLV info only. */
int sow_image_header(const struct sow_config *cfg, const struct sow_region *slot, uint32_t *version, uint32_t *size,
                     uint32_t *entry);

#ifdef __cplusplus
}
#endif
#endif
