/* sow_port_selftest passes a sound port of any geometry, and names the clause that a broken one breaks.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "sow_selftest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sow_aes.h"
#include "sow_flash_emu.h"

#define BASE 0x08000000u

enum fault {
    SOUND,
    /* callbacks, declarations, map */
    NO_ERASE, ODD_GRANULE, OVERLAP, UNALIGNED_REGION, UNEQUAL_SLOTS, CONSTANT_RANDOM,
    /* cryptography */
    GOOD_CRYPTO, AES_FIXED_KEY, AES_REVERSED, VERIFY_ACCEPTS, VERIFY_POSITIVE,
    /* flash */
    FIRST_PAGE_ONLY, ERASE_NOTHING, WRONG_ERASE_VALUE, PROG_SWAPS_BYTES, PROG_DROPS_LAST, GRANULE_TOO_SMALL,
    PROG_PADS, READ_WORDS_ONLY, READ_ROUNDS_UP, SOURCE_ALIGNED, ROW_WRAPS, ONE_GRANULE_ONLY, STOPS_AT_PAGE,
    REWRITE_ANDS, REWRITE_IGNORED, REWRITE_POSITIVE, PROG_ROUNDS, ERASE_ROUNDS, PAGE_TOO_SMALL, ADDRESS_MASKED,
    HITS_SLOT_B, NOTHING_PERSISTS, LAST_GRANULE_LATE,
    FAULTS
};

static const struct {
    const char *name;
    uint8_t clause;
} cases[FAULTS] = {
    [SOUND] = {"a sound port", SOW_CLAUSE_NONE},
    [NO_ERASE] = {"no erase callback", SOW_CLAUSE_CALLBACKS},
    [ODD_GRANULE] = {"a granule of 12 bytes", SOW_CLAUSE_GEOMETRY},
    [OVERLAP] = {"journal inside the download region", SOW_CLAUSE_MAP},
    [UNALIGNED_REGION] = {"a region that begins in a page", SOW_CLAUSE_MAP},
    [UNEQUAL_SLOTS] = {"slots of two sizes", SOW_CLAUSE_MAP},
    [CONSTANT_RANDOM] = {"random without a seed", SOW_CLAUSE_RANDOM},
    [GOOD_CRYPTO] = {"a sound port with its own cryptography", SOW_CLAUSE_NONE},
    [AES_FIXED_KEY] = {"aes with a key of its own", SOW_CLAUSE_AES},
    [AES_REVERSED] = {"aes with its words reversed", SOW_CLAUSE_AES},
    [VERIFY_ACCEPTS] = {"verify that accepts everything", SOW_CLAUSE_VERIFY},
    [VERIFY_POSITIVE] = {"verify that refuses with 1", SOW_CLAUSE_VERIFY},
    [FIRST_PAGE_ONLY] = {"erase takes one page only", SOW_CLAUSE_ERASE},
    [ERASE_NOTHING] = {"erase does nothing", SOW_CLAUSE_ERASE},
    [WRONG_ERASE_VALUE] = {"erased bytes read the other value", SOW_CLAUSE_ERASE_VALUE},
    [PROG_SWAPS_BYTES] = {"prog swaps the bytes of a word", SOW_CLAUSE_PROG},
    [PROG_DROPS_LAST] = {"prog drops the last bytes", SOW_CLAUSE_PROG},
    [GRANULE_TOO_SMALL] = {"the flash has larger granules", SOW_CLAUSE_GRANULE},
    [PROG_PADS] = {"prog pads to 32 bytes", SOW_CLAUSE_GRANULE},
    [READ_WORDS_ONLY] = {"read drops the low address bits", SOW_CLAUSE_READ},
    [READ_ROUNDS_UP] = {"read writes whole words", SOW_CLAUSE_READ},
    [SOURCE_ALIGNED] = {"prog reads its source by words", SOW_CLAUSE_SOURCE},
    [ROW_WRAPS] = {"prog wraps in a row of 64 bytes", SOW_CLAUSE_SPAN},
    [ONE_GRANULE_ONLY] = {"prog writes one granule", SOW_CLAUSE_SPAN},
    [STOPS_AT_PAGE] = {"prog stops at a page boundary", SOW_CLAUSE_BOUNDARY},
    [REWRITE_ANDS] = {"a second prog clears bits", SOW_CLAUSE_REWRITE},
    [REWRITE_IGNORED] = {"a second prog reports success", SOW_CLAUSE_REWRITE},
    [REWRITE_POSITIVE] = {"a second prog fails with 1", SOW_CLAUSE_REWRITE},
    [PROG_ROUNDS] = {"prog rounds a part of a granule up", SOW_CLAUSE_ALIGNMENT},
    [ERASE_ROUNDS] = {"erase rounds a part of a page up", SOW_CLAUSE_ALIGNMENT},
    [PAGE_TOO_SMALL] = {"the flash has larger pages", SOW_CLAUSE_NEIGHBOUR},
    [ADDRESS_MASKED] = {"an address line is missing", SOW_CLAUSE_ALIAS},
    [HITS_SLOT_B] = {"erasing scratch touches slot B", SOW_CLAUSE_OTHERS},
    [NOTHING_PERSISTS] = {"the flash is a RAM", SOW_CLAUSE_PERSISTENCE},
    [LAST_GRANULE_LATE] = {"the last granule waits in a buffer", SOW_CLAUSE_PERSISTENCE},
};

struct board {
    struct sow_flash_emu flash;
    struct sow_port port;
    struct sow_map map;
    enum fault fault;
    uint32_t random, ticks, idles, hit;
    uint32_t late_addr; /* granule that waits in a buffer; 0: none */
    uint8_t late[16];
    void *memory, *factory; /* snapshot of the flash as it left the factory */
};

static unsigned checks, failures;
static char context[160];

static void check(int ok, const char *what, int line)
{
    checks++;
    if (!ok && failures++ < 20)
        fprintf(stderr, "selftest_test.c:%d: %s: %s\n", line, context, what);
}

#define CHECK(cond) check((cond) ? 1 : 0, #cond, __LINE__)

/* The port, with one fault. The emulator behind it is sound. */

static uint32_t where(const struct board *b, uint32_t addr)
{
    return b->fault == ADDRESS_MASKED ? addr & ~(2u * b->port.page) : addr; /* pages come in pairs of pairs */
}

static int board_read(void *user, uint32_t addr, void *buf, uint32_t n)
{
    struct board *b = user;
    uint8_t *dst = buf;
    uint8_t word[4];

    if (b->fault == READ_WORDS_ONLY)
        addr &= ~3u;
    if (b->fault == READ_ROUNDS_UP && n % 4u != 0 && sow_flash_emu_read(&b->flash, addr, word, 4) == 0)
        memcpy(dst + n / 4u * 4u, word, 4);
    if (sow_flash_emu_read(&b->flash, where(b, addr), buf, n) != 0)
        return -1;
    if (b->late_addr >= addr && b->late_addr < addr + n)
        memcpy(dst + (b->late_addr - addr), b->late,
               addr + n - b->late_addr < b->port.granule ? addr + n - b->late_addr : b->port.granule);
    if (b->fault == WRONG_ERASE_VALUE) /* inverted bus */
        for (uint32_t i = 0; i < n; i++)
            dst[i] = (uint8_t)~dst[i];
    return 0;
}

static int flush(struct board *b)
{
    int err = 0;

    if (b->late_addr != 0)
        err = sow_flash_emu_prog(&b->flash, b->late_addr, b->late, b->port.granule);
    b->late_addr = 0;
    return err;
}

static int used(const struct board *b, uint32_t addr, uint32_t n)
{
    const uint8_t *p = sow_flash_emu_peek(&b->flash, addr);

    while (n-- != 0)
        if (p[n] != b->port.erase_value)
            return 1;
    return 0;
}

/* Program the granules that hold [addr, addr+n), whatever was there before: what a rewrite does on plain NOR. */
static int force(struct board *b, uint32_t addr, const uint8_t *src, uint32_t n)
{
    uint32_t page = b->flash.geometry.page, at = (addr - BASE) % page;
    uint8_t copy[8192];

    memcpy(copy, sow_flash_emu_peek(&b->flash, addr - at), page);
    for (uint32_t i = 0; i < n; i++)
        copy[at + i] = (uint8_t)(b->port.erase_value != 0 ? copy[at + i] & src[i] : copy[at + i] | src[i]);
    return sow_flash_emu_load(&b->flash, addr - at, copy, page);
}

static int board_prog(void *user, uint32_t addr, const void *buf, uint32_t n)
{
    struct board *b = user;
    const uint8_t *src = buf;
    uint32_t g = b->port.granule, part = n;
    uint8_t copy[64];

    if (n > sizeof copy)
        abort();
    memcpy(copy, src, n);
    b->ticks += n / g;
    switch (b->fault) {
    case PROG_SWAPS_BYTES:
        copy[0] = src[1];
        copy[1] = src[0];
        break;
    case PROG_DROPS_LAST:
        copy[n - 1] = b->port.erase_value;
        break;
    case GRANULE_TOO_SMALL: /* the true granule: of the emulator; read, modify, write into the blank part */
        if (addr % b->flash.geometry.granule != 0 || n % b->flash.geometry.granule != 0) {
            uint32_t start = addr / b->flash.geometry.granule * b->flash.geometry.granule;

            memset(copy, b->port.erase_value, sizeof copy);
            memcpy(copy + (addr - start), src, n);
            n = (addr + n - start + b->flash.geometry.granule - 1) / b->flash.geometry.granule *
                b->flash.geometry.granule;
            addr = start;
        }
        break;
    case PROG_PADS:
        if (n < 32) {
            memset(copy + n, ~b->port.erase_value, 32 - n);
            return force(b, addr, copy, 32) != 0 ? -1 : 0;
        }
        break;
    case SOURCE_ALIGNED:
        src -= (uintptr_t)src % 4u;
        memcpy(copy, src, n);
        break;
    case ROW_WRAPS:
        part = 64u - (addr - BASE) % 64u;
        if (part < n) { /* as an SPI NOR does at the end of its row */
            if (sow_flash_emu_prog(&b->flash, addr, copy, part) != 0)
                return -1;
            return force(b, addr + part - 64u, copy + part, n - part) != 0 ? -1 : 0;
        }
        break;
    case ONE_GRANULE_ONLY:
        n = g;
        break;
    case STOPS_AT_PAGE:
        part = b->port.page - (addr - BASE) % b->port.page;
        n = part < n ? part : n;
        break;
    case REWRITE_ANDS:
        if (used(b, addr, n))
            return force(b, addr, copy, n) != 0 ? -1 : 0;
        break;
    case REWRITE_IGNORED:
        if (used(b, addr, n))
            return 0;
        break;
    case REWRITE_POSITIVE:
        if (used(b, addr, n))
            return 1;
        break;
    case PROG_ROUNDS:
        addr -= addr % g;
        if (n % g != 0)
            memset(copy + n, b->port.erase_value, g - n % g);
        n = (n + g - 1) / g * g;
        break;
    case LAST_GRANULE_LATE:
        if (flush(b) != 0)
            return -1;
        if (used(b, addr, n) || addr % g != 0 || n % g != 0)
            return -1;
        if (n > g && sow_flash_emu_prog(&b->flash, addr, copy, n - g) != 0)
            return -1;
        memcpy(b->late, copy + n - g, g);
        b->late_addr = addr + n - g;
        return 0;
    default:
        break;
    }
    return sow_flash_emu_prog(&b->flash, where(b, addr), copy, n) != 0 ? -1 : 0;
}

static int board_erase(void *user, uint32_t addr, uint32_t n)
{
    struct board *b = user;
    uint32_t page = b->flash.geometry.page;

    b->ticks += 100;
    switch (b->fault) {
    case ERASE_NOTHING:
        return 0;
    case FIRST_PAGE_ONLY:
        n = page;
        break;
    case ERASE_ROUNDS:
        addr -= addr % page;
        n = (n + page - 1) / page * page;
        break;
    case PAGE_TOO_SMALL: /* the emulator's pages are twice as large */
        if (addr % b->port.page != 0 || n % b->port.page != 0)
            return -1;
        n = (addr + n + page - 1) / page * page - addr / page * page;
        addr = addr / page * page;
        break;
    case HITS_SLOT_B:
        if (addr == b->map.scratch.addr && !b->hit++ && sow_flash_emu_flip(&b->flash, b->map.slot_b.addr + 77u, 3) != 0)
            return -1;
        break;
    case LAST_GRANULE_LATE:
        if (flush(b) != 0)
            return -1;
        break;
    default:
        break;
    }
    return sow_flash_emu_erase(&b->flash, where(b, addr), n) != 0 ? -1 : 0;
}

static uint32_t board_random(void *user)
{
    struct board *b = user;

    return b->fault == CONSTANT_RANDOM ? 4u : (b->random = b->random * 1664525u + 1013904223u);
}

static int board_aes(void *user, const uint8_t *key, const uint8_t in[16], uint8_t out[16])
{
    static const uint8_t fixed[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const struct board *b = user;
    uint8_t word[16];

    memcpy(word, in, sizeof word);
    for (uint32_t i = 0; i < 16u && b->fault == AES_REVERSED; i++)
        word[i] = in[(i & 12u) + 3u - (i & 3u)];
    sow_aes128_encrypt(b->fault == AES_FIXED_KEY ? fixed : key, word, out);
    return 0;
}

static int board_verify(void *user, uint8_t key_id, const uint8_t hash[32], const uint8_t sig[64])
{
    const struct board *b = user;

    (void)key_id;
    (void)hash;
    (void)sig;
    return b->fault == VERIFY_ACCEPTS ? 0 : b->fault == VERIFY_POSITIVE ? 1 : -1;
}

static uint32_t board_tick(void *user)
{
    const struct board *b = user;

    return b->ticks;
}

static void board_idle(void *user)
{
    struct board *b = user;

    b->idles++;
}

static struct board *setup(uint32_t page, uint32_t granule, uint8_t erase_value, enum fault fault)
{
    struct board *b = calloc(1, sizeof *b);
    struct sow_flash_emu_geometry g = {BASE, 32 * page, page, granule, erase_value};
    uint8_t *image;
    uint32_t at = BASE;

    if (b == NULL)
        abort();
    b->fault = fault;
    b->port.granule = granule;
    b->port.page = page;
    b->port.erase_value = erase_value;
    if (fault == GRANULE_TOO_SMALL)
        b->port.granule = granule / 2u;
    if (fault == PAGE_TOO_SMALL)
        b->port.page = page / 2u;
    b->memory = malloc(sow_flash_emu_size(&g));
    if (b->memory == NULL || sow_flash_emu_init(&b->flash, &g, b->memory) != 0)
        abort();
    struct {
        struct sow_region *region;
        uint32_t pages;
    } regions[] = {{&b->map.slot_a, 8}, {&b->map.slot_b, 8}, {&b->map.download, 9},
                   {&b->map.journal, 2}, {&b->map.boot, 2}, {&b->map.scratch, 3}};
    for (unsigned i = 0; i < 6; i++) {
        regions[i].region->addr = at;
        regions[i].region->size = regions[i].pages * page;
        at += regions[i].region->size;
    }
    image = malloc(8 * page);
    if (image == NULL)
        abort();
    for (uint32_t i = 0; i < 8 * page; i++)
        image[i] = (uint8_t)(i * 7u + i / 256u);
    if (sow_flash_emu_load(&b->flash, b->map.slot_a.addr, image, 8 * page) != 0 ||
        sow_flash_emu_load(&b->flash, b->map.download.addr, image, 9 * page / 2) != 0) /* rests of an old session */
        abort();
    free(image);
    b->factory = malloc(sow_flash_emu_snapshot_size(&b->flash));
    if (b->factory == NULL)
        abort();
    sow_flash_emu_save(&b->flash, b->factory);

    b->port.user = b;
    b->port.read = board_read;
    b->port.prog = board_prog;
    b->port.erase = fault == NO_ERASE ? NULL : board_erase;
    b->port.random = board_random;
    b->port.idle = board_idle;
    if (fault >= GOOD_CRYPTO && fault <= VERIFY_POSITIVE) {
        b->port.aes = board_aes;
        b->port.verify = board_verify;
    }
    if (fault == ODD_GRANULE)
        b->port.granule = 12;
    if (fault == WRONG_ERASE_VALUE)
        b->port.erase_value = erase_value;
    if (fault == OVERLAP)
        b->map.journal.addr = b->map.download.addr + page;
    if (fault == UNALIGNED_REGION)
        b->map.download.addr += granule;
    if (fault == UNEQUAL_SLOTS)
        b->map.slot_b.size -= page;
    return b;
}

static void teardown(struct board *b)
{
    free(b->memory);
    free(b->factory);
    free(b);
}

static void reset(struct board *b)
{
    b->late_addr = 0;
    if (b->fault == NOTHING_PERSISTS)
        sow_flash_emu_restore(&b->flash, b->factory);
}

/* Some faults cannot exist in some geometries. */
static int possible(enum fault fault, uint32_t page, uint32_t granule)
{
    switch (fault) {
    case GRANULE_TOO_SMALL:
    case PROG_ROUNDS:
        return granule > 1;
    case PROG_SWAPS_BYTES:
        return granule > 1;
    case PAGE_TOO_SMALL:
        return page > 128;
    case PROG_PADS:
        return granule < 16; /* 32 bytes are then the two granules beside */
    default:
        return 1;
    }
}

/* A fault that would be noticed earlier, for a reason as good. */
static int also(enum fault fault, uint8_t clause)
{
    switch (fault) {
    case ONE_GRANULE_ONLY: /* of 16 bytes, one is left in a page of 128 */
        return clause == SOW_CLAUSE_BOUNDARY;
    case ROW_WRAPS: /* granules and boundaries of small flash fall on rows */
        return clause == SOW_CLAUSE_GRANULE || clause == SOW_CLAUSE_BOUNDARY;
    case ADDRESS_MASKED: /* pages of the first four share a place */
        return clause == SOW_CLAUSE_NEIGHBOUR || clause == SOW_CLAUSE_BOUNDARY || clause == SOW_CLAUSE_SPAN;
    default:
        return 0;
    }
}

static void run(uint32_t page, uint32_t granule, uint8_t erase_value, enum fault fault)
{
    struct board *b = setup(page, granule, erase_value, fault);
    struct sow_selftest_report r;
    uint8_t want = cases[fault].clause;
    int err;

    snprintf(context, sizeof context, "%s, page %u, granule %u, erase value 0x%02x", cases[fault].name,
             (unsigned)page, (unsigned)granule, erase_value);
    memset(&r, 0xaa, sizeof r); /* whatever the caller left there */
    r.tick = board_tick;
    r.after_reset = 0;
    err = sow_port_selftest(&b->port, &b->map, &r);
    if (want == SOW_CLAUSE_NONE || want == SOW_CLAUSE_PERSISTENCE) {
        CHECK(err == SOW_MORE && r.clause == SOW_CLAUSE_NONE);
        CHECK(r.pages == 12);
        CHECK(r.erase_page == 100 && r.prog_granule == 1 && r.prog_page == page / granule && r.read_page == 0);
        CHECK(b->idles > 12);
        reset(b);
        if (fault == NOTHING_PERSISTS) { /* without being told, it can only begin again */
            CHECK(sow_port_selftest(&b->port, &b->map, &r) == SOW_MORE);
            reset(b);
        }
        r.after_reset = want == SOW_CLAUSE_PERSISTENCE;
        err = sow_port_selftest(&b->port, &b->map, &r);
    }
    CHECK(err == (want == SOW_CLAUSE_NONE ? SOW_OK : -SOW_CAUSE_FLASH_IO));
    if (!also(fault, r.clause)) {
        CHECK(r.clause == want);
        if (r.clause != want && failures < 20)
            fprintf(stderr, "  got \"%s\" at 0x%08x, code %d, want 0x%02x, got 0x%02x\n", sow_selftest_text(r.clause),
                    (unsigned)r.addr, r.code, r.want, r.got);
    }
    if (want == SOW_CLAUSE_NONE) { /* the regions are left erased, everything else as it was */
        const uint8_t *d = sow_flash_emu_peek(&b->flash, b->map.download.addr);
        struct sow_flash_emu now = b->flash;
        uint8_t *copy = malloc(16 * page);
        int same;

        if (copy == NULL)
            abort();
        for (uint32_t i = 0; i < b->map.download.size; i++)
            if (d[i] != erase_value) {
                CHECK(d[i] == erase_value);
                break;
            }
        CHECK(now.violations > 0 && now.refusals == 0); /* the forbidden operations were tried */
        CHECK(sow_flash_emu_wear(&b->flash, b->map.scratch.addr) <= 4);
        CHECK(sow_flash_emu_wear(&b->flash, b->map.slot_a.addr) == 0);
        memcpy(copy, sow_flash_emu_peek(&b->flash, b->map.slot_a.addr), 16 * page);
        sow_flash_emu_restore(&b->flash, b->factory);
        same = memcmp(copy, sow_flash_emu_peek(&b->flash, b->map.slot_a.addr), 16 * page) == 0;
        CHECK(same);
        free(copy);
    }
    teardown(b);
}

int main(void)
{
    static const uint32_t pages[] = {128, 256, 2048, 8192}, granules[] = {1, 2, 4, 8, 16};
    unsigned broken = 0, tried = 0;

    for (unsigned fault = SOUND; fault < FAULTS; fault++) {
        broken += cases[fault].clause != SOW_CLAUSE_NONE;
        for (unsigned i = 0; i < 40; i++) {
            uint32_t page = pages[i / 10], granule = granules[i / 2 % 5];
            uint8_t erase_value = i % 2 ? 0xff : 0x00;

            if (!possible((enum fault)fault, page, granule))
                continue;
            tried++;
            run(page, granule, erase_value, (enum fault)fault);
        }
    }
    for (unsigned clause = 1; clause < SOW_CLAUSES_; clause++) {
        unsigned seen = 0;

        for (unsigned fault = SOUND; fault < FAULTS; fault++)
            seen += cases[fault].clause == clause;
        snprintf(context, sizeof context, "clause %u", clause);
        CHECK(seen > 0); /* every clause has a port that breaks it */
        CHECK(strlen(sow_selftest_text((uint8_t)clause)) > 20);
    }
    CHECK(sow_selftest_text(200)[0] == '\0');
    printf("port selftest: %u broken ports, %u runs, %u checks, %u failed\n", broken, tried, checks, failures);
    return failures != 0;
}
