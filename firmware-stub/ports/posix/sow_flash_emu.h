/* An emulated NOR flash that refuses what real flash refuses and fails on demand, for proofs on a host.
 *
 *     uint8_t *memory = malloc(sow_flash_emu_size(&geometry));
 *     sow_flash_emu_init(&flash, &geometry, memory);
 *     port.user = &flash;
 *     port.read = sow_flash_emu_read;  port.prog = sow_flash_emu_prog;  port.erase = sow_flash_emu_erase;
 *     for (k = 1;; k++) {                                  // lose power at every operation in turn
 *         sow_flash_emu_restore(&flash, snapshot);
 *         sow_flash_emu_cut(&flash, k, SOW_FLASH_EMU_TORN, 0, seed);
 *         run(&port);
 *         if (!sow_flash_emu_is_off(&flash)) break;        // outlived the last operation
 *         sow_flash_emu_power_up(&flash);
 *         resume(&port);
 *     }
 *
 * A granule is programmed once per erase, as in flash with an ECC word per granule (STM32L4 and WL): a second
 * program is refused whatever its bits, and a granule programmed with the erase value counts as programmed.
 * Each granule programmed and each page erased is one operation, in address order.
 *
 * Not modelled: time, wear-out, read disturb, dual banks.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SOW_FLASH_EMU_H
#define SOW_FLASH_EMU_H

#include <stddef.h>
#include <stdint.h>

enum sow_flash_emu_code {
    SOW_FLASH_EMU_OK = 0,
    SOW_FLASH_EMU_E_OFF = -1,        /* power was cut; call sow_flash_emu_power_up */
    SOW_FLASH_EMU_E_RANGE = -2,      /* not inside the flash; a violation */
    SOW_FLASH_EMU_E_ALIGN = -3,      /* not whole granules or pages; a violation */
    SOW_FLASH_EMU_E_PROGRAMMED = -4, /* granule programmed since its erase; a violation */
    SOW_FLASH_EMU_E_REFUSED = -5,    /* granule damaged by a cut or a flip, or page broken; a refusal */
    SOW_FLASH_EMU_E_ECC = -6,        /* read of a granule with an ECC error */
    SOW_FLASH_EMU_E_GEOMETRY = -7,   /* geometry impossible, or memory not aligned to 4 bytes */
    SOW_FLASH_EMU_E_FILE = -8        /* file not usable, or made for another geometry */
};

struct sow_flash_emu_geometry {
    uint32_t base;       /* address of the first byte */
    uint32_t size;       /* bytes, whole pages; base + size at most 2^32 - 1 */
    uint32_t page;       /* bytes, a power of two, 128 to 8192 */
    uint32_t granule;    /* bytes: 1, 2, 4, 8 or 16 */
    uint8_t erase_value; /* 0xff or 0x00 */
};

/* What the operation during which power goes leaves behind. */
enum sow_flash_emu_cut {
    SOW_FLASH_EMU_NOT_STARTED, /* nothing has changed */
    SOW_FLASH_EMU_TORN,        /* some bits have changed, some not; refuses to be programmed */
    SOW_FLASH_EMU_COMPLETE,    /* it was done, only nobody was told */
    SOW_FLASH_EMU_REFUSES      /* reads erased; refuses to be programmed (a page: some of its granules do) */
};

/* Ways in which a page can be broken, to be combined. */
enum sow_flash_emu_fault {
    SOW_FLASH_EMU_FAIL_READ = 1,   /* reads return E_ECC */
    SOW_FLASH_EMU_FAIL_PROG = 2,   /* programs change nothing and return E_REFUSED */
    SOW_FLASH_EMU_FAIL_ERASE = 4,  /* erases change nothing and return E_REFUSED */
    SOW_FLASH_EMU_SILENT_PROG = 8, /* programs change nothing and return OK */
    SOW_FLASH_EMU_SILENT_ERASE = 16
};

/* One flash. Fields up to refusal_addr may be read and the counters reset by the owner. */
struct sow_flash_emu {
    struct sow_flash_emu_geometry geometry;
    uint32_t reads;      /* calls */
    uint64_t read_bytes;
    uint32_t progs;      /* granules programmed, those that a cut hit included */
    uint32_t erases;     /* pages erased, likewise */
    uint32_t violations; /* calls that real flash forbids: a defect of the caller */
    uint32_t refusals;   /* E_REFUSED: damage that the caller has to survive */
    uint32_t ecc_errors; /* E_ECC */
    uint32_t violation_addr, refusal_addr; /* of the last one */

    /* Private. */
    uint32_t ops_left;   /* operations up to and including the one to cut; 0: none */
    uint32_t random;
    uint8_t off, cut, ecc;
    uint8_t *header;     /* the memory: header, erase counters, page faults, granule states, contents */
    uint32_t *wear;      /* per page */
    uint8_t *fault;      /* per page */
    uint8_t *state;      /* per granule */
    uint8_t *data;
    int file;            /* descriptor, -1: the memory is the caller's */
};

/* Bytes of memory, or of file, that a flash of this geometry needs; 0 if the geometry is impossible. */
size_t sow_flash_emu_size(const struct sow_flash_emu_geometry *g);

/* Begin with an erased flash in memory of sow_flash_emu_size bytes, aligned to 4. Returns OK or E_GEOMETRY. */
int sow_flash_emu_init(struct sow_flash_emu *f, const struct sow_flash_emu_geometry *g, void *memory);

/* The same in a file, made if it does not exist. What the flash holds, granule states, faults and wear included,
 * survives the process, killed or not. Returns OK, E_GEOMETRY or E_FILE. */
int sow_flash_emu_open(struct sow_flash_emu *f, const struct sow_flash_emu_geometry *g, const char *path);

/* Unmap a file; nothing to do for a flash in memory. */
void sow_flash_emu_close(struct sow_flash_emu *f);

/* The callbacks of struct sow_port; user is a struct sow_flash_emu. A program or erase that fails stops there:
 * what came before it is done. A read that fails leaves buf alone. */
int sow_flash_emu_read(void *user, uint32_t addr, void *buf, uint32_t n);
int sow_flash_emu_prog(void *user, uint32_t addr, const void *buf, uint32_t n);
int sow_flash_emu_erase(void *user, uint32_t addr, uint32_t n);

/* Cut power at the k-th operation from now; 0: never. ecc: what it leaves also fails to read, of a page at
 * random granules. seed chooses the bits. From the cut on every call returns E_OFF. */
void sow_flash_emu_cut(struct sow_flash_emu *f, uint32_t k, enum sow_flash_emu_cut cut, int ecc, uint32_t seed);
int sow_flash_emu_is_off(const struct sow_flash_emu *f);
void sow_flash_emu_power_up(struct sow_flash_emu *f);

/* The functions below are the hand of the tester: they need no power, count nothing and fail only with E_RANGE. */

/* Flip bit 0..7 of the byte at addr. An erased granule with a flipped bit refuses to be programmed. */
int sow_flash_emu_flip(struct sow_flash_emu *f, uint32_t addr, unsigned bit);

/* Break the page that contains addr: any sum of enum sow_flash_emu_fault, 0 repairs it. */
int sow_flash_emu_break(struct sow_flash_emu *f, uint32_t addr, unsigned faults);

/* Write as a factory does: erases the pages touched, then programs n bytes, the last granule padded with the
 * erase value. */
int sow_flash_emu_load(struct sow_flash_emu *f, uint32_t addr, const void *bytes, uint32_t n);

/* The bytes at addr as they are, up to the end of the flash; NULL out of range. */
const uint8_t *sow_flash_emu_peek(const struct sow_flash_emu *f, uint32_t addr);

/* How often the page that contains addr has been erased; 0 out of range. */
uint32_t sow_flash_emu_wear(const struct sow_flash_emu *f, uint32_t addr);

/* Copy everything but the file, counters and a pending cut included, to or from a buffer of
 * sow_flash_emu_snapshot_size bytes. A snapshot fits only the flash it was taken of. */
size_t sow_flash_emu_snapshot_size(const struct sow_flash_emu *f);
void sow_flash_emu_save(const struct sow_flash_emu *f, void *snapshot);
void sow_flash_emu_restore(struct sow_flash_emu *f, const void *snapshot);

#endif
