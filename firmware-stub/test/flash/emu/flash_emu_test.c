/* The emulated flash refuses what real flash refuses, and breaks the way it is told to.
 *
 *     flash_emu_test FILE     FILE: a path for the tests of the flash in a file; removed first
 *
 * SPDX-License-Identifier: Apache-2.0 */
#define _POSIX_C_SOURCE 200809L

#include "sow_flash_emu.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define BASE 0x08000000u
#define PAGES 4u

static const char *scenario;
static unsigned checks, failures;

#define CHECK(cond) check((cond) ? 1 : 0, #cond, __LINE__)

static void check(int ok, const char *what, int line)
{
    checks++;
    if (!ok && failures++ < 20) {
        printf("flash_emu_test.c:%d: %s: not so: %s\n", line, scenario, what);
    }
}

/* A flash under test and a pattern without a byte that reads erased. */
struct bench {
    struct sow_flash_emu f;
    struct sow_flash_emu_geometry g;
    void *memory;
    uint8_t pattern[8192], buf[8192];
};

static struct bench *setup(uint32_t page, uint32_t granule, uint8_t erase_value)
{
    struct bench *b = calloc(1, sizeof *b);

    if (b == NULL) {
        abort();
    }
    b->g = (struct sow_flash_emu_geometry){BASE, PAGES * page, page, granule, erase_value};
    b->memory = malloc(sow_flash_emu_size(&b->g));
    if (b->memory == NULL || sow_flash_emu_init(&b->f, &b->g, b->memory) != SOW_FLASH_EMU_OK) {
        abort();
    }
    for (unsigned i = 0; i < sizeof b->pattern; i++) {
        b->pattern[i] = (uint8_t)(1 + i * 37 % 254);
    }
    return b;
}

static void teardown(struct bench *b)
{
    free(b->memory);
    free(b);
}

static int is_blank(const struct bench *b, uint32_t addr, uint32_t n)
{
    const uint8_t *p = sow_flash_emu_peek(&b->f, addr);

    for (uint32_t i = 0; i < n; i++) {
        if (p[i] != b->g.erase_value) {
            return 0;
        }
    }
    return 1;
}

static int holds(const struct bench *b, uint32_t addr, const void *bytes, uint32_t n)
{
    return memcmp(sow_flash_emu_peek(&b->f, addr), bytes, n) == 0;
}

static void geometry_is_checked(void)
{
    static const struct sow_flash_emu_geometry good = {BASE, 4096, 1024, 8, 0xff};
    static const struct sow_flash_emu_geometry bad[] = {
        {BASE, 0, 1024, 8, 0xff},       {BASE, 4000, 1024, 8, 0xff}, {BASE + 8, 4096, 1024, 8, 0xff},
        {BASE, 4096, 64, 8, 0xff},      {BASE, 4096, 1000, 8, 0xff}, {BASE, 32768, 16384, 8, 0xff},
        {BASE, 4096, 1024, 0, 0xff},    {BASE, 4096, 1024, 3, 0xff}, {BASE, 4096, 1024, 32, 0xff},
        {BASE, 4096, 1024, 8, 0x55},    {0xfffff000u, 4096, 1024, 8, 0xff},
    };
    struct sow_flash_emu f;
    uint32_t *memory = malloc(sow_flash_emu_size(&good) + 4);

    if (memory == NULL) {
        abort();
    }
    CHECK(sow_flash_emu_init(&f, &good, memory) == SOW_FLASH_EMU_OK);
    CHECK(sow_flash_emu_init(&f, &good, (uint8_t *)memory + 1) == SOW_FLASH_EMU_E_GEOMETRY);
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK(sow_flash_emu_size(&bad[i]) == 0);
        CHECK(sow_flash_emu_init(&f, &bad[i], memory) == SOW_FLASH_EMU_E_GEOMETRY);
    }
    free(memory);
}

static void program_and_read(struct bench *b)
{
    struct sow_flash_emu *f = &b->f;
    uint32_t n = b->g.page / 2;

    CHECK(is_blank(b, BASE, b->g.size));
    CHECK(sow_flash_emu_read(f, BASE, b->buf, b->g.page) == 0);
    CHECK(b->buf[0] == b->g.erase_value && b->buf[b->g.page - 1] == b->g.erase_value);
    CHECK(sow_flash_emu_prog(f, BASE, b->pattern, n) == 0);
    CHECK(sow_flash_emu_read(f, BASE + 1, b->buf, n - 1) == 0); /* reads need no alignment */
    CHECK(memcmp(b->buf, b->pattern + 1, n - 1) == 0);
    CHECK(is_blank(b, BASE + n, b->g.size - n));
    CHECK(f->progs == n / b->g.granule && f->reads == 2 && f->read_bytes == b->g.page + n - 1);

    CHECK(sow_flash_emu_erase(f, BASE, 2 * b->g.page) == 0);
    CHECK(is_blank(b, BASE, b->g.size));
    CHECK(sow_flash_emu_erase(f, BASE, b->g.page) == 0);
    CHECK(f->erases == 3);
    CHECK(sow_flash_emu_wear(f, BASE) == 2 && sow_flash_emu_wear(f, BASE + b->g.page - 1) == 2);
    CHECK(sow_flash_emu_wear(f, BASE + b->g.page) == 1 && sow_flash_emu_wear(f, BASE + 2 * b->g.page) == 0);
    CHECK(sow_flash_emu_prog(f, BASE, b->pattern, n) == 0); /* erased, so it takes a program again */
    CHECK(f->violations == 0 && f->refusals == 0 && f->ecc_errors == 0);
}

static void a_granule_is_programmed_once(struct bench *b)
{
    struct sow_flash_emu *f = &b->f;
    uint32_t g = b->g.granule;

    CHECK(sow_flash_emu_prog(f, BASE + g, b->pattern, g) == 0);
    CHECK(sow_flash_emu_prog(f, BASE + g, b->pattern, g) == SOW_FLASH_EMU_E_PROGRAMMED); /* even the same bits */
    CHECK(f->violations == 1 && f->violation_addr == BASE + g);

    /* In a longer program the granules before the used one are done, those after it are not. */
    CHECK(sow_flash_emu_prog(f, BASE, b->pattern + 64, 3 * g) == SOW_FLASH_EMU_E_PROGRAMMED);
    CHECK(holds(b, BASE, b->pattern + 64, g) && holds(b, BASE + g, b->pattern, g) && is_blank(b, BASE + 2 * g, g));
    CHECK(f->violations == 2 && f->progs == 2);

    /* Programmed with the erase value is programmed, though it reads erased. */
    memset(b->buf, b->g.erase_value, g);
    CHECK(sow_flash_emu_prog(f, BASE + 4 * g, b->buf, g) == 0);
    CHECK(is_blank(b, BASE + 4 * g, g));
    CHECK(sow_flash_emu_prog(f, BASE + 4 * g, b->pattern, g) == SOW_FLASH_EMU_E_PROGRAMMED);
    CHECK(is_blank(b, BASE + 4 * g, g) && f->violations == 3 && f->refusals == 0);
}

static void out_of_range_and_unaligned(struct bench *b)
{
    struct sow_flash_emu *f = &b->f;
    uint32_t g = b->g.granule, p = b->g.page, end = BASE + b->g.size;
    static const uint32_t far[] = {0, BASE - 1, 0xffffffffu};

    for (unsigned i = 0; i < 3; i++) {
        CHECK(sow_flash_emu_read(f, far[i], b->buf, 1) == SOW_FLASH_EMU_E_RANGE);
        CHECK(sow_flash_emu_prog(f, far[i], b->pattern, g) == SOW_FLASH_EMU_E_RANGE);
        CHECK(sow_flash_emu_erase(f, far[i], p) == SOW_FLASH_EMU_E_RANGE);
    }
    CHECK(sow_flash_emu_read(f, end, b->buf, 1) == SOW_FLASH_EMU_E_RANGE);
    CHECK(sow_flash_emu_read(f, end - 1, b->buf, 2) == SOW_FLASH_EMU_E_RANGE);
    CHECK(sow_flash_emu_read(f, BASE, b->buf, 0xffffffffu) == SOW_FLASH_EMU_E_RANGE);
    CHECK(sow_flash_emu_prog(f, end - g, b->pattern, 2 * g) == SOW_FLASH_EMU_E_RANGE);
    CHECK(sow_flash_emu_erase(f, end - p, 2 * p) == SOW_FLASH_EMU_E_RANGE);
    CHECK(sow_flash_emu_erase(f, BASE + p, 0u - p) == SOW_FLASH_EMU_E_RANGE); /* wraps round */
    CHECK(f->violations == 15);
    if (g > 1) {
        CHECK(sow_flash_emu_prog(f, BASE + 1, b->pattern, g) == SOW_FLASH_EMU_E_ALIGN);
        CHECK(sow_flash_emu_prog(f, BASE, b->pattern, g - 1) == SOW_FLASH_EMU_E_ALIGN);
        CHECK(f->violations == 17);
    }
    f->violations = 0;
    CHECK(sow_flash_emu_erase(f, BASE + g, p) == SOW_FLASH_EMU_E_ALIGN);
    CHECK(sow_flash_emu_erase(f, BASE, p - g) == SOW_FLASH_EMU_E_ALIGN);
    CHECK(f->violations == 2 && f->violation_addr == BASE);
    CHECK(is_blank(b, BASE, b->g.size) && f->progs == 0 && f->erases == 0);
    CHECK(sow_flash_emu_read(f, end - 1, b->buf, 1) == 0 && sow_flash_emu_read(f, end, b->buf, 0) == 0);
}

/* Every operation of a program of four granules and an erase of two pages can be the one that is cut. */
static void the_kth_operation_is_cut(struct bench *b)
{
    struct sow_flash_emu *f = &b->f;
    uint32_t g = b->g.granule, p = b->g.page, k;
    uint8_t *fresh = malloc(sow_flash_emu_snapshot_size(f));

    if (fresh == NULL) {
        abort();
    }
    CHECK(sow_flash_emu_prog(f, BASE + p, b->pattern, g) == 0);
    CHECK(sow_flash_emu_prog(f, BASE + 2 * p, b->pattern, g) == 0);
    sow_flash_emu_save(f, fresh);
    for (k = 1;; k++) {
        sow_flash_emu_restore(f, fresh);
        sow_flash_emu_cut(f, k, SOW_FLASH_EMU_NOT_STARTED, 0, 1);
        int prog = sow_flash_emu_prog(f, BASE, b->pattern, 4 * g);
        int erase = sow_flash_emu_erase(f, BASE + p, 2 * p);
        if (!sow_flash_emu_is_off(f)) {
            CHECK(prog == 0 && erase == 0);
            break;
        }
        CHECK(prog == (k <= 4 ? SOW_FLASH_EMU_E_OFF : 0) && erase == SOW_FLASH_EMU_E_OFF);
        CHECK(sow_flash_emu_read(f, BASE, b->buf, 1) == SOW_FLASH_EMU_E_OFF);
        sow_flash_emu_power_up(f);
        CHECK(sow_flash_emu_read(f, BASE, b->buf, 1) == 0);
        uint32_t done = k <= 4 ? k - 1 : 4;
        CHECK(holds(b, BASE, b->pattern, done * g) && is_blank(b, BASE + done * g, p - done * g));
        CHECK(is_blank(b, BASE + p, g) == (k > 5));
        CHECK(!is_blank(b, BASE + 2 * p, g));
        CHECK(sow_flash_emu_prog(f, BASE + 3 * p, b->pattern, 8 * g) == 0); /* power stays up */
    }
    CHECK(k == 7);
    CHECK(f->violations == 0 && f->refusals == 0);
    free(fresh);
}

/* Cut the program of the second of three granules and look at what is left of it. */
static void cut_program(struct bench *b, enum sow_flash_emu_cut cut, int ecc, uint32_t seed)
{
    CHECK(sow_flash_emu_erase(&b->f, BASE, b->g.page) == 0);
    b->f.refusals = b->f.violations = b->f.ecc_errors = 0;
    sow_flash_emu_cut(&b->f, 2, cut, ecc, seed);
    CHECK(sow_flash_emu_prog(&b->f, BASE, b->pattern, 3 * b->g.granule) == SOW_FLASH_EMU_E_OFF);
    CHECK(sow_flash_emu_is_off(&b->f));
    sow_flash_emu_power_up(&b->f);
    CHECK(holds(b, BASE, b->pattern, b->g.granule));
    CHECK(is_blank(b, BASE + 2 * b->g.granule, b->g.granule));
}

static void cut_programs(struct bench *b)
{
    struct sow_flash_emu *f = &b->f;
    uint32_t g = b->g.granule, at = BASE + g;
    unsigned partial = 0, different = 0;
    uint8_t first[16];

    cut_program(b, SOW_FLASH_EMU_NOT_STARTED, 0, 1);
    CHECK(is_blank(b, at, g));
    CHECK(sow_flash_emu_prog(f, at, b->pattern + g, g) == 0);

    cut_program(b, SOW_FLASH_EMU_COMPLETE, 0, 1);
    CHECK(holds(b, at, b->pattern + g, g));
    CHECK(sow_flash_emu_prog(f, at, b->pattern + g, g) == SOW_FLASH_EMU_E_PROGRAMMED);
    CHECK(f->violations == 1 && f->refusals == 0);

    cut_program(b, SOW_FLASH_EMU_REFUSES, 0, 1);
    CHECK(is_blank(b, at, g));
    CHECK(sow_flash_emu_prog(f, at, b->pattern, g) == SOW_FLASH_EMU_E_REFUSED);
    CHECK(is_blank(b, at, g) && f->violations == 0 && f->refusals == 1 && f->refusal_addr == at);
    CHECK(sow_flash_emu_prog(f, at + g, b->pattern, g) == 0); /* its neighbour is sound */

    for (uint32_t seed = 0; seed < 64; seed++) {
        cut_program(b, SOW_FLASH_EMU_TORN, 0, seed);
        for (uint32_t i = 0; i < g; i++) { /* each bit is the old one or the new one */
            uint8_t is = sow_flash_emu_peek(f, at)[i], was = b->g.erase_value, wanted = b->pattern[g + i];
            CHECK(((is ^ was) & (uint8_t)~(was ^ wanted)) == 0);
        }
        partial += !is_blank(b, at, g) && !holds(b, at, b->pattern + g, g);
        CHECK(sow_flash_emu_prog(f, at, b->pattern + g, g) == SOW_FLASH_EMU_E_REFUSED);
        CHECK(f->violations == 0 && f->refusals == 1);
        if (seed == 0) {
            memcpy(first, sow_flash_emu_peek(f, at), g);
        }
        different += !holds(b, at, first, g);
    }
    CHECK(partial > 32 && different > 16);
    cut_program(b, SOW_FLASH_EMU_TORN, 0, 0);
    CHECK(holds(b, at, first, g)); /* the same seed tears the same bits */

    for (int cut = SOW_FLASH_EMU_NOT_STARTED; cut <= SOW_FLASH_EMU_REFUSES; cut++) {
        cut_program(b, (enum sow_flash_emu_cut)cut, 1, 1);
        memset(b->buf, 0x42, 4 * g);
        CHECK(sow_flash_emu_read(f, BASE, b->buf, g + 1) == SOW_FLASH_EMU_E_ECC && b->buf[0] == 0x42);
        CHECK(sow_flash_emu_read(f, at + g - 1, b->buf, 2) == SOW_FLASH_EMU_E_ECC);
        CHECK(sow_flash_emu_read(f, at - 1, b->buf, 2) == SOW_FLASH_EMU_E_ECC);
        CHECK(f->ecc_errors == 3);
        CHECK(sow_flash_emu_read(f, BASE, b->buf, g) == 0 && sow_flash_emu_read(f, at + g, b->buf, g) == 0);
        CHECK(sow_flash_emu_prog(f, at, b->pattern, g) == SOW_FLASH_EMU_E_REFUSED && f->violations == 0);
    }
    CHECK(sow_flash_emu_erase(f, BASE, b->g.page) == 0); /* an erase mends it all */
    CHECK(sow_flash_emu_read(f, BASE, b->buf, b->g.page) == 0 && is_blank(b, BASE, b->g.page));
    CHECK(sow_flash_emu_prog(f, BASE, b->pattern, b->g.page) == 0);

    /* A cut program of the erase value is invisible: trying it again is refused, but no violation. */
    CHECK(sow_flash_emu_erase(f, BASE, b->g.page) == 0);
    memset(b->buf, b->g.erase_value, g);
    f->refusals = 0;
    sow_flash_emu_cut(f, 1, SOW_FLASH_EMU_COMPLETE, 0, 1);
    CHECK(sow_flash_emu_prog(f, BASE, b->buf, g) == SOW_FLASH_EMU_E_OFF);
    sow_flash_emu_power_up(f);
    CHECK(sow_flash_emu_prog(f, BASE, b->buf, g) == SOW_FLASH_EMU_E_REFUSED);
    CHECK(f->violations == 0 && f->refusals == 1);
}

/* Fill a page, cut its erase, and count the granules that refuse a program and those that do not read. */
static void cut_erase(struct bench *b, enum sow_flash_emu_cut cut, int ecc, uint32_t *refuse, uint32_t *unreadable)
{
    struct sow_flash_emu *f = &b->f;
    uint32_t p = b->g.page, g = b->g.granule, page = BASE + p;

    CHECK(sow_flash_emu_erase(f, BASE, b->g.size) == 0);
    CHECK(sow_flash_emu_prog(f, page, b->pattern, p) == 0);
    CHECK(sow_flash_emu_prog(f, page + p, b->pattern, g) == 0);
    f->refusals = f->violations = 0;
    sow_flash_emu_cut(f, 1, cut, ecc, 3);
    CHECK(sow_flash_emu_erase(f, page, 2 * p) == SOW_FLASH_EMU_E_OFF);
    sow_flash_emu_power_up(f);
    CHECK(holds(b, page + p, b->pattern, g)); /* the second page was not reached */
    *unreadable = 0;
    for (uint32_t i = 0; i < p; i += g) {
        *unreadable += sow_flash_emu_read(f, page + i, b->buf, g) == SOW_FLASH_EMU_E_ECC;
    }
    if (cut != SOW_FLASH_EMU_NOT_STARTED) {
        memcpy(b->buf, sow_flash_emu_peek(f, page), p);
        for (uint32_t i = 0; i < p; i += g) {
            (void)sow_flash_emu_prog(f, page + i, b->pattern + i, g);
        }
        CHECK(f->violations == 0);
        *refuse = f->refusals;
    }
}

static void cut_erases(struct bench *b)
{
    struct sow_flash_emu *f = &b->f;
    uint32_t p = b->g.page, all = p / b->g.granule, refuse, unreadable;
    unsigned old = 0, blank = 0;

    cut_erase(b, SOW_FLASH_EMU_NOT_STARTED, 0, &refuse, &unreadable);
    CHECK(holds(b, BASE + p, b->pattern, p) && unreadable == 0);
    CHECK(sow_flash_emu_prog(f, BASE + p, b->pattern, b->g.granule) == SOW_FLASH_EMU_E_PROGRAMMED);

    cut_erase(b, SOW_FLASH_EMU_COMPLETE, 0, &refuse, &unreadable);
    CHECK(refuse == 0 && unreadable == 0 && holds(b, BASE + p, b->pattern, p));

    cut_erase(b, SOW_FLASH_EMU_REFUSES, 0, &refuse, &unreadable);
    CHECK(refuse > 0 && refuse < all && unreadable == 0);
    for (uint32_t i = 0; i < p; i++) {
        CHECK(b->buf[i] == b->g.erase_value);
    }

    cut_erase(b, SOW_FLASH_EMU_TORN, 0, &refuse, &unreadable);
    CHECK(refuse == all && unreadable == 0);
    for (uint32_t i = 0; i < p; i++) {
        uint8_t wanted = b->g.erase_value, was = b->pattern[i];
        CHECK(((b->buf[i] ^ was) & (uint8_t)~(was ^ wanted)) == 0);
        old += b->buf[i] == was;
        blank += b->buf[i] == wanted;
    }
    CHECK(old < p && blank < p);

    for (int cut = SOW_FLASH_EMU_NOT_STARTED; cut <= SOW_FLASH_EMU_REFUSES; cut++) {
        cut_erase(b, (enum sow_flash_emu_cut)cut, 1, &refuse, &unreadable);
        CHECK(unreadable > 0 && unreadable < all);
    }
    CHECK(sow_flash_emu_erase(f, BASE + p, p) == 0);
    CHECK(sow_flash_emu_read(f, BASE + p, b->buf, p) == 0 && sow_flash_emu_prog(f, BASE + p, b->pattern, p) == 0);
}

static void broken_pages(struct bench *b)
{
    struct sow_flash_emu *f = &b->f;
    uint32_t p = b->g.page, g = b->g.granule;

    CHECK(sow_flash_emu_break(f, BASE + 2 * p - 1, SOW_FLASH_EMU_FAIL_PROG) == 0);
    CHECK(sow_flash_emu_prog(f, BASE + p - g, b->pattern, 2 * g) == SOW_FLASH_EMU_E_REFUSED);
    CHECK(holds(b, BASE + p - g, b->pattern, g) && is_blank(b, BASE + p, p));
    CHECK(f->refusals == 1 && f->refusal_addr == BASE + p);
    CHECK(sow_flash_emu_erase(f, BASE + p, p) == 0);
    CHECK(sow_flash_emu_prog(f, BASE + p, b->pattern, g) == SOW_FLASH_EMU_E_REFUSED); /* an erase does not mend it */

    CHECK(sow_flash_emu_break(f, BASE, SOW_FLASH_EMU_FAIL_ERASE | SOW_FLASH_EMU_FAIL_READ) == 0);
    CHECK(sow_flash_emu_erase(f, BASE, p) == SOW_FLASH_EMU_E_REFUSED);
    CHECK(sow_flash_emu_wear(f, BASE) == 0 && holds(b, BASE + p - g, b->pattern, g));
    CHECK(sow_flash_emu_read(f, BASE + p - 1, b->buf, 1) == SOW_FLASH_EMU_E_ECC);
    CHECK(sow_flash_emu_read(f, BASE + p, b->buf, 1) == 0);

    CHECK(sow_flash_emu_break(f, BASE, SOW_FLASH_EMU_SILENT_PROG | SOW_FLASH_EMU_SILENT_ERASE) == 0);
    CHECK(sow_flash_emu_erase(f, BASE, p) == 0 && holds(b, BASE + p - g, b->pattern, g));
    CHECK(sow_flash_emu_prog(f, BASE, b->pattern, g) == 0 && is_blank(b, BASE, g));

    CHECK(sow_flash_emu_break(f, BASE, 0) == 0);
    CHECK(sow_flash_emu_erase(f, BASE, p) == 0 && is_blank(b, BASE, p));
    CHECK(sow_flash_emu_prog(f, BASE, b->pattern, p) == 0);
    CHECK(f->violations == 0);
    CHECK(sow_flash_emu_break(f, BASE + b->g.size, 0) == SOW_FLASH_EMU_E_RANGE);
}

static void bits_flip(struct bench *b)
{
    struct sow_flash_emu *f = &b->f;
    uint32_t g = b->g.granule;

    CHECK(sow_flash_emu_prog(f, BASE, b->pattern, g) == 0);
    CHECK(sow_flash_emu_flip(f, BASE + g - 1, 7) == 0);
    CHECK(sow_flash_emu_read(f, BASE, b->buf, g) == 0 && b->buf[g - 1] == (b->pattern[g - 1] ^ 0x80));
    CHECK(sow_flash_emu_flip(f, BASE + g - 1, 7) == 0 && holds(b, BASE, b->pattern, g));
    CHECK(sow_flash_emu_flip(f, BASE + g, 0) == 0);
    CHECK(sow_flash_emu_prog(f, BASE + g, b->pattern, g) == SOW_FLASH_EMU_E_REFUSED && f->violations == 0);
    CHECK(sow_flash_emu_flip(f, BASE + b->g.size, 0) == SOW_FLASH_EMU_E_RANGE);
    CHECK(sow_flash_emu_flip(f, BASE, 8) == SOW_FLASH_EMU_E_RANGE);
}

static void factory_load(struct bench *b)
{
    struct sow_flash_emu *f = &b->f;
    uint32_t g = b->g.granule, p = b->g.page;

    CHECK(sow_flash_emu_prog(f, BASE, b->pattern, 2 * p) == 0);
    CHECK(sow_flash_emu_load(f, BASE + p, b->pattern + 1, g + 1) == 0);
    CHECK(holds(b, BASE, b->pattern, p) && holds(b, BASE + p, b->pattern + 1, g + 1));
    CHECK(is_blank(b, BASE + p + g + 1, p - g - 1));
    CHECK(sow_flash_emu_prog(f, BASE + p + g, b->pattern, g) == SOW_FLASH_EMU_E_PROGRAMMED);
    CHECK(sow_flash_emu_prog(f, BASE + p + 2 * g, b->pattern, g) == 0);
    CHECK(sow_flash_emu_wear(f, BASE + p) == 0 && f->erases == 0);
    CHECK(sow_flash_emu_load(f, BASE + b->g.size - g, b->pattern, g + 1) == SOW_FLASH_EMU_E_RANGE);
    CHECK(sow_flash_emu_peek(f, BASE + b->g.size) == NULL && sow_flash_emu_peek(f, BASE - 1) == NULL);
    CHECK(sow_flash_emu_wear(f, BASE + b->g.size) == 0);
}

static void snapshots(struct bench *b)
{
    struct sow_flash_emu *f = &b->f;
    struct bench *other = setup(b->g.page, b->g.granule, b->g.erase_value);
    uint32_t g = b->g.granule, p = b->g.page;
    uint8_t *saved = malloc(sow_flash_emu_snapshot_size(f)), *then = malloc(b->g.size);

    if (saved == NULL || then == NULL) {
        abort();
    }
    CHECK(sow_flash_emu_prog(f, BASE, b->pattern, 2 * g) == 0);
    CHECK(sow_flash_emu_break(f, BASE + 3 * p, SOW_FLASH_EMU_FAIL_PROG) == 0);
    sow_flash_emu_cut(f, 3, SOW_FLASH_EMU_TORN, 0, 9);
    sow_flash_emu_save(f, saved);
    for (int round = 0; round < 2; round++) {
        CHECK(sow_flash_emu_prog(f, BASE + 2 * g, b->pattern, 6 * g) == SOW_FLASH_EMU_E_OFF);
        sow_flash_emu_power_up(f);
        CHECK(sow_flash_emu_erase(f, BASE + p, p) == 0 && sow_flash_emu_break(f, BASE + 3 * p, 0) == 0);
        CHECK(f->progs == 5 && f->erases == 1 && sow_flash_emu_wear(f, BASE + p) == 1);
        if (round == 0) {
            memcpy(then, sow_flash_emu_peek(f, BASE), b->g.size);
        }
        CHECK(holds(b, BASE, then, b->g.size)); /* the same run from the same snapshot */
        sow_flash_emu_restore(f, saved);
        CHECK(f->progs == 2 && f->erases == 0 && sow_flash_emu_wear(f, BASE + p) == 0 && !sow_flash_emu_is_off(f));
        CHECK(holds(b, BASE, b->pattern, 2 * g) && is_blank(b, BASE + 2 * g, b->g.size - 2 * g));
        sow_flash_emu_cut(f, 0, SOW_FLASH_EMU_TORN, 0, 0);
        CHECK(sow_flash_emu_prog(f, BASE, b->pattern, g) == SOW_FLASH_EMU_E_PROGRAMMED);
        CHECK(sow_flash_emu_prog(f, BASE + 3 * p, b->pattern, g) == SOW_FLASH_EMU_E_REFUSED);
        sow_flash_emu_restore(f, saved);
    }
    CHECK(is_blank(other, BASE, b->g.size) && other->f.progs == 0); /* instances share nothing */
    free(saved);
    free(then);
    teardown(other);
}

static void a_file_survives(const char *path)
{
    struct sow_flash_emu_geometry g = {BASE, 8192, 2048, 8, 0xff}, wrong = {BASE, 8192, 2048, 4, 0xff};
    uint8_t bytes[16] = "a flash in file", got[16];
    struct sow_flash_emu f;

    (void)unlink(path);
    CHECK(sow_flash_emu_open(&f, &g, path) == SOW_FLASH_EMU_OK);
    CHECK(sow_flash_emu_erase(&f, BASE, 4096) == 0 && sow_flash_emu_prog(&f, BASE, bytes, 16) == 0);
    sow_flash_emu_cut(&f, 1, SOW_FLASH_EMU_REFUSES, 0, 0);
    CHECK(sow_flash_emu_prog(&f, BASE + 2048, bytes, 8) == SOW_FLASH_EMU_E_OFF);
    CHECK(sow_flash_emu_break(&f, BASE + 4096, SOW_FLASH_EMU_FAIL_ERASE) == 0);
    sow_flash_emu_close(&f);

    CHECK(sow_flash_emu_open(&f, &g, path) == SOW_FLASH_EMU_OK); /* with power */
    CHECK(sow_flash_emu_read(&f, BASE, got, 16) == 0 && memcmp(got, bytes, 16) == 0);
    CHECK(sow_flash_emu_prog(&f, BASE + 8, bytes, 8) == SOW_FLASH_EMU_E_PROGRAMMED);
    CHECK(sow_flash_emu_prog(&f, BASE + 2048, bytes, 8) == SOW_FLASH_EMU_E_REFUSED);
    CHECK(sow_flash_emu_erase(&f, BASE + 4096, 2048) == SOW_FLASH_EMU_E_REFUSED);
    CHECK(sow_flash_emu_wear(&f, BASE + 2048) == 1 && sow_flash_emu_wear(&f, BASE + 4096) == 0);
    sow_flash_emu_close(&f);

    CHECK(sow_flash_emu_open(&f, &wrong, path) == SOW_FLASH_EMU_E_FILE); /* another size */
    wrong = g;
    wrong.erase_value = 0;
    CHECK(sow_flash_emu_open(&f, &wrong, path) == SOW_FLASH_EMU_E_FILE); /* the same size, another header */
    wrong.page = 100;
    CHECK(sow_flash_emu_open(&f, &wrong, path) == SOW_FLASH_EMU_E_GEOMETRY);
    CHECK(sow_flash_emu_open(&f, &g, "/nonexistent/flash") == SOW_FLASH_EMU_E_FILE);

    pid_t child = fork();
    if (child == 0) { /* no close, no exit handlers, no flush */
        if (sow_flash_emu_open(&f, &g, path) == 0 && sow_flash_emu_prog(&f, BASE + 64, bytes, 16) == 0) {
            (void)kill(getpid(), SIGKILL);
        }
        _exit(1);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
    CHECK(sow_flash_emu_open(&f, &g, path) == SOW_FLASH_EMU_OK);
    CHECK(sow_flash_emu_read(&f, BASE + 64, got, 16) == 0 && memcmp(got, bytes, 16) == 0);
    CHECK(sow_flash_emu_prog(&f, BASE + 64, bytes, 16) == SOW_FLASH_EMU_E_PROGRAMMED);
    sow_flash_emu_close(&f);
    (void)unlink(path);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(struct bench *);
    } scenarios[] = {
        {"program and read", program_and_read},
        {"a granule is programmed once", a_granule_is_programmed_once},
        {"out of range and unaligned", out_of_range_and_unaligned},
        {"the kth operation is cut", the_kth_operation_is_cut},
        {"cut programs", cut_programs},
        {"cut erases", cut_erases},
        {"broken pages", broken_pages},
        {"bits flip", bits_flip},
        {"factory load", factory_load},
        {"snapshots", snapshots},
    };
    static const uint32_t page_sizes[] = {128, 256, 2048, 4096, 8192}, granule_sizes[] = {1, 2, 4, 8, 16};

    if (argc != 2) {
        fprintf(stderr, "usage: flash_emu_test FILE\n");
        return 2;
    }
    scenario = "geometry is checked";
    geometry_is_checked();
    for (unsigned s = 0; s < sizeof scenarios / sizeof scenarios[0]; s++) {
        for (unsigned i = 0; i < 50; i++) {
            struct bench *b = setup(page_sizes[i / 10], granule_sizes[i / 2 % 5], i % 2 ? 0xff : 0x00);
            scenario = scenarios[s].name;
            scenarios[s].run(b);
            teardown(b);
        }
    }
    scenario = "a file survives";
    a_file_survives(argv[1]);
    printf("flash emulator: %u checks, %u failed\n", checks, failures);
    return failures != 0;
}
