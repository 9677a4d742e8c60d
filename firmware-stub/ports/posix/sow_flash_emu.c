/* SPDX-License-Identifier: Apache-2.0 */
#define _POSIX_C_SOURCE 200809L

#include "sow_flash_emu.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* At the head of the memory, so that a file is known again: magic, base, size, page, granule, erase value. */
#define HEADER 24u
#define MAGIC 0x31454653u /* "SFE1" */

/* Granule states. A granule takes a program only in state 0. */
#define PROGRAMMED 1u
#define DAMAGED 2u /* by a cut or a flip: torn, or refuses although it reads erased */
#define ECC_ERROR 4u

/* Keeps the stores before it before those after it, for a process that is killed in between. */
#define IN_ORDER() __asm__ volatile("" ::: "memory")

enum outcome { WHOLE, CUT };

static uint32_t pages(const struct sow_flash_emu_geometry *g)
{
    return g->size / g->page;
}

static uint32_t granules(const struct sow_flash_emu_geometry *g)
{
    return g->size / g->granule;
}

static int is_power_of_two(uint32_t x, uint32_t least, uint32_t most)
{
    return x >= least && x <= most && (x & (x - 1u)) == 0;
}

size_t sow_flash_emu_size(const struct sow_flash_emu_geometry *g)
{
    if (!is_power_of_two(g->page, 128, 8192) || !is_power_of_two(g->granule, 1, 16) || g->size == 0 ||
        g->size % g->page != 0 || g->base % g->page != 0 || g->size > UINT32_MAX - g->base ||
        (g->erase_value != 0x00 && g->erase_value != 0xff)) {
        return 0;
    }
    return (size_t)HEADER + (size_t)pages(g) * 5 + granules(g) + g->size;
}

static void fill_header(const struct sow_flash_emu_geometry *g, uint8_t header[HEADER])
{
    const uint32_t fields[HEADER / 4] = {MAGIC, g->base, g->size, g->page, g->granule, g->erase_value};

    memcpy(header, fields, HEADER);
}

static void attach(struct sow_flash_emu *f, const struct sow_flash_emu_geometry *g, void *memory)
{
    memset(f, 0, sizeof *f);
    f->geometry = *g;
    f->file = -1;
    f->header = memory;
    f->wear = (uint32_t *)(void *)(f->header + HEADER);
    f->fault = f->header + HEADER + (size_t)pages(g) * 4;
    f->state = f->fault + pages(g);
    f->data = f->state + granules(g);
}

static void format(struct sow_flash_emu *f)
{
    memset(f->wear, 0, (size_t)(f->data - (uint8_t *)f->wear));
    memset(f->data, f->geometry.erase_value, f->geometry.size);
    IN_ORDER();
    fill_header(&f->geometry, f->header);
}

int sow_flash_emu_init(struct sow_flash_emu *f, const struct sow_flash_emu_geometry *g, void *memory)
{
    if (sow_flash_emu_size(g) == 0 || (uintptr_t)memory % 4 != 0) {
        return SOW_FLASH_EMU_E_GEOMETRY;
    }
    attach(f, g, memory);
    format(f);
    return SOW_FLASH_EMU_OK;
}

int sow_flash_emu_open(struct sow_flash_emu *f, const struct sow_flash_emu_geometry *g, const char *path)
{
    static const uint8_t blank[HEADER];
    size_t size = sow_flash_emu_size(g);
    uint8_t header[HEADER];
    struct stat st;
    void *memory = MAP_FAILED;

    if (size == 0) {
        return SOW_FLASH_EMU_E_GEOMETRY;
    }
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (file < 0) {
        return SOW_FLASH_EMU_E_FILE;
    }
    if (fstat(file, &st) == 0 &&
        ((st.st_size == 0 && ftruncate(file, (off_t)size) == 0) || st.st_size == (off_t)size)) {
        memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    }
    if (memory == MAP_FAILED) {
        close(file);
        return SOW_FLASH_EMU_E_FILE;
    }
    attach(f, g, memory);
    f->file = file;
    fill_header(g, header);
    if (memcmp(memory, blank, HEADER) == 0) { /* new, or its maker was killed before it was formatted */
        format(f);
    } else if (memcmp(memory, header, HEADER) != 0) {
        sow_flash_emu_close(f);
        return SOW_FLASH_EMU_E_FILE;
    }
    return SOW_FLASH_EMU_OK;
}

void sow_flash_emu_close(struct sow_flash_emu *f)
{
    if (f->file >= 0) {
        munmap(f->header, sow_flash_emu_size(&f->geometry));
        close(f->file);
        f->file = -1;
    }
}

static int in_range(const struct sow_flash_emu *f, uint32_t addr, uint32_t n)
{
    const struct sow_flash_emu_geometry *g = &f->geometry;

    return addr >= g->base && addr - g->base <= g->size && n <= g->size - (addr - g->base);
}

static int violation(struct sow_flash_emu *f, uint32_t addr, int code)
{
    f->violations++;
    f->violation_addr = addr;
    return code;
}

static int refusal(struct sow_flash_emu *f, uint32_t addr)
{
    f->refusals++;
    f->refusal_addr = addr;
    return SOW_FLASH_EMU_E_REFUSED;
}

/* 32 bits of splitmix. */
static uint32_t random_bits(struct sow_flash_emu *f)
{
    uint32_t z = f->random += 0x9e3779b9u;

    z = (z ^ z >> 16) * 0x21f0aaadu;
    z = (z ^ z >> 15) * 0x735a2d97u;
    return z ^ z >> 15;
}

static enum outcome count_operation(struct sow_flash_emu *f)
{
    if (f->ops_left == 0 || --f->ops_left > 0) {
        return WHOLE;
    }
    f->off = 1;
    return CUT;
}

int sow_flash_emu_read(void *user, uint32_t addr, void *buf, uint32_t n)
{
    struct sow_flash_emu *f = user;
    const struct sow_flash_emu_geometry *g = &f->geometry;

    if (f->off) {
        return SOW_FLASH_EMU_E_OFF;
    }
    if (!in_range(f, addr, n)) {
        return violation(f, addr, SOW_FLASH_EMU_E_RANGE);
    }
    f->reads++;
    f->read_bytes += n;
    uint32_t first = addr - g->base;
    for (uint32_t at = first / g->granule * g->granule; at < first + n; at += g->granule) {
        if (f->state[at / g->granule] & ECC_ERROR || f->fault[at / g->page] & SOW_FLASH_EMU_FAIL_READ) {
            f->ecc_errors++;
            return SOW_FLASH_EMU_E_ECC;
        }
    }
    memcpy(buf, f->data + first, n);
    return SOW_FLASH_EMU_OK;
}

static int is_erased(const struct sow_flash_emu *f, uint32_t at)
{
    for (uint32_t i = 0; i < f->geometry.granule; i++) {
        if (f->data[at + i] != f->geometry.erase_value) {
            return 0;
        }
    }
    return 1;
}

/* at: offset in the flash of one granule that is known to be erased. The state goes first: a process killed in
 * between leaves a granule that refuses, never one that could be programmed twice. */
static int prog_granule(struct sow_flash_emu *f, uint32_t at, const uint8_t *bytes)
{
    const struct sow_flash_emu_geometry *g = &f->geometry;
    uint8_t *state = &f->state[at / g->granule];
    enum outcome outcome = count_operation(f);

    f->progs++;
    if (outcome == WHOLE || f->cut == SOW_FLASH_EMU_COMPLETE) {
        *state = PROGRAMMED;
        IN_ORDER();
        memcpy(f->data + at, bytes, g->granule);
    } else if (f->cut == SOW_FLASH_EMU_TORN) {
        *state = DAMAGED;
        IN_ORDER();
        for (uint32_t i = 0; i < g->granule; i++) {
            f->data[at + i] ^= (uint8_t)((f->data[at + i] ^ bytes[i]) & random_bits(f));
        }
    } else if (f->cut == SOW_FLASH_EMU_REFUSES) {
        *state = DAMAGED;
    }
    if (outcome == CUT && f->ecc) {
        *state |= ECC_ERROR;
    }
    if (outcome == CUT && *state == PROGRAMMED && is_erased(f, at)) {
        *state |= DAMAGED; /* nobody can know that it was programmed: trying again is no violation */
    }
    return outcome == CUT ? SOW_FLASH_EMU_E_OFF : SOW_FLASH_EMU_OK;
}

int sow_flash_emu_prog(void *user, uint32_t addr, const void *buf, uint32_t n)
{
    struct sow_flash_emu *f = user;
    const struct sow_flash_emu_geometry *g = &f->geometry;
    const uint8_t *bytes = buf;

    if (f->off) {
        return SOW_FLASH_EMU_E_OFF;
    }
    if (!in_range(f, addr, n)) {
        return violation(f, addr, SOW_FLASH_EMU_E_RANGE);
    }
    if (addr % g->granule != 0 || n % g->granule != 0) {
        return violation(f, addr, SOW_FLASH_EMU_E_ALIGN);
    }
    for (uint32_t i = 0; i < n; i += g->granule) {
        uint32_t at = addr - g->base + i;
        uint8_t state = f->state[at / g->granule], fault = f->fault[at / g->page];

        if (state == PROGRAMMED) {
            return violation(f, addr + i, SOW_FLASH_EMU_E_PROGRAMMED);
        }
        if (state != 0 || fault & SOW_FLASH_EMU_FAIL_PROG) {
            return refusal(f, addr + i);
        }
        if (fault & SOW_FLASH_EMU_SILENT_PROG) {
            continue;
        }
        int err = prog_granule(f, at, bytes + i);
        if (err) {
            return err;
        }
    }
    return SOW_FLASH_EMU_OK;
}

/* at: offset of a page. The states go last, for the reason given at prog_granule. */
static int erase_page(struct sow_flash_emu *f, uint32_t at)
{
    const struct sow_flash_emu_geometry *g = &f->geometry;
    uint8_t *state = &f->state[at / g->granule], *data = f->data + at;
    uint32_t count = g->page / g->granule;
    enum outcome outcome = count_operation(f);

    f->erases++;
    f->wear[at / g->page]++;
    if (outcome == CUT && f->cut == SOW_FLASH_EMU_TORN) {
        for (uint32_t i = 0; i < g->page; i++) {
            data[i] ^= (uint8_t)((data[i] ^ g->erase_value) & random_bits(f));
        }
        memset(state, DAMAGED, count);
    } else if (outcome == WHOLE || f->cut != SOW_FLASH_EMU_NOT_STARTED) {
        memset(data, g->erase_value, g->page);
        IN_ORDER();
        memset(state, 0, count);
        for (uint32_t i = 0; i < count && outcome == CUT && f->cut == SOW_FLASH_EMU_REFUSES; i++) {
            state[i] = random_bits(f) & 1 ? DAMAGED : 0;
        }
    }
    for (uint32_t i = 0; i < count && outcome == CUT && f->ecc; i++) {
        state[i] |= random_bits(f) & 1 ? ECC_ERROR : 0;
    }
    return outcome == CUT ? SOW_FLASH_EMU_E_OFF : SOW_FLASH_EMU_OK;
}

int sow_flash_emu_erase(void *user, uint32_t addr, uint32_t n)
{
    struct sow_flash_emu *f = user;
    const struct sow_flash_emu_geometry *g = &f->geometry;

    if (f->off) {
        return SOW_FLASH_EMU_E_OFF;
    }
    if (!in_range(f, addr, n)) {
        return violation(f, addr, SOW_FLASH_EMU_E_RANGE);
    }
    if (addr % g->page != 0 || n % g->page != 0) {
        return violation(f, addr, SOW_FLASH_EMU_E_ALIGN);
    }
    for (uint32_t i = 0; i < n; i += g->page) {
        uint32_t at = addr - g->base + i;

        if (f->fault[at / g->page] & SOW_FLASH_EMU_FAIL_ERASE) {
            return refusal(f, addr + i);
        }
        if (f->fault[at / g->page] & SOW_FLASH_EMU_SILENT_ERASE) {
            continue;
        }
        int err = erase_page(f, at);
        if (err) {
            return err;
        }
    }
    return SOW_FLASH_EMU_OK;
}

void sow_flash_emu_cut(struct sow_flash_emu *f, uint32_t k, enum sow_flash_emu_cut cut, int ecc, uint32_t seed)
{
    f->ops_left = k;
    f->cut = (uint8_t)cut;
    f->ecc = ecc != 0;
    f->random = seed;
}

int sow_flash_emu_is_off(const struct sow_flash_emu *f)
{
    return f->off;
}

void sow_flash_emu_power_up(struct sow_flash_emu *f)
{
    f->off = 0;
}

int sow_flash_emu_flip(struct sow_flash_emu *f, uint32_t addr, unsigned bit)
{
    if (!in_range(f, addr, 1) || bit > 7) {
        return SOW_FLASH_EMU_E_RANGE;
    }
    uint32_t at = addr - f->geometry.base;
    f->data[at] ^= (uint8_t)(1u << bit);
    if (f->state[at / f->geometry.granule] == 0) {
        f->state[at / f->geometry.granule] = DAMAGED;
    }
    return SOW_FLASH_EMU_OK;
}

int sow_flash_emu_break(struct sow_flash_emu *f, uint32_t addr, unsigned faults)
{
    if (!in_range(f, addr, 1)) {
        return SOW_FLASH_EMU_E_RANGE;
    }
    f->fault[(addr - f->geometry.base) / f->geometry.page] = (uint8_t)faults;
    return SOW_FLASH_EMU_OK;
}

int sow_flash_emu_load(struct sow_flash_emu *f, uint32_t addr, const void *bytes, uint32_t n)
{
    const struct sow_flash_emu_geometry *g = &f->geometry;

    if (!in_range(f, addr, n) || addr % g->granule != 0) {
        return SOW_FLASH_EMU_E_RANGE;
    }
    uint32_t first = addr - g->base, end = first + n;
    for (uint32_t at = first / g->page * g->page; at < end; at += g->page) {
        memset(f->data + at, g->erase_value, g->page);
        memset(f->state + at / g->granule, 0, g->page / g->granule);
    }
    for (uint32_t at = first; at < end; at += g->granule) {
        f->state[at / g->granule] = PROGRAMMED;
    }
    memcpy(f->data + first, bytes, n);
    return SOW_FLASH_EMU_OK;
}

const uint8_t *sow_flash_emu_peek(const struct sow_flash_emu *f, uint32_t addr)
{
    return in_range(f, addr, 1) ? f->data + (addr - f->geometry.base) : NULL;
}

uint32_t sow_flash_emu_wear(const struct sow_flash_emu *f, uint32_t addr)
{
    return in_range(f, addr, 1) ? f->wear[(addr - f->geometry.base) / f->geometry.page] : 0;
}

size_t sow_flash_emu_snapshot_size(const struct sow_flash_emu *f)
{
    return sizeof *f + sow_flash_emu_size(&f->geometry);
}

void sow_flash_emu_save(const struct sow_flash_emu *f, void *snapshot)
{
    memcpy(snapshot, f, sizeof *f);
    memcpy((uint8_t *)snapshot + sizeof *f, f->header, sow_flash_emu_size(&f->geometry));
}

void sow_flash_emu_restore(struct sow_flash_emu *f, const void *snapshot)
{
    memcpy(f, snapshot, sizeof *f);
    memcpy(f->header, (const uint8_t *)snapshot + sizeof *f, sow_flash_emu_size(&f->geometry));
}
