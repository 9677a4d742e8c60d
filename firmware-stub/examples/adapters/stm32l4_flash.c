/* Flash of STM32L4 and STM32WL: pages of 2 KiB, granules of 8 bytes with ECC.
 *
 * NOT COMPILED against ST's headers and not run on a chip by us. After RM0351 (STM32L4) and RM0453 (STM32WL); register
 * names as in the CMSIS device header. A part with two banks needs FLASH_CR_BKER in erase as well.
 *
 * Three traps of these parts: a granule that was torn by a power cut may read 0xff and still refuse a program (PROGERR);
 * a double ECC error on reading one raises an NMI; and a program whose interrupt handler runs from the same bank stalls.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "sow_port.h"
#include "stm32l4xx.h"

#define PAGE 2048u
#define GRANULE 8u
#define ERRORS (FLASH_SR_PROGERR | FLASH_SR_WRPERR | FLASH_SR_PGAERR | FLASH_SR_SIZERR | FLASH_SR_PGSERR)

static volatile uint32_t ecc_error;

void NMI_Handler(void)
{
    if (FLASH->ECCR & FLASH_ECCR_ECCD) {
        FLASH->ECCR |= FLASH_ECCR_ECCD; /* write one to clear */
        ecc_error = 1;
        return;
    }
    NVIC_SystemReset();
}

static int begin(void)
{
    while (FLASH->SR & FLASH_SR_BSY) {
    }
    FLASH->SR = ERRORS | FLASH_SR_EOP;
    if (FLASH->CR & FLASH_CR_LOCK) {
        FLASH->KEYR = 0x45670123u;
        FLASH->KEYR = 0xcdef89abu;
    }
    return FLASH->CR & FLASH_CR_LOCK ? -1 : 0;
}

static int end(uint32_t operation)
{
    while (FLASH->SR & FLASH_SR_BSY) {
    }
    uint32_t errors = FLASH->SR & ERRORS;
    FLASH->CR &= ~operation;
    FLASH->CR |= FLASH_CR_LOCK;
    return errors ? -1 : 0;
}

static int flash_read(void *user, uint32_t addr, void *buf, uint32_t len)
{
    (void)user;
    ecc_error = 0;
    memcpy(buf, (const void *)addr, len);
    __DSB(); /* the NMI has been taken */
    return ecc_error ? -1 : 0;
}

static int flash_prog(void *user, uint32_t addr, const void *buf, uint32_t len)
{
    const uint8_t *src = buf;

    (void)user;
    if ((addr | len) % GRANULE)
        return -1;
    for (; len; len -= GRANULE, addr += GRANULE, src += GRANULE) {
        uint32_t word[2], now[2];

        memcpy(word, src, sizeof word);
        if (flash_read(user, addr, now, sizeof now) < 0 || (now[0] & now[1]) != 0xffffffffu || begin() < 0)
            return -1;
        FLASH->CR |= FLASH_CR_PG;
        *(volatile uint32_t *)addr = word[0];
        __ISB();
        *(volatile uint32_t *)(addr + 4u) = word[1];
        if (end(FLASH_CR_PG) < 0)
            return -1;
    }
    return 0;
}

static int flash_erase(void *user, uint32_t addr, uint32_t len)
{
    (void)user;
    if ((addr | len) % PAGE)
        return -1;
    for (; len; len -= PAGE, addr += PAGE) {
        if (begin() < 0)
            return -1;
        FLASH->CR = (FLASH->CR & ~FLASH_CR_PNB) | FLASH_CR_PER | ((addr - FLASH_BASE) / PAGE) << FLASH_CR_PNB_Pos;
        FLASH->CR |= FLASH_CR_STRT;
        if (end(FLASH_CR_PER) < 0)
            return -1;
    }
    /* The caches may still hold the old page. */
    FLASH->ACR &= ~FLASH_ACR_DCEN;
    FLASH->ACR |= FLASH_ACR_DCRST;
    FLASH->ACR &= ~FLASH_ACR_DCRST;
    FLASH->ACR |= FLASH_ACR_DCEN;
    return 0;
}

void stm32l4_port(struct sow_port *port)
{
    port->read = flash_read;
    port->prog = flash_prog;
    port->erase = flash_erase;
    port->granule = GRANULE;
    port->page = PAGE;
    port->erase_value = 0xff;
}
