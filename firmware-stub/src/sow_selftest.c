/* See sow_selftest.h. Nothing in the library calls this file.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "sow_selftest.h"

#include <string.h>

#define CHUNK 48u /* bytes moved at a time: 3 granules of 16, and no divisor of a page */
#define GUARD 16u

struct run {
    const struct sow_port *port;
    const struct sow_map *map;
    struct sow_selftest_report *report;
};

static int broken(struct run *r, enum sow_selftest_clause clause, uint32_t addr, int code)
{
    r->report->clause = (uint8_t)clause;
    r->report->addr = addr;
    r->report->code = code;
    return -SOW_CAUSE_FLASH_IO;
}

static int differs(struct run *r, enum sow_selftest_clause clause, uint32_t addr, uint8_t want, uint8_t got)
{
    r->report->want = want;
    r->report->got = got;
    return broken(r, clause, addr, 0);
}

static uint32_t now(const struct run *r)
{
    return r->report->tick != 0 ? r->report->tick(r->port->user) : 0;
}

static void longest(const struct run *r, uint32_t *max, uint32_t since)
{
    uint32_t took = now(r) - since;

    if (took > *max)
        *max = took;
}

static void idle(const struct run *r)
{
    if (r->port->idle != 0)
        r->port->idle(r->port->user);
}

/* The byte that belongs at an address: of no other address nearby, and never an erased one. */
static uint8_t pattern(uint32_t addr)
{
    uint32_t h = (addr ^ addr >> 15) * 0x2c1b3c6du;

    h = (h ^ h >> 12) * 0x297a2d39u;
    return (uint8_t)(1u + (h >> 16) % 254u);
}

static void fill(uint8_t *buf, uint32_t addr, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        buf[i] = pattern(addr + i);
}

/* Are n bytes as the pattern says (or, with blank, erased)? Reads whole granules. */
static int compare(struct run *r, enum sow_selftest_clause clause, uint32_t addr, uint32_t n, int blank)
{
    uint32_t buf[CHUNK / 4];
    const uint8_t *got = (const uint8_t *)buf;

    for (uint32_t at = addr; at < addr + n; at += CHUNK) {
        uint32_t part = addr + n - at < CHUNK ? addr + n - at : CHUNK;
        int code = r->port->read(r->port->user, at, buf, part);

        if (code != 0)
            return broken(r, clause, at, code);
        for (uint32_t i = 0; i < part; i++) {
            uint8_t want = blank ? r->port->erase_value : pattern(at + i);

            if (got[i] != want)
                return differs(r, clause, at + i, want, got[i]);
        }
    }
    return SOW_OK;
}

/* Erase whole pages, and see that they are. */
static int erase(struct run *r, uint32_t addr, uint32_t n)
{
    uint32_t since;
    int code, err = SOW_OK;

    idle(r);
    since = now(r);
    code = r->port->erase(r->port->user, addr, n);
    if (n == r->port->page)
        longest(r, &r->report->erase_page, since);
    if (code != 0)
        return broken(r, SOW_CLAUSE_ERASE, addr, code);
    for (uint32_t at = addr; at < addr + n && err == SOW_OK; at += r->port->page) {
        idle(r);
        err = compare(r, SOW_CLAUSE_ERASE, at, r->port->page, 1);
    }
    return err;
}

/* Program the pattern, in pieces of `piece` bytes. */
static int program(struct run *r, enum sow_selftest_clause clause, uint32_t addr, uint32_t n, uint32_t piece)
{
    uint32_t buf[CHUNK / 4];

    for (uint32_t at = addr; at < addr + n; at += piece) {
        uint32_t part = addr + n - at < piece ? addr + n - at : piece;
        int code;

        fill((uint8_t *)buf, at, part);
        code = r->port->prog(r->port->user, at, buf, part);
        if (code != 0)
            return broken(r, clause, at, code);
    }
    return SOW_OK;
}

/* The most granules that a chunk holds, three at a time, so that pieces end at no round address. */
static uint32_t piece(const struct run *r)
{
    return CHUNK / (3u * r->port->granule) * 3u * r->port->granule;
}

static uint32_t page_addr(const struct run *r, uint32_t page)
{
    return r->map->download.addr + page * r->port->page;
}

/* Without flash */

static int check_callbacks(struct run *r)
{
    const struct sow_port *p = r->port;

    return p->read == 0 || p->prog == 0 || p->erase == 0 || p->random == 0 ? broken(r, SOW_CLAUSE_CALLBACKS, 0, 0)
                                                                           : SOW_OK;
}

static int power_of_two(uint32_t x)
{
    return x != 0 && (x & (x - 1u)) == 0;
}

static int check_geometry(struct run *r)
{
    const struct sow_port *p = r->port;

    if (!power_of_two(p->granule) || p->granule > 16u || !power_of_two(p->page) || p->page < 128u ||
        p->page > 8192u || (p->erase_value != 0xffu && p->erase_value != 0x00u))
        return broken(r, SOW_CLAUSE_GEOMETRY, 0, 0);
    return SOW_OK;
}

static int check_map(struct run *r)
{
    const struct sow_map *m = r->map;
    const struct sow_region regions[] = {m->slot_a, m->slot_b, m->download, m->journal, m->boot, m->scratch};
    static const uint8_t least[] = {1, 1, 4, 2, 2, 1}; /* pages */
    const uint32_t count = sizeof regions / sizeof regions[0], page = r->port->page;

    for (uint32_t i = 0; i < count; i++) {
        const struct sow_region *a = &regions[i];

        if ((a->addr | a->size) % page != 0 || a->size / page < least[i] || a->size > UINT32_MAX - a->addr)
            return broken(r, SOW_CLAUSE_MAP, a->addr, 0);
        for (uint32_t k = 0; k < i; k++)
            if (a->addr - regions[k].addr < regions[k].size || regions[k].addr - a->addr < a->size)
                return broken(r, SOW_CLAUSE_MAP, a->addr, 0);
    }
    return m->slot_a.size != m->slot_b.size ? broken(r, SOW_CLAUSE_MAP, m->slot_b.addr, 0) : SOW_OK;
}

static int check_random(struct run *r)
{
    uint32_t first = r->port->random(r->port->user);

    for (uint32_t i = 0; i < 8u; i++)
        if (r->port->random(r->port->user) != first)
            return SOW_OK;
    return broken(r, SOW_CLAUSE_RANDOM, 0, 0);
}

static int check_crypto(struct run *r)
{
    /* FIPS 197, appendix C.1, and the same with another key bit. */
    static const uint8_t want[16] = {0x69, 0xc4, 0xe0, 0xd8, 0x6a, 0x7b, 0x04, 0x30,
                                     0xd8, 0xcd, 0xb7, 0x80, 0x70, 0xb4, 0xc5, 0x5a};
    uint8_t key[16], in[16], out[16], sig[64];
    int code;

    if (r->port->aes != 0) {
        for (uint8_t i = 0; i < 16u; i++) {
            key[i] = i;
            in[i] = (uint8_t)(i * 0x11u);
        }
        code = r->port->aes(r->port->user, key, in, out);
        if (code != 0 || memcmp(out, want, sizeof want) != 0)
            return broken(r, SOW_CLAUSE_AES, 0, code);
        key[15] ^= 1u;
        code = r->port->aes(r->port->user, key, in, out);
        if (code != 0 || memcmp(out, want, sizeof want) == 0)
            return broken(r, SOW_CLAUSE_AES, 0, code);
    }
    if (r->port->verify != 0) {
        memset(key, 0x5a, sizeof key);
        for (uint8_t part = 0; part < 2u; part++) { /* r = s = 0, then numbers that sign nothing */
            uint8_t hash[32];

            memset(hash, 0xa5, sizeof hash);
            memset(sig, part, sizeof sig);
            code = r->port->verify(r->port->user, 1u, hash, sig);
            if (code >= 0)
                return broken(r, SOW_CLAUSE_VERIFY, 0, code);
        }
    }
    return SOW_OK;
}

/* With flash. The first four pages of the download region are p0 to p3. */

static int check_erase(struct run *r)
{
    const struct sow_region *regions[] = {&r->map->download, &r->map->scratch};

    for (uint32_t i = 0; i < 2u; i++) {
        uint32_t addr = regions[i]->addr, size = regions[i]->size;
        uint8_t buf[CHUNK], other = (uint8_t)~r->port->erase_value;
        int err = erase(r, addr, size);
        uint32_t n = 0;

        if (err == SOW_OK)
            continue;
        /* Bytes alike, but not what the port says: the declaration is wrong rather than the erase. */
        if (r->report->code == 0 && r->port->read(r->port->user, addr, buf, sizeof buf) == 0)
            while (n < sizeof buf && buf[n] == other)
                n++;
        if (n == sizeof buf)
            r->report->clause = SOW_CLAUSE_ERASE_VALUE;
        return err;
    }
    return SOW_OK;
}

static int check_granule(struct run *r)
{
    uint32_t g = r->port->granule, p0 = page_addr(r, 0), since;
    uint32_t buf[CHUNK / 4];
    const uint8_t *got = (const uint8_t *)buf;
    int err;

    /* The second granule first: a driver that programs more than it should hits one on either side. */
    since = now(r);
    if ((err = program(r, SOW_CLAUSE_PROG, p0 + g, g, g)) < 0)
        return err;
    longest(r, &r->report->prog_granule, since);
    if ((err = r->port->read(r->port->user, p0, buf, sizeof buf)) != 0)
        return broken(r, SOW_CLAUSE_READ, p0, err);
    for (uint32_t pass = 0; pass < 2u; pass++) /* the granule itself, then those beside it */
        for (uint32_t i = 0; i < sizeof buf; i++) {
            int own = i >= g && i < 2u * g;
            uint8_t want = own ? pattern(p0 + i) : r->port->erase_value;

            if (own == (pass == 0) && got[i] != want)
                return differs(r, own ? SOW_CLAUSE_PROG : SOW_CLAUSE_GRANULE, p0 + i, want, got[i]);
        }
    for (uint32_t at = p0; at < p0 + 64u; at += g)
        if (at != p0 + g && (err = program(r, SOW_CLAUSE_GRANULE, at, g, g)) < 0)
            return err;
    return compare(r, SOW_CLAUSE_GRANULE, p0, 64, 0);
}

static int check_read(struct run *r)
{
    uint8_t buf[GUARD + 40u + GUARD];
    uint32_t p0 = page_addr(r, 0);

    for (uint32_t off = 0; off < 20u; off++)
        for (uint32_t n = 1; n <= 37u; n += n < 18u ? 1u : 19u) {
            uint8_t *at = buf + GUARD + (off & 3u); /* to any address in RAM */
            int code;

            memset(buf, 0x3c, sizeof buf);
            code = r->port->read(r->port->user, p0 + off, at, n);
            if (code != 0)
                return broken(r, SOW_CLAUSE_READ, p0 + off, code);
            for (uint32_t i = 0; i < n; i++)
                if (at[i] != pattern(p0 + off + i))
                    return differs(r, SOW_CLAUSE_READ, p0 + off + i, pattern(p0 + off + i), at[i]);
            for (uint32_t i = 0; i < sizeof buf; i++)
                if ((buf + i < at || buf + i >= at + n) && buf[i] != 0x3cu)
                    return differs(r, SOW_CLAUSE_READ, p0 + off, 0x3c, buf[i]);
        }
    return SOW_OK;
}

static int check_source(struct run *r)
{
    uint32_t buf[CHUNK / 4 + 1u], g = r->port->granule, at = page_addr(r, 0) + 64u;

    for (uint32_t shift = 1; shift < 4u; shift++, at += g) {
        uint8_t *src = (uint8_t *)buf + shift;
        int code;

        fill(src, at, g);
        code = r->port->prog(r->port->user, at, src, g);
        if (code != 0)
            return broken(r, SOW_CLAUSE_SOURCE, at, code);
    }
    return compare(r, SOW_CLAUSE_SOURCE, at - 3u * g, 3u * g, 0);
}

static int check_span(struct run *r)
{
    uint32_t used = 64u + 3u * r->port->granule, at = page_addr(r, 0) + used, n = r->port->page - used;
    int err = program(r, SOW_CLAUSE_SPAN, at, n, piece(r));

    if (err == SOW_OK)
        err = compare(r, SOW_CLAUSE_SPAN, at, n, 0);
    return err;
}

static int check_boundary(struct run *r)
{
    uint32_t n = piece(r), at = page_addr(r, 2) - n / 3u; /* a third in p1, the rest in p2 */
    int err;

    if ((err = program(r, SOW_CLAUSE_BOUNDARY, at, n, n)) < 0 ||
        (err = compare(r, SOW_CLAUSE_BOUNDARY, at, n, 0)) < 0 ||
        (err = compare(r, SOW_CLAUSE_BOUNDARY, page_addr(r, 1), CHUNK, 1)) < 0)
        return err;
    return compare(r, SOW_CLAUSE_BOUNDARY, page_addr(r, 3) - CHUNK, CHUNK, 1);
}

/* An operation that must fail, and fail by a negative number. */
static int refused(struct run *r, enum sow_selftest_clause clause, uint32_t addr, int code)
{
    return code >= 0 ? broken(r, clause, addr, code) : SOW_OK;
}

static int check_rewrite(struct run *r)
{
    uint32_t g = r->port->granule, p0 = page_addr(r, 0), p3 = page_addr(r, 3);
    uint8_t buf[32];
    int err;

    for (uint32_t way = 0; way < 3u; way++) {
        /* Other bits, then bits that a NOR cell could still take, then the very same bits. */
        static const uint8_t change[] = {0xff, 0x0f, 0x00};

        fill(buf, p0, g);
        for (uint32_t i = 0; i < g; i++)
            buf[i] = r->port->erase_value != 0 ? (uint8_t)(way == 1u ? buf[i] & 0x0fu : buf[i] ^ change[way])
                                               : (uint8_t)(way == 1u ? buf[i] | 0xf0u : buf[i] ^ change[way]);
        err = r->port->prog(r->port->user, p0, buf, g);
        if ((err = refused(r, SOW_CLAUSE_REWRITE, p0, err)) < 0 ||
            (err = compare(r, SOW_CLAUSE_REWRITE, p0, 2u * g, 0)) < 0)
            return err;
    }
    /* A blank granule before a used one. */
    if ((err = program(r, SOW_CLAUSE_REWRITE, p3 + g, g, g)) < 0)
        return err;
    fill(buf, p3 + 1u, 2u * g);
    err = r->port->prog(r->port->user, p3, buf, 2u * g);
    if ((err = refused(r, SOW_CLAUSE_REWRITE, p3 + g, err)) < 0)
        return err;
    return compare(r, SOW_CLAUSE_REWRITE, p3 + g, g, 0);
}

static int check_alignment(struct run *r)
{
    uint32_t g = r->port->granule, page = r->port->page, p0 = page_addr(r, 0), at = page_addr(r, 3) + 64u;
    uint8_t buf[32];
    int err = SOW_OK;

    memset(buf, 0x5a, sizeof buf);
    for (uint32_t off = 1; off < g; off *= 2u) {
        err = r->port->prog(r->port->user, at + off, buf, g);
        if ((err = refused(r, SOW_CLAUSE_ALIGNMENT, at + off, err)) < 0)
            return err;
        err = r->port->prog(r->port->user, at, buf, g + off);
        if ((err = refused(r, SOW_CLAUSE_ALIGNMENT, at, err)) < 0)
            return err;
    }
    if ((err = compare(r, SOW_CLAUSE_ALIGNMENT, at, 64, 1)) < 0)
        return err;
    for (uint32_t part = page / 2u; part >= 64u; part /= 2u) {
        err = r->port->erase(r->port->user, p0 + part, page);
        if ((err = refused(r, SOW_CLAUSE_ALIGNMENT, p0 + part, err)) < 0)
            return err;
        err = r->port->erase(r->port->user, p0, part);
        if ((err = refused(r, SOW_CLAUSE_ALIGNMENT, p0, err)) < 0)
            return err;
    }
    return compare(r, SOW_CLAUSE_ALIGNMENT, p0, page, 0);
}

static int check_neighbour(struct run *r)
{
    uint32_t page = r->port->page, p0 = page_addr(r, 0), p1 = page_addr(r, 1), p2 = page_addr(r, 2);
    int err;

    /* p0 is full; p1 and p2 become so, p1 a second time. */
    if ((err = erase(r, p1, 2u * page)) < 0 ||
        (err = compare(r, SOW_CLAUSE_NEIGHBOUR, p0, page, 0)) < 0 ||
        (err = program(r, SOW_CLAUSE_SPAN, p1, 2u * page, piece(r))) < 0 || (err = erase(r, p1, page)) < 0 ||
        (err = compare(r, SOW_CLAUSE_NEIGHBOUR, p0, page, 0)) < 0 ||
        (err = compare(r, SOW_CLAUSE_NEIGHBOUR, p2, page, 0)) < 0)
        return err;
    return program(r, SOW_CLAUSE_SPAN, p1, page, piece(r));
}

/* All of a region: erased page by page, programmed, and read back only when everything is written. The first
 * granules of the scratch region come last of all: they say that the first half is done. */
static int write_region(struct run *r, const struct sow_region *region, uint32_t keep)
{
    uint32_t page = r->port->page, since;
    int err;

    for (uint32_t at = region->addr; at < region->addr + region->size; at += page)
        if ((err = erase(r, at, page)) < 0)
            return err;
    for (uint32_t at = region->addr; at < region->addr + region->size; at += page) {
        uint32_t skip = at == region->addr ? keep : 0;

        idle(r);
        since = now(r);
        if ((err = program(r, SOW_CLAUSE_SPAN, at + skip, page - skip, piece(r))) < 0)
            return err;
        longest(r, &r->report->prog_page, since);
        r->report->pages++;
    }
    return SOW_OK;
}

#define MARK 16u /* bytes: a multiple of every granule */

static int compare_region(struct run *r, enum sow_selftest_clause clause, const struct sow_region *region,
                          uint32_t skip)
{
    uint32_t page = r->port->page;
    int err = SOW_OK;

    for (uint32_t at = region->addr; at < region->addr + region->size && err == SOW_OK; at += page) {
        uint32_t since = now(r);

        idle(r);
        err = compare(r, clause, at + skip, page - skip, 0);
        longest(r, &r->report->read_page, since);
        skip = 0;
    }
    return err;
}

static int check_alias(struct run *r)
{
    const struct sow_region *scratch = &r->map->scratch;
    int err;

    if ((err = write_region(r, &r->map->download, 0)) < 0 || (err = write_region(r, scratch, MARK)) < 0 ||
        (err = compare_region(r, SOW_CLAUSE_ALIAS, &r->map->download, 0)) < 0 ||
        (err = compare_region(r, SOW_CLAUSE_ALIAS, scratch, MARK)) < 0)
        return err;
    return compare(r, SOW_CLAUSE_ALIAS, scratch->addr, MARK, 1);
}

/* A checksum of everything that must not change. */
static void sum_others(struct run *r, uint32_t *sum)
{
    const struct sow_region *regions[] = {&r->map->slot_a, &r->map->slot_b, &r->map->journal, &r->map->boot};
    uint32_t buf[8];

    *sum = 0;
    for (uint32_t i = 0; i < 4u; i++)
        for (uint32_t at = regions[i]->addr; at < regions[i]->addr + regions[i]->size; at += sizeof buf) {
            if (at % r->port->page == 0)
                idle(r);
            /* A torn granule of a running device may fail to read; it fails both times. */
            if (r->port->read(r->port->user, at, buf, sizeof buf) != 0)
                buf[0] = at;
            for (uint32_t k = 0; k < sizeof buf / sizeof buf[0]; k++)
                *sum = (*sum ^ buf[k]) * 0x01000193u + (*sum >> 13);
        }
}

static int first_half(struct run *r)
{
    uint32_t before, after;
    int err;

    sum_others(r, &before);
    if ((err = check_erase(r)) < 0 || (err = check_granule(r)) < 0 || (err = check_read(r)) < 0 ||
        (err = check_source(r)) < 0 || (err = check_span(r)) < 0 || (err = check_boundary(r)) < 0 ||
        (err = check_rewrite(r)) < 0 || (err = check_alignment(r)) < 0 || (err = check_neighbour(r)) < 0 ||
        (err = check_alias(r)) < 0)
        return err;
    sum_others(r, &after);
    if (after != before)
        return broken(r, SOW_CLAUSE_OTHERS, 0, 0);
    err = program(r, SOW_CLAUSE_PROG, r->map->scratch.addr, MARK, r->port->granule);
    return err < 0 ? err : SOW_MORE;
}

static int second_half(struct run *r)
{
    int err;

    if ((err = compare_region(r, SOW_CLAUSE_PERSISTENCE, &r->map->scratch, 0)) < 0 ||
        (err = compare_region(r, SOW_CLAUSE_PERSISTENCE, &r->map->download, 0)) < 0 ||
        (err = erase(r, r->map->scratch.addr, r->map->scratch.size)) < 0)
        return err;
    return erase(r, r->map->download.addr, r->map->download.size);
}

int sow_port_selftest(const struct sow_port *port, const struct sow_map *map, struct sow_selftest_report *report)
{
    struct run run = {port, map, report};
    struct sow_selftest_report found;
    int err;

    report->pages = 0;
    report->erase_page = report->prog_page = report->prog_granule = report->read_page = 0;
    report->want = report->got = 0;
    (void)broken(&run, SOW_CLAUSE_NONE, 0, 0);
    if ((err = check_callbacks(&run)) < 0 || (err = check_geometry(&run)) < 0 || (err = check_map(&run)) < 0 ||
        (err = check_random(&run)) < 0 || (err = check_crypto(&run)) < 0)
        return err;
    found = *report;
    if (report->after_reset != 0 || compare(&run, SOW_CLAUSE_PERSISTENCE, map->scratch.addr, MARK, 0) == SOW_OK)
        return second_half(&run);
    *report = found;
    return first_half(&run);
}

const char *sow_selftest_text(uint8_t clause)
{
    static const char *const text[SOW_CLAUSES_] = {
        "",
        "callbacks: read, prog, erase and random must all be given",
        "geometry: granule 1, 2, 4, 8 or 16; page a power of two, 128 to 8192; erase_value 0xff or 0x00",
        "map: a region overlaps another, is not whole pages at a page boundary, or is too small; or the slots differ",
        "random: it returns the same number again and again; seed it",
        "aes: it is not AES-128 with the key that it is given",
        "verify: it accepts what is no signature; valid is 0, anything else must be negative",
        "erase: it failed, or some bytes of the pages did not become erased; does it erase all pages it is given?",
        "erase_value: erased bytes read something else than the port says",
        "prog: a granule does not read back as it was programmed",
        "granule: programming one changes or blocks its neighbour; the flash has a larger granule than the port says",
        "read: it must take any address and length, and write no byte beyond",
        "source: prog must take its bytes from any address in RAM; copy them to an aligned word first",
        "span: one prog of several granules is not carried out whole; does it wrap inside a row buffer?",
        "boundary: one prog or read across a page boundary is not carried out whole",
        "rewrite: a second prog of a granule must return a negative number and change nothing; check that it is blank",
        "alignment: a part of a granule or page must be refused with a negative number, not rounded",
        "neighbour: erasing a page changes another; the flash has larger pages than the port says",
        "alias: two addresses share one place; is the address masked or translated?",
        "others: something outside the download and scratch regions has changed",
        "persistence: what was programmed is not there after a reset; is there a cache that is not flushed?",
    };

    return clause < SOW_CLAUSES_ ? text[clause] : "";
}
