/* Board support for the Arm MPS2 FPGA image AN385 (Cortex-M3), as emulated by `qemu-system-arm -M mps2-an385`.
 *
 * PSRAM at 0x21000000 plays the internal flash: the emulator maps it to a file, so that its content survives
 * a kill, and the driver here applies the rules of a NOR flash with 8-byte ECC granules (STM32L4 class):
 * a granule is programmed once per erase, pages are erased whole. The boot stub runs at address 0.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MPS2_H
#define MPS2_H

#include <stdint.h>

#include "sow_port.h"

#define MPS2_FLASH 0x21000000u
#define MPS2_PAGE 2048u
#define MPS2_GRANULE 8u

/* The flash map of the example device: 212 KiB of a 256 KiB part. Also in app.ld and firmware-stub/device. */
#define MPS2_SLOT_SIZE 0x10000u
#define MPS2_SLOT_A (MPS2_FLASH + 0x00000u)
#define MPS2_SLOT_B (MPS2_FLASH + 0x10000u)
#define MPS2_DOWNLOAD (MPS2_FLASH + 0x20000u)
#define MPS2_DOWNLOAD_SIZE 0xc000u
#define MPS2_JOURNAL (MPS2_FLASH + 0x2c000u)
#define MPS2_JOURNAL_SIZE 0x2000u
#define MPS2_BOOT (MPS2_FLASH + 0x2e000u)
#define MPS2_BOOT_SIZE 0x2000u
#define MPS2_SCRATCH (MPS2_FLASH + 0x30000u)
#define MPS2_SCRATCH_SIZE 0x4000u
#define MPS2_FLASH_SIZE 0x34000u

/* One more page is written in the factory and never by the device (little endian):
 *   0 magic "SOWF" | 4 class id u32 | 8 hardware id u16 | 10 LoRaWAN 1.1 u8 | 11 zero u8 | 12 hw version u32 |
 *   16 seed u32 | 20 root key 16 | 36 key id u8, public key 64 | 101 key id u8, public key 64 */
#define MPS2_FACTORY (MPS2_FLASH + MPS2_FLASH_SIZE)

/* The page behind that is no part of the flash but its account, kept for the harness over resets and kills. A
 * violation is a granule programmed twice, or an address or length that no real flash would take. */
#define MPS2_ACCOUNT (MPS2_FACTORY + MPS2_PAGE)
enum mps2_account { MPS2_VIOLATIONS, MPS2_PROGRAMS, MPS2_ERASES }; /* words; granules programmed, pages erased */

extern const struct sow_map mps2_map;

/* Read the factory page. seed differs from device to device. Returns 0, or -1 when the page is not written. */
int mps2_factory(struct sow_identity *identity, uint32_t *seed);

/* Fill in flash callbacks, geometry and watchdog; the radio callbacks are left alone. */
void mps2_port(struct sow_port *port);

void mps2_init(void);                                  /* UART and interrupt setup */
void mps2_uart_write(const uint8_t *data, uint32_t n); /* blocks until sent */
uint8_t mps2_uart_read(void);                          /* sleeps until a byte arrives */

/* The watchdog resets the device after MPS2_WATCHDOG_TICKS of 25 MHz without a kick: 8 s, which the emulator
 * counts in instructions (-icount), so that a hang is found at the same instruction in every run. It is stopped
 * while the CPU waits for the UART, as a watchdog that freezes in stop mode is. */
#define MPS2_WATCHDOG_TICKS 200000000u
void mps2_watchdog_kick(void);
void mps2_watchdog_stop(void);

/* The most stack used since the reset, and what there is; bytes. */
uint32_t mps2_stack_used(void);
uint32_t mps2_stack_size(void);

void mps2_reset(void) __attribute__((noreturn));
void mps2_jump(uint32_t vectors) __attribute__((noreturn)); /* run the image whose vector table is there */

#endif
