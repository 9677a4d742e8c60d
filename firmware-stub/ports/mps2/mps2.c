/* SPDX-License-Identifier: Apache-2.0 */
#include "mps2.h"

#include <string.h>

#define REG(addr) (*(volatile uint32_t *)(addr))

/* CMSDK APB UART 0 (Arm DDI 0479, chapter 4.3) */
#define UART_DATA REG(0x40004000u)
#define UART_STATE REG(0x40004004u)
#define UART_CTRL REG(0x40004008u)
#define UART_INTCLEAR REG(0x4000400cu)
#define UART_BAUDDIV REG(0x40004010u)
#define UART_TX_FULL 1u
#define UART_RX_FULL 2u
#define UART_TX_RX_ENABLE 3u
#define UART_RX_INTERRUPT 8u

/* CMSDK APB watchdog (Arm DDI 0479, chapter 4.5) */
#define WDOG_LOAD REG(0x40008000u)
#define WDOG_CTRL REG(0x40008008u)
#define WDOG_INTCLR REG(0x4000800cu)
#define WDOG_LOCK REG(0x40008c00u)
#define WDOG_UNLOCK 0x1acce551u
#define WDOG_INTERRUPT_RESET 3u

#define NVIC_ISER REG(0xe000e100u)
#define NVIC_ICPR REG(0xe000e280u)
#define SCB_VTOR REG(0xe000ed08u)
#define SCB_AIRCR REG(0xe000ed0cu)
#define AIRCR_SYSRESETREQ 0x05fa0004u

const struct sow_map mps2_map = {
    .slot_a = {MPS2_SLOT_A, MPS2_SLOT_SIZE},
    .slot_b = {MPS2_SLOT_B, MPS2_SLOT_SIZE},
    .download = {MPS2_DOWNLOAD, MPS2_DOWNLOAD_SIZE},
    .journal = {MPS2_JOURNAL, MPS2_JOURNAL_SIZE},
    .boot = {MPS2_BOOT, MPS2_BOOT_SIZE},
    .scratch = {MPS2_SCRATCH, MPS2_SCRATCH_SIZE},
};

void mps2_init(void)
{
    /* Interrupts stay masked: a pending one is enough to end WFI, and no handler is needed. */
    __asm__ volatile("cpsid i");
    UART_BAUDDIV = 16u;
    UART_CTRL = UART_TX_RX_ENABLE | UART_RX_INTERRUPT;
    NVIC_ISER = 1u;
}

void mps2_uart_write(const uint8_t *data, uint32_t n)
{
    for (; n != 0u; n--) {
        while ((UART_STATE & UART_TX_FULL) != 0u) {
        }
        UART_DATA = *data++;
    }
}

uint8_t mps2_uart_read(void)
{
    while ((UART_STATE & UART_RX_FULL) == 0u) {
        __asm__ volatile("wfi");
    }
    uint8_t byte = (uint8_t)UART_DATA;
    UART_INTCLEAR = 2u;
    NVIC_ICPR = 1u;
    return byte;
}

void mps2_watchdog_kick(void)
{
    WDOG_LOCK = WDOG_UNLOCK;
    /* The first time-out raises an interrupt, the second resets: half the budget each. */
    WDOG_LOAD = MPS2_WATCHDOG_TICKS / 2u;
    WDOG_INTCLR = 1u;
    WDOG_CTRL = WDOG_INTERRUPT_RESET;
    WDOG_LOCK = 0u;
}

void mps2_watchdog_stop(void)
{
    WDOG_LOCK = WDOG_UNLOCK;
    WDOG_CTRL = 0u;
    WDOG_INTCLR = 1u;
    WDOG_LOCK = 0u;
}

void mps2_reset(void)
{
    __asm__ volatile("dsb" ::: "memory");
    SCB_AIRCR = AIRCR_SYSRESETREQ;
    for (;;) {
    }
}

void mps2_jump(uint32_t vectors)
{
    uint32_t sp = REG(vectors), pc = REG(vectors + 4u);
    SCB_VTOR = vectors;
    __asm__ volatile("dsb\n isb\n msr msp, %0\n bx %1" ::"r"(sp), "r"(pc) : "memory");
    for (;;) {
    }
}

/* Flash: addresses are memory addresses. */

static int in_flash(uint32_t addr, uint32_t len)
{
    return addr >= MPS2_FLASH && addr - MPS2_FLASH <= MPS2_FLASH_SIZE && len <= MPS2_FLASH_SIZE - (addr - MPS2_FLASH);
}

static void count(enum mps2_account what)
{
    REG(MPS2_ACCOUNT + 4u * (uint32_t)what)++;
}

static int violation(void)
{
    count(MPS2_VIOLATIONS);
    return -1;
}

static int flash_read(void *user, uint32_t addr, void *buf, uint32_t len)
{
    (void)user;
    if (!in_flash(addr, len)) {
        return violation();
    }
    memcpy(buf, (const void *)addr, len);
    return 0;
}

static int flash_prog(void *user, uint32_t addr, const void *buf, uint32_t len)
{
    const uint8_t *src = buf;
    (void)user;
    if (!in_flash(addr, len) || ((addr | len) & (MPS2_GRANULE - 1u)) != 0u) {
        return violation();
    }
    for (; len != 0u; len -= MPS2_GRANULE, addr += MPS2_GRANULE, src += MPS2_GRANULE) {
        volatile uint32_t *granule = (volatile uint32_t *)addr;
        uint32_t word[2];
        if (granule[0] != 0xffffffffu || granule[1] != 0xffffffffu) {
            return violation(); /* a used granule refuses, and its ECC would break if it did not */
        }
        memcpy(word, src, sizeof word);
        granule[0] = word[0];
        granule[1] = word[1];
        count(MPS2_PROGRAMS);
    }
    return 0;
}

static int flash_erase(void *user, uint32_t addr, uint32_t len)
{
    (void)user;
    if (!in_flash(addr, len) || ((addr - MPS2_FLASH) | len) % MPS2_PAGE != 0u) {
        return violation();
    }
    for (; len != 0u; len -= 4u, addr += 4u) {
        REG(addr) = 0xffffffffu;
        if (addr % MPS2_PAGE == 0u) {
            count(MPS2_ERASES);
        }
    }
    return 0;
}

static void idle(void *user)
{
    (void)user;
    mps2_watchdog_kick();
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

int mps2_factory(struct sow_identity *identity, uint32_t *seed)
{
    const uint8_t *page = (const uint8_t *)MPS2_FACTORY;
    if (memcmp(page, "SOWF", 4) != 0) {
        return -1;
    }
    identity->class_id = get32(page + 4);
    identity->hardware_id = (uint16_t)(page[8] | page[9] << 8);
    identity->lorawan_11 = page[10];
    identity->hw_version = get32(page + 12);
    *seed = get32(page + 16);
    memcpy(identity->root_key, page + 20, sizeof identity->root_key);
    for (uint32_t i = 0; i < 2u; i++) {
        const uint8_t *key = page + 36u + 65u * i;
        identity->keys[i].id = key[0];
        memcpy(identity->keys[i].pub, key + 1, sizeof identity->keys[i].pub);
    }
    return 0;
}

void mps2_port(struct sow_port *port)
{
    port->read = flash_read;
    port->prog = flash_prog;
    port->erase = flash_erase;
    port->idle = idle;
    port->granule = MPS2_GRANULE;
    port->page = MPS2_PAGE;
    port->erase_value = 0xffu;
}
