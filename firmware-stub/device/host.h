/* A device inside a host program: library, boot stub and modem shell on an emulated flash.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef HOST_H
#define HOST_H

#include <stdint.h>

#include "sow_flash_emu.h"
#include "sow_modem.h"

struct host {
    struct sow_flash_emu flash;
    struct sow_map map;
    struct sow_port port;
    struct sow_identity identity;
    struct sow_options options;
    struct sow_modem modem;
    void *memory; /* of the flash */
    uint32_t random;
    uint32_t boots;      /* runs of the boot stub */
    uint32_t verdict;    /* of the image in slot A: enum beacon_verdict */
    int running;         /* an application runs; 0: the device is bricked */
    uint8_t *arena;
    uint32_t arena_size;
    uint8_t *out; /* frames said since the last host_take */
    uint32_t out_len, out_cap;
};

/* flash, map, identity, options, random, arena and the geometry in port are filled in by the caller. */
void host_init(struct host *h);

/* Run the boot stub and start the image it chose. */
void host_power_up(struct host *h);

/* Bytes from the MAC; a reset inside is carried out before the call returns. */
void host_input(struct host *h, const uint8_t *bytes, uint32_t n);

#endif
