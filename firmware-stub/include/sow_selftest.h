/* The porting checklist, as a program: does this port keep what sow_port.h promises?
 *
 *     struct sow_selftest_report report = {.tick = microseconds};
 *     int r = sow_port_selftest(&port, &map, &report);
 *     if (r == SOW_MORE) ask_for_a_reset();      // then call once more: the second half looks at what is left
 *     if (r < 0) print(sow_selftest_text(report.clause), report.addr);
 *
 * It runs on the download and scratch regions only, and destroys what they hold: for the bench, never while an
 * update is under way. Every page of them is erased three times and programmed twice; the first four are worn
 * a little more. The port must be the application's, with the flash clauses in force that the boot stub shares.
 *
 * Not covered: power cuts, reads of torn granules, whether interrupts stay off too long.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SOW_SELFTEST_H
#define SOW_SELFTEST_H

#include <stdint.h>

#include "sow_port.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a port owes, in the order in which it is tested: a clause is judged with those before it known to hold. */
enum sow_selftest_clause {
    SOW_CLAUSE_NONE = 0,
    SOW_CLAUSE_CALLBACKS = 1,   /* read, prog, erase and random are given */
    SOW_CLAUSE_GEOMETRY = 2,    /* granule, page and erase_value are possible */
    SOW_CLAUSE_MAP = 3,         /* whole pages at page boundaries, no overlap, slots alike, none too small */
    SOW_CLAUSE_RANDOM = 4,      /* random differs from call to call */
    SOW_CLAUSE_AES = 5,         /* aes is AES-128 with the key it is given (FIPS 197) */
    SOW_CLAUSE_VERIFY = 6,      /* verify refuses what is no signature */
    SOW_CLAUSE_ERASE = 7,       /* erase takes any number of pages and leaves all their bytes alike */
    SOW_CLAUSE_ERASE_VALUE = 8, /* ... namely erase_value */
    SOW_CLAUSE_PROG = 9,        /* a programmed granule reads back as it was given */
    SOW_CLAUSE_GRANULE = 10,    /* a granule is programmed alone: its neighbours stay as they are and usable */
    SOW_CLAUSE_READ = 11,       /* any address, any length, no byte beyond */
    SOW_CLAUSE_SOURCE = 12,     /* prog takes its bytes from any address in RAM, aligned or not */
    SOW_CLAUSE_SPAN = 13,       /* one prog of several granules, wherever it begins */
    SOW_CLAUSE_BOUNDARY = 14,   /* one prog or read across a page boundary */
    SOW_CLAUSE_REWRITE = 15,    /* a second prog of a granule is refused and changes nothing */
    SOW_CLAUSE_ALIGNMENT = 16,  /* parts of granules and pages are refused and nothing changes */
    SOW_CLAUSE_NEIGHBOUR = 17,  /* erasing a page leaves the pages beside it */
    SOW_CLAUSE_ALIAS = 18,      /* every byte of the regions has a place of its own */
    SOW_CLAUSE_OTHERS = 19,     /* nothing outside the two regions changes */
    SOW_CLAUSE_PERSISTENCE = 20, /* what was programmed is there after a reset */
    SOW_CLAUSES_ = 21
};

struct sow_selftest_report {
    /* Filled in by the caller. */
    uint32_t (*tick)(void *user); /* any clock that counts up, for the times below; gets port->user; may be NULL */
    uint8_t after_reset;          /* 1: this is known to be the second call, so the first half must be there */

    uint8_t clause;    /* enum sow_selftest_clause: the one that is broken */
    uint8_t want, got; /* a byte that differs, where bytes were compared */
    int code;          /* what the callback returned, where that was wrong */
    uint32_t addr;     /* where */
    uint32_t pages;    /* tested */

    /* The longest of each, in ticks; 0 without a tick. Of the first half only. */
    uint32_t erase_page, prog_page, prog_granule, read_page;
};

/* Returns SOW_MORE when the first half holds: reset the device (power off, if possible) and call again; SOW_OK
 * when both do; -SOW_CAUSE_FLASH_IO when report->clause does not. Which half it is follows from the flash: a port
 * that loses its content at a reset answers SOW_MORE for ever, unless after_reset is set. Stack: about 300 bytes. */
int sow_port_selftest(const struct sow_port *port, const struct sow_map *map, struct sow_selftest_report *report);

/* A clause in words, with what is usually wrong; "" for an unknown one. */
const char *sow_selftest_text(uint8_t clause);

#ifdef __cplusplus
}
#endif
#endif
