/* sower on Zephyr: what zephyr_port.c and zephyr_lorawan.c offer to an application.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ZEPHYR_SOWER_H
#define ZEPHYR_SOWER_H

#include "sow.h"

/* Partitions of the devicetree with the node labels slot0_partition, slot1_partition, sower_download, sower_journal,
 * sower_boot and sower_scratch, all on one flash. Addresses count from where that flash begins. */
extern const struct sow_map zephyr_sower_map;

/* Fill in flash, random numbers and reset. */
void zephyr_sower_port(struct sow_port *port);

/* Fill in mc_group and mc_session. */
void zephyr_sower_lorawan(struct sow_port *port);

/* Seconds since the reset; the `now` of every call of the library. */
uint32_t zephyr_sower_now(void);

/* One turn of the thread that owns the library: windows, work, an uplink that is due; then it waits for a downlink,
 * `most` seconds at most, so that the caller can feed its watchdog. */
void zephyr_sower_turn(struct sow *s, uint32_t most);

#endif
