/* sower on Zephyr: flash through the flash driver, downlinks and uplinks through the LoRaWAN subsystem.
 *
 * NOT COMPILED and not run by us: that takes a whole Zephyr workspace. Its calls were read against flash.h, flash_map.h
 * and lorawan.h of Zephyr. The LoRaWAN API there has no call for multicast groups, and its downlink callback does not
 * tell the group of a frame: both are found in the LoRaMac-node below it, as in ../loramac/loramac_sower.c, whose
 * mc_group, mc_session and loramac_sower_downlink serve here too. Leave CONFIG_LORAWAN_SERVICES off: its
 * services would answer on the same ports.
 *
 * Partitions named slot0_partition, slot1_partition, sower_download, sower_journal, sower_boot and sower_scratch are
 * expected in the devicetree, on one flash device.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <zephyr/device.h>
#include <zephyr/drivers/flash.h>
#include <zephyr/kernel.h>
#include <zephyr/lorawan/lorawan.h>
#include <zephyr/random/random.h>
#include <zephyr/storage/flash_map.h>
#include <zephyr/sys/reboot.h>

#include "sow.h"

#define FLASH_NODE DT_MTD_FROM_FIXED_PARTITION(DT_NODELABEL(slot0_partition))
#define GRANULE DT_PROP(FLASH_NODE, write_block_size)
#define PAGE DT_PROP(FLASH_NODE, erase_block_size)
#define REGION(name) {FIXED_PARTITION_OFFSET(name), FIXED_PARTITION_SIZE(name)}

static const struct device *const flash = DEVICE_DT_GET(FLASH_NODE);

const struct sow_map zephyr_sower_map = {
    .slot_a = REGION(slot0_partition),
    .slot_b = REGION(slot1_partition),
    .download = REGION(sower_download),
    .journal = REGION(sower_journal),
    .boot = REGION(sower_boot),
    .scratch = REGION(sower_scratch),
};

static int read_flash(void *user, uint32_t addr, void *buf, uint32_t len)
{
    ARG_UNUSED(user);
    return flash_read(flash, (off_t)addr, buf, len) < 0 ? -1 : 0;
}

static int prog_flash(void *user, uint32_t addr, const void *buf, uint32_t len)
{
    const uint8_t *src = buf;

    ARG_UNUSED(user);
    if ((addr | len) % GRANULE != 0) {
        return -1;
    }
    for (; len != 0; len -= GRANULE, addr += GRANULE, src += GRANULE) {
        uint8_t now[GRANULE];

        /* Not every driver refuses a used granule. */
        if (flash_read(flash, (off_t)addr, now, sizeof(now)) < 0) {
            return -1;
        }
        for (uint32_t i = 0; i < GRANULE; i++) {
            if (now[i] != 0xff) {
                return -1;
            }
        }
        if (flash_write(flash, (off_t)addr, src, GRANULE) < 0) {
            return -1;
        }
    }
    return 0;
}

static int erase_flash(void *user, uint32_t addr, uint32_t len)
{
    ARG_UNUSED(user);
    return (addr | len) % PAGE != 0 || flash_erase(flash, (off_t)addr, len) < 0 ? -1 : 0;
}

static uint32_t random_bits(void *user)
{
    ARG_UNUSED(user);
    return sys_rand32_get();
}

static void reboot(void *user)
{
    ARG_UNUSED(user);
    sys_reboot(SYS_REBOOT_COLD);
}

void zephyr_sower_port(struct sow_port *port)
{
    port->read = read_flash;
    port->prog = prog_flash;
    port->erase = erase_flash;
    port->random = random_bits;
    port->reboot = reboot;
    port->granule = GRANULE;
    port->page = PAGE;
    port->erase_value = 0xff;
}

/* From lorawan_downlink_cb (group: SOW_UNICAST); put the bytes into a queue instead if the library runs in another thread. */
void zephyr_sower_downlink(struct sow *s, uint8_t port, uint8_t group, uint8_t len, const uint8_t *data)
{
    sow_downlink(s, (uint32_t)(k_uptime_get() / 1000), port, group, data, len);
}

int zephyr_sower_uplink(struct sow *s)
{
    uint32_t now = (uint32_t)(k_uptime_get() / 1000);
    uint8_t next, most;
    struct sow_uplink up;

    lorawan_get_payload_sizes(&next, &most);
    sow_max_payload(s, next);
    if (sow_uplink(s, now, &up) != SOW_DONE) {
        return 0;
    }
    return lorawan_send(up.port, up.data, up.len, LORAWAN_MSG_UNCONFIRMED) == 0;
}
