/* A device on an emulated flash, a server that makes bundles and fragments, and checks. */
#ifndef KIT_H
#define KIT_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sow_core.h"
#include "sow_flash_emu.h"

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        checks++;                                                                                  \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, context, #cond);                \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

extern unsigned long checks;
extern char context[200]; /* what is being tried, for a failed check */

#define IMAGE_MAX 300000u
#define BLOCK_MAX 310000u

struct bundle {
    uint8_t image[IMAGE_MAX]; /* the new image */
    uint32_t image_size;
    uint8_t block[BLOCK_MAX]; /* manifest, payload, padding */
    uint32_t block_size;      /* without padding */
    struct sow_session session;
};

struct layout {
    uint32_t page, granule, slot, download, journal, boot, scratch;
    uint8_t erase_value;
};

struct kit {
    struct sow_flash_emu flash;
    struct sow_port port;
    struct sow_map map;
    struct sow_identity identity;
    struct sow_config config;
    struct sow_core core;
    uint8_t *arena;
    uint32_t arena_size;
    void *memory;
    uint8_t old[IMAGE_MAX];
    uint32_t old_size;
    int consent; /* answer of the consent callback */
    uint8_t consent_cause;
    unsigned consents[4];
    unsigned resets;
};

uint32_t rnd(uint32_t *state); /* xorshift */
void put(uint8_t *p, uint32_t v, unsigned n); /* n bytes, little endian */

void kit_open(struct kit *k, const struct layout *l, uint32_t old_size, uint32_t seed);
void kit_close(struct kit *k);
int kit_start(struct kit *k); /* sow_boot, sow_core_open */
int kit_work(struct kit *k);  /* until something other than SOW_MORE */

/* A MCUboot image of that size. */
void make_image(uint8_t *image, uint32_t size, uint32_t version, uint32_t seed);

/* Bundle of an image made of the old one by some edits (patch) or alone (full), as fragments of that size. */
void make_bundle(struct bundle *b, const struct kit *k, uint8_t codec, uint32_t size, uint32_t sequence,
                 uint8_t frag_size, uint8_t matrix);
/* The same in two halves, for any payload that makes b->image of the old one: what the manifest says of them, and,
 * once the caller has added how to decode it, signature and session. */
void begin_bundle(struct bundle *b, const struct kit *k, uint8_t codec, uint32_t version, uint32_t sequence,
                  const uint8_t *payload, uint32_t size);
void end_bundle(struct bundle *b, const struct kit *k, uint32_t sequence, uint8_t frag_size, uint8_t matrix);

void refit(struct bundle *b, uint8_t frag_size, uint8_t matrix); /* new fragments of the same bundle */
void sign(struct bundle *b);        /* after a change to the manifest: signature that the test port accepts */
void set_mic(struct bundle *b, const struct kit *k); /* session MIC, after a change */

/* Fragment n of the block, coded if n > nb_frag. */
void make_fragment(const struct bundle *b, uint16_t n, uint8_t *out);

#endif
