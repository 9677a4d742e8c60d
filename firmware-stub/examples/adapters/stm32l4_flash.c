/* Flash of STM32L4 and STM32WL: pages of 2 KiB, granules of 8 bytes with ECC.
 *
 * Compiled for STM32L476 against cmsis_device_l4 v1.7.4 and for STM32WL55 (its Cortex-M4; define STM32WLxx) against
 * cmsis-device-wl v1.3.0, both with CMSIS 5; not run on a chip by us. After RM0351 (STM32L4) and RM0453 (STM32WL). In a
 * part with two banks the second is taken to begin at page 256, as in those of 1 MiB.
 *
 * Three traps of these parts: a granule that was torn by a power cut may read 0xff and still refuse a program (PROGERR);
 * a double ECC error on reading one raises an NMI; and a program whose interrupt handler runs from the same bank stalls.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "sow_port.h"
#ifdef STM32WLxx
#include "stm32wlxx.h"
#else
#include "stm32l4xx.h"
#endif

#define PAGE 2048u
#define GRANULE 8u
#define ERRORS (FLASH_SR_PROGERR | FLASH_SR_WRPERR | FLASH_SR_PGAERR | FLASH_SR_SIZERR | FLASH_SR_PGSERR)

#ifdef FLASH_CR_BKER
#define PAGE_NUMBER (FLASH_CR_PNB | FLASH_CR_BKER)
#else
#define PAGE_NUMBER FLASH_CR_PNB
#endif

#ifdef FLASH_SR_CFGBSY
#define BUSY (FLASH_SR_BSY | FLASH_SR_CFGBSY)
#else
#define BUSY FLASH_SR_BSY
#endif

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
    while (FLASH->SR & BUSY) {
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
    while (FLASH->SR & BUSY) {
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
        uint32_t number = (addr - FLASH_BASE) / PAGE << FLASH_CR_PNB_Pos;

        if ((number & ~PAGE_NUMBER) != 0 || begin() < 0)
            return -1;
        FLASH->CR = (FLASH->CR & ~PAGE_NUMBER) | FLASH_CR_PER | number;
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
