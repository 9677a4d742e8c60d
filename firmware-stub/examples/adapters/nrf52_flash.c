/* Flash of nRF52: pages of 4 KiB, granules of 4 bytes.
 *
 * Compiled for nRF52840 against the MDK of nrfx v4.2.1 and CMSIS 5, not run on a chip by us. After the product
 * specification, NVMC. A word may be written twice between erases on these parts; the port refuses the second time like
 * any other. With a SoftDevice the NVMC belongs to it: use sd_flash_write and sd_flash_page_erase and wait for their
 * event instead. An erase takes 85 ms, in which the CPU stands still: give the watchdog more than that.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "nrf.h"
#include "sow_port.h"

#define PAGE 4096u
#define GRANULE 4u

static void mode(uint32_t config)
{
    NRF_NVMC->CONFIG = config;
    while (NRF_NVMC->READY == NVMC_READY_READY_Busy) {
    }
}

static int flash_read(void *user, uint32_t addr, void *buf, uint32_t len)
{
    (void)user;
    memcpy(buf, (const void *)addr, len);
    return 0;
}

static int flash_prog(void *user, uint32_t addr, const void *buf, uint32_t len)
{
    const uint8_t *src = buf;
    int err = 0;

    (void)user;
    if ((addr | len) % GRANULE)
        return -1;
    mode(NVMC_CONFIG_WEN_Wen << NVMC_CONFIG_WEN_Pos);
    for (; len && err == 0; len -= GRANULE, addr += GRANULE, src += GRANULE) {
        uint32_t word;

        memcpy(&word, src, sizeof word);
        if (*(volatile uint32_t *)addr != 0xffffffffu) {
            err = -1;
        } else {
            *(volatile uint32_t *)addr = word;
            while (NRF_NVMC->READY == NVMC_READY_READY_Busy) {
            }
        }
    }
    mode(NVMC_CONFIG_WEN_Ren << NVMC_CONFIG_WEN_Pos);
    return err;
}

static int flash_erase(void *user, uint32_t addr, uint32_t len)
{
    (void)user;
    if ((addr | len) % PAGE)
        return -1;
    mode(NVMC_CONFIG_WEN_Een << NVMC_CONFIG_WEN_Pos);
    for (; len; len -= PAGE, addr += PAGE) {
        NRF_NVMC->ERASEPAGE = addr;
        while (NRF_NVMC->READY == NVMC_READY_READY_Busy) {
        }
    }
    mode(NVMC_CONFIG_WEN_Ren << NVMC_CONFIG_WEN_Pos);
    return 0;
}

void nrf52_port(struct sow_port *port)
{
    port->read = flash_read;
    port->prog = flash_prog;
    port->erase = flash_erase;
    port->granule = GRANULE;
    port->page = PAGE;
    port->erase_value = 0xff;
}
