/* sower on Zephyr: the port, over the flash driver of the part.
 *
 * Compiled with Zephyr 3.5.0 and arm-none-eabi-gcc 12.2 for nucleo_wl55jc and qemu_cortex_m0; on the latter, an emulated
 * nRF51 with Zephyr's own flash driver, the porting checklist in checklist/ holds. Not run on a chip by us.
 *
 * On STM32L4, G4 and WL a double ECC error on reading raises an NMI, which Zephyr takes for fatal: with CONFIG_RUNTIME_NMI
 * it becomes an error of the read that met it.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include <soc.h>
#include <zephyr/device.h>
#include <zephyr/drivers/flash.h>
#include <zephyr/kernel.h>
#include <zephyr/random/random.h>
#include <zephyr/storage/flash_map.h>
#include <zephyr/sys/barrier.h>
#include <zephyr/sys/reboot.h>

#include "zephyr_sower.h"

#define FLASH_NODE DT_GPARENT(DT_NODELABEL(slot0_partition))
#define GRANULE DT_PROP(FLASH_NODE, write_block_size)
#define PAGE DT_PROP(FLASH_NODE, erase_block_size)
#define REGION(name) {FIXED_PARTITION_OFFSET(name), FIXED_PARTITION_SIZE(name)}

static const struct device *const flash = FIXED_PARTITION_DEVICE(slot0_partition);

const struct sow_map zephyr_sower_map = {
    .slot_a = REGION(slot0_partition),
    .slot_b = REGION(slot1_partition),
    .download = REGION(sower_download),
    .journal = REGION(sower_journal),
    .boot = REGION(sower_boot),
    .scratch = REGION(sower_scratch),
};

#if defined(CONFIG_RUNTIME_NMI) && defined(FLASH_ECCR_ECCD)
static volatile bool ecc_error;

static void nmi(void)
{
    if ((FLASH->ECCR & FLASH_ECCR_ECCD) == 0u) {
        sys_reboot(SYS_REBOOT_COLD);
    }
    FLASH->ECCR |= FLASH_ECCR_ECCD; /* write one to clear */
    ecc_error = true;
}

static void watch_ecc(void)
{
    z_arm_nmi_set_handler(nmi);
}

static void forget_ecc(void)
{
    ecc_error = false;
}

static bool saw_ecc(void)
{
    barrier_dsync_fence_full(); /* the NMI has been taken */
    return ecc_error;
}
#else
static void watch_ecc(void)
{
}

static void forget_ecc(void)
{
}

static bool saw_ecc(void)
{
    return false;
}
#endif

static int read_flash(void *user, uint32_t addr, void *buf, uint32_t len)
{
    ARG_UNUSED(user);
    forget_ecc();
    return flash_read(flash, (off_t)addr, buf, len) < 0 || saw_ecc() ? -1 : 0;
}

/* Not every driver refuses a used granule. */
static bool is_blank(uint32_t addr)
{
    const uint8_t erased = flash_get_parameters(flash)->erase_value;
    uint8_t now[GRANULE];

    if (read_flash(NULL, addr, now, sizeof(now)) < 0) {
        return false;
    }
    for (uint32_t i = 0; i < GRANULE; i++) {
        if (now[i] != erased) {
            return false;
        }
    }
    return true;
}

static int prog_flash(void *user, uint32_t addr, const void *buf, uint32_t len)
{
    const uint8_t *src = buf;

    ARG_UNUSED(user);
    if ((addr | len) % GRANULE != 0) {
        return -1;
    }
    for (; len != 0; len -= GRANULE, addr += GRANULE, src += GRANULE) {
        uint8_t granule[GRANULE] __aligned(8); /* some drivers take whole words from where they are */

        memcpy(granule, src, GRANULE);
        if (!is_blank(addr) || flash_write(flash, (off_t)addr, granule, GRANULE) < 0) {
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

uint32_t zephyr_sower_now(void)
{
    return (uint32_t)(k_uptime_get() / MSEC_PER_SEC);
}

void zephyr_sower_port(struct sow_port *port)
{
    watch_ecc();
    port->read = read_flash;
    port->prog = prog_flash;
    port->erase = erase_flash;
    port->random = random_bits;
    port->reboot = reboot;
    port->granule = GRANULE;
    port->page = PAGE;
    port->erase_value = flash_get_parameters(flash)->erase_value;
}
