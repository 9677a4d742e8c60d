/* Flash of STM32L0: pages of 128 bytes, granules of 4 bytes, erased bytes read 0x00.
 *
 * Compiled for STM32L073 against cmsis-device-l0 v1.9.4 and CMSIS 5, not run on a chip by us. After RM0367, chapter 3.
 * Sources disagree on whether these parts have ECC; this driver takes no chances and programs a word once. Half-page
 * programming is faster and must run from RAM; it is not used here.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "sow_port.h"
#include "stm32l0xx.h"

#define PAGE 128u
#define GRANULE 4u
#define ERRORS (FLASH_SR_WRPERR | FLASH_SR_PGAERR | FLASH_SR_SIZERR | FLASH_SR_NOTZEROERR | FLASH_SR_FWWERR)

static void unlock(void)
{
    while (FLASH->SR & FLASH_SR_BSY) {
    }
    FLASH->SR = ERRORS | FLASH_SR_EOP;
    if (FLASH->PECR & FLASH_PECR_PELOCK) {
        FLASH->PEKEYR = 0x89abcdefu;
        FLASH->PEKEYR = 0x02030405u;
    }
    if (FLASH->PECR & FLASH_PECR_PRGLOCK) {
        FLASH->PRGKEYR = 0x8c9daebfu;
        FLASH->PRGKEYR = 0x13141516u;
    }
}

static int finish(void)
{
    while (FLASH->SR & FLASH_SR_BSY) {
    }
    return FLASH->SR & ERRORS ? -1 : 0;
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
    unlock();
    for (; len && err == 0; len -= GRANULE, addr += GRANULE, src += GRANULE) {
        uint32_t word;

        memcpy(&word, src, sizeof word);
        if (*(volatile uint32_t *)addr != 0)
            err = -1; /* the part would OR the bits, or set NOTZEROERR */
        else
            *(volatile uint32_t *)addr = word;
        if (err == 0)
            err = finish();
    }
    FLASH->PECR |= FLASH_PECR_PELOCK;
    return err;
}

static int flash_erase(void *user, uint32_t addr, uint32_t len)
{
    int err = 0;

    (void)user;
    if ((addr | len) % PAGE)
        return -1;
    unlock();
    FLASH->PECR |= FLASH_PECR_ERASE | FLASH_PECR_PROG;
    for (; len && err == 0; len -= PAGE, addr += PAGE) {
        *(volatile uint32_t *)addr = 0; /* any word of the page */
        err = finish();
    }
    FLASH->PECR &= ~(FLASH_PECR_ERASE | FLASH_PECR_PROG);
    FLASH->PECR |= FLASH_PECR_PELOCK;
    return err;
}

void stm32l0_port(struct sow_port *port)
{
    port->read = flash_read;
    port->prog = flash_prog;
    port->erase = flash_erase;
    port->granule = GRANULE;
    port->page = PAGE;
    port->erase_value = 0x00;
}
